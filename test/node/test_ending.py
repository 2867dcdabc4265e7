"""How the process of a node ends on signals: whatever it is doing, soon, with status 0 and without a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from domains import any_domain

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

import rclpy

from omnibind_ros.node.process import _file_problem, _spin_on, unused_file

pytestmark = pytest.mark.ros

SOON = 10.0  # s; three without load. What goes on when the signal comes would take a minute

SLOW = """
import hashlib, json, os, signal, sys, tempfile, time
from types import SimpleNamespace
import torch  # before the children are forked, which saves each the time
from omnibind_ros.node import fusion_node, lifecycle

torch.set_num_threads(1)

def sleep():
    time.sleep(60)

def multiply():
    matrix = torch.eye(500)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        matrix = torch.mm(matrix, matrix)

def compute():  # in C, which no signal reaches
    hashlib.pbkdf2_hmac("sha1", b"", b"", 10**9)

def child(place, slow, log):
    os.dup2(log, 2)

    def busy(*_):
        os.write(log, b"busy\\n")
        slow()

    class Model:
        identity, modalities, threshold, labels = "slow@1", ("image",), 0.1, SimpleNamespace(names=("cup",))

        def warm_up(self, wanted):
            pass

    def load(*_):
        if place == "configure":
            busy()
        return Model()

    lifecycle.load_model = load
    fusion_node.FusionNode.compute = busy
    sys.argv = ["fusion_node", "--ros-args", "-p", "sensors:=[camera]"]
    fusion_node.main()

INT, TERM = signal.SIGINT, signal.SIGTERM
cases = [
    ("tick", sleep, [INT]), ("tick", multiply, [INT]), ("tick", multiply, [INT, INT]), ("tick", multiply, [TERM]),
    ("tick", compute, [INT]), ("configure", sleep, [INT]), ("configure", multiply, [INT, INT]),
]
children = []
for place, slow, signals in cases:
    log = tempfile.TemporaryFile()
    children.append((os.fork(), log, signals))
    if children[-1][0] == 0:
        child(place, slow, log.fileno())

def said(log):
    return os.pread(log.fileno(), 10**6, 0).decode()

for process, log, _ in children:
    while "busy" not in said(log):
        ended = os.waitpid(process, os.WNOHANG)
        assert ended[0] == 0, (ended, said(log))
        time.sleep(0.01)
begun = time.monotonic()
for turn in range(2):
    for process, _, signals in children:
        for number in signals[turn:turn + 1]:
            os.kill(process, number)
    time.sleep(0.05)
for process, log, _ in children:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(json.dumps([status, time.monotonic() - begun, said(log)]))
"""


def environment():
    return {**os.environ, "ROS_DOMAIN_ID": str(any_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def test_a_signal_ends_a_node_that_is_busy(tmp_path):
    command = [sys.executable, "-c", SLOW]
    given = {**environment(), "ROS_LOG_DIR": str(tmp_path)}
    done = subprocess.run(command, env=given, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    orderly = 0
    for status, seconds, log in map(json.loads, done.stdout.splitlines()):
        assert status == 0 and seconds < SOON, log
        assert "Traceback" not in log and "terminate" not in log, log
        orderly += "loaded" in log and "without cleaning up" not in log
    assert sum("loaded" in file.read_text(encoding="utf-8") for file in tmp_path.iterdir()) >= orderly


@pytest.mark.parametrize("node", ["fusion_node", "sensor_node"])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["omnibind_ros.node.process", "rclpy"])
def test_a_signal_ends_a_node_that_is_importing(repo, node, stop, after):
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(repo / "bin" / node)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:  # a module that has just been imported
            if after in line:
                break
        process.stderr.readline()  # the next one: signals are heard by now
        begun = time.monotonic()
        process.send_signal(stop)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 0 and time.monotonic() - begun < SOON, rest
        assert "Traceback" not in rest and "omnibind_ros.node.lifecycle" not in rest
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("file", "node", "used"),
    [
        ({"/**": {}}, "/robot/fusion_node", True),
        ({"fusion_node": {}}, "/fusion_node", True),
        ({"/fusion_node": {}}, "/fusion_node", True),
        ({"/**/fusion_node": {}}, "/a/b/fusion_node", True),
        ({"/*/fusion_node": {}}, "/a/fusion_node", True),
        ({"robot": {"fusion_node": {}}}, "/robot/fusion_node", True),
        ({"fusion_node": {}}, "/robot/fusion_node", False),
        ({"fusion": {}, "other": {}}, "/fusion_node", False),
    ],
)
def test_a_parameter_file_without_the_node_is_told(tmp_path, file, node, used):
    def blocks(content):
        return {key: blocks(value) if value else {"ros__parameters": {"rate": 1.0}} for key, value in content.items()}

    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(blocks(file)), encoding="utf-8")
    told = unused_file(str(path), node)
    assert (told is None) == used
    if told is not None:
        assert f"has parameters of {', '.join(f'/{key}' for key in file)}, none for {node}" in told


def test_a_callback_that_raises_is_told_once_for_each_place_and_spinning_goes_on(monkeypatch):
    told, turns = [], iter((ValueError, ValueError, KeyError, None))

    def spin():
        if (kind := next(turns)) is ValueError:
            json.loads("[")
        elif kind is not None:
            raise kind("ours")

    monkeypatch.setattr(rclpy, "ok", lambda: True)
    _spin_on(spin, SimpleNamespace(error=told.append))
    assert next(turns, "done") == "done"
    assert [line.partition(":")[0] for line in told] == ["a callback failed, the node goes on"] * 2
    assert "JSONDecodeError: Expecting value" in told[0] and "KeyError: 'ours'" in told[1]


@pytest.mark.parametrize("ok", [True, False])
def test_what_waiting_raises_or_a_context_that_was_shut_down_ends_the_node(monkeypatch, ok):
    def wait_for_ready_callbacks():
        raise RuntimeError("the wait set is broken")

    def callback():
        raise RuntimeError("the publisher's context is invalid")

    told = []
    monkeypatch.setattr(rclpy, "ok", lambda: ok)
    with pytest.raises(RuntimeError, match="wait set" if ok else "context"):
        _spin_on(wait_for_ready_callbacks if ok else callback, SimpleNamespace(error=told.append))
    assert not told


@pytest.mark.parametrize("value", ["!!python/tuple\n    - cup\n    - dog", "2024-13-45", "[=, a]", "!cup a", "a\n---"])
def test_a_parameter_file_that_rcl_reads_is_taken(tmp_path, value):  # the first as launch_ros writes every list
    path = tmp_path / "launch_params"
    path.write_text(f"/**:\n  ros__parameters:\n    labels: {value}\n", encoding="utf-8")
    assert _file_problem(["--params-file", str(path)]) is None
    assert unused_file(str(path), "/fusion_node") is None


FIRST = """
import sys
import omnibind_ros.node.process
print(*(name for name in ("logging", "numpy", "pydantic", "rclpy", "yaml", "xml") if name in sys.modules))
"""


def test_next_to_nothing_is_imported_before_signals_are_heard():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


FORKED = """
import multiprocessing, os, signal, time
from omnibind_ros.node.process import interruptible

with interruptible():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    time.sleep(0.2)
    print("alive", child.exitcode == -signal.SIGTERM)
"""


def test_a_signal_for_a_child_that_a_library_forked_is_not_the_nodes():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive True\n", "")
