"""Model config to encoders, and the part of their state that belongs to a saved model."""

from __future__ import annotations

import csv
import functools
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core import resources
from omnibind_core.encoders import config as c
from omnibind_core.encoders import heads
from omnibind_core.encoders.base import EncoderSet, TextTower, Trunk
from omnibind_core.encoders.checkpoints import Checkpoint, fingerprint, open_checkpoint
from omnibind_core.encoders.family import FileTrunkConfig, TrunkConfig, weights_path
from omnibind_core.encoders.packages import YAMNET_CLASSES, packaged_file
from omnibind_core.encoders.registry import head_state, make_trunk, trunk_state
from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.modalities import get as modality_of

_logger = logging.getLogger(__name__)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TOLD = 8  # problems that an error message names
_IMAGENET_CLASSES = resources.path("encoders/lite/imagenet_classes.txt")


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


def build(
    config: c.ModelConfig, modalities: Collection[str] | None = None, device: str | torch.device = "cpu"
) -> EncoderSet:
    """Builds the encoders of a model, in eval mode, on the CPU.

    Packaged trunks and those with a weights file get their weights and are frozen, as is every trunk that is not
    trainable. What is trained starts at random, the same for the same ``config.seed`` whichever modalities are built.

    Args:
        config: The architecture.
        modalities: Only these, and only the trunks they need; None for all of the config.
        device: Where they will run: a CPU is refused for weights in half precision.

    Raises:
        ConfigError: A modality is not in the config, or a trunk does not fit its preset or its head.
        MissingDependencyError: A package that carries weights is not installed.
        WeightsError: A packaged file is not the known one; a weights file is missing, damaged, or does not fit.
    """
    chosen = [name for name in config.modalities if modalities is None or name in modalities]
    unknown = sorted(set(modalities or ()) - set(config.modalities))
    if unknown or not chosen:
        known = ", ".join(config.modalities)
        raise ConfigError(f"model '{config.name}' has no modality {', '.join(unknown) or 'chosen'}; it has {known}")
    trunk_of = {name: config.modalities[name].trunk for name in chosen}
    trunk_configs = {
        name: _with_weights(config, trunk_config)
        for name, trunk_config in config.trunks.items()
        if name in trunk_of.values()
    }
    files = _open_weights(trunk_configs)
    trunks: dict[str, Any] = {}
    states = {}
    for name, file in files.items():
        trunk_config = trunk_configs[name]
        trunks[name] = _seeded(config.seed, f"trunks.{name}", functools.partial(_trunk, trunk_config, file))
        if file is not None:
            states[name] = _checked_state(trunk_config, trunks[name], file, torch.device(device))
    for name in chosen:
        _check_preset(config, name, trunks[trunk_of[name]])
    for name, state in states.items():  # only now, when all is known to fit, is anything read
        _fill(trunks[name], state, trunk_configs[name])
    made = {
        name: _seeded(config.seed, f"heads.{name}", functools.partial(_head, config, name, trunks[trunk_of[name]]))
        for name in chosen
    }
    for name, head in made.items():
        _load_head(config, name, head, files[trunk_of[name]])
    for trunk in trunks.values():
        trunk.requires_grad_(trunk.trainable)
    return EncoderSet(trunks, made, trunk_of, config.embed_dim).eval()


