"""Point cloud files: which program or library reads which ending. Coordinates stay as exact as they were written."""

from __future__ import annotations

import io
import logging
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.archives import check_archive
from omnibind_core.modalities.pictures import read_array
from omnibind_core.modalities.point_cloud.columns import read_bin
from omnibind_core.modalities.point_cloud.text import read_ptx, read_text
from omnibind_core.optional import require

_log = logging.getLogger(__name__)
SURFACE_POINTS = 16384  # drawn on a mesh: twice what the finest preset takes
_CHUNK = 1_000_000  # points that are unpacked at once
_LAS_RECORD, _LAS_LATER = 54, 60  # bytes of the head of a record before the points, and behind them
_LAZ_TABLE = struct.Struct("<q")  # where the table of the compressed chunks is
_LAZ_CHUNK, _LAZ_DENSE = 50_000, 8  # points that are compressed together, and at most in a byte: usual are 0.3
_PLY_BYTES = {"short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8} | {
    f"{kind}{bits}": bits // 8 for kind in ("int", "uint", "float") for bits in (16, 32, 64)
}  # of the types with more than one
_Y_IS_UP = (".glb", ".gltf")  # by their specification


def read(path: Path) -> NDArray[Any]:
    """Reads a file with one of the endings of :data:`READERS`: ``[N, 3 or more]``, or structured with x, y and z.

    Of a mesh, :data:`SURFACE_POINTS` points are drawn on its surface, everywhere equally dense, always the same ones.
    Nothing is scaled: the unit is the file's own. glTF, whose y is up by its specification, is turned to z up.

    Raises:
        InvalidInputError: The file is of another format, truncated, or says that it holds more than it does.
        MissingDependencyError: The library that reads the format is not installed.
    """
    return READERS[path.suffix.lower()](path)


def _read_npy(path: Path) -> NDArray[Any]:
    return read_array(path, "a point cloud file")


