"""Prints requirements/constraints.txt for this virtual environment: every package that pip added on its own.

Run in a fresh environment: ``.venv/bin/python tools/freeze.py > requirements/constraints.txt``.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
# CUDA builds of torch bring these in versions of their own; pip and our own package are never pinned.
UNPINNED = re.compile(r"(nvidia|cuda|triton|torch|pip|omnibind)\b")


def canonical(name: str) -> str:
    """Returns a package name in the spelling of the index: lower case, single hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned_directly() -> set[str]:
    """Returns the names that the requirement files pin themselves."""
    files = (file for file in REQUIREMENTS.glob("*.txt") if file.name not in ("constraints.txt", "robot.txt"))
    lines = (line for file in files for line in file.read_text().splitlines())
    return {canonical(line.partition("==")[0]) for line in lines if "==" in line and not line.startswith("#")}


def installed_by_pip(package: Distribution) -> bool:
    """Tells packages that pip installed from metadata that some wheels carry of other packages."""
    built_from_source = package.read_text("installed-files.txt") is not None  # by an old pip, which then signs nothing
    return built_from_source or (package.read_text("INSTALLER") or "").strip() == "pip"


def main() -> None:
    """Prints the pins, sorted by name."""
    direct = pinned_directly()
    pins = {canonical(p.metadata["Name"]): p.version for p in distributions() if installed_by_pip(p)}
    print("# Versions of the packages that the other requirement files pull in. Written by tools/freeze.py.")
    for name in sorted(set(pins) - direct):
        if not UNPINNED.match(name):
            print(f"{name}=={pins[name]}")


if __name__ == "__main__":
    main()
