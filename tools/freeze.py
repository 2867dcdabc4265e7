#!/usr/bin/env python3
"""Writes ``requirements/lock*.txt``: every package with its version and the hashes of its files, for
``pip install --require-hashes``.

The other requirement files say what is wanted; this adds what pip brought with it. Run it in a fresh environment of
each distribution, ``.venv/bin/python tools/freeze.py``, and in that of the documentation: what is none of ROS's
packages is the same for all distributions, and comes from the default one. ``--hashes`` keeps the versions, and only
asks for the hashes again. They come from the package index that pip uses; those of PyTorch's CPU builds from the index
of these where it can be reached, else those that are known stay.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

SETUP = runpy.run_path(str(Path(__file__).with_name("setup_env.py")))
SUPPORTED, TORCH_CPU_INDEX = SETUP["SUPPORTED"], SETUP["TORCH_CPU_INDEX"]
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
DEFAULT = "jazzy"
OWN = ("pip", "omnibind")  # never pinned
CUDA = re.compile(r"(nvidia|cuda|triton)\b")  # what a CUDA build of PyTorch brings
MACHINES = ("x86_64", "aarch64")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)
TORCH, CPU_LOCK = "torch", "lock-torch-cpu"

Pins = dict[str, str]


def pins_of(*names: str) -> Pins:
    """Version by package of requirement files, without ending."""
    texts = (REQUIREMENTS.joinpath(f"{name}.txt").read_text() for name in names)
    return {canonicalize_name(name): version for text in texts for name, version in PIN.findall(text)}


def installed_by_pip(package: Distribution) -> bool:
    """Tells packages that pip installed from metadata that some wheels carry of other packages."""
    built_from_source = package.read_text("installed-files.txt") is not None  # by an old pip, which then signs nothing
    return built_from_source or (package.read_text("INSTALLER") or "").strip() == "pip"


def installed() -> Pins:
    """Version by package of this environment, without build tags such as ``+cpu``."""
    found = {canonicalize_name(p.metadata["Name"]): p.version for p in distributions() if installed_by_pip(p)}
    return {name: version.partition("+")[0] for name, version in found.items() if name not in OWN}


def locked(found: Mapping[str, str]) -> dict[str, Pins]:
    """The pins of each lock file that this environment decides.

    Args:
        found: Version by package of the environment.
    """
    if "mkdocs" in found:
        return {"lock-docs": {name: version for name, version in found.items() if name != "setuptools"}}
    weights = pins_of("weights", "weights-lite2")
    rest = {name: version for name, version in found.items() if name not in weights}
    distribution = next(name.split("-")[1] for name in rest if re.fullmatch(r"ros-\w+-rclpy", name))
    ros = {name: version for name, version in rest.items() if name.startswith("ros-")}
    locks = {f"lock-{distribution}": ros}
    if distribution == DEFAULT:
        cuda = {name: version for name, version in rest.items() if CUDA.match(name)}
        locks |= {"lock-cuda": cuda} if cuda else {}
        locks["lock-torch"] = {TORCH: rest[TORCH]}
        locks["lock"] = {name: v for name, v in rest.items() if name not in {TORCH, *ros, *cuda}}
    return locks


def index_url() -> str:
    """The package index that pip uses."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return (os.environ.get("PIP_INDEX_URL") or configured or "https://pypi.org/simple").rstrip("/")


