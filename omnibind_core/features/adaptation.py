"""Adapting a model to sensors of the user's own, from a few samples: what is learned beside the heads.

Nothing that the model has is changed, and its training data are not needed: a head gets a classifier of the new sensor
beside it (:class:`~omnibind_core.encoders.heads.Adapted`), which speaks only where features are more like the new
sensor's than like those that the model was trained on. How that was chosen stands in ``docs/experiments.md``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import AdaptedConfig
from omnibind_core.encoders.heads import Adapted, adapted, root
from omnibind_core.errors import WeightsError
from omnibind_core.features.sets import FeatureSet, learns
from omnibind_core.files import write_atomically
from omnibind_core.fusion.familiarity import spherical_k_means
from omnibind_core.labels import LabelBank
from omnibind_core.model import OmniBind
from omnibind_core.model.folders import HOME

SHARE = 0.1
"""Of home samples that may be taken for the new sensor's, by an estimate that is too high (2 % and less were)."""
CENTRES = 64
"""That stand for what a modality's encoder was trained on."""
_KEYS = 512  # samples of the new sensor that are kept, at most
_FAMILIAR = 64  # samples of the new sensor, at most, that the fusion finds familiar
_RIDGE = 0.3
_FOLDS = 10
_TEMPERATURES = tuple(float(value) for value in np.geomspace(0.02, 1, 40))


@dataclass(frozen=True)
class Home:
    """What the features of one modality were like before.

    Attributes:
        centres: ``float32 [H, F]``, unit-length roots of features.
        median: Cosine of a usual sample to the nearest of them.
        spread: How much less it is for the most unlike 5 %.
    """

    centres: Tensor
    median: float
    spread: float

    @classmethod
    def of(cls, features: NDArray[np.float32], seed: int = 0) -> Home:
        """From trunk features ``float32 [N, F]``, at least two; a fifth is kept out of the centres for the cosines."""
        rows = root(torch.from_numpy(np.array(features)))
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        held = max(len(rows) // 5, 1)
        centres = spherical_k_means(rows[order[held:]], CENTRES, seed)
        nearest = (rows[order[:held]] @ centres.T).amax(dim=1)
        median = nearest.median()
        return cls(centres, median.item(), max((median - nearest.quantile(0.05)).item(), 1e-3))

    def threshold(self, keys: Tensor) -> float:
        """By how much nearer to keys ``[S, F]`` than to the centres a sample has to be, so that :data:`SHARE` are."""
        new = (self.centres @ keys.T).amax(dim=1) - self.median
        normal = torch.distributions.Normal(0.0, self.spread / 1.645)  # whose 5 % quantile is the spread below
        low, high = -2.0, 2.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if normal.cdf(new - middle).mean() > SHARE else (low, middle)
        return high


def known_home(model: OmniBind, modality: str) -> Home | None:
    """The home of a modality that was adapted before: all that it knows now; None if it was not."""
    head = model.encoders.heads[modality]
    if not isinstance(head, Adapted):
        return None
    return Home(torch.cat([head.home, head.keys]), head.median.item(), head.spread.item())


def homes(train: Mapping[str, FeatureSet], model: OmniBind) -> dict[str, Home]:
    """What the modalities of a model were trained on, by the training samples; without trunks that learn."""
    trunks = {name: model.encoders.trunks[model.encoders.trunk_of[name]] for name in train}
    return {
        name: Home.of(samples.inputs[:, 0])
        for name, samples in train.items()
        if len(samples) > 1 and not learns(trunks[name])
    }


def save_homes(folder: Path, homes: Mapping[str, Home]) -> None:
    """Writes what the modalities of a model were trained on to its folder."""
    tensors = {}
    for name, home in homes.items():
        tensors[f"{name}.centres"] = home.centres.half().cpu().contiguous()
        tensors[f"{name}.scale"] = torch.tensor([home.median, home.spread])
    with write_atomically(folder / HOME) as path:
        path.write_bytes(save(tensors))


def read_homes(folder: Path) -> dict[str, Home]:
    """What :func:`save_homes` wrote, by modality; nothing if the folder has no such file.

    Raises:
        WeightsError: The file is damaged, lacks something or holds what are no numbers.
    """
    if not (folder / HOME).is_file():
        return {}
    try:
        tensors = load_file(folder / HOME)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder / HOME}: not a whole safetensors file: {error}") from error
    names = [name.removesuffix(".centres") for name in tensors if name.endswith(".centres")]
    for name in names:
        centres, scale = tensors[f"{name}.centres"], tensors.get(f"{name}.scale")
        if scale is None or scale.shape != (2,) or centres.ndim != 2:
            raise WeightsError(f"{folder / HOME}: '{name}' has no centres [H, F] with a scale of two numbers")
        if not (centres.isfinite().all() and scale.isfinite().all()):
            raise WeightsError(f"{folder / HOME}: '{name}' has values that are not finite, expected numbers")
    return {
        name: Home(F.normalize(tensors[f"{name}.centres"].float(), dim=1), *tensors[f"{name}.scale"].tolist())
        for name in names
    }


