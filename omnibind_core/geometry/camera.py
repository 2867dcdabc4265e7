"""Cameras as OpenCV and ``sensor_msgs/CameraInfo`` describe them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

Flat = NDArray[np.float64]
Model = Literal["plumb_bob", "rational_polynomial", "equidistant"]
MODELS: tuple[str, ...] = get_args(Model)
"""Lens models, by the names of ``CameraInfo``: the first two are OpenCV's, the last one is OpenCV's fisheye."""
_LENGTHS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12), "equidistant": (0, 4)}
_EDGE = np.deg2rad(89.0)  # from the optical axis; further out OpenCV's formulas have no meaning
_ROUNDS = 8  # of Newton's method
_SMALL = 1e-6  # m, at one metre
_STRIDE = 0.5  # m, that it goes at most in one round
_EXACT = 0.01  # pixels by which a ray may miss its own
_STEPS = 512  # at which the lens is looked at, from the axis to the edge


@dataclass(frozen=True)
class Camera:
    """One camera: from points in its optical frame to pixels, and from pixels to rays.

    Attributes:
        width: Pixels of a row of its pictures.
        height: Rows.
        focal: Focal lengths ``(fx, fy)``, pixels.
        centre: Where the optical axis is, ``(cx, cy)``, pixels.
        model: Lens model.
        distortion: Its coefficients, in OpenCV's order; empty for a rectified picture.
        source: Sensor or topic, for error messages.
    """

    width: int
    height: int
    focal: tuple[float, float]
    centre: tuple[float, float]
    model: Model = "plumb_bob"
    distortion: tuple[float, ...] = ()
    source: str = "camera"

    def __post_init__(self) -> None:
        values = np.array([*self.focal, *self.centre, *self.distortion])
        if self.width < 1 or self.height < 1:
            raise InvalidInputError(self.source, f"a camera of {self.width} x {self.height} pixels", "1 x 1 or more")
        if not np.isfinite(values).all() or min(self.focal) <= 0:
            told = (
                f"focal lengths {self.focal[0]:g} and {self.focal[1]:g}, centre {self.centre[0]:g}, {self.centre[1]:g}"
            )
            raise InvalidInputError(
                self.source, f"a camera with {told}", "a calibrated one: finite, focal lengths above 0"
            )
        if self.model not in MODELS:
            raise InvalidInputError(self.source, f"the lens model '{self.model}'", f"one of {', '.join(MODELS)}")
        if len(self.distortion) not in _LENGTHS[self.model]:
            expected = f"for {self.model} {', '.join(map(str, _LENGTHS[self.model][1:]))}, or none"
            raise InvalidInputError(self.source, f"{len(self.distortion)} coefficients of distortion", expected)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Camera matrix ``[3, 3]``."""
        return np.array([[self.focal[0], 0, self.centre[0]], [0, self.focal[1], self.centre[1]], [0, 0, 1]])

    def project(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Pixels of points.

        Args:
            points: ``[N, 3]``, metres, in the optical frame.

        Returns:
            ``float64 [N, 2]`` pixels, NaN of points that the lens cannot see: behind the camera, or so far out that its
            model, which was fitted inside of the picture, folds back; and ``bool [N]``, whether the pixel is inside of
            the picture.
        """
        points = np.asarray(points, np.float64).reshape(-1, 3)
        pixels = np.full((len(points), 2), np.nan)
        finite = np.isfinite(points).all(axis=1)
        out = np.hypot(points[:, 0], points[:, 1])
        ahead = finite & (points[:, 2] > 0) & (np.arctan2(out, points[:, 2]) < self._widest)
        if ahead.any():
            pixels[ahead] = self._pixels(points[ahead])
        return pixels, self.contains(pixels)

    def contains(self, pixels: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether pixels ``[N, 2]`` are inside of the picture; not where they are NaN."""
        edge = np.array([self.width, self.height]) - 0.5
        return np.asarray(((pixels >= -0.5) & (pixels < edge)).all(axis=1))

    def rays(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where pixels look: points one metre along the optical axis.

        Args:
            pixels: ``[N, 2]``.

        Returns:
            ``float64 [N, 3]``, z is 1; NaN where no ray of the lens meets the pixel.
        """
        pixels = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if not len(pixels):
            return np.zeros((0, 3))
        if not self.distortion:
            flat = (pixels - np.array(self.centre)) / np.array(self.focal)
        else:
            undistort = cv2.fisheye.undistortPoints if self.model == "equidistant" else cv2.undistortPoints
            flat = undistort(pixels, self.matrix, np.array(self.distortion))
        rays = np.concatenate([flat.reshape(-1, 2), np.ones((len(pixels), 1))], axis=1)
        if self.distortion:
            self._refine(rays, pixels.reshape(-1, 2))
        back, _ = self.project(rays)
        rays[~(np.abs(back - pixels.reshape(-1, 2)).max(axis=1) < _EXACT)] = np.nan  # NaN, too
        return rays

    def resized(self, width: int, height: int) -> Camera:
        """The same camera, whose pictures were resized to so many pixels."""
        across, down = width / self.width, height / self.height
        # The outer edges of the pictures coincide, so the centre of the first pixel moves by half a pixel.
        centre = ((self.centre[0] + 0.5) * across - 0.5, (self.centre[1] + 0.5) * down - 0.5)
        focal = (self.focal[0] * across, self.focal[1] * down)
        return Camera(width, height, focal, centre, self.model, self.distortion, self.source)

    def _refine(self, rays: NDArray[np.float64], pixels: NDArray[np.float64]) -> None:
        """Newton's steps towards the pixels, in place: OpenCV's rays are good to a pixel where the lens is strong."""
        across, down = np.array([_SMALL, 0, 0]), np.array([0, _SMALL, 0])
        for _ in range(_ROUNDS):
            here = self._pixels(rays)
            a, c = ((self._pixels(rays + across) - here) / _SMALL).T
            b, d = ((self._pixels(rays + down) - here) / _SMALL).T
            wide, high = (pixels - here).T
            with np.errstate(all="ignore"):  # where the lens folds; what is not finite does not lead back
                step = np.stack([d * wide - b * high, a * high - c * wide], axis=1) / (a * d - b * c)[:, None]
            rays[:, :2] += np.nan_to_num(step).clip(-_STRIDE, _STRIDE)

    def _pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """By OpenCV's formulas; its own function takes five times as long, for derivatives that nobody asked for."""
        x, y = (points[:, :2] / points[:, 2:]).T
        if self.distortion:
            with np.errstate(all="ignore"):  # Newton's steps may leave the lens
                x, y = (self._fisheye if self.model == "equidistant" else self._bent)(x, y)
        return np.stack([x, y], axis=1) * np.array(self.focal) + np.array(self.centre)

    def _fisheye(self, x: Flat, y: Flat) -> tuple[Flat, Flat]:
        out = np.hypot(x, y)
        angle = np.arctan(out)
        k1, k2, k3, k4 = self.distortion
        square = angle * angle
        bent = angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        grows = np.divide(bent, out, out=np.ones_like(out), where=out > 0)
        return x * grows, y * grows

    def _bent(self, x: Flat, y: Flat) -> tuple[Flat, Flat]:
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*self.distortion, *[0.0] * 8)[:12]
        square, product = x * x + y * y, x * y
        grows = 1 + square * (k1 + square * (k2 + square * k3))
        if self.model == "rational_polynomial":
            grows /= 1 + square * (k4 + square * (k5 + square * k6))
        across = x * grows + 2 * p1 * product + p2 * (square + 2 * x * x) + square * (s1 + square * s2)
        down = y * grows + p1 * (square + 2 * y * y) + 2 * p2 * product + square * (s3 + square * s4)
        return across, down

    @functools.cached_property
    def _widest(self) -> float:
        """Angle from the optical axis, rad, up to which what is further out is further out in the picture, too."""
        angles = np.linspace(0.0, _EDGE, _STEPS)
        if not self.distortion:
            return float(_EDGE)
        found = _EDGE
        for turn in (0.0, np.pi / 2, np.pi, 3 * np.pi / 2):  # tangential parts make it differ
            out = np.sin(angles)
            points = np.stack([out * np.cos(turn), out * np.sin(turn), np.cos(angles)], axis=1)
            away = np.linalg.norm((self._pixels(points) - np.array(self.centre)) / np.array(self.focal), axis=1)
            folds = np.flatnonzero(~(np.diff(away) > 0))
            if folds.size:
                found = min(found, angles[folds[0]])
        return float(found)
