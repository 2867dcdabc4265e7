"""Files that come with the packages: configs, weights, tables, templates. The one place that knows where they lie."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from omnibind_core.errors import DataError


def path(name: str, package: str = "omnibind_core") -> Path:
    """Where a packaged file or folder lies, whether it exists or not. Packages are always unpacked, never in a zip.

    Args:
        name: Path inside the package, for example ``"configs/train/lite.yaml"``.
        package: Import name of the package.
    """
    return Path(str(files(package).joinpath(name)))


def names(folder: str, suffix: str) -> tuple[str, ...]:
    """Names, without the suffix, of the files in a packaged folder, sorted.

    Args:
        folder: Path inside ``omnibind_core``, for example ``"configs/train"``.
        suffix: With its dot, for example ``".yaml"``.
    """
    return tuple(sorted(file.stem for file in path(folder).glob(f"*{suffix}")))


def shared(name: str, package: str) -> Path:
    """Where something lies that the repository has beside its packages, and an installed package in its ``share/``.

    Args:
        name: Path in the repository, for example ``"msg"``.
        package: Import name of the package that carries it.

    Raises:
        DataError: It is in neither place.
    """
    installed = path(f"share/{name}", package)
    beside = path("", package).parent / name
    for place in (installed, beside):
        if place.exists():
            return place
    raise DataError(f"{name} of the package {package} is neither {installed} nor {beside}: install the package again")
