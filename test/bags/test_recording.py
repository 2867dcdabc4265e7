"""Rendering of sensor data, bags, and the demo's recording."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from omnibind_core.data.rendering import camera, demo_objects, events, meshes, thermal, touch
from omnibind_core.errors import DataError
from omnibind_core.modalities import Events, Sound
from omnibind_ros.bags import read, scene_bag, types, write

BOX = """\
v -1 0 -0.5
v 1 0 -0.5
v 1 0 0.5
v -1 0 0.5
v -1 4 -0.5
v 1 4 -0.5
v 1 4 0.5
v -1 4 0.5
f 1 2 3 4
f 5 6 7 8
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""


@pytest.fixture
def box(tmp_path: Path) -> meshes.Mesh:
    pytest.importorskip("open3d", exc_type=ImportError)
    path = tmp_path / "box.obj"
    path.write_text(BOX)
    return meshes.read_obj(path)


def photo() -> np.ndarray:
    picture = np.full((96, 128, 3), 200, np.uint8)
    cv2.circle(picture, (64, 48), 30, (60, 40, 20), -1)
    return picture


# --- rendering --------------------------------------------------------------------------------------------------------


def test_obj_faces_of_four_corners_are_read_and_y_becomes_z(box: meshes.Mesh) -> None:
    assert len(box.triangles) == 12
    np.testing.assert_allclose(box.extent, [2, 1, 4], atol=1e-6)


def test_obj_without_faces_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("open3d", exc_type=ImportError)
    path = tmp_path / "empty.obj"
    path.write_text("v 0 0 0\n")
    with pytest.raises(DataError, match=r"empty\.obj"):
        meshes.read_obj(path)


def test_fit_scales_and_centres(box: meshes.Mesh) -> None:
    fitted = meshes.fit(box, np.array([0.2, 0.3, 0.4], np.float32))
    np.testing.assert_allclose(fitted.vertices.min(axis=0), [-0.1, -0.15, -0.2], atol=1e-6)
    np.testing.assert_allclose(fitted.vertices.max(axis=0), [0.1, 0.15, 0.2], atol=1e-6)


def test_cast_measures_the_distance(box: meshes.Mesh) -> None:
    origins = np.array([[5, 0, 1], [5, 3, 1]], np.float32)
    distance = meshes.cast(box, origins, np.array([-1, 0, 0], np.float32))
    np.testing.assert_allclose(distance, [4, np.inf], rtol=1e-6)


def test_scan_sees_the_near_surface_only(box: meshes.Mesh) -> None:
    cloud = meshes.scan(box, np.random.default_rng(1))
    assert cloud.dtype == np.float32
    assert cloud.shape == (2048, 3)
    noise = 6 * meshes.RANGE_NOISE * float(np.linalg.norm(box.extent))
    low, high = box.vertices.min(axis=0) - noise, box.vertices.max(axis=0) + noise
    assert (cloud >= low).all()
    assert (cloud <= high).all()
    # Seen from above the horizon: no point lies inside the bottom face, away from its edges.
    inner = (np.abs(cloud[:, 0]) < 0.7) & (np.abs(cloud[:, 1]) < 0.2)
    assert not (inner & (cloud[:, 2] < noise)).any()
    np.testing.assert_array_equal(cloud, meshes.scan(box, np.random.default_rng(1)))


def test_touch_of_a_small_box_is_its_outline(box: meshes.Mesh, rng: np.random.Generator) -> None:
    small = meshes.fit(box, np.array([0.03, 0.01, 0.04], np.float32))  # 40 x 30 mm lie under the array
    pressure = touch.press(small, rng)
    assert pressure.shape == (28, 50)
    assert pressure.dtype == np.uint8
    assert pressure.max() == 255
    area = (pressure > 50).sum() * touch.PITCH**2
    assert area == pytest.approx(0.03 * 0.04, rel=0.2)


def test_a_large_thing_is_touched_where_it_gives_most_hold(box: meshes.Mesh) -> None:
    large = meshes.fit(box, np.array([0.4, 0.3, 0.2], np.float32))
    for seed in range(5):  # all of the array lies on the face: no edge of the box is felt
        assert touch.press(large, np.random.default_rng(seed)).min() > 150


