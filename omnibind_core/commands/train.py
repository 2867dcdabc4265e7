"""``omnibind train align`` and ``omnibind train fuse``: the two stages of the paper, from a data folder to a model."""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

from omnibind_core.errors import ConfigError

_logger = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser("train", help="train a model: stage I (align), then stage II (fuse)")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, text, run in (
        ("align", "stage I: align the student modalities to the frozen teachers (CAD)", _align),
        ("fuse", "stage II: train the fusion on random combinations (AF), calibrate, save the model", _fuse),
    ):
        stage = stages.add_parser(name, help=text, description=text)
        stage.add_argument("--config", default="lite", help="experiment: a YAML file or a name in config/train/")
        stage.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. align.lr=0.0005"
        )
        stage.set_defaults(run=run)


def _align(args: argparse.Namespace) -> int:
    from omnibind_core import encoders
    from omnibind_core import fusion as fusion_module
    from omnibind_core.model import OmniBind
    from omnibind_core.training import align, dataset
    from omnibind_core.training.config import dump, load

    started = time.monotonic()
    config = load(args.config, args.set)
    dataset.be_deterministic(config.seed)
    architecture = encoders.load_config(config.model)
    encoder_set = encoders.build(architecture).to(dataset.pick_device(config.device))
    concepts = dataset.match(config, encoder_set)
    data = dataset.load(config, architecture, encoder_set, concepts)
    align.align(data, architecture, encoder_set, config.align, config.seed)
    model = OmniBind(architecture, encoder_set, fusion_module.build(architecture.embed_dim, architecture.fusion))
    model.set_labels(data.vocabulary)
    figures = align.accuracy(data, architecture, encoder_set)
    out = Path(config.out) / "align"
    model.save_pretrained(out)
    concepts.write(out / "labels.csv")
    dump(config, out / "train.yaml")
    _report(out, {"seconds": round(time.monotonic() - started, 1), "labels": len(data.vocabulary), "single": figures})
    for name, row in figures.items():
        print(
            f"{name:12} n {row['n']:4}  top-1 {row['top1']:6.1%} of {len(data.vocabulary)} labels,"
            f" {row['top1_own']:6.1%} of its own {row['labels_own']}"
        )
    print(f"stage I done: {out}")
    return 0


def _fuse(args: argparse.Namespace) -> int:
    from omnibind_core import fusion as fusion_module
    from omnibind_core.evaluation.calibration import calibrate
    from omnibind_core.evaluation.combinations import accuracy_by_size
    from omnibind_core.model import OmniBind
    from omnibind_core.training import dataset, fuse
    from omnibind_core.training.config import dump, load

    started = time.monotonic()
    config = load(args.config, args.set)
    dataset.be_deterministic(config.seed)
    aligned = Path(config.out) / "align"
    model = OmniBind.from_pretrained(aligned, dataset.pick_device(config.device))
    if config.fuse.fusion:
        architecture = model.config.model_copy(update={"fusion": {**model.config.fusion, **config.fuse.fusion}})
        fresh = fusion_module.build(architecture.embed_dim, architecture.fusion).to(model.device)
        model = OmniBind(architecture, model.encoders, fresh, model.labels)
    concepts = dataset.Concepts.read(aligned / "labels.csv")
    data = dataset.load(config, model.config, model.encoders, concepts)
    if data.vocabulary != model.labels.names:
        raise ConfigError(
            f"{aligned} was trained with {len(model.labels)} labels, data and settings now give {len(data.vocabulary)} "
            "or others: run stage I again, or give both stages the same data, index and vocabulary"
        )
    train, val = dataset.embed(data, model, "train"), dataset.embed(data, model, "val")
    fuse.fuse(train, model.labels, model.fusion, config.fuse, config.seed)
    model.calibration = calibrate(val, model.labels, model.fusion, 2000, config.seed)
    rows = accuracy_by_size(val, model.labels, model.fusion, 5000, config.seed)
    out = Path(config.out) / "model"
    model.save_pretrained(out)
    concepts.write(out / "labels.csv")
    dump(config, out / "train.yaml")
    figures = json.loads((aligned / "figures.json").read_text(encoding="utf-8"))
    seconds = round(time.monotonic() - started, 1)
    _report(out, {"labels": len(model.labels), "single": figures["single"], "combinations": rows, "seconds": seconds})
    for row in rows:
        print(
            f"{row['modalities']} modalities: top-1 fused {row['fused']:6.1%}, mean fusion {row['mean']:6.1%},"
            f" best single {row['best_single']:6.1%} of {len(model.labels)} labels, {row['n']} combinations"
        )
    print(f"stage II done: {out} ({model.identity}), use it with --model {out}")
    return 0


def _report(out: Path, figures: dict[str, Any]) -> None:
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
