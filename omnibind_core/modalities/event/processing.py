"""Events to encoder input: pictures of accumulated events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Events, PicturePreset
from omnibind_core.modalities.pictures import fit_picture

Rgb = tuple[int, int, int]
Counts = NDArray[np.float32]  # [2, pixels]: darker and brighter events of each pixel


@dataclass(frozen=True)
class EventPreset(PicturePreset):
    """How events become pictures.

    Attributes:
        events_per_view: Events that one picture accumulates; 0: all of the slice.
        max_views: Pictures per item at most.
        views_from: Which pictures are kept if there are more: ``"spread"`` evenly, the ``"first"`` or the ``"last"``.
        framing: Part of the sensor that is shown: ``"centred"`` (all of it, with the events' bounding box moved to the
            middle), ``"corner"`` (origin to the farthest event), ``"box"`` (bounding box of the events) or
            ``"object"`` (square around the events but the outermost percent on each side).
        drawing: ``"blend"`` (EventCLIP), ``"ink"`` (EventBind) or ``"glow"`` (UniBind).
        brighter: Colour of brighter events.
        darker: Colour of darker events.
        hot_pixels: Counts above mean + this many standard deviations of the count map are set to 0; 0: none are.
    """

    events_per_view: int = 0
    max_views: int = 1
    views_from: str = "spread"
    framing: str = "centred"
    drawing: str = "blend"
    brighter: Rgb = (127, 127, 127)
    darker: Rgb = (127, 127, 127)
    hot_pixels: float = 0.0


# EventCLIP (datasets/vis.py, event2img.py and its configs): grey or red and blue on white, two views.
_EVENTCLIP = EventPreset("eventclip_gray", resize=224, events_per_view=20_000, max_views=2, hot_pixels=10)
_EVENTCLIP_RGB = replace(_EVENTCLIP, name="eventclip_rgb", brighter=(255, 0, 0), darker=(0, 0, 255))
# EventBind (Dataloader/Caltech101/dataset.py): cyan and yellow taken from white (red and blue), five views.
_EVENTBIND = EventPreset(
    "eventbind_rgb",
    fit="stretch",
    events_per_view=15_000,
    max_views=5,
    views_from="first",
    framing="corner",
    drawing="ink",
    brighter=(0, 255, 255),
    darker=(255, 255, 0),
)
# UniBind's sample pictures: cyan and yellow on black, one view. Its data have hot pixels; `hot_pixels=10` removes them.
_UNIBIND = EventPreset(
    "unibind", resize=224, framing="box", drawing="glow", brighter=(0, 255, 255), darker=(255, 255, 0)
)
# Ours, for short slices of any sensor: EventBind's ink, zoomed on what moves, the newest events.
_OBJECT = replace(
    _EVENTBIND, name="object_rgb", events_per_view=20_000, max_views=1, views_from="last", framing="object"
)

PRESETS = {
    preset.name: preset
    for preset in (
        _EVENTCLIP,
        replace(_EVENTCLIP, name="eventclip_gray_ncars", events_per_view=30_000),
        replace(_EVENTCLIP, name="eventclip_gray_nimagenet", events_per_view=70_000),
        _EVENTCLIP_RGB,
        replace(_EVENTCLIP_RGB, name="eventclip_rgb_ncars", events_per_view=30_000),
        replace(_EVENTCLIP_RGB, name="eventclip_rgb_nimagenet", events_per_view=70_000),
        _EVENTBIND,
        replace(_EVENTBIND, name="eventbind_rgb_nimagenet", events_per_view=40_000),
        _UNIBIND,
        _OBJECT,
    )
}

_MARGIN = 4  # pixels around the object in the framing "object"


class Frame(NamedTuple):
    """The part of the sensor that is shown; it may reach beyond."""

    left: int
    top: int
    width: int
    height: int


def process(raw: Events, preset: EventPreset) -> NDArray[np.uint8]:
    """Events to ``uint8 [views, 3, 224, 224]``."""
    return np.concatenate([fit_picture(picture, preset) for picture in pictures(raw, preset)])


def pictures(raw: Events, preset: EventPreset) -> list[NDArray[np.uint8]]:
    """Before they are resized: ``uint8 [height, width]`` or ``[height, width, 3]`` each.

    Most pixels have no event, so only those that have one are drawn.
    """
    frame = FRAMINGS[preset.framing](raw)
    shown = inside(raw, frame)
    made = []
    for part in views(len(raw) if shown is None else len(shown), preset):
        pixels, counts = count(raw, frame, part if shown is None else shown[part])
        counts = remove_hot_pixels(counts, preset.hot_pixels, frame.width * frame.height)
        beside = np.zeros((2, 1), np.float32)
        colours = DRAWINGS[preset.drawing](np.concatenate([counts, beside], axis=1), preset)
        drawn = np.full((frame.width * frame.height, *colours.shape[1:]), colours.flat[-1])  # white or black
        drawn[pixels] = colours[:-1]
        made.append(drawn.reshape(frame.height, frame.width, *colours.shape[1:]))
    return made


def inside(events: Events, frame: Frame) -> NDArray[np.intp] | None:
    """Which events are in the frame; None: all."""
    kept = _within(events.x, frame.left, frame.width) & _within(events.y, frame.top, frame.height)
    return None if kept.all() else np.flatnonzero(kept)


def _within(values: NDArray[np.uint16], start: int, size: int) -> NDArray[np.bool_]:
    below: NDArray[np.bool_] = values - np.uint16(start % (1 << 16)) < size  # what lies before it wraps around
    return below


def views(events: int, preset: EventPreset) -> list[slice]:
    """Which of that many events each view shows.

    Consecutive slices of ``events_per_view``. Fewer events make one view; a tail longer than half a view makes one
    more, that ends with the last event (EventCLIP).
    """
    size = preset.events_per_view
    if size == 0 or events <= size:
        return [slice(0, events)]
    starts = list(range(0, events - size + 1, size))
    if events % size > size / 2:
        starts.append(events - size)
    if len(starts) > preset.max_views:
        if preset.views_from == "spread":
            starts = [starts[i] for i in np.linspace(0, len(starts) - 1, preset.max_views).round().astype(int)]
        else:
            starts = starts[: preset.max_views] if preset.views_from == "first" else starts[-preset.max_views :]
    return [slice(start, start + size) for start in starts]


def count(events: Events, frame: Frame, part: slice | NDArray[np.intp]) -> tuple[NDArray[np.int64], Counts]:
    """The pixels of a frame that have events, by their number in its rows, and how many: darker ones first."""
    places = events.y[part].astype(np.int64)
    places -= frame.top
    places *= frame.width
    places += events.x[part]
    places -= frame.left
    places *= 2
    places += events.p[part]
    places.sort()  # quicker than to count in a map of the whole sensor
    first = _changes(places)
    number = np.diff(np.concatenate([first, [len(places)]]))
    kinds, at = places[first] & 1, places[first] >> 1
    begins = _changes(at)
    column = np.zeros(len(at), np.intp)
    column[begins[1:]] = 1
    column = np.cumsum(column)
    counts = np.bincount(kinds * len(begins) + column, number, 2 * len(begins))
    return at[begins], counts.reshape(2, -1).astype(np.float32)


def _changes(values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where values ``[N]``, N at least 1, differ from those before them, the first included."""
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])


