"""What training tells: a CSV row and a TensorBoard point of every step, a progress bar or lines in a log."""

from __future__ import annotations

import csv
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnibind_core.errors import ConfigError
from omnibind_core.optional import require

_logger = logging.getLogger(__name__)
_FLUSH = 100  # steps between two writes; asking for the numbers makes a GPU wait


class Log:
    """Log of one stage: ``log/NAME.csv``, ``log/NAME_validation.csv`` and ``log/tensorboard/``.

    Args:
        folder: Parent of ``log/``; None writes no files.
        logger: ``csv``, ``tensorboard``, ``both`` or ``none``.
        name: Of the stage.
        steps: Steps in all.
        done: Steps done before; rows of later ones are written again.
        quiet: Neither bar nor lines.
    """

    def __init__(
        self, folder: Path | None, logger: str, name: str, steps: int, done: int = 0, quiet: bool = False
    ) -> None:
        self._name, self._steps = name, steps
        self._quiet = quiet
        self._pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._latest: dict[str, float] = {}
        self._tables: dict[str, Table] = {}
        self._board: Any = None
        self._bar: Any = None
        if folder is not None and logger in ("csv", "both"):
            log = folder / "log"
            self._tables = {"": Table(log / f"{name}.csv", done), "val": Table(log / f"{name}_validation.csv", done)}
        if folder is not None and logger in ("tensorboard", "both"):
            boards = require("lightning_fabric.loggers", "Training")
            require("tensorboardX", "logger: tensorboard")
            self._board = boards.TensorBoardLogger(folder / "log", "tensorboard", "", purge_step=done)
        if not quiet and sys.stderr.isatty():
            self._bar = _bar(name, steps, done)

    def __enter__(self) -> Log:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: object, trace: object) -> None:
        if error_type is None:
            self.flush()
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.finalize("success")

    def add(self, step: int, subject: str, losses: Mapping[str, Tensor], lr: float, seconds: float) -> None:
        """Notes the losses of one step, numbered from 0."""
        row = {"step": step + 1, "stage": self._name, "student": subject, "lr": lr, "seconds": round(seconds, 3)}
        self._pending.append((row, {key: value.detach() for key, value in losses.items()}))
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step + 1)
        twentieth = (step + 1) % max(1, self._steps // 20) == 0
        if twentieth or len(self._pending) >= _FLUSH:
            self.flush()
        if twentieth and not self._quiet:
            self._tell(step + 1, seconds)

    def validated(self, step: int, figures: Mapping[str, float], seconds: float) -> None:
        """Notes figures on the validation split."""
        if not figures:
            return
        if "val" in self._tables:
            rounded = {name: round(value, 4) for name, value in figures.items()}
            self._tables["val"].write([{"step": step, "stage": self._name, "seconds": round(seconds, 3), **rounded}])
        if self._board is not None:
            tags = {key: f"{self._name}/validation/{key.replace(' ', '_')}" for key in figures}  # it warns of spaces
            self._board.log_metrics({tags[key]: value for key, value in figures.items()}, step)
        if not self._quiet:
            told = ", ".join(f"{name} {value:.1%}" for name, value in figures.items())
            _logger.log(logging.DEBUG if self._bar else logging.INFO, "%s validation: %s", self._name, told)

    def flush(self) -> None:
        """Writes what was noted.

        Raises:
            ConfigError: A loss is not finite.
        """
        if not self._pending:
            return
        numbers = torch.stack([value for _, losses in self._pending for value in losses.values()]).tolist()
        rows = []
        for row, losses in self._pending:
            values, numbers = dict(zip(losses, numbers, strict=False)), numbers[len(losses) :]
            rows.append({**row, **values})
            self._latest[row["student"]] = values["loss"]
        self._pending.clear()
        if "" in self._tables:
            self._tables[""].write(rows)
        if self._board is not None:
            for row in rows[-len(self._latest) :]:
                told = {key: value for key, value in row.items() if key not in ("step", "stage", "student", "seconds")}
                where = "/".join(part for part in (self._name, row["student"]) if part)
                self._board.log_metrics({f"{where}/{key}": value for key, value in told.items()}, row["step"])
        broken = next((row for row in rows if not math.isfinite(row["loss"])), None)
        if broken is not None:
            raise ConfigError(
                f"{self._name}: the loss is {broken['loss']} at step {broken['step']}; expected a finite number. Try a "
                f"smaller {self._name}.lr, now {broken['lr']:g} there"
            )

    def _tell(self, step: int, seconds: float) -> None:
        told = ", ".join(f"{name} {value:.3f}".strip() for name, value in sorted(self._latest.items()))
        left = seconds / step * (self._steps - step)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], told=told)
        else:
            _logger.info("%s %3d %%, %.0f s left: loss %s", self._name, 100 * step // self._steps, left, told)


class Table:
    """A CSV file that grows by rows.

    Args:
        path: The file.
        done: Rows of later steps than this are dropped.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        self._columns: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self._read() if int(row["step"]) <= done]
        path.unlink(missing_ok=True)
        self.write(kept)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows; a new column writes the file anew."""
        columns = list(dict.fromkeys([*self._columns, *(key for row in rows for key in row)]))
        if not rows:
            return
        fresh = columns != self._columns
        if fresh:
            rows, self._columns = [*self._read(), *rows], columns
        with self._path.open("w" if fresh else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            if fresh:
                writer.writeheader()
            writer.writerows(rows)

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [{**row} for row in csv.DictReader(line for line in file if "\0" not in line)]
        whole = [row for row in rows if None not in (*row, *row.values()) and str(row.get("step", "")).isdecimal()]
        if not whole or len(whole) < len(rows):  # after a power failure the end of a file may be zeros
            told = "%s: %d rows are whole, others are not and are left out; expected rows that begin with a step"
            _logger.warning(told, self._path, len(whole))
        return whole


def _bar(name: str, steps: int, done: int) -> Any:
    console = require("rich.console", "A progress bar").Console(stderr=True)
    rich = require("rich.progress", "A progress bar")
    bar = rich.Progress(
        rich.TextColumn(name),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[told]}"),
        console=console,
        refresh_per_second=2,
    )
    bar.add_task(name, total=steps, completed=done, told="")
    return bar
