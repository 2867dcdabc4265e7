"""The comparison tables: subsets of the data, statistics, and a small run of every table through the command."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import yaml

from omnibind_core import encoders
from omnibind_core.commands import compare
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.evaluation.comparison import experiments, summary
from omnibind_core.evaluation.comparison.held_back import HELD_BACK, SEEN, held_back
from omnibind_core.evaluation.comparison.summary import Measurement, markdown, mean_interval, summarise
from omnibind_core.evaluation.comparison.ways import BOTH, WAYS
from omnibind_core.features.combinations import Split
from omnibind_core.features.sets import FeatureSet
from omnibind_core.training import dataset
from omnibind_core.training.config import TrainConfig
from omnibind_core.training.dataset import TrainingData
from omnibind_core.training.subsets import few_shot, without_labels, without_sources

VOCABULARY = ("bell", "car", "cat", "cup", "dog", "drum", "fork", "key", "lamp", "rain", "shoe", "train")
TAUGHT = {"image": 12, "touch": 6, "event": 4}  # the first labels of the vocabulary
WIDTH = 32


def part(modality: str, count: int, variants: int, seed: int) -> FeatureSet:
    """Samples around one centre for each label; the image trunk's space is shared, so students can be taught."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(len(modality)).normal(size=(len(VOCABULARY), WIDTH))
    concept = np.repeat(np.arange(TAUGHT[modality]), count)
    inputs = centres[concept][:, None] + 0.5 * rng.normal(size=(len(concept), variants, WIDTH))
    samples = tuple(
        Sample(f"{modality}-{seed}-{row}", modality, "made", "x", VOCABULARY[c], "train", str(row))
        for row, c in enumerate(concept)
    )
    return FeatureSet(samples, inputs.astype(np.float32), concept.astype(np.int64))


@pytest.fixture
def data() -> TrainingData:
    train = {name: part(name, 5, 3, 0) for name in TAUGHT}
    val = {name: part(name, 3, 1, 1) for name in TAUGHT}
    return TrainingData(VOCABULARY, Concepts(()), train, val)


def test_few_samples_are_nested_and_teachers_keep_all(data):
    kept = {shots: few_shot(data, shots, 3) for shots in (1, 2, 4, 99)}
    for name in ("touch", "event"):
        ids = [{sample.id for sample in kept[shots].train[name].samples} for shots in (1, 2, 4, 99)]
        assert ids[0] < ids[1] < ids[2] < ids[3]
        two = kept[2].train[name]
        assert np.bincount(two.concept).tolist() == [2] * TAUGHT[name]
        rows = [data.train[name].samples.index(sample) for sample in two.samples]
        np.testing.assert_array_equal(two.inputs, data.train[name].inputs[rows])
        np.testing.assert_array_equal(two.concept, data.train[name].concept[rows])
    assert kept[1].train["image"] is data.train["image"] and kept[1].val is data.val
    other = few_shot(data, 1, 4).train["touch"].samples
    assert other != kept[1].train["touch"].samples
    assert few_shot(data, 1, 3).train["touch"].samples == kept[1].train["touch"].samples


def test_labels_are_left_out_of_one_modality(data):
    left = without_labels(data, {"touch": ["bell", "cat"]})
    assert set(left.train["touch"].concept) == {1, 3, 4, 5}
    assert len(left.train["touch"].samples) == len(left.train["touch"].inputs) == 20
    assert left.train["event"] is data.train["event"] and left.val is data.val
    with pytest.raises(ConfigError, match="cloud"):
        without_labels(data, {"touch": ["cloud"]})
    with pytest.raises(ConfigError, match="audio"):
        without_labels(data, {"audio": ["bell"]})
    with pytest.raises(DataError, match="event"):
        without_labels(data, {"event": VOCABULARY[:4]})


def sourced(data: TrainingData) -> TrainingData:
    """Touch and event of two sources with the same labels, photos of two that share none, sound of one source."""
    named = {"touch": ("a", "b"), "event": ("x", "y"), "image": ("p", "q")}

    def told(name: str, samples: FeatureSet) -> FeatureSet:
        which = samples.concept >= 6 if name == "image" else np.arange(len(samples)) % 2
        sources = (named[name][int(number)] for number in which)
        return dataclasses.replace(
            samples,
            samples=tuple(dataclasses.replace(x, source=y) for x, y in zip(samples.samples, sources, strict=True)),
        )

    train = {name: told(name, samples) for name, samples in data.train.items()}
    return dataclasses.replace(data, train=train, val={name: told(name, samples) for name, samples in data.val.items()})


