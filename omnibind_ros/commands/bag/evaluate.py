"""``omnibind bag eval``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnibind_ros.replay.batch import Outcome
    from omnibind_ros.replay.evaluation import Evaluation, Options


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    text = "replay bags through the fusion node's engine, compare with what was there, and write a report"
    parser = actions.add_parser("eval", help=text, description=text)
    parser.add_argument(
        "bags",
        type=Path,
        nargs="+",
        metavar="BAG",
        help="folder of a rosbag2, a file (.mcap, .db3, ROS 1 .bag), or a folder of bags",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    _add_what(parser)
    changes = parser.add_argument_group("what if; a sensor may be shortened, each option may be repeated")
    changes.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="S[@A:B]",
        help="sensor S is lost from A to B, s from the beginning",
    )
    changes.add_argument(
        "--noise", action="append", default=[], metavar="S[=KIND][@A:B]", help="S is damaged (default: noise alone)"
    )
    changes.add_argument("--delay", action="append", default=[], metavar="S=SECONDS[@A:B]", help="S arrives later")
    changes.add_argument("--rate", action="append", default=[], metavar="S=HZ[@A:B]", help="S comes at HZ at most")
    changes.add_argument("--only", action="append", default=[], metavar="S,S,...[@A:B]", help="all others are lost")
    changes.add_argument("--ablate", choices=("all",), help="score every combination of the bag's sensors, too")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="bags evaluated at once (default: 1)")
    parser.add_argument("--scheduler", default="", metavar="ADDRESS", help="evaluate on this Dask cluster instead")
    parser.set_defaults(run=_evaluate)


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="name of a model, or its folder (default: the parameters' one)")
    parser.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="the node's parameter file (default: config/perception.yaml, and topics that look like a sensor's)",
    )
    parser.add_argument("--namespace", default="/", metavar="NS", help="the node's, for relative topics (default: /)")
    told = parser.add_mutually_exclusive_group()
    told.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="start_s, end_s, label of what was there (default: truth.csv in the bag)",
    )
    told.add_argument(
        "--truth-topic", default="", metavar="TOPIC", help="std_msgs/String that says what is there instead"
    )
    parser.add_argument(
        "--objects",
        type=Path,
        nargs="?",
        const=Path("objects.csv"),
        metavar="CSV",
        help="ask of things, too: start_s, end_s, id, label and boxes of each (default: objects.csv in the bag)",
    )
    parser.add_argument(
        "--settle", type=float, default=1.0, metavar="S", help="s after a change not counted as settled (default: 1)"
    )
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, ... (default: cpu)")
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnxruntime", "openvino", "tensorrt"),
        help="what runs trunks on a CPU (default: the parameters' one)",
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        metavar="NAME",
        help="what the engine onnxruntime runs on, in turn (default: as for the engine)",
    )


def options_of(args: argparse.Namespace) -> Options:
    """The evaluation that the arguments ask for.

    Raises:
        ConfigError: An argument is unusable.
    """
    from omnibind_core.errors import ConfigError
    from omnibind_ros.replay.changes import ACTIONS
    from omnibind_ros.replay.evaluation import Options

    if not (math.isfinite(args.settle) and args.settle >= 0):
        raise ConfigError(f"--settle is {args.settle}, expected 0 or more seconds")
    changes = tuple((action, text) for action in ACTIONS for text in getattr(args, action, []))
    return Options(
        args.model,
        args.params,
        args.namespace,
        args.labels,
        args.truth_topic,
        changes,
        bool(getattr(args, "ablate", None)),
        args.settle,
        args.device,
        engine=args.engine,
        providers=None if args.providers is None else tuple(args.providers),
        objects=getattr(args, "objects", None),
    )


def _evaluate(args: argparse.Namespace) -> int:
    """Returns 0, or 1 if a bag could not be evaluated, or not to its end."""
    from omnibind_core.errors import ConfigError
    from omnibind_ros.replay import batch

    if args.jobs < 1:
        raise ConfigError(f"--jobs is {args.jobs}, expected 1 or more")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out} is a file, expected a folder, or none")
    options = options_of(args)
    paths = batch.find(args.bags)
    with batch.progress_bar("replaying", len(paths)) as progress:
        found = dict(batch.run(paths, options, args.jobs, args.scheduler, progress))
    return _write([found[number] for number in range(len(paths))], args.out)


def _write(outcomes: Sequence[Outcome], out: Path) -> int:
    from omnibind_ros.replay import report

    for outcome in outcomes:
        if outcome.evaluation is None:
            print(f"omnibind: {outcome.error}", file=sys.stderr)
    evaluations = [outcome.evaluation for outcome in outcomes if outcome.evaluation is not None]
    if not evaluations:
        return 2 if len(outcomes) == 1 else 1
    page = report.write(outcomes, out)
    for one in evaluations:
        _print(one)
    print(f"wrote {page}")
    return 1 if len(evaluations) < len(outcomes) or any(one.damage for one in evaluations) else 0


def _print(evaluation: Evaluation) -> None:
    from omnibind_ros.replay import report
    from omnibind_ros.replay.objects import sections

    for note in evaluation.notes:
        print(f"omnibind: {evaluation.bag}: {note}", file=sys.stderr)
    figures = report.summary(evaluation)
    sensors = ", ".join(evaluation.setup.present)
    print(f"{evaluation.bag}: {len(evaluation.rows)} ticks in {evaluation.span_s:.1f} s, sensors {sensors}")
    for line in sections.summary(evaluation):
        print(f"  {line}")
    if evaluation.truth is None:
        return
    counts = ", ".join(f"{figures[key]} {key}" for key in ("right", "wrong", "unknown", "silent"))
    print(f"  {figures['ticks']} scored: {counts}")
    print(
        f"  right {_percent(figures['accuracy'])}, where it answered {_percent(figures['accuracy_said'])}, "
        f"first label {_percent(figures['top1'])}, in first five {_percent(figures['top5'])}"
    )
    print(
        f"  after a change right in {_seconds(figures['first_right_s'])} "
        f"({figures['changes_recognised']} of {figures['changes']}), after a loss in {_seconds(figures['recovery_s'])} "
        f"({figures['losses_recovered']} of {figures['losses']})"
    )
    for run in evaluation.runs[1:]:
        one = report.summary(evaluation, run)
        print(f"  {run.scenario.name} -> right {_percent(one['accuracy'])}, first label {_percent(one['top1'])}")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
