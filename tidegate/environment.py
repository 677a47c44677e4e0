"""Settings from the environment; an error names the setting and never shows its value."""

from collections.abc import Mapping
from typing import TypeVar

import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

S = TypeVar("S", bound=BaseSettings)


def from_environment(settings: type[S]) -> S:
    """The settings; where some are missing or wrong, one line each on standard error and exit code 2."""
    try:
        return settings()
    except ValidationError as error:
        for line in _lines(settings, error):
            typer.echo(line, err=True)
        raise typer.Exit(2) from None


def refusals(settings: type[BaseSettings], environment: Mapping[str, str]) -> list[str]:
    """The lines with which a process of this environment would end at its start; none where its settings are right."""
    source = EnvSettingsSource(settings)
    source.env_vars = {name.lower(): value for name, value in environment.items()}
    try:
        settings(_build_sources=((source,), {}))
    except ValidationError as error:
        return _lines(settings, error)
    return []


def _lines(settings: type[BaseSettings], error: ValidationError) -> list[str]:
    prefix = settings.model_config.get("env_prefix", "")
    return [
        # what two settings together make wrong has no place of its own: its message names them
        (f"{prefix}{str(problem['loc'][0]).upper()}: " if problem["loc"] else "")
        + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    ]
