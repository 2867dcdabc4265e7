"""How things are told: our own messages, and the standard ones where their packages are installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from rclpy.node import Node

from omnibind_core.errors import MissingDependencyError
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.optional import require
from omnibind_core.runtime.types import Prediction
from omnibind_ros import msg
from omnibind_ros.messages.objects import fill_object, place_box, set_vector
from omnibind_ros.node.objects.words import colour, words

_CUBE, _TEXT, _ADD, _CLEAR = 1, 9, 0, 3  # constants of visualization_msgs/Marker
_TALL = 0.15  # m, of the letters


class ObjectOutputs:
    """Publishes things.

    Args:
        node: The node.

    Attributes:
        missing: Packages that are not installed, of what is not published for that.
    """

    def __init__(self, node: Node) -> None:
        self.missing: list[str] = []
        self._things = node.create_publisher(msg.ObjectPredictions, "omnibind/objects", 10)
        self._vision, self._visual = self._package("vision_msgs"), self._package("visualization_msgs")
        if self._vision is not None:
            self._boxes = node.create_publisher(self._vision.Detection3DArray, "omnibind/detections", 10)
        if self._visual is not None:
            self._markers = node.create_publisher(self._visual.MarkerArray, "omnibind/object_markers", 10)

    def publish(self, header: Any, things: Sequence[ObjectPrediction], said: Callable[[Prediction], Any]) -> None:
        """Publishes the things of a tick, on the worker's thread.

        Args:
            header: Of the tick, in the fixed frame.
            things: The things.
            said: Makes a ``Prediction`` message.
        """
        told = [fill_object(msg.ObjectPrediction(), one, said(one.prediction), msg.ObjectView) for one in things]
        self._things.publish(msg.ObjectPredictions(header=header, objects=told))
        if self._vision is not None:
            self._boxes.publish(detections(self._vision, header, things))
        if self._visual is not None and self._markers.get_subscription_count():
            self._markers.publish(markers(self._visual, header, things))

    def _package(self, name: str) -> ModuleType | None:
        try:
            return require(f"{name}.msg", "Standard messages of things")
        except MissingDependencyError:
            self.missing.append(name)
            return None


def detections(types: Any, header: Any, things: Sequence[ObjectPrediction]) -> Any:
    """``vision_msgs/Detection3DArray``: boxes with the labels in question; those of what is unknown have none.

    Args:
        types: ``vision_msgs.msg``, of Humble or later.
        header: Of the tick, in the fixed frame.
        things: The things.
    """
    array = types.Detection3DArray(header=header)
    for thing in things:
        one = types.Detection3D(header=header, id=str(thing.id))
        place_box(one.bbox.center, one.bbox.size, thing.volume)
        said = thing.prediction
        for label, score in () if said.unknown else zip(said.labels, said.scores, strict=True):
            result = types.ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = label, float(score)
            place_box(result.pose.pose, one.bbox.size, thing.volume)
            one.results.append(result)
        array.detections.append(one)
    return array


def markers(types: Any, header: Any, things: Sequence[ObjectPrediction]) -> Any:
    """``visualization_msgs/MarkerArray``: a box of each thing, and its id and label above.

    Args:
        types: ``visualization_msgs.msg``.
        header: Of the tick, in the fixed frame.
        things: The things.
    """
    array = types.MarkerArray()
    array.markers.append(types.Marker(header=header, action=_CLEAR))
    for thing in things:
        box, text = types.Marker(header=header, ns="boxes"), types.Marker(header=header, ns="labels")
        for marker, kind, opacity in ((box, _CUBE, 0.4), (text, _TEXT, 1.0)):
            marker.id, marker.type, marker.action = thing.id, kind, _ADD
            marker.color.r, marker.color.g, marker.color.b = colour(thing.id)
            marker.color.a = opacity
        place_box(box.pose, box.scale, thing.volume)
        top = thing.volume.corners[:, 2].max()
        set_vector(text.pose.position, np.array([*thing.volume.centre[:2], top + _TALL]))
        text.scale.z, text.text = _TALL, words(thing)
        array.markers += [box, text]
    return array
