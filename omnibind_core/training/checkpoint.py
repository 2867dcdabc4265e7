"""Checkpoints of a stage: what learns, the optimiser and where it stood, written atomically."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnibind_core.errors import ConfigError, DataError, WeightsError
from omnibind_core.files import write_atomically
from omnibind_core.training.config import RENAMED, former_names

_logger = logging.getLogger(__name__)
_MINUTE = 60.0


@dataclass
class Progress:
    """Where a stage stands.

    Attributes:
        step: Steps done.
        seconds: Time spent on them.
        best: Mean of the best validation figures so far.
        waited: Validations since then.
        stopped: It was stopped early.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = float("-inf")
    waited: int = 0
    stopped: bool = False


class Checkpoints:
    """The last and the best checkpoint of one stage, ``checkpoints/NAME.last.ckpt`` and ``NAME.best.ckpt``.

    Args:
        folder: Parent of ``checkpoints/``; None writes none.
        name: Of the stage.
        module: What learns.
        optimizer: Its optimiser.
        agreement: What a checkpoint must have been written with to be continued.
        writes: This process writes them; all read them.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        module: nn.Module,
        optimizer: Any,
        agreement: Mapping[str, Any],
        writes: bool = True,
    ) -> None:
        self._last = None if folder is None else folder / "checkpoints" / f"{name}.last.ckpt"
        self._best = None if folder is None else folder / "checkpoints" / f"{name}.best.ckpt"
        self._module = module
        self._optimizer = optimizer
        self._agreement = dict(agreement)
        self._writes = writes
        self._best_weights: dict[str, Any] | None = None
        self._best_is_new = False
        self._saved = 0.0

    def restore(self) -> Progress:
        """Puts the last checkpoint's state in place; without one, training starts at step 0.

        Raises:
            ConfigError: It was written with other settings, or by a former version; names what differs.
            WeightsError: A file is not a whole checkpoint.
        """
        self._refuse_former_name()
        if self._last is None or not self._last.is_file():
            _logger.info("no checkpoint %s: starting at step 0", self._last)
            return Progress()
        state = _read(self._last)
        refuse_others(str(self._last), state["agreement"], self._agreement)
        self._module.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._best is not None and self._best.is_file():
            self._best_weights = _read(self._best)["weights"]
        progress = Progress(**state["progress"])
        self._saved = progress.seconds
        _logger.info("continuing %s at step %d", self._last, progress.step)
        return progress

    def due(self, progress: Progress, every: int | None) -> bool:
        """Whether it is time for a checkpoint: every so many steps, or None for one a minute."""
        if every is None:
            return progress.seconds - self._saved >= _MINUTE
        return every > 0 and progress.step % every == 0

    def save(self, progress: Progress) -> None:
        """Writes the last checkpoint, and the best if it is a new one."""
        self._saved = progress.seconds
        if self._best_is_new:
            self._write(self._best, {"weights": self._best_weights})
            self._best_is_new = False
        weights, optimizer = self._module.state_dict(), self._optimizer.state_dict()
        self._write(self._last, {"weights": weights, "optimizer": optimizer, "progress": asdict(progress)})

    def judge(self, figures: Mapping[str, float], progress: Progress, patience: int) -> None:
        """Notes validation figures in ``progress``, and the weights if they are better than all before."""
        if not figures:
            return
        score = sum(figures.values()) / len(figures)
        if score > progress.best:
            progress.best, progress.waited = score, 0
            self._best_weights = {key: value.clone() for key, value in self._module.state_dict().items()}
            self._best_is_new = True
        else:
            progress.waited += 1
            progress.stopped = 0 < patience <= progress.waited

    def load_best(self) -> None:
        """Puts the best weights in place, if anything was validated."""
        if self._best_weights is not None:
            self._module.load_state_dict(self._best_weights)

    def _refuse_former_name(self) -> None:
        for former, name in RENAMED.items():
            path = None if self._last is None else self._last.with_name(f"{former}.last.ckpt")
            if path is not None and self._last == path.with_name(f"{name}.last.ckpt") and path.is_file():
                raise ConfigError(f"{path}: {former_names([former])}; train without --resume")

    def _write(self, path: Path | None, state: Mapping[str, Any]) -> None:
        if path is None or not self._writes:
            return
        try:
            with write_atomically(path) as temporary:
                torch.save({"agreement": self._agreement, **state}, temporary)
        except (OSError, RuntimeError) as error:  # torch raises the second on a full disk
            raise DataError(f"cannot write the checkpoint {path} (is there room on the disk?): {error}") from error


def refuse_others(what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Makes sure that a checkpoint belongs to this experiment.

    Raises:
        ConfigError: It does not; names the keys that differ, or have another name now.
    """
    former = former_names(then)
    if former:
        raise ConfigError(f"{what} is of a former version: {former}. Train without --resume")
    differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if differing:
        told = "; ".join(f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise ConfigError(f"{what} is of another experiment: {told}. Train without --resume, or with those settings")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    keys: dict[str, Any] = {}
    for key, value in settings.items():
        keys |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return keys


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: not a whole checkpoint ({error}); train without --resume") from error
    return state
