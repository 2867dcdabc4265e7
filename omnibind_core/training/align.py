"""Stage I: every student is aligned to the frozen image and text teachers (paper Sec. 3.2)."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from omnibind_core import modalities
from omnibind_core.alignment import cad_loss
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.errors import ConfigError
from omnibind_core.features.sets import FeatureSet, embed_all, learns, top1_by_text
from omnibind_core.modalities import Role
from omnibind_core.training.batches import Batch, Batches
from omnibind_core.training.config import AlignConfig
from omnibind_core.training.dataset import TrainingData, prompts
from omnibind_core.training.engine import Stage


@dataclass(frozen=True)
class Teachers:
    """The frozen teachers' embeddings, computed once.

    Attributes:
        text: ``float32 [C, D]``, of "a photo of a {concept}".
        image: ``float32 [P, D]``, of every training photo and its variants, sorted by concept.
        first: ``int64 [C]``, where a concept's photos begin in :attr:`image`.
        count: ``int64 [C]``, how many it has; a concept without photos has none, and its text stands in.
    """

    text: Tensor
    image: Tensor
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, data: TrainingData, model: ModelConfig, encoder_set: EncoderSet) -> Teachers:
        """Computes them for a training set."""
        text = prompts(data, encoder_set)
        photos = data.train.get("image")
        if photos is None:
            none = np.zeros(len(text), np.int64)
            return cls(text, text[:0], none, none)
        concept = np.repeat(photos.concept, photos.inputs.shape[1])
        order = np.argsort(concept, kind="stable")
        rows = embed_all(encoder_set, model, "image", photos.inputs).flatten(0, 1)
        count = np.bincount(concept, minlength=len(text))
        return cls(text, rows[torch.from_numpy(order)], np.cumsum(count) - count, count)

    def draw(self, concept: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Text and image embeddings ``[B, D]`` for samples of the given concepts; the photo is a random one."""
        text = self.text[torch.from_numpy(concept)]
        if not len(self.image):
            return text, text
        there = self.count[concept] > 0
        photo = self.first[concept] + (rng.random(len(concept)) * self.count[concept]).astype(np.int64)
        image = self.image[torch.from_numpy(np.where(there, photo, 0))]
        return text, torch.where(torch.from_numpy(there).to(text.device)[:, None], image, text)


@dataclass(frozen=True)
class Lesson:
    """A batch of one student's samples with the embeddings that the teachers have for them, ``[B, D]`` each."""

    batch: Batch
    text: Tensor
    image: Tensor

    def __len__(self) -> int:
        return len(self.batch)


