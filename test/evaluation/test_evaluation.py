"""``omnibind eval``: labels, draws, intervals, and whole reports of a small tree through the command."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import soundfile
import torch

from omnibind_core import OmniBind, cli, encoders, fusion, modalities
from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.damage import NOISE, damaged
from omnibind_core.data.samples import Sample
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.evaluation import bench, bootstrap, evaluate, methods, samples, texts
from omnibind_core.evaluation.bench import CONFLICTING, STUCK
from omnibind_core.evaluation.held_out import HELD_OUT, HeldOut
from omnibind_core.evaluation.labelling import find_labels, fold_labels
from omnibind_core.evaluation.report import check
from omnibind_core.evaluation.report.document import SCHEMA
from omnibind_core.evaluation.tables import accuracy, paper, retrained, robustness, sources, trust
from omnibind_core.features.combinations import Combinations, Split
from omnibind_core.features.sets import FeatureSet
from omnibind_core.fusion import MeanFusion
from omnibind_core.labels import LabelBank
from omnibind_core.training.config import FuseConfig, TrainConfig

WORDS = ("cup", "dog", "car", "zeppelin")
SOURCE = "made"


def write_tree(root, splits, modalities=("image", "touch", "audio", "point_cloud")):
    """Real files of four things: colours, presses, tones and boxes. The model has no label for the last."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in splits.items():
        for index, word in enumerate(WORDS):
            for number in range(count):
                stem = f"{split}-{word}-{number}"
                image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                image[..., index % 3] = 220 - 20 * index
                cv2.imwrite(str(root / f"{stem}.png"), image)
                press = rng.uniform(0, 0.2, (32, 32)).astype(np.float32)
                press[4 * index : 4 * index + 8] += 0.7
                np.save(root / f"{stem}.npy", press)
                tone = 0.5 * np.sin(np.arange(16000) * 2 * np.pi * 200 * 2**index / 16000)
                soundfile.write(root / f"{stem}.wav", tone + 0.01 * rng.standard_normal(16000), 16000)
                points = rng.uniform(-1, 1, (128, 3)) * [(1, 1, 1), (1, 1, 0.1), (1, 0.1, 0.1), (0.1, 1, 1)][index]
                np.savez(root / f"{stem}.npz", points=points.astype(np.float32))
                suffixes = {"image": "png", "touch": "npy", "audio": "wav", "point_cloud": "npz"}
                for modality in modalities:
                    if not (modality == "audio" and word == "car"):  # so that labels differ in their modalities
                        key, path = f"{modality}-{stem}", f"{stem}.{suffixes[modality]}"
                        rows.append((key, modality, SOURCE, path, word, split, key))
    with (root / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), {"train": 4, "val": 3})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with labels for all but the last thing, and its label table."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(0)
    config = encoders.load_config("tiny")
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels((*WORDS[:3], "rain"))
    model.save_pretrained(folder)
    Concepts([Match(SOURCE, word, word, 1.0, "") for word in WORDS]).write(folder / "labels.csv")
    stages = "image_text: {steps: 1}\nalign: {steps: 1, batch: 4}\nfuse: {steps: 5, batch: 16}\n"
    (folder / "train.yaml").write_text(f"model: tiny\ndata: made\naugmentations: 1\n{stages}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(evaluate, "find_wordnet", lambda: None)
        yield


@pytest.fixture(scope="module")
def measured(tree, folder):
    """A bench with Probes and one trained baseline."""
    model, own = OmniBind.from_pretrained(folder), Concepts.read(folder / "labels.csv")
    data = samples.load(tree, "val", model, own)
    train = samples.load(tree, "train", model, own, None, TrainConfig(data=str(tree), augmentations=1)).known
    training = methods.Training(FuseConfig(steps=3, batch=8), ("Cat",), (0, 1))
    return bench.make(model, data, train, training, count=40, damage=4)


def made(counts, seed=0):
    """A split of made samples: number of samples of each label by modality."""
    rng, sets = np.random.default_rng(seed), {}
    for name, numbers in counts.items():
        concept = np.repeat(np.arange(len(numbers)), numbers)
        rng.shuffle(concept)
        stand_ins = tuple(sample(str(row), modality=name) for row in range(len(concept)))
        sets[name] = FeatureSet(stand_ins, np.zeros((len(concept), 1, 2), np.float32), concept)
    return Split(tuple("abcdef"), sets)


def run(*argv):
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, argv)])
    return end.value.code


# Labels.


def sample(label, source="other", modality="image"):
    return Sample(f"{source}-{label}", modality, source, "x.png", label, "test", "g")


def test_labels_by_table_then_own_table_then_word():
    own = Concepts([Match("a", "mug", "cup", 1, ""), Match("a", "hound", "dog", 1, ""), Match("b", "noise", "", 1, "")])
    rows = (("thing", "cup"), ("Mugs", "mug"), ("no", ""))
    given = Concepts([Match("other", label, concept, 1, "") for label, concept in rows])
    items = [sample("thing"), sample("Mugs"), sample("no"), sample("HOUND"), sample("noise", "b"), sample("mug", "a")]
    found = find_labels(items, ("cup", "dog"), own, given, wordnet=None, leave_out=True)
    concepts = {label: entry.concept for (_, label), entry in found.items()}
    assert concepts == {"thing": "cup", "Mugs": "cup", "no": "", "HOUND": "dog", "noise": "", "mug": "cup"}
    assert found["other", "thing"].how == "label table"
    assert found["a", "mug"].how == "the model's own table"
    assert found["other", "HOUND"].how == "same word as in the model's own table"


def test_other_labels_are_matched_or_unknown():
    found = find_labels([sample("cups"), sample("air ship")], ("cup", "dog"), Concepts([]), wordnet=None)
    assert (found["other", "cups"].concept, found["other", "cups"].how) == ("cup", "matched")
    assert (found["other", "air ship"].concept, found["other", "air ship"].how) == ("air ship", "matches no label")


