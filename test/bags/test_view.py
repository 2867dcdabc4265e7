"""``omnibind view``: what is drawn, what is logged to Rerun, from a bag and live."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from domains import any_domain

from omnibind_core import cli
from omnibind_core.errors import ConfigError
from omnibind_core.modalities import Events, Sound
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.types import Encoded, Prediction, SensorReport, SensorShare, SensorState
from omnibind_ros import messages
from omnibind_ros.messages import DecodeOptions
from omnibind_ros.node import overlay
from omnibind_ros.view import drawing
from omnibind_ros.view.feed import Feed

rr = pytest.importorskip("rerun")
pytest.importorskip("rosbags")

from omnibind_ros.bags import types, write  # noqa: E402
from omnibind_ros.view import canvas as canvas_module  # noqa: E402
from omnibind_ros.view.canvas import Canvas, open_recording, text  # noqa: E402

S = 1_000_000_000
T0 = 1_700_000_000 * S
DOMAIN = any_domain()


def events(times_us, width=8, height=6):
    count = len(times_us)
    x = np.arange(count, dtype=np.uint16) % width
    return Events(x, x % height, np.array(times_us, np.int64), (x % 2).astype(np.uint8), width, height)


def share(name, modality, weight):
    return SensorShare(name, modality, weight, 0.1, "dog", 0.6, "cat", 0.5, T0)


def prediction(tick_ns=T0, label="cup", shares=(), unknown=False):
    return Prediction(
        tick_ns, None, "" if unknown else label, 0.9, unknown, 0.1, (label, "a|b"), (0.9, 0.1), tuple(shares),
        np.zeros(2, np.float32), np.zeros((1, 2), np.float32),
    )  # fmt: skip


def report(name, state, reason="because"):
    return SensorReport(name, "image", state, reason, 0.1, 10.0, 1, 0, 0)


class FakeRecording:
    """Keeps what is logged: (path, time in ns, archetype)."""

    def __init__(self):
        self.rows, self.static, self.blueprints, self.columns = [], {}, [], {}
        self.time_ns = None

    def set_time(self, timeline, timestamp):
        assert timeline == "time"
        self.time_ns = int(timestamp.astype(np.int64))

    def log(self, path, archetype, static=False):
        if static:
            self.static[path] = archetype
        else:
            self.rows.append((path, self.time_ns, archetype))

    def send_columns(self, path, indexes, columns):
        self.columns.setdefault(path, []).append((indexes, columns))

    def send_blueprint(self, blueprint):
        self.blueprints.append(blueprint)

    def of(self, path):
        return [(time_ns, type(archetype).__name__) for name, time_ns, archetype in self.rows if name == path]


@pytest.fixture
def recording():
    return FakeRecording()


@pytest.fixture
def canvas(recording):
    canvas = Canvas(recording)
    canvas.arrange({"camera": "image", "lidar": "point_cloud", "mic": "audio", "dvs": "event", "imu": "other"})
    return canvas


def test_things_are_boxes_in_pictures_and_in_space(canvas, recording):
    """Pictures are shown at another size than they have; what is not seen there has no box."""
    canvas.item("camera", T0, np.zeros((960, 1280, 3), np.uint8))
    volume = Volume(np.array([4.0, 0, 1]), np.array([1.0, 2, 3]), np.eye(3), np.eye(3))
    sights = {"camera": Sight(Rectangle(100, 200, 300, 400)), "lidar": Sight()}
    seen = ObjectPrediction(7, volume, np.zeros(3), T0, prediction(), sights)
    hidden = ObjectPrediction(8, volume, np.zeros(3), T0, prediction(unknown=True), {"camera": Sight(reason="behind")})
    before = len(recording.blueprints)
    canvas.things(T0, [seen, hidden])
    canvas.things(T0 + 1, [])
    flat = [archetype for path, _, archetype in recording.rows if path == "sensors/camera/things"]
    assert flat[0].centers.as_arrow_array().to_pylist() == [[100.0, 150.0]]
    assert flat[0].half_sizes.as_arrow_array().to_pylist() == [[50.0, 50.0]]
    assert flat[0].labels.as_arrow_array().to_pylist() == ["7 cup 0.90"]
    assert not len(flat[1].centers.as_arrow_array()), "what was there is gone"
    solid = next(archetype for path, _, archetype in recording.rows if path == "things/boxes")
    assert solid.half_sizes.as_arrow_array().to_pylist() == [[0.5, 1.0, 1.5]] * 2
    assert solid.labels.as_arrow_array().to_pylist() == ["7 cup 0.90", "8 cup?"]
    assert len(recording.blueprints) == before + 1, "the view in space is added once"


# Drawing ----------------------------------------------------------------------------------------------------------


def test_temperatures_are_coloured_and_brightness_is_not():
    warm = np.linspace(10, 40, 200 * 300, dtype=np.float32).reshape(200, 300)
    coloured = drawing.picture("thermal", warm)
    assert coloured.shape == (200, 300, 3)
    assert coloured[-1, -1].sum() > 500 > coloured[0, 0].sum()  # inferno: hot is bright yellow
    assert coloured[-1, -1, 2] < coloured[-1, -1, 0]
    grey = drawing.picture("touch", warm)
    assert (grey[..., 0] == grey[..., 2]).all()


def test_large_pictures_are_shrunk_and_tiny_ones_enlarged():
    assert drawing.picture("image", np.zeros((720, 1280, 3), np.uint8)).shape == (360, 640, 3)
    tiny = drawing.picture("touch", np.arange(28 * 50, dtype=np.uint16).reshape(28, 50))
    assert tiny.shape == (112, 200, 3)
    assert (tiny[:4, :4] == tiny[0, 0]).all()  # the elements stay as they are


@pytest.mark.parametrize(("size", "height"), [((48, 64), 480), ((600, 20), 640), ((1, 640), 1)])
def test_the_debug_picture_is_never_much_higher_than_wide(size, height):
    panel = overlay.draw(None, prediction())
    picture = overlay.draw(np.full((*size, 3), 200, np.uint8), prediction())
    assert picture.shape == (height + panel.shape[0], 640, 3)
    assert np.array_equal(picture[height:], panel)


def test_a_fitted_picture_keeps_its_proportions():
    framed = drawing.fit(np.full((40, 40, 3), 255, np.uint8), (50, 100))
    assert framed.shape == (50, 100, 3)
    lit = framed[..., 0] > 0
    assert lit.any(axis=1).sum() == 50 and lit.any(axis=0).sum() == 50
    assert not lit[:, :25].any() and not lit[:, 75:].any()


def test_what_cannot_be_seen_is_no_picture():
    assert drawing.picture("image", Encoded("embedding", np.zeros(8, np.float32))) is None
    assert drawing.picture("image", Encoded("preprocessed", np.zeros((1, 3, 24, 24), np.uint8))).shape[2] == 3
    assert drawing.picture("imu", "nothing") is None


def test_a_cloud_is_thinned_and_coloured_by_height(rng):
    cloud = rng.random((50_000, 3)).astype(np.float32)
    cloud[:, 2] = np.linspace(0, 2, 50_000)
    positions, colours = drawing.points(cloud)
    assert len(positions) == len(colours) <= drawing.MOST_POINTS
    assert colours.dtype == np.uint8
    assert colours[0, 2] > colours[0, 0] and colours[-1, 0] > colours[-1, 2]  # low is blue, high is red
    assert drawing.points(np.ones((5, 3), np.float32))[0].shape == (5, 3)


def test_the_envelope_holds_the_limits_of_the_sound():
    samples = np.zeros(16_000, np.float32)
    samples[8_000], samples[8_001] = 0.5, -0.25
    limits = drawing.envelope(Sound(samples, 16_000), T0)
    assert len(limits.times_ns) == drawing.ENVELOPE_RATE
    assert limits.times_ns[0] == T0 and limits.times_ns[50] == T0 + S // 2
    assert limits.high[50] == 0.5 and limits.low[50] == -0.25
    assert limits.high[:50].max() == 0
    square = np.where(np.arange(1600) % 2, 1.0, -1.0).astype(np.float32)
    assert drawing.envelope(Sound(square, 16_000), 0).level == 0
    assert drawing.envelope(Sound(np.zeros(3, np.float32), 16_000), 0).level == drawing.QUIETEST


# Canvas -----------------------------------------------------------------------------------------------------------


def test_items_become_what_rerun_can_show(canvas, recording):
    canvas.item("camera", T0, np.zeros((48, 64, 3), np.uint8))
    canvas.item("lidar", T0 + 1, np.ones((10, 3), np.float32))
    canvas.item("mic", T0 + 2, Sound(np.zeros(160, np.float32), 16_000))
    canvas.item("dvs", T0 + 3, events([0, 5]))
    canvas.item("imu", T0 + 4, np.zeros(7, np.float32))
    assert recording.of("sensors/camera") == [(T0, "EncodedImage")]
    assert recording.of("sensors/lidar") == [(T0 + 1, "Points3D")]
    assert recording.of("sensors/mic/level") == [(T0 + 2, "Scalars")]
    assert set(recording.columns) == {"sensors/mic/waveform/low", "sensors/mic/waveform/high"}
    assert recording.of("sensors/dvs") == [(T0 + 3, "EncodedImage")]
    assert recording.of("sensors/imu") == []


def test_pictures_of_one_sensor_have_one_size(canvas, recording, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        canvas_module.drawing, "fit", lambda image, size: sizes.append(size) or np.zeros((*size, 3), np.uint8)
    )
    for shape in ((200, 300), (300, 200), (250, 250)):
        canvas.item("camera", T0, np.zeros((*shape, 3), np.uint8))
    assert sizes == [(200, 300)] * 3


def test_a_sensor_without_a_share_has_weight_zero_and_says_nothing(canvas, recording):
    canvas.prediction(prediction(shares=[share("camera", "image", 0.75), share("lidar", "point_cloud", 0.25)]))
    values = {path: float(row.scalars.as_arrow_array()[0].as_py()) for path, _, row in recording.rows
              if isinstance(row, rr.Scalars)}  # fmt: skip
    assert values["weights/camera"] == 0.75 and values["weights/mic"] == 0
    assert values["confidences/lidar"] == pytest.approx(0.6) and np.isnan(values["confidences/mic"])
    assert values["confidences/fused"] == pytest.approx(0.9)


def test_the_label_is_told_when_it_changes(canvas, recording):
    for index, label in enumerate(("cup", "cup", "dog")):
        canvas.prediction(prediction(T0 + index, label))
    canvas.prediction(prediction(T0 + 3, "dog", unknown=True))
    canvas.nothing(T0 + 4)
    canvas.nothing(T0 + 5)
    assert [time_ns - T0 for time_ns, _ in recording.of("log")] == [0, 2, 3, 4]
    assert [time_ns - T0 for time_ns, _ in recording.of("prediction/label")] == [0, 2, 3, 4]


def test_a_sensor_that_leaves_is_not_shown_any_longer(canvas, recording):
    canvas.item("camera", T0, np.zeros((48, 64, 3), np.uint8))
    canvas.item("lidar", T0, np.ones((10, 3), np.float32))
    for state in (SensorState.ACTIVE, SensorState.ACTIVE, SensorState.STALE):
        canvas.states(T0 + int(state), [report("camera", state), report("lidar", state)])
    assert recording.of("states/camera") == [(T0 + 2, "StateChange"), (T0 + 4, "StateChange")]
    assert recording.of("sensors/camera")[-1] == (T0 + 4, "EncodedImage")  # a dark one
    assert recording.of("sensors/lidar")[-1] == (T0 + 4, "Clear")
    sentences = [row.text.as_arrow_array()[0].as_py() for path, _, row in recording.rows if path == "log"]
    assert "camera STALE: because" in sentences


def test_the_view_is_arranged_once_for_the_same_sensors(canvas, recording):
    canvas.arrange({"camera": "image", "lidar": "point_cloud", "mic": "audio", "dvs": "event", "imu": "other"})
    assert len(recording.blueprints) == 1
    canvas.arrange({"camera": "image"})
    assert len(recording.blueprints) == 2
    assert set(recording.static) >= {"weights/camera", "confidences/fused", "states/lidar", "sensors/lidar"}


def test_the_text_of_a_prediction_says_that_sensors_contradict_each_other():
    agree = share("front", "image", 0.5), share("rear", "image", 0.5)
    assert "contradict" not in text(prediction(shares=agree))
    sure = [dataclasses.replace(one, label=label, confidence=0.875) for one, label in zip(agree, "ab", strict=True)]
    assert "contradict each other (conflict 0.77)" in text(prediction(shares=sure))


def test_the_text_of_a_prediction():
    lines = text(prediction(shares=[share("lidar", "point_cloud", 0.25), share("camera", "image", 0.75)])).splitlines()
    assert lines[0] == "# cup"
    assert lines[2] == "**0.90**; then a|b 0.10"
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| camera", "| lidar"]
    assert text(prediction(unknown=True)).startswith("# unknown (cup?)")


# Feed -------------------------------------------------------------------------------------------------------------


class Shown:
    def __init__(self):
        self.items, self.said = [], []

    def item(self, sensor, stamp_ns, raw):
        self.items.append((stamp_ns, raw))

    def say(self, now_ns, sentence, good=True):
        self.said.append(sentence)


def image_message(stamp_ns=T0, encoding="rgb8"):
    fields = messages.image_fields(np.zeros((40, 60, 3), np.uint8), "rgb8") | {"encoding": encoding}
    return types.message(messages.IMAGE, fields, stamp_ns)


def test_frames_are_thinned_to_the_rate_of_the_view():
    shown = Shown()
    feed = Feed(shown, "camera", "image", DecodeOptions(), rate=10)
    for index in range(60):  # 30 Hz for 2 s
        stamp = T0 + index * S // 30
        feed.push(stamp, messages.IMAGE, image_message(stamp))
    assert 19 <= len(shown.items) <= 21
    feed.push(T0 - 100 * S, messages.IMAGE, image_message(T0 - 100 * S))  # a bag that loops
    assert shown.items[-1][0] == T0 - 100 * S


def test_a_stamp_of_another_clock_is_not_believed():
    shown = Shown()
    feed = Feed(shown, "camera", "image", DecodeOptions(), rate=10)
    feed.push(T0, messages.IMAGE, image_message(T0 - S // 4))
    feed.push(T0 + S, messages.IMAGE, image_message(1))
    assert [stamp for stamp, _ in shown.items] == [T0 - S // 4, T0 + S]


def test_events_between_two_pictures_are_all_in_the_next():
    shown = Shown()
    feed = Feed(shown, "dvs", "event", DecodeOptions(), rate=10)
    for index in range(11):  # 50 Hz
        stamp = T0 + index * S // 50
        fields = messages.event_array_fields(events([0, 1000, 2000]))
        feed.push(stamp, messages.EVENT_ARRAY, types.message(messages.EVENT_ARRAY, fields, stamp))
    assert [len(raw) for _, raw in shown.items] == [3, 15, 15]


def test_unusable_messages_are_told_once_a_second():
    shown = Shown()
    feed = Feed(shown, "camera", "image", DecodeOptions(), rate=100)
    for index in range(30):  # 10 Hz
        feed.push(T0 + index * S // 10, messages.IMAGE, image_message(T0 + index * S // 10, "yuv999"))
    assert shown.items == []
    assert len(shown.said) == 3 and "yuv999" in shown.said[0] and "camera" in shown.said[0]


# Command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bag", "--no-spawn"], "nothing would be shown"),
        (["bag", "--no-spawn", "--save", "out.txt"], "ends in .rrd"),
        (["bag", "--no-spawn", "--save", "nowhere/out.rrd"], "no folder nowhere"),
        (["--no-spawn", "--save", "out.rrd", "--model", "lite"], "for a bag"),
        (["no_bag", "--no-spawn", "--save", "out.rrd"], "no_bag"),
        (["bag", "--connect", "elsewhere"], "expected an address such as rerun+http"),
        (["bag", "--connect", "rerun+http://127.0.0.1:1/proxy"], "no viewer answers"),
        (["bag"], "no screen"),
    ],
)
def test_wrong_use_is_told(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main(["view", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_an_old_rerun_either_shows_or_saves(tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(rr, "RecordingStream", lambda name: SimpleNamespace())
    with pytest.raises(ConfigError, match="either shows or saves"):
        open_recording(True, tmp_path / "out.rrd", None)


def test_a_viewer_that_is_started_here_takes_from_this_machine_only(monkeypatch):
    started, connected = [], []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("omnibind_ros.view.canvas.subprocess.Popen", lambda command, **_: started.append(command))
    monkeypatch.setattr(rr, "RecordingStream", lambda name: SimpleNamespace(connect_grpc=connected.append))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rerun+http://127.0.0.1:{server.getsockname()[1]}/proxy"
        monkeypatch.setattr("omnibind_ros.view.canvas.VIEWER", address)
        open_recording(True, None, None)
        assert not started, "one runs already"
    open_recording(True, None, None)
    (command,) = started
    assert command[command.index("--bind") + 1] == "127.0.0.1"
    assert connected == [address] * 2


@pytest.mark.slow
def test_a_viewer_binds_where_it_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "rerun_cli", "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen(command, start_new_session=True, **silent)
    try:
        end = time.monotonic() + 30
        rows = []
        while not rows and time.monotonic() < end:
            table = Path("/proc/net/tcp").read_text().splitlines()[1:]
            rows = [line.split()[1] for line in table if line.split()[3] == "0A" and f":{port:04X} " in line]
            time.sleep(0.1)
        assert rows == [f"0100007F:{port:04X}"]
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # it is the program that the process has started
        process.wait()


@pytest.fixture
def small_bag(tmp_path, rng):
    """Two seconds: a camera throughout, sound in the first one only."""
    folder = tmp_path / "bag"
    with write.BagWriter(folder) as writer:
        for index in range(20):
            stamp = T0 + index * S // 10
            fields = messages.image_fields(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), "rgb8")
            writer.write("/camera/image_raw", messages.IMAGE, stamp, types.message(messages.IMAGE, fields, stamp))
            if index < 10:
                sound = Sound(rng.uniform(-0.1, 0.1, 1600).astype(np.float32), 16_000)
                item = types.message(messages.AUDIO_CHUNK, messages.audio_chunk_fields(sound), stamp)
                writer.write("/microphone/audio", messages.AUDIO_CHUNK, stamp, item)
    return folder


def test_what_was_there_is_shown_between_its_ends(canvas, recording):
    canvas.truth([(T0, T0 + 5, ("cup",)), (T0 + 9, T0 + 12, ("cup", "bowl"))])
    rows = [(time_ns - T0, row) for _, time_ns, row in recording.rows]
    assert [time for time, _ in rows] == [0, 5, 9, 12]
    assert [row.state.as_arrow_array().to_pylist() for _, row in rows[::2]] == [["cup"], ["cup or bowl"]]
    assert all(isinstance(row, rr.Clear) for _, row in rows[1::2])


def rows_of(path):
    """Number of rows by entity path."""
    chunks = pytest.importorskip("rerun.chunk")
    rows = {}
    for chunk in chunks.RrdReader(str(path)).stream():
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + (0 if chunk.is_static else chunk.num_rows)
    return rows


def test_a_bag_becomes_a_recording(small_bag, tiny_model, tmp_path, capsys):
    out = tmp_path / "out.rrd"
    with pytest.raises(SystemExit) as caught:
        cli.main(["view", str(small_bag), "--model", str(tiny_model), "--no-spawn", "--save", str(out)])
    assert caught.value.code == 0
    assert "sensors camera, microphone" in capsys.readouterr().out
    rows = rows_of(out)
    assert rows["/sensors/camera"] == 20
    assert rows["/sensors/microphone/waveform/high"] == 100  # 1 s
    assert rows["/prediction/text"] == rows["/weights/camera"] == rows["/confidences/fused"] > 5
    assert rows["/states/camera"] == 1 and rows["/states/microphone"] >= 1
    assert "/prediction/truth" not in rows
    (small_bag / "truth.csv").write_text("start_s,end_s,label\n0,1,cup\n")
    with pytest.raises(SystemExit) as caught:
        cli.main(["view", str(small_bag), "--model", str(tiny_model), "--no-spawn", "--save", str(out)])
    assert caught.value.code == 0
    assert rows_of(out)["/prediction/truth"] == 2


@pytest.mark.ros
def test_live(tmp_path):
    rclpy = pytest.importorskip("rclpy")
    live = pytest.importorskip("omnibind_ros.view.live")
    from omnibind_ros import msg
    from omnibind_ros.graph.topics import LATCHED, message_class
    from omnibind_ros.messages import fill

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    recording = FakeRecording()
    try:
        robot = rclpy.create_node("fusion_node", context=context)
        robot.declare_parameter("camera.scale", 2.0)
        view = live.LiveView(Canvas(recording), 10, context=context)
        image = message_class(messages.IMAGE)
        camera = robot.create_publisher(image, "front/image", 1)
        status = robot.create_publisher(msg.FusionStatus, "~/status", LATCHED)
        predictions = robot.create_publisher(msg.Prediction, "omnibind/prediction", 10)
        row = msg.SensorStatus(name="camera", modality="image", topic="/front/image", state=2, reason="fresh")
        status.publish(msg.FusionStatus(sensors=[row], alive=["camera"]))
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        for node in (robot, view):
            executor.add_node(node)
        fields = messages.image_fields(np.zeros((48, 64, 3), np.uint8), "rgb8")
        end = time.monotonic() + 20
        while time.monotonic() < end and not (recording.of("sensors/camera") and recording.of("prediction/text")):
            camera.publish(fill(image(), fields))
            predictions.publish(
                msg.Prediction(
                    label="cup",
                    labels=["cup"],
                    scores=[0.9],
                    confidence=0.9,
                    sensors=[msg.SensorShare(name="camera", modality="image", weight=1.0, age=0.1, label="cup")],
                    latency=0.02,
                )
            )
            executor.spin_once(timeout_sec=0.1)
        assert recording.of("states/camera")[0][1] == "StateChange"
        assert recording.of("sensors/camera")[0][1] == "EncodedImage"
        assert recording.of("prediction/text")[0][1] == "TextDocument"
        status.publish(msg.FusionStatus(sensors=[], alive=[]))  # an adopted topic that was let go
        while time.monotonic() < end and view._links:
            executor.spin_once(timeout_sec=0.1)
        assert not view._links
        executor.shutdown()
        for node in (view, robot):
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
