"""The verdicts on what the project wants to reach: on both sides of every limit."""

from __future__ import annotations

import pytest

from omnibind_core.data.damage import NOISE
from omnibind_core.evaluation.bench import CONFLICTING
from omnibind_core.evaluation.methods import AF, MEAN, PROBES
from omnibind_core.evaluation.tables.targets import check

BOUNDS = (0.1, 0.2)


def verdict(**tables):
    """The only row that some tables give."""
    (row,) = check(tables)
    return row


@pytest.mark.parametrize(("af", "met"), [(0.8, False), (0.9, True), (0.95, True)])
def test_nothing_wrong(af, met):
    both = {AF: af, MEAN: 0.9, PROBES: 0.7}
    rows = [{"method": m, "modalities": 2, "accuracy": value, "interval": BOUNDS} for m, value in both.items()]
    found = verdict(by_size=[*rows, *({**row, "modalities": 1} for row in rows)])
    assert (found["met"], found["value"], found["target"]) == (met, af, "90.0 % (Mean)")
    assert (found["measured"], found["probes"]) == (f"{100 * af:.1f} % (10.0 to 20.0)", "70.0 %")


@pytest.mark.parametrize(("cost", "met"), [(-0.5, False), (-0.051, False), (-0.05, True), (-0.01, True)])
def test_noise_costs_at_most_five_points_whichever_modality_it_is_in(cost, met):
    row = {"kind": NOISE, "method": AF, "modalities": 3, "wrong": "point_cloud", "cost": cost, "cost_interval": BOUNDS}
    harmless = {**row, "wrong": "touch", "cost": 0.0}
    left_out = [{**row, "cost": -0.9, **change} for change in ({"modalities": 2}, {"method": MEAN}, {"kind": "x"})]
    found = verdict(noise_each=[harmless, row, {**row, "method": PROBES, "cost": -0.2}, *left_out])
    assert (found["met"], found["value"], found["target"]) == (met, cost, "at most 5 points")
    assert found["measured"] == f"{-100 * cost:.1f} points (-20.0 to -10.0)"
    assert (found["condition"], found["probes"]) == ("3 modalities, worst: point cloud", "20.0 points")


@pytest.mark.parametrize(
    ("size", "accuracy", "met", "target"),
    [
        (3, 0.89, False, "at least 90 %"),
        (3, 0.90, True, "at least 90 %"),
        (4, 0.96, False, "at least 97 %"),
        (4, 0.97, True, "at least 97 %"),
    ],
)
def test_conflict(size, accuracy, met, target):
    row = {"kind": CONFLICTING, "method": AF, "modalities": size, "wrong": "any", "accuracy": accuracy}
    found = verdict(noise_any=[{**row, "interval": BOUNDS}, {**row, "modalities": 2}, {**row, "kind": NOISE}])
    assert (found["met"], found["value"], found["target"]) == (met, accuracy, target)


@pytest.mark.parametrize(("error", "met"), [(0.029, True), (0.03, True), (0.031, False), (0.3, False)])
def test_calibration(error, met):
    row = {"method": AF, "modalities": "any", "size": 1, "ece": error, "ece_interval": BOUNDS}
    found = verdict(calibration=[row, {**row, "modalities": "touch"}, {**row, "method": PROBES, "ece": 0.5}])
    assert (found["met"], found["value"], found["target"], found["probes"]) == (met, error, "at most 0.03", "0.500")


@pytest.mark.parametrize(("auroc", "met"), [(0.5, False), (0.949, False), (0.95, True), (0.99, True)])
def test_unknown_things(auroc, met):
    row = {"method": AF, "modalities": 2, "unknown": "new", "labels_unknown": 1, "auroc": auroc, "interval": BOUNDS}
    found = verdict(unknown=[row, {**row, "method": PROBES, "auroc": 0.4}])
    assert (found["met"], found["value"], found["target"], found["probes"]) == (met, auroc, "at least 0.95", "0.400")


@pytest.mark.parametrize(("gain", "met"), [(-0.001, False), (0.0, True), (0.02, True)])
def test_a_second_sensor(gain, met):
    row = {"method": AF, "second_is": "good", "modalities": "touch", "gain": gain, "gain_interval": BOUNDS}
    left_out = [{**row, "gain": -1.0, **change} for change in ({"second_is": "noise"}, {"method": MEAN})]
    found = verdict(several=[{**row, "gain": 0.5}, row, *left_out])
    assert (found["met"], found["value"]) == (met, gain)


def test_no_tables_no_verdicts():
    assert list(check({})) == []