def _seeded(seed: int, name: str, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        return make()


def _with_weights(config: c.ModelConfig, trunk_config: TrunkConfig) -> TrunkConfig:
    """A trunk's settings, with the model's weights file if it has none of its own."""
    if not isinstance(trunk_config, FileTrunkConfig) or trunk_config.weights is not None:
        return trunk_config
    return trunk_config.model_copy(update={"weights": config.weights})


def _open_weights(trunk_configs: Mapping[str, TrunkConfig]) -> dict[str, Checkpoint | None]:
    """The weights file of each trunk, None for those without; a file of several trunks is opened once."""
    sources = {
        name: trunk_config.weights if isinstance(trunk_config, FileTrunkConfig) else None
        for name, trunk_config in trunk_configs.items()
    }
    opened = {source: open_checkpoint(weights_path(source)) for source in set(sources.values()) if source is not None}
    return {name: None if source is None else opened[source] for name, source in sources.items()}


def _trunk(trunk_config: TrunkConfig, checkpoint: Checkpoint | None) -> Trunk | TextTower:
    if checkpoint is not None:
        with torch.device("meta"):  # every tensor will be replaced; the largest trunks have hundreds of millions
            return make_trunk(trunk_config)
    trunk = make_trunk(trunk_config)
    if isinstance(trunk_config, FileTrunkConfig):
        trunk.to(getattr(torch, trunk_config.precision or "float32"))
    return trunk


def _checked_state(
    trunk_config: TrunkConfig, trunk: nn.Module, checkpoint: Checkpoint, device: torch.device
) -> dict[str, Tensor]:
    """The state dict of a trunk out of its weights file, which is mapped into memory, but not read."""
    assert isinstance(trunk_config, FileTrunkConfig)
    listed = listed_state(trunk_config, trunk.state_dict(), checkpoint)
    if device.type == "cpu" and _precision(trunk_config, listed) == torch.float16:
        found = "precision is float16" if trunk_config.precision else f"{checkpoint.path} is in float16"
        raise WeightsError(
            f"the trunk '{trunk_config.type}': {found}, in which a CPU does not compute; expected a GPU (device cuda), "
            "or 'precision' float32 or bfloat16 in the trunk's part of the model config"
        )
    return trunk_state(trunk_config, checkpoint)


def listed_state(
    trunk_config: FileTrunkConfig, expected: Mapping[str, Tensor], checkpoint: Checkpoint
) -> dict[str, Tensor]:
    """What a file has of a trunk, as empty tensors: nothing is read.

    Args:
        trunk_config: Settings of the trunk.
        expected: Its state dict.
        checkpoint: The opened file.

    Raises:
        WeightsError: The file does not fit; names the tensors that are missing, unknown or of another shape.
    """
    message = f"{checkpoint.path} does not fit the trunk '{trunk_config.type}'"
    try:
        state = trunk_state(trunk_config, checkpoint.listing)
    except WeightsError as error:
        raise WeightsError(f"{message}: {error}") from error
    _check_fit(expected, state, message)
    return state


def _precision(trunk_config: FileTrunkConfig, state: Mapping[str, Tensor]) -> torch.dtype:
    """The type that a trunk computes in: that of its config, else that of most numbers of the file."""
    if trunk_config.precision is not None:
        return cast(torch.dtype, getattr(torch, trunk_config.precision))
    count: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        if tensor.is_floating_point():
            count[tensor.dtype] += tensor.numel()
    return count.most_common(1)[0][0]


def _check_preset(config: c.ModelConfig, modality: str, trunk: Trunk | TextTower) -> None:
    """Refuses a preset whose views the trunk cannot take."""
    takes = getattr(trunk, "takes", None)
    if takes is None:
        return
    preset = modality_of(modality).preset(config.modalities[modality].preset)
    sizes, dtype = takes
    fits = len(sizes) == len(preset.shape) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(sizes, preset.shape, strict=True)
    )
    if not fits or preset.dtype != dtype:
        raise ConfigError(
            f"modalities.{modality}.preset: '{preset.name}' makes {preset.dtype} {list(preset.shape)}, expected what "
            f"the trunk '{config.modalities[modality].trunk}' takes, {dtype} {list(sizes)}"
        )


