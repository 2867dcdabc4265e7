#!/usr/bin/env python3
"""Writes the tables of the documents that are made from the code and from the shipped model's figures.

`python tools/doc_tables.py` writes them, `--check` only compares. `--report FILE` first takes what the documents show
from the `report.json` of an evaluation of the shipped model into `docs/figures/report-lite.json`; `--away FILE` takes
that of an evaluation on sources that it was not trained with into `docs/figures/report-lite-away.json`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from omnibind_core import cli, fusion, modalities
from omnibind_core.alignment import CADConfig
from omnibind_core.data import sources
from omnibind_core.data.modality_free.build import BuildConfig, SourceConfig
from omnibind_core.data.modality_free.match_groups import MatchingConfig
from omnibind_core.evaluation.report import check
from omnibind_core.evaluation.report.document import digest, dumps
from omnibind_core.training.config import (
    AlignConfig,
    FuseConfig,
    ImageTextConfig,
    StageConfig,
    StudentConfig,
    TrainConfig,
)
from omnibind_ros import messages

REPO = Path(__file__).resolve().parent.parent
LITE = REPO / "omnibind_core" / "weights" / "lite"
REPORT = REPO / "docs" / "figures" / "report-lite.json"
AWAY = REPORT.with_name("report-lite-away.json")
TRAINED = LITE / "figures.json"
WRONG = ("noise only", "another label")
"""Ways in which a sensor is wrong that documents show."""
KEPT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "targets": lambda row: True,
    "by_size": lambda row: True,
    "noise_any": lambda row: row["kind"] in WRONG,
    "noise_each": lambda row: row["kind"] == "noise only" and row["modalities"] >= 3,
    "calibration": lambda row: row["modalities"] == "any",
    "unknown": lambda row: True,
    "unknown_single": lambda row: row["unknown"] == OUTSIDE,
    "single": lambda row: True,
    "by_source": lambda row: row["size"] == 1,
    "several": lambda row: row["second_is"] == "good",
}
"""Tables of a report, if it has them, that documents show, or that those are computed from, and which of their rows."""
OUTSIDE = "no label of the model"
"""What unknown things are that the data have, not those that were taken away."""
TYPED = "Not checked by a test"
"""Stands on every page with a table of figures that is typed by hand."""
VERSIONS = ("bring_up.md", "jetson.md")
"""Pages whose tables of numbers are of versions."""
_DRAWS = 0.005  # between two figures of thousands of draws from the same samples
_FOUR_DIGITS = 6e-5  # between a figure of four digits and one of five
_NUMBER = re.compile(
    r"[*`]*(?:about |ca\. |[<>≈] ?)?[~+−-]?\d[\d.,]*(?: ?(?:%|ms|s|MB|GB|kB|MiB|points|Hz|of|±|\(|/|to|–|×).*)?"
)
_FILLED = re.compile(r"<!-- table: (\w+) -->.*?<!-- end -->", re.DOTALL)
DOCUMENTS = (*sorted((REPO / "docs").glob("*.md")), REPO / "README.md", LITE / "README.md")


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """The ``Attributes`` section of a Google-style docstring, as Markdown."""
    found: dict[str, str] = {}
    section = (inspect.getdoc(model) or "").partition("Attributes:")[2]
    key = ""
    for line in section.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            key = start[1]
            found[key] = start[2]
        elif line.strip() and key:
            found[key] += " " + line.strip()
    return {key: re.sub(r":\w+:`[~\w.]*?(\w+)`", r"`\1`", text).replace("``", "`") for key, text in found.items()}


def training() -> Iterator[str]:
    """Keys of a training config."""
    yield from keys(
        ("", TrainConfig),
        ("STAGE.", StageConfig),
        ("image_text.", ImageTextConfig),
        ("align.", AlignConfig),
        ("align.per_student.NAME.", StudentConfig),
        ("align.loss.", CADConfig),
        ("fuse.", FuseConfig),
        ("fuse.fusion.", fusion.FusionConfig),
        *((f"fuse.fusion({found.name}).", found.config) for found in fusion.baselines()),
    )


def building() -> Iterator[str]:
    """Keys of a config for building the modality-free data set."""
    yield from keys(("", BuildConfig), ("sources[].", SourceConfig), ("matching.", MatchingConfig))


def published() -> Iterator[str]:
    """The built-in sources."""
    yield row("source", "data set", "modalities", "splits", "use")
    yield row(*["---"] * 5)
    for name in sources.BUILT_IN:
        found = sources.get(name)
        yield row(f"`{name}`", found.title, ", ".join(found.modalities), ", ".join(found.splits), found.licence)


def keys(*parts: tuple[str, type[BaseModel]]) -> Iterator[str]:
    """Keys of configuration models, each with what stands before its keys.

    Those that hold models, and those inherited unchanged from another, are left out.
    """
    yield row("key", "type", "default", "meaning")
    yield row(*["---"] * 4)
    for prefix, model in parts:
        texts = attributes(model)
        for name, field in model.model_fields.items():
            kind = inspect.formatannotation(field.annotation)
            if name not in inspect.get_annotations(model) or re.search(r"\b[A-Z]\w+Config\b", kind):
                continue
            default = "(required)" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
            yield row(f"`{prefix}{name}`", kind.replace("typing.", ""), default, texts[name])


def commands() -> Iterator[str]:
    """Options of every sub-command."""
    yield row("command", "option", "meaning")
    yield row(*["---"] * 3)
    yield from _options(cli.parser(), "omnibind")


def _options(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    inner = None
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = action
        elif not isinstance(action, argparse._HelpAction):
            option = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            if action.option_strings and action.nargs != 0:
                choices = action.dest.upper() if action.choices is None else "|".join(map(str, action.choices))
                option += f" {action.metavar or choices}"
            text = (action.help or "") % {**vars(action), "prog": name}
            yield row(f"`{name}`", f"`{option}`", text)
    if inner is not None:
        for key, sub in inner.choices.items():
            yield from _options(sub, f"{name} {key}")


def launching() -> Iterator[str]:
    """Arguments of the launch file, read from its source: launch comes with a ROS installation only."""
    tree = ast.parse((REPO / "launch" / "perception.launch.py").read_text(encoding="utf-8"))
    yield row("argument", "default", "accepted", "meaning")
    yield row(*["---"] * 4)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DeclareLaunchArgument":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            default = ast.literal_eval(given["default_value"].replace("default_file", "'config/perception.yaml'"))
            choices = ast.literal_eval(given.get("choices", "[]").replace("BOOLEANS", "['true', 'false']"))
            meaning = ast.literal_eval(given["description"])
            name = ast.literal_eval(node.args[0])
            yield row(f"`{name}`", f"`{default}`" if default else "", ", ".join(filter(None, choices)), meaning)


def single() -> Iterator[str]:
    """Validation accuracy of the shipped model, one modality alone."""
    figures = _trained()
    yield row(
        "modality", "samples", f"top-1 of all {figures['labels']} labels", "top-1 of its own labels", "its labels"
    )
    yield row(*["---"] * 5)
    for name, values in figures["single"].items():
        shares = (f"{100 * values[key]:.1f} %" for key in ("top1", "top1_own"))
        yield row(name, str(values["n"]), *shares, str(values["labels_own"]))


def combinations() -> Iterator[str]:
    """Validation accuracy of the shipped model by size of the combination."""
    figures = _trained()
    yield row("modalities", "combinations drawn", "adaptive fusion", "mean fusion", "best single modality")
    yield row(*["---"] * 5)
    for values in figures["combinations"]:
        shares = (f"{100 * values[key]:.1f} %" for key in ("fused", "mean", "best_single"))
        yield row(str(values["modalities"]), str(values["n"]), *shares)


def _trained() -> Any:
    """The figures that training wrote, which the report of the shipped model must bear out.

    Raises:
        SystemExit: It does not.
    """
    figures, tables = json.loads(TRAINED.read_text(encoding="utf-8")), _figures()["tables"]
    wrong = []
    for values in tables["single"]["rows"]:
        told = figures["single"].get(values["modalities"], {})
        # Its own labels are more than those that have validation samples, and fewer than all.
        if values["method"] == "AF" and (
            told.get("n") != values["n"]
            or abs(told["top1"] - values["accuracy"]) > _FOUR_DIGITS
            or not told["top1"] <= told["top1_own"] <= values["accuracy_own"] + _FOUR_DIGITS
        ):
            wrong.append(values["modalities"])
    drawn = {values["modalities"]: values for values in figures["combinations"]}
    for values in tables["by_size"]["rows"]:
        key = {"AF": "fused", "Mean": "mean", "best single": "best_single"}.get(values["method"])
        told = drawn.get(values["modalities"])
        low, high = values["interval"]
        if key and told and not low - _DRAWS <= told[key] <= high + _DRAWS:
            wrong.append(f"{values['modalities']} modalities, {key}")
    if wrong:
        raise SystemExit(f"{TRAINED}: {', '.join(wrong)}: the report of the model says otherwise")
    return figures


def _figures() -> Any:
    return _read(REPORT)


def _read(path: Path) -> Any:
    """A report whose figures are those that it was written with.

    Raises:
        SystemExit: They are not.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    if found := check.faults(report):
        raise SystemExit(f"{path} was changed: " + "; ".join(found[:5]))
    return report


