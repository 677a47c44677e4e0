"""Where a request carries its API key."""

from collections.abc import Iterable


def key_in(headers: Iterable[tuple[str, str]]) -> str | None:
    """The key in ``X-API-Key``, else in ``Authorization: Bearer``; ``None`` without one."""
    bearer: str | None = None
    for name, value in headers:
        lowered = name.lower()
        if lowered == "x-api-key" and value:
            return value
        if lowered == "authorization" and value[:7].lower() == "bearer ":
            bearer = value[7:].strip() or None
    return bearer
