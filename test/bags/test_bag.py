"""``omnibind bag inspect``: what is in a bag, and which modality it feeds."""

from __future__ import annotations

import dataclasses
import json
import sqlite3

import cv2
import numpy as np
import pytest

from omnibind_core import cli
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime.types import Encoded, SensorShare
from omnibind_ros import messages
from omnibind_ros.bags.definitions import DEFINITIONS, SAME_NAME

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

from omnibind_ros.bags import inspect, read, types  # noqa: E402

S = 1_000_000_000
T0 = 1_700_000_000 * S


def store_with(definitions):
    store = types._new_typestore(definitions)
    for name, text in definitions.items():
        if name not in store.types:
            store.register(typesys.get_types_from_msg(text, name))
    return store


def header(types, stamp_ns=T0):
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, S))
    return types["std_msgs/msg/Header"](stamp, "frame")


def write(path, store, items, storage=rosbag2.StoragePlugin.SQLITE3):
    """Writes ``(topic, type, time, message)``."""
    connections = {}
    with rosbag2.Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, ros_type, time_ns, message in items:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, ros_type, typestore=store)
            writer.write(connections[topic], time_ns, store.serialize_cdr(message, ros_type))
    return path


def packet(store, words, seq, encoding="evt3"):
    kind = store.types[messages.EVENT_PACKET]
    data = np.array(words, "<u2").view(np.uint8)
    return kind(header(store.types), 480, 640, seq, 0, encoding, False, data)


def event_items(store, topic="/events"):
    """Three packets, then one whose predecessor is missing and that begins with an event of unknown place."""
    streams = [
        (0, [0x8001, 0x6005, 0x0007, 0x2803, 0xA601]),
        (1, [0x2004, 0xA600]),
        (2, [0x6105, 0x2805, 0x1000]),
        (4, [0x2001, 0x8002, 0x6000, 0x0001, 0x2002]),
    ]
    for number, (seq, words) in enumerate(streams):
        yield topic, messages.EVENT_PACKET, T0 + number * S // 4, packet(store, words, seq)


EXPECTED_EVENTS = {
    "encoding": "evt3", "width": 640, "height": 480, "events": 4, "brighter": 2, "darker": 2,
    "triggers": {"6 falling": 1, "6 rising": 1}, "first_us": 4101, "last_us": 8192, "span_s": 4091 / 1e6, "gaps": 1,
    "unplaced": 1, "malformed": 1,
}  # fmt: skip


