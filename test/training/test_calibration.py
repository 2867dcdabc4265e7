"""Temperatures by the number of modalities, and the threshold of ``unknown``."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core.data.scenes import GivenCombinations
from omnibind_core.features.calibration import KEEP, best_temperature, calibrate
from omnibind_core.features.combinations import EmbeddedSplit, similarities, with_conflicts
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
    assert best_temperature(torch.tensor([[0.3]]), torch.tensor([0])) == 0.005  # one label is always right
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


def test_the_temperature_of_two_labels_by_hand():
    """Right in nine of ten with the cosines ``d`` and 0: ``1 / (1 + exp(-d / T))`` is 0.9 where ``T = d / ln 9``."""
    label = torch.tensor([0] * 9 + [1])
    for step in (0, 1, 99, 198, 199):  # of the 200 temperatures, evenly spaced on a logarithmic scale
        temperature = 0.005 * 100 ** (step / 199)
        cosines = torch.tensor([temperature * math.log(9), 0.0]).repeat(10, 1)
        assert best_temperature(cosines, label) == round(temperature, 5)


def test_one_in_ten_combinations_has_a_conflict():
    split, bank = made(0.25)
    found = calibrate(split, bank, MeanFusion(), 2000, 0).temperatures[1]
    drawn = split.draw(2000, np.random.default_rng(9), 2)
    fitted = []
    for chance in (0.05, 0.1, 0.2):
        real = with_conflicts(drawn, chance, np.random.default_rng(8))
        fused = similarities(MeanFusion(), bank, split.gather(real))
        fitted.append(best_temperature(fused, torch.from_numpy(real.label)))
    assert fitted[0] < found < fitted[2]
    assert min(fitted, key=lambda temperature: abs(temperature - found)) == fitted[1]


def test_a_size_that_no_combination_has_takes_the_temperature_of_the_nearest_that_has_one():
    split, bank = made(0.25)
    samples = np.arange(LABELS * SAMPLES)
    pairs = np.stack([samples, samples, np.full(len(samples), -1)], axis=1)
    triples = np.stack([samples, samples, samples], axis=1)

    def fitted(*several):
        rows, concept = np.concatenate(several).astype(np.int32), np.tile(split.sets["image"].concept, len(several))
        given = GivenCombinations(rows, concept, np.full(len(rows), -1))
        return calibrate(dataclasses.replace(split, given=given), bank, MeanFusion(), 1000, 0).temperatures

    singles = np.where(np.arange(3) == 1, triples, -1)
    one, same, three = fitted(singles, triples)
    assert one == same != three
    first, second = fitted(pairs)
    assert first == second != one


def test_samples_without_a_label_and_variants_tell_nothing():
    split, bank = made(0.25)
    found = calibrate(split, bank, MeanFusion(), 200, 0)
    concept = np.concatenate([split.sets["touch"].concept, np.full(50, -1)])
    unlabelled = {**split.sets, "touch": FeatureSet((), np.zeros((len(concept), 1, 0), np.float32), concept)}
    tokens = {**split.tokens, "touch": torch.cat([split.tokens["touch"], split.tokens["image"][:50]])}
    assert calibrate(EmbeddedSplit(bank.names, unlabelled, tokens=tokens), bank, MeanFusion(), 200, 0) == found
    twice = {name: torch.cat([rows, rows.flip(0)], dim=1) for name, rows in split.tokens.items()}
    assert calibrate(dataclasses.replace(split, tokens=twice), bank, MeanFusion(), 200, 0) == found


def test_the_threshold_keeps_nineteen_of_twenty_right_answers_of_all_single_sensors():
    split, bank = made(0.25)
    concept = torch.from_numpy(split.sets["image"].concept)
    between = bank.rows[concept] + 0.9 * bank.rows[(concept + 1) % LABELS]
    split.tokens["image"][:] = F.normalize(between, dim=-1)[:, None]  # never errs, and is never sure
    found = calibrate(split, bank, MeanFusion(), 200, 0)
    assert set(found.single) == {"touch", "audio"}
    confidences = []
    for name, rows in split.tokens.items():
        confidence, answer = (bank.similarities(rows[:, 0]) / found.temperature([name])).softmax(-1).max(-1)
        confidences.append(confidence[answer == concept])
    assert KEEP == 0.95 and len(confidences[0]) == len(concept)
    assert found.threshold == round(found.threshold, 4)
    assert found.threshold == pytest.approx(np.quantile(torch.cat(confidences), 1 - KEEP), abs=5.1e-5)


def test_without_any_right_answer_there_is_no_threshold():
    split, bank = made(0.0)
    wrong = {name: rows.roll(SAMPLES, 0) for name, rows in split.tokens.items()}
    found = calibrate(dataclasses.replace(split, tokens=wrong), bank, MeanFusion(), 200, 0)
    assert found.threshold == 0 and found.single == dict.fromkeys(wrong, pytest.approx(0.5))
