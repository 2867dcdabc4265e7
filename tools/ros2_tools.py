#!/usr/bin/env python3
"""Drives the node with the `ros2` commands that are installed, as a user of a robot does, and says what it skipped.

`python tools/ros2_tools.py` starts the launch file in a ROS domain where nobody else is, walks through the life cycle,
reads and sets parameters, publishes pictures by `ros2 topic pub` and looks at what comes out. The exit status is 1 if a
step failed, and 0 otherwise, also where nothing could be run because no `ros2` is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGES = {
    "launch": "ros2launch",
    "run": "ros2run",
    "lifecycle": "ros2lifecycle",
    "param": "ros2param",
    "topic": "ros2topic",
    "node": "ros2node",
    "service": "ros2service",
    "interface": "ros2interface",
    "bag": "ros2bag",
}
"""Package that brings each sub-command."""
NODE = "/fusion_node"
CAMERA = "/camera/image_raw"
PREDICTION = "/omnibind/prediction"
PARAMETERS = f"""/**:
  ros__parameters:
    sensors: [camera]
    camera: {{topic: {CAMERA}}}
"""
PICTURE = f"{{height: 16, width: 16, encoding: rgb8, step: 48, data: {[n * 37 % 256 for n in range(768)]}}}"
CLAIM = 7410  # UDP port of the first process in domain 0, by the DDS specification
EACH = 250  # ports of a domain
PATIENCE = 60.0  # s for a command
START = 180.0  # s until the node answers: imports and the model
END = 20.0  # s until all is closed after Ctrl-C


class Step(NamedTuple):
    """A command and what it has to say.

    Attributes:
        verb: Sub-command of ``ros2``.
        arguments: What follows it.
        expected: A word of the output.
        wrong: Whether the request is wrong and has to be refused.
    """

    verb: str
    arguments: Sequence[str]
    expected: str
    wrong: bool = False


def life_cycle() -> Iterator[Step]:
    """What nav2's lifecycle manager asks for, by the numbers of the transitions, and one that is out of place."""
    yield Step("lifecycle", ["get", NODE], "unconfigured")
    yield Step("lifecycle", ["set", NODE, "4"], "Unknown transition", wrong=True)
    for number, state in (("1", "inactive"), ("3", "active"), ("4", "inactive"), ("2", "unconfigured")):
        yield Step("lifecycle", ["set", NODE, number], "Transitioning successful")
        yield Step("lifecycle", ["get", NODE], state)
    yield Step("lifecycle", ["set", NODE, "configure"], "Transitioning successful")
    yield Step("lifecycle", ["set", NODE, "activate"], "Transitioning successful")


def looks() -> Iterator[Step]:
    """What is done with a node that is active and sees pictures."""
    yield Step("node", ["info", NODE], PREDICTION)
    yield Step("interface", ["show", "omnibind_ros/msg/Prediction"], "float32 confidence")
    yield Step("topic", ["list", "-t"], f"{PREDICTION} [omnibind_ros/msg/Prediction]")
    yield Step("topic", ["info", "--verbose", PREDICTION], "Node name: fusion_node")
    yield Step("topic", ["echo", "--once", f"{NODE}/status"], "camera")
    yield Step("topic", ["echo", "--once", PREDICTION], "confidence")
    yield Step("param", ["list", NODE], "camera.topic")
    yield Step("param", ["get", NODE, "rate"], "5.0")
    yield Step("param", ["set", NODE, "rate", "4.0"], "Set parameter successful")
    yield Step("param", ["get", NODE, "rate"], "4.0")
    yield Step("param", ["set", NODE, "rate", "-1.0"], "Setting parameter failed", wrong=True)
    yield Step("param", ["set", NODE, "labels", "[cup, dog]"], "Set parameter successful")
    yield Step("param", ["get", NODE, "labels"], "'cup', 'dog'")
    yield Step("service", ["list"], f"{NODE}/change_state")
    yield Step("topic", ["echo", "--once", PREDICTION], "confidence")


def after() -> Iterator[Step]:
    """The end of the manager's sequence."""
    yield Step("lifecycle", ["set", NODE, "deactivate"], "Transitioning successful")
    yield Step("lifecycle", ["set", NODE, "cleanup"], "Transitioning successful")
    yield Step("lifecycle", ["set", NODE, "shutdown"], "Transitioning successful")


def free_domain() -> int:
    """A ROS domain in which no process of this machine is."""
    domains = list(range(1, 101))
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind(("", CLAIM + EACH * domain))
            return domain
    raise SystemExit("every ROS domain from 1 to 100 is in use; name one: --domain N")


class Tools:
    """Runs steps and collects what became of them.

    Args:
        environment: For all commands.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.rows: list[tuple[str, str, str]] = []
        self.missing = {verb: reason for verb in PACKAGES if (reason := self._missing(verb))}

    def _missing(self, verb: str) -> str:
        done = self.call(verb, "--help")
        if done.returncode == 0:
            return ""
        if "invalid choice" in done.stderr or "unrecognized" in done.stderr:
            return f"not installed: apt install ros-$ROS_DISTRO-{PACKAGES[verb]}"
        return f"does not run here: {last_line(done.stderr)}"

    def call(self, *arguments: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """A command of ``ros2``; status 124 if it does not end in time."""
        command = ["ros2", *arguments]
        with subprocess.Popen(
            command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, errors = process.communicate()
                return subprocess.CompletedProcess(command, 124, output, f"{errors}\nno end after {patience:.0f} s")
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def note(self, outcome: str, what: str, said: str = "") -> None:
        """Adds a row, and shows it."""
        self.rows.append((outcome, what, said))
        print(f"{outcome:8} {what:58} {said}"[:160].rstrip(), flush=True)

    def run(self, steps: Iterator[Step]) -> None:
        """Runs steps one after the other; those whose command is missing are skipped."""
        for step in steps:
            what = " ".join(["ros2", step.verb, *step.arguments])
            if step.verb in self.missing:
                self.note("skipped", what, f"ros2 {step.verb} {self.missing[step.verb]}")
                continue
            done = self.call(step.verb, *step.arguments)
            said = f"{done.stdout}\n{done.stderr}"
            good = step.expected in said and (step.wrong or done.returncode == 0)
            line = next((line for line in said.splitlines() if step.expected in line), "") if good else last_line(said)
            self.note("passed" if good else "FAILED", what, " ".join(line.split()))

    def until(self, ready: Callable[[], bool], patience: float) -> bool:
        """Whether something becomes true in time."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if ready():
                return True
            time.sleep(0.5)
        return False

    @contextlib.contextmanager
    def started(self, *arguments: str, ends: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs until Ctrl-C, in a session of its own; its output goes nowhere.

        Args:
            arguments: Of ``ros2``.
            ends: Whether it counts that it ends by itself then.
        """
        sink = subprocess.DEVNULL
        process = subprocess.Popen(
            ["ros2", *arguments], env=self._environment, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            yield process
        finally:
            begin = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END)
            if ends:
                good = process.returncode in (0, 130, -signal.SIGINT)
                said = f"status {process.returncode} after {time.monotonic() - begin:.1f} s"
                self.note("passed" if good else "FAILED", f"Ctrl-C for ros2 {' '.join(arguments[:3])}", said)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing was said"


def check(tools: Tools, folder: Path) -> None:
    """All steps, around one launch."""
    for missing, reason in tools.missing.items():
        tools.note("skipped", f"ros2 {missing}", reason)
    file = folder / "robot.yaml"
    file.write_text(PARAMETERS)
    if "launch" not in tools.missing:
        arguments = ["launch", "omnibind_ros", "perception.launch.py", "autostart:=false", f"params_file:={file}"]
        arguments += ["labels:=cup,dog"]  # launch_ros writes them into a file of its own
    elif "run" not in tools.missing:
        arguments = ["run", "omnibind_ros", "fusion_node", "--ros-args", "--params-file", str(file)]
        arguments += ["-p", "autostart:=false"]
    else:
        tools.note("skipped", "all that needs the node", "neither ros2 launch nor ros2 run is installed")
        return
    with tools.started(*arguments) as node:
        looking = "node" if "node" not in tools.missing else "lifecycle"
        verb = ["node", "list"] if looking == "node" else ["lifecycle", "nodes"]

        def there() -> bool:
            return node.poll() is not None or NODE in tools.call(*verb).stdout

        if looking in tools.missing:
            time.sleep(START / 10)
        elif not tools.until(there, START) or node.poll() is not None:
            said = f"it ended with status {node.returncode}" if node.poll() is not None else "the node never appeared"
            tools.note("FAILED", f"ros2 {' '.join(arguments[:3])}", said)
            return
        tools.note("passed", f"ros2 {' '.join(arguments[:3])}", "the node is there")
        tools.run(life_cycle())
        if "topic" in tools.missing:
            tools.run(looks())
        else:
            with tools.started("topic", "pub", "-r", "5", CAMERA, "sensor_msgs/msg/Image", PICTURE, ends=False):
                tools.run(looks())
                record(tools, folder / "bag")
        tools.run(after())


def record(tools: Tools, path: Path) -> None:
    """Five seconds of predictions by ``ros2 bag``."""
    if "bag" in tools.missing:
        tools.note("skipped", f"ros2 bag record {PREDICTION}", f"ros2 bag {tools.missing['bag']}")
        return
    with tools.started("bag", "record", "-o", str(path), PREDICTION, ends=False):
        time.sleep(5)
    tools.run(iter([Step("bag", ["info", str(path)], PREDICTION)]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", type=int, metavar="N", help="ROS domain (default: one where nobody is)")
    options = parser.parse_args(arguments)
    if shutil.which("ros2") is None:
        print(
            "skipped  everything: there is no ros2 on the PATH: source a ROS 2 installation (ros-$ROS_DISTRO-ros2cli)"
        )
        return 0
    domain = free_domain() if options.domain is None else options.domain
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **os.environ, "ROS_DOMAIN_ID": str(domain)}
    print(f"{shutil.which('ros2')} in ROS domain {domain}")
    with tempfile.TemporaryDirectory() as folder:
        tools = Tools({**environment, "ROS_LOG_DIR": folder})
        try:
            check(tools, Path(folder))
        finally:
            tools.call("daemon", "stop")
    counts = {kind: sum(row[0] == kind for row in tools.rows) for kind in ("passed", "FAILED", "skipped")}
    print(", ".join(f"{count} {kind.lower()}" for kind, count in counts.items()))
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
