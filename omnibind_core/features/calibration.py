"""What held-out samples tell better than training ones: how certain an answer is, and when it is "unknown"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.calibration import Calibration, Certainty, certainty_inputs
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, similarities, with_conflicts
from omnibind_core.fusion import Evidence, Fusion, evidence
from omnibind_core.labels import LabelBank

_TEMPERATURES = tuple(float(value) for value in np.geomspace(0.005, 0.5, 200))
KEEP = 0.95
"""Share of the right answers of single sensors that stay above the threshold of ``unknown``."""
LEAST_LABELS = 5
"""Sizes of combinations that fewer labels have take the temperature of the size before."""
CONFLICTS = 0.1
"""Share of the combinations of two or more in which one sensor shows something else, so that certainty is earned."""
HOME, OTHER, LYING = 4, 3, 1
"""How much counts what is as in training, has a sensor of another kind or damaged, or one that lies."""
MOST = 3
"""Numbers of sensors that have a certainty of their own."""
_SHRINKAGE = 1e-3


def calibrate(
    split: EmbeddedSplit,
    labels: LabelBank,
    fusion: Fusion,
    count: int,
    seed: int,
    shifted: EmbeddedSplit | None = None,
) -> Calibration:
    """Fits the calibration on validation combinations of every size.

    Args:
        split: The validation split.
        labels: The vocabulary.
        fusion: The trained fusion.
        count: Combinations per size.
        seed: Of the draws.
        shifted: The same samples with variants as other sensors and damaged ones would give them, for the certainty;
            None leaves it out.

    Returns:
        Temperatures of least negative log-likelihood (Guo et al. 2017) for every number of modalities and for
        every modality alone, the certainty, and the threshold that keeps :data:`KEEP` of the right answers of single
        sensors.
    """
    with torch.inference_mode():
        by_size: dict[int, float] = {}
        for size in split.sizes:
            drawn = split.draw(count, np.random.default_rng((seed, size)), size)
            if by_size and len(np.unique(drawn.label)) < LEAST_LABELS:
                break
            # Three agreeing sensors are always right on clean data, and would be taken for certain ever after.
            real = with_conflicts(drawn, CONFLICTS, np.random.default_rng((seed, size, 1)))
            fused = similarities(fusion, labels, split.gather(real))
            by_size[size] = best_temperature(fused, torch.from_numpy(real.label).to(fused.device))
        counts = range(1, max(by_size) + 1)
        temperatures = [by_size[min(by_size, key=lambda size: abs(size - count))] for count in counts]
        single = {}
        for name, samples in split.sets.items():
            alone, label = _alone(split.tokens[name][:, 0], samples.concept, labels)
            if (alone.argmax(-1) != label).any():  # one that never errs does not tell how sure it may be
                # Every label counts the same, as in the combinations: rare ones are those that it is too sure of.
                single[name] = best_temperature(alone, label, 1 / label.bincount()[label])
        found = Calibration(temperatures=tuple(temperatures), single=single)
    if shifted is not None:
        fit = partial(_certainties, split=shifted, labels=labels, fusion=fusion, calibration=found)
        sizes = [size for size in by_size if 1 < size <= MOST]
        several = [_kinds(shifted, size, count, np.random.default_rng((seed, size, 2))) for size in sizes]
        singles = fit([_kinds_alone(shifted, name) for name in shifted.sets])
        found = found.model_copy(
            update={
                "certainty": tuple(fit([drawn])[0] for drawn in several),
                "certainty_single": dict(zip(shifted.sets, singles, strict=True)),
            }
        )
    with torch.inference_mode():
        # Of single sensors, whose right answers are the least confident: no sensor is to be unknown most of the time.
        right = [_right_confidences(split.single(name), split, labels, fusion, found) for name in split.sets]
        confidences = torch.cat(right)
        threshold = float(confidences.quantile(1 - KEEP)) if len(confidences) else 0.0
    return found.model_copy(update={"threshold": round(threshold, 4)})


def settle(fusion: Fusion, split: EmbeddedSplit, labels: LabelBank, tau: float, count: int, seed: int) -> None:
    """Fits the few numbers of a fusion that held-out samples tell better than those the encoders have learnt by heart.

    Args:
        fusion: After stage II, in place; one without :attr:`~omnibind_core.fusion.base.Fusion.gains` stays as it is.
        split: Validation samples with variants as other sensors and damaged ones would give them.
        labels: The vocabulary.
        tau: Temperature of the loss, as in stage II.
        count: Combinations of every size and kind.
        seed: Of the draws.
    """
    gains = fusion.gains
    if gains is None:
        return
    prototypes, asked = labels.prototypes(), []
    for size in split.sizes:
        if 1 < size <= MOST:
            drawn = _kinds(split, size, count, np.random.default_rng((seed, size, 3)))
            asked += [(counts, split.gather(combos), torch.from_numpy(combos.label)) for counts, combos in drawn]
    if not asked:
        return

    def loss() -> Tensor:
        total = _SHRINKAGE * gains.square().sum()
        for counts, sets, label in asked:
            scores = fusion(*sets).embedding @ prototypes.T / tau
            total = total + counts * F.cross_entropy(scores, label.to(scores.device)) / len(asked)
        return total

    _minimise(gains, loss)


def _kinds(
    split: EmbeddedSplit, size: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[float, Combinations]]:
    """Combinations of two or more, and how much they count: :data:`HOME`, :data:`OTHER`, :data:`LYING`."""
    home = dataclasses.replace(split.draw(count, rng, size), variants=None)
    yield HOME, home
    yield OTHER, _with_variants(home, split, rng)
    yield LYING, with_conflicts(home, 1.0, rng)


def _kinds_alone(split: EmbeddedSplit, name: str) -> Iterator[tuple[float, Combinations]]:
    """The same of one modality: all of its samples that have a label, and all their variants."""
    home = split.single(name)
    home = home.take(np.flatnonzero(home.label >= 0))
    yield HOME, home
    count = split.tokens[name].shape[1]
    for variant in range(1, count):
        yield OTHER / (count - 1), dataclasses.replace(home, variants=np.full_like(home.rows, variant))


def _minimise(weights: Tensor, loss: Callable[[], Tensor]) -> None:
    """Minimises a smooth loss of a few numbers, in place."""
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    optimiser.step(closure)
    weights.grad = None


def _certainties(
    groups: Sequence[Iterable[tuple[float, Combinations]]],
    split: EmbeddedSplit,
    labels: LabelBank,
    fusion: Fusion,
    calibration: Calibration,
) -> list[Certainty]:
    """Certainties by logistic regression: each group of combinations has a bias of its own, all have the rest together.

    Every label of a kind counts the same.
    """
    rows, right, weight, group = [], [], [], []
    for number, kinds in enumerate(groups):
        for counts, drawn in kinds:
            found, label, proof = _asked(drawn, split, labels, fusion, calibration)
            top, answer = found.max(dim=-1)
            rows.append(certainty_inputs(top, proof)[:, 1:].double())
            right.append((answer == label).double())
            share = 1 / label.bincount()[label].double()
            weight.append(counts * share / share.sum())
            group.append(torch.full_like(label, number))
    owner = F.one_hot(torch.cat(group), len(groups)).double()
    fitted = _logistic(torch.cat([owner, torch.cat(rows)], dim=1), torch.cat(right), torch.cat(weight), len(groups))
    *biases, slope, familiarity, agreement = (round(value, 4) for value in fitted.tolist())
    return [Certainty(bias=bias, slope=slope, familiarity=familiarity, agreement=agreement) for bias in biases]


def _with_variants(combinations: Combinations, split: EmbeddedSplit, rng: np.random.Generator) -> Combinations:
    """The same with a variant of one random sample of each, where it has any."""
    mask = combinations.mask
    column = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    variants = np.zeros_like(combinations.rows)
    for index, name in enumerate(combinations.columns):
        count = split.tokens[name].shape[1]
        here = np.flatnonzero(column == index)
        if count > 1:
            variants[here, index] = rng.integers(1, count, size=len(here))
    return dataclasses.replace(combinations, variants=variants)


def _asked(
    drawn: Combinations, split: EmbeddedSplit, labels: LabelBank, fusion: Fusion, calibration: Calibration
) -> tuple[Tensor, Tensor, Evidence]:
    """Probabilities ``[B, C]``, right labels ``[B]`` and evidence of combinations."""
    sets = split.gather(drawn)
    with torch.inference_mode():
        fused = fusion(*sets)
        proof = evidence(fused, sets.tokens, sets.mask)
        found = calibration.probabilities(labels.similarities(fused.embedding), drawn.names, proof)
    return found.clone(), torch.from_numpy(drawn.label).to(found.device), Evidence(*(rows.clone() for rows in proof))


def _right_confidences(
    drawn: Combinations, split: EmbeddedSplit, labels: LabelBank, fusion: Fusion, calibration: Calibration
) -> Tensor:
    """Confidences of the right answers to the combinations that have a label."""
    found, label, _ = _asked(drawn.take(drawn.label >= 0), split, labels, fusion, calibration)
    confidence, answer = found.max(dim=-1)
    return confidence[answer == label]


def _logistic(inputs: Tensor, right: Tensor, weight: Tensor, free: int) -> Tensor:
    """Weights ``[K]`` of a logistic regression of ``right``, ``[B]``, on ``inputs``, ``[B, K]``; slightly shrunk.

    None but the first ``free`` are negative: what would be counts nothing.
    """
    kept = torch.ones_like(inputs[0])
    for _ in range(len(kept)):
        weights = torch.zeros_like(kept).requires_grad_()
        _minimise(weights, partial(_logistic_loss, weights, inputs * kept, right, weight))
        negative = weights.detach() < 0
        negative[:free] = False
        if not negative.any():
            break
        kept = kept.masked_fill(negative, 0.0)
    return weights.detach() * kept


def _logistic_loss(weights: Tensor, inputs: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    errors = F.binary_cross_entropy_with_logits(inputs @ weights, right, reduction="none")
    return (errors * weight).sum() / weight.sum() + _SHRINKAGE * weights.square().sum()


def best_temperature(similarities: Tensor, label: Tensor, weight: Tensor | None = None) -> float:
    """The temperature of least negative log-likelihood, by a fine search over 0.005 to 0.5.

    Args:
        similarities: ``float32 [N, C]`` cosines.
        label: ``int64 [N]``.
        weight: ``float32 [N]``, how much each counts; None for all the same.
    """
    counts = torch.ones_like(similarities[:, 0]) if weight is None else weight
    losses = [
        (F.cross_entropy(similarities / value, label, reduction="none") * counts).sum().item()
        for value in _TEMPERATURES
    ]
    return round(_TEMPERATURES[int(np.argmin(losses))], 5)


def _alone(tokens: Tensor, concept: NDArray[np.int64], labels: LabelBank) -> tuple[Tensor, Tensor]:
    """Cosines of the samples that have a label, and these labels."""
    kept = torch.from_numpy(np.flatnonzero(concept >= 0)).to(tokens.device)
    return labels.similarities(tokens[kept]), torch.from_numpy(concept).to(tokens.device)[kept]