def test_a_concept_of_the_table_is_renamed_unless_the_table_tells_it_apart():
    own = Concepts([Match("other", "3", "dog", 1, "")])
    rows = [
        Match("other", "1", "cups", 1, ""),
        Match("other", "2", "tea cup", 1, ""),
        Match("other", "3", "pup", 1, ""),
    ]
    found = find_labels([sample("1"), sample("2"), sample("3")], ("cup", "dog"), own, Concepts(rows), wordnet=None)
    assert {label: entry.concept for (_, label), entry in found.items()} == {"1": "cup", "2": "cup", "3": "dog"}
    rows.append(Match("other", "4", "cup", 1, ""))
    found = find_labels([sample("2")], ("cup", "dog"), own, Concepts(rows), wordnet=None)
    assert found["other", "2"].concept == "tea cup"


def test_an_empty_concept_of_the_table_is_an_unknown_thing_whatever_it_is_called():
    own = Concepts([Match("a", "noise", "", 1, "")])
    given = Concepts([Match("other", "dog", "", 1, ""), Match("other", "fog", "", 1, "")])
    items = [sample("dog"), sample("fog"), sample("noise", "a")]
    found = {
        label: entry.concept
        for (_, label), entry in find_labels(items, ("cup", "dog"), own, given, wordnet=None).items()
    }
    assert found == {"dog": "another dog", "fog": "fog", "noise": ""}


@pytest.mark.parametrize(
    ("rows", "folded"),
    [
        ([("farm", "rooster", "chicken")], {"rooster": "chicken"}),  # by its name
        ([("a", "cock", "chicken")], {"rooster": "chicken"}),  # by what it was taught
        ([("a", "cock", "fowl"), ("a", "hen", "fowl")], {"rooster": "chicken"}),  # into the first of both
        ([("farm", "rooster", "chicken"), ("zoo", "rooster", "bird")], {}),  # the table says two things of it
        ([("farm", "rooster", "chicken"), ("zoo", "cockerel", "rooster")], {}),  # the table tells the two apart
        ([("a", "hen", "hen"), ("a", "pullet", "pullet")], {}),  # finer than the model
        ([("farm", "rooster", "")], {}),
        ([("farm", "rooster", "xqz"), ("farm", "dog", "xqz")], {}),  # a name that says nothing of the model's labels
        ([("a", "cock", "rooster"), ("a", "hen", "chicken")], {}),
    ],
)
def test_labels_of_the_model_that_a_table_takes_for_the_same_are_folded(rows, folded):
    taught = (("cock", "rooster"), ("hen", "chicken"), ("pullet", "chicken"))
    own = Concepts([Match("a", label, concept, 1, "") for label, concept in taught])
    given = Concepts([Match(*row, 1, "") for row in rows])
    assert fold_labels(("chicken", "dog", "rooster"), own, given) == folded


def test_a_concept_of_several_labels_of_the_model_is_what_they_are_folded_into():
    own = Concepts([Match("a", "cock", "rooster", 1, ""), Match("a", "hen", "chicken", 1, "")])
    given = Concepts([Match("a", "cock", "fowl", 1, ""), Match("a", "hen", "fowl", 1, "")])
    found = find_labels([sample("cock", "a"), sample("hen", "a")], ("chicken", "rooster"), own, given, wordnet=None)
    assert {entry.concept for entry in found.values()} == {"chicken"}


class Told(methods.Method):
    """Answers with given scores."""

    def __init__(self, scores, fold, name=methods.PROBES):
        self.told, self.fold, self.name = torch.tensor(scores), np.array(fold), name

    def scores(self, combos):
        return [self.told[combos.rows[:, 0]]]


def test_answers_and_confidence_are_folded():
    # Labels 0 and 1 are one: the first is right with 0.7; the second answers 2; the third is wrong.
    method = Told([[0.3, 0.4, 0.3], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7]], [0, 0, 2])
    combos = Combinations(("image",), np.arange(3)[:, None], np.array([0, 2, 0]))
    assert method.right(combos).tolist() == [1, 1, 0]
    assert method.answers(method.told, np.array([0, 1])).tolist() == [0, 0, 0]
    found = trust.answers(None, method, combos)
    assert found.right.tolist() == [True, True, False]
    np.testing.assert_allclose(found.confidence, [0.7, 0.4, 0.7], rtol=1e-6)
    alone = trust.answers(None, method, combos, np.array([1, 2]))
    np.testing.assert_allclose(alone.confidence, [0.4 / 0.7, 0.4 / 0.7, 0.7 / 0.9], rtol=1e-6)


# Draws.


def test_draws_have_their_modalities_and_one_label(rng):
    split = made({"image": [3, 2, 1], "touch": [2, 2, 0], "audio": [1, 0, 4]})
    assert list(split.subsets(2)) == [("image", "touch"), ("image", "audio"), ("touch", "audio")]
    for combos in (
        split.draw(200, rng, 2),
        split.draw(200, rng, 2, having="audio"),
        split.draw_of(("image", "touch"), 200, rng),
    ):
        assert ((combos.rows >= 0).sum(axis=1) == 2).all()
        for column, name in enumerate(combos.columns):
            rows = combos.rows[:, column]
            assert (split.sets[name].concept[rows[rows >= 0]] == combos.label[rows >= 0]).all()
    having = split.draw(200, rng, 2, having="audio")
    assert (having.rows[:, having.columns.index("audio")] >= 0).all()
    with pytest.raises(DataError, match="no label has samples of touch, audio"):
        made({"touch": [1, 0], "audio": [0, 1]}).draw_of(("touch", "audio"), 5, rng)


def test_two_sensors_of_one_modality_give_two_samples(rng):
    combos = made({"image": [3, 2, 1]}).draw_of(("image", "image"), 300, rng)
    several = combos.label < 2
    assert (combos.rows[several, 0] != combos.rows[several, 1]).all()
    assert (combos.rows[~several, 0] == combos.rows[~several, 1]).all()


def test_others_have_another_label_and_all_of_them_come(rng):
    split = made({"image": [3, 2, 1], "touch": [2, 0, 0]})
    combos = split.single("image").take(np.tile(np.arange(6), 100))
    row = split.others(combos, np.zeros(600, np.int64), rng)
    assert (split.sets["image"].concept[row] != combos.label).all()
    assert set(row[combos.label == 0]) == set(np.flatnonzero(split.sets["image"].concept != 0))
    alone = split.single("touch")
    assert (split.others(alone, np.zeros(2, np.int64), rng) == -1).all()