def test_a_source_is_left_out_with_what_shows_the_same(data):
    data = sourced(data)
    touch = data.train["touch"]
    again = list(touch.samples)
    again[1] = dataclasses.replace(again[1], group=again[0].group)  # of 'b', of a recording that 'a' has, too
    imagined = {"event": dataclasses.replace(data.train["image"])}
    train = {**data.train, "touch": dataclasses.replace(touch, samples=tuple(again))}
    data = dataclasses.replace(data, train=train, imagined=imagined)
    left = without_sources(data, {"touch": "a"})
    rows = np.arange(3, len(touch), 2)
    assert left.train["touch"].samples == tuple(again[row] for row in rows)
    np.testing.assert_array_equal(left.train["touch"].inputs, touch.inputs[rows])
    assert {sample.source for sample in left.val["touch"].samples} == {"b"}
    assert left.train["event"] is data.train["event"] and left.imagined == imagined
    left = without_sources(data, {"image": "p"})
    assert {sample.source for sample in left.imagined["event"].samples} == {"q"} and left.imagined[
        "event"
    ].variants == 3
    assert set(left.train["image"].concept) == set(range(6, 12))
    with pytest.raises(ConfigError, match="'nowhere'"):
        without_sources(data, {"touch": "nowhere"})
    with pytest.raises(DataError, match="event"):
        without_sources(
            dataclasses.replace(data, train={**train, "event": train["event"].take(np.arange(1))}), {"event": "x"}
        )


def test_intervals_are_students_t():
    mean, half = mean_interval([0.8, 0.9, 1.0])
    assert mean == pytest.approx(0.9)
    assert half == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    assert math.isnan(mean_interval([0.5])[1])


def test_differences_are_paired_with_the_first_method():
    values = {"AF": (0.8, 0.9), "mean": (0.7, 0.85)}
    rows = [Measurement("T", "2", m, seed, v) for m, both in values.items() for seed, v in enumerate(both)]
    first, second = summarise(rows)
    assert (first.method, first.seeds, math.isnan(first.ahead)) == ("AF", 2, True)
    assert second.ahead == pytest.approx(0.075)
    assert second.ahead_interval == pytest.approx(mean_interval([0.1, 0.05])[1])
    text = markdown([first, second])
    assert "| AF | 85.0 ± " in text and "| mean | +7.5 ± " in text


@pytest.fixture
def bench(data, monkeypatch):
    """A comparison on made features; those of the random trunk would say nothing."""
    monkeypatch.setattr(dataset, "load", lambda *args: data)
    monkeypatch.setattr(dataset, "match", lambda *args: data.concepts)
    stage = {"steps": 12, "batch": 16, "lr": 0.01}
    config = TrainConfig(model="tiny", data="made", device="cpu", image_text=stage, align=stage, fuse=stage)
    return experiments.Comparison(config, ("touch", "event"))


def test_every_fusion_and_probe_is_measured_on_the_same_seeds(bench):
    found = list(bench.fusions(experiments.Settings(seeds=(0, 1), count=40)))
    methods = {one.method for one in found}
    assert methods == {"AF", "mean", "linear", "cat", "outer_product", "unseen", "Probes", "Probes with variants"}
    assert {one.condition for one in found} == {"1 modality", "2 modalities", "3 modalities"}
    assert len(found) == len(methods) * 3 * 2
    best = {one.condition: one.value for one in found if one.method == "Probes" and one.seed == 0}
    assert best["3 modalities"] > 0.8 and all(0 <= one.value <= 1 for one in found)
    assert list(bench.fusions(experiments.Settings(seeds=(1,), count=40))) == [one for one in found if one.seed == 1]


def test_probes_are_fused_on_the_combinations_that_the_fusions_see(bench):
    model = bench.aligned(bench.data, 0)
    val = dataset.embed(bench.data, model, "val")
    probed = bench.probed(bench.probes(bench.data, variants=False), val)
    for size in val.sizes:
        one, other = (x.draw(30, np.random.default_rng(size), size=size) for x in (val, probed))
        assert one.label.tolist() == other.label.tolist()
        assert one.mask[:, :3].tolist() == other.mask.tolist()


