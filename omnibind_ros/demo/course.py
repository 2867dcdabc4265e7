"""The course of a demo: the node starts, players play a recording, some are killed and started again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from omnibind_core.errors import OmniBindError
from omnibind_ros.demo.monitor import Console, Monitor
from omnibind_ros.demo.processes import Processes
from omnibind_ros.demo.schedule import Outage

NODE = "fusion_node"
"""Name of the node."""
NODE_MODULE, PLAYER_MODULE = "omnibind_ros.node.fusion_node", "omnibind_ros.demo.player"
# s that the node may take to load its model, and that the players get to start before the recording begins.
_MODEL_PATIENCE, _PLAYER_START = 120.0, 6.0
_Monitor = TypeVar("_Monitor", bound=Monitor)


class DemoError(OmniBindError, RuntimeError):
    """The demo cannot go on."""


class Course:
    """What runs; see :func:`running`.

    Args:
        executor: Spins who listens.
        monitor: Who listens.
        processes: The node and the players.
        console: Where it is told.
    """

    def __init__(self, executor: Any, monitor: Monitor, processes: Processes, console: Console) -> None:
        self._executor = executor
        self._monitor = monitor
        self._processes = processes
        self._console = console

    def wait_for_model(self) -> None:
        """Waits until the node has loaded its model.

        Raises:
            DemoError: It takes too long, or the node ended.
        """
        deadline = time.monotonic() + _MODEL_PATIENCE
        self._console.line("starting the fusion node ...")
        while not self._monitor.labels:
            self._executor.spin_once(timeout_sec=0.2)
            self._check()
            if time.monotonic() > deadline:
                words = self._processes.last_words(NODE)
                raise DemoError(f"the fusion node was not ready after {_MODEL_PATIENCE:.0f} s\n{words}")
        self._console.line(f"model {self._monitor.model}, {len(self._monitor.labels)} labels")

    def play(
        self,
        recording: Path,
        topics: Mapping[str, Sequence[str]],
        outages: Sequence[Outage],
        end_s: float,
        each: Callable[[Collection[str]], None],
    ) -> list[Outage]:
        """Plays a recording to its end, killing and restarting players on the way.

        Args:
            recording: The bag.
            topics: By sensor, what its player plays.
            outages: What is killed and started again.
            end_s: Where it ends.
            each: Called now and then, with the sensors whose players are dead.

        Returns:
            The outages as they were.

        Raises:
            DemoError: The node or a player ended.
        """
        start_at = time.time() + _PLAYER_START

        def start(name: str) -> None:
            asked = [part for topic in topics[name] for part in ("--topic", topic)]
            self._processes.start(name, PLAYER_MODULE, str(recording), *asked, "--start-at", repr(start_at))

        for name in topics:
            start(name)
        self._monitor.begin(start_at)
        self._console.line()
        self._console.heading()
        to_do = sorted(
            [(outage.kill_s, "kill", outage.sensor) for outage in outages]
            + [(outage.restart_s, "restart", outage.sensor) for outage in outages]
        )
        done: dict[tuple[str, str], float] = {}
        dead: set[str] = set()
        while (now := time.time() - start_at) < end_s:
            while to_do and to_do[0][0] <= now:
                _, what, name = to_do.pop(0)
                if what == "kill":
                    self._processes.kill(name)
                    dead.add(name)
                else:
                    start(name)
                    dead.discard(name)
                done[what, name] = time.time() - start_at
                others = ", ".join(sorted(dead - {name}))
                text = f"publisher of {name} {'killed (SIGKILL)' if what == 'kill' else 'started again'}"
                self._console.event(now, text + (f"; {others} dead too" if others else ""))
            self._executor.spin_once(timeout_sec=0.05)
            each(dead)
            self._check()
        return [
            Outage(
                outage.sensor,
                done.get(("kill", outage.sensor), math.nan),
                done.get(("restart", outage.sensor), math.nan),
            )
            for outage in outages
        ]

    def _check(self) -> None:
        ended = self._processes.ended()
        if NODE in ended:
            raise DemoError(f"the fusion node ended with status {ended[NODE]}\n{self._processes.last_words(NODE)}")
        for name, code in ended.items():
            if code:
                words = self._processes.last_words(name)
                raise DemoError(f"the player of {name} ended with status {code}\n{words}")


@contextmanager
def running(out: Path, console: Console, monitor: Callable[[Any], _Monitor]) -> Iterator[tuple[Course, _Monitor]]:
    """Starts the node with ``parameters.yaml`` of a folder, and who listens; in the end all is ended.

    Args:
        out: The folder; what is said goes into ``log`` there.
        console: Where it is told.
        monitor: Makes who listens, of a node.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C is ours: the children must be ended
    try:
        with Processes(out / "log") as processes:
            node = rclpy.create_node("demo_monitor")
            listening = monitor(node)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            processes.start(NODE, NODE_MODULE, "--ros-args", "--params-file", str(out / "parameters.yaml"))
            yield Course(executor, listening, processes, console), listening
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