def remove_hot_pixels(counts: Counts, deviations: float, pixels: int) -> Counts:
    """Sets counts above mean + ``deviations`` standard deviations of the whole map to 0; 0 deviations: keeps all.

    Args:
        counts: Of the pixels that have events.
        deviations: See above.
        pixels: Of the frame.
    """
    if deviations == 0:
        return counts
    mean = float(counts.sum(dtype=np.float64)) / (2 * pixels)
    spread = math.sqrt(max(float(np.square(counts, dtype=np.float64).sum()) / (2 * pixels) - mean**2, 0.0))
    return np.where(counts > mean + deviations * spread, np.float32(0), counts)


def _centred(events: Events) -> Frame:
    """Bounding box to the middle of the sensor; a half pixel left over goes to the top left."""
    box = _box(events)
    left, top = (2 * box.left + box.width - events.width) // 2, (2 * box.top + box.height - events.height) // 2
    return Frame(left, top, events.width, events.height)


def _corner(events: Events) -> Frame:
    return Frame(0, 0, int(events.x.max()) + 1, int(events.y.max()) + 1)


def _box(events: Events) -> Frame:
    left, top = int(events.x.min()), int(events.y.min())
    return Frame(left, top, int(events.x.max()) + 1 - left, int(events.y.max()) + 1 - top)


def _object(events: Events) -> Frame:
    """Square around the middle 98 percent of the events on each axis, with a margin; may reach beyond the sensor."""
    (left, right), (top, bottom) = _middle(events.x, events.width), _middle(events.y, events.height)
    side = max(right - left, bottom - top) + 1 + 2 * _MARGIN
    return Frame((left + right + 1 - side) // 2, (top + bottom + 1 - side) // 2, side, side)


def _middle(values: NDArray[np.uint16], size: int) -> tuple[int, int]:
    """The 1st and the 99th percentile, the nearest values, by counting."""
    below = np.cumsum(cv2.calcHist([values[None]], [0], None, [size], [0, size]), dtype=np.float64)
    low, high = np.searchsorted(below, np.around((len(values) - 1) * np.array((0.01, 0.99))), "right")
    return int(low), int(high)


def _blend(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """Counts over the largest count, as colour blended onto white by their sum (EventCLIP)."""
    counts = counts / max(1.0, float(counts.max()))
    alpha = np.minimum(counts.sum(axis=0), 1)
    return _colours(255 + alpha * (_mix(counts, preset) - 255))


def _ink(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """White minus the colour for each event: one event gives full ink (EventBind)."""
    return _colours(255 - np.minimum(_mix(counts, preset), 255))


def _glow(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """Colour on black, each polarity over its own largest count (UniBind)."""
    largest = np.maximum(counts.max(axis=1, keepdims=True), 1)
    return _colours(np.minimum(_mix(counts / largest, preset), 255))


def _mix(counts: Counts, preset: EventPreset) -> NDArray[np.float32]:
    """Colours weighted by counts, not limited: ``float32 [3, pixels]``, or ``[1, pixels]`` if both are grey."""
    colours = np.array([preset.darker, preset.brighter], np.float32).T
    if (colours == colours[0]).all():
        colours = colours[:1]
    planes: NDArray[np.float32] = np.tensordot(colours, counts, 1)
    return planes


def _colours(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``[1 or 3, pixels]`` on 0..255 to ``uint8 [pixels]`` or ``[pixels, 3]``."""
    rounded = np.rint(planes).astype(np.uint8)
    return rounded[0] if len(rounded) == 1 else np.ascontiguousarray(rounded.T)


FRAMINGS: dict[str, Callable[[Events], Frame]] = {
    "centred": _centred,
    "corner": _corner,
    "box": _box,
    "object": _object,
}
DRAWINGS: dict[str, Callable[[Counts, EventPreset], NDArray[np.uint8]]] = {"blend": _blend, "ink": _ink, "glow": _glow}
