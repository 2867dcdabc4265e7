"""95 % intervals that take into account that combinations share samples.

Combinations are drawn from few samples, so that more draws make no figure surer. The samples of each modality are
therefore drawn again, with replacement and each modality by itself, and a combination counts as often as the product
of its samples' counts (the pigeonhole bootstrap, Owen 2007). The interval says what other samples of the same labels
might have given; it is rather too wide than too narrow.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from omnibind_core.features.combinations import Combinations  # has torch

REPLICATES = 400
Values = NDArray[np.floating]
Interval = tuple[float, float]


class Bootstrap:
    """Draws samples again.

    Args:
        sizes: Number of samples by modality.
        seed: Of the draws.
        replicates: How often.
    """

    def __init__(self, sizes: Mapping[str, int], seed: int = 0, replicates: int = REPLICATES) -> None:
        self.replicates = replicates
        self._counts = {}
        for name, size in sizes.items():
            rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
            self._counts[name] = rng.multinomial(size, np.full(size, 1 / size), replicates).astype(np.float32)

    def weights(self, combos: Combinations) -> NDArray[np.float32]:
        """How often each combination counts in each replicate, ``[replicates, B]``.

        A modality that was not named, such as text with one sentence for each label, is not drawn again.
        """
        total = np.ones((self.replicates, len(combos)), np.float32)
        for column, name in enumerate(combos.columns):
            if name not in self._counts:
                continue
            rows = combos.rows[:, column]
            present = np.flatnonzero(rows >= 0)
            total[:, present] *= self._counts[name][:, rows[present]]
        return total

    def drawn(self, name: str, samples: NDArray[np.integer]) -> NDArray[np.float32]:
        """How often each value counts in each replicate, ``[replicates, B]``, that is of one sample.

        Args:
            name: As in ``sizes``.
            samples: ``[B]``, number of the sample of each value.
        """
        counts: NDArray[np.float32] = self._counts[name][:, samples]
        return counts


def weighted_mean(values: Values, weights: NDArray[np.float32]) -> Values:
    """Mean of the values in every replicate, NaN where nothing counts.

    Args:
        values: ``[B]``.
        weights: ``[replicates, B]``.
    """
    total = weights.sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        out: Values = (weights @ values.astype(np.float32)).astype(np.float64) / total
    return out


def interval(replicates: Values) -> Interval:
    """The middle 95 % of a figure's replicates."""
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def macro(values: Values, label: NDArray[np.int64]) -> float:
    """Mean of the labels' means, so that every label counts the same."""
    _, place = np.unique(label, return_inverse=True)
    return float((np.bincount(place, values) / np.bincount(place)).mean())


def auroc(score: Values, positive: NDArray[np.bool_], weights: Values | None = None) -> Values:
    """Area under the ROC curve of a score that should be higher for the positive ones; ties count half.

    Args:
        score: ``[B]``.
        positive: ``bool [B]``.
        weights: ``[replicates, B]``; None counts each once.

    Returns:
        ``[replicates]``; NaN where one of both kinds is missing.
    """
    order = np.argsort(score, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    weight = np.ones((1, len(score))) if weights is None else weights.astype(np.float64)
    good = np.add.reduceat(np.where(positive, weight, 0.0)[:, order], start, axis=1)
    bad = np.add.reduceat(np.where(positive, 0.0, weight)[:, order], start, axis=1)
    below = np.cumsum(bad, axis=1) - bad
    total = good.sum(axis=1) * bad.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Values = (good * (below + bad / 2)).sum(axis=1) / total
    return out


def calibration_error(
    confidence: Values, right: NDArray[np.bool_], weights: Values | None = None, bins: int = 15
) -> Values:
    """Expected calibration error: mean distance of confidence and accuracy over bins of equal width (Guo et al. 2017).

    Args:
        confidence: ``[B]``, 0..1.
        right: ``bool [B]``.
        weights: ``[replicates, B]``; None counts each once.
        bins: Number of bins.

    Returns:
        ``[replicates]``.
    """
    member = np.eye(bins)[np.minimum((confidence * bins).astype(int), bins - 1)]
    weight = np.ones((1, len(confidence))) if weights is None else weights.astype(np.float64)
    gap = weight @ (member * (confidence - right)[:, None])
    with np.errstate(invalid="ignore"):
        out: Values = np.abs(gap).sum(axis=1) / weight.sum(axis=1)
    return out
