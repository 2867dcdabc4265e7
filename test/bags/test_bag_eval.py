"""``omnibind bag make`` and ``omnibind bag eval`` on real sensor data, from the command line to the report."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from omnibind_core import OmniBind, cli
from omnibind_ros.messages import STRING

rosbag2 = pytest.importorskip("rosbags.rosbag2")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from omnibind_ros.bags import read, scene_bag, types, write  # noqa: E402
from omnibind_ros.replay import batch  # noqa: E402
from omnibind_ros.replay.evaluation import Options, evaluate  # noqa: E402

S = 1_000_000_000


def omnibind(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture(scope="module")
def demo(shared_data, tmp_path_factory):
    """Two scenes of 2 s, in each of which a sensor goes away, made from recorded samples."""
    path = tmp_path_factory.mktemp("demo") / "demo"
    assert (
        omnibind("bag", "make", "--data", shared_data, "--out", path, "--scenes", 2, "--seconds", 2, "--away", 1) == 0
    )
    return path


@pytest.fixture(scope="module")
def evaluated(demo, tmp_path_factory):
    """The report of it, with every what-if."""
    out = tmp_path_factory.mktemp("report")
    arguments = ["--drop", "cam@1:", "--noise", "camera@:1", "--delay", "camera=0.3", "--rate", "camera=2.5"]
    assert omnibind("bag", "eval", demo, "--out", out, "--ablate", "all", *arguments) == 0
    return out


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    """Ticks that wait for nothing."""
    path = tmp_path_factory.mktemp("parameters") / "p.yaml"
    path.write_text("/**: {ros__parameters: {max_wait: 0.0, thermal: {scale: 0.01, offset: -273.15}}}\n")
    return path


def tables(out):
    return {name: one["rows"] for name, one in json.loads((out / "report.json").read_text())["tables"].items()}


def test_a_made_bag_says_what_is_in_it(demo):
    rows = scene_bag.read_labels(demo / "truth.csv")
    assert [(row.start_s, row.end_s) for row in rows] == [(0, 2), (2, 4)]
    held = {(item.topic, int((item.time_ns - scene_bag.EPOCH_NS) // (2 * S))) for item in read.messages(demo)}
    for number, row in enumerate(rows):
        assert {scene_bag.SENSORS[name].topic for name in row.sensors} == {topic for topic, of in held if of == number}
    silent = 0
    for number, row in enumerate(rows):
        middle = range(
            scene_bag.EPOCH_NS + int((2 * number + 0.8) * S), scene_bag.EPOCH_NS + int((2 * number + 1.6) * S)
        )
        heard = {item.topic for item in read.messages(demo) if item.time_ns in middle}
        silent += len({scene_bag.SENSORS[name].topic for name in row.sensors} - heard)
    assert silent == 2  # one sensor is away in the middle of each scene


def test_two_evaluations_are_equal_to_the_byte(demo, tmp_path, capsys):
    for name in "ab":
        assert omnibind("bag", "eval", demo, "--out", tmp_path / name) == 0
    capsys.readouterr()
    for name in ("report.json", "report.html", "tables/ticks.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    summary, ticks = (tables(tmp_path / "a")[name] for name in ("summary", "ticks"))
    assert summary[0]["ticks"] == len(ticks) == 20
    assert summary[0]["top1"] > 0.5  # it recognises real things
    assert sum(one["outcome"] == "right" for one in ticks) == summary[0]["right"]


def test_every_change_does_what_it_says(evaluated):
    found = tables(evaluated)
    ticks = {}
    for one in found["what_if_ticks"]:
        ticks.setdefault(one["scenario"], []).append(one)
    recorded = found["ticks"]
    dropped = ticks["drop camera@1:"]
    for before, now in zip(recorded, dropped, strict=True):
        if now["time_s"] < 1:
            assert {k: before[k] for k in ("label", "confidence", "sensors")} == {
                k: now[k] for k in ("label", "confidence", "sensors")
            }
        if now["time_s"] > 2.2:  # a frame is used for a second
            assert "camera" not in now["sensors"].split(" + ")
    noisy = [a["alone"] != b["alone"] for a, b in zip(recorded, ticks["noise camera@0:1"], strict=True)]
    assert any(noisy[:5])
    assert not any(noisy[10:])
    assert [one["scenario"] for one in found["what_if"]][-1] == "all of these together"
    assert found["what_if"][0]["accuracy_change"] == 0


def test_the_report_shows_sensors_mistakes_and_combinations(evaluated):
    found = tables(evaluated)
    assert [row["sensor"] for row in found["sensors"]] == list(scene_bag.SENSORS)
    present = [row["sensor"] for row in found["sensors"] if row["messages"]]
    assert len(found["ablation"]) == 2 ** len(present) - 1
    assert {row["sensor"] for row in found["cost_of_loss"]} == set(present)
    page = (evaluated / "report.html").read_text()
    assert page.count("<svg") >= 5
    assert page.count("<img ") == len(found["worst"])
    with (evaluated / "tables" / "changes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_combination_is_worth_what_a_replay_of_it_alone_is(demo, parameters):
    whole = evaluate(demo, Options(params=parameters, ablate=True))
    present = whole.setup.present
    chosen = present[1:3]
    alone = evaluate(demo, Options(params=parameters, changes=(("only", ",".join(chosen)),))).runs[1]
    assert len(alone.rows) == len(whole.rows)
    for one, other in zip(whole.runs[0].combinations[chosen], alone.rows, strict=True):
        assert (one.label, one.unknown, one.sensors) == (other.label, other.unknown, other.sensors)
        assert np.isclose(one.confidence, other.confidence, atol=1e-4, equal_nan=True)
    everything = whole.runs[0].combinations[present]
    assert [one.label for one in everything] == [one.label for one in whole.rows]


def test_delay_makes_items_older_and_rate_makes_them_fewer(demo, parameters):
    found = evaluate(demo, Options(params=parameters, changes=(("delay", "camera=0.3"), ("rate", "camera=2.5"))))
    ages = [
        np.mean([row.ages[row.sensors.index("camera")] for row in run.rows if "camera" in row.sensors])
        for run in found.runs[:2]
    ]
    assert ages[1] - ages[0] == pytest.approx(0.3, abs=0.06)
    received = [{one.name: one.received for one in run.reports}["camera"] for run in found.runs]
    assert received[2] == pytest.approx(received[0] / 4, abs=2)


# --- what cannot be scored --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Touch pictures for 3 s, and what they show on a topic. The model that is used knows nothing."""
    path = tmp_path_factory.mktemp("small") / "small"
    string = types.typestore().types[STRING]
    with write.BagWriter(path) as writer:
        for number in range(30):
            time_ns = scene_bag.EPOCH_NS + number * S // 10
            picture = scene_bag.image_fields(np.full((28, 50), 8 * number, np.uint8), "mono8")
            writer.write(
                "/tactile/image_raw", scene_bag.IMAGE, time_ns, types.message(scene_bag.IMAGE, picture, time_ns)
            )
            if number in (0, 15):
                writer.write("/what", STRING, time_ns, string(("cup", "dog")[number > 0]))
    return path


