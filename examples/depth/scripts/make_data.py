#!/usr/bin/env python3
"""Makes depth pictures to try this with: renders point clouds as a depth camera would see them, beside photographs.

``make_data.py --data DIR --out OUT`` reads a folder whose ``samples.csv`` lists point clouds and images, and writes
another one that lists depth pictures and those images. With a real depth camera you need none of it: list your pictures
in a ``samples.csv``.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import shutil
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import COLUMNS, FolderSource

WIDTH, HEIGHT = 160, 120  # pixels
FOCAL = 0.9 * WIDTH  # pixels; a field of view of 58 degrees, as depth cameras have
SIZE = 0.6  # metres, largest side of every object: the clouds' units differ
ELEVATION = (5.0, 35.0)  # degrees, of the camera above the object's middle
DISTANCE = (1.1, 1.6)  # of the distance at which the object just fills the picture


def view(points: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Points from a random side: x right, y down, z along the optical axis, metres, all before the camera."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(*ELEVATION))
    back = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    seen = points @ np.stack([right, np.cross(right, back), -back], axis=1)
    fill = np.maximum(np.abs(seen[:, 0]) / (WIDTH / 2), np.abs(seen[:, 1]) / (HEIGHT / 2)).max() * FOCAL
    seen[:, 2] += np.abs(seen[:, 2]).max() + fill * rng.uniform(*DISTANCE)
    return seen.astype(np.float32)


def render(points: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint16]:
    """A depth picture of a cloud ``float32 [N, 3]``, any unit, z up: ``uint16 [120, 160]``, mm, 0 = not measured.

    Every point is drawn as a disc wide enough to meet its neighbours', the nearest one wins.
    """
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    points *= SIZE / np.ptp(points, axis=0).max()
    radius = float(np.median(cKDTree(points).query(points, 7)[0][:, -1]))
    seen = view(points, rng)
    depth = np.full((HEIGHT, WIDTH), np.inf, np.float32)
    reach = math.ceil(radius * FOCAL / float(seen[:, 2].min()))
    u = FOCAL * seen[:, 0] / seen[:, 2] + WIDTH / 2
    v = FOCAL * seen[:, 1] / seen[:, 2] + HEIGHT / 2
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            x, y = np.floor(u + column).astype(int), np.floor(v + row).astype(int)
            hit = (
                (math.hypot(row, column) * seen[:, 2] <= radius * FOCAL)
                & (x >= 0)
                & (x < WIDTH)
                & (y >= 0)
                & (y < HEIGHT)
            )
            np.minimum.at(depth, (y[hit], x[hit]), seen[hit, 2])
    return sense(depth, rng)


def sense(depth: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint16]:
    """What a structured-light camera makes of true distances: noise, and holes at edges and at random.

    The noise grows with the distance as measured by Nguyen, Izadi and Lovell (3DIMPVT 2012, axial noise).
    """
    seen = np.isfinite(depth)
    metres = np.where(seen, depth, 0)
    noisy = metres + (0.0012 + 0.0019 * (metres - 0.4) ** 2) * rng.standard_normal(depth.shape)
    far = np.where(seen, depth, 10)
    jump = cv2.dilate(far, np.ones((3, 3))) - cv2.erode(far, np.ones((3, 3))) > 0.05
    patches = cv2.resize(rng.random((HEIGHT // 4, WIDTH // 4)), (WIDTH, HEIGHT)) < 0.05
    lost = ~seen | (jump & (rng.random(depth.shape) < 0.5)) | patches
    return np.where(lost, 0, np.rint(1000 * noisy)).astype(np.uint16)


def main() -> None:
    """Renders the clouds of full surfaces, and links or copies the images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a samples.csv: point clouds and images")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--only", default="", metavar="TEXT", help="only clouds with this in their id, e.g. __full")
    parser.add_argument("--views", type=int, default=4, help="depth pictures of each cloud (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the views and the noise (default: %(default)s)")
    args = parser.parse_args()
    source = FolderSource(args.data)
    samples: list[Sample] = []
    clouds = [sample for sample in source.samples(modality="point_cloud") if args.only in sample.id]
    for number, cloud in enumerate(clouds):
        points = source.load(cloud)[:, :3]
        rng = np.random.default_rng((args.seed, number))
        for index in range(args.views):
            path = Path("depth") / cloud.source / f"{number:05d}-{index}.png"
            (args.out / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(args.out / path), render(points, rng))
            samples.append(replace(cloud, id=f"depth-{cloud.id}-{index}", modality="depth", path=path.as_posix()))
    for image in source.samples(modality="image"):
        target = args.out / image.file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            try:
                os.link(source.path(image), target)
            except OSError:  # another file system
                shutil.copy2(source.path(image), target)
        samples.append(image)
    with (args.out / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(astuple(sample)[: len(COLUMNS)] for sample in samples)
    print(f"{args.out}: {sum(sample.modality == 'depth' for sample in samples)} depth pictures, {len(samples)} samples")


if __name__ == "__main__":
    main()
