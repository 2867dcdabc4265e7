"""Recovery of truncated MCAP files (power loss, full disk): they are read up to their last whole record.

An MCAP file ends in a summary and a footer; ``rosbags`` refuses files without them. Here a footer is put behind the
last whole record while the file is read, so that nothing is copied and the file stays as it is.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path, PurePath
from typing import Any

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _MESSAGE, _CHUNK, _DATA_END = 0x02, 0x05, 0x06, 0x0F  # opcodes, see the MCAP specification
_RECORD = struct.Struct("<BQ")  # opcode and length
# Without a summary and checksums.
_END = _RECORD.pack(_DATA_END, 4) + bytes(4) + _RECORD.pack(_FOOTER, 20) + bytes(20) + _MAGIC


def is_truncated(path: Path) -> bool:
    """Whether a bag has an MCAP file with whole messages, but without its footer."""
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path] if path.suffix == ".mcap" else []
    return any(_file_is_truncated(file) for file in files)


def _file_is_truncated(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
            file.seek(-min(len(_MAGIC), path.stat().st_size), os.SEEK_END)
            if begin != _MAGIC or file.read() == _MAGIC:
                return False
            return _whole_length(file, path.stat().st_size) > 0
    except OSError:  # whoever reads it will say so
        return False


class RecoveredPath:
    """A bag's folder or file for the reader of ``rosbags``, in which truncated files have a footer.

    Args:
        path: The folder or file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """The file, with a footer if it has none."""
        return (
            io.BufferedReader(_RecoveredFile(self._path))
            if _file_is_truncated(self._path)
            else self._path.open(*args, **kwargs)
        )

    def __truediv__(self, name: str | PurePath) -> RecoveredPath:
        return RecoveredPath(self._path / name)

    def __str__(self) -> str:
        return str(self._path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)


class _RecoveredFile(io.RawIOBase):
    """The whole records of an MCAP file, and a footer."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._whole = _whole_length(self._file, path.stat().st_size)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._whole + len(_END)}[whence]
        self._place = max(origin + offset, 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place < self._whole:
            self._file.seek(self._place)
            data = self._file.read(min(len(buffer), self._whole - self._place))
        else:
            begin = self._place - self._whole
            data = _END[begin : begin + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _whole_length(file: Any, size: int) -> int:
    """Bytes up to the end of the last whole record with messages, 0 without any; only indices follow, if anything."""
    place, whole = len(_MAGIC), 0
    while place + _RECORD.size <= size:
        file.seek(place)
        opcode, length = _RECORD.unpack(file.read(_RECORD.size))
        place += _RECORD.size + length
        if place > size or opcode == _DATA_END:
            break
        if opcode in (_MESSAGE, _CHUNK):
            whole = place
    return whole
