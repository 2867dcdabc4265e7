"""What a modality-free data set consists of: as text, and as a picture after the paper's Fig. 4 and Fig. 7."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnibind_core import modalities
from omnibind_core.data.modality_free.dataset import MODALITY_SET, ModalityFree
from omnibind_core.files import write_atomically
from omnibind_core.optional import require

_MOST_SETS, _MOST_CONCEPTS = 15, 30


@dataclass
class Stats:
    """Numbers of combinations and samples.

    Attributes:
        combinations: By (split, set of modalities as one word).
        concepts: Combinations by (concept, number of modalities).
        samples: By (modality, split).
    """

    combinations: Counter[tuple[str, str]] = field(default_factory=Counter)
    concepts: Counter[tuple[str, int]] = field(default_factory=Counter)
    samples: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def splits(self) -> list[str]:
        """Those that occur, in the order of the index."""
        return list(dict.fromkeys(split for split, _ in self.combinations))

    @property
    def total(self) -> int:
        """All combinations."""
        return self.combinations.total()

    def by_size(self, split: str | None = None) -> Counter[int]:
        """Combinations by number of modalities."""
        found: Counter[int] = Counter()
        for (name, modality_set), count in self.combinations.items():
            if split in (None, name):
                found[_size(modality_set)] += count
        return found

    def by_modality_set(self) -> Counter[str]:
        """Combinations by set of modalities."""
        found: Counter[str] = Counter()
        for (_, modality_set), count in self.combinations.items():
            found[modality_set] += count
        return found

    def by_modality(self) -> Counter[str]:
        """Combinations that have a modality."""
        found: Counter[str] = Counter()
        for (_, modality_set), count in self.combinations.items():
            found.update(dict.fromkeys(modality_set.split("+"), count))
        return found

    def by_concept(self) -> Counter[str]:
        """Combinations by concept."""
        found: Counter[str] = Counter()
        for (concept, _), count in self.concepts.items():
            found[concept] += count
        return found


def count(data: ModalityFree) -> Stats:
    """Counts everything, one row group at a time."""
    found = Stats()
    for table in data.tables(columns=["split", MODALITY_SET, "concept"]):
        rows = table.group_by(["split", MODALITY_SET, "concept"]).aggregate([([], "count_all")]).to_pylist()
        for row in sorted(rows, key=lambda row: (row["split"], row[MODALITY_SET], row["concept"])):
            found.combinations[row["split"], row[MODALITY_SET]] += row["count_all"]
            found.concepts[row["concept"], _size(row[MODALITY_SET])] += row["count_all"]
    for table in data.sample_tables(["modality", "split"]):
        for row in table.group_by(["modality", "split"]).aggregate([([], "count_all")]).to_pylist():
            found.samples[row["modality"], row["split"]] += row["count_all"]
    return found


def lines(stats: Stats) -> Iterator[str]:
    """The numbers as lines of text."""
    splits = stats.splits
    yield _row("samples", splits)
    for name in modalities.names():
        if any(stats.samples[name, split] for split in splits):
            yield _row(f"  {name}", [stats.samples[name, split] for split in splits])
    yield _row("combinations", splits, "share")
    sizes = {split: stats.by_size(split) for split in splits}
    for size, number in sorted(stats.by_size().items()):
        word = "modality" if size == 1 else "modalities"
        yield _row(f"  {size} {word}", [sizes[split][size] for split in splits], f"{number / stats.total:.1%}")
    yield _row("  all", [sizes[split].total() for split in splits])
    sets = stats.by_modality_set()
    yield f"{len(sets)} kinds of combinations, the most frequent ones:"
    for modality_set, number in _most(sets, _MOST_SETS):
        yield f"  {number:7} {modality_set}"
    concepts = stats.by_concept()
    yield f"{len(concepts)} concepts, the most frequent ones:"
    for concept, number in _most(concepts, _MOST_SETS):
        by_size = ", ".join(f"{size}: {n}" for (name, size), n in sorted(stats.concepts.items()) if name == concept)
        yield f"  {number:7} {concept} (by number of modalities {by_size})"


def plot(stats: Stats, path: Path) -> None:
    """Draws the composition (after the paper's Fig. 4) and the concepts (after its Fig. 7).

    Args:
        stats: From :func:`count`.
        path: Picture to write; its ending says the format.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "Drawing statistics")
    figure_module = require("matplotlib.figure", "Drawing statistics")
    # One hue, dark for many modalities; grey for what has no order.
    sizes = sorted(stats.by_size())
    map_ = matplotlib.colormaps["YlGnBu"]
    colours = {size: map_(0.25 + 0.7 * i / max(1, len(sizes) - 1)) for i, size in enumerate(sizes)}
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    with matplotlib.rc_context(style):
        figure = figure_module.Figure(figsize=(11, 8.5), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1])
        left, middle, right = top.subplots(1, 3, width_ratios=[1, 1.1, 1.6])
        _draw_sizes(left, stats, colours)
        _draw_modalities(middle, stats, colours)
        _draw_modality_sets(right, stats, colours)
        _draw_concepts(bottom.subplots(), stats, colours)
        with write_atomically(path) as temporary:
            figure.savefig(temporary, dpi=110, metadata={"Software": None} if path.suffix == ".png" else None)


