"""The paper's formulas in plain NumPy, written from the paper alone, against the library on random tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omnibind_core import fusion
from omnibind_core.alignment import PRESETS, CADConfig, cad_loss
from omnibind_core.config import parse
from omnibind_core.fusion import fusion_loss, wrong_predictions
from omnibind_core.training import config as training_config

CLOSE = {"rel": 1e-10, "abs": 1e-10}
SIZES = ((2, 3), (5, 8), (16, 32))  # samples of a batch, width


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.sqrt((rows**2).sum(axis=-1, keepdims=True))


def drawn(size, width, seed):
    """Embeddings of a student, of both teachers, and labels of which some occur twice."""
    rng = np.random.default_rng((size, width, seed))
    return *(unit(rng, size, width) for _ in range(3)), rng.integers(max(2, size // 2), size=size)


def ours(student, image, text, label, **settings):
    config = parse(CADConfig, settings, "loss", PRESETS)
    return cad_loss(*map(torch.from_numpy, (student, image, text)), config, torch.from_numpy(label))


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def contrast(student, center, tau, skipped=lambda i, j: False):
    """Eq. 2: minus the logarithm of the own sample's share among those that are not skipped, mean over the batch."""
    total = 0.0
    for i in range(len(student)):
        shares = {j: math.exp(student[i] @ center[j] / tau) for j in range(len(center)) if not skipped(i, j)}
        total -= math.log(shares[i] / sum(shares.values()))
    return total / len(student)


def divergence(teacher, student, tau):
    """Eq. 4 and 6: sum of D log(D / S) for the rows D of the teachers and S of the student, mean over the rows."""
    total = 0.0
    for rows in zip(teacher, student, strict=True):
        d, s = (softmax([value / tau for value in row]) for row in rows)
        total += sum(p * math.log(p / q) for p, q in zip(d, s, strict=True))
    return total / len(teacher)


@pytest.mark.parametrize(("size", "width"), SIZES)
@pytest.mark.parametrize(("tau_in", "tau_kl"), [(0.07, 0.07), (0.2, 0.5), (1.0, 1.0)])
def test_equations_2_to_7(size, width, tau_in, tau_kl):
    student, image, text, label = drawn(size, width, 0)
    contrastive = contrast(student, text, tau_in)
    cross = divergence(text @ image.T, student @ text.T, tau_kl)
    self_ = divergence((image @ image.T + text @ text.T) / 2, student @ student.T, tau_kl)
    found = ours(
        *(student, image, text, label),
        **{"preset": "equation", "cross_rows": "center", "same_label": "negative", "tau_in": tau_in, "tau_kl": tau_kl},
    )
    assert found == pytest.approx((contrastive, cross, self_, contrastive + cross + self_), **CLOSE)


@pytest.mark.parametrize(("size", "width"), SIZES)
def test_the_listing_of_appendix_b(size, width):
    v, t, text, label = drawn(size, width, 1)
    cl = contrast(v, t, 1.0)
    kl = divergence(t @ text.T, v @ t.T, 1.0)
    self_kl = divergence(t @ t.T, v @ v.T, 1.0)
    found = ours(v, t, text, label, preset="listing")
    assert found == pytest.approx((cl, kl, self_kl, (cl + 100 * kl + 100 * self_kl) / 3), **CLOSE)


def test_the_experiment_of_table_10_uses_the_listing():
    assert training_config.load("paper_table10").align.cad == parse(CADConfig, {"preset": "listing"}, "loss", PRESETS)


