"""What recognition costs beside the encoders: sensors by labels, fused by a batch of masks and by pairs of tokens.

Prints CPU time in ms, the median of rounds in which all ways take turns. Reading the labels once is measured in the
same run: with many labels no tick can be faster.

    python tools/bench_recognise.py [--sensors 6 64 256] [--labels 150 50000] [--rounds 9] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from omnibind_core import LabelBank, OmniBind
from omnibind_core.fusion import Fusion
from omnibind_core.runtime import EngineSettings, PerceptionEngine, SensorConfig
from omnibind_core.runtime.types import Encoded

SECOND = 1_000_000_000
MEMORY = 2**31
"""Bytes that the batch of masks may take, else it is not measured."""


class ByMasks(torch.nn.Module):
    """A fusion that has no shorter way than a batch of masks."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.inner = fusion

    def leave_one_out(self, *given: Any) -> Any:
        """See :meth:`Fusion.leave_one_out`."""
        return Fusion.leave_one_out(self.inner, *given)


def bank(labels: int, dim: int) -> LabelBank:
    """Made-up labels."""
    rows = F.normalize(torch.randn(labels, dim, generator=torch.Generator().manual_seed(0)), dim=1)
    return LabelBank(tuple(f"label {index}" for index in range(labels)), rows, torch.arange(labels))


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU ms of each, all taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            taken[name].append(1000 * (time.process_time() - begin))
    return {name: statistics.median(values) for name, values in taken.items()}


def measured(model: OmniBind, sensors: int, labels: int, rounds: int) -> dict[str, float]:
    """CPU ms of each way for so many sensors and labels."""
    kinds = [name for name in model.config.modalities if name != "text"]
    names = [kinds[index % len(kinds)] for index in range(sensors)]
    drawn = torch.Generator().manual_seed(1)
    tokens = F.normalize(torch.randn(sensors, model.config.embed_dim, generator=drawn), dim=1)
    model.labels = bank(labels, model.config.embed_dim)
    rows = model.labels.prototypes()
    fusion = model.fusion

    def built(module: Any) -> Any:
        """What recognises with a fusion; a tick does not build it."""
        model._modules["fusion"] = module
        assert model.recogniser is not None
        return model._recogniser

    def by(module: Any) -> Callable[[], object]:
        made = built(module)

        def way() -> object:
            model._modules["fusion"], model._recogniser = module, made
            try:
                return model.recognise(names, tokens)
            finally:
                model._modules["fusion"], model._recogniser = fusion, own

        return way

    own = built(fusion)

    settings = [SensorConfig(f"sensor_{index}", name) for index, name in enumerate(names)]
    engine = PerceptionEngine(model, settings, lambda _, payload: payload, EngineSettings())
    now = [SECOND]

    def push() -> None:
        now[0] += SECOND // 10
        for sensor, token in zip(settings, tokens.numpy(), strict=True):
            engine.push(sensor.name, now[0], now[0], Encoded("embedding", token))

    def tick() -> object:
        return engine.compute(engine.select(now[0]))

    ways: dict[str, Callable[[], object]] = {"recognise": by(fusion)}
    if sensors**2 * model.config.embed_dim * 4 <= MEMORY and sensors * labels * 4 * 20 <= MEMORY:
        ways["recognise by masks"] = by(ByMasks(fusion).eval())
    ways |= {
        "product": lambda: model.labels.similarities(tokens),
        "read": rows.sum,
        "push": push,
        "select": lambda: engine.select(now[0]),
        "select and compute": tick,
        "reports": lambda: engine.reports(now[0]),
        "awaited": lambda: engine.awaited(now[0], now[0], now[0]),
    }
    with torch.inference_mode():
        found = in_turns(ways, rounds)
    found["read GB/s"] = rows.numel() * 4 / found["read"] / 1e6
    found["share of read"] = found["read"] / found["recognise"]
    return found


def main() -> None:
    """Runs the benchmark; writes bench_recognise.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="lite")
    parser.add_argument("--sensors", type=int, nargs="+", default=[6, 64, 256])
    parser.add_argument("--labels", type=int, nargs="+", default=[150, 50000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder to write (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = OmniBind.from_pretrained(args.model, modalities=[])
    found = []
    for labels in args.labels:
        for sensors in args.sensors:
            figures = measured(model, sensors, labels, args.rounds)
            found.append({"sensors": sensors, "labels": labels, **{key: round(x, 3) for key, x in figures.items()}})
            print(json.dumps(found[-1]), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_recognise.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
