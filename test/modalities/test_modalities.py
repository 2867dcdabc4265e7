"""What holds for every modality: the contract of ``modalities/base.py``, on real files where there are any."""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import Events, Role, Sound


def sample(name: str, seed: int = 0) -> Any:
    """A valid raw item."""
    rng = np.random.default_rng(seed)
    number = 5000
    return {
        "image": lambda: rng.integers(0, 256, (120, 160, 3), np.uint8),
        "text": lambda: "a red mug",
        "touch": lambda: rng.random((28, 50), np.float32),
        "thermal": lambda: (20 + 10 * rng.random((60, 80))).astype(np.float32),
        "event": lambda: Events(
            rng.integers(20, 60, number, np.uint16),
            rng.integers(30, 90, number, np.uint16),
            np.sort(rng.integers(0, 200_000, number, np.int64)),
            rng.integers(0, 2, number, np.uint8),
            128,
            128,
        ),
        "point_cloud": lambda: rng.standard_normal((3000, 3), np.float32),
        "audio": lambda: Sound((0.1 * rng.standard_normal(32000)).astype(np.float32), 16000),
    }[name]()


def same(a: Any, b: Any) -> bool:
    if is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return bool(np.array_equal(a, b))


EVERY = pytest.mark.parametrize("name", modalities.NAMES)
EVERY_PRESET = pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in modalities.NAMES for preset in modalities.get(name).presets]
)
EVERY_CORRUPTION = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in modalities.NAMES for kind in modalities.get(name).corruptions]
)


@EVERY
def test_attributes(name: str) -> None:
    modality = modalities.get(name)
    assert modality.name == name
    assert (modality.role is Role.TEACHER) == (name in ("image", "text"))
    assert modality.is_stream == (name in ("event", "audio")) == (modality.default_window > 0)
    assert modality.suffixes and modality.corruptions
    assert modality.needs.keys() <= set(modality.suffixes)
    assert all(suffix in modality.formats() for suffix in modality.suffixes)
    assert all(key == preset.name for key, preset in modality.presets.items())
    assert modality.preset() is next(iter(modality.presets.values()))


def test_formats_are_told_by_the_package_that_they_need() -> None:
    class Scan(type(modalities.get("image"))):
        suffixes = (".gif", ".jpg", ".heic", ".png", ".tif")
        needs: ClassVar = {".gif": "PIL", ".tif": "PIL", ".heic": "pillow_heif"}

    optional_packages = {"PIL": "pip install pillow", "open3d": "pip install open3d (and more)"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnibind_core.optional._INSTALL", optional_packages)
        assert Scan().formats() == ".jpg, .png; with pillow: .gif, .tif; with pillow_heif: .heic"
        assert modalities.get("point_cloud").formats().count("with open3d: .pcd") == 1


def test_texts_without_end_are_refused() -> None:
    text = modalities.get("text")
    assert text.check("x" * 2000, "speech") == "x" * 2000
    with pytest.raises(InvalidInputError, match=r"\[speech\] got a text of 2001 characters, expected at most 2000"):
        text.check("x" * 2001, "speech")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"smell.*image, text"):
        modalities.get("smell")
    with pytest.raises(ConfigError, match=r"no preset 'x'.*yamnet, imagebind"):
        modalities.get("audio").preset("x")
    with pytest.raises(ConfigError, match=r"no corruption 'x'.*gaussian"):
        modalities.get("image").corrupt(sample("image"), "x", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "preset", "resize"),
    [
        ("image", "efficientnet@260", 297),
        ("touch", "pressure@260", 297),
        ("thermal", "efficientnet@260", 297),
        ("event", "object_rgb@260", 297),
        ("point_cloud", "pictures@260", 297),
        ("image", "clip@336", 336),
    ],
)
def test_pictures_of_any_size(name: str, preset: str, resize: int) -> None:
    modality = modalities.get(name)
    chosen, plain = modality.preset(preset), modality.preset(preset.partition("@")[0])
    side = int(preset.partition("@")[2])
    assert chosen == replace(plain, name=preset, shape=(3, side, side), resize=resize)
    views = modality.process(modality.check(sample(name), "test"), chosen)
    assert views.shape[1:] == (3, side, side) and views.dtype == np.uint8


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'x'; it has efficientnet, clip"):
        modalities.get("image").preset("x@260")
    for preset in ("clip@", "clip@0", "clip@big", "clip@-3"):
        with pytest.raises(ConfigError, match=rf"'{preset}': the size is '.*', expected a number of pixels"):
            modalities.get("image").preset(preset)
    for name, preset in (("audio", "yamnet@64"), ("point_cloud", "unit_1024@260")):
        with pytest.raises(ConfigError, match=r"makes no square pictures"):
            modalities.get(name).preset(preset)


@EVERY_PRESET
def test_process_gives_what_the_preset_promises(name: str, preset: str) -> None:
    modality = modalities.get(name)
    chosen = modality.preset(preset)
    raw = modality.check(sample(name), "test")
    before = sample(name)
    views = modality.process(raw, chosen)
    assert views.shape[0] >= 1 and views.shape[1:] == chosen.shape
    assert views.dtype.kind == "U" if chosen.dtype == "str" else views.dtype == chosen.dtype
    assert views.flags.c_contiguous
    assert same(before, sample(name)) and same(raw, modality.check(before, "test"))  # the raw item is not changed
    assert np.array_equal(views, modality.process(raw, chosen))
    if views.dtype.kind == "f":
        assert np.isfinite(views).all()