def test_a_stuck_sensor_shows_what_was_there_before():
    rows = np.array([[0, 5], [-1, 6], [1, -1], [2, 7]])
    combos = Combinations(("image", "touch"), rows, np.array([0, 1, 0, 1]))
    assert bench._before(combos, np.array([0, 1, 0, 0])).tolist() == [-1, 5, -1, 1]


def test_damaged_samples_are_of_labels_that_combine():
    split = made({"image": [5, 5, 5, 0], "touch": [0, 0, 9, 9]})
    chosen = samples.spread(split, 4, 0)
    assert (split.sets["image"].concept[chosen["image"]] == 2).sum() == 4
    assert all(len(rows) == 4 for rows in chosen.values())
    again = samples.spread(split, 4, 0)
    np.testing.assert_array_equal(chosen["touch"], again["touch"])


# Intervals.


def test_interval_of_single_samples_is_that_of_the_plain_bootstrap(rng):
    right = (rng.random(200) < 0.8).astype(float)
    boot = bootstrap.Bootstrap({"image": 200}, replicates=2000)
    combos = Combinations(("image",), np.arange(200)[:, None], np.zeros(200, np.int64))
    low, high = bootstrap.interval(bootstrap.weighted_mean(right, boot.weights(combos)))
    spread = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 200)
    assert low == pytest.approx(right.mean() - spread, abs=0.01)
    assert high == pytest.approx(right.mean() + spread, abs=0.01)


def test_more_draws_of_the_same_samples_make_nothing_surer(rng):
    split = made({"image": [10, 10], "touch": [10, 10]})
    good = rng.random(20) < 0.7
    boot, widths = bootstrap.Bootstrap(split.counts, 0), []
    for count in (500, 5000):
        combos = split.draw_of(("image", "touch"), count, rng)
        right = good[combos.rows[:, 0]].astype(float)
        low, high = bootstrap.interval(bootstrap.weighted_mean(right, boot.weights(combos)))
        widths.append(high - low)
    assert widths[1] > 0.85 * widths[0] > 0.2


def test_auroc_counts_pairs_and_ties_half(rng):
    score, positive = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.5
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert bootstrap.auroc(score, positive)[0] == pytest.approx(np.mean(pairs))
    twice = bootstrap.auroc(np.r_[score, score[:5]], np.r_[positive, positive[:5]])[0]
    weights = np.r_[np.full(5, 2.0), np.ones(35)][None]
    assert bootstrap.auroc(score, positive, weights)[0] == pytest.approx(twice)
    assert np.isnan(bootstrap.auroc(score, np.ones(40, bool))[0])


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([True, False, True, True, True])
    # bins of a tenth: three in the last (2 of 3 right, mean 0.9667), two in the sixth
    wanted = 0.6 * abs(2.9 / 3 - 2 / 3) + 0.4 * abs(0.55 - 1)
    assert bootstrap.calibration_error(confidence, right, bins=10)[0] == pytest.approx(wanted)


def test_macro_counts_every_label_the_same():
    assert bootstrap.macro(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 7])) == pytest.approx(0.5)


# Methods.


def test_probabilities_are_those_of_the_model_itself(measured):
    model, known = measured.model, measured.data.known
    for size in (1, 2, 3):
        combos = known.draw(5, np.random.default_rng(size), size)
        scores = measured.af.scores(combos)[0]
        found = model.calibration.probabilities(scores, combos.names, measured.af.evidence(combos))
        for index in range(len(combos)):
            shown = [(n, r) for n, r in zip(combos.columns, combos.rows[index], strict=True) if r >= 0]
            tokens = torch.stack([measured.af.tokens[name][row, 0] for name, row in shown])
            expected = model.recognise([name for name, _ in shown], tokens).probabilities[0]
            np.testing.assert_allclose(found[index].numpy(), expected, atol=1e-5)


def test_methods_and_damaged_rows(measured):
    paper_af = ["AF, preset paper", "AF, preset paper, without CLS negatives"]
    assert list(measured.methods) == ["AF", "Mean", "Probes", "Cat", *paper_af]
    assert measured.methods["Cat"].seeds == 2
    known = measured.data.known
    combos = known.draw(30, measured.rng("test"), 2, among=measured.subset, having="image")
    column = np.full(len(combos), combos.columns.index("image"))
    for fault in (NOISE, "blank", CONFLICTING, STUCK):
        changed, possible = measured.wrong(combos, column, fault, measured.rng(fault))
        assert len(changed) == len(possible) > 0
        same = changed.rows == combos.rows[possible]
        assert not same[:, column[0]].any()
        assert np.delete(same, column[0], axis=1).all()
        for method in measured.methods.values():
            assert method.right(changed).shape == possible.shape
    noisy, possible = measured.wrong(combos, column, NOISE, measured.rng(0))
    part, row = known.sets["image"], combos.rows[possible[0], column[0]]
    picture = samples.Damaged(measured.data.source, NOISE, 0).load(part.samples[row])
    expected = measured.model.embed([("image", measured.model.process("image", picture))])[0]
    token = measured.af.tokens["image"][noisy.rows[0, column[0]], 0]
    torch.testing.assert_close(token, expected, atol=1e-5, rtol=1e-4)


def test_baselines_and_probes_learn_with_damage_if_the_model_did(tree, folder):
    model, own = OmniBind.from_pretrained(folder), Concepts.read(folder / "labels.csv")
    data = samples.load(tree, "val", model, own)
    config = TrainConfig(data=str(tree), augmentations=0, fuse=FuseConfig(steps=2, batch=8, damage=2, conflict=0.4))
    train = samples.load(tree, "train", model, own, None, config).known
    assert all(x.damaged.shape == (len(x), 2, x.inputs.shape[2]) for x in train.sets.values())
    made = bench.make(model, data, train, methods.Training(config.fuse, ()), count=20, damage=2)
    assert list(made.methods) == ["AF", "Mean", "Probes", methods.PROBES_DAMAGED]
    assert made.embedded().tokens["image"].shape[1] == 3
    plain, harmed = (made.methods[name].probes.probes["image"] for name in (methods.PROBES, methods.PROBES_DAMAGED))
    assert not np.allclose(plain.mean, harmed.mean)
    rows = list(robustness.noise(made, (NOISE, HELD_OUT), each=False))
    assert {row["kind"] for row in rows} == {NOISE, HELD_OUT}
    assert {row["method"] for row in rows} == {*made.methods}


