"""``omnibind view``: sees with the viewer of Rerun what a robot's sensors show and what is made of it."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from omnibind_core.errors import ConfigError
from omnibind_core.optional import require
from omnibind_ros.view.layout import VIEWER


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser(
        "view",
        help="see a running robot, or a bag, in the viewer of Rerun",
        description="Shows all sensors, the label, and each sensor's share, confidence and state over time: of the "
        "fusion node that is running, or of a bag, on which the same runtime is run.",
    )
    parser.add_argument("bag", nargs="?", type=Path, metavar="BAG", help="folder of a rosbag2; without it: live")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write what is shown, e.g. out.rrd")
    parser.add_argument("--no-spawn", action="store_true", help="start no viewer here")
    parser.add_argument(
        "--connect", nargs="?", const=VIEWER, metavar="ADDRESS", help=f"show it in a viewer elsewhere, e.g. {VIEWER}"
    )
    parser.add_argument(
        "--rate",
        type=_positive,
        default=10.0,
        metavar="HZ",
        help="pictures a second of each sensor at most (default: 10)",
    )
    bag = parser.add_argument_group("for a bag")
    bag.add_argument("--model", help="name of a model, or its folder (default: lite, or what --params says)")
    bag.add_argument("--params", type=Path, metavar="FILE", help="parameter file of the nodes (default: by topic type)")
    bag.add_argument(
        "--labels", type=Path, metavar="FILE", help="table of what was there (default: truth.csv in the bag, if any)"
    )
    live = parser.add_argument_group("live")
    live.add_argument("--namespace", default="", metavar="NS", help="namespace of the fusion node")
    live.add_argument("--node", default="fusion_node", metavar="NAME", help="its name (default: %(default)s)")
    live.add_argument("--use-sim-time", action="store_true", help="take the time from /clock")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command. Returns 0, or 1 if the bag could not be read to its end.

    Raises:
        ConfigError: The view would go nowhere, or options of a bag are given without one.
        DataError: There is no such bag.
        MissingDependencyError: Rerun, or live rclpy, is not installed.
    """
    if args.bag is None and (args.model or args.params or args.labels):
        raise ConfigError("--model, --params and --labels are for a bag")
    require("rerun", "The live view")
    if args.bag is None:
        require("rclpy", "A live view")
    from omnibind_ros.view.canvas import Canvas, open_recording

    canvas = Canvas(open_recording(not args.no_spawn and not args.connect, args.save, args.connect))
    try:
        if args.bag is None:
            from omnibind_ros.view import live

            live.run(canvas, args.rate, args.namespace, args.node, args.use_sim_time)
            return 0
        from omnibind_ros.replay.batch import errors_only
        from omnibind_ros.view import recorded

        with contextlib.nullcontext() if args.verbose else errors_only():  # the view shows who comes and goes
            return recorded.run(canvas, args.rate, args.bag, args.model, args.params, args.labels)
    finally:
        canvas.close()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"is {text}, expected 0 to 1000")
    return value