def inspect_json(path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bag", "inspect", str(path), "--json"])
    output = capsys.readouterr()
    return ended.value.code, json.loads(output.out), output.err


@pytest.mark.parametrize("storage", [rosbag2.StoragePlugin.SQLITE3, rosbag2.StoragePlugin.MCAP])
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_events_are_counted_in_bags_of_either_format(storage, whole, tmp_path, capsys):
    store = store_with(DEFINITIONS)
    path = write(tmp_path / "bag", store, event_items(store), storage)
    path = path if whole else next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    code, found, errors = inspect_json(path, capsys)
    assert (code, errors) == (0, "")
    (topic,) = found["topics"]
    assert topic["events"].pop("decode_s") > 0
    assert topic.pop("events") == EXPECTED_EVENTS
    assert found["span_s"] == topic["span_s"] == 0.75
    assert (topic["messages"], topic["rate"], topic["modality"], topic["rejected"]) == (4, 4.0, "event", 0)


def test_a_bag_without_definitions_is_read_by_ours(tmp_path, capsys):
    store = store_with(DEFINITIONS)
    path = write(tmp_path / "bag", store, event_items(store))
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("DELETE FROM message_definitions")
    _, found, _ = inspect_json(path, capsys)
    assert found["topics"][0]["events"]["events"] == 4


def sensors(types):
    """One message of every other kind."""
    point_field = types["sensor_msgs/msg/PointField"]
    rng = np.random.default_rng(0)
    seen = Events(*(np.arange(3, dtype=np.uint16) for _ in "xy"), np.arange(3) * 100, np.ones(3, np.uint8), 10, 8)
    encoded = Encoded("embedding", np.array([0.6, 0.8], np.float32))
    grey = np.zeros((8, 9), np.uint16)
    return {
        "/front/image_raw": (messages.IMAGE, messages.image_fields(np.zeros((8, 9, 3), np.uint8), "bgr8")),
        "/thermal/image_raw": (messages.IMAGE, messages.image_fields(grey, "mono16")),
        "/digit_left/image_raw": (messages.IMAGE, messages.image_fields(np.zeros((8, 9, 3), np.uint8), "rgb8")),
        "/front/compressed": (
            messages.COMPRESSED_IMAGE,
            {"format": "png", "data": cv2.imencode(".png", grey)[1].ravel()},
        ),
        "/points": (messages.POINT_CLOUD, messages.point_cloud_fields(rng.normal(size=(20, 3)), point_field)),
        "/dvs": (messages.EVENT_ARRAY, messages.event_array_fields(seen)),
        "/sound": (messages.AUDIO_CHUNK, messages.audio_chunk_fields(Sound(np.zeros(8, np.float32), 16000))),
        "/frames": (messages.MODALITY_FRAME, messages.modality_frame_fields("a", "audio", "tiny@1", encoded)),
    }


def test_what_every_topic_feeds(tmp_path, capsys):
    store = types.typestore()
    items = [
        (topic, kind, T0 + n, store.types[kind](header=header(store.types), **fields))
        for n in range(2)
        for topic, (kind, fields) in sensors(store.types).items()
    ]
    items.append(("/words", messages.STRING, T0 + 5, store.types[messages.STRING]("a dog")))
    time_type = "builtin_interfaces/msg/Time"
    items.append(("/other", time_type, T0 + 5, store.types[time_type](1, 2)))
    path = write(tmp_path / "bag", store, items, rosbag2.StoragePlugin.MCAP)
    _, found, _ = inspect_json(path, capsys)
    topics = {topic["topic"]: topic for topic in found["topics"]}
    assert {name: (topic["modality"], topic["content"]) for name, topic in topics.items()} == {
        "/front/image_raw": ("image", "9 x 8 bgr8"),
        "/thermal/image_raw": ("thermal", "9 x 8 mono16"),
        "/digit_left/image_raw": ("touch", "9 x 8 rgb8"),
        "/front/compressed": ("image", "png"),
        "/points": ("point_cloud", "20 points: x, y, z"),
        "/dvs": ("event", "10 x 8"),
        "/sound": ("audio", "16000 Hz, 1 channels"),
        "/frames": ("audio", "audio for tiny@1, [2]"),
        "/words": ("text", ""),
        "/other": ("", ""),
    }
    assert all(topic["rejected"] == 0 for topic in topics.values())
    events = topics["/dvs"]["events"]
    assert (events["events"], events["first_us"], events["last_us"]) == (6, T0 // 1000, T0 // 1000 + 200)
    assert topics["/words"]["rate"] is None

    with pytest.raises(SystemExit):
        cli.main(["bag", "inspect", str(path)])
    text = capsys.readouterr().out
    assert "18 messages on 10 topics" in text
    for line in (
        "/other  (builtin_interfaces/msg/Time)",
        "feeds: nothing",
        "feeds: touch",
        "6 events of 10 x 8 pixels",
    ):
        assert line in text


def test_unusable_messages_are_counted_with_a_reason(tmp_path, capsys):
    store = store_with(DEFINITIONS)
    image = store.types[messages.IMAGE]
    fields = {**messages.image_fields(np.zeros((8, 9, 3), np.uint8), "rgb8"), "encoding": "rgb565"}
    items = [
        ("/events", messages.EVENT_PACKET, T0, packet(store, [0x8001], 0, "evt9")),
        ("/image", messages.IMAGE, T0, image(header=header(store.types), **fields)),
    ]
    _, found, _ = inspect_json(write(tmp_path / "bag", store, items), capsys)
    events, picture = found["topics"]
    assert (events["rejected"], picture["rejected"]) == (1, 1)
    assert "'evt9', expected one of evt3" in events["reason"]
    assert picture["reason"].startswith("[/image] got ")
    assert "'rgb565'" in picture["reason"]


@pytest.mark.parametrize("defined", [True, False])
def test_both_audio_packages_of_one_name(defined, tmp_path):
    ours = {name: text for name, text in DEFINITIONS.items() if name.startswith("audio")}
    theirs = SAME_NAME[messages.AUDIO_STAMPED]
    for definitions, ros_type in ((ours, messages.AUDIO_DATA_STAMPED), (theirs, messages.AUDIO_STAMPED)):
        store = store_with(definitions)
        known = store.types
        data = known["audio_common_msgs/msg/AudioData"]
        if definitions is ours:
            audio = data(np.array([0, 64], np.uint8))
        else:
            none = [np.zeros(0, kind) for kind in ("f4", "i4", "i1", "u1")]
            samples = data(*none[:2], np.array([16384], np.int16), *none[2:])
            info = known["audio_common_msgs/msg/AudioInfo"](8, 1, 8000, 1)
            audio = known["audio_common_msgs/msg/Audio"](samples, info)
        message = known[ros_type](header(known), audio)
        path = write(tmp_path / ros_type.rpartition("/")[2], store, [("/sound", ros_type, T0, message)])
        if not defined:
            with sqlite3.connect(next(path.glob("*.db3"))) as database:
                database.execute("DELETE FROM message_definitions")
        (item,) = read.messages(path)
        sound = messages.decode(ros_type, types.decode(item), "audio", messages.DecodeOptions(), "front")
        assert sound.samples.tolist() == [0.5]


# What Prediction.msg was before SensorShare.msg.
OLD_PREDICTION = """std_msgs/Header header
string label
float32 confidence
bool unknown
float32 entropy
string[] labels
float32[] scores
string[] sensors
string[] modalities
float32[] weights
float32[] ages
string[] sensor_labels
float32[] sensor_confidences
string[] labels_without
float32[] confidences_without
float32[] embedding
float32[] similarities
float32 latency
"""
PREDICTION = "omnibind_ros/msg/Prediction"
NUMBERS = {
    "label": "dog", "confidence": 0.75, "unknown": False, "entropy": 0.5, "conflict": 0.3125, "labels": ["dog", "cat"],
    "scores": np.array([0.75, 0.25], np.float32), "embedding": np.array([0.0, 1.0], np.float32),
    "similarities": np.arange(6, dtype=np.float32), "latency": 0.125,
}  # fmt: skip


def old_prediction(store, **changes):
    """One of two sensors, whose items were 0.25 and 0.5 s old."""
    fields = {
        **{name: value for name, value in NUMBERS.items() if name != "conflict"}, "sensors": ["front", "lidar"],
        "modalities": ["image", "point_cloud"],
        "weights": np.array([0.25, 0.75], np.float32), "ages": np.array([0.25, 0.5], np.float32),
        "sensor_labels": ["dog", "cat"], "sensor_confidences": np.array([0.5, 0.625], np.float32),
        "labels_without": ["cat", "dog"], "confidences_without": np.array([0.375, 0.25], np.float32),
    }  # fmt: skip
    return store.types[PREDICTION](header=header(store.types), **{**fields, **changes})


EXPECTED_SHARES = (
    SensorShare("front", "image", 0.25, 0.25, "dog", 0.5, "cat", 0.375, T0),
    SensorShare("lidar", "point_cloud", 0.75, 0.5, "cat", 0.625, "dog", 0.25, T0 - S // 4),
)


@pytest.mark.parametrize("storage", [rosbag2.StoragePlugin.SQLITE3, rosbag2.StoragePlugin.MCAP])
def test_predictions_recorded_before_sensor_share_are_read_like_those_of_today(storage, tmp_path):
    store = store_with({PREDICTION: OLD_PREDICTION})
    old = write(tmp_path / "old", store, [("/prediction", PREDICTION, T0, old_prediction(store))], storage)
    share = types.typestore().types["omnibind_ros/msg/SensorShare"]
    fields = [dataclasses.asdict(one) for one in EXPECTED_SHARES]
    shares = [
        share(**{name: value for name, value in one.items() if name not in ("stamp_ns", "doubt")}) for one in fields
    ]
    message = types.message(PREDICTION, {**NUMBERS, "sensors": shares}, T0, "frame")
    new = write(tmp_path / "new", types.typestore(), [("/prediction", PREDICTION, T0, message)], storage)
    assert (read.outdated(old), read.outdated(new)) == ({"/prediction"}, set())
    found = [messages.prediction_of(types.decode(item)) for path in (old, new) for item in read.messages(path)]
    for prediction in found:
        assert prediction.sensors == EXPECTED_SHARES
        assert (prediction.tick_ns, prediction.header.frame_id) == (T0 + S // 4, "frame")
        assert prediction.similarities.tolist() == [[0, 1], [2, 3], [4, 5]]
    nothing = {"header": None, "embedding": None, "similarities": None}
    assert dataclasses.replace(found[0], **nothing) == dataclasses.replace(found[1], **nothing)


@pytest.mark.parametrize("number", [1, 2])
def test_old_predictions_in_a_bag_without_definitions_are_refused(number, tmp_path):
    store = store_with({PREDICTION: OLD_PREDICTION})
    full = old_prediction(store)
    names = ("sensors", "modalities", "weights", "ages", "sensor_labels", "sensor_confidences", "labels_without")
    first = {name: getattr(full, name)[:number] for name in (*names, "confidences_without")}
    items = [("/prediction", PREDICTION, T0, old_prediction(store, **first))]
    path = write(tmp_path / "bag", store, items)
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("DELETE FROM message_definitions")
    (item,) = read.messages(path)
    with pytest.raises(InvalidInputError, match=r"that are no omnibind_ros/msg/Prediction.*the bag does not define it"):
        types.decode(item)


def test_arrays_of_an_old_prediction_must_be_equally_long():
    store = store_with({PREDICTION: OLD_PREDICTION})
    with pytest.raises(InvalidInputError, match=r"2 sensors, 2 modalities, 1 weights, 2 ages.*equally many of each"):
        messages.prediction_of(old_prediction(store, weights=np.ones(1, np.float32)))
    with pytest.raises(InvalidInputError, match="5 similarities, expected equally many for each of 2 sensors"):
        messages.prediction_of(old_prediction(store, similarities=np.ones(5, np.float32)))


def test_audio_info_tells_what_the_parameters_should_be(tmp_path):
    store = store_with(DEFINITIONS)
    info = store.types[messages.AUDIO_INFO](1, 16000, "S16LE", 0, "wave")
    path = write(tmp_path / "bag", store, [("/audio_info", messages.AUDIO_INFO, T0, info)])
    (topic,) = inspect.inspect(path).topics
    assert topic.content == "channels 1, sample_rate 16000, sample_format S16LE, bitrate 0, coding_format wave"


def test_a_type_that_nobody_defines(tmp_path):
    store = store_with({"my_msgs/msg/Thing": "int32 a"})
    thing = store.types["my_msgs/msg/Thing"](3)
    path = write(tmp_path / "bag", store, [("/thing", "my_msgs/msg/Thing", T0, thing)])
    assert types.decode(next(read.messages(path))).a == 3
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("DELETE FROM message_definitions")
    with pytest.raises(InvalidInputError, match=r"\[/thing\] .*my_msgs/msg/Thing"):
        types.decode(next(read.messages(path)))
    (topic,) = inspect.inspect(path).topics
    assert (topic.messages, topic.modality, topic.rejected) == (1, "", 1)


def damage(path, kind):
    file = next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    if kind == "half":
        file.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "gone":
        file.unlink()
    elif kind == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(len(data)))
    elif kind == "metadata":
        (path / "metadata.yaml").write_bytes(b"\xff\xfe: [")
    elif kind == "no metadata":
        (path / "metadata.yaml").unlink()


@pytest.mark.parametrize("storage", [rosbag2.StoragePlugin.SQLITE3, rosbag2.StoragePlugin.MCAP])
@pytest.mark.parametrize("kind", ["half", "empty", "gone", "noise", "metadata", "no metadata"])
def test_damaged_bags_are_refused_by_name(kind, storage, tmp_path, capsys):
    store = store_with(DEFINITIONS)
    path = write(tmp_path / "bag", store, event_items(store), storage)
    damage(path, kind)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bag", "inspect", str(path)])
    output = capsys.readouterr()
    errors = output.err.strip()
    if kind == "half" and storage == rosbag2.StoragePlugin.MCAP:  # its messages are whole, its index is not
        assert ended.value.code == 1
        assert "4 events" in output.out
        assert "is cut off" in errors
        return
    assert ended.value.code == 2
    assert errors.startswith(f"omnibind: {path} is not a readable rosbag2: ")
    assert "\n" not in errors
    assert ("ros2 bag reindex" in errors) == (kind == "no metadata")


@pytest.mark.parametrize("name", ["none", "text.txt"])
def test_what_is_no_bag_is_refused_by_name(name, tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(DataError, match=name):
        inspect.inspect(tmp_path / name)


def test_a_bag_that_is_damaged_further_on_is_summarised_up_to_there(tmp_path, capsys, monkeypatch):
    store = store_with(DEFINITIONS)
    path = write(tmp_path / "bag", store, event_items(store))
    messages_of = read.messages

    def broken(path):
        yield from list(messages_of(path))[:2]
        raise DataError(f"{path} is not a readable rosbag2: the disk ends")

    monkeypatch.setattr(read, "messages", broken)
    code, found, errors = inspect_json(path, capsys)
    assert code == 1
    assert found["messages"] == 2
    assert "the disk ends" in found["damage"]
    assert "read up to there only" in errors


def test_damaged_messages_are_counted(tmp_path):
    store = store_with(DEFINITIONS)
    path = write(tmp_path / "bag", store, event_items(store))
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("UPDATE messages SET data = ? WHERE id = 2", (b"\x00\x01\x00\x00\x01",))
    (topic,) = inspect.inspect(path).topics
    assert (topic.messages, topic.rejected) == (4, 1)
    assert "5 bytes that are no event_camera_msgs/msg/EventPacket" in topic.reason


def test_an_empty_bag(tmp_path, capsys):
    with rosbag2.Writer(tmp_path / "bag", version=9):
        pass
    code, found, _ = inspect_json(tmp_path / "bag", capsys)
    assert (code, found["topics"], found["start_ns"], found["span_s"]) == (0, [], None, 0.0)


def test_a_real_recording(shared_data, capsys):
    path = shared_data / "bags" / "event_camera_evt3"
    if not path.is_dir():
        pytest.skip(f"no recording of an event camera: {path} is missing")
    _, found, _ = inspect_json(path, capsys)
    (topic,) = found["topics"]
    events = topic["events"]
    assert (topic["messages"], topic["modality"], topic["content"]) == (517, "event", "640 x 480 evt3")
    assert (events["events"], events["brighter"], events["darker"]) == (343_474, 125_183, 218_291)
    assert events["triggers"] == {"6 falling": 2078, "6 rising": 2079}
    assert events["span_s"] == pytest.approx(topic["span_s"], rel=0.01)
    assert (events["gaps"], events["unplaced"], events["malformed"]) == (0, 0, 0)
