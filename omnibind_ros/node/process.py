"""A node as a process: from its signals to its exit status. Imports next to nothing, so that signals are heard early:
what takes longer is imported where it is needed.
"""

from __future__ import annotations

import omnibind_ros.node.threads  # noqa: F401 - first, before threads are started

# isort: split
import _thread
import contextlib
import itertools
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from omnibind_ros.node.lifecycle import PerceptionNode

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WAITING = ("wait_for_ready_callbacks", "_wait_for_ready_callbacks")  # of rclpy's executors
_DEADLINE = 2.0  # s from the first signal to the end, whatever the process is doing


class _Ending:
    """What SIGINT and SIGTERM do: the first ends the process, in order if it can be, and by force after two seconds.

    Later ones, as ``ros2 launch`` sends them when Ctrl-C has reached the node already, change nothing.

    Attributes:
        tidy: Whether there is anything to clean up, so that the end has to be in order.
        begun: Whether a signal has ended what the main thread was doing.
        past: Whether there is nothing left that a signal has to end: the main thread cleans up.
        watch: The thread that hears the signals at once: Python's handlers wait until the main thread is back from C.
    """

    def __init__(self) -> None:
        self.tidy = self.begun = self.past = False
        receiver, sender = os.pipe()
        os.set_blocking(sender, False)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        self.watch = threading.Thread(target=self._watch, args=(receiver,), name="omnibind-ending", daemon=True)
        self.watch.start()
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        self._held = threading.local()
        os.register_at_fork(before=self._hold, after_in_parent=self._go_on, after_in_child=self._leave)

    def _hold(self) -> None:
        """Before a library forks: signals wait."""
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def _go_on(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def _leave(self) -> None:
        """In the child: signals end it, and are not heard by the node through the pipe that both have."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._go_on()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.begun or self.past or not self.tidy or _deaf(frame):
            return
        self.begun = True
        raise KeyboardInterrupt

    def _watch(self, receiver: int) -> None:
        while os.read(receiver, 1)[0] not in _SIGNALS:
            pass
        if not self.tidy:
            os._exit(0)
        deadline = time.monotonic() + _DEADLINE
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if not self.begun:
                _thread.interrupt_main()
        os.write(2, f"omnibind: not done {_DEADLINE:g} s after a signal to end: ended without cleaning up\n".encode())
        os._exit(0)


def _deaf(frame: FrameType | None) -> bool:
    """Whether an exception would not end what is being done: Python prints and drops those of a ``__del__`` or
    around a fork, and extensions as PyTorch answer one while they are imported by SIGABRT.
    """
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_hold", "_go_on") or frame.f_code.co_filename.startswith(
            "<frozen importlib"
        ):
            return True
        frame = frame.f_back
    return False


_ending: _Ending | None = None


def _take_signals() -> _Ending:
    global _ending  # as the signal handlers are: one a process
    if _ending is None:
        _ending = _Ending()
    return _ending


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """From here on SIGINT and SIGTERM end the process within two seconds, with status 0."""
    try:
        _take_signals()
        yield
    except KeyboardInterrupt:
        end(0)


def end(status: int) -> NoReturn:
    """Ends the process with this status, once what there was is cleaned up.

    The interpreter is not taken apart after a signal, nor while a thread is at work: a thread that comes back from
    PyTorch would be unwound then, which C++ answers by SIGABRT, and a second signal would kill.
    """
    idle = {threading.main_thread(), _ending.watch if _ending is not None else None}
    if (_ending is None or not _ending.begun) and all(thread in idle for thread in threading.enumerate()):
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # while the interpreter is taken apart they would kill
        sys.exit(status)
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def run(make: Callable[[], PerceptionNode]) -> int:
    """Runs a node until SIGINT or SIGTERM, whenever they come. Returns the exit status: 1 if it could not start."""
    ending = _take_signals()
    ending.tidy = True
    try:
        try:
            return _run(make, ending)
        finally:
            ending.past = True
            _clean_up()
    except KeyboardInterrupt:  # on the way out, before that was known: the only one
        _clean_up()
        return 0


def _run(make: Callable[[], PerceptionNode], ending: _Ending) -> int:
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from omnibind_ros.graph.transport import avoid_shared_memory, buffer_warning, share_folder

    try:
        transport = avoid_shared_memory(
            os.environ, rclpy.get_rmw_implementation_identifier(), share_folder() / "config"
        )
        log = rclpy.logging.get_logger("omnibind")
        problem = _file_problem(sys.argv)
        if problem is not None:
            log.fatal(problem)
            return 1
        try:
            rclpy.init()  # its own handling of the signals, which wakes the executor and shuts down, is added to ours
        except RuntimeError as error:  # of the arguments, or of the middleware
            log.fatal(_in_words(error))
            return 1
        log.info(f"transport: {transport.words}")
        warning = buffer_warning() if transport.udp else None
        if warning:
            log.warning(warning)
        return _spin(make)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except Exception:
        if rclpy.ok() and not ending.begun:
            raise
        return 0  # a signal has shut the context down under what was being done


def _clean_up() -> None:
    import rclpy

    context = rclpy.get_default_context()
    rclpy.try_shutdown()
    context._logging_fini()  # left out where a signal has shut the context down; it writes the log file out


def _files(arguments: Sequence[str]) -> list[str]:
    """The parameter files among the arguments of a process."""
    return [path for option, path in itertools.pairwise(arguments) if option == "--params-file"]


def _file_problem(arguments: Sequence[str]) -> str | None:
    """What is wrong with the parameter files among the arguments; ``None`` if they can be read."""
    for path in _files(arguments):
        try:
            _content(path)
        except (OSError, UnicodeDecodeError) as error:
            return f"parameter file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        except ValueError as error:
            return f"parameter file {path} is no YAML: {error}"
    return None


def _content(path: str) -> list[Any]:
    """The documents of a parameter file in mappings and lists: what its values are is for rcl to say, which reads the
    lists of ``ros2 launch``, as ``!!python/tuple``, and texts that look like dates.
    """
    from omnibind_core.config import forms_of_yaml

    return forms_of_yaml(Path(path).read_text(encoding="utf-8"))


def unused_file(path: str, node: str) -> str | None:
    """Says that a parameter file has nothing for a node, which then runs on defaults; ``None`` if it has.

    Args:
        path: The file, which can be read.
        node: Full name of the node.
    """
    waiting: list[tuple[str, Any]] = [("", document) for document in _content(path)]
    names = []
    while waiting:
        name, content = waiting.pop()
        if isinstance(content, dict) and "ros__parameters" in content:
            names.append(name)
        elif isinstance(content, dict):
            waiting += [(f"{name}/{str(key).strip('/')}", value) for key, value in content.items()]
    for name in names:  # ** stands for any number of words, * for one
        pattern = re.escape(name).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
        if re.fullmatch(pattern, node):
            return None
    found = ", ".join(sorted(names)) or "no node"
    return f"parameter file {path} has parameters of {found}, none for {node}: it runs without them"


def _without_places(error: Exception) -> str:
    """An error's text in one line, without the source files of ROS."""
    return re.sub(r", at /\S+?:\d+", "", " ".join(str(error).split()))


def _in_words(error: Exception) -> str:
    """What ROS says of arguments that it cannot use, without its own source files."""
    text = _without_places(error)
    text = re.sub(r"Error: (error not set|No value\b.*)", r"\g<0>, expected one behind every name, [] for none", text)
    namespace = next((given.partition("__ns:=")[2] for given in reversed(sys.argv) if "__ns:=" in given), "")
    if "node namespace" in text:
        from omnibind_ros.node.parameters import good_name

        text = f"'-r __ns:={namespace}', expected names of letters, digits and _, with no digit first and / between"
        text += f"; '/{good_name(namespace).strip('/')}' would do"
    names = ", expected names of letters, digits and _, with no digit first"
    return "cannot start: " + re.sub(r"\. Error: Expect(ed lexeme|ing token).*", names, text)


def _spin(make: Callable[[], PerceptionNode]) -> int:
    """Makes, starts and spins a node.

    The executor is rclpy's plain one: callbacks only buffer messages, and the events executor of Jazzy does not end
    its spinning when the context is shut down by a signal.
    """
    import rclpy
    from rclpy.exceptions import NameValidationException, ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from omnibind_core.errors import OmniBindError

    with contextlib.ExitStack() as ending:
        try:
            node = make()
        except OmniBindError as error:
            rclpy.logging.get_logger("omnibind").fatal(str(error))
            return 1
        # Of parameters and names that are rclpy's; of what rcl or the middleware finds only when a node is made.
        except (ParameterException, NameValidationException, rclpy_implementation.RCLError) as error:
            if not rclpy.ok():  # a signal has shut the context down
                raise
            rclpy.logging.get_logger("omnibind").fatal(_in_words(error))
            return 1
        ending.callback(node.destroy_node)
        for path in _files(sys.argv):
            sentence = unused_file(path, node.get_fully_qualified_name())
            if sentence is not None:
                node.get_logger().warning(sentence)
        executor = SingleThreadedExecutor()
        ending.callback(executor.shutdown)
        executor.add_node(node)
        ending.callback(node.stop)
        ending.enter_context(_logged_by(node))
        if node.parameters["autostart"] and not node.start():
            return 1
        _spin_on(executor.spin, node.get_logger())
    return 0


def _spin_on(spin: Callable[[], None], log: Any) -> None:
    """Spins on after a callback has raised: rclpy's own services do so for requests that no client of theirs sends.

    Whoever may call them could end the node by one message. What was raised is told once for each place that it comes
    from, with its traceback where our code is on the way there; the one who asked gets no answer. What the waiting
    itself raises ends the node, as does anything after the context was shut down.

    Args:
        spin: Spins until the context is shut down; an exception of a callback comes out of it.
        log: Logger of the node.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException

    told: set[tuple[str, str, int | None]] = set()
    while True:
        try:
            return spin()
        except ExternalShutdownException:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            if not rclpy.ok() or frames[-1].name in _WAITING:  # shut down; or no callback's fault, and for ever
                raise
            place = type(error).__name__, frames[-1].filename, frames[-1].lineno
            if place in told:
                continue
            told.add(place)
            log.error(f"a callback failed, the node goes on: {place[0]}: {_without_places(error)}")
            if any("omnibind_" in frame.filename for frame in frames[1:]):  # the first is this one
                log.error("its traceback: " + traceback.format_exc())


@contextlib.contextmanager
def _logged_by(node: PerceptionNode) -> Iterator[None]:
    """Sends what the ROS-free parts log to the node's logger."""
    import logging

    to_ros = node.get_logger()

    class ToRos(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = self.format(record)
            # rclpy ties a line of code to one severity, hence one line each.
            if record.levelno >= logging.ERROR:
                to_ros.error(text)
            elif record.levelno >= logging.WARNING:
                to_ros.warning(text)
            elif record.levelno >= logging.INFO:
                to_ros.info(text)
            else:
                to_ros.debug(text)

    handler = ToRos()
    logger = logging.getLogger("omnibind_core")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
