"""How like a token is to what its encoder was trained with: learnt, weighed, and what it does to a confidence."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core import fusion
from omnibind_core.calibration import Calibration, Certainty
from omnibind_core.errors import InvalidInputError
from omnibind_core.features.calibration import calibrate, settle
from omnibind_core.features.combinations import EmbeddedSplit, learn_familiarity
from omnibind_core.features.sets import FeatureSet
from omnibind_core.fusion import Evidence, evidence
from omnibind_core.fusion.familiarity import Familiarity
from omnibind_core.labels import LabelBank

DIM, LABELS, SAMPLES, NAMES = 32, 8, 40, ("image", "touch", "audio")


def near(rows, noise, seed):
    return F.normalize(rows + noise * torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def world(noise=0.1, seed=0):
    """Training and held-out samples of three modalities; variant 1 of a held-out one is another label's, far away."""
    directions = F.normalize(torch.randn(LABELS, DIM, generator=torch.Generator().manual_seed(9)), dim=-1)
    concept = np.repeat(np.arange(LABELS), SAMPLES)
    bank = LabelBank(tuple(f"label {i}" for i in range(LABELS)), directions, torch.arange(LABELS))
    sets = {name: FeatureSet((), np.zeros((len(concept), 1, 0), np.float32), concept) for name in NAMES}
    train, held_out = {}, {}
    for number, name in enumerate(NAMES):
        train[name] = near(directions[concept], noise, seed + number)[:, None]
        clean = near(directions[concept], noise, seed + 10 + number)
        foreign = near(directions[np.roll(concept, SAMPLES)], 4 * noise, seed + 20 + number)
        held_out[name] = torch.stack([clean, foreign], dim=1)
    split = EmbeddedSplit(bank.names, sets, tokens=train, slots=NAMES)
    return split, dataclasses.replace(split, tokens=held_out), bank


def test_the_usual_held_out_sample_is_zero_and_the_least_like_twentieth_minus_one():
    train, held_out, _ = world()
    found = Familiarity(3, 16, DIM)
    found.learn(1, train.tokens["touch"][:, 0], held_out.tokens["touch"][:, 0], 0)
    of_held_out = found(
        held_out.tokens["touch"][:, :1], torch.ones(len(held_out.tokens["touch"]), 1, dtype=torch.int64)
    )
    assert float(of_held_out.median()) == pytest.approx(0, abs=1e-5)
    assert float((of_held_out < -1).float().mean()) == pytest.approx(0.05, abs=0.01)
    assert (found.centres[1].norm(dim=1) - 1).abs().max() < 1e-5
    other = found(held_out.tokens["touch"][:, 1:], torch.ones(len(of_held_out), 1, dtype=torch.int64))
    assert float(other.max()) < -1 and float(other.min()) >= -6
    assert found(of_held_out.new_zeros(1, 1, DIM), torch.tensor([[0]])).isnan().all()  # never learnt


def test_fewer_samples_than_centres_are_all_centres():
    rows = near(torch.zeros(3, DIM), 1.0, 0)
    found = Familiarity(1, 8, DIM)
    found.learn(0, rows, rows, 0)
    assert ((rows @ found.centres[0].T).amax(dim=1) - 1).abs().max() < 1e-5


def built(**settings):
    torch.manual_seed(0)
    return fusion.build(DIM, {"preset": "familiarity", "centres": 16, **settings}, NAMES).eval()


def test_familiar_and_agreeing_tokens_count_more_by_as_much_as_the_gains_say():
    train, held_out, _ = world()
    module = built()
    learn_familiarity(module, train, held_out, 0)
    tokens = torch.stack(
        [held_out.tokens["image"][0, 0], held_out.tokens["touch"][0, 1], held_out.tokens["audio"][0, 0]]
    )
    mask, ids = torch.ones(1, 3, dtype=torch.bool), torch.arange(3)[None]
    with torch.no_grad():
        module.gains.copy_(torch.tensor([1.0, 0.0, 0.0]))
        torch.testing.assert_close(module(tokens[None], mask, ids).weights, torch.full((1, 3), 1 / 3))
        module.gains.copy_(torch.tensor([1.0, 0.5, 2.0]))
        fused = module(tokens[None], mask, ids)
        cosines = tokens @ tokens.T
        agreement = (cosines.sum(dim=1) - 1) / 2
        expected = (0.5 * fused.familiarity[0] + 2.0 * agreement).softmax(dim=0)
    torch.testing.assert_close(fused.weights[0], expected)
    assert fused.weights[0, 1] < 0.1  # the foreign one that shows something else
    torch.testing.assert_close(fused.embedding[0], F.normalize(expected @ tokens, dim=0))


