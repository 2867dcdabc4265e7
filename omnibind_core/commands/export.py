"""``omnibind export``: the parts of a model as files that other engines run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser(
        "export",
        help="write a model for other engines",
        description="Writes trunks, heads and fusion of a model as ONNX files or OpenVINO's, each compared with torch. "
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
    parser.add_argument("--format", choices=("onnx", "openvino"), default="onnx", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print export.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command.

    Raises:
        ConfigError: No such model.
        DataError: The folder to write holds something else.
        MissingDependencyError: A package that exporting needs is not installed.
        WeightsError: The model's weights cannot be read.
    """
    from omnibind_core.encoders.inference import export
    from omnibind_core.encoders.inference.engines import candidates
    from omnibind_core.encoders.inference.parts import FILES, MANIFEST, code_digest
    from omnibind_core.files import check_replaceable
    from omnibind_core.model import OmniBind, model_folder
    from omnibind_core.model.exported import LABELS
    from omnibind_core.model.folders import answer_digest

    check_replaceable(args.out, FILES)
    engines = ("openvino",) if args.format == "openvino" else candidates("auto")
    model = OmniBind.from_pretrained(args.model)
    of = {"model": answer_digest(model_folder(args.model)), "code": code_digest()}
    told = {"model": model.identity, "of": of, "answers": model.described()}
    labels = {LABELS: model.exported_labels()}
    manifest = export.write(model.parts(), args.out, engines, told, args.format, labels)
    if args.json:
        print(json.dumps(manifest, indent=2))
    else:
        print(_table(manifest))
        print(f"written: {args.out / MANIFEST}")
    return 1 if manifest["failed"] else 0


def _table(manifest: dict[str, Any]) -> str:
    rows = [("part", "engine", "least cosine", "greatest difference", "inputs compared")]
    for name, part in manifest["parts"].items():
        for engine, found in part["compared"].items():
            if "error" in found:
                continue
            figures = f"{found['least_cosine']:.7f}", f"{found['greatest_difference']:.1e}", str(found["samples"])
            rows.append((name, engine, *figures))
    rows += [(name, "torch", "", "", "") for name in manifest["failed"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
