"""What the demo's predictions are worth, and when sensors left and came back; pure functions of what was observed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnibind_ros.bags.scene_bag import SENSORS, SceneLabel
from omnibind_ros.demo.monitor import Observation, Status
from omnibind_ros.demo.schedule import Outage

# Predictions of the first second of a scene still rest on the scene before: frames are used until they are older than
# their window, and windows of sound reach back.
GRACE = 1.0


@dataclass(frozen=True)
class SceneResult:
    """What was recognised in one scene.

    Attributes:
        scene: What was there.
        predictions: Number of predictions after :data:`GRACE`.
        sensors: Sensors that took part in at least half of them.
        fused: Label most often predicted.
        mean: The same of the mean of the sensors' similarities; "" if the node does not publish them.
        single: The same of each sensor alone.
    """

    scene: SceneLabel
    predictions: int
    sensors: tuple[str, ...]
    fused: str
    mean: str
    single: Mapping[str, str]

    def right(self, said: str) -> bool:
        """Whether a label is the scene's."""
        return same(said, self.scene.label)


@dataclass(frozen=True)
class OutageResult:
    """What was seen of one outage; times in s from the beginning of the recording, NaN if it never happened.

    Attributes:
        sensor: Sensor name.
        killed_s: When its publisher was killed.
        last_message_s: When the node received its last message before that.
        left_s: First prediction without it.
        restarted_s: When its publisher was started again.
        returned_s: First prediction with it after that.
        predictions_meanwhile: Predictions between leaving and the restart.
    """

    sensor: str
    killed_s: float
    last_message_s: float
    left_s: float
    restarted_s: float
    returned_s: float
    predictions_meanwhile: int


def same(one: str, other: str) -> bool:
    """Whether two labels are the same word."""
    return one.strip().lower() == other.strip().lower()


def scene_at(scenes: Sequence[SceneLabel], time_s: float) -> SceneLabel | None:
    """The scene at a time, if any."""
    return next((scene for scene in scenes if scene.start_s <= time_s < scene.end_s), None)


def mean_label(seen: Observation, labels: Sequence[str]) -> str:
    """What the plain mean of the sensors' similarities says; "" without similarities."""
    if seen.similarities.shape[1] != len(labels) or not labels or len(seen.similarities) < 2:
        return ""
    return labels[int(seen.similarities[1:].mean(axis=0).argmax())]


def evaluate(
    scenes: Sequence[SceneLabel], predictions: Sequence[Observation], labels: Sequence[str]
) -> list[SceneResult]:
    """One result for each scene with predictions, by majority; the first :data:`GRACE` seconds do not count."""
    results = []
    for scene in scenes:
        inside = [seen for seen in predictions if scene.start_s + GRACE <= seen.time_s < scene.end_s]
        if not inside:
            continue
        taking_part = Counter(name for seen in inside for name in seen.sensors)
        sensors = tuple(name for name in SENSORS if taking_part[name] * 2 >= len(inside))
        said = [dict(zip(seen.sensors, seen.sensor_labels, strict=False)) for seen in inside]
        single = {name: _majority(one[name] for one in said if name in one) for name in sensors}
        means = [mean_label(seen, labels) for seen in inside]
        results.append(
            SceneResult(scene, len(inside), sensors, _majority(seen.label for seen in inside), _majority(means), single)
        )
    return results


def _majority(said: Iterable[str]) -> str:
    return Counter(said).most_common(1)[0][0]


def follow(
    outages: Sequence[Outage], predictions: Sequence[Observation], reports: Sequence[Status]
) -> list[OutageResult]:
    """Finds in the observations how each outage went.

    Args:
        outages: As they were carried out.
        predictions: All predictions, in order.
        reports: All reports of the node's state.
    """
    results = []
    for outage in outages:
        name, killed, restarted = outage.sensor, outage.kill_s, outage.restart_s
        away = [seen for seen in predictions if killed < seen.time_s < restarted and name not in seen.sensors]
        back = [seen for seen in predictions if seen.time_s >= restarted and name in seen.sensors]
        # The node itself knows when it last received something: its report's time less the age in it.
        heard = [
            report.time_s - report.states[name][1]
            for report in reports
            if killed < report.time_s < restarted and name in report.states
        ]
        results.append(
            OutageResult(
                sensor=name,
                killed_s=killed,
                last_message_s=heard[-1] if heard else math.nan,
                left_s=away[0].time_s if away else math.nan,
                restarted_s=restarted,
                returned_s=back[0].time_s if back else math.nan,
                predictions_meanwhile=len(away),
            )
        )
    return results


