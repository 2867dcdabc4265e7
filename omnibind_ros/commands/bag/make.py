"""``omnibind bag make``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

OBJECTS = "objects.csv"
"""Table of where things are, in the folder of a bag."""
_SAMPLES = 12  # composed for each scene with several things, not all of which can be used


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    text = "compose a bag of six sensors that come and go, and a table of what is in it"
    parser = actions.add_parser("make", help=text, description=text)
    parser.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder of the bag; must not exist")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with samples.csv; without it the bag is made of Debian packages (280 MB are downloaded once)",
    )
    parser.add_argument("--split", default="val", help="split of --data to take scenes from (default: val)")
    parser.add_argument("--seed", type=int, default=0, help="choice of scenes and of outages (default: 0)")
    parser.add_argument(
        "--scenes",
        default="16",
        metavar="N|rooms|streets",
        help="number of scenes of one thing each (default: 16); or rooms, streets, rooms:N, streets:N: scenes (6) of "
        "several things at once, rendered for a robot's calibrated sensors; with --data these show samples",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a scene, s (default: 5)")
    parser.add_argument(
        "--away",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of the scenes in the middle of which a sensor falls silent and returns (default: 0.5)",
    )
    parser.add_argument(
        "--text",
        choices=("name", "description"),
        help="a captioner speaks in every second scene; its words are made of the label (default: none)",
    )
    parser.add_argument("--model", default="lite", help="whose labels are used (default: lite)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="with --data: which labels mean the same (default: the model's)"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where Debian packages are unpacked")
    parser.set_defaults(run=_make)


def _make(args: argparse.Namespace) -> int:
    from omnibind_core.errors import ConfigError
    from omnibind_ros.bags import read, scene_bag
    from omnibind_ros.replay.evaluation import LABELS

    kind, scenes = _scenes(args.scenes)
    for name, value, low, high in (("scenes", scenes, 1, 100_000), ("seconds", args.seconds, 0.5, 3600)):
        if not low <= value <= high:
            raise ConfigError(f"--{name} is {value}, expected {low} to {high}")
    if not 0 <= args.away <= 1:
        raise ConfigError(f"--away is {args.away}, expected 0 to 1")
    if kind:
        return _render(args, kind, scenes)
    found = scene_bag.scenes_for(args.model, args.data, args.split, args.labels, args.cache, args.seed, scenes)
    found = found if args.text is None else scene_bag.with_words(found, args.text)
    labels = scene_bag.write(args.out, args.out / LABELS, found, args.seed, args.seconds, args.away)
    begin, end = read.span_ns(args.out)
    size = sum(path.stat().st_size for path in args.out.iterdir()) / 1e6
    print(f"{args.out}: {len(labels)} scenes, {(end - begin) / 1e9:.1f} s, {size:.1f} MB")
    print(f"{args.out / LABELS}: what is there when, and which sensors see it")
    return 0


def _scenes(text: str) -> tuple[Literal["", "rooms", "streets"], int]:
    """What ``--scenes`` asks for: a kind of place, if several things at once are asked for, and how many scenes."""
    from omnibind_core.errors import ConfigError

    kind, _, number = text.partition(":")
    number = text if text.isdecimal() else number or "6"
    if not number.isdecimal() or not (text.isdecimal() or kind in ("rooms", "streets")):
        raise ConfigError(f"--scenes is '{text}', expected a number, or rooms or streets, as in rooms or rooms:6")
    return "rooms" if kind == "rooms" else "streets" if kind == "streets" else "", int(number)


def _render(args: argparse.Namespace, kind: Literal["rooms", "streets"], scenes: int) -> int:
    from omnibind_core.errors import ConfigError
    from omnibind_ros.bags import object_bag, read, scene_bag

    if args.text:
        raise ConfigError(f"--scenes {args.scenes} has no captioner: leave out --text")
    table = args.out / OBJECTS
    if args.data is None:
        things = object_bag.of_packages(kind, scene_bag.vocabulary(args.model), args.cache)
    else:
        wanted = _SAMPLES * scenes
        things = object_bag.of_samples(
            scene_bag.scenes_for(args.model, args.data, args.split, args.labels, args.cache, args.seed, wanted)
        )
    labels = object_bag.write(args.out, table, kind, things, scenes, args.seconds, args.seed)
    begin, end = read.span_ns(args.out)
    size = sum(path.stat().st_size for path in args.out.iterdir()) / 1e6
    print(f"{args.out}: {scenes} {kind}, {len(labels)} things, {(end - begin) / 1e9:.1f} s, {size:.1f} MB")
    print(f"{table}: where each thing is, in the pictures and in space")
    return 0
