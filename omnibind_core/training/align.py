"""Stage I: every student is aligned to the frozen image and text teachers (paper Sec. 3.2)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnibind_core import modalities
from omnibind_core.alignment import cad_loss
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.labels import PAPER_TEMPLATES
from omnibind_core.modalities import Role
from omnibind_core.training.config import AlignConfig
from omnibind_core.training.dataset import Part, TrainingData, embed_all, learns, trunk_features
from omnibind_core.training.loop import Optimisation

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teachers:
    """The frozen teachers' embeddings, computed once.

    Attributes:
        text: ``float32 [C, D]``, of "a photo of a {concept}".
        image: ``float32 [P, D]``, of every training photo and its variants.
        photos: Rows of :attr:`image` by concept; a concept without photos has none, and its text stands in.
    """

    text: Tensor
    image: Tensor
    photos: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, data: TrainingData, model: ModelConfig, encoder_set: EncoderSet) -> Teachers:
        """Computes them for a training set."""
        with torch.inference_mode():
            sentences = [PAPER_TEMPLATES[0].replace("{}", name) for name in data.vocabulary]
            text = encoder_set.encode_text(sentences)
        part = data.train.get("image")
        if part is None:
            empty = np.zeros(0, np.int64)
            return cls(text.clone(), text.new_zeros(0, text.shape[1]), (empty,) * len(text))
        rows = embed_all(encoder_set, model, "image", part.inputs).flatten(0, 1)
        concept = np.repeat(part.concept, part.inputs.shape[1])
        photos = tuple(np.flatnonzero(concept == index) for index in range(len(data.vocabulary)))
        return cls(text.clone(), rows.clone(), photos)

    def draw(self, concept: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Text and image embeddings ``[B, D]`` for samples of the given concepts; the photo is a random one."""
        text = self.text[torch.from_numpy(concept)]
        image = text.clone()
        for row, index in enumerate(concept):
            if len(self.photos[index]):
                image[row] = self.image[rng.choice(self.photos[index])]
        return text, image


