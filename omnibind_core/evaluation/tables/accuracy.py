"""Accuracy of combinations and single modalities, what is confused, and retrieval across modalities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core.evaluation.bench import Bench, Row
from omnibind_core.evaluation.bootstrap import interval, weighted_mean
from omnibind_core.evaluation.methods import AF, MEAN, PROBES
from omnibind_core.features.combinations import Combinations, best_alone

PAPER: dict[str, tuple[str, ...]] = {
    "C1": ("image", "audio", "point_cloud"),
    "C2": ("text", "event", "touch"),
    "C3": ("text", "event", "touch", "image"),
    "C4": ("image", "event", "audio", "point_cloud"),
    "C5": ("text", "event", "touch", "image", "audio"),
    "C6": ("image", "point_cloud", "audio", "event", "text"),
    "C7": ("image", "touch", "event"),
    "C8": ("point_cloud", "audio", "event", "text"),
}
"""Combinations that the paper names in Tables 3, 11 and 13; its "Te" is text (caption of Table 3)."""
BEST = "best single"
RANKS = (1, 5, 10)
_CONFUSIONS = 40


def by_size(bench: Bench) -> Iterator[Row]:
    """Accuracy of every method by the number of modalities."""
    for size in bench.sizes:
        combos = bench.data.known.draw(bench.count, bench.rng("size", size), size)
        for row in by_method(bench, combos):
            yield {"modalities": size, **row}


def combinations(bench: Bench) -> Iterator[Row]:
    """Accuracy of every method for every combination of two or more that a label has."""
    known = bench.data.known
    named = {frozenset(columns): key for key, columns in PAPER.items()}
    for size in bench.sizes[1:]:
        for names in known.subsets(size):
            combos = known.draw_of(names, bench.count, bench.rng(*names))
            head = {"size": size, "modalities": "+".join(names), "paper": named.get(frozenset(names), "")}
            for row in by_method(bench, combos):
                yield {**head, **row}


def single(bench: Bench) -> Iterator[Row]:
    """Accuracy of all samples of one modality alone (Tables 4 to 6), among all labels and among its own."""
    known = bench.data.known
    for name in known.modalities:
        combos = known.single(name)
        own = np.flatnonzero(np.isin(bench.fold, combos.label))
        for method in bench.some(AF, MEAN, PROBES):
            # Mean fusion of one token is that token, so this is the encoder without any fusion.
            title = "encoder alone" if method.name == MEAN else method.name
            among = method.answers(method.scores(combos)[0], own)
            row = bench.row(combos, method.right(combos))
            yield {"modalities": name, "method": title, **row, "accuracy_own": float((among == combos.label).mean())}


def confusions(bench: Bench) -> Iterator[Row]:
    """What single modalities and pairs were taken for most often."""
    known, names = bench.data.known, bench.data.known.names
    asked = [known.single(name) for name in known.modalities]
    asked += [known.draw_of(pair, bench.count, bench.rng(*pair)) for pair in known.subsets(2)]
    counts: Counter[tuple[str, int, int]] = Counter()
    totals: Counter[tuple[str, int]] = Counter()
    for combos in asked:
        answer = bench.af.answers(bench.af.scores(combos)[0])
        what = "+".join(combos.columns)
        totals.update((what, int(label)) for label in combos.label)
        wrong = answer != combos.label
        counts.update((what, int(a), int(b)) for a, b in zip(combos.label[wrong], answer[wrong], strict=True))
    for (what, label, taken), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSIONS]:
        total = totals[what, label]
        yield {
            "modalities": what,
            "label": names[label],
            "answer": names[taken],
            "times": count,
            "n": total,
            "share": count / total,
        }


def retrieval(bench: Bench) -> Iterator[Row]:
    """Recall at 1, 5 and 10 of every modality by every other, labels as text included; the same label is a hit."""
    known, text = bench.data.known, bench.model.labels.prototypes()
    rows: dict[str, tuple[Tensor, NDArray[np.int64]]] = {"text": (text, bench.fold)}
    rows |= {name: (bench.af.tokens[name][: len(x), 0], x.concept) for name, x in known.sets.items()}
    for query, (queries, asked) in rows.items():
        for gallery, (found, of) in rows.items():
            both = np.flatnonzero(np.isin(asked, of))
            if query == gallery or not len(both):
                continue
            with torch.inference_mode():
                near = (queries[both] @ found.T).topk(min(max(RANKS), len(found)), dim=1).indices.cpu().numpy()
            hit = of[near] == asked[both][:, None]
            row: Row = {"query": query, "gallery": gallery, "n": len(both), "items": len(found)}
            row["labels"] = len(np.unique(asked[both]))
            combos = Combinations((query,), both[:, None], asked[both])
            weights = None if query == "text" else bench.boot.weights(combos)
            for rank in RANKS:
                share = hit[:, :rank].any(axis=1).astype(np.float64)
                row[f"recall_{rank}"] = float(share.mean())
                row[f"interval_{rank}"] = None if weights is None else interval(weighted_mean(share, weights))
            yield row


def best_single(bench: Bench, combos: Combinations) -> NDArray[np.float64]:
    """What is answered right by the modality of each combination that is right most often here."""
    alone = np.zeros(combos.rows.shape)
    for column, name in enumerate(combos.columns):
        right = bench.methods[MEAN].right(bench.data.known.single(name))
        alone[:, column] = right[combos.rows[:, column].clip(0)]
    return best_alone(alone, combos.mask)


def by_method(bench: Bench, combos: Combinations) -> Iterator[Row]:
    """What every method, and the best single modality, answers right of the same combinations."""
    weights = bench.boot.weights(combos)
    answers: Sequence[tuple[str, int, NDArray[np.float64]]] = [
        *((method.name, method.seeds, method.right(combos)) for method in bench.methods.values()),
        (BEST, 1, best_single(bench, combos)),
    ]
    for name, seeds, right in answers:
        yield {"method": name, "seeds": seeds, **bench.row(combos, right, weights)}