@EVERY
def test_augment_is_random_valid_and_reproducible(name: str) -> None:
    modality = modalities.get(name)
    raw = modality.check(sample(name), "test")
    variants = [modality.augment(raw, np.random.default_rng(seed)) for seed in range(20)]
    assert same(raw, modality.check(sample(name), "test"))
    for seed, variant in enumerate(variants):
        assert same(variant, modality.augment(raw, np.random.default_rng(seed)))
        modality.process(modality.check(variant, "augmented"), modality.preset())
    assert not all(same(variants[0], variant) for variant in variants[1:])


@EVERY_CORRUPTION
def test_corrupt_is_valid_and_reproducible(name: str, kind: str) -> None:
    modality = modalities.get(name)
    raw = modality.check(sample(name), "test")
    damaged = modality.corrupt(raw, kind, np.random.default_rng(1))
    assert same(raw, modality.check(sample(name), "test"))
    assert not same(damaged, raw)
    assert same(damaged, modality.corrupt(raw, kind, np.random.default_rng(1)))
    modality.process(modality.check(damaged, kind), modality.preset())


@EVERY
def test_every_item_is_a_picture_for_people(name: str) -> None:
    modality = modalities.get(name)
    raw = modality.check(sample(name), "test")
    picture = modality.draw(raw, 120)
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    assert picture.std() > 1, "there is something to see"
    assert same(raw, modality.check(sample(name), "test"))
    assert np.array_equal(picture, modality.draw(raw, 120))
    if isinstance(raw, np.ndarray) and name != "point_cloud":
        assert picture.shape[:2] == raw.shape[:2]
    elif name != "event":
        assert picture.shape[0] == 120


def test_pictures_show_what_they_should() -> None:
    two = Events(*(np.array(values) for values in ([1, 2, 2], [0, 3, 3], [0, 5, 9], [1, 0, 1])), width=4, height=5)
    picture = modalities.get("event").draw(modalities.get("event").check(two, "test"))
    assert picture.shape == (5, 4, 3) and picture[0, 1].tolist() == [255, 0, 0] and picture[3, 2].tolist() == [0, 0, 0]
    assert (picture.reshape(-1, 3) == 255).all(axis=1).sum() == 18
    pressure = np.array([[0, 0.5], [1, 1]], np.float32)
    assert modalities.get("touch").draw(pressure)[:, :, 1].tolist() == [[0, 128], [255, 255]]
    tone = np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000).astype(np.float32)
    loudest = modalities.get("audio").draw(Sound(tone, 16000), 100).sum(axis=(1, 2)).argmax()
    assert loudest == pytest.approx(75, abs=2), "2 kHz of 8, from below"


@EVERY
def test_noise_leaves_nothing_of_an_item(name: str) -> None:
    modality = modalities.get(name)
    if not modality.is_sensor:
        assert name == "text"
        return
    raw = modality.check(sample(name), "test")
    noise = modality.noise_only(raw, np.random.default_rng(1))
    assert same(noise, modality.check(noise, "noise")) and not same(noise, raw)
    assert same(noise, modality.noise_only(raw, np.random.default_rng(1)))
    assert not same(noise, modality.noise_only(raw, np.random.default_rng(2)))
    assert same(raw, modality.check(sample(name), "test"))


@pytest.mark.parametrize("name", ["image", "touch", "thermal"])
def test_corruptions_of_pictures(name: str, rng: np.random.Generator) -> None:
    modality = modalities.get(name)
    raw = modality.check(np.full((40, 40), 50, np.uint8), "test")
    assert not modality.corrupt(raw, "blank", rng).any()
    assert (modality.corrupt(raw, "saturated", rng) == 255).all()
    assert np.array_equal(modality.corrupt(raw, "blurred", rng), raw)
    covered = modality.corrupt(raw, "occluded", rng) == 0
    assert covered.mean() == pytest.approx(0.49)
    assert modality.corrupt(raw, "gaussian", rng).std() > 20


@EVERY
def test_only_streams_are_joined(name: str) -> None:
    modality = modalities.get(name)
    if not modality.is_stream:
        with pytest.raises(TypeError, match=f"{name} comes in frames"):
            modality.join([(0, sample(name))], 0, 1.0)


@EVERY
@pytest.mark.parametrize("raw", [None, 3.5, [1, 2, 3], np.array(["a"]), np.array([None])])
def test_foreign_objects_are_refused(name: str, raw: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\[front\] got .*expected"):
        modalities.get(name).check(raw, "front")


@EVERY
def test_bad_files_are_refused(name: str, tmp_path: Path) -> None:
    modality = modalities.get(name)
    with pytest.raises(InvalidInputError, match="no such file"):
        modality.load(tmp_path / f"missing{modality.suffixes[0]}")
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(InvalidInputError, match=r"ending in '\.doc'"):
        modality.load(tmp_path / "a.doc")
    for suffix in modality.suffixes:
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(b"")
        with pytest.raises(InvalidInputError, match="empty file"):
            modality.load(path)
        libraries = {
            "open3d": (".pcd",),
            "laspy": (".las", ".laz"),
            "trimesh": (".ply", ".off", ".obj", ".stl", ".glb", ".gltf"),
        }
        if any(suffix in read and importlib.util.find_spec(library) is None for library, read in libraries.items()):
            continue
        path.write_bytes(bytes(range(128, 141)))
        with pytest.raises(InvalidInputError, match=f"bad{suffix}"):
            modality.load(path)


def test_real_files(shared_data: Path) -> None:
    """One training file of every source of every modality goes through load and the default preset."""
    with (shared_data / "samples.csv").open(newline="") as table:
        first = {row["source"]: row for row in reversed(list(csv.DictReader(table)))}
    assert {row["modality"] for row in first.values()} == set(modalities.NAMES) - {"text"}
    for row in first.values():
        modality = modalities.get(row["modality"])
        views = modality.process(modality.load(shared_data / row["path"]), modality.preset())
        assert views.shape[1:] == modality.preset().shape
        assert views.std() > 0, row["path"]
