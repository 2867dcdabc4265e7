"""A model that answers from exported parts: NumPy and an engine alone. No torch."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from omnibind_core import modalities
from omnibind_core.encoders.inference.engines import ENGINES, Arrays, Run, candidates
from omnibind_core.encoders.inference.parts import MANIFEST, open_part, read_manifest
from omnibind_core.encoders.lite.tokenisers import Tokens, tokeniser
from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.labels import Prompts, check_names, clean
from omnibind_core.modalities import Doubt
from omnibind_core.model.answering import NEAR, AnsweringModel, Recognition, on_host

LABELS = "labels.safetensors"
"""In a folder of exported parts: ``prototypes``, the embedding of each label."""
_SENTENCES = 64  # encoded at once

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedLabels:
    """A vocabulary, one embedding per label; see :class:`omnibind_core.labels.LabelBank`.

    Attributes:
        names: Labels, unique, in the order of every score vector.
        rows: ``float32 [C, D]``, unit length.
        templates: Prompts the rows were made with.
        aliases: Further names per label.
        descriptions: Sentences on what a label means.
        reduce: How several rows of a label became one.
    """

    names: tuple[str, ...]
    rows: NDArray[np.float32]
    templates: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]]
    descriptions: Mapping[str, tuple[str, ...]]
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if not (finite := np.isfinite(self.rows).all(axis=1)).all():
            name = self.names[int(finite.argmin())]
            raise ConfigError(f"the embedding of label '{name}' is not finite, expected numbers")

    def __len__(self) -> int:
        return len(self.names)

    def prototypes(self) -> NDArray[np.float32]:
        """One unit-length embedding per label, ``[C, D]``."""
        return self.rows


class ExportedModel(AnsweringModel):
    """Recognises what any set of modalities shows, from a folder of exported parts.

    Args:
        folder: What ``omnibind export`` wrote, or a start with an engine kept.
        engine: What runs the trunks, see :data:`omnibind_core.encoders.inference.engines.ENGINES`; the other parts run
            in another one that is installed where they do not run in this one.
        modalities: Only these are opened; None for all. Text is opened when it is first needed.
        threads: Of the engine; None for as many as torch would take.
        text: Called when text is first needed and is not exported: gives a model that can encode it. None for none.

    Raises:
        ConfigError: There is no such engine, or it is torch; the export has not one of the modalities.
        MissingDependencyError: The engine was asked for by name and is not installed.
        WeightsError: The folder is not whole, or of another version; a part is damaged, or not like torch here.
    """

    def __init__(
        self,
        folder: Path,
        engine: str = "auto",
        modalities: Collection[str] | None = None,
        threads: int | None = None,
        text: Callable[[], AnsweringModel] | None = None,
    ) -> None:
        asked = candidates(engine)
        if not asked:
            known = ", ".join(name for name in ENGINES if name != "torch")
            raise ConfigError(f"{folder} is an exported model, and engine '{engine}'; expected one of {known}")
        self._engines = (*asked, *(name for name in candidates("auto") if name not in asked))
        self._folder, self._threads, self._make_teller = folder, threads, text
        self._manifest = read_manifest(folder)
        try:
            told = self._manifest["answers"]
            self._name, _, self.digest = self._manifest["model"].rpartition("@")
            self._embed_dim = int(told["embed_dim"])
            self._slots = {name: part["preset"] for name, part in told["modalities"].items()}
            self._trunk_of = {name: part["trunk"] for name, part in told["modalities"].items()}
            self._text = told["text"]
            self.threshold = float(told["threshold"])
            bank = _bank(told["labels"], load_file(folder / LABELS)["prototypes"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
            raise WeightsError(f"{folder}: no whole exported model: {error}") from error
        have = exported_sensors(self._manifest)
        wanted = have if modalities is None else {*modalities} - {"text"}
        if lacking := sorted(wanted - have):
            raise ConfigError(f"{folder} has no {', '.join(lacking)}; it has {', '.join(sorted(have))}")
        self._home = bank
        self._vocabulary: tuple[ExportedLabels, NDArray[np.float32]] = (bank, bank.rows[:0])  # swapped at once
        self._opening = threading.Lock()
        self._tokenise: Callable[[Sequence[str]], Tokens] | None = None
        self._teller: AnsweringModel | None = None  # who encodes text that is not exported
        self._encodable_now = wanted | ({"text"} & self._slots.keys())
        names = {f"trunks.{self._trunk_of[name]}" for name in wanted} | {f"heads.{name}" for name in wanted}
        self._runs: dict[str, Run] = {name: self._open(name) for name in ("recogniser", *sorted(names))}

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return self._name

    @property
    def embed_dim(self) -> int:
        """Width D of the embeddings."""
        return self._embed_dim

    @property
    def slots(self) -> Mapping[str, str | None]:
        """Modalities of the model, in their order, with the name of the preset of each; None for its default."""
        return self._slots

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that this instance can encode, in the order of :func:`omnibind_core.modalities.names`."""
        return tuple(name for name in modalities.names() if name in self._encodable_now)

    @property
    def labels(self) -> ExportedLabels:
        """The vocabulary."""
        return self._vocabulary[0]

    @labels.setter
    def labels(self, bank: ExportedLabels) -> None:
        far = (self._home.rows @ bank.rows.T).max(axis=1) < NEAR
        self._vocabulary = (bank, self._home.rows[far])

    def embed(self, items: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[np.float32]:
        """See :meth:`AnsweringModel.embed`."""
        by_trunk: dict[str, list[int]] = defaultdict(list)
        for index, (modality, views) in enumerate(items):
            self._check_views(modality, views)
            by_trunk[self._trunk_of[modality]].append(index)
        out = np.empty((len(items), self.embed_dim), np.float32)
        for trunk, indices in by_trunk.items():
            parts = [items[index][1] for index in indices]
            joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
            if joined.dtype.kind != "U":
                features = self._runs[f"trunks.{trunk}"]({"views": np.ascontiguousarray(joined)})[0]
            elif (teller := self._text_is_open()) is None:
                features = self._sentences(joined.tolist())
            else:
                out[indices] = on_host(teller.embed([items[index] for index in indices]))
                continue
            features = _means(features, [len(part) for part in parts])
            by_head: dict[str, list[int]] = defaultdict(list)
            for row, index in enumerate(indices):
                by_head[items[index][0]].append(row)
            for modality, rows in by_head.items():
                out[[indices[row] for row in rows]] = self._runs[f"heads.{modality}"]({"features": features[rows]})[0]
        return out

    def embed_text(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Unit-length embeddings ``float32 [n, D]`` of sentences."""
        if not sentences:
            return np.empty((0, self.embed_dim), np.float32)
        if (teller := self._text_is_open()) is not None:
            return on_host(teller.embed_text(sentences))
        (rows,) = self._runs["heads.text"]({"features": self._sentences(sentences)})
        return np.asarray(rows, np.float32)

    def recognise(
        self, modalities: Sequence[str], embeddings: Any, doubts: Sequence[Doubt | None] | None = None
    ) -> Recognition:
        """See :meth:`AnsweringModel.recognise`."""
        tokens = np.ascontiguousarray(embeddings, np.float32)
        self._check_tokens(modalities, tokens.shape)
        slots = [*self._slots]
        doubts = [None] * len(modalities) if doubts is None else doubts
        speaks = tuple(doubt is None or not doubt.excludes for doubt in doubts)
        labels, others = self._vocabulary
        inputs: Arrays = {
            "tokens": tokens,
            "modality_ids": np.array([slots.index(name) for name in modalities], np.int64),
            "speaks": np.array(speaks),
            "doubted": np.array([doubt is not None for doubt in doubts]),
            "labels": labels.rows,
            "others": others,
        }
        answer = self._runs["recogniser"](inputs)
        return Recognition(*answer, names=labels.names, speaks=speaks, threshold=self.threshold)

    def _encodes(self, modality: str) -> bool:
        return modality in self._encodable_now

    def _present(self) -> ExportedLabels:
        return self._vocabulary[0]

    def _bank(
        self,
        names: tuple[str, ...],
        embed: Callable[[Sequence[str]], Sequence[NDArray[np.float32]]],
        templates: Sequence[str],
        reduce: str,
        descriptions: Mapping[str, Sequence[str]],
    ) -> ExportedLabels:
        prompts = Prompts.of(names, templates, None, descriptions)
        rows = _sums(np.concatenate([*embed(prompts.sentences)]), prompts.row)
        rows = _sums(rows, prompts.owner)
        return ExportedLabels(prompts.names, rows, tuple(templates), prompts.aliases, prompts.descriptions, reduce)

    def _sentences(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Features of the text tower."""
        assert self._tokenise is not None
        run = self._runs[f"trunks.{self._trunk_of['text']}"]
        slices = range(0, len(sentences), _SENTENCES)
        return np.concatenate([run(self._tokenise(sentences[start : start + _SENTENCES]))[0] for start in slices])

    def _text_is_open(self) -> AnsweringModel | None:
        """Opens the text tower unless it is; gives who encodes text in its place, None if it does.

        Raises:
            ConfigError: There is none.
            MissingDependencyError: A package that it needs is not installed.
            WeightsError: It is damaged.
        """
        with self._opening:
            if self._tokenise is None and self._teller is None:
                names = ("heads.text", f"trunks.{self._trunk_of.get('text')}")
                try:
                    if not self._manifest["parts"].keys() >= {*names}:
                        raise ConfigError(f"{self._folder} has no text tower, which labels and text as an input need")
                    self._runs |= {name: self._open(name) for name in names}
                    self._tokenise = tokeniser(self._text)
                except (ConfigError, WeightsError) as error:
                    if self._make_teller is None:
                        raise
                    if isinstance(error, WeightsError):
                        _log.warning("torch encodes text: %s", error)
                    self._teller = self._make_teller()
            return self._teller

    def _open(self, name: str) -> Run:
        entry = self._manifest["parts"].get(name)
        if entry is None:
            raise WeightsError(f"{self._folder}: '{name}' is not exported there")
        return open_part(self._folder, name, entry, self._engines, self._threads)


def exported_sensors(manifest: Mapping[str, Any]) -> set[str]:
    """The modalities but text whose trunk and head an export has.

    Raises:
        WeightsError: The manifest does not say what a model answers.
    """
    try:
        have, asked = manifest["parts"].keys(), manifest["answers"]["modalities"].items()
        return {name for name, part in asked if {f"trunks.{part['trunk']}", f"heads.{name}"} <= have} - {"text"}
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{MANIFEST} does not say what the model answers: {error!r}") from error


def _bank(told: Mapping[str, Any], rows: NDArray[np.float32]) -> ExportedLabels:
    """The vocabulary that a model was exported with.

    Raises:
        KeyError: Something is missing.
        ConfigError: The names are not different.
        ValueError: There are not as many embeddings as names.
    """
    names = tuple(map(clean, told["names"]))
    check_names(names)
    if len(rows) != len(names):
        raise ValueError(f"{len(rows)} embeddings of {len(names)} labels")
    aliases, told_of = (
        {clean(name): tuple(words) for name, words in told[key].items()} for key in ("aliases", "descriptions")
    )
    return ExportedLabels(names, rows, tuple(told["templates"]), aliases, told_of, told["reduce"])


def _means(features: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
    """The mean over each item's views."""
    if all(count == 1 for count in counts):
        return features
    starts = np.cumsum([0, *counts[:-1]])
    return np.asarray(np.add.reduceat(features, starts) / np.array(counts, np.float32)[:, None], np.float32)


def _sums(rows: NDArray[np.float32], owner: Sequence[int]) -> NDArray[np.float32]:
    """Unit-length sums of the rows of each owner, which are 0, 1, ... in that order."""
    sums = np.zeros((owner[-1] + 1, rows.shape[1]), np.float32)
    np.add.at(sums, np.array(owner), rows)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
