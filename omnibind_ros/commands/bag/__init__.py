"""``omnibind bag``: one module per action."""

from __future__ import annotations

import argparse

from omnibind_ros.commands.bag import evaluate, inspect, make, play, record, samples


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser("bag", help="look at recordings of ROS 2, evaluate, make and play them")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module in (inspect, evaluate, make, play, record, samples):
        module.add_parser(actions)
