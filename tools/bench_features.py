#!/usr/bin/env python3
"""Measures what the feature cache is for: an epoch of stage I from cached features against one that encodes anew.

Part of `make bench`. The samples are made-up tactile pictures; trunk, head, loss and loop are those of `lite`.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from omnibind_core import encoders
from omnibind_core.data.concepts import Concepts
from omnibind_core.training import dataset
from omnibind_core.training.align import Align
from omnibind_core.training.config import TrainConfig
from omnibind_core.training.engine import Trainer

_LABELS = ("bottle", "can", "hand", "key", "pen", "pliers", "scissors", "wrench")


def make_data(folder: Path, count: int) -> None:
    """Writes made-up tactile pictures of 28 x 50 pixels as a samples.csv tree."""
    rng = np.random.default_rng(0)
    with (folder / "samples.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "modality", "source", "path", "label", "split", "group"])
        for number in range(count):
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (28, 50), np.uint8))
            label = _LABELS[number % len(_LABELS)]
            table.writerow([number, "touch", "made up", f"{number}.png", label, "train", number])
    rows = [["source", "label", "canonical"], *(["made up", label, label] for label in _LABELS)]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def main() -> int:
    """Prints seconds of both kinds of epoch, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1024, help="in an epoch (default: %(default)s)")
    count = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, count)
        os.environ["OMNIBIND_CACHE"] = str(folder / "cache")
        align = {"epochs": 1, "batch": 256, "validate_every": 0}
        config = TrainConfig.model_validate(
            {"data": name, "augmentations": 0, "align": align, "labels": str(folder / "labels.csv")}
        )
        model = encoders.load_config("lite")
        encoder_set = encoders.build(model, {"touch", "text"})
        concepts = Concepts.read(folder / "labels.csv")
        seconds = {}
        for kind in ("encoded", "cached"):
            start = time.perf_counter()
            data = dataset.load(config, model, encoder_set, concepts)
            seconds[kind] = time.perf_counter() - start
        stage = Align(data, model, encoder_set, config.align, 0)
        Trainer(0).run(stage)  # warms up
        start = time.perf_counter()
        Trainer(0).run(stage)
        epoch = time.perf_counter() - start
    again = epoch + seconds["encoded"] - seconds["cached"]
    print(f"stage I, one epoch of {count} samples: {epoch:.3f} s from cached features, {again:.1f} s encoded anew")
    print(f"cached features are {again / epoch:.0f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
