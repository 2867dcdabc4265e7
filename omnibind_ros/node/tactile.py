"""How tactile sensors look without contact: taken by ``~/set_tactile_reference``, subtracted from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_srvs.srv import Trigger as TriggerService

from omnibind_core.errors import InvalidInputError, OmniBindError
from omnibind_core.modalities.touch.processing import subtract_reference
from omnibind_core.runtime.types import Encoded
from omnibind_ros.node.parameters import Sensor


class TactileReferences:
    """The references of a node's tactile sensors.

    Args:
        node: The node.
        sensors: Gives its sensors at present.
        decode: Turns ``(sensor name, payload)`` into a raw item, without a reference.
    """

    def __init__(
        self, node: Node, sensors: Callable[[], Iterable[Sensor]], decode: Callable[[str, tuple[str, Any]], Any]
    ) -> None:
        self._node = node
        self._sensors = sensors
        self._decode = decode
        self._heard: dict[str, int] = {}  # when the newest message was received, ns
        self._shown: dict[str, Any] = {}  # the item that was decoded last, or why it could not be
        self._references: dict[str, NDArray[np.uint8]] = {}

    def offer_service(self) -> None:
        """Creates the service."""
        self._node.create_service(TriggerService, "~/set_tactile_reference", self._on_set_tactile_reference)

    def heard(self, sensor: Sensor, receive_ns: int) -> None:
        """Notes that there was a message, if it is of a tactile sensor."""
        if sensor.config.modality == "touch":
            self._heard[sensor.name] = receive_ns

    def decode(self, sensor: str, payload: tuple[str, Any]) -> Any:
        """The raw item of a message without the reference of its sensor, on the worker's thread.

        That of a tactile sensor is kept, since the reference may be taken from it.

        Raises:
            OmniBindError: The message cannot be used.
        """
        shown: Any = None
        try:
            raw = shown = self._decode(sensor, payload)
        except OmniBindError as error:
            shown = error
            raise
        finally:
            if sensor in self._heard:
                self._shown[sensor] = shown
        reference = self._references.get(sensor)
        return raw if reference is None or isinstance(raw, Encoded) else subtract_reference(raw, reference)

    def clear(self) -> None:
        """Forgets messages and references."""
        self._heard.clear()
        self._shown.clear()
        self._references.clear()

    def _on_set_tactile_reference(self, request: Any, response: Any) -> Any:
        """Takes what every tactile sensor shows now for its look without contact."""
        taken, failed = [], []
        for sensor in list(self._sensors()):
            if sensor.config.modality != "touch":
                continue
            try:
                taken.append(self._take(sensor))
            except OmniBindError as error:
                failed.append(str(error))
        response.success = bool(taken) and not failed
        response.message = "; ".join((*taken, *failed)) or "there is no tactile sensor"
        return response

    def _take(self, sensor: Sensor) -> str:
        name = sensor.name
        receive_ns, raw = self._heard.get(name), self._shown.get(name)
        now_ns = self._node.get_clock().now().nanoseconds
        if raw is None or receive_ns is None or now_ns - receive_ns > sensor.config.timeout * 1e9:
            raise InvalidInputError(name, "no message now", "one that shows the sensor without contact")
        if isinstance(raw, OmniBindError):
            raise raw
        if isinstance(raw, Encoded):
            raise InvalidInputError(name, "frames of a sensor node", "the reference to be set there")
        self._references[name] = np.array(raw)
        return f"[{name}] reference of {raw.shape[1]} x {raw.shape[0]} pixels taken"
