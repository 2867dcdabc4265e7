"""What NumPy's archives claim is known, and bounded, before anything is unpacked."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import archives


def claiming(shape: str) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (1, 3)})
    header = buffer.getvalue()
    words = header[10:].replace(b"(1, 3)", shape.encode()).rstrip()
    return header[:10] + words.ljust(len(header) - 11)[: len(header) - 11] + b"\n"


@pytest.mark.parametrize("modality", ["point_cloud", "event"])
def test_an_archive_that_claims_more_than_it_holds_is_refused(modality: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", claiming("(250000000000, 3)") + bytes(12))
    with pytest.raises(InvalidInputError, match=r"points\.npy of 3000000000000 bytes in \d+, expected an archive that"):
        modalities.get(modality).load(path)


@pytest.mark.parametrize("modality", ["point_cloud", "event"])
def test_an_archive_that_unpacks_to_more_than_the_bound_is_refused(
    modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 1 << 22)
    np.savez_compressed(tmp_path / "a.npz", points=np.zeros((1 << 20, 3), np.float32))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match=r"unpacks to 12583040 bytes, expected at most 4194304 bytes"):
            modalities.get(modality).load(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
