#!/usr/bin/env python3
"""How much of a thing a sensor has to see: accuracy of single sensors by the size of what they have of it.

Samples of a split are made as small as a thing far away would be: pictures are resized to so many pixels (square root
of their area), events to as small a sensor with as much fewer events as edges are shorter, clouds are thinned at
random to so many points. `events` thins events at full size; `side` leaves what is seen from one side, by the degrees
between x and the way to the sensor, and `scan` so many points of the side towards x. With `--margins` pictures stand
in the middle of another sample's, which is wider by that share on each side; below 0 their edges are cut off. The
bounds of `omnibind_core.objects` (`LEAST_PIXELS`, `LEAST_POINTS`, `LEAST_EVENTS`, `MARGIN`) are from here.

    python tools/bench_crops.py DATA [--samples 150] [--modalities image event] [--margins] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.evaluation.labelling import find_labels
from omnibind_core.modalities import Events, Reading
from omnibind_core.model.answering import AnsweringModel
from omnibind_core.model.folders import model_folder
from omnibind_core.model.loading import load_model

PIXELS = (6, 8, 12, 16, 24, 32, 48, 64, 72, 96)
COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024)
EVENTS = (25, 50, 100, 200, 400, 800, 1600, 3200)
SCANNED = (32, 64, 128, 192, 256)
SIDES = (0, 45, 90, 135, 180)
MARGINS = (-0.1, 0.0, 0.05, 0.1, 0.2, 0.4)
Make = Callable[[Any, float, np.random.Generator], Any]


def smaller(raw: NDArray[Any], side: float, rng: np.random.Generator) -> NDArray[Any]:
    """A picture of the same shape and so many pixels; none is made larger."""
    scale = side / np.sqrt(raw.shape[0] * raw.shape[1])
    size = [max(1, round(length * scale)) for length in raw.shape[1::-1]]
    return raw if scale >= 1 else np.asarray(cv2.resize(raw, size, interpolation=cv2.INTER_AREA), raw.dtype)


def smaller_events(raw: Events, side: float, rng: np.random.Generator) -> Events:
    """Of the part of the sensor that has events."""
    left, top = int(raw.x.min()), int(raw.y.min())
    width, height = int(raw.x.max()) + 1 - left, int(raw.y.max()) + 1 - top
    scale = min(side / np.sqrt(width * height), 1.0)
    kept = np.flatnonzero(rng.random(len(raw)) < scale)
    kept = kept if len(kept) else np.arange(1)
    x, y = (((axis[kept] - low) * scale).astype(np.uint16) for axis, low in ((raw.x, left), (raw.y, top)))
    return Events(x, y, raw.t[kept], raw.p[kept], int(x.max()) + 1, int(y.max()) + 1)


def fewer_events(raw: Events, count: float, rng: np.random.Generator) -> Events:
    """So many of them, at random."""
    kept = np.sort(rng.permutation(len(raw))[: int(count)])
    return Events(raw.x[kept], raw.y[kept], raw.t[kept], raw.p[kept], raw.width, raw.height)


def fewer_points(raw: NDArray[np.float32], count: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """So many of them, at random."""
    return raw[rng.permutation(len(raw))[: int(count)]]


def from_one_side(raw: NDArray[np.float32], degrees: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """What a sensor sees that is so many degrees to the left of x, of the thing in any heading."""
    turn, side = rng.uniform(0, 2 * np.pi), np.radians(degrees)
    points = raw @ np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    to_sensor, left = np.array([np.cos(side), np.sin(side), 0.2]), np.array([-np.sin(side), np.cos(side), 0])
    size = float(np.ptp(points, axis=0).max()) / 40
    cells = np.floor(points @ np.stack([left, np.cross(to_sensor, left)], axis=1) / size).astype(np.int64)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    near = points @ to_sensor
    nearest = np.full(int(cell.max()) + 1, -np.inf)
    np.maximum.at(nearest, cell.ravel(), near)
    return np.asarray(points[near > nearest[cell.ravel()] - 2 * size], np.float32)


def scanned(raw: NDArray[np.float32], count: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """So many points of the side that faces the sensor, which x leads to."""
    return fewer_points(from_one_side(raw, 0, rng), count, rng)


CASES: dict[str, tuple[str, Make, tuple[int, ...]]] = {
    "image": ("image", smaller, PIXELS),
    "thermal": ("thermal", smaller, PIXELS),
    "event": ("event", smaller_events, PIXELS),
    "events": ("event", fewer_events, EVENTS),
    "point_cloud": ("point_cloud", fewer_points, COUNTS),
    "scan": ("point_cloud", scanned, SCANNED),
    "side": ("point_cloud", from_one_side, SIDES),
}


def framed(raw: NDArray[Any], around: NDArray[Any], margin: float) -> NDArray[Any]:
    """A picture in the middle of a wider one, by a share of its sides; its own middle if that is below 0."""
    height, width = raw.shape[:2]
    down, across = round(abs(margin) * height), round(abs(margin) * width)
    if margin <= 0:
        return raw[down : height - down, across : width - across]
    ground = cv2.resize(around, (width + 2 * across, height + 2 * down), interpolation=cv2.INTER_AREA)
    ground = np.array(ground, raw.dtype)
    ground[down : down + height, across : across + width] = raw
    return ground


def chosen(root: Path, split: str, model: AnsweringModel, modality: str, most: int) -> list[tuple[Sample, str]]:
    """Samples whose label the model has, with its label, drawn at random."""
    samples = [sample for sample in FolderSource(root).samples(split=split) if sample.modality == modality]
    own = Concepts.read(model_folder("lite") / "labels.csv")
    labels = find_labels(samples, model.labels.names, own, embed=lambda words: np.asarray(model.embed_text(words)))
    known = [(sample, labels[sample.source, sample.label].concept) for sample in samples]
    known = [(sample, name) for sample, name in known if name in model.labels.names]
    order = np.random.default_rng(0).permutation(len(known))[:most]
    return [known[index] for index in order]


def accuracy(model: AnsweringModel, modality: str, items: Sequence[Any], names: Sequence[str]) -> float:
    """Share of items whose most probable label is theirs."""
    found = model.predict_batch([[Reading(modality, item, modality)] for item in items])
    right = [one.names[int(one.probabilities[0].argmax())] == name for one, name in zip(found, names, strict=True)]
    return float(np.mean(right))


def main() -> None:
    """Prints the tables, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with samples.csv")
    parser.add_argument("--split", default="val")
    parser.add_argument("--samples", type=int, default=150, help="of each modality, at most")
    parser.add_argument("--modalities", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--margins", action="store_true", help="pictures with surroundings, instead of small ones")
    parser.add_argument("--out", type=Path, help="folder for crops.json")
    args = parser.parse_args()
    model = load_model("lite", engine="openvino")
    source = FolderSource(args.data)
    table: dict[str, dict[str, float]] = {}
    for case in args.modalities:
        modality, make, sizes = CASES[case]
        asked = chosen(args.data, args.split, model, modality, args.samples)
        raws, names = [source.load(sample) for sample, _ in asked], [name for _, name in asked]
        row = table[case] = {}
        if args.margins and case in ("image", "thermal"):
            for margin in MARGINS:
                others = [next(o for o in raws[i + 1 :] + raws if o.ndim == r.ndim) for i, r in enumerate(raws)]
                items = [framed(raw, other, margin) for raw, other in zip(raws, others, strict=True)]
                row[f"{margin:g}"] = accuracy(model, modality, items, names)
        elif not args.margins:
            for size in sizes:
                rng = np.random.default_rng(size)
                row[str(size)] = accuracy(model, modality, [make(raw, size, rng) for raw in raws], names)
            row["whole"] = accuracy(model, modality, raws, names)
        row["most frequent label"] = max(map(names.count, names)) / len(names)
        print(f"{case} ({len(raws)}): " + ", ".join(f"{size}: {share:.1%}" for size, share in row.items()), flush=True)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "crops.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
