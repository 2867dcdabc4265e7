"""``omnibind predict``: recognises what files show, alone and fused.

With ``--json`` one object is printed::

    {
      "model": "lite@1a2b3c4d",       name and content hash of the model
      "label": "dog",                 most probable label of the fused inputs; "" when unknown
      "confidence": 0.93,             its calibrated probability, 0..1
      "unknown": false,               whether the confidence is below the threshold
      "threshold": 0.3,
      "entropy": 0.41,                of the label distribution, nat
      "conflict": 0.05,               how much the inputs contradict each other, 0..1; see docs/messages.md
      "top": [{"label": "dog", "score": 0.93}, ...],
      "inputs": [                     one per usable input, by modality, then in the order given
        {"modality": "image", "source": "dog.jpg", "weight": 0.52,
         "without": {"label": "dog", "score": 0.71},   what the others say without it; null if it is the only one
         "doubt": null,                what speaks against it, in words: a constant picture, silence, ...
         "label": "dog", "confidence": 0.88, "unknown": false, "entropy": 0.6,
         "top": [{"label": "dog", "score": 0.88}, ...]},
        ...
      ],
      "rejected": [{"modality": "audio", "source": "bad.wav", "error": "..."}]   with --keep-going
    }

With ``--each`` nothing is fused: "label", "confidence", "unknown", "entropy" and "top" stand in the inputs only,
and there is no "conflict".

``--embeddings`` writes an ``.npz`` archive: ``embeddings`` (``float32 [n, D]``, unit length, of the inputs in the order
of the JSON), ``fused`` (``float32 [D]``, not with ``--each``), ``modality``, ``source`` and ``doubt`` (``str [n]``) and
``model``, as in the JSON: only embeddings of the same model are comparable.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from omnibind_core import modalities
from omnibind_core.commands.loading import add_engine, load_model
from omnibind_core.data.matching.label_descriptions import read_label_descriptions, strange_words
from omnibind_core.errors import ConfigError, InvalidInputError, MissingDependencyError
from omnibind_core.files import expanded, write_atomically
from omnibind_core.modalities import Reading
from omnibind_core.runtime.ranking import Ranking, conflict, rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnibind_core.model import Recognition

_LABELS = "own vocabulary: names, a text file with one a line, or YAML or JSON that maps names to lists of descriptions"
_BATCH = 32  # inputs that are read and encoded at once
_MARKS = (";", "|", "\t")  # that people put between names instead of commas
_STRANGE = (
    "the text tower is of English words and hardly knows {}; an English description in a YAML file helps "
    "(docs/own_labels.md)"
)
_CONFLICT = 0.5  # from which on the table speaks of it
_WIDEST_SOURCE = 48  # characters of an input's name in the table


@dataclass
class _Input:
    """One input, and why it cannot be used."""

    modality: str
    source: str
    error: str = ""


@dataclass(frozen=True)
class _Formats:
    """The files that a modality reads, which is imported only when they are told."""

    modality: str

    def __str__(self) -> str:
        return modalities.get(self.modality).formats()


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser(
        "predict",
        help="recognise what files show",
        description="Recognises what files of any modalities show, each alone and all fused. Every option that takes "
        "files takes several, and may be repeated; a folder stands for all files in it that the modality reads.",
        epilog="Exit status: 0 recognised, 2 unusable input (each named on standard error).",
    )
    for name in modalities.names():
        flag, words = f"--{name.replace('_', '-')}", name.replace("_", " ")
        metavar = "SENTENCE" if name == "text" else "FILE"
        action = parser.add_argument(flag, nargs="+", action="extend", default=[], metavar=metavar)
        action.help = "a description" if name == "text" else f"{words} file: %(formats)s"
        action.formats = _Formats(name)  # type: ignore[attr-defined]  # what help may name
    parser.add_argument("--model", default="lite", help="name of a model, or its folder (default: %(default)s)")
    parser.add_argument("--labels", metavar="A,B,C|FILE", help=_LABELS)
    parser.add_argument("--top-k", type=_positive, default=5, metavar="N", help="labels shown (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, ... (default: %(default)s)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--unit",
        action="append",
        default=[],
        metavar="MODALITY.UNIT=VALUE",
        help="what the numbers in the files of a modality mean, such as touch.full_scale=4095 (docs/python.md)",
    )
    parser.add_argument("--each", action="store_true", help="every input is a thing of its own: fuse nothing")
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="also write the embeddings, as .npz")
    add_engine(parser)
    parser.add_argument("--keep-going", action="store_true", help="use the good inputs when others are unusable")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command.

    Returns:
        0, or 2 if an input (with ``--keep-going``: every input) is unusable.

    Raises:
        ConfigError: No input was given, or the model, the labels or the device are not there.
        WeightsError: The model's weights cannot be read.
    """
    inputs = [
        _Input(name, file)
        for name in modalities.names()
        for given in getattr(args, name)
        for file in _files(name, given)
    ]
    if not inputs:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in modalities.names())
        raise ConfigError(f"nothing to recognise: give at least one of {flags}")
    names = None if args.labels is None else read_labels(args.labels)
    units = read_units(args.unit)
    if args.embeddings is not None and args.embeddings.suffix != ".npz":
        raise ConfigError(f"--embeddings is '{args.embeddings}', expected a file name that ends in .npz")
    model, readings, rows = None, [], []
    for start in range(0, len(inputs), _BATCH):  # a folder may hold more than memory does
        part = inputs[start : start + _BATCH]
        good = [reading for item in part if (reading := _load(item, units.get(item.modality, {}))) is not None]
        if good and (args.keep_going or not any(item.error for item in inputs)):
            if model is None:
                wanted = {item.modality for item in inputs if not item.error}
                model = load_model(args.model, args.device, wanted, args.threads, args.engine, args.providers)
            rows.append(model.encode(good))
            readings += [replace(reading, raw=None) for reading in good]
    if model is None or (len(readings) < len(inputs) and not args.keep_going):
        return 2
    if names is not None:
        if words := strange_words(names, (*model.labels.names, *itertools.chain(*model.labels.aliases.values()))):
            print(f"omnibind: --labels: {_STRANGE.format(', '.join(words))}", file=sys.stderr)
        model.set_labels(names)
    embeddings = np.concatenate(rows)
    scenes = [[index] for index in range(len(readings))] if args.each else [list(range(len(readings)))]
    answers = [
        model.recognise(
            [readings[index].modality for index in scene],
            embeddings[scene],
            [readings[index].doubt for index in scene],
        )
        for scene in scenes
    ]
    result: dict[str, Any] = {"model": model.identity, "threshold": model.threshold}
    if args.each:
        pairs = zip(answers, readings, strict=True)
        result["inputs"] = [
            row | _fused(answer, args.top_k)
            for answer, reading in pairs
            for row in _inputs(answer, [reading], args.top_k)
        ]
    else:
        result |= _fused(answers[0], args.top_k)
        result["inputs"] = _inputs(answers[0], readings, args.top_k)
        result["conflict"] = conflict(
            (row["top"][0]["label"], row["confidence"])
            for row, speaks in zip(result["inputs"], answers[0].speaks, strict=True)
            if speaks
        )
    result["rejected"] = [
        {"modality": item.modality, "source": item.source, "error": item.error} for item in inputs if item.error
    ]
    if args.embeddings is not None:
        fused = {} if args.each else {"fused": answers[0].embedding}
        _write(args.embeddings, result, embeddings=embeddings, **fused)
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else _table(result))
    return 0


