"""Logs to Rerun: what the sensors show, predictions, states of the sensors."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from omnibind_core.errors import ConfigError
from omnibind_core.modalities import Sound
from omnibind_core.objects.rig import PICTURES
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.optional import require
from omnibind_core.runtime.types import Encoded, Prediction, SensorReport, SensorState
from omnibind_ros.node.objects.words import colour, words
from omnibind_ros.view import drawing
from omnibind_ros.view.layout import (
    CONFIDENCES,
    LOG,
    PALETTE,
    PREDICTION,
    SENSORS,
    STATES,
    THINGS,
    TIMELINE,
    TRUTH,
    VIEWER,
    WEIGHTS,
    blueprint,
)

APPLICATION = "omnibind"
_ELSEWHERE = "give --no-spawn --save FILE, or --connect ADDRESS of a viewer on another machine"
_PATIENCE = 5.0  # s that a viewer may take to answer, and to take the rest at the end
_QUALITY = 85  # of the JPEG pictures, percent
_CONFLICT = 0.5  # from which on a prediction's text speaks of it
_FUSED = (255, 255, 255)
_log = logging.getLogger(__name__)
_CALM = (SensorState.ACTIVE, SensorState.WAITING, SensorState.DISABLED)
_STATE_COLOURS: Mapping[SensorState, int] = {  # RGBA
    SensorState.DISABLED: 0x555555FF,
    SensorState.WAITING: 0x777777FF,
    SensorState.ACTIVE: 0x009E73FF,
    SensorState.LATE: 0xF0E442FF,
    SensorState.STALE: 0xE69F00FF,
    SensorState.REJECTED: 0xD55E00FF,
    SensorState.INCOMPATIBLE_QOS: 0xCC79A7FF,
}


def open_recording(spawn: bool, save: Path | None, connect: str | None) -> Any:
    """A recording of Rerun that goes to a viewer, a file, or both.

    Args:
        spawn: Start a viewer on this machine, or use the one that runs.
        save: File to write, ``.rrd``.
        connect: Address of a viewer that runs elsewhere, ``rerun+http://HOST:9876/proxy``.

    Raises:
        ConfigError: It would go nowhere, the file cannot be written, or this version of Rerun has one way at a time.
        MissingDependencyError: Rerun is not installed.
    """
    rr = require("rerun", "The live view")
    if not (spawn or save or connect):
        raise ConfigError("nothing would be shown: --no-spawn needs --save FILE, or --connect ADDRESS")
    recording = rr.RecordingStream(APPLICATION)
    if save is not None:
        _check_writable(save)
    if connect is not None:
        _check_reachable(connect)
    elif spawn and sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise ConfigError(f"there is no screen here to show it on: {_ELSEWHERE}")
    try:
        if save is None:
            recording.connect_grpc(connect or start_viewer())
        elif not (spawn or connect):
            recording.save(save)
        elif not hasattr(recording, "set_sinks"):
            raise ConfigError(f"rerun-sdk {rr.__version__} either shows or saves: add --no-spawn, or update it")
        else:
            recording.set_sinks(rr.GrpcSink(connect or start_viewer()), rr.FileSink(save))
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"the view cannot be opened: {error}") from error
    return recording


def start_viewer() -> str:
    """Starts a viewer on this machine, unless one runs, and returns its address.

    Not by Rerun's own ``spawn``: that viewer listens on all network interfaces, and takes from anybody.
    """
    host, port = VIEWER.partition("://")[2].partition("/")[0].split(":")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError:
        command = [sys.executable, "-m", "rerun_cli", "--bind", host, "--port", port, "--expect-data-soon"]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # it outlives us
    return VIEWER


def _check_writable(path: Path) -> None:
    if path.suffix != ".rrd":
        raise ConfigError(f"--save is '{path}', expected a file name that ends in .rrd")
    if not path.parent.is_dir():
        raise ConfigError(f"--save is '{path}', but there is no folder {path.parent}")


def _check_reachable(address: str) -> None:
    place = re.fullmatch(r"rerun(?:\+https?)?://([^/:]+):(\d{1,5})(/.*)?", address)
    if place is None:
        raise ConfigError(f"--connect is '{address}', expected an address such as {VIEWER}")
    try:
        socket.create_connection((place[1], int(place[2])), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no viewer answers at {address}: start one there, by the command rerun ({error})") from error


class Canvas:
    """One recording. All times are ns on the sensors' clock.

    Args:
        recording: From :func:`open_recording`.
    """

    def __init__(self, recording: Any) -> None:
        self._rr = require("rerun", "The live view")
        self._recording = recording
        self._lanes = hasattr(self._rr, "StateChange")  # since 0.33
        self._sensors: dict[str, str] = {}
        self._states: dict[str, SensorState] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._label: str | None = None
        self._pixels: dict[str, tuple[int, int]] = {}  # width and height of each sensor's own pictures
        self._things = False  # whether any were told of

    def arrange(self, sensors: Mapping[str, str]) -> None:
        """Tells which sensors there are, modality by name; arranges the view anew if that has changed."""
        if dict(sensors) == self._sensors:
            return
        self._sensors = dict(sensors)
        for index, (name, modality) in enumerate(sensors.items()):
            colour = PALETTE[index % len(PALETTE)]
            for group in (WEIGHTS, CONFIDENCES):
                self._static(f"{group}/{name}", self._rr.SeriesLines(colors=[colour], names=[name], widths=[2]))
            if modality == "audio":
                line = self._rr.SeriesLines(colors=[colour], names=[name])
                for limit in ("low", "high"):
                    self._static(f"{SENSORS}/{name}/waveform/{limit}", line)
            if modality == "point_cloud":
                self._static(f"{SENSORS}/{name}", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP)
            if self._lanes:
                states = [(state.name, colour) for state, colour in _STATE_COLOURS.items()]
                values, colours = zip(*states, strict=True)
                self._static(f"{STATES}/{name}", self._rr.StateConfiguration(values=values, colors=colours))
        self._static(f"{CONFIDENCES}/fused", self._rr.SeriesLines(colors=[_FUSED], names=["fused"], widths=[3]))
        self._recording.send_blueprint(blueprint(self._sensors, self._lanes, self._things))

    def item(self, sensor: str, stamp_ns: int, raw: Any) -> None:
        """Shows one decoded item of a sensor; what cannot be seen (embeddings) is left out."""
        path, modality = f"{SENSORS}/{sensor}", self._sensors.get(sensor, "")
        if isinstance(raw, Sound):
            self._sound(path, stamp_ns, raw)
        elif isinstance(raw, str):
            self._log(path, stamp_ns, self._rr.TextDocument(raw))
        elif modality == "point_cloud" and not isinstance(raw, Encoded):
            positions, colours = drawing.points(raw)
            self._log(path, stamp_ns, self._rr.Points3D(positions, colors=colours))
        elif (image := drawing.picture(modality, raw)) is not None:
            if modality in PICTURES and not isinstance(raw, Encoded):
                self._pixels[sensor] = (raw.width, raw.height) if modality == "event" else raw.shape[1::-1]
            size = self._sizes.setdefault(sensor, (image.shape[0], image.shape[1]))
            self._picture(sensor, stamp_ns, drawing.fit(image, size))

    def prediction(self, prediction: Prediction) -> None:
        """Shows what was recognised at one tick, and from what."""
        now = prediction.tick_ns
        shares = {share.name: share for share in prediction.sensors}
        for name in self._sensors:
            share = shares.get(name)
            # A sensor that takes no part has no share, and says nothing: its line is interrupted.
            self._scalar(f"{WEIGHTS}/{name}", now, share.weight if share else 0.0)
            self._scalar(f"{CONFIDENCES}/{name}", now, share.confidence if share else float("nan"))
        self._scalar(f"{CONFIDENCES}/fused", now, prediction.confidence)
        self._log(f"{PREDICTION}/text", now, self._rr.TextDocument(text(prediction), media_type="text/markdown"))
        self._say_label(now, "unknown" if prediction.unknown else prediction.label)

    def things(self, now_ns: int, things: Sequence[ObjectPrediction]) -> None:
        """Shows where things are, in the pictures and in space, with their ids and labels."""
        if not self._things:
            self._things = True
            self._static(THINGS, self._rr.ViewCoordinates.RIGHT_HAND_Z_UP)
            self._recording.send_blueprint(blueprint(self._sensors, self._lanes, self._things))
        for name, (width, height) in self._pixels.items():
            rows, columns = self._sizes[name]
            scale = np.array([columns / width, rows / height] * 2)
            seen = [(one, sight.box) for one in things if (sight := one.sights.get(name)) is not None and sight.box]
            boxes = self._rr.Boxes2D(
                array=np.array([box for _, box in seen]).reshape(-1, 4) * scale,
                array_format=self._rr.Box2DFormat.XYXY,
                **_named([one for one, _ in seen]),
            )
            self._log(f"{SENSORS}/{name}/things", now_ns, boxes)
        solid = self._rr.Boxes3D(
            centers=[one.volume.centre for one in things],
            sizes=[one.volume.size for one in things],
            quaternions=[Rotation.from_matrix(one.volume.rotation).as_quat() for one in things],
            **_named(things),
        )
        self._log(f"{THINGS}/boxes", now_ns, solid)

    def nothing(self, now_ns: int) -> None:
        """Shows that a tick gave no prediction."""
        if self._label == "":
            return
        for name in self._sensors:
            self._scalar(f"{WEIGHTS}/{name}", now_ns, 0.0)
            self._scalar(f"{CONFIDENCES}/{name}", now_ns, float("nan"))
        self._scalar(f"{CONFIDENCES}/fused", now_ns, float("nan"))
        self._log(f"{PREDICTION}/text", now_ns, self._rr.TextDocument("no sensor alive"))
        self._say_label(now_ns, "")

    def states(self, now_ns: int, reports: Sequence[SensorReport]) -> None:
        """Shows the states of the sensors, where they have changed, with the reason."""
        for report in reports:
            if self._states.get(report.name) == report.state:
                continue
            self._states[report.name] = report.state
            if report.state != SensorState.ACTIVE:  # what it saw last is not there any more
                self._blank(report.name, now_ns, report.state.name)
            if self._lanes:
                self._log(f"{STATES}/{report.name}", now_ns, self._rr.StateChange(state=report.state.name))
            reason = f": {report.reason}" if report.reason else ""
            self.say(now_ns, f"{report.name} {report.state.name}{reason}", report.state in _CALM)

    def truth(self, stretches: Iterable[tuple[int, int, Sequence[str]]]) -> None:
        """Shows what was there: beginning, end and labels of each stretch, in order."""
        if not self._lanes:
            return
        for begin_ns, end_ns, labels in stretches:
            self._log(TRUTH, begin_ns, self._rr.StateChange(state=" or ".join(labels)))
            self._log(TRUTH, end_ns, self._rr.Clear(recursive=False))

    def say(self, now_ns: int, sentence: str, good: bool = True) -> None:
        """Adds a line to the log in the view."""
        level = self._rr.TextLogLevel.INFO if good else self._rr.TextLogLevel.WARN
        self._log(LOG, now_ns, self._rr.TextLog(sentence, level=level))

    def close(self) -> None:
        """Writes what is left."""
        try:
            self._recording.flush(timeout_sec=_PATIENCE)
        except TypeError:  # before 0.27
            self._recording.flush()
        except (RuntimeError, ValueError, OSError) as error:
            _log.warning("the viewer is gone: what it had not taken yet is lost (%s)", error)
        self._recording.disconnect()

    def _say_label(self, now_ns: int, label: str) -> None:
        if label == self._label:
            return
        self._label = label
        if self._lanes:
            self._log(f"{PREDICTION}/label", now_ns, self._rr.StateChange(state=label or "no sensor alive"))
        self.say(now_ns, label or "no sensor alive", bool(label))

    def _picture(self, sensor: str, time_ns: int, image: NDArray[np.uint8]) -> None:
        self._log(f"{SENSORS}/{sensor}", time_ns, self._rr.Image(image).compress(jpeg_quality=_QUALITY))

    def _blank(self, sensor: str, time_ns: int, word: str) -> None:
        if sensor in self._sizes:  # compressed pictures are a video to Rerun, which cannot be cleared
            self._picture(sensor, time_ns, drawing.blank(self._sizes[sensor], word))
        else:
            self._log(f"{SENSORS}/{sensor}", time_ns, self._rr.Clear(recursive=True))

    def _sound(self, path: str, stamp_ns: int, sound: Sound) -> None:
        limits = drawing.envelope(sound, stamp_ns)
        times = self._rr.TimeColumn(TIMELINE, timestamp=limits.times_ns.view("datetime64[ns]"))
        for name, values in (("low", limits.low), ("high", limits.high)):
            columns = self._rr.Scalars.columns(scalars=values.astype(np.float64))
            self._recording.send_columns(f"{path}/waveform/{name}", indexes=[times], columns=columns)
        self._scalar(f"{path}/level", stamp_ns, limits.level)

    def _scalar(self, path: str, time_ns: int, value: float) -> None:
        self._log(path, time_ns, self._rr.Scalars(value))

    def _static(self, path: str, archetype: Any) -> None:
        self._recording.log(path, archetype, static=True)

    def _log(self, path: str, time_ns: int, archetype: Any) -> None:
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(time_ns, "ns"))
        self._recording.log(path, archetype)


def _named(things: Sequence[ObjectPrediction]) -> dict[str, Any]:
    """What the boxes of things are called, and their colours."""
    colours = [tuple(round(255 * part) for part in colour(one.id)) for one in things]
    return {"labels": [words(one) for one in things], "colors": colours}


def text(prediction: Prediction) -> str:
    """A prediction in Markdown."""
    title = f"unknown ({prediction.labels[0]}?)" if prediction.unknown else prediction.label
    others = zip(prediction.labels[1:], prediction.scores[1:], strict=True)
    nearest = ", ".join(f"{label} {score:.2f}" for label, score in others)
    lines = [f"# {title}", "", f"**{prediction.confidence:.2f}**" + (f"; then {nearest}" if nearest else "")]
    if prediction.conflict > _CONFLICT:
        lines += ["", f"the sensors contradict each other (conflict {prediction.conflict:.2f})"]
    lines += ["", "| sensor | share | alone it says | confidence | age |", "|---|---|---|---|---|"]
    for share in sorted(prediction.sensors, key=lambda share: -share.weight):
        cells = share.name, f"{100 * share.weight:.0f} %", _cell(share.label), f"{share.confidence:.2f}"
        lines.append(f"| {' | '.join(cells)} | {share.age:.2f} s |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