@torch.no_grad()
def adapt(model: OmniBind, learned: Mapping[str, FeatureSet], home: Mapping[str, Home]) -> OmniBind:
    """A model that also knows other sensors; the one that is given stays as it is.

    Args:
        model: The model, whose vocabulary has all labels of the samples.
        learned: By modality, samples with the features of their variants.
        home: By modality, what the features were like before.
    """
    heads = dict(model.encoders.heads.items())
    parts = dict(model.config.modalities)
    for name, samples in learned.items():
        temperature = model.calibration.temperature([name])
        head = _fit(model.encoders, name, samples, home[name], model.labels, temperature)
        part = AdaptedConfig(
            type="adapted",
            base=parts[name].head,
            labels=len(head.labels),
            samples=len(head.keys),
            home=len(head.home),
        )
        parts[name], heads[name] = parts[name].model_copy(update={"head": part}), head
    encoders = EncoderSet(dict(model.encoders.trunks.items()), heads, model.encoders.trunk_of, model.config.embed_dim)
    fusion, settings = copy.deepcopy(model.fusion), dict(model.config.fusion)
    slots = tuple(model.config.modalities)
    for name, samples in learned.items():
        rows = torch.from_numpy(np.array(samples.inputs[:_FAMILIAR, 0])).to(model.device)
        settings |= fusion.add(slots.index(name), encoders.embed(name, rows))
    config = model.config.model_copy(update={"modalities": parts, "fusion": settings})
    return OmniBind(config, encoders, fusion, model.labels, model.calibration).to(model.device)


def _fit(
    encoders: EncoderSet, modality: str, samples: FeatureSet, home: Home, labels: LabelBank, temperature: float
) -> Adapted:
    """The head of a modality with what was learned from samples beside it."""
    base, device = encoders.heads[modality], labels.rows.device
    features = torch.from_numpy(np.array(samples.inputs)).to(device)
    concepts, owner = np.unique(samples.concept, return_inverse=True)
    votes = labels.prototypes()[torch.from_numpy(concepts).to(device)]
    rows, own = root(features), torch.from_numpy(owner).to(device)
    keys = rows[torch.from_numpy(np.random.default_rng(0).permutation(len(rows))[:_KEYS]).to(device), 0]
    home = dataclasses.replace(home, centres=home.centres.to(device))
    head = Adapted(base, features.shape[2], votes.shape[1], len(votes), len(keys), len(home.centres))
    centre, weight, bias = _classifier(rows, own, len(votes))
    learned = {"keys": keys, "home": home.centres, "centre": centre, "weight": weight, "bias": bias, "labels": votes}
    for name, value in learned.items():
        getattr(head, name).copy_(value)
    for name, number in (("median", home.median), ("spread", home.spread), ("threshold", home.threshold(keys))):
        getattr(head, name).fill_(number)
    before = encoders.embed(modality, features[:, 0])
    groups = [sample.group for sample in samples.samples]
    label = torch.from_numpy(samples.concept).to(device)
    head.temperature.fill_(_temperature(rows, own, groups, votes, before, label, labels, temperature))
    return head.to(device)


def _classifier(rows: Tensor, label: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression of ``[N, V, F]`` unit-length rows on ``int64 [N]`` labels: centre, weight ``[L, F]``, bias.

    All labels that occur count the same, however many samples they have.
    """
    flat, owner = rows.flatten(0, 1), label.repeat_interleave(rows.shape[1])
    number = owner.bincount(minlength=count)
    share = (1 / number[owner]) / (number > 0).sum()
    target = F.one_hot(owner, count).float()
    centre, bias = share @ flat, share @ target
    inputs = F.normalize(flat - centre, dim=1)
    weighted = share.sqrt()[:, None] * inputs
    wanted = share.sqrt()[:, None] * (target - bias)
    ridge = _RIDGE / len(flat)
    if len(flat) <= flat.shape[1]:
        weight = weighted.T @ torch.linalg.solve(weighted @ weighted.T + ridge * torch.eye(len(flat)).to(flat), wanted)
    else:
        gram = weighted.T @ weighted + ridge * torch.eye(flat.shape[1]).to(flat)
        weight = torch.linalg.solve(gram, weighted.T @ wanted)
    return centre, weight.T, bias


def _temperature(
    rows: Tensor,
    own: Tensor,
    groups: Sequence[str],
    votes: Tensor,
    before: Tensor,
    label: Tensor,
    labels: LabelBank,
    temperature: float,
) -> float:
    """That of the classifier's scores which makes samples that it has not seen most likely, group by group."""
    names = {group: place % _FOLDS for place, group in enumerate(dict.fromkeys(groups))}
    fold = torch.tensor([names[group] for group in groups], device=rows.device)
    scores, kept = [], []
    for number in fold.unique():
        held = fold == number
        asked = held & torch.isin(own, own[~held])  # a label that is not learned cannot be found again
        if asked.any():
            centre, weight, bias = _classifier(rows[~held], own[~held], len(votes))
            scores.append(F.normalize(rows[asked, 0] - centre, dim=1) @ weight.T + bias)
            kept.append(asked.nonzero()[:, 0])
    if len(votes) == 1 or not kept:
        return 0.2  # nothing to tell apart, or nothing to learn it from
    found, places = torch.cat(scores), torch.cat(kept)
    losses = []
    for value in _TEMPERATURES:
        answers = labels.similarities(F.normalize(adapted(before[places], found, value, votes), dim=1))
        losses.append(F.cross_entropy(answers / temperature, label[places]).item())
    return _TEMPERATURES[int(np.argmin(losses))]
