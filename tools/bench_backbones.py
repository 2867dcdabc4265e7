#!/usr/bin/env python3
"""Measures time and memory of loading ImageBind at full size: one modality, or all, from a file of random weights.

The file has 4.8 GB; every measurement is a process of its own that finds nothing of it in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from omnibind_core import encoders, modalities
from omnibind_core.encoders.checkpoints import open_checkpoint
from omnibind_core.encoders.imagebind.model import ImageBind

_CONFIG = "imagebind_huge"
_CASES = (["image"], ["text"], ["audio"], ["thermal"], ["image", "audio"], ["image", "text", "audio", "thermal"])


def make_file(path: Path) -> None:
    """Writes weights that are random, but have the names, shapes and rough scale of the real ones."""
    towers: Any = encoders.load_config(_CONFIG).trunks.values()
    with torch.device("meta"):
        expected = ImageBind(*towers).state_dict()
    torch.manual_seed(0)
    state = {name: 0.02 * torch.randn(tensor.shape) for name, tensor in expected.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Drops a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory() -> dict[str, float]:
    """Memory of this process in GB: now, of its own (not mapped from a file), and the largest so far."""
    fields = {"VmRSS": "now", "RssAnon": "own", "VmHWM": "peak"}
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[key].split()[0]) / 1e6 for key, name in fields.items()}


def measure(path: str, wanted: list[str], precision: str | None, whole: bool) -> dict[str, Any]:
    """Loads and encodes one item of each modality; seconds and GB above what Python and PyTorch need."""
    start = memory()
    clock = time.perf_counter()
    config = encoders.load_config(_CONFIG)
    text = config.trunks["text"].model_copy(update={"vocabulary": None, "precision": precision})
    parts = {name: part.model_copy(update={"precision": precision}) for name, part in config.trunks.items()}
    config = config.model_copy(update={"weights": path, "trunks": {**parts, "text": text}})
    if whole:  # as programs usually do it: all at random, the file read into memory, then copied
        towers: Any = config.trunks.values()
        network = ImageBind(*towers)
        network.load_state_dict(torch.load(path, weights_only=True))
        return {"load_s": time.perf_counter() - clock, "loaded": _above(start)}
    built = encoders.build(config, wanted)
    loaded = {"load_s": time.perf_counter() - clock, "loaded": _above(start)}
    seconds = []
    for _ in range(2):
        clock = time.perf_counter()
        with torch.inference_mode():
            for name in wanted:
                trunk: Any = built.trunks[built.trunk_of[name]]
                if name == "text":
                    trunk.encode("text", torch.arange(77)[None])
                else:
                    preset = modalities.get(name).preset(config.modalities[name].preset)
                    trunk(torch.from_numpy(np.zeros((1, *preset.shape), preset.dtype)))
        seconds.append(time.perf_counter() - clock)
    return {**loaded, "first_s": seconds[0], "again_s": seconds[1], "used": _above(start)}


def _above(start: dict[str, float]) -> dict[str, float]:
    return {name: value - start[name] for name, value in memory().items()}


def main() -> int:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the file is written; needs 5 GB (default: a temporary one)")
    parser.add_argument("--suffix", choices=(".pth", ".safetensors"), default=".pth", help="(default: %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(**json.loads(arguments.measure))))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / f"{_CONFIG}{arguments.suffix}"
        make_file(path)
        open_checkpoint(path)
        print(f"{path.stat().st_size / 1e9:.2f} GB, {torch.get_num_threads()} thread(s); memory in GB\n")
        print("| modalities | load, s | own memory | first item, s | next item, s | own memory | peak |")
        print("|---|---|---|---|---|---|---|")
        cases = [(names, precision, False) for precision in (None, "bfloat16") for names in _CASES]
        for names, precision, whole in [*cases, (["everything, the usual way"], None, True)]:
            forget(path)
            settings = {"path": str(path), "wanted": names, "precision": precision, "whole": whole}
            command = [sys.executable, __file__, "--measure", json.dumps(settings)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            found = json.loads(done.stdout)
            last = found.get("used", found["loaded"])
            times = [f"{found[key]:.2f}" if key in found else "–" for key in ("load_s", "first_s", "again_s")]
            title = ", ".join(names) + (f" ({precision})" if precision else "")
            print(
                f"| {title} | {times[0]} | {found['loaded']['own']:.2f} | {times[1]} | {times[2]} | "
                f"{last['own']:.2f} | {last['peak']:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
