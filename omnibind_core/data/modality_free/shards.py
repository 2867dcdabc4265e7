"""Export as tar files in the WebDataset convention: for training on a cluster, or to hand on a data set as it is.

A combination is the files ``000000012.image.jpg``, ``000000012.audio.flac``, ``000000012.text.txt`` and
``000000012.json``, next to each other in one of ``train-000000.tar``, ``train-000001.tar``, ... So the webdataset
library streams it, from a disk or over a network, and
:class:`omnibind_core.data.modality_free.dataset.ModalityFree` opens the folder like a built one.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from scipy.io import wavfile

from omnibind_core.data.modality_free.dataset import (
    BUILD,
    INDEX,
    LABELS,
    REPLACED,
    SAMPLES,
    SAMPLES_PER_GROUP,
    Combination,
    ModalityFree,
    as_sample,
    read_part,
)
from omnibind_core.errors import ConfigError
from omnibind_core.files import write_folder_atomically
from omnibind_core.modalities import Events, Sound
from omnibind_core.optional import require


def export(data: ModalityFree, out: Path, shard_size: int = 1000) -> list[str]:
    """Writes a data set with the data of all samples that are combined. The same data set gives the same bytes.

    Files that only their source can read (crops, foreign formats) are written in a common format without loss.

    Args:
        data: A data set.
        out: Folder to write; it appears when it is whole.
        shard_size: Combinations in a tar file; a split's last one may hold fewer.

    Returns:
        Names of the tar files.

    Raises:
        ConfigError: ``shard_size`` is below 1.
        DataError: ``out`` holds something else, or a source is gone.
        InvalidInputError: A sample's file cannot be read.
    """
    if shard_size < 1:
        raise ConfigError(f"shard size is {shard_size}, expected 1 or more")
    with write_folder_atomically(out, REPLACED, alone=True) as folder:
        for name in (LABELS, INDEX):
            (folder / name).write_bytes((data.folder / name).read_bytes())
        # The sources stay where they are: everything is in the tar files.
        settings = {**data.settings, "root": ".", "exported": {"shard_size": shard_size}}
        (folder / BUILD).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        shards = _Shards(data, folder, shard_size)
        for number, combination in enumerate(data.combinations()):
            shards.add(number, combination)
        shards.close()
        _write_samples(folder / SAMPLES, data, shards.places)
        return shards.names


class _Shards:
    """Writes combinations one after the other.

    Attributes:
        names: Tar files so far.
        places: Where each sample stands first: (tar file, first byte, number of bytes, suffix, SHA-256).
    """

    def __init__(self, data: ModalityFree, folder: Path, size: int) -> None:
        self.names: list[str] = []
        self.places: dict[str, dict[str, Any]] = {}
        self._data = data
        self._folder = folder
        self._size = size
        self._tar: tarfile.TarFile | None = None
        self._split = ""
        self._in_split = 0

    def add(self, number: int, combination: Combination) -> None:
        """Adds a combination; those of one split come together."""
        if combination.split != self._split:
            self._split, self._in_split = combination.split, 0
        if self._in_split % self._size == 0:
            self.close()
            self.names.append(f"{self._split}-{self._in_split // self._size:06d}.tar")
            self._tar = tarfile.open(self._folder / self.names[-1], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._in_split += 1
        key = f"{number:09d}"
        for modality, name in combination.samples.items():
            data, suffix = self._read(name)
            start = self._write(f"{key}.{modality}{suffix}", data)
            if name not in self.places:
                digest = hashlib.sha256(data).hexdigest()
                place = {"shard": self.names[-1], "offset": start, "suffix": suffix}
                self.places[name] = {**place, "size": len(data), "sha256": digest}
        if combination.text is not None:
            self._write(f"{key}.text.txt", combination.text.encode())
        facts = {"concept": combination.concept, "split": combination.split, "score": round(combination.score, 4)}
        self._write(f"{key}.json", json.dumps({**facts, "samples": dict(combination.samples)}).encode())

    def close(self) -> None:
        """Ends the current tar file."""
        if self._tar is not None:
            self._tar.close()

    def _write(self, name: str, data: bytes) -> int:
        """Adds a file, and returns the position of its first byte."""
        assert self._tar is not None
        header = tarfile.TarInfo(name)  # owner, time and mode are the same everywhere
        header.size = len(data)
        self._tar.addfile(header, io.BytesIO(data))
        return int(self._tar.offset) - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    def _read(self, name: str) -> tuple[bytes, str]:
        """The data of a sample in a form that its modality reads, and their suffix."""
        row = self._data.row(name)
        if not row.get("shard"):
            sample = as_sample(row)
            source = self._data.source(row["collection"])
            if not source.is_plain(sample):
                return encode(sample.modality, source.load(sample))
        place = self._data.place(row)
        return read_part(*place), row.get("suffix") or place[0].suffix.lower()


def encode(modality: str, raw: Any) -> tuple[bytes, str]:
    """A raw item as the bytes of a file that its modality reads back without loss, and the file's suffix."""
    file = io.BytesIO()
    if isinstance(raw, Events):
        arrays = {name: getattr(raw, name) for name in ("x", "y", "t", "p", "width", "height")}
        np.savez_compressed(file, **arrays)
        return file.getvalue(), ".npz"
    if isinstance(raw, Sound):
        wavfile.write(file, raw.sample_rate, raw.samples)
        return file.getvalue(), ".wav"
    if modality == "point_cloud":
        np.savez_compressed(file, points=raw)
        return file.getvalue(), ".npz"
    if raw.dtype in (np.uint8, np.uint16):
        picture = raw[..., ::-1] if raw.ndim == 3 else raw
        return cv2.imencode(".png", picture)[1].tobytes(), ".png"
    np.save(file, raw)
    return file.getvalue(), ".npy"


def _write_samples(path: Path, data: ModalityFree, places: dict[str, dict[str, Any]]) -> None:
    """The sample table with the samples that are combined, and where they are."""
    pa, pc = require("pyarrow", ""), require("pyarrow.compute", "")
    names = pa.array(sorted(places), pa.string())
    table = pa.concat_tables(group.filter(pc.is_in(group["id"], names)) for group in data.sample_tables())
    types = {
        "size": pa.int64(),
        "sha256": pa.string(),
        "shard": pa.string(),
        "offset": pa.int64(),
        "suffix": pa.string(),
    }
    table = table.drop_columns([name for name in types if name in table.column_names])
    for name, dtype in types.items():
        column = pa.array([places[key][name] for key in table["id"].to_pylist()], dtype)
        table = table.append_column(name, column)
    require("pyarrow.parquet", "").write_table(table, path, row_group_size=SAMPLES_PER_GROUP, compression="zstd")