def test_labels_come_from_a_topic(small, tiny_model, tmp_path, capsys):
    assert omnibind("bag", "eval", small, "--model", tiny_model, "--truth-topic", "/what", "--out", tmp_path / "r") == 0
    assert [one["labels"] for one in tables(tmp_path / "r")["changes"]] == ["cup", "dog"]
    assert omnibind("bag", "eval", small, "--model", tiny_model, "--truth-topic", "/no", "--out", tmp_path / "q") == 2
    assert "has no topic /no; it has /tactile/image_raw, /what" in capsys.readouterr().err


def test_what_is_wrong_with_the_labels_is_told_and_the_rest_is_scored(small, tiny_model, tmp_path, capsys):
    table = tmp_path / "truth.csv"
    table.write_text("start_s,end_s,label\n0,1,cup\n0.5,1.5,dog\n1.5,2,florp\n50,60,car\n")
    assert omnibind("bag", "eval", small, "--model", tiny_model, "--labels", table, "--out", tmp_path / "r") == 0
    errors = capsys.readouterr().err
    assert "1 of 4 labels lie outside the bag and are left out (car)" in errors
    assert "1 pairs of labels overlap" in errors
    assert "the model has no label for florp" in errors
    outcomes = [one["outcome"] for one in tables(tmp_path / "r")["ticks"]]
    assert outcomes[8:10] == ["out_of_vocabulary"] * 2
    assert outcomes[10:] == ["unlabelled"] * (len(outcomes) - 10)
    assert tables(tmp_path / "r")["summary"][0]["ticks"] == 8
    assert len(tables(tmp_path / "r")["notes"]) >= 3


def test_the_engine_is_the_parameters_one_unless_it_is_named(small, tiny_model, tmp_path, monkeypatch):
    given, load = [], OmniBind.from_pretrained.__func__

    def seen(cls, *args):
        given.append((args[-2], [*args[-1]]))
        return load(cls, *args)

    monkeypatch.setattr(OmniBind, "from_pretrained", classmethod(seen))
    cpu = ["--engine", "onnxruntime", "--providers", "CPUExecutionProvider"]
    for options in ([], ["--engine", "torch"], cpu):
        assert omnibind("bag", "eval", small, "--model", tiny_model, "--out", tmp_path / "report", *options) == 0
    assert given == [("auto", []), ("torch", []), ("onnxruntime", ["CPUExecutionProvider"])]


