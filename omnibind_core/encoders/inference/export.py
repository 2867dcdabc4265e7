"""Parts of a model as files of other engines, each compared with torch when it is written.

A folder holds a file for each part and :data:`MANIFEST`, which says what each takes and gives, which weights it was
made of, and how far it is from torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.config import from_json
from omnibind_core.encoders.base import EncoderSet, TextTower
from omnibind_core.encoders.inference import lowered, tensorrt
from omnibind_core.encoders.inference.engines import Run, open_network
from omnibind_core.encoders.inference.parts import (
    FILES,
    FORMAT,
    LEAST_COSINE,
    MANIFEST,
    code_digest,
    compared,
    least_cosine,
    part_file,
    sealed,
)
from omnibind_core.encoders.inference.probes import probes
from omnibind_core.errors import OmniBindError, WeightsError
from omnibind_core.files import write_folder_atomically
from omnibind_core.modalities.base import Preset
from omnibind_core.optional import require

OPSET = 17
"""Of ONNX, which ONNX Runtime has known since 1.12, and OpenVINO since 2022.2."""
MOST_LOST = 0.5
"""Points of top-1 that whole numbers may cost any modality of a trunk."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A network that is exported by itself.

    Attributes:
        name: ``trunks.vision``, ``heads.image``, ``recogniser``.
        network: Takes the inputs in their order, and gives a tensor or a tuple of them.
        samples: Inputs by name that it is compared on; the first one is what it is traced with.
        dynamic: Axes of each input and output that may have any size, with their names.
        outputs: Names of what it gives.
    """

    name: str
    network: nn.Module
    samples: Sequence[Mapping[str, Tensor]]
    dynamic: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of weights, structure and shapes: another one is another network."""
        found = hashlib.sha256(f"{FORMAT} {OPSET} {self.network!r}\n".encode())
        shapes = {name: (str(tensor.dtype), self._shape(name, tensor)) for name, tensor in self.samples[0].items()}
        found.update(json.dumps([shapes, self.outputs]).encode())
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        for name, tensor in sorted(tensors.items()):
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _shape(self, name: str, tensor: Tensor) -> list[int | str]:
        """Sizes of an input or output; names of those that may be any."""
        dynamic = self.dynamic.get(name, {})
        return [dynamic.get(axis, size) for axis, size in enumerate(tensor.shape)]

    @torch.inference_mode()
    def compute(self, sample: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """What torch gives."""
        found = self.network(*sample.values())
        values = found if isinstance(found, tuple) else (found,)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}

    def probe(self) -> dict[str, NDArray[Any]]:
        """The first sample and what torch gives for it, by name."""
        return {name: tensor.numpy() for name, tensor in self.samples[0].items()} | self.compute(self.samples[0])

    def write(self, path: Path) -> None:
        """Writes it as ONNX.

        Raises:
            MissingDependencyError: The package ``onnx`` is not installed.
            Exception: Whatever torch raises where it cannot.
        """
        require("onnx", "Exporting a model")
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of what a trace takes for constant; the comparison tells what matters
            # Not by dynamo, which takes twelve times as long, and a further package.
            torch.onnx.export(
                self.network,
                tuple(self.samples[0].values()),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(self.samples[0]),
                output_names=list(self.outputs),
                dynamic_axes={name: dict(axes) for name, axes in self.dynamic.items()},
            )

    def described(self) -> dict[str, Any]:
        """Its inputs and outputs, with dtypes and shapes, and its digest, for the manifest."""
        sample = self.samples[0]
        given = {name: torch.from_numpy(value) for name, value in self.compute(sample).items()}
        told = {
            kind: {name: [str(x.dtype).removeprefix("torch."), self._shape(name, x)] for name, x in tensors.items()}
            for kind, tensors in (("inputs", sample), ("outputs", given))
        }
        return {"digest": self.digest, **told}


@dataclass(frozen=True)
class Lowering:
    """Another precision than float32.

    Attributes:
        precision: ``"float16"``: of weights; ``"int8"``: of trunks, with what follows.
        views: Real views ``[n, ...]`` by the trunk's part, of each modality, by which the ranges of numbers are chosen.
        top1: The share of right answers by each modality of a trunk, None where there is nothing to tell it by, on
            other data; for the trunk's part, a name for what runs it, and that, None for torch.
    """

    precision: str
    views: Mapping[str, Sequence[NDArray[Any]]] = field(default_factory=dict)
    top1: Callable[[str, str, Run | None], Mapping[str, float | None]] | None = None


@dataclass(frozen=True)
class Comparison:
    """How far an engine is from torch.

    Attributes:
        cosine: The least of any row of any output; -1 where shapes or places of NaN differ.
        difference: The greatest between two numbers.
        samples: Inputs that it was compared on.
    """

    cosine: float
    difference: float
    samples: int


