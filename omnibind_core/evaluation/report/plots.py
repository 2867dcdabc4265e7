"""Plots of a report, as SVG: colours that the colour-blind tell apart, the page's own colour for text and lines.

The same figures give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.evaluation.report.document import Plot, without_marks
from omnibind_core.optional import require

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C8C", "#B8A000")
"""Okabe and Ito's, without black, which does not show on a dark page."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
Value = tuple[float, tuple[float, float] | None] | None
"""A figure and its interval; None where there is none."""

_INK = "#12345e"  # stands for the page's colour of text, see _svg
_STYLE = {
    "font.size": 10,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold any number of $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    **{f"{key}.color": _INK for key in ("text", "xtick", "ytick")},
    **{f"axes.{key}": _INK for key in ("edgecolor", "labelcolor", "titlecolor")},
}
Draw = Callable[[Any], None]


def plot(name: str, title: str, draw: Draw, *, size: tuple[float, float] = (8.0, 3.6), note: str = "") -> Plot:
    """A picture drawn by a function.

    Args:
        name: Unique in the report.
        title: What it shows.
        draw: Gets the matplotlib axes.
        size: Width and height in inches, 72 units of the SVG each.
        note: How to read it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "Drawing a report")
    figure_type = require("matplotlib.figure", "Drawing a report").Figure
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = figure_type(figsize=size, layout="constrained")
        draw(figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    spoken = _attribute(without_marks(title))
    text = without_marks(file.getvalue().decode("utf-8")).replace(_INK, "currentColor")
    text = text.replace("<svg ", f'<svg role="img" aria-label="{spoken}" ', 1)
    return Plot(name, title, text.encode(), note)


def bars(
    name: str,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Value]],
    unit: str,
    *,
    percent: bool = True,
    note: str = "",
) -> Plot:
    """Groups of bars with intervals.

    Args:
        name: See :func:`plot`.
        title: See :func:`plot`.
        groups: Below the axis.
        series: By name, one value for each group.
        unit: Of the values, written at the axis.
        percent: Whether the values are shares that are shown as percent.
        note: See :func:`plot`.
    """
    scale = 100.0 if percent else 1.0

    def draw(axes: Any) -> None:
        width = 0.84 / max(1, len(series))
        lows = []
        for index, (label, values) in enumerate(series.items()):
            place = np.arange(len(groups)) - 0.42 + width * (index + 0.5)
            shown = [(x, scale * v[0], v[1]) for x, v in zip(place, values, strict=True) if v is not None]
            colour = COLOURS[index % len(COLOURS)]
            axes.bar([x for x, _, _ in shown], [y for _, y, _ in shown], 0.92 * width, color=colour, label=label)
            for x, y, interval in shown:
                if interval is not None:
                    axes.plot([x, x], [scale * bound for bound in interval], color=_INK, linewidth=1)
                lows.append(y if interval is None else scale * interval[0])
        axes.set_xticks(range(len(groups)), groups)
        if percent and lows and min(lows) > 60:
            floor = 10 * np.floor((min(lows) - 5) / 10)
            axes.set_ylim(floor, 100.5)
            if floor > 0:
                unit_text = f"{unit} (axis from {floor:.0f})"
                axes.set_ylabel(unit_text)
        if not axes.get_ylabel():
            axes.set_ylabel(unit)
        _finish(axes, len(series), max((len(one) for one in groups), default=0) * len(groups) > 110)

    return plot(name, title, draw, size=(max(6.5, min(13.0, 1.2 * len(groups) + 2)), 3.8), note=note)


def lines(
    name: str,
    title: str,
    series: Mapping[str, Sequence[tuple[float, float, tuple[float, float] | None]]],
    labels: tuple[str, str],
    *,
    percent: bool = True,
    markers: bool = True,
    note: str = "",
) -> Plot:
    """Curves with intervals.

    Args:
        name: See :func:`plot`.
        title: See :func:`plot`.
        series: By name, points ``(x, y, interval of y)``.
        labels: Of both axes, with units.
        percent: Whether y is a share that is shown as percent.
        markers: Whether every point is marked.
        note: See :func:`plot`.
    """
    scale = 100.0 if percent else 1.0

    def draw(axes: Any) -> None:
        for index, (label, points) in enumerate(series.items()):
            x = np.array([point[0] for point in points])
            y = np.array([point[1] for point in points]) * scale
            colour = COLOURS[index % len(COLOURS)]
            marker = MARKERS[index % len(MARKERS)] if markers else None
            axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=label)
            spans = [point[2] for point in points]
            if all(span is not None for span in spans):
                bounds = np.array(spans) * scale
                axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        _finish(axes, len(series))

    return plot(name, title, draw, size=(7.2, 3.8), note=note)


def heat_map(
    name: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: NDArray[np.float64],
    unit: str,
    *,
    percent: bool = True,
    limits: tuple[float, float] | None = None,
    note: str = "",
) -> Plot:
    """A table in colours, with the numbers in it.

    Args:
        name: See :func:`plot`.
        title: See :func:`plot`.
        rows: Labels.
        columns: Labels.
        values: ``[rows, columns]``; NaN leaves a place empty.
        unit: Of the values.
        percent: Whether the values are shares that are shown as percent.
        limits: Values of the lightest and the darkest colour; None takes those that occur.
        note: See :func:`plot`.
    """
    shown = np.asarray(values, np.float64) * (100.0 if percent else 1.0)

    def draw(axes: Any) -> None:
        low, high = limits or (float(np.nanmin(shown)), float(np.nanmax(shown)))
        span = max(high - low, 1e-9)
        axes.imshow(shown, aspect="auto", cmap="cividis", vmin=low, vmax=low + span)
        for (row, column), value in np.ndenumerate(shown):
            if np.isfinite(value):
                light = (value - low) / span > 0.6
                text = f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
                axes.text(
                    column, row, text, ha="center", va="center", fontsize=9, color="#000000" if light else "#ffffff"
                )
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(unit, fontsize=9, loc="right")

    size = (min(13.0, 2.2 + 0.75 * len(columns)), 1.3 + 0.34 * len(rows))
    return plot(name, title, draw, size=size, note=note)


def reliability(
    name: str,
    title: str,
    series: Mapping[str, Sequence[tuple[float, float, int]]],
    *,
    note: str = "",
) -> Plot:
    """A reliability diagram: on the diagonal, a confidence of 80 % is right in 80 % of the cases.

    Args:
        name: See :func:`plot`.
        title: See :func:`plot`.
        series: By name, bins ``(mean confidence, accuracy, number of answers)``; empty bins are left out.
        note: See :func:`plot`.
    """

    def draw(axes: Any) -> None:
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
        for index, (label, bins) in enumerate(series.items()):
            total = max(1, sum(count for _, _, count in bins))
            x = [100 * confidence for confidence, _, _ in bins]
            y = [100 * accuracy for _, accuracy, _ in bins]
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(x, y, color=colour, linewidth=1.4, label=label)
            area = [12 + 260 * count / total for _, _, count in bins]
            axes.scatter(x, y, s=area, color=colour, alpha=0.7, linewidth=0)
        axes.set(xlim=(0, 101), ylim=(0, 101), xlabel="confidence, %", ylabel="accuracy, %")
        _finish(axes, len(series))

    return plot(name, title, draw, size=(6.4, 4.4), note=note)


def scatter(
    name: str,
    title: str,
    points: Mapping[str, tuple[NDArray[np.floating], Sequence[str], Sequence[str]]],
    *,
    note: str = "",
) -> Plot:
    """Panels of points in two dimensions; colours say one thing of each, marks another.

    Args:
        name: See :func:`plot`.
        title: See :func:`plot`.
        points: By title of the panel: places ``[N, 2]``, and of each point what its colour and its mark stand for.
        note: See :func:`plot`.
    """
    colours = list(dict.fromkeys(word for _, words, _ in points.values() for word in words))
    marks = list(dict.fromkeys(word for _, _, words in points.values() for word in words))

    def draw(axes: Any) -> None:
        figure = axes.figure
        axes.remove()
        panels = figure.subplots(1, len(points), squeeze=False)[0]
        for panel, (heading, (places, colour, mark)) in zip(panels, points.items(), strict=True):
            for i, one in enumerate(colours):
                for j, other in enumerate(marks):
                    chosen = [c == one and m == other for c, m in zip(colour, mark, strict=True)]
                    panel.scatter(*places[chosen].T, s=13, color=COLOURS[i % 8], marker=MARKERS[j % 8], linewidth=0)
            panel.set_title(heading, fontsize=10)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(True)
        handles = [panels[0].scatter([], [], color=COLOURS[i % 8], s=26) for i in range(len(colours))]
        handles += [panels[0].scatter([], [], color=_INK, marker=MARKERS[j % 8], s=26) for j in range(len(marks))]
        figure.legend(handles, [*colours, *marks], loc="outside right center", fontsize=9, frameon=False)

    return plot(name, title, draw, size=(4.6 * len(points) + 1.9, 4.4), note=note)


def timeline(
    name: str,
    title: str,
    rows: Mapping[str, Sequence[tuple[float, float, str]]],
    colours: Mapping[str, str],
    *,
    marks: Sequence[tuple[float, str]] = (),
    note: str = "",
) -> Plot:
    """Spans of time in rows.

    Args:
        name: See :func:`plot`.
        title: See :func:`plot`.
        rows: By name, from the top: ``(start, end, state)`` in seconds.
        colours: By state, in the order of the legend.
        marks: Moments ``(second, word)`` drawn through all rows.
        note: See :func:`plot`.
    """

    def draw(axes: Any) -> None:
        for row, spans in enumerate(rows.values()):
            for state, colour in colours.items():
                pieces = [(start, end - start) for start, end, of in spans if of == state]
                axes.broken_barh(pieces, (row - 0.36, 0.72), color=colour, linewidth=0)
        for second, word in marks:
            axes.axvline(second, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)), alpha=0.6)
            axes.text(second, -0.62, word, fontsize=8, ha="left", va="bottom")
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("time, s")
        patches = require("matplotlib.patches", "Drawing a report")
        handles = [patches.Patch(color=colour, label=state) for state, colour in colours.items()]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)

    return plot(name, title, draw, size=(11.0, 1.2 + 0.36 * len(rows)), note=note)


def _finish(axes: Any, series: int, crowded: bool = False) -> None:
    axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
    if crowded:
        axes.tick_params(axis="x", labelrotation=30)
        for label in axes.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    if series > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
