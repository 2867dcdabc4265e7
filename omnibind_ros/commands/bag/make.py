"""``omnibind bag make``."""

from __future__ import annotations

import argparse
from pathlib import Path


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
    parser.add_argument("--scenes", type=int, default=16, metavar="N", help="number of scenes (default: 16)")
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

    for name, low, high in (("scenes", 1, 100_000), ("seconds", 0.5, 3600), ("away", 0, 1)):
        if not low <= getattr(args, name) <= high:
            raise ConfigError(f"--{name} is {getattr(args, name)}, expected {low} to {high}")
    scenes = scene_bag.scenes_for(args.model, args.data, args.split, args.labels, args.cache, args.seed, args.scenes)
    scenes = scenes if args.text is None else scene_bag.with_words(scenes, args.text)
    labels = scene_bag.write(args.out, args.out / LABELS, scenes, args.seed, args.seconds, args.away)
    begin, end = read.span_ns(args.out)
    size = sum(path.stat().st_size for path in args.out.iterdir()) / 1e6
    print(f"{args.out}: {len(labels)} scenes, {(end - begin) / 1e9:.1f} s, {size:.1f} MB")
    print(f"{args.out / LABELS}: what is there when, and which sensors see it")
    return 0