def test_wrong_sensors_over_seeds_after_the_same_training(bench, monkeypatch):
    """All fusions learn with the damaged samples; so does one of the two probes; the faults are of their seed."""
    harmed = {
        name: dataclasses.replace(part, damaged=part.inputs[:, :1] + np.float32(3))
        for name, part in bench.data.train.items()
    }
    monkeypatch.setattr(bench, "data", dataclasses.replace(bench.data, train=harmed))
    made, taught = [], []

    def damaged(data, model, name, rows, damage, seed):
        made.append((damage, seed))
        return np.random.default_rng(seed).normal(size=(len(rows), 1, WIDTH)).astype(np.float32)

    fused = bench.fused

    def spy(train, held_out, labels, part, seed, negatives):
        taught.append({name: rows.variants for name, rows in train.sets.items()})
        return fused(train, held_out, labels, part, seed, negatives)

    monkeypatch.setattr("omnibind_core.evaluation.samples.damaged", damaged)
    monkeypatch.setattr(experiments, "FolderSource", lambda root: None)  # there are no files
    monkeypatch.setattr(bench, "fused", spy)
    found = list(bench.robustness(experiments.Settings(seeds=(0, 1), count=40)))
    methods = {one.method for one in found}
    assert methods >= {"AF", "Mean", "linear", "cat", "outer_product", "unseen", "Probes", "Probes with damage"}
    faults = ("noise only", "unseen noise", "another label")
    assert {one.table for one in found} == {f"One random sensor: {fault}" for fault in faults}
    assert {one.condition for one in found} == {"2 modalities", "3 modalities"}
    assert len(found) == len(methods) * 3 * 2 * 2
    assert {*made} == {(fault, seed) for fault in faults[:2] for seed in (0, 1)}
    assert taught and all(variants == dict.fromkeys(TAUGHT, 4) for variants in taught)
    assert all(row.interval >= 0 and row.seeds == 2 for row in summarise(found))


def test_loss_terms_are_measured_for_both_centres(bench):
    found = list(bench.ablation(experiments.Settings(seeds=(0,))))
    assert {one.condition for one in found} == {"touch", "event", "mean of students"}
    assert len({one.method for one in found}) == 8
    assert next(iter(found)).method == "centre text: L_in + L_cr + L_se"
    assert len({round(one.value, 6) for one in found}) > 1


def test_few_samples_are_compared_with_probes_alone_and_in_pairs(bench):
    found = list(bench.few_shot(experiments.Settings(seeds=(0,), count=40, shots=(1, 2))))
    assert {one.table for one in found} == {"Few samples, touch", "Few samples, event", "Few samples, pairs"}
    assert {one.condition for one in found} == {"1 sample per label", "2 samples per label"}
    alone = {one.method: one.value for one in found if one.table == "Few samples, touch"}
    assert set(alone) == {"CAD", "CAD among all labels", "Probes", "Probes with variants"}
    assert alone["CAD among all labels"] <= alone["CAD"]
    assert next(one.method for one in found if one.table.endswith("pairs")) == "CAD and AF"


def test_left_out_labels_are_told_from_others_that_were_never_seen(bench, monkeypatch):
    taught: list[TrainingData] = []
    aligned = bench.aligned

    def spy(data, seed):
        taught.append(data)
        return aligned(data, seed)

    monkeypatch.setattr(bench, "aligned", spy)
    folds = bench._folds("touch", 2, 0)
    assert sorted(np.concatenate(folds)) == list(range(6))
    found = list(bench.left_out(experiments.Settings(seeds=(0,), folds=2)))
    assert len(taught) == 2
    for seen, fold in zip(taught, folds, strict=True):
        assert not set(seen.train["touch"].concept) & set(fold.tolist())
        assert set(seen.train["image"].concept) == set(range(12))
    values = {(one.condition, one.method): one.value for one in found}
    # three labels left out and six that touch has no samples of: nine candidates
    assert values["touch", "chance"] == pytest.approx(1 / 9)
    assert {name for name, _ in values} == {"touch", "event", "mean of students"}
    assert {method for _, method in values} == {"CAD", "image head", "chance"}


