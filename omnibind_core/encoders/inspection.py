"""What weights a model config expects, what a file has of them, and rewriting a file so that each trunk has its own.

Names, shapes and types are compared on the device ``meta``: nothing of this reads weights but :func:`convert`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from omnibind_core.encoders.checkpoints import INDEX, Checkpoint
from omnibind_core.encoders.config import ModelConfig, list_configs, load_config
from omnibind_core.encoders.factory import listed_state
from omnibind_core.encoders.family import FileTrunkConfig
from omnibind_core.encoders.open_clip.convert import to_imagebind
from omnibind_core.encoders.registry import FAMILIES, head_state, make_trunk, trunk_state
from omnibind_core.errors import ConfigError, WeightsError

TITLES = {
    "imagebind": "ImageBind",
    "point_bind": "Point-Bind (or UniBind without its linear heads)",
    "unibind": "UniBind with linear heads",
    "open_clip": "CLIP",
}
"""What a file can be found to be."""

# Which files have what a family needs: Point-Bind's and UniBind's hold a whole ImageBind.
_HOLDS = {
    "imagebind": ("imagebind", "point_bind", "unibind"),
    "point_bind": ("point_bind", "unibind"),
    "unibind": ("point_bind", "unibind"),
    "open_clip": ("open_clip",),
}
_CONFIG_FAMILY = {"unibind": "point_bind"}  # the family of model configs, where it has another name
_CLIP = ("visual.", "vision_model.", "text_model.", "transformer.resblocks.", "text.transformer.resblocks.")

FAMILY_NAMES = tuple(_HOLDS)
"""Families of weights files."""


@dataclass(frozen=True)
class TrunkReport:
    """What a file has of one trunk.

    Attributes:
        modalities: Those that use the trunk.
        expected: Number of tensors that the trunk has.
        matching: How many of them the file has, in the right shape.
        missing: Names of those that it lacks.
        mis_shaped: Shape found and shape expected of those that do not fit, by name.
        unknown: What the file has beside them under the trunk's names.
        problem: Why nothing of the trunk can be used; empty if something can.
    """

    modalities: tuple[str, ...]
    expected: int
    matching: int
    missing: tuple[str, ...] = ()
    mis_shaped: Mapping[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    problem: str = ""

    @property
    def fits(self) -> bool:
        """Whether the trunk can be loaded."""
        return not (self.missing or self.mis_shaped or self.unknown or self.problem)


@dataclass(frozen=True)
class Report:
    """What a weights file is.

    Attributes:
        file: Path.
        family: One of :data:`TITLES`.
        licence: What to know before using the weights.
        config: Name of the model config that it was compared with.
        tensors: Number of tensors in the file.
        bytes: Their size.
        types: Number of tensors of each type.
        trunks: By trunk of the config, but those whose weights come from packages.
        extra: Names that no trunk of the config uses.
    """

    file: str
    family: str
    licence: str
    config: str
    tensors: int
    bytes: int
    types: Mapping[str, int]
    trunks: Mapping[str, TrunkReport]
    extra: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every trunk can be loaded."""
        return all(trunk.fits for trunk in self.trunks.values())


class _Noting(Mapping[str, Tensor]):
    """Tensors by name, noting which were looked up."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        self.path = path
        self.used: set[str] = set()
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        self.used.add(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def expected(config: ModelConfig, modalities: Collection[str] | None = None) -> dict[str, dict[str, Tensor]]:
    """The tensors of every trunk whose weights are in a file, by trunk and name, on the device ``meta``.

    Args:
        config: The architecture.
        modalities: Only the trunks of these; None for all.

    Raises:
        ConfigError: The config has no such modality, or none of the trunks takes a weights file.
    """
    return {name: _tensors(trunk_config) for name, trunk_config in _trunk_configs(config, modalities).items()}


def identify(names: Iterable[str]) -> str | None:
    """Which of :data:`TITLES` a file is, by the names of its tensors; None for none of them."""
    names = list(names)
    if any(name.startswith("mlp_for_") for name in names):
        return "unibind"
    if any("point_encoder." in name for name in names):
        return "point_bind"
    if any("modality_trunks." in name for name in names):
        return "imagebind"
    return "open_clip" if any(name.startswith(_CLIP) for name in names) else None


def licence_of(checkpoint: Checkpoint) -> str:
    """What to know before using a file: what it says itself (those of :func:`convert` do), else its family's."""
    if checkpoint.licence:
        return checkpoint.licence
    found = identify(checkpoint)
    return FAMILIES[_CONFIG_FAMILY.get(found, found)].licence if found else ""


def inspect(checkpoint: Checkpoint, family: str, config: ModelConfig | None = None) -> Report:
    """Compares a file with what a model config expects.

    Args:
        checkpoint: The opened file.
        family: One of :data:`FAMILY_NAMES`: what it is meant to be.
        config: The architecture; None for the one of the family's configs that fits best.

    Raises:
        WeightsError: The file is of another family; says of which.
    """
    found = identify(checkpoint)
    if found not in _HOLDS[family]:
        begins = ", ".join(f"'{name}'" for name in sorted(checkpoint)[:3])
        what = f"a checkpoint of {TITLES[found]}" if found else "of no known family"
        wanted = " or ".join(TITLES[name] for name in _HOLDS[family])
        raise WeightsError(f"{checkpoint.path}: {what} (tensors named {begins}, …), expected one of {wanted}")
    if config is not None:
        return _compare(checkpoint, found, config)
    reports = [_compare(checkpoint, found, candidate) for candidate in _configs(_CONFIG_FAMILY.get(family, family))]
    # UniBind's config is of the same shapes as Point-Bind's: then the name decides.
    return max(reports, key=lambda report: (_fit(report), report.config == family))


