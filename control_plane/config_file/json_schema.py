"""The JSON Schema of the file, which ships beside this module so that editors can complete and check."""

import json
import sys
from importlib import resources

from control_plane.config_file.schemas import ConfigFile

NAME = "tidegate.schema.json"


def made() -> str:
    """The schema as the models say it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
        "title": "tidegate.yaml",
    }
    return json.dumps(schema, indent=2) + "\n"


def shipped() -> str:
    """The schema as it ships; a test holds it against :func:`made`."""
    return resources.files("control_plane.config_file").joinpath(NAME).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(made())
