"""Events to encoder input: pictures of accumulated events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
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
        views_from: Which of more pictures are kept: ``"spread"`` evenly over the slice, or the ``"first"``.
        framing: Part of the sensor that is shown: ``"centred"`` (all of it, with the events' bounding box moved to the
            middle), ``"corner"`` (origin to the farthest event), ``"box"`` (bounding box of the events) or
            ``"object"`` (bounding box of what is left without isolated pixels and the outermost percent of events).
        drawing: ``"blend"`` (EventCLIP), ``"ink"`` (EventBind), ``"glow"`` (UniBind) or ``"saturate"``.
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
# EventBind (Dataloader/Caltech101/dataset.py): red and yellow's complements on white, five views.
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
    )
}

_SATURATION = 2  # events per pixel that give full ink in the drawing "saturate"
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
        last = len(starts) - 1 if preset.views_from == "spread" else preset.max_views - 1
        starts = [starts[i] for i in np.linspace(0, last, preset.max_views).round().astype(int)]
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
    """Crops to the object: events that have two active pixels around them, 1st to 99th percentile, and a margin."""
    active = (count(events).sum(axis=0) > 0).astype(np.uint8)
    neighbours = cv2.boxFilter(active, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    kept = (neighbours >= 3)[events.y, events.x]
    if not kept.any():  # nothing but isolated pixels
        return _box(events)
    left, right = _extent(events.x[kept], events.width)
    top, bottom = _extent(events.y[kept], events.height)
    kept &= (events.x >= left) & (events.x < right) & (events.y >= top) & (events.y < bottom)
    return Events(
        events.x[kept] - left, events.y[kept] - top, events.t[kept], events.p[kept], right - left, bottom - top
    )


def _extent(position: NDArray[np.uint16], size: int) -> tuple[int, int]:
    """Where the middle 98 percent of the events lie, with a margin: first pixel and the one after the last."""
    low, high = np.percentile(position, (1, 99), method="nearest")
    return max(0, int(low) - _MARGIN), min(size, int(high) + 1 + _MARGIN)


def _blend(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """Counts over the largest count, as colour blended onto white by their sum (EventCLIP)."""
    counts = counts / max(1.0, float(counts.max()))
    colour = _mix(counts, preset)
    alpha = np.minimum(counts.sum(axis=0), 1)[:, :, None]
    return np.rint(colour * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _ink(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """White minus the colour for each event: one event gives full ink (EventBind)."""
    return (255 - np.minimum(_mix(counts, preset), 255)).astype(np.uint8)


def _glow(counts: Counts, preset: EventPreset) -> NDArray[np.uint8]:
    """Colour on black, each polarity over its own largest count (UniBind)."""
    largest = np.maximum(counts.max(axis=(1, 2), keepdims=True), 1)
    return np.minimum(_mix(counts / largest, preset), 255).astype(np.uint8)


def _mix(counts: Counts, preset: EventPreset) -> NDArray[np.float32]:
    """Colours weighted by counts: ``float32 [height, width, 3]``, not limited."""
    darker, brighter = np.array(preset.darker, np.float32), np.array(preset.brighter, np.float32)
    return counts[0, :, :, None] * darker + counts[1, :, :, None] * brighter


FRAMINGS: dict[str, Callable[[Events], Events]] = {
    "centred": _centred,
    "corner": _corner,
    "box": _box,
    "object": _object,
}
DRAWINGS: dict[str, Callable[[Counts, EventPreset], NDArray[np.uint8]]] = {"blend": _blend, "ink": _ink, "glow": _glow}