def read_labels(source: str) -> list[str] | dict[str, tuple[str, ...]]:
    """Label names from ``"a,b,c"`` or from a UTF-8 text file with one name a line; blank and ``#`` lines are skipped.

    What has a comma and is no file is names, anything else a file. A YAML or JSON file, told by its suffix, maps names
    to descriptions.

    Raises:
        ConfigError: The file is missing or is no text, names stand between something else than commas, or fewer than
            two are left.
    """
    path = Path(source).expanduser()
    if "," not in source and path.suffix in (".yaml", ".yml", ".json"):
        return _several(read_label_descriptions(path), source)
    if path.is_file() or path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--labels: {source} cannot be read as UTF-8 text: {error}") from error
        names = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    elif "," in source or any(mark in source for mark in _MARKS):
        names = [name.strip() for name in source.split(",")]
    else:
        raise ConfigError(
            f"--labels: there is no file '{source}', and one name is no vocabulary; expected a file, or names with "
            "commas between"
        )
    names = [name for name in names if name]
    if not names:
        raise ConfigError(f"--labels: '{source}' holds no name, expected names with commas between, or one a line")
    for mark in _MARKS:
        if any(mark in name for name in names):
            raise ConfigError(f"--labels: '{source}' has names with '{mark.strip() or 'tab'}' between, expected commas")
    return _several(names, source)


_Names = TypeVar("_Names", list[str], dict[str, tuple[str, ...]])


def _several(names: _Names, source: str) -> _Names:
    if len({*names}) < 2:
        raise ConfigError(f"--labels: '{source}' holds one name, expected two or more: one alone is always the answer")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"is {value}, expected 1 or more")
    return value


