"""Files whose values are in another unit than that of the raw form."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import DataError, InvalidInputError

THERMAL, TOUCH = modalities.get("thermal"), modalities.get("touch")
HEADER = "id,modality,source,path,label,split,group,scale\n"


def pressure() -> np.ndarray:
    """kPa."""
    return np.linspace(0, 36, 64).reshape(8, 8)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_pressure_of_any_unit_becomes_a_share_of_the_full_scale(dtype: type, tmp_path: Path) -> None:
    unit = 1000 if dtype is np.int32 else 1  # Pa as whole numbers
    np.save(tmp_path / "a.npy", (pressure() * unit).astype(dtype))
    with pytest.raises(InvalidInputError):
        TOUCH.load(tmp_path / "a.npy")
    loaded = TOUCH.load_scaled(tmp_path / "a.npy", 255 / (40 * unit))
    assert loaded.dtype == np.float32 and np.abs(loaded - pressure() / 40).max() < 0.001
    beyond = TOUCH.load_scaled(tmp_path / "a.npy", 255 / (18 * unit))  # saturated
    assert beyond.max() == 1 and np.abs(beyond[0] - pressure()[0] / 18).max() < 0.001


def test_counts_become_temperatures(tmp_path: Path) -> None:
    celsius = np.linspace(-5, 45, 64).reshape(8, 8)
    cv2.imwrite(str(tmp_path / "a.tif"), ((celsius + 273.15) * 100).round().astype(np.uint16))
    assert np.abs(THERMAL.load_scaled(tmp_path / "a.tif", 0.01, -273.15) - celsius).max() < 0.01


def test_colours_have_no_scale(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="in colours, expected a picture with one value a pixel"):
        TOUCH.load_scaled(tmp_path / "a.png", 2.0)


def test_a_table_of_samples_has_scales(tmp_path: Path) -> None:
    np.save(tmp_path / "kpa.npy", pressure())
    np.save(tmp_path / "kelvin.npy", np.full((8, 8), 29315, np.uint16))
    rows = ["a,touch,mat,kpa.npy,cup,train,,6.375", "b,thermal,lepton,kelvin.npy,cup,train,,0.01 -273.15"]
    rows += [
        'c,thermal,lepton,"kelvin.npy#1,2,4,3",cup,train,,"0.01,-273.15"',
        "d,thermal,lepton,kelvin.npy,cup,train,,",
    ]
    (tmp_path / "samples.csv").write_text(HEADER + "\n".join(rows) + "\n")
    source = FolderSource(tmp_path)
    touch, thermal, part, counts = (source.load(sample) for sample in source.samples())
    assert np.abs(touch - pressure() / 40).max() < 0.001
    assert thermal == pytest.approx(20, abs=1e-3)
    assert part.shape == (3, 4) and part == pytest.approx(20, abs=1e-3)
    assert counts.dtype == np.uint16
    assert [source.is_plain(sample) for sample in source.samples()] == [False, False, False, True]
    assert not source.inspect().broken
    (tmp_path / "samples.csv").write_text(HEADER + "a,touch,mat,kpa.npy,cup,train,,kPa\nb,image,c,a.png,cup,train,,2\n")
    with pytest.raises(DataError, match=r"(?s)line 2: scale 'kPa', expected a number.*line 3: scale '2', but values"):
        FolderSource(tmp_path)
