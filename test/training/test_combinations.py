"""Combinations of a split: drawn as ever, and what is exchanged, gathered and answered."""

from __future__ import annotations

import numpy as np
import torch

from omnibind_core.features.combinations import (
    Combinations,
    EmbeddedSplit,
    best_alone,
    gather,
    late_fusion,
    top1,
    with_conflicts,
)
from omnibind_core.features.sets import FeatureSet

COUNTS = {"image": [3, 2, 2, 1], "touch": [2, 0, 3, 2], "audio": [0, 2, 1, 2]}  # samples of each label
VARIANTS = {"image": 3, "touch": 2, "audio": 1}


def made() -> EmbeddedSplit:
    """A split whose tokens say what they are: 1 + 100 x column + 10 x sample + variant."""
    sets, tokens = {}, {}
    for column, (name, counts) in enumerate(COUNTS.items()):
        concept = np.repeat(np.arange(4), counts)
        numbers = 1 + 100 * column + 10 * np.arange(len(concept))[:, None] + np.arange(VARIANTS[name])
        tokens[name] = torch.from_numpy(numbers.astype(np.float32))[..., None]
        sets[name] = FeatureSet((), np.zeros((*numbers.shape, 0), np.float32), concept)
    tokens["text"] = (301 + 10 * torch.arange(5.0))[:, None, None]
    return EmbeddedSplit(tuple("abcd"), sets, np.array([0, 0, 1, 2, 3]), None, tokens, ("text", *COUNTS))


def test_a_seed_draws_what_it_drew_for_the_figures_in_the_documents():
    split, rng = made(), np.random.default_rng(5)
    drawn = with_conflicts(split.draw(8, rng, text=0.5), 0.9, rng)
    assert split.gather(drawn).tokens[..., 0].int().tolist() == [
        [61, 131, 221, 331],
        [72, 0, 0, 341],
        [0, 112, 0, 0],
        [73, 0, 231, 341],
        [51, 0, 211, 0],
        [51, 122, 0, 0],
        [53, 0, 0, 331],
        [0, 0, 211, 0],
    ]
    assert drawn.label.tolist() == [2, 3, 0, 3, 1, 2, 2, 1]
    pairs = split.draw(4, rng, 2)  # the generator stands where it stood
    shown = split.gather(pairs)
    assert shown.tokens[..., 0].int().tolist() == [[42, 0, 201, 0], [72, 151, 0, 0], [2, 101, 0, 0], [63, 0, 221, 0]]
    assert pairs.label.tolist() == [1, 3, 0, 2]
    assert shown.modality_ids is not None and shown.modality_ids[0].tolist() == [1, 2, 3, 0]
    assert shown.mask.tolist() == (shown.tokens[..., 0] > 0).tolist()


def test_an_exchanged_sample_is_the_sample_itself_and_the_rest_stays():
    split = made()
    combinations = Combinations(
        ("image", "touch"), np.array([[0, 1], [3, -1]]), np.array([0, 1]), np.array([[2, 1]] * 2)
    )
    changed = combinations.replaced(np.array([0, 0]), np.array([4, -1]))
    assert gather(split.tokens, changed).tokens[..., 0].int().tolist() == [[41, 112], [0, 0]]
    assert gather(split.tokens, combinations).tokens[..., 0].int().tolist() == [[3, 112], [33, 0]]
    assert combinations.take(np.array([1])).variants is not None


def test_joined_combinations_are_all_of_them():
    one = Combinations(("image",), np.array([[0], [1]]), np.array([0, 0]))
    other = Combinations(("image",), np.array([[7]]), np.array([3]))
    joined = Combinations.joined([one, other])
    assert (joined.rows[:, 0].tolist(), joined.label.tolist()) == ([0, 1, 7], [0, 0, 3])


def test_best_alone_answers_with_what_is_right_most_often_among_those_present():
    right = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], np.float64)
    mask = np.array([[True, True], [True, False], [True, True], [True, True]])
    assert best_alone(right, mask).tolist() == [0, 1, 1, 1]


def test_late_fusion_is_the_mean_of_the_present_probabilities():
    tokens = {"image": torch.tensor([[[0.9, 0.1]]]), "touch": torch.tensor([[[0.2, 0.8]]])}
    asked = Combinations(("image", "touch"), np.array([[0, 0], [-1, 0]]), np.array([0, 0]))
    scores = late_fusion(gather(tokens, asked))
    torch.testing.assert_close(scores, torch.tensor([[0.55, 0.45], [0.2, 0.8]]))
    assert top1(scores, asked.label) == 0.5


def test_a_conflict_shows_another_label():
    split = made()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        drawn = split.draw(400, rng)
        changed = with_conflicts(drawn, 1.0, rng)
        row, column = (changed.rows != drawn.rows).nonzero()
        assert len(row) > 50
        names = [split.modalities[index] for index in column]
        shown = [
            split.sets[name].concept[number] for name, number in zip(names, changed.rows[row, column], strict=True)
        ]
        assert (np.array(shown) != drawn.label[row]).all()
        same = (changed.variants == drawn.variants) | (changed.rows != drawn.rows)
        assert same.all()  # no sample was exchanged for another one of its label, or of itself
