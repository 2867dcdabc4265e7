"""The set-up: its checks, the environment script, the Makefile, and that versions and pins agree."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

DISTRIBUTIONS = ("jazzy", "kilted")
WANTED = ("core", "build", "dev", "docs", *(f"ros-{name}" for name in DISTRIBUTIONS))
LOCKS = ("lock", "lock-source", "lock-docs", *(f"lock-{name}" for name in DISTRIBUTIONS))
TORCH = ("lock-torch", "lock-torch-cpu", "lock-cuda")
WEIGHTS = ("weights", "weights-lite2")


@pytest.fixture
def setup_env(repo: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("OMNIBIND_ROS", "ROS_DISTRO", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return load(repo)


def load(repo: Path, name: str = "setup_env") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, repo / f"tools/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder: Path, name: str, script: str = "") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_missing_tools_are_named_with_their_package(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "gcc")
    program(tmp_path, "make")
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler, cmake = setup_env.check_tools(ros="")
    assert compiler.startswith("C++ compiler not found") and compiler.endswith("apt install build-essential")
    assert cmake.startswith("cmake not found")
    program(tmp_path, "g++")
    program(tmp_path, "cmake")
    assert setup_env.check_tools(ros="") == []
    assert "python3-colcon-common-extensions" in setup_env.check_tools(ros="jazzy")[0]


def test_the_first_supported_python_is_taken(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "old", "echo 3 8")
    program(tmp_path, "broken", "exit 127")
    program(tmp_path, "good", "echo 3 12")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_env.find_python(["absent", "broken", "old", "good"]) == str(tmp_path / "good")
    assert setup_env.find_python(["broken", "old"]) == ""


def test_no_python_says_which_are_supported_and_which_found(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "old", "echo 3 8")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHON", "old")
    line = setup_env.check_python(setup_env.find_python(setup_env.candidates()))
    assert "3.11, 3.12, 3.13 needed" in line and "old (3.8)" in line and "\n" not in line


@pytest.mark.parametrize(("script", "package"), [("exit 1", "-venv"), ("echo False", "-dev")])
def test_python_without_venv_or_headers(setup_env: ModuleType, tmp_path: Path, script: str, package: str) -> None:
    program(tmp_path, "python3.12", f'case "$2" in *version_info*) echo 3 12;; *) {script};; esac')
    assert f"apt install python3.12{package}" in setup_env.check_python(str(tmp_path / "python3.12"))


def test_an_installation_is_taken_with_its_own_python(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "absent")
    monkeypatch.setenv("ROS_DISTRO", "lyrical")
    program(tmp_path, "python3.12", 'case "$2" in *rclpy*) exit 1;; *) echo 3 12;; esac')
    assert setup_env.choose() == (str(tmp_path / "python3.12"), "")  # nothing imports rclpy: wheels
    program(tmp_path, "python3", "echo 3 14")  # a version for which there are no wheels
    assert setup_env.choose() == (str(tmp_path / "python3"), "lyrical")
    monkeypatch.delenv("ROS_DISTRO")
    assert setup_env.choose() == (str(tmp_path / "python3.12"), "")


def test_a_distribution_that_is_not_there_is_named(
    setup_env: ModuleType, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OMNIBIND_ROS", "rolling")
    with pytest.raises(Exception, match="no wheels of ROS 2 rolling, only of jazzy, kilted"):
        load(repo).choose()
    program(tmp_path, "python3", "echo 3 12")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv("OMNIBIND_ROS", "kilted")
    with pytest.raises(Exception, match="kilted was asked for, but jazzy is sourced"):
        load(repo).choose()


def test_every_distribution_from_wheels_has_folders_of_its_own(
    setup_env: ModuleType, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert setup_env.WHEELS == DISTRIBUTIONS
    assert [repo / name for name in (".venv", ".ros")] == [setup_env.VENV, setup_env.BUILD]
    monkeypatch.setenv("OMNIBIND_ROS", "kilted")
    kilted = load(repo)
    assert [repo / name for name in (".venv-kilted", ".ros-kilted")] == [kilted.VENV, kilted.BUILD]
    assert {path.name for path in kilted.requirement_files("")} == {"lock.txt", "lock-kilted.txt"}


def test_beside_an_installation_numpy_keeps_its_major_version(
    setup_env: ModuleType, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "python", "echo 1")
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    calls: list[list[str]] = []
    monkeypatch.setattr(setup_env, "pip_install", lambda arguments, log: calls.append(arguments))
    setup_env.install_packages("jazzy", "")
    assert calls[0][0] == "numpy==1.*" and str(repo / "requirements/robot.txt") in calls[0]
    program(tmp_path / "bin", "python", "exit 1")
    with pytest.raises(setup_env.SetupError, match="python3-numpy"):
        setup_env.install_packages("jazzy", "")
    assert re.findall("^numpy.*", (repo / "requirements/robot.txt").read_text(), re.MULTILINE) == ["numpy>=1.26"]


def test_disk_space_is_named(setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.5 * 2**30))
    assert setup_env.check_disk(tmp_path, 1.0) is None
    line = setup_env.check_disk(tmp_path, 6.0)
    assert "6.0 GiB" in line and "found 1.5 GiB" in line and str(tmp_path) in line


def test_machine_without_ros_wheels(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(sysname="Linux", machine="aarch64"))
    assert "Linux aarch64" in setup_env.check_platform(ros="")
    assert setup_env.check_platform(ros="jazzy") is None


def test_all_problems_are_told_at_once(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.check("", ros="", fresh=False)
    lines = str(error.value).splitlines()
    assert len(lines) == 5 and all(line.startswith("missing: ") for line in lines)


def test_a_failed_command_shows_the_end_of_its_log(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "BUILD", tmp_path / ".ros")
    setup_env.run([sys.executable, "-c", "print('fine')"], "step")
    assert "fine" in (tmp_path / ".ros/log/step.log").read_text()
    with pytest.raises(setup_env.SetupError, match=r"(?s)\.ros/log/step\.log.*line 99$"):
        code = "print(*(f'line {i}' for i in range(100)), sep='\\n'); raise SystemExit(1)"
        setup_env.run([sys.executable, "-c", code], "step")


def test_include_folders_of_the_wheels_are_corrected(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share/x").mkdir(parents=True)
    file = tmp_path / "share/x/export.cmake"
    file.write_text('INCLUDES "/opt/python/cp311-cp311/include/python3.11;/tmp/v/site-packages/numpy/_core/include"')
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "python", "echo /py/include; echo /np/include")
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    setup_env.fix_include_paths()
    assert file.read_text() == 'INCLUDES "/py/include;/np/include"'


def test_only_new_files_and_changed_interfaces_trigger_a_build(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    for folder in ("omnibind_ros", "msg", "requirements"):
        (tmp_path / folder).mkdir()
    for name in ("CMakeLists.txt", "package.xml", "pyproject.toml", "msg/A.msg", "omnibind_ros/old.py"):
        (tmp_path / name).write_text("1")

    def build() -> str:
        stamp: dict[str, str] = setup_env.wanted_stamp("python", "", None)
        return stamp["build"]

    first = build()
    (tmp_path / "omnibind_ros/old.py").write_text("2")
    assert build() == first
    (tmp_path / "omnibind_ros/new.py").write_text("1")
    second = build()
    assert second != first
    (tmp_path / "msg/A.msg").write_text("2")
    assert build() != second


def test_make_help_lists_every_target(repo: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repo / "Makefile").read_text(), re.MULTILINE))
    output = subprocess.run(["make", "help"], cwd=repo, capture_output=True, text=True, check=True).stdout
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", output, re.MULTILINE))
    assert {"setup", "demo", "test", "test-slow", "test-gpu", "lint", "train", "clean"} <= targets
    assert set(listed) == targets


def source_env(root: Path, environment: dict[str, str]) -> dict[str, str]:
    script = f"set -eu; source '{root}/tools/env.sh'; source '{root}/tools/env.sh'; env -0"
    bash = shutil.which("bash") or "bash"
    result = subprocess.run([bash, "-c", script], cwd="/", env=environment, capture_output=True, text=True, check=True)
    return dict(item.split("=", 1) for item in result.stdout.split("\0") if "=" in item)


@pytest.fixture
def set_up_tree(repo: Path, tmp_path: Path) -> Path:
    root = tmp_path / "a folder"
    for folder in (".venv/bin", ".venv/lib", ".ros/install/omnibind_ros/lib/python3.11/site-packages", "tools"):
        (root / folder).mkdir(parents=True)
    program(root / ".venv/bin", "python")
    shutil.copy(repo / "tools/env.sh", root / "tools")
    return root


def test_env_with_ros_from_wheels(set_up_tree: Path) -> None:
    (set_up_tree / ".venv/lib/librcl.so").touch()
    install = set_up_tree / ".ros/install/omnibind_ros"
    env = source_env(set_up_tree, {"PATH": "/usr/bin:/bin", "PYTHONPATH": "/mine"})
    assert env["PATH"] == f"{set_up_tree}/.venv/bin:/usr/bin:/bin"
    assert env["PYTHONPATH"] == f"{install}/lib/python3.11/site-packages:/mine"
    assert env["AMENT_PREFIX_PATH"] == f"{install}:{set_up_tree}/.venv"
    assert env["LD_LIBRARY_PATH"] == f"{install}/lib:{set_up_tree}/.venv/lib"
    assert env["PYTHONSAFEPATH"] == "1"
    assert env["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp"
    assert env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_env_keeps_what_the_user_and_ros_have_set(set_up_tree: Path) -> None:
    (set_up_tree / ".venv/lib/librcl.so").touch()
    chosen = {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    env = source_env(set_up_tree, {"PATH": "/usr/bin:/bin", **chosen})
    assert chosen.items() <= env.items()
    (set_up_tree / ".venv/lib/librcl.so").unlink()
    env = source_env(set_up_tree, {"PATH": "/usr/bin:/bin", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"})
    assert env["AMENT_PREFIX_PATH"] == f"{set_up_tree}/.ros/install/omnibind_ros:/opt/ros/jazzy"
    assert not {"RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE"} & env.keys()


def test_env_of_another_distribution(set_up_tree: Path) -> None:
    (set_up_tree / ".venv/lib/librcl.so").touch()
    for folder in (".venv", ".ros"):
        shutil.copytree(set_up_tree / folder, set_up_tree / f"{folder}-kilted")
    env = source_env(set_up_tree, {"PATH": "/usr/bin:/bin", "OMNIBIND_ROS": "kilted"})
    assert env["VIRTUAL_ENV"] == f"{set_up_tree}/.venv-kilted"
    assert env["AMENT_PREFIX_PATH"] == f"{set_up_tree}/.ros-kilted/install/omnibind_ros:{set_up_tree}/.venv-kilted"
    env = source_env(set_up_tree, {"PATH": "/usr/bin:/bin", "OMNIBIND_ROS": "jazzy"})
    assert env["VIRTUAL_ENV"] == f"{set_up_tree}/.venv"
    shutil.rmtree(set_up_tree / ".ros-kilted")
    command = ["bash", "-c", f"source '{set_up_tree}/tools/env.sh'"]
    result = subprocess.run(
        command, env={**os.environ, "OMNIBIND_ROS": "kilted"}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0 and "make setup ROS=kilted" in result.stderr


def test_env_tells_a_build_that_lacks_what_the_checkout_has(set_up_tree: Path) -> None:
    site = set_up_tree / ".ros/install/omnibind_ros/lib/python3.11/site-packages"
    for folder in (set_up_tree / "omnibind_ros/node", site / "omnibind_ros/node"):
        folder.mkdir(parents=True)
        (folder / "old.py").touch()
    command = ["bash", "-c", f"unset OMNIBIND_ROS; set -eu; source '{set_up_tree}/tools/env.sh'"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    (set_up_tree / "omnibind_ros/node/new.py").touch()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "built before the checkout changed (omnibind_ros/node/new.py): run 'make setup' in" in result.stderr


def test_env_without_set_up_says_what_to_do(set_up_tree: Path) -> None:
    shutil.rmtree(set_up_tree / ".ros")
    command = ["bash", "-c", f"unset OMNIBIND_ROS; source '{set_up_tree}/tools/env.sh'"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0 and "make setup" in result.stderr


def pins(repo: Path, name: str) -> dict[str, str]:
    text = (repo / f"requirements/{name}.txt").read_text()
    found = re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE)
    assert len(dict(found)) == len(found), f"{name} has a package twice"
    return dict(found)


@pytest.mark.parametrize("name", WANTED)
def test_requirements_are_pinned_exactly(repo: Path, name: str) -> None:
    lines = (repo / f"requirements/{name}.txt").read_text().splitlines()
    wanted = [line.partition(" #")[0].strip() for line in lines if line and not line.startswith("#")]
    assert wanted and [pin for pin in wanted if not re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.+]+", pin)] == []


@pytest.mark.parametrize("name", (*LOCKS, *TORCH, *WEIGHTS))
def test_every_package_that_is_installed_has_hashes(repo: Path, name: str) -> None:
    text = re.sub(r"^#.*\n", "", (repo / f"requirements/{name}.txt").read_text(), flags=re.MULTILINE)
    entry = r"[a-z0-9.-]+==[A-Za-z0-9.+]+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(f"(?:{entry})+", text)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_what_is_wanted_is_locked_once_in_that_version(repo: Path, distribution: str) -> None:
    locks = [pins(repo, name) for name in ("lock", "lock-source", "lock-torch", f"lock-{distribution}", *WEIGHTS)]
    together = {name: version for lock in locks for name, version in lock.items()}
    assert sum(map(len, locks)) == len(together)
    for name in ("core", "build", "dev", f"ros-{distribution}"):
        assert pins(repo, name).items() <= together.items()
    docs = pins(repo, "lock-docs")
    assert pins(repo, "docs").items() <= docs.items()
    assert {name: together[name] for name in docs if name in together}.items() <= docs.items()


def test_everything_from_an_index_is_checked_by_its_hash(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []
    python, offered = "311", True

    def install(arguments: list[str], log: str) -> None:
        calls.append(arguments)
        if not offered and any(part.endswith("lock-torch-cpu.txt") for part in arguments):
            raise setup_env.SetupError("No matching distribution found for torch==2.13.0+cpu")

    def files(index: str) -> list[str]:
        """Installs, and gives the files that pip was told of."""
        calls.clear()
        setup_env.install_packages("", index)
        *locked, weights = calls
        assert weights[0] == "--no-deps", "its lines have hashes, so pip asks for them"
        assert all(call[:2] == ["--require-hashes", "--no-deps"] for call in locked)
        assert all("--only-binary" in call or "--no-build-isolation" in call for call in locked[:2])
        assert [place for place, call in enumerate(calls) if index and index in call] == ([2] if index else [])
        return [Path(part).stem for call in calls for part in call if part.endswith(".txt")]

    monkeypatch.setattr(setup_env, "pip_install", install)
    monkeypatch.setattr(setup_env, "output_of", lambda code: python)
    monkeypatch.setattr(setup_env, "fix_include_paths", lambda: None)
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="x86_64"))
    first = ["lock", "lock-jazzy", "lock-source"]
    assert files(setup_env.TORCH_CPU_INDEX) == [*first, "lock-torch-cpu", "weights"]
    assert files("") == [*first, "lock-torch-cpu", "weights"]
    assert files(setup_env.PYPI) == [*first, "lock-torch", "lock-cuda", "weights"]
    offered = False
    assert files("") == [*first, "lock-torch-cpu", "lock-torch", "lock-cuda", "weights"]
    with pytest.raises(setup_env.SetupError, match="No matching"):
        files(setup_env.TORCH_CPU_INDEX)
    python = "399"
    assert files("") == [*first, "lock-torch", "lock-cuda", "weights"]
    assert capsys.readouterr().out == ""
    setup_env.install_packages("", setup_env.TORCH_CPU_INDEX)
    assert calls[-2] == ["torch==2.13.0", "--extra-index-url", setup_env.TORCH_CPU_INDEX]
    assert f"no hash is known of PyTorch for cp399-x86_64 from {setup_env.TORCH_CPU_INDEX}" in capsys.readouterr().out


def test_freezing_takes_the_files_that_may_be_installed(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze = load(repo, "freeze")
    files = (
        "a_b-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a_b-1.0-cp39-abi3-manylinux_2_28_aarch64.whl",
        "a_b-1.0-py312-none-any.whl",
        "a_b-1.0.tar.gz",
        "a_b-1.0-cp310-cp310-manylinux_2_28_x86_64.whl",
        "a_b-1.0-cp311-cp311-win_amd64.whl",
        "a_b-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a_b-1.0.1-py3-none-any.whl",
        "a_b-1.0.post1.tar.gz",
    )
    page = {"files": [{"filename": name, "hashes": {"sha256": f"{place}"}} for place, name in enumerate(files)]}
    monkeypatch.setattr(freeze, "ask", lambda url: page)
    assert freeze.release("https://index", "a-b", "1.0") == (["0", "1", "2", "3"], False)
    page["files"] = page["files"][:2]
    assert freeze.release("https://index", "a-b", "1.0") == (["0", "1"], True), "3.12 has to build it"
    with pytest.raises(LookupError, match=r"no file of a-b 2\.0"):
        freeze.release("https://index", "a-b", "2.0")


def test_distributions_have_the_same_packages(repo: Path) -> None:
    def packages(distribution: str) -> set[str]:
        text = (repo / f"requirements/ros-{distribution}.txt").read_text()
        return {name.replace(f"ros-{distribution}-", "") for name in re.findall("^([a-z0-9-]+)==", text, re.MULTILINE)}

    assert packages("jazzy") - packages("kilted") == {"python-cmake-module"}  # ended with Jazzy
    assert packages("kilted") - packages("jazzy") == {"ament-cmake-ros-core"}  # new in Kilted


def test_versions_agree(repo: Path) -> None:
    package = ElementTree.parse(repo / "package.xml").findtext("version")
    found = {
        name: re.findall(pattern, (repo / name).read_text(), re.MULTILINE)
        for name, pattern in {
            "pyproject.toml": r'^version = "(.+)"',
            "omnibind_core/__init__.py": r'^__version__ = "(.+)"',
            "CITATION.cff": r"^version: (.+)",
        }.items()
    }
    assert found == {name: [package] for name in found}


def test_python_dependencies_are_pinned_and_reach_the_robot(repo: Path) -> None:
    listed = re.search(r"^dependencies = \[(.*?)\]", (repo / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert listed
    needed = set(re.findall(r'"([a-z0-9-]+)', listed[1]))
    core, robot = (
        set(re.findall(r"^([a-z0-9-]+)", (repo / f"requirements/{name}.txt").read_text(), re.MULTILINE))
        for name in ("core", "robot")
    )
    by_rosdep = {"opencv-python-headless", "pyyaml"}
    assert needed and needed <= core
    assert needed - by_rosdep <= robot


def test_every_message_and_program_is_built(repo: Path) -> None:
    cmake = (repo / "CMakeLists.txt").read_text()
    assert set(re.findall(r"msg/\w+\.msg", cmake)) == {f"msg/{path.name}" for path in repo.glob("msg/*.msg")}
    assert set(re.findall(r"bin/(\w+)", cmake)) == {path.name for path in repo.glob("bin/*")}


def test_package_xml_names_every_ros_package_that_is_imported(repo: Path) -> None:
    pattern = re.compile(
        r"^ *(?:import|from) (\w+_(?:msgs|srvs|interfaces)|rclpy|launch\w*|ament_index_python)\b", re.MULTILINE
    )

    def imported(*folders: str) -> set[str]:
        files = (file for folder in folders for file in (repo / folder).rglob("*.py"))
        return {name for file in files for name in pattern.findall(file.read_text())}

    package = ElementTree.parse(repo / "package.xml")
    run = {element.text for tag in ("depend", "exec_depend") for element in package.iter(tag)}
    test = {element.text for element in package.iter("test_depend")}
    assert {"rclpy", "sensor_msgs"} <= imported("omnibind_ros", "launch") <= run
    assert imported("test") <= run | test


def test_colcon_registers_the_tests(repo: Path) -> None:
    cmake = (repo / "CMakeLists.txt").read_text()
    assert re.search(r"if\(BUILD_TESTING\)\s+find_package\(ament_cmake_pytest REQUIRED\)", cmake)
    assert "not slow and not gpu" in cmake
    assert "<test_depend>ament_cmake_pytest</test_depend>" in (repo / "package.xml").read_text()
