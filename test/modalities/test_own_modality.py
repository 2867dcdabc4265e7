"""A modality of one's own: plug-ins, and the examples, depth and radar, from data to predictions."""

from __future__ import annotations

import csv
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from domains import any_domain
from safetensors.torch import load_file

from omnibind_core import OmniBind, cli, encoders, fusion, modalities
from omnibind_core.data import damage
from omnibind_core.data.contact_sheet import contact_sheet
from omnibind_core.data.modality_free.dataset import ModalityFree
from omnibind_core.data.randomised import Randomised
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.encoders.config import ModelConfig, load_config
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.fusion import Fusion
from omnibind_core.labels import PAPER_TEMPLATES, LabelBank
from omnibind_ros import messages
from omnibind_ros.graph.discovery import modality_of
from omnibind_ros.node import overlay

WORDS = ("cup", "dog", "car")
DEPTH = {"trunk": "vision", "preset": "normals", "head": {"type": "mlp", "hidden": 16}}

MODALITY = """
from omnibind_core.modalities import Modality, Preset, Role
from . import corruption, processing

class Own(Modality):
    name = "{name}"
    role = Role.STUDENT
    suffixes = (".npy",)
    presets = {{"plain": Preset("plain", (8, 6))}}
    def check(self, raw, source): return raw
    def load(self, path): return None
    def process(self, raw, preset): return processing.process(raw)
    def augment(self, raw, rng): return raw
    def corrupt(self, raw, kind, rng): return raw

MODALITY = Own()
"""
ENCODER = """
from torch import nn
from omnibind_core.encoders import Trunk

class Motion(Trunk):
    trainable = True
    def __init__(self, feature_dim):
        super().__init__()
        self.feature_dim = feature_dim
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, feature_dim))
    def forward(self, views): return self.layers(views)

def build(feature_dim): return Motion(feature_dim)
"""


