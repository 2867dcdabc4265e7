"""Small messages that hurt, from a process of their own: bombs, lies about sizes, wild numbers, wrong requests."""

from __future__ import annotations

import math
import os
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.modalities import Sound
from omnibind_ros import messages
from omnibind_ros.faults.publisher import STREAMS, Stream
from omnibind_ros.graph.topics import message_class

TARGETS = {
    **STREAMS,
    "photo": Stream("photo/compressed", messages.COMPRESSED_IMAGE),
    "words": Stream("words/text", messages.STRING),
    "frames": Stream("frames/camera", messages.MODALITY_FRAME),
    "depth": Stream("depth/image_raw", messages.IMAGE),
    "pressure": Stream("pressure/taxels", "std_msgs/msg/Float32MultiArray"),
}
"""Whom they are for: the sensors of :data:`~omnibind_ros.faults.publisher.STREAMS`, and others."""

PARAMETERS = {
    "photo": {"type": "camera", "topic": TARGETS["photo"].topic},
    "words": {"type": "text"},
    "frames": {"type": "camera", "topic": TARGETS["frames"].topic},
    "depth": {"type": "lidar", "topic": TARGETS["depth"].topic},
    "pressure": {"type": "tactile", "topic": TARGETS["pressure"].topic},
}
"""Blocks of parameters of these others, for the fusion node."""

LABELS = 1500
"""Number of labels in the vocabulary that is asked for."""

_HUGE = 2**32 - 1
_WITHIN = 8192  # pixels a side, the most that is decoded
_PATIENCE = 5.0  # s that subscriptions and services are waited for
_CONTROL = "\x1b[2J\r\n\x07\u202e" + "x" * 200
_STAMPS = {  # seconds and nanoseconds
    "as far ahead as can be": (2**31 - 1, 999_999_999),
    "as far behind as can be": (-(2**31), 0),
    "with more nanoseconds than a second has": (0, 2**32 - 1),
    "zero": (0, 0),
}
_WELL_STAMPED = 0.8  # share of the messages
_REQUESTS = 5  # messages from one request to the next
Content = dict[str, Any]


@dataclass(frozen=True)
class Blow:
    """One kind of hostile message.

    Attributes:
        name: In words.
        target: One of :data:`TARGETS`.
        content: Its fields, without the header.
        cdr: Changes the message as it goes over the wire; ``None`` leaves it.
    """

    name: str
    target: str
    content: Content
    cdr: Callable[[bytes], bytes] | None = None


