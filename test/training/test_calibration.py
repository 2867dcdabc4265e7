"""Temperatures by the number of modalities, and the threshold of ``unknown``."""

import numpy as np
import torch
from torch.nn import functional as F

from omnibind_core.features.calibration import KEEP, best_temperature, calibrate
from omnibind_core.features.combinations import EmbeddedSplit, similarities
from omnibind_core.features.sets import FeatureSet
from omnibind_core.fusion import MeanFusion
from omnibind_core.labels import LabelBank

DIM, LABELS, SAMPLES = 16, 12, 30


def made(noise, seed=0):
    """Samples of three modalities of every label, near the label's embedding."""
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(LABELS, DIM, generator=generator), dim=-1)
    concept = np.repeat(np.arange(LABELS), SAMPLES)
    tokens = {
        name: F.normalize(rows[concept] + noise * torch.randn(len(concept), DIM, generator=generator), dim=-1)[:, None]
        for name in ("image", "touch", "audio")
    }
    bank = LabelBank(tuple(f"label {i}" for i in range(LABELS)), rows, torch.arange(LABELS))
    sets = {name: FeatureSet((), np.zeros((len(concept), 1, 0), np.float32), concept) for name in tokens}
    return EmbeddedSplit(bank.names, sets, tokens=tokens), bank


def found_names(count):
    return ["image", "touch", "audio"][:count]


def test_confidence_is_how_often_the_answer_is_right():
    split, bank = made(0.25)
    found = calibrate(split, bank, MeanFusion(), 2000, 0)
    assert len(found.temperatures) == 3
    for count in (1, 2):
        drawn = split.draw(2000, np.random.default_rng(9), count)
        fused, label = similarities(MeanFusion(), bank, split.gather(drawn)), torch.from_numpy(drawn.label)
        confidence, answer = (fused / found.temperature(found_names(count))).softmax(-1).max(-1)
        assert abs(float(confidence.mean() - (answer == label).float().mean())) < 0.05


def test_most_right_answers_of_single_sensors_stay_above_the_threshold():
    split, bank = made(0.25)
    found = calibrate(split, bank, MeanFusion(), 2000, 0)
    drawn = split.draw(2000, np.random.default_rng(9), 1)
    fused, label = similarities(MeanFusion(), bank, split.gather(drawn)), torch.from_numpy(drawn.label)
    confidence, answer = (fused / found.temperature(found_names(1))).softmax(-1).max(-1)
    assert abs(float((confidence[answer == label] >= found.threshold).float().mean()) - KEEP) < 0.03


def test_pairs_that_are_always_right_are_not_taken_for_certain():
    split, bank = made(0.15)
    found = calibrate(split, bank, MeanFusion(), 500, 0)
    drawn = split.draw(500, np.random.default_rng(9), 2)
    fused, label = similarities(MeanFusion(), bank, split.gather(drawn)), torch.from_numpy(drawn.label)
    assert best_temperature(fused, label) < found.temperature(found_names(2))
    assert split.tokens["image"].norm(dim=-1).allclose(torch.ones(1))  # conflicts are not written into the data
