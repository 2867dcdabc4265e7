"""Which model answers: exported parts where they are at hand whole and matching, else torch, which then makes them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnibind_core.encoders.inference.engines import candidates
from omnibind_core.encoders.inference.parts import MANIFEST, read_manifest
from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.files import cache_folder
from omnibind_core.model.exported import ExportedModel, exported_sensors
from omnibind_core.model.folders import EXPORTED, identity, is_export, model_folder, saved_modalities

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
    if is_export(source):
        if not lean:
            raise ConfigError(f"{source} is an exported model: expected device cpu and an engine, as --engine auto")
        return ExportedModel(Path(source).expanduser(), engine or "auto", modalities, threads)
    lean = lean and bool(candidates(engine or "auto"))
    folder = model_folder(source)
    of = identity(folder) if lean else {}  # before the weights are read: the folder may be replaced meanwhile
    opened = functools.partial(_exported, folder, of, engine, modalities, threads)
    if lean and (found := opened(_places(folder, of))) is not None:
        return found
    import torch  # takes seconds

    from omnibind_core.model import OmniBind

    if threads is not None:
        torch.set_num_threads(threads)
    model = OmniBind.from_pretrained(source, device, modalities, precision, engine, providers)
    if not lean or not _keep(model, of):
        return model
    # The next start answers from the parts, and the last digits are to be the same in this one.
    return opened([kept_model(of)]) or model


def may_have_gpu() -> bool:
    """Whether torch may find a GPU here; not asked of torch, since it takes seconds to import."""
    for driver in _DRIVERS:
        with contextlib.suppress(OSError):
            ctypes.CDLL(driver)
            return True
    return Path("/dev/kfd").exists()


def _exported(
    folder: Path,
    of: Mapping[str, Any],
    engine: str | None,
    modalities: Collection[str] | None,
    threads: int | None,
    places: Iterable[Path],
) -> ExportedModel | None:
    wanted = set(saved_modalities(folder) if modalities is None else modalities) - {"text"}
    for place in places:
        try:
            manifest = read_manifest(place)
            if manifest.get("of") != dict(of):
                raise WeightsError(f"{place} was exported of another model, or by another version of this package")
            if wanted <= exported_sensors(manifest):
                text = functools.partial(_text, folder, of, engine, threads)
                return ExportedModel(place, engine or "auto", wanted, threads, text)
        except WeightsError as error:
            _log.warning("exported parts are not used: %s", error)
    return None


def _places(folder: Path, of: Mapping[str, Any]) -> Iterator[Path]:
    """Where there is an export of a model."""
    places = [folder / EXPORTED]
    with contextlib.suppress(OSError):  # there is nowhere to keep anything
        places.append(kept_model(of))
    return (place for place in places if (place / MANIFEST).is_file())


def kept_model(of: Mapping[str, Any]) -> Path:
    """Where the parts of a model are kept that were exported when it was loaded.

    Args:
        of: Its :func:`~omnibind_core.model.folders.identity`.

    Raises:
        OSError: There is no cache folder.
    """
    return cache_folder() / EXPORTED / f"model-{of['model'][:16]}"


def _keep(model: OmniBind, of: Mapping[str, Any], text: bool = False) -> bool:
    """Whether it was kept."""
    from omnibind_core.model.keeping import keep

    try:
        return keep(model, kept_model(of), of, text)
    except OSError as error:
        _log.info("torch will be needed at the next start, too: %s", error)
        return False


def _text(folder: Path, of: Mapping[str, Any], engine: str | None, threads: int | None) -> OmniBind:
    """The text tower in torch, which is exported now for the next time."""
    import torch

    from omnibind_core.model import OmniBind

    _log.info("the text tower runs in torch: it is not exported yet")
    if threads is not None:
        torch.set_num_threads(threads)
    model = OmniBind.from_pretrained(folder, "cpu", ("text",), engine=engine)
    _keep(model, of, text=True)
    return model
