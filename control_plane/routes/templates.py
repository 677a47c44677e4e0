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
    segments = template[1:].split("/")
    parameters = [segment for segment in segments if PARAMETER.fullmatch(segment)]
    if len(set(parameters)) != len(parameters):
        return "names a parameter twice"
    return next((fault for fault in map(_segment_fault, segments) if fault is not None), None)


def _segment_fault(segment: str) -> str | None:
    if segment in {"", ".", ".."}:
        return "must hold no empty segment (//, or / at the end) and no dot segment"
    if PARAMETER.fullmatch(segment) or LITERAL.fullmatch(segment):
        return None
    if "{" in segment or "}" in segment:
        return f"{segment!r}: a parameter is a whole segment, such as {{id}}"
    return f"{segment!r} holds characters that a path segment cannot, or percent-encoding"


def route_shape(method: str, template: str) -> str:
    """What two templates that match the same requests have in common: parameters without their names."""
    return f"{method} {PARAMETER.sub('{}', template)}"
