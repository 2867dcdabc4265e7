"""Recordings of every kind that strangers have: foreign topics, old and new formats, damage; what is whole is read."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import struct
import sys
import time
import tracemalloc
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from omnibind_core import cli
from omnibind_core.errors import DataError, InvalidInputError, PartlyReadError
from omnibind_ros import messages
from omnibind_ros.messages import IMAGE, STRING

rosbag2 = pytest.importorskip("rosbags.rosbag2")
rosbag1 = pytest.importorskip("rosbags.rosbag1")
typesys = pytest.importorskip("rosbags.typesys")
lz4 = pytest.importorskip("lz4.frame")
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    zstd = pytest.importorskip("backports.zstd")

from omnibind_ros.bags import inspect, read, storage, types  # noqa: E402
from omnibind_ros.bags.formats import mcap  # noqa: E402
from omnibind_ros.commands.bag import play  # noqa: E402
from omnibind_ros.replay.setup import read_parameters, resolve  # noqa: E402

S = 1_000_000_000
T0 = 1_700_000_000 * S
STAMPS = [T0 + n * S // 10 for n in range(20)]
CAMERA = "/camera/image_raw"
SERVICE = "int64 a\nint64 b\n---\nint64 sum\n"
COMPRESS = {"": bytes, "zstd": zstd.compress, "lz4": lz4.compress}


def omnibind(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


def picture(stamp_ns, shape=(8, 9)):
    pixels = np.random.default_rng(stamp_ns % 1000).integers(0, 255, (*shape, 3)).astype(np.uint8)
    return types.message(IMAGE, messages.image_fields(pixels, "bgr8"), stamp_ns)


def cdr(item, ros_type):
    return bytes(types.typestore().serialize_cdr(item, ros_type))


def word(text="dog"):
    return types.typestore().types[STRING](text)


# --- MCAP by hand: what other recorders write ------------------------------------------------------------------------


def text(content):
    raw = content if isinstance(content, bytes) else content.encode()
    return struct.pack("<I", len(raw)) + raw


def record(opcode, content):
    return struct.pack("<BQ", opcode, len(content)) + content


def schema(number, name, encoding, definition):
    return record(3, struct.pack("<H", number) + text(name) + text(encoding) + text(definition))


def channel(number, of, topic, encoding="cdr", metadata=()):
    pairs = b"".join(text(key) + text(value) for key, value in metadata)
    return record(4, struct.pack("<HH", number, of) + text(topic) + text(encoding) + text(pairs))


def message(number, time_ns, data):
    return record(5, struct.pack("<HIQQ", number, 0, time_ns, time_ns) + data)


def chunk(records, compression="zstd", times=(T0, T0), counts=()):
    raw = b"".join(records)
    packed = COMPRESS[compression](raw)
    head = struct.pack("<QQQI", *times, len(raw), zlib.crc32(raw)) + text(compression)
    index = b"".join(record(7, struct.pack("<HI", number, 16 * count) + bytes(16 * count)) for number, count in counts)
    return record(6, head + struct.pack("<Q", len(packed)) + packed) + index


def mcap_file(path, records, end=True):
    tail = record(15, bytes(4)) + record(2, bytes(20)) + b"\x89MCAP0\r\n" if end else b""
    path.write_bytes(b"\x89MCAP0\r\n" + record(1, text("ros2") + text("by hand")) + b"".join(records) + tail)
    return path


DEFINITIONS = [schema(1, IMAGE, "ros2msg", ""), channel(1, 1, CAMERA)]


def pictures(stamps):
    return [message(1, stamp, cdr(picture(stamp), IMAGE)) for stamp in stamps]


def chunks(compression="zstd", size=5):
    parts = [STAMPS[n : n + size] for n in range(0, len(STAMPS), size)]
    return [chunk(pictures(part), compression, (part[0], part[-1]), [(1, size)]) for part in parts]


def held(path, topic=CAMERA):
    return [item.time_ns for item in read.messages(path, [topic])]


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
@pytest.mark.parametrize("end", [True, False], ids=["closed", "crashed"])
def test_mcap_without_summary_and_with_records_of_other_kinds(compression, end, tmp_path):
    attachment = record(9, struct.pack("<QQ", T0, T0) + text("calib.yaml") + text("text") + bytes(8) + bytes(4))
    records = [*DEFINITIONS, attachment, record(12, text("robot") + text("")), record(0x90, b"private")]
    path = mcap_file(tmp_path / "a.mcap", records + chunks(compression), end)
    found = []
    try:
        found += held(path)
    except DataError as error:
        assert "is cut off" in str(error)
    else:
        assert end
        found = held(path)
    assert read.span_ns(path) == (STAMPS[0], STAMPS[-1])
    assert mcap.McapFile(path).losses.cut is not end
    assert end is False or found == STAMPS


def test_times_that_go_backwards_are_put_in_order(tmp_path):
    path = mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *pictures(STAMPS[::-1])])
    assert held(path) == STAMPS
    late = [chunk(pictures(STAMPS[n::3]), times=(STAMPS[n], STAMPS[-1])) for n in (2, 0, 1)]
    assert held(mcap_file(tmp_path / "b.mcap", [*DEFINITIONS, *late])) == STAMPS


FOREIGN = [
    ("/json", schema(2, "pose", "jsonschema", "{}"), "json", "encoded as 'json', expected cdr"),
    ("/proto", schema(2, "foxglove.Image", "protobuf", "\x00"), "protobuf", "encoded as 'protobuf'"),
    ("/add/_service_event", schema(2, "x/srv/Add_Event", "ros2msg", SERVICE), "cdr", "of a service or an action"),
    ("/broken", schema(2, "x/msg/Broken", "ros2msg", "int32 :-("), "cdr", "cannot be parsed"),
    ("/idl", schema(2, "x/msg/Idl", "ros2idl", "union U switch(long) {"), "cdr", "cannot be parsed"),
    ("/half", schema(2, "x/msg/Half", "ros2msg", "x/Other other"), "cdr", "lacks x/msg/Other"),
    ("/typeless", b"", "cdr", "have no type"),
]


@pytest.mark.parametrize(("topic", "definition", "encoding", "reason"), FOREIGN, ids=[one[0] for one in FOREIGN])
def test_a_topic_that_cannot_be_read_stops_no_other(topic, definition, encoding, reason, tmp_path, capsys):
    foreign = [definition, channel(2, 2, topic, encoding), message(2, T0, b"\x00\x01\x00\x00")]
    path = mcap_file(tmp_path / "a.mcap", [*foreign, *DEFINITIONS, *chunks()])
    assert held(path) == STAMPS
    assert read.topics(path) == {CAMERA: IMAGE}
    assert reason in read.skipped(path)[topic].reason
    assert read.skipped(path)[topic].messages == 1
    assert omnibind("bag", "inspect", path) == 0
    lines = capsys.readouterr().out
    assert "20 messages" in lines
    assert f"{topic}  (" in lines
    assert "1 messages, which cannot be read: " in lines
    setup = resolve(read.topics(path), read_parameters(None), adopt=True, bag=path)
    assert any(note.startswith(f"{topic} is left out: ") and reason in note for note in setup.notes)


def test_a_sensor_whose_topic_cannot_be_read_says_so(tmp_path):
    records = [schema(2, "x", "jsonschema", "{}"), channel(2, 2, "/lidar/points", "json"), message(2, T0, b"{}")]
    path = mcap_file(tmp_path / "a.mcap", [*records, *DEFINITIONS, *chunks()])
    given = {"sensors": ["camera", "lidar"], "lidar.type": "point_cloud", "lidar.topic": "/lidar/points"}
    setup = resolve(read.topics(path), {**given, "camera.topic": CAMERA}, bag=path)
    assert setup.refused["lidar"] == "/lidar/points cannot be read: its messages are encoded as 'json', expected cdr"
    assert setup.present == ("camera",)


def test_definitions_in_idl_with_those_of_inner_types(tmp_path):
    rule = "=" * 80 + "\n"
    outer = '// generated\n#include "x/msg/In.idl"\nmodule x { module msg { struct Out { x::msg::In inner; }; }; };\n'
    inner = "module x { module msg { struct In { int32 a; }; }; };\n"
    definition = f"{rule}IDL: x/msg/Out\n{outer}{rule}IDL: x/msg/In\n{inner}"
    records = [schema(1, "x/msg/Out", "ros2idl", definition), channel(1, 1, "/out")]
    path = mcap_file(tmp_path / "a.mcap", [*records, message(1, T0, b"\0\1\0\0" + struct.pack("<i", 7))])
    (item,) = read.messages(path)
    assert types.decode(item).inner.a == 7


def test_a_definition_that_is_known_here_need_not_be_parsed(tmp_path):
    records = [schema(1, STRING, "ros2idl", "what?"), channel(1, 1, "/words"), message(1, T0, cdr(word(), STRING))]
    (item,) = read.messages(mcap_file(tmp_path / "a.mcap", records))
    assert types.decode(item).data == "dog"


def test_latched_topics_are_known_by_name_and_by_number(tmp_path):
    records = [schema(1, STRING, "", "")]
    for number, profiles in enumerate(
        ("- durability: 1", "- durability: transient_local", "- durability: 2", "", "]"), 1
    ):
        records.append(channel(number, 1, f"/w{number}", metadata=[("offered_qos_profiles", profiles)]))
    path = mcap_file(tmp_path / "a.mcap", records)
    assert read.latched(path) == {"/w1", "/w2"}
    with pytest.raises(DataError, match="holds no message"):
        read.span_ns(path)
    assert list(read.messages(path)) == []


# --- damage -----------------------------------------------------------------------------------------------------------


def overwrite(path, place, size=200):
    data = bytearray(path.read_bytes())
    data[place : place + size] = np.random.default_rng(1).bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["content", "header"])
@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
def test_of_a_damaged_file_all_other_chunks_are_read_and_the_loss_is_counted(where, compression, tmp_path, capsys):
    parts = chunks(compression)
    path = mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *parts])
    begin = path.read_bytes().index(parts[1])
    overwrite(path, begin + (150 if where == "content" else -50), 200)
    found = []
    with pytest.raises(PartlyReadError, match=r"is damaged: .* lost in 1 damaged place of \d+ bytes") as told:
        for item in read.messages(path):
            found.append(item.time_ns)
    assert set(found) >= set(STAMPS) - set(STAMPS[5:10])
    assert len(found) < 20
    if where == "content":
        assert "5 messages are lost" in str(told.value)
        assert found == STAMPS[:5] + STAMPS[10:]
    assert omnibind("bag", "inspect", path, "--json") == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["messages"] == len(found)
    assert "all that is whole was read" in output.err
    assert "\n" not in output.err.strip()


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("claim", [1000, 1 << 40])
def test_a_chunk_that_unpacks_to_more_than_it_may_is_lost_and_takes_no_memory(claim, compression, tmp_path):
    parts = chunks(compression)
    bomb = bytearray(chunk([message(1, STAMPS[5], bytes(1 << 26))], compression))
    struct.pack_into("<Q", bomb, 9 + 16, claim)
    path = mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, parts[0], bytes(bomb), *parts[2:]])
    found = []
    tracemalloc.start()
    try:
        with pytest.raises(PartlyReadError, match="lost"):
            found.extend(item.time_ns for item in read.messages(path))
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert found == STAMPS[:5] + STAMPS[10:]


def test_a_large_chunk_that_is_not_compressed_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap, "MOST_UNPACKED", 10)
    assert held(mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *chunks("")])) == STAMPS


def test_what_unpacks_to_more_than_the_bound_is_refused(monkeypatch):
    assert storage.unpacked(zstd.compress(b"one") + zstd.compress(b"two"), 6) == b"onetwo"
    with pytest.raises(storage.UnreadableError, match=r"more than 5, expected at most these"):
        storage.unpacked(zstd.compress(b"one") + zstd.compress(b"two"), 5)
    monkeypatch.setattr(storage, "MOST_UNPACKED", 1000)
    bomb = zstd.compress(bytes(1001))
    assert storage.decompressed(bomb) == bomb  # which is no message, as its decoder says
    assert storage.decompressed(zstd.compress(bytes(1000))) == bytes(1000)


def test_a_chunk_that_the_summary_knows_is_counted_as_lost(tmp_path):
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        to = writer.add_connection(CAMERA, IMAGE, typestore=types.typestore())
        for stamp in STAMPS:
            writer.write(to, stamp, cdr(picture(stamp, (600, 600)), IMAGE))
    path = next((tmp_path / "bag").glob("*.mcap"))
    overwrite(path, path.stat().st_size // 2)
    total = held_until_error(path)
    assert 0 < total <= 20
    path.write_bytes(path.read_bytes()[:-1])  # and nobody knows where the summary is
    assert held_until_error(path) == total


def test_a_summary_that_points_beyond_the_file_is_no_traceback(tmp_path):
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        to = writer.add_connection(CAMERA, IMAGE, typestore=types.typestore())
        for stamp in STAMPS:
            writer.write(to, stamp, cdr(picture(stamp), IMAGE))
    path = next((tmp_path / "bag").glob("*.mcap"))
    data = bytearray(path.read_bytes())
    at = struct.unpack_from("<Q", data, len(data) - 28)[0]
    while data[at] != 8:  # the index of a chunk
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    data[at + 9 + 16 + 7] = 0xFF  # highest byte of its place
    data[-12:-8] = bytes(4)  # no checksum, as rosbags writes it
    path.write_bytes(data)
    with pytest.raises(PartlyReadError, match="damaged place"):
        list(read.messages(path))


def held_until_error(path):
    count = 0
    try:
        for _ in read.messages(path):
            count += 1
    except DataError:
        pass
    return count


def test_a_damaged_bag_is_played_to_its_end(tmp_path, capsys):
    parts = chunks()
    path = mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *parts])
    overwrite(path, path.read_bytes().index(parts[1]) + 150)
    played = []
    player = SimpleNamespace(play=lambda go_on, tell: [played.append(one.time_ns) for one in read.messages(path)])
    whole = play._rounds(SimpleNamespace(bag=path, start=0.0, loop=False), player, lambda: True)
    assert not whole
    assert played == STAMPS[:5] + STAMPS[10:]
    assert "all that is whole was read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag", "a.mcap.zstd", "a.db3.zstd", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"abcdefgh"], ids=["empty", "magic", "noise"])
def test_a_file_of_eight_bytes_is_refused_in_one_line(name, content, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content)
    assert omnibind("bag", "inspect", path) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith(f"omnibind: {path} is not a readable rosbag2: ")
    assert "\n" not in errors
    assert "rror:" not in errors


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    """A bag of SQLite with 20 pictures of several pages each."""
    with rosbag2.Writer(tmp_path / "bag", version=9) as writer:
        to = writer.add_connection(CAMERA, IMAGE, typestore=types.typestore())
        for stamp in STAMPS:
            writer.write(to, stamp, cdr(picture(stamp, (50, 50)), IMAGE))
    return next((tmp_path / "bag").glob("*.db3"))


def page_of(path, needle):
    """A database page and its number that holds some bytes."""
    data = path.read_bytes()
    size = struct.unpack(">H", data[16:18])[0]
    return data.index(needle) // size * size


def test_of_a_damaged_database_all_other_messages_are_read(database):
    page = page_of(database, cdr(picture(STAMPS[7], (50, 50)), IMAGE)[:64])
    data = bytearray(database.read_bytes())
    data[page : page + 100] = b"\xff" * 100
    database.write_bytes(data)
    found = []
    with pytest.raises(PartlyReadError, match=r"\d+ messages are lost"):
        for item in read.messages(database):
            found.append(item.time_ns)
    assert 10 <= len(found) < 20
    assert found == sorted(found)
    assert read.span_ns(database)[0] == STAMPS[0]


def test_a_database_that_is_cut_off_is_read_up_to_there(database):
    database.write_bytes(database.read_bytes()[: database.stat().st_size * 2 // 3])
    found = []
    with pytest.raises(DataError, match="damaged"):
        for item in read.messages(database):
            found.append(item.time_ns)
    assert 5 <= len(found) < 20


def test_the_log_of_a_recorder_that_crashed_is_read_and_left_alone(tmp_path):
    path = tmp_path / "a.db3"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
    writer.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)")
    writer.execute("INSERT INTO topics VALUES (1, '/camera/image_raw', 'sensor_msgs/Image', 'cdr')")
    for stamp in STAMPS:
        writer.execute("INSERT INTO messages VALUES (NULL, 1, ?, ?)", (stamp, cdr(picture(stamp), IMAGE)))
    writer.commit()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("a.db3", "a.db3-wal"):
        shutil.copy(tmp_path / name, crashed)
    writer.close()
    before = {one.name: one.read_bytes() for one in crashed.iterdir()}
    assert held(crashed / "a.db3") == STAMPS
    assert {one.name: one.read_bytes() for one in crashed.iterdir()} == before


def test_types_as_crystal_named_them(database):
    with sqlite3.connect(database) as changed:
        changed.execute("UPDATE topics SET type = 'sensor_msgs/Image'")
        changed.execute("DELETE FROM message_definitions")
    metadata = database.parent / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(IMAGE, "sensor_msgs/Image"))
    assert read.topics(database.parent) == {CAMERA: IMAGE}
    assert types.decode(next(read.messages(database.parent))).encoding == "bgr8"


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
def test_whatever_is_overwritten_the_error_is_ours_and_one_line(suffix, database, ros1, tmp_path):
    whole = {".db3": database, ".bag": ros1}.get(suffix) or mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *chunks()])
    data = whole.read_bytes()
    rng = np.random.default_rng(3)
    path = tmp_path / f"b{suffix}"
    for number in range(24):
        place, size = int(rng.integers(len(data) - 200)), (1, 8, 200)[number % 3]
        path.write_bytes(data[:place] + (rng.bytes(size), b"\xff" * size)[number % 2] + data[place + size :])
        try:
            assert set(read.topics(path)) | set(read.skipped(path)) | read.latched(path) | read.outdated(path)
            read.span_ns(path)
            assert sum(1 for _ in read.messages(path)) <= 80
        except DataError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_a_bit_that_a_check_sum_covers_is_missed_by_no_report(compression, tmp_path):
    path = mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *chunks(compression)])
    content, whole = path.read_bytes(), [(item.time_ns, item.data) for item in read.messages(path)]
    random = np.random.default_rng(0)
    begin, told = content.index(b"\x06"), 0
    for bit in random.integers(8 * begin, 8 * (len(content) - 60), 60).tolist():
        damaged = tmp_path / f"{bit}.mcap"
        damaged.write_bytes(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
        try:
            found = inspect.inspect(damaged)
        except DataError:
            told += 1
            continue
        told += bool(found.damage)
        if not found.damage and not any(topic.reason for topic in found.topics):
            assert [(item.time_ns, item.data) for item in read.messages(damaged)] == whole
    assert told > 40


def test_a_time_that_the_index_of_a_database_does_not_know_is_reported(database):
    content, stamp = database.read_bytes(), STAMPS[7].to_bytes(8, "big")
    assert content.count(stamp) == 2  # in the table, and in the index
    assert not inspect.inspect(database.parent).damage
    for place in (content.index(stamp), content.rindex(stamp)):
        database.write_bytes(content[: place + 7] + bytes([content[place + 7] ^ 1]) + content[place + 8 :])
        assert "is damaged: an unknown number of messages are lost" in inspect.inspect(database.parent).damage


# --- compression, metadata, paths -------------------------------------------------------------------------------------


def change(folder, old, new):
    metadata = folder / "metadata.yaml"
    content = metadata.read_text()
    assert old in content
    metadata.write_text(content.replace(old, new))


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_files_that_are_compressed_as_a_whole(suffix, database, tmp_path):
    path = database if suffix == ".db3" else mcap_file(tmp_path / "a.mcap", [*DEFINITIONS, *chunks()])
    packed = tmp_path / "packed" / f"b{suffix}.zstd"
    packed.parent.mkdir()
    content = path.read_bytes()
    half = len(content) * 2 // 3
    packed.write_bytes(zstd.compress(content[:half]) + zstd.compress(content[half:]))
    assert held(packed) == STAMPS
    packed.write_bytes(packed.read_bytes()[:-40])
    assert 5 <= held_until_error(packed) < 20
    with pytest.raises(DataError, match=r"cut off|damaged"):
        list(read.messages(packed))


def test_a_compressed_file_of_more_than_the_bound_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "b.mcap.zstd"
    path.write_bytes(zstd.compress(bytes(3_000_000)))
    monkeypatch.setattr(storage, "MOST_UNPACKED", 2_000_000)
    with pytest.raises(DataError, match=r"b\.mcap\.zstd: \d+ bytes that unpack to more than 20\d{5}"):
        list(read.messages(path, ["/t"]))
    monkeypatch.setattr(storage, "_PIECE", 1 << 16)
    with pytest.raises(DataError, match="unpack to more than"):
        list(read.messages(path, ["/t"]))


@pytest.mark.parametrize("mode", ["FILE", "MESSAGE"])
def test_bags_compressed_by_rosbag2(mode, tmp_path):
    writer = rosbag2.Writer(tmp_path / "bag", version=9)
    writer.set_compression(rosbag2.CompressionMode[mode], rosbag2.CompressionFormat.ZSTD)
    with writer:
        to = writer.add_connection(CAMERA, IMAGE, typestore=types.typestore())
        for stamp in STAMPS:
            writer.write(to, stamp, cdr(picture(stamp), IMAGE))
    assert held(tmp_path / "bag") == STAMPS
    assert types.decode(next(read.messages(tmp_path / "bag"))).encoding == "bgr8"


def test_metadata_of_an_unknown_storage_and_with_a_part_that_is_missing(database, capsys):
    folder = database.parent
    change(folder, "storage_identifier: sqlite3", "storage_identifier: ''")
    assert held(folder) == STAMPS
    change(folder, f"- {database.name}", f"- {database.name}\n  - gone_1.db3")
    assert held_until_error(folder) == 20
    assert omnibind("bag", "inspect", folder) == 1
    assert "is damaged: there is no gone_1.db3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["../secret.db3", "/secret.db3", "..", "C:\\secret.db3", "a/../../secret.db3", "link.db3"]
)
def test_files_that_metadata_name_elsewhere_are_refused(name, database, tmp_path):
    folder = database.parent
    shutil.copyfile(database, tmp_path / "secret.db3")
    (folder / "link.db3").symlink_to(tmp_path / "secret.db3")
    change(folder, f"- {database.name}", f"- '{name}'")
    with pytest.raises(
        DataError, match=r"(metadata\.yaml: path .* leads out of the folder|is a link out of|there is no secret)"
    ):
        read.topics(folder)


def test_folders_that_are_linked_or_read_only_and_have_odd_names(database, tmp_path):
    odd = tmp_path / "mit Leerzeichen & ü #1 %20?.d"
    shutil.copytree(database.parent, odd)
    (tmp_path / "link").symlink_to(odd)
    before = sorted(one.name for one in odd.iterdir())
    odd.chmod(0o555)
    try:
        assert held(tmp_path / "link") == held(odd) == held(odd / database.name) == STAMPS
    finally:
        odd.chmod(0o755)
    assert sorted(one.name for one in odd.iterdir()) == before


# --- ROS 1 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ros1(tmp_path):
    """Pictures, words, a type that ROS 2 has with other fields, and one that nobody else has."""
    store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
    store.register(typesys.get_types_from_msg("float64 newton\ntime when", "gripper/msg/Grasp"))
    kinds = store.types
    path = tmp_path / "old.bag"
    writer = rosbag1.Writer(path)
    writer.set_compression(rosbag1.Writer.CompressionFormat.BZ2)
    with writer:
        topics = {CAMERA: IMAGE, "words": STRING, "/near": "sensor_msgs/msg/Range", "/grasp": "gripper/msg/Grasp"}
        to = {name: writer.add_connection(name, kind, typestore=store) for name, kind in topics.items()}
        for number, stamp in enumerate(STAMPS):
            time = kinds["builtin_interfaces/msg/Time"](*divmod(stamp, S))
            header = kinds["std_msgs/msg/Header"](seq=number, stamp=time, frame_id="cam")
            fields = vars(picture(stamp))
            image = {name: fields[name] for name in ("height", "width", "encoding", "is_bigendian", "step", "data")}
            items = {
                CAMERA: kinds[IMAGE](header=header, **image),
                "words": kinds[STRING]("dog"),
                "/near": kinds["sensor_msgs/msg/Range"](header, 0, 0.5, 0.1, 4.0, 1.5),
                "/grasp": kinds["gripper/msg/Grasp"](2.5, time),
            }
            for name, item in items.items():
                writer.write(to[name], stamp, store.serialize_ros1(item, topics[name]))
    return path


def test_ros_1_bags_are_read_as_those_of_ros_2(ros1, capsys):
    assert read.topics(ros1) == {
        CAMERA: IMAGE, "/words": STRING, "/near": "sensor_msgs/msg/Range", "/grasp": "gripper/msg/Grasp"
    }  # fmt: skip
    assert read.outdated(ros1) == {"/near"}
    assert read.span_ns(ros1) == (STAMPS[0], STAMPS[-1])
    first = {item.topic: item for item in read.messages(ros1) if item.time_ns == T0}
    image = types.decode(first[CAMERA])
    assert (messages.stamp_ns(image), image.header.frame_id) == (T0, "cam")
    assert np.array_equal(image.data, picture(T0).data)
    assert first[CAMERA].data == cdr(image, IMAGE)  # as a node of ROS 2 would have it
    assert types.decode(first["/near"]).range == 1.5
    assert types.decode(first["/grasp"]).newton == 2.5
    assert omnibind("bag", "inspect", ros1) == 0
    assert "20 messages at 10.00 Hz in 1.900 s: 9 x 8 bgr8" in capsys.readouterr().out


def test_ros_1_bags_are_evaluated_beside_damaged_ones(ros1, tiny_model, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "bags"
    folder.mkdir()
    shutil.copy(ros1, folder)
    parts = chunks()
    path = mcap_file(folder / "damaged.mcap", [*DEFINITIONS, *parts])
    overwrite(path, path.read_bytes().index(parts[2]) + 150)
    labels = tmp_path / "truth.csv"
    labels.write_text("start_s,end_s,label\n0,2,dog\n")
    code = omnibind("bag", "eval", folder, "--model", tiny_model, "--labels", labels, "--out", tmp_path / "r")
    errors = capsys.readouterr().err
    assert code == 1
    assert "5 messages are lost in 1 damaged place" in errors
    assert "is damaged, and all that is whole of it is evaluated" in errors
    for name in ("old", "damaged"):
        ticks = json.loads((tmp_path / "r" / name / "report.json").read_text())["tables"]["ticks"]["rows"]
        assert len(ticks) == 10  # those behind the damage included
        assert sum("camera" in tick["sensors"] for tick in ticks) >= 6


def test_mcap_with_messages_of_ros_1(tmp_path):
    store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
    definition, _ = store.generate_msgdef(STRING, ros_version=1)
    raw = bytes(store.serialize_ros1(store.types[STRING]("dog"), STRING))
    records = [schema(1, "std_msgs/String", "ros1msg", definition), channel(1, 1, "/words", "ros1")]
    damaged = message(1, T0 + 1, raw[:-1])
    first, second = read.messages(mcap_file(tmp_path / "a.mcap", [*records, message(1, T0, raw), damaged]))
    assert (first.type, types.decode(first).data) == (STRING, "dog")
    with pytest.raises(InvalidInputError, match="0 bytes that are no std_msgs/msg/String"):
        types.decode(second)


def test_a_ros_1_bag_that_was_not_closed_says_what_to_do(ros1):
    ros1.write_bytes(ros1.read_bytes()[: ros1.stat().st_size // 2])
    with pytest.raises(DataError, match=r"restore its index in ROS 1 by: rosbag reindex old\.bag"):
        read.topics(ros1)


# --- what inspect shows -----------------------------------------------------------------------------------------------


def test_long_names_of_topics_leave_room_for_the_rest_of_their_line(tmp_path, capsys):
    folder = "/robot/sensing/" + "x" * 70
    records = [schema(1, IMAGE, "", ""), schema(2, "std_msgs/msg/Bool", "", "")]
    records += [channel(1, 1, f"{folder}/front"), channel(2, 1, f"{folder}/rear")]
    records += [channel(n, 2, f"{folder}/{n}") for n in range(3, 60)]
    records += [message(n, T0 + n, cdr(picture(T0), IMAGE) if n < 3 else bytes(8)) for n in range(1, 60)]
    assert omnibind("bag", "inspect", mcap_file(tmp_path / "a.mcap", records)) == 0
    lines = capsys.readouterr().out.splitlines()
    front, rear, other = [line for line in lines if "xxx/" in line]
    assert max(map(len, (front, rear, other))) <= 120
    assert front.startswith("/robot/sensing/xx...xxx") and "x/front  image " in front and "x/rear  image " in rear
    assert omnibind("bag", "inspect", tmp_path / "a.mcap", "--all") == 0
    assert f"{folder}/rear" in capsys.readouterr().out


def test_a_bag_of_many_topics_fits_a_screen(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LINES", "24")
    records = [schema(1, IMAGE, "", ""), schema(2, "x/srv/Add_Event", "ros2msg", SERVICE)]
    records += [channel(n, 1, f"/camera_{n}/image_raw") for n in range(1, 9)]
    records += [channel(n, 2, f"/service_{n}/_service_event") for n in range(9, 40)]
    others = [
        f"std_msgs/msg/{name}" for name in ("Float32", "Float64", "Int32", "Bool", "Byte", "Empty", "Int8", "Int16")
    ]
    records += [schema(3 + k, kind, "", "") for k, kind in enumerate(others)]
    records += [channel(n, 3 + n % len(others), f"/other_{n}") for n in range(40, 95)]
    records += [message(n, T0 + n, cdr(picture(T0), IMAGE) if n < 9 else bytes(8)) for n in range(1, 95)]
    path = mcap_file(tmp_path / "a.mcap", records)
    assert omnibind("bag", "inspect", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert lines[2].startswith("/camera_1/image_raw  image        1 messages, 9 x 8 bgr8")
    assert any("31 x/srv/Add_Event: /service_10/_service_event, ... (31 messages); cannot be" in one for one in lines)
    assert "86 topics feed nothing (--all shows each of them):" in lines
    assert omnibind("bag", "inspect", path, "--all") == 0
    full = capsys.readouterr().out
    assert all(f"/other_{n}  (" in full for n in range(40, 95))
    assert full.index("/camera_8/image_raw") < full.index("/other_40")


@pytest.mark.parametrize(
    "profiles, definition, reason",
    [
        ("- " * 20_000, "int32 a", ""),
        ("[" * 20_000, "int32 a", ""),
        ("- durability: 2001-99-99", "int32 a", ""),
        ("", "int32 a\nint32 a", "cannot be parsed"),
        ("", "uint8[99999999999999999999999] a\nuint8[x] b", "cannot be parsed"),
    ],
    ids=["deep block", "deep flow", "date", "two of a name", "length"],
)
def test_what_a_bag_says_of_a_topic_may_be_anything(profiles, definition, reason, tmp_path):
    other = schema(9, "other/msg/Kind", "ros2msg", definition)
    of_other = channel(9, 9, "/other", metadata=[("offered_qos_profiles", profiles)])
    path = mcap_file(tmp_path / "a.mcap", [other, of_other, *DEFINITIONS, *chunks()])
    assert "/other" not in read.latched(path)
    assert (reason in read.skipped(path)["/other"].reason) if reason else "/other" in read.topics(path)
    assert held(path)


def test_comments_of_a_definition_do_not_count():
    fields = "".join(f"uint8 field_{number}\t# [m/s] what it's for: {'words ' * 10}\n" for number in range(600))
    text = f"string NAME=a # b\nstring OTHER='#' # one\n{fields}string<=3 last \"#\" # said"
    constants, parsed = types.parsed_definition("px4_msgs/msg/Status", "msg", text)["px4_msgs/msg/Status"]
    assert [name for name, _ in parsed] == [f"field_{number}" for number in range(600)] + ["last"]
    assert [value for *_, value in constants] == ["a # b", "#"]
    members = "".join(f"/* it's {'wide ' * 8}*/ uint8 field_{number}; // {'words ' * 9}\n" for number in range(600))
    text = f'module px4_msgs {{ module msg {{ struct Status {{ @verbatim(text="http://a /* b") {members} }}; }}; }};'
    _, parsed = types.parsed_definition("px4_msgs/msg/Status", "idl", text)["px4_msgs/msg/Status"]
    assert len(parsed) == 600


@pytest.mark.parametrize("text", ["/*", '\\"', "\n", " ", "#", "string ", "'", "//"])
@pytest.mark.parametrize("kind", ["msg", "idl"])
def test_comments_without_end_take_no_time(kind, text):
    begin = time.process_time()
    with contextlib.suppress(Exception):
        types.parsed_definition("other/msg/Kind", kind, text * 500_000 + "x" * types.MOST_LETTERS)
    assert time.process_time() - begin < 1


def test_metadata_may_hold_more_than_other_yaml_and_name_whole_paths(database, monkeypatch):
    change(database.parent, f"- {database.name}", f"- /home/robot/bags/{database.name}")
    assert read.topics(database.parent) == {CAMERA: IMAGE}
    assert read.MOST_METADATA >= 14 * 50_000
    monkeypatch.setattr(read, "MOST_METADATA", 5)
    with pytest.raises(DataError, match="it has more than 5 values"):
        read.topics(database.parent)


def test_pages_of_a_database_are_looked_at_when_all_topics_are_read(tmp_path):
    with rosbag2.Writer(tmp_path / "bag", version=9) as writer:
        for topic in ("/small", CAMERA):
            to = writer.add_connection(topic, IMAGE, typestore=types.typestore())
            for stamp in STAMPS:
                writer.write(to, stamp, cdr(picture(stamp, (50, 50)), IMAGE))
    (path,) = (tmp_path / "bag").glob("*.db3")
    content, stamp = path.read_bytes(), STAMPS[7].to_bytes(8, "big")
    place = content.rindex(stamp)
    path.write_bytes(content[: place + 7] + bytes([content[place + 7] ^ 1]) + content[place + 8 :])
    assert len(list(read.messages(path, ["/small"]))) == 20
    for only in (None, ["/small", CAMERA]):
        with pytest.raises(PartlyReadError, match="an unknown number of messages are lost"):
            list(read.messages(path, only))


def test_a_ros_1_bag_of_bz2_needs_no_lz4(ros1, monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    assert len(list(read.messages(ros1, [CAMERA]))) == 20


def test_the_files_of_a_bag_may_have_any_name(tmp_path):
    for names in ('["a\\0b.mcap"]', "3", '[""]', "[" * 20_000):
        text = f"rosbag2_bagfile_information: {{relative_file_paths: {names}}}"
        (tmp_path / "metadata.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="not a readable rosbag2"):
            read.topics(tmp_path)