def test_whole_sources_are_left_out_of_all_training_and_asked(bench, monkeypatch):
    """Touch has labels 0 to 5, event 0 to 3: a label of both is asked with both left out, others beside photos."""
    monkeypatch.setattr(bench, "data", sourced(bench.data))
    monkeypatch.setattr(experiments, "FolderSource", lambda root: None)  # there are no files
    assert bench.sources() == {
        "image": dict.fromkeys("pq", "no other source of image has any of its labels in other groups"),
        "touch": {"a": "", "b": ""},
        "event": {"x": "", "y": ""},
    }
    learned, asked = [], []

    def sources_of(sets):
        return {name: {sample.source for sample in samples.samples} for name, samples in sets.items()}

    aligned, align_image, fused = bench.aligned, bench._align_image, bench.fused
    calibrate, figures = experiments.calibrate, experiments._figures

    def spy(function, sets, place=0):
        def called(*args, **kwargs):
            learned.append((function.__name__, sources_of(sets(args[place]))))
            return function(*args, **kwargs)

        return called

    monkeypatch.setattr(bench, "aligned", spy(aligned, lambda data: {**data.train, **data.val}))
    monkeypatch.setattr(bench, "_align_image", spy(align_image, lambda data: data.train))
    monkeypatch.setattr(bench, "fused", spy(fused, lambda split: split.sets))
    monkeypatch.setattr(experiments, "calibrate", spy(calibrate, lambda split: split.sets))

    def watch(made, method, combos):
        found = figures(made, method, combos)
        asked.append((made, method.name, combos, found))
        return found

    monkeypatch.setattr(experiments, "_figures", watch)
    found = list(bench.left_out_source(experiments.Settings(seeds=(0,), count=40)))
    steps = ["aligned", "_align_image", "fused", "calibrate", *(4 * ["fused"])]
    assert [name for name, _ in learned] == 2 * steps
    for number, (_, seen) in enumerate(learned):
        assert (seen["touch"], seen["event"]) == (({"b"}, {"y"}), ({"a"}, {"x"}))[number // len(steps)]
    rounds = list(dict.fromkeys(id(made.data) for made, *_ in asked))
    for made, _, combos, _ in asked:
        if len(combos.columns) > 1:
            present = {name: rows[rows >= 0] for name, rows in zip(combos.columns, combos.rows.T, strict=True)}
            sets = {name: made.data.known.sets[name].take(rows) for name, rows in present.items() if len(rows)}
            left_out = ({"touch": {"a"}, "event": {"x"}}, {"touch": {"b"}, "event": {"y"}})[rounds.index(id(made.data))]
            photos = {"touch": left_out["touch"], "image": {"p"}}
            assert sources_of(sets) == (photos if combos.label.max() > 3 else left_out)
    values = {(one.table, one.condition, one.method): one.value for one in found}
    alone, pairs = "Sources left out, one sensor", "Sources left out, pairs"
    both, photo = "beside samples of left-out sources", "beside validation samples"
    conditions = {
        pairs: {
            *(f"touch: {of}, {both} (4 labels)" for of in "ab"),
            *(f"touch: {of}, {photo} (2 labels)" for of in "ab"),
            *(f"event: {of}, {both} (4 labels)" for of in "xy"),
        },
        alone: {*(f"touch: {of} (6 labels, n 24)" for of in "ab"), *(f"event: {of} (4 labels, n 16)" for of in "xy")},
    }
    for table, expected in conditions.items():
        for key in ("", ", ECE"):
            more = {"AF at home"} if table == alone else {*(() if key else ("best single",))}
            for condition in {*expected, "mean of sources"}:
                found = {m for t, c, m in values if (t, c) == (table + key, condition)}
                assert found == {"AF", "Mean", "Probes", *(set(WAYS) - {BOTH}), *more}
    one = [value for (table, where, method), value in values.items() if table == alone and method == "AF"]
    assert one[-1] == pytest.approx(np.mean(one[:-1]))
    # All samples of 'a', of training and validation, asked once.
    made, _, combos, figure = next(entry for entry in asked if entry[1] == "Probes")
    touch = bench.data.train["touch"], bench.data.val["touch"]
    assert len(combos) == sum(sample.source == "a" for part in touch for sample in part.samples) == 24
    answer = made.methods["Probes"].tokens["touch"][combos.rows[:, 0], 0].argmax(dim=1).numpy()
    assert values[alone, "touch: a (6 labels, n 24)", "Probes"] == figure["top-1"] == (answer == combos.label).mean()


def test_no_source_can_be_left_out(bench):
    with pytest.raises(DataError, match="left-out-source needs sources"):
        next(bench.left_out_source(experiments.Settings(seeds=(0,))))


def test_fusions_learn_from_what_stage_one_did_not_see(bench, monkeypatch):
    monkeypatch.setattr(bench, "data", sourced(bench.data))
    monkeypatch.setattr(experiments, "FolderSource", lambda root: None)  # there are no files
    saw, learned = [], []
    aligned, fused = bench.aligned, bench.fused

    def ids(sets):
        return {sample.id for samples in sets.values() for sample in samples.samples}

    def align(data, *args, **kwargs):
        saw.append((ids(data.train), {x.source for x in data.train["touch"].samples}))
        return aligned(data, *args, **kwargs)

    def fuse(train, held_out, labels, part, seed, negatives, known):
        learned.append((ids(train.sets), ids(known.sets), part, negatives))
        return fused(train, held_out, labels, part, seed, negatives, known)

    monkeypatch.setattr(bench, "aligned", align)
    monkeypatch.setattr(bench, "fused", fuse)
    found = list(held_back(bench, experiments.Settings(seeds=(0, 1), count=40)))
    assert [sources for _, sources in saw] == [{"b"}, {"a"}]  # another source is asked of each seed
    for number, (stage_one, _) in enumerate(saw):
        mine = learned[16 * number : 16 * number + 16]
        for (first, *same), (few, *second), (back, *third), (every, *fourth) in zip(
            *(mine[k::4] for k in range(4)), strict=True
        ):
            assert same == second == third == fourth and same[0] == first == stage_one
            assert few < first and len(few) == len(back) and not back & first and every == first | back
    methods = {one.method for one in found}
    assert len(methods) == 17 and {f"AF, {SEEN}", f"AF, {HELD_BACK}", "Mean"} <= methods
    assert {one.condition for one in found} == {
        f"{size} modalities, {how}" for size in (2, 3) for how in ("clean", "another label")
    }


def test_errors_are_called_so_and_notes_stand_below(tmp_path):
    rows = [Measurement("Left out, ECE", "a", method, 0, 0.25) for method in ("AF", "Mean")]
    text = summary.write(tmp_path, "x", rows, {}, ["touch: a was left out"])
    assert "Calibration error (ECE) in percent" in text and "Top-1" not in text
    assert "How much larger the error of the first method of each column is, in points" in text
    assert text.endswith("* touch: a was left out\n")
    assert json.loads((tmp_path / "x.json").read_text())["notes"] == ["touch: a was left out"]


def test_photos_of_labels_that_image_text_alignment_never_saw(bench, monkeypatch):
    image = bench.data.val["image"]
    few = dataclasses.replace(bench.data, val={**bench.data.val, "image": image.take(image.concept < 4)})
    monkeypatch.setattr(bench, "data", dataclasses.replace(few, descriptions={"car": ("car: a vehicle",)}))
    seen: list[tuple[set[int], int]] = []
    align_image = bench._align_image

    def spy(data, encoder_set, seed):
        seen.append(({*data.train["image"].concept.tolist()}, len(data.descriptions)))
        align_image(data, encoder_set, seed)

    monkeypatch.setattr(bench, "_align_image", spy)
    found = list(bench.zero_shot(experiments.Settings(seeds=(0,))))
    assert {one.table for one in found} == {"Zero-shot photos, 4 labels"}
    methods = ["aligned on other labels", "class vote alone", "aligned on all photos"]
    assert [(one.condition, one.method) for one in found] == [
        (condition, method) for condition in ("prompt", "prompt and descriptions") for method in methods
    ]
    assert seen == [({*range(first, 12)}, told) for told in (0, 1) for first in (4, 0)]
    values = {one.method: one.value for one in found if one.condition == "prompt"}
    assert values["aligned on all photos"] > values["class vote alone"]
    monkeypatch.setitem(bench.data.val, "image", image)
    with pytest.raises(DataError, match="image"):
        next(bench.zero_shot(experiments.Settings(seeds=(0,))))


def parse(*argv: str) -> argparse.Namespace:
    root = argparse.ArgumentParser()
    compare.add_parser(root.add_subparsers())
    args = root.parse_args(["compare", *argv])
    args.verbose = False
    return args


def test_the_command_writes_its_tables(bench, monkeypatch, tmp_path, capsys):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(bench.config.model_dump(mode="json")))
    args = parse(
        "--config", str(path), "--seeds", "2", "--count", "30", "--modalities", "touch", "event", "--out", str(tmp_path)
    )
    assert compare.run(args) == 0
    assert "### Fusions" in capsys.readouterr().out
    told = json.loads((tmp_path / "fusions.json").read_text())
    assert told["settings"]["seeds"] == [0, 1] and told["settings"]["config"]["model"] == "tiny"
    assert len(told["measurements"]) == 2 * len(told["summary"])
    with (tmp_path / "fusions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(told["summary"])
    assert (tmp_path / "fusions.md").read_text().startswith("### Fusions")


def test_encoders_of_a_trained_model_are_used_as_they_are(bench, data, tmp_path):
    model = bench.aligned(data, 0)
    model.save_pretrained(tmp_path)
    again = experiments.Comparison(bench.config, ("touch", "event"), str(tmp_path))
    one, other = (dataset.embed(data, x, "val").tokens["touch"] for x in (model, again.aligned(data, 7)))
    assert (one == other).all()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--shots", "0"], "--shots"),
        (["--tables", "ablation", "--model", "lite"], "--model"),
        (["--tables", "away"], "--away DIR"),
    ],
)
def test_wrong_options_are_named(argv, message):
    with pytest.raises(ConfigError, match=message):
        compare.run(parse(*argv))


