"""Model configs: architectures as data. ``configs/model/*.json`` come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from omnibind_core import modalities, resources
from omnibind_core.config import Config, parse, read_mapping
from omnibind_core.encoders.family import TrunkConfig
from omnibind_core.encoders.registry import FAMILIES, SCHEMAS
from omnibind_core.errors import ConfigError

CONFIGS = resources.path("configs/model")


if TYPE_CHECKING:
    AnyTrunkConfig = TrunkConfig
else:
    AnyTrunkConfig = Annotated[Union[SCHEMAS], Field(discriminator="type")]  # noqa: UP007 (made at run time)


class IdentityConfig(Config):
    """The features are the embedding."""

    type: Literal["identity"]


class LinearConfig(Config):
    """One trained linear layer."""

    type: Literal["linear"]


class MLPConfig(Config):
    """See :class:`omnibind_core.encoders.heads.MLP`."""

    type: Literal["mlp"]
    hidden: PositiveInt = 512
    dropout: float = Field(0.0, ge=0, lt=1)
    residual: bool = False


class ConSEConfig(Config):
    """See :class:`omnibind_core.encoders.heads.ConSE`; the trunk must have a classifier.

    Attributes:
        classes: Which class names belong to the classifier: ImageNet's or AudioSet's.
        prompt: Sentence that is embedded for each name of a class; ``{}`` stands for the name.
        names: How many of a class's names are embedded, 0 for all; their embeddings are averaged.
        definitions: WordNet's definitions of the classes count as much as their names (ImageNet only).
        ignored: Names of classes that do not vote, because they say too little.
        top_k: How many classes vote.
        temperature: Divides the logits before the softmax.
        centre: How much of the mean class embedding is taken from each.
        refinement: Hidden width of a trained MLP beside the vote; 0 for none.
        dropout: Share of the refinement's hidden values dropped in training.
        residual: Adds a linear path to the refinement.
        share: Share of the refinement that is used after training.
    """

    type: Literal["conse"]
    classes: Literal["imagenet", "audioset"] = "imagenet"
    prompt: str = Field("{}", pattern=r"\{\}")
    names: int = Field(2, ge=0)
    definitions: bool = False
    ignored: tuple[str, ...] = ()
    top_k: PositiveInt = 10
    temperature: PositiveFloat = 1.0
    centre: float = Field(0.0, ge=0, le=1)
    refinement: NonNegativeInt = 0
    dropout: float = Field(0.3, ge=0, lt=1)
    residual: bool = False
    share: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _defined(self) -> ConSEConfig:
        if self.definitions and self.classes != "imagenet":
            raise ValueError("definitions: only ImageNet's classes have them")
        return self


class AdaptedConfig(Config):
    """See :class:`omnibind_core.encoders.heads.Adapted`; made by ``omnibind adapt``.

    Attributes:
        base: The head as it was before.
        labels: Number of labels that were learned.
        samples: Number of samples of the new sensor that are kept.
        home: Number of features that stand for what the model knew before.
    """

    type: Literal["adapted"]
    base: HeadConfig
    labels: PositiveInt
    samples: PositiveInt
    home: PositiveInt


HeadConfig = Annotated[
    IdentityConfig | LinearConfig | MLPConfig | ConSEConfig | AdaptedConfig, Field(discriminator="type")
]
AdaptedConfig.model_rebuild()


class ModalityConfig(Config):
    """How one modality is encoded.

    Attributes:
        trunk: Name of a trunk.
        preset: Name of a processing preset of the modality; None for its default.
        head: What maps the trunk's features to the shared space.
    """

    trunk: str
    preset: str | None = None
    head: HeadConfig


class ModelConfig(Config):
    """An architecture.

    Attributes:
        name: Name of the model.
        family: Which of the families in ``registry.py`` it belongs to. Trunks of others may be mixed in.
        embed_dim: Width of the shared space.
        seed: Seed of everything that is drawn at random when a model is built.
        weights: File or folder with the weights of the trunks that need one, see
            :class:`omnibind_core.encoders.family.FileTrunkConfig`.
        trunks: Trunks by name.
        modalities: Modalities by name.
        fusion: Settings of the fusion, checked by :func:`omnibind_core.fusion.build`.
    """

    name: str
    family: str
    embed_dim: PositiveInt
    seed: int = 0
    weights: str | None = None
    trunks: dict[str, AnyTrunkConfig]
    modalities: dict[str, ModalityConfig] = Field(min_length=1)
    fusion: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_exist(self) -> ModelConfig:
        if self.family not in FAMILIES:
            raise ValueError(f"family is '{self.family}', expected one of {', '.join(FAMILIES)}")
        for name, modality in self.modalities.items():
            if name not in modalities.names():
                raise ValueError(f"modalities.{name}: {modalities.unknown(name)}")
            if modality.trunk not in self.trunks:
                known = ", ".join(self.trunks)
                raise ValueError(f"modalities.{name}.trunk is '{modality.trunk}', expected one of {known}")
        return self


def list_configs() -> tuple[str, ...]:
    """Names of the model configs that come with the package."""
    return resources.names("configs/model", ".json")


def load_config(source: str | Path | Mapping[str, Any], whole: bool = False) -> ModelConfig:
    """Reads a model config.

    Args:
        source: A name of :func:`list_configs`, a path of a JSON or YAML file, or the content of such a file. With
            ``extends``, the name or path of another one, it only says what differs from that.
        whole: Whether it may extend no other.

    Raises:
        ConfigError: There is no such config, or a key is unknown or has an impossible value; names the key.
    """
    where = "model" if isinstance(source, Mapping) else str(_path(source))
    if whole and not isinstance(source, Mapping) and "extends" in (found := read_mapping(_path(source))):
        raise ConfigError(f"{where}: extends {found['extends']!r}, expected all of a saved model's configuration")
    return parse(ModelConfig, _resolve(source, ()), where)


def _path(source: str | Path) -> Path:
    packaged = CONFIGS / f"{source}.json"
    path = packaged if packaged.is_file() else Path(source).expanduser()
    if not path.is_file():
        raise ConfigError(f"no model config '{source}': expected a file, or one of {', '.join(list_configs())}")
    return path


def _resolve(source: str | Path | Mapping[str, Any], seen: tuple[Path, ...]) -> dict[str, Any]:
    """The whole content, with what it extends."""
    if isinstance(source, Mapping):
        data = dict(source)
    else:
        path = _path(source).resolve()
        if path in seen:
            raise ConfigError(f"{path} extends itself: {' -> '.join(map(str, (*seen, path)))}")
        seen = (*seen, path)
        data = read_mapping(path)
    base = data.pop("extends", None)
    return data if base is None else _merge(_resolve(base, seen), data)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else is replaced, as is a part that becomes one of another type."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("type") in (None, old.get("type")):
            value = _merge(old, value)
        merged[key] = value
    return merged