def test_padding_changes_no_familiarity_and_modalities_are_asked_for():
    train, held_out, _ = world()
    module = built()
    learn_familiarity(module, train, held_out, 0)
    tokens = torch.full((1, 3, DIM), torch.nan)
    tokens[0, 2] = held_out.tokens["audio"][3, 0]
    mask = torch.tensor([[False, False, True]])
    fused = module(tokens, mask, torch.arange(3)[None])
    alone = module(tokens[:, 2:], mask[:, 2:], torch.tensor([[2]]))
    assert fused.familiarity[0, :2].isnan().all()
    torch.testing.assert_close(fused.familiarity[0, 2:], alone.familiarity[0])
    with pytest.raises(InvalidInputError, match="no modality_ids, expected the modality of each token"):
        module(tokens, mask)


def test_a_modality_that_is_added_has_no_familiarity_and_changes_none():
    train, held_out, _ = world()
    module = built()
    learn_familiarity(module, train, held_out, 0)
    tokens, mask = held_out.tokens["image"][:1, :1], torch.ones(1, 1, dtype=torch.bool)
    before = module(tokens, mask, torch.tensor([[0]])).familiarity
    module.extend(4)
    torch.testing.assert_close(module(tokens, mask, torch.tensor([[0]])).familiarity, before)
    added = module(tokens, mask, torch.tensor([[3]]))
    assert added.familiarity.isnan().all() and added.weights.item() == 1
    module.load_state_dict(fusion.build(DIM, {"preset": "familiarity", "centres": 16}, (*NAMES, "radar")).state_dict())


def test_what_is_added_is_familiar_and_nothing_else_changes():
    train, held_out, _ = world()
    module = built()
    learn_familiarity(module, train, held_out, 0)

    def familiarity(name, rows):
        slot = torch.full((len(rows), 1), NAMES.index(name))
        return module(rows[:, None], torch.ones(len(rows), 1, dtype=torch.bool), slot).familiarity[:, 0]

    foreign, touch = near(torch.zeros(6, DIM), 1.0, 3), held_out.tokens["touch"][:, 0]
    before = familiarity("touch", touch)
    assert familiarity("image", foreign).max() < -1
    assert module.add(0, foreign) == {"centres": 16 + 6}
    assert familiarity("image", foreign).min() >= 0
    torch.testing.assert_close(familiarity("touch", touch), before)
    assert familiarity("touch", foreign).max() < -1
    saved = fusion.build(DIM, {"preset": "familiarity", **module.add(0, foreign[:1])}, NAMES)
    saved.load_state_dict(module.state_dict())
    assert fusion.MeanFusion().add(0, foreign) == {}


def test_gains_are_settled_so_that_foreign_and_lying_sensors_are_left_out():
    train, held_out, bank = world()
    module = built()
    learn_familiarity(module, train, held_out, 0)

    drawn = dataclasses.replace(held_out.draw(600, np.random.default_rng(5), 3), variants=None)
    foreign = np.zeros_like(drawn.rows)
    foreign[:, 0] = 1
    drawn = dataclasses.replace(drawn, variants=foreign)

    def asked():
        with torch.no_grad():
            fused = module(*held_out.gather(drawn))
        answer = bank.similarities(fused.embedding).argmax(dim=1).numpy()
        return float((answer == drawn.label).mean()), float(fused.weights[:, 0].mean())

    assert asked()[1] == pytest.approx(1 / 3)
    settle(module, held_out, bank, 0.07, 60, 0)
    assert module.gains[1] > 0.05 and module.gains[2] > 0.5
    right, weight = asked()
    assert right == 1.0 and weight < 0.25
    plain = fusion.build(DIM, {"preset": "reliability"}, NAMES)
    settle(plain, held_out, bank, 0.07, 10, 0)  # nothing to settle


# What it does to a confidence -----------------------------------------------------------------------------------------


def test_certainty_by_hand():
    found = Certainty(bias=0.5, slope=2.0, familiarity=0.3, agreement=4.0)
    p, f, a = 0.8, -2.0, 0.25
    logit = math.log(p / (1 - p))
    expected = 1 / (1 + math.exp(-(0.5 + 0.3 * f + 2.0 * logit + 4.0 * a)))
    pair = Calibration(temperatures=(1.0,), certainty=(found,))
    cosines = torch.tensor([[0.0, math.log(1 / p - 1)]])
    told = pair.probabilities(cosines, [["image", "touch"]], Evidence(torch.tensor([f]), torch.tensor([a])))
    assert told[0, 0].item() == pytest.approx(max(expected, 0.5), rel=1e-5)


