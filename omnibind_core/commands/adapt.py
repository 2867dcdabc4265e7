"""``omnibind adapt``: a model that also knows sensors and things of the user's own, from a few samples."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnibind_core.commands.loading import load_in_torch
from omnibind_core.errors import ConfigError
from omnibind_core.model.folders import FILES, TRAINED

if TYPE_CHECKING:
    from omnibind_core.features.adaptation import Home
    from omnibind_core.model import OmniBind

_COPIED = ("train.yaml", "home.safetensors")
FIGURES = "figures.json"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    text = "adapt a model to your own sensors and things, from a few samples of each; on a CPU, in minutes"
    parser = subparsers.add_parser("adapt", help=text, description=text)
    parser.add_argument("--model", default="lite", help="name of a model, or its folder (default: %(default)s)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with samples.csv to learn from")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the adapted model")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="TABLE",
        help="labels.csv of these data; an empty canonical leaves a label out, one that the model lacks is a new label "
        "(default: matching; what matches nothing is new)",
    )
    parser.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        help="folder with samples.csv of what the model knew: its split val is asked before and after, its split train "
        "says what the model's sensors are like where the model itself does not",
    )
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="share of the groups of each label that is not learned from, to measure on, where the table has no splits "
        "train and val (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is held out (default: 0)")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, ... (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Adapts, measures, saves and prints what changed."""
    from omnibind_core.data.concepts import Concepts
    from omnibind_core.evaluation import adapting, samples
    from omnibind_core.features.adaptation import adapt
    from omnibind_core.features.combinations import Split
    from omnibind_core.files import check_replaceable
    from omnibind_core.model import WEIGHTS, OmniBind

    started = time.monotonic()
    if not 0 <= args.holdout < 1:
        raise ConfigError(f"--holdout is {args.holdout}, expected 0 or more, and less than 1")
    check_replaceable(args.out.absolute(), (*FILES, *TRAINED))
    shipped = WEIGHTS / args.model
    folder = shipped if (shipped / "config.json").is_file() else Path(args.model).expanduser()
    if args.out.exists() and args.out.resolve() == folder.resolve():
        raise ConfigError(f"--out: {args.out} is the model itself, expected another folder")
    given = None if args.labels is None else Concepts.read(args.labels)
    before = load_in_torch(args.model, args.device, None)
    own = Concepts.read(folder / "labels.csv") if (folder / "labels.csv").is_file() else Concepts([])
    recording = adapting.read(args.data, before, own, given, args.holdout, args.seed)
    bank = before.labels.extended(recording.names, before.embed_text)
    wider = OmniBind(before.config, before.encoders, before.fusion, bank, before.calibration)
    after = adapt(wider, recording.learned, _homes(args, folder, before, recording.learned))
    for note in recording.notes:
        print(note)
    figures: dict[str, Any] = {"adapted from": before.identity, "learned": {}}
    for name, learned in recording.learned.items():
        labels = len(set(learned.concept.tolist()))
        figures["learned"][name] = {"samples": len(learned), "labels": labels}
        print(f"{name}: learned {len(learned)} samples of {labels} labels")
        if unheard := adapting.unheard(after, name, learned):
            print(
                f"{name}: {unheard} of them are so like what the model knew before that it goes on answering as before "
                "there; if that was adapted to, too, adapt the model that it was made from with all samples"
            )
    if recording.held:
        split = Split(recording.names, recording.held)
        figures["held out"] = adapting.compare(wider, after, split, recording.fold)
        figures["never learned from"] = [one.id for held in recording.held.values() for one in held.samples]
        _print("held out, never learned from", figures["held out"])
    if args.home is not None:
        data = samples.load(args.home, "val", before, own)
        figures["home"] = adapting.compare(before, after, data.known)
        _print(f"{args.home}, split val: what it knew before", figures["home"])
    figures["seconds"] = round(time.monotonic() - started, 1)
    rows = {(row.source, row.label): row for row in (*own, *recording.concepts)}
    _save(after, args.out, folder, list(rows.values()), figures)
    print(f"done in {figures['seconds']:.0f} s: {args.out} ({after.identity}), use it with --model {args.out}")
    return 0


def _homes(args: argparse.Namespace, folder: Path, model: OmniBind, modalities: Iterable[str]) -> dict[str, Home]:
    """What each modality was like before, by the model or by the folder that is named."""
    from omnibind_core.evaluation.adapting import home_of
    from omnibind_core.features.adaptation import known_home, read_homes

    homes, saved = {}, read_homes(folder)
    for name in modalities:
        home = known_home(model, name) or saved.get(name)
        if home is None and args.home is not None:
            home = home_of(args.home, model, name)
        if home is None:
            raise ConfigError(
                f"the model does not say what its {name} encoder was trained on, so it could not be kept from "
                f"forgetting: expected --home with samples of {name} in the split train"
            )
        homes[name] = home
    return homes


def _print(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"{title}:")
    for row in rows:
        right, sure = ([row[key][what] for key in ("before", "after")] for what in ("right", "confidence"))
        print(
            f"  {row['modalities']:12} n {row['n']:5}  right {right[0]:6.1%} -> {right[1]:6.1%}"
            f"  mean confidence {sure[0]:.2f} -> {sure[1]:.2f}"
        )
    total = sum(row["n"] for row in rows if row["modalities"] != "pairs")
    share = [
        sum(row["n"] * row[key]["right"] for row in rows if row["modalities"] != "pairs") / total
        for key in ("before", "after")
    ]
    print(f"  {'one sensor':12} n {total:5}  right {share[0]:6.1%} -> {share[1]:6.1%}")


def _save(model: OmniBind, out: Path, folder: Path, concepts: Sequence[Any], figures: Mapping[str, Any]) -> None:
    import shutil

    from omnibind_core.data.concepts import Concepts
    from omnibind_core.files import write_folder_atomically

    with write_folder_atomically(out, (*FILES, *TRAINED), alone=True) as fresh:
        Concepts(concepts).write(fresh / "labels.csv")
        for name in _COPIED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, fresh / name)
        (fresh / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        model.write_files(fresh)