def _fill(trunk: Trunk | TextTower, state: Mapping[str, Tensor], trunk_config: TrunkConfig) -> None:
    assert isinstance(trunk_config, FileTrunkConfig)
    precision = _precision(trunk_config, state)
    own = {name: tensor.to(precision) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    _check_numbers(own, f"the weights of the trunk '{trunk_config.type}'")
    trunk.load_state_dict(own, assign=True)
    trunk.packaged, trunk.fingerprint = True, fingerprint(state)


def _load_head(config: c.ModelConfig, modality: str, head: nn.Module, checkpoint: Checkpoint | None) -> None:
    """Starts a linear head from that of the weights file, if there is one."""
    settings = config.modalities[modality]
    trunk = config.trunks[settings.trunk]
    if checkpoint is None or not isinstance(trunk, FileTrunkConfig) or not isinstance(settings.head, c.LinearConfig):
        return
    state = head_state(trunk, checkpoint, modality)
    if state:
        _check_fit(head.state_dict(), state, f"{checkpoint.path} does not fit the head of '{modality}'")
        _check_numbers(state, str(checkpoint.path))
        head.load_state_dict(state)
        _logger.info("%s: linear head taken from %s", modality, checkpoint.path)


def _check_numbers(state: Mapping[str, Tensor], where: str) -> None:
    """Refuses weights that are not a number; infinite ones are masks of texts."""
    bad = next((name for name, x in state.items() if x.dtype in _FLOATS and x.isnan().any()), None)
    if bad is not None:
        raise WeightsError(f"{where}: '{bad}' has values that are not a number, expected weights that were trained")


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], message: str) -> None:
    """Refuses a state dict with missing or unknown tensors or wrong shapes."""
    problems = [f"'{name}' is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"'{name}' is not of this model" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"'{name}' has shape {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise WeightsError(f"{message}: {'; '.join(problems[:_TOLD])}{more}")


def _head(
    config: c.ModelConfig, modality: str, trunk: Trunk | TextTower, head: c.HeadConfig | None = None
) -> nn.Module:
    head = config.modalities[modality].head if head is None else head
    if isinstance(head, c.AdaptedConfig):
        base = _head(config, modality, trunk, head.base)
        return heads.Adapted(base, trunk.feature_dim, config.embed_dim, head.labels, head.samples, head.home)
    if isinstance(head, c.LinearConfig):
        return nn.Linear(trunk.feature_dim, config.embed_dim)
    parts = getattr(trunk, "parts", ())
    if isinstance(head, c.MLPConfig):
        return heads.MLP(trunk.feature_dim, config.embed_dim, head.hidden, head.dropout, head.residual, parts)
    if isinstance(head, c.ConSEConfig):
        return _conse(config, modality, head, trunk, parts)
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
    rows = text.encode_text_once([head.prompt.replace("{}", name) for words in names for name in words])
    means = [part.mean(dim=0) for part in rows.split([len(words) for words in names])]
    embeddings = F.normalize(torch.stack(means), dim=1)
    if not head.definitions:
        return embeddings
    told = [f"{words[0]}: {meaning}" for words, meaning in zip(classes, imagenet_definitions(), strict=True)]
    return F.normalize(embeddings + text.encode_text_once(told), dim=1)


def own_state(encoders: EncoderSet) -> dict[str, Tensor]:
    """The tensors that belong to a saved model: those that no installed package and no weights file can give again.

    Args:
        encoders: The encoders.

    Returns:
        Tensors by name, ``heads.<modality>.…`` and ``trunks.<name>.…``, sharing memory with the encoders.
    """
    for head in encoders.heads.modules():
        if isinstance(head, heads.ConSE):
            head.tie()
    return _own(encoders)


def _own(encoders: EncoderSet) -> dict[str, Tensor]:
    packaged = tuple(f"trunks.{name}." for name, trunk in encoders.trunks.items() if trunk.packaged)
    state = {name: tensor for name, tensor in encoders.state_dict().items() if not name.startswith(packaged)}
    # Instead of the weights in a file, what tells them from others.
    marks = {f"trunks.{name}.fingerprint": str(trunk.fingerprint) for name, trunk in encoders.trunks.items()}
    return state | {name: torch.tensor(list(mark.encode()), dtype=torch.uint8) for name, mark in marks.items() if mark}


def _text(tensor: Tensor) -> str:
    return bytes(tensor.tolist()).decode(errors="replace")


@torch.no_grad()
def load_own_state(encoders: EncoderSet, state: Mapping[str, Tensor]) -> None:
    """Puts saved tensors in place.

    Args:
        encoders: Encoders built from the same config.
        state: What :func:`own_state` gave, for the modalities of these encoders.

    Raises:
        WeightsError: Tensors are missing, too many or of the wrong shape, or a weights file is another one than the
            saved model's; names them. Nothing was changed.
    """
    ours = _own(encoders)
    _check_fit(ours, state, "the encoder weights do not fit the model config")
    for name, trunk in encoders.trunks.items():
        if trunk.fingerprint and _text(state[f"trunks.{name}.fingerprint"]) != trunk.fingerprint:
            raise WeightsError(
                f"the weights file of the trunk '{name}' is another one than when this model was made: its fingerprint "
                f"is {trunk.fingerprint}, expected {_text(state[f'trunks.{name}.fingerprint'])}"
            )
    for name, tensor in ours.items():
        tensor.copy_(state[name])
