#!/usr/bin/env python3
"""Measures ticks of six sensors on one GPU, `make bench-gpu`; with `--device cpu` in each engine, `make bench`.

ImageBind-huge has random weights: nothing is downloaded.

A tick is what the fusion node asks of a model: views of six sensors on the host, to six embeddings and a recognition
on the host. It is made by a plain loop, one modality at a time, as ImageBind's own code does it, and by ours. All are
run in turn, in random order, so that what the machine does meanwhile meets them alike. Preprocessing is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from omnibind_core import OmniBind, encoders, fusion, modalities
from omnibind_core.encoders.inference import lower
from omnibind_core.encoders.inference.engines import candidates
from omnibind_core.errors import OmniBindError
from omnibind_core.labels import LabelBank
from omnibind_core.modalities.base import Events, Sound
from omnibind_core.model import WEIGHTS

SENSORS = ("image", "touch", "thermal", "event", "point_cloud", "audio")
HALVES = ("bfloat16", "float16")
_BLOCK = 10  # ticks of one way before the next one's turn
_DIFFERENT = 8  # ticks that differ
_LABELS = 100  # of a model without a vocabulary

Tick = list[tuple[str, NDArray[Any]]]


@dataclass
class Way:
    """One way to make a tick.

    Attributes:
        name: For the table.
        model: Its model.
        encode: Makes embeddings ``[6, D]`` on the host.
        tf32: Whether float32 products may use TF32.
        unit: Whose peak it is compared with.
        ready: Seconds that its first ticks took, recording included.
        encoded: Seconds of the encoders, one for each tick.
        ticks: Seconds of whole ticks.
        used: Seconds that all processors together spent on them.
    """

    name: str
    model: OmniBind
    encode: Callable[[OmniBind, Tick], Tensor]
    tf32: bool = False
    unit: str = "float32"
    ready: float = 0.0
    encoded: list[float] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)


@contextlib.contextmanager
def arithmetic(tf32: bool) -> Iterator[None]:
    """Whether float32 products may use TF32, which torch allows for convolutions alone."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@torch.inference_mode()
def one_by_one(model: OmniBind, tick: Tick) -> Tensor:
    """As ImageBind's own code: each modality by itself, the results fetched at the end."""
    rows = [model.encoders.embed(name, model.features(model.encoders.trunk_of[name], [views])) for name, views in tick]
    return torch.cat(rows).cpu()


def by_trunk(model: OmniBind, tick: Tick) -> Tensor:
    """As the model does: one pass for each trunk, from recorded graphs if it was accelerated."""
    return model.embed(tick).cpu()


def build(name: str, device: torch.device) -> OmniBind:
    """A model for six sensors; with random weights, made on the device, unless it is shipped."""
    if (WEIGHTS / name / "config.json").is_file():
        return OmniBind.from_pretrained(name, device, SENSORS)
    config = encoders.load_config(name).model_copy(update={"weights": None})
    with torch.device(device):
        torch.manual_seed(0)
        parts = encoders.build(config, set(SENSORS), device)
        fused = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
        rows = F.normalize(torch.randn(_LABELS, config.embed_dim), dim=1)
        labels = LabelBank(tuple(f"label {i}" for i in range(_LABELS)), rows, torch.arange(_LABELS))
    return OmniBind(config, parts, fused, labels).to(device)


