"""``omnibind data build``, ``stats``, ``verify`` and ``export``: the modality-free data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import resources
from omnibind_core.commands.loading import text_tower

if TYPE_CHECKING:
    from omnibind_core.data.modality_free.descriptions import Captioner


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the actions to ``omnibind data``."""
    text = "build a modality-free data set: combinations of samples that show one concept"
    build = actions.add_parser("build", help=text, description=text)
    known = ", ".join(resources.names("configs/data", ".yaml"))
    build.add_argument("--config", required=True, help=f"a YAML file, or one of {known}")
    build.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder that the sources lie in")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    build.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. labels=labels.csv"
    )
    build.set_defaults(run=_build)

    text = "print and draw what a modality-free data set consists of"
    stats = actions.add_parser("stats", help=text, description=text)
    stats.add_argument("folder", type=Path, metavar="DIR", help="folder that build or export wrote")
    stats.add_argument("--plot", type=Path, metavar="FILE", help="picture to draw, e.g. stats.png")
    stats.set_defaults(run=_stats)

    text = "check a modality-free data set: files, hashes, splits, ids"
    verify = actions.add_parser("verify", help=text, description=text)
    verify.add_argument("folder", type=Path, metavar="DIR", help="folder that build or export wrote")
    verify.add_argument("--root", type=Path, metavar="DIR", help="where the sources are, if they were moved")
    verify.add_argument("--fast", action="store_true", help="compare sizes of files, not their hashes")
    verify.set_defaults(run=_verify)

    text = "write a modality-free data set with its samples as WebDataset tar files"
    export = actions.add_parser("export", help=text, description=text)
    export.add_argument("folder", type=Path, metavar="DIR", help="folder that build wrote")
    export.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="folder to write")
    export.add_argument("--root", type=Path, metavar="DIR", help="where the sources are, if they were moved")
    export.add_argument(
        "--shard-size", type=int, default=1000, metavar="N", help="combinations per tar file (default: %(default)s)"
    )
    export.set_defaults(run=_export)


def _build(args: argparse.Namespace) -> int:
    from omnibind_core.config import load_named
    from omnibind_core.data.modality_free.build import BuildConfig, build
    from omnibind_core.data.modality_free.match_groups import Towers

    config = load_named(BuildConfig, "data", args.config, args.set)
    build(config, args.root, args.out, Towers(_embed_text, _embed_items, _captioner))
    _print_stats(args.out)
    print(f"written: {args.out}")
    return 0


def _captioner(folder: Path) -> Captioner:
    import torch

    from omnibind_core.data.modality_free.descriptions import Captioner

    return Captioner(folder, "cuda" if torch.cuda.is_available() else "cpu")


def _stats(args: argparse.Namespace) -> int:
    _print_stats(args.folder)
    if args.plot is not None:
        from omnibind_core.data.modality_free.dataset import ModalityFree
        from omnibind_core.data.modality_free.stats import count, plot

        plot(count(ModalityFree.open(args.folder)), args.plot)
        print(f"drawn: {args.plot}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from omnibind_core.data.modality_free.verify import verify

    report = verify(args.folder, args.root, fast=args.fast)
    for problem in report.problems:
        print(problem)
    what = "sizes" if args.fast or not report.hashed else "hashes"
    print(
        f"{report.combinations} combinations, {report.samples} samples, {what} compared: "
        f"{'nothing is wrong' if not report.problems else f'{len(report.problems)} kinds of problems'}"
    )
    return 1 if report.problems else 0


def _export(args: argparse.Namespace) -> int:
    from omnibind_core.data.modality_free.dataset import ModalityFree
    from omnibind_core.data.modality_free.shards import export

    shards = export(ModalityFree.open(args.folder, args.root), args.out, args.shard_size)
    print(f"{len(shards)} tar files: {args.out}")
    return 0


def _print_stats(folder: Path) -> None:
    from omnibind_core.data.modality_free.dataset import ModalityFree
    from omnibind_core.data.modality_free.stats import count, lines

    print("\n".join(lines(count(ModalityFree.open(folder)))))


def _embed_text(sentences: Sequence[str]) -> NDArray[np.float32]:
    return text_tower()(sentences)


def _embed_items(name: str, modality: str, raws: Sequence[Any]) -> NDArray[np.float32]:
    from omnibind_core.model import OmniBind

    model = OmniBind.from_pretrained(name)
    return np.asarray(model.embed([(modality, model.process(modality, raw)) for raw in raws]).cpu().numpy(), np.float32)
