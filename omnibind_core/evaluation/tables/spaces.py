"""The space before and after alignment: trunk features against embeddings (paper Fig. 5a and b)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import MissingDependencyError
from omnibind_core.evaluation.bench import Bench, Row
from omnibind_core.evaluation.bootstrap import interval, weighted_mean
from omnibind_core.evaluation.report import plots
from omnibind_core.evaluation.report.document import Plot
from omnibind_core.features.combinations import Combinations, Index
from omnibind_core.optional import require

_LABELS, _SAMPLES = 8, 20  # in the picture; samples of each label and modality
BEFORE, AFTER = "trunk features, before alignment", "embeddings, after alignment"

Space = dict[str, NDArray[np.float32]]


def spaces(bench: Bench) -> dict[str, Space]:
    """Unit-length rows of all samples by modality, before and after.

    Before, modalities can be compared with each other only if they share a trunk; the others are left out there.
    """
    known, model = bench.data.known, bench.model
    shared = Counter(model.config.modalities[name].trunk for name in known.modalities)
    trunk = max(shared, key=lambda name: shared[name])
    before = {
        name: _unit(np.asarray(samples.inputs[:, 0], np.float32))
        for name, samples in known.sets.items()
        if model.config.modalities[name].trunk == trunk
    }
    after = {name: bench.af.tokens[name][: len(x), 0].cpu().numpy() for name, x in known.sets.items()}
    return {BEFORE: before, AFTER: after}


def neighbours(bench: Bench) -> Iterator[Row]:
    """How often the nearest sample has the same label: of the same modality, and of all other modalities."""
    known = bench.data.known
    for where, space in spaces(bench).items():
        for name, rows in space.items():
            concept = known.sets[name].concept
            others = [other for other in space if other != name]
            galleries = {"the same modality": [name], "other modalities": others} if others else {}
            for among, members in galleries.items():
                of = np.concatenate([known.sets[member].concept for member in members])
                similarity = rows @ np.concatenate([space[member] for member in members]).T
                if members == [name]:
                    np.fill_diagonal(similarity, -2.0)
                asked = np.flatnonzero([(of == label).sum() > (members == [name]) for label in concept])
                if not len(asked):
                    continue
                hit = (of[similarity[asked].argmax(axis=1)] == concept[asked]).astype(np.float64)
                weights = bench.boot.weights(Combinations((name,), asked[:, None], concept[asked]))
                yield {
                    "space": where,
                    "modalities": name,
                    "among": among,
                    "n": len(asked),
                    "labels": len(np.unique(concept[asked])),
                    "accuracy": float(hit.mean()),
                    "interval": interval(weighted_mean(hit, weights)),
                }


def picture(bench: Bench) -> Plot | None:
    """Samples of some labels in two dimensions, before and after; None where no label has two modalities."""
    found = spaces(bench)
    chosen = _chosen(bench, tuple(found[BEFORE]))
    if len(chosen) < 2:
        return None
    how = "t-SNE"
    places = {}
    for where, space in found.items():
        rows = np.concatenate([space[name][picked] for name, picked in chosen.items()])
        try:
            places[where] = _tsne(rows, bench.seed)
        except MissingDependencyError:
            how = "The first two principal components (scikit-learn is not installed, so no t-SNE)"
            places[where] = _principal(rows)
    known = bench.data.known
    labels = [known.names[label] for name, picked in chosen.items() for label in known.sets[name].concept[picked]]
    sensors = [name.replace("_", " ") for name, picked in chosen.items() for _ in picked]
    note = (
        f"{how} of {len(labels)} samples of {len(set(labels))} labels that several modalities have; colours are "
        "labels, marks modalities. Only modalities that share a trunk are shown: features of others cannot be compared."
    )
    points = {where: (place, labels, sensors) for where, place in places.items()}
    return plots.scatter("before_and_after", "Before and after alignment", points, note=note)


def _chosen(bench: Bench, names: tuple[str, ...]) -> dict[str, Index]:
    """Samples of the labels that most modalities have."""
    known = bench.data.known
    has = Counter(int(label) for name in names for label in np.unique(known.sets[name].concept))
    labels = [label for label, count in sorted(has.items(), key=lambda item: (-item[1], item[0])) if count > 1]
    chosen = {}
    for name in names:
        concept, rng = known.sets[name].concept, bench.rng("picture", name)
        rows = [rng.permutation(np.flatnonzero(concept == label))[:_SAMPLES] for label in labels[:_LABELS]]
        picked = np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
        if len(picked):
            chosen[name] = picked
    return chosen


def _tsne(rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    manifold = require("sklearn.manifold", "t-SNE")
    perplexity = min(30.0, (len(rows) - 1) / 3)
    found: NDArray[np.float32] = manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)
    return found


def _principal(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    out: NDArray[np.float32] = u[:, :2] * s[:2]
    return out


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return out
