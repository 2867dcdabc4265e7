"""What ten things with six sensors cost, against one scene prediction of the same sensors in the same run.

Made-up things that move past a camera, a thermal camera, an event camera and a LiDAR; a hand touches the first, a
microphone hears the scene. A detector gives their boxes in space, or the package's own proposers find them. Scene and
things take turns, tick by tick, each tick with new items of all sensors. Prints ms and ratios of the tick in which all
things are new, of those until all is encoded once, and of those after.

    python tools/bench_objects.py [--engine openvino] [--propose] [--speed 0.3] [--ticks 60] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.geometry import Camera, FrameTree, Transform
from omnibind_core.modalities import Events, Sound
from omnibind_core.model.loading import load_model
from omnibind_core.objects.engine import ObjectEngine, readings
from omnibind_core.objects.regions import Region3D, Volume
from omnibind_core.objects.rig import BODY, Rig
from omnibind_core.objects.types import PROPOSERS, ObjectSettings
from omnibind_core.runtime import EngineSettings, PerceptionEngine, SensorConfig
from omnibind_core.runtime.sensor import Item

SECOND = 1_000_000_000
CAMERAS = {"camera": (640, 480), "thermal": (320, 240), "event": (346, 260)}
KINDS = {
    "camera": "image",
    "thermal": "thermal",
    "event": "event",
    "lidar": "point_cloud",
    "skin": "touch",
    "ear": "audio",
}
STAGES = ("find", "crop", "encode", "fuse")
FRAMES = {"lidar": "lidar", "skin": "hand", "ear": "", **dict.fromkeys(CAMERAS, "eyes")}


class World:
    """Things in two rows, which move to and fro across.

    Args:
        count: How many.
        speed: m/s at most.
    """

    def __init__(self, count: int, speed: float) -> None:
        self.rng = np.random.default_rng(0)
        self.speed = speed
        row = np.arange(count) % ((count + 1) // 2) - (count - 1) / 4
        far = np.arange(count) * 2 >= count
        self.starts = np.stack(
            [np.where(far, 6.5, 4.0), row * np.where(far, 1.9, 1.3), np.where(far, 0.9, 0.0)], axis=1
        )
        self.sizes = np.where(far, 0.8, 0.6)
        tree = FrameTree()
        tree.add("map", "eyes", BODY.inverse())
        tree.add("map", "lidar", Transform.identity())
        tree.add("map", "hand", Transform(np.eye(3), self.starts[0]))
        self.rig = Rig("map", tree)
        for name, (width, height) in CAMERAS.items():
            self.rig.cameras[name] = Camera(width, height, (width / 2, width / 2), (width / 2 - 0.5, height / 2 - 0.5))

    def volumes(self, seconds: float) -> list[Volume]:
        """Where the things are."""
        turns = 2 * np.pi * (seconds / 4 + np.arange(len(self.starts)) / 7)
        moved = self.starts + np.outer(np.sin(turns) * self.speed * 4 / (2 * np.pi), (0, 1, 0))
        spread = 0.03**2 * np.eye(3)
        return [Volume(at, np.full(3, size), np.eye(3), spread) for at, size in zip(moved, self.sizes, strict=True)]

    def items(self, volumes: list[Volume]) -> dict[str, Any]:
        """What each sensor measures."""
        picture = self.rng.integers(60, 120, (480, 640, 3)).astype(np.uint8)
        warmth = self.rng.normal(20, 0.5, (240, 320)).astype(np.float32)
        events = [self.rng.integers(0, 260, (2, 5000))]
        for number, volume in enumerate(volumes):
            for name in CAMERAS:
                left, top, right, bottom = self.box(name, volume)
                if name == "camera":
                    picture[top:bottom, left:right] //= 2
                    picture[top:bottom, left:right, number % 3] += 100
                elif name == "thermal":
                    warmth[top:bottom, left:right] += 12
                else:
                    events.append(
                        np.stack([self.rng.integers(left, right, 1500), self.rng.integers(top, bottom, 1500)])
                    )
        x, y = np.concatenate(events, axis=1)
        times = np.sort(self.rng.integers(0, 50_000, len(x)))
        return {
            "camera": picture,
            "thermal": warmth,
            "event": Events(x.astype(np.uint16), y.astype(np.uint16), times, (x % 2).astype(np.uint8), 346, 260),
            "lidar": self.cloud(volumes),
            "skin": self.rng.random((64, 64)).astype(np.float32),
            "ear": Sound(self.rng.normal(0, 0.1, 32_000).astype(np.float32), 16_000),
        }

    def box(self, name: str, volume: Volume) -> tuple[int, int, int, int]:
        """Pixels of a thing."""
        width, height = CAMERAS[name]
        pixels = self.rig.cameras[name].project(BODY(volume.corners))[0]
        (left, top), (right, bottom) = pixels.min(axis=0).round().astype(int), pixels.max(axis=0).round().astype(int)
        return max(left, 0), max(top, 0), max(min(right, width), left + 2), max(min(bottom, height), top + 2)

    def cloud(self, volumes: list[Volume]) -> NDArray[np.float32]:
        """The ground, and the side of each thing that looks to the sensor."""
        ground = self.rng.uniform((1, -10, -1.5), (20, 10, -1.5), (20_000, 3)) + self.rng.normal(0, 0.01, (20_000, 3))
        sides = [
            volume.centre + (self.rng.random((800, 3)) - (0.5, 0.5, 0.5)) * (0.1, *volume.size[1:]) - (0.2, 0, 0)
            for volume in volumes
        ]
        return np.concatenate([ground, *sides]).astype(np.float32)


def run(model: Any, world: World, settings: ObjectSettings, ticks: int, detector: bool) -> list[dict[str, float]]:
    """Seconds of the scene and of the things, tick by tick, and what of them was encoded."""
    configs = [SensorConfig(name, kind, window=2.0 if kind == "audio" else 0.1) for name, kind in KINDS.items()]
    scene = PerceptionEngine(model, configs, lambda _, raw: raw, EngineSettings())
    things = ObjectEngine(model, world.rig, settings)

    def place(item: Item) -> tuple[str, bool]:
        return item.header, False

    found: list[dict[str, float]] = []
    before: Mapping[str, int] = {}
    for tick in range(1, ticks + 1):
        now = tick * SECOND // 5
        volumes = world.volumes(now / SECOND)
        for name, item in world.items(volumes).items():
            scene.push(name, now, now, item, FRAMES[name])
        if detector:
            things.detect([Region3D(volume, now, score=0.9, proposer="detector") for volume in volumes])
        times = [clocks()]
        tokens = scene.tokens(selection := scene.select(now))
        scene.fuse(selection, tokens)
        times.append(clocks())
        told = things.perceive(now, readings(tokens, place), {})
        times.append(clocks())
        (scene_s, scene_cpu), (things_s, things_cpu) = np.diff(times, axis=0).tolist()
        counters = things.counters
        found.append(
            {
                "scene": scene_s,
                "things": things_s,
                "scene CPU": scene_cpu,
                "things CPU": things_cpu,
                "told": len(told),
                "named": sum(bool(thing.prediction.sensors) for thing in told),
                "shares": sum(len(thing.prediction.sensors) for thing in told),
                "encoded": counters["encoded"] - before.get("encoded", 0),
                "skipped": counters["skipped"] - before.get("skipped", 0),
                **things.seconds,
            }
        )
        before = counters
    return found


def clocks() -> tuple[float, float]:
    """Seconds, and those of all threads on a CPU: the second do not depend on what else runs there."""
    return time.perf_counter(), time.process_time()


def summary(ticks: list[dict[str, float]], scene: float, scene_cpu: float) -> dict[str, float]:
    """Ratios and means of some ticks."""
    counted = ("told", "shares", "encoded", "skipped")
    return {
        "ratio": float(np.median([one["things"] for one in ticks])) / scene,
        "CPU ratio": float(np.median([one["things CPU"] for one in ticks])) / scene_cpu,
        "CPU ms": 1000 * float(np.median([one["things CPU"] for one in ticks])),
        "largest CPU ratio": max(one["things CPU"] for one in ticks) / scene_cpu,
        **{key: float(np.mean([one[key] for one in ticks])) for key in counted},
        **{f"{key} ms": 1000 * float(np.mean([one[key] for one in ticks])) for key in STAGES},
    }


def main() -> None:
    """Runs the benchmark; writes bench_objects.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="lite")
    parser.add_argument("--engine", default="auto", help="torch, openvino, onnxruntime or auto (default: %(default)s)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--things", type=int, default=10)
    parser.add_argument("--speed", type=float, default=0.3, help="m/s (default: %(default)s)")
    parser.add_argument("--ticks", type=int, default=60, help="of 0.2 s (default: %(default)s)")
    parser.add_argument("--propose", action="store_true", help="own proposers instead of a detector")
    parser.add_argument("--max-crops", type=int, default=ObjectSettings().max_crops)
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder to write (default: %(default)s)")
    args = parser.parse_args()
    model = load_model(args.model, modalities=list(KINDS.values()), engine=args.engine, threads=args.threads)
    model.warm_up(KINDS.values())
    settings = ObjectSettings(propose=PROPOSERS if args.propose else (), confirm=1, max_crops=args.max_crops)
    world = World(args.things, args.speed)
    run(model, world, settings, 12, not args.propose)
    found = run(model, world, settings, args.ticks, not args.propose)
    named = next((tick for tick, one in enumerate(found, 1) if one["named"] >= args.things), 0)
    most = max(one["shares"] for one in found)
    full = next(tick for tick, one in enumerate(found, 1) if one["shares"] >= 0.95 * most)
    parts = {"all new": found[:1], "until all are encoded": found[1:full], "after": found[full:]}
    scene, scene_cpu = (float(np.median([one[key] for one in found])) for key in ("scene", "scene CPU"))
    whole: dict[str, Any] = {"things": args.things, "engine": args.engine, "scene CPU ms": round(1000 * scene_cpu, 1)}
    whole |= {"scene ms": round(1000 * scene, 1), "all named at tick": named, "all encoded at tick": full}
    rows = [
        {**whole, "when": when, **{key: round(value, 3) for key, value in summary(ticks, scene, scene_cpu).items()}}
        for when, ticks in parts.items()
        if ticks
    ]
    print(json.dumps(rows, indent=1))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_objects.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