def trust() -> Iterator[str]:
    """What is aimed at and what was measured, of the shipped model."""
    rows = _figures()["tables"]["targets"]["rows"]
    yield row("aim", "where", "target", "measured", "mean fusion", "probes, fused late", "met")
    yield row(*["---"] * 7)
    for values in rows:
        keys = ("goal", "condition", "target", "measured", "mean", "probes", "verdict")
        yield row(*(values[key] or "" for key in keys))


def methods() -> Iterator[str]:
    """Accuracy of every method by the number of modalities, clean and with one wrong sensor."""
    tables = _figures()["tables"]
    clean = tables["by_size"]["rows"]
    wrong = tables["noise_any"]["rows"]
    sizes = sorted({values["modalities"] for values in clean if values["modalities"] > 1})
    head = [f"{size} modalities, labels: {_labels_of(clean, size)}" for size in sizes]
    yield row("one sensor is", "method", *head)
    yield row(*["---"] * (2 + len(sizes)))
    kinds = {"right": clean, **{kind: [values for values in wrong if values["kind"] == kind] for kind in WRONG}}
    for kind, rows in kinds.items():
        for method in dict.fromkeys(values["method"] for values in rows):
            cells = {values["modalities"]: values for values in rows if values["method"] == method}
            yield row(kind, method, *(_share(cells.get(size)) for size in sizes))


