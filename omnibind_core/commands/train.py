"""``omnibind train align`` and ``omnibind train fuse``: the two stages of the paper, from a data folder to a model.

``omnibind train own`` is both, for data and labels of the user's own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnibind_core import resources
from omnibind_core.config import from_json
from omnibind_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from omnibind_core.data.concepts import Concepts
    from omnibind_core.model import OmniBind
    from omnibind_core.training.config import TrainConfig
    from omnibind_core.training.dataset import TrainingData
    from omnibind_core.training.engine import Trainer

_logger = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    from omnibind_core.commands import compare

    parser = subparsers.add_parser("train", help="train a model: stage I (align), then stage II (fuse)")
    known = ", ".join(resources.names("configs/train", ".yaml"))
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, text, run in (
        ("align", "stage I: align the student modalities to the frozen teachers (CAD)", _align),
        ("fuse", "stage II: train the fusion on random combinations (AF), calibrate, save the model", _fuse),
    ):
        stage = stages.add_parser(name, help=text, description=text)
        stage.add_argument("--config", default="lite", help=f"experiment: a YAML file, or one of {known}")
        stage.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. align.lr=0.0005"
        )
        stage.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
        stage.set_defaults(run=partial(_together, run))
    text = "both stages on your own files, with your own labels in any language, to a model that knows these"
    own = stages.add_parser("own", help=text, description=text)
    own.add_argument(
        "--data", type=Path, required=True, help="folder with samples.csv, or with files in MODALITY/LABEL/"
    )
    own.add_argument("--out", type=Path, required=True, help="folder for align/ and model/")
    own.add_argument(
        "--labels", type=Path, metavar="TABLE", help="labels.csv of these data (default: each label as it is written)"
    )
    own.add_argument(
        "--config", default="own", help=f"experiment: a YAML file, or one of {known} (default: %(default)s)"
    )
    own.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. align.steps=1000"
    )
    own.add_argument("--resume", action="store_true", help="continue from the last checkpoints")
    own.set_defaults(run=partial(_together, _own))
    compare.add_parser(stages)


def _together(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    from omnibind_core.training.engine import leave

    with contextlib.ExitStack() as args.until_done:
        code = run(args)
        leave()
    return code


def _own(args: argparse.Namespace) -> int:
    """Says what is learned and what is held back, and runs both stages."""
    from omnibind_core.data.sources.folder import FolderSource
    from omnibind_core.training import dataset
    from omnibind_core.training.config import load

    given = {"data": args.data, "out": args.out, **({} if args.labels is None else {"labels": args.labels})}
    args.set = [*(f"{key}={json.dumps(str(value))}" for key, value in given.items()), *args.set]
    config = load(args.config, args.set)
    source = FolderSource(Path(str(config.data)))
    before = source.samples()
    after = dataset.splits(before, config.holdout, config.seed)
    counts = Counter(sample.modality for sample in after)
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{config.data}: {len(after)} samples of {len({sample.label for sample in after})} labels ({told})")
    if after != before:
        held = sum(sample.split == "val" for sample in after)
        table = Path(config.out) / "samples.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        source.write(after, table)
        print(
            f"no sample is of the split 'val': {held} are held back, whole groups of each label and modality, seed "
            f"{config.seed}; {table} has the split, to be kept or changed in {config.data}"
        )
    return _align(args) or _fuse(args)


def _align(args: argparse.Namespace) -> int:
    from omnibind_core.data.matching.label_descriptions import describe_labels, spell_alike
    from omnibind_core.training import align, checkpoint, dataset
    from omnibind_core.training.image_text import ImageText
    from omnibind_core.training.start import begin

    started = time.monotonic()
    config, fabric, trainer = _prepare(args, "align", drop=("fuse",))
    model = begin(config, fabric.device)
    concepts = dataset.match(config, model.encoders)
    with fabric.rank_zero_first(local=True):  # the others then find the features in the cache
        known = None if config.start is None else model.labels
        descriptions = describe_labels(config.descriptions, concepts)
        spelled = spell_alike(concepts.names, lambda words: model.embed_text(words).cpu().numpy(), descriptions)
        descriptions.update(spelled)
        data = dataset.load(config, model.config, model.encoders, concepts, known, descriptions)
    if spelled:
        print(f"alike to the text encoder, so told apart by their letters: {', '.join(spelled)}; a meaning does more")
    if config.start is not None and "image" in data.train:
        print(
            "image: the head stays that of start, since the other heads were trained to fit it; it learns your photos "
            "without start (omnibind train own), or beside the head (omnibind adapt)"
        )
    trainer.agreement.update(checkpoint.flat(model.config.model_dump(), "model."), start=model.identity)
    trainer.agreement.update(_describe(data))
    if config.start is None:
        trainer.run(ImageText(data, model.config, model.encoders, config.image_text))
    trainer.run(align.Align(data, model.config, model.encoders, config.align, config.seed))
    if not fabric.is_global_zero:
        return 0
    model.labels = data.bank(model.encoders.encode_text_once)
    figures = align.accuracy(data, model.config, model.encoders)
    out = Path(config.out) / "align"
    seconds = round(time.monotonic() - started, 1)
    _save(model, out, concepts, config, {"seconds": seconds, "labels": len(model.labels), "single": figures})
    for name, row in figures.items():
        print(
            f"{name:12} n {row['n']:4}  top-1 {row['top1']:6.1%} of {len(model.labels)} labels,"
            f" {row['top1_own']:6.1%} of its own {row['labels_own']}"
        )
    print(f"stage I done: {out}")
    return 0


def _fuse(args: argparse.Namespace) -> int:
    from omnibind_core import fusion
    from omnibind_core.features.adaptation import homes, read_homes, save_homes
    from omnibind_core.features.calibration import calibrate, settle
    from omnibind_core.features.combinations import accuracy_by_size, learn_familiarity
    from omnibind_core.features.sets import FeatureSet
    from omnibind_core.model import OmniBind, model_folder
    from omnibind_core.training import dataset
    from omnibind_core.training.fuse import Fuse
    from omnibind_core.training.verdict import doubts

    started = time.monotonic()
    config, fabric, trainer = _prepare(args, "model", drop=("image_text", "align"))
    aligned = Path(config.out) / "align"
    model = OmniBind.from_pretrained(aligned, fabric.device)
    trainer.agreement["stage I"] = model.identity
    if config.fuse.fusion:
        settings = fusion.changed(model.config.fusion, config.fuse.fusion)
        architecture = model.config.model_copy(update={"fusion": settings})
        fresh = fusion.build(architecture.embed_dim, settings, tuple(architecture.modalities)).to(model.device)
        model = OmniBind(architecture, model.encoders, fresh, model.labels)
    concepts = dataset.Concepts.read(aligned / "labels.csv")
    single = _figures(aligned / "figures.json")
    with fabric.rank_zero_first(local=True):
        known = None if config.start is None else model.labels
        data = dataset.load(
            config, model.config, model.encoders, concepts, known, damage=config.fuse.damage, shifts=config.fuse.shifts
        )
    if data.vocabulary != model.labels.names:
        raise ConfigError(
            f"{aligned} was trained with {len(model.labels)} labels, data and settings now give {len(data.vocabulary)} "
            f"or others: {_differences(config, aligned)}run stage I again, or give both stages the same data, index "
            "and vocabulary"
        )
    measured = bool(data.val)
    if not measured:  # better than nothing, and said
        learned = {name: FeatureSet.joined([samples]) for name, samples in data.train.items()}
        data = dataclasses.replace(data, val=learned)
    trainer.agreement.update(_describe(data))
    train, val = dataset.embed(data, model, "train"), dataset.embed(data, model, "val")
    held_out = dataset.embed(data, model, "shifted") if data.shifted else val
    learn_familiarity(model.fusion, train, held_out, config.seed)
    trainer.run(Fuse(train, val, model.labels, model.fusion, config.fuse))
    if not fabric.is_global_zero:
        return 0
    settle(model.fusion, held_out, model.labels, config.fuse.tau, 2000, config.seed)
    shifted = held_out if data.shifted else None
    model.calibration = calibrate(val, model.labels, model.fusion, 2000, config.seed, shifted)
    rows = accuracy_by_size(val, model.labels, model.fusion, 5000, config.seed) if measured else []
    out = Path(config.out) / "model"
    seconds = round(time.monotonic() - started, 1)
    figures = {"labels": len(model.labels), "single": single, "combinations": rows, "seconds": seconds}
    before = {} if config.start is None else read_homes(model_folder(config.start))
    trained = {**before, **homes(data.train, model)}
    _save(model, out, concepts, config, figures, lambda folder: save_homes(folder, trained))
    for row in rows:
        print(
            f"{row['modalities']} modalities: top-1 fused {row['fused']:6.1%}, mean fusion {row['mean']:6.1%},"
            f" best single {row['best_single']:6.1%} of {len(model.labels)} labels, {row['n']} combinations"
        )
    if not measured:
        data = dataclasses.replace(data, val={})
    found = doubts(data, single, rows)
    for doubt in found:
        print(f"warning: {doubt}")
    use = "see the warnings before you use it" if found else "use it"
    print(f"stage II done: {out} ({model.identity}), {use} with --model {out}")
    return 0


def _figures(path: Path) -> dict[str, dict[str, Any]]:
    """What stage I measured of single sensors.

    Raises:
        DataError: The file is not what it wrote.
    """
    try:
        single = from_json(path.read_bytes())["single"]
        if not (isinstance(single, dict) and all(isinstance(figures, dict) for figures in single.values())):
            raise TypeError("no mapping of mappings")
        return single
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: no figures of stage I ({error!r}), expected what omnibind train align wrote"
        ) from error


def _differences(config: TrainConfig, aligned: Path) -> str:
    """What of that which decides on the vocabulary is not as stage I had it, in words; empty if nothing is."""
    from omnibind_core.training.config import load

    path = aligned / "train.yaml"
    if not path.is_file():
        return ""
    before = load(str(path))
    keys = ("start", "data", "index", "vocabulary", "holdout")
    return "".join(
        f"stage I had {key}={getattr(before, key)}, stage II has {key}={getattr(config, key)}; "
        for key in keys
        if getattr(before, key) != getattr(config, key)
    )


def _prepare(args: argparse.Namespace, folder: str, drop: tuple[str, ...]) -> tuple[TrainConfig, Fabric, Trainer]:
    """The settings, the processes and the trainer; ``drop`` are settings that do not matter to the stage."""
    from omnibind_core import modalities
    from omnibind_core.files import check_replaceable, only_one
    from omnibind_core.training import checkpoint
    from omnibind_core.training.config import load
    from omnibind_core.training.engine import Trainer, be_deterministic, launch

    config = load(args.config, args.set)
    for plugin in config.plugins:
        modalities.register(plugin)
    fabric = launch(config.device, config.devices, config.precision)
    if fabric.is_global_zero:
        args.until_done.close()  # what the stage before held
        args.until_done.enter_context(only_one(Path(config.out)))
        check_replaceable(Path(config.out) / folder, ("*",))
    else:
        logging.getLogger().setLevel(logging.WARNING)
    be_deterministic(config.seed)
    settings = checkpoint.flat(config.model_dump(mode="json", exclude={*drop, "out", "device", "devices", "logger"}))
    agreement = {key: value for key, value in settings.items() if not key.endswith(".checkpoint_every")}
    out = Path(config.out) / folder
    return config, fabric, Trainer(config.seed, fabric, out, config.logger, args.resume, agreement)


def _describe(data: TrainingData) -> dict[str, int]:
    """What tells changed data from those that a checkpoint was written with."""
    counts = {f"{name} samples": len(samples) for name, samples in data.train.items()}
    sentences = sum(len(texts) for texts in data.descriptions.values())
    return {"labels": len(data.vocabulary), "sentences on labels": sentences, **counts}


def _save(
    model: OmniBind,
    out: Path,
    concepts: Concepts,
    config: TrainConfig,
    figures: dict[str, Any],
    beside: Callable[[Path], None] = lambda folder: None,
) -> None:
    from omnibind_core.files import write_folder_atomically
    from omnibind_core.model.folders import FILES, TRAINED
    from omnibind_core.training.config import dump

    with write_folder_atomically(out, (*FILES, *TRAINED), keep=True) as fresh:
        concepts.write(fresh / "labels.csv")
        dump(config, fresh / "train.yaml")
        (fresh / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        beside(fresh)
        model.write_files(fresh)
