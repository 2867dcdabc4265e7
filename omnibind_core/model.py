"""The whole model: encoders of all modalities, adaptive fusion, label bank and calibration, saved together."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from omnibind_core import encoders, fusion, modalities, resources
from omnibind_core.calibration import Calibration
from omnibind_core.config import parse, read_mapping
from omnibind_core.encoders.config import ModelConfig, load_config
from omnibind_core.encoders.inference import BatchedEncoders, compile_trunks, export, lower
from omnibind_core.encoders.inference.export import Part
from omnibind_core.errors import ConfigError, InvalidInputError, WeightsError
from omnibind_core.fusion import Evidence, exportable
from omnibind_core.labels import PAPER_TEMPLATES, LabelBank
from omnibind_core.modalities import Doubt, Reading
from omnibind_core.modalities.base import Preset

WEIGHTS = resources.path("weights")
"""Models that come with the package, one folder each."""

# That nothing of a vocabulary of the user's fits: how much a label of the model counts beside those of the vocabulary,
# and which of them are none of its labels under other names. docs/own_labels.md has the trial that chose them.
_NOTHING = 3e-5
_NEAR = 0.7  # cosine
EXPORTED = "exported"
"""Folder in that of a model where ``omnibind export`` may put its parts, to be found with it."""

_SLICE = 8  # sentences of a vocabulary that are embedded at once: a tenth of a second on one core


@dataclass(frozen=True)
class Recognition:
    """What one set of ``n`` tokens was recognised as.

    Attributes:
        embedding: ``float32 [D]``, fused, unit length.
        weights: ``float32 [n]``, share of each token, sum 1; 0 of those that a doubt excludes, and of all if all are.
        similarities: ``float32 [1 + n, C]`` cosines to every label; row 0 fused, then each token alone.
        probabilities: ``float32 [1 + n, C]``, calibrated; each row sums to 1, less the chance that nothing of a
            vocabulary of the user's fits, and is uniform where a doubt excludes all that it would be of.
        without: ``float32 [n, C]``, calibrated probabilities of what is left without each token; uniform where nothing
            is left that says anything.
        familiarity: ``float32 [n]``, how like each token is to those of the training samples of its modality, see
            :class:`omnibind_core.fusion.familiarity.Familiarity`; NaN where it is not known.
        names: The ``C`` labels.
        speaks: Of each token, whether anything can be said from it: False if a doubt excludes it.
        threshold: Confidence below which the answer is unknown.
    """

    embedding: NDArray[np.float32]
    weights: NDArray[np.float32]
    similarities: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    without: NDArray[np.float32]
    familiarity: NDArray[np.float32]
    names: tuple[str, ...] = field(kw_only=True)
    speaks: tuple[bool, ...] = field(kw_only=True)
    threshold: float = field(kw_only=True)

    @property
    def label(self) -> str:
        """What it is; ``""`` if that is unknown."""
        return "" if self.unknown else self.names[int(self.probabilities[0].argmax())]

    @property
    def confidence(self) -> float:
        """Calibrated probability of the most probable label, 0..1."""
        return float(self.probabilities[0].max())

    @property
    def unknown(self) -> bool:
        """Whether nothing says anything, or the confidence is below the threshold."""
        return not any(self.speaks) or self.confidence < self.threshold


class OmniBind(nn.Module):
    """Recognises what any set of modalities shows.

    Args:
        config: Architecture.
        encoder_set: Encoders of the modalities that this instance can use.
        fusion_module: AF, or a baseline with the same interface.
        labels: Vocabulary.
        calibration: Temperatures and threshold.
        digest: Hash of the saved architecture and weights, part of :attr:`identity`; empty for a model never saved.

    Attributes:
        threshold: Confidence below which a prediction is unknown; starts as the calibrated one.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder_set: encoders.EncoderSet,
        fusion_module: fusion.Fusion,
        labels: LabelBank | None = None,
        calibration: Calibration | None = None,
        digest: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.encoders = encoder_set
        self.fusion = fusion_module
        self.calibration = calibration or Calibration()
        self.threshold = self.calibration.threshold
        self.digest = digest
        self._home = labels
        self._vocabulary: tuple[LabelBank | None, Tensor | None] = (labels, None)  # swapped at once: threads read it
        self._batched: BatchedEncoders | None = None
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "lite",
        device: str | torch.device = "cpu",
        modalities: Collection[str] | None = None,
        precision: str | None = None,
        engine: str | None = None,
        providers: Sequence[str] = (),
    ) -> OmniBind:
        """Loads a saved model.

        Args:
            source: Name of a model that comes with the package, or a folder written by :meth:`save_pretrained`.
            device: Where the weights go.
            modalities: Only these are loaded; text can always be encoded, since labels are text.
            precision: The model will only answer, see :meth:`accelerate`; None leaves it as it is saved, to be trained.
            engine: The same, of what runs its trunks.
            providers: The same, of what that runs on.

        Raises:
            ConfigError: No such model, precision, engine or provider, or its configuration is wrong; names the key.
            WeightsError: A weights file is missing, corrupt or does not fit the architecture.
        """
        folder = model_folder(source)
        config = load_config(folder / "config.json")
        wanted = None if modalities is None else {*modalities, "text"}
        encoder_set = encoders.build(config, wanted, device)
        fusion_module = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
        state = _read_weights(folder / "model.safetensors")
        rows = state.pop("labels.rows", None)
        encoders.load_own_state(encoder_set, _select(state, "encoders.", encoder_set, wanted))
        _load_strict(fusion_module, {k[7:]: v for k, v in state.items() if k.startswith("fusion.")}, folder)
        if rows is None:
            raise WeightsError(
                f"{folder / 'model.safetensors'}: no tensor 'labels.rows', expected the label embeddings"
            )
        labels = LabelBank.from_dict(read_mapping(folder / "labels.json"), rows)
        calibration = parse(Calibration, read_mapping(folder / "calibration.json"), "calibration")
        model = cls(config, encoder_set, fusion_module, labels, calibration, _digest(folder)).to(device)
        if precision is not None or engine is not None:
            model.accelerate(precision or "float32", engine or "torch", folder / EXPORTED, providers)
        return model

    def accelerate(
        self,
        precision: str = "float32",
        engine: str = "torch",
        exported: Path | None = None,
        providers: Sequence[str] = (),
    ) -> None:
        """Makes a model that does not change any more as fast as its device allows.

        On a GPU a tick then is one batch for each trunk, recorded as CUDA graphs, and one round trip; embeddings come
        back on the CPU. On a CPU trunks run in another engine than torch, if one is asked for.

        Args:
            precision: What the trunks compute in, ``float32``, ``bfloat16``, ``float16`` or ``auto``: ``float16``, else
                ``bfloat16``, on a GPU. A trunk whose embeddings of made-up input are then not those of ``float32``
                stays as it is, and says so in the log (:mod:`omnibind_core.encoders.inference.precision`).
            engine: What runs the trunks of a model on a CPU, ``torch``, ``onnxruntime``, ``openvino``, ``tensorrt``
                (through ONNX Runtime) or ``auto``: the fastest that is installed
                (:mod:`omnibind_core.encoders.inference.compiled`). A trunk whose features of made-up input are then not
                those of torch stays there, and says so in the log. On a GPU it is torch.
            exported: Folder that ``omnibind export`` wrote; None if there is none, and what is needed is exported now.
            providers: What ONNX Runtime runs on, by its names, each for what the ones before it do not know; empty for
                the engine's own. A trunk goes to a GPU and back by them, while the model stays on the CPU.

        Raises:
            ConfigError: There is no such precision, engine or provider, or the device does not compute in it.
            MissingDependencyError: An engine that was asked for by name is not installed.
            WeightsError: For an engine that was asked for by name, the folder is of another model.
        """
        on_cpu = self.device.type == "cpu"
        if not on_cpu and engine not in ("auto", "torch"):
            raise ConfigError(
                f"engine is '{engine}', which takes a model on the CPU, and device '{self.device}'; expected device "
                "cpu, or engine auto"
            )
        presets = self._presets()
        lower(self.encoders, presets, precision, self.device)
        compile_trunks(self.encoders, presets, engine if on_cpu else "torch", exported, providers)
        self._batched = BatchedEncoders(self.encoders, self.device) if self.device.type == "cuda" else None

    def parts(self) -> Iterator[Part]:
        """The networks that the model consists of, each once, as ``omnibind export`` writes them; text stays in torch.

        The fusion has the labels as an input.
        """
        presets = self._presets()
        for name in self.encoders.trunks:
            trunk = export.trunk_part(self.encoders, name, presets)
            if trunk is not None:
                yield trunk
        for name in self.encoders.heads:
            head = export.head_part(self.encoders, name, presets)
            if head is not None:
                yield head
        network = exportable.LabelledFusion(self.fusion).eval()
        sets = [*exportable.samples(self.config.embed_dim, len(self.config.modalities), self.labels.prototypes())]
        sets.sort(key=lambda sample: -sample["tokens"].shape[1])  # traced with several tokens
        yield Part("fusion", network, sets, exportable.DYNAMIC, exportable.OUTPUTS)

    def _presets(self) -> dict[str, Preset]:
        parts = {name: self.config.modalities[name] for name in self.encoders.heads}
        return {name: modalities.get(name).preset(part.preset) for name, part in parts.items()}

    def save_pretrained(self, folder: Path) -> None:
        """Writes architecture, own weights, labels and calibration to a folder.

        Weights that come from packages (see the model card) are not written again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = {f"encoders.{key}": value for key, value in encoders.own_state(self.encoders).items()}
        state |= {f"fusion.{key}": value for key, value in self.fusion.state_dict().items()}
        state["labels.rows"] = self.labels.rows
        data = save({key: value.detach().cpu().contiguous() for key, value in sorted(state.items())})
        (folder / "model.safetensors").write_bytes(data)
        _write_json(folder / "config.json", self.config.model_dump())
        self.digest = _digest(folder)
        _write_json(folder / "labels.json", self.labels.to_dict())
        _write_json(folder / "calibration.json", self.calibration.model_dump())

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return self.config.name

    @property
    def identity(self) -> str:
        """``name@hash``: equal for two models only if they make the same embeddings."""
        return f"{self.name}@{self.digest or 'unsaved'}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that this instance can encode, in the order of :func:`omnibind_core.modalities.names`."""
        return tuple(name for name in modalities.names() if name in self.encoders.heads)

    @property
    def labels(self) -> LabelBank:
        """The vocabulary.

        Raises:
            ConfigError: None was set.
        """
        return _set(self._vocabulary[0])

    @labels.setter
    def labels(self, bank: LabelBank) -> None:
        bank, others = bank.to(self.device), None
        if self._home is not None:
            rows = self._home.prototypes().to(self.device)
            far = (rows @ bank.prototypes().T).amax(dim=1) < _NEAR
            others = rows[far] if far.any() else None
        self._vocabulary = (bank, others)

    def set_labels(
        self,
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        between: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Replaces the vocabulary, with the prompts of the present one. Other threads may recognise meanwhile.

        What looks more like another label that the model was made with than like any of these is unknown: confidences
        are lowered by the chance of that, and the order of the labels stays.

        Args:
            labels: Names, which keep the descriptions that the present vocabulary has of them; or names with
                descriptions of their own, see :meth:`LabelBank.from_names`.
            between: Called before each slice of sentences with the number embedded and of all; what it raises goes
                through, and the vocabulary stays.

        Raises:
            ConfigError: Fewer than two names are left.
        """
        if len(names := {" ".join(name.split()) for name in labels} - {""}) == 1:
            raise ConfigError(f"one label, '{names.pop()}', expected two or more: one alone is always the answer")

        def embed(sentences: Sequence[str]) -> Tensor:
            rows = []
            for start in range(0, len(sentences), _SLICE):
                between(start, len(sentences))
                rows.append(self.embed_text(sentences[start : start + _SLICE]))
            between(len(sentences), len(sentences))
            return torch.cat(rows)

        old = self._vocabulary[0]
        templates, reduce = (PAPER_TEMPLATES, "mean") if old is None else (old.templates, old.reduce)
        told = labels if isinstance(labels, Mapping) else {} if old is None else old.descriptions
        self.labels = LabelBank.from_names(tuple(labels), embed, templates, reduce=reduce, descriptions=told)

    def _apply(self, fn: Any, recurse: bool = True) -> OmniBind:
        # The label bank is no module, since it is swapped at run time; it still follows the model to a device.
        super()._apply(fn, recurse)
        self._batched = None  # what was recorded is of the weights where they were
        self.encoders.compiled.clear()
        labels, others = self._vocabulary
        if labels is not None:
            device = fn(labels.rows).device
            self._vocabulary = (labels.to(device), None if others is None else others.to(device))
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are, and inputs go."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def process(self, modality: str, raw: Any) -> NDArray[Any]:
        """Encoder input ``[views, ...]`` of one raw item, which is checked, by the preset of the model's config.

        Args:
            modality: Its modality.
            raw: In the modality's raw form; :func:`omnibind_core.load` makes it of other things.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: The item is not in its raw form, or out of range.
        """
        part = self.config.modalities.get(modality)  # no encoder is needed
        if part is None:
            raise self._unknown(modality)
        found = modalities.get(modality)
        return found.process(found.check(raw, modality), found.preset(part.preset))

    def encode(self, readings: Sequence[Reading], batch_size: int = 32) -> NDArray[np.float32]:
        """Embeddings of readings, each alone: to be searched, clustered, or fused later by :meth:`recognise`.

        All modalities share the space of text, so the cosine of two is their product: with each other, and with
        :meth:`embed_text` of this model. Those of another :attr:`identity` are not comparable.

        Args:
            readings: What :func:`omnibind_core.load` gave, of any modalities.
            batch_size: Readings that are encoded at once.

        Returns:
            ``float32 [n, D]``, unit length, in the order of the readings, on the CPU.

        Raises:
            ConfigError: The model has no such modality, or the batch size is below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected 1 or more")
        out = np.empty((len(readings), self.config.embed_dim), np.float32)
        for start in range(0, len(readings), batch_size):
            part = readings[start : start + batch_size]
            views = [(reading.modality, self.process(reading.modality, reading.raw)) for reading in part]
            out[start : start + len(part)] = self.embed(views).cpu().numpy()
        return out

    def predict(self, readings: Sequence[Reading]) -> Recognition:
        """Recognises what readings of one moment show: all fused, and each alone.

        Args:
            readings: What :func:`omnibind_core.load` gave, at least one, of any modalities.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: There is no reading.
        """
        return self.predict_batch([readings])[0]

    def predict_batch(self, scenes: Sequence[Sequence[Reading]], batch_size: int = 32) -> list[Recognition]:
        """As :meth:`predict`, for many moments, whose readings are encoded together.

        Args:
            scenes: The readings of each; the same sensors need not be there in all.
            batch_size: Readings that are encoded at once.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: One of them has no reading.
        """
        if not all(scenes):
            raise InvalidInputError("predict", "no reading", "at least one for every answer")
        rows = iter(self.encode([reading for scene in scenes for reading in scene], batch_size))
        return [
            self.recognise(
                [reading.modality for reading in scene],
                np.stack([next(rows) for _ in scene]),
                [reading.doubt for reading in scene],
            )
            for scene in scenes
        ]

    @torch.inference_mode()
    def embed(self, items: Sequence[tuple[str, NDArray[Any]]]) -> Tensor:
        """Embeds items of any modalities; those that share a trunk go through it in one batch.

        Args:
            items: ``(modality, views [V, ...])`` as :meth:`process` makes them.

        Returns:
            ``float32 [n, D]``, unit length, in the order of the items; on the model's device, or on the CPU after
            :meth:`accelerate`.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: An item has another shape or dtype than the preset's.
        """
        by_trunk: dict[str, list[int]] = defaultdict(list)
        for index, (modality, views) in enumerate(items):
            self._check_views(modality, views)
            by_trunk[self._part(modality).trunk].append(index)
        if self._batched is not None:
            return self._batched.embed(items)
        out = torch.empty(len(items), self.config.embed_dim, device=self.device)
        for trunk, indices in by_trunk.items():
            features = self.features(trunk, [items[index][1] for index in indices])
            for row, index in enumerate(indices):
                out[index] = self.encoders.embed(items[index][0], features[row : row + 1])[0]
        return out

    def warm_up(self, modalities_used: Iterable[str]) -> None:
        """Encodes and fuses blank input once, so that the first real prediction is as fast as those after it."""
        items = []
        for name in dict.fromkeys(modalities_used):
            preset = modalities.get(name).preset(self._part(name).preset)
            items.append((name, np.zeros((1, *(max(size, 1) for size in preset.shape)), preset.dtype)))
        if items:
            self.recognise([name for name, _ in items], self.embed(items))
        if self._batched is not None:
            self._batched.prepare(items)  # sensors come and go: no tick should wait for another size of batch

    @torch.inference_mode()
    def features(self, trunk: str, views: Sequence[NDArray[Any]]) -> Tensor:
        """Trunk features ``float32 [n, F]`` of items with the same shape of views."""
        joined = np.concatenate(views)
        data = joined.tolist() if joined.dtype.kind == "U" else torch.from_numpy(joined).to(self.device)
        return self.encoders.features(trunk, data, [len(item) for item in views])

    @torch.inference_mode()
    def embed_text(self, sentences: Sequence[str]) -> Tensor:
        """Unit-length embeddings ``float32 [n, D]`` of sentences."""
        return self.encoders.encode_text(list(sentences))

    @torch.inference_mode()
    def recognise(
        self,
        modalities: Sequence[str],
        embeddings: Tensor | NDArray[np.float32],
        doubts: Sequence[Doubt | None] | None = None,
    ) -> Recognition:
        """Fuses the tokens of one moment and classifies the result and every token alone.

        Args:
            modalities: Modality of each token.
            embeddings: ``float32 [n, D]``, unit length, at least one.
            doubts: What speaks against the reading of each, see :func:`omnibind_core.modalities.doubt`; None if nothing
                is known.

        Raises:
            ConfigError: The model's config has no such modality.
            InvalidInputError: No token, or the number or width of the embeddings does not fit.
        """
        tokens = torch.as_tensor(embeddings, dtype=torch.float32).to(self.device)
        expected = (len(modalities), self.config.embed_dim)
        if not modalities or tuple(tokens.shape) != expected:
            raise InvalidInputError(
                "recognise", f"embeddings of shape {tuple(tokens.shape)}", f"{expected}, at least one row"
            )
        slots = tuple(self.config.modalities)
        unknown = sorted(set(modalities) - set(slots))
        if unknown:
            raise ConfigError(f"this model has no modality {', '.join(unknown)}; it has {', '.join(slots)}")
        count = len(modalities)
        modality_ids = torch.tensor([slots.index(name) for name in modalities], device=self.device)
        # Row 0 has all tokens, row i lacks token i: what the answer would be without it costs one batch, not n passes.
        doubts = [None] * count if doubts is None else doubts
        speaks = [doubt is None or not doubt.excludes for doubt in doubts]
        present = [speaks, *([said and other != index for other, said in enumerate(speaks)] for index in range(count))]
        mask = torch.tensor([row if any(row) else [True] * count for row in present], device=self.device)
        doubted = None
        if any(doubts):
            doubted = torch.tensor([doubt is not None for doubt in doubts], device=self.device).expand(count + 1, -1)
        fused = self.fusion(tokens.expand(count + 1, -1, -1), mask, modality_ids.expand(count + 1, -1), doubted)
        rows = torch.cat([fused.embedding, tokens])
        bank, others = self._vocabulary
        labels = _set(bank)
        similarities = labels.similarities(rows)
        sets = [[name for name, here in zip(modalities, row, strict=True) if here] or modalities for row in present]
        sets += [[name] for name in modalities]
        familiarity = tokens.new_full((count,), torch.nan) if fused.familiarity is None else fused.familiarity[0]
        probabilities = self.calibration.probabilities(
            similarities, sets, _evidence(fused, tokens.expand(count + 1, -1, -1), mask, familiarity)
        )
        if others is not None:
            temperature = similarities.new_tensor([self.calibration.temperature(names) for names in sets])
            probabilities = probabilities * _fits(similarities, rows @ others.T, temperature)[:, None]
        silent = torch.tensor([not any(row) for row in present] + [not said for said in speaks], device=self.device)
        probabilities[silent] = 1 / len(labels)
        alone = [0, *range(count + 1, 2 * count + 1)]
        return Recognition(
            *_to_host(
                fused.embedding[0],
                fused.weights[0].masked_fill(silent[0], 0.0),
                similarities[alone],
                probabilities[alone],
                probabilities[1 : count + 1],
                familiarity,
            ),
            names=labels.names,
            speaks=tuple(speaks),
            threshold=self.threshold,
        )

    def _part(self, modality: str) -> Any:
        if modality not in self.encoders.heads:
            raise self._unknown(modality)
        return self.config.modalities[modality]

    def _unknown(self, modality: str) -> ConfigError:
        return ConfigError(f"this model cannot encode '{modality}'; it can encode {', '.join(self.modalities)}")

    def _check_views(self, modality: str, views: NDArray[Any]) -> None:
        preset = modalities.get(modality).preset(self._part(modality).preset)
        dtype = "str" if views.dtype.kind == "U" else str(views.dtype)
        fits = views.ndim == 1 + len(preset.shape) and all(
            want in (-1, got) for want, got in zip(preset.shape, views.shape[1:], strict=True)
        )
        if not fits or dtype != preset.dtype or len(views) == 0:
            shape = ", ".join("any" if size < 0 else str(size) for size in preset.shape)
            raise InvalidInputError(modality, f"{dtype} {list(views.shape)}", f"{preset.dtype} [views, {shape}]")


def _set(labels: LabelBank | None) -> LabelBank:
    if labels is None:
        raise ConfigError("the model has no labels; call set_labels first")
    return labels


def _to_host(*parts: Tensor) -> list[NDArray[np.float32]]:
    """Arrays of ``float32`` tensors of one device, which is waited for once."""
    if parts[0].device.type == "cpu":
        return [part.numpy() for part in parts]
    joined = torch.cat([part.flatten() for part in parts]).cpu()
    pieces = joined.split([part.numel() for part in parts])
    return [piece.view(part.shape).numpy() for piece, part in zip(pieces, parts, strict=True)]


def _fits(similarities: Tensor, others: Tensor, temperature: Tensor) -> Tensor:
    """Chance ``[B]`` that one of the labels fits, by cosines ``[B, C]`` to them and ``[B, O]`` to others."""
    said = (similarities / temperature[:, None]).logsumexp(dim=1)
    return torch.sigmoid(said - others.amax(dim=1) / temperature - math.log(_NOTHING))


def _evidence(fused: fusion.Fused, tokens: Tensor, mask: Tensor, familiarity: Tensor) -> Evidence:
    """Of what was fused, and then of each token alone."""
    of_sets = fusion.evidence(fused, tokens, mask)
    alone = familiarity.nan_to_num(0.0)
    return Evidence(*(torch.cat(pair) for pair in zip(of_sets, (alone, torch.zeros_like(alone)), strict=True)))


def available() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in WEIGHTS.glob("*/config.json")))