@pytest.mark.parametrize("name", ["image", "touch", "audio", "point_cloud"])
def test_unseen_noise_fits_the_sensor_and_is_correlated(measured, name):
    part = measured.data.known.sets[name].samples[0]
    raw, again = (HeldOut(measured.data.source, seed).load(part) for seed in (0, 0))
    other = HeldOut(measured.data.source, 1).load(part)
    modality, original = modalities.get(name), measured.data.source.load(part)
    checked = modality.check(raw, "test")
    white = damaged(name, original, NOISE, part.id)
    one, two, three, four, five = (getattr(x, "samples", x) for x in (checked, again, other, original, white))
    assert one.shape == four.shape and one.dtype == four.dtype
    assert (one == two).all() and not (one == three).all()

    def neighbours(values):
        flat = np.asarray(values, np.float64)
        axis = 0 if flat.ndim == 1 else 1
        near = np.diff(flat, axis=axis)
        return near.std() / flat.std()

    if name == "point_cloud":  # blobs: the nearest other point is much nearer than in noise all over the box
        near = [np.median(np.sort(np.linalg.norm(x[:, None] - x[None], axis=2), axis=1)[:, 1]) for x in (one, five)]
        assert near[0] < 0.8 * near[1]
    else:
        assert neighbours(one) < 0.5 * neighbours(five)


def test_best_single_takes_the_modality_that_is_right_most_often(measured):
    combos = measured.data.known.draw_of(("image", "touch"), 50, measured.rng("best"))
    alone = {
        name: measured.methods["Mean"].right(Combinations((name,), combos.rows[:, [index]], combos.label)).mean()
        for index, name in enumerate(combos.columns)
    }
    assert accuracy.best_single(measured, combos).mean() == pytest.approx(max(alone.values()))


def test_absence_that_depends_on_the_label(rng):
    tokens = {name: torch.nn.functional.normalize(torch.randn(12, 1, 4), dim=-1) for name in ("image", "touch")}
    concept = {name: np.repeat(np.arange(3), 4) for name in tokens}
    sets = {name: FeatureSet((), np.zeros((12, 1, 0), np.float32), concept[name]) for name in tokens}
    slots = ("image", "text", "touch")
    split = robustness.LabelledAbsence(tuple("abc"), sets, tokens=tokens, slots=slots, missing=np.array([0, 1, -1]))
    drawn = split.draw(300, rng, size=2)
    mask = split.gather(drawn).mask
    for label, lacking in ((0, [0]), (1, [1]), (2, [])):
        absent = ~mask[drawn.label == label]
        assert absent.any(dim=0).nonzero()[:, 0].tolist() == lacking
    assert split.draw(300, rng, size=1).mask.any(axis=1).all()


def test_retrieval_of_a_perfect_space(measured):
    rows = list(accuracy.retrieval(measured))
    assert {(row["query"], row["gallery"]) for row in rows} >= {
        ("image", "touch"),
        ("text", "audio"),
        ("audio", "text"),
    }
    for row in rows:
        assert row["recall_1"] <= row["recall_5"] <= row["recall_10"] <= 1
    to_all = next(row for row in rows if row["query"] == "image" and row["gallery"] == "text")
    right = measured.methods["Mean"].right(measured.data.known.single("image")).mean()
    assert to_all["recall_1"] == pytest.approx(right)


def test_surest_answers_come_first(measured):
    rows = [row for row in trust.risk_coverage(measured) if row["modalities"] == 1 and row["method"] == "AF"]
    assert [row["coverage"] for row in rows] == sorted(row["coverage"] for row in rows)
    least = [row["least_confidence"] for row in rows]
    assert least == sorted(least, reverse=True)
    assert rows[-1]["n"] == 40


def test_unknown_things_of_each_modality_alone(measured):
    rows = list(trust.unknown_single(measured))
    kinds, asked = ("no label of the model", "labels taken away"), ("AF", "Mean", "Probes")
    expected = {(name, kind, method) for name in measured.data.known.modalities for kind in kinds for method in asked}
    assert {(row["modalities"], row["unknown"], row["method"]) for row in rows} == expected
    known, other = measured.data.known.single("audio"), measured.ood.split.single("audio")
    for row in rows:
        if (row["modalities"], row["unknown"]) == ("audio", kinds[0]):
            inside = trust.answers(measured, measured.methods[row["method"]], known).confidence
            outside = trust.answers(measured, measured.ood.methods[row["method"]], other).confidence
            pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
            assert row["auroc"] == pytest.approx(np.mean(pairs))
            # 'cup' and 'dog' have a sound; 'zeppelin' is what the model has no label for
            assert (row["n"], row["labels"], row["n_unknown"], row["labels_unknown"]) == (6, 2, 3, 1)


def test_mean_has_the_temperatures_of_the_model(measured):
    combos, mean = measured.data.known.draw_of(("image", "touch"), 9, measured.rng("m")), measured.methods["Mean"]
    tokens = [measured.af.tokens[name][combos.rows[:, column], 0] for column, name in enumerate(combos.columns)]
    cosines = measured.model.labels.similarities(torch.nn.functional.normalize(tokens[0] + tokens[1], dim=1))
    expected = (cosines / measured.model.calibration.temperature(combos.columns)).softmax(dim=1).max(dim=1).values
    np.testing.assert_allclose(trust.answers(measured, mean, combos).confidence, expected.numpy(), rtol=1e-4)


# Sources.


