"""Stage II: fusion of any set of embeddings.

:mod:`~omnibind_core.fusion.attention` is AF, :mod:`~omnibind_core.fusion.baselines` what it is compared with,
:mod:`~omnibind_core.fusion.losses` what both are trained by.
"""

from omnibind_core.fusion.attention import AdaptiveFusion, FusionConfig
from omnibind_core.fusion.base import Evidence, Fused, Fusion, evidence
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
    "MeanFusion",
    "baselines",
    "build",
    "changed",
    "evidence",
    "fusion_loss",
    "register",
    "types",
    "wrong_predictions",
]