@pytest.mark.parametrize("shape", [(300, 40), (60, 80), (40, 900)], ids=["tall", "small", "long"])
def test_the_camera_sees_all_of_a_thing_in_the_middle_of_its_frame(shape: tuple[int, int]) -> None:
    cutout = np.zeros((shape[0] + 50, shape[1] + 20, 4), np.uint8)  # a transparent margin on one side
    cutout[: shape[0], : shape[1]] = (10, 20, 200, 255)
    shot = camera.shoot(cutout, np.random.default_rng(3))
    assert shot.photo.shape == (240, 320, 3)
    y, x = np.nonzero(shot.opacity > 127)
    assert max(np.ptp(y), np.ptp(x)) + 1 == pytest.approx(camera.FILL * 240, abs=2)
    side = 240 * 7 / 8  # what a centre crop leaves
    assert np.abs(y - 119.5).max() < side / 2
    assert np.abs(x - 159.5).max() < side / 2
    np.testing.assert_allclose(shot.photo[y, x].mean(axis=0), [200, 20, 10], atol=12)  # red, no fringe
    assert shot.photo[shot.opacity == 0].min() > 80
    np.testing.assert_array_equal(shot.photo, camera.shoot(cutout, np.random.default_rng(3)).photo)


def test_a_shadow_lies_where_the_thing_stands() -> None:
    cutout = np.full((100, 80, 4), 255, np.uint8)
    shot = camera.shoot(cutout, np.random.default_rng(0))
    y, x = np.nonzero(shot.opacity)
    row = shot.photo[y.max() + 2].mean(axis=-1)
    middle, beside = row[round(x.mean())], row[[x.min() - 40, x.max() + 40]]
    assert middle < 0.95 * beside.mean()
    assert middle < beside.min()


def test_events_fire_at_edges_in_time_order_and_balance(rng: np.random.Generator) -> None:
    seen = events.simulate(photo(), rng)
    assert (seen.width, seen.height) == (128, 128)
    assert len(seen) > 200
    assert (np.diff(seen.t) >= 0).all()
    assert seen.t[0] >= 0
    assert seen.t[-1] < 200_000
    distance = np.hypot(seen.x.astype(float) - 64, seen.y.astype(float) - 64)
    assert (np.abs(distance - 30) < 6).all()  # only the disc's rim has contrast
    assert seen.p.mean() == pytest.approx(0.5, abs=0.1)  # the camera ends where it began


def test_no_contrast_gives_no_events(rng: np.random.Generator) -> None:
    assert len(events.simulate(np.full((50, 50, 3), 90, np.uint8), rng)) == 0


def test_faster_motion_over_more_contrast_gives_more_events() -> None:
    faint = cv2.addWeighted(photo(), 0.3, np.full((96, 128, 3), 140, np.uint8), 0.7, 0)
    counts = [
        len(events.simulate(picture, np.random.default_rng(0), amplitude=way))
        for picture, way in ((faint, 2.0), (photo(), 2.0), (photo(), 6.0))
    ]
    assert counts == sorted(counts)
    assert len(set(counts)) == 3


def test_thermal_is_warm_inside_and_ambient_outside(rng: np.random.Generator) -> None:
    opacity = np.zeros((96, 128), np.uint8)
    cv2.circle(opacity, (64, 48), 30, 255, -1)
    scene = thermal.render(opacity, photo(), 34.0, rng)
    assert scene.shape == (120, 160)
    assert scene.dtype == np.float32
    assert scene[60, 80] == pytest.approx(34, abs=2.5)
    assert scene[:10].mean() == pytest.approx(thermal.AMBIENT, abs=0.1)
    assert scene[60, 80] > scene[60, 50] > scene[60, 10]


# --- packages ---------------------------------------------------------------------------------------------------------