def test_every_source_of_a_modality_is_asked_alone_and_beside_samples_of_any(measured, monkeypatch):
    """Image samples are of the source 'near', but those of the last label and one more, which are of 'far'."""
    known, af = measured.data.known, measured.af
    image = known.sets["image"]
    far = (image.concept == image.concept.max()) | (np.arange(len(image)) == 0)
    of = tuple(
        dataclasses.replace(sample, source="far" if away else "near")
        for sample, away in zip(image.samples, far, strict=True)
    )
    split = Split(known.names, {**known.sets, "image": dataclasses.replace(image, samples=of)})
    monkeypatch.setattr(measured, "data", dataclasses.replace(measured.data, known=split))
    asked = []
    figures = sources._figures
    monkeypatch.setattr(sources, "_figures", lambda b, combos: asked.append(combos) or figures(b, combos))
    rows = list(sources.by_source([measured]))
    assert [(row["source"], row["size"]) for row in rows if row["modalities"] == "image"] == [
        (source, size) for source in ("far", "near") for size in (1, 2, 3, 4)
    ]
    assert {row["source"] for row in rows if row["modalities"] != "image"} == {SOURCE}
    alone = known.single("image").take(np.flatnonzero(far))
    row = next(row for row in rows if (row["source"], row["size"]) == ("far", 1))
    found, right = trust.answers(measured, af, alone), af.right(alone)
    shares = {name: measured.methods[name].right(alone).mean() for name in ("AF", "Mean", "Probes")}
    assert (row["n"], row["labels"]) == (4, 2) and row["accuracy"] == right.mean()
    assert (row["mean"], row["probes"]) == (shares["Mean"], shares["Probes"])
    assert row["confidence"] == pytest.approx(found.confidence.mean())
    assert row["ece"] == bootstrap.calibration_error(found.confidence, right > 0)[0]
    best = [name for name, share in shares.items() if share == max(shares.values())]
    assert row["best"] == (", ".join(best) if max(shares.values()) else "none")
    for row, combos in zip(rows, asked, strict=True):
        column = combos.columns.index(row["modalities"])
        assert (combos.mask.sum(axis=1) == row["size"]).all() and combos.mask[:, column].all()
        if row["modalities"] == "image":
            assert (far[combos.rows[:, column]] == (row["source"] == "far")).all()


