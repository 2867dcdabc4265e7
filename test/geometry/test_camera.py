"""Cameras: OpenCV's own numbers for random calibrations, the way back, what a lens cannot see, and bad calibrations."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Camera
from omnibind_core.geometry.camera import MODELS, Model


def random_camera(rng: np.random.Generator, model: Model) -> Camera:
    """As a calibration would give it: moderate distortion."""
    width, height = int(rng.integers(160, 2000)), int(rng.integers(120, 1500))
    focal = float(rng.uniform(0.5, 1.5) * width)
    lens = {
        "plumb_bob": rng.normal(0, (0.1, 0.02, 0.001, 0.001, 0.005)),
        "rational_polynomial": rng.normal(0, (0.1, 0.02, 1e-3, 1e-3, 5e-3, 0.1, 0.02, 5e-3, 1e-3, 1e-3, 1e-3, 1e-3)),
        "equidistant": rng.normal(0, (0.05, 0.01, 0.002, 0.001)),
    }[model]
    centre = (width / 2 + float(rng.normal(0, 10)), height / 2 + float(rng.normal(0, 10)))
    return Camera(width, height, (focal, focal * float(rng.uniform(0.95, 1.05))), centre, model, tuple(lens.tolist()))


def seen_points(rng: np.random.Generator, camera: Camera) -> np.ndarray:
    pixels = rng.uniform((0, 0), (camera.width, camera.height), (20, 2))
    flat = (pixels - camera.centre) / camera.focal
    return np.concatenate([flat, np.ones((20, 1))], axis=1) * rng.uniform(0.3, 50, (20, 1))


@pytest.mark.parametrize("model", MODELS)
def test_projection_is_that_of_opencv_and_rays_lead_back(model: Model, rng: np.random.Generator) -> None:
    seen: list[float] = []
    met: list[bool] = []
    for _ in range(334):  # of each of three models: over a thousand calibrations
        camera = random_camera(rng, model)
        points = seen_points(rng, camera)
        pixels, inside = camera.project(points)
        expected = by_opencv(camera, points)
        found: Any = np.isfinite(pixels).all(axis=1)
        seen.append(float(found.mean()))
        np.testing.assert_allclose(pixels[found], expected[found], atol=1e-6)
        edge = np.array([camera.width, camera.height]) - 0.5
        within: Any = np.asarray((expected >= -0.5) & (expected < edge)).all(axis=1)
        np.testing.assert_array_equal(inside[found], within[found])
        rays = camera.rays(pixels[inside])
        back = by_opencv(camera, rays)
        near: Any = np.isfinite(back).all(axis=1)
        met += near.tolist()
        np.testing.assert_allclose(back[near], pixels[inside][near], atol=0.01)
    assert np.mean(seen) > 0.95
    assert np.mean(met) > 0.99


def by_opencv(camera: Camera, points: np.ndarray) -> np.ndarray:
    project = cv2.fisheye.projectPoints if camera.model == "equidistant" else cv2.projectPoints
    found, _ = project(points[:, None], np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))
    return np.asarray(found).reshape(-1, 2)


def test_what_the_lens_cannot_see_has_no_pixel() -> None:
    camera = Camera(640, 480, (500.0, 500.0), (319.5, 239.5), "plumb_bob", (-0.3, 0.05, 0.0, 0.0))
    pixels, inside = camera.project(np.array([[0.0, 0, -2], [0.0, 0, 2], [np.nan, 0, 1]]))
    assert inside.tolist() == [False, True, False]
    assert np.isnan(pixels[[0, 2]]).all()
    np.testing.assert_allclose(pixels[1], camera.centre)
    # A barrel lens folds back: by its formula alone this point, 60 degrees to the side, would be in the picture.
    camera = Camera(640, 480, (500.0, 500.0), (319.5, 239.5), "plumb_bob", (-0.3, 0.0, 0.0, 0.0))
    beside = np.array([[1.75, 0.0, 1.0]])
    folded, _ = cv2.projectPoints(beside, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))
    assert 0 <= folded[0, 0, 0] < 640
    assert np.isnan(camera.project(beside)[0]).all()


def test_a_resized_picture_has_the_pixels_of_its_own_grid(rng: np.random.Generator) -> None:
    camera = random_camera(rng, "plumb_bob")
    points = seen_points(rng, camera)
    large, _ = camera.project(points)
    small, _ = camera.resized(camera.width // 2, camera.height // 2).project(points)
    scale = np.array([camera.width // 2 / camera.width, camera.height // 2 / camera.height])
    np.testing.assert_allclose(small, (large + 0.5) * scale - 0.5, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"focal": (0.0, 500.0)}, "focal lengths 0 and 500"),
        ({"focal": (np.nan, 500.0)}, "focal lengths nan"),
        ({"model": "omni"}, "the lens model 'omni'"),
        ({"distortion": (0.1, 0.2)}, "2 coefficients"),
        ({"width": 0}, "0 x 480 pixels"),
    ],
)
def test_a_bad_calibration_is_refused_with_its_numbers(change: dict[str, object], told: str) -> None:
    good: dict[str, Any] = {
        "width": 640,
        "height": 480,
        "focal": (500.0, 500.0),
        "centre": (320.0, 240.0),
        "source": "front",
    }
    with pytest.raises(InvalidInputError, match=told):
        Camera(**{**good, **change})


def test_no_pixels_have_no_rays() -> None:
    camera = Camera(640, 480, (500.0, 500.0), (320.0, 240.0))
    assert camera.rays(np.zeros((0, 2))).shape == (0, 3)
    assert camera.project(np.zeros((0, 3)))[0].shape == (0, 2)
