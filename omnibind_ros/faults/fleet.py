"""Publishers as processes that start fast: they are forked from one process that has imported everything."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np


class Fleet:
    """Starts and kills publishers; a context manager that leaves none behind.

    Args:
        environment: Environment of the processes; ``None``: this one's.
        command: Put before the command line, for example to enter another network namespace.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, command: tuple[str, ...] = ()) -> None:
        self._pids: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="omnibind_fleet_")
        self._log = Path(self._folder.name) / "sent"
        self._log.touch()
        self._parent = subprocess.Popen(
            [*command, sys.executable, "-m", "omnibind_ros.faults.fleet"],
            env=None if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> tuple[str, ...]:
        """Keys of the publishers that were started and not killed."""
        return tuple(self._pids)

    def start(self, key: str, **options: Any) -> int:
        """Starts a publisher.

        Args:
            key: Name for it; also the sensor, unless ``options`` name one.
            **options: Of :func:`omnibind_ros.faults.publisher.publish`; with ``hostile=True`` of
                :func:`omnibind_ros.faults.hostile.publish`.

        Returns:
            Its process id.
        """
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps({"sensor": key, "log": str(self._log), **options}) + "\n")
        self._parent.stdin.flush()
        self._pids[key] = int(self._parent.stdout.readline())
        return self._pids[key]

    def kill(self, key: str) -> int:
        """Kills a publisher with SIGKILL. Returns when, ns of Unix time."""
        pid = self._pids.pop(key)
        os.kill(pid, signal.SIGKILL)
        return time.time_ns()

    def pauses(self, begin_ns: int, end_ns: int) -> list[float]:
        """How long no publisher got a usable message out, from one message to the next.

        One may be alive and yet send nothing, since a middleware can halt it (docs/transport.md), or send to nobody,
        since its discovery was halted.

        Args:
            begin_ns: From when on, ns of Unix time; counts as a message.
            end_ns: Until when; counts as a message.

        Returns:
            The pauses, s, in order of time.
        """
        with self._log.open("rb") as file:  # not by NumPy: a publisher may be writing the last one
            data = file.read()
        sent = np.sort(np.frombuffer(data[: len(data) // 8 * 8], np.int64))
        inside = sent[(sent > begin_ns) & (sent < end_ns)]
        pauses: list[float] = (np.diff(np.concatenate(([begin_ns], inside, [end_ns]))) / 1e9).tolist()
        return pauses

    def close(self) -> None:
        """Kills all."""
        for key in self.running:
            with contextlib.suppress(ProcessLookupError):
                self.kill(key)
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait()
        self._folder.cleanup()


def main() -> int:
    """Forks a publisher for each line of JSON on standard input, and prints its process id."""
    import rclpy  # noqa: F401 - what the children need

    from omnibind_ros.faults import hostile, publisher

    for stream in hostile.TARGETS.values():
        publisher.message_class(stream.type)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(0)
            os.dup2(2, 1)
            options = json.loads(line)
            (hostile if options.pop("hostile", False) else publisher).publish(**options)
            os._exit(0)
        print(pid, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