def _draw_sizes(axes: Any, stats: Stats, colours: dict[int, Any]) -> None:
    sizes = stats.by_size()
    keys = sorted(sizes)
    bars = axes.bar(keys, [sizes[size] for size in keys], color=[colours[size] for size in keys])
    axes.set_xticks(keys)
    axes.bar_label(bars, [f"{sizes[size] / stats.total:.0%}" for size in keys])
    axes.set_title(f"{stats.total:,} combinations")
    axes.set_xlabel("modalities in a combination")


def _draw_modalities(axes: Any, stats: Stats, colours: dict[int, Any]) -> None:
    names = [name for name in reversed(modalities.names()) if stats.by_modality()[name]]
    start = dict.fromkeys(names, 0)
    for size in sorted(stats.by_size()):
        widths: Counter[str] = Counter()
        for (_, modality_set), number in stats.combinations.items():
            if _size(modality_set) == size:
                widths.update(dict.fromkeys(modality_set.split("+"), number))
        bars = [name.replace("_", " ") for name in names]
        axes.barh(bars, [widths[name] for name in names], left=[start[name] for name in names], color=colours[size])
        start = {name: start[name] + widths[name] for name in names}
    axes.set_title("combinations with a modality")


def _draw_modality_sets(axes: Any, stats: Stats, colours: dict[int, Any]) -> None:
    sets = _most(stats.by_modality_set(), _MOST_SETS)[::-1]
    names = [modality_set.replace("+", " + ").replace("_", " ") for modality_set, _ in sets]
    axes.barh(names, [number for _, number in sets], color=[colours[_size(modality_set)] for modality_set, _ in sets])
    axes.set_title(f"most frequent of {len(stats.by_modality_set())} kinds")
    axes.tick_params(axis="y", labelsize=8)


def _draw_concepts(axes: Any, stats: Stats, colours: dict[int, Any]) -> None:
    concepts = stats.by_concept()
    shown = [concept for concept, _ in _most(concepts, _MOST_CONCEPTS)]
    start = dict.fromkeys(shown, 0)
    for size, colour in colours.items():
        heights = [stats.concepts[concept, size] for concept in shown]
        axes.bar(shown, heights, bottom=list(start.values()), color=colour, label=str(size))
        start = {concept: start[concept] + height for concept, height in zip(shown, heights, strict=True)}
    rest = len(concepts) - len(shown)
    others = f"; the other {rest} have at most {min(start.values())} each" if rest else ""
    axes.set_title(f"combinations of the most frequent of {len(concepts)} concepts{others}")
    axes.tick_params(axis="x", labelrotation=60)
    for label in axes.get_xticklabels():
        label.set(horizontalalignment="right", rotation_mode="anchor")
    axes.margins(x=0.01)
    axes.legend(title="modalities", frameon=False, ncols=2)


def _most(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    """The most frequent ones; equally frequent ones in alphabetical order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]


def _size(modality_set: str) -> int:
    return modality_set.count("+") + 1


def _row(name: str, cells: list[Any], last: str = "") -> str:
    return f"{name:20}" + "".join(f"{cell:>9}" for cell in cells) + f"{last:>9}"