def test_thermal_texture_lies_on_the_thing(rng: np.random.Generator) -> None:
    opacity = np.zeros((240, 320), np.uint8)
    opacity[60:180, 80:240] = 255
    picture = np.full((240, 320, 3), 200, np.uint8)
    picture[60:180, 80:160] = 30  # dark on the left
    warm = thermal.render(opacity, picture, 35.0, rng)
    assert warm[40:80, 50:75].mean() > warm[40:80, 85:110].mean() + 1
    np.testing.assert_allclose(warm[:25].mean(axis=0), warm[:25].mean(), atol=0.3)  # none of it beside


def test_what_is_as_warm_as_the_room_hardly_shows(rng: np.random.Generator) -> None:
    opacity = np.zeros((96, 128), np.uint8)
    cv2.circle(opacity, (64, 48), 30, 255, -1)
    assert np.ptp(cv2.blur(thermal.render(opacity, photo(), thermal.AMBIENT, rng), (5, 5))) < 2


@pytest.mark.parametrize(
    ("caption", "stem", "expected"),
    [
        ("A red apple.\nfr=Une pomme", "apple_red", ["red apple", "apple"]),
        ("A pair of open scissors.", "scissors_small_open", ["open scissors", "scissors"]),
        ("A cement mixer.", "cementmixer", ["cement mixer", "cementmixer"]),
        ("Remember to flush the toilet and wash!", "toilet", ["toilet"]),
        ("Some cherries.", "cherries", ["cherry"]),
    ],
)
def test_stamp_names(caption: str, stem: str, expected: list[str]) -> None:
    names = demo_objects.stamp_names(caption, stem)
    assert [name for name in names if name in expected] == expected
    assert "mixer" not in names


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The two packages in miniature."""
    stamps = tmp_path / demo_objects.STAMPS[0] / demo_objects.STAMPS[1] / "animals/mammals"
    stamps.mkdir(parents=True)
    opacity = np.zeros((60, 80, 1), np.uint8)
    cv2.circle(opacity, (40, 30), 25, 255, -1)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for name in ("dog", "cow", "yak"):
        cv2.imwrite(str(stamps / f"{name}.png"), np.concatenate([noise, opacity], axis=2))
        (stamps / f"{name}.txt").write_text(f"A {name}.\n")
    soundfile = pytest.importorskip("soundfile")
    for name in ("dog", "cow"):
        soundfile.write(stamps / f"{name}.ogg", np.sin(np.arange(16000) * 0.1).astype(np.float32) * 0.5, 16000)
    furniture = tmp_path / demo_objects.FURNITURE[0] / demo_objects.FURNITURE[1]
    furniture.mkdir(parents=True)
    with zipfile.ZipFile(furniture / "small.sh3f", "w") as catalogue:
        rows = "".join(
            f"name#{i}={name}\nmodel#{i}=/box.obj\nwidth#{i}=20\ndepth#{i}=10\nheight#{i}=40\n"
            for i, name in enumerate(["Dog", "Sofa"], start=1)
        )
        catalogue.writestr("PluginFurnitureCatalog.properties", f"id=x\n{rows}")
        catalogue.writestr("box.obj", BOX)
    return tmp_path


def test_objects_are_matched_by_name(cache: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("open3d", exc_type=ImportError)
    dog, cow = demo_objects.find_objects(cache)  # the yak has neither sound nor mesh, the sofa no photograph
    assert (dog.name, cow.name) == ("dog", "cow")
    assert set(dog.modalities) == {"image", "thermal", "event", "audio", "touch", "point_cloud"}
    assert set(cow.modalities) == {"image", "thermal", "event", "audio"}
    assert dog.temperature > 30
    items = dog.items(rng)
    assert set(items) == set(dog.modalities)
    assert items["image"].shape[2] == 3
    assert np.ptp(items["point_cloud"], axis=0).max() == pytest.approx(0.4, rel=0.1)  # its size in the catalogue


def test_damaged_catalogue_is_named(cache: Path) -> None:
    (cache / demo_objects.FURNITURE[0] / demo_objects.FURNITURE[1] / "small.sh3f").write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"small\.sh3f"):
        demo_objects.find_objects(cache)


# --- bags -------------------------------------------------------------------------------------------------------------


def test_bag_round_trip(tmp_path: Path) -> None:
    from omnibind_ros.messages import IMAGE, image_fields

    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with write.BagWriter(tmp_path / "bag") as writer:
        for number in range(5):
            item = types.message(IMAGE, image_fields(pixels + number, "rgb8"), 10**9 + number, "camera")
            writer.write("/a" if number % 2 else "/b", IMAGE, 10**9 + number, item)
    assert read.topics(tmp_path / "bag") == {"/a": IMAGE, "/b": IMAGE}
    assert read.span_ns(tmp_path / "bag")[0] == 10**9
    items = list(read.messages(tmp_path / "bag", ["/b"], 10**9 + 1))
    assert [item.time_ns - 10**9 for item in items] == [2, 4]
    decoded = types.decode(items[0])
    np.testing.assert_array_equal(decoded.data, (pixels + 2).ravel())
    assert (decoded.header.stamp.sec, decoded.header.stamp.nanosec, decoded.header.frame_id) == (1, 2, "camera")


def test_bag_errors_are_clear(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable rosbag2"):
        read.topics(tmp_path / "none")
    with pytest.raises(DataError, match="exists already"):
        write.BagWriter(tmp_path)


# Records until it is killed, or the disk is full, and says then what it had handed over.
RECORDS = """
import os, resource, signal, sys
from pathlib import Path
from omnibind_ros.bags import write

