"""``omnibind train compare``: AF against its baselines, CAD against Probes, as tables over several seeds."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from omnibind_core import resources
from omnibind_core.errors import ConfigError

TABLES: tuple[str, ...] = (
    "fusions",
    "robustness",
    "ablation",
    "few-shot",
    "left-out",
    "left-out-source",
    "held-back",
    "zero-shot",
    "away",
)
_SHOTS = (1, 2, 4, 8, 16)


def add_parser(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command to those of ``omnibind train``."""
    text = "train and measure what the paper claims: AF and CAD against their baselines, over several seeds"
    parser = stages.add_parser("compare", help=text, description=text)
    known = ", ".join(resources.names("configs/train", ".yaml"))
    parser.add_argument("--config", default="lite", help=f"experiment: a YAML file, or one of {known}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. align.steps=300"
    )
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=["fusions"], help="what to measure (default: fusions)"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="number of seeds (default: %(default)s)")
    parser.add_argument(
        "--modalities", nargs="+", metavar="NAME", help="only these take part, beside image and text (default: all)"
    )
    parser.add_argument(
        "--shots",
        nargs="+",
        type=int,
        metavar="N",
        help=f"training samples per label: for few-shot (default: {' '.join(map(str, _SHOTS))}) and ablation "
        "(default: all)",
    )
    parser.add_argument(
        "--folds", type=int, default=5, help="parts of the labels, each left out once (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=3000, metavar="N", help="combinations drawn of each size (default: %(default)s)"
    )
    parser.add_argument(
        "--model",
        help="use the encoders of this trained model and train fusions only; for fusions, robustness and away",
    )
    parser.add_argument(
        "--away", type=Path, metavar="DIR", help="folder with samples.csv of other sources; for the table away"
    )
    parser.add_argument(
        "--away-labels", type=Path, metavar="CSV", help="its label table (default: by name and meaning)"
    )
    parser.add_argument("--out", type=Path, help="folder for the tables (default: compare/ in the experiment's out)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints the tables and writes them as JSON, CSV and Markdown, one set of files for each table."""
    from omnibind_core import modalities
    from omnibind_core.evaluation.comparison import experiments, summary
    from omnibind_core.evaluation.comparison.away import away
    from omnibind_core.evaluation.comparison.held_back import held_back
    from omnibind_core.training.config import load
    from omnibind_core.training.engine import be_deterministic

    for key, value in (("seeds", args.seeds), ("folds", args.folds), ("count", args.count)):
        if value < 1:
            raise ConfigError(f"--{key} is {value}, expected 1 or more")
    if any(shots < 1 for shots in args.shots or ()):
        raise ConfigError(f"--shots has {min(args.shots)}, expected numbers of 1 or more")
    if args.model is not None and set(args.tables) - {"fusions", "robustness", "away"}:
        raise ConfigError("--model skips stage I, so only the tables fusions, robustness and away can be made with it")
    if "away" in args.tables and args.away is None:
        raise ConfigError("--tables away asks samples of other sources: name their folder with --away DIR")
    if not args.verbose:
        logging.getLogger("omnibind_core.training.logs").setLevel(logging.WARNING)
    config = load(args.config, args.set)
    for plugin in config.plugins:
        modalities.register(plugin)
    be_deterministic(config.seed)
    bench = experiments.Comparison(config, args.modalities, args.model)
    out = args.out or Path(config.out) / "compare"
    seeds = tuple(range(config.seed, config.seed + args.seeds))
    for name in args.tables:
        shots = tuple(args.shots or (_SHOTS if name == "few-shot" else ()))
        settings = experiments.Settings(seeds, args.count, shots, args.folds)
        measured = list(
            away(bench, settings, args.away, args.away_labels)
            if name == "away"
            else {**experiments.TABLES, "held-back": held_back}[name](bench, settings)
        )
        told = {"config": config.model_dump(mode="json"), "model": args.model, "modalities": args.modalities}
        told |= {"seeds": list(seeds), "count": args.count, "shots": list(shots), "folds": args.folds}
        notes = [
            f"{modality}: {source} {f'cannot be left out: {why}' if why else 'was left out'}"
            for modality, found in (bench.sources() if name == "left-out-source" else {}).items()
            for source, why in found.items()
        ]
        print(summary.write(out, name, measured, told, notes), flush=True)
    print(f"tables written: {out}")
    return 0
