"""Stage II: fusion of any set of embeddings.

:mod:`~omnibind_core.fusion.attention` is AF, :mod:`~omnibind_core.fusion.baselines` what it is compared with,
:mod:`~omnibind_core.fusion.losses` what both are trained by.
"""

from omnibind_core.fusion.attention import AdaptiveFusion, FusionConfig
from omnibind_core.fusion.base import (
    Evidence,
    Fused,
    Fusion,
    LeftOut,
    evidence,
    evidence_left_out,
    left_out,
    sums_left_out,
)
from omnibind_core.fusion.baselines import MeanFusion
from omnibind_core.fusion.losses import fusion_loss, wrong_predictions
from omnibind_core.fusion.registry import FusionType, baselines, build, changed, register, types

__all__ = [
    "AdaptiveFusion",
    "Evidence",
    "Fused",
    "Fusion",
    "FusionConfig",
    "FusionType",
    "LeftOut",
    "MeanFusion",
    "baselines",
    "build",
    "changed",
    "evidence",
    "evidence_left_out",
    "fusion_loss",
    "left_out",
    "register",
    "sums_left_out",
    "types",
    "wrong_predictions",
]
