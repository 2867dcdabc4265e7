"""Sets of samples as features of the frozen trunks, and the embedding of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from omnibind_core import modalities
from omnibind_core.blocks import Progress
from omnibind_core.data.samples import Sample
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.base import weights_identity
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.features.cache import Loads, features
from omnibind_core.parallel import cores


@dataclass(frozen=True)
class FeatureSet:
    """The samples of one modality in one split.

    Attributes:
        samples: One per row.
        inputs: ``float32 [N, 1 + A, F]`` trunk features of every sample and its augmented variants; for a trunk that
            learns, its flattened input instead.
        concept: ``int64 [N]``, index into the vocabulary.
        damaged: ``float32 [N, K, F]``, the same of K variants with a damaged sensor, for stage II; None for none.
        randomised: How many of the variants in :attr:`inputs`, the last ones, are by domain randomisation.
    """

    samples: tuple[Sample, ...]
    inputs: NDArray[np.float32]
    concept: NDArray[np.int64]
    damaged: NDArray[np.float32] | None = None
    randomised: int = 0

    def __len__(self) -> int:
        return len(self.concept)

    @property
    def variants(self) -> int:
        """Variants of each sample, itself included, with and without a damaged sensor."""
        return self.inputs.shape[1] + (0 if self.damaged is None else self.damaged.shape[1])

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> FeatureSet:
        """Some of the samples."""
        numbers = np.arange(len(self))[rows]
        damaged = None if self.damaged is None else self.damaged[numbers]
        samples = tuple(self.samples[row] for row in numbers)
        return FeatureSet(samples, self.inputs[numbers], self.concept[numbers], damaged, self.randomised)

    @staticmethod
    def joined(parts: Sequence[FeatureSet]) -> FeatureSet:
        """Several sets of one modality, without variants."""
        samples = tuple(sample for part in parts for sample in part.samples)
        inputs = np.concatenate([part.inputs[:, :1] for part in parts])
        return FeatureSet(samples, inputs, np.concatenate([part.concept for part in parts]))


def sample_features(
    source: Loads,
    samples: Sequence[Sample],
    modality: str,
    model: ModelConfig,
    encoder_set: EncoderSet,
    augmentations: int,
    seed: int,
    what: str = "",
) -> NDArray[np.float32]:
    """Features of all samples, NaN of those that the source has None for; ``what`` tells such sources apart."""
    part = model.modalities[modality]
    definition = modalities.get(modality)
    preset = definition.preset(part.preset)
    trunk = encoder_set.trunks[part.trunk]
    width: Any = trunk.feature_dim
    device = next(trunk.parameters()).device

    # A device, or an engine with threads of its own, computes one batch at a time; what comes before it is parallel.
    alone: Any = contextlib.nullcontext()
    if device.type != "cpu" or part.trunk in encoder_set.compiled:
        alone = threading.Lock()

    def extract(items: Sequence[Any]) -> NDArray[np.float32]:
        views = [definition.process(item, preset) for item in items if item is not None]
        if learns(trunk):
            return np.concatenate(views).reshape(len(items), -1)
        found = np.full((len(items), width), np.nan, np.float32)
        if views:
            with alone, torch.inference_mode():
                joined = torch.from_numpy(np.concatenate(views)).to(device)
                rows = encoder_set.features(part.trunk, joined, [len(view) for view in views])
            found[[item is not None for item in items]] = rows.cpu().numpy()
        return found

    weights = "input"
    if not learns(trunk):
        settings = model.trunks[part.trunk].model_dump(exclude={"weights"})  # where a file lies makes no features
        weights = json.dumps(settings, sort_keys=True) + weights_identity(trunk)
    compiled = encoder_set.compiled.get(part.trunk)
    weights += "" if compiled is None else f"|{compiled.engine}"  # the last digits are not those of torch
    key = f"{weights}|{dataclasses.asdict(preset)}{modalities.fingerprint(modality)}{what}"
    with _one_thread():
        return features(
            source,
            samples,
            modality,
            extract,
            key,
            augmentations,
            seed,
            progress=Progress(f"{modality}: {what}features", f"samples x {1 + augmentations}"),
            threads=cores(),
        )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Lets each thread compute with torch on its own: on more, the last digits depend on how many they are.

    Not from two threads at once.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learns(module: nn.Module) -> bool:
    """Whether the module has weights that training changes."""
    return any(parameter.requires_grad for parameter in module.parameters())


def trunk_features(encoder_set: EncoderSet, model: ModelConfig, modality: str, inputs: Tensor) -> Tensor:
    """Features ``[N, F]`` of rows of :attr:`FeatureSet.inputs`, through the trunk if it learns."""
    trunk = encoder_set.trunks[model.modalities[modality].trunk]
    if not learns(trunk):
        return inputs
    shape = modalities.get(modality).preset(model.modalities[modality].preset).shape
    out: Tensor = trunk(inputs.reshape(len(inputs), *shape))
    return out


def embed_all(encoder_set: EncoderSet, model: ModelConfig, modality: str, inputs: NDArray[np.float32]) -> Tensor:
    """Unit-length embeddings ``[N, A, D]`` of ``[N, A, F]`` inputs, without gradient, on the encoders' device."""
    device = next(encoder_set.parameters()).device
    flat = inputs.reshape(-1, inputs.shape[-1])
    out = []
    with torch.inference_mode():
        for start in range(0, len(flat), 256):
            rows = torch.from_numpy(np.array(flat[start : start + 256])).to(device)
            out.append(encoder_set.embed(modality, trunk_features(encoder_set, model, modality, rows)))
    return torch.cat(out).reshape(*inputs.shape[:2], -1)


def top1_by_text(
    samples: FeatureSet,
    modality: str,
    model: ModelConfig,
    encoder_set: EncoderSet,
    text: Tensor,
    among: NDArray[np.int64] | None = None,
) -> float:
    """Share of the samples of a modality that are nearest to the text of their concept.

    Args:
        samples: All of the modality; their variants do not count.
        modality: Which.
        model: Architecture.
        encoder_set: The encoders, in eval mode.
        text: ``float32 [C, D]``, the text teacher's embeddings of the whole vocabulary.
        among: Concepts to choose from; None for all.
    """
    scores = embed_all(encoder_set, model, modality, samples.inputs[:, :1])[:, 0] @ text.T
    if among is not None:
        others = np.setdiff1d(np.arange(len(text)), among)
        scores[:, torch.from_numpy(others)] = -2.0
    right = scores.argmax(1) == torch.from_numpy(samples.concept).to(scores.device)
    return right.float().mean().item()
