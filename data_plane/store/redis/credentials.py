"""Logins to the store that change while the process runs: a password file, or a provider of your own."""

import importlib
from pathlib import Path
from typing import Any, cast

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

Login = tuple[str] | tuple[str, str]
"""What AUTH takes: a password, or a user and a password."""


class PasswordFile(CredentialProvider):
    """The password in a file, as it is at each login; ``username`` is the ACL user, if there is one."""

    def __init__(self, path: Path, username: str | None) -> None:
        self._path = path
        self._username = username

    def get_credentials(self) -> Login:
        """Read the file."""
        password = self._path.read_text().strip()
        if not password:
            raise ValueError("the file is empty")
        return (password,) if self._username is None else (self._username, password)


class Guarded(CredentialProvider):
    """A provider whose faults are failed logins, which are tried again, and never end the process.

    The message names the fault's type alone: its text may hold a secret.
    """

    def __init__(self, provider: CredentialProvider) -> None:
        self._provider = provider

    def get_credentials(self) -> Login:
        """The login of this moment. Raises redis-py's ``AuthenticationError``."""
        try:
            return _login(self._provider.get_credentials())
        except Exception as error:
            raise AuthenticationError(f"no credentials for the store: {type(error).__name__}") from error

    async def get_credentials_async(self) -> Login:
        """The same, without blocking where the provider does not."""
        try:
            return _login(await self._provider.get_credentials_async())
        except Exception as error:
            raise AuthenticationError(f"no credentials for the store: {type(error).__name__}") from error


def load_provider(name: str) -> CredentialProvider:
    """What ``module:callable`` makes. Raises ``ValueError`` where there is no such thing, or it is no provider."""
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}") from None
    if not isinstance(made, CredentialProvider):
        raise ValueError(f"{name} made no CredentialProvider of redis-py")  # noqa: TRY004  a wrong setting
    return made


def _login(given: Any) -> Login:
    if not isinstance(given, tuple) or len(given) not in {1, 2} or not all(isinstance(part, str) for part in given):
        raise TypeError("a provider answers (password,) or (user, password)")
    return cast("Login", given)
