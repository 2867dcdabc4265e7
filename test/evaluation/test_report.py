"""Reports: what stands in the page, the JSON and the CSV files, and that all of it is the same twice."""

from __future__ import annotations

import csv
import html.parser
import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from omnibind_core.data.damage import NOISE
from omnibind_core.errors import ConfigError
from omnibind_core.evaluation.report import check, document, plots
from omnibind_core.evaluation.report.document import (
    SCHEMA,
    SHARE,
    Column,
    Plot,
    Report,
    Section,
    Table,
    digest,
    dumps,
    flatten,
)
from omnibind_core.evaluation.report.text import summary

ROWS = [
    {"modalities": "image+audio", "method": "AF", "n": 1200, "accuracy": 0.9526, "interval": (0.94, 0.963)},
    {"modalities": "image+audio", "method": "Mean", "n": 1200, "accuracy": float("nan"), "interval": None},
]
COLUMNS = (Column("modalities", "modalities"), Column("method", "method"), Column("n", "n", "count"), SHARE)


def pictures():
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    places = rng.normal(size=(6, 2))
    return [
        plots.bars("bars", "Bars", ["2", "3"], {"AF": [(0.9, (0.8, 0.95)), None], "Mean": [(0.8, None)] * 2}, "%"),
        plots.lines("lines", "Lines", {"AF": [(1, 0.9, (0.8, 0.95)), (2, 0.95, (0.9, 1.0))]}, ("x", "y")),
        plots.heat_map("heat", "Heat <map>", ["a"], ["b", "c"], np.array([[0.1, np.nan]]), "points"),
        plots.reliability("rel", "Reliability", {"AF": [(0.5, 0.4, 10), (0.9, 0.95, 90)]}),
        plots.scatter("scatter", "Scatter", {"before": (places, ["cup", "dog"] * 3, ["image", "audio", "audio"] * 2)}),
        plots.timeline("time", "Time", {"camera": [(0, 3, "alive")]}, {"alive": "#0072B2"}, marks=[(1, "killed")]),
    ]


def example(parts=None):
    table = Table("pairs", "Pairs", ROWS, COLUMNS, "A note with <angle> brackets.")
    long = Table("long_one", "Long", [{"label": "cup", "right": True, "value": 0.25}] * 3, folded=True)
    facts = {"model": "lite@1", "samples": 12, "modalities": ["image", "audio"]}
    parts = pictures() if parts is None else parts
    sections = [Section("One", "First.\n\nSecond.", [table]), Section("Two", "", [long, *parts])]
    return Report("evaluation", "Evaluation", facts, sections)


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.ids = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids.add(attrs.get("id"))
        self.links += [attrs[key] for key in ("href", "src", "xlink:href") if key in attrs]

    def handle_data(self, data):
        self.cells.append(data.strip())


def test_page(tmp_path):
    pytest.importorskip("jinja2")
    path = example().write(tmp_path / "report")
    assert path == tmp_path / "report" / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert "95.3 (94.0 to 96.3)" in page.cells
    assert "1,200" in page.cells
    assert "–" in page.cells
    assert "yes" in page.cells
    assert "A note with <angle> brackets." in page.cells
    assert page.tags.count("svg") == 6
    assert "details" in page.tags
    assert "script" not in page.tags


