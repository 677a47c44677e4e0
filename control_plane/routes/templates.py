"""Path templates such as ``/api/users/{id}``: which are sound, and which two are the same route."""

import re

MAX_LENGTH = 512
PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]{0,63}\}")
# RFC 3986 pchar without percent-encoding: nodes match decoded paths, and encoded slashes match nothing
LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")


def template_fault(template: str) -> str | None:
    """What is wrong with a path template, or ``None``."""
    if not template.startswith("/") or len(template) > MAX_LENGTH:
        return f"must begin with / and have at most {MAX_LENGTH} characters"
    if template == "/":
        return None
    parameters: set[str] = set()
    for segment in template[1:].split("/"):
        if segment in {"", ".", ".."}:
            return "must hold no empty segment (//, or / at the end) and no dot segment"
        if PARAMETER.fullmatch(segment):
            if segment in parameters:
                return f"names {segment} twice"
            parameters.add(segment)
        elif "{" in segment or "}" in segment:
            return f"{segment!r}: a parameter is a whole segment, such as {{id}}"
        elif not LITERAL.fullmatch(segment):
            return f"{segment!r} holds characters that a path segment cannot, or percent-encoding"
    return None


def route_shape(method: str, template: str) -> str:
    """What two templates that match the same requests have in common: parameters without their names."""
    return f"{method} {PARAMETER.sub('{}', template)}"