def compare(part: Part, run: Run, samples: Sequence[Mapping[str, Tensor]] | None = None) -> Comparison:
    """Compares what an engine computes with what torch does, on some of a part's samples or all."""
    cosine, difference = 1.0, 0.0
    samples = part.samples if samples is None else samples
    for sample in samples:
        wanted = part.compute(sample)
        found = run({name: tensor.numpy() for name, tensor in sample.items()})
        for theirs, ours in zip(found, wanted.values(), strict=True):
            least, most = compared(theirs, ours)
            cosine, difference = min(cosine, least), max(difference, most)
    return Comparison(cosine, difference, len(samples))


def trunk_part(encoders: EncoderSet, name: str, presets: Mapping[str, Preset], views: int = 12) -> Part | None:
    """A trunk of sensors as a part; None for a text tower, which takes sentences, and one of half precision.

    Args:
        encoders: The encoders, in eval mode, on the CPU.
        name: Of the trunk.
        presets: Of the modalities.
        views: Made-up views of each preset that it is compared on, at least 2.
    """
    trunk = encoders.trunks[name]
    given = [presets[key] for key in encoders.heads if encoders.trunk_of[key] == name]
    floats = {tensor.dtype for tensor in trunk.parameters() if tensor.is_floating_point()}
    if not given or isinstance(trunk, TextTower) or floats - {torch.float32}:
        return None
    sizes = [{*sizes} for sizes in zip(*(preset.shape for preset in given), strict=True)]
    free = {axis: f"size{axis}" for axis, found in enumerate(sizes, 1) if len(found) > 1 or found == {-1}}
    made = {(preset.shape, preset.dtype): preset for preset in given}
    rows = [torch.from_numpy(probes(preset, views)) for preset in made.values()]
    samples = [{"views": part[:count]} for part in rows for count in dict.fromkeys((2, 1, views))]
    return Part(f"trunks.{name}", trunk, samples, {"views": {0: "n", **free}, "features": {0: "n"}}, ("features",))


@torch.inference_mode()
def text_part(encoders: EncoderSet) -> Part | None:
    """The text tower as a part, of token ids and mask; None for one that stays in torch, and if there is none."""
    tower = encoders.trunks[encoders.trunk_of["text"]] if "text" in encoders.trunk_of else None
    network = tower.of_tokens() if isinstance(tower, TextTower) else None
    if network is None:
        return None
    name = f"trunks.{encoders.trunk_of['text']}"
    samples = []
    for count, length in ((2, 5), (1, 3), (7, 12)):
        mask = torch.arange(length) < torch.arange(length, length - count, -1)[:, None].clamp(min=2)
        tokens = torch.arange(count * length).reshape(count, length).remainder(61) * mask
        samples.append({"tokens": tokens, "mask": mask})
    dynamic = {**{name: {0: "n", 1: "length"} for name in ("tokens", "mask")}, "features": {0: "n"}}
    return Part(name, network, samples, dynamic, ("features",))


