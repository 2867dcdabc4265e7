"""Stage II: fusion of any set of embeddings."""

from omnibind_core.fusion.attention import (
    PRESETS,
    AdaptiveFusion,
    Fused,
    Fusion,
    FusionConfig,
    build,
    changed,
    fusion_loss,
    wrong_predictions,
)

__all__ = [
    "PRESETS",
    "AdaptiveFusion",
    "Fused",
    "Fusion",
    "FusionConfig",
    "build",
    "changed",
    "fusion_loss",
    "wrong_predictions",
]