path, size, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
handed = 0
try:
    with write.SplitBagWriter(path, size) as writer:
        for number in range(1000):
            text = b"\\0\\1\\0\\0" + (201).to_bytes(4, "little") + os.urandom(100).hex().encode() + b"\\0"
            writer.write_raw("/a" if number % 2 else "/b", "std_msgs/msg/String", 10**9 + number, text)
            if number % 7 == 6:
                writer.flush()
                handed = number + 1
            if number == 99 and not limit:
                print(handed, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
except OSError as error:
    print(handed, error)
"""


@pytest.mark.parametrize(("size", "limit"), [(0, 0), (5000, 0), (0, 20000)], ids=["killed", "split", "full"])
def test_what_was_recorded_is_whole_for_anyone(tmp_path: Path, size: int, limit: int) -> None:
    import rosbags.rosbag2

    path = tmp_path / "bag"
    command = [sys.executable, "-c", RECORDS, str(path), str(size), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    handed, _, problem = done.stdout.partition(" ")
    if limit:
        assert "File too large" in problem and done.returncode == 0 and not done.stderr
        assert 50 < int(handed) < 500
    else:
        assert done.returncode == -signal.SIGKILL and int(handed) == 98
    assert (len(list(path.glob("*.mcap"))) > 3) == bool(size)
    expected = [10**9 + number for number in range(int(handed))]
    assert [item.time_ns for item in read.messages(path)] == expected  # and nothing is said to be damaged
    with rosbags.rosbag2.Reader(path) as reader:
        assert [time_ns for _, time_ns, _ in reader.messages()] == expected
        assert reader.message_count == len(expected) and reader.start_time == 10**9
    assert sorted(path.iterdir()) == sorted([*path.glob("*.mcap"), path / "metadata.yaml"])


def test_metadata_of_a_bag_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bag"
    begun = []
    describe = write.SplitBagWriter._describe

    def look(self: write.SplitBagWriter) -> None:
        describe(self)
        begun.append(yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"])

    monkeypatch.setattr(write.SplitBagWriter, "_describe", look)
    with write.SplitBagWriter(path, 20) as writer:
        for number in range(6):
            writer.write_raw("/a", "std_msgs/msg/String", 100 + number, b"\0\1\0\0\7\0\0\0abcdef\0")
            writer.flush()
    for about in begun:
        names = about["relative_file_paths"]
        assert (
            names == [f"bag_{number}.mcap" for number in range(len(names))] == [row["path"] for row in about["files"]]
        )
        starts = [row["starting_time"]["nanoseconds_since_epoch"] for row in about["files"]]
        assert starts == [100 + 2 * number for number in range(len(names))]  # also of one in which nothing is yet
        assert about["starting_time"] == {"nanoseconds_since_epoch": 100}
        assert about["message_count"] == sum(row["message_count"] for row in about["files"])
    assert begun[0]["message_count"] == 0 and begun[-1]["message_count"] == 6
    assert begun[-1]["duration"] == {"nanoseconds": 5} and begun[-1]["files"][0]["duration"] == {"nanoseconds": 1}
    of_text = []
    monkeypatch.setattr(write, "_item", lambda content: of_text.append(content) or "")
    writer._describe()
    assert not of_text  # those of finished files are kept


def test_metadata_for_which_there_is_no_room_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str, **_: Any) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"), write.SplitBagWriter(tmp_path / "bag") as writer:
        writer.write_raw("/a", "std_msgs/msg/String", 1, b"\0\1\0\0\1\0\0\0\0")
    assert [path.name for path in (tmp_path / "bag").iterdir()] == ["bag_0.mcap"]


def test_a_changed_byte_of_a_bag_is_noticed(tmp_path: Path) -> None:
    content = b"\0\1\0\0" + np.random.default_rng(0).bytes(1000)  # which is stored as it is
    with write.BagWriter(tmp_path / "bag") as one, write.SplitBagWriter(tmp_path / "split") as other:
        for writer in (one, other):
            writer.write_raw("/a", "std_msgs/msg/String", 1, content)
    for file in tmp_path.glob("*/*.mcap"):
        data = bytearray(file.read_bytes())
        data[data.index(content[50:60]) + 5] ^= 1
        file.write_bytes(data)
        with pytest.raises(DataError, match="1 messages are lost"):
            list(read.messages(file))


def test_left_overs_go_where_a_bag_is_already(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / ".omnibind-bag-abcdefgh" / "new" / "bag").mkdir(parents=True)
    with pytest.raises(DataError, match="exists already"):
        write.BagWriter(tmp_path / "bag")
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_a_bag_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError), write.BagWriter(tmp_path / "bag") as writer:
        writer.write_raw("/a", "std_msgs/msg/String", 1, b"\0\1\0\0\1\0\0\0\0")
        raise KeyError
    assert not list(tmp_path.iterdir())


# --- recording --------------------------------------------------------------------------------------------------------


def scene(label: str, rng: np.random.Generator, **raw: Any) -> scene_bag.SceneData:
    return scene_bag.SceneData(label, raw, frozenset({"event"}) & raw.keys(), dict.fromkeys(raw, "a file"))


@pytest.fixture
def scenes(rng: np.random.Generator) -> list[scene_bag.SceneData]:
    t = np.sort(rng.integers(0, 200_000, 900))
    x, y = rng.integers(0, 128, (2, 900)).astype(np.uint16)
    seen = Events(x, y, t, rng.integers(0, 2, 900).astype(np.uint8), 128, 128)
    sound = Sound(np.linspace(-1, 1, 9000, dtype=np.float32), 16000)
    warm = rng.uniform(15, 40, (60, 80)).astype(np.float32)
    cloud = rng.normal(size=(100, 3)).astype(np.float32)
    return [
        scene("dog", rng, image=photo(), event=seen, audio=sound, thermal=warm),
        scene("fire truck", rng, image=photo(), touch=photo()[:28, :50, 0], point_cloud=cloud),
    ]


def written(
    out: Path, scenes: list[scene_bag.SceneData]
) -> tuple[list[scene_bag.SceneLabel], list[types.RecordedMessage]]:
    labels = scene_bag.write(out / "recording", out / "labels.csv", scenes, seed=3, duration=1.0)
    return labels, list(read.messages(out / "recording"))


def test_recording_has_the_sensors_rates_and_silences(tmp_path: Path, scenes: list[scene_bag.SceneData]) -> None:
    labels, items = written(tmp_path, scenes)
    counts = Counter(item.topic for item in items)
    assert counts == {
        "/camera/image_raw": 20,
        "/thermal/image_raw": 8,
        "/event_camera/events": 20,
        "/microphone/audio": 5,
        "/tactile/image_raw": 10,
        "/lidar/points": 5,
    }
    boundary = scene_bag.EPOCH_NS + 10**9
    first = {item.topic for item in items if item.time_ns < boundary}
    assert "/tactile/image_raw" not in first
    assert "/microphone/audio" not in {item.topic for item in items if item.time_ns >= boundary}
    assert labels[0].sensors == ("camera", "thermal", "event_camera", "microphone")
    assert labels[0].rendered == ("event_camera",)
    assert scene_bag.read_labels(tmp_path / "labels.csv") == [
        scene_bag.SceneLabel(
            row.start_s,
            row.end_s,
            row.label,
            row.recorded,
            row.rendered,
            tuple(o.replace(" ", "_") for o in row.origin),
        )
        for row in labels
    ]


def test_streams_repeat_their_sample(tmp_path: Path, scenes: list[scene_bag.SceneData]) -> None:
    _, items = written(tmp_path, scenes)
    window = [types.decode(item) for item in items if item.topic == "/event_camera/events"][4:8]
    origin = scene_bag.EPOCH_NS + 200_000_000
    t = np.concatenate(
        [m.t.astype(np.int64) * 1000 + m.header.stamp.sec * 10**9 + m.header.stamp.nanosec - origin for m in window]
    )
    np.testing.assert_array_equal(t // 1000, scenes[0].raw["event"].t)
    np.testing.assert_array_equal(np.concatenate([m.x for m in window]), scenes[0].raw["event"].x)
    sound = np.concatenate([types.decode(item).samples for item in items if item.topic == "/microphone/audio"])
    np.testing.assert_array_equal(sound, np.resize(scenes[0].raw["audio"].samples, 16000))


def test_sounds_of_any_rate_come_from_one_microphone(tmp_path: Path, rng: np.random.Generator) -> None:
    sounds = [Sound(np.ones(rate, np.float32) * 0.5, rate) for rate in (8000, 44100)]
    _, items = written(tmp_path, [scene("dog", rng, audio=sound) for sound in sounds])
    chunks = [types.decode(item) for item in items]
    assert {(chunk.sample_rate, len(chunk.samples)) for chunk in chunks} == {(16000, 3200)}


def test_temperatures_survive(tmp_path: Path, scenes: list[scene_bag.SceneData]) -> None:
    _, items = written(tmp_path, scenes)
    message = types.decode(next(item for item in items if item.topic == "/thermal/image_raw"))
    assert message.encoding == "16UC1"
    celsius = message.data.view("<u2") * scene_bag.THERMAL_SCALE + scene_bag.THERMAL_OFFSET
    assert celsius.min() >= 14.99
    assert celsius.max() <= 40.01


def test_same_seed_same_messages(tmp_path: Path, scenes: list[scene_bag.SceneData]) -> None:
    assert written(tmp_path / "a", scenes)[1] == written(tmp_path / "b", scenes)[1]


def test_labels_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("start,end,label\n0,1,dog\n")
    with pytest.raises(DataError, match="columns"):
        scene_bag.read_labels(tmp_path / "labels.csv")


def test_recording_from_packages(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("open3d", exc_type=ImportError)
    found = scene_bag.scenes_of_packages(cache, seed=0, scenes=3)
    labels = scene_bag.write(tmp_path / "recording", tmp_path / "labels.csv", found)
    assert {row.label for row in labels} == {"dog", "cow"}
    assert {name for row in labels for name in row.recorded} == {"camera", "microphone"}
    assert {name for row in labels for name in row.rendered} == {"thermal", "event_camera", "tactile", "lidar"}


def test_labels_that_the_table_or_the_model_lacks_are_things_in_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
    rows = ["id,modality,source,path,label,split,group"]
    for label in ("door", "florp"):  # of a source that the model was not trained with; the second is no label of it
        for modality in ("image", "touch"):
            name = f"{modality}-{label}.png"
            cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8))
            rows.append(f"{name},{modality},mine,{name},{label},val,{name}")
    (tmp_path / "samples.csv").write_text("\n".join(rows) + "\n")
    found = list(scene_bag.scenes_for("lite", tmp_path, scenes=4))
    assert {(scene.label, *sorted(scene.raw)) for scene in found} == {
        ("door", "image", "touch"),
        ("florp", "image", "touch"),
    }
    assert caplog.messages == ["the model has no label for florp (2 samples): unknown things in the recording"]