class _Head(nn.Module):
    """A head with unit-length embeddings, as :meth:`EncoderSet.embed` gives them."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.head(features), dim=-1)


@torch.inference_mode()
def head_part(encoders: EncoderSet, modality: str, presets: Mapping[str, Preset]) -> Part | None:
    """A head as a part, from features of its trunk to unit-length embeddings; None where its trunk is none.

    Arguments as of :func:`trunk_part`.
    """
    name = encoders.trunk_of[modality]
    trunk = text_part(encoders) if modality == "text" else trunk_part(encoders, name, presets)
    if trunk is None:
        return None
    if modality == "text":
        features = torch.from_numpy(trunk.compute(trunk.samples[-1])["features"])
    else:
        features = encoders.trunks[name](torch.from_numpy(probes(presets[modality])))
    head = _Head(encoders.heads[modality]).eval()
    head(features)  # class embeddings may be made now
    dynamic = {name: {0: "n"} for name in ("features", "embedding")}
    samples = [{"features": features[:count].clone()} for count in (2, 1, len(features))]
    return Part(f"heads.{modality}", head, samples, dynamic, ("embedding",))


def write(
    parts: Iterable[Part],
    folder: Path,
    engines: Sequence[str],
    told: Mapping[str, Any] | None = None,
    form: str = "onnx",
    files: Mapping[str, bytes] | None = None,
    lowering: Lowering | None = None,
    alone: bool = False,
) -> dict[str, Any]:
    """Exports parts, compares each with torch, and writes the folder as one.

    A part that cannot be exported, or is not like torch in any of the engines, is left out, with one line in the log.

    Args:
        parts: The parts.
        folder: What is written. If there is one already, it is replaced.
        engines: What the parts are compared in.
        told: Further entries of the manifest.
        form: ``"onnx"``; ``"tensorrt"``, which is the same within what TensorRT documents; ``"openvino"`` for its own
            files instead, which only OpenVINO runs; ``"torch_export"`` for those of ``torch.export``, which need no
            class of ours.
        lowering: Another precision than float32, for the parts that then are as good; None for float32.
        files: Further files, by name.
        alone: Whether it is refused while another process writes this folder.

    Returns:
        The manifest.

    Raises:
        DataError: The folder holds something else, or another process writes it.
        MissingDependencyError: The package ``onnx`` is not installed.
    """
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "opset": OPSET,
        "versions": {"torch": torch.__version__, **_versions(engines)},
        **(told or {}),
        "parts": {},
        "failed": {},
    }
    with write_folder_atomically(folder, FILES, alone=alone) as fresh:
        for name, data in (files or {}).items():
            (fresh / name).write_bytes(data)
        for part in parts:
            path = fresh / f"{part.name}.onnx"
            try:
                entry = _exported(part, path, engines, form, lowering)
                manifest["parts"][part.name] = entry | sealed(fresh, part.name, entry["file"], part.probe())
            except OmniBindError:
                raise
            except Exception as error:  # whatever torch or an engine may raise
                for file in fresh.glob(f"{part.name}.*"):
                    file.unlink()
                manifest["failed"][part.name] = reason(error)
                _log.warning("'%s' is not exported and stays in torch: %s", part.name, reason(error))
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _exported(part: Part, path: Path, engines: Sequence[str], form: str, lowering: Lowering | None) -> dict[str, Any]:
    if form == "torch_export":
        return _program(part, path.with_suffix(".pt2"))
    part.write(path)
    told: dict[str, Any] = {"precision": "float32"} if lowering is None else _lower(part, path, engines, lowering)
    least = -1.0 if told["precision"] == "int8" else LEAST_COSINE
    if form == "tensorrt":
        told["limits"] = tensorrt.check(path)
    if form == "openvino":
        openvino: Any = require("openvino", "Exporting for OpenVINO")
        openvino.save_model(openvino.Core().read_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
        path.unlink()
        path = path.with_suffix(".xml")
    figures: dict[str, dict[str, Any]] = {}
    problem = ""
    for engine in engines:
        try:
            found = compare(part, open_network(engine, path))
        except Exception as error:  # whatever an engine may raise; another one may run it
            problem = f"{engine}: {reason(error)}"
            figures[engine] = {"error": reason(error)}
        else:
            figures[engine] = _figures(found)
            if found.cosine >= least:
                continue
            problem = f"{engine}: its least cosine to torch is {found.cosine:.6f}, expected at least {LEAST_COSINE}"
        _log.warning("'%s' does not run in %s", part.name, problem)
    if engines and not any(row.get("least_cosine", -2.0) >= least for row in figures.values()):
        raise RuntimeError(problem)
    return {"file": path.name, **part.described(), **told, "compared": figures}


def _lower(part: Part, path: Path, engines: Sequence[str], lowering: Lowering) -> dict[str, Any]:
    """Brings a file into another precision, if it is as good then; what the manifest says of that."""
    whole = lowering.precision == "int8"
    if whole and part.name not in lowering.views:
        return {"precision": "float32"}
    trial = path.with_name(f"{part.name}.{lowering.precision}.onnx")
    shutil.copyfile(path, trial)
    found: dict[str, Any] = {"precision": lowering.precision}
    problem = ""
    try:
        if whole:
            lowered.int8(trial, lowering.views[part.name])
            found["top1"] = _top1(part, trial, engines, lowering)
            problem = _lost(found["top1"])
        else:
            lowered.float16(trial)
            cosines = []
            for engine in engines:
                with contextlib.suppress(Exception):  # one that does not run it, which is told later
                    cosines.append(compare(part, open_network(engine, trial)).cosine)
            if engines and min(cosines, default=-1.0) < LEAST_COSINE:
                problem = f"the least cosine is {min(cosines, default=-1.0):.6f}, expected at least {LEAST_COSINE}"
    except OmniBindError:
        raise
    except Exception as error:  # whatever a converter or an engine may raise
        problem = reason(error)
    if problem:
        trial.unlink()
        _log.warning("'%s' stays in float32, not %s: %s", part.name, lowering.precision, problem)
        return {**found, "precision": "float32", "refused": {lowering.precision: problem}}
    trial.replace(path)
    return found


def _top1(part: Part, path: Path, engines: Sequence[str], lowering: Lowering) -> dict[str, dict[str, float | None]]:
    """The share of right answers, by what runs the trunk and modality."""
    assert lowering.top1 is not None, "whole numbers are judged by what they cost"
    found = {"torch": dict(lowering.top1(part.name, "", None))}
    for engine in engines:
        found[engine] = dict(lowering.top1(part.name, named(engine, path), open_network(engine, path)))
    return found


def _lost(top1: Mapping[str, Mapping[str, float | None]]) -> str:
    """What costs more than :data:`MOST_LOST`, or is not known to cost less; empty if nothing does."""
    unknown = [modality for modality, wanted in top1["torch"].items() if wanted is None]
    if unknown:
        return f"no sample tells what {', '.join(unknown)} would lose"
    told = []
    for engine, row in top1.items():
        for modality, found in row.items():
            wanted = top1["torch"][modality] or 0.0
            lost = 100 * (wanted - (found or 0.0))
            if lost > MOST_LOST:
                told.append(f"{modality} loses {lost:.1f} points of {100 * wanted:.1f} in {engine}")
    return f"{', '.join(told)}; at most {MOST_LOST} are allowed" if told else ""


def named(engine: str, path: Path) -> str:
    """A name for an engine that runs a file in whole numbers, by which its features are told from others."""
    return f"{engine}, int8 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


class _Plain(nn.Module):
    """A network that gives a tensor or a plain tuple of them, which loads without its named one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = self.network(*inputs)
        return tuple(found) if isinstance(found, tuple) else found