def ask(url: str) -> Any:
    """The page of a package, as the index's JSON."""
    request = urllib.request.Request(f"{url}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


class Release(NamedTuple):
    """What the index has of a version.

    Attributes:
        digests: SHA-256 of the files that may be installed, sorted.
        built: Whether some of our machines have to build it, for lack of a wheel.
    """

    digests: list[str]
    built: bool


def pythons_of(file: str, machine: str) -> set[int]:
    """The minor versions of Python that a wheel fits on Linux on a machine; empty if it is none."""
    try:
        tags = parse_wheel_filename(file)[3]
    except InvalidWheelFilename:
        return set()

    def fits(tag: Tag, minor: int) -> bool:
        if tag.platform != "any" and not re.fullmatch(rf"(many)?linux.*_{machine}", tag.platform):
            return False
        least = re.fullmatch(r"[cp][py]3(\d*)", tag.interpreter)
        pure = tag.interpreter.startswith("py") or tag.abi == "abi3"
        return least is not None and (int(least[1] or 0) <= minor if pure else int(least[1]) == minor)

    return {minor for _, minor in SUPPORTED if any(fits(tag, minor) for tag in tags)}


def release(index: str, package: str, version: str) -> Release:
    """What the index has of a version.

    Raises:
        LookupError: It has nothing that could be installed.
    """
    name = re.compile(rf"{re.sub('-', '[-_.]+', package)}-{re.escape(version)}(-|\.tar\.gz$)", re.IGNORECASE)
    files = {file["filename"]: file["hashes"]["sha256"] for file in ask(f"{index}/{package}")["files"]}
    files = {file: digest for file, digest in files.items() if name.match(file)}
    fitting = {file: [pythons_of(file, machine) for machine in MACHINES] for file in files}
    used = {digest for file, digest in files.items() if any(fitting[file]) or file.endswith(".tar.gz")}
    if not used:
        raise LookupError(f"{index} has no file of {package} {version} for Linux and Python 3")
    wheels = set().union(*(here for here, *_ in fitting.values()))
    return Release(sorted(used), wheels != {minor for _, minor in SUPPORTED})


def cpu_builds(version: str) -> dict[str, str]:
    """SHA-256 of PyTorch's CPU builds by tag, for example ``cp311-x86_64``; where they cannot be had, those known."""
    path = REQUIREMENTS / f"{CPU_LOCK}.txt"
    same = path.exists() and pins_of(CPU_LOCK).get(TORCH) == f"{version}+cpu"
    line = path.read_text().splitlines()[0] if same else ""
    builds = dict(re.findall(r"(cp3\d+-\w+)=([0-9a-f]{64})", line))
    try:
        with urllib.request.urlopen(f"{TORCH_CPU_INDEX}/{TORCH}/", timeout=10) as answer:
            page = unquote(answer.read().decode())
    except OSError as error:
        print(f"{TORCH_CPU_INDEX}: {error}; hashes of its builds are kept: {', '.join(builds) or 'none'}")
        return builds
    file = rf"{TORCH}-{re.escape(version)}\+cpu-(cp3\d+)-cp3\d+-\w*?({'|'.join(MACHINES)})\.whl"
    found = re.findall(rf"{file}#sha256=([0-9a-f]{{64}})", page)
    wanted = {f"cp{major}{minor}" for major, minor in SUPPORTED}
    return builds | {f"{tag}-{machine}": digest for tag, machine, digest in found if tag in wanted}


def write_cpu_builds(version: str) -> None:
    """Writes the lock file of PyTorch's CPU builds. Its first line tells set-up for which machines there is one."""
    builds = cpu_builds(version)
    known = " ".join(f"{tag}={digest}" for tag, digest in sorted(builds.items()))
    found = {TORCH: Release(sorted(builds.values()), False)}
    text = f"# CPU builds of PyTorch, by tools/freeze.py: {known}\n{rows({TORCH: f'{version}+cpu'}, found)}"
    (REQUIREMENTS / f"{CPU_LOCK}.txt").write_text(text)


def releases(index: str, pins: Mapping[str, str]) -> dict[str, Release]:
    """What the index has of packages, by name."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(pins, pool.map(lambda name: release(index, name, pins[name]), pins), strict=True))


def rows(pins: Mapping[str, str], found: Mapping[str, Release]) -> str:
    """The requirements with their hashes, sorted by name."""
    lines = (
        [f"{name}=={pins[name]}", *(f"    --hash=sha256:{digest}" for digest in found[name].digests)]
        for name in sorted(pins)
    )
    return "".join(" \\\n".join(parts) + "\n" for parts in lines)


TITLES = {
    "lock": "core.txt, build.txt and dev.txt, and what they pull in, without PyTorch and what lock-source.txt has",
    "lock-source": "Of the same, what has no wheel for some supported Python: built with the setuptools of lock.txt",
    "lock-torch": "PyTorch, the builds of the package index",
    "lock-cuda": "What a CUDA build of PyTorch pulls in",
    "lock-docs": "docs.txt and what it pulls in",
}


def write(name: str, pins: Mapping[str, str], found: Mapping[str, Release]) -> None:
    """Writes a lock file, sorted by name."""
    head = f"# {TITLES.get(name) or f'ros{name[4:]}.txt and what it pulls in'}. Written by tools/freeze.py.\n"
    (REQUIREMENTS / f"{name}.txt").write_text(head + rows(pins, found))
    print(f"{name}.txt: {len(pins)} packages")


def write_weights(name: str, index: str) -> None:
    """Gives the packages of a file of weights their hashes; its comments and versions stay."""
    path, pins = REQUIREMENTS / f"{name}.txt", pins_of(name)
    comments = [line for line in path.read_text().splitlines(keepends=True) if line.startswith("#")]
    path.write_text("".join(comments) + rows(pins, releases(index, pins)))


def main() -> int:
    """Writes what this environment decides, or the hashes of all."""
    parser = argparse.ArgumentParser(description="Write requirements/lock*.txt.")
    parser.add_argument("--hashes", action="store_true", help="keep the versions, ask for the hashes of all again")
    args = parser.parse_args()
    index = index_url()
    if args.hashes:
        locks = {path.stem: pins_of(path.stem) for path in REQUIREMENTS.glob("lock*.txt")}
        del locks[CPU_LOCK]
        locks["lock"] |= locks.pop("lock-source", {})
        for name in ("weights", "weights-lite2"):
            write_weights(name, index)
    else:
        locks = locked(installed())
    for name, pins in locks.items():
        found = releases(index, pins)
        if name == "lock":
            source = {package: pins[package] for package in pins if found[package].built}
            write("lock-source", source, found)
            pins = {package: version for package, version in pins.items() if package not in source}
        if name == "lock-torch":
            write_cpu_builds(pins[TORCH])
        write(name, pins, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