class Align(Stage):
    """The heads of the students, and those of their trunks that learn.

    The students take turns in random order or learn one after the other, each with its own number of steps.

    Args:
        data: What to train on.
        model: Architecture.
        encoder_set: The encoders; changed.
        settings: Of the stage.
        seed: Of the order.
    """

    def __init__(
        self, data: TrainingData, model: ModelConfig, encoder_set: EncoderSet, settings: AlignConfig, seed: int
    ) -> None:
        super().__init__("align", settings)
        self.cad = settings.cad
        self._frozen = (data, model, encoder_set.eval())
        trunk_of = {name: part.trunk for name, part in model.modalities.items()}
        self.students = [
            name
            for name in choose_students(settings, [*data.train])
            if learns(encoder_set.heads[name]) or learns(encoder_set.trunks[trunk_of[name]])
        ]
        self.heads = nn.ModuleDict({name: encoder_set.heads[name] for name in self.students})
        used = {trunk_of[name]: encoder_set.trunks[trunk_of[name]] for name in self.students}
        self.trunks = nn.ModuleDict({name: trunk for name, trunk in used.items() if learns(trunk)})
        self._groups = self._by_student(settings, trunk_of)
        self.teachers = Teachers.of(data, model, encoder_set)
        sizes = {name: len(data.train[name]) for name in self.students}
        self.batches = [Batches(name, _shares(data, name, settings), settings.balance) for name in self.students]
        turns = [settings.steps_of(name, sizes[name]) for name in self.students]
        self.order = np.repeat(np.arange(len(self.students)), turns)
        self.steps = len(self.order)
        self._sequential = settings.order == "sequential"
        if not self._sequential:
            self.order = np.random.default_rng((seed, zlib.crc32(b"order"))).permutation(self.order)

    def _by_student(self, settings: AlignConfig, trunk_of: dict[str, str]) -> list[dict[str, Any]]:
        groups, taken = [], set()
        for name in self.students:
            modules = [self.heads[name], *(self.trunks[key] for key in self.trunks if key == trunk_of[name])]
            params = [p for module in modules for p in module.parameters() if p not in taken]
            taken.update(params)
            groups.append({"params": params, "lr": settings.lr_of(name), "subject": name})
        return groups

    def groups(self) -> list[dict[str, Any]]:
        """See :meth:`Stage.groups`: one for each student; a shared trunk learns with the first."""
        return self._groups

    def subject(self, step: int) -> str:
        """See :meth:`Stage.subject`: the student whose turn it is."""
        return self.students[self.order[step]]

    def span(self, step: int) -> tuple[int, int]:
        """See :meth:`Stage.span`: of the student whose turn it is if they learn one after the other."""
        if not self._sequential:
            return super().span(step)
        own = np.flatnonzero(self.order == self.order[step])
        return int(own[0]), int(own[-1]) + 1

    def draw(self, step: int, rng: np.random.Generator) -> Lesson:
        """See :meth:`Stage.draw`."""
        batch = self.batches[self.order[step]].draw(rng)
        return Lesson(batch, *self.teachers.draw(batch.concept, rng))

    def encode(self, batch: Lesson, share: slice) -> Tensor:
        """See :meth:`Stage.encode`."""
        _, model, encoder_set = self._frozen
        return batch.batch.embed(share, encoder_set, model)

    def losses(self, embeddings: Tensor, batch: Lesson) -> dict[str, Tensor]:
        """See :meth:`Stage.losses`: the three terms unweighted, and their weighted sum."""
        label = torch.from_numpy(batch.batch.concept).to(embeddings.device)
        terms = cad_loss(embeddings, batch.image, batch.text, self.cad, label)
        return {"loss": terms.total, "contrastive": terms.contrastive, "cross": terms.cross, "self": terms.self_}

    def validate(self) -> dict[str, float]:
        """See :meth:`Stage.validate`: top-1 of every student."""
        data, model, encoder_set = self._frozen
        chosen = [name for name in self.students if name in data.val]
        return {name: top1_by_text(data.val[name], name, model, encoder_set, self.teachers.text) for name in chosen}


def choose_students(settings: AlignConfig, available: list[str]) -> list[str]:
    """The students that learn.

    Args:
        settings: Of the stage.
        available: Modalities with training samples.

    Raises:
        ConfigError: Settings name a modality that is no student, or has no training samples; names the key.
    """
    students = [name for name in available if modalities.get(name).role is Role.STUDENT]
    for name in settings.per_student:
        if modalities.get(name).role is not Role.STUDENT:
            raise ConfigError(f"align.per_student.{name}: a teacher does not learn in stage I")
    if settings.students is None:
        return students
    for name in settings.students:
        if name not in students:
            raise ConfigError(
                f"align.students has '{name}', expected some of those with training samples: {', '.join(students)}"
            )
    return [name for name in students if name in settings.students]


def _shares(data: TrainingData, student: str, settings: AlignConfig) -> list[tuple[FeatureSet, int]]:
    """What a batch of a student is made of: real samples, at least one, randomised and imagined ones."""
    real = data.train[student]
    size = settings.batch_of(student, len(real))
    more: list[tuple[FeatureSet, int]] = []
    if student in settings.randomised and real.randomised:
        own = real.inputs.shape[1] - real.randomised
        others = dataclasses.replace(real, inputs=real.inputs[:, own:])
        real = dataclasses.replace(real, inputs=real.inputs[:, :own], randomised=0)
        more.append((others, int(settings.randomised[student] * size)))
    if student in data.imagined:
        more.append((data.imagined[student], int(settings.imagined.get(student, 0.0) * size)))
    return [(real, size - sum(few for _, few in more)), *more]


def accuracy(data: TrainingData, model: ModelConfig, encoder_set: EncoderSet) -> dict[str, dict[str, Any]]:
    """Validation accuracy of every modality alone.

    Returns:
        By modality: ``n``, ``top1`` against the whole vocabulary, ``top1_own`` against the concepts that the modality
        was trained on, and ``labels_own``, their number.
    """
    text = prompts(data, encoder_set.eval())
    figures: dict[str, dict[str, Any]] = {}
    for name, samples in data.val.items():
        own = np.unique(data.train[name].concept) if name in data.train else np.zeros(0, np.int64)
        figures[name] = {
            "n": len(samples),
            "top1": round(top1_by_text(samples, name, model, encoder_set, text), 4),
            "top1_own": round(top1_by_text(samples, name, model, encoder_set, text, own), 4),
            "labels_own": len(own),
        }
    return figures