def convert(
    checkpoint: Checkpoint,
    config: ModelConfig,
    folder: Path,
    modalities: Collection[str] | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, int]:
    """Writes the tensors of each trunk to a safetensors file of its own, ``<trunk>.safetensors``, and an index of them.

    The folder can be named as ``weights`` of the model config: of it only the trunks that are needed are read.

    Args:
        checkpoint: The opened file.
        config: The architecture.
        folder: An existing folder.
        modalities: Only the trunks of these; None for all.
        dtype: Type of what is not an integer; None for that of the file.

    Returns:
        Bytes written, by trunk.

    Raises:
        ConfigError: As of :func:`expected`.
        WeightsError: The file lacks something of these trunks, or has it in another shape. Nothing was written.
    """
    trunk_configs = _trunk_configs(config, modalities)
    licence = licence_of(checkpoint)
    checkpoint = _translated(checkpoint, config)
    for trunk_config in trunk_configs.values():
        listed_state(trunk_config, _tensors(trunk_config), checkpoint)
    placed: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for name, trunk_config in trunk_configs.items():
        state = trunk_state(trunk_config, checkpoint)
        if dtype is not None:
            state = {key: _cast(tensor, dtype) for key, tensor in state.items()}
        heads = _Noting(checkpoint, checkpoint.path)
        for modality in _users(config, name):
            head_state(trunk_config, heads, modality)
        state |= {key: checkpoint[key] for key in heads.used}
        file = f"{name}.safetensors"
        metadata = {"format": "pt", "config": config.name, "family": config.family, "licence": licence}
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / file, metadata)
        placed |= dict.fromkeys(sorted(state), file)
        sizes[name] = (folder / file).stat().st_size
    index = {"metadata": {"config": config.name, "licence": licence}, "weight_map": placed}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for name in sizes:  # safetensors lets nobody else read them
        (folder / f"{name}.safetensors").chmod((folder / INDEX).stat().st_mode)
    return sizes


def _trunk_configs(config: ModelConfig, modalities: Collection[str] | None) -> dict[str, FileTrunkConfig]:
    """The trunks that take a weights file."""
    unknown = sorted(set(modalities or ()) - set(config.modalities))
    if unknown:
        raise ConfigError(
            f"model '{config.name}' has no modality {', '.join(unknown)}; it has {', '.join(config.modalities)}"
        )
    used = {config.modalities[name].trunk for name in modalities} if modalities is not None else set(config.trunks)
    trunk_configs = {
        name: trunk_config
        for name, trunk_config in config.trunks.items()
        if name in used and isinstance(trunk_config, FileTrunkConfig)
    }
    if not trunk_configs:
        of = "" if modalities is None else f" of {', '.join(sorted(modalities))}"
        raise ConfigError(f"model '{config.name}': no trunk{of} takes a weights file; they come from packages")
    return trunk_configs


def _translated(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    """OpenCLIP's towers under ImageBind's names, where an ImageBind is asked for; else the checkpoint as it is."""
    if config.family != "imagebind" or identify(checkpoint) != "open_clip":
        return checkpoint
    state = to_imagebind(checkpoint)
    spec = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    return Checkpoint(checkpoint.path, spec, state.__getitem__)


def _users(config: ModelConfig, trunk: str) -> tuple[str, ...]:
    return tuple(name for name, settings in config.modalities.items() if settings.trunk == trunk)


def _tensors(trunk_config: FileTrunkConfig) -> dict[str, Tensor]:
    settings: dict[str, Any] = {"vocabulary": None} if "vocabulary" in type(trunk_config).model_fields else {}
    with torch.device("meta"):
        state = make_trunk(trunk_config.model_copy(update=settings)).state_dict()
    return {name: _cast(tensor, getattr(torch, trunk_config.precision or "float32")) for name, tensor in state.items()}


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _configs(family: str) -> list[ModelConfig]:
    configs = [load_config(name) for name in list_configs()]
    return [config for config in configs if config.family == family]


def _fit(report: Report) -> int:
    return sum(x.matching - len(x.missing) - len(x.mis_shaped) - len(x.unknown) for x in report.trunks.values())


def _compare(checkpoint: Checkpoint, found: str, config: ModelConfig) -> Report:
    noting = _Noting(checkpoint.spec, checkpoint.path)
    trunks = {
        name: _compare_trunk(trunk_config, noting, config, name)
        for name, trunk_config in _trunk_configs(config, None).items()
    }
    spec = checkpoint.spec.values()
    return Report(
        str(checkpoint.path),
        found,
        licence_of(checkpoint),
        config.name,
        len(checkpoint),
        sum(tensor.numel() * tensor.element_size() for tensor in spec),
        dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in spec)),
        trunks,
        tuple(sorted(set(checkpoint) - noting.used)),
    )


def _compare_trunk(trunk_config: FileTrunkConfig, spec: _Noting, config: ModelConfig, name: str) -> TrunkReport:
    users = _users(config, name)
    ours = _tensors(trunk_config)
    try:
        theirs = trunk_state(trunk_config, spec)
        for modality in users:
            head_state(trunk_config, spec, modality)
    except WeightsError as error:
        return TrunkReport(users, len(ours), 0, tuple(ours), problem=str(error))
    both = [key for key in ours if key in theirs]
    wrong = {
        key: (list(theirs[key].shape), list(ours[key].shape)) for key in both if theirs[key].shape != ours[key].shape
    }
    missing, unknown = (tuple(key for key in a if key not in b) for a, b in ((ours, theirs), (theirs, ours)))
    return TrunkReport(users, len(ours), len(both) - len(wrong), missing, wrong, unknown)
