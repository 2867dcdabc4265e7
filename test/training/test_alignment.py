"""Stage I's losses against numbers worked out by hand, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from omnibind_core.alignment import PRESETS, CADConfig, cad_loss, contrastive_loss, correspondence_loss
from omnibind_core.config import parse
from omnibind_core.errors import ConfigError


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1)


def test_contrastive_by_hand():
    student = torch.eye(2)
    # Rows of logits are (1, 0) and (0, 1) over a temperature of 0.5: loss = log(1 + exp(-2)).
    assert contrastive_loss(student, torch.eye(2), 0.5).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_same_label_is_not_a_negative():
    student, center = unit(3, 8), unit(3, 8, seed=1)
    label = torch.tensor([0, 0, 1])
    logits = student @ center.T
    rows = [logits[0, [0, 2]], logits[1, [1, 2]], logits[2]]
    by_hand = sum(row.logsumexp(0) - own for row, own in zip(rows, logits.diagonal(), strict=True)) / 3
    assert contrastive_loss(student, center, 1.0, label).item() == pytest.approx(by_hand.item())
    assert contrastive_loss(student, center, 1.0).item() > by_hand.item()


def test_correspondence_by_hand():
    teacher = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    student = torch.zeros(2, 2)
    # Row 0: KL((3/4, 1/4) || (1/2, 1/2)); row 1: 0; mean over the two rows.
    by_hand = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert correspondence_loss(student, teacher, 1.0).item() == pytest.approx(by_hand)


def test_kl_is_zero_when_the_student_equals_the_teachers():
    teacher = unit(5, 16)
    for center in ("text", "image"):
        terms = cad_loss(teacher, teacher, teacher, CADConfig(align_center=center))
        assert terms.cross.item() == pytest.approx(0, abs=1e-12)
        assert terms.self_.item() == pytest.approx(0, abs=1e-12)


def test_self_target_is_the_mean_of_single_products():
    image, text, student = unit(4, 8), unit(4, 8, seed=1), unit(4, 8, seed=2)
    by_hand = correspondence_loss(student @ student.T, (image @ image.T + text @ text.T) / 2, 0.07)
    assert cad_loss(student, image, text, CADConfig()).self_.item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize("preset", ["equation", "listing"])
def test_gradient_matches_finite_differences_and_never_reaches_a_teacher(preset):
    config = parse(CADConfig, {"preset": preset}, "loss", PRESETS)
    image = unit(4, 6, seed=1).requires_grad_()
    text = unit(4, 6, seed=2).requires_grad_()
    raw = torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 1, 1, 2])

    def total(x):
        return cad_loss(F.normalize(x, dim=-1), image, text, config, label).total

    assert torch.autograd.gradcheck(total, (raw,))
    total(raw).backward()
    assert image.grad is None and text.grad is None


def test_presets_weigh_as_stated():
    student, image, text = unit(4, 8), unit(4, 8, seed=1), unit(4, 8, seed=2)
    terms = cad_loss(student, image, text, parse(CADConfig, {"preset": "listing"}, "loss", PRESETS))
    by_hand = (terms.contrastive + 100 * terms.cross + 100 * terms.self_) / 3
    assert terms.total.item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize(
    ("data", "key"),
    [({"tau_in": 0}, "loss.tau_in"), ({"w_inn": 1}, "loss.w_inn"), ({"align_center": "audio"}, "loss.align_center")],
)
def test_wrong_settings_name_the_key(data, key):
    with pytest.raises(ConfigError, match=key):
        parse(CADConfig, data, "loss", PRESETS)