def sensor_data(rng: np.random.Generator) -> dict[str, Any]:
    """A raw item of each sensor: smooth pictures, events of an edge, a bent surface, tones in noise."""

    def picture(height: int, width: int, channels: int) -> NDArray[np.float32]:
        import cv2

        coarse = rng.random((8, 10, channels), dtype=np.float32)
        return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32).clip(0, 1)

    colours = (255 * picture(480, 640, 3)).astype(np.uint8)
    count = 20_000
    x = rng.integers(200, 440, count)
    y = np.clip(x + rng.integers(-20, 20, count), 0, 479)
    stamps = np.sort(rng.integers(0, 50_000, count))
    small = {"x": x.astype(np.uint16), "y": y.astype(np.uint16), "t": stamps, "p": (x % 2).astype(np.uint8)}
    plane = rng.uniform(-1, 1, (4096, 2))
    height = np.sin(rng.uniform(1, 4) * plane[:, :1]) * plane[:, 1:]
    seconds = np.arange(32_000) / 16_000
    tones = sum(np.sin(2 * np.pi * pitch * seconds) for pitch in rng.uniform(100, 4000, 3)) / 6
    return {
        "image": colours,
        "touch": (255 * picture(240, 320, 3)).astype(np.uint8),
        "thermal": 15 + 20 * picture(120, 160, 1).reshape(120, 160),
        "event": Events(**small, width=640, height=480),
        "point_cloud": np.hstack([plane, height]).astype(np.float32),
        "audio": Sound((tones + 0.02 * rng.standard_normal(32_000)).astype(np.float32), 16_000),
    }


def make_ticks(model: OmniBind) -> list[Tick]:
    """Preprocessed ticks, all different."""
    made = []
    for seed in range(_DIFFERENT):
        raw = sensor_data(np.random.default_rng(seed))
        checked = {name: modalities.get(name).check(raw[name], name) for name in SENSORS}
        made.append([(name, model.process(name, checked[name])) for name in SENSORS])
    return made


def ways(plain: OmniBind, device: torch.device) -> tuple[list[Way], dict[str, Any]]:
    """All ways to make a tick, the plain loop first; and what of each trunk is verified in half precision."""

    def wrapped(parts: encoders.EncoderSet, fast: bool, engine: str = "torch") -> OmniBind:
        model = OmniBind(plain.config, parts, plain.fusion, plain.labels, plain.calibration)
        if fast:
            model.accelerate(engine=engine)
        return model

    fast = device.type == "cuda"
    found = [
        Way("plain loop, float32", plain, one_by_one),
        Way("a pass for each trunk, float32", plain, by_trunk),
    ]
    if device.type == "cpu":
        for engine in candidates("auto"):
            found.append(Way(engine, wrapped(copy.deepcopy(plain.encoders), True, engine), by_trunk))
        return found, {}
    found.append(Way("plain loop, TF32", plain, one_by_one, True, "tf32"))
    found.append(Way("a pass for each trunk, TF32", plain, by_trunk, True, "tf32"))
    if fast:
        found.append(Way("graphs, float32", wrapped(plain.encoders, True), by_trunk))
        found.append(Way("graphs, TF32", wrapped(plain.encoders, True), by_trunk, True, "tf32"))
    parts = {name: plain.config.modalities[name] for name in plain.encoders.heads}
    presets = {name: modalities.get(name).preset(part.preset) for name, part in parts.items()}
    verified = {}
    for half in HALVES:
        halved = copy.deepcopy(plain.encoders)
        with arithmetic(False):
            verified[half] = lower(halved, presets, half, device)
        for name, trunk in halved.trunks.items():
            if not np.isnan(verified[half].get(name, ("", np.nan))[1]):
                trunk.to(getattr(torch, half))  # measured also where it is not verified
        found.append(Way(f"plain loop, {half}", wrapped(halved, False), one_by_one, unit=half))
        found.append(Way(f"a pass for each trunk, {half}", wrapped(halved, False), by_trunk, unit=half))
        if fast:
            found.append(Way(f"graphs, {half}", wrapped(halved, True), by_trunk, unit=half))
    return found, verified