def test_the_papers_own_form_learns_from_the_negatives_that_its_name_says(bench, monkeypatch):
    """Beside another fusion it has rows of its own, with CLS negatives as in the paper and without them."""
    assert [*bench.methods()][:2] == ["AF", "mean"]  # AF is the paper's form here
    other = bench.config.fuse.model_copy(update={"fusion": {"preset": "reliability"}, "steps": 1})
    bench.config = bench.config.model_copy(update={"fuse": other})
    seen = []

    class Spy(experiments.Fuse):
        def __init__(self, train, val, labels, module, settings):
            seen.append((module.reliability is not None, settings.negatives))
            super().__init__(train, val, labels, module, settings)

    monkeypatch.setattr(experiments, "Fuse", Spy)
    model = bench.aligned(bench.data, 0)
    train = dataset.embed(bench.data, model, "train")
    found = [*bench.methods().items()][:3]
    assert [name for name, _ in found] == ["AF", "AF, preset paper", "AF, preset paper, without CLS negatives"]
    for _, (part, negatives) in found:
        bench.fused(train, train, model.labels, part, 0, negatives)
    assert seen == [(True, other.negatives), (False, "wrong"), (False, "all")]


def test_a_comparison_needs_af(bench):
    bench.config = bench.config.model_copy(
        update={"fuse": bench.config.fuse.model_copy(update={"fusion": {"type": "cat"}})}
    )
    with pytest.raises(ConfigError, match=r"fuse\.fusion\.type"):
        bench.methods()


