"""Settings from the environment; an error names the setting and never shows its value."""

from typing import TypeVar

import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings

S = TypeVar("S", bound=BaseSettings)


def from_environment(settings: type[S]) -> S:
    """The settings; where some are missing or wrong, one line each on standard error and exit code 2."""
    try:
        return settings()
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            message = problem["msg"].removeprefix("Value error, ")
            # what two settings together make wrong has no place of its own: its message names them
            place = f"{prefix}{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
            typer.echo(f"{place}{message}", err=True)
        raise typer.Exit(2) from None
