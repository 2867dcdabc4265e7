"""Several bags at once, on this machine or on a Dask cluster; results as if one by one."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from omnibind_core.errors import DataError, OmniBindError
from omnibind_core.optional import require
from omnibind_core.parallel import cores
from omnibind_ros.bags import read
from omnibind_ros.replay.evaluation import Evaluation, Options, Progress, evaluate

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The result of one bag.

    Attributes:
        path: The bag.
        evaluation: What was found out; ``None`` if it failed.
        error: Why; ``""`` if it did not.
    """

    path: Path
    evaluation: Evaluation | None = None
    error: str = ""


def find(paths: Iterable[Path]) -> list[Path]:
    """Bags that are named, and all that lie in named folders, in the order of their names there.

    Raises:
        DataError: A folder holds no bag, or a bag is named twice.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not read.is_bag(path):
            inside = sorted(one for one in path.iterdir() if read.is_bag(one))
            if not inside:
                raise DataError(f"{path} is no bag and holds none, expected a folder with metadata.yaml, or with bags")
            found += inside
        else:
            found.append(path)
    twice = {str(path) for path in found if found.count(path) > 1}
    if twice:
        raise DataError(f"named twice: {', '.join(sorted(twice))}")
    return found


def run(
    paths: Sequence[Path],
    options: Options,
    jobs: int = 1,
    scheduler: str = "",
    progress: Progress = lambda done: None,
) -> Iterator[tuple[int, Outcome]]:
    """Evaluates bags and gives each outcome, with its number, when it is there; a bag that fails stops no other.

    Args:
        paths: The bags.
        options: How.
        jobs: Processes on this machine.
        scheduler: Address of a Dask scheduler, whose workers are used instead; they must see the same files.
        progress: Called with the number of bags that are done; the one that is replayed here counts in parts.

    Raises:
        MissingDependencyError: The scheduler is asked for, and ``distributed`` is not installed.
        DataError: The scheduler cannot be reached.
    """
    if scheduler:
        yield from _counted(_on_cluster(paths, options, scheduler), progress)
    elif jobs > 1 and len(paths) > 1:
        yield from _counted(_in_processes(paths, options, jobs), progress)
    else:
        for number, path in enumerate(paths):
            yield number, evaluate_or_fail(path, options, partial(_in_parts, progress, number))


def _in_parts(progress: Progress, number: int, share: float) -> None:
    progress(number + share)


def _counted(outcomes: Iterable[tuple[int, Outcome]], progress: Progress) -> Iterator[tuple[int, Outcome]]:
    for count, one in enumerate(outcomes, 1):
        progress(count)
        yield one


def _in_processes(paths: Sequence[Path], options: Options, jobs: int) -> Iterator[tuple[int, Outcome]]:
    context = multiprocessing.get_context("spawn")  # not forked: torch's threads do not survive that
    jobs = min(jobs, len(paths))
    options = replace(options, threads=options.threads or max(cores() // jobs, 1))
    with ProcessPoolExecutor(jobs, context) as pool:
        futures: dict[Future[Outcome], int] = {
            pool.submit(evaluate_or_fail, path, options): number for number, path in enumerate(paths)
        }
        for future in as_completed(futures):
            yield futures[future], _outcome(future, paths[futures[future]])


def evaluate_or_fail(path: Path, options: Options, progress: Progress = lambda share: None) -> Outcome:
    """Evaluates one bag; an error is part of the outcome."""
    try:
        with errors_only():
            return Outcome(path, evaluate(path, options, progress))
    except OmniBindError as error:
        return Outcome(path, None, str(error))
    except Exception as error:
        _log.debug("%s could not be evaluated", path, exc_info=True)
        return Outcome(path, None, f"{path}: unexpected {type(error).__name__}: {error}")


def _outcome(future: Any, path: Path) -> Outcome:
    try:
        outcome: Outcome = future.result()
        return outcome
    except Exception as error:  # the process was ended, or its machine went away
        return Outcome(path, None, f"{path}: {type(error).__name__}: {error}")


def _on_cluster(paths: Sequence[Path], options: Options, scheduler: str) -> Iterator[tuple[int, Outcome]]:
    distributed = require("distributed", "Evaluation on a Dask cluster")
    try:
        client = distributed.Client(scheduler, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise DataError(f"no Dask scheduler answers at '{scheduler}': {error}") from error
    options = replace(options, threads=options.threads or 1)  # each of its workers may have several bags
    with client:
        futures = client.map(evaluate_or_fail, list(paths), options=options, pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        for future in distributed.as_completed(futures):
            yield numbers[future.key], _outcome(future, paths[numbers[future.key]])


@contextmanager
def errors_only() -> Iterator[None]:
    """Lets the engine log errors only: in a replay, sensors that come and go are what is measured."""
    logger = logging.getLogger("omnibind_core.runtime")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def progress_bar(text: str, total: float) -> Iterator[Any]:
    """A progress bar on the terminal's error stream; gives a function that is told what is done.

    Args:
        text: What is being done.
        total: What will be done in the end.
    """
    console = require("rich.console", "A progress bar").Console(stderr=True)
    rich = require("rich.progress", "A progress bar")
    columns = (rich.TextColumn(text), rich.BarColumn(), rich.TaskProgressColumn(), rich.TimeRemainingColumn())
    with rich.Progress(*columns, console=console, transient=True, refresh_per_second=4) as shown:
        task = shown.add_task(text, total=total)
        yield lambda done: shown.update(task, completed=done)
