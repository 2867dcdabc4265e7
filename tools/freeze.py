"""Writes ``requirements/constraints*.txt`` for this virtual environment: every package that pip added on its own.

Run in a fresh environment of each distribution: ``.venv/bin/python tools/freeze.py``. What is none of ROS's packages is
the same for all, and comes from the default one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
DEFAULT = "jazzy"
# CUDA builds of torch bring these in versions of their own; pip and our own package are never pinned.
UNPINNED = re.compile(r"(nvidia|cuda|triton|torch|pip|omnibind)\b")


def canonical(name: str) -> str:
    """Returns a package name in the spelling of the index: lower case, single hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned_directly() -> set[str]:
    """Returns the names that the requirement files pin themselves."""
    files = (file for file in REQUIREMENTS.glob("*.txt") if not file.stem.startswith(("constraints", "robot")))
    lines = (line for file in files for line in file.read_text().splitlines())
    return {canonical(line.partition("==")[0]) for line in lines if "==" in line and not line.startswith("#")}


def installed_by_pip(package: Distribution) -> bool:
    """Tells packages that pip installed from metadata that some wheels carry of other packages."""
    built_from_source = package.read_text("installed-files.txt") is not None  # by an old pip, which then signs nothing
    return built_from_source or (package.read_text("INSTALLER") or "").strip() == "pip"


def write(name: str, title: str, pins: Mapping[str, str]) -> None:
    """Writes one of the files, sorted by name."""
    lines = (f"{package}=={pins[package]}\n" for package in sorted(pins))
    (REQUIREMENTS / name).write_text(f"# Versions of {title}. Written by tools/freeze.py.\n" + "".join(lines))


def main() -> None:
    """Writes the pins of this environment's distribution, and of the default one those of everything else."""
    direct = pinned_directly()
    found = {canonical(p.metadata["Name"]): p.version for p in distributions() if installed_by_pip(p)}
    pins = {name: found[name] for name in set(found) - direct if not UNPINNED.match(name)}
    distribution = next(name.split("-")[1] for name in found if re.fullmatch(r"ros-\w+-rclpy", name))
    ros = {name: version for name, version in pins.items() if name.startswith("ros-")}
    write(f"constraints-{distribution}.txt", f"what ros-{distribution}.txt pulls in", ros)
    if distribution == DEFAULT:
        rest = {name: version for name, version in pins.items() if name not in ros}
        write("constraints.txt", "the packages that the other requirement files pull in", rest)


if __name__ == "__main__":
    main()
