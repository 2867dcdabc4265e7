"""The event modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Corruptions, Events, Modality, Role, readable_file
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.event import conversion, corruption, drawing, processing, reading
from omnibind_core.modalities.event.headers import MAX_PIXELS, MAX_SIDE
from omnibind_core.modalities.event.processing import EventPreset

_EARLIEST = -(2**63)  # of the times that an array holds


class Event(Modality[Events, EventPreset]):
    """Events of an event camera. Raw form: :class:`~omnibind_core.modalities.base.Events`."""

    name: ClassVar[str] = "event"
    role: ClassVar[Role] = Role.STUDENT
    is_camera: ClassVar[bool] = True
    is_stream: ClassVar[bool] = True
    default_window: ClassVar[float] = 0.2
    topic_ending: ClassVar[str] = "events"
    suffixes: ClassVar[tuple[str, ...]] = tuple(reading.READERS)
    presets: ClassVar[dict[str, EventPreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[Events]] = corruption.CORRUPTIONS
    needs: ClassVar[dict[str, str]] = {".aedat4": "aedat", ".h5": "h5py", ".hdf5": "h5py"}
    units: ClassVar[Mapping[str, str]] = conversion.UNITS

    def check(self, raw: Events, source: str) -> Events:
        """Accepts integer coordinates and stamps; polarity as 0 and 1, -1 and 1, or bool."""
        if not isinstance(raw, Events):
            raise InvalidInputError(source, type(raw).__name__, "Events")
        arrays: dict[str, NDArray[Any]] = {"x": raw.x, "y": raw.y, "t": raw.t, "p": raw.p}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "uib":
                found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
                raise InvalidInputError(source, f"{name} as {found}", "integers [N]")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInputError(source, f"lengths {lengths}", "x, y, t and p of equal length")
        if len(raw) == 0:
            raise InvalidInputError(source, "no events", "at least one event")
        for name, array, size in (("x", raw.x, raw.width), ("y", raw.y, raw.height)):
            if not 0 < size <= MAX_SIDE:
                raise InvalidInputError(source, f"a sensor of {raw.width} x {raw.height} pixels", f"1 to {MAX_SIDE}")
            if raw.width * raw.height > MAX_PIXELS:
                found = f"a sensor of {raw.width} x {raw.height} pixels"
                raise InvalidInputError(source, found, f"at most {MAX_PIXELS} pixels")
            low, high = int(array.min()), int(array.max())
            if low < 0 or high >= size:
                raise InvalidInputError(source, f"{name} from {low} to {high}", f"0 to {size - 1}")
        if (raw.t[1:] < raw.t[:-1]).any():  # a difference would wrap around in unsigned types
            at = int(np.argmax(raw.t[1:] < raw.t[:-1]))
            raise InvalidInputError(source, f"t {raw.t[at]} then {raw.t[at + 1]} at event {at + 1}", "t not decreasing")
        return Events(
            raw.x.astype(np.uint16, copy=False),
            raw.y.astype(np.uint16, copy=False),
            raw.t.astype(np.int64, copy=False),
            _polarity(raw.p, source),
            int(raw.width),
            int(raw.height),
        )

    def load(self, path: Path) -> Events:
        """Reads a file of events, by its ending: see :mod:`.reading`."""
        return self.convert(self.read(path), str(path))

    def read(self, path: Path) -> Events | conversion.Columns:
        """What a file holds: see :func:`.reading.read`."""
        return reading.read(readable_file(path, self.suffixes, "an event file"))

    def convert(self, given: Any, source: str, **units: Any) -> Events:
        """Accepts :class:`Events`, and columns by name: see :func:`.conversion.from_columns`."""
        return self.check(conversion.from_columns(given, source, units), source)

    def process(self, raw: Events, preset: EventPreset) -> NDArray[np.uint8]:
        """Events to ``uint8 [views, 3, 224, 224]``."""
        return processing.process(raw, preset)

    def augment(self, raw: Events, rng: np.random.Generator) -> Events:
        """Another slice, place, direction, rate and noise."""
        return corruption.augment(raw, rng)

    def noise_only(self, raw: Events, rng: np.random.Generator) -> Events:
        """As many events, anywhere."""
        return corruption.noise_only(raw, rng)

    def draw(self, raw: Events, height: int = 240) -> Picture:
        """The whole sensor, on white: see :func:`.drawing.draw`."""
        return drawing.draw(raw)

    def join(self, chunks: Sequence[tuple[int, Events]], end_ns: int, duration: float) -> Events:
        """Puts chunks on one time line and cuts the window; ``t`` then counts µs from the start of the window."""
        sizes = {(chunk.width, chunk.height) for _, chunk in chunks}
        if len(sizes) > 1:
            raise InvalidInputError("event stream", f"sensor sizes {sorted(sizes)}", "one size")
        length = round(duration * 1e6)  # µs
        window_start = end_ns - length * 1000
        cuts = []
        for stamp, chunk in chunks:
            later = (stamp - window_start) // 1000 - int(chunk.t[0])
            first, last = (min(max(end, _EARLIEST), -_EARLIEST - 1) for end in (-later, length - later))
            low, high = np.searchsorted(chunk.t, first, "left"), np.searchsorted(chunk.t, last, "right")
            if low < high:
                cuts.append((chunk.x[low:high], chunk.y[low:high], chunk.t[low:high] + later, chunk.p[low:high]))
        if not cuts:
            raise InvalidInputError("event stream", "no events in the window", f"events in the last {duration} s")
        x, y, t, p = (np.concatenate(arrays) for arrays in zip(*cuts, strict=True))
        joined = Events(x, y, t, p, *sizes.pop())
        if (t[1:] < t[:-1]).any():  # chunks that overlap
            order = np.argsort(t, kind="stable")
            joined = replace(joined, x=x[order], y=y[order], t=t[order], p=p[order])
        return joined


def _polarity(p: NDArray[Any], source: str) -> NDArray[np.uint8]:
    low, high = int(p.min()), int(p.max())
    if low < -1 or high > 1:
        raise InvalidInputError(source, f"polarity from {low} to {high}", "0 and 1, or -1 and 1")
    return (p > 0).astype(np.uint8) if low < 0 else p.astype(np.uint8, copy=False)


MODALITY = Event()
