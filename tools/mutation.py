"""Would the tests notice? Changes the code in one place at a time and runs the tests that pass through that place.

    python tools/mutation.py --sample 40                       # 40 changes per module, chosen by --seed
    python tools/mutation.py --only 'omnibind_core/runtime/*'  # all changes of these modules

Each change (mutant) is made in the memory of a forked process that has the libraries loaded already, so no file is
touched and a mutant takes a few seconds. A first run without a change records which tests run which lines. Left as
they are: documents, texts of errors and logs, annotations, options of data classes, ``strict`` of ``zip`` and the like.
What no test can notice stands in ``tools/mutation_equivalent.json`` with the reason, and is left out of the figures.
Tests over ROS, slow ones, and what a test starts as another process do not count.
"""

from __future__ import annotations

import argparse
import ast
import copy
import fnmatch
import importlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent
EQUIVALENT = REPO / "tools" / "mutation_equivalent.json"
PACKAGES = ("omnibind_core", "omnibind_ros")

TESTS = {
    "omnibind_core/alignment.py": ("test/training/test_alignment.py", "test/training/test_paper.py"),
    "omnibind_core/fusion/*.py": (
        "test/training/test_fusion.py",
        "test/training/test_baselines.py",
        "test/training/test_paper.py",
    ),
    "omnibind_core/runtime/*.py": ("test/runtime/test_runtime.py", "test/runtime/test_runtime_model.py"),
    "omnibind_core/features/calibration.py": ("test/training/test_calibration.py",),
    "omnibind_core/evaluation/tables/targets.py": ("test/evaluation/test_targets.py",),
    "omnibind_core/data/matching/*.py": (
        "test/data/test_matching.py",
        "test/data/test_matching_llm.py",
        "test/data/test_sample_matching.py",
        "test/data/test_label_descriptions.py",
    ),
    "omnibind_ros/messages/*.py": ("test/node/test_messages.py",),
}
"""Which test files guard which modules."""

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_ANNOTATIONS = frozenset({"annotation", "returns", "type_params"})
_DECLARING = frozenset({"dataclass", "field", "TypeVar", "np.errstate"})
_GUARDS = frozenset({"strict", "exc_info", "stacklevel", "copy"})  # keywords that change no result
_SYMMETRIC = frozenset({"max", "min", "np.maximum", "np.minimum"})
_LOGS = ("_log.", "_logger.", "log.", "logger.", "warnings.warn", "print(")


@dataclass(frozen=True)
class Mutant:
    """One change of a tree.

    Attributes:
        parent: Node that is changed.
        field: Its field.
        value: What the field gets.
        first: First line of the statement.
        last: Last line of the statement, or of its head where it has a body.
        what: The change, in words.
    """

    parent: ast.AST
    field: str
    value: Any
    first: int
    last: int
    what: str


@dataclass
class Coverage:
    """Which tests run which lines ``(file, number)``: by test, the import and set-up of all tests apart."""

    tests: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    shared: set[tuple[str, int]] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)


