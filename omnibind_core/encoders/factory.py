"""Model config to encoders, and the part of their state that belongs to a saved model."""

from __future__ import annotations

import csv
import functools
import re
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core import modalities
from omnibind_core.encoders import config as c
from omnibind_core.encoders import heads
from omnibind_core.encoders.base import EncoderSet, TextTower, Trunk
from omnibind_core.encoders.packages import YAMNET_CLASSES, packaged_file
from omnibind_core.errors import ConfigError, WeightsError

_IMAGENET_CLASSES = Path(__file__).parent / "lite" / "imagenet_classes.txt"


def imagenet_classes() -> list[list[str]]:
    """The names of the 1000 ImageNet classes, in the classifier's order; WordNet's synonyms, the commonest first."""
    return [line[1].split(", ") for line in _imagenet()]


def imagenet_definitions() -> list[str]:
    """WordNet's definitions of the 1000 ImageNet classes."""
    return [line[2] for line in _imagenet()]


def _imagenet() -> list[list[str]]:
    return [line.split("\t") for line in _IMAGENET_CLASSES.read_text(encoding="utf-8").splitlines()]


def audioset_classes() -> list[list[str]]:
    """The names of YAMNet's 521 AudioSet classes, in the classifier's order.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
        WeightsError: Its file is not the known one.
    """
    with packaged_file(YAMNET_CLASSES).open(encoding="utf-8", newline="") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    return [[part.strip() for part in re.split(r"[,()]", name) if part.strip()] for name in names]


def build(config: c.ModelConfig, modalities: Collection[str] | None = None) -> EncoderSet:
    """Builds the encoders of a model, in eval mode.

    Packaged trunks get their weights and are frozen, as is every trunk that is not trainable. What is trained starts
    at random, the same for the same ``config.seed`` whichever modalities are built.

    Args:
        config: The architecture.
        modalities: Only these, and only the trunks they need; None for all of the config.

    Raises:
        ConfigError: A modality is not in the config, or a trunk and a head do not fit together.
        MissingDependencyError: A package that carries weights is not installed.
        WeightsError: A packaged file is not the known one.
    """
    chosen = [name for name in config.modalities if modalities is None or name in modalities]
    unknown = sorted(set(modalities or ()) - set(config.modalities))
    if unknown or not chosen:
        known = ", ".join(config.modalities)
        raise ConfigError(f"model '{config.name}' has no modality {', '.join(unknown) or 'chosen'}; it has {known}")
    trunk_of = {name: config.modalities[name].trunk for name in chosen}
    trunks = {
        name: _seeded(config.seed, f"trunks.{name}", functools.partial(_trunk, part))
        for name, part in config.trunks.items()
        if name in trunk_of.values()
    }
    made = {
        name: _seeded(config.seed, f"heads.{name}", functools.partial(_head, config, name, trunks[trunk_of[name]]))
        for name in chosen
    }
    for trunk in trunks.values():
        trunk.requires_grad_(trunk.trainable)
    return EncoderSet(trunks, made, trunk_of, config.embed_dim).eval()


