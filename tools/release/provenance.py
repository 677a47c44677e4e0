"""Where artefacts come from, as an in-toto statement with SLSA's predicate. It is unsigned: a claim, no proof."""

import json
from collections.abc import Iterable
from pathlib import Path

from tools.release.checksums import sha256
from tools.release.sources import Sources


def provenance(sources: Sources, artefacts: Iterable[Path]) -> str:
    """The statement as JSON: digests of the artefacts, the commit, whether files differed from it, the builders."""
    pins = sources.directory / "requirements" / "build.txt"
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": sha256(path)}} for path in sorted(artefacts)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:tidegate:make-release:1",
                "externalParameters": {
                    "SOURCE_DATE_EPOCH": sources.epoch_s,
                    "differsFromCommit": sources.changed,
                },
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": sources.commit}},
                    {"name": "requirements/build.txt", "digest": {"sha256": sha256(pins)}},
                ],
            },
            "runDetails": {"builder": {"id": "urn:tidegate:make-release"}},
        },
    }
    return json.dumps(statement, indent=2) + "\n"
