"""The trunks of the family ``open_clip``. Sizes of the published models are in the model configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt, model_validator

from omnibind_core.encoders.family import FileTrunkConfig
from omnibind_core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from omnibind_core.encoders.base import TextTower, Trunk

Activation = Literal["gelu", "quick_gelu"]


class _TowerConfig(FileTrunkConfig):
    """What both towers have.

    Attributes:
        width: Of the tokens.
        layers: Number of blocks.
        heads: Of the attention, a divisor of ``width``.
        feature_dim: Width of the embeddings, which are the features of the trunk.
        activation: ``quick_gelu``, x * sigmoid(1.702 x), for weights of OpenAI, and those that say so in their name or
            their config.json; OpenCLIP's others have ``gelu``.
    """

    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feature_dim: PositiveInt
    activation: Activation = "gelu"

    @model_validator(mode="after")
    def _divides(self) -> _TowerConfig:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, expected a divisor of width, {self.width}")
        return self

    def _refuse_other_activation(self, checkpoint: Mapping[str, Tensor], tower: str) -> None:
        """Nothing in the weights tells the activation, and the wrong one only makes them recognise less."""
        path = getattr(checkpoint, "path", None)
        declared = None if path is None else _declared_activation(path if path.is_dir() else path.parent, tower)
        if declared is not None and declared[0] != self.activation:
            raise WeightsError(
                f"{declared[1]} says that the {tower} tower's activation is {declared[0]}, the model config says "
                f"{self.activation}: give trunks.{tower}.activation in the model config"
            )


class OpenClipVisionConfig(_TowerConfig):
    """See :class:`omnibind_core.encoders.open_clip.model.OpenClipVision`.

    Attributes:
        patch: Side of the squares that become tokens, in pixels.
        size: Side of the pictures, a multiple of ``patch``.
    """

    type: Literal["open_clip_vision"]
    patch: PositiveInt
    size: PositiveInt = 224

    @model_validator(mode="after")
    def _tiles(self) -> OpenClipVisionConfig:
        if self.size % self.patch:
            raise ValueError(f"size is {self.size}, expected a multiple of patch, {self.patch}")
        return self

    def build(self) -> Trunk:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.open_clip.model import OpenClipVision

        return OpenClipVision(self)

    def state(self, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`FileTrunkConfig.state`."""
        from omnibind_core.encoders.open_clip.convert import vision

        self._refuse_other_activation(checkpoint, "vision")
        return vision(checkpoint)


class OpenClipTextConfig(_TowerConfig):
    """See :class:`omnibind_core.encoders.open_clip.model.OpenClipText`.

    Attributes:
        context: Tokens of a sentence at most, start and end included.
        tokens: Number of tokens of the vocabulary.
        vocabulary: CLIP's vocabulary, see :class:`omnibind_core.encoders.clip_text.ClipTokeniser`, found like
            ``weights``; None for bytes alone, as tests do.
    """

    type: Literal["open_clip_text"]
    context: PositiveInt = 77
    tokens: PositiveInt = 49408
    vocabulary: str | None = None

    def build(self) -> TextTower:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.open_clip.model import OpenClipText

        return OpenClipText(self)

    def state(self, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`FileTrunkConfig.state`."""
        from omnibind_core.encoders.open_clip.convert import text

        self._refuse_other_activation(checkpoint, "text")
        return text(checkpoint)


def _declared_activation(folder: Path, tower: str) -> tuple[str, Path] | None:
    """The activation that OpenCLIP's or Hugging Face's settings beside the weights tell, and the file that tells it."""
    for name in ("open_clip_config.json", "config.json"):
        try:
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(settings, dict):
            continue
        if isinstance(cfg := settings.get("model_cfg"), dict):
            return ("quick_gelu" if cfg.get("quick_gelu") else "gelu"), folder / name
        if isinstance(cfg := settings.get(f"{tower}_config"), dict):
            # What equals the default of Hugging Face's CLIPConfig may be left out.
            return str(cfg.get("hidden_act", "quick_gelu")), folder / name
    return None


SCHEMAS = (OpenClipVisionConfig, OpenClipTextConfig)
