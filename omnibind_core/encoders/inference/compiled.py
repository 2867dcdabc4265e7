"""Trunks that run in another engine than torch: exported when first needed, and kept."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from omnibind_core.encoders.base import CompiledTrunk, EncoderSet
from omnibind_core.encoders.inference.engines import Run, candidates, open_network
from omnibind_core.encoders.inference.export import (
    Part,
    compare,
    exported_file,
    failure,
    kept_as,
    named,
    reason,
    trunk_part,
    write,
)
from omnibind_core.encoders.inference.parts import MANIFEST, code_digest, read_manifest
from omnibind_core.errors import DataError, MissingDependencyError, WeightsError
from omnibind_core.files import cache_folder
from omnibind_core.modalities.base import Preset

_WORTH = range(2**20, 2**28)
"""Bytes of weights of a trunk that ``auto`` exports: smaller ones gain nothing, larger ones are not written unasked."""
_VIEWS = 2  # that an engine is compared with torch on each time a model is loaded

_log = logging.getLogger(__name__)


def compile_trunks(
    encoders: EncoderSet,
    presets: Mapping[str, Preset],
    engine: str,
    beside: Path | None = None,
    providers: Sequence[str] = (),
) -> dict[str, str]:
    """Lets trunks run in an engine, those that give what they give in torch; the others stay, with a line in the log.

    Args:
        encoders: The encoders, in eval mode, on the CPU.
        presets: Of their modalities.
        engine: One of :data:`omnibind_core.encoders.inference.engines.ENGINES`.
        beside: Folder of ``omnibind export`` that comes with the model; None if there is none. What it lacks is
            exported into the cache folder.
        providers: As of :func:`~omnibind_core.encoders.inference.engines.candidates`.

    Returns:
        The engine of each trunk that left torch.

    Raises:
        ConfigError: There is no such engine, or no such provider here.
        MissingDependencyError: It was asked for by name and is not installed.
        WeightsError: It was asked for by name, and the folder was exported with other weights.
    """
    asked = candidates(engine, providers)
    found: dict[str, str] = {}
    encoders.compiled.clear()
    for name, trunk in encoders.trunks.items():
        size = sum(tensor.numel() * tensor.element_size() for tensor in trunk.parameters())
        part = trunk_part(encoders, name, presets, _VIEWS) if asked else None
        if part is None or (engine == "auto" and size not in _WORTH):
            continue
        try:
            whole = functools.partial(trunk_part, encoders, name, presets)
            chosen, run = _opened(part, asked, _beside(part, engine, beside), whole, providers)
        except (OSError, RuntimeError, DataError) as error:
            _log.warning("the trunk '%s' runs in torch: %s", name, reason(error))
        except MissingDependencyError as error:
            _log.log(
                logging.INFO if engine == "auto" else logging.WARNING, "the trunk '%s' runs in torch: %s", name, error
            )
        else:
            encoders.compiled[name] = CompiledTrunk(chosen, on_tensors(run))
            found[name] = chosen
    return found


def _beside(part: Part, engine: str, folder: Path | None) -> Path | None:
    """The file of the part that comes with the model."""
    if folder is None or not (folder / MANIFEST).is_file():
        return None
    try:
        read_manifest(folder)
    except WeightsError as error:  # it may be whole, but not for us
        _log.warning("%s", error)
        return None
    try:
        return exported_file(folder, part)
    except WeightsError as error:
        if engine != "auto":
            raise
        _log.warning("%s", error)
        return None


def _opened(
    part: Part,
    engines: Sequence[str],
    beside: Path | None,
    whole: Callable[[], Part | None],
    providers: Sequence[str],
) -> tuple[str, Run]:
    """The first engine that computes what torch does, and how to run it.

    Raises:
        RuntimeError: There is none.
        OSError: Nothing can be written to the cache folder.
        MissingDependencyError: The package ``onnx`` is not installed, and there is no file yet.
    """
    folder = kept_part(part)
    problem = failure(folder, part.name)
    if problem:
        raise RuntimeError(problem)
    for fresh in (False, True):  # what is kept may be damaged, or of another state of the code
        if fresh:
            started, again = time.monotonic(), whole()
            assert again is not None
            write([again], folder, candidates("auto"), {"code": code_digest()})
            _log.info("'%s' exported in %.1f s: %s", part.name, time.monotonic() - started, folder)
        for file in _files(part, folder, None if fresh else beside):
            for engine in engines:
                try:
                    run = open_network(engine, file, providers)
                    cosine = compare(part, run).cosine
                except Exception as error:  # whatever an engine may raise
                    problem = f"{engine}: {reason(error)}"
                    continue
                precision, least = kept_as(file, part.name)
                if cosine >= least:
                    engine = named(engine, file) if precision == "int8" else engine
                    told = (part.name.partition(".")[2], engine, cosine, file)
                    _log.info("the trunk '%s' runs in %s: least cosine to torch %.6f (%s)", *told)
                    return engine, run
                problem = f"{engine}: the least cosine to torch is {cosine:.5f}, expected at least {least:.4f}"
    raise RuntimeError(failure(folder, part.name) or problem)


def kept_part(part: Part) -> Path:
    """Where a part is kept that was exported when it was needed."""
    return cache_folder() / "exported" / f"{part.name}-{part.digest[:16]}"


def _files(part: Part, folder: Path, beside: Path | None) -> list[Path]:
    files = [] if beside is None else [beside]
    with contextlib.suppress(WeightsError):  # it is exported anew then
        files.append(exported_file(folder, part))
    return files


def on_tensors(run: Run) -> Callable[[Tensor], Tensor]:
    """How to run an exported trunk on views, as a trunk is called."""

    def forward(views: Tensor) -> Tensor:
        return torch.from_numpy(run({"views": views.contiguous().numpy()})[0])

    return forward
