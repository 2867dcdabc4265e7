"""Stage I: its losses against numbers worked out by hand, their gradients, what it draws and in which order."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core import encoders
from omnibind_core.alignment import PRESETS, CADConfig, cad_loss, contrastive_loss, correspondence_loss
from omnibind_core.config import parse
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.encoders.config import load_config
from omnibind_core.errors import ConfigError
from omnibind_core.features.sets import FeatureSet, embed_all
from omnibind_core.training.align import Align
from omnibind_core.training.config import AlignConfig
from omnibind_core.training.dataset import TrainingData
from omnibind_core.training.engine import Trainer, learning_rate


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
    [
        ({"tau_in": 0}, "loss.tau_in"),
        ({"w_inn": 1}, "loss.w_inn"),
        ({"align_center": "audio"}, "loss.align_center"),
        ({"same_label": "positive"}, "loss.same_label"),
        ({"self_target": "audio"}, "loss.self_target"),
        ({"cross_rows": "text"}, "loss.cross_rows"),
    ],
)
def test_wrong_settings_name_the_key(data, key):
    with pytest.raises(ConfigError, match=key):
        parse(CADConfig, data, "loss", PRESETS)


@pytest.fixture
def stage_one():
    """Makes stage I of a tiny model on random features of five labels, the last without photos."""
    network = encoders.build(load_config("tiny"), {"image", "text", "touch", "event"})
    rng = np.random.default_rng(0)

    def part(modality, concept):
        inputs = rng.standard_normal((len(concept), 2, 32)).astype(np.float32)
        samples = tuple(Sample(f"{modality}-{row}", modality, "made", "x", "", "train", "") for row in concept)
        return FeatureSet(samples, inputs, np.array(concept))

    train = {
        "image": part("image", [2, 0, 1, 3, 1, 0, 3, 3]),
        "touch": part("touch", [0, 1, 2, 3, 4] * 2),
        "event": part("event", [4, 3, 2, 1, 0] * 2),
    }
    data = TrainingData(("bell", "car", "cat", "cup", "dog"), Concepts(()), train, {})
    return lambda **settings: Align(data, load_config("tiny"), network, AlignConfig(**settings), 0)


def test_the_image_teacher_shows_photos_of_the_same_concept(stage_one):
    stage = stage_one(batch=10)
    data, model, network = stage._frozen
    photos = embed_all(network, model, "image", data.train["image"].inputs)
    seen = set()
    for step in range(20):
        lesson = stage.draw(0, np.random.default_rng(step))
        for concept, text, image in zip(lesson.batch.concept, lesson.text, lesson.image, strict=True):
            assert torch.equal(text, stage.teachers.text[concept])
            if concept == 4:
                assert torch.equal(image, text)
                continue
            ((row, variant),) = (photos == image).all(dim=-1).nonzero().tolist()
            assert data.train["image"].concept[row] == concept
            seen.add((row, variant))
    assert len(seen) == 16  # every photo in every variant


def test_students_learn_in_turns_or_one_after_the_other(stage_one):
    per_student = {"touch": {"steps": 30}}
    mixed, sorted_ = (stage_one(steps=50, per_student=per_student, order=o) for o in ("interleaved", "sequential"))
    first, second = sorted_.students
    assert [sorted_.subject(step) for step in range(80)] == [first] * (30 if first == "touch" else 50) + [second] * (
        50 if first == "touch" else 30
    )
    assert sorted(mixed.order) == sorted(sorted_.order) and mixed.order.tolist() != sorted_.order.tolist()
    assert stage_one(steps=50, per_student=per_student).order.tolist() == mixed.order.tolist()
    assert {mixed.span(step) for step in range(80)} == {(0, 80)}
    border = sorted_.order.tolist().index(1)
    assert [sorted_.span(step) for step in (0, border - 1, border, 79)] == [(0, border)] * 2 + [(border, 80)] * 2


def test_one_after_the_other_each_student_has_a_learning_rate_schedule_of_its_own(stage_one, tmp_path):
    stage = stage_one(steps=10, batch=4, warmup=0.2, lr=0.01, order="sequential")
    Trainer(folder=tmp_path, logger="csv").run(stage)
    with (tmp_path / "log" / "align.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.01 * learning_rate(step, 10, 0.2) for step in range(10)] * 2, rel=1e-3)
