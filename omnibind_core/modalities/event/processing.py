"""Events to encoder input: pictures of accumulated events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Events, PicturePreset
from omnibind_core.modalities.pictures import fit_picture

Rgb = tuple[int, int, int]
Counts = NDArray[np.float32]  # [2, height, width]: darker and brighter events per pixel


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


def process(raw: Events, preset: EventPreset) -> NDArray[np.uint8]:
    """Events to ``uint8 [views, 3, 224, 224]``."""
    framed = FRAMINGS[preset.framing](raw)
    draw = DRAWINGS[preset.drawing]
    pictures = []
    for part in views(len(framed), preset):
        counts = remove_hot_pixels(count(framed, part), preset.hot_pixels)
        pictures.append(fit_picture(draw(counts, preset), preset))
    return np.concatenate(pictures)


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


def count(events: Events, part: slice = slice(None)) -> Counts:
    """Events per polarity and pixel: ``float32 [2, height, width]``, darker first."""
    pixels = events.width * events.height
    index = events.p[part].astype(np.int64)
    index *= pixels
    index += events.y[part].astype(np.int64) * events.width
    index += events.x[part]
    counts = np.bincount(index, minlength=2 * pixels)
    return counts.reshape(2, events.height, events.width).astype(np.float32)


def remove_hot_pixels(counts: Counts, deviations: float) -> Counts:
    """Sets counts above mean + ``deviations`` standard deviations of the whole map to 0; 0 deviations: keeps all."""
    if deviations == 0:
        return counts
    return np.where(counts > counts.mean() + deviations * counts.std(), np.float32(0), counts)


def _centred(events: Events) -> Events:
    """Bounding box to the middle of the sensor; a half pixel left over goes to the top left."""
    shift_x = (int(events.x.min()) + int(events.x.max()) + 1 - events.width) // 2
    shift_y = (int(events.y.min()) + int(events.y.max()) + 1 - events.height) // 2
    x, y = events.x.astype(np.int32) - shift_x, events.y.astype(np.int32) - shift_y
    return replace(events, x=x.astype(np.uint16), y=y.astype(np.uint16))


def _corner(events: Events) -> Events:
    return replace(events, width=int(events.x.max()) + 1, height=int(events.y.max()) + 1)


def _box(events: Events) -> Events:
    left, top = events.x.min(), events.y.min()
    return _corner(replace(events, x=events.x - left, y=events.y - top))


def _object(events: Events) -> Events:
    """Square around the middle 98 percent of the events on each axis, with a margin; may reach beyond the sensor."""
    left, right = (int(edge) for edge in np.percentile(events.x, (1, 99), method="nearest"))
    top, bottom = (int(edge) for edge in np.percentile(events.y, (1, 99), method="nearest"))
    side = max(right - left, bottom - top) + 1 + 2 * _MARGIN
    x = events.x.astype(np.int32) - (left + right + 1 - side) // 2
    y = events.y.astype(np.int32) - (top + bottom + 1 - side) // 2
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    return Events(
        x[inside].astype(np.uint16), y[inside].astype(np.uint16), events.t[inside], events.p[inside], side, side
    )


def _blend(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """Counts over the largest count, as colour blended onto white by their sum (EventCLIP)."""
    counts = counts / max(1.0, float(counts.max()))
    alpha = np.minimum(counts.sum(axis=0), 1)
    return _picture(255 + alpha * (_mix(counts, preset) - 255))


def _ink(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """White minus the colour for each event: one event gives full ink (EventBind)."""
    return _picture(255 - np.minimum(_mix(counts, preset), 255))


def _glow(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """Colour on black, each polarity over its own largest count (UniBind)."""
    largest = np.maximum(counts.max(axis=(1, 2), keepdims=True), 1)
    return _picture(np.minimum(_mix(counts / largest, preset), 255))


def _mix(counts: Counts, preset: EventPreset) -> NDArray[np.float32]:
    """Colours weighted by counts, not limited: ``float32 [3, height, width]``, or ``[1, ...]`` if both are grey."""
    colours = np.array([preset.darker, preset.brighter], np.float32).T
    if (colours == colours[0]).all():
        colours = colours[:1]
    planes: NDArray[np.float32] = np.tensordot(colours, counts, 1)
    return planes


def _picture(planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``[1 or 3, height, width]`` on 0..255 to ``uint8 [height, width]`` or ``[height, width, 3]``."""
    rounded = np.rint(planes).astype(np.uint8)
    return rounded[0] if len(rounded) == 1 else np.ascontiguousarray(rounded.transpose(1, 2, 0))


FRAMINGS: dict[str, Callable[[Events], Events]] = {
    "centred": _centred,
    "corner": _corner,
    "box": _box,
    "object": _object,
}
DRAWINGS: dict[str, Callable[[Counts, EventPreset], NDArray[np.uint8]]] = {"blend": _blend, "ink": _ink, "glow": _glow}
