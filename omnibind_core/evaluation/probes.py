"""What a good engineer does without us: one ridge classifier per modality on frozen features, late fusion by the mean.

Everything is in closed form: ridge strength and temperature come from the leave-one-out predictions on the training
samples themselves, so no validation data are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from omnibind_core.errors import InvalidInputError

STRENGTHS = tuple(float(value) for value in np.geomspace(1e-4, 1e3, 15))
"""Ridge strengths that are tried, as multiples of the mean eigenvalue of the Gram matrix."""
TEMPERATURES = tuple(float(value) for value in np.geomspace(0.01, 2.0, 40))
"""Temperatures of the softmax that are tried; the scores before it are near 1 for the answer, near 0 for the rest."""
DEFAULTS = (min(STRENGTHS, key=lambda value: abs(value - 1)), min(TEMPERATURES, key=lambda value: abs(value - 0.1)))
"""Strength and temperature where no class has two samples, and leaving one out says nothing."""
_DRAWS = 2048  # pairs and triples of points for a shape histogram
_BINS = 16


@dataclass(frozen=True)
class Probe:
    """A ridge classifier of one modality.

    Attributes:
        mean: ``float64 [F]``, of the square roots of the training features.
        scale: ``float64 [F]``, their standard deviation; 1 where it is 0.
        weight: ``float64 [F, C]``, of the standardised features.
        bias: ``float64 [C]``.
        classes: ``int64 [C]``, the classes that it knows, ascending.
        strength: Ridge strength of least leave-one-out squared error, one of :data:`STRENGTHS`.
        temperature: Temperature of least leave-one-out negative log-likelihood, one of :data:`TEMPERATURES`.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes: NDArray[np.int64]
    strength: float
    temperature: float

    @classmethod
    def fit(cls, features: NDArray[np.floating], concept: NDArray[np.int64]) -> Probe:
        """Fits the standardised square roots of the features to centred one-hot targets.

        Args:
            features: ``[N, F]``, or ``[N, A, F]`` with A variants of each sample.
            concept: ``int64 [N]``.
        """
        variants = features.reshape(len(features), -1, features.shape[-1]).shape[1]
        classes, answer = np.unique(concept, return_inverse=True)
        rows = _root(np.reshape(features, (-1, features.shape[-1])))
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale[scale < 1e-9 * max(1.0, float(np.abs(mean).max(initial=0)))] = 1.0
        rows = (rows - mean) / scale
        bias = np.bincount(answer) / len(answer)
        target = np.repeat(np.eye(len(classes))[answer] - bias, variants, axis=0)
        power, u, v = _decompose(rows)
        projected = u.T @ target
        strengths = {value: value * float(power.mean() if len(power) else 1.0) for value in STRENGTHS}
        # A class with one sample is not known without it, so that nothing can be learned from leaving it out.
        judges = np.flatnonzero(np.bincount(answer)[answer] > 1)
        strength, temperature = DEFAULTS
        if len(judges):
            left_out = {
                value: _leave_one_out(u, power / (power + ridge), projected, target, variants)[judges]
                for value, ridge in strengths.items()
            }
            wanted = np.eye(len(classes))[answer[judges]] - bias
            strength = min(STRENGTHS, key=lambda value: float(np.square(left_out[value] - wanted).sum()))
            scores = left_out[strength] + bias
            right = np.arange(len(judges)), answer[judges]
            losses = [-log_softmax(scores / value, axis=1)[right].sum() for value in TEMPERATURES]
            temperature = TEMPERATURES[int(np.argmin(losses))]
        weight = v @ (projected * (np.sqrt(power) / (power + strengths[strength]))[:, None])
        return cls(mean, scale, weight, bias, classes, strength, temperature)

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Regressed one-hot targets ``[N, C]``, one column for each of :attr:`classes`."""
        out: NDArray[np.float64] = ((_root(features) - self.mean) / self.scale) @ self.weight + self.bias
        return out


@dataclass(frozen=True)
class Probes:
    """A probe for each modality, over one set of classes.

    Attributes:
        probes: By modality.
        classes: Number of classes in all; a probe gives those it never saw a probability of 0.
    """

    probes: dict[str, Probe]
    classes: int

    @classmethod
    def fit(
        cls, features: Mapping[str, NDArray[np.floating]], concept: Mapping[str, NDArray[np.int64]], classes: int
    ) -> Probes:
        """Fits a probe for each modality.

        Args:
            features: ``[N, F]`` or ``[N, A, F]`` by modality, see :meth:`Probe.fit`.
            concept: ``int64 [N]`` by modality, numbers below ``classes``.
            classes: Number of classes.
        """
        return cls({name: Probe.fit(rows, concept[name]) for name, rows in features.items()}, classes)

    def probabilities(self, modality: str, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Softmax of one probe's scores, ``[N, classes]``; each row sums to 1.

        Args:
            modality: Which probe.
            features: ``[N, F]``.
        """
        probe = self.probes[modality]
        out = np.zeros((len(features), self.classes))
        out[:, probe.classes] = softmax(probe.scores(features) / probe.temperature, axis=1)
        return out

    def predict(self, features: Mapping[str, NDArray[np.floating]]) -> NDArray[np.int64]:
        """Late fusion: class ``int64 [N]`` of the largest mean of the softmaxes.

        Args:
            features: ``[N, F]`` by modality; row ``n`` of each belongs to the same thing.

        Raises:
            InvalidInputError: There is no modality.
        """
        if not features:
            raise InvalidInputError("Probes", "no modality", "features of at least one")
        total = sum(self.probabilities(name, rows) for name, rows in features.items())
        return np.asarray(total).argmax(axis=1)


