"""Checkpoints of ImageBind, Point-Bind and UniBind to the state dicts of trunks; pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from omnibind_core.errors import WeightsError

STAGES = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")
"""First part of every name in ``imagebind_huge.pth``; the second is the modality."""
MODALITIES = ("vision", "text", "audio", "depth", "thermal", "imu")
_POINT_PARTS = ("pc_projection", "point_encoder.", "bind.modality_head_point.", "bind.modality_postprocessor_point.")
_UNIBIND_HEADS = {"image": "image", "audio": "audio", "thermal": "thermal", "point_cloud": "point", "event": "event"}


def tower(checkpoint: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """State dict of one modality of ImageBind, under its own names.

    Args:
        checkpoint: Of ImageBind, or of a model that holds one: Point-Bind's and UniBind's names begin with ``bind.``,
            those of a fine-tuned UniBind with ``backbone.bind.``.
        modality: One of :data:`MODALITIES`.

    Raises:
        WeightsError: It is no ImageBind, or has not this modality.
    """
    prefix = _prefix(checkpoint, "modality_trunks.", "ImageBind")
    begins = tuple(f"{prefix}{stage}.{modality}." for stage in STAGES)
    names = [name for name in checkpoint if name.startswith(begins)]
    if not names:
        trunks = f"{prefix}modality_trunks."
        has = sorted({name[len(trunks) :].partition(".")[0] for name in checkpoint if name.startswith(trunks)})
        raise WeightsError(f"the ImageBind checkpoint has the modalities {', '.join(has)}, expected '{modality}'")
    return {name[len(prefix) :]: checkpoint[name] for name in names}


def points(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of Point-Bind's way of point clouds, under its own names, without the ImageBind beside it.

    Args:
        checkpoint: Of Point-Bind or UniBind.

    Raises:
        WeightsError: It has no point encoder.
    """
    prefix = _prefix(checkpoint, "point_encoder.", "Point-Bind")
    begins = tuple(prefix + part for part in _POINT_PARTS)
    return {name[len(prefix) :]: checkpoint[name] for name in checkpoint if name.startswith(begins)}


def head(checkpoint: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """UniBind's linear layer behind one of our modalities, ``weight`` and ``bias``; nothing if there is none."""
    layer = f"mlp_for_{_UNIBIND_HEADS.get(modality)}."
    return {name[len(layer) :]: checkpoint[name] for name in checkpoint if name.startswith(layer)}


def _prefix(checkpoint: Mapping[str, Tensor], part: str, model: str) -> str:
    """What stands before the names of a model inside another one, found by a part that begins its own names."""
    found = sorted({name[: name.index(part)] for name in checkpoint if part in name})
    if len(found) != 1:
        what = f"with it under {', '.join(map(repr, found))}" if found else f"whose names begin {_examples(checkpoint)}"
        raise WeightsError(f"expected a checkpoint of {model}, with names that contain '{part}', got one {what}")
    return found[0]


def _examples(checkpoint: Mapping[str, Tensor]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(checkpoint)[:3])