def gif(width: int = 65535, height: int = 65535) -> bytes:
    """A whole GIF of 35 bytes that claims so many pixels."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + bytes(6) + frame + b"\x02\x01\x44\x00;"


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A black PNG, grey; complete, or with its first rows only."""
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(width + 1)) for _ in range(height if rows is None else rows)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, scans: int = 1) -> bytes:
    """A JPEG of some hundred bytes that claims so many pixels, in 1 scan or 6 n, and has its first block."""
    import cv2

    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if scans > 1 else []
    data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8), progressive)[1].tobytes()
    frame = data.index(b"\xff\xc2" if scans > 1 else b"\xff\xc0")
    data = data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]
    scan = data.index(b"\xff\xda")
    return data[:scan] + data[scan:-2] * max(scans // 6, 1) + b"\xff\xd9"


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP and a few pixels of it."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 48, 0, 0, 54) + info + bytes(48)


def blows(model: str) -> list[Blow]:
    """All kinds.

    Args:
        model: Identity of the node's model: frames of another are refused for that alone.
    """
    from sensor_msgs.msg import PointField
    from std_msgs.msg import MultiArrayDimension, MultiArrayLayout

    rng = np.random.default_rng(0)

    def photo(name: str, data: bytes, form: str = "jpeg") -> Blow:
        return Blow(name, "photo", {"format": form, "data": np.frombuffer(data, np.uint8)})

    def image(name: str, target: str, encoding: str, height: int, width: int, step: int, size: int = 64) -> Blow:
        content = {"encoding": encoding, "height": height, "width": width, "step": step}
        return Blow(name, target, {**content, "data": np.zeros(size, np.uint8)})

    def events(name: str, width: int, height: int, x: Sequence[int], t: Sequence[int] = (0, 1, 2)) -> Blow:
        at, p = np.array(x, np.uint16), np.ones(len(x), np.uint8)
        content = {"width": width, "height": height, "x": at, "y": at, "t": np.array(t, np.uint32), "p": p}
        return Blow(name, "event_camera", content)

    def cloud(name: str, points: Any = None, **changes: Any) -> Blow:
        some = rng.normal(size=(8, 3)) if points is None else points
        return Blow(name, "lidar", {**messages.point_cloud_fields(some, PointField), **changes})

    def fields(offset: int, datatype: int = 7) -> list[Any]:
        return [PointField(name=n, offset=offset + 4 * i, datatype=datatype, count=_HUGE) for i, n in enumerate("xyz")]

    def sound(name: str, rate: int, samples: Any, channels: int = 1) -> Blow:
        content = {**messages.audio_chunk_fields(Sound(np.asarray(samples, np.float32), rate)), "channels": channels}
        return Blow(name, "microphone", content)

    def frame(name: str, shape: Sequence[int], values: Any, kind: int = 0, dtype: int = 1, of: str = model) -> Blow:
        content = {"sensor": "frames", "modality": "image", "model": of, "kind": kind, "dtype": dtype}
        data = np.asarray(values).reshape(-1).view(np.uint8)
        return Blow(name, "frames", {**content, "shape": np.array(shape, np.uint32), "data": data})

    def pressure(name: str, sizes: Sequence[int], stride: int, offset: int, values: Any) -> Blow:
        dims = [MultiArrayDimension(label=_CONTROL, size=size, stride=stride) for size in sizes]
        layout = MultiArrayLayout(dim=dims, data_offset=offset)
        return Blow(name, "pressure", {"layout": layout, "data": np.asarray(values, np.float32)})

    some = np.zeros(24, np.float32)
    return [
        photo("GIF of 35 bytes, 65535 x 65535", gif(), "gif"),
        photo("JPEG of some hundred bytes, 65500 x 65500", jpeg(65500, 65500)),
        photo("JPEG of some hundred bytes, 8192 x 8192", jpeg(_WITHIN, _WITHIN)),
        photo("JPEG of 6 scans, 8192 x 8192", jpeg(_WITHIN, _WITHIN, 6)),
        photo("JPEG of 600 scans, 8192 x 8192", jpeg(_WITHIN, _WITHIN, 600)),
        photo("PNG of 30000 x 30000", png(30000, 30000, 1), "png"),
        photo("PNG of 8192 x 8192, complete", png(_WITHIN, _WITHIN), "png"),
        photo("PNG of 4096 x 2048, complete", png(4096, 2048), "png"),
        photo("PNG of 8192 x 8192, one row of it", png(_WITHIN, _WITHIN, 1), "png"),
        photo("BMP of 2147483647 x -2147483648", bmp(2**31 - 1, -(2**31)), "bmp"),
        photo("BMP of 8192 x 8192, 48 bytes of it", bmp(_WITHIN, _WITHIN), "bmp"),
        photo("no bytes", b""),
        photo("bytes of no picture", rng.bytes(600), _CONTROL),
        photo("compressedDepth of 3 bytes", b"abc", "16UC1; compressedDepth"),
        image("image of 4294967295 rows", "camera", "rgb8", _HUGE, 64, 192),
        image("image of 4294967295 columns", "camera", "rgb8", 64, _HUGE, _HUGE),
        image("image of step 0", "camera", "rgb8", 4, 4, 0),
        image("image of 64 bytes for 48 x 64", "camera", "rgb8", 48, 64, 192),
        image("image of 1 x 60000", "camera", "mono8", 1, 60000, 60000, 60000),
        image("image of 60000 x 1", "camera", "mono8", 60000, 1, 1, 60000),
        image("encoding of control characters", "camera", _CONTROL, 4, 4, 12),
        image("NV12 of 1 x 1", "camera", "nv12", 1, 1, 1),
        Blow("thermal image of NaN", "thermal", _floats(np.full((48, 64), np.nan))),
        Blow("thermal image near 3e38", "thermal", _floats(np.full((48, 64), 3e38))),
        image("tactile image of 1 x 60000", "tactile", "mono8", 1, 60000, 60000, 60000),
        image("tactile image of 0 x 0", "tactile", "mono8", 0, 0, 0),
        events("8192 x 8192 with three events", 8192, 8192, (0, 4000, 8191)),
        events("8192 x 1024 with three events", 8192, 1024, (0, 500, 1023)),
        events("4294967295 x 4294967295 with three events", _HUGE, _HUGE, (0, 1, 2)),
        events("events beside the sensor", 64, 48, (0, 1, 60000)),
        events("events that go back", 64, 48, (0, 1, 2), (_HUGE, 5, 0)),
        events("no events", 64, 48, (), ()),
        cloud("cloud of 4294967295 points", width=_HUGE),
        cloud("cloud of 4294967295 rows", height=_HUGE, row_step=96),
        cloud("cloud of point_step 0", point_step=0),
        cloud("cloud of row_step 4294967295", height=2, row_step=_HUGE),
        cloud("cloud of fields behind its points", fields=fields(_HUGE - 64)),
        cloud("cloud of fields of an unknown type", fields=fields(0, 99)),
        cloud("cloud of NaN", np.full((64, 3), np.nan)),
        cloud("cloud near 1e38", np.linspace(-1e38, 1e38, 192).reshape(64, 3)),
        sound("sound of 767999 Hz", 767_999, rng.uniform(-0.5, 0.5, 76_800)),
        sound("sound of 4294967295 Hz", _HUGE, np.zeros(64)),
        sound("sound of 0 Hz", 0, np.zeros(64)),
        sound("sound of 1000 Hz for 100 s", 1000, np.zeros(100_000)),
        sound("sound without samples", 16000, ()),
        sound("sound of 4294967295 channels", 16000, np.zeros(64), _HUGE),
        sound("sound of NaN", 16000, np.full(64, np.nan)),
        Blow("text of 5 MB", "words", {"data": "word " * 1_000_000}),
        Blow("text of control characters", "words", {"data": _CONTROL}),
        Blow("empty text", "words", {"data": ""}),
        frame("frame of 65 dimensions", [1] * 65, some[:1]),
        frame("frame of sizes that overflow", [65536] * 4, some),
        frame("frame of size 4294967295", [_HUGE], some),
        frame("frame without dimensions", [], some),
        frame("frame of NaN", [1, 24], np.full(24, np.nan, np.float32)),
        frame("frame of another shape than the encoder's", [2, 3, 4], some),
        frame("frame of one pixel", [1, 3, 1, 1], np.zeros(3, np.uint8), dtype=0),
        frame("frame of an embedding of length 0", [24], some, kind=1),
        frame("frame of kind 200", [24], some, kind=200, dtype=200),
        frame("frame of another model", [24], some, of=_CONTROL),
        image("depth of 64 x 64, with wild CameraInfo", "depth", "16UC1", 64, 64, 128, 8192),
        image("depth of 4294967295 columns", "depth", "16UC1", 64, _HUGE, _HUGE),
        pressure("pressures of 4294967295 x 4294967295", (_HUGE, _HUGE), 1, 0, some),
        pressure("pressures of stride 4294967295", (4, 6), _HUGE, _HUGE, some),
        pressure("pressures of NaN", (4, 6), 6, 0, np.full(24, np.nan)),
        *_on_the_wire(),
    ]


def _floats(values: Any) -> Content:
    return messages.image_fields(values.astype(np.float32), "32FC1")


def _on_the_wire() -> Iterator[Blow]:
    """Messages that are cut, or whose last length is a lie."""
    for target in TARGETS:
        yield Blow(f"{target}: half a message", target, {}, lambda cdr: cdr[: len(cdr) // 2])
        yield Blow(f"{target}: a length of 4 GB", target, {}, lambda cdr: cdr[:-4] + b"\xff\xff\xff\xff")


def publish(
    sensor: str,
    targets: Sequence[str] = tuple(TARGETS),
    model: str = "",
    labels: int = -1,
    seed: int = 0,
    rate: float = 10.0,
    duration: float = float("inf"),
    told: str = "",
    log: str = "",
) -> None:
    """Torments the fusion node until the time is over or the process is killed; makes its own ROS context.

    Args:
        sensor: Name of the node.
        targets: Of :data:`TARGETS`, those that get messages.
        model: See :func:`blows`.
        labels: Number of labels that are asked for first; 0: the model's own; -1: nothing is asked for.
        seed: Makes the order; every kind comes once before any comes again.
        rate: Messages per second.
        duration: s.
        told: File that gets a line for each message that was sent to a subscription, and each request.
        log: Not used: nothing that is sent here is usable.
    """
    import rclpy
    from rclpy.serialization import serialize_message

    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = rclpy.create_node(sensor, context=context, enable_rosout=False, start_parameter_services=False)
    rng = random.Random(seed)
    kinds = {target: message_class(TARGETS[target].type) for target in targets}
    publishers = {target: node.create_publisher(kind, TARGETS[target].topic, 10) for target, kind in kinds.items()}
    every = [blow for blow in blows(model) if blow.target in publishers]
    callers = Callers(node)
    infos = node.create_publisher(message_class(messages.CAMERA_INFO), "depth/camera_info", 10)
    deadline = time.monotonic() + _PATIENCE
    heard = (publisher.get_subscription_count for publisher in publishers.values())
    ready = [*heard, *callers.ready]
    while time.monotonic() < deadline and not all(step() for step in ready):
        time.sleep(0.02)
    begin, count = time.monotonic(), 0
    with Path(told or os.devnull).open("a", buffering=1, encoding="utf-8") as file:
        if labels >= 0:
            callers.labels(labels)
            print(f"request: {labels or 'own'} labels", file=file)
        while time.monotonic() < begin + duration:
            time.sleep(max(begin + count / rate - time.monotonic(), 0))
            count += 1
            if not count % _REQUESTS:
                print(f"request: {callers.send(count // _REQUESTS - 1)}", file=file)
            infos.publish(_wild_info(rng))
            blow = every[count % len(every)]
            if blow is every[-1]:
                rng.shuffle(every)
            message = messages.fill(kinds[blow.target](), blow.content)
            when = _stamp(message, rng)
            publishers[blow.target].publish(message if blow.cdr is None else blow.cdr(serialize_message(message)))
            if publishers[blow.target].get_subscription_count():
                print(f"{blow.target}: {blow.name}{when}", file=file)
    node.destroy_node()
    rclpy.shutdown(context=context)


def _stamp(message: Any, rng: random.Random) -> str:
    """Stamps a message, mostly well. Returns how, in words."""
    if not hasattr(message, "header"):
        return ""
    message.header.frame_id = rng.choice(("frame", _CONTROL))
    stamp = message.header.stamp
    stamp.sec, stamp.nanosec = divmod(time.time_ns(), 1_000_000_000)
    if rng.random() < _WELL_STAMPED:
        return ""
    words = rng.choice(tuple(_STAMPS))
    stamp.sec, stamp.nanosec = _STAMPS[words]
    return f", stamped {words}"


def _wild_info(rng: random.Random) -> Any:
    wild = rng.choice((math.nan, math.inf, 0.0, -1e308, 1e308))
    size = rng.choice((0, 64, _HUGE))
    return messages.fill(
        message_class(messages.CAMERA_INFO)(),
        {"width": size, "height": size, "k": [wild] * 9, "p": [wild] * 12, "d": [wild] * 1000},
    )


class Callers:
    """Requests to the services of the fusion node, whose answers nobody waits for.

    Args:
        node: Who asks.
    """

    def __init__(self, node: Any) -> None:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState, GetState
        from rcl_interfaces.msg import Parameter, ParameterValue
        from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
        from std_srvs.srv import SetBool

        def change(**values: Any) -> Any:
            return SetParameters.Request(
                parameters=[
                    Parameter(name=name.replace("__", "."), value=ParameterValue(**value))
                    for name, value in values.items()
                ]
            )

        self._change = change
        self._clients = {
            name: node.create_client(kind, f"fusion_node/{name}")
            for name, kind in (
                ("set_parameters", SetParameters),
                ("get_parameters", GetParameters),
                ("describe_parameters", DescribeParameters),
                ("list_parameters", ListParameters),
                ("change_state", ChangeState),
                ("get_state", GetState),
                ("camera/set_enabled", SetBool),
            )
        }
        names = [_CONTROL, "", "camera.timeout", "no.such." * 50] * 50
        wrong: dict[str, Any] = {
            "a parameter of an unknown type": change(rate={"type": 200}),
            "a rate that is not a number": change(rate={"type": 3, "double_value": math.nan}),
            "a rate that is text": change(rate={"type": 4, "string_value": _CONTROL}),
            "labels that are numbers": change(labels={"type": 7, "integer_array_value": [1, 2, 3]}),
            "blank labels": change(labels={"type": 9, "string_array_value": [" ", "cup"]}),
            "labels twice": change(labels={"type": 9, "string_array_value": ["cup"] * 20_000}),
            "a parameter deleted": change(labels={"type": 0}),
            "a time that is negative": change(camera__timeout={"type": 3, "double_value": -1.0}),
            "a read-only parameter": change(sensors={"type": 9, "string_array_value": []}),
            "no such parameter": change(**{_CONTROL: {"type": 1, "bool_value": True}}),
        }
        self._requests: dict[str, tuple[str, int, Any]] = {
            **{words: ("set_parameters", 1, request) for words, request in wrong.items()},
            "names of no parameter": ("get_parameters", 20, GetParameters.Request(names=names)),
            "descriptions of no parameter": ("describe_parameters", 20, DescribeParameters.Request(names=names)),
            "a flood of lists": ("list_parameters", 50, ListParameters.Request(prefixes=["camera"], depth=2**64 - 1)),
            "a flood of states": ("get_state", 200, GetState.Request()),
            "a transition that is none": ("change_state", 20, ChangeState.Request(transition=Transition(id=255))),
            "a flood of switches": ("camera/set_enabled", 50, SetBool.Request(data=True)),
        }

    @property
    def ready(self) -> list[Callable[[], bool]]:
        """Say whether the services are there."""
        return [client.service_is_ready for client in self._clients.values()]

    def labels(self, number: int) -> None:
        """Asks for a vocabulary of so many labels; 0: the model's own."""
        self._clients["set_parameters"].wait_for_service(10)
        names = [f"thing number {i}" for i in range(number)]
        self._send("set_parameters", self._change(labels={"type": 9, "string_array_value": names}))

    def send(self, number: int) -> str:
        """Sends one of the wrong requests, or a flood of right ones, in turns. Returns what, in words."""
        words = tuple(self._requests)[number % len(self._requests)]
        service, times, request = self._requests[words]
        for _ in range(times):
            self._send(service, request)
        return words

    def _send(self, service: str, request: Any) -> None:
        client = self._clients[service]
        client.remove_pending_request(client.call_async(request))
