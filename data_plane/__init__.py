"""The data plane: decision nodes. Pure rules in ``domain``, use cases in ``services``, technology in ``adapters``."""
