"""Exported parts of a model, as they are read without torch: which there are, and that they are what was written.

Beside every part lies what torch gave for some made-up input when it was exported, so that damage, and an engine that
computes something else here, are noticed by whoever opens it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.config import from_json
from omnibind_core.encoders.inference.engines import Run, open_network
from omnibind_core.errors import DataError, WeightsError
from omnibind_core.files import inside

MANIFEST = "export.json"
"""Of a folder of exported parts."""
FILES = (MANIFEST, "*.onnx", "*.xml", "*.bin", "*.pt2", "*.npz", "*.safetensors")
"""What such a folder holds."""
FORMAT = 2
"""Of what the manifest says, and of what the parts take and give."""
LEAST_COSINE = 0.9999
"""Between what an engine computes and what torch does, for every row, unless it computes in whole numbers."""
_LOOSE = 0.05  # by which a cosine of whole numbers may be less on another processor, or on other made-up input
_BLOCK = 2**20  # bytes that are read at once
_CODE = (
    "encoders",
    "fusion",
    "calibration.py",
    "labels.py",
    "model/recogniser.py",
)  # what decides which numbers a network gives


@functools.cache
def code_digest() -> str:
    """Hash of the code that networks are made and exported with: another one is another version."""
    root, digest = Path(__file__).parents[2], hashlib.sha256(str(FORMAT).encode())
    for name in _CODE:
        place = root / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of exported parts.

    Raises:
        WeightsError: There is none, or it is of another version of this package.
    """
    try:
        found = from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        version, _ = found["format"], found["parts"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / MANIFEST}: no list of exported parts: {error}") from error
    if version != FORMAT:
        raise WeightsError(f"{folder} was exported by another version (format {version}, expected {FORMAT})")
    return dict(found)


def sealed(folder: Path, part: str, file: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Keeps made-up input and what torch gave for it beside a part, and the hashes of all its files.

    Args:
        folder: Of the part.
        part: Its name.
        file: Its file.
        arrays: Inputs and outputs by name.

    Returns:
        What the manifest says of them.
    """
    np.savez(folder / f"{part}.npz", allow_pickle=False, **dict(arrays))
    return {"sha256": {path.name: _hash(path) for path in _files(folder / file)}}


def part_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    """The file of a part, as the manifest names it: in its folder, or in one beside it, which models may share.

    Raises:
        WeightsError: It is elsewhere.
    """
    name = str(entry["file"])
    place, name = (folder.parent, name[3:]) if name.startswith("../") else (folder, name)
    try:
        return inside(place, name, str(folder / MANIFEST))
    except DataError as error:
        raise WeightsError(str(error)) from error


def unharmed(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the files of a part are those that were written."""
    try:
        file = part_file(folder, entry)
        return {path.name: _hash(path) for path in _files(file)} == entry["sha256"]
    except (OSError, KeyError, TypeError, WeightsError):
        return False


def open_part(folder: Path, name: str, entry: Mapping[str, Any], engines: Sequence[str], count: int | None) -> Run:
    """Opens a part in the first engine that gives what torch gave.

    Args:
        folder: Of the manifest.
        name: Of the part.
        entry: What the manifest says of it.
        engines: To try, in turn.
        count: Of threads, see :func:`omnibind_core.encoders.inference.engines.open_network`.

    Raises:
        WeightsError: It is damaged, or no engine does; says what was found.
    """
    if not unharmed(folder, entry):
        raise WeightsError(f"{folder / str(entry.get('file', name))} is not as it was written")
    try:
        problem, least = "there is no engine", least_cosine(entry)
        _ = entry["compared"].items(), entry["inputs"], entry["outputs"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder / MANIFEST} does not describe '{name}': {error!r}") from error
    for engine in engines:
        if "least_cosine" not in entry["compared"].get(engine, {"least_cosine": 1.0}):
            problem = f"{engine}: {entry['compared'][engine].get('error')}"
            continue
        try:
            file = part_file(folder, entry)
            run = open_network(engine, file, count=count)
            with np.load(file.parent / f"{name}.npz") as probe:
                found = run({key: probe[key] for key in entry["inputs"]})
                cosine = min(compared(rows, probe[key])[0] for rows, key in zip(found, entry["outputs"], strict=True))
        except Exception as error:  # whatever an engine may raise
            problem = f"{engine}: {str(error) or type(error).__name__}".splitlines()[0]
            continue
        if cosine >= least:
            return run
        problem = f"{engine}: the least cosine to torch is {cosine:.5f}, expected at least {least:.4f}"
    raise WeightsError(f"{folder / entry['file']} does not run here: {problem}")


def least_cosine(entry: Mapping[str, Any]) -> float:
    """Between what a part is to give for made-up input and what torch gave, by its entry in a manifest."""
    if entry["precision"] != "int8":
        return LEAST_COSINE
    return min(float(row["least_cosine"]) for row in entry["compared"].values() if "least_cosine" in row) - _LOOSE


def compared(found: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, float]:
    """The least cosine of rows, -1 where shapes or places of NaN differ, and the greatest difference of numbers."""
    if found.shape != wanted.shape or not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
        return -1.0, float("inf")
    a, b = (np.nan_to_num(rows.astype(np.float64)).reshape(-1, rows.shape[-1]) for rows in (found, wanted))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.where(lengths > 0, (a * b).sum(axis=1) / np.maximum(lengths, 1e-300), (a == b).all(axis=1) * 1.0)
    return float(cosines.min()), float(np.abs(a - b).max())


def _files(file: Path) -> Iterator[Path]:
    """A part's file, and those beside it that it needs: of its name, with another ending."""
    return iter(sorted(file.parent.glob(f"{file.name.removesuffix(file.suffix)}.*")))


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
