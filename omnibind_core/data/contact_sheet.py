"""Contact sheet of a data set: a few samples of every modality as one picture, to see what one has before training."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain, zip_longest
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.modalities.thermal.processing import stretch_contrast

Picture = NDArray[np.uint8]  # RGB [H, W, 3]

_WIDTH, _SIDE, _CLOUD_SIDE, _CAPTION, _GAP, _TITLE = 1206, 144, 98, 30, 6, 34  # pixels: eight tiles in a row
_PER_LABEL = 4  # samples kept of each label, to choose from
_WHITE, _INK, _GREY = (255, 255, 255), (30, 30, 30), (120, 120, 120)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(source: Source, *, per_modality: int = 24, seed: int = 0) -> Picture:
    """Draws samples of every modality, of as many labels as fit, with label and split.

    Pictures are shown as they are, thermal counts by a colour map, events as red (brighter), blue (darker) and black
    (both), clouds from above, from the front and from the side (coloured by height), sounds as spectrograms (5 s, up to
    8 kHz).

    Args:
        source: The data set. All its samples are gone through once, a few of each label are kept in memory.
        per_modality: Most samples of a modality.
        seed: Of the choice.

    Returns:
        RGB ``uint8 [H, 1206, 3]``.

    Raises:
        DataError: There are no samples.
    """
    chosen, counts = _choose(source, per_modality, np.random.default_rng(seed))
    if not chosen:
        raise DataError(f"{source.root} holds no samples to draw")
    return np.concatenate([_section(source, name, counts[name], items) for name, items in sorted(chosen.items())])


def render(modality: str, raw: Any, side: int = _SIDE) -> Picture:
    """One checked item as a picture ``side`` pixels high; clouds are three times as wide.

    Args:
        modality: Its name.
        raw: The item in the form of its modality.
        side: Height in pixels.
    """
    if isinstance(raw, Sound):
        return _fit(_spectrogram(raw), side, side, stretch=True)
    if isinstance(raw, Events):
        event = modalities.get("event")
        return _fit(event.process(raw, event.preset("object_rgb"))[0].transpose(1, 2, 0), side, side)
    if modality == "point_cloud":
        return _projections(raw, side)
    if modality == "text":
        return _caption(str(raw), side, side)
    if modality not in modalities.NAMES:  # a plug-in's: as its encoder sees it
        kind = modalities.get(modality)
        view = np.atleast_2d(np.squeeze(kind.process(raw, kind.preset())[0]))
        raw = view.transpose(1, 2, 0) if view.ndim == 3 else view
    if modality == "thermal" and raw.ndim == 2:
        return _fit(_colours(stretch_contrast(raw), cv2.COLORMAP_INFERNO), side, side)
    picture = raw if raw.dtype == np.uint8 else (np.clip(raw, 0, 1) * 255).astype(np.uint8)
    return _fit(np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture, side, side)


def _choose(
    source: Source, count: int, rng: np.random.Generator
) -> tuple[dict[str, list[Sample]], dict[str, Counter[str]]]:
    """By modality: samples in turns from all labels, labels in random order; and the number of samples per label."""
    kept: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in source.samples():
        pile = kept[sample.modality][sample.label]
        seen[sample.modality][sample.label] += 1
        if len(pile) < _PER_LABEL:
            pile.append(sample)
        elif (place := int(rng.integers(seen[sample.modality][sample.label]))) < _PER_LABEL:  # reservoir sampling
            pile[place] = sample
    chosen = {}
    for modality, piles in kept.items():
        order = [piles[label] for label in rng.permutation(sorted(piles))]
        turns = [sample for sample in chain.from_iterable(zip_longest(*order)) if sample is not None]
        chosen[modality] = sorted(turns[:count], key=lambda sample: (sample.label, sample.split, sample.id))
    return chosen, seen


def _section(source: Source, modality: str, counts: Counter[str], items: list[Sample]) -> Picture:
    title = f"{source.title}: {modality}, {counts.total()} samples, {len(counts)} labels"
    tiles = [_tile(source, sample) for sample in items]
    columns = max(1, (_WIDTH - _GAP) // (tiles[0].shape[1] + _GAP))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[0] + _GAP, tiles[0].shape[1] + _GAP
    sheet = np.full((_TITLE + rows * height + _GAP, _WIDTH, 3), 255, np.uint8)
    _write(sheet, title, (_GAP, 23), 0.6, _INK)
    for i, tile in enumerate(tiles):
        top, left = _TITLE + i // columns * height, _GAP + i % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _tile(source: Source, sample: Sample) -> Picture:
    side, width = (_CLOUD_SIDE, 3 * _CLOUD_SIDE) if sample.modality == "point_cloud" else (_SIDE, _SIDE)
    try:
        picture = render(sample.modality, source.load(sample), side)
    except (InvalidInputError, DataError):
        picture = _caption("cannot be read", width, side)
    tile = np.full((side + _CAPTION, width, 3), 255, np.uint8)
    tile[:side] = picture
    _write(tile, sample.label, (2, side + 13), 0.4, _INK)
    _write(tile, sample.split, (2, side + 26), 0.35, _GREY)
    return tile


def _fit(picture: Picture, width: int, height: int, stretch: bool = False) -> Picture:
    """Scales a picture into a white frame; ``stretch`` fills it and gives up the aspect ratio."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    columns = width if stretch else max(1, round(scale * picture.shape[1]))
    rows = height if stretch else max(1, round(scale * picture.shape[0]))
    method = cv2.INTER_AREA if rows < picture.shape[0] else cv2.INTER_CUBIC
    framed = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    small: Any = cv2.resize(np.ascontiguousarray(picture), (columns, rows), interpolation=method)
    framed[top : top + rows, left : left + columns] = small
    return framed