def scores(results: Sequence[SceneResult]) -> dict[str, Any]:
    """Shares of scenes recognised; only scenes with two or more living sensors count.

    The best single sensor is the one that is right in most of these scenes, where an absent sensor is wrong; next to
    it stands each sensor's share among the scenes it took part in, and the fused one's in the same scenes.
    """
    counted = [result for result in results if len(result.sensors) >= 2]
    share = _share(counted)
    single = {}
    for name in SENSORS:
        present = [result for result in counted if name in result.sensors]
        if present:
            single[name] = {
                "scenes": len(present),
                "top1_where_alive": _share(present)(lambda r, n=name: r.single[n]),
                "top1_fused_same_scenes": _share(present)(lambda r: r.fused),
                "top1_all_scenes": share(lambda r, n=name: r.single.get(n, "")),
            }
    best = max(single, key=lambda name: single[name]["top1_all_scenes"] or 0.0, default=None)
    return {
        "scenes_counted": len(counted),
        "top1_fused": share(lambda r: r.fused),
        "top1_mean_fusion": share(lambda r: r.mean) if any(r.mean for r in counted) else None,
        "best_single_sensor": best,
        "top1_best_single_sensor": single[best]["top1_all_scenes"] if best else None,
        "single_sensors": single,
    }


def _share(results: Sequence[SceneResult]) -> Any:
    """A function that takes which label to look at and gives the share of right ones, None if there are no scenes."""

    def of(said: Any) -> float | None:
        return round(sum(r.right(said(r)) for r in results) / len(results), 4) if results else None

    return of


def per_prediction(
    scenes: Sequence[SceneLabel], predictions: Sequence[Observation], labels: Sequence[str]
) -> dict[str, Any]:
    """The same shares counted by prediction instead of by scene, after :data:`GRACE` and with two or more sensors."""
    pairs = [
        (seen, scene.label)
        for seen in predictions
        if (scene := scene_at(scenes, seen.time_s)) and seen.time_s >= scene.start_s + GRACE and len(seen.sensors) >= 2
    ]
    if not pairs:
        return {"predictions_counted": 0, "top1_fused": None, "top1_mean_fusion": None}
    fused = np.mean([same(seen.label, truth) for seen, truth in pairs])
    mean = np.mean([same(mean_label(seen, labels), truth) for seen, truth in pairs])
    return {
        "predictions_counted": len(pairs),
        "top1_fused": round(float(fused), 4),
        "top1_mean_fusion": round(float(mean), 4),
    }


def failures(predictions: Sequence[Observation], outages: Sequence[OutageResult]) -> list[str]:
    """What did not happen that should have, one sentence each; empty if the demo succeeded."""
    found = [] if predictions else ["no prediction was received"]
    for outage in outages:
        name = outage.sensor
        if math.isnan(outage.left_s):
            found.append(f"{name} was killed at {outage.killed_s:.1f} s and never left the fusion")
        elif math.isnan(outage.returned_s):
            found.append(f"{name} was restarted at {outage.restarted_s:.1f} s and never returned")
        elif not outage.predictions_meanwhile:
            found.append(f"there were no predictions while {name} was away")
    return found


