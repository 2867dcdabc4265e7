"""Who may import whom: the rooms of both packages, and what no room may do. Reads the sources, imports nothing."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("omnibind_core", "omnibind_ros")
MOST_MODULES = 13
"""That a folder may hold; more are rooms of their own."""

# What everyone may import: it knows nothing of the rest.
GROUND = {"", "errors", "optional", "config", "files", "blocks", "resources", "parallel", "allocation"}

# A room is a folder or module of omnibind_core, and may import those it names, GROUND and itself.
CORE: dict[str, set[str]] = {
    "modalities": set(),
    "alignment": set(),
    "fusion": set(),
    "labels": set(),
    "calibration": {"fusion"},
    "data": {"modalities", "geometry", "labels"},
    "encoders": {"modalities"},
    "model": {"modalities", "encoders", "fusion", "labels", "calibration"},
    "runtime": {"labels", "modalities"},
    "geometry": set(),
    "objects": {"modalities", "runtime", "geometry"},
    "features": {"modalities", "encoders", "fusion", "labels", "calibration", "data", "model"},
    "training": {"modalities", "alignment", "fusion", "labels", "data", "encoders", "model", "features"},
    "evaluation": {"modalities", "fusion", "labels", "data", "encoders", "model", "features", "training"},
    "commands": {"modalities", "fusion", "labels", "data", "encoders", "model", "runtime", "features", "training"}
    | {"evaluation"},
    "cli": {"commands", "labels"},
}

# The rooms of omnibind_ros; they may import any of omnibind_core, too, but commands and cli.
ROS: dict[str, set[str]] = {
    "messages": set(),
    "graph": {"messages"},
    "node": {"messages", "graph"},
    "bags": {"messages", "graph", "node"},
    "replay": {"messages", "graph", "node", "bags"},
    "view": {"messages", "graph", "node", "bags", "replay"},
    "demo": {"messages", "graph", "bags", "replay"},
    "faults": {"messages", "graph"},
    "commands": {"messages", "graph", "node", "bags", "replay", "view"},
}

ROS_PACKAGES = {
    "rclpy",
    "launch",
    "launch_ros",
    "rosbags",
    "rosidl_runtime_py",
    "message_filters",
    "ament_index_python",
}
TORCH = {"torch", "torchvision", "torchaudio", "safetensors", "lightning", "transformers"}


def modules() -> dict[str, Path]:
    """Files by the name they are imported by."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            name = path.relative_to(REPO).with_suffix("").as_posix().replace("/", ".")
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Everything that a module imports, in functions and for type checking, too; modules of ours by their full name."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else base for name in names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("require", "import_module") and isinstance(node.args[0].value, str):
                found.append(node.args[0].value)
    return tuple(dict.fromkeys(found))


def room(module: str) -> tuple[str, str]:
    """Package and room of a module; the package itself is the room ``""``."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def circles() -> Iterator[list[str]]:
    """Sets of modules that import each other, found as in Tarjan's algorithm."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in imports(module):
            if other not in MODULES or other == module:
                continue
            if other not in number:
                yield from visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            start = path.index(module)
            if len(path) - start > 1:
                yield sorted(path[start:])
            del path[start:]

    for module in MODULES:
        if module not in number:
            yield from visit(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_its_row(package: str) -> None:
    found = {room(module)[1] for module in MODULES if room(module)[0] == package} - {""}
    rows = set(CORE) | (GROUND - {""}) if package == "omnibind_core" else set(ROS)
    assert found <= rows, f"rooms without a row: {sorted(found - rows)}"
    tables = CORE if package == "omnibind_core" else ROS
    assert set(tables) <= found, f"rows without a room: {sorted(set(tables) - found)}"


def test_imports_go_down() -> None:
    wrong = []
    for module in MODULES:
        package, own = room(module)
        for other in imports(module):
            if other not in MODULES:
                continue
            there, name = room(other)
            if package == "omnibind_core":
                # The package itself is its short form (OmniBind, LabelBank, load); nothing inside may rest on that.
                allowed = {"labels", "modalities", "model"} if own == "" else CORE.get(own, set()) | GROUND | {own}
                fine = there == package and name in allowed
            elif there == package:
                fine = name in ROS.get(own, set()) | {"", own}
            else:
                fine = name not in ("commands", "cli")
            if not fine:
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_ground_knows_nothing_of_the_rest() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if room(module)[0] == "omnibind_core" and room(module)[1] in GROUND - {""}
        for other in imports(module)
        if other in MODULES and room(other)[1] not in GROUND
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_circles() -> None:
    found = list(circles())
    assert not found, "\n".join(", ".join(circle) for circle in found)


def test_core_knows_no_ros_and_modalities_no_torch() -> None:
    wrong = []
    for module in MODULES:
        package, own = room(module)
        outside = {other.partition(".")[0] for other in imports(module)}
        refused = set()
        if package == "omnibind_core":
            refused |= {
                name for name in outside if name in ROS_PACKAGES or name == "omnibind_ros" or name.endswith("_msgs")
            }
        if (package, own) == ("omnibind_core", "modalities"):
            refused |= outside & TORCH
        wrong += [f"{module} imports {name}" for name in sorted(refused)]
    assert not wrong, "\n".join(wrong)


def test_no_folder_is_crowded() -> None:
    folders = [path.parent for path in MODULES.values()]
    crowded = {str(folder.relative_to(REPO)): folders.count(folder) for folder in set(folders)}
    assert not {name: count for name, count in crowded.items() if count > MOST_MODULES}


@pytest.mark.parametrize(("package", "table"), [("omnibind_core", CORE), ("omnibind_ros", ROS)])
def test_the_architecture_shows_the_rooms_from_the_ground_up(package: str, table: dict[str, set[str]]) -> None:
    """The document has a row for every room, below the rows of what it imports, and names files that are there."""
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8").partition(f"| `{package}/` |")[2]
    shown: list[str] = []
    for line in text.partition("\n\n")[0].splitlines()[2:]:
        rooms, what = line.strip("| ").split(" | ", 1)
        names = [name.strip("`/").removesuffix(".py") for name in rooms.split(", ")]
        folders = [REPO / package / name for name in names]
        for name in names:
            missing = table.get(name, set()) - {*shown, *names}
            assert not missing, f"{name} stands above {', '.join(sorted(missing))}"
        for file in re.findall(r"`([a-z_]+(?:\.py|/))`", what):
            assert any(found for folder in folders for found in folder.rglob(file.rstrip("/"))), f"{rooms}: no {file}"
        shown += names
    assert set(table) <= set(shown)
