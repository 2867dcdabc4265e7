"""The training loop of every stage: one process or many, logged, validated, and continued after being killed.

Everything random at a step comes from generators seeded by (seed, stage, step). So a run that is continued at a step
ends in the same weights as one that was never interrupted, and all processes draw the same batch and take their share.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
import zlib
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from omnibind_core.errors import ConfigError
from omnibind_core.files import clear
from omnibind_core.optional import require
from omnibind_core.training.checkpoint import Checkpoints, Progress
from omnibind_core.training.config import StageConfig
from omnibind_core.training.logs import Log

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_logger = logging.getLogger(__name__)


class Stage(nn.Module):
    """Something that is trained.

    The submodules of a stage are exactly what learns: they are optimised, shared between processes and kept in
    checkpoints. Everything frozen is held outside of them, in plain objects.

    Args:
        name: Of its files, and part of its seeds.
        settings: Of the optimisation.
        salt: Part of its seeds in place of the name.

    Attributes:
        steps: Number of optimiser steps; 0 skips the stage.
        fabric: The processes that work on it; None for one.
    """

    steps: int

    def __init__(self, name: str, settings: StageConfig, salt: str | None = None) -> None:
        super().__init__()
        self.name = name
        self.salt = salt or name
        self.settings = settings
        self.fabric: Fabric | None = None

    @abstractmethod
    def draw(self, step: int, rng: np.random.Generator) -> Any:
        """The batch of a step, the same in every process; ``len()`` of it is the number of samples B."""

    @abstractmethod
    def encode(self, batch: Any, share: slice) -> Tensor:
        """What the weights make of this process's share of the batch: ``[len(share), ...]``."""

    @abstractmethod
    def losses(self, embeddings: Tensor, batch: Any) -> dict[str, Tensor]:
        """Scalars of the whole batch, from :meth:`encode` of all its samples ``float32 [B, ...]``.

        ``"loss"`` is what is minimised, the others are logged beside it.
        """

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, 0 to 1; their mean says which weights are best. None if there are none."""
        return {}

    def subject(self, step: int) -> str:
        """What learns at a step, for the log; empty if it is always the same."""
        return ""

    def span(self, step: int) -> tuple[int, int]:
        """First step and end of the part of the stage over which the learning rate rises and falls at a step."""
        return 0, self.steps

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; ``lr`` overrules the settings, ``subject`` is as in :meth:`subject`."""
        return [{"params": list(self.parameters())}]

    def forward(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Draws the batch of a step and returns its losses."""
        batch = self.draw(step, rng)
        embeddings = self._encode_together(batch)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.losses(embeddings.float(), batch)

    def _encode_together(self, batch: Any) -> Tensor:
        size, world = len(batch), 1 if self.fabric is None else self.fabric.world_size
        if self.fabric is None or world == 1:
            return self.encode(batch, slice(0, size))
        if size < world:
            raise ConfigError(f"{self.name}: a batch of {size} samples cannot be shared by {world} processes")
        ends = [size * rank // world for rank in range(world + 1)]
        counts = [end - start for start, end in itertools.pairwise(ends)]
        rank = self.fabric.global_rank
        mine = self.encode(batch, slice(ends[rank], ends[rank + 1]))
        mine = torch.cat([mine, mine.new_zeros(max(counts) - len(mine), *mine.shape[1:])])  # all must be as long
        shares: Any = self.fabric.all_gather(mine, sync_grads=True)
        return torch.cat([rows[:count] for rows, count in zip(shares, counts, strict=True)])


@dataclass
class Trainer:
    """Runs stages.

    Args:
        seed: Of everything random.
        fabric: The processes, from :func:`launch`; None for this one alone.
        folder: Where ``log/`` and ``checkpoints/`` go; None writes no files.
        logger: As in :class:`~omnibind_core.training.config.TrainConfig`.
        resume: Continue from the checkpoints in ``folder``.
        agreement: What a checkpoint must have been written with to be continued.
    """

    seed: int = 0
    fabric: Fabric | None = None
    folder: Path | None = None
    logger: str = "none"
    resume: bool = False
    agreement: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is None or not (self.fabric is None or self.fabric.is_global_zero):
            return
        old = self.folder / "checkpoints"
        clear(old)
        if not self.resume:
            if any(old.glob("*.ckpt")):
                numbered = (self.folder / f"earlier-{number}" for number in itertools.count(1))
                aside = next(folder for folder in numbered if not folder.exists())
                aside.mkdir()
                for name in ("log", "checkpoints"):
                    if (self.folder / name).exists():
                        (self.folder / name).rename(aside / name)
                told = "the checkpoints and logs in %s were put into %s; --resume would have continued them"
                _logger.info(told, self.folder, aside.name)
            shutil.rmtree(self.folder / "log", ignore_errors=True)

    def run(self, stage: Stage) -> None:
        """Trains a stage in place and leaves it in evaluation mode.

        Raises:
            ConfigError: The checkpoint is of another experiment, or the loss is no longer finite.
        """
        parameters = [parameter for group in stage.groups() for parameter in group["params"]]
        if stage.steps == 0 or not parameters:
            return
        settings = stage.settings
        fabric = self.fabric or launch(str(parameters[0].device.type))
        stage.fabric = fabric
        optimizer = torch.optim.AdamW(stage.groups(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
        module, optimizer = fabric.setup(stage, optimizer)
        first = fabric.is_global_zero
        checkpoints = Checkpoints(self.folder, stage.name, stage, optimizer, self.agreement, first)
        progress = checkpoints.restore() if self.resume else Progress()
        log = Log(self.folder if first else None, self.logger, stage.name, stage.steps, progress.step, not first)
        rates = {group.get("subject", ""): group for group in optimizer.param_groups}
        validate_every = max(1, stage.steps // 10) if settings.validate_every is None else settings.validate_every
        started = time.monotonic() - progress.seconds
        stage.train()
        with log:
            while progress.step < stage.steps and not progress.stopped:
                step = progress.step
                first_step, end = stage.span(step)
                rate = learning_rate(step - first_step, end - first_step, settings.warmup)
                subject = stage.subject(step)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * rate
                losses = self._step(fabric, module, optimizer, stage, step)
                progress.step += 1
                progress.seconds = time.monotonic() - started
                log.add(step, subject, losses, rates[subject]["lr"], progress.seconds)
                last = progress.step == stage.steps
                if validate_every and (progress.step % validate_every == 0 or last):
                    figures = self._validate(fabric, stage)
                    log.validated(progress.step, figures, progress.seconds)
                    checkpoints.judge(figures, progress, settings.patience)
                if last or progress.stopped or checkpoints.due(progress, settings.checkpoint_every):
                    log.flush()
                    checkpoints.save(progress)
        if settings.keep == "best":
            checkpoints.load_best()
        stage.fabric = None
        stage.eval()

    def _step(self, fabric: Fabric, module: Any, optimizer: Any, stage: Stage, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, zlib.crc32(stage.salt.encode()), step))
        seed = int(rng.integers(2**62)) + fabric.global_rank  # of dropout
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would note a stack trace each time
        if fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        optimizer.zero_grad(set_to_none=True)
        batches = stage.settings.accumulate
        for batch in range(batches):
            with fabric.no_backward_sync(module, enabled=batch < batches - 1):
                losses: dict[str, Tensor] = module(step, rng)
                fabric.backward(losses["loss"] / batches)
        fabric.clip_gradients(module, optimizer, max_norm=stage.settings.clip, error_if_nonfinite=False)
        optimizer.step()
        return losses

    def _validate(self, fabric: Fabric, stage: Stage) -> dict[str, float]:
        figures: dict[str, float] = {}
        if fabric.is_global_zero:
            stage.eval()
            with torch.no_grad():
                figures = stage.validate()
            stage.train()
        return fabric.broadcast(figures)


def launch(device: str = "auto", devices: int = 1, precision: str = "32-true") -> Fabric:
    """The processes that train: those that ``torchrun`` or ``fabric run`` started, else ``devices`` on this machine.

    Args:
        device: ``auto`` is CUDA where there is a device, else the CPU.
        devices: Processes; one GPU each.
        precision: Of encoders and fusion.

    Raises:
        ConfigError: There is no such device.
        MissingDependencyError: Lightning Fabric is not installed.
    """
    lightning = require("lightning_fabric", "Training")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but PyTorch sees no CUDA device")
    given: dict[str, Any] = {"accelerator": "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"}
    by_cli = "LT_CLI_USED" in os.environ  # fabric run says the rest
    if not by_cli:
        elastic = "TORCHELASTIC_RUN_ID" in os.environ
        given["devices"] = int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else devices
        given["num_nodes"] = int(os.environ["GROUP_WORLD_SIZE"]) if elastic else 1
    processes = int(os.environ.get("WORLD_SIZE", devices)) if by_cli else given["devices"] * given["num_nodes"]
    if processes > 1:
        # One student learns at a step; buffers are alike by construction.
        strategies = require("lightning_fabric.strategies", "Training")
        given["strategy"] = strategies.DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    try:
        fabric: Fabric = lightning.Fabric(precision=precision, **given)
        if not by_cli:
            fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"devices is {devices}, device '{device}', precision '{precision}': {error}") from error
    return fabric


def be_deterministic(seed: int) -> None:
    """Seeds torch and asks for the same numbers twice on one machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def leave() -> None:
    """Ends the work of several processes together; to be called by each when it is done.

    A process that goes while another still saves the model may be aborted by its open connections.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: a linear rise over ``warmup * steps``, then a linear fall to 0."""
    rise = max(1, round(warmup * steps))
    return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))
