"""Further outputs of the fusion node: the standard messages of vision_msgs, where installed, and the debug picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from omnibind_core import modalities
from omnibind_core.errors import MissingDependencyError
from omnibind_core.optional import require
from omnibind_core.runtime.engine import PerceptionEngine
from omnibind_core.runtime.types import Prediction
from omnibind_ros.graph.topics import LATCHED
from omnibind_ros.messages import fill, image_fields
from omnibind_ros.node import overlay

if TYPE_CHECKING:
    from omnibind_ros.node.objects.things import Things


def vision_messages() -> ModuleType | None:
    """``vision_msgs.msg``, or ``None`` if that package is not installed."""
    try:
        return require("vision_msgs.msg", "Standard classification messages")
    except MissingDependencyError:
        return None


def classification(types: Any, header: Any, prediction: Prediction) -> Any:
    """``vision_msgs/Classification``: the top labels with their probabilities; empty if unknown.

    Args:
        types: ``vision_msgs.msg``.
        header: Header of the prediction.
        prediction: The prediction.
    """
    pairs = () if prediction.unknown else zip(prediction.labels, prediction.scores, strict=True)
    results = [types.ObjectHypothesis(class_id=label, score=score) for label, score in pairs]
    return types.Classification(header=header, results=results)


def label_info(types: Any, header: Any, labels: Sequence[str], threshold: float) -> Any:
    """``vision_msgs/LabelInfo``: the label bank, its numbers those of the columns of ``Prediction.similarities``."""
    classes = [types.VisionClass(class_id=index, class_name=name) for index, name in enumerate(labels)]
    return types.LabelInfo(header=header, class_map=classes, threshold=threshold)


class VisionOutputs:
    """Publishes ``omnibind/classification`` and the latched ``omnibind/label_info``.

    Args:
        node: The node.
        types: ``vision_msgs.msg``.
    """

    def __init__(self, node: Node, types: ModuleType) -> None:
        self._types = types
        self._classifications = node.create_publisher(types.Classification, "omnibind/classification", 10)
        self._infos = node.create_publisher(types.LabelInfo, "omnibind/label_info", LATCHED)
        self._said: tuple[tuple[str, ...], float] = ((), math.nan)

    def publish(self, header: Any, prediction: Prediction) -> None:
        """Publishes a prediction."""
        self._classifications.publish(classification(self._types, header, prediction))

    def publish_labels(self, header: Any, labels: Sequence[str], threshold: float) -> None:
        """Publishes the label bank if it has changed."""
        if (tuple(labels), threshold) != self._said:
            self._said = tuple(labels), threshold
            self._infos.publish(label_info(self._types, header, labels, threshold))


class DebugImage:
    """Publishes ``~/debug_image`` while somebody is subscribed. RELIABLE, because RViz asks for that.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        from sensor_msgs.msg import Image

        self._image_type = Image
        self._publisher = node.create_publisher(Image, "~/debug_image", QoSProfile(depth=1))

    def publish(
        self, header: Any, prediction: Prediction, engine: PerceptionEngine, things: Things | None = None
    ) -> None:
        """Publishes a prediction, and the things in the picture, on the worker's thread."""
        if not self._publisher.get_subscription_count():
            return
        order = {name: (not modalities.get(name).is_camera, place) for place, name in enumerate(modalities.names())}
        shares = sorted(prediction.sensors, key=lambda share: order[share.modality])
        views = ((share.name, overlay.picture(share.modality, engine.newest(share.name))) for share in shares)
        name, view = next(((name, view) for name, view in views if view is not None), ("", None))
        if view is not None and things is not None and name in things.rig.cameras:
            camera = things.rig.cameras[name]
            view = overlay.boxes(view, (camera.width, camera.height), name, things.told)
        message = fill(self._image_type(), image_fields(overlay.draw(view, prediction), "rgb8"))
        message.header = header
        self._publisher.publish(message)
