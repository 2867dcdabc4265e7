"""The ``omnibind`` command. Each sub-command lives in its own module.

Those that concern ROS are in ``omnibind_ros.commands``, and are there where that package is installed, too.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import importlib
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omnibind_core import __version__
from omnibind_core.allocation import keep_large_blocks
from omnibind_core.errors import OmniBindError
from omnibind_core.labels import UNSEEN

COMMANDS: tuple[str, ...] = (
    "omnibind_core.commands.predict",
    "omnibind_core.commands.adapt",
    "omnibind_core.commands.train",
    "omnibind_core.commands.eval",
    "omnibind_core.commands.data",
    "omnibind_core.commands.weights",
    "omnibind_core.commands.export",
    "omnibind_ros.commands.bag",
    "omnibind_ros.commands.view",
    "omnibind_ros.commands.policy",
)


def parser() -> argparse.ArgumentParser:
    """The whole argument parser."""
    root = argparse.ArgumentParser(prog="omnibind", description="Recognise what any set of sensors shows.")
    root.add_argument("--version", action="version", version=f"omnibind {__version__}")
    root.add_argument("-v", "--verbose", action="store_true", help="log what is done, and show tracebacks")
    subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name).add_parser(subparsers)
    return root


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 wrong use or unusable input, 130 interrupted."""
    verbose = False
    # On a busy machine MKL would take fewer threads, which changes the last digits of every training run.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    try:
        _have_a_home()
        args = parser().parse_args(argv)  # asks the registered modalities for their options
        verbose = args.verbose
        if args.command != "train":  # that has the processor for itself; others share it, see omnibind_ros.node.threads
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            keep_large_blocks()
        logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", stream=sys.stderr)
        code: int = args.run(args)
    except OmniBindError as error:
        if verbose:
            raise
        text = str(error).translate({**UNSEEN, ord("\n"): "\n"})  # it quotes what stands in files
        print(f"omnibind: {text}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader of our output (head, less) is gone: not an error.
        code = 0
    except OSError as error:  # of what the user named, or of the cache
        if verbose:
            raise
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        told = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        print(f"omnibind: there is no room to write: {told}" if full else f"omnibind: {told}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _have_a_home() -> None:
    """Gives who has no home, such as a user id without a name, one that goes with this process.

    Some libraries cannot be imported without one.
    """
    try:
        Path.home()
    except RuntimeError:
        home = tempfile.mkdtemp(prefix="omnibind-home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        os.environ["HOME"] = home
        if not (os.environ.get("OMNIBIND_CACHE") or os.environ.get("XDG_CACHE_HOME")):
            told = "omnibind: this user has no home folder to cache in, so nothing is kept; OMNIBIND_CACHE may name one"
            print(told, file=sys.stderr)