def test_page_needs_nothing_else(tmp_path):
    pytest.importorskip("jinja2")
    text = example().write(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    for link in page.links:
        assert link.startswith(("#", "data:")), link
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert {"one", "two"} <= anchors <= page.ids
    assert "url(http" not in text
    assert "@import" not in text


def test_json(tmp_path):
    pytest.importorskip("jinja2")
    report = example([])
    report.write(tmp_path)
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["schema"] == SCHEMA == "omnibind-report/1"
    assert data["kind"] == "evaluation"
    assert data["facts"] == {"model": "lite@1", "samples": 12, "modalities": ["image", "audio"]}
    assert [section["tables"] for section in data["sections"]] == [["pairs"], ["long_one"]]
    assert data["tables"]["pairs"]["rows"][0] == {**ROWS[0], "interval": [0.94, 0.963]}
    assert data["tables"]["pairs"]["rows"][1]["accuracy"] is None
    assert data["tables"]["pairs"]["columns"][3] == {
        "key": "accuracy",
        "title": "accuracy, %",
        "format": "share",
        "interval": "interval",
    }


def whole(repo):
    return json.loads((repo / "docs" / "figures" / "report-lite.json").read_text(encoding="utf-8"))


def test_a_report_is_as_it_was_written(repo):
    report = example([]).to_dict()
    assert check.faults(json.loads(dumps(report))) == []
    assert check.faults(whole(repo)) == []
    report["facts"]["samples"] = 13
    assert check.faults(report) == ["the digest is not that of the content"]
    del report["digest"]
    assert check.faults(report) == ["the digest is not that of the content"]


@pytest.mark.parametrize(
    ("table", "row", "change", "message"),
    [
        ("by_size", 0, {"accuracy": 0.9}, ""),
        ("by_size", 0, {"accuracy": 0.89777}, "is no share of 2000 answers"),
        ("by_size", 0, {"accuracy": 0.99}, "lies outside of its interval"),
        ("by_size", 0, {"macro": 1.2}, "macro is 1.2, expected 0 to 1"),
        ("noise_any", 0, {"cost": -0.01}, "cost -0.01 is not 0.903 less 0.991"),
        ("targets", 0, {"measured": "99.5 % (96.3 to 99.8)"}, "measured is '99.5 %"),
        ("targets", 0, {"met": True}, "it is not met as the tables say"),
        ("targets", 0, {"condition": "9 modalities"}, "is missing"),
    ],
)
def test_a_changed_report_is_noticed(repo, table, row, change, message):
    report = whole(repo)
    report["tables"][table]["rows"][row].update(change)
    assert check.faults(report)[0] == "the digest is not that of the content"
    report["digest"] = digest(report)  # by someone who knows how
    found = check.faults(report)
    assert any(message in fault for fault in found) if message else not found


def test_targets_of_a_whole_report_are_all_computed_again(repo):
    report = whole(repo)
    tables = report["tables"]
    given = [row for row in tables["targets"]["rows"] if row["goal"].startswith("nothing wrong")]
    for name in ("noise_each", "calibration", "unknown", "several"):
        tables[name] = {"rows": []}
    tables["targets"]["rows"] = [*given, *(row for row in tables["targets"]["rows"] if "another label" in row["goal"])]
    report["digest"] = digest(report)
    assert check.faults(report) == []
    tables["targets"]["rows"].append({**given[0], "goal": "made up"})
    report["digest"] = digest(report)
    assert check.faults(report) == ["the targets are not those that the tables give"]


@pytest.fixture
def tables(repo, monkeypatch):
    """The script tools/doc_tables.py."""
    spec = importlib.util.spec_from_file_location("doc_tables", repo / "tools" / "doc_tables.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "doc_tables", script)
    spec.loader.exec_module(script)
    return script


def test_home_and_away_stand_side_by_side(tables, tmp_path, monkeypatch):
    def rows(share, labels):
        interval = [share - 0.1, share + 0.1]
        plain = {"method": "AF", "labels": labels, "n": 10, "accuracy": share, "interval": interval}
        outside = {**plain, "unknown": "no label of the model", "labels_unknown": 3, "auroc": share}
        return {
            "single": [{**plain, "modalities": "point_cloud"}],
            "by_size": [{**plain, "modalities": size} for size in (1, 2, 4)],
            "calibration": [{**plain, "size": 1, "modalities": "any", "ece": share, "ece_interval": interval}],
            "unknown": [{**outside, "modalities": 1}, {**outside, "modalities": 1, "unknown": "labels taken away"}],
        }

    for name, share, labels in (("REPORT", 0.8, 9), ("AWAY", 0.4, 1)):
        parts = [Table(key, key, part) for key, part in rows(share, labels).items()]
        (tmp_path / name).mkdir()
        report = Report("evaluation", name, {}, [Section("One", "", parts)]).to_dict()
        (tmp_path / name / "report.json").write_text(dumps(report))
        monkeypatch.setattr(tables, name, tmp_path / name / "kept.json")
        tables.take_report(tmp_path / name / "report.json", tmp_path / name / "kept.json")
    assert [*tables.away()][2:] == [
        "| point cloud alone, accuracy | AF | 9 | 80.0 % (70.0 to 90.0) | one | 40.0 % (30.0 to 50.0) |",
        "| one sensor, accuracy | AF | 9 | 80.0 % (70.0 to 90.0) | one | 40.0 % (30.0 to 50.0) |",
        "| 2 modalities, accuracy | AF | 9 | 80.0 % (70.0 to 90.0) | one | 40.0 % (30.0 to 50.0) |",
        "| one sensor, calibration error (ECE) | AF | 9 | 0.800 (0.700 to 0.900) | one | 0.400 (0.300 to 0.500) |",
        "| one sensor, unknown things (AUROC) | AF | 3 | 0.800 (0.700 to 0.900) | 3 | 0.400 (0.300 to 0.500) |",
    ]
    (tmp_path / "AWAY" / "kept.json").unlink()
    assert [*tables.away()][2].endswith("| 9 | 80.0 % (70.0 to 90.0) |  |  |")


def test_typed_tables_are_told_from_written_ones(tables):
    figures = "| method | 2 | 3 |\n|---|---|---|\n| AF | 98.5 ± 0.2 | 99 % |\n"
    assert tables.typed(figures) == ["method | 2 | 3"]
    assert tables.typed(f"<!-- table: methods -->\n\n{figures}\n<!-- end -->") == []
    assert tables.typed("| key | meaning |\n|---|---|\n| `n` | 3 of them |\n") == []
    for cell in ("99.9 %", "about 99.9 %", "ca. 99.8 %", "<9 %", "~97 % of labels"):
        assert tables.typed(f"| method | clean |\n|---|---|\n| AF | {cell} |\n") == ["method | clean"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["single"]["point_cloud"].update(top1=0.987), "point_cloud: the report"),
        (lambda told: told["single"]["touch"].update(n=133), "touch: the report"),
        (lambda told: told["single"]["image"].update(top1_own=0.99), "image: the report"),
        (lambda told: told["single"].pop("audio"), "audio: the report"),
        (lambda told: told["combinations"][0].update(fused=0.991), "1 modalities, fused: the report"),
        (lambda told: told["combinations"][1].update(best_single=0.5), "2 modalities, best_single: the report"),
    ],
    ids=["single", "n", "own", "missing", "fused", "best"],
)
def test_figures_of_training_must_agree_with_the_report(tables, tmp_path, monkeypatch, change, message):
    told = json.loads(tables.TRAINED.read_text())
    assert [*tables.single()] and [*tables.combinations()]
    change(told)
    monkeypatch.setattr(tables, "TRAINED", tmp_path / "figures.json")
    tables.TRAINED.write_text(json.dumps(told))
    for make in (tables.single, tables.combinations):
        with pytest.raises(SystemExit, match=message):
            [*make()]