def measure(found: Sequence[Way], ticks: Sequence[Tick], count: int) -> None:
    """Runs all ways in turn; fills their times."""
    for way in found:
        start = time.perf_counter()
        with arithmetic(way.tf32):
            way.model.warm_up(SENSORS)
            for tick in ticks:
                way.model.recognise(SENSORS, way.encode(way.model, tick))
        way.ready = time.perf_counter() - start
    rng = np.random.default_rng(0)
    for turn in range(-(-count // _BLOCK)):
        for number in rng.permutation(len(found)):
            way = found[number]
            with arithmetic(way.tf32):
                way.encode(way.model, ticks[0])  # the caches are another's
                for i in range(min(_BLOCK, count - turn * _BLOCK)):
                    tick = ticks[(turn + i) % len(ticks)]
                    start, before = time.perf_counter(), time.process_time()
                    rows = way.encode(way.model, tick)
                    middle = time.perf_counter()
                    way.model.recognise(SENSORS, rows)
                    way.encoded.append(middle - start)
                    way.ticks.append(time.perf_counter() - start)
                    way.used.append(time.process_time() - before)


def cosines(found: Sequence[Way], ticks: Sequence[Tick]) -> dict[str, dict[str, float]]:
    """The least cosine to the plain loop in float32, by way and modality."""
    embedded = {}
    for way in found:
        with arithmetic(way.tf32):
            embedded[way.name] = torch.stack([way.encode(way.model, tick).double() for tick in ticks])
    wanted = F.normalize(embedded[found[0].name], dim=2)
    least = {
        name: (F.normalize(rows, dim=2) * wanted).sum(dim=2).amin(dim=0).tolist() for name, rows in embedded.items()
    }
    return {name: dict(zip(SENSORS, values, strict=True)) for name, values in least.items()}


def operations(model: OmniBind, tick: Tick) -> dict[str, int]:
    """Floating-point operations of the products of a tick, by trunk: two for each multiplication and addition."""
    counted: dict[str, int] = {}
    for name, views in tick:
        trunk = model.encoders.trunk_of[name]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.encoders.features(trunk, torch.from_numpy(views).to(model.device), [len(views)])
        counted[trunk] = counted.get(trunk, 0) + counter.get_total_flops()
    return counted


def peaks(device: torch.device, size: int) -> dict[str, float]:
    """Operations a second of a square product of random numbers, the median of ten, by arithmetic."""
    found = {}
    for unit in ("float32", "tf32", "bfloat16", "float16") if device.type == "cuda" else ("float32",):
        dtype = torch.float32 if unit == "tf32" else getattr(torch, unit)
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = []
        with arithmetic(unit == "tf32"):
            for _ in range(13):
                wait(device)
                start = time.perf_counter()
                torch.mm(a, b)
                wait(device)
                seconds.append(time.perf_counter() - start)
        found[unit] = 2 * size**3 / float(np.median(seconds[3:]))
    return found


def wait(device: torch.device) -> None:
    """For the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def by_trunks(way: Way, ticks: Sequence[Tick], work: Mapping[str, int], peak: float) -> dict[str, dict[str, float]]:
    """Where the time of one way goes: each trunk's sensors alone, and the recognition alone."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(SENSORS):
        groups.setdefault(way.model.encoders.trunk_of[name], []).append(index)
    found: dict[str, dict[str, float]] = {}
    with arithmetic(way.tf32):
        for trunk, at in groups.items():
            asked = [[tick[index] for index in at] for tick in ticks]
            seconds = _median(functools.partial(way.encode, way.model), asked)
            found[trunk] = {"ms": 1e3 * seconds, "share_of_peak": work[trunk] / seconds / peak}
        rows = way.encode(way.model, ticks[0])
        here = copy.deepcopy(way.model.fusion).cpu()
        nothing = encoders.EncoderSet({}, {}, {}, way.model.config.embed_dim)
        cpu = OmniBind(way.model.config, nothing, here, way.model.labels.to("cpu"), way.model.calibration)
        for name, model in (("recognise", way.model), ("recognise on the CPU", cpu)):
            found[name] = {"ms": 1e3 * _median(functools.partial(model.recognise, SENSORS), [rows])}
    return found


def _median(run: Callable[[Any], Any], inputs: Sequence[Any], count: int = 30) -> float:
    seconds = []
    for i in range(count + 3):
        start = time.perf_counter()
        run(inputs[i % len(inputs)])
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[3:]))


