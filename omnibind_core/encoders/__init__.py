"""Encoders: trunks shared by modalities, one head per modality, and the model configs that name them."""

from omnibind_core.encoders.base import EncoderSet, TextTower, Trunk
from omnibind_core.encoders.config import ModelConfig, list_configs, load_config
from omnibind_core.encoders.factory import build, load_own_state, own_state

__all__ = [
    "EncoderSet",
    "ModelConfig",
    "TextTower",
    "Trunk",
    "build",
    "list_configs",
    "load_config",
    "load_own_state",
    "own_state",
]