def test_json_without_tables():
    empty = Report("evaluation", "Nothing", {}, [])
    assert json.loads(dumps(empty.to_dict()))["tables"] == {}


def test_csv(tmp_path):
    pytest.importorskip("jinja2")
    example([]).write(tmp_path)
    with (tmp_path / "tables" / "pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["interval_low"] == "0.94"
    assert rows[0]["interval_high"] == "0.963"
    assert rows[1]["accuracy"] == ""


def test_a_figure_on_one_label_says_so():
    table = Table("few", "Few", [{"n": 9, "labels": 1}, {"n": 9, "labels": 12}])
    page = Report("evaluation", "One", {}, [Section("One", "", [table])]).html()
    assert page.count(">one label<") == 1 and ">12<" in page
    assert [column.format for column in table.shown()] == ["count", "labels"]


def test_flatten_numpy():
    assert flatten({"n": np.int64(3), "interval": (np.float32(0.5), None)}) == {
        "n": 3,
        "interval_low": 0.5,
        "interval_high": None,
    }


def test_written_again(tmp_path):
    pytest.importorskip("jinja2")
    example().write(tmp_path / "one")
    example().write(tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_old_tables_are_removed(tmp_path):
    pytest.importorskip("jinja2")
    example([]).write(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    Report("evaluation", "Less", {}, [Section("One", "", [Table("pairs", "Pairs", ROWS)])]).write(tmp_path)
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["pairs.csv"]
    assert (tmp_path / "notes.txt").is_file()


def test_a_report_is_replaced_as_one_or_stays(tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    folder = tmp_path / "report"
    example([]).write(folder)
    (folder / "tables" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    less = Report("evaluation", "Less", {}, [Section("One", "", [Table("pairs", "Pairs", ROWS)])])
    with monkeypatch.context() as patch:
        patch.setattr(document, "dumps", lambda data: 1 / 0)  # after the tables
        with pytest.raises(ZeroDivisionError):
            less.write(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    less.write(folder)
    assert sorted(path.name for path in (folder / "tables").iterdir()) == ["notes.txt", "pairs.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_report_may_go_where_one_works(tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    example([]).write(Path())
    example([]).write(Path())
    assert Path("report.html").is_file() and tmp_path.samefile(Path.cwd())


def test_plots_are_well_formed_and_take_the_colour_of_the_page():
    for plot in pictures():
        root = ElementTree.fromstring(plot.data)
        assert root.attrib["aria-label"] == plot.title
        text = plot.data.decode()
        assert "currentColor" in text
        assert "#12345e" not in text
        assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\dT", text)


def test_png():
    plot = Plot("thumb", 'A "picture"', b"\x89PNG\r\n...")
    assert plot.markup.startswith('<img alt="A &quot;picture&quot;" src="data:image/png;base64,')


@pytest.mark.parametrize("names", [("a", "a"), ("a b", "c"), ("../a", "c")])
def test_bad_names(names):
    parts = [Table(name, name, ROWS) for name in names]
    with pytest.raises(ConfigError, match="is the name of two parts, or not of letters"):
        Report("evaluation", "Bad", {}, [Section("One", "", parts)]).tables()


def test_folder_is_a_file(tmp_path):
    pytest.importorskip("jinja2")
    (tmp_path / "report").write_text("")
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        example([]).write(tmp_path / "report")


def test_the_terminal_shows_the_papers_tables():
    """A column for each method or modality; what one label says, and what the data do not have, is said."""

    def row(paper, modalities, method, labels, accuracy, **more):
        n = 9 if labels else 0
        return {"paper": paper, "modalities": modalities, "text": "", "method": method, "n": n, "labels": labels} | (
            {"accuracy": accuracy} | more
        )

    named = [row("C1", "a+b", "AF", 1, 0.5), row("C1", "a+b", "Mean", 1, 0.25), row("C5", "a+c", "AF", 0, None)]
    noise = [
        row("C1", "a+b", method, 2, 0.5, wrong=wrong, kind=kind, cost=cost)
        for method, wrong, kind, cost in [
            ("AF", "a", NOISE, -0.1),
            ("AF", "b", NOISE, 0.05),
            ("AF", "b", "blank", -0.7),
            ("Mean", "b", NOISE, -0.8),
        ]
    ]
    any_one = [row("", 2, "AF", 3, value, kind=kind) for value, kind in ((0.75, NOISE), (0.1, "blank"))]
    tables = [Table("paper_combinations", "Named", named), Table("paper_noise", "Noise", noise)]
    tables += [Table("noise_any", "Any", any_one), Table("confusions", "Not shown", ROWS)]
    lines = [
        line.split() for line in summary(Report("evaluation", "R", {"n": 3}, [Section("S", "", tables)])).splitlines()
    ]
    assert lines == [
        ["R"],
        [],
        ["n:", "3"],
        [],
        ["Named:"],
        ["modalities", "the", "text", "labels", "AF,", "%", "Mean,", "%"],
        ["C1", "a+b", "one", "label", "50.0", "25.0"],
        ["C5", "a+c", "none", "in", "these", "data"],
        [],
        ["Noise:"],
        ["modalities", "the", "text", "labels", "a,", "points", "b,", "points"],
        ["C1", "a+b", "2", "-10.0", "+5.0"],
        [],
        ["Any:"],
        ["accuracy,", "%", "2"],
        ["AF", "75.0"],
    ]
