"""``omnibind bag samples``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    text = "cut samples with labels out of bags, for omnibind adapt and training: a folder with samples.csv"
    parser = actions.add_parser("samples", help=text, description=text)
    parser.add_argument(
        "bags", type=Path, nargs="+", metavar="BAG", help="folder of a rosbag2 (MCAP or sqlite3), or its file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for samples.csv and the files")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="start_s, end_s, label of what was there, and bag if there are several (default: truth.csv in the bag)",
    )
    parser.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="the node's parameter file (default: config/perception.yaml, and topics that look like a sensor's)",
    )
    parser.add_argument("--moments", type=int, default=4, metavar="N", help="in each interval (default: 4)")
    parser.add_argument(
        "--settle", type=float, default=1.0, metavar="S", help="s left out after the beginning of each (default: 1)"
    )
    parser.add_argument(
        "--parts",
        type=int,
        default=1,
        metavar="N",
        help="cut each interval into so many groups, so that of things seen once a part can be held out (default: 1)",
    )
    parser.set_defaults(run=_samples)


def _samples(args: argparse.Namespace) -> int:
    from omnibind_core.errors import ConfigError
    from omnibind_ros.replay import batch, samples

    if args.moments < 1:
        raise ConfigError(f"--moments is {args.moments}, expected 1 or more")
    if not 1 <= args.parts <= args.moments:
        raise ConfigError(f"--parts is {args.parts}, expected 1 to --moments, {args.moments}")
    if not (math.isfinite(args.settle) and args.settle >= 0):
        raise ConfigError(f"--settle is {args.settle}, expected 0 or more seconds")
    with batch.errors_only():
        cut = samples.write(args.bags, args.out, args.labels, args.params, args.moments, args.settle, args.parts)
    for note in cut.notes:
        print(f"omnibind: {note}", file=sys.stderr)
    for modality in sorted({modality for modality, _ in cut.counts}):
        of = {label: count for (name, label), count in cut.counts.items() if name == modality}
        print(f"{modality:12} {sum(of.values()):4} samples of {len(of)} labels")
    print(f"wrote {args.out / samples.TABLE}")
    return 0
