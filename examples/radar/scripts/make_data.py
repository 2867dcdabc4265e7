#!/usr/bin/env python3
"""Makes radar points to try this with: simulated road users, no recordings.

``make_data.py --out OUT`` writes a ``samples.csv``, the files that it names, and the ``labels.csv`` that tells which
labels of the shipped model they are. With a real radar, list your own recordings in a ``samples.csv``.

The simulation is a simple one: echoes come from the sides of a box that face the sensor, the box moves ahead, and parts
of it (legs, wheels) are faster or slower than the whole. There is no background, no multipath and no antenna pattern:
what is learnt from it shows that the pieces fit together, not how well radar recognises.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.sources.folder import COLUMNS

DISTANCE = (5.0, 25.0)  # m
BEARING = math.radians(40)  # to both sides
NOISE = np.array([0.08, 0.08, 0.15, 0.1, 2.0])  # standard deviations: m, m, m, m/s, dB


@dataclass(frozen=True)
class Thing:
    """A road user.

    Attributes:
        size: Length, width and height, m.
        speed: Slowest and fastest, m/s.
        swing: How much faster or slower than the whole its parts are, as a share of its speed.
        strength: Of its echo at 10 m, dB.
        points: At 10 m, on average.
    """

    size: tuple[float, float, float]
    speed: tuple[float, float]
    swing: float
    strength: float
    points: float


THINGS = {
    "person": Thing((0.4, 0.5, 1.7), (0.8, 2.0), 0.9, 8.0, 14.0),
    "bicycle": Thing((1.8, 0.5, 1.6), (3.0, 7.0), 0.5, 12.0, 22.0),
    "car": Thing((4.4, 1.8, 1.5), (0.0, 14.0), 0.02, 24.0, 45.0),
    "truck": Thing((8.5, 2.5, 3.3), (0.0, 12.0), 0.02, 30.0, 80.0),
}


def simulate(thing: Thing, rng: np.random.Generator) -> NDArray[np.float32]:
    """One view of a thing at a random place and heading: ``float32 [N, 5]``."""
    distance, bearing, heading = rng.uniform(*DISTANCE), rng.uniform(-BEARING, BEARING), rng.uniform(0, 2 * math.pi)
    middle = distance * np.array([math.cos(bearing), math.sin(bearing)])
    ahead = np.array([math.cos(heading), math.sin(heading)])
    left = np.array([-ahead[1], ahead[0]])
    count = max(4, rng.poisson(thing.points * 10 / distance))
    length, width, height = thing.size
    on_end = rng.random(count) < width / (length + width)
    along, across = rng.uniform(-0.5, 0.5, (2, count))
    # The end and the side that are turned to the sensor.
    along = np.where(on_end, -0.5 * np.sign(middle @ ahead), along)
    across = np.where(on_end, across, -0.5 * np.sign(middle @ left))
    ground = middle + np.outer(along * length, ahead) + np.outer(across * width, left)
    towards = ground / np.linalg.norm(ground, axis=1, keepdims=True)
    speed = rng.uniform(*thing.speed) * (1 + thing.swing * rng.uniform(-1, 1, count))
    strength = np.full(count, thing.strength - 40 * math.log10(distance / 10))
    rows = [*ground.T, rng.uniform(0, height, count), speed * (towards @ ahead), strength]
    return (np.stack(rows, axis=1) + NOISE * rng.standard_normal((count, 5))).astype(np.float32)


def main() -> None:
    """Writes the data set."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train", type=int, default=60, help="of each label, to learn from (default: %(default)s)")
    parser.add_argument("--val", type=int, default=25, help="of each label, to validate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: %(default)s)")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    (args.out / "radar").mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in (("train", args.train), ("val", args.val)):
        for label, thing in THINGS.items():
            for number in range(count):
                name = f"{label}-{split}-{number:03d}"
                np.save(args.out / "radar" / f"{name}.npy", simulate(thing, rng))
                rows.append((name, "radar", "simulated", f"radar/{name}.npy", label, split, name))
    with (args.out / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    with (args.out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        named = [("simulated", label, label, 1.0, "same word") for label in THINGS]
        csv.writer(file).writerows([("source", "label", "canonical", "score", "reason"), *named])
    print(f"{args.out}: {len(rows)} simulated samples of {', '.join(THINGS)}")


if __name__ == "__main__":
    main()