def _read_npz(path: Path) -> NDArray[Any]:
    check_archive(path, "an .npz archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "points" in archive:
                points: NDArray[Any] = archive["points"]
                return points
            found = f"an archive with {', '.join(archive) or 'no arrays'}"
    except Exception as error:  # a damaged file makes NumPy, zipfile and zlib raise almost anything
        raise InvalidInputError(str(path), f"a file that NumPy cannot read ({error})", "an .npz archive") from error
    raise InvalidInputError(str(path), found, "an array 'points' [N, 3]")


def _read_las(path: Path) -> NDArray[np.float64]:
    laspy = require("laspy", f"Reading {path.suffix} files")
    if path.suffix.lower() == ".laz":
        require("lazrs", "Reading .laz files")
    expected = "a complete LAS or LAZ file"
    _check_las(path, expected)
    try:
        with _quiet("laspy"), laspy.open(path, laz_backend=laspy.LazBackend.Lazrs) as file:
            count = file.header.point_count
            parts = [np.stack([chunk.x, chunk.y, chunk.z], axis=1) for chunk in file.chunk_iterator(_CHUNK)]
    except InvalidInputError:
        raise
    except Exception as error:  # laspy and its decoder have many
        raise InvalidInputError(str(path), f"a file that laspy cannot read ({_words(error)})", expected) from error
    points = np.concatenate(parts) if parts else np.empty((0, 3))
    if len(points) < count:
        raise InvalidInputError(str(path), f"{len(points)} points of {count}", expected)
    return points


def _check_las(path: Path, expected: str) -> None:
    """Refuses a header that claims more than the file holds: the library goes through all of it, or ends the process.

    Facts of the format: ASPRS, "LAS Specification 1.4 - R15"; that of compressed points: Isenburg, "LASzip".
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(375).ljust(375, b"\0")
        length, start, records, kind, item, old = struct.unpack_from("<HIIBHI", header, 94)
        is_1_4 = header[24:26] >= b"\x01\x04"
        count = struct.unpack_from("<Q", header, 247)[0] if is_1_4 else old
        later, more = struct.unpack_from("<QI", header, 235) if is_1_4 else (0, 0)
        file.seek(min(start, size))
        chunks = file.read(_LAZ_TABLE.size) if kind & 0x80 else b""
        pieces, table = 0, 0
        if len(chunks) == _LAZ_TABLE.size and 0 <= (table := _LAZ_TABLE.unpack(chunks)[0]) <= size - 8:
            file.seek(table)
            pieces = struct.unpack("<II", file.read(8))[1]
    packed = bool(kind & 0x80)
    wanted = [
        (f"{records} records of {_LAS_RECORD} bytes", length + records * _LAS_RECORD, start),
        (f"{more} records of {_LAS_LATER} bytes", later + more * _LAS_LATER if more else 0, size),
        (f"{count} points of {item} bytes", start + (0 if packed else count * item), size),
        (f"{count} compressed points", count if packed else 0, _LAZ_CHUNK + _LAZ_DENSE * size),
        (f"{pieces} compressed chunks", pieces if packed else 0, size),
    ]
    for found, least, held in wanted:
        if least > held:
            raise InvalidInputError(str(path), f"a header of {found} in {size} bytes", expected)


def _read_pcd(path: Path) -> NDArray[np.float64]:
    _check_pcd(path)
    open3d = require("open3d", "Reading .pcd files")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(str(path))
    if cloud.is_empty():
        raise InvalidInputError(str(path), "no points that open3d can read", "a point cloud file")
    return np.asarray(cloud.points)


def _check_pcd(path: Path) -> None:
    """Refuses a file that holds less than its header says: the library would return what was in memory before."""
    data = path.read_bytes()
    match = re.search(rb"^DATA\s+(\w+)[^\n]*\n", data, re.MULTILINE)
    header = (
        dict(re.findall(r"^(\w+) +(.+?)\s*$", data[: match.start()].decode("latin-1"), re.MULTILINE)) if match else {}
    )
    expected = "a complete PCD file"
    try:
        sizes = [int(size) for size in header["SIZE"].split()]
        counts = [int(count) for count in header.get("COUNT", " ".join("1" * len(sizes))).split()]
        step, points = sum(size * count for size, count in zip(sizes, counts, strict=True)), int(header["POINTS"])
    except (KeyError, ValueError) as error:
        raise InvalidInputError(str(path), f"a file without the header of a PCD ({error})", expected) from error
    assert match is not None  # else there were no sizes
    body = memoryview(data)[match.end() :]
    kind = match[1]
    if kind == b"ascii":
        held = sum(bool(line.strip()) for line in bytes(body).splitlines())
    elif kind == b"binary":
        held = len(body) // max(step, 1)
    else:
        packed, unpacked = np.frombuffer(body[:8], "<u4") if len(body) >= 8 else (0, 0)
        held = int(unpacked) // max(step, 1) if packed <= len(body) - 8 else 0
    if held < points:
        raise InvalidInputError(str(path), f"a header of {points} points above {held}", expected)


def _read_mesh(path: Path) -> NDArray[np.float64]:
    trimesh = require("trimesh", f"Reading {path.suffix} files")
    expected = "a complete file with points or a surface"
    if path.suffix.lower() in (".ply", ".off"):
        (_check_ply if path.suffix.lower() == ".ply" else _check_off)(path)
    try:
        with _quiet("trimesh"):
            points = np.asarray(_of_mesh(trimesh, path, expected), np.float64)
    except InvalidInputError:
        raise
    except Exception as error:  # of many types, from many parsers, and of faces without their vertices
        found = f"a file that trimesh cannot read ({_words(error)})"
        raise InvalidInputError(str(path), found, expected) from error
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1) if path.suffix.lower() in _Y_IS_UP else points


def _of_mesh(trimesh: Any, path: Path, expected: str) -> NDArray[Any]:
    """Points on the surfaces in a file, or those in it if there are none."""
    options: dict[str, Any] = {"process": False, "skip_materials": True}
    if path.suffix.lower() == ".glb":  # from memory, which gives no more than there is, whatever a length claims
        options |= {"file_type": "glb", "resolver": trimesh.resolvers.FilePathResolver(path)}
        parts = trimesh.load_scene(io.BytesIO(path.read_bytes()), **options).dump()
    else:
        parts = trimesh.load_scene(path, **options).dump()
    surfaces = [part for part in parts if len(getattr(part, "faces", ()))]
    if surfaces:
        surface = trimesh.util.concatenate(surfaces)
        if not np.isfinite(surface.vertices).all() or not surface.area > 0:
            raise InvalidInputError(str(path), "a surface without area, or that is not finite", expected)
        points: NDArray[Any] = trimesh.sample.sample_surface(surface, SURFACE_POINTS, seed=0)[0]
        extents = " x ".join(f"{extent:.3g}" for extent in surface.extents)
        _log.debug("%s: %d points on a surface of %s, in the file's unit", path, len(points), extents)
        return points
    clouds = [part.vertices for part in parts if hasattr(part, "vertices")]
    if not clouds:
        raise InvalidInputError(str(path), "neither points nor a surface", expected)
    return np.concatenate(clouds)


def _check_ply(path: Path) -> None:
    """Refuses a header that claims more than the file holds before anything is made room for."""
    data = path.read_bytes()
    head, _, body = data.partition(b"end_header")
    least, count = 0, 0
    is_text = re.search(rb"^format\s+ascii", head, re.MULTILINE) is not None
    for words in map(bytes.split, head.splitlines()):
        if words[:1] == [b"element"] and len(words) > 2 and words[2].isdigit():
            count = int(words[2])
            least += count if is_text else 0
        elif words[:1] == [b"property"] and len(words) > 2 and not is_text:
            kind = words[2 if words[1] == b"list" else 1].decode("latin-1")  # of a list, its length
            least += count * _PLY_BYTES.get(kind, 1)
    held = sum(bool(line.strip()) for line in body.splitlines()) if is_text else len(body) - 1
    if held < least:
        found = f"a header of at least {least} {'lines' if is_text else 'bytes'} above {held}"
        raise InvalidInputError(str(path), found, "a complete PLY file")


def _check_off(path: Path) -> None:
    """Refuses one whose surfaces end before their number in the header: the library takes those that are there."""
    lines = (line.partition(b"#")[0] for line in path.read_bytes().splitlines())
    _, _, content = b"\n".join(lines).partition(b"OFF")
    rows = [row for row in content.splitlines() if row.strip()]
    first = rows[0].split() if rows else []
    counts = [int(word) for word in first if word.isdigit() and len(word) < 20]  # that of edges may be missing
    if len(counts) < 2:
        return
    if (held := len(rows) - 1) < (least := counts[0] + counts[1]):
        raise InvalidInputError(str(path), f"a header of {least} lines above {held}", "a complete OFF file")
    vertex, surface = rows[counts[0]].split(), rows[least].split()
    if counts[0] and len(vertex) < 3:
        raise InvalidInputError(str(path), f"a last corner of {len(vertex)} numbers", "a complete OFF file")
    if counts[1] and (not surface[0].isdigit() or len(surface[0]) > 9 or len(surface) <= int(surface[0])):
        words = b" ".join(surface)[:40].decode("latin-1")
        raise InvalidInputError(str(path), f"a last surface '{words}'", "its number of corners, and these")


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Without what a library logs: the error that it raises says it, too."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


READERS: Mapping[str, Callable[[Path], NDArray[Any]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".bin": read_bin,
    ".pcd": _read_pcd,
    ".ply": _read_mesh,
    ".las": _read_las,
    ".laz": _read_las,
    ".xyz": read_text,
    ".txt": read_text,
    ".csv": read_text,
    ".pts": read_text,
    ".ptx": read_ptx,
    ".off": _read_mesh,
    ".obj": _read_mesh,
    ".stl": _read_mesh,
    ".glb": _read_mesh,
    ".gltf": _read_mesh,
}
