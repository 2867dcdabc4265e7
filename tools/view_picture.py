"""Makes docs/images/view.png: one moment of a recording in the viewer of Rerun, drawn without a screen.

Without a bag the recording is of things that are modelled here and rendered for every sensor, so that the picture holds
nobody's data. ``python tools/view_picture.py [BAG] [--at S] [--out PICTURE]``. It needs a Vulkan driver; a computer
without a GPU has one in software (Debian/Ubuntu: mesa-vulkan-drivers).
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering import events, thermal, touch
from omnibind_core.data.rendering.meshes import Mesh, cast, fit, scan
from omnibind_core.errors import DataError, OmniBindError
from omnibind_core.modalities import Sound
from omnibind_core.optional import require
from omnibind_ros.bags import read, scene_bag
from omnibind_ros.view import recorded
from omnibind_ros.view.canvas import Canvas, open_recording

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "view.png"
SIDES = 96  # of a turned body
SOUND_RATE = 16_000


def turned(profile: list[tuple[float, float]]) -> Mesh:
    """A body of revolution around z; the profile is radius and height, m."""
    angle = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    radius, height = np.array(profile, np.float32).T
    rings = [radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle), height[:, None] + 0 * angle]
    return _grid(np.stack(rings, axis=-1), closed=False)


def handle(radius: float, width: float, x: float, z: float) -> Mesh:
    """A ring that stands upright: centre line of a radius, and the rod's width, m."""
    along, around = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.linspace(0, 2 * np.pi, 24, endpoint=False)
    out = radius + width * np.cos(around)[None, :]
    parts = [out * np.cos(along)[:, None], 0 * out + width * np.sin(around), out * np.sin(along)[:, None]]
    return _grid(np.stack(np.broadcast_arrays(*parts), axis=-1) + np.array([x, 0, z]), closed=True)


