"""``omnibind data match`` and ``omnibind data inspect``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnibind_core.commands import modality_free
from omnibind_core.commands.loading import text_tower
from omnibind_core.config import from_yaml
from omnibind_core.data import sources
from omnibind_core.data.sources.base import SPLITS, Inspection, Source
from omnibind_core.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    known = ", ".join(sources.names())
    parser = subparsers.add_parser("data", help="look at data sets, and match their labels")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    text = "find out which labels of data sets mean the same; writes an editable labels.csv"
    match = actions.add_parser("match", help=text, description=text)
    roots = f"folder with samples.csv, or SOURCE=DIR with one of {known}"
    match.add_argument("roots", nargs="+", metavar="ROOT", help=roots)
    match.add_argument("--out", type=Path, default=Path("labels.csv"), help="table to write (default: %(default)s)")
    match.add_argument("--rules", type=Path, help="your own rules (YAML) on top of the packaged ones")
    own = "own: each label stays a label of its own, only its meaning is looked up (default: %(default)s)"
    match.add_argument("--matcher", choices=("offline", "own", "endpoint"), default="offline", help=own)
    match.add_argument("--no-wordnet", action="store_true", help="offline: go by names and embeddings alone")
    match.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible API, e.g. http://localhost:8000/v1")
    match.add_argument("--endpoint-model", metavar="NAME", help="the language model to ask there")
    key = "environment variable with the API key (default: %(default)s)"
    match.add_argument("--endpoint-key", default="OPENAI_API_KEY", metavar="VARIABLE", help=key)
    match.set_defaults(run=_match)

    text = "print counts, splits, and missing or broken files of a data set; draw a contact sheet"
    inspect = actions.add_parser("inspect", help=text, description=text)
    inspect.add_argument("source", metavar="SOURCE", help=f"data set: {known}")
    inspect.add_argument("root", type=Path, metavar="DIR", help="its folder")
    inspect.add_argument(
        "--read", action="store_true", help="also read every file, and name what cannot be what its sensor measures"
    )
    inspect.add_argument("--labels", action="store_true", help="count every label")
    inspect.add_argument(
        "--sheet", type=Path, metavar="OUT.png", help="draw a contact sheet: some samples of every modality"
    )
    inspect.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="option of the source, e.g. split=official"
    )
    inspect.set_defaults(run=_inspect)
    modality_free.add_actions(actions)


def _match(args: argparse.Namespace) -> int:
    from omnibind_core.data.matching.labels import keep_labels, match_labels
    from omnibind_core.data.matching.llm import Endpoint, match_labels_by_endpoint
    from omnibind_core.data.matching.phrases import Rules
    from omnibind_core.data.matching.wordnet import find_wordnet

    rules = Rules.read(args.rules)
    if args.matcher == "endpoint" and not (args.endpoint and args.endpoint_model):
        raise ConfigError("--matcher endpoint needs --endpoint URL and --endpoint-model NAME")
    pairs = sorted({(s.source, s.label, s.modality) for root in args.roots for s in _open(root).samples()})
    if args.matcher == "endpoint":
        endpoint = Endpoint(args.endpoint, args.endpoint_model, args.endpoint_key)
        concepts = match_labels_by_endpoint(pairs, endpoint, args.out.with_suffix(".answers.jsonl"), rules)
    else:
        wordnet = None if args.no_wordnet else find_wordnet()
        own = args.matcher == "own"
        concepts = (
            keep_labels(pairs, text_tower(), wordnet) if own else match_labels(pairs, text_tower(), wordnet, rules)
        )
    concepts.write(args.out)
    modalities_of: dict[str, set[str]] = {}
    for source, label, modality in pairs:
        modalities_of.setdefault(concepts.get(source, label) or "", set()).add(modality)
    sizes = Counter(len(found) for concept, found in modalities_of.items() if concept)
    for match in concepts:
        if match.meaning and match.label == match.canonical:
            print(f"{match.label}: {match.meaning}" + (f" [{match.reason}]" if ", or " in match.reason else ""))
    print(f"{len(concepts)} labels -> {len(concepts.names)} concepts: {args.out}")
    if any(", or " in match.reason for match in concepts):
        print("labels with [sense ..., or ...] have two meanings: correct the column 'meaning' where it is wrong")
    print("concepts by number of modalities: " + ", ".join(f"{n}: {sizes[n]}" for n in sorted(sizes)))
    return 0


def _open(root: str) -> Source:
    """A source given as ``DIR`` (folder with samples.csv) or ``SOURCE=DIR``."""
    name, separator, folder = root.partition("=")
    named = separator and not Path(root).exists()
    return sources.create(name, Path(folder)) if named else sources.create("folder", Path(root))


def _inspect(args: argparse.Namespace) -> int:
    source = sources.create(args.source, args.root, _options(args.set))
    if source.homepage:
        print(f"{source.title}: {source.homepage}\nuse: {source.licence}\ncite: {source.citation}")
    found = source.inspect(read=args.read)
    _print_counts(found)
    if args.labels:
        _print_labels(found)
    total = sum(found.counts.values())
    what = "missing or broken" if args.read else "missing or empty"
    print(f"{total} samples, {len(found.broken)} files {what}, {total - found.unusable} fine")
    for path, reason in found.broken.items():
        print(f"  {path}: {reason}")
    for problem in found.problems:
        print(f"  {problem}")
    if args.read:
        print(f"{len(found.doubted)} samples doubted")
    for name, reason in found.doubted.items():
        print(f"  {name}: {reason}")
    for note in found.notes:
        print(f"note: {note}")
    if args.sheet:
        _draw_contact_sheet(source, args.sheet)
    return 1 if found.broken or found.problems else 0


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """``OPTION=VALUE`` pairs with YAML values as a mapping."""
    values = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not (key and separator):
            raise ConfigError(f"--set '{pair}': expected OPTION=VALUE")
        try:
            values[key] = from_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--set '{pair}': {error}") from error
    return values


def _print_counts(found: Inspection) -> None:
    print(f"{'modality':12} {'source':24} {'labels':>6} " + " ".join(f"{split:>7}" for split in SPLITS))
    samples = found.samples
    for (modality, source), labels in found.labels.items():
        counts = " ".join(f"{samples[modality, source, split]:7}" for split in SPLITS)
        print(f"{modality:12} {source:24} {labels:6} {counts}")


def _print_labels(found: Inspection) -> None:
    print(f"{'label':37} {'modality':>12} " + " ".join(f"{split:>7}" for split in SPLITS))
    for modality, source, label in sorted({key[:3] for key in found.counts}):
        counts = " ".join(f"{found.counts[modality, source, label, split]:7}" for split in SPLITS)
        print(f"{label:37} {modality:>12} {counts}")


def _draw_contact_sheet(source: Source, path: Path) -> None:
    import cv2

    from omnibind_core.data.contact_sheet import contact_sheet
    from omnibind_core.files import write_atomically

    if path.suffix.lower() != ".png":
        raise ConfigError(f"--sheet '{path}': expected a file ending in .png")
    drawn = contact_sheet(source)
    with write_atomically(path) as temporary:
        cv2.imwrite(str(temporary), drawn[..., ::-1])
    print(f"contact sheet: {path}")
