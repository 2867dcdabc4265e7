"""ROS for commands that run until somebody interrupts them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from omnibind_core.optional import require


@contextlib.contextmanager
def session(purpose: str) -> Iterator[threading.Event]:
    """Initialises rclpy and shuts it down; gives what is set on SIGINT or SIGTERM, so that the body can end in order.

    Args:
        purpose: What ROS is needed for.

    Raises:
        MissingDependencyError: rclpy is not installed.
    """
    rclpy = require("rclpy", purpose)
    require("rclpy.signals", purpose)
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    try:
        yield stop
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
