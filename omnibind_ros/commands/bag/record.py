"""``omnibind bag record``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    text = "record topics into a bag (MCAP) until Ctrl-C; by default all that look like a sensor's"
    parser = actions.add_parser("record", help=text, description=text)
    parser.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder of the bag; must not exist")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--topic", action="append", default=[], help="topic to record, may be repeated")
    which.add_argument("--all", action="store_true", help="record all topics")
    parser.add_argument("--duration", type=float, default=math.inf, metavar="S", help="stop after so many seconds")
    parser.add_argument("--split", type=float, default=0.0, metavar="MB", help="begin a new file after so much data")
    parser.add_argument("--sim-time", action="store_true", help="take times from /clock")
    parser.set_defaults(run=_record)


def _record(args: argparse.Namespace) -> int:
    """Returns 0, or 1 if nothing was recorded, or not every topic that was asked for."""
    from omnibind_core.errors import ConfigError
    from omnibind_ros.commands.session import session

    if not args.duration > 0 or not (math.isfinite(args.split) and args.split >= 0):
        raise ConfigError(f"--duration is {args.duration} and --split {args.split}, expected positive numbers")
    with session("Recording topics") as stop:
        import rclpy
        from rclpy.parameter import Parameter

        from omnibind_ros.bags.record import Recorder

        clock = Parameter("use_sim_time", Parameter.Type.BOOL, args.sim_time)
        node = rclpy.create_node("bag_recorder", parameter_overrides=[clock])
        recorder = Recorder(node, args.out, args.topic, args.all, round(args.split * 1e6))
        print(f"recording to {args.out} ... Ctrl-C ends it", file=sys.stderr)
        end = time.monotonic() + args.duration
        recorder.run(lambda: not stop.is_set() and time.monotonic() < end)
    for topic, count in sorted(recorder.received.items()):
        print(f"{topic}: {count} messages")
    problems = {**recorder.refused, **dict.fromkeys(recorder.waiting, "no message came")}
    for topic, reason in problems.items():
        print(f"omnibind: {topic} was not recorded: {reason}", file=sys.stderr)
    if not recorder.received:
        print("omnibind: nothing was recorded: no topic looks like a sensor's, or nobody publishes", file=sys.stderr)
    return 0 if recorder.received and not problems else 1
