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


def test_a_weight_counts_as_so_many_samples():
    similarities, label = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.3]]), torch.tensor([0, 1, 0])
    weight = torch.tensor([3.0, 2.0, 1.0])
    counted = torch.tensor([0, 0, 0, 1, 1, 2])
    weighted = best_temperature(similarities, label, weight)
    assert weighted == best_temperature(similarities[counted], label[counted])
    assert weighted != best_temperature(similarities, label)


def test_every_label_counts_the_same_in_the_temperature_of_one_modality():
    """A label with few samples that are all mistaken makes as little certain as if it had as many as the others."""
    split, bank = made(0.1)
    concept = np.array([0] * 97 + [1] * 3)
    tokens = bank.rows[torch.tensor([0] * 97 + [2] * 3)][:, None]  # those of label 1 look like label 2
    few = EmbeddedSplit(
        bank.names,
        {**split.sets, "audio": FeatureSet((), np.zeros((100, 1, 0), np.float32), concept)},
        tokens={**split.tokens, "audio": tokens},
    )
    found = calibrate(few, bank, MeanFusion(), 200, 0).single["audio"]
    alone, label = bank.similarities(tokens[:, 0]), torch.from_numpy(concept)
    even = torch.cat([torch.arange(97).repeat(3), torch.arange(97, 100).repeat(97)])
    assert found == best_temperature(alone[even], label[even])
    assert found > 2 * best_temperature(alone, label)


def test_the_search_of_temperatures_has_bounds():
    assert best_temperature(torch.tensor([[0.9, 0.1]]), torch.tensor([1])) == 0.5, "a mistake is never to be sure of"
    assert best_temperature(torch.tensor([[0.9, 0.1]]), torch.tensor([0])) == 0.005
    split, bank = made(0.25)
    found = calibrate(split, bank, MeanFusion(), 200, 0)
    numbers = [*found.temperatures, *found.single.values()]
    assert numbers == [round(number, 5) for number in numbers]


def test_sizes_that_few_labels_have_get_no_temperature_of_their_own():
    split, bank = made(0.25)
    for labels, temperatures in ((5, 2), (4, 1)):
        concept = np.repeat(np.arange(labels), SAMPLES)
        some = FeatureSet((), np.zeros((len(concept), 1, 0), np.float32), concept)
        two = {"image": split.tokens["image"], "touch": split.tokens["touch"][: len(some)]}
        pairs = EmbeddedSplit(bank.names, {"image": split.sets["image"], "touch": some}, tokens=two)
        assert len(calibrate(pairs, bank, MeanFusion(), 200, 0).temperatures) == temperatures
