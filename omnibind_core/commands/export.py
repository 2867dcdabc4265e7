"""``omnibind export``: the parts of a model as files that other engines run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError, DataError, OmniBindError

if TYPE_CHECKING:
    from omnibind_core.encoders.inference.engines import Run
    from omnibind_core.encoders.inference.export import Lowering
    from omnibind_core.model import OmniBind

_CALIBRATED = 16  # samples of a modality, of the split train
_UNTESTED = (
    "TensorRT is not available here, so no engine was built, and speed and accuracy are untested: what was checked is "
    "that it documents every operator, and that shapes can be inferred; --engine tensorrt builds engines on the device "
    "that runs them"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser(
        "export",
        help="write a model for other engines",
        description="Writes trunks, heads and fusion of a model as files of a format, each compared with torch. "
        "export.json says what each takes and gives, which weights it was made of, and how far it is from torch.",
        epilog="Exit status: 0 all parts were written, 1 some stay in torch (each named on standard error).",
    )
    parser.add_argument("model", metavar="MODEL", help="name of a model, or its folder")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; 'exported' in the folder of a model is found with it by --engine",
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "openvino", "tensorrt", "torch_export"),
        default="onnx",
        help="tensorrt: ONNX within what TensorRT documents; torch_export: .pt2, for torch without this package "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="float16: weights, half the file; int8: trunks, each only if no modality loses more than 0.5 points of "
        "top-1; parts that are not as good stay in float32 (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration-data",
        type=Path,
        metavar="DIR",
        help="for int8: folder with samples.csv, whose split train gives the ranges of numbers, and val the top-1",
    )
    parser.add_argument("--json", action="store_true", help="print export.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command.

    Raises:
        ConfigError: No such model, or the options do not go together.
        DataError: The folder to write holds something else, or the calibration data lack a split.
        MissingDependencyError: A package that exporting needs is not installed.
        WeightsError: The model's weights cannot be read.
    """
    from omnibind_core.encoders.inference import export
    from omnibind_core.encoders.inference.engines import candidates
    from omnibind_core.encoders.inference.parts import FILES, MANIFEST
    from omnibind_core.files import check_replaceable
    from omnibind_core.model import OmniBind, model_folder
    from omnibind_core.model.exported import LABELS
    from omnibind_core.model.folders import identity

    if args.precision != "float32" and args.format == "torch_export":
        raise ConfigError(f"--precision {args.precision}: torch_export is written in float32")
    if args.precision == "int8" and args.format == "tensorrt":
        raise ConfigError("--precision int8: TensorRT wants zero points of 0, which these files do not have")
    if (args.precision == "int8") != (args.calibration_data is not None):
        raise ConfigError("--precision int8 and --calibration-data DIR go together: expected both or none")
    check_replaceable(args.out, FILES)
    engines = {"openvino": ("openvino",), "torch_export": ()}.get(args.format, candidates("auto"))
    untested = ""
    if args.format == "tensorrt":
        try:
            engines += candidates("tensorrt")
        except OmniBindError:
            untested = _UNTESTED
    model = OmniBind.from_pretrained(args.model)
    if model.labels.reduce != "mean":  # a recogniser takes one row of each label
        raise ConfigError(f"labels.reduce of {args.model} is '{model.labels.reduce}', which only torch does")
    lowering = None
    if args.precision == "float16":
        lowering = export.Lowering("float16")
    elif args.precision == "int8":
        lowering = _whole(model, args.model, args.calibration_data)
    told: dict[str, Any] = {
        "model": model.identity,
        "of": identity(model_folder(args.model)),
        "answers": model.described(),
    }
    if untested:
        told["untested"] = untested
    labels = {LABELS: model.exported_labels()}
    manifest = export.write(model.parts(), args.out, engines, told, args.format, labels, lowering, alone=True)
    if args.json:
        print(json.dumps(manifest, indent=2))
    else:
        print(_table(manifest))
        print(f"written: {args.out / MANIFEST}")
        if untested:
            print(f"{untested}.")
    return 1 if manifest["failed"] else 0


def _whole(model: OmniBind, source: str, root: Path) -> Lowering:
    """How trunks come to whole numbers, and what they are judged by.

    Raises:
        DataError: The folder lacks a split, or the model knows none of its labels.
    """
    from omnibind_core.data.concepts import Concepts
    from omnibind_core.encoders.base import CompiledTrunk
    from omnibind_core.encoders.inference import export
    from omnibind_core.encoders.inference.compiled import on_tensors
    from omnibind_core.evaluation import samples
    from omnibind_core.model import model_folder

    views: dict[str, list[NDArray[Any]]] = {}
    for modality, part in _calibrating(model, root):
        views.setdefault(f"trunks.{model.encoders.trunk_of[modality]}", []).append(part)
    table = model_folder(source) / "labels.csv"
    own = Concepts.read(table) if table.is_file() else Concepts([])

    def top1(part: str, name: str, run: Run | None) -> Mapping[str, float | None]:
        trunk = part.partition(".")[2]
        model.encoders.compiled.clear()
        if run is not None:
            model.encoders.compiled[trunk] = CompiledTrunk(name, on_tensors(run))
        try:
            known = samples.load(root, "val", model, own).known
            found: dict[str, float | None] = {
                modality: None for modality, of in model.encoders.trunk_of.items() if of == trunk
            }
            for modality, rows in samples.embeddings(model, known).items():
                if model.encoders.trunk_of[modality] == trunk:
                    answers = model.labels.similarities(rows[:, 0]).argmax(dim=1).numpy()
                    found[modality] = float((answers == known.sets[modality].concept).mean())
            return found
        finally:
            model.encoders.compiled.clear()

    return export.Lowering("int8", views, top1)


def _calibrating(model: OmniBind, root: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Views of some samples of each modality, of the split ``train``.

    Raises:
        DataError: There are none of it.
    """
    from omnibind_core.data.sources.folder import FolderSource

    source, found = FolderSource(root), False
    for modality in model.modalities:
        chosen = [] if modality == "text" else source.samples(split="train", modality=modality)
        rng = np.random.default_rng(0)
        for number in rng.permutation(len(chosen))[:_CALIBRATED]:
            found = True
            yield modality, model.process(modality, source.load(chosen[number]))
    if not found:
        raise DataError(f"{root} has no samples of the split 'train', from which int8 takes the ranges of numbers")


def _table(manifest: dict[str, Any]) -> str:
    rows = [("part", "precision", "engine", "least cosine", "greatest difference", "inputs compared")]
    for name, part in manifest["parts"].items():
        for engine, found in part["compared"].items():
            if "error" in found:
                continue
            figures = f"{found['least_cosine']:.7f}", f"{found['greatest_difference']:.1e}", str(found["samples"])
            rows.append((name, part["precision"], engine, *figures))
    rows += [(name, "float32", "torch", "", "", "") for name in manifest["failed"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
