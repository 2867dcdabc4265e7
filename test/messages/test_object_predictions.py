"""Things as messages and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.types import Prediction, SensorShare
from omnibind_ros.messages import prediction_fields
from omnibind_ros.messages.fields import fill
from omnibind_ros.messages.objects import fill_object, objects_of

msg = pytest.importorskip("omnibind_ros.msg")


def test_a_thing_survives_the_message():
    nothing = np.zeros(0, np.float32)
    share = SensorShare("camera", "image", 1.0, 0.5, "cup", 0.75, "", 0.0, 4_500_000_000, math.nan)
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    volume = Volume(np.array([1.0, 2, 3]), np.array([0.5, 0.25, 1]), rotation, np.diag([1.0, 4, 9]))
    said = Prediction(5_000_000_000, None, "cup", 0.75, False, 0.5, ("cup",), (0.75,), (share,), nothing, nothing)
    sights = {
        "camera": Sight(Rectangle(1, 2, 30.5, 40)),
        "lidar": Sight(),
        "thermal": Sight(reason="behind the camera"),
    }
    thing = ObjectPrediction(7, volume, np.array([0.5, 0, 0]), 4_500_000_000, said, sights, ("clusters", "/yolo"))
    message = msg.ObjectPredictions()
    message.header.stamp.sec = 5
    inner = fill(msg.Prediction(), prediction_fields(said, 0.0, msg.SensorShare))
    message.objects = [fill_object(msg.ObjectPrediction(), thing, inner, msg.ObjectView)]
    (back,) = objects_of(message)
    assert (back.id, back.seen_ns, back.proposers) == (7, 4_500_000_000, ("clusters", "/yolo"))
    for name in ("centre", "size", "rotation", "spread"):
        assert np.allclose(getattr(back.volume, name), getattr(volume, name))
    assert back.velocity.tolist() == [0.5, 0, 0] and back.sights == sights
    assert back.prediction.label == "cup" and back.prediction.sensors == (share,)
