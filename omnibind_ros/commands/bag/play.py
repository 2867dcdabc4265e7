"""``omnibind bag play``."""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnibind_ros.bags.play import Player
    from omnibind_ros.replay.live import Listener
    from omnibind_ros.replay.setup import Setup

_PATIENCE = 60.0  # s for a node to be there before its evaluation
_GREETING = 2.0  # s for the publishers to find subscribers
_SETTLING = 1.0  # s for these to find the publishers: until they have, they hear nothing, and no API tells that
_DELIVERY = 2.0  # s for the last messages to arrive: what is not there when the publishers go is lost
_SHOWN = 10  # disagreements that are printed
_AFTER = 1.0  # s for the last predictions to come


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    text = "publish a bag over DDS with /clock, for nodes with use_sim_time; the space bar halts and goes on"
    parser = actions.add_parser("play", help=text, description=text)
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder of a rosbag2 (MCAP or sqlite3), or its file")
    parser.add_argument("--topic", action="append", default=[], help="topic to play, may be repeated (default: all)")
    parser.add_argument("--rate", type=float, default=1.0, metavar="X", help="how many times as fast (default: 1)")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin S seconds into the bag")
    parser.add_argument("--loop", action="store_true", help="begin anew at the end; time then goes back")
    parser.add_argument("--pause", action="store_true", help="wait for the space bar, or ~/pause, before the beginning")
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="compare what a running fusion node predicts with the replay of the bag; exit status 1 below --at-least",
    )
    parser.add_argument("--at-least", type=float, default=0.99, metavar="SHARE", help="of ticks (default: 0.99)")
    parser.add_argument("--model", help="the node's (default: the parameters' one)")
    parser.add_argument("--params", type=Path, metavar="FILE", help="the node's (default: config/perception.yaml)")
    parser.add_argument("--namespace", default="/", metavar="NS", help="the node's (default: /)")
    parser.add_argument("--json", action="store_true", help="with --evaluate: print one JSON object")
    parser.set_defaults(run=_play)


def _play(args: argparse.Namespace) -> int:
    from omnibind_core.errors import ConfigError
    from omnibind_ros.commands.session import session

    if not (math.isfinite(args.rate) and args.rate > 0):
        raise ConfigError(f"--rate is {args.rate}, expected a positive number")
    if not (math.isfinite(args.start) and args.start >= 0):
        raise ConfigError(f"--start is {args.start}, expected 0 or more seconds")
    if args.evaluate and (args.loop or args.topic):
        raise ConfigError("--evaluate plays the whole bag once, without --loop and --topic")
    with session("Playing a bag over DDS") as stop:
        import rclpy

        return _run(args, rclpy.create_node("bag_player", namespace=args.namespace.rstrip("/")), stop)


def _run(args: argparse.Namespace, node: Any, stop: threading.Event) -> int:
    from omnibind_ros.bags.play import Player, space_bar

    player = Player(node, args.bag, args.topic, args.rate, args.start)
    try:
        player.paused = args.pause  # before the first request to go on may come
        for topic, reason in player.missing.items():
            print(f"omnibind: {topic} is left out: {reason}", file=sys.stderr)
        setup, listener = _prepare(args, player) if args.evaluate else (None, None)
        if not args.evaluate:
            player.wait(lambda: all(map(player.heard, player.published)) or stop.is_set(), _GREETING)
            player.wait(stop.is_set, _SETTLING)
        with space_bar() as pressed:

            def go_on() -> bool:
                player.paused ^= pressed()
                return not stop.is_set()

            whole = _rounds(args, player, go_on)
        if setup is None or listener is None:
            if not stop.is_set():
                player.deliver(_DELIVERY)
            return 130 if stop.is_set() else 0 if whole else 1
        player.spin(_AFTER)
    finally:
        player.close()
    if stop.is_set():
        return 130
    return _compare(args, setup, listener, player)


def _rounds(args: argparse.Namespace, player: Player, go_on: Any) -> bool:
    """Returns whether the bag is whole; what is whole of it was played."""
    from omnibind_core.errors import DataError, PartlyReadError
    from omnibind_ros.bags import read
    from omnibind_ros.replay.batch import progress_bar

    begin, end = read.span_ns(args.bag)
    damage = ""
    with progress_bar("playing", (end - begin) / 1e9 - args.start) as progress:
        while True:
            try:
                player.play(go_on, progress)
            except DataError as error:
                damage = read.extent(str(error), isinstance(error, PartlyReadError))
            if not (args.loop and go_on()):
                break
    if damage:
        print(f"omnibind: {damage}", file=sys.stderr)
    return not damage


def _prepare(args: argparse.Namespace, player: Player) -> tuple[Setup, Listener]:
    """Waits until a fusion node listens."""
    from omnibind_core.errors import DataError
    from omnibind_ros.bags import read
    from omnibind_ros.replay.live import Listener
    from omnibind_ros.replay.setup import read_parameters, resolve

    setup = resolve(read.topics(args.bag), read_parameters(args.params), args.namespace, bag=args.bag)
    wanted = sorted({setup.topics[name] for name in setup.present})
    trigger = setup.parameters.settings.trigger
    listener = Listener()
    listener.subscribe(player.node, {name: sensor.config for name, sensor in setup.sensors.items()}, trigger)
    print("waiting for a fusion node with use_sim_time ...", file=sys.stderr)
    if not player.wait(lambda: all(map(player.heard, [*wanted, "/clock"])) and listener.last is not None, _PATIENCE):
        deaf = ", ".join(topic for topic in (*wanted, "/clock") if not player.heard(topic))
        problem = f"nobody subscribes to {deaf}" if deaf else "no status came"
        raise DataError(
            f"no fusion node to evaluate after {_PATIENCE:.0f} s: {problem}; start it with use_sim_time:=true"
        )
    player.spin(_SETTLING)
    return setup, listener


def _compare(args: argparse.Namespace, setup: Setup, listener: Listener, player: Player) -> int:
    from omnibind_ros.bags import read
    from omnibind_ros.replay.batch import errors_only, progress_bar
    from omnibind_ros.replay.live import compare, drops

    begin, end = read.span_ns(args.bag)
    with errors_only(), progress_bar("replaying", (end - begin) / 1e9) as progress:
        found = compare(args.bag, setup, listener.heard, args.model, args.start, progress).summary()
    found.update(drops(listener, player.published, setup))
    agreement = found["agreement"]
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        share = "nothing could be compared" if agreement is None else f"agreement {100 * agreement:.2f} %"
        print(f"{share}: {found['agree']} of {found['compared']} ticks, same sensors in {found['same_sensors']}")
        live, replayed, missing = (found[key] for key in ("ticks_live", "ticks_replayed", "missing_live"))
        print(f"predictions: {live} live, {replayed} replayed, {missing} of them missing live")
        names = ("p50", "p90", "p99", "max")
        print("latency, s: " + ", ".join(f"{name} {found[f'latency_{name}_s']}" for name in names))
        lost = ", ".join(f"{name} {count}" for name, count in found["lost"].items())
        print(f"ticks skipped by the node: {found['overruns']}; messages lost: {lost or 'unknown'}")
        for one in found["disagreements"][:_SHOWN]:
            live, replayed = (f"'{one[k]['label']}' by {'+'.join(one[k]['sensors'])}" for k in ("live", "replayed"))
            print(f"  {one['time_s']:8.2f} s: live {live}, replayed {replayed}")
    return 0 if agreement is not None and agreement >= args.at_least else 1
