"""What several sub-commands load: a model, the text teacher. Torch is imported when one of them is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError

if TYPE_CHECKING:
    from omnibind_core.model import AnsweringModel, OmniBind


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds the options ``--engine`` and ``--providers``."""
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnxruntime", "openvino", "tensorrt"),
        default="torch",
        help="what runs trunks while --device is cpu; auto: the fastest that is installed and gives what torch gives "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="what the engine onnxruntime runs on, in turn, e.g. CUDAExecutionProvider CPUExecutionProvider "
        "(default: the CPU; tensorrt: TensorRT, CUDA, the CPU)",
    )


def load_model(
    source: str,
    device: str,
    wanted: set[str] | None,
    threads: int | None = None,
    engine: str = "torch",
    providers: Sequence[str] = (),
) -> AnsweringModel:
    """Loads what is needed of a model that only answers, without torch where that is possible.

    Arguments and errors as of :func:`load_in_torch`; ``threads`` are CPU threads, ``None`` leaves torch's choice.
    """
    from omnibind_core.model.loading import load_model as load

    _check(device)
    return load(source, device, wanted, engine=_asked(engine, providers), threads=threads, providers=providers)


def load_in_torch(
    source: str, device: str, wanted: set[str] | None, engine: str = "torch", providers: Sequence[str] = ()
) -> OmniBind:
    """Loads what is needed of a model, in torch.

    Args:
        source: Name or folder.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ...
        wanted: Modalities that will be encoded; ``None`` for all of the model.
        engine: What runs trunks, see :meth:`OmniBind.accelerate`.
        providers: What that runs on, likewise.

    Raises:
        ConfigError: No such model, device or provider, or the engine does not run there.
        MissingDependencyError: The engine is not installed.
        WeightsError: The weights cannot be read.
    """
    from omnibind_core.model import OmniBind

    _check(device)
    return OmniBind.from_pretrained(source, device, wanted, engine=_asked(engine, providers), providers=providers)


def _asked(engine: str, providers: Sequence[str]) -> str | None:
    """The engine, None if trunks stay in torch."""
    return None if engine == "torch" and not providers else engine


def _check(device: str) -> None:
    """Refuses a device that torch cannot use here."""
    if device == "cpu":
        return
    import torch  # takes seconds, which --help and unusable input must not cost

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise ConfigError(f"--device is '{device}', expected a device that torch can use here ({reason})") from error


def text_tower() -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """The packaged text teacher as a function of sentences, read when first called."""
    import torch

    from omnibind_core.encoders.lite.minilm import MiniLMTower

    tower = MiniLMTower()

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(tower(list(sentences)).numpy(), np.float32)

    return embed
