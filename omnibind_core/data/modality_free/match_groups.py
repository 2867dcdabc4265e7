"""Which samples may be combined: all of one concept, or only those that were matched with each other one by one."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from omnibind_core import modalities
from omnibind_core.config import Config
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.matching.samples import mutual_nearest
from omnibind_core.data.modality_free.collect import Collection
from omnibind_core.data.modality_free.dataset import as_sample, sensors
from omnibind_core.data.modality_free.descriptions import (
    TEMPLATE,
    Captioner,
    describe,
    read_attributes,
    read_descriptions,
)
from omnibind_core.data.samples import Sample
from omnibind_core.errors import MissingDependencyError

_logger = logging.getLogger(__name__)
_BATCH = 32


class MatchingConfig(Config):
    """Which samples of one concept and split are combined.

    Attributes:
        by: ``labels`` (any of them), ``pairs`` (those that a source says show the same thing), ``descriptions`` or
            ``embeddings`` (those that are each other's nearest between two modalities; pairs too). By descriptions,
            what is left is matched again until nothing is near enough.
        threshold: Least cosine of a match by descriptions or embeddings.
        descriptions: CSV with the columns ``id,description``, for samples that need none made.
        captions: What describes the pictures of cameras that are not in it: ``never`` the template, as everything else;
            ``always`` the captioning model; ``auto`` the captioning model where it is at hand, else the template.
        captioner: Folder of the captioning model, as ``save_pretrained`` of transformers writes it, relative to
            ``--root``.
        template: Description of a sample, from ``{label}``, ``{modality}``, ``{source}``, ``{concept}`` and attributes.
        attributes: CSV with the column ``id`` and one column per attribute.
        model: Whose shared space the embeddings are in: a model's name or folder.
    """

    by: Literal["labels", "pairs", "descriptions", "embeddings"] = "labels"
    threshold: float = Field(0.5, ge=-1, le=1)
    descriptions: str | None = None
    captions: Literal["never", "always", "auto"] = "never"
    captioner: str = "captioner"
    template: str = TEMPLATE
    attributes: str | None = None
    model: str = "lite"


@dataclass(frozen=True)
class Towers:
    """Encoders, given from outside because data come before models.

    Attributes:
        text: Sentences to embeddings ``float32 [N, D]``.
        items: (model, modality, raw items) to embeddings ``float32 [N, D]`` in the model's shared space.
        captioner: Opens the captioning model in a folder, which makes sentences of pictures ``uint8 [H, W, 3]``.
    """

    text: Callable[[Sequence[str]], NDArray[np.float32]]
    items: Callable[[str, str, Sequence[Any]], NDArray[np.float32]]
    captioner: Callable[[Path], Callable[[Sequence[NDArray[np.uint8]]], list[str]]] = Captioner


@dataclass(frozen=True)
class MatchGroups:
    """Samples in groups; those of one group and split may be combined.

    Attributes:
        match_group: ``int32 [N]``, number of every sample's group.
        score: ``float32 [N]``, how sure its label's concept is, 0..1.
        text: ``int32 [N]``, its words, as a number of ``texts``.
        concept: ``int32 [G]``, of every group, as a number of ``concepts``.
        match_score: ``float32 [G]``, least similarity of two matched samples; 1 where nothing was compared.
        concepts: Names, in alphabetical order.
        texts: All different words.
        captions: Sentence of the captioning model by sample id.
        described: How many samples were described by what; empty where descriptions were not compared.
    """

    match_group: NDArray[np.int32]
    score: NDArray[np.float32]
    text: NDArray[np.int32]
    concept: NDArray[np.int32]
    match_score: NDArray[np.float32]
    concepts: tuple[str, ...]
    texts: tuple[str, ...]
    captions: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> NDArray[np.float64]:
        """So that concepts are drawn alike, however many groups each has."""
        return 1.0 / np.bincount(self.concept)[self.concept]

    def words(self, here: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Different words of some samples, as numbers of ``texts``, and the match group of each."""
        text, match_group = np.unique(np.stack([self.text[here], self.match_group[here]]), axis=1)
        return text, match_group


def make_match_groups(
    table: Any,
    score: NDArray[np.float32],
    collections: Sequence[Collection],
    concepts: Concepts,
    config: MatchingConfig,
    towers: Towers,
    root: Path,
) -> MatchGroups:
    """Puts every sample into a group.

    Args:
        table: Samples with ``concept`` and ``collection``.
        score: How sure the concept of each is, ``float32 [N]``.
        collections: The sources.
        concepts: The label table.
        config: What is compared.
        towers: Encoders for it.
        root: Folder that the captioning model's is relative to.

    Raises:
        DataError: A table of descriptions or attributes, or the captioning model, is missing or wrong.
        MissingDependencyError: The captioning model needs a package that is not installed.
        InvalidInputError: A sample's file that is needed cannot be read.
    """
    names, concept = _numbered(np.asarray(table["concept"].cast("string")).astype(str))
    captions: dict[str, str] = {}
    described: dict[str, int] = {}
    sentences = np.asarray(table["label"].cast("string")).astype(object)
    if config.by == "descriptions":
        given = {} if config.descriptions is None else read_descriptions(Path(config.descriptions))
        captions = _captions(table, collections, config, towers, root, given)
        sentences, described = _descriptions(table, concepts, config, given, captions)
    texts, text = _numbered(_with_own_words(sentences, table, collections))
    if config.by == "labels":
        ones = np.ones(len(names), np.float32)
        return MatchGroups(concept, score, text, np.arange(len(names), dtype=np.int32), ones, names, texts)
    edges = list(_pairs(table, concept))
    if config.by != "pairs":
        rows = (
            towers.text(list(texts))[text]
            if config.by == "descriptions"
            else _embed(table, collections, config, towers)
        )
        edges += _matches(table, concept, rows, config)
    a, b = (np.concatenate([edge[i] for edge in edges] or [np.zeros(0, np.int64)]) for i in (0, 1))
    similarity = np.concatenate([edge[2] for edge in edges] or [np.zeros(0, np.float32)])
    _logger.info("%d pairs of samples matched by %s", len(a), config.by)
    count, match_group = connected_components(
        coo_array((np.ones(len(a)), (a, b)), shape=(len(concept),) * 2), directed=False
    )
    concept_of_group = np.empty(count, np.int32)
    concept_of_group[match_group] = concept
    match_score = np.ones(count, np.float32)
    np.minimum.at(match_score, match_group[a], similarity)
    number = match_group.astype(np.int32)
    return MatchGroups(number, score, text, concept_of_group, match_score, names, texts, captions, described)


def _numbered(values: NDArray[np.str_]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The different values in order, and each value as a number of these."""
    distinct, number = np.unique(values, return_inverse=True)
    numbers: NDArray[np.int32] = number.astype(np.int32)
    return tuple(distinct.tolist()), numbers


_Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Rows, rows that fit to them, similarity."""


def _descriptions(
    table: Any, concepts: Concepts, config: MatchingConfig, given: Mapping[str, str], captions: Mapping[str, str]
) -> tuple[NDArray[np.object_], dict[str, int]]:
    """A description of every sample: that of the table, its caption, or the template's; and how many have which."""
    attributes = None if config.attributes is None else read_attributes(Path(config.attributes))
    known = {**given, **captions}
    made = describe((s for s, _ in _samples(table) if s.id not in known), config.template, attributes, concepts)
    ids = np.asarray(table["id"]).astype(str)
    sentences = np.array([known.get(name) or made[name] for name in ids], object)
    in_table = sum(name in given for name in ids.tolist())
    kinds = {"table": in_table, "captioning model": len(captions), f"template '{config.template}'": len(made)}
    described = {kind: count for kind, count in kinds.items() if count}
    _logger.info("samples described by %s", ", ".join(f"{kind}: {count}" for kind, count in described.items()))
    return sentences, described


def _captions(
    table: Any,
    collections: Sequence[Collection],
    config: MatchingConfig,
    towers: Towers,
    root: Path,
    given: Mapping[str, str],
) -> dict[str, str]:
    """Captions of all pictures of cameras that have no description, by sample id."""
    folder = root / config.captioner
    if config.captions == "never":
        return {}
    if config.captions == "auto" and not folder.is_dir():
        _logger.warning("no captioning model in %s: pictures are described by the template", folder)
        return {}
    try:
        caption = towers.captioner(folder)
    except MissingDependencyError as error:
        if config.captions == "always":
            raise
        _logger.warning("%s: pictures are described by the template", error)
        return {}
    cameras = [name for name in sensors() if modalities.get(name).is_camera]
    modality, ids = (np.asarray(table[name].cast("string")).astype(str) for name in ("modality", "id"))
    rows = np.flatnonzero(np.isin(modality, cameras) & ~np.isin(ids, list(given)))
    captions: dict[str, str] = {}
    for start in range(0, len(rows), _BATCH):
        batch = list(_samples(table.take(rows[start : start + _BATCH])))
        pictures = [collections[number].source.load(sample) for sample, number in batch]
        found = zip(batch, caption(pictures), strict=True)
        captions.update({sample.id: sentence for (sample, _), sentence in found if sentence})
    return captions


def _with_own_words(sentences: NDArray[np.object_], table: Any, collections: Sequence[Collection]) -> NDArray[np.str_]:
    """Sentences of all samples, those of text being its own words."""
    for row in np.flatnonzero(np.asarray(table["modality"].cast("string")) == "text"):
        sample, number = next(_samples(table.slice(int(row), 1)))
        sentences[row] = collections[number].source.load(sample)
    return sentences.astype(str)


def _samples(table: Any) -> Iterator[tuple[Sample, int]]:
    """The samples of a table, and the number of each one's source."""
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield as_sample(row), row["collection"]


def _pairs(table: Any, concept: NDArray[np.int32]) -> Iterator[_Edges]:
    """Samples that a source says show the same thing; those in another split or of another concept do not count."""
    pair, split = (np.asarray(table[name].cast("string")).astype(str) for name in ("pair", "split"))
    rows = np.flatnonzero(pair != "")
    rows = rows[np.lexsort((rows, split[rows], concept[rows], pair[rows]))]
    same = (pair[rows[1:]] == pair[rows[:-1]]) & (concept[rows[1:]] == concept[rows[:-1]])
    same &= split[rows[1:]] == split[rows[:-1]]
    yield rows[:-1][same], rows[1:][same], np.ones(int(same.sum()), np.float32)


def _matches(
    table: Any, concept: NDArray[np.int32], embeddings: NDArray[np.float32], config: MatchingConfig
) -> Iterator[_Edges]:
    """Mutually nearest samples of two sensor modalities, within each concept and split.

    Of descriptions, what is left is matched again until nothing is near enough: all sounds may be "a dog", each picture
    have a caption of its own, and only one of these be the nearest.
    """
    modality, split = (np.asarray(table[name].cast("string")).astype(str) for name in ("modality", "split"))
    blocks: dict[tuple[int, str], dict[str, list[int]]] = {}
    for row in np.flatnonzero(modality != "text").tolist():
        block = blocks.setdefault((int(concept[row]), split[row]), {})
        block.setdefault(modality[row], []).append(row)
    for _, block in sorted(blocks.items()):
        present = [np.array(block[name]) for name in sensors() if name in block]
        for left, right in itertools.combinations(present, 2):
            found = mutual_nearest(embeddings[left], embeddings[right], config.threshold)
            yield left[found.a], right[found.b], found.score
            while config.by == "descriptions" and len(found.a):
                left, right = np.delete(left, found.a), np.delete(right, found.b)
                found = mutual_nearest(embeddings[left], embeddings[right], config.threshold)
                yield left[found.a], right[found.b], found.score


def _embed(
    table: Any, collections: Sequence[Collection], config: MatchingConfig, towers: Towers
) -> NDArray[np.float32]:
    """Embeddings of all samples in the shared space ``float32 [N, D]``; zeros for text, which is not matched."""
    modality = np.asarray(table["modality"].cast("string")).astype(str)
    result: NDArray[np.float32] | None = None
    for name in sensors():
        rows = np.flatnonzero(modality == name)
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            raws = [collections[number].source.load(sample) for sample, number in _samples(table.take(batch))]
            found = towers.items(config.model, name, raws)
            if result is None:
                result = np.zeros((len(table), found.shape[1]), np.float32)
            result[batch] = found
    return np.zeros((len(table), 1), np.float32) if result is None else result
