"""Engines: what runs an exported file. All of them take the same ONNX files."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError
from omnibind_core.files import cache_folder
from omnibind_core.optional import require
from omnibind_core.parallel import cores

Engine = Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"]
ENGINES: tuple[str, ...] = get_args(Engine)
"""What may run trunks; ``auto`` takes the fastest that is installed and gives what torch gives, on a CPU."""
_FASTEST_FIRST = ("openvino", "onnxruntime")
_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
_PROVIDERS = {"onnxruntime": (_CPU,), "tensorrt": (_TENSORRT, _CUDA, _CPU)}
"""Of ONNX Runtime, by engine, where none are named: TensorRT is reached through it, which leaves what TensorRT does not
know to the next one."""
_TENSORRT_ROWS = (1, 8, 64)
"""The least, usual and most rows of a batch that TensorRT builds an engine for; outside of them it builds another."""

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], list[NDArray[Any]]]
"""Runs a network: its outputs in their order, of its inputs by name; what it does not need may be among them.

Several threads may call it.
"""


def candidates(engine: str, providers: Sequence[str] = ()) -> tuple[str, ...]:
    """The engines to try, in turn; none means torch.

    Args:
        engine: One of :data:`ENGINES`.
        providers: What ONNX Runtime is to run on, the first that knows an operator; empty for those of the engine.

    Raises:
        ConfigError: There is no such engine, or no such provider here.
        MissingDependencyError: It was asked for by name and is not installed.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine is '{engine}', expected one of {', '.join(ENGINES)}")
    if providers and engine not in _PROVIDERS:
        raise ConfigError(f"providers are of ONNX Runtime, and engine is '{engine}'; expected onnxruntime or tensorrt")
    if engine in _PROVIDERS:
        runtime: Any = require("onnxruntime", f"The engine {engine}")
        available = runtime.get_available_providers()
        missing = [name for name in providers or _PROVIDERS[engine] if name not in available]
        if missing:
            needs = "needs" if not providers else "has the providers"
            raise ConfigError(
                f"engine '{engine}' {needs} {', '.join(missing)}, which this ONNX Runtime lacks; available are "
                f"{', '.join(available)}"
            )
        return (engine,)
    if engine == "torch":
        return ()
    if engine == "auto":
        return tuple(name for name in _FASTEST_FIRST if importlib.util.find_spec(name) is not None)
    require(engine, f"The engine {engine}")
    return (engine,)


def threads() -> int:
    """As many as torch computes with; if it is not imported, ``$OMP_NUM_THREADS``, else all cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return cores()


def open_network(engine: str, path: Path, providers: Sequence[str] = (), count: int | None = None) -> Run:
    """Opens an ONNX file; OpenVINO opens its own, too.

    Its threads sleep while they wait: a thread that spins costs most where the machine is busy.

    Args:
        engine: One of :data:`ENGINES` but ``auto`` and ``torch``.
        path: The file; what it keeps in further files lies beside it.
        providers: As of :func:`candidates`.
        count: Of threads; None for that of :func:`threads`.

    Raises:
        Exception: Whatever the engine raises where it cannot run the file.
    """
    count = threads() if count is None else count
    if engine == "openvino":
        return _openvino(path, count)
    return _onnxruntime(path, providers or _PROVIDERS[engine], count)


def _onnxruntime(path: Path, providers: Sequence[str], count: int) -> Run:
    runtime: Any = require("onnxruntime", "The engine onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = count
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings are of what it does differently for some processors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given: list[Any] = list(providers)
    if _TENSORRT in given:
        inputs = runtime.InferenceSession(path, options, providers=[_CPU]).get_inputs()
        given[given.index(_TENSORRT)] = (_TENSORRT, _tensorrt_options({node.name: node.shape for node in inputs}))
    session = runtime.InferenceSession(path, options, providers=given)
    if missing := set(providers) - set(session.get_providers()):  # it would do without them, with a warning
        raise RuntimeError(f"{', '.join(sorted(missing))} did not start here")
    names = [node.name for node in session.get_inputs()]

    def run(inputs: Arrays) -> list[NDArray[Any]]:
        return list(session.run(None, {name: inputs[name] for name in names}))

    return run


def _tensorrt_options(inputs: Mapping[str, Sequence[int | str]]) -> dict[str, Any]:
    """Keeps what was built, minutes of work, and builds for every batch of a tick where only the rows may be any.

    Args:
        inputs: Shape of each input, with names in the place of sizes that may be any.
    """
    folder = cache_folder() / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
    }
    if all(isinstance(size, int) for shape in inputs.values() for size in shape[1:]):
        for what, rows in zip(("min", "opt", "max"), _TENSORRT_ROWS, strict=True):
            shapes = (f"{name}:{'x'.join(map(str, (rows, *shape[1:])))}" for name, shape in inputs.items())
            options[f"trt_profile_{what}_shapes"] = ",".join(shapes)
    return options


def _openvino(path: Path, count: int) -> Run:
    openvino: Any = require("openvino", "The engine openvino")
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": count,
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the processor has it
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    with contextlib.suppress(OSError):  # it does without
        compiled = cache_folder() / "exported" / "openvino"
        compiled.mkdir(parents=True, exist_ok=True)
        settings["CACHE_DIR"] = str(compiled)  # of what it made of the file, which it maps the next time
    core = openvino.Core()
    compiling = threading.Lock()

    def request() -> Any:
        with compiling:
            return core.compile_model(path, "CPU", settings).create_infer_request()

    free = [request()]  # the memory of one is one thread's at a time, and so are its processors
    # Each input has the names of what was merged into it, too.
    names = [node.get_names() for node in free[0].get_compiled_model().inputs]

    def run(inputs: Arrays) -> list[NDArray[Any]]:
        try:
            mine = free.pop()
        except IndexError:  # another thread is at it
            mine = request()
        try:
            given = [next(inputs[name] for name in known if name in inputs) for known in names]
            found = mine.infer(dict(enumerate(given)), share_inputs=True)
            return [np.array(rows) for rows in found.values()]
        finally:
            free.append(mine)

    return run