def test_without_labels_the_predictions_are_reported(small, tiny_model, tmp_path, capsys):
    assert omnibind("bag", "eval", small, "--model", tiny_model, "--out", tmp_path / "r") == 0
    assert "nobody told what was there" in capsys.readouterr().err
    found = tables(tmp_path / "r")
    assert "summary" not in found
    assert len(found["ticks"]) == 15


def test_a_camera_that_was_covered_for_a_while_is_told(tiny_model, tmp_path, capsys):
    with write.BagWriter(tmp_path / "dark") as writer:
        for number in range(20):
            time_ns = scene_bag.EPOCH_NS + number * S // 10
            pixels = np.random.default_rng(0).integers(0, 256 if number > 9 else 4, (48, 64, 3)).astype(np.uint8)
            item = types.message(scene_bag.IMAGE, scene_bag.image_fields(pixels, "rgb8"), time_ns)
            writer.write("/camera/image_raw", scene_bag.IMAGE, time_ns, item)
    assert omnibind("bag", "eval", tmp_path / "dark", "--model", tiny_model, "--out", tmp_path / "r") == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "black picture" in line]
    assert "dark: camera at 5 of 10 ticks, at first: implausible: a black picture, 99 % of its values at most 3" in told
    assert any("black picture" in one["note"] for one in tables(tmp_path / "r")["notes"])


def test_a_bag_that_is_cut_off_is_evaluated_up_to_there(demo, tmp_path, capsys):
    path = tmp_path / "cut"
    shutil.copytree(demo, path)
    file = next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert omnibind("bag", "eval", path, "--out", tmp_path / "r") == 1
    assert "could not be read to its end, and is evaluated up to there" in capsys.readouterr().err
    assert 0 < len(tables(tmp_path / "r")["ticks"]) < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--drop", "radar"], "--drop radar: sensor 'radar' expected one of tactile"),
        (["--rate", "tactile"], "--rate tactile: expected SENSOR=HZ[@START:END]"),
        (["--labels", "none.csv"], "none.csv is not a readable table of labels"),
        (["--params", "none.yaml"], "none.yaml is not a readable parameter file"),
        (["--model", "none"], "no model 'none'"),
        (["--jobs", "0"], "--jobs is 0, expected 1 or more"),
        (["--settle", "nan"], "--settle is nan, expected 0 or more seconds"),
    ],
)
def test_unusable_options_are_told_in_one_line(arguments, message, small, tmp_path, capsys):
    assert omnibind("bag", "eval", small, "--out", tmp_path / "r", *arguments) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors
    assert not (tmp_path / "r").exists()


# --- several bags -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(small, tmp_path):
    """A folder of two good bags and a bad one."""
    for name in ("a", "c"):
        shutil.copytree(small, tmp_path / "bags" / name)
    (tmp_path / "bags" / "b").mkdir()
    (tmp_path / "bags" / "b" / "metadata.yaml").write_text("no: bag\n")
    return tmp_path / "bags"


def test_bags_at_once_give_what_they_give_one_by_one(folder, tiny_model, tmp_path, capsys):
    arguments = ("--model", tiny_model, "--truth-topic", "/what")
    for jobs in (1, 2):
        assert omnibind("bag", "eval", folder, "--jobs", jobs, "--out", tmp_path / f"r{jobs}", *arguments) == 1
        errors = capsys.readouterr().err
        assert f"{folder / 'b'} is not a readable rosbag2" in errors
    for name in ("report.json", "a/report.json", "c/report.json", "c/report.html"):
        assert (tmp_path / "r1" / name).read_bytes() == (tmp_path / "r2" / name).read_bytes()
    found = tables(tmp_path / "r1")
    assert [row["bag"] for row in found["bags"]] == [str(folder / "a"), str(folder / "c")]
    assert [row["bag"] for row in found["failed"]] == [str(folder / "b")]
    assert not (tmp_path / "r1" / "b").exists()


def test_bags_are_evaluated_on_a_dask_cluster(folder, tiny_model):
    distributed = pytest.importorskip("distributed")
    options = Options(model=str(tiny_model), truth_topic="/what")
    paths = batch.find([folder])
    alone = [outcome for _, outcome in batch.run(paths, options)]
    with distributed.LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        spread = dict(batch.run(paths, options, scheduler=cluster.scheduler_address))
    assert [spread[number].error != "" for number in range(3)] == [False, True, False]
    for number, outcome in enumerate(alone):
        found = spread[number].evaluation
        assert repr(found and found.rows) == repr(outcome.evaluation and outcome.evaluation.rows)


def test_a_folder_without_bags_and_a_bag_named_twice_are_refused(tmp_path, small, capsys):
    assert omnibind("bag", "eval", tmp_path, "--out", tmp_path / "r") == 2
    assert "is no bag and holds none" in capsys.readouterr().err
    assert omnibind("bag", "eval", small, small, "--out", tmp_path / "r") == 2
    assert "named twice" in capsys.readouterr().err
