"""A report of tables and plots: one HTML file that opens without a server, the same as JSON, and each table as CSV.

The JSON has the schema :data:`SCHEMA`, described in ``docs/evaluation.md``. Nothing in it depends on when or where the
report was written, so that the same evaluation gives the same bytes.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omnibind_core import resources
from omnibind_core.errors import ConfigError
from omnibind_core.files import write_atomically, write_folder_atomically
from omnibind_core.labels import UNSEEN
from omnibind_core.optional import require

SCHEMA = "omnibind-report/1"
"""Name and version of the layout of ``report.json``; the version changes when a reader of the old one would fail."""
FILES = ("report.html", "report.json", "tables")
"""What :meth:`Report.write` leaves in the folder."""

Row = Mapping[str, Any]
Format = Literal["text", "count", "labels", "number", "share", "points", "seconds", "flag"]
ONE_LABEL = "one label"
"""What is said of a figure that rests on a single label, whatever its interval."""
_DIGITS = 5  # of numbers in JSON and CSV
_FORMULA = tuple("=+-@\t\r")  # what a spreadsheet begins a formula with
_MARKS = dict.fromkeys(set(UNSEEN) - set(map(ord, "\t\n\r")), "\ufffd")
_INTERVAL = "interval"
_OURS = ("report.json", "report.html", "tables")
_TEMPLATE = resources.path("evaluation/report/report.html.j2")


@dataclass(frozen=True)
class Column:
    """How a column of a table is shown to people. JSON and CSV have every key of the rows as it is.

    Attributes:
        key: Of the rows.
        title: Its heading, with the unit.
        format: ``"text"``, ``"count"`` (a whole number), ``"labels"`` (how many
            labels a figure rests on, which is said of one), ``"number"``, ``"share"`` (0..1, shown in percent),
            ``"points"`` (a difference of shares, shown in percentage points with its sign), ``"seconds"`` or
            ``"flag"`` (yes or no).
        interval: Key of ``[low, high]`` in the same unit, shown behind the value; empty for none.
    """

    key: str
    title: str
    format: Format = "text"
    interval: str = ""


SHARE = Column("accuracy", "accuracy, %", "share", _INTERVAL)
"""The column that most tables have: accuracy with its 95 % interval."""


@dataclass(frozen=True)
class Table:
    """Rows of figures.

    Attributes:
        name: Name of its CSV file and key in the JSON: letters, digits, underscores.
        title: What it shows.
        rows: One mapping per row; values are strings, numbers, booleans, None, or ``[low, high]`` of an interval.
        columns: What the HTML shows of the rows; empty shows all keys of the first row.
        note: How to read it, in one or two sentences.
        folded: Whether the HTML shows it only when asked, since it is long.
    """

    name: str
    title: str
    rows: Sequence[Row]
    columns: Sequence[Column] = ()
    note: str = ""
    folded: bool = False

    def shown(self) -> tuple[Column, ...]:
        """The columns of the HTML."""
        if self.columns or not self.rows:
            return tuple(self.columns)
        return tuple(
            Column(key, key.replace("_", " "), "labels" if key == "labels" else _guess(value))
            for key, value in self.rows[0].items()
        )


@dataclass(frozen=True)
class Plot:
    """A picture.

    Attributes:
        name: Unique in the report.
        title: What it shows; also what a screen reader says.
        data: An SVG or PNG file.
        note: How to read it.
    """

    name: str
    title: str
    data: bytes = field(repr=False)
    note: str = ""

    @property
    def markup(self) -> str:
        """HTML of the picture."""
        if self.data.startswith(b"\x89PNG"):
            code = base64.b64encode(self.data).decode("ascii")
            return f'<img alt="{_attribute(self.title)}" src="data:image/png;base64,{code}">'
        text = self.data.decode("utf-8")
        return text[text.index("<svg") :]


@dataclass(frozen=True)
class Section:
    """A chapter.

    Attributes:
        title: Its heading.
        text: Paragraphs, with an empty line between.
        parts: Tables and plots, in the order they are shown.
    """

    title: str
    text: str = ""
    parts: Sequence[Table | Plot] = ()

    @property
    def anchor(self) -> str:
        """What the contents list links to."""
        return "".join(char if char.isalnum() else "-" for char in self.title.lower())


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation found.

    Attributes:
        kind: ``"evaluation"`` or ``"bag"``.
        title: Heading of the page.
        facts: What was evaluated, by name: model, data, number of samples, seeds.
        sections: The chapters.
    """

    kind: str
    title: str
    facts: Mapping[str, Any]
    sections: Sequence[Section]

    def tables(self) -> dict[str, Table]:
        """All tables by name.

        Raises:
            ConfigError: Two tables or plots have the same name, or a table's is no file name.
        """
        found: dict[str, Table] = {}
        names: set[str] = set()
        for part in (part for section in self.sections for part in section.parts):
            if part.name in names or not part.name.replace("_", "").isalnum():
                raise ConfigError(f"report: '{part.name}' is the name of two parts, or not of letters, digits and _")
            names.add(part.name)
            if isinstance(part, Table):
                found[part.name] = part
        return found

    def to_dict(self) -> dict[str, Any]:
        """The content of ``report.json``."""
        sections = []
        for section in self.sections:
            parts = [part.name for part in section.parts if isinstance(part, Table)]
            sections.append({"title": section.title, "text": section.text, "tables": parts})
        tables = {}
        for name, table in self.tables().items():
            columns = [dataclasses.asdict(column) for column in table.shown()]
            rows = [_plain(row) for row in table.rows]
            tables[name] = {"title": table.title, "note": table.note, "columns": columns, "rows": rows}
        content = {
            "schema": SCHEMA,
            "kind": self.kind,
            "title": self.title,
            "facts": _plain(self.facts),
            "sections": sections,
            "tables": tables,
        }
        return {**content, "digest": digest(content)}

    def html(self) -> str:
        """The page, with everything that it shows inside.

        Raises:
            MissingDependencyError: Jinja2 is not installed.
        """
        jinja = require("jinja2", "Writing a report as HTML")
        environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["cell"] = _cell
        environment.tests["table"] = lambda part: isinstance(part, Table)
        page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
        return without_marks(page.render(report=self, schema=SCHEMA))

    def write(self, folder: Path) -> Path:
        """Writes ``report.html``, ``report.json`` and ``tables/NAME.csv``; files of an older report are replaced, all
        or none.

        Returns:
            The HTML file.

        Raises:
            ConfigError: The folder is a file, or the report contradicts itself.
            MissingDependencyError: Jinja2 is not installed.
        """
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file, expected a folder for the report, or none")
        page, tables = self.html(), self.tables()
        old = folder / "tables"
        with write_folder_atomically(folder, _OURS, keep=True) as fresh:
            if old.is_dir():  # what others put there stays
                shutil.copytree(old, fresh / "tables", ignore=shutil.ignore_patterns("*.csv"))
            self._fill(fresh, page, tables)
        return folder / "report.html"

    def _fill(self, folder: Path, page: str, tables: Mapping[str, Table]) -> None:
        (folder / "tables").mkdir(exist_ok=True)
        for name, table in tables.items():
            _write_csv(folder / "tables" / f"{name}.csv", table)
        _write(folder / "report.json", dumps(self.to_dict()))
        _write(folder / "report.html", page)


def digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a ``report.json``, but of the digest in it; a changed figure changes it."""
    content = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def dumps(data: Mapping[str, Any]) -> str:
    """JSON as the report has it: readable, a row of a table on one line."""
    tables = []
    for name, table in data["tables"].items():
        head = json.dumps({key: value for key, value in table.items() if key != "rows"}, ensure_ascii=False)
        rows = ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in table["rows"])
        tables.append(f'  {json.dumps(name)}: {head[:-1]}, "rows": [\n   {rows}]}}')
    rest = json.dumps({key: value for key, value in data.items() if key != "tables"}, indent=1, ensure_ascii=False)
    return rest[:-2] + ',\n "tables": {\n' + ",\n".join(tables) + "}\n}\n"


def flatten(row: Row) -> dict[str, Any]:
    """A row with one plain value for each key, as CSV has it: ``interval`` becomes ``interval_low, interval_high``."""
    flat: dict[str, Any] = {}
    for key, value in _plain(row).items():
        if isinstance(value, list) and len(value) == 2:
            flat[f"{key}_low"], flat[f"{key}_high"] = value
        else:
            flat[key] = value
    return flat


def _write_csv(path: Path, table: Table) -> None:
    rows = [flatten(row) for row in table.rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: neutral(value) for key, value in row.items()} for row in rows)


def neutral(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: words that would begin one get an apostrophe before them."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA and len(value) > 1 else value


def without_marks(text: str) -> str:
    """Text or markup without characters that XML does not allow, or that turn the direction of what follows."""
    return text.translate(_MARKS)


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    """The value as JSON has it: rounded, without NaN, NumPy's scalars as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0 if math.isfinite(value) else None
    return value


def _guess(value: Any) -> Format:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "count"
    return "number" if isinstance(value, float) else "text"


def _cell(row: Row, column: Column) -> str:
    """What the HTML shows in a cell."""
    value = _plain(row.get(column.key))
    text = _show(value, column.format)
    bounds = _plain(row.get(column.interval)) if column.interval else None
    if bounds is None or None in bounds or value is None:
        return text
    low, high = (_show(bound, column.format) for bound in bounds)
    return f"{text} ({low} to {high})"


def _show(value: Any, style: Format) -> str:
    if value is None:
        return "–"
    if style == "flag":
        return "yes" if value else "no"
    if isinstance(value, str) or style == "text":
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if style == "labels" and value == 1:
        return ONE_LABEL
    if style in ("count", "labels"):
        return f"{value:,}"
    if style in ("share", "points"):
        return f"{100 * value:{'+' if style == 'points' else ''}.1f}"
    return f"{value:.2f}" if style == "seconds" else f"{value:.3f}"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
