"""CameraInfo as a camera, against OpenCV."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages import camera_of, is_rectified

K = [400.0, 0.0, 330.0, 0.0, 410.0, 250.0, 0.0, 0.0, 1.0]
P = [380.0, 0.0, 320.0, -38.0, 0.0, 380.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
BENT = {
    "plumb_bob": [-0.2, 0.05, 0.001, -0.002, 0.01],
    "rational_polynomial": [-0.2, 0.05, 0.001, -0.002, 0.01, 0.02, 0.01, 0.005],
    "equidistant": [-0.02, 0.005, 0.001, -0.0005],
}


def info(model="plumb_bob", d=(), k=K, p=P, size=(640, 480), roi=(0, 0, 0, 0), binning=(0, 0), frame=""):
    roi = dict(zip(("x_offset", "y_offset", "width", "height"), roi, strict=True))
    return SimpleNamespace(
        width=size[0], height=size[1], distortion_model=model, d=d, k=k, p=p, roi=SimpleNamespace(**roi),
        binning_x=binning[0], binning_y=binning[1], header=SimpleNamespace(frame_id=frame),
    )  # fmt: skip


@pytest.fixture
def points(rng):
    return np.concatenate([rng.uniform(-1, 1, (200, 2)) * (1.2, 0.9), rng.uniform(2, 9, (200, 1))], 1)


def by_opencv(points, model, d):
    matrix, nothing = np.reshape(K, (3, 3)), np.zeros(3)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    return project(points[:, None], nothing, nothing, matrix, np.array(d))[0].reshape(-1, 2)


@pytest.mark.parametrize("model", BENT)
def test_a_raw_picture_is_seen_through_the_lens_and_a_rectified_one_is_not(points, model):
    message = info(model, BENT[model])
    raw, rectified = camera_of(message, "front"), camera_of(message, "front", rectified=True)
    assert np.abs(raw.project(points)[0] - by_opencv(points, model, BENT[model])).max() < 0.01
    flat = points[:, :2] / points[:, 2:] * 380 + (320, 240)
    assert np.abs(rectified.project(points)[0] - flat).max() < 1e-9
    assert (raw.width, raw.height) == (rectified.width, rectified.height) == (640, 480)


@pytest.mark.parametrize(
    ("name", "d", "like"),
    [
        ("radtan", BENT["plumb_bob"][:4], "plumb_bob"),
        ("fisheye", BENT["equidistant"], "equidistant"),
        ("plumb_bob", BENT["rational_polynomial"], "rational_polynomial"),
        ("rational_polynomial", BENT["rational_polynomial"] + [0.001, 0, 0, 0.002, 0, 0], "rational_polynomial"),
        ("", [0.0] * 5, "plumb_bob"),
        ("Brown Conrady", [], "plumb_bob"),
        ("equidistant", [], "equidistant"),
    ],
)
def test_names_and_lengths_that_drivers_use(points, name, d, like):
    expected = by_opencv(points, like, d if len(d) else np.zeros(4))
    assert np.abs(camera_of(info(name, d), "front").project(points)[0] - expected).max() < 0.01


@pytest.mark.parametrize("rectified", [False, True])
def test_a_picture_that_was_cut_out_and_binned(points, rectified):
    """What the full camera sees at a pixel, the part has where OpenCV's averages of pixels have it."""
    message = info("plumb_bob", BENT["plumb_bob"], roi=(100, 60, 403, 301), binning=(4, 2))
    camera = camera_of(message, "front", (100, 150), rectified)
    assert (camera.width, camera.height) == (100, 150)
    pixels = camera_of(info("plumb_bob", BENT["plumb_bob"]), "front", rectified=rectified).project(points)[0]
    rows, columns = np.mgrid[60:360, 100:500].astype(np.float32)
    where = [cv2.resize(one, (100, 150), interpolation=cv2.INTER_AREA) for one in (columns, rows)]
    found, inside = camera.project(points)
    at = found[inside].round().astype(int)
    expected = np.stack([one[at[:, 1], at[:, 0]] for one in where], 1) + (found[inside] - at) * (4, 2)
    assert inside.sum() > 50 and np.abs(expected - pixels[inside]).max() < 1e-3


def test_a_part_that_is_not_binned_and_a_whole_picture_beside_a_part():
    message = info(roi=(100, 60, 200, 100), binning=(2, 2))
    assert camera_of(message, "front").width == 100
    assert camera_of(message, "front", (200, 100)).centre == (230, 190)
    assert camera_of(message, "front", (640, 480)).centre == (330, 250)


def test_ros_1_spells_its_matrices_with_capitals():
    message = info()
    message.K, message.D, message.P = message.__dict__.pop("k"), message.__dict__.pop("d"), message.__dict__.pop("p")
    assert camera_of(message, "front").focal == (400, 410)


@pytest.mark.parametrize(
    ("message", "size", "complaint"),
    [
        (info(k=[0.0] * 9), None,
         "focal lengths 0 and 0, expected a calibrated camera, whose k or p are filled in, on /front/camera_info"),
        (info(k=[np.nan] * 9), None, "focal lengths nan and nan, expected a calibrated camera"),
        (info(k=[400.0, 0, np.inf, 0, 400, 1, 0, 0, 1]), None, "centre inf, 1, expected a calibrated one"),
        (info(k=[np.inf, 0, 1, 0, 400, 1, 0, 0, 1]), None, "focal lengths inf and 400, expected a calibrated camera, "),
        (info(k=[400.0, 0, 1, 0, 400, np.nan, 0, 0, 1]), None,
         "a CameraInfo with the centre 1, nan, expected a calibrated one, whose k or p are finite, on /front/camera_i"),
        (info(d=[0.1, np.nan, 0, 0]), None,
         "the coefficients of distortion 0.1, nan, 0, 0, expected finite ones in d, on /front/camera_info"),
        (info(k=[0.0] * 9, frame="eye"), None, "are filled in, on /front/camera_info, of the frame 'eye'$"),
        (info(), (320, 240), r"a picture of 320 x 240 pixels, expected a CameraInfo of as many, not of 640 x 480, on"),
        (info(roi=(9, 9, 200, 100), binning=(2, 2)), (320, 240),
         r"not of 100 x 50 \(640 x 480; 200 x 100 of them, binned by 2 x 2\), on /front/camera_info"),
        (info("omni", [0.1] * 4), None, "the lens model 'omni', expected one of plumb_bob"),
        (info("plumb_bob", [0.1] * 3), None, "3 coefficients of distortion, expected 4, 5, 8 or 12"),
        (info("rational_polynomial", [0.1] * 14), None, "the last two tilt the sensor by 0.1, 0.1"),
        (info(size=(0, 0)), None, "a CameraInfo of 0 x 0 pixels, expected its resolution"),
    ],
)  # fmt: skip
def test_what_is_no_camera_of_the_picture_is_refused(message, size, complaint):
    with pytest.raises(InvalidInputError, match=rf"\[front\] got .*{complaint}"):
        camera_of(message, "front", size, topic="/front/camera_info")


def test_a_topic_tells_whether_its_pictures_are_rectified():
    assert (
        is_rectified("/camera/color/image_rect_raw") and is_rectified("left/image_rect") and is_rectified("/a/rect/b")
    )
    assert not is_rectified("/camera/image_raw") and not is_rectified("/direction/image")
