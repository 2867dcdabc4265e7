"""What the demo's predictions are worth, and when sensors left and came back; pure functions of what was observed.

What is right, alone and fused, is counted by :mod:`omnibind_ros.replay.scoring`, as for bags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnibind_ros.bags.scene_bag import WITH_WORDS, SceneLabel, sensors_of
from omnibind_ros.demo.monitor import Observation, Status
from omnibind_ros.demo.schedule import Outage
from omnibind_ros.replay.scoring import Row, Vocabulary, majority, mean_label, settled, top1

# Predictions of the first second of a scene still rest on the scene before: frames are used until they are older than
# their window, and windows of sound reach back.
GRACE = 1.0


@dataclass(frozen=True)
class SceneResult:
    """What was recognised in one scene.

    Attributes:
        scene: What was there.
        rows: One per prediction after :data:`GRACE`, one at least.
        majority: What was said in most of them.
    """

    scene: SceneLabel
    rows: tuple[Row, ...]
    majority: Row


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


def scene_at(scenes: Sequence[SceneLabel], time_s: float) -> SceneLabel | None:
    """The scene at a time, if any."""
    return next((scene for scene in scenes if scene.start_s <= time_s < scene.end_s), None)


def evaluate(
    scenes: Sequence[SceneLabel], predictions: Sequence[Observation], labels: Sequence[str]
) -> list[SceneResult]:
    """One result for each scene with predictions; the first :data:`GRACE` seconds do not count."""
    # What is there counts even if the node has no label for it, and can only be wrong.
    vocabulary = Vocabulary((*(scene.label for scene in scenes), *labels))
    results = []
    for scene in scenes:
        inside = [seen for seen in predictions if scene.start_s <= seen.time_s < scene.end_s]
        rows = settled((_row(seen, scene, vocabulary, labels) for seen in inside), GRACE)
        if rows:
            results.append(SceneResult(scene, tuple(rows), majority(rows, WITH_WORDS)))
    return results


def _row(seen: Observation, scene: SceneLabel, vocabulary: Vocabulary, labels: Sequence[str]) -> Row:
    said = seen.prediction
    return Row(
        seen.time_s,
        round(seen.time_s * 1e9),
        (scene.label,),
        (vocabulary.of(scene.label) or scene.label,),
        seen.time_s - scene.start_s,
        (seen.label,),
        said.confidence,
        said.unknown,
        seen.sensors,
        tuple(share.weight for share in said.sensors),
        tuple(share.age for share in said.sensors),
        tuple(share.label for share in said.sensors),
        mean_label(said.similarities, labels),
    )


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
    counted = [result.majority for result in results if len(result.majority.sensors) >= 2]
    single: dict[str, dict[str, Any]] = {}
    for name in WITH_WORDS:
        present = [row for row in counted if name in row.sensors]

        def alone(row: Row, name: str = name) -> str:
            return row.alone(name)

        if present:
            single[name] = {
                "scenes": len(present),
                "top1_where_alive": top1(present, alone),
                "top1_fused_same_scenes": top1(present),
                "top1_all_scenes": top1(counted, alone),
            }
    best = max(single, key=lambda name: single[name]["top1_all_scenes"], default=None)
    return {
        "scenes_counted": len(counted),
        "top1_fused": top1(counted),
        "top1_mean_fusion": _top1_of_mean(counted),
        "best_single_sensor": best,
        "top1_best_single_sensor": single[best]["top1_all_scenes"] if best else None,
        "single_sensors": single,
    }


def per_prediction(results: Sequence[SceneResult]) -> dict[str, Any]:
    """The same shares counted by prediction instead of by scene."""
    counted = [row for result in results for row in result.rows if len(row.sensors) >= 2]
    return {
        "predictions_counted": len(counted),
        "top1_fused": top1(counted),
        "top1_mean_fusion": _top1_of_mean(counted),
    }


def _top1_of_mean(rows: Sequence[Row]) -> float | None:
    """None if the node published no similarities."""
    return top1(rows, lambda row: row.mean) if any(row.mean for row in rows) else None


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
        "sensors_seen": {name: sum(name in seen.sensors for seen in predictions) for name in sensors_of(scenes)},
        "number_of_labels": len(labels),
        "chance": round(1 / len(labels), 6) if labels else None,
        "by_scene": scores(results),
        "by_prediction": per_prediction(results),
        "outages": [_outage(result) for result in followed],
        "latency_s": {"median": _number(np.median(latencies)), "max": _number(latencies.max())},
        "age_s": {name: _ages(predictions, name) for name in sensors_of(scenes)},
        "streams": {
            "recorded": sorted({name for scene in scenes for name in scene.recorded}, key=list(WITH_WORDS).index),
            "rendered": sorted({name for scene in scenes for name in scene.rendered}, key=list(WITH_WORDS).index),
        },
        "scenes": [_scene(result) for result in results],
    }


def _scene(result: SceneResult) -> dict[str, Any]:
    said = result.majority
    return {
        "start_s": result.scene.start_s,
        "end_s": result.scene.end_s,
        "label": result.scene.label,
        "sensors": list(said.sensors),
        "predictions": len(result.rows),
        "fused": said.label,
        "mean_fusion": said.mean,
        "single": dict(zip(said.sensors, said.said, strict=True)),
        "correct": said.label in said.meant,
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
    ages = [share.age for seen in predictions for share in seen.prediction.sensors if share.name == name]
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
        origins = [origin for origin in ("recorded", "rendered") if name in summary["streams"][origin]]
        lines.append(
            f"  {name:<14} {'/'.join(origins):<9} {row['scenes']:>6} {_percent(row['top1_where_alive']):>7}"
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
