"""A node as a process: from its signals to its exit status."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from omnibind_core.errors import OmniBindError
from omnibind_ros.graph.transport import avoid_shared_memory, buffer_warning, share_folder
from omnibind_ros.node.lifecycle import PerceptionNode


def run(make: Callable[[], PerceptionNode]) -> int:
    """Runs a node until SIGINT or SIGTERM, whenever they come. Returns the exit status: 1 if it could not start."""
    # As SIGINT does; rclpy's own handling, which wakes the executor and shuts the context down, comes on top.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        transport = avoid_shared_memory(
            os.environ, rclpy.get_rmw_implementation_identifier(), share_folder() / "config"
        )
        rclpy.init()
        log = rclpy.logging.get_logger("omnibind")
        log.info(f"transport: {transport.words}")
        warning = buffer_warning() if transport.udp else None
        if warning:
            log.warning(warning)
        try:
            return _spin(make)
        except Exception:
            if rclpy.ok():
                raise
            return 0  # a signal has shut the context down under what was being done
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        rclpy.try_shutdown()


def _spin(make: Callable[[], PerceptionNode]) -> int:
    """Makes, starts and spins a node.

    The executor is rclpy's plain one: callbacks only buffer messages, and the events executor of Jazzy does not end
    its spinning when the context is shut down by a signal.
    """
    with ExitStack() as ending:
        try:
            node = make()
        except OmniBindError as error:
            rclpy.logging.get_logger("omnibind").fatal(str(error))
            return 1
        ending.callback(node.destroy_node)
        executor = SingleThreadedExecutor()
        ending.callback(executor.shutdown)
        executor.add_node(node)
        ending.callback(node.stop)
        ending.enter_context(_logged_by(node))
        if node.parameters["autostart"] and not node.start():
            return 1
        executor.spin()
    return 0


@contextmanager
def _logged_by(node: PerceptionNode) -> Iterator[None]:
    """Sends what the ROS-free parts log to the node's logger."""
    handler = _ToRos(node)
    logger = logging.getLogger("omnibind_core")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _ToRos(logging.Handler):
    def __init__(self, node: PerceptionNode) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy ties a line of code to one severity, hence one line each.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