def saved_config(source: str | Path) -> ModelConfig:
    """The architecture of a saved model, without its weights.

    Args:
        source: See :meth:`OmniBind.from_pretrained`.

    Raises:
        ConfigError: No such model, or its configuration is wrong.
    """
    return load_config(model_folder(source) / "config.json")


def model_folder(source: str | Path) -> Path:
    """Folder of a saved model, by the name of one that comes with the package or by its own path.

    Raises:
        ConfigError: No such model.
    """
    for folder in (WEIGHTS / str(source), Path(source).expanduser()):
        if (folder / "config.json").is_file():
            return folder
    raise ConfigError(
        f"no model '{source}': expected a folder with config.json, or one of {', '.join(available()) or 'none shipped'}"
    )


def _digest(folder: Path) -> str:
    """Hash of everything that shapes the embeddings."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:8]


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file, expected the model's weights") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {error}") from error


def _select(
    state: Mapping[str, Tensor], prefix: str, encoder_set: encoders.EncoderSet, wanted: Iterable[str] | None
) -> dict[str, Tensor]:
    """The encoder tensors of a file, without those of modalities that were not asked for."""
    own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if wanted is None:
        return own
    kept = {f"trunks.{name}" for name in encoder_set.trunks} | {f"heads.{name}" for name in encoder_set.heads}
    return {key: value for key, value in own.items() if ".".join(key.split(".")[:2]) in kept}


def _load_strict(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{folder / 'model.safetensors'}: {error}") from error


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
