"""Reads the variables of a TensorFlow SavedModel (a "tensor bundle") without TensorFlow.

A bundle is two files: ``variables.index``, a LevelDB-style sorted table from variable names to entries, and
``variables.data-00000-of-00001``, the raw little-endian tensors. Formats: TensorFlow's ``tensor_bundle.proto`` and
``lib/io/format.h``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import WeightsError

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_FLOAT32 = 1  # DT_FLOAT in TensorFlow's types.proto


class _Entry(NamedTuple):
    """The fields of a ``BundleEntryProto`` that are needed."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The base-128 number at a position, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol-buffer message: numbers (also fixed 32 and 64 bit) and byte strings."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        piece = message[at : at + size]
        if len(piece) != size:
            raise ValueError("field cut short")
        at += size
        yield number, piece if wire == 2 else int.from_bytes(piece, "little")


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one table block; keys share prefixes with their predecessors."""
    block = table[offset : offset + size]
    if len(block) != size or table[offset + size] != 0:
        raise ValueError("block cut short or compressed")
    end = size - 4 * (1 + int.from_bytes(block[-4:], "little"))  # restart points: only needed for searching
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int = 0) -> tuple[int, int, int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _entry(message: bytes) -> _Entry:
    values: dict[int, int] = {}
    shape: list[int] = []
    for number, value in _fields(message):
        if number == 2 and isinstance(value, bytes):  # TensorShapeProto, repeated field 2: Dim, field 1: size
            dims = [dict(_fields(dim)) for key, dim in _fields(value) if key == 2 and isinstance(dim, bytes)]
            shape = [size for dim in dims if isinstance(size := dim.get(1, 0), int)]
        elif isinstance(value, int):
            values[number] = value
    return _Entry(values.get(1, 0), tuple(shape), values.get(3, 0), values.get(4, 0), values.get(5, 0))


def _entries(table: bytes) -> Iterator[tuple[str, _Entry]]:
    if table[-8:] != _MAGIC:
        raise ValueError("the magic number at the end is missing")
    footer = table[-_FOOTER_BYTES:]
    _, _, at = _handle(footer)  # the meta-index block comes first
    offset, size, _ = _handle(footer, at)
    for _, handle in _block(table, offset, size):
        start, length, _ = _handle(handle)
        for key, value in _block(table, start, length):
            if key:  # the empty key holds the header
                yield key.decode(), _entry(value)


def read_bundle(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Reads all float32 variables of a bundle.

    Args:
        folder: The ``variables`` folder of a SavedModel.

    Returns:
        Arrays by checkpoint key, for example ``layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE``. They share
        one read-only buffer.

    Raises:
        WeightsError: A file is missing, cut short, corrupt, or split into several shards.
    """
    index, shard = folder / "variables.index", folder / "variables.data-00000-of-00001"
    try:
        data = shard.read_bytes()
        entries = dict(_entries(index.read_bytes()))
    except OSError as error:
        raise WeightsError(f"cannot read the tensor bundle {folder}: {error}") from error
    except (ValueError, IndexError) as error:
        raise WeightsError(f"{index} is not an intact tensor bundle index: {error}") from error
    arrays = {}
    for name, entry in entries.items():
        if entry.dtype != _FLOAT32:
            continue
        if entry.shard != 0 or entry.size != 4 * int(np.prod(entry.shape)) or entry.offset + entry.size > len(data):
            raise WeightsError(f"{shard} ({len(data)} bytes) does not hold '{name}' as its index says: {entry}")
        count = entry.size // 4
        arrays[name] = np.frombuffer(data, "<f4", count, entry.offset).reshape(entry.shape)
    return arrays
