"""What crosses between the parts, and nothing else: frozen types and the rules both sides must share."""
