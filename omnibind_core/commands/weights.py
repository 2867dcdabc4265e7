"""``omnibind weights``: what weights a model config expects, what a file is, and splitting a file by trunk."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnibind_core.encoders.config import ModelConfig
    from omnibind_core.encoders.inspection import Report, TrunkReport

_LISTED = 10  # names of a kind that are printed; --json has all
_TYPES = ("float32", "bfloat16", "float16")
_FAMILIES = ("imagebind", "open_clip", "point_bind", "unibind")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser("weights", help="look at weight files that others made, and convert them")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    model = "model config: a name (docs/weights.md) or a file"

    text = "print name, shape and type of every tensor that a model config expects in a weights file"
    spec = actions.add_parser("spec", help=text, description=text)
    spec.add_argument("config", metavar="CONFIG", help=model)
    spec.add_argument("--modalities", nargs="+", metavar="NAME", help="only what these need (default: all)")
    spec.add_argument("--json", action="store_true", help="print one JSON object")
    spec.set_defaults(run=_spec)

    text = "say what a weights file is, what of it fits a model config, and what is missing, extra or mis-shaped"
    check = actions.add_parser("check", help=text, description=text)
    check.add_argument("file", type=Path, metavar="FILE", help="weights file, or a folder with one")
    check.add_argument("--family", choices=_FAMILIES, required=True, help="what it is meant to be")
    check.add_argument("--config", help=f"{model} (default: the family's that fits best)")
    check.add_argument("--json", action="store_true", help="print one JSON object, with all names")
    check.set_defaults(run=_check)

    text = "write a safetensors file for each trunk, so that only those of the modalities in use are read"
    convert = actions.add_parser("convert", help=text, description=text)
    convert.add_argument("file", type=Path, metavar="FILE", help="weights file, or a folder with one")
    convert.add_argument("--config", required=True, help=model)
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    convert.add_argument("--modalities", nargs="+", metavar="NAME", help="only what these need (default: all)")
    convert.add_argument("--dtype", choices=_TYPES, help="type of the numbers (default: as in the file)")
    convert.add_argument("--vocabulary", type=Path, metavar="FILE", help="CLIP's vocabulary, to be copied beside them")
    convert.set_defaults(run=_convert)


def _spec(args: argparse.Namespace) -> int:
    from omnibind_core.encoders.config import load_config
    from omnibind_core.encoders.inspection import expected

    config = load_config(args.config)
    trunks = expected(config, args.modalities)
    tensors = [tensor for trunk in trunks.values() for tensor in trunk.values()]
    count = sum(tensor.numel() for tensor in tensors)
    if args.json:
        rows = {
            trunk: {name: {"shape": list(x.shape), "dtype": _type(x.dtype)} for name, x in named.items()}
            for trunk, named in trunks.items()
        }
        print(json.dumps({"config": config.name, "family": config.family, "numbers": count, "trunks": rows}, indent=2))
        return 0
    width = max(len(name) for trunk in trunks.values() for name in trunk)
    for trunk, named in trunks.items():
        print(f"# trunk {trunk} ({', '.join(_users(config, trunk)) or 'no modality'}): {len(named)} tensors")
        for name, tensor in named.items():
            print(f"{name:{width}}  {_type(tensor.dtype):8}  {list(tensor.shape)}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    print(f"# {len(tensors)} tensors, {count:,} numbers, {_size(size)}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from omnibind_core.encoders.checkpoints import open_checkpoint
    from omnibind_core.encoders.config import load_config
    from omnibind_core.encoders.inspection import inspect

    config = None if args.config is None else load_config(args.config)
    report = inspect(open_checkpoint(args.file), args.family, config)
    if args.json:
        print(json.dumps({**asdict(report), "fits": report.fits}, indent=2))
    else:
        _print(report)
    return 0 if report.fits else 1


def _convert(args: argparse.Namespace) -> int:
    import torch

    from omnibind_core.encoders import clip_text, inspection
    from omnibind_core.encoders.checkpoints import INDEX, open_checkpoint
    from omnibind_core.encoders.config import load_config
    from omnibind_core.files import write_folder_atomically

    config = load_config(args.config)
    checkpoint = open_checkpoint(args.file, verify=True)  # all of it is read in any case
    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    if args.vocabulary:
        clip_text.ClipTokeniser(args.vocabulary)  # refuses what is none
    vocabulary = clip_text.vocabulary_files(args.vocabulary or args.file)
    ours = ("*.safetensors", INDEX, *clip_text.FILES, "merges.txt")
    with write_folder_atomically(args.out, ours, alone=True) as folder:
        sizes = inspection.convert(checkpoint, config, folder, args.modalities, dtype)
        for file in vocabulary:
            shutil.copyfile(file, folder / file.name)
    for trunk, size in sizes.items():
        print(f"{args.out / trunk}.safetensors: {', '.join(_users(config, trunk))}: {_size(size)}")
    for file in vocabulary:
        print(f"{args.out / file.name}: vocabulary")
    print(f"licence: {inspection.licence_of(checkpoint)}")
    print(f"use them with 'weights: {args.out}' in a model config or an experiment")
    return 0


def _print(report: Report) -> None:
    from omnibind_core.encoders.inspection import TITLES

    types = ", ".join(f"{count} {name}" for name, count in report.types.items())
    print(f"{report.file}: {TITLES[report.family]}, {report.tensors} tensors ({types}), {_size(report.bytes)}")
    print(f"licence: {report.licence}")
    print(f"compared with the model config {report.config}:")
    for name, trunk in report.trunks.items():
        users = ", ".join(trunk.modalities) or "no modality"
        verdict = "fits" if trunk.fits else "does not fit"
        print(f"  {name} ({users}): {verdict}, {trunk.matching} of {trunk.expected} tensors match")
        _print_problems(trunk)
    if report.extra:
        print(f"  used by no trunk of this config: {len(report.extra)} tensors")
        _list(report.extra)


def _print_problems(trunk: TrunkReport) -> None:
    if trunk.problem:
        print(f"    {trunk.problem}")
        return
    for what, names in (("missing", trunk.missing), ("unknown", trunk.unknown)):
        if names:
            print(f"    {what}: {len(names)}")
            _list(names)
    if trunk.mis_shaped:
        print(f"    mis-shaped: {len(trunk.mis_shaped)}")
        _list(tuple(f"{name}: found {a}, expected {b}" for name, (a, b) in trunk.mis_shaped.items()))


def _list(names: tuple[str, ...]) -> None:
    for name in names[:_LISTED]:
        print(f"      {name}")
    if len(names) > _LISTED:
        print(f"      … and {len(names) - _LISTED} more (--json lists all)")


def _users(config: ModelConfig, trunk: str) -> list[str]:
    return [name for name, part in config.modalities.items() if part.trunk == trunk]


def _type(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        count /= 1000
    return f"{count:.2f} GB"
