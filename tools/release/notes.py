"""Release notes: the part of CHANGELOG.md that belongs to a version."""

import re

HEADING = re.compile(r"^## (?:\[?(?P<name>[^\]\s]+)\]?)(?P<rest>.*)$", re.MULTILINE)
UNRELEASED = "Unreleased"


def release_notes(changelog: str, version: str) -> str:
    """The version's own section, or ``Unreleased`` as long as it has none. Raises ``ValueError`` for neither."""
    sections = _sections(changelog)
    body = sections.get(version, sections.get(UNRELEASED))
    if not body:
        raise ValueError(f"CHANGELOG.md has no section for {version}, and nothing under {UNRELEASED}")
    return f"# Tidegate {version}\n\n{body}\n"


def _sections(changelog: str) -> dict[str, str]:
    headings = list(HEADING.finditer(changelog))
    ends = [*(heading.start() for heading in headings[1:]), len(changelog)]
    return {
        heading["name"]: changelog[heading.end() : end].strip() for heading, end in zip(headings, ends, strict=True)
    }
