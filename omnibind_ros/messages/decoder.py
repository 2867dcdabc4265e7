"""From the messages of one sensor to the raw form of its modality."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Doubt
from omnibind_core.runtime.types import Doubted
from omnibind_ros.messages import registry
from omnibind_ros.messages.fields import DecodeOptions


class Decoder:
    """Turns the messages of one sensor into the raw form of its modality.

    Some encodings say only what has changed since the message before: so one decoder for each sensor, and its messages
    in the order in which they were sent. Where messages were lost, such a decoder begins anew by itself.

    Args:
        modality: One of :func:`omnibind_core.modalities.names`.
        source: Sensor name, for error messages.

    Attributes:
        doubt: What the message decoded last tells against itself, which its item does not; ``None`` if nothing.
    """

    def __init__(self, modality: str, source: str) -> None:
        self._modality = modality
        self._source = source
        self._accepted = registry.types_for(modality)
        self._functions: dict[str, registry.Function] = {}
        self.doubt: Doubt | None = None

    @property
    def losses(self) -> dict[str, int]:
        """What was lost between or inside of messages so far, by name; empty where the encoding cannot tell."""
        losses: dict[str, int] = {}
        for function in tuple(self._functions.values()):
            losses.update(getattr(function, "losses", {}))
        return losses

    def decode(self, ros_type: str, message: Any, options: DecodeOptions) -> Any:
        """Decodes the next message.

        Args:
            ros_type: For example ``"sensor_msgs/msg/Image"``; one of those accepted for the modality.
            message: The message, of rclpy or rosbags.
            options: What the message does not say.

        Returns:
            The raw item, which the modality's ``check`` has still to accept, or
            :class:`~omnibind_core.runtime.types.Encoded` for a ``ModalityFrame``.

        Raises:
            InvalidInputError: The message is malformed, or its type is not accepted for the modality.
        """
        if ros_type not in self._accepted:
            expected = f"for {self._modality} one of {', '.join(self._accepted)}"
            raise InvalidInputError(self._source, f"a message of type {ros_type}", expected)
        if ros_type not in self._functions:
            self._functions[ros_type] = registry.make(self._modality, ros_type)
        try:
            raw = self._functions[ros_type](message, self._modality, options, self._source)
        except AttributeError as error:
            if isinstance(error.obj, np.ndarray | ModuleType):  # our own mistake
                raise
            raise InvalidInputError(
                self._source, f"a message without '{error.name}'", f"the fields of {ros_type}"
            ) from error
        raw, self.doubt = (raw.raw, raw.doubt) if isinstance(raw, Doubted) else (raw, None)
        return raw


def decode(ros_type: str, message: Any, modality: str, options: DecodeOptions, source: str) -> Any:
    """Decodes a message that stands alone; see :meth:`Decoder.decode`."""
    return Decoder(modality, source).decode(ros_type, message, options)