@pytest.mark.parametrize("center", ["text", "image"])
@pytest.mark.parametrize("rows", ["other", "center"])
@pytest.mark.parametrize("target", ["mean", "image", "text"])
@pytest.mark.parametrize("same", ["ignore", "negative"])
def test_every_setting(center, rows, target, same):
    for seed, (size, width) in enumerate(SIZES):
        student, image, text, label = drawn(size, width, seed)
        tau_in, tau_kl = np.random.default_rng(seed).uniform(0.05, 1.0, 2)
        near, far = (text, image) if center == "text" else (image, text)
        contrastive = contrast(
            student, near, tau_in, lambda i, j, label=label: same == "ignore" and i != j and label[i] == label[j]
        )
        cross = divergence(far @ near.T if rows == "other" else near @ far.T, student @ near.T, tau_kl)
        own = {"image": image @ image.T, "text": text @ text.T}
        own["mean"] = (own["image"] + own["text"]) / 2
        self_ = divergence(own[target], student @ student.T, tau_kl)
        found = ours(
            *(student, image, text, label),
            **{"align_center": center, "cross_rows": rows, "self_target": target, "same_label": same},
            **{"tau_in": tau_in, "tau_kl": tau_kl, "w_in": 0.5, "w_cr": 2.0, "w_se": 3.0},
        )
        total = 0.5 * contrastive + 2 * cross + 3 * self_
        assert found == pytest.approx((contrastive, cross, self_, total), **CLOSE)


@pytest.mark.parametrize(("tokens", "width", "heads"), [(1, 4, 1), (3, 8, 2), (5, 12, 4)])
def test_equation_9(tokens, width, heads):
    """Self-attention over the tokens that are there, their mean, L2 norm."""
    torch.manual_seed(tokens)
    module = fusion.build(width, {"preset": "paper", "heads": heads}).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    w_q, w_k, w_v = np.split(weights["layers.0.qkv.weight"], 3)
    b_q, b_k, b_v = np.split(weights["layers.0.qkv.bias"], 3)
    rng = np.random.default_rng(tokens)
    x, mask = unit(rng, 7, tokens, width), rng.random((7, tokens)) < 0.6
    mask[:, 0] |= ~mask.any(axis=1)
    found = module(torch.from_numpy(x), torch.from_numpy(mask)).embedding.detach().numpy()
    for row, present, embedding in zip(x, mask, found, strict=True):
        there = row[present]
        q, k, v = there @ w_q.T + b_q, there @ w_k.T + b_k, there @ w_v.T + b_v
        mixed = np.empty_like(there)
        for head in np.split(np.arange(width), heads):
            logits = q[:, head] @ k[:, head].T / math.sqrt(width / heads)
            mixed[:, head] = np.array([softmax(line) for line in logits]) @ v[:, head]
        mean = (mixed @ weights["layers.0.out.weight"].T + weights["layers.0.out.bias"]).mean(axis=0)
        assert embedding == pytest.approx(mean / math.sqrt(mean @ mean), **CLOSE)


@pytest.mark.parametrize("tau", [0.07, 1.0])
@pytest.mark.parametrize("labels", [2, 9])
def test_equation_8(labels, tau):
    """The label against the wrong labels that single modalities predict, or a random wrong one if there is none."""
    rng = np.random.default_rng(labels)
    text, tokens, fused = unit(rng, labels, 6), unit(rng, 40, 3, 6), unit(rng, 40, 6)
    label, mask = rng.integers(labels, size=40), rng.random((40, 3)) < 0.7
    index, counts = wrong_predictions(
        *map(torch.from_numpy, (tokens @ text.T, mask, label)), torch.Generator().manual_seed(0)
    )
    total, without = 0.0, 0
    for row in range(40):
        negatives = [int(np.argmax(text @ token)) for token in tokens[row][mask[row]]]
        negatives = [predicted for predicted in negatives if predicted != label[row]]
        taken = index[row][counts[row]].tolist()
        if negatives:
            assert sorted(taken) == sorted(negatives)
        else:
            without += 1
            assert len(taken) == 1 and taken[0] != label[row]
            negatives = taken
        total -= math.log(softmax([fused[row] @ text[name] / tau for name in (label[row], *negatives)])[0])
    assert 0 < without < 40
    found = fusion_loss(*map(torch.from_numpy, (fused, text[label], text[index])), counts, tau)
    assert found.item() == pytest.approx(total / 40, **CLOSE)