def plugin(folder: Path, **files: str) -> Path:
    """Writes a plug-in for accelerations and turn rates ``float32 [8, 6]``; ``files`` replace or add some."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "modality": MODALITY.format(name=folder.name),
        "processing": "def process(raw): return raw[None]",
        "corruption": "",
        **files,
    }
    for name, text in contents.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@contextmanager
def no_plugins() -> Iterator[None]:
    """As in a new process; what was registered before is back afterwards."""

    def imported() -> list[str]:
        modalities.get.cache_clear()
        modalities._discover.cache_clear()
        return [name for name in sys.modules if name.startswith("omnibind_plugin_")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modalities, "_plugins", {})
        patch.delenv(modalities.PLUGINS_VARIABLE, raising=False)
        for name in imported():
            patch.delitem(sys.modules, name)
        yield
        for name in imported():
            del sys.modules[name]


@pytest.fixture
def empty():
    with no_plugins():
        yield


@pytest.fixture
def depth(empty, repo):
    return modalities.register(repo / "examples" / "depth")


@pytest.fixture
def radar(empty, repo):
    return modalities.register(repo / "examples" / "radar")


@pytest.fixture
def script(repo, monkeypatch):
    """Imports a script of an example."""

    def load(name, script="make_data"):
        monkeypatch.setattr(sys, "path", [str(repo / "examples" / name / "scripts"), *sys.path])
        monkeypatch.delitem(sys.modules, script, raising=False)
        return importlib.import_module(script)

    return load


# --- the registry -----------------------------------------------------------------------------------------------------


def test_only_built_in_modalities_are_known_unasked(empty):
    assert modalities.names() == modalities.NAMES
    with pytest.raises(ConfigError, match=r"unknown modality 'depth'.*OMNIBIND_PLUGINS=FOLDER.*register"):
        modalities.get("depth")


def test_registering_adds_a_modality(empty, repo):
    found = modalities.register(repo / "examples" / "depth")
    assert modalities.names() == (*modalities.NAMES, "depth")
    assert modalities.get("depth") is found is modalities.register(str(repo / "examples" / "depth"))
    assert len({modalities.fingerprint(name) for name in modalities.names()}) == 8


def test_changed_code_has_another_fingerprint(empty, tmp_path):
    modalities.register(plugin(tmp_path / "imu"))
    before = modalities.fingerprint("imu")
    plugin(tmp_path / "imu", drawing="", messages="")
    assert modalities.fingerprint("imu") == before, "no feature depends on how an item is shown or sent"
    plugin(tmp_path / "imu", processing="def process(raw): return 2 * raw[None]")
    assert before and modalities.fingerprint("imu") != before


def test_the_environment_names_folders(empty, repo, tmp_path, monkeypatch):
    folders = (plugin(tmp_path / "imu"), repo / "examples" / "depth")
    monkeypatch.setenv("OMNIBIND_PLUGINS", os.pathsep.join([*map(str, folders), ""]))
    assert modalities.names() == (*modalities.NAMES, "imu", "depth")


def test_an_installed_package_has_an_entry_point(empty, tmp_path, monkeypatch):
    plugin(tmp_path / "imu", __init__="")
    (tmp_path / "imu").rename(tmp_path / "my_imu_package")
    monkeypatch.syspath_prepend(tmp_path)
    entry = importlib.metadata.EntryPoint("imu", "my_imu_package", modalities.ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert modalities.names() == (*modalities.NAMES, "imu")
    assert "my_imu_package" not in sys.modules, "imported only when it is used"
    assert type(modalities.get("imu")).__module__ == "my_imu_package.modality"
    assert modalities.fingerprint("imu")


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("imu", {"modality": "MODALITY = 3"}, r"imu: modality\.py has a MODALITY of type int"),
        ("imu", {"modality": ""}, r"modality\.py has no MODALITY"),
        ("imu", {"modality": "import nonsense"}, r"modality\.py cannot be imported: ModuleNotFoundError.*nonsense"),
        ("imu", {"modality": MODALITY.format(name="gyro")}, r"MODALITY\.name is 'gyro', expected 'imu'"),
        ("imu", {"modality": MODALITY.format(name="imu").replace("role", "ruling")}, "MODALITY lacks role"),
        ("touch", {}, "'touch' is built in"),
        ("My-IMU", {}, "'My-IMU' names no modality"),
    ],
)
def test_a_wrong_plugin_is_refused(empty, tmp_path, name, files, message):
    with pytest.raises(ConfigError, match=message):
        modalities.register(plugin(tmp_path / name, **files))
    assert modalities.names() == modalities.NAMES
    # Repaired: nothing of the failure is left. (Python takes a file of the same second and length for unchanged.)
    modalities.register(plugin(tmp_path / "imu"))
    assert modalities.names() == (*modalities.NAMES, "imu")


def test_a_plugin_has_a_picture_and_noise_unasked(empty, tmp_path):
    own = modalities.register(plugin(tmp_path / "imu"))
    raw = np.linspace(-1, 1, 48, dtype=np.float32).reshape(8, 6)
    picture = overlay.picture("imu", raw)
    assert picture.shape == (8, 6, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [0, 0, 0] and picture[-1, -1].tolist() == [255, 255, 255]
    assert damage.damages("imu") == (damage.NOISE,)
    noise = damage.damaged("imu", raw, damage.NOISE, "1")
    assert noise.shape == raw.shape and noise.dtype == raw.dtype and -1 <= noise.min() < noise.max() <= 1
    with pytest.raises(ConfigError, match="imu has no noise"):
        own.noise_only("no array", np.random.default_rng(0))


def test_missing_files_are_named(empty, tmp_path):
    (plugin(tmp_path / "imu") / "corruption.py").unlink()
    with pytest.raises(ConfigError, match=r"imu: corruption\.py is missing"):
        modalities.register(tmp_path / "imu")
    with pytest.raises(ConfigError, match=r"modality\.py, processing\.py, corruption\.py is missing"):
        modalities.register(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "files", [{}, {"randomisation": "def randomise(raw, rng): return raw * rng.integers(2, 99)"}], ids=["none", "own"]
)
def test_a_plug_in_may_have_a_domain_randomisation(empty, tmp_path, files):
    modalities.register(plugin(tmp_path / "imu", **files))
    assert modalities.randomisation("text") is None
    assert (modalities.randomisation("imu") is None) == (not files)

    class Source:
        def path(self, sample: Sample) -> Path:
            return tmp_path

        def load(self, sample: Sample) -> np.ndarray:
            return np.ones((8, 6), np.float32)

    samples = [Sample(name, "imu", "made", "x", "walk", "train", "g") for name in "ab"]
    seen, again = ([Randomised(Source(), 0).load(sample).max() for sample in samples] for _ in range(2))
    assert seen == again
    assert seen == [1, 1] if not files else (seen[0] != seen[1] and min(seen) >= 2)


def test_a_plug_in_may_doubt_its_items(empty, tmp_path):
    modalities.register(plugin(tmp_path / "gyro"))
    assert modalities.doubt("gyro", np.zeros((8, 6), np.float32)) is None
    own = "from omnibind_core.modalities import Doubt\ndef doubt(raw): return None if raw.any() else Doubt('at rest')"
    modalities.register(plugin(tmp_path / "imu", plausibility=own))
    assert str(modalities.doubt("imu", np.zeros((8, 6), np.float32))) == "implausible: at rest"
    assert modalities.doubt("imu", np.ones((8, 6), np.float32)) is None


def test_two_plugins_of_one_name_are_refused(empty, tmp_path):
    modalities.register(plugin(tmp_path / "a" / "imu"))
    with pytest.raises(ConfigError, match=r"b.imu: the modality 'imu' is already that of the plug-in .*a.imu"):
        modalities.register(plugin(tmp_path / "b" / "imu"))


def test_the_command_line_says_what_is_wrong(empty, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMNIBIND_PLUGINS", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", "--image", "a.jpg"])
    assert stop.value.code == 2
    assert "modality.py, processing.py, corruption.py is missing" in capsys.readouterr().err


# --- model configs ----------------------------------------------------------------------------------------------------


def test_a_model_config_with_an_unknown_modality_says_how_to_register_it(empty):
    with pytest.raises(ConfigError, match=r"modalities\.depth: unknown modality 'depth'.*OMNIBIND_PLUGINS"):
        load_config({"extends": "tiny", "modalities": {"depth": DEPTH}})


def test_a_config_extends_another(depth, tmp_path):
    config = load_config({"extends": "tiny", "name": "more", "modalities": {"depth": DEPTH}})
    tiny = load_config("tiny")
    assert config.name == "more"
    assert tuple(config.modalities) == (*tiny.modalities, "depth")
    assert config.modalities["touch"] == tiny.modalities["touch"]
    file = tmp_path / "more.json"
    file.write_text(json.dumps({"extends": "tiny", "modalities": {"touch": {"head": {"type": "linear"}}}}))
    again = load_config({"extends": str(file), "modalities": {"touch": {"preset": None}}})
    assert again.modalities["touch"].model_dump() == {"trunk": "vision", "preset": None, "head": {"type": "linear"}}
    file.write_text(json.dumps({"extends": str(file)}))
    with pytest.raises(ConfigError, match="extends itself"):
        load_config(file)


def imu_model(settings: dict[str, int]) -> ModelConfig:
    trunk = {"type": "plugin", "modality": "imu", "settings": settings}
    part = {"trunk": "motion", "head": {"type": "linear"}}
    return load_config({"extends": "tiny", "trunks": {"motion": trunk}, "modalities": {"imu": part}})


def test_a_plugin_brings_its_own_trunk(empty, tmp_path):
    modalities.register(plugin(tmp_path / "imu", encoder=ENCODER))
    config = imu_model({"feature_dim": 5})
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(WORDS)
    assert "trunks.motion.layers.1.weight" in encoders.own_state(model.encoders)
    assert all(parameter.requires_grad for parameter in model.encoders.trunks["motion"].parameters())
    views = [("imu", model.process("imu", np.ones((8, 6), np.float32)))]
    model.save_pretrained(tmp_path / "model")
    again = OmniBind.from_pretrained(tmp_path / "model", modalities={"imu"})
    assert torch.equal(model.embed(views), again.embed(views))


@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        (ENCODER, {"width": 5}, "unexpected keyword argument 'width'"),
        ("def build(): return 3", {}, "build returned int, expected a Trunk"),
        ("", {}, "expected an encoder.py with a function build"),
    ],
)
def test_a_wrong_trunk_is_refused(empty, tmp_path, encoder, settings, message):
    modalities.register(plugin(tmp_path / "imu", encoder=encoder))
    with pytest.raises(ConfigError, match=message):
        encoders.build(imu_model(settings))


# --- the example ------------------------------------------------------------------------------------------------------


def picture(index: int, rng: np.random.Generator) -> np.ndarray:
    image = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
    image[..., index] = 220
    return image


def surface(index: int, rng: np.random.Generator) -> np.ndarray:
    """A plane that leans to the right, down, or not at all, ``uint16`` millimetres, with holes."""
    y, x = np.mgrid[:48, :64]
    lean = [(20, 0), (0, 20), (0, 0)][index]
    depth = 1500 + lean[0] * x + lean[1] * y + rng.normal(0, 3, x.shape)
    depth[rng.random(x.shape) < 0.1] = 0
    return depth.astype(np.uint16)


def test_depth_pictures_are_metres_whatever_they_came_as(depth):
    rng = np.random.default_rng(0)
    millimetres = surface(0, rng)
    metres = depth.check(millimetres, "test")
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, millimetres / 1000, rtol=1e-6)
    np.testing.assert_array_equal(depth.check(millimetres.astype(">u2"), "test"), metres)
    broken = metres.astype(np.float64)
    broken[:2] = [[np.nan], [np.inf]]
    broken[2] = -1
    assert not depth.check(broken, "test")[:3].any()
    for raw in (np.zeros((4, 4), np.uint16), np.ones((4, 4), np.uint8), np.ones((4, 4, 3), np.float32), "no array"):
        with pytest.raises(InvalidInputError, match="test"):
            depth.check(raw, "test")


@pytest.mark.parametrize("name", ["depth", "radar"])
def test_an_example_keeps_the_contract_of_a_modality(name, script, request, rng):
    example = request.getfixturevalue(name)
    if name == "depth":
        raws = [example.check(surface(1, rng), "test"), np.eye(40, dtype=np.float32), np.ones((3, 200), np.float32)]
    else:
        raws = [script("radar").simulate(thing, rng) for thing in script("radar").THINGS.values()]
        raws.append(np.eye(5, dtype=np.float32))
    for raw in raws:
        before = raw.copy()
        for preset in example.presets.values():
            views = example.process(raw, preset)
            assert views.shape == (1, *preset.shape) and views.dtype == preset.dtype and views.flags.c_contiguous
        for kind in example.corruptions:
            damaged = example.corrupt(raw, kind, np.random.default_rng(1))
            assert damaged.shape[1:] == raw.shape[1:] and damaged.dtype == np.float32
            assert damaged.shape == raw.shape or name == "radar"  # points come and go
            assert not np.array_equal(damaged, raw)
        noise = damage.damaged(name, raw, damage.NOISE, "1")
        example.process(example.check(noise, "noise"), example.preset())
        varied = example.augment(raw, np.random.default_rng(2))
        np.testing.assert_array_equal(varied, example.augment(raw, np.random.default_rng(2)))
        example.process(example.check(varied, "augmented"), example.preset())
        picture = overlay.picture(name, raw)
        assert picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.any()
        np.testing.assert_array_equal(raw, before)
    with pytest.raises(ConfigError, match="no corruption 'fog'"):
        example.corrupt(raw, "fog", rng)


def test_normals_show_where_a_surface_leans(depth):
    x = np.mgrid[:64, :64][1]
    for lean, expected in ((0.01, 128 + 60), (-0.01, 128 - 60), (0, 128)):
        depth_map = (1 + lean * (x - 32)).astype(np.float32)
        red = depth.process(depth_map, depth.preset("normals"))[0, 0, 112, 112]
        assert abs(int(red) - expected) < 15, (lean, red)


def test_messages_of_a_depth_camera_are_understood(depth):
    millimetres = surface(0, np.random.default_rng(0))

    def decode(pixels, encoding):
        fields = {**messages.image_fields(pixels, encoding), "encoding": encoding}
        message = SimpleNamespace(**fields)
        return messages.decode(messages.IMAGE, message, "depth", messages.DecodeOptions(), "front")

    assert messages.types_for("depth") == (messages.IMAGE, messages.MODALITY_FRAME)
    expected = depth.check(millimetres, "front")
    np.testing.assert_array_equal(depth.check(decode(millimetres, "16UC1"), "front"), expected)
    np.testing.assert_array_equal(depth.check(decode(expected, "32FC1"), "front"), expected)
    with pytest.raises(InvalidInputError, match=r"front.*mono8.*for depth one of 16UC1"):
        decode(np.zeros((4, 4), np.uint8), "mono8")
    with pytest.raises(InvalidInputError, match="for depth one of"):
        messages.decode(messages.STRING, SimpleNamespace(data=""), "depth", messages.DecodeOptions(), "front")


def test_a_plugin_adds_message_types_to_built_in_modalities(empty, tmp_path, monkeypatch):
    from omnibind_ros import messages
    from omnibind_ros.messages import registry

    monkeypatch.setattr(registry, "_decoders", {name: dict(known) for name, known in registry._decoders.items()})
    before = messages.types_for("image")
    modalities.register(
        plugin(
            tmp_path / "imu",
            messages="from omnibind_ros.messages import IMAGE, decodes\n"
            "@decodes('sensor_msgs/msg/Imu', 'imu')\ndef imu(message, modality, options, source): return message.rate\n"
            "@decodes('robot_msgs/msg/Sketch', 'image')\ndef sketch(message, *_): return message.lines\n",
        )
    )
    assert messages.types_for("imu") == ("sensor_msgs/msg/Imu", messages.MODALITY_FRAME)
    assert messages.types_for("image") == (*before[:-1], "robot_msgs/msg/Sketch", messages.MODALITY_FRAME)
    item = messages.Decoder("image", "front").decode(
        "robot_msgs/msg/Sketch", SimpleNamespace(lines=3), messages.DecodeOptions()
    )
    assert item == 3


def test_radar_points_are_columns_whatever_they_came_as(radar):
    points = np.arange(20, dtype=np.float64).reshape(4, 5)
    checked = radar.check(points, "test")
    assert checked.dtype == np.float32 and np.array_equal(checked, points)
    assert np.array_equal(radar.check(points[:, :4], "test")[:, 4], np.zeros(4)), "no strength is 0 dB"
    points[0, 3] = np.nan
    assert np.array_equal(radar.check(points, "test"), checked[1:])
    points[1, 0] = np.inf
    for raw in (points, np.ones((4, 3), np.float32), np.ones(5, np.float32), np.zeros((0, 5), np.float32), "no array"):
        with pytest.raises(InvalidInputError, match="test"):
            radar.check(raw, "test")


def test_messages_of_a_radar_are_understood(radar):
    values = np.arange(24, dtype="<f4").reshape(4, 6)

    def decode(*names):
        fields = [SimpleNamespace(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate(names)]
        layout = {"height": 1, "width": 4, "point_step": 24, "row_step": 96, "is_bigendian": False}
        message = SimpleNamespace(fields=fields, data=values.tobytes(), **layout)
        return messages.decode(messages.POINT_CLOUD, message, "radar", messages.DecodeOptions(), "front")

    assert np.array_equal(decode("x", "y", "z", "intensity", "range", "velocity"), values[:, [0, 1, 2, 5, 3]])
    assert np.array_equal(decode("snr", "x", "y", "z", "doppler"), values[:, [1, 2, 3, 4, 0]])
    assert decode("x", "y", "z", "radial_speed").shape == (4, 4)
    with pytest.raises(InvalidInputError, match=r"front.*x, y, z, intensity.*a radial velocity"):
        decode("x", "y", "z", "intensity")
    with pytest.raises(InvalidInputError, match=r"front.*fields x, y, z and doppler"):
        decode("x", "y", "doppler")


def test_topics_are_taken_for_what_their_names_say(depth, radar):
    known = modalities.names()
    for topic, ros_type, expected in (
        ("/front/depth/image_rect_raw", messages.IMAGE, "depth"),
        ("/front/color/image_raw", messages.IMAGE, "image"),
        ("/Lepton/image", messages.IMAGE, "thermal"),
        ("/gelsight/flir/image", messages.IMAGE, "thermal"),
        ("/gripper/gelsight", messages.IMAGE, "touch"),
        ("/ti_mmwave/radar_scan_pcl", messages.POINT_CLOUD, "radar"),
        ("/velodyne_points", messages.POINT_CLOUD, "point_cloud"),
        ("/radar/text", messages.STRING, None),
        ("/radar/frame", messages.MODALITY_FRAME, None),
    ):
        assert modality_of(topic, ros_type, known) == expected, topic
    assert modality_of("/front/radar", messages.POINT_CLOUD, ("image", "point_cloud")) == "point_cloud"
    assert modality_of("/front/camera", messages.IMAGE, ("thermal",)) == "thermal"
    assert modality_of("/front/camera", messages.IMAGE, ("touch", "thermal")) is None


@pytest.mark.ros
def test_the_node_takes_an_own_sensor(trained, depth, radar):
    fusion_node = pytest.importorskip("omnibind_ros.node.fusion_node")
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=any_domain())
    try:
        given = ("sensors:=[front, rear]", "front.type:=depth", "front.topic:=depth/image_rect_raw", "rear.type:=radar")
        given = (*given, "discover:=true", f"model:={trained / 'out' / 'align'}")
        node = fusion_node.FusionNode(
            context=context, cli_args=["--ros-args", *(word for text in given for word in ("-p", text))]
        )
        front, rear = node.parameters.sensors
        assert (front.config.modality, rear.config.modality) == ("depth", "radar")
        assert front.message_types[0] == "sensor_msgs/msg/Image"
        assert rear.message_types[0] == "sensor_msgs/msg/PointCloud2"
        assert "depth" in node.wanted and "radar" not in node.wanted, "what the model can encode may be adopted"
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def tree(root: Path) -> None:
    """Photographs and depth pictures of three things, in the form of the user's own data."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 6), ("val", 3)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                for modality, made in (("image", picture), ("depth", surface)):
                    name = f"{modality}-{split}-{word}-{number}"
                    cv2.imwrite(str(root / f"{name}.png"), made(index, rng))
                    rows.append((name, modality, "made", f"{name}.png", word, split, f"{split}-{number}"))
    with (root / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "modality", "source", "path", "label", "split", "group"), *rows])
    (root / "labels.csv").write_text(
        "source,label,canonical,score,reason\n" + "".join(f"made,{word},{word},1.0,same word\n" for word in WORDS)
    )