def _seeded(seed: int, name: str, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        return make()


def _trunk(config: c.TrunkConfig) -> Trunk | TextTower:
    # Imported here, so that a model without, say, text never imports what only text needs.
    if isinstance(config, c.EfficientNetConfig):
        from omnibind_core.encoders.lite.efficientnet import EfficientNetLite0

        return EfficientNetLite0.from_package(config.levels)
    if isinstance(config, c.YamNetConfig):
        from omnibind_core.encoders.lite.yamnet import YamNet

        return YamNet.from_package()
    if isinstance(config, c.MiniLMConfig):
        from omnibind_core.encoders.lite.minilm import MiniLMTower

        return MiniLMTower()
    if isinstance(config, c.PluginConfig):
        return _plugin_trunk(config)
    settings = config.model_dump(exclude={"type"})
    if isinstance(config, c.PointConfig):
        from omnibind_core.encoders.lite.point import PointTrunk

        return PointTrunk(**settings)
    from omnibind_core.encoders.lite.stand_ins import HashedText, RandomConv

    return RandomConv(**settings) if isinstance(config, c.RandomConvConfig) else HashedText(**settings)


def _plugin_trunk(config: c.PluginConfig) -> Trunk:
    where = f"the trunk of the plug-in '{config.modality}'"
    build = getattr(modalities.plugin_module(config.modality, "encoder"), "build", None)
    if build is None:
        raise ConfigError(f"{where}: expected an encoder.py with a function build in its folder")
    try:
        trunk = build(**config.settings)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; its settings are {config.settings}") from error
    if not isinstance(trunk, Trunk) or not isinstance(getattr(trunk, "feature_dim", None), int):
        raise ConfigError(f"{where}: build returned {type(trunk).__name__}, expected a Trunk with a feature_dim")
    return trunk


def _head(config: c.ModelConfig, modality: str, trunk: Trunk | TextTower) -> nn.Module:
    part = config.modalities[modality].head
    if isinstance(part, c.LinearConfig):
        return nn.Linear(trunk.feature_dim, config.embed_dim)
    parts = getattr(trunk, "parts", ())
    if isinstance(part, c.MLPConfig):
        return heads.MLP(trunk.feature_dim, config.embed_dim, part.hidden, part.dropout, part.residual, parts)
    if isinstance(part, c.ConSEConfig):
        return _conse(config, modality, part, trunk, parts)
    if trunk.feature_dim != config.embed_dim:
        raise ConfigError(
            f"modalities.{modality}.head: 'identity' needs features as wide as embed_dim ({config.embed_dim}), "
            f"the trunk's have {trunk.feature_dim}"
        )
    return nn.Identity()


def _conse(
    config: c.ModelConfig, modality: str, head: c.ConSEConfig, trunk: Trunk | TextTower, parts: Sequence[int]
) -> heads.ConSE:
    classifier = getattr(trunk, "classifier", None)
    classes = imagenet_classes() if head.classes == "imagenet" else audioset_classes()
    where = f"modalities.{modality}.head"
    if not isinstance(classifier, nn.Linear) or classifier.out_features != len(classes):
        raise ConfigError(f"{where}: 'conse' needs a trunk with a classifier of the classes '{head.classes}'")
    number = {", ".join(names): index for index, names in enumerate(classes)}
    unknown = [name for name in head.ignored if name not in number]
    if unknown:
        raise ConfigError(f"{where}.ignored: {head.classes} has no class '{unknown[0]}'")
    refinement: heads.MLP | None = None
    if head.refinement:
        width, dim = trunk.feature_dim, config.embed_dim
        refinement = heads.MLP(width, dim, head.refinement, head.dropout, head.residual, parts)
        refinement.start_as_nothing()
    return heads.ConSE(
        classifier,
        config.embed_dim,
        functools.partial(_embed_classes, config, head, classes),
        head.top_k,
        head.temperature,
        refinement,
        head.share,
        head.centre,
        [number[name] for name in head.ignored],
    )


def _embed_classes(config: c.ModelConfig, head: c.ConSEConfig, classes: list[list[str]]) -> Tensor:
    """Text embeddings of a classifier's classes, unit length: the mean over the names of each, and its definition."""
    text = build(config, {"text"})
    names = [words[: head.names or None] for words in classes]
    rows = text.encode_text([head.prompt.replace("{}", name) for words in names for name in words])
    means = [part.mean(dim=0) for part in rows.split([len(words) for words in names])]
    embeddings = F.normalize(torch.stack(means), dim=1)
    if not head.definitions:
        return embeddings
    told = [f"{words[0]}: {meaning}" for words, meaning in zip(classes, imagenet_definitions(), strict=True)]
    return F.normalize(embeddings + text.encode_text(told), dim=1)


def own_state(encoders: EncoderSet) -> dict[str, Tensor]:
    """The tensors that belong to a saved model: those that no installed package can give again.

    Args:
        encoders: The encoders.

    Returns:
        Tensors by name, ``heads.<modality>.…`` and ``trunks.<name>.…``, sharing memory with the encoders.
    """
    for head in encoders.heads.values():
        if isinstance(head, heads.ConSE):
            head.tie()
    return _own(encoders)


def _own(encoders: EncoderSet) -> dict[str, Tensor]:
    packaged = tuple(f"trunks.{name}." for name, trunk in encoders.trunks.items() if trunk.packaged)
    return {name: tensor for name, tensor in encoders.state_dict().items() if not name.startswith(packaged)}


@torch.no_grad()
def load_own_state(encoders: EncoderSet, state: Mapping[str, Tensor]) -> None:
    """Puts saved tensors in place.

    Args:
        encoders: Encoders built from the same config.
        state: What :func:`own_state` gave, for the modalities of these encoders.

    Raises:
        WeightsError: Tensors are missing, too many or of the wrong shape; names them. Nothing was changed.
    """
    ours = _own(encoders)
    problems = [f"'{name}' is missing" for name in sorted(ours.keys() - state.keys())]
    problems += [f"'{name}' is not of this model" for name in sorted(state.keys() - ours.keys())]
    problems += [
        f"'{name}' has shape {list(state[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in ours.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        raise WeightsError("the encoder weights do not fit the model config: " + "; ".join(problems))
    for name, tensor in ours.items():
        tensor.copy_(state[name])
