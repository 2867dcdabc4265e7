"""The family ``open_clip``: which settings make which network, and where its tensors are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from omnibind_core.config import from_json
from omnibind_core.encoders.family import Family, TrunkType
from omnibind_core.encoders.open_clip import convert
from omnibind_core.encoders.open_clip.config import OpenClipTextConfig, OpenClipVisionConfig
from omnibind_core.encoders.open_clip.model import OpenClipText, OpenClipVision
from omnibind_core.errors import WeightsError


def _vision(config: OpenClipVisionConfig, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _refuse_other_activation(config, checkpoint, "vision")
    return convert.vision(checkpoint)


def _text(config: OpenClipTextConfig, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _refuse_other_activation(config, checkpoint, "text")
    return convert.text(checkpoint)


def _refuse_other_activation(
    config: OpenClipVisionConfig | OpenClipTextConfig, checkpoint: Mapping[str, Tensor], tower: str
) -> None:
    """Nothing in the weights tells the activation, and the wrong one only makes them recognise less."""
    path = getattr(checkpoint, "path", None)
    declared = None if path is None else _declared_activation(path if path.is_dir() else path.parent, tower)
    if declared is not None and declared[0] != config.activation:
        raise WeightsError(
            f"{declared[1]} says that the {tower} tower's activation is {declared[0]}, the model config says "
            f"{config.activation}: give trunks.{tower}.activation in the model config"
        )


def _declared_activation(folder: Path, tower: str) -> tuple[str, Path] | None:
    """The activation that OpenCLIP's or Hugging Face's settings beside the weights tell, and the file that tells it."""
    for name in ("open_clip_config.json", "config.json"):
        try:
            settings = from_json((folder / name).read_text(encoding="utf-8"))
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


OPEN_CLIP = Family(
    (
        TrunkType(OpenClipVisionConfig, OpenClipVision, _vision),
        TrunkType(OpenClipTextConfig, OpenClipText, _text),
    ),
    "OpenCLIP's code is under the MIT licence; each checkpoint has a licence of its own",
)
