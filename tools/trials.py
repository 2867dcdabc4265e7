#!/usr/bin/env python3
"""Prints the trials of docs/experiments.md on disagreeing sensors and on the image teacher's share.

`python tools/trials.py --data DIR`; about five minutes on two cores once the features of DIR are cached.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnibind_core import fusion as fusions
from omnibind_core import resources
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.rendering.demo_objects import find_objects
from omnibind_core.features.combinations import (
    EmbeddedSplit,
    TokenSets,
    accuracy_by_size,
    similarities,
    top1,
    with_conflicts,
)
from omnibind_core.features.sets import embed_all
from omnibind_core.files import cache_folder
from omnibind_core.fusion import Fusion, MeanFusion
from omnibind_core.labels import LabelBank
from omnibind_core.model import OmniBind
from omnibind_core.training import config as training
from omnibind_core.training import dataset, fuse
from omnibind_core.training.engine import Trainer, be_deterministic

STEPS, COUNT, SHARES = 250, 3000, (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
TRIALS: tuple[dict[str, Any], ...] = (
    {"fusion": {"preset": "residual"}, "lr": 1e-3, "conflict": 0.0},
    {"fusion": {"preset": "residual"}, "lr": 1e-3, "conflict": 0.4},
    {"fusion": {"preset": "residual"}, "lr": 1e-3, "conflict": 0.7},
    {"fusion": {"preset": "residual", "layers": 2}, "lr": 1e-3, "conflict": 0.4},
    {"fusion": {"preset": "residual"}, "lr": 2e-4, "conflict": 0.5},
    {"fusion": {"preset": "paper"}, "lr": 1e-3, "conflict": 0.0},
    {"fusion": {"preset": "paper"}, "lr": 1e-3, "conflict": 0.4},
    {"fusion": {"preset": "paper"}, "lr": 2e-4, "conflict": 0.5},
)
Object = tuple[int, tuple[str, ...], list[Any]]


def objects(model: OmniBind) -> list[Object]:
    """Label, modalities and views of the demo's packaged objects that the model has a label for."""
    found = []
    for thing in find_objects(cache_folder() / "debian"):
        if thing.name in model.labels.names:
            items = thing.items(np.random.default_rng(0))
            views = [model.process(modality, raw) for modality, raw in items.items()]
            found.append((model.labels.names.index(thing.name), tuple(items), views))
    return found


def in_conflict(val: EmbeddedSplit, labels: LabelBank, fusion: Fusion, size: int) -> float:
    """Accuracy where one sensor of each combination shows something else."""
    rng = np.random.default_rng((9, size))
    drawn = with_conflicts(val.draw(COUNT, rng, size), 1.0, rng)
    return top1(similarities(fusion, labels, val.gather(drawn)), drawn.label)


def row(name: str, val: EmbeddedSplit, labels: LabelBank, fusion: Fusion, embedded: list[tuple[int, Tensor]]) -> None:
    """Prints one line of the table."""
    clean = [values["fused"] for values in accuracy_by_size(val, labels, fusion, COUNT, 0)[:3]]
    conflicts = [in_conflict(val, labels, fusion, size) for size in (2, 3)]
    right = sum(
        top1(
            similarities(fusion, labels, TokenSets(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))),
            np.array([label]),
        )
        for label, tokens in embedded
    )
    cells = " | ".join(f"{100 * share:.1f}" for share in (*clean, *conflicts))
    print(f"| {name} | {cells} | {right:.0f} of {len(embedded)} |", flush=True)


def shares(model: OmniBind, data: dataset.TrainingData, things: list[Object]) -> None:
    """Prints accuracy of photos by the share of the image teacher's refinement."""
    head: Any = model.encoders.heads["image"]
    photos, kept = data.val["image"], head.share
    pictures = [(label, views[names.index("image")]) for label, names, views in things if "image" in names]
    for share in SHARES:
        head.share = share
        scores = model.labels.similarities(embed_all(model.encoders, model.config, "image", photos.inputs)[:, 0])
        val = top1(scores, photos.concept)
        found = model.labels.similarities(model.embed([("image", views) for _, views in pictures])).argmax(dim=1)
        stamps = (found == torch.tensor([label for label, _ in pictures])).float().mean()
        print(f"| {share} | {100 * val:.1f} | {100 * stamps:.1f} of {len(pictures)} |", flush=True)
    head.share = kept


def main() -> None:
    """Runs all trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with samples.csv that the model was trained on")
    parser.add_argument("--model", default="lite", help="trained model (default: %(default)s)")
    args = parser.parse_args()
    model = OmniBind.from_pretrained(args.model)
    folder = Path(args.model) if Path(args.model).is_dir() else resources.path(f"weights/{args.model}")
    config = training.load("lite", [f"data={args.data}"])
    data = dataset.load(config, model.config, model.encoders, Concepts.read(folder / "labels.csv"))
    things = objects(model)
    print("| share | validation | stamps |")
    shares(model, data, things)
    train, val = dataset.embed(data, model, "train"), dataset.embed(data, model, "val")
    tokens = [(y, model.embed(list(zip(names, views, strict=True))).clone()) for y, names, views in things]
    print("| fusion | 1 | 2 | 3 | 2, conflict | 3, conflict | stamps |")
    row("mean fusion", val, model.labels, MeanFusion(), tokens)
    for trial in TRIALS:
        be_deterministic(0)
        fusion = fusions.build(model.config.embed_dim, trial["fusion"])
        settings = config.fuse.model_copy(update={**trial, "steps": STEPS})
        Trainer(seed=0).run(fuse.Fuse(train, None, model.labels, fusion, settings))
        name = ", ".join(f"{key} {value}" for key, value in {**trial["fusion"], **trial}.items() if key != "fusion")
        row(name, val, model.labels, fusion, tokens)


if __name__ == "__main__":
    main()