@pytest.mark.parametrize("bias", [-30.0, -1.0, 0.0, 1.0, 30.0])
def test_a_confidence_keeps_the_order_of_the_labels_and_a_distribution(bias):
    cosines = torch.tensor([[0.9, 0.85, 0.1, -0.3], [0.2, 0.2, 0.2, 0.2]])
    plain = Calibration(temperatures=(0.3,))
    certain = Calibration(temperatures=(0.3,), certainty_single={"image": Certainty(bias=bias, slope=0.5)})
    proof = Evidence(torch.zeros(2), torch.zeros(2))
    sets = [["image"], ["image"]]
    before, after = plain.probabilities(cosines, sets), certain.probabilities(cosines, sets, proof)
    torch.testing.assert_close(after.sum(dim=1), torch.ones(2))
    assert (after >= 0).all() and after.isfinite().all()
    assert after[0].argsort(descending=True).tolist() == [0, 1, 2, 3]
    wanted = torch.sigmoid(bias + 0.5 * torch.logit(before.amax(dim=1))).clamp(min=0.25)
    torch.testing.assert_close(after.amax(dim=1), wanted)
    assert torch.equal(certain.probabilities(cosines, sets), before)  # no evidence, no doubt


def test_each_number_of_tokens_has_its_certainty_and_more_take_the_last():
    two, three, image = (Certainty(bias=bias, slope=0.0) for bias in (1.0, 2.0, 0.0))
    some = Calibration(certainty=(two, three), certainty_single={"image": image})
    sets = [["image"], ["text"], ["image", "text"], ["image", "touch", "audio"], ["image"] * 4]
    cosines = torch.tensor([[0.9, 0.1, 0.0]]).expand(len(sets), -1)
    found = some.probabilities(cosines, sets, Evidence(torch.zeros(5), torch.zeros(5))).amax(dim=1)
    plain = some.probabilities(cosines, sets).amax(dim=1)  # of text, which none was fitted for, it stays
    one, more, many = (torch.sigmoid(torch.tensor(bias)).item() for bias in (0.0, 1.0, 2.0))
    assert found.tolist() == pytest.approx([one, plain[1].item(), more, many, many])


def test_no_confidence_rises_for_want_of_familiarity_agreement_or_probability():
    train, held_out, bank = world(noise=0.15)
    swapped = {name: rows.clone() for name, rows in held_out.tokens.items()}
    for rows in swapped.values():  # what is far from training is right, what is near is wrong
        rows[:, 1] = near(rows[:, 0], 0.3, 5)
        rows[::2, 0] = rows[:, 0].roll(SAMPLES, 0)[::2]
    module = built()
    learn_familiarity(module, train, held_out, 0)
    odd = dataclasses.replace(held_out, tokens=swapped)
    clean = dataclasses.replace(odd, tokens={name: rows[:, :1] for name, rows in swapped.items()})
    found = calibrate(clean, bank, module, 300, 0, odd)
    assert set(found.certainty_single) == set(NAMES) and len(found.certainty) == 2
    for one in (*found.certainty, *found.certainty_single.values()):
        assert min(one.slope, one.familiarity, one.agreement) >= 0


def test_evidence_by_hand():
    tokens = near(torch.zeros(1, 3, DIM), 1.0, 4)
    weights, familiarity = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[-1.0, torch.nan, torch.nan]])
    mask = torch.tensor([[True, True, False]])
    found = evidence(fusion.Fused(tokens[:, 0], weights, familiarity), tokens, mask)
    assert found.familiarity.item() == pytest.approx(-0.5)
    assert found.agreement.item() == pytest.approx(float(tokens[0, 0] @ tokens[0, 1]), abs=1e-5)
    assert evidence(fusion.Fused(tokens[:, 0], weights), tokens, mask[:, [0, 2, 2]]).agreement.item() == 0


def test_a_sensor_of_another_kind_is_doubted_and_one_as_in_training_is_not():
    train, held_out, bank = world()
    module = built()
    learn_familiarity(module, train, held_out, 0)
    clean = dataclasses.replace(held_out, tokens={name: rows[:, :1] for name, rows in held_out.tokens.items()})
    plain = calibrate(clean, bank, module, 500, 0)
    assert plain.certainty == () and plain.certainty_single == {}
    found = calibrate(clean, bank, module, 500, 0, held_out)
    assert [len(found.certainty), len(found.certainty_single), len(found.temperatures)] == [2, 3, 3]

    def confidence(calibration, variant):
        tokens = held_out.tokens["touch"][:, variant : variant + 1]
        mask, ids = torch.ones(len(tokens), 1, dtype=torch.bool), torch.ones(len(tokens), 1, dtype=torch.int64)
        fused = module(tokens, mask, ids)
        cosines = bank.similarities(fused.embedding)
        proof = evidence(fused, tokens, mask)
        return float(calibration.probabilities(cosines, [["touch"]] * len(tokens), proof).amax(dim=1).mean())

    with torch.inference_mode():
        assert confidence(plain, 1) > 0.5  # sure, and always wrong
        assert confidence(found, 1) < 0.15
        assert confidence(found, 0) > 0.85  # always right