def run(*argv: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 0


def train(
    root: Path, repo: Path, name: str, words: Sequence[str], part: dict, preset: str = "residual", **align
) -> None:
    """Trains as an example's ``train.yaml`` says, but for ``align``: a tiny ``start``, ``data``, to ``out/align``."""
    config = load_config({"extends": "tiny", "fusion": {"preset": preset}})
    module = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
    start = OmniBind(config, encoders.build(config), module)
    start.labels = LabelBank.from_names(sorted(words), start.embed_text, PAPER_TEMPLATES[:1])
    start.save_pretrained(root / "start")
    settings = yaml.safe_load((repo / "examples" / name / "train.yaml").read_text())
    settings |= {
        "plugins": [str(repo / "examples" / name)],
        "start": str(root / "start"),
        "model": {"extends": str(root / "start" / "config.json"), "name": f"tiny_{name}", "modalities": {name: part}},
        "data": str(root / "data"),
        "labels": str(root / "data" / "labels.csv"),
        "out": str(root / "out"),
        "augmentations": 2,
        "logger": "none",
    }
    settings["align"] |= {"steps": 60, "batch": 16, "lr": 0.01} | align
    (root / "train.yaml").write_text(yaml.safe_dump(settings))
    with no_plugins(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(root / "cache"))
        run("train", "align", "--config", str(root / "train.yaml"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, repo):
    """A folder with ``start`` (a model without depth), ``data``, and ``out/align`` (with depth, by the example)."""
    root = tmp_path_factory.mktemp("own")
    (root / "data").mkdir()
    tree(root / "data")
    train(root, repo, "depth", WORDS, DEPTH)
    return root


def test_alignment_leaves_everything_else_as_it_was(trained):
    before = load_file(trained / "start" / "model.safetensors")
    after = load_file(trained / "out" / "align" / "model.safetensors")
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert any(key.startswith("fusion.") for key in before)
    new = set(after) - set(before)
    assert new and all(key.startswith("encoders.heads.depth.") for key in new)
    for name in ("labels.json", "calibration.json"):
        assert (trained / "out" / "align" / name).read_bytes() == (trained / "start" / name).read_bytes()


def predict(capsys, *argv: str) -> dict:
    capsys.readouterr()
    run("predict", "--json", *argv)
    return json.loads(capsys.readouterr().out)


def test_depth_is_recognised_alone_and_fused_by_the_trained_fusion(trained, depth, capsys):
    model, data = str(trained / "out" / "align"), trained / "data"
    right = 0
    for word in WORDS:
        range_map, photo = (str(data / f"{kind}-val-{word}-0.png") for kind in ("depth", "image"))
        right += predict(capsys, "--model", model, "--depth", range_map)["top"][0]["label"] == word
        both = predict(capsys, "--model", model, "--depth", range_map, "--image", photo)
        assert [item["modality"] for item in both["inputs"]] == ["image", "depth"]
        assert sum(item["weight"] for item in both["inputs"]) == pytest.approx(1, abs=1e-4)
        assert all(item["weight"] > 0 for item in both["inputs"])
    assert right == 3


def test_a_model_folder_brings_no_code(trained, empty):
    with pytest.raises(ConfigError, match=r"unknown modality 'depth'.*OMNIBIND_PLUGINS"):
        OmniBind.from_pretrained(trained / "out" / "align")


def test_depth_is_combined_like_any_modality(trained, depth, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    config = tmp_path / "build.yaml"
    config.write_text(
        yaml.safe_dump({"sources": [{"source": "folder"}], "total": 20, "labels": str(trained / "data" / "labels.csv")})
    )
    run("data", "build", "--config", str(config), "--root", str(trained / "data"), "--out", str(tmp_path / "index"))
    run("data", "verify", str(tmp_path / "index"))
    data = ModalityFree.open(tmp_path / "index")
    assert data.sensors == (*(name for name in modalities.NAMES if name != "text"), "depth")
    both = next(one for one in data if {"image", "depth"} <= set(one.modalities))
    assert data.items(both)["depth"].dtype == np.float32
    monkeypatch.setattr(modalities, "_plugins", {})
    assert "depth" not in ModalityFree.open(tmp_path / "index").sensors


def test_own_depth_pictures_are_measured_beside_photographs(trained, empty, script, tmp_path, monkeypatch, capsys):
    measure, forward = script("depth", "measure"), Fusion.forward

    def told(self, tokens, mask, modality_ids=None, doubted=None):
        assert modality_ids is not None, "the shipped fusion judges tokens by their modality"
        return forward(self, tokens, mask, modality_ids, doubted)

    monkeypatch.setattr(Fusion, "forward", told)
    argv = ["measure.py", "--model", str(trained / "out" / "align"), "--count", "20", "--data"]
    monkeypatch.setattr(sys, "argv", [*argv, str(trained / "data")])
    measure.main()
    head, _, first, *others = capsys.readouterr().out.splitlines()
    assert head == "20 pairs of 9 photos and 9 depth pictures, 3 concepts"
    assert first.startswith("as they are") and first.split()[4] == "100.0%"
    assert {line.split()[0] for line in others} == {*modalities.get("image").corruptions}
    rows = (trained / "data" / "samples.csv").read_text().splitlines()
    (tmp_path / "samples.csv").write_text("\n".join(row for row in rows if "image-val" not in row))
    monkeypatch.setattr(sys, "argv", [*argv, str(tmp_path)])
    with pytest.raises(SystemExit, match="no label of the model has photos and depth pictures"):
        measure.main()


def test_clouds_become_depth_pictures(script):
    make_data = script("depth")
    rng = np.random.default_rng(0)
    sphere = rng.standard_normal((2000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    depth = make_data.render(sphere.astype(np.float32), rng)
    assert depth.dtype == np.uint16 and depth.shape == (120, 160)
    seen = depth[depth > 0] / 1000
    nearest, farthest = np.percentile(seen, (1, 99))
    assert 0.2 < farthest - nearest < 0.35, "the near half of a sphere 0.6 m wide, with little noise"


def test_radar_is_trained_on_its_simulation(radar, repo, script, tmp_path, monkeypatch, capsys):
    make_data = script("radar")
    monkeypatch.setattr(sys, "argv", ["make_data.py", "--out", str(tmp_path / "data"), "--train", "2", "--val", "1"])
    make_data.main()
    source = FolderSource(tmp_path / "data")
    assert {sample.label for sample in source.samples(split="val", modality="radar")} == set(make_data.THINGS)
    assert (contact_sheet(source) < 250).mean() > 0.1
    head = {"type": "mlp", "hidden": 16}
    train(tmp_path, repo, "radar", tuple(make_data.THINGS), {"trunk": "vision", "head": head}, "familiarity", steps=2)
    before = load_file(tmp_path / "start" / "model.safetensors")
    after = load_file(tmp_path / "out" / "align" / "model.safetensors")
    wider = {"fusion.reliability.familiarity." + name for name in ("centres", "usual", "spread")}
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - wider)
    assert all(torch.equal(before[key].nan_to_num(), after[key][:-1].nan_to_num()) for key in wider)
    assert all(key.startswith("encoders.heads.radar.") for key in set(after) - set(before))
    points = str(next((tmp_path / "data" / "radar").glob("car-val-*.npy")))
    with no_plugins(), monkeypatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
        run("train", "fuse", "--config", str(tmp_path / "train.yaml"), "--set", "fuse.steps=2")
    learned = []
    for stage in ("align", "model"):  # what radar is like is learned in the second, other modalities have no samples
        model = OmniBind.from_pretrained(tmp_path / "out" / stage)
        usual = model.fusion.reliability.familiarity.usual
        learned.append({name for name, one in zip(model.slots, usual, strict=True) if one.isfinite()})
        found = predict(capsys, "--model", str(tmp_path / "out" / stage), "--radar", points)
        assert found["inputs"][0]["modality"] == "radar" and found["top"][0]["label"] in make_data.THINGS
    assert learned[0] == set() and "radar" in learned[1] and "audio" not in learned[1]


def test_simulated_things_move_and_are_as_large_as_they_should_be(script, rng):
    make_data = script("radar")
    for thing in make_data.THINGS.values():
        many = [make_data.simulate(thing, rng) for _ in range(50)]
        extent = np.array([np.ptp(points[:, :2], axis=0).max() for points in many])
        assert extent.max() < np.hypot(*thing.size[:2]) + 1
        assert max(np.abs(points[:, 3]).max() for points in many) < thing.speed[1] * (1 + thing.swing) + 1
        reached = np.concatenate([np.linalg.norm(points[:, :2], axis=1) for points in many])
        assert reached.min() > make_data.DISTANCE[0] - thing.size[0] and reached.max() < 35
    assert len(make_data.simulate(make_data.THINGS["truck"], rng)) > 4