def read_units(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Units by modality, of ``MODALITY.UNIT=VALUE``; numbers as such.

    Raises:
        ConfigError: One is of another form, or no such modality or unit is known.
    """
    units: dict[str, dict[str, Any]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        name, dot, unit = key.replace("-", "_").partition(".")
        if not (equals and dot):
            raise ConfigError(f"--unit is '{text}', expected MODALITY.UNIT=VALUE, such as touch.full_scale=4095")
        if unit not in modalities.get(name).units:
            known = ", ".join(modalities.get(name).units) or "none"
            raise ConfigError(f"--unit is '{text}': {name} has no unit '{unit}'; it has {known}")
        of_modality = units.setdefault(name, {})
        try:
            of_modality[unit] = float(value)
        except ValueError:
            of_modality[unit] = value
    return units


def _files(name: str, given: str) -> list[str]:
    """What an argument stands for: itself, or the files of a folder that the modality reads, by name; not
    hidden ones, which macOS puts beside others (``._a.jpg``).

    Raises:
        ConfigError: The folder has none.
    """
    folder, modality = expanded(given), modalities.get(name)
    try:
        is_folder = modality.is_sensor and folder.is_dir()
    except OSError:  # a name that is too long for one
        is_folder = False
    if not is_folder:
        return [given]
    files = sorted(
        str(file)
        for file in folder.iterdir()
        if file.suffix.lower() in modality.suffixes and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise ConfigError(f"{given} has no {name} file, expected {modality.formats()}")
    return files


def _load(item: _Input, units: dict[str, Any]) -> Reading | None:
    """The reading of an input; None if there is none, which is told, as is what speaks against it."""
    try:
        reading = modalities.load(item.modality, item.source, **units)
    except (InvalidInputError, MissingDependencyError) as error:
        told = item.modality != "text" and item.source in str(error)
        item.error = str(error) if told else f"{'--text' if item.modality == 'text' else f'[{item.source}]'} {error}"
        print(f"omnibind: {item.error}", file=sys.stderr)
        return None
    if reading.doubt is not None:
        print(f"omnibind: [{item.source}] {reading.doubt}", file=sys.stderr)
    return reading


def _fused(answer: Recognition, top_k: int) -> dict[str, Any]:
    """What all readings are together."""
    threshold = answer.threshold if any(answer.speaks) else math.inf  # nothing said is unknown
    return _ranking(rank(answer.probabilities[0], answer.names, top_k, threshold))


def _inputs(answer: Recognition, readings: Sequence[Reading], top_k: int) -> list[dict[str, Any]]:
    """What each reading is by itself, and its part in the answer."""
    alone = [
        rank(row, answer.names, top_k, answer.threshold if said else math.inf)
        for row, said in zip(answer.probabilities[1:], answer.speaks, strict=True)
    ]
    return [
        {
            "modality": reading.modality,
            "source": reading.source,
            "weight": float(weight),
            "familiarity": None if math.isnan(familiarity) else float(familiarity),
            "doubt": None if reading.doubt is None else str(reading.doubt),
            "without": _best(others, answer.names) if sum(answer.speaks) > said else None,
            **_ranking(ranking),
        }
        for reading, weight, familiarity, others, said, ranking in zip(
            readings, answer.weights, answer.familiarity, answer.without, answer.speaks, alone, strict=True
        )
    ]


def _write(path: Path, result: Mapping[str, Any], **arrays: NDArray[np.float32]) -> None:
    """Writes embeddings with what they are of.

    Raises:
        ConfigError: The file cannot be written.
    """
    told = {key: np.array([row[key] or "" for row in result["inputs"]]) for key in ("modality", "source", "doubt")}
    try:
        with write_atomically(path) as temporary:
            np.savez(temporary, allow_pickle=False, model=np.array(result["model"]), **arrays, **told)
    except OSError as error:
        raise ConfigError(f"--embeddings: {path} cannot be written: {error}") from error


def _best(probabilities: NDArray[np.float32], names: Sequence[str]) -> dict[str, Any]:
    return {"label": names[int(probabilities.argmax())], "score": float(probabilities.max())}


def _ranking(ranking: Ranking) -> dict[str, Any]:
    values = asdict(ranking)
    labels, scores = values.pop("labels"), values.pop("scores")
    top = [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    return {**values, "top": top}


def _table(result: dict[str, Any]) -> str:
    return "\n".join([*_verdict(result), *_rows(result)])


def _verdict(result: dict[str, Any]) -> list[str]:
    """What all are together; nothing where nothing was fused."""
    if "top" not in result:
        return []
    best = result["top"][0]["label"]
    if not any(item["weight"] for item in result["inputs"]):
        verdict = "unknown (no input says anything)"
    elif result["unknown"]:
        verdict = f"unknown (nearest: {best}, {result['confidence']:.3f}, below {result['threshold']:.3f})"
    else:
        verdict = f"{best} ({result['confidence']:.3f})"
    lines = [verdict]
    if result["conflict"] > _CONFLICT:
        lines.append(f"the inputs contradict each other (conflict {result['conflict']:.2f}): see what each says alone")
    lines += ["", "score  label", *(f"{entry['score']:.3f}  {entry['label']}" for entry in result["top"]), ""]
    return lines


def _rows(result: dict[str, Any]) -> list[str]:
    """What every input is."""
    rows = [("input", "modality", "weight", "familiar", "score", "label", "others without it")]
    for item in result["inputs"]:
        label = f"unknown ({item['top'][0]['label']}?)" if item["unknown"] else item["label"]
        label = label if item["weight"] else "nothing to say"
        source = item["source"]
        if len(source) > _WIDEST_SOURCE:  # the start of a sentence says most, and the end of a path
            cut = _WIDEST_SOURCE - 1
            source = source[:cut] + "…" if item["modality"] == "text" else "…" + source[-cut:]
        without = item["without"]
        others = "" if without is None else f"{without['label']} ({without['score']:.3f})"
        familiar = "n/a" if item["familiarity"] is None else f"{item['familiarity']:.1f}"
        weight, score = f"{item['weight']:.3f}", f"{item['confidence']:.3f}"
        rows.append((source, item["modality"], weight, familiar, score, label, others))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