def _grid(points: NDArray[Any], closed: bool) -> Mesh:
    """Triangles between neighbours of ``[rows, columns, 3]``; columns are a ring, rows too if closed."""
    rows, columns = points.shape[:2]
    i, j = np.meshgrid(np.arange(rows if closed else rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = (i + 1) % rows * columns + j, (i + 1) % rows * columns + (j + 1) % columns
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return Mesh(points.reshape(-1, 3).astype(np.float32), triangles.astype(np.uint32))


def joined(*meshes: Mesh) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    triangles = [mesh.triangles + np.uint32(start) for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(triangles))


def photograph(mesh: Mesh, colour: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A shaded picture ``uint8 [240, 320, 3]`` of a thing on a table, from a little above, and its outline."""
    height, width = 240, 320
    size = float(np.linalg.norm(mesh.extent))
    back = np.array([0.35, -0.85, 0.4]) / np.linalg.norm([0.35, -0.85, 0.4])
    right = np.cross([0, 0, 1], back) / np.linalg.norm(np.cross([0, 0, 1], back))
    up = np.cross(back, right)
    v, u = np.mgrid[0.30 : -0.30 : height * 1j, -0.40 : 0.40 : width * 1j][..., None]
    rays = -back + u * right + v * up
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)
    eye = (2.2 * size * back).astype(np.float32)
    distance = cast(mesh, eye, rays)
    hit = np.isfinite(distance)
    place = eye + np.where(hit, distance, 0)[..., None] * rays
    normal = np.cross(np.gradient(place, axis=1), np.gradient(place, axis=0))
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    light = np.array([0.2, -0.6, 0.8]) / np.linalg.norm([0.2, -0.6, 0.8])
    bright = 0.3 + 0.7 * np.abs(normal @ light)
    wall = np.linspace(235, 190, height)[:, None, None] * np.array([0.97, 0.98, 1.0])
    picture = np.where(hit[..., None], bright[..., None] * np.array(colour), wall)
    soft = cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (0, 0), 0.7)
    return np.asarray(soft, np.uint8), (hit * 255).astype(np.uint8)


def bell(rng: np.random.Generator) -> Sound:
    """A stroke of a bell: partials that die away, and a little noise."""
    t = np.arange(2 * SOUND_RATE) / SOUND_RATE
    partials = [(1.0, 1.0, 1.5), (2.0, 0.7, 2.2), (2.4, 0.5, 3.0), (3.0, 0.4, 4.0), (4.5, 0.3, 6.0)]
    tone = sum(share * np.exp(-decay * t) * np.sin(2 * np.pi * 620 * ratio * t) for ratio, share, decay in partials)
    noisy = np.asarray(tone) / 3.2 + rng.normal(0, 0.002, len(t))
    return Sound(noisy.astype(np.float32), SOUND_RATE)


def scenes(rng: np.random.Generator) -> Iterator[scene_bag.SceneData]:
    """A bottle, a cup and a bell, as far as each sensor can perceive them."""
    mug = [(0, 0.004), (0.036, 0.004), (0.036, 0.095), (0.041, 0.095), (0.041, 0), (0, 0)]
    flask = [(0, 0), (0.034, 0), (0.036, 0.01), (0.036, 0.13), (0.014, 0.18), (0.013, 0.22), (0, 0.225)]
    hood = [(0, 0.11), (0.012, 0.108), (0.028, 0.09), (0.034, 0.05), (0.045, 0.012), (0.06, 0)]
    things: list[tuple[str, Mesh, tuple[int, int, int], float]] = [
        ("bottle", turned(flask), (40, 120, 70), 8.0),
        ("cup", joined(turned(mug), handle(0.026, 0.005, 0.058, 0.05)), (178, 60, 52), 55.0),
        ("bell", joined(turned(hood), handle(0.014, 0.004, 0, 0.122)), (196, 160, 70), 21.0),
    ]
    for name, mesh, colour, warmth in things:
        mesh = fit(mesh, mesh.extent)
        picture, outline = photograph(mesh, colour)
        raw: dict[str, Any] = {"image": picture, "event": events.simulate(picture, rng)}
        raw["point_cloud"] = scan(mesh, rng)
        if name == "bell":
            raw["audio"] = bell(rng)
        else:
            raw["thermal"] = thermal.render(outline, picture, warmth, rng)
            raw["touch"] = touch.press(mesh, rng)
        yield scene_bag.SceneData(name, raw, frozenset(raw), dict.fromkeys(raw, "rendered"))


def screenshot(rrd: Path, at_ns: int, out: Path) -> None:
    """Opens a file of Rerun in a viewer without a window, and saves what it shows at a time."""
    client = require("rerun.experimental", "Pictures of the view").ViewerClient
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    viewer = client.spawn(headless=True, port=port, hide_welcome_screen=True)
    try:
        viewer.open(str(rrd))
        viewer.set_time("time", timestamp=np.datetime64(at_ns, "ns"), play_state="paused")
        time.sleep(5)  # pictures are decoded in the background
        viewer.save_screenshot(str(out))
    finally:
        viewer.quit()


def main() -> int:
    """Makes the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bag", nargs="?", type=Path, help="folder of a rosbag2 (default: rendered things)")
    parser.add_argument(
        "--at", type=float, default=9.3, metavar="S", help="s from its beginning (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=PICTURE, help="picture to write (default: docs/images/view.png)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.bag
        if path is None:
            path = folder / "recording"
            scene_bag.write(path, path / "truth.csv", scenes(np.random.default_rng(0)))
        canvas = Canvas(open_recording(False, folder / "view.rrd", None))
        recorded.run(canvas, 10, path)
        canvas.close()
        screenshot(folder / "view.rrd", read.span_ns(path)[0] + round(options.at * 1e9), options.out.resolve())
    drawn = cv2.imread(str(options.out))
    if drawn is None:
        raise DataError(f"{options.out}: the viewer has written no picture")
    cv2.imwrite(str(options.out), cv2.resize(drawn, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA))
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OmniBindError as error:
        sys.exit(f"view_picture: {error}")