def test_all_tables_can_be_asked_for():
    assert {*experiments.TABLES, "held-back", "away"} == {*compare.TABLES}
    assert set(encoders.load_config("tiny").modalities) >= set(TAUGHT)


def fused_by_hand(bench, probes, size, seed, count):
    """Share of right answers of the mean of the probes' probabilities over the modalities of drawn combinations."""
    val = bench.data.val
    drawn = Split(VOCABULARY, val).draw(count, np.random.default_rng((seed, size)), size=size)
    told = {name: probes.probabilities(name, samples.inputs[:, 0]) for name, samples in val.items()}
    right = []
    for rows, label in zip(drawn.rows, drawn.label, strict=True):
        parts = [told[name][row] for name, row in zip(drawn.columns, rows, strict=True) if row >= 0]
        assert len(parts) == size
        right.append(np.mean(parts, axis=0).argmax() == label)
    return float(np.mean(right))


def test_probes_fuse_all_modalities_of_a_combination(bench, data, monkeypatch):
    rng = np.random.default_rng(0)
    for samples in data.val.values():  # so hard that one modality alone is often wrong
        samples.inputs[:] += 3 * rng.standard_normal(samples.inputs.shape)
    probes = bench.probes(data, variants=False)
    wanted = {
        f"{size} modalit{'y' if size == 1 else 'ies'}": fused_by_hand(bench, probes, size, 3, 300) for size in (1, 2, 3)
    }
    monkeypatch.setattr(bench, "methods", dict)
    found = bench.fusions(experiments.Settings(seeds=(3,), count=300))
    assert {one.condition: one.value for one in found if one.method == "Probes"} == pytest.approx(wanted)
    assert wanted["1 modality"] < wanted["2 modalities"] < wanted["3 modalities"]
    monkeypatch.setattr(bench, "methods", lambda: {"AF": ({"type": "mean"}, None)})
    few = few_shot(data, 2, 3)
    wanted = {"Probes": fused_by_hand(bench, bench.probes(few, variants=False), 2, 3, 300)}
    found = bench.few_shot(experiments.Settings(seeds=(3,), count=300, shots=(2,)))
    pairs = {one.method: one.value for one in found if one.table == "Few samples, pairs"}
    assert {"Probes": pairs["Probes"]} == pytest.approx(wanted)