def test_by_source_in_one_command_at_home_and_away(tree, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
    away = write_tree(tmp_path, {"val": 1}, ("image",))
    index = away / "samples.csv"
    index.write_text(index.read_text().replace(f",{SOURCE},", ",attic,"))
    (away / "labels.csv").write_text("source,label,canonical\nattic,dog,\nattic,car,\n")
    argv = ["eval", "--model", folder, "--data", tree, "--data", away, "--labels", away / "labels.csv", "--count", 20]
    assert run(*argv, "--by", "source", "--out", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert check.faults(data) == []
    assert data["facts"]["by source also"] == [away.name] and data["facts"]["methods"] == ["AF", "Mean", "Probes"]
    assert [section["title"] for section in data["sections"]] == ["Summary", "Data", "Sources"]
    rows = data["tables"]["by_source"]["rows"]
    assert {(row["data"], row["source"]) for row in rows} == {(tree.name, SOURCE), (away.name, "attic")}
    (row,) = (row for row in rows if row["source"] == "attic")
    assert (row["modalities"], row["size"], row["n"], row["labels"]) == ("image", 1, 1, 1)
    assert re.search(r"attic +1 +1 +one label ", printed)
    page = (tmp_path / "report" / "report.html").read_text()
    assert ">one label</td>" in page


# Text, and the paper's tables.


@pytest.fixture
def named(measured):
    found = texts.with_text(measured, texts.NAMED)
    assert found is not None
    return found


def test_text_that_names_the_label_is_a_token_like_any(measured, named):
    known = named.data.known
    names = [known.names[number] for number in known.sets["text"].concept]
    assert {*names} == {*WORDS[:3]} and named.without == 0
    expected = measured.model.embed_text([f"a photo of a {name}" for name in names])
    torch.testing.assert_close(named.af.tokens["text"][:, 0], expected)
    assert list(named.methods) == list(measured.methods)
    assert "text" not in measured.data.known.sets and "text" not in measured.af.tokens
    alone = named.data.known.single("text")
    assert named.methods[methods.MEAN].right(alone).tolist() == [1, 1, 1]  # the text is the label's own prompt
    assert named.methods[methods.PROBES].right(alone).tolist() == [1, 1, 1]
    assert (named.boot.weights(alone) == 1).all()


def test_what_can_be_wrong_with_text(named):
    assert {NOISE, CONFLICTING, "typos"} <= {*named.faults("text")}
    combos = named.data.known.draw_of(("image", "text"), 40, named.rng("test"), named.subset["text"])
    column = np.ones(len(combos), np.int64)
    for fault in (NOISE, CONFLICTING, "blank"):
        changed, possible = named.wrong(combos, column, fault, named.rng(fault))
        assert len(possible) == len(combos) and (changed.rows[:, 0] == combos.rows[:, 0]).all()
        before, after = (
            named.af.tokens["text"][torch.from_numpy(rows[:, 1].copy()), 0] for rows in (combos.rows, changed.rows)
        )
        assert not torch.isclose(before, after).all(dim=1).any()
    noisy, _ = named.wrong(combos, column, NOISE, named.rng(0))
    sample = named.data.known.sets["text"].samples[combos.rows[0, 1]]
    words = texts.random_words(f"a photo of a {sample.label}", sample.label, named.model.labels.names, named.seed)
    token = named.af.tokens["text"][noisy.rows[0, 1], 0]
    torch.testing.assert_close(token, named.model.embed_text([words])[0])


def test_described_labels_are_compared_without_their_own_descriptions(measured, monkeypatch):
    model = measured.model
    told = {"car": ["car: it has four wheels"], "dog": ["dog: it barks"]}
    whole = LabelBank.from_names(model.labels.names, model.embed_text, descriptions=told)
    monkeypatch.setattr(model, "_vocabulary", (whole, whole.rows[:0]))
    found = texts.with_text(measured, texts.DESCRIBED)
    assert found is not None
    assert [*found.sentences] == ["it barks", "it has four wheels"]
    assert found.without == 1
    assert not found.af.labels.descriptions and len(found.af.labels.rows) == len(whole.names)


def test_the_papers_combinations_are_those_of_its_tables():
    """Tables 3, 11 and 13; Te is text (caption of Table 3)."""
    assert {key: set(columns) for key, columns in accuracy.PAPER.items()} == {
        "C1": {"image", "audio", "point_cloud"},
        "C2": {"text", "event", "touch"},
        "C3": {"text", "event", "touch", "image"},
        "C4": {"image", "event", "audio", "point_cloud"},
        "C5": {"text", "event", "touch", "image", "audio"},
        "C6": {"image", "point_cloud", "audio", "event", "text"},
        "C7": {"image", "touch", "event"},
        "C8": {"point_cloud", "audio", "event", "text"},
    }


def test_the_papers_combinations(measured, named):
    rows = list(paper.named({"": measured, texts.NAMED: named}))
    assert {row["paper"] for row in rows} == {*accuracy.PAPER}
    by_key = {key: [row for row in rows if row["paper"] == key] for key in accuracy.PAPER}
    assert {row["text"] for row in by_key["C1"]} == {""} and all(row["n"] for row in by_key["C1"])
    assert [row["n"] for row in by_key["C5"]] == [0]  # no event camera in the data
    assert "C5 (text, event, touch, image, audio)" in paper.absent(rows)
    pairs = list(paper.pairs({"": measured, texts.NAMED: named}))
    said = {(row["modalities"], row["text"]) for row in pairs if row["n"]}
    assert {("text", texts.NAMED), ("image+touch", ""), ("text+touch", texts.NAMED)} <= said
    assert ("image+touch", texts.NAMED) not in said
    assert ("text+thermal", "") in {(row["modalities"], row["text"]) for row in pairs if not row["n"]}
    assert "text and thermal" in paper.absent(pairs)
    alone = [row for row in pairs if row["modalities"] == "text"]
    assert alone and all(row["interval"] is None for row in alone)  # one text a label: nothing to draw again
    assert paper.few([{"paper": "C1", "labels": 1}, {"paper": "C1", "labels": 1}, {"paper": "C2", "labels": 2}]) == [
        "C1"
    ]


def test_noise_in_each_modality_of_the_papers_combinations(measured, named, monkeypatch):
    monkeypatch.setitem(accuracy.PAPER, "C8", ("point_cloud", "audio", "text"))
    rows = list(paper.noise({"": measured, texts.NAMED: named}))
    wrong = {row["wrong"] for row in rows if row["paper"] == "C8"}
    assert wrong == {"point_cloud", "audio", "text"}
    for row in rows:
        assert row["cost"] == pytest.approx(row["accuracy"] - row["clean"])
    text = [row for row in rows if row["wrong"] == "text" and row["method"] == methods.MEAN]
    assert text and all(row["text"] == texts.NAMED for row in text)
    assert {row["kind"] for row in text} >= {"noise only", "typos", "blank", "unrelated", "another label"}
    assert {row["kind"] for row in rows if row["wrong"] == "audio"} == {"noise only", "unseen noise"}


def test_self_attention_is_built_whatever_the_models_own_fusion_is(measured, monkeypatch):
    built = []

    def spy(model, split, part, seed, settings):
        built.append((dict(part), settings.fuse.negatives))
        return model.fusion

    monkeypatch.setattr(methods, "trained", spy)
    reliable = {"type": "attention", "preset": "reliability"}
    config = measured.model.config.model_copy(update={"fusion": reliable})
    monkeypatch.setattr(measured.model, "config", config)
    again = dataclasses.replace(measured, _fusions={})
    names = list(dict.fromkeys(row["method"] for row in retrained.parts(again)))
    assert (
        names[0] == "self-attention and CLS (AF, preset paper)"
        and names[-1] == "the model's own fusion (reliability), CLS"
    )
    parts = {"type": "attention", "preset": "paper"}
    assert (parts, "wrong") in built and (parts, "all") in built and (reliable, "wrong") in built


# The command.


def test_report_of_everything_twice_the_same(tree, folder, tmp_path, capsys):
    argv = ["eval", "--model", folder, "--data", tree, "--count", 30, "--damage", 3, "--baselines", "Linear"]
    assert run(*argv, "--out", tmp_path / "one") == 0
    printed = capsys.readouterr().out
    for title in ("By number of modalities", "Targets and what was measured", "Parts of AF (Table 8)", "(Table 12)"):
        assert title in printed
    lines = [line.split() for line in printed.splitlines() if line.startswith(("C1 ", "C5 "))]
    assert ["C5", "text+event+touch+image+audio", "none", "in", "these", "data"] in lines  # no event camera
    assert lines[0][:2] == ["C1", "image+audio+point_cloud"]
    assert run(*argv, "--out", tmp_path / "two", "--json") == 0
    first = (tmp_path / "one" / "report.json").read_bytes()
    assert first == (tmp_path / "two" / "report.json").read_bytes()
    assert capsys.readouterr().out.encode() == first
    data = json.loads(first)
    assert check.faults(data) == []
    assert data["facts"]["samples of unknown things"] == 12
    assert data["facts"]["which the model has no label for"] == ["zeppelin (12)"]
    assert "which the model has no label for: zeppelin (12)" in printed
    paper_af = ["AF, preset paper", "AF, preset paper, without CLS negatives"]
    assert data["facts"]["methods"] == ["AF", "Mean", "Probes", "Linear", *paper_af]
    said = next(part["text"] for part in data["sections"] if part["title"] == "The paper's combinations")
    assert (
        "no label with all of" in said and "C5 (text, event, touch, image, audio)" in said and "text and event" in said
    )
    assert "Tables 8 and 12 are" in said
    assert set(data["tables"]) >= {"by_size", "combinations", "single", "retrieval", "noise_each", "missing", "several"}
    methods_of = {row["method"] for row in data["tables"]["by_size"]["rows"]}
    assert methods_of == {"AF", "Mean", "Probes", "Linear", "best single", *paper_af}
    for name, table in data["tables"].items():
        for row in table["rows"]:
            if row.get("accuracy") is not None and row.get("interval"):
                assert 0 <= row["interval"][0] <= row["interval"][1] <= 1, name
                assert row.get("n", row.get("seeds")) > 0, name
    ood = [row for row in data["tables"]["unknown"]["rows"] if row["unknown"] == "no label of the model"]
    assert {row["modalities"] for row in ood} == {1, 2, 3, 4}
    assert {row["goal"] for row in data["tables"]["targets"]["rows"]} >= {"calibration error (ECE)"}
    wrong = {row["kind"] for row in data["tables"]["noise_each"]["rows"] if row["wrong"] == "audio"}
    assert wrong == {"gaussian", "blank", "clipped", "sparse", NOISE, HELD_OUT, CONFLICTING, STUCK}


def test_only_a_test_split_with_a_table_and_unknown_labels(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
    tree = write_tree(tmp_path, {"test": 2}, ("image", "touch"))
    table = tmp_path / "labels.csv"
    table.write_text(f"source,label,canonical\n{SOURCE},cup,Cups\n{SOURCE},dog,\n{SOURCE},zeppelin,airship\n")
    argv = [
        "eval",
        "--model",
        folder,
        "--data",
        tree,
        "--split",
        "test",
        "--labels",
        table,
        "--count",
        20,
        "--damage",
        2,
    ]
    assert run(*argv, "--empty", "leave-out", "--out", tmp_path / "report", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["facts"]["empty canonical"] == "1 label, 4 samples: left out (--empty)"
    labels = {row["label"]: (row["concept"], row["known"]) for row in data["tables"]["labels"]["rows"]}
    assert labels == {"cup": ("cup", True), "dog": (None, False), "zeppelin": ("airship", False), "car": ("car", True)}
    assert data["facts"]["samples"] == 8 and data["facts"]["samples left out"] == 4
    assert data["facts"]["methods"] == ["AF", "Mean"]
    assert "has no split 'train'" in data["facts"]["no training samples"]
    assert any(row["labels_unknown"] == 1 for row in data["tables"]["unknown"]["rows"])


def test_an_empty_canonical_gives_the_figures_of_a_made_up_name(folder, tmp_path, monkeypatch, capsys):
    """And the model's labels that the table takes for one count as one, in every section."""
    monkeypatch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
    tree = write_tree(tmp_path, {"val": 2}, ("image", "touch"))
    index = tree / "samples.csv"
    index.write_text(index.read_text().replace(f",{SOURCE},", ",foreign,"))  # a source that the model does not know
    reports = []
    for name in ("", "xqz000"):
        table = tmp_path / "labels.csv"
        table.write_text(f"source,label,canonical\nforeign,dog,{name}\nforeign,zeppelin,airship\nforeign,car,cup\n")
        argv = ["eval", "--model", folder, "--data", tree, "--labels", table, "--count", 20, "--damage", 2, "--json"]
        assert run(*argv, "--out", tmp_path / "report") == 0
        reports.append(json.loads(capsys.readouterr().out))
    empty, named = reports
    assert empty["facts"].pop("empty canonical") == "1 label, 4 samples: counted as unknown things (--empty)"
    assert empty["facts"] == named["facts"] and empty["facts"]["samples of unknown things"] == 8
    labels = {row["label"]: row["concept"] for row in empty["tables"].pop("labels")["rows"]}
    assert labels == {"cup": "cup", "car": "cup", "dog": "another dog", "zeppelin": "airship"}
    assert empty["tables"]["folded"]["rows"] == [{"label": "car", "counts_as": "cup"}]
    named["tables"].pop("labels")
    assert empty["tables"] == named["tables"]
    assert all(row["labels"] == 1 for row in empty["tables"]["single"]["rows"])
    # 'car', which counts as 'cup', is an answer, too: right as often as either of both is answered.
    for row in empty["tables"]["single"]["rows"]:
        if row["method"] == "AF":
            wrong = [r["share"] for r in empty["tables"]["confusions"]["rows"] if r["modalities"] == row["modalities"]]
            assert row["accuracy"] == pytest.approx(1 - sum(wrong), abs=1e-4)
            assert row["accuracy_own"] == 1


def test_samples_with_nothing_to_say_are_neither_right_nor_wrong(folder, tmp_path, capsys):
    tree = write_tree(tmp_path, {"test": 2}, ("image", "touch", "audio"))
    soundfile.write(tree / "test-cup-0.wav", np.zeros(16000), 16000)
    soundfile.write(tree / "test-zeppelin-0.wav", np.random.default_rng(0).normal(0, 1e-3, 16000), 16000)
    np.save(tree / "test-cup-0.npy", np.full((32, 32), 0.1, np.float32))
    argv = ["eval", "--model", folder, "--data", tree, "--split", "test", "--count", 40, "--damage", 2]
    argv += ["--tables", "single", "combinations", "--out", tmp_path / "report"]
    assert run(*argv, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["facts"]["samples with nothing to say"] == 3
    counts = {row["modalities"]: (row["n"], row["n_silent"]) for row in data["tables"]["samples"]["rows"]}
    assert counts == {"image": (6, 0), "touch": (5, 1), "audio": (3, 2)}
    single = {row["modalities"]: row["n"] for row in data["tables"]["single"]["rows"] if row["method"] == "AF"}
    assert single == {"image": 6, "touch": 5, "audio": 3}
    said = {row["sample"]: row["reason"] for row in data["tables"]["silent"]["rows"]}
    assert {*said} == {"audio-test-cup-0", "audio-test-zeppelin-0", "touch-test-cup-0"}
    assert "silence" in said["audio-test-cup-0"] and "no contact" in said["touch-test-cup-0"]
    for path in tree.glob("*.wav"):
        soundfile.write(path, np.zeros(16000), 16000)
    index = (tree / "samples.csv").read_text().splitlines()
    (tree / "samples.csv").write_text("\n".join([index[0], *(line for line in index if ",audio," in line)]))
    assert run(*argv) == 2
    assert "no sample says anything, the first: nothing to say: silence" in capsys.readouterr().err


def test_one_modality_alone_is_enough(folder, tmp_path, capsys):
    tree = write_tree(tmp_path, {"test": 2}, ("image",))
    argv = ["eval", "--model", folder, "--data", tree, "--split", "test", "--count", 20, "--json"]
    assert run(*argv, "--out", tmp_path / "report") == 0
    data = json.loads(capsys.readouterr().out)
    assert {row["modalities"] for row in data["tables"]["by_size"]["rows"]} == {1}
    assert data["tables"]["noise_each"]["rows"] == []


def test_compared_tables_are_taken_in(tree, folder, tmp_path, capsys):
    summary = {"table": "Loss terms", "condition": "touch", "method": "L_in", "seeds": 2, "mean": 0.9, "interval": 0.2}
    row = {**summary, "ahead": None, "ahead_interval": None}
    (tmp_path / "ablation.json").write_text(json.dumps({"summary": [row]}))
    argv = ["eval", "--model", folder, "--data", tree, "--tables", "retrained", "--baselines", "--json"]
    assert run(*argv, "--out", tmp_path / "report", "--compare", tmp_path) == 0
    data = json.loads(capsys.readouterr().out)
    found = data["tables"]["compare_ablation"]["rows"]
    assert found[0]["accuracy"] == 0.9 and found[0]["interval"] == [0.7, 1.0]
    assert "few samples" in data["sections"][-1]["text"]
    (tmp_path / "ablation.json").write_text("{}")
    with pytest.raises(DataError, match="is not what omnibind train compare writes"):
        retrained.compared(tmp_path)
    with pytest.raises(DataError, match="has no table of omnibind train compare"):
        retrained.compared(tree)
    with pytest.raises(DataError, match="no folder"):
        retrained.compared(tmp_path / "nothing")


def test_parts_and_training_modalities(measured):
    names = {row["method"] for row in retrained.parts(measured)}
    assert names == {"self-attention and CLS (AF, preset paper)", "self-attention, all labels as negatives",
                     "CLS, a linear layer for self-attention", "neither (mean)"}  # fmt: skip
    rows = list(retrained.training_modalities(measured))
    assert [row["training_modalities"] for row in rows if row["modalities"] == 1] == [1, 2, 3, 4]
    assert rows[0]["trained_on"] == "image"


def test_what_only_training_tells(tree, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
    monkeypatch.setattr(retrained, "SHOTS", (1,))
    argv = ["eval", "--model", folder, "--data", tree, "--tables", "retrained", "--retrain", "--baselines", "--json"]
    assert run(*argv, "--count", 10, "--out", tmp_path) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert {"af_parts", "training_modalities", "compare_ablation", "compare_few_shot", "compare_left_out"} <= set(
        tables
    )
    assert {row["condition"] for row in tables["compare_few_shot"]["rows"]} == {"1 sample per label"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--split", "test"], "has no samples of the split 'test'; it has train, val"),
        (["--count", "0"], "--count is 0, expected 1 or more"),
        (["--damage", "-1"], "--damage is -1, expected 0 or more"),
        (["--labels", "nowhere.csv"], "no label table nowhere.csv"),
        (["--out", "samples.csv"], "is a file, expected a folder"),
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["--train-data", "nowhere"], "nowhere"),
        (["--tables", "noise", "nonsense"], f"--tables nonsense: expected some of {' '.join(evaluate.SECTIONS)}"),
        (["--baselines", "Nonsense"], "--baselines Nonsense: expected some of Linear"),
    ],
)
def test_bad_input_says_what_was_expected(tree, folder, extra, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(shutil.copytree(tree, tmp_path / "copy"))
    assert run("eval", "--model", folder, "--data", ".", *extra) == 2
    assert message in capsys.readouterr().err


def test_no_known_label_is_an_error(tree, folder, tmp_path):
    model = OmniBind.from_pretrained(folder)
    own = Concepts([Match(SOURCE, word, "", 1.0, "") for word in WORDS])
    with pytest.raises(DataError, match="has no label for any sample; expected some of its 4 labels"):
        samples.load(tree, "val", model, own)


@pytest.mark.parametrize(("threshold", "all_of_them"), [(0.0, True), (1.1, False)])
def test_where_all_is_unknown_it_says_how_much_of_it_gets_a_label(tree, folder, threshold, all_of_them):
    model = OmniBind.from_pretrained(folder)
    model.threshold = threshold
    other = Concepts([Match(SOURCE, word, "something else", 1.0, "") for word in WORDS])
    with pytest.raises(DataError, match="has no label for any sample") as stop:
        samples.load(tree, "val", model, Concepts([]), other)
    (count, answered) = map(
        int, re.findall(r"Of (\d+) samples of unknown things (\d+) get a label", str(stop.value))[0]
    )
    assert count > 0 and answered == (count if all_of_them else 0)


def test_figures_in_the_documents_are_those_of_the_shipped_model(repo):
    report = json.loads((repo / "docs" / "figures" / "report-lite.json").read_text(encoding="utf-8"))
    shipped = OmniBind.from_pretrained("lite", modalities=()).identity
    again = "run omnibind eval --data DIR and python tools/doc_tables.py --report report/report.json"
    assert report["schema"] == SCHEMA
    assert check.faults(report) == [], again
    assert report["facts"]["model"] == shipped, again


def test_every_section_is_documented(repo):
    text = (repo / "docs" / "evaluation.md").read_text(encoding="utf-8")
    measured = text.partition("## What is measured")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", measured, re.M) == list(evaluate.SECTIONS)


def test_cat_needs_every_modality_of_the_model(measured):
    method = methods.FusionMethod("Mean", measured.af.tokens, [MeanFusion()], measured.model.labels, measured.af.slots)
    with pytest.raises((ConfigError, ValueError)):
        method.scores(Combinations(("smell",), np.zeros((1, 1), np.int64), np.zeros(1, np.int64)))


# Sensors of other sources, with and without what is made for them.


def test_the_fusion_and_the_certainty_are_told_apart_at_home_and_away(tmp_path, folder, capsys):
    home, other = tmp_path / "home", tmp_path / "other"
    for place in (home, other):
        place.mkdir()
        write_tree(place, {"train": 2, "val": 6})
    train = [f"data={home}", f"labels={folder / 'labels.csv'}", "augmentations=0", "fuse.shifts=1", "fuse.damage=1"]
    train += ["model=tiny", "image_text.steps=1", "align.steps=1", "fuse.steps=2", "fuse.batch=8", "descriptions=none"]
    train += ["align.per_student={point_cloud: {steps: 200}}"]  # the config's thousand take half a minute
    sets = [part for setting in train for part in ("--set", setting)]
    argv = ["train", "compare", "--tables", "away", "--away", other, "--seeds", 1, "--count", 40, "--out", tmp_path]
    assert run(*argv, *sets) == 0
    found = json.loads((tmp_path / "away.json").read_text())["measurements"]
    values = {(one["table"], one["condition"], one["method"]): one["value"] for one in found}
    ways = ["both", "the fusion alone", "the certainty alone", "neither"]
    for place in ("home", "away"):
        right = [values[place, "one sensor", way] for way in ways]
        assert right == [right[0]] * 4 == [values[place, "one sensor", "Mean"]] * 4  # nothing weighs one token
        assert values[place, "pairs", "best single"] <= 1 and 0 <= values[place, "pairs", "Probes"] <= 1
        confidence = [values[f"{place}, confidence", "one sensor", way] for way in ways]
        assert confidence[0] == confidence[2] and confidence[1] == confidence[3] and confidence[0] != confidence[1]
        assert (f"{place}, ECE", "three", "both") in values
    assert "Mean confidence in percent, one seed" in capsys.readouterr().out
