"""The whole model: encoders of all modalities, adaptive fusion, label bank and calibration, saved together."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from omnibind_core import encoders, fusion, modalities
from omnibind_core.calibration import Calibration
from omnibind_core.config import parse, read_mapping
from omnibind_core.encoders.config import ModelConfig, load_config
from omnibind_core.encoders.inference import BatchedEncoders, compile_trunks, export, lower
from omnibind_core.encoders.inference.export import Part
from omnibind_core.errors import ConfigError, OmniBindError, WeightsError
from omnibind_core.files import recover, write_folder_atomically
from omnibind_core.labels import LabelBank
from omnibind_core.modalities import Doubt
from omnibind_core.modalities.base import Preset
from omnibind_core.model.answering import NEAR, AnsweringModel, Recognition
from omnibind_core.model.folders import (
    CALIBRATION,
    CONFIG,
    DIGEST,
    EXPORTED,
    FILES,
    HOME,
    LABELS,
    MODEL,
    TRAINED,
    content_digests,
    embedding_digest,
    kept_digests,
    model_folder,
    strangers,
)
from omnibind_core.model.recogniser import DYNAMIC, OUTPUTS, Recogniser, samples
from omnibind_core.model.recorded import RecordedRecogniser

_TRIES = 10  # to read a model that others replace meanwhile
_ROWS = "labels.rows"  # the tensor of the labels, beside those of the encoders and of the fusion


class OmniBind(AnsweringModel, nn.Module):
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
        # What is known beside the labels goes with them, swapped at once: threads read it.
        self._vocabulary: tuple[LabelBank, Tensor] | None = None if labels is None else (labels, labels.rows[:0])
        self._batched: BatchedEncoders | None = None
        self._recogniser: tuple[fusion.Fusion, Calibration, Recogniser] | None = None  # no weights of its own
        self._recorded: tuple[Recogniser, RecordedRecogniser] | None = None
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
            WeightsError: A weights file is missing, corrupt or does not fit the architecture, or the folder holds files
                of two models.
        """
        folder = model_folder(source)
        saved = _read(folder)
        config, state = saved.config, saved.state
        wanted = None if modalities is None else {*modalities, "text"}
        encoder_set = encoders.build(config, wanted, device)
        fusion_module = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
        state = _select(state, encoder_set, wanted)
        rows = state.pop(_ROWS, None)
        encoders.load_own_state(encoder_set, {k[9:]: v for k, v in state.items() if k.startswith("encoders.")})
        _load_strict(fusion_module, {k[7:]: v for k, v in state.items() if k.startswith("fusion.")}, folder)
        if rows is None:
            raise WeightsError(
                f"{folder / 'model.safetensors'}: no tensor 'labels.rows', expected the label embeddings"
            )
        parts = nn.ModuleDict({"encoders": encoder_set, "fusion": fusion_module})
        _check_finite({**state, _ROWS: rows}, parts, str(folder / MODEL))
        labels = LabelBank.from_dict(saved.labels, rows)
        calibration = parse(Calibration, saved.calibration, "calibration")
        if saved.strangers:
            raise WeightsError(
                f"{folder}: {', '.join(saved.strangers)}: not what was saved with the rest, expected the files of one "
                f"model: save it there again, or copy the whole folder; if they were changed by hand, remove {DIGEST}: "
                "without it they are taken as they are"
            )
        model = cls(config, encoder_set, fusion_module, labels, calibration, saved.digest).to(device)
        if precision is not None or engine is not None or providers:
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

        On a GPU a tick then is one batch for each trunk, recorded as CUDA graphs; embeddings come back on the CPU, and
        recognition is one more graph. On a CPU trunks run in another engine than torch, if one is asked for.

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

    def parts(self, text: bool = True) -> Iterator[Part]:
        """The networks that the model consists of, each once, as ``omnibind export`` writes them.

        The recogniser has the labels as an input.

        Args:
            text: Whether the text tower is among them, if it can be exported.
        """
        presets = self._presets()
        tower = export.text_part(self.encoders) if text else None
        if tower is not None:
            yield tower
        for name in self.encoders.trunks:
            trunk = export.trunk_part(self.encoders, name, presets)
            if trunk is not None:
                yield trunk
        for name in self.encoders.heads:
            if name == "text" and not text:
                continue
            head = export.head_part(self.encoders, name, presets)
            if head is not None:
                yield head
        sets = [*samples(self.config.embed_dim, len(self.config.modalities), self.labels.prototypes())]
        yield Part("recogniser", self.recogniser.eval(), sets, DYNAMIC, OUTPUTS)

    def described(self) -> dict[str, Any]:
        """What :class:`omnibind_core.model.exported.ExportedModel` has to know beside the parts, for their manifest."""
        trunks, parts = self.config.trunks, self.config.modalities
        told = self.labels.to_dict()
        return {
            "embed_dim": self.config.embed_dim,
            "modalities": {name: {"trunk": part.trunk, "preset": part.preset} for name, part in parts.items()},
            "text": trunks[parts["text"].trunk].model_dump() if "text" in parts else None,
            "threshold": self.calibration.threshold,
            "labels": {key: told[key] for key in ("names", "templates", "aliases", "descriptions", "reduce")},
        }

    def exported_labels(self) -> bytes:
        """The file that goes with :meth:`described`: an embedding of each label."""
        return save({"prototypes": self.labels.prototypes().detach().cpu().contiguous()})

    def _presets(self) -> dict[str, Preset]:
        parts = {name: self.config.modalities[name] for name in self.encoders.heads}
        return {name: modalities.get(name).preset(part.preset) for name, part in parts.items()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes architecture, own weights, labels and calibration to a folder.

        Weights that come from packages (see the model card) are not written again. The files are replaced as one
        (:func:`~omnibind_core.files.write_folder_atomically`): when this fails, the model that was there still is. What
        a training wrote beside that goes with it, if its architecture or weights are others, labels aside;
        :data:`~omnibind_core.model.folders.HOME` only if the encoders are. What else the folder holds stays there.

        Raises:
            DataError: It is a file.
            OSError: It cannot be written.
            WeightsError: A tensor has values that are not finite, and that its module does not name.
        """
        folder, state = Path(folder), self._state()
        recover(folder)  # before it is compared with
        outdated = self._outdated(folder, state)
        with write_folder_atomically(folder, (*FILES, HOME, *outdated), keep=True) as fresh:
            if HOME not in outdated and (folder / HOME).is_file():
                shutil.copyfile(folder / HOME, fresh / HOME)
            self._write(fresh, state)

    def _outdated(self, folder: Path, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """What of :data:`TRAINED` is of a model that a folder holds, and not of this one, whose tensors are given.

        Without a model there they are files of the user. Of one that cannot be read nothing is known to fit.
        """
        if not all((folder / name).is_file() for name in (CONFIG, MODEL)):
            return ()
        try:
            config, old = load_config(folder / CONFIG, whole=True), load_file(folder / MODEL)
        except (OmniBindError, SafetensorError, OSError):
            return TRAINED
        shared = {key for key in state.keys() & old.keys() if save({"": state[key]}) == save({"": old[key]})}
        others = (state.keys() | old.keys()) - shared - {_ROWS}
        if config == self.config and not others:
            return ()
        encode = (config.trunks, config.modalities) == (self.config.trunks, self.config.modalities)
        fits = encode and not any(key.startswith("encoders.") for key in others)
        return tuple(name for name in TRAINED if name != HOME or not fits)

    def write_files(self, folder: Path) -> None:
        """Writes the same to a folder that is being written as one, after :data:`~omnibind_core.model.folders.HOME`.

        Raises:
            OSError: It cannot be written.
            WeightsError: As of :meth:`save_pretrained`.
        """
        self._write(folder, self._state())

    def _write(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        (folder / CONFIG).write_bytes(_json(self.config.model_dump()))
        (folder / MODEL).write_bytes(save({**state}))
        (folder / LABELS).write_bytes(_json(self.labels.to_dict()))
        (folder / CALIBRATION).write_bytes(_json(self.calibration.model_dump()))
        (folder / DIGEST).write_bytes(_json(content_digests(folder)))
        self.digest = embedding_digest(folder)

    def _state(self) -> dict[str, Tensor]:
        """The tensors that are saved, on the CPU.

        Raises:
            WeightsError: As of :meth:`save_pretrained`.
        """
        state = {f"encoders.{key}": value for key, value in encoders.own_state(self.encoders).items()}
        state |= {f"fusion.{key}": value for key, value in self.fusion.state_dict().items()}
        state[_ROWS] = self.labels.rows
        _check_finite(state, self, self.name)
        return {key: value.detach().cpu().contiguous() for key, value in sorted(state.items())}

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return self.config.name

    @property
    def embed_dim(self) -> int:
        """Width D of the embeddings."""
        return self.config.embed_dim

    @property
    def slots(self) -> dict[str, str | None]:
        """Modalities of the model, in their order, with the name of the preset of each; None for its default."""
        return {name: part.preset for name, part in self.config.modalities.items()}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that this instance can encode, in the order of :func:`omnibind_core.modalities.names`."""
        return tuple(name for name in modalities.names() if name in self.encoders.heads)

    @property
    def recogniser(self) -> Recogniser:
        """What :meth:`recognise` computes, as one network."""
        found = self._recogniser
        if found is None or found[0] is not self.fusion or found[1] is not self.calibration:
            with torch.inference_mode(False), torch.no_grad():  # whoever asks first
                network = Recogniser(self.fusion, self.calibration, tuple(self.config.modalities)).to(self.device)
            self._recogniser = found = (self.fusion, self.calibration, network)
        return found[2]

    def _record(self) -> RecordedRecogniser:
        """The same on a GPU after :meth:`accelerate`, as graphs."""
        network, found = self.recogniser, self._recorded
        if found is None or found[0] is not network:
            self._recorded = found = (network, RecordedRecogniser(network, self.device))
        return found[1]

    @property
    def labels(self) -> LabelBank:
        """The vocabulary.

        Raises:
            ConfigError: None was set.
        """
        return _set(self._vocabulary)[0]

    @labels.setter
    def labels(self, bank: LabelBank) -> None:
        bank = bank.to(self.device)
        others = bank.rows[:0]
        if self._home is not None:
            rows = self._home.prototypes().to(self.device)
            others = rows[(rows @ bank.prototypes().T).amax(dim=1) < NEAR]
        self._vocabulary = (bank, others)

    def _encodes(self, modality: str) -> bool:
        return modality in self.encoders.heads

    def _present(self) -> LabelBank | None:
        return None if self._vocabulary is None else self._vocabulary[0]

    def _bank(
        self,
        names: tuple[str, ...],
        embed: Callable[[Sequence[str]], Sequence[Tensor]],
        templates: Sequence[str],
        reduce: str,
        descriptions: Mapping[str, Sequence[str]],
    ) -> LabelBank:
        def embedded(sentences: Sequence[str]) -> Tensor:
            return torch.cat([*embed(sentences)])

        return LabelBank.from_names(names, embedded, templates, reduce=reduce, descriptions=descriptions)

    def _apply(self, fn: Any, recurse: bool = True) -> OmniBind:
        # The label bank is no module, since it is swapped at run time; it still follows the model to a device.
        super()._apply(fn, recurse)
        self._batched = None  # what was recorded is of the weights where they were
        self._recogniser = self._recorded = None
        self.encoders.compiled.clear()
        if self._vocabulary is not None:
            labels, others = self._vocabulary
            device = fn(labels.rows).device
            self._vocabulary = (labels.to(device), others.to(device))
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are, and inputs go."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

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
            by_trunk[self.config.modalities[modality].trunk].append(index)
        if self._batched is not None:
            return self._batched.embed(items)
        out = torch.empty(len(items), self.config.embed_dim, device=self.device)
        for trunk, indices in by_trunk.items():
            features = self.features(trunk, [items[index][1] for index in indices])
            rows_of: dict[str, list[int]] = defaultdict(list)
            for row, index in enumerate(indices):
                rows_of[items[index][0]].append(row)
            for modality, rows in rows_of.items():
                out[[indices[row] for row in rows]] = self.encoders.embed(modality, features[rows])
        return out

    def warm_up(self, modalities_used: Iterable[str]) -> None:
        """Encodes and fuses blank input once, so that the first real prediction is as fast as those after it."""
        modalities_used = tuple(modalities_used)
        super().warm_up(modalities_used)
        if self._batched is not None:  # sensors come and go: no tick should wait for another size of batch
            items = self._blank(modalities_used)
            self._batched.prepare(items)
            rows = self.embed(items)
            for count in range(1, len(items)):
                self.recognise([name for name, _ in items[:count]], rows[:count])

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
        """See :meth:`AnsweringModel.recognise`."""
        tokens = torch.as_tensor(embeddings, dtype=torch.float32)
        self._check_tokens(modalities, tuple(tokens.shape))
        slots = tuple(self.config.modalities)
        doubts = [None] * len(modalities) if doubts is None else doubts
        speaks = tuple(doubt is None or not doubt.excludes for doubt in doubts)
        labels, others = _set(self._vocabulary)
        ids = torch.tensor([slots.index(name) for name in modalities])
        said, doubted = torch.tensor(speaks), torch.tensor([doubt is not None for doubt in doubts])
        linear = labels.reduce == "mean"
        parts: Sequence[Tensor]
        if self._batched is not None and linear:
            parts = self._record()(tokens.cpu(), ids, said, doubted, labels.prototypes(), others)
        else:
            tokens, ids, said, doubted = (part.to(self.device) for part in (tokens, ids, said, doubted))
            parts = self.recogniser.by_cosines(tokens, ids, said, doubted, labels.similarities, others, linear)
        return Recognition(
            *_to_host(*parts),
            names=labels.names,
            speaks=speaks,
            threshold=self.threshold,
        )


def _set(vocabulary: tuple[LabelBank, Tensor] | None) -> tuple[LabelBank, Tensor]:
    if vocabulary is None:
        raise ConfigError("the model has no labels; call set_labels first")
    return vocabulary


def _to_host(*parts: Tensor) -> list[NDArray[np.float32]]:
    """Arrays of ``float32`` tensors of one device, which is waited for once."""
    if parts[0].device.type == "cpu":
        return [part.numpy() for part in parts]
    joined = torch.cat([part.flatten() for part in parts]).cpu()
    pieces = joined.split([part.numel() for part in parts])
    return [piece.view(part.shape).numpy() for piece, part in zip(pieces, parts, strict=True)]


@dataclass(frozen=True)
class _Saved:
    """What the files of a saved model say."""

    config: ModelConfig
    state: dict[str, Tensor]
    labels: dict[str, Any]
    calibration: dict[str, Any]
    digest: str
    strangers: list[str]


def _read(folder: Path) -> _Saved:
    """Reads a saved model, anew as long as others put files there meanwhile; what cannot be read twice is refused."""
    found: list[_Saved | OmniBindError | OSError] = []
    before = None
    for _ in range(_TRIES):
        stamps = _stamps(folder)
        try:
            saved = _read_once(folder)
            if not saved.strangers:
                return saved
            found.append(saved)
        except (OmniBindError, OSError) as error:
            found.append(error)
        busy = False
        with suppress(OSError):
            busy = recover(folder)  # who put them there may have been killed
        if not busy and before == stamps == _stamps(folder):
            break
        before = stamps
    if isinstance(found[0], _Saved):
        return found[0]
    raise found[0]


def _stamps(folder: Path) -> list[tuple[int, int, int] | None]:
    """What of the files of a model changes when one is replaced or written."""
    stamps: list[tuple[int, int, int] | None] = []
    for name in (*FILES, HOME):
        try:
            told = (folder / name).stat()
            stamps.append((told.st_ino, told.st_size, told.st_mtime_ns))
        except OSError:
            stamps.append(None)
    return stamps


def _read_once(folder: Path) -> _Saved:
    digests, config, state = (
        kept_digests(folder),
        load_config(folder / CONFIG, whole=True),
        _read_weights(folder / MODEL),
    )
    labels, calibration = read_mapping(folder / LABELS), read_mapping(folder / CALIBRATION)
    return _Saved(config, state, labels, calibration, embedding_digest(folder), strangers(folder, digests))


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file, expected the model's weights") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {error}") from error
    return state


def _check_finite(state: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Refuses tensors with values that are not finite.

    A class of modules may name those of its own that have some, in ``NOT_FINITE``: what each may hold beside numbers.

    Args:
        state: Tensors by their names in the module, or others.
        module: What the tensors are of.
        source: Where they are from.

    Raises:
        WeightsError: A tensor has other values.
    """
    owners = dict(module.named_modules(remove_duplicate=False))
    for name, values in state.items():
        if not values.is_floating_point():
            continue
        owner, _, own = name.rpartition(".")
        wide = values if values.dtype.itemsize > 1 else values.float()  # float8 cannot be asked
        odd = wide[~wide.isfinite()]
        also = getattr(owners.get(owner), "NOT_FINITE", {}).get(own, 0.0)
        if not torch.isclose(odd, odd.new_tensor(also), equal_nan=True).all():
            raise WeightsError(f"{source}: the tensor '{name}' has values that are not finite, expected numbers")


def _select(
    state: Mapping[str, Tensor], encoder_set: encoders.EncoderSet, wanted: Iterable[str] | None
) -> dict[str, Tensor]:
    """The tensors of a file without those of encoders that were not asked for."""
    if wanted is None:
        return dict(state)
    kept = {f"encoders.trunks.{name}" for name in encoder_set.trunks}
    kept |= {f"encoders.heads.{name}" for name in encoder_set.heads}
    return {k: v for k, v in state.items() if not k.startswith("encoders.") or ".".join(k.split(".")[:3]) in kept}


def _load_strict(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{folder / 'model.safetensors'}: {error}") from error


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
