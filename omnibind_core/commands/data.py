"""``omnibind data match`` and ``omnibind data inspect``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser("data", help="look at data sets, and match their labels")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    text = "find out which labels of a folder's sources mean the same; writes an editable labels.csv"
    match = actions.add_parser("match", help=text, description=text)
    match.add_argument("root", type=Path, metavar="ROOT", help="folder with samples.csv")
    match.add_argument("--out", type=Path, default=Path("labels.csv"), help="table to write (default: %(default)s)")
    match.add_argument("--rules", type=Path, help="your own rules (YAML) on top of the packaged ones")
    match.add_argument("--no-wordnet", action="store_true", help="go by names and embeddings alone")
    match.set_defaults(run=_match)

    text = "print counts, splits, and missing or broken files"
    inspect = actions.add_parser("inspect", help=text, description=text)
    inspect.add_argument("source", choices=["folder"], metavar="SOURCE", help="kind of data set: folder")
    inspect.add_argument("root", type=Path, metavar="ROOT", help="its folder")
    inspect.add_argument("--read", action="store_true", help="also read every file")
    inspect.set_defaults(run=_inspect)


def _match(args: argparse.Namespace) -> int:
    from omnibind_core.data.matching import match_labels
    from omnibind_core.data.phrases import Rules
    from omnibind_core.data.sources.folder import FolderSource
    from omnibind_core.data.wordnet import find_wordnet

    samples = FolderSource(args.root).samples()
    rules = Rules.read(args.rules)
    wordnet = None if args.no_wordnet else find_wordnet()
    pairs = sorted({(sample.source, sample.label, sample.modality) for sample in samples})
    concepts = match_labels(pairs, text_tower(), wordnet, rules)
    concepts.write(args.out)
    kinds: dict[str, set[str]] = {}
    for sample in samples:
        kinds.setdefault(concepts.of(sample), set()).add(sample.modality)
    sizes = Counter(len(found) for found in kinds.values())
    print(f"{len(concepts)} labels -> {len(kinds)} concepts: {args.out}")
    print("concepts by number of modalities: " + ", ".join(f"{n}: {sizes[n]}" for n in sorted(sizes)))
    return 0


def text_tower() -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """The packaged text teacher as a function of sentences, read when first called."""
    import torch

    from omnibind_core.encoders.lite.minilm import MiniLMTower

    tower = MiniLMTower()

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(tower(list(sentences)).numpy(), np.float32)

    return embed


def _inspect(args: argparse.Namespace) -> int:
    from omnibind_core.data.sources.folder import SPLITS, FolderSource

    found = FolderSource(args.root).inspect(read=args.read)
    print(f"{'modality':12} {'source':24} {'labels':>6} " + " ".join(f"{split:>7}" for split in SPLITS))
    for (modality, source), labels in found.labels.items():
        counts = " ".join(f"{found.samples[modality, source, split]:7}" for split in SPLITS)
        print(f"{modality:12} {source:24} {labels:6} {counts}")
    total = sum(found.samples.values())
    what = "missing or broken" if args.read else "missing"
    print(f"{total} samples, {len(found.broken)} files {what}, {total - len(found.broken)} fine")
    for path, reason in found.broken.items():
        print(f"  {path}: {reason}")
    return 1 if found.broken else 0