def _dynamic(part: Part, sample: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Inputs and those of their axes that may have any size."""
    for name, tensor in sample.items():
        for axis in part.dynamic.get(name, {}):
            yield tensor, axis


def _program(part: Part, path: Path) -> dict[str, Any]:
    # Sizes of 0 and 1 would be taken for fixed.
    sample = max(part.samples, key=lambda given: min(tensor.shape[axis] for tensor, axis in _dynamic(part, given)))
    shapes = tuple(dict.fromkeys(part.dynamic.get(name, {}), torch.export.Dim.AUTO) for name in sample)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.export.save(
            torch.export.export(_Plain(part.network), tuple(sample.values()), dynamic_shapes=(shapes,)), path
        )
        program = torch.export.load(path).module()

    def run(inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with torch.no_grad():
            found = program(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in sample))
        return [rows.numpy() for rows in (found if isinstance(found, tuple) else (found,))]

    found = compare(part, run)
    if found.cosine < LEAST_COSINE:
        raise RuntimeError(f"its least cosine to torch is {found.cosine:.6f}, expected at least {LEAST_COSINE}")
    return {
        "file": path.name,
        **part.described(),
        "precision": "float32",
        "compared": {"torch.export": _figures(found)},
    }


def _figures(found: Comparison) -> dict[str, Any]:
    return {"least_cosine": found.cosine, "greatest_difference": found.difference, "samples": found.samples}


def _versions(engines: Sequence[str]) -> dict[str, str]:
    return {engine: str(require(engine, f"The engine {engine}").__version__) for engine in engines}


def exported_file(folder: Path, part: Part) -> Path:
    """The file of a part in a folder of exported parts.

    Raises:
        WeightsError: The folder is not whole, lacks the part, or has it with other weights.
    """
    try:
        found = from_json((folder / MANIFEST).read_text(encoding="utf-8"))["parts"]
        entry = found.get(part.name)
        file, digest = (None, None) if entry is None else (part_file(folder, entry), entry["digest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / MANIFEST}: no list of exported parts: {error}") from error
    if file is None or not file.is_file():
        raise WeightsError(f"{folder}: '{part.name}' is not exported there")
    if digest != part.digest:
        raise WeightsError(
            f"{file} was exported with other weights than this model's (digest {str(digest)[:16]}, expected "
            f"{part.digest[:16]}); omnibind export writes it anew"
        )
    return file


def kept_as(file: Path, part: str) -> tuple[str, float]:
    """The precision of a part's file, and the least cosine to torch that it is to have on made-up input."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        entry = from_json((file.parent / MANIFEST).read_text(encoding="utf-8"))["parts"][part]
        return str(entry["precision"]), least_cosine(entry)
    return "float32", LEAST_COSINE


def failure(folder: Path, part: str) -> str:
    """Why a part could not be exported into a folder by this code; empty if it was, or nothing was tried."""
    try:
        found = from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        return str(found["failed"].get(part, "")) if found.get("code") == code_digest() else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[1:2] if len(lines) > 1 and lines[0].startswith("Exception from ") else lines[:1]  # of OpenVINO
    return told[0] if told else type(error).__name__
