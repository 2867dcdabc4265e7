"""What the targets say of given tables: which rows are judged, by which limit, and beside what."""

from __future__ import annotations

import pytest

from omnibind_core.data.damage import NOISE
from omnibind_core.evaluation.bench import CONFLICTING
from omnibind_core.evaluation.methods import AF, MEAN, PROBES
from omnibind_core.evaluation.tables.targets import check


def judged(**tables):
    return list(check(tables))


def by_size(method, accuracy, size=2, interval=(0.8, 0.95)):
    return {"method": method, "modalities": size, "accuracy": accuracy, "interval": interval}


@pytest.mark.parametrize(("af", "met"), [(0.91, True), (0.9, True), (0.899, False)])
def test_nothing_wrong_is_judged_against_the_mean_of_the_same_size(af, met):
    rows = [by_size(AF, 0.1, size=1), by_size(MEAN, 0.99, size=3), by_size(PROBES, 0.85), by_size(MEAN, 0.9)]
    (row,) = judged(by_size=[by_size(AF, af), *rows])
    assert row == {
        "goal": "nothing wrong: AF loses nothing",
        "condition": "2 modalities",
        "target": "90.0 % (Mean)",
        "measured": f"{100 * af:.1f} % (80.0 to 95.0)",
        "mean": "90.0 %",
        "probes": "85.0 %",
        "value": af,
        "interval": (0.8, 0.95),
        "met": met,
        "verdict": "no" if not met else "yes" if af > 0.9 else "Mean too",
    }
    assert judged(by_size=[by_size(AF, af), by_size(MEAN, 0.9)])[0]["probes"] is None


def noise(cost, method=AF, size=3, wrong="point_cloud", kind=NOISE):
    row = {"method": method, "modalities": size, "wrong": wrong, "kind": kind}
    return {**row, "cost": cost, "cost_interval": (cost - 0.02, cost + 0.01)}


@pytest.mark.parametrize(("cost", "met"), [(-0.04, True), (-0.05, True), (-0.051, False)])
def test_noise_is_judged_by_the_worst_modality_of_each_size(cost, met):
    others = [noise(-0.5, size=2), noise(-0.6, kind="dead pixels"), noise(-0.7, method=MEAN), noise(0.0, wrong="audio")]
    probes = [noise(-0.3, method=PROBES), noise(-0.9, method=PROBES, wrong="audio")]
    larger = noise(0.0, size=4)
    found = judged(noise_each=[larger, noise(-0.01, wrong="image"), noise(cost), *others, *probes])
    assert found[0] == {
        "goal": "one modality replaced by noise: cost",
        "condition": "3 modalities, worst: point cloud",
        "target": "at most 5 points",
        "measured": f"{-100 * cost:.1f} points ({-100 * cost - 1:.1f} to {-100 * cost + 2:.1f})",
        "mean": "70.0 points (point cloud)",
        "probes": "30.0 points",
        "value": cost,
        "interval": (cost - 0.02, cost + 0.01),
        "met": met,
        "verdict": "yes" if met else "no",
    }
    assert [row["condition"] for row in found[1:]] == ["4 modalities, worst: point cloud"]
    assert found[1]["measured"] == "0.0 points (-1.0 to 2.0)" and found[1]["probes"] is None


def test_of_two_that_cost_alike_the_first_is_named():
    (row,) = judged(noise_each=[noise(-0.2, wrong="touch"), noise(-0.2, wrong="audio")])
    assert row["condition"] == "3 modalities, worst: touch"


def conflict(accuracy, size, method=AF, kind=CONFLICTING):
    interval = (accuracy - 0.01, accuracy + 0.01)
    return {"method": method, "modalities": size, "kind": kind, "accuracy": accuracy, "interval": interval}


@pytest.mark.parametrize(
    ("size", "accuracy", "target", "met"),
    [(3, 0.9, 90, True), (3, 0.899, 90, False), (4, 0.97, 97, True), (4, 0.969, 97, False)],
)
def test_another_label_is_judged_for_three_and_four(size, accuracy, target, met):
    others = [conflict(0.1, 2), conflict(0.1, 5), conflict(0.1, size, kind=NOISE), conflict(0.1, size, method=MEAN)]
    (row,) = judged(noise_any=[*others, conflict(accuracy, size), conflict(0.5, size, method=PROBES)])
    assert row == {
        "goal": "one modality shows another label: accuracy",
        "condition": f"{size} modalities, a random one",
        "target": f"at least {target} %",
        "measured": f"{100 * accuracy:.1f} % ({100 * accuracy - 1:.1f} to {100 * accuracy + 1:.1f})",
        "mean": "10.0 %",
        "probes": "50.0 %",
        "value": accuracy,
        "interval": (accuracy - 0.01, accuracy + 0.01),
        "met": met,
        "verdict": "yes" if met else "no",
    }
    assert judged(noise_any=[conflict(accuracy, size)])[0]["probes"] is None


def calibration(ece, method=AF, size=1, modalities="any"):
    interval = (ece - 0.001, ece + 0.002)
    return {"method": method, "size": size, "modalities": modalities, "ece": ece, "ece_interval": interval}


