"""``omnibind predict``: recognises what files show, alone and fused.

With ``--json`` one object is printed::

    {
      "model": "lite@1a2b3c4d",       name and content hash of the model
      "label": "dog",                 most probable label of the fused inputs; "" when unknown
      "confidence": 0.93,             its calibrated probability, 0..1
      "unknown": false,               whether the confidence is below the threshold
      "threshold": 0.3,
      "entropy": 0.41,                of the label distribution, nat
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
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnibind_core import modalities
from omnibind_core.commands.loading import add_engine, load_model
from omnibind_core.data.matching.label_descriptions import read_label_descriptions
from omnibind_core.errors import ConfigError, InvalidInputError, MissingDependencyError
from omnibind_core.runtime.ranking import Ranking, rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from omnibind_core.model import OmniBind

_LABELS = "own vocabulary: names, a text file with one a line, or YAML or JSON that maps names to lists of descriptions"
_WIDEST_SOURCE = 48  # characters of an input's name in the table


@dataclass
class _Input:
    """One input on its way: what was asked for, and what it became."""

    modality: str
    source: str
    raw: Any = field(default=None, repr=False)
    views: Any = field(default=None, repr=False)
    doubt: modalities.Doubt | None = None
    error: str = ""

    @property
    def speaks(self) -> bool:
        """Whether anything can be said from it."""
        return self.doubt is None or not self.doubt.excludes


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser(
        "predict",
        help="recognise what files show",
        description="Recognises what files of any modalities show, each alone and all fused. Every option that takes "
        "files takes several, and may be repeated.",
        epilog="Exit status: 0 recognised, 2 unusable input (each named on standard error).",
    )
    for name in modalities.names():
        flag, words = f"--{name.replace('_', '-')}", name.replace("_", " ")
        metavar, what = ("SENTENCE", "a description") if name == "text" else ("FILE", f"{words} file")
        parser.add_argument(flag, nargs="+", action="extend", default=[], metavar=metavar, help=what)
    parser.add_argument("--model", default="lite", help="name of a model, or its folder (default: %(default)s)")
    parser.add_argument("--labels", metavar="A,B,C|FILE", help=_LABELS)
    parser.add_argument("--top-k", type=_positive, default=5, metavar="N", help="labels shown (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, ... (default: %(default)s)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: torch's choice)")
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
    inputs = [_Input(name, source) for name in modalities.names() for source in getattr(args, name)]
    if not inputs:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in modalities.names())
        raise ConfigError(f"nothing to recognise: give at least one of {flags}")
    names = None if args.labels is None else read_labels(args.labels)
    good = _usable(inputs, _load, args.keep_going)
    if not good:
        return 2
    model = load_model(args.model, args.device, {item.modality for item in good}, args.threads, args.engine)
    if names is not None:
        model.set_labels(names)

    def process(item: _Input) -> None:
        of_file = (
            None if item.modality == "text" else modalities.file_doubt(item.modality, Path(item.source).expanduser())
        )
        item.doubt = of_file or modalities.doubt(item.modality, item.raw)
        if item.doubt is not None:
            print(f"omnibind: [{item.source}] {item.doubt}", file=sys.stderr)
        item.views = model.process(item.modality, item.raw)

    good = _usable(good, process, args.keep_going)
    if not good:
        return 2
    result = _recognise(model, good, args.top_k)
    result["rejected"] = [
        {"modality": item.modality, "source": item.source, "error": item.error} for item in inputs if item.error
    ]
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else _table(result))
    return 0


def read_labels(source: str) -> list[str] | dict[str, tuple[str, ...]]:
    """Label names from ``"a,b,c"`` or from a UTF-8 text file with one name a line; blank and ``#`` lines are skipped.

    A YAML or JSON file, told by its suffix, maps names to descriptions.

    Raises:
        ConfigError: The file is missing or is no text, or no name is left.
    """
    path = Path(source).expanduser()
    if "," not in source and path.suffix in (".yaml", ".yml", ".json"):
        return read_label_descriptions(path)
    if "," not in source and (path.is_file() or path.suffix == ".txt"):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--labels: {source} cannot be read as UTF-8 text: {error}") from error
        names = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    else:
        names = [name.strip() for name in source.split(",")]
    names = [name for name in names if name]
    if not names:
        raise ConfigError(f"--labels: '{source}' holds no name, expected names with commas between, or one a line")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"is {value}, expected 1 or more")
    return value


def _load(item: _Input) -> None:
    modality = modalities.get(item.modality)
    if item.modality == "text":
        item.raw = modality.check(item.source, "--text")
    else:
        item.raw = modality.load(Path(item.source).expanduser())


def _usable(inputs: Sequence[_Input], step: Callable[[_Input], None], keep_going: bool) -> list[_Input]:
    """Runs one step on every input and names those that fail; the rest, or nothing if one failing is too many."""
    for item in inputs:
        try:
            step(item)
        except (InvalidInputError, MissingDependencyError) as error:
            item.error = str(error) if item.source in str(error) else f"[{item.source}] {error}"
            print(f"omnibind: {item.error}", file=sys.stderr)
    good = [item for item in inputs if not item.error]
    return good if keep_going or len(good) == len(inputs) else []


def _recognise(model: OmniBind, inputs: Sequence[_Input], top_k: int) -> dict[str, Any]:
    embeddings = model.embed([(item.modality, item.views) for item in inputs])
    recognition = model.recognise([item.modality for item in inputs], embeddings, [item.doubt for item in inputs])
    said = [item.speaks for item in inputs]
    thresholds = [model.threshold if speaks else math.inf for speaks in (any(said), *said)]  # nothing said is unknown
    fused, *alone = (
        rank(row, model.labels.names, top_k, threshold)
        for row, threshold in zip(recognition.probabilities, thresholds, strict=True)
    )
    return {
        "model": model.identity,
        "threshold": model.threshold,
        **_ranking(fused),
        "inputs": [
            {
                "modality": item.modality,
                "source": item.source,
                "weight": float(weight),
                "familiarity": None if math.isnan(familiarity) else float(familiarity),
                "doubt": None if item.doubt is None else str(item.doubt),
                "without": _best(others, model.labels.names) if sum(said) > item.speaks else None,
                **_ranking(ranking),
            }
            for item, weight, familiarity, others, ranking in zip(
                inputs, recognition.weights, recognition.familiarity, recognition.without, alone, strict=True
            )
        ],
    }


def _best(probabilities: NDArray[np.float32], names: Sequence[str]) -> dict[str, Any]:
    return {"label": names[int(probabilities.argmax())], "score": float(probabilities.max())}


def _ranking(ranking: Ranking) -> dict[str, Any]:
    values = asdict(ranking)
    labels, scores = values.pop("labels"), values.pop("scores")
    top = [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    return {**values, "top": top}


def _table(result: dict[str, Any]) -> str:
    best = result["top"][0]["label"]
    if not any(item["weight"] for item in result["inputs"]):
        verdict = "unknown (no input says anything)"
    elif result["unknown"]:
        verdict = f"unknown (nearest: {best}, {result['confidence']:.3f}, below {result['threshold']:.3f})"
    else:
        verdict = f"{best} ({result['confidence']:.3f})"
    lines = [verdict, "", "score  label"]
    lines += [f"{entry['score']:.3f}  {entry['label']}" for entry in result["top"]]
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
    lines.append("")
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
