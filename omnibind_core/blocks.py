"""Rows of numbers, computed once and kept by address: files of many rows, written whole and checked when read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import math
import os
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from omnibind_core.errors import DataError
from omnibind_core.files import clear, write_atomically

_logger = logging.getLogger(__name__)
_ROWS = 256
"""Of a block, or what makes its last batch whole; a killed writer loses fewer."""
_DAY = 86400.0  # s


def address(*parts: str) -> str:
    """What a row is found by: 32 hexadecimal digits of everything that it depends on."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def unwritable(folder: Path, error: Exception) -> DataError:
    """Says where nothing can be kept, and why."""
    return DataError(f"cannot write the cache {folder} (OMNIBIND_CACHE names another place): {error}")


class Blocks:
    """The rows in a folder, all of one shape.

    A file holds some rows, their addresses and a checksum, and is never changed: several processes may read and write
    at once. One that is damaged is removed, which the log tells, and its rows are missing.

    Args:
        folder: Created when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place: dict[str, tuple[Path, int]] = {}
        self._whole: set[Path] = set()
        self._new: dict[str, NDArray[np.float32]] = {}
        clear(folder)
        for left in folder.glob(".*"):  # as former versions left
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _DAY:
                    left.unlink()
        for path in sorted(folder.glob("[!.]*.safetensors")):
            with contextlib.suppress(FileNotFoundError):  # removed by another process
                try:
                    with safe_open(path, "numpy") as file:
                        self._note(path, file.get_tensor("addresses"))
                except (SafetensorError, OSError):
                    self._drop(path)

    def missing(self, addresses: Sequence[str]) -> list[int]:
        """Places of the addresses that have no row, or had one in a damaged file; of equal ones the first."""
        for path in sorted({self._place[one][0] for one in addresses if one in self._place} - self._whole):
            self._check(path)
        first = {one: place for place, one in reversed(list(enumerate(addresses)))}
        return sorted(place for one, place in first.items() if one not in self._place and one not in self._new)

    def add(self, addresses: Sequence[str], rows: NDArray[np.float32]) -> None:
        """Takes rows ``float32 [len(addresses), ...]``, and writes a file when there are many; see :meth:`flush`."""
        self._new.update(zip(addresses, rows, strict=True))
        if len(self._new) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added."""
        if not self._new:
            return
        packed = np.array([list(bytes.fromhex(one)) for one in self._new], np.uint8)
        rows = np.stack(list(self._new.values()))
        path = self.folder / f"{address(*self._new)}.safetensors"
        try:
            with write_atomically(path) as temporary:
                save_file({"addresses": packed, "rows": rows}, temporary, {"crc32": _checksum(packed, rows)})
        except (SafetensorError, OSError) as error:
            raise unwritable(self.folder, error) from error
        self._note(path, packed)
        self._whole.add(path)
        self._new.clear()

    def gather(self, addresses: Sequence[str]) -> NDArray[np.float32]:
        """The rows of addresses of which none is missing.

        Args:
            addresses: One at least.

        Raises:
            DataError: There is no room for them.

        Returns:
            Read-only ``float32 [len(addresses), ...]``, mapped from a file without a name, so that more rows than fit
            into the memory can be used.
        """
        self.flush()
        wanted: dict[Path, list[tuple[int, int]]] = defaultdict(list)
        for place, one in enumerate(addresses):
            path, row = self._place[one]
            wanted[path].append((place, row))
        out: NDArray[np.float32] | None = None
        for path, pairs in wanted.items():
            with safe_open(path, "numpy") as file:
                rows = file.get_tensor("rows")
            if out is None:
                shape = (len(addresses), *rows.shape[1:])
                try:
                    with self._nameless() as file:
                        if hasattr(os, "posix_fallocate"):  # else a full disk kills the process; macOS lacks it
                            os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
                        out = np.memmap(file, np.float32, "r+", shape=shape)
                except OSError as error:
                    raise unwritable(self.folder, error) from error
            places, chosen = zip(*pairs, strict=True)
            out[list(places)] = rows[list(chosen)]
        assert out is not None
        out.flags.writeable = False
        return out

    def _nameless(self) -> Any:
        """A file that goes with this process: in the folder, or where files may be if that is another user's."""
        try:
            return tempfile.TemporaryFile(dir=self.folder)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return tempfile.TemporaryFile()

    def _note(self, path: Path, packed: NDArray[Any]) -> None:
        for row, one in enumerate(packed):
            self._place[one.tobytes().hex()] = (path, row)

    def _check(self, path: Path) -> None:
        try:
            with safe_open(path, "numpy") as file:
                packed, rows, told = file.get_tensor("addresses"), file.get_tensor("rows"), file.metadata()
            if (told or {}).get("crc32") == _checksum(packed, rows):
                self._whole.add(path)
                return
        except (SafetensorError, OSError):
            pass
        self._drop(path)

    def _drop(self, path: Path) -> None:
        _logger.warning("%s is damaged: what it held is computed anew", path)
        self._place = {one: place for one, place in self._place.items() if place[0] != path}
        with contextlib.suppress(OSError):
            path.unlink()


class Progress:
    """Logs every tenth of the way: readable in a terminal and in a log file.

    Args:
        what: What is done, in words.
        unit: What is counted.
    """

    def __init__(self, what: str, unit: str) -> None:
        self.what = what
        self.unit = unit
        self.told = 0

    def __call__(self, done: int, total: int) -> None:
        """To be called with the number of things that are done, and that of all."""
        tenth = 10 * done // total
        if tenth > self.told:
            self.told = tenth
            _logger.info("%s: %d %% of %d %s", self.what, 10 * tenth, total, self.unit)


def _checksum(packed: NDArray[Any], rows: NDArray[Any]) -> str:
    return str(zlib.crc32(np.ascontiguousarray(rows).data, zlib.crc32(packed.data)))