def _spectrogram(sound: Sound, seconds: float = 5.0, limit: float = 8000.0) -> Picture:
    """Loudness by time (to the right) and frequency (up to ``limit`` Hz), over a range of 80 dB."""
    window = max(16, round(0.025 * sound.sample_rate))
    samples = sound.samples[: round(seconds * sound.sample_rate)]
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[:: max(1, window // 2)]
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)).T ** 2
    power = power[: max(2, round(limit * window / sound.sample_rate))]
    decibels = 10 * np.log10(power + 1e-10)
    loudness = np.clip((decibels - decibels.max()) / 80 + 1, 0, 1)
    return _colours((loudness[::-1] * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)


def _projections(points: NDArray[np.float32], side: int) -> Picture:
    """Top, front and side view beside each other at one scale, the nearest points on top."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (side - 9) / max(float((high - low).max()), 1e-9)
    pixels = np.rint((points - (low + high) / 2) * scale).astype(np.int64) + side // 2
    heights = 255 * (points[:, 2] - low[2]) / max(float(high[2] - low[2]), 1e-9)
    colours = _colours(heights.astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0]
    views = []
    for right, up, depth in ((0, 1, points[:, 2]), (0, 2, -points[:, 1]), (1, 2, points[:, 0])):
        view = np.full((side, side, 3), 255, np.uint8)
        order = np.argsort(depth)
        x, y = pixels[order, right], side - 1 - pixels[order, up]
        for shift in (0, 1):  # two pixels wide
            view[np.clip(y, 0, side - 1), np.clip(x + shift, 0, side - 1)] = colours[order]
        views.append(view)
    return np.concatenate(views, axis=1)


def _colours(grey: Picture, colour_map: int) -> Picture:
    coloured: Any = cv2.applyColorMap(np.ascontiguousarray(grey), colour_map)
    return np.asarray(coloured[..., ::-1], np.uint8)


def _caption(text: str, width: int, height: int) -> Picture:
    picture = np.full((height, width, 3), 235, np.uint8)
    for line in range(min(6, -(-len(text) // 20))):
        _write(picture, text[20 * line : 20 * (line + 1)], (4, 20 + 16 * line), 0.38, _INK)
    return picture


def _write(picture: Picture, text: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    """Draws text that is cut at the picture's edge; OpenCV's font has ASCII only."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, place, _FONT, size, colour, 1, cv2.LINE_AA)
