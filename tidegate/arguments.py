"""What a person gives the commands, looked at before it is sent: addresses, tokens, what goes into headers."""

import os
from pathlib import Path
from typing import Annotated

import typer


def server_url(value: str) -> str:
    """An address that can be asked, as it was given; anything else is a ``typer.BadParameter``."""
    import httpx

    try:
        url = httpx.URL(value)
        usable = url.scheme in {"http", "https"} and bool(url.host) and (url.port or 0) < 2**16
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise typer.BadParameter("must be http://host:port or https://host:port")
    return value


def utf8_text(value: str | None) -> str | None:
    """The text, unless the shell handed over bytes that are none."""
    if value is not None and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter("is not UTF-8") from None
    return value


def header_text(value: str | None) -> str | None:
    """A text that can go into a header, which is one line."""
    if value is not None and not value.isprintable():  # nor are bytes that are no UTF-8
        raise typer.BadParameter("must be one line of printable characters")
    return value


def admin_token(path: Path | None) -> str:
    """The token in the file, else the one in ``TIDEGATE_ADMIN_TOKEN``."""
    if path is None:
        token, source = os.environ.get("TIDEGATE_ADMIN_TOKEN", "").strip(), "TIDEGATE_ADMIN_TOKEN"
    else:
        source = f"--token-file {path}"
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise typer.BadParameter(f"{source} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise typer.BadParameter(f"{source} holds no token: it is no text") from None
        if not token:
            raise typer.BadParameter(f"{source} is empty")
    if not token:
        raise typer.BadParameter("set TIDEGATE_ADMIN_TOKEN, or give --token-file")
    return _as_token(token, source)


def gateway_token() -> str | None:
    """The token in ``TIDEGATE_GATEWAY_TOKEN``, for nodes that want one."""
    token = os.environ.get("TIDEGATE_GATEWAY_TOKEN", "").strip()
    return _as_token(token, "TIDEGATE_GATEWAY_TOKEN") if token else None


def _as_token(token: str, source: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise typer.BadParameter(f"{source} holds no token: a token is one line of ASCII characters")
    return token


LOCAL_CONTROL_PLANE = "http://127.0.0.1:8000"
ControlPlaneUrl = Annotated[
    str,
    typer.Option(envvar=["TIDEGATE_URL", "TIDEGATE_CONTROL_PLANE_URL"], callback=server_url, help="The control plane."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar="TIDEGATE_ADMIN_TOKEN_FILE", help="A file with a token; else TIDEGATE_ADMIN_TOKEN."),
]
