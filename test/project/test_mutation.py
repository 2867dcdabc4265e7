"""The tool that changes the code and runs the tests, on a toy module."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys

import pytest

TOY = '''"""A toy."""


def clip(value: int, most: int) -> int:
    """Limits a value."""
    if value > most:
        return most
    return value


def unused() -> bool:
    raise ValueError("1 + 1" + str(1 + 1))
'''
CHECK = """
from omnibind_core import toy


def test_clip():
    assert [toy.clip(v, 9) for v in (8, 10)] == [8, 9]
"""


@pytest.fixture
def mutation(repo, monkeypatch):
    spec = importlib.util.spec_from_file_location("mutation", repo / "tools" / "mutation.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutation", module)
    spec.loader.exec_module(module)
    return module


def changes(mutation, source):
    return [mutant.what for mutant in mutation.mutants(ast.parse(source))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b < c", ["b < c -> b <= c", "b < c -> b >= c"]),
        ("a = b == c", ["b == c -> b != c"]),
        ("a = b + c", ["b + c -> b - c"]),
        ("a = b @ c", ["b @ c -> c @ b"]),
        ("a = 3", ["3 -> 4", "3 -> 2"]),
        ("a = 0.5", ["0.5 -> 1.0"]),
        ("a = 0.0", ["0.0 -> 1.0"]),
        ("a = True", ["True -> False"]),
        ("a = not b", ["not b -> b"]),
        ("a = b and c", ["b and c -> b or c"]),
        ("a = b if c else d", ["b if c else d -> d if c else b"]),
        ("a.b = c", ["a.b = c -> pass"]),
        ("a += b", ["a += b -> pass"]),
        ("f(b, c, d=e)", ["f(b, c, d=e) -> pass", "f(b, c, d=e) -> f(c, b, d=e)", "f(b, c, d=e) -> f(b, c)"]),
        ("max(b, c)", ["max(b, c) -> pass"]),
        ("a = [b for b in c if d]", [" for b in c if d ->  for b in c"]),
        ("def f():\n    return a", ["return a -> return None"]),
        ("if a:\n    b = c", ["a -> not a"]),
        ("raise E(1)", ["raise E(1) -> pass"]),
        ('"""text"""', []),
        ("_log.debug(f'{a + 1}')", []),
        ("def f(a: int | None = None) -> int | str: ...", []),
        ("a = zip(b, c, strict=True)", ["zip(b, c, strict=True) -> zip(c, b, strict=True)"]),
    ],
)
def test_what_is_changed(mutation, source, expected):
    assert changes(mutation, source) == expected


def test_every_change_can_be_compiled_and_undone(mutation, repo):
    tree = ast.parse((repo / "omnibind_core/runtime/ranking.py").read_text())
    whole = ast.unparse(tree)
    for mutant in mutation.mutants(tree):
        old = getattr(mutant.parent, mutant.field)
        setattr(mutant.parent, mutant.field, mutant.value)
        compile(tree, "ranking.py", "exec")
        assert ast.unparse(tree) != whole
        setattr(mutant.parent, mutant.field, old)
    assert ast.unparse(tree) == whole


def test_what_the_tests_notice_is_told_from_what_they_do_not(mutation, tmp_path, monkeypatch, capfd):
    (tmp_path / "omnibind_core").mkdir()
    toy = tmp_path / "omnibind_core" / "toy.py"
    toy.write_text(TOY)
    (tmp_path / "omnibind_core" / "__init__.py").touch()
    (tmp_path / "test_toy.py").write_text(CHECK)
    equivalent = tmp_path / "equivalent.json"
    equivalent.write_text(
        json.dumps(
            [
                {
                    "file": "omnibind_core/toy.py",
                    "line": "if value > most:",
                    "change": "value > most -> value >= most",
                    "why": "the same value either way",
                }
            ]
        )
    )
    monkeypatch.setattr(mutation, "REPO", tmp_path)
    monkeypatch.setattr(mutation, "EQUIVALENT", equivalent)
    monkeypatch.setattr(mutation, "TESTS", {"omnibind_core/*.py": ("test_toy.py",)})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-c /dev/null")
    monkeypatch.chdir(tmp_path)
    before = toy.read_text()
    mutation.main(["--out", str(tmp_path / "out.json"), "--jobs", "2"])
    results = json.loads((tmp_path / "out.json").read_text())["omnibind_core/toy.py"]
    survived = [name for name, outcome in results.items() if outcome == "survived"]
    assert [name.split(": ")[-1] for name in survived] == ["raise ValueError('1 + 1' + str(1 + 1)) -> pass"]
    assert "6: if value > most:: value > most -> value <= most" in results
    assert "6: if value > most:: value > most -> value >= most" not in results
    assert toy.read_text() == before
    assert f"| **all** | {len(results)} | {len(results) - 1} | 0 | 1 |" in capfd.readouterr().out
    assert os.environ["OMP_NUM_THREADS"] == "1"