def mutants(tree: ast.AST) -> Iterator[Mutant]:
    """All mutants of a tree, in the order of the source."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            yield from _statement(tree, node)
            yield from mutants(node)


def _statement(parent: ast.AST, node: ast.stmt) -> Iterator[Mutant]:
    """Mutants of one statement and the expressions in it, not of the statements in it."""
    text = ast.unparse(node)
    if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or text.startswith(_LOGS)):
        return
    last = node.end_lineno or node.lineno
    if isinstance(body := getattr(node, "body", None), list):
        last = max(node.lineno, body[0].lineno - 1)
    place = (node.lineno, last)
    attribute = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    if attribute or isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Break | ast.Continue | ast.Delete):
        for name, old in ast.iter_fields(parent):
            if isinstance(old, list) and node in old:
                new = [ast.copy_location(ast.Pass(), one) if one is node else one for one in old]
                yield Mutant(parent, name, new, *place, f"{text.splitlines()[0]} -> pass")
    if isinstance(node, ast.Return) and not (node.value is None or text == "return None"):
        yield Mutant(node, "value", None, *place, f"{text.splitlines()[0]} -> return None")
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare):
        yield _replaced(node, "test", node.test, ast.UnaryOp(ast.Not(), node.test), place)
    if not isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        yield from _expressions(node, place)


def _expressions(parent: ast.AST, place: tuple[int, int]) -> Iterator[Mutant]:
    for name, value in ast.iter_fields(parent):
        if name in _ANNOTATIONS:
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or isinstance(node, ast.stmt | ast.JoinedStr):
                continue
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _DECLARING:
                continue
            if isinstance(node, ast.keyword) and node.arg in _GUARDS:
                continue
            for new in _changed(node):
                if isinstance(value, list):
                    yield _replaced(parent, name, node, new, place, [*value[:index], new, *value[index + 1 :]])
                else:
                    yield _replaced(parent, name, node, new, place)
            yield from _expressions(node, place)


def _replaced(
    parent: ast.AST, name: str, old: ast.AST, new: ast.AST, place: tuple[int, int], value: Any = None
) -> Mutant:
    for node in ast.walk(new):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            ast.copy_location(node, old)
    what = f"{ast.unparse(old)} -> {ast.unparse(new)}"
    return Mutant(parent, name, new if value is None else value, *place, what)


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What an expression is replaced by."""
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            for other in _COMPARED[type(op)]:
                yield _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])
    elif isinstance(node, ast.BinOp):
        if type(node.op) in _COMPUTED:
            yield _with(node, op=_COMPUTED[type(node.op)]())
        else:
            yield _with(node, left=node.right, right=node.left)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.IfExp):
        yield _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _with(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield _with(node, value=node.value + 1)
        yield _with(node, value=node.value - 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield _with(node, value=2 * node.value or 1.0)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield _with(node, ifs=[])
    elif isinstance(node, ast.Call):
        ordered = ast.unparse(node.func) not in _SYMMETRIC
        ordered = ordered and len({ast.dump(arg) for arg in node.args[:2]}) == 2
        if ordered and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
            yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
        for keyword in (keyword for keyword in node.keywords if keyword.arg not in _GUARDS):
            yield _with(node, keywords=[other for other in node.keywords if other is not keyword])


def _with(node: ast.AST, **changes: Any) -> ast.AST:
    new = copy.copy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


class _Loader(SourceFileLoader):
    """Loads a module from a tree instead of its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        super().__init__(name, str(path))
        self._tree = tree

    def get_code(self, fullname: str) -> Any:
        return compile(self._tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules in memory."""

    def __init__(self, trees: Mapping[Path, ast.Module]) -> None:
        self._trees = {}
        for path, tree in trees.items():
            parts = path.relative_to(REPO).with_suffix("").parts
            self._trees[".".join(parts).removesuffix(".__init__")] = path, tree

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in self._trees:
            return None
        file, tree = self._trees[fullname]
        places = [str(file.parent)] if file.stem == "__init__" else None
        loader = _Loader(fullname, file, tree)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=places)


class _Recorder:
    """Plug-in of pytest that notes which lines of some files each test runs, and how long it takes."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.coverage = Coverage()
        self._paths, self._now = {str(path) for path in paths}, self.coverage.shared
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in self._paths:
            return None
        self._now.add((frame.f_code.co_filename, frame.f_lineno))
        return self._trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._now = self.coverage.tests[item.nodeid]
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            self.coverage.seconds[item.nodeid] = time.perf_counter() - started
            self._now = self.coverage.shared


class _Chooser:
    """Plug-in of pytest that runs some tests, the quickest first."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._seconds]
        items[:] = sorted(chosen, key=lambda item: self._seconds[item.nodeid])


def _pytest(files: Sequence[str], finder: _Finder, plugin: object, folder: Path) -> int:
    """Runs tests in this process, with some modules from memory. Returns the exit code."""
    from hypothesis import Phase, settings

    # Found is enough: no shrinking, and nothing is kept for later runs.
    settings.register_profile("mutation", database=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutation")
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ("xdist.plugin", "pytest_timeout", "no:cacheprovider", "no:unraisableexception", "no:threadexception")
    options = ["-x", "-q", "--assert=plain", "-m", "not slow and not gpu and not ros", f"--rootdir={REPO}"]
    options += [word for name in plugins for word in ("-p", name)] + [f"--basetemp={folder / 'tests'}"]
    return int(pytest.main([*options, *files], plugins=[plugin]))


def _fork(child: Callable[[], int]) -> int:
    """Runs something in a process group of its own, without output; its result is the exit status."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        status = child()
    finally:
        os._exit(status)


def record(files: Sequence[str], trees: Mapping[Path, ast.Module], folder: Path) -> Coverage:
    """Runs the tests of some modules without a change.

    Raises:
        SystemExit: They do not pass.
    """
    found = folder / "coverage"

    def child() -> int:
        before = set(sys.modules)
        recorder = _Recorder(trees)
        status = _pytest(files, _Finder(trees), recorder, folder)
        sys.settrace(None)
        recorder.coverage.modules = sorted(set(sys.modules) - before)
        found.write_bytes(pickle.dumps(recorder.coverage))
        return status

    status = os.waitstatus_to_exitcode(os.waitpid(_fork(child), 0)[1])
    if status:
        raise SystemExit(f"the tests do not pass as they are ({status}): {' '.join(files)}")
    coverage: Coverage = pickle.loads(found.read_bytes())  # what our own child has just written into our folder
    for name in coverage.modules:  # every later process has them
        if name.split(".")[0] not in (*PACKAGES, "test") and not name.startswith("test_"):
            try:
                importlib.import_module(name)
            except Exception:  # modules made while running
                continue
    return coverage


def examine(
    path: Path, tree: ast.Module, waiting: list[Mutant], coverage: Coverage, jobs: int, folder: Path
) -> Iterator[tuple[Mutant, str]]:
    """Tries mutants of one module: ``killed``, ``timeout`` or ``survived``.

    Args:
        path: The module.
        tree: What its mutants change.
        waiting: The mutants; taken out of the list.
        coverage: Which tests run which lines.
        jobs: How many at a time.
        folder: Scratch.
    """
    running: dict[int, tuple[Mutant, float, Path]] = {}
    number = 0
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop(0)
            lines = {(str(path), line) for line in range(mutant.first, mutant.last + 1)}
            # What is run on import, or before a test begins, concerns every test.
            shared = bool(lines & coverage.shared)
            tests = {t: s for t, s in coverage.seconds.items() if shared or lines & coverage.tests[t]}
            if not tests:
                yield mutant, "survived"
                continue
            number += 1
            scratch = folder / str(number)
            scratch.mkdir()
            part = sorted({test.split("::")[0] for test in tests})
            old = getattr(mutant.parent, mutant.field)
            setattr(mutant.parent, mutant.field, mutant.value)
            pid = _fork(
                lambda part=part, tests=tests, scratch=scratch: _pytest(  # type: ignore[misc]
                    part, _Finder({path: tree}), _Chooser(tests), scratch
                )
            )
            setattr(mutant.parent, mutant.field, old)
            running[pid] = mutant, time.monotonic() + 60 + 5 * sum(tests.values()), scratch
        pid, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
        if pid in running:
            mutant, _, scratch = running.pop(pid)
            shutil.rmtree(scratch, ignore_errors=True)
            yield mutant, "killed" if os.waitstatus_to_exitcode(status) not in (0, 5) else "survived"
            continue
        for pid in [pid for pid, (_, end, _) in running.items() if time.monotonic() > end]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            mutant, _, scratch = running.pop(pid)
            shutil.rmtree(scratch, ignore_errors=True)
            yield mutant, "timeout"
        time.sleep(0.01)


def table(results: dict[str, dict[str, str]]) -> str:
    """Markdown: how many mutants of every module were noticed."""
    lines = ["| module | mutants | killed | timeout | survived | noticed |", "|---|---|---|---|---|---|"]
    whole: Counter[str] = Counter()
    for name, found in [*sorted(results.items()), ("**all**", None)]:
        count = whole if found is None else Counter(found.values())
        total = sum(count.values())
        if found is not None:
            whole += count
        share = f"{100 * (count['killed'] + count['timeout']) / total:.0f} %" if total else ""
        lines.append(f"| {name} | {total} | {count['killed']} | {count['timeout']} | {count['survived']} | {share} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="mutants per module; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of files")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=REPO / "out" / "mutation.json")
    parser.add_argument("--resume", action="store_true", help="keep what --out says was killed, try the others again")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(REPO)
    known: dict[str, dict[str, str]] = json.loads(options.out.read_text()) if options.resume else {}
    equivalent = {(entry["file"], entry["line"], entry["change"]) for entry in json.loads(EQUIVALENT.read_text())}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, str]] = {}
    for pattern, files in TESTS.items():
        names = {str(path.relative_to(REPO)): path for path in sorted(REPO.glob(pattern))}
        names = {name: path for name, path in names.items() if any(fnmatch.fnmatch(name, w) for w in options.only)}
        trees = {path: ast.parse(path.read_text()) for path in names.values()}
        coverage: Coverage | None = None
        for name, path in names.items():
            source = path.read_text().splitlines()
            every = {
                f"{m.first}: {source[m.first - 1].strip()}: {m.what}": m
                for m in mutants(trees[path])
                if (name, source[m.first - 1].strip(), m.what) not in equivalent
            }
            labels = list(every)
            if options.sample is not None and options.sample < len(labels):
                labels = random.Random(f"{options.seed} {name}").sample(labels, options.sample)
            before = known.get(name, {})
            found = {label: before[label] for label in labels if before.get(label) in ("killed", "timeout")}
            results[name] = found
            waiting = [every[label] for label in labels if label not in found]
            label_of = {id(every[label]): label for label in labels}
            with tempfile.TemporaryDirectory() as folder:
                if waiting and coverage is None:
                    coverage = record(files, trees, Path(folder))
                for mutant, outcome in examine(
                    path, trees[path], waiting, coverage or Coverage(), options.jobs, Path(folder)
                ):
                    found[label_of[id(mutant)]] = outcome
                    if outcome != "killed":
                        print(f"{outcome}: {name}:{label_of[id(mutant)]}", flush=True)
            options.out.write_text(json.dumps(known | results, indent=1, sort_keys=True) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