def accuracy(found: Sequence[Way], root: Path, most: int) -> dict[str, dict[str, Any]]:
    """Top-1 on validation samples of a folder, by way and modality; share of answers, and cosines, as of the first."""
    from omnibind_core.data.concepts import Concepts
    from omnibind_core.data.sources.folder import FolderSource

    model = found[0].model
    place = {name: index for index, name in enumerate(model.labels.names)}
    concepts = Concepts.read(WEIGHTS / model.name / "labels.csv")
    out: dict[str, dict[str, Any]] = {way.name: {} for way in found}
    for name in SENSORS:
        asked = FolderSource(root).samples(split="val", modality=name)
        known = [(sample, place.get(concepts.get(sample.source, sample.label) or "")) for sample in asked]
        chosen = [(sample, label) for sample, label in known if label is not None]
        chosen = [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))[:most]]
        if not chosen:
            continue
        definition = modalities.get(name)
        views = [model.process(name, definition.load(root / sample.path)) for sample, _ in chosen]
        wanted = torch.tensor([label for _, label in chosen])
        first: Tensor | None = None
        for way in found:
            with arithmetic(way.tf32):
                rows = torch.cat([way.encode(way.model, [(name, part)]) for part in views])
            first = rows if first is None else first
            answers, before = (
                model.labels.similarities(part.to(model.labels.rows.device)).argmax(dim=1).cpu()
                for part in (rows, first)
            )
            near = (F.normalize(rows.double(), dim=1) * F.normalize(first.double(), dim=1)).sum(dim=1)
            out[way.name][name] = {
                "top1": (answers == wanted).double().mean().item(),
                "same": (answers == before).double().mean().item(),
                "least_cosine": near.min().item(),
                "mean_cosine": near.mean().item(),
                "samples": len(chosen),
            }
    return out


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Of times, in ms; the quartiles are those of the turns' medians."""
    array = 1e3 * np.asarray(seconds)
    turns = [float(np.median(part)) for part in np.array_split(array, max(1, len(array) // _BLOCK))]
    return {
        "p50": float(np.median(array)),
        "p99": float(np.quantile(array, 0.99)),
        "turns_25": float(np.quantile(turns, 0.25)),
        "turns_75": float(np.quantile(turns, 0.75)),
    }


def bench(name: str, device: torch.device, args: argparse.Namespace, peak: Mapping[str, float]) -> dict[str, Any]:
    """Everything of one model."""
    start = time.perf_counter()
    plain = build(name, device)
    wait(device)
    built = time.perf_counter() - start
    ticks = make_ticks(plain)
    work = operations(plain, ticks[0])
    found, verified = ways(plain, device)
    measure(found, ticks, args.ticks)
    near = cosines(found, ticks)
    base, used = spread(found[0].ticks)["p50"], spread(found[0].used)["p50"]
    rows: dict[str, dict[str, Any]] = {}
    for way in found:
        encoded, whole = spread(way.encoded), spread(way.ticks)
        rows[way.name] = {
            "encode_ms": encoded,
            "tick_ms": whole,
            "used_ms": spread(way.used),
            "used_by_first": used / spread(way.used)["p50"],
            "times_as_fast": base / whole["p50"],
            "share_of_peak": sum(work.values()) / (1e-3 * encoded["p50"]) / peak[way.unit],
            "first_ticks_s": way.ready,
            "least_cosine": near[way.name],
        }
    best = min(found, key=lambda way: rows[way.name]["tick_ms"]["p50"])
    result: dict[str, Any] = {
        "built_s": built,
        "views": {kind: len(views) for kind, views in ticks[0]},
        "operations": work,
        "verified": verified,
        "ways": rows,
        "parts": {way.name: by_trunks(way, ticks, work, peak[way.unit]) for way in (found[0], best)},
    }
    if device.type == "cuda":
        result["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    if args.data is not None and (WEIGHTS / name / "labels.csv").is_file():
        result["top1"] = accuracy(found, args.data, args.samples)
    return result


def show(name: str, result: Mapping[str, Any]) -> None:
    """Prints the tables of one model, in Markdown."""
    views = ", ".join(f"{count} {kind}" for kind, count in result["views"].items())
    work = sum(result["operations"].values()) / 1e9
    print(f"\n{name}: {views}; {work:,.0f} GFLOP a tick; built in {result['built_s']:.1f} s\n")
    columns = (
        "tick, ms: p50 | quartiles of turns | p99 | times as fast | encoders, ms | share of peak | least cosine | "
        "processors, ms | times less"
    )
    print(f"| way | {columns} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for way, row in result["ways"].items():
        tick, least = row["tick_ms"], min(row["least_cosine"].items(), key=lambda item: item[1])
        print(
            f"| {way} | {tick['p50']:.2f} | {tick['turns_25']:.2f} to {tick['turns_75']:.2f} | {tick['p99']:.2f} | "
            f"{row['times_as_fast']:.1f} | {row['encode_ms']['p50']:.2f} | {100 * row['share_of_peak']:.0f} % | "
            f"{least[1]:.6f} ({least[0]}) | {row['used_ms']['p50']:.2f} | {row['used_by_first']:.1f} |"
        )
    for way, parts in result["parts"].items():
        told = [f"{part} {values['ms']:.2f} ms" for part, values in parts.items()]
        told = [
            text + (f" ({100 * values['share_of_peak']:.0f} % of peak)" if "share_of_peak" in values else "")
            for text, values in zip(told, parts.values(), strict=True)
        ]
        print(f"\n{way}, each alone: {', '.join(told)}")
    for half, trunks in result["verified"].items():
        told = [f"{trunk} {precision} ({cosine:.6f})" for trunk, (precision, cosine) in trunks.items()]
        print(f"\nprecision {half} gives: {', '.join(told)}")
    if "top1" in result:
        first = next(iter(result["top1"].values()))
        heads = [f"{kind} ({values['samples']})" for kind, values in first.items()]
        print(f"\n| top-1, %; as the first, %; least cosine | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        for way, row in result["top1"].items():
            cells = [
                f"{100 * values['top1']:.1f}; {100 * values['same']:.1f}; {values['least_cosine']:.5f}"
                for values in row.values()
            ]
            print(f"| {way} | {' | '.join(cells)} |")


def machine(device: torch.device) -> dict[str, Any]:
    """What it was measured on."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
    }
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        facts |= {"cpu": names[0] if names else platform.machine(), "cpu_threads": len(names)}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        facts |= {"gpu": found.name, "gpu_gib": found.total_memory / 2**30, "processors": found.multi_processor_count}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
        with contextlib.suppress(OSError):
            facts["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return facts


def main() -> int:
    """Measures, prints, and writes bench_gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lite", "imagebind_huge"], help="(default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the processor (default: torch's choice)")
    parser.add_argument("--ticks", type=int, default=200, metavar="N", help="of each way (default: %(default)s)")
    parser.add_argument(
        "--gemm", type=int, default=8192, metavar="N", help="side of the product (default: %(default)s)"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with samples.csv: top-1 of its split val")
    parser.add_argument("--samples", type=int, default=200, metavar="N", help="of a modality (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/bench_gpu"), help="folder to write (default: %(default)s)"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    report: dict[str, Any] = {"machine": machine(device), "peaks": peaks(device, args.gemm), "models": {}}
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    told = [f"{unit} {value / 1e12:.3g}" for unit, value in report["peaks"].items()]
    print(f"product of two random matrices of {args.gemm}, TFLOP/s: {', '.join(told)}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    status = 0
    for name in args.model:
        try:
            report["models"][name] = bench(name, device, args, report["peaks"])
            show(name, report["models"][name])
        except (OmniBindError, RuntimeError) as error:  # the others may work
            status = 1
            report["models"][name] = {"error": str(error)}
            traceback.print_exc()
        sys.stdout.flush()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        report["seconds"] = time.perf_counter() - start
        (args.out / "bench_gpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{report['seconds']:.0f} s; written: {args.out / 'bench_gpu.json'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