def shape_features(clouds: NDArray[np.floating], seed: int = 0) -> NDArray[np.float32]:
    """Hand-made shape descriptors, for clouds whose trunk is not a frozen one. Turning a cloud about z changes nothing.

    Shape distributions D2 (distance of two random points) and A3 (angle at the middle one of three) of Osada et al.
    2002; the level and the steepness of the same pairs; histograms of height and of distance from the vertical axis
    through the centroid; spread upright, along and across.

    Args:
        clouds: ``[N, P, 3]``, z up, of any size and place.
        seed: Which pairs and triples of points are taken, the same in every cloud.

    Returns:
        ``float32 [N, 99]``; the bins of each histogram sum to 1.
    """
    points = np.asarray(clouds, np.float32)
    points = points - points.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(points).sum(axis=2).max(axis=1))
    points = points / np.maximum(size, np.finfo(np.float32).tiny)[:, None, None]
    one, two, three = np.random.default_rng(seed).integers(points.shape[1], size=(3, _DRAWS))
    first, second = points[:, two] - points[:, one], points[:, three] - points[:, one]
    length = np.linalg.norm(first, axis=2)
    other = np.linalg.norm(second, axis=2)
    cosine = np.einsum("npi,npi->np", first, second) / np.maximum(length * other, 1e-9)
    steep = np.abs(first[..., 2]) / np.maximum(length, 1e-9)
    height = points[..., 2]
    radius = np.linalg.norm(points[..., :2], axis=2)
    flat = np.einsum("npi,npj->nij", points[..., :2], points[..., :2]) / points.shape[1]
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(flat), 0.0))
    return np.concatenate(
        [
            _histogram(length, 0.0, 2.0),
            _histogram(np.arccos(cosine.clip(-1, 1)), 0.0, np.pi),
            _histogram(np.abs(first[..., 2]), 0.0, 2.0),
            _histogram(steep, 0.0, 1.0),
            _histogram(height, -1.0, 1.0),
            _histogram(radius, 0.0, 1.0),
            height.std(axis=1, keepdims=True),
            spread,
        ],
        axis=1,
    ).astype(np.float32)


def _histogram(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.float64]:
    """Share of the values ``[N, K]`` of each row in equal bins, ``[N, bins]``."""
    place = ((values - low) / (high - low) * _BINS).astype(np.int64).clip(0, _BINS - 1)
    place += _BINS * np.arange(len(values))[:, None]
    counts = np.bincount(place.ravel(), minlength=_BINS * len(values))
    out: NDArray[np.float64] = counts.reshape(len(values), _BINS) / values.shape[1]
    return out


def _root(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Square root of the size, with the sign: makes the long tails of pooled activations short."""
    rows = np.asarray(features, np.float64)
    out: NDArray[np.float64] = np.sign(rows) * np.sqrt(np.abs(rows))
    return out


def _decompose(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues ``[K]`` of the Gram matrix, u ``[N, K]`` and v ``[F, K]`` with rows = u sqrt(eigenvalues) v^T."""
    wide = len(rows) <= rows.shape[1]
    power, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = power > max(1e-10 * power[-1], 1e-12)
    power, vectors = power[kept], vectors[:, kept]
    if wide:
        return power, vectors, rows.T @ vectors / np.sqrt(power)
    return power, rows @ vectors / np.sqrt(power), vectors


def _leave_one_out(
    u: NDArray[np.float64],
    shrink: NDArray[np.float64],
    projected: NDArray[np.float64],
    target: NDArray[np.float64],
    variants: int,
) -> NDArray[np.float64]:
    """What the first variant of each sample would get from a ridge fitted without all its variants, ``[N, C]``.

    The PRESS residual (Allen 1974) for blocks: with the hat matrix H, (I - H_GG)^-1 times the residual of the block G.
    The intercept's share 1 / N is part of H; that the sample also shaped the mean and the scale of the features is not
    taken back.
    """
    blocks = u.reshape(-1, variants, u.shape[1])
    hat = (blocks * shrink) @ blocks.transpose(0, 2, 1) + 1 / len(u)
    residual = (target - (u * shrink) @ projected).reshape(-1, variants, target.shape[1])
    left_out = np.linalg.solve((1 + 1e-9) * np.eye(variants) - hat, residual)
    out: NDArray[np.float64] = target.reshape(residual.shape)[:, 0] - left_out[:, 0]
    return out
