"""What stage I begins with: a model built from its config, or one that was trained before, with more modalities."""

from __future__ import annotations

import torch

from omnibind_core import encoders, fusion
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import AdaptedConfig, ModelConfig, load_config
from omnibind_core.encoders.family import FileTrunkConfig, weights_path
from omnibind_core.errors import ConfigError
from omnibind_core.model import OmniBind
from omnibind_core.training.config import TrainConfig


def begin(config: TrainConfig, device: torch.device) -> OmniBind:
    """The model that stage I trains, on its device.

    With ``start``, everything of that model is taken over as it is; modalities that only ``model`` has are built anew.
    A trunk that learns, but is shared with a modality that does not, stays as it is.

    Raises:
        ConfigError: A config is wrong, or describes something of the start model differently.
        WeightsError: Weights are missing or broken.
    """
    if config.start is None:
        architecture = _with_weights(load_config(config.model or "lite"), config.weights)
        built = encoders.build(architecture, device=device)
        fusion_module = fusion.build(architecture.embed_dim, architecture.fusion, tuple(architecture.modalities))
        return OmniBind(architecture, built, fusion_module).to(device)
    old = OmniBind.from_pretrained(config.start, device)
    if adapted := [name for name, part in old.config.modalities.items() if isinstance(part.head, AdaptedConfig)]:
        raise ConfigError(
            f"start: {config.start} was adapted ({', '.join(adapted)}), expected a model that was not: train from the "
            "one that it was made from, and adapt what comes of it"
        )
    wanted = old.config if config.model is None else load_config(config.model)
    _refuse_differences(old.config, wanted, config.start)
    added = [name for name in wanted.modalities if name not in old.config.modalities]
    # The old modalities come first, since a fusion may have numbered them.
    architecture = _joined(old.config, wanted, added)
    old.fusion.extend(len(architecture.modalities))
    _refuse_fusion(old, architecture, config.start)
    encoder_set = old.encoders
    if added:
        new = encoders.build(architecture, added, device)
        encoder_set = EncoderSet(
            {**new.trunks, **old.encoders.trunks},
            {**old.encoders.heads, **new.heads},
            {**old.encoders.trunk_of, **new.trunk_of},
            architecture.embed_dim,
        ).eval()
    model = OmniBind(architecture, encoder_set, old.fusion, old.labels, old.calibration, old.digest)
    if config.align.students is not None:
        for name, trunk in model.encoders.trunk_of.items():
            if name not in config.align.students:
                model.encoders.trunks[trunk].requires_grad_(False)
    return model.to(device)


def _with_weights(architecture: ModelConfig, weights: str | None) -> ModelConfig:
    if weights is None:
        return architecture
    if not any(isinstance(trunk, FileTrunkConfig) for trunk in architecture.trunks.values()):
        raise ConfigError(
            f"weights is {weights}, but the weights of all trunks of '{architecture.name}' are in packages"
        )
    # Absolute, so that the trained model finds them from any working directory.
    return architecture.model_copy(update={"weights": str(weights_path(weights).absolute())})


def _joined(old: ModelConfig, wanted: ModelConfig, added: list[str]) -> ModelConfig:
    return old.model_copy(
        update={
            "name": wanted.name,
            "trunks": {**old.trunks, **wanted.trunks},
            "modalities": {**old.modalities, **{name: wanted.modalities[name] for name in added}},
        }
    )


def _refuse_fusion(old: OmniBind, architecture: ModelConfig, start: str) -> None:
    """Some baselines have a part for each modality, which a new one would not have."""
    fresh = fusion.build(architecture.embed_dim, architecture.fusion, tuple(architecture.modalities)).state_dict()
    there = old.fusion.state_dict()
    if {key: value.shape for key, value in fresh.items()} != {key: value.shape for key, value in there.items()}:
        raise ConfigError(
            f"the fusion of {start} has a part for each of its modalities, so none can be added; expected one that "
            "takes any set, such as fusion.type attention"
        )


def _refuse_differences(old: ModelConfig, wanted: ModelConfig, start: str) -> None:
    parts: list[tuple[str, object, object]] = [("embed_dim", old.embed_dim, wanted.embed_dim)]
    parts += [
        (f"{section}.{name}", mine[name], others[name])
        for section, mine, others in (
            ("trunks", old.trunks, wanted.trunks),
            ("modalities", old.modalities, wanted.modalities),
        )
        for name in mine
        if name in others
    ]
    differing = [f"{key} is {b}, that of {start} is {a}" for key, a, b in parts if a != b]
    if differing:
        raise ConfigError("model does not fit start: " + "; ".join(differing))