def _labels_of(rows: Sequence[dict[str, Any]], size: int) -> int:
    """How many labels have so many modalities."""
    return max(int(values["labels"]) for values in rows if values["modalities"] == size)


def _share(values: dict[str, Any] | None) -> str:
    if values is None:
        return ""
    low, high = values["interval"]
    return f"{100 * values['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def away() -> Iterator[str]:
    """The shipped model at home, on sources that it was trained with, and away from them."""
    reports = [_read(path) if path.is_file() else None for path in (REPORT, AWAY)]
    tables = [{} if report is None else report["tables"] for report in reports]
    yield row("what", "method", "labels, home", "home", "labels, away", "away")
    yield row(*["---"] * 6)
    for what, method, found in _compared(tables):
        yield row(what, method, *(cell for values, shown in found for cell in (_rests(values), shown)))


def by_source() -> Iterator[str]:
    """The shipped model on single sensors away from home, source by source."""
    yield row("modality", "source", "n", "labels", "AF", "Probes", "mean confidence", "ECE")
    yield row(*["---"] * 8)
    for values in _read(AWAY)["tables"]["by_source"]["rows"] if AWAY.is_file() else ():
        yield row(
            *(str(values[key]).replace("_", " ") for key in ("modalities", "source", "n")),
            _rests(values),
            _share(values),
            "" if values["probes"] is None else f"{100 * values['probes']:.1f} %",
            f"{values['confidence']:.2f}",
            f"{values['ece']:.3f}",
        )


Cells = list[tuple[dict[str, Any] | None, str]]


def _compared(tables: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, Cells]]:
    """What stands in several reports, or one of them: what it is, the method, and the row and the figure of each."""

    def rows(name: str, key: str, kept: Callable[[dict[str, Any]], bool] = lambda row: True) -> list[dict[Any, Any]]:
        every = [table[name]["rows"] if name in table else [] for table in tables]
        return [{(values[key], values["method"]): values for values in part if kept(values)} for part in every]

    def cells(parts: list[dict[Any, Any]], key: Any, show: Callable[[dict[str, Any] | None], str]) -> Cells:
        return [(part.get(key), show(part.get(key))) for part in parts]

    single = rows("single", "modalities", lambda values: values["method"] == "AF")
    for key in dict.fromkeys(key for part in single for key in part):
        yield f"{key[0].replace('_', ' ')} alone, accuracy", "AF", cells(single, key, _share)
    sizes = rows("by_size", "modalities", lambda values: values["method"] in ("AF", "Mean", "Probes", "best single"))
    for key in sorted({key for part in sizes for key in part if key[0] <= 3}):
        yield f"{_sized(key[0])}, accuracy", key[1], cells(sizes, key, _share)
    errors = rows("calibration", "size", lambda values: values["method"] == "AF" and values["modalities"] == "any")
    for key in sorted({key for part in errors for key in part if key[0] <= 3}):
        yield (
            f"{_sized(key[0])}, calibration error (ECE)",
            "AF",
            cells(errors, key, lambda x: _number(x, "ece", "ece_interval")),
        )
    things = rows("unknown", "modalities", lambda values: values["method"] == "AF" and values["unknown"] == OUTSIDE)
    for key in sorted({key for part in things for key in part}):
        yield (
            f"{_sized(key[0])}, unknown things (AUROC)",
            "AF",
            cells(things, key, lambda x: _number(x, "auroc", "interval")),
        )


