"""Tables that need training: parts of AF, number of training modalities; and those of ``omnibind train compare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnibind_core.config import from_json
from omnibind_core.errors import DataError
from omnibind_core.evaluation import methods
from omnibind_core.evaluation.bench import Bench, Row
from omnibind_core.evaluation.comparison import summary
from omnibind_core.evaluation.comparison.experiments import TABLES, Comparison, Settings
from omnibind_core.evaluation.methods import Negatives
from omnibind_core.fusion import Fusion, MeanFusion
from omnibind_core.fusion.registry import DEFAULT
from omnibind_core.training.config import TrainConfig

SHOTS = (1, 2, 4, 8, 16)
NEGATIVES: dict[Negatives, str] = {"wrong": "CLS", "all": "all labels as negatives"}
"""``fuse.negatives`` in words."""
COMPARED = {
    "fusions": "Fusions trained over several seeds (Table 9)",
    "robustness": "Wrong sensors over several seeds (Table 12)",
    "ablation": "Terms of the loss of stage I (Table 7)",
    "few-shot": "Few samples per label",
    "left-out": "Labels left out of a student's training",
    "left-out-source": "Sources left out of all training",
    "zero-shot": "Photos of labels without photos",
}
"""Tables of ``omnibind train compare``, by the name of the file."""


def parts(bench: Bench) -> Iterator[Row]:
    """The parts of AF (Table 8): self-attention, and negatives that CLS finds; trained here on the training split.

    Self-attention is the paper's, whatever the model's own fusion is; if that is another, it has a row of its own.
    """
    trials: dict[str, tuple[Mapping[str, Any] | None, Negatives]] = {
        f"self-attention and CLS ({methods.PLAIN})": (methods.PAPER_FUSION, "wrong"),
        "self-attention, all labels as negatives": (methods.PAPER_FUSION, "all"),
        "CLS, a linear layer for self-attention": ({"type": "linear"}, "wrong"),
        "neither (mean)": (None, "all"),
    }
    own, negatives = bench.model.config.fusion, bench.training.fuse.negatives
    if {**methods.PAPER_FUSION, **own} != methods.PAPER_FUSION:
        called = own.get("preset", own.get("type", DEFAULT))
        trials[f"the model's own fusion ({called}), {NEGATIVES[negatives]}"] = own, negatives
    for name, (part, negatives) in trials.items():
        modules: list[Fusion] = [MeanFusion()] if part is None else bench.fusions(part, negatives)
        yield from _by_size(bench, {"method": name}, modules)


def training_modalities(bench: Bench) -> Iterator[Row]:
    """AF that was trained on combinations of the first one, two, ... modalities, asked about all (Fig. 5c)."""
    embedded = bench.embedded()
    for count in range(1, len(embedded.modalities) + 1):
        names = embedded.modalities[:count]
        sets = {name: embedded.sets[name] for name in names}
        split = dataclasses.replace(embedded, sets=sets, texts=None)
        modules = [
            methods.trained(bench.model, split, bench.model.config.fusion, seed, bench.training)
            for seed in bench.training.seeds
        ]
        yield from _by_size(
            bench, {"training_modalities": count, "trained_on": "+".join(names), "method": "AF"}, modules
        )


def _by_size(bench: Bench, head: Row, modules: list[Fusion]) -> Iterator[Row]:
    method = bench.af.of("", modules)
    for size in bench.sizes:
        combos = bench.data.known.draw(bench.count, bench.rng("size", size), size)
        yield {"modalities": size, **head, "seeds": method.seeds, **bench.row(combos, method.right(combos))}


def compared(folder: Path) -> dict[str, list[Row]]:
    """What ``omnibind train compare`` wrote, as rows by the name of the table.

    Raises:
        DataError: There is no such folder, none of its files is one of these tables, or one is broken.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected what omnibind train compare wrote (--out)")
    found = {}
    for name in COMPARED:
        path = folder / f"{name}.json"
        if path.is_file():
            try:
                found[name] = [_summary(row) for row in from_json(path.read_text(encoding="utf-8"))["summary"]]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path} is not what omnibind train compare writes: {error!r}") from error
    if not found:
        expected = ", ".join(f"{name}.json" for name in COMPARED)
        raise DataError(f"{folder} has no table of omnibind train compare; expected one of {expected}")
    return found


def trained(config: TrainConfig, names: Sequence[str], seeds: tuple[int, ...], count: int) -> dict[str, list[Row]]:
    """Trains and measures tables of ``omnibind train compare``: hours, not minutes.

    Args:
        config: The experiment.
        names: Some of :data:`COMPARED`.
        seeds: One experiment each.
        count: Combinations drawn of each size.
    """
    bench = Comparison(config)
    found = {}
    for name in names:
        settings = Settings(seeds, count, SHOTS if name == "few-shot" else ())
        summaries = summary.summarise(list(TABLES[name](bench, settings)))
        plain = [{k: None if v != v else v for k, v in dataclasses.asdict(row).items()} for row in summaries]
        found[name] = [_summary(row) for row in plain]
    return found


def _summary(row: Mapping[str, Any]) -> Row:
    mean, half = row["mean"], row["interval"]
    bounds = None if half is None else (max(0.0, mean - half), min(1.0, mean + half))
    head = {key: row[key] for key in ("table", "condition", "method", "seeds")}
    return {**head, "accuracy": mean, "interval": bounds, "ahead": row["ahead"]}
