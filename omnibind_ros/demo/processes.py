"""The demo's child processes: the fusion node and one player per sensor."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

_PATIENCE = 5.0  # s between asking a process to end and killing it


class Processes:
    """Starts, kills and ends child processes by name; a context manager that leaves none behind.

    Args:
        log_folder: Where each writes its output, ``<name>.log``.
    """

    def __init__(self, log_folder: Path) -> None:
        self._logs = log_folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Processes:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Runs ``python -m module arguments``. It gets no Ctrl-C of its own: the demo ends it."""
        log = (self._logs / f"{name}.log").open("ab")
        self._files.append(log)
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self, name: str) -> None:
        """Kills it at once (SIGKILL): it cannot say goodbye, as when its cable is cut."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def ended(self) -> Mapping[str, int]:
        """Exit statuses of those that ended by themselves."""
        return {name: code for name, process in self._running.items() if (code := process.poll()) is not None}

    def last_words(self, name: str, lines: int = 15) -> str:
        """The end of its output."""
        log = self._logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else ""

    def close(self) -> None:
        """Ends all: SIGINT, and SIGKILL for those that do not listen. A second Ctrl-C does not break it off."""
        with _uninterrupted():
            self._close()

    def _close(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        for process in self._running.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        for file in self._files:
            file.close()
        self._files.clear()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