def _sized(size: int) -> str:
    return "one sensor" if size == 1 else f"{size} modalities"


def _rests(values: dict[str, Any] | None) -> str:
    """How many labels a figure rests on; of unknown things, how many those are."""
    if values is None:
        return ""
    count = values.get("labels_unknown", values.get("labels"))
    return "" if count is None else "one" if count == 1 else str(count)


def _number(values: dict[str, Any] | None, key: str, bounds: str) -> str:
    if values is None:
        return ""
    low, high = values[bounds]
    return f"{values[key]:.3f} ({low:.3f} to {high:.3f})"


def take_report(path: Path, kept_in: Path = REPORT) -> None:
    """Keeps the tables that documents show, and what they can be checked by, small enough to be committed."""
    report = _read(path)
    report["facts"]["digest of the report"] = report["digest"]
    report["tables"] = {name: report["tables"][name] for name in KEPT if name in report["tables"]}
    for name, table in report["tables"].items():
        table["rows"] = [values for values in table["rows"] if KEPT[name](values)]
    report["sections"] = []
    report["digest"] = digest(report)
    kept_in.parent.mkdir(parents=True, exist_ok=True)
    kept_in.write_text(dumps(report), encoding="utf-8")


def accepted() -> Iterator[str]:
    """Message types that a sensor of each modality may have."""
    yield row("modality", "message types, preferred ones first")
    yield row(*["---"] * 2)
    for modality in modalities.NAMES:
        yield row(modality, ", ".join(f"`{name}`" for name in messages.types_for(modality)))


def encodings() -> Iterator[str]:
    """Encodings inside these messages."""
    kinds = {
        "pixels of `sensor_msgs/msg/Image`": messages.pictures.ENCODINGS,
        "events of `event_camera_msgs/msg/EventPacket`": messages.events.ENCODINGS,
        "the same, where event_camera_py is installed": messages.events.BY_PACKAGE,
        "samples of `audio_common_msgs/msg/AudioData`": messages.SAMPLE_FORMATS,
    }
    yield row("what", "encodings")
    yield row(*["---"] * 2)
    for kind, names in kinds.items():
        yield row(kind, ", ".join(f"`{name}`" for name in names))


def formats() -> Iterator[str]:
    """Files that every modality reads, and the optional packages of them."""
    yield row("modality", "files")
    yield row(*["---"] * 2)
    for modality in modalities.NAMES:
        yield row(modality, re.sub(r"\.\w+", r"`\g<0>`", modalities.get(modality).formats()))


def units() -> Iterator[str]:
    """What tells the meaning of numbers."""
    yield row("modality", "unit", "meaning")
    yield row(*["---"] * 3)
    for modality in modalities.NAMES:
        for name, meaning in modalities.get(modality).units.items():
            yield row(modality, f"`{name}`", meaning)


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "training": training,
    "building": building,
    "sources": published,
    "cli": commands,
    "formats": formats,
    "units": units,
    "launch": launching,
    "accepted": accepted,
    "encodings": encodings,
    "single": single,
    "combinations": combinations,
    "trust": trust,
    "methods": methods,
    "away": away,
    "by_source": by_source,
}


def render(text: str) -> str:
    """The document with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n" + "\n".join(TABLES[match[1]]()) + "\n\n<!-- end -->"

    return _FILLED.sub(fill, text)


def typed(text: str) -> list[str]:
    """Headings of the tables of figures that are typed by hand: two numbers, or one of percent, in half of the rows."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", _FILLED.sub("", text), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().split("\n")]
        numbers = [[cell for cell in cells if _NUMBER.fullmatch(cell)] for cells in rows]
        full = sum(len(found) > 1 or any("%" in cell for cell in found) for found in numbers)
        if rows and 2 * full >= len(rows):
            found.append(" | ".join(head))
    return found


def main() -> int:
    """Writes or checks every document."""
    if "--report" in sys.argv[1:]:
        take_report(Path(sys.argv[sys.argv.index("--report") + 1]))
    if "--away" in sys.argv[1:]:
        take_report(Path(sys.argv[sys.argv.index("--away") + 1]), AWAY)
    stale = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        wanted = render(text)
        if typed(text) and TYPED not in text and path.name not in VERSIONS:
            stale.append(f"{path.name} (has typed figures, and does not say '{TYPED}')")
        if wanted != text:
            stale.append(path.name)
            if "--check" not in sys.argv[1:]:
                path.write_text(wanted, encoding="utf-8")
    print(f"{'stale' if '--check' in sys.argv[1:] else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
