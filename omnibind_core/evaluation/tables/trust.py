"""Whether the confidence can be trusted: calibration, unknown objects, and accuracy of the surest answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from omnibind_core.evaluation.bench import Bench, Row
from omnibind_core.evaluation.bootstrap import auroc, calibration_error, interval, weighted_mean
from omnibind_core.evaluation.methods import AF, MEAN, PROBES, FusionMethod, Method, threshold
from omnibind_core.features.combinations import Combinations

BINS = 15
"""Of confidence, equally wide."""
FOLDS = 5
_COVERAGE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_COMPARED = (AF, MEAN, PROBES)


@dataclass(frozen=True)
class Answers:
    """What a method answered.

    Attributes:
        confidence: ``[B]``, probability of the answer: of all labels that are folded into it.
        right: ``bool [B]``.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


def answers(bench: Bench, method: Method, combos: Combinations, among: NDArray[np.int64] | None = None) -> Answers:
    """Answers with their probabilities; those of fusions are calibrated as the model does it.

    Args:
        bench: Has the model.
        method: A fusion, or Probes.
        combos: What is asked.
        among: Numbers of the labels to choose from; None takes the whole vocabulary.
    """
    scores = method.scores(combos)[0]
    chosen = np.arange(scores.shape[1]) if among is None else among
    kept = torch.from_numpy(chosen)
    if isinstance(method, FusionMethod):
        found = torch.zeros_like(scores)
        proof = method.evidence(combos)
        found[:, kept] = bench.model.calibration.probabilities(scores[:, kept], combos.names, proof).cpu()
    else:
        found = scores / scores[:, kept].sum(dim=1, keepdim=True).clamp(min=1e-12)
    answer = method.answers(found, chosen)
    folded = torch.zeros_like(found).index_add(1, torch.from_numpy(method.fold[chosen]), found[:, kept])
    confidence = folded.double().gather(1, torch.from_numpy(answer)[:, None])[:, 0]
    return Answers(confidence.numpy(), answer == combos.label)


def calibration(bench: Bench) -> Iterator[Row]:
    """Expected calibration error by the number of modalities, and for every combination of two or more."""
    known = bench.data.known
    for size in bench.sizes:
        combos = known.draw(bench.count, bench.rng("size", size), size)
        for method in bench.some(*_COMPARED):
            yield {"size": size, "modalities": "any", "method": method.name, **error(bench, method, combos)}
    for size in bench.sizes:
        for names in known.subsets(size):
            combos = known.draw_of(names, bench.count, bench.rng(*names))
            for method in bench.some(*_COMPARED):
                head = {"size": size, "modalities": "+".join(names), "method": method.name}
                yield {**head, **error(bench, method, combos)}


def error(bench: Bench, method: Method, combos: Combinations) -> Row:
    """Accuracy, mean confidence and expected calibration error with its interval."""
    found, weights = answers(bench, method, combos), bench.boot.weights(combos)
    return {
        "n": len(combos),
        "labels": len(np.unique(combos.label)),
        "accuracy": float(found.right.mean()),
        "confidence": float(found.confidence.mean()),
        "ece": float(calibration_error(found.confidence, found.right, bins=BINS)[0]),
        "ece_interval": interval(calibration_error(found.confidence, found.right, weights, BINS)),
    }


def reliability(bench: Bench) -> Iterator[Row]:
    """The bins of AF's reliability diagram, by the number of modalities."""
    for size in bench.sizes:
        combos = bench.data.known.draw(bench.count, bench.rng("size", size), size)
        found = answers(bench, bench.af, combos)
        place = np.minimum((found.confidence * BINS).astype(int), BINS - 1)
        for number in np.unique(place):
            inside = place == number
            yield {
                "modalities": size,
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "n": int(inside.sum()),
                "labels": len(np.unique(combos.label[inside])),
                "confidence": float(found.confidence[inside].mean()),
                "accuracy": float(found.right[inside].mean()),
            }


def unknown(bench: Bench) -> Iterator[Row]:
    """AUROC of the confidence between things of the vocabulary and things outside of it, by number of modalities.

    Once with the things that the model has no label for, if the data have any; once with labels taken from the
    vocabulary, a fold at a time (the encoders did learn those, only the answer is missing).
    """
    for size in bench.sizes:
        known = bench.data.known.draw(bench.count, bench.rng("size", size), size)
        other = None
        if bench.ood is not None and size in bench.ood.split.sizes:
            other = bench.ood.split.draw(bench.count, bench.rng("unknown", size), size)
        for row in _unknown(bench, known, other, size):
            yield {"modalities": size, **row}