def align(data: TrainingData, model: ModelConfig, encoder_set: EncoderSet, config: AlignConfig, seed: int) -> None:
    """Trains the heads of all students, and those student trunks that learn, in place.

    The image teacher is tied to text first (:func:`tie`). The students take turns in random order, each with its own
    number of steps; teachers and packaged trunks stay frozen in evaluation mode.

    Args:
        data: What to train on.
        model: Architecture.
        encoder_set: The encoders; changed.
        config: Settings.
        seed: Of the order and the batches.
    """
    students = [name for name in data.train if modalities.get(name).role is Role.STUDENT]
    tie(data, model, encoder_set, config, seed)
    rng = np.random.default_rng((seed, 1))
    teachers = Teachers.of(data, model, encoder_set)
    steps = {name: config.more_steps.get(name, config.steps) for name in students}
    order = rng.permutation(np.repeat(np.arange(len(students)), [steps[name] for name in students]))
    trainable = [p for name in students for module in _learning(encoder_set, model, name) for p in module.parameters()]
    optimisation = Optimisation(
        dict.fromkeys(trainable), config.lr, config.weight_decay, config.warmup, config.clip, len(order)
    )
    chances = {name: _chances(data.train[name].concept, config.balance) for name in students}
    running: dict[str, Tensor] = {}
    for step, index in enumerate(order):
        name = students[index]
        part = data.train[name]
        size = min(config.more_batch.get(name, config.batch), len(part))
        rows = rng.choice(len(part), size=size, p=chances[name])
        loss = _loss(part, rows, name, teachers, model, encoder_set, config, rng)
        optimisation.step(loss)
        running[name] = loss.detach()
        if (step + 1) % max(1, len(order) // 20) == 0:
            told = ", ".join(f"{key} {value.item():.3f}" for key, value in sorted(running.items()))
            _logger.info("align %3d %%: loss %s", 100 * (step + 1) // len(order), told)
    encoder_set.eval()


def tie(data: TrainingData, model: ModelConfig, encoder_set: EncoderSet, config: AlignConfig, seed: int) -> None:
    """Step 0, for families whose image teacher has a head to train: contrasts it with the text teacher, in place.

    After this the image teacher is frozen like the text teacher. ImageBind and CLIP come tied and skip this.

    Args:
        data: What to train on; its photos are used.
        model: Architecture.
        encoder_set: The encoders; the image head is changed.
        config: Settings.
        seed: Of the batches.
    """
    part = data.train.get("image")
    if part is None or not learns(encoder_set.heads["image"]):
        return
    text = Teachers.of(data, model, encoder_set).text
    rng = np.random.default_rng((seed, 0))
    head = encoder_set.heads["image"].train()
    chances = _chances(part.concept, config.balance)
    optimisation = Optimisation(
        head.parameters(), config.lr, config.weight_decay, config.warmup, config.clip, config.tie_steps
    )
    for _ in range(config.tie_steps):
        rows = rng.choice(len(part), size=min(config.batch, len(part)), p=chances)
        inputs = torch.from_numpy(part.inputs[rows, rng.integers(part.inputs.shape[1], size=len(rows))]).to(text.device)
        label = torch.from_numpy(part.concept[rows]).to(text.device)
        embedding = F.normalize(head(inputs), dim=-1)
        optimisation.step(F.cross_entropy(embedding @ text.T / config.cad.tau_in, label))
    encoder_set.eval()


def accuracy(data: TrainingData, model: ModelConfig, encoder_set: EncoderSet) -> dict[str, dict[str, Any]]:
    """Validation accuracy of every modality alone.

    Returns:
        By modality: ``n``, ``top1`` against the whole vocabulary, ``top1_own`` against the concepts that the modality
        was trained on, and ``labels_own``, their number.
    """
    encoder_set.eval()
    with torch.inference_mode():
        text = encoder_set.encode_text([PAPER_TEMPLATES[0].replace("{}", name) for name in data.vocabulary])
    figures: dict[str, dict[str, Any]] = {}
    for name, part in data.val.items():
        scores = embed_all(encoder_set, model, name, part.inputs)[:, 0] @ text.T
        concept = torch.from_numpy(part.concept).to(scores.device)
        own = torch.zeros(len(data.vocabulary), dtype=torch.bool, device=scores.device)
        own[torch.from_numpy(np.unique(data.train[name].concept))] = True
        figures[name] = {
            "n": len(part),
            "top1": round((scores.argmax(1) == concept).float().mean().item(), 4),
            "top1_own": round((scores.masked_fill(~own, -2).argmax(1) == concept).float().mean().item(), 4),
            "labels_own": int(own.sum()),
        }
    return figures


def _learning(encoder_set: EncoderSet, model: ModelConfig, name: str) -> list[torch.nn.Module]:
    trunk = encoder_set.trunks[model.modalities[name].trunk]
    return [encoder_set.heads[name], *([trunk] if learns(trunk) else [])]


def _loss(
    part: Part,
    rows: NDArray[np.int64],
    name: str,
    teachers: Teachers,
    model: ModelConfig,
    encoder_set: EncoderSet,
    config: AlignConfig,
    rng: np.random.Generator,
) -> Tensor:
    encoder_set.eval()  # pins every frozen part; only what learns is put back to training mode
    for module in _learning(encoder_set, model, name):
        module.train()
    device = teachers.text.device
    variants = rng.integers(part.inputs.shape[1], size=len(rows))
    inputs = torch.from_numpy(part.inputs[rows, variants]).to(device)
    text, image = teachers.draw(part.concept[rows], rng)
    student = F.normalize(encoder_set.heads[name](trunk_features(encoder_set, model, name, inputs)), dim=-1)
    label = torch.from_numpy(part.concept[rows]).to(device)
    return cad_loss(student, image, text, config.cad, label).total


def _chances(concept: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Probability of drawing each sample."""
    weight = np.bincount(concept).astype(np.float64)[concept] ** -balance
    return weight / weight.sum()
