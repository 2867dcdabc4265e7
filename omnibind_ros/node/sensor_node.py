"""A sensor node: one sensor in, preprocessed frames or embeddings out, for a fusion node elsewhere."""

from __future__ import annotations

import omnibind_ros.node.threads  # noqa: F401 - first, before threads are started

# isort: split
from typing import Any

from rclpy.qos import QoSProfile

from omnibind_core import modalities
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.engine import Selection
from omnibind_core.runtime.types import Encoded, EngineSettings
from omnibind_ros import msg
from omnibind_ros.messages import fill, modality_frame_fields
from omnibind_ros.node.lifecycle import PerceptionNode
from omnibind_ros.node.parameters import SENSOR_NODE
from omnibind_ros.node.process import end, interruptible, run
from omnibind_ros.node.tick_loop import Tick


class SensorNode(PerceptionNode):
    """Decodes and preprocesses one sensor and publishes ``ModalityFrame`` on ``omnibind/<sensor>``.

    Topics, services and parameters: docs/topics.md, docs/parameters.md.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("sensor_node", SENSOR_NODE, **node_options)
        self._sent: Any = None
        topic = f"omnibind/{self.parameters['sensor']}"
        # Only the newest frame matters, and over a bad link it should still arrive.
        self._publisher = self.create_lifecycle_publisher(msg.ModalityFrame, topic, QoSProfile(depth=1))

    def settings(self) -> EngineSettings:
        """Settings of the engine."""
        return self.parameters.settings

    @property
    def wanted(self) -> set[str]:
        """Modalities whose encoders are needed: none if only preprocessed."""
        return super().wanted if self._embeds else set()

    @property
    def _embeds(self) -> bool:
        """Whether embeddings are sent. Words are never sent otherwise: frames hold numbers."""
        modality = modalities.get(self.parameters.sensors[0].config.modality)
        return self.parameters["send"] == "embedding" or modality.preset().dtype == "str"

    def compute(self, selection: Selection) -> Token | None:
        """What the sensor has that was not sent yet."""
        assert self.engine is not None
        tokens = self.engine.tokens(selection, embed=self._embeds)
        if not tokens or tokens[0].newest is self._sent:
            return None
        self._sent = tokens[0].newest
        return tokens[0]

    def publish(self, tick: Tick, token: Token | None) -> None:
        """Publishes a frame."""
        if token is None or self.model is None:
            return
        if token.embedding is not None:
            encoded = Encoded("embedding", token.embedding)
        else:
            assert token.views is not None
            encoded = Encoded("preprocessed", token.views)
        fields = modality_frame_fields(token.sensor.name, token.sensor.modality, self.model.identity, encoded)
        self._publisher.publish(fill(msg.ModalityFrame(), {**fields, "header": token.newest.header}))


def main() -> None:
    """Runs the node."""
    with interruptible():
        end(run(SensorNode))


if __name__ == "__main__":
    main()