def unknown_single(bench: Bench) -> Iterator[Row]:
    """The same of all samples of each modality alone."""
    for name in bench.data.known.modalities:
        other = None
        if bench.ood is not None and name in bench.ood.split.sets:
            other = bench.ood.split.single(name)
        for row in _unknown(bench, bench.data.known.single(name), other, 1):
            yield {"modalities": name, **row}


def _unknown(bench: Bench, known: Combinations, other: Combinations | None, size: int) -> Iterator[Row]:
    for method in bench.some(*_COMPARED):
        if other is not None and bench.ood is not None and method.name in bench.ood.methods:
            yield {
                "method": method.name,
                "unknown": "no label of the model",
                **_outside(bench, method, known, other, size),
            }
    for method in bench.some(*_COMPARED):
        row = _taken_away(bench, method, known, size)
        if row is not None:
            yield {"method": method.name, "unknown": "labels taken away", **row}


def _outside(bench: Bench, method: Method, combos: Combinations, other: Combinations, size: int) -> Row:
    ood = bench.ood
    assert ood is not None
    inside, outside = answers(bench, method, combos), answers(bench, ood.methods[method.name], other)
    score = np.concatenate([inside.confidence, outside.confidence])
    positive = np.arange(len(score)) < len(combos)
    weights = np.concatenate([bench.boot.weights(combos), ood.boot.weights(other)], axis=1)
    least = threshold(bench.model, size)
    return {
        "n": len(combos),
        "labels": len(np.unique(combos.label)),
        "n_unknown": len(other),
        "labels_unknown": len(np.unique(other.label)),
        "auroc": float(auroc(score, positive)[0]),
        "interval": interval(auroc(score, positive, weights)),
        "known_answered": float((inside.confidence >= least).mean()) if method.name == AF else None,
        "unknown_refused": float((outside.confidence < least).mean()) if method.name == AF else None,
    }


def _taken_away(bench: Bench, method: Method, combos: Combinations, size: int) -> Row | None:
    """Each label is unknown in one of the folds, and known in the others."""
    labels = np.unique(combos.label)
    if len(labels) < 2:
        return None
    parts = np.array_split(bench.rng("folds").permutation(labels), min(FOLDS, len(labels)))
    found, refused, answered, replicates = [], [], [], []
    least = threshold(bench.model, size)
    weights = bench.boot.weights(combos)
    for part in parts:
        answer = answers(bench, method, combos, np.flatnonzero(~np.isin(bench.fold, part)))
        known = ~np.isin(combos.label, part)
        found.append(auroc(answer.confidence, known)[0])
        replicates.append(auroc(answer.confidence, known, weights))
        answered.append((answer.confidence[known] >= least).mean())
        refused.append((answer.confidence[~known] < least).mean())
    own = method.name == AF
    return {
        "n": len(combos),
        "labels": len(labels),
        "n_unknown": len(combos),
        "labels_unknown": len(labels),
        "auroc": float(np.mean(found)),
        "interval": interval(np.mean(replicates, axis=0)),
        "known_answered": float(np.mean(answered)) if own else None,
        "unknown_refused": float(np.mean(refused)) if own else None,
    }


def risk_coverage(bench: Bench) -> Iterator[Row]:
    """Accuracy of the surest answers: the share that is answered, and what of it is right."""
    for size in bench.sizes:
        combos = bench.data.known.draw(bench.count, bench.rng("size", size), size)
        weights = bench.boot.weights(combos)
        for method in bench.some(*_COMPARED):
            found = answers(bench, method, combos)
            order = np.argsort(-found.confidence, kind="stable")
            right = found.right[order].astype(np.float64)
            risk = 1 - np.cumsum(right) / np.arange(1, len(right) + 1)
            for coverage in _COVERAGE:
                first = max(1, round(coverage * len(right)))
                yield {
                    "modalities": size,
                    "method": method.name,
                    "coverage": coverage,
                    "n": first,
                    "labels": len(np.unique(combos.label[order[:first]])),
                    "accuracy": float(right[:first].mean()),
                    "interval": interval(weighted_mean(right[:first], weights[:, order[:first]])),
                    "least_confidence": float(found.confidence[order[first - 1]]),
                    "area_under_risk": float(risk.mean()),
                }
