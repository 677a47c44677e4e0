"""The SBOM (CycloneDX 1.6): the artefacts, and the Python packages that the wheels need, as they are pinned."""

import re
import tomllib
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.release.checksums import sha256

PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^ ;\\]+)", re.MULTILINE)
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "tidegate release")
OURS = "Apache-2.0"


def bill_of_materials(sources: Path, version: str, artefacts: list[Path], epoch_s: int) -> str:
    """The document as JSON. Its serial number follows from what it lists, so that equal releases have equal bills."""
    required = _pins(sources / "requirements" / "runtime.txt")
    optional = _optional(sources, required)
    root = Component(name="tidegate", version=version, type=ComponentType.APPLICATION, bom_ref="tidegate")
    root.licenses.add(LicenseFactory().make_from_string(OURS))
    bom = Bom()
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(epoch_s, UTC)
    packages = {
        name: _package(name, pinned, ComponentScope.OPTIONAL if name in optional else ComponentScope.REQUIRED)
        for name, pinned in sorted((required | optional).items())
    }
    files = {path.name: _artefact(path, version) for path in artefacts}
    for component in (*packages.values(), *files.values()):
        bom.components.add(component)
    for name, component in packages.items():
        bom.register_dependency(component, [packages[needed] for needed in _needs(name, packages.keys())])
    for name, component in files.items():
        bom.register_dependency(component, [packages[needed] for needed in _asked_for(name, sources, packages.keys())])
    bom.register_dependency(root, files.values())
    listed = "\n".join(
        sorted(f"{one.name} {one.version} {[str(h.content) for h in one.hashes]}" for one in bom.components)
    )
    bom.serial_number = uuid.uuid5(NAMESPACE, listed)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _pins(path: Path) -> dict[str, str]:
    return {match["name"]: match["version"] for match in PIN.finditer(re.sub(r"\[[^]]*\]", "", path.read_text()))}


def _optional(sources: Path, required: dict[str, str]) -> dict[str, str]:
    """What the extra `local` adds."""
    project = tomllib.loads((sources / "pyproject.toml").read_text())["project"]
    pinned = _pins(sources / "requirements" / "local.txt")
    names = {canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["local"]}
    return {name: pinned[name] for name in names if name not in required}


def _package(name: str, version: str, scope: ComponentScope) -> Component:
    made = Component(
        name=name, version=version, type=ComponentType.LIBRARY, scope=scope,
        bom_ref=f"pkg:pypi/{name}@{version}", purl=PackageURL("pypi", name=name, version=version),
    )  # fmt: skip
    try:
        about = metadata(name)
    except PackageNotFoundError:  # one for another platform
        return made
    expressions, texts = about.get_all("License-Expression") or [], about.get_all("License") or []
    said = [
        *expressions,
        *_classified(about.get_all("Classifier") or []),
        *(text for text in texts if "\n" not in text),
    ]
    if said:
        made.licenses.add(LicenseFactory().make_from_string(said[0]))
    return made


def _classified(classifiers: list[str]) -> list[str]:
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved ::")]
    return names if len(names) == 1 else []


def _artefact(path: Path, version: str) -> Component:
    made = Component(
        name=path.name, version=version, type=ComponentType.FILE, bom_ref=path.name, purl=_purl(path.name, version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256(path))],
    )  # fmt: skip
    made.licenses.add(LicenseFactory().make_from_string(OURS))
    return made


def _purl(name: str, version: str) -> PackageURL | None:
    if name.endswith((".whl", ".tar.gz")):
        return PackageURL("pypi", name=name.partition("-")[0].replace("_", "-"), version=version,
                          qualifiers={"file_name": name})  # fmt: skip
    return PackageURL("npm", name="tidegate-express", version=version) if "express" in name else None


def _needs(name: str, known: Collection[str]) -> set[str]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return set()
    return _named(lines, known)


def _asked_for(artefact: str, sources: Path, known: Collection[str]) -> set[str]:
    if not artefact.endswith((".whl", ".tar.gz")):
        return set()
    folder = sources / "clients" / "python" if artefact.startswith("tidegate_client") else sources
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    extra = project.get("optional-dependencies", {}).get("local", [])
    return _named([*project["dependencies"], *extra], known)


def _named(lines: list[str], known: Collection[str]) -> set[str]:
    """The names of requirements among those that are known; extras of others are left out."""
    wanted = [Requirement(line) for line in lines]
    names: set[str] = {
        canonicalize_name(one.name) for one in wanted if one.marker is None or "extra" not in str(one.marker)
    }
    return names & set(known)
