#!/usr/bin/env python3
"""Prints the trials of docs/experiments.md on adapting: a few samples per label of each source, right on the rest.

`python tools/adapt_trials.py --data FOREIGN --labels TABLE --home DIR`; three minutes on two cores once features are
cached. Samples of one group are never on both sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from omnibind_core import resources
from omnibind_core.data.concepts import Concepts
from omnibind_core.encoders.heads import Adapted
from omnibind_core.evaluation import adapting, samples
from omnibind_core.features import adaptation
from omnibind_core.features.sets import FeatureSet, sample_features
from omnibind_core.fusion import evidence
from omnibind_core.model import OmniBind

TRIALS = ("shipped", "no gate", "share 0.05", "share 0.1", "share 0.2", "share 0.1, no variants")


def draw(of: FeatureSet, shots: int, seed: int) -> tuple[FeatureSet, FeatureSet]:
    """At most so many samples per label, of as many groups, one group left over; and those of all other groups."""
    groups, rng, chosen = np.array([sample.group for sample in of.samples]), np.random.default_rng((seed, 7)), []
    for label in np.unique(of.concept):
        names = np.unique(groups[of.concept == label])
        for name in names[rng.permutation(len(names))[: min(shots, len(names) - 1)]]:
            chosen.append(int(np.flatnonzero((groups == name) & (of.concept == label))[0]))
    numbers = np.array(sorted(chosen), np.int64)
    return of.take(numbers), of.take(~np.isin(groups, groups[numbers]))


def answers(model: OmniBind, name: str, asked: FeatureSet) -> tuple[np.ndarray, float]:
    """The label that each sample is taken for, and the mean confidence."""
    rows = model.encoders.embed(name, torch.from_numpy(np.array(asked.inputs[:, 0])))
    ids = torch.full((len(rows), 1), tuple(model.config.modalities).index(name))
    mask = torch.ones(len(rows), 1, dtype=torch.bool)
    proof = evidence(model.fusion(rows[:, None], mask, ids), rows[:, None], mask)
    cosines = model.labels.similarities(rows)
    sure, said = model.calibration.probabilities(cosines, [[name]] * len(rows), proof).max(1)
    return said.numpy(), sure.mean().item()


def tried(model: OmniBind, trial: str, name: str, learn: FeatureSet, homes: Mapping[str, adaptation.Home]) -> OmniBind:
    """The model as a trial has it."""
    if trial == "shipped":
        return model
    if "no variants" in trial:
        learn = FeatureSet(learn.samples, learn.inputs[:, :1], learn.concept)
    kept, adaptation.SHARE = adaptation.SHARE, 0.1 if trial == "no gate" else float(trial.split(",")[0].split()[1])
    found = adaptation.adapt(model, {name: learn}, homes)
    adaptation.SHARE = kept
    head = found.encoders.heads[name]
    if trial == "no gate" and isinstance(head, Adapted):
        head.threshold.fill_(-9.0)
    return found


@torch.inference_mode()
def main() -> None:
    """Runs all trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with samples.csv of other sources, split val")
    parser.add_argument("--labels", type=Path, required=True, help="its label table")
    parser.add_argument(
        "--home", type=Path, required=True, help="folder with samples.csv that the model was trained on"
    )
    parser.add_argument("--model", default="lite", help="trained model (default: %(default)s)")
    parser.add_argument("--shots", type=int, default=4, help="samples per label (default: 4)")
    parser.add_argument("--draws", type=int, default=3, help="of these samples (default: 3)")
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="only these (default: all)")
    args = parser.parse_args()
    model = OmniBind.from_pretrained(args.model)
    folder = Path(args.model) if Path(args.model).is_dir() else resources.path(f"weights/{args.model}")
    own = Concepts.read(folder / "labels.csv")
    away = samples.load(args.data, "val", model, own, Concepts.read(args.labels))
    home = samples.load(args.home, "val", model, own).known
    assert away.fold is not None
    homes = adaptation.read_homes(folder)
    total = sum(home.counts.values())
    print(f"| source | learned | rest | {' | '.join(TRIALS)} |")
    for name, every in away.known.sets.items():
        if name not in (args.modalities or away.known.sets):
            continue
        found = homes.get(name) or adapting.home_of(args.home, model, name)
        if found is None:
            continue
        inputs = sample_features(away.source, every.samples, name, model.config, model.encoders, adapting.VARIANTS, 0)
        whole = FeatureSet(every.samples, inputs, every.concept)
        for source in sorted({sample.source for sample in every.samples}):
            of = whole.take(np.array([sample.source == source for sample in every.samples]))
            counts = np.bincount(of.concept)
            if counts.max() <= args.shots:
                continue
            cells: dict[str, list[tuple[float, float, float]]] = {trial: [] for trial in TRIALS}
            sizes = []
            for seed in range(args.draws):
                learn, rest = draw(of, args.shots, seed)
                sizes.append((len(learn), len(rest)))
                truth, known = away.fold[rest.concept], home.sets[name]
                before = (answers(model, name, known)[0] == known.concept).sum()
                for trial in TRIALS:
                    changed = tried(model, trial, name, learn, {name: found})
                    said, sure = answers(changed, name, rest)
                    lost = before - (answers(changed, name, known)[0] == known.concept).sum()
                    cells[trial].append((float((away.fold[said] == truth).mean()), sure, lost / total))
            row = [np.mean(cells[trial], axis=0) for trial in TRIALS]
            told = " | ".join(f"{100 * right:.0f} ({sure:.2f}; {-100 * lost or 0:+.1f})" for right, sure, lost in row)
            print(f"| {name}, {source} | {sizes[0][0]} | {sizes[0][1]} | {told} |", flush=True)


if __name__ == "__main__":
    main()