@pytest.mark.parametrize(("ece", "met"), [(0.029, True), (0.03, True), (0.031, False)])
def test_calibration_of_any_combination_of_a_size(ece, met):
    others = [calibration(0.5, modalities="image"), calibration(0.5, method=MEAN)]
    rows = [*others, calibration(0.2, PROBES, size=2), calibration(0.1, PROBES), calibration(ece)]
    (row,) = judged(calibration=rows)
    assert row == {
        "goal": "calibration error (ECE)",
        "condition": "1 modality",
        "target": "at most 0.03",
        "measured": f"{ece:.3f} ({ece - 0.001:.3f} to {ece + 0.002:.3f})",
        "mean": "0.500",
        "probes": "0.100",
        "value": ece,
        "interval": (ece - 0.001, ece + 0.002),
        "met": met,
        "verdict": "yes" if met else "no",
    }
    assert judged(calibration=[calibration(ece)])[0]["probes"] is None


def unknown(auroc, method=AF, things=1, size=2, what="of the same kind"):
    row = {"method": method, "modalities": size, "unknown": what, "labels_unknown": things}
    return {**row, "auroc": auroc, "interval": (auroc - 0.01, auroc + 0.01)}


@pytest.mark.parametrize(("auroc", "met"), [(0.951, True), (0.95, True), (0.949, False)])
@pytest.mark.parametrize(("things", "words"), [(1, "1 thing"), (4, "4 things")])
def test_unknown_things(auroc, met, things, words):
    others = [unknown(0.2, method=MEAN), unknown(0.3, PROBES, what="noise"), unknown(0.8, PROBES)]
    (row,) = judged(unknown=[*others, unknown(auroc, things=things)])
    assert row == {
        "goal": "unknown things (AUROC)",
        "condition": f"2 modalities, of the same kind ({words})",
        "target": "at least 0.95",
        "measured": f"{auroc:.3f} ({auroc - 0.01:.3f} to {auroc + 0.01:.3f})",
        "mean": "0.200",
        "probes": "0.800",
        "value": auroc,
        "interval": (auroc - 0.01, auroc + 0.01),
        "met": met,
        "verdict": "yes" if met else "no",
    }


def second(gain, method=AF, second_is="good", modalities="point_cloud"):
    row = {"method": method, "second_is": second_is, "modalities": modalities}
    return {**row, "gain": gain, "gain_interval": (gain - 0.01, gain + 0.02)}


@pytest.mark.parametrize(("gain", "met"), [(0.01, True), (0.0, True), (-0.001, False)])
def test_a_second_sensor_is_judged_where_it_gains_least(gain, met):
    others = [second(-0.5, second_is="noise only"), second(-0.6, method=MEAN), second(0.3, modalities="audio")]
    (row,) = judged(several=[*others, second(gain)])
    assert row == {
        "goal": "a second sensor of one modality never hurts",
        "condition": "worst: point cloud",
        "target": "gain of 0 points or more",
        "measured": f"{100 * gain:+.1f} points ({100 * gain - 1:.1f} to {100 * gain + 2:.1f})",
        "mean": "-60.0 points (point cloud)",
        "probes": None,
        "value": gain,
        "interval": (gain - 0.01, gain + 0.02),
        "met": met,
        "verdict": "yes" if met else "no",
    }


def test_what_was_not_measured_is_not_judged():
    assert judged() == []
    assert judged(several=[second(0.1, second_is="noise only")]) == []


@pytest.mark.parametrize(
    ("table", "row", "good", "bad", "mean"),
    [
        ("by_size", by_size, 0.9, 0.89, "90.0 %"),
        ("noise_each", noise, -0.05, -0.051, "5.0 points (point cloud)"),
        ("noise_any", lambda value, method: conflict(value, 3, method), 0.9, 0.899, "90.0 %"),
        ("calibration", calibration, 0.03, 0.031, "0.030"),
        ("unknown", unknown, 0.95, 0.949, "0.950"),
        ("several", second, 0.0, -0.001, "+0.0 points (point cloud)"),
    ],
)
def test_what_mean_meets_too_is_no_success(table, row, good, bad, mean):
    def verdict(af, other):
        both = [(AF, af), (MEAN, other)] if other is not None else [(AF, af)]
        (found,) = judged(**{table: [row(m, v) if row is by_size else row(v, m) for m, v in both]})
        return found["verdict"], found["mean"], found["met"]

    assert verdict(good, good) == ("Mean too", mean, True)
    assert verdict(bad, good) == ("no", mean, False)
    assert verdict(good, bad)[::2] == ("yes", True)
    if table != "by_size":  # there the target is Mean's own figure
        assert verdict(good, None) == ("yes", None, True)


def test_mean_meets_the_noise_target_only_with_its_own_worst_modality():
    rows = [noise(-0.01), noise(-0.01, MEAN), noise(-0.2, MEAN, wrong="audio")]
    (row,) = judged(noise_each=rows)
    assert (row["verdict"], row["mean"]) == ("yes", "20.0 points (audio)")


def test_a_target_that_rests_on_one_label_says_so():
    rows = [{**by_size(name, 1.0, size=4), "labels": 1} for name in (AF, MEAN)]
    assert judged(by_size=rows)[0]["condition"] == "4 modalities (one label)"
    rows = [{**by_size(name, 1.0, size=4), "labels": 2} for name in (AF, MEAN)]
    assert judged(by_size=rows)[0]["condition"] == "4 modalities"