def summarise(
    scenes: Sequence[SceneLabel],
    predictions: Sequence[Observation],
    reports: Sequence[Status],
    outages: Sequence[Outage],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Everything in ``summary.json`` that follows from the observations; docs/demo.md describes each key."""
    results = evaluate(scenes, predictions, labels)
    followed = follow(outages, predictions, reports)
    problems = failures(predictions, followed)
    latencies = np.array([seen.latency for seen in predictions] or [np.nan])
    return {
        "success": not problems,
        "failures": problems,
        "predictions": len(predictions),
        "predictions_per_second": _rate(predictions),
        "sensors_seen": {name: sum(name in seen.sensors for seen in predictions) for name in SENSORS},
        "number_of_labels": len(labels),
        "chance": round(1 / len(labels), 6) if labels else None,
        "by_scene": scores(results),
        "by_prediction": per_prediction(scenes, predictions, labels),
        "outages": [_outage(result) for result in followed],
        "latency_s": {"median": _number(np.median(latencies)), "max": _number(latencies.max())},
        "age_s": {name: _ages(predictions, name) for name in SENSORS},
        "streams": {
            "recorded": sorted({name for scene in scenes for name in scene.recorded}, key=list(SENSORS).index),
            "rendered": sorted({name for scene in scenes for name in scene.rendered}, key=list(SENSORS).index),
        },
        "scenes": [_scene(result) for result in results],
    }


def _scene(result: SceneResult) -> dict[str, Any]:
    return {
        "start_s": result.scene.start_s,
        "end_s": result.scene.end_s,
        "label": result.scene.label,
        "sensors": list(result.sensors),
        "predictions": result.predictions,
        "fused": result.fused,
        "mean_fusion": result.mean,
        "single": dict(result.single),
        "correct": result.right(result.fused),
    }


def _outage(result: OutageResult) -> dict[str, Any]:
    return {
        "sensor": result.sensor,
        "killed_s": _number(result.killed_s),
        "last_message_s": _number(result.last_message_s),
        "first_prediction_without_s": _number(result.left_s),
        "seconds_from_last_message_to_prediction_without": _number(result.left_s - result.last_message_s),
        "restarted_s": _number(result.restarted_s),
        "first_prediction_with_s": _number(result.returned_s),
        "seconds_from_restart_to_prediction_with": _number(result.returned_s - result.restarted_s),
        "predictions_meanwhile": result.predictions_meanwhile,
    }


def _ages(predictions: Sequence[Observation], name: str) -> dict[str, float | None]:
    ages = [seen.ages[seen.sensors.index(name)] for seen in predictions if name in seen.sensors]
    return {"median": _number(np.median(ages)), "max": _number(max(ages))} if ages else {"median": None, "max": None}


def _rate(predictions: Sequence[Observation]) -> float | None:
    span = predictions[-1].time_s - predictions[0].time_s if len(predictions) > 1 else 0.0
    return _number((len(predictions) - 1) / span) if span else None


def _number(value: Any) -> float | None:
    """Rounded to milliseconds; None for NaN, which JSON does not know."""
    return round(float(value), 3) if math.isfinite(value) else None


def table(summary: Mapping[str, Any]) -> str:
    """The summary for a person."""
    rows = summary["by_scene"]
    lines = [
        f"{summary['predictions']} predictions, {summary['predictions_per_second'] or 0:.1f} per second, "
        f"latency median {summary['latency_s']['median']} s, {summary['number_of_labels']} labels",
        "",
        f"top-1 over {rows['scenes_counted']} scenes with two or more living sensors"
        f" (chance {_percent(summary['chance'], 2)}):",
        f"  fused               {_percent(rows['top1_fused']):>7}",
        f"  mean fusion         {_percent(rows['top1_mean_fusion']):>7}",
        f"  best single sensor  {_percent(rows['top1_best_single_sensor']):>7}  ({rows['best_single_sensor']})",
        "",
        f"  {'sensor':<14} {'data':<9} scenes   alone   fused, same scenes",
    ]
    for name, row in rows["single_sensors"].items():
        kinds = [kind for kind in ("recorded", "rendered") if name in summary["streams"][kind]]
        lines.append(
            f"  {name:<14} {'/'.join(kinds):<9} {row['scenes']:>6} {_percent(row['top1_where_alive']):>7}"
            f" {_percent(row['top1_fused_same_scenes']):>7}"
        )
    for outage in summary["outages"]:
        gone, back = outage["seconds_from_last_message_to_prediction_without"], outage["first_prediction_with_s"]
        lines += [
            "",
            f"{outage['sensor']}: killed at {outage['killed_s']} s; first prediction without it "
            f"{gone if gone is not None else 'never, no'} s after its last message; "
            f"{outage['predictions_meanwhile']} predictions without it; restarted at {outage['restarted_s']} s, "
            + (f"back at {back} s" if back is not None else "never back"),
        ]
    lines += ["", *(f"FAILED: {problem}" for problem in summary["failures"])]
    return "\n".join(lines)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
