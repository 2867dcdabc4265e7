"""What reads inputs: by name, with inputs to begin with, and with the errors that say that an input is refused."""

from __future__ import annotations

import copy
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.config import from_json, from_yaml, parse, read_mapping
from omnibind_core.errors import InvalidInputError, OmniBindError
from tools.fuzzing import changes, seeds

Read = Callable[[Path], None]


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        seeds: Makes the inputs that are right.
        read: Reads an input from a file; what is wrong with it is one of ``refuses``.
        refuses: Errors that an input may be refused by.
    """

    seeds: Callable[[], seeds.Seeds]
    read: Read
    refuses: tuple[type[Exception], ...] = (OmniBindError,)


def _file(name: str, path: Path) -> None:
    """As ``omnibind predict`` and the training do: read, checked, judged, processed, drawn."""
    raw = modalities.load(name, path).raw
    _use(name, raw)


def _use(name: str, raw: Any) -> None:
    modality = modalities.get(name)
    modality.process(raw, modality.preset())
    modality.draw(raw)


# --- messages ---------------------------------------------------------------------------------------------------------

_INFO: Mapping[str, Any] = {
    "k": [20.0, 0, 20, 0, 20, 15, 0, 0, 1], "d": [0.1, 0, 0, 0, 0], "r": [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
    "p": [20.0, 0, 20, 0, 0, 20, 15, 0, 0, 0, 1, 0],
}  # fmt: skip


@functools.cache
def _store(ros_type: str) -> Any:
    from omnibind_ros.bags import types
    from omnibind_ros.bags.storage import Connection

    return types.store_of([Connection(0, "/a", ros_type)])


def _made(ros_type: str, fields: Mapping[str, Any]) -> Any:
    """A message with these fields; the others are zero."""
    return _completed(_store(ros_type), ros_type, fields)


def _completed(store: Any, ros_type: str, given: Mapping[str, Any]) -> Any:
    found = {}
    for name, kind in store.fielddefs[ros_type][1]:
        found[name] = _field(store, kind, given.get(name))
    return store.types[ros_type](**found)


def _field(store: Any, kind: Any, given: Any) -> Any:
    node, inner = int(kind[0]), kind[1]
    if node == 1:  # a type and the bound of its length
        name = inner[0]
        zero: Any = "" if name in ("string", "wstring") else name == "true" if name == "bool" else 0
        return zero if given is None else given
    if node == 2:
        return _completed(store, inner, given or {})
    part, count = inner
    values = given if given is not None else [None] * (count if node == 3 else 0)
    if int(part[0]) == 1 and part[1][0] not in ("string", "wstring"):
        dtype = {"bool": "bool", "byte": "u1", "char": "u1", "octet": "u1"}.get(part[1][0], part[1][0])
        return np.array([0 if one is None else one for one in values], dtype)
    return [_field(store, part, one) for one in values]


def _message_seeds(modality: str) -> Callable[[], seeds.Seeds]:
    def made() -> seeds.Seeds:
        found: seeds.Seeds = []
        for name, ros_type, fields in _MESSAGES[modality]():
            data = _store(ros_type).serialize_cdr(_made(ros_type, fields), ros_type)
            found.append((f"{name}@{ros_type.replace('/', '.')}.cdr", bytes(data)))
        return found

    return made


def _type_of(path: Path) -> str:
    """The ROS type that the name of an input has."""
    return path.name.partition("@")[2].removesuffix(".cdr").replace(".", "/")


def _decoded(path: Path) -> tuple[str, Any]:
    from omnibind_ros.bags import types

    ros_type = _type_of(path)
    data = path.read_bytes()
    message = types.decode(types.RecordedMessage("/a", ros_type, 0, data, _store(ros_type)))
    return ros_type, _as_rclpy(message) if len(data) % 2 else message


def _as_rclpy(message: Any) -> Any:
    """The message with arrays as those of rclpy."""
    from omnibind_ros.messages import to_ros

    if isinstance(message, list):
        return [_as_rclpy(one) for one in message]
    if isinstance(message, np.ndarray) and message.dtype.kind in "uif":
        return to_ros(message)
    if hasattr(message, "__dataclass_fields__"):
        return SimpleNamespace(**{name: _as_rclpy(getattr(message, name)) for name in message.__dataclass_fields__})
    return message


def _message(modality: str, path: Path) -> None:
    """As the node does: decoded, checked, processed; twice by one decoder, as streams build on what came before."""
    from omnibind_core.runtime.types import Encoded
    from omnibind_ros.messages import DecodeOptions, Decoder

    ros_type, message = _decoded(path)
    options = DecodeOptions(
        rows=4, intrinsics=_made("sensor_msgs/msg/CameraInfo", {**_INFO, "width": 40, "height": 30})
    )
    decoder = Decoder(modality, "sensor")
    for _ in range(2):
        raw = decoder.decode(ros_type, message, options)
    if not isinstance(raw, Encoded):
        checked = modalities.get(modality).check(raw, "sensor")
        modalities.doubt(modality, checked)
        _use(modality, checked)


def _objects(path: Path) -> None:
    """What says where things are: cameras, transforms, detections."""
    from omnibind_core.objects.rig import Rig
    from omnibind_ros.messages import camera_of
    from omnibind_ros.messages.objects.detections import DetectionReader
    from omnibind_ros.messages.objects.transforms import TransformReader

    ros_type, message = _decoded(path)
    rig = Rig("a")
    if ros_type.endswith("CameraInfo"):
        for rectified in (False, True):
            camera = camera_of(message, "camera", (40, 30), rectified)
            camera.project(np.ones((3, 3)))
    elif ros_type.endswith("TFMessage"):
        TransformReader(rig.tree).read(message, "/tf", static=False)
        TransformReader(rig.tree).read(message, "/tf_static", static=True)
        rig.tree.root("b")
    elif ros_type.endswith("String"):
        TransformReader(rig.tree).read_urdf(message.data, "/robot_description")
    else:
        reader = DetectionReader(rig, lambda: {"camera": ("camera",)})
        reader.read(message, "/detections", 10**18, "camera")


def _picture_messages(measured: bool = False) -> list[tuple[str, str, Mapping[str, Any]]]:
    from omnibind_ros import messages

    grey = seeds._PICTURE[:, :, 0]
    found: list[tuple[str, str, Mapping[str, Any]]] = [
        ("mono8", messages.IMAGE, messages.image_fields(grey, "mono8")),
        ("bgr8", messages.IMAGE, messages.image_fields(seeds._PICTURE, "bgr8")),
        ("deep", messages.IMAGE, messages.image_fields(grey.astype(np.uint16) * 9, "16UC1")),
        ("float", messages.IMAGE, messages.image_fields(grey.astype(np.float32), "32FC1")),
    ]
    names = {"jpeg": "opencv.jpg", "png": "clear.png", "tiff": "deep.tif", "16UC1; png compressed": "deep.png"}
    held = dict(seeds.pictures())
    for name, file in names.items():
        fields = {"format": name, "data": np.frombuffer(held[file], np.uint8)}
        found.append((file.partition(".")[0], messages.COMPRESSED_IMAGE, fields))
    depth = np.frombuffer(bytes(12) + held["deep.png"], np.uint8)
    found.append(("depth", messages.COMPRESSED_IMAGE, {"format": "16UC1; compressedDepth", "data": depth}))
    return found


def _frame(modality: str, shape: Sequence[int]) -> tuple[str, str, Mapping[str, Any]]:
    from omnibind_ros import messages

    data = np.zeros(int(np.prod(shape)), np.uint8)
    return "frame", messages.MODALITY_FRAME, {"modality": modality, "shape": shape, "data": data}


def _cloud_messages() -> list[tuple[str, str, Mapping[str, Any]]]:
    from omnibind_ros import messages

    ranges = {"angle_min": -1.0, "angle_increment": 0.02, "range_max": 10.0, "ranges": [1.0] * 100}
    depth = [one for one in _picture_messages() if one[0] in ("deep", "depth", "float")]
    cloud = messages.point_cloud_fields(seeds._POINTS)
    return [("cloud", messages.POINT_CLOUD, cloud), ("scan", messages.LASER_SCAN, ranges), *depth]


def _event_messages() -> list[tuple[str, str, Mapping[str, Any]]]:
    from omnibind_core.modalities import Events
    from omnibind_ros import messages

    x, y, t, p = seeds._X, seeds._Y, seeds._T, seeds._P
    events = Events(x.astype(np.uint16), y.astype(np.uint16), t, p.astype(np.uint8), 346, 260)
    words = np.frombuffer(dict(seeds.events())["evt3.raw"].partition(b"end\n")[2], np.uint8)
    packet = {"width": 640, "height": 480, "encoding": "evt3", "events": words, "seq": 3}
    single = np.array([0x8000_0003_0004_0005] * 9, "<u8").view(np.uint8)
    each = [{"x": 1, "y": 2, "ts": {"sec": 1}, "polarity": 1}] * 3
    return [
        ("events", messages.EVENT_ARRAY, messages.event_array_fields(events)),
        ("evt3", messages.EVENT_PACKET, packet),
        ("mono", messages.OLD_EVENT_PACKET, {**packet, "encoding": "mono", "events": single}),
        ("dvs", messages.DVS_EVENTS, {"width": 8, "height": 6, "events": each}),
    ]


def _sound_messages() -> list[tuple[str, str, Mapping[str, Any]]]:
    from omnibind_core.modalities import Sound
    from omnibind_ros import messages

    tone = Sound((0.3 * np.sin(np.arange(800) * 0.1)).astype(np.float32), 16000)
    data = {"int16_data": (tone.samples * 30000).astype(np.int16)}
    stamped = {"audio": {"audio_data": data, "info": {"channels": 1, "rate": 16000}}}
    raw = (tone.samples * 30000).astype("<i2").view(np.uint8)
    return [
        ("chunk", messages.AUDIO_CHUNK, messages.audio_chunk_fields(tone)),
        ("stamped", messages.AUDIO_STAMPED, stamped),
        ("data", messages.AUDIO_DATA, {"data": raw}),
    ]


def _touch_messages() -> list[tuple[str, str, Mapping[str, Any]]]:
    layout = {"dim": [{"label": "a", "size": 4, "stride": 24}, {"label": "b", "size": 6, "stride": 6}]}
    arrays = [(n, f"std_msgs/msg/{n}MultiArray", {"layout": layout, "data": [1] * 24}) for n in ("Float32", "UInt16")]
    return [*_picture_messages(), *arrays, ("flat", "std_msgs/msg/UInt8MultiArray", {"data": [9] * 24})]


def _object_messages() -> list[tuple[str, str, Mapping[str, Any]]]:
    box = {"sensor": "camera", "score": 0.5, "left": 1.0, "top": 2.0, "right": 9.0, "bottom": 8.0, "mask": [1] * 48}
    solid = {"score": 0.5, "pose": {"orientation": {"w": 1.0}}, "size": {"x": 1.0, "y": 1.0, "z": 1.0}}
    move = {"header": {"frame_id": "a"}, "child_frame_id": "b", "transform": {"rotation": {"w": 1.0}}}
    robot = '<robot name="r"><link name="a"/><link name="b"/><joint name="j" type="fixed"><parent link="a"/>'
    robot += '<child link="b"/><origin xyz="1 0 0" rpy="0 0 1"/></joint></robot>'
    return [
        ("info", "sensor_msgs/msg/CameraInfo", {**_INFO, "width": 40, "height": 30, "distortion_model": "plumb_bob"}),
        ("moved", "tf2_msgs/msg/TFMessage", {"transforms": [move]}),
        ("boxes", "omnibind_ros/msg/Detections", {"header": {"frame_id": "camera"}, "detections": [box, solid]}),
        ("robot", "std_msgs/msg/String", {"data": robot}),
    ]


_MESSAGES: dict[str, Callable[[], list[tuple[str, str, Mapping[str, Any]]]]] = {
    "image": lambda: [*_picture_messages(), _frame("image", (1, 3, 8, 8))],
    "thermal": _picture_messages,
    "touch": _touch_messages,
    "point_cloud": _cloud_messages,
    "event": _event_messages,
    "audio": _sound_messages,
    "text": lambda: [("word", "std_msgs/msg/String", {"data": "a dog"}), _frame("text", (1, 8))],
    "objects": _object_messages,
}
_STRINGS = (
    "", "a", "mono8", "mono16", "rgb8", "bgra8", "16UC1", "32FC1", "64FC1", "bayer_rggb8", "nv12", "nv24", "yuv422",
    "yuyv",
    "jpeg", "png", "16UC1; compressedDepth", "32FC1; compressedDepth png", "bayer_rggb16; jpeg compressed bgr8", "evt3",
    "mono", "trigger", "libcaer", "x", "y", "z", "camera", "image", "text", "fisheye", "rational_polynomial", "\0",
    "a" * 5000,
    "NaN", "\u202e", "/", "b",
)  # fmt: skip
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, 1e300, float("nan"), float("inf"), float("-inf"))


def _message_change(name: str) -> changes.Change:
    ros_type = _type_of(Path(name))

    def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        store = _store(ros_type)
        try:
            message = copy.deepcopy(store.deserialize_cdr(data, ros_type))
            _vary(message, rng)
            return bytes(store.serialize_cdr(message, ros_type))
        except Exception as error:  # bytes that are no message, numbers that the type does not hold
            raise ValueError("no message") from error

    return change


def _vary(message: Any, rng: Random) -> None:
    """Another value in one field of a message, or in those inside of it."""
    names = [name for name in message.__dataclass_fields__ if not name.startswith("__")]
    name = rng.choice(names)
    setattr(message, name, _varied(getattr(message, name), rng))


def _varied(found: Any, rng: Random) -> Any:
    if isinstance(found, bool):
        return not found
    if isinstance(found, int):
        return max(0, found + rng.choice((-1, 1))) if rng.random() < 0.2 else rng.choice(changes.NUMBERS)
    if isinstance(found, float):
        return rng.choice(_FLOATS)
    if isinstance(found, str):
        return rng.choice(_STRINGS) if rng.random() < 0.8 else found + "x" * rng.choice((1, 9000))
    if isinstance(found, np.ndarray):
        return _varied_array(found, rng)
    if isinstance(found, list):
        if found and rng.random() < 0.6 and hasattr(found[0], "__dataclass_fields__"):
            found = [*found]
            _vary(rng.choice(found), rng)
            return found
        return found[: rng.randrange(len(found) + 1)] if rng.random() < 0.5 else (found * rng.choice((2, 300)))[:2000]
    if hasattr(found, "__dataclass_fields__") and len(found.__dataclass_fields__) > 0:
        _vary(found, rng)
    return found


def _varied_array(found: np.ndarray, rng: Random) -> np.ndarray:
    kind = rng.randrange(6)
    if kind == 0:
        return found[: rng.randrange(len(found) + 1)]
    if kind == 1:
        return np.tile(found, rng.choice((2, 3, 50)))
    if kind == 2:
        return np.zeros_like(found)
    found = found.copy()
    if found.dtype == np.uint8:
        kept = changes.changed(found.tobytes(), "a.png" if found[:4].tobytes() == b"\x89PNG" else "a", rng, ())
        return np.frombuffer(kept, np.uint8)
    values = _FLOATS if found.dtype.kind == "f" else changes.NUMBERS
    with np.errstate(all="ignore"):
        for at in [rng.randrange(len(found)) for _ in range(rng.choice((1, 3, 40)))] if len(found) else ():
            found[at] = np.array(rng.choice(values)).astype(found.dtype)
    return found


# --- everything else --------------------------------------------------------------------------------------------------


def _bag(path: Path) -> None:
    """As ``omnibind bag inspect`` and ``bag eval`` do, which go on after damage."""
    from omnibind_core.errors import DataError
    from omnibind_ros.bags import inspect, read, types

    if path.suffix == ".yaml":
        with tempfile.TemporaryDirectory() as name:
            shutil.copyfile(path, Path(name, "metadata.yaml"))
            inspect.inspect(Path(name))
        return
    inspect.inspect(path)
    try:
        for item in read.messages(path):
            try:
                types.decode(item)
            except InvalidInputError:
                continue
    except DataError:
        return


def _definition(path: Path) -> None:
    """What a bag says a type is, and messages of it: zeros, ones, lengths that claim much."""
    from omnibind_ros.bags import types
    from omnibind_ros.bags.storage import Connection

    text = path.read_bytes().decode("utf-8", "replace")
    kind = "idl" if path.name.startswith("idl") else "msg"
    connection = Connection(0, "/a", "test_msgs/msg/Outer", kind, text)
    if reason := types.unreadable(connection):
        raise InvalidInputError("/a", reason, "a definition")
    store = types.store_of([connection])
    for data in (bytes(400), b"\0\1\0\0" + b"\xff" * 400, b"\0\1\0\0" + b"\0\0\0\x10" * 100, b""):
        try:
            types.decode(types.RecordedMessage("/a", connection.type, 0, data, store))
        except InvalidInputError:
            continue


def _table(path: Path) -> None:
    """The tables that people write, each by each of its readers."""
    from omnibind_core.data.concepts import Concepts
    from omnibind_core.data.sources.folder import FolderSource
    from omnibind_ros.bags import scene_bag
    from omnibind_ros.replay import truth

    if path.name.startswith("samples"):
        with tempfile.TemporaryDirectory() as name:
            shutil.copyfile(path, Path(name, "samples.csv"))
            list(FolderSource(Path(name)).samples())
    elif path.name.startswith("concepts"):
        Concepts.read(path)
    elif path.name.startswith("truth"):
        found = truth.from_table(path, 0, 10**10)
        found.at(10**9)
    else:
        scene_bag.read_labels(path)


def _config(path: Path) -> None:
    from omnibind_core.training.config import TrainConfig

    if path.name.startswith("train"):
        parse(TrainConfig, read_mapping(path), "train")
    elif path.suffix == ".json":
        from_json(path.read_bytes())
    else:
        from_yaml(path.read_bytes())


def _checkpoint(path: Path) -> None:
    from omnibind_core.encoders.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(path, verify=True)
    for name in checkpoint:
        checkpoint[name].sum()


@functools.cache
def _whole_model() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="omnibind-fuzz-"))
    seeds.save_model(folder / "model")
    return folder / "model"


def _model(path: Path) -> None:
    """One file of a model is another one, with and without what would show that at once."""
    from omnibind_core import OmniBind
    from omnibind_core.model.recogniser import Recogniser  # noqa: F401  # so that its import is not counted

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        shutil.copytree(_whole_model(), folder)
        shutil.copyfile(path, folder / path.name)
        if path.name != "digest.json":
            (folder / "digest.json").unlink()
        OmniBind.from_pretrained(folder, modalities=("image",))


def _scene_tables() -> seeds.Seeds:
    from omnibind_ros.bags import scene_bag

    row = scene_bag.SceneLabel(0, 10**9, "dog", *((),) * (len(scene_bag.SceneLabel.__dataclass_fields__) - 3))
    with tempfile.TemporaryDirectory() as name:
        scene_bag.write_labels(Path(name, "labels.csv"), [row, row])
        return [*seeds.tables(), ("labels.csv", Path(name, "labels.csv").read_bytes())]


_MAKES: Mapping[str, Callable[[], seeds.Seeds]] = {
    "image": seeds.pictures,
    "thermal": seeds.thermal,
    "touch": seeds.touch,
    "audio": seeds.sound,
    "point_cloud": seeds.clouds,
    "event": seeds.events,
}
TARGETS: Mapping[str, Target] = {
    **{f"files.{name}": Target(made, functools.partial(_file, name)) for name, made in _MAKES.items()},
    **{
        f"messages.{name}": Target(_message_seeds(name), functools.partial(_message, name))
        for name in _MESSAGES
        if name != "objects"
    },
    "messages.objects": Target(_message_seeds("objects"), _objects),
    "bags": Target(seeds.bags, _bag),
    "definitions": Target(seeds.definitions, _definition),
    "tables": Target(_scene_tables, _table),
    "configs": Target(seeds.texts, _config, (OmniBindError, ValueError)),
    "checkpoints": Target(seeds.checkpoints, _checkpoint),
    "models": Target(seeds.model, _model),
}
"""By name."""


def changed(data: bytes, name: str, rng: Random, others: Sequence[bytes]) -> bytes:
    """As :func:`changes.changed`, of messages field by field."""
    if name.endswith(".cdr"):
        form = _message_change(name)
        for _ in range(rng.choice((1, 1, 2, 3))):
            try:
                data = form(data, rng, others)
            except ValueError:
                data = changes.changed(data, "a", rng, others)
        return data[: changes.MOST] if rng.random() < 0.9 else changes.changed(data, "a", rng, others)
    return changes.changed(data, name, rng, others)
