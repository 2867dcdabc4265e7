"""Publishers as processes that start fast: they are forked from one process that has imported everything."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class Fleet:
    """Starts and kills publishers; a context manager that leaves none behind.

    Args:
        environment: Environment of the processes; ``None``: this one's.
        command: Put before the command line, for example to enter another network namespace.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, command: tuple[str, ...] = ()) -> None:
        self._pids: dict[str, int] = {}
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
            **options: Of :func:`omnibind_ros.faults.publisher.publish`.

        Returns:
            Its process id.
        """
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps({"sensor": key, **options}) + "\n")
        self._parent.stdin.flush()
        self._pids[key] = int(self._parent.stdout.readline())
        return self._pids[key]

    def kill(self, key: str) -> int:
        """Kills a publisher with SIGKILL. Returns when, ns of Unix time."""
        pid = self._pids.pop(key)
        os.kill(pid, signal.SIGKILL)
        return time.time_ns()

    def close(self) -> None:
        """Kills all."""
        for key in self.running:
            with contextlib.suppress(ProcessLookupError):
                self.kill(key)
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait()


def main() -> int:
    """Forks a publisher for each line of JSON on standard input, and prints its process id."""
    import rclpy  # noqa: F401 - what the children need

    from omnibind_ros.faults import publisher

    for stream in publisher.STREAMS.values():
        publisher.message_class(stream.type)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(0)
            os.dup2(2, 1)
            publisher.publish(**json.loads(line))
            os._exit(0)
        print(pid, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
