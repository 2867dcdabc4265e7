#!/usr/bin/env python3
"""Audits the Python packages of this environment, and writes down what they are: ``make audit``.

Compares them with ``requirements/lock*.txt``, their files with the hashes that came with them, asks pip whether they
fit together and a database of advisories what is known against them. Writes ``sbom.json`` (CycloneDX) and
``licences.md``. Exit status: 0 nothing was found, 1 something was, 3 nothing was, but no advisories could be had.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPO / "requirements"
ADVISORIES = "https://api.osv.dev/v1/querybatch"  # OMNIBIND_ADVISORIES names another address that answers like it
FOUND, NO_ADVISORIES = 1, 3
_PATIENCE = 20.0  # s
_SHOWN = 10  # findings of a kind
_LONG = 80  # letters of a licence's name; what is longer is its text
_UNPINNED = {"pip", "setuptools", "omnibind"}  # what a virtual environment begins with, and our own

KINDS = {
    "not for commerce": re.compile(r"non-?\s?commercial|\bNC\b|research only|academic", re.IGNORECASE),
    "copyleft": re.compile(r"(?<!L)(?<!Lesser )\bA?GPL|Affero|(?<!Lesser )General Public License", re.IGNORECASE),
    "weak copyleft": re.compile(r"LGPL|Lesser General|\bMPL|Mozilla|\bEPL|Eclipse|CDDL|EUPL", re.IGNORECASE),
    "proprietary": re.compile(r"proprietary|\bEULA\b|nvidia", re.IGNORECASE),
}
"""What a licence is flagged as, by its words."""


def pins(names: Iterable[str]) -> dict[str, str]:
    """Version by package of requirement files."""
    texts = (REQUIREMENTS.joinpath(f"{name}.txt").read_text() for name in names)
    found = (re.findall(r"^([a-z0-9._-]+)==([^\s\\;]+)", text, re.MULTILINE) for text in texts)
    return {name: version for rows in found for name, version in rows}


def installed() -> dict[str, Distribution]:
    """The packages that pip installed, by name; some wheels carry the metadata of other packages."""
    marks = ("INSTALLER", "installed-files.txt")  # the latter by an old pip, of what it has built
    signed = (package for package in distributions() if any(package.read_text(mark) is not None for mark in marks))
    return {canonicalize_name(package.metadata["Name"]): package for package in signed}


# ---------------------------------------------------------------------------------------------------------- findings


def unlocked(packages: Mapping[str, str], wanted: Mapping[str, str], optional: Mapping[str, str]) -> Iterator[str]:
    """Tells how versions differ from the locked ones.

    Args:
        packages: Installed version by package.
        wanted: Locked version by package.
        optional: The same of what need not be there.
    """
    both = {**optional, **wanted}
    for name, version in sorted(packages.items()):
        if name in both and version.partition("+")[0] != both[name]:
            yield f"{name} {version} is installed, {both[name]} is locked"
        elif name not in both and name not in _UNPINNED:
            yield f"{name} {version} is installed, and in no lock file"
    yield from (f"{name} {wanted[name]} is locked, and not installed" for name in sorted(wanted.keys() - packages))


def altered(package: Distribution) -> Iterator[str]:
    """Tells which files of a package are not those that were in its wheel."""
    for file in package.files or ():
        if file.hash is None or file.suffix in (".cmake", ".pyc"):  # set-up corrects folders, Python compiles anew
            continue
        path = Path(str(file.locate()))
        try:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, file.hash.mode).digest()
        except OSError as error:
            yield f"{file} of {package.metadata['Name']} cannot be read: {error.strerror}"
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value.rstrip("="):
            yield f"{file} of {package.metadata['Name']} {package.version} is not what was in the wheel"


def misfits(lonely: Iterable[str]) -> list[str]:
    """What ``pip check`` finds.

    Args:
        lonely: Packages of which only files are used, so that what they require is not installed.
    """
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = [line for line in output.splitlines() if line != "No broken requirements found."]
    return [line for line in lines if canonicalize_name(line.split(" ", 1)[0]) not in set(lonely)]


def advisories(packages: Mapping[str, str], url: str) -> list[str]:
    """What is known against packages.

    Args:
        packages: Version by package.
        url: Address that answers like that of OSV.

    Raises:
        OSError: It cannot be reached.
        ValueError: It answers something else.
    """
    names = sorted(packages)
    asked = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": packages[name].partition("+")[0]} for name in names
    ]
    body = json.dumps({"queries": asked}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        results = json.load(answer)["results"]
    return [
        f"{name} {packages[name]}: {', '.join(one['id'] for one in result['vulns'])}"
        for name, result in zip(names, results, strict=True)
        if result.get("vulns")
    ]


# --------------------------------------------------------------------------------------------------------- documents


def licence(package: Distribution) -> str:
    """The licence that a package says it has; empty if it says none."""
    metadata = package.metadata
    given = [*metadata.get_all("License-Expression", []), *metadata.get_all("License", [])]
    classes = [row.rpartition(" :: ")[2] for row in metadata.get_all("Classifier", []) if row.startswith("License :: ")]
    said = next((line.strip() for text in given for line in text.splitlines() if line.strip()), "")
    if said.upper() in ("", "UNKNOWN") or len(said) > _LONG:
        said = ", ".join(name for name in classes if name != "OSI Approved")
    return said or of_ros(metadata["Name"])


def of_ros(name: str) -> str:
    """The licence of a package of ROS, which says it in its ``package.xml``; empty if it is none."""
    folder = re.sub(r"^ros-(jazzy-|kilted-)?", "", canonicalize_name(name)).replace("-", "_")
    file = Path(sys.prefix, "share", folder, "package.xml")
    if not file.is_file():
        return ""
    return ", ".join(row.text or "" for row in ElementTree.parse(file).iter("license"))


def flag(text: str) -> str:
    """What a licence has to be looked at for; empty if nothing."""
    if not text:
        return "unknown"
    return next((kind for kind, pattern in KINDS.items() if pattern.search(text)), "")


def licence_table(packages: Mapping[str, Distribution]) -> str:
    """The licences in Markdown, those with a flag first."""
    rows = []
    for name, package in packages.items():
        text = licence(package)
        rows.append((flag(text), name, package.version, text.replace("|", "/")))
    rows.sort(key=lambda row: (not row[0], row[0], row[1]))
    head = ["# Licences of the installed packages", "", "As their metadata say. Written by `make audit`.", ""]
    head += ["| package | version | licence | look at it |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {name} | {version} | {text} | {kind} |" for kind, name, version, text in rows), ""])


def bill(packages: Mapping[str, Distribution]) -> dict[str, Any]:
    """The bill of materials, CycloneDX 1.6."""

    def ref(name: str) -> str:
        return f"pkg:pypi/{name}@{packages[name].version.replace('+', '%2B')}"

    def needed(package: Distribution) -> list[str]:
        rows = [Requirement(text) for text in package.requires or ()]
        rows = [row for row in rows if row.marker is None or row.marker.evaluate({"extra": ""})]
        found = {canonicalize_name(row.name) for row in rows}
        return sorted(ref(name) for name in found if name in packages)

    names = sorted(packages)
    components = [
        {
            "type": "library",
            "bom-ref": ref(name),
            "name": name,
            "version": packages[name].version,
            "purl": ref(name),
            **({"licenses": [{"license": {"name": text}}]} if (text := licence(packages[name])) else {}),
        }
        for name in names
    ]
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "omnibind", "bom-ref": "omnibind"}},
        "components": components,
        "dependencies": [{"ref": ref(name), "dependsOn": needed(packages[name])} for name in names],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content))  # the same packages give the same file
    return {**content, "serialNumber": f"urn:uuid:{number}"}


# -------------------------------------------------------------------------------------------------------------- main


def tell(title: str, findings: Sequence[str]) -> bool:
    """Prints a line, and what was found. Returns whether anything was."""
    print(f"{title}: {f'{len(findings)} found' if findings else 'nothing found'}")
    for line in findings[:_SHOWN]:
        print(f"    {line}")
    if len(findings) > _SHOWN:
        print(f"    and {len(findings) - _SHOWN} more")
    return bool(findings)


def audit(out: Path, locks: Sequence[str], url: str) -> int:
    """Audits this environment.

    Args:
        out: Folder for the documents.
        locks: Names of the lock files that it was made from; none beside an installed ROS.
        url: Where advisories come from.

    Returns:
        The exit status.
    """
    packages = {name: package for name, package in installed().items() if name != "omnibind"}
    versions = {name: package.version for name, package in packages.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.json").write_text(json.dumps(bill(packages), indent=1) + "\n")
    (out / "licences.md").write_text(licence_table(packages))
    kinds = [kind for kind in (flag(licence(package)) for package in packages.values()) if kind]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "none to look at"
    print(f"{len(packages)} packages: {out}/sbom.json, {out}/licences.md (licences: {counts})")
    weights = pins(["weights"])
    optional = pins(["lock-cuda", "weights-lite2"])
    problems = False
    if locks:
        problems |= tell("versions against the lock files", [*unlocked(versions, pins(locks) | weights, optional)])
    problems |= tell("files against the hashes in their wheels", [row for p in packages.values() for row in altered(p)])
    problems |= tell("pip check", misfits([*weights, *optional]))
    try:
        problems |= tell(f"advisories of {url}", advisories(versions, url))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"advisories: NOT CHECKED, {url} cannot be used: {error}")
        return FOUND if problems else NO_ADVISORIES
    return FOUND if problems else 0


def main() -> int:
    """Runs the audit."""
    parser = argparse.ArgumentParser(description="Audit the packages of this environment.")
    parser.add_argument("--out", type=Path, default=Path("out/audit"), help="folder for the documents")
    args = parser.parse_args()
    names = [canonicalize_name(package.metadata["Name"]) for package in distributions()]
    ros = next((name.split("-")[1] for name in names if re.fullmatch(r"ros-\w+-rclpy", name)), "")
    locks = ("lock", "lock-source", "lock-torch", f"lock-{ros}") if ros else ()
    return audit(args.out, locks, os.environ.get("OMNIBIND_ADVISORIES") or ADVISORIES)


if __name__ == "__main__":
    sys.exit(main())
