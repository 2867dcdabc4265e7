"""Which model answers: exported parts where they are at hand whole and matching, else torch, which then makes them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnibind_core.encoders.inference.parts import MANIFEST, code_digest, read_manifest
from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.files import cache_folder
from omnibind_core.model.exported import ExportedModel, exported_sensors
from omnibind_core.model.folders import CONFIG, EXPORTED, answer_digest, model_folder, saved_modalities

if TYPE_CHECKING:
    from omnibind_core.model.answering import AnsweringModel
    from omnibind_core.model.omnibind import OmniBind

_DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")  # without one of them torch finds no GPU

_log = logging.getLogger(__name__)


def load_model(
    source: str | Path = "lite",
    device: str = "cpu",
    modalities: Collection[str] | None = None,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] = (),
) -> AnsweringModel:
    """Loads a model that only answers: without torch, if it was exported, and an engine is asked for on a CPU.

    What is not exported yet is exported now, into the cache folder, so that the next start needs no torch.

    Args:
        source: As of :meth:`OmniBind.from_pretrained`, or a folder that ``omnibind export`` wrote.
        device: Where it computes.
        modalities: As of :meth:`OmniBind.from_pretrained`, as the rest.
        precision: The same.
        engine: The same.
        threads: On a CPU; None for torch's choice.
        providers: What ONNX Runtime runs trunks on, see :meth:`OmniBind.accelerate`; with some, torch does the rest.

    Raises:
        ConfigError: No such model, precision, engine or provider, or its configuration is wrong; names the key.
        MissingDependencyError: An engine that was asked for by name is not installed.
        WeightsError: A weights file is missing, corrupt or does not fit the architecture.
    """
    lean = device == "cpu" and engine not in (None, "torch", "tensorrt") and precision in (None, "float32", "auto")
    lean = lean and not providers
    alone = Path(source).expanduser()
    if (alone / MANIFEST).is_file() and not (alone / CONFIG).is_file():
        if not lean:
            raise ConfigError(f"{alone} is an exported model: expected device cpu and an engine, as --engine auto")
        return ExportedModel(alone, engine or "auto", modalities, threads)
    if lean:
        found = _exported(source, engine or "auto", modalities, threads)
        if found is not None:
            return found
    import torch  # takes seconds

    from omnibind_core.model import OmniBind

    if threads is not None:
        torch.set_num_threads(threads)
    model = OmniBind.from_pretrained(source, device, modalities, precision, engine, providers)
    if not lean:
        return model
    _keep(model, source)
    # The next start answers from the parts, and the last digits are to be the same in this one.
    return _exported(source, engine or "auto", modalities, threads) or model


def may_have_gpu() -> bool:
    """Whether torch may find a GPU here; not asked of torch, since it takes seconds to import."""
    for driver in _DRIVERS:
        with contextlib.suppress(OSError):
            ctypes.CDLL(driver)
            return True
    return Path("/dev/kfd").exists()


def _exported(
    source: str | Path, engine: str, modalities: Collection[str] | None, threads: int | None
) -> ExportedModel | None:
    folder = model_folder(source)
    digest = answer_digest(folder)
    wanted = set(saved_modalities(source) if modalities is None else modalities) - {"text"}
    for place in (folder / EXPORTED, kept_folder(digest)):
        if not (place / MANIFEST).is_file():
            continue
        try:
            manifest = read_manifest(place)
            if manifest.get("of") != {"model": digest, "code": code_digest()}:
                raise WeightsError(f"{place} was exported of another model, or by another version of this package")
            if wanted <= exported_sensors(manifest):
                return ExportedModel(place, engine, wanted, threads, functools.partial(_text, source, engine))
        except WeightsError as error:
            _log.warning("torch answers: %s", error)
    return None


def kept_folder(digest: str) -> Path:
    """Where the parts of a model are kept that were exported when it was loaded, by the digest of its answers."""
    return cache_folder() / EXPORTED / f"model-{digest[:16]}"


def _keep(model: OmniBind, source: str | Path, text: bool = False) -> None:
    from omnibind_core.model.keeping import keep

    folder = model_folder(source)
    digest = answer_digest(folder)
    keep(model, kept_folder(digest), {"model": digest, "code": code_digest()}, text)


def _text(source: str | Path, engine: str) -> OmniBind:
    """The text tower in torch, which is exported now for the next time."""
    from omnibind_core.model import OmniBind

    _log.info("the text tower is not exported yet: torch is loaded for it once")
    model = OmniBind.from_pretrained(source, "cpu", ("text",), engine=engine)
    _keep(model, source, text=True)
    return model
