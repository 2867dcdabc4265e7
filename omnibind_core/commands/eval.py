"""``omnibind eval``: a report on how right a model is on data, and how far it can be trusted."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnibind_core.commands.loading import add_engine, load_in_torch
from omnibind_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from omnibind_core.data.concepts import Concepts
    from omnibind_core.features.combinations import Split
    from omnibind_core.model import OmniBind
    from omnibind_core.training.config import TrainConfig

_logger = logging.getLogger(__name__)

MOST_STEPS = 300
"""Steps of a trained baseline, if the model itself had more."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    text = "measure a model on data: accuracy, robustness, calibration; one HTML report, JSON and CSV"
    parser = subparsers.add_parser("eval", help=text, description=text)
    parser.add_argument("--model", default="lite", help="name of a model, or its folder (default: %(default)s)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="folder with samples.csv; further ones are asked by source only, such as what is away from home",
    )
    parser.add_argument("--split", default="val", help="split to evaluate on (default: %(default)s)")
    parser.add_argument(
        "--labels",
        type=Path,
        action="append",
        metavar="FILE",
        help="labels.csv of these data; labels of the model that it takes for the same count as one; one for each "
        "folder may be given (default: the model's own, then matching)",
    )
    parser.add_argument(
        "--empty",
        choices=("unknown", "leave-out"),
        default="unknown",
        help="what an empty canonical in --labels means: a thing that the model has no label for, or samples not to "
        "count (default: %(default)s)",
    )
    parser.add_argument(
        "--train-data",
        type=Path,
        metavar="DIR",
        help="folder whose split 'train' Probes and baselines learn from (default: the first DIR of --data)",
    )
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write (default: %(default)s)")
    parser.add_argument(
        "--tables",
        nargs="+",
        metavar="NAME",
        help="only these sections, such as combinations noise confidence (default: all; a wrong name lists them)",
    )
    parser.add_argument(
        "--by",
        choices=("source",),
        help="accuracy, confidence and calibration by modality and source: the section 'sources', alone or beside "
        "--tables; trains no baselines then",
    )
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="combinations per figure (default: 2000)")
    parser.add_argument(
        "--damage",
        type=int,
        default=64,
        metavar="N",
        help="damaged samples per modality and kind, 0 for all (default: 64)",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help="baselines to train, such as Linear Cat; none to save time (default: all that learn)",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trained copies of each (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    parser.add_argument("--compare", type=Path, metavar="DIR", help="add tables that omnibind train compare wrote")
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="train what only training tells: losses, few samples, numbers of training modalities (hours)",
    )
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, ... (default: %(default)s)")
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print report.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, writes the report and prints a summary."""
    from omnibind_core.data.concepts import Concepts
    from omnibind_core.evaluation import bench, samples
    from omnibind_core.evaluation.evaluate import SECTIONS, evaluate
    from omnibind_core.evaluation.methods import Training, trainable
    from omnibind_core.evaluation.report.document import dumps
    from omnibind_core.evaluation.report.text import summary
    from omnibind_core.evaluation.tables import retrained
    from omnibind_core.model import WEIGHTS
    from omnibind_core.optional import require
    from omnibind_core.training.engine import be_deterministic

    for key, least in (("seeds", 1), ("count", 1), ("damage", 0), ("seed", 0)):
        if getattr(args, key) < least:
            raise ConfigError(f"--{key} is {getattr(args, key)}, expected {least} or more")
    for package in ("jinja2", "matplotlib"):  # rather now than after all the work
        require(package, "Writing a report")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out: {args.out} is a file, expected a folder, or none")
    if not args.verbose:
        logging.getLogger("omnibind_core.training.logs").setLevel(logging.WARNING)
    be_deterministic(args.seed)
    asked, trained = args.tables, args.baselines
    if args.by is not None:
        trained = [] if asked is None and trained is None else trained
        asked = [*(asked or ()), "sources"]
    tables = _chosen("--tables", asked, SECTIONS)
    baselines = _chosen("--baselines", trained, trainable())
    compared = {} if args.compare is None else retrained.compared(args.compare)
    given = None
    if args.labels is not None:
        given = Concepts([match for path in args.labels for match in Concepts.read(path)])
    model = load_in_torch(args.model, args.device, None, args.engine, args.providers)
    shipped = WEIGHTS / args.model
    folder = shipped if (shipped / "config.json").is_file() else Path(args.model).expanduser()
    config = _experiment(folder, args.train_data or args.data[0])
    own = Concepts.read(folder / "labels.csv") if (folder / "labels.csv").is_file() else Concepts([])
    leave_out = args.empty == "leave-out"
    data, *others = (samples.load(root, args.split, model, own, given, leave_out=leave_out) for root in args.data)
    train, why = _training_samples(args, model, own, given, config)
    if train is not None and baselines:
        require("lightning_fabric", "Training baselines (--baselines without a name leaves them out)")
    steps = config.fuse.steps_over(sum(train.counts.values()) if train else 0)
    fuse = config.fuse.model_copy(update={"steps": min(steps, MOST_STEPS), "epochs": None})
    training = Training(fuse, baselines, tuple(range(args.seed, args.seed + args.seeds)))
    how = {"count": args.count, "damage": args.damage, "seed": args.seed}
    measured = bench.make(model, data, train, training, **how)
    plain = Training(fuse, ())
    beside = [bench.make(model, other, train, plain, **how) for other in others] if "sources" in tables else []
    report = evaluate(measured, tables, bench.Extras(compared, args.retrain, config, why, beside))
    page = report.write(args.out)
    if args.json:
        print(dumps(report.to_dict()), end="")
    else:
        print(f"{summary(report)}\nreport written: {page}")
    return 0


def _chosen(option: str, asked: Sequence[str] | None, known: Collection[str]) -> tuple[str, ...]:
    """The names that an option chose; all where it was not given.

    Raises:
        ConfigError: One of them is unknown; names all that are known.
    """
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise ConfigError(f"{option} {' '.join(unknown)}: expected some of {' '.join(known)}")
    return tuple(known if asked is None else dict.fromkeys(asked))


def _experiment(folder: Path, data: Path) -> TrainConfig:
    """The settings that the model was trained with, on these data; the defaults where it does not say."""
    from omnibind_core.config import parse, read_mapping
    from omnibind_core.training.config import TrainConfig

    path = folder / "train.yaml"
    told = read_mapping(path) if path.is_file() else {"augmentations": 0}
    return parse(TrainConfig, {**told, "data": str(data), "index": None, "start": None}, str(path))


def _training_samples(
    args: argparse.Namespace, model: OmniBind, own: Concepts, given: Concepts | None, config: TrainConfig
) -> tuple[Split | None, str]:
    """The training samples, or why there are none."""
    from omnibind_core.data.sources.folder import FolderSource
    from omnibind_core.evaluation import samples

    root = args.train_data or args.data[0]
    if args.train_data is None and (args.split == "train" or not FolderSource(root).samples(split="train")):
        why = f"{root.resolve().name} has no split 'train' apart from what is evaluated; --train-data DIR names one"
        return None, f"{why}. Without it there are no Probes and no trained baselines"
    try:
        return samples.load(root, "train", model, own, given, config, fold=False).known, ""
    except DataError as error:
        if args.train_data is not None:
            raise
        return None, f"{error}. Without training samples there are no Probes and no trained baselines"
