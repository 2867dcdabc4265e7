"""Recognition as one network: the numbers of the formula, in torch and in every engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core import fusion
from omnibind_core.calibration import Calibration, Certainty, certainty_inputs
from omnibind_core.encoders.inference import engines
from omnibind_core.encoders.inference.export import Part
from omnibind_core.fusion import Evidence, base, evidence_left_out, left_out
from omnibind_core.model.recogniser import DYNAMIC, INPUTS, OUTPUTS, Recogniser, samples
from omnibind_core.model.recorded import RecordedRecogniser

DIM = 32
SLOTS = ("image", "text", "touch", "audio")
CALIBRATION = Calibration(
    temperatures=(0.06, 0.05, 0.04),
    single={"image": 0.05, "audio": 0.07},
    certainty=(Certainty(bias=-0.5, slope=0.9, agreement=2.3), Certainty(bias=0.8, slope=1.1, agreement=0.1)),
    certainty_single={name: Certainty(bias=-0.2, slope=0.5, familiarity=0.4) for name in SLOTS[:3]},
)
SETTINGS = {
    "familiarity": {"preset": "familiarity", "centres": 4},
    "reliability": {"preset": "reliability"},
    "residual": {"preset": "residual"},
    "paper": {"preset": "paper"},
    "mean": {"type": "mean"},
    "cat": {"type": "cat"},
}


def built(name: str) -> fusion.Fusion:
    """A fusion with random weights, so that every part of it counts."""
    torch.manual_seed(1)
    module = fusion.build(DIM, SETTINGS[name], SLOTS).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if name == "familiarity":
            module.gains.copy_(torch.tensor([1.0, 0.4, 3.0]))
    for slot in range(len(SLOTS) - 1):  # the last one stays unknown
        tokens = F.normalize(torch.randn(40, DIM), dim=1)
        module.learn(slot, tokens[:30], tokens[30:], 0)
    return module


@torch.inference_mode()
def by_formula(module, tokens, modality_ids, speaks, doubted, labels, others):
    """Recognition set by set, as the texts describe it; the names of :data:`OUTPUTS`."""
    count = len(tokens)
    present = [[bool(said) and other != index for other, said in enumerate(speaks)] for index in range(-1, count)]
    rows, probabilities, weights, familiarity = [], [], None, tokens.new_full((count,), torch.nan)
    kinds = [SLOTS[slot] for slot in modality_ids]

    def told(cosines, names, familiar, agreement, beside):
        if len(names) == 1:
            temperature = CALIBRATION.single.get(names[0], CALIBRATION.temperatures[0])
            certainty = CALIBRATION.certainty_single.get(names[0])
        else:
            temperature = CALIBRATION.temperatures[min(len(names), 3) - 1]
            certainty = CALIBRATION.certainty[min(len(names) - 1, 2) - 1]
        found = (cosines / temperature).softmax(dim=0)
        if certainty is not None:
            top, chance = found.max(), 1 / len(found)
            proof = Evidence(cosines.new_tensor([familiar]), cosines.new_tensor([agreement]))
            wanted = torch.sigmoid((certainty_inputs(top[None], proof) * cosines.new_tensor(certainty.weights)).sum())
            wanted = wanted.clamp(min=chance)
            if wanted > top:
                place = found.argmax()
                found = found * (1 - wanted) / (1 - top).clamp(min=1e-9)
                found[place] = wanted
            else:
                keep = ((wanted - chance) / (top - chance).clamp(min=1e-9)).clamp(max=1)
                found = keep * found + (1 - keep) * chance
        if len(beside):
            said = (cosines / temperature).logsumexp(dim=0)
            found = found * torch.sigmoid(said - beside.max() / temperature - math.log(3e-5))
        return found

    for index, row in enumerate(present):
        mask = torch.tensor([row if any(row) else [True] * count])
        fused = module(tokens[None], mask, modality_ids[None], doubted[None])
        here = tokens[mask[0]]
        pairs = here @ here.T
        agreement = (pairs.sum() - pairs.trace()).item() / max(len(here) * (len(here) - 1), 1)
        known = None if fused.familiarity is None else fused.familiarity[0]
        familiar = 0.0 if known is None else (fused.weights[0] * known.nan_to_num(0.0)).sum().item()
        if index == 0:
            weights = fused.weights[0] if any(row) else tokens.new_zeros(count)
            familiarity = familiarity if known is None else known
        cosines = labels @ fused.embedding[0]
        names = [name for name, said in zip(kinds, mask[0], strict=True) if said]
        found = told(cosines, names, familiar, agreement, others @ fused.embedding[0])
        probabilities.append(found if any(row) else torch.full_like(found, 1 / len(labels)))
        rows.append((fused.embedding[0], cosines))
    own = [labels @ token for token in tokens]
    alone = [
        told(cosines, [name], familiar, 0.0, others @ token) if said else torch.full((len(labels),), 1 / len(labels))
        for cosines, name, familiar, token, said in zip(
            own, kinds, familiarity.nan_to_num(0.0).tolist(), tokens, speaks, strict=True
        )
    ]
    return {
        "embedding": rows[0][0],
        "weights": weights,
        "similarities": torch.stack([rows[0][1], *own]),
        "probabilities": torch.stack([probabilities[0], *alone]),
        "without": torch.stack(probabilities[1:]),
        "familiarity": familiarity,
    }


def asked():
    """Sets of every size: with and without doubts, all silent, all but one, own and other vocabularies."""
    labels = F.normalize(torch.randn(40, DIM, generator=torch.Generator().manual_seed(3)), dim=1)
    for number, sample in enumerate(samples(DIM, len(SLOTS), labels)):
        # As sensors of one thing: they agree on a label.
        sample["tokens"] = F.normalize(sample["tokens"] + 0.8 * math.sqrt(DIM) * labels[number % 3], dim=1)
        yield sample
        first = torch.arange(len(sample["tokens"])) == 0
        yield sample | {"speaks": (first & False, first | True, first)[number % 3]}  # none, all, one


def doubled(sample):
    return {key: value.double() if value.is_floating_point() else value for key, value in sample.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_one_network_gives_what_the_formula_gives_set_by_set(name):
    module = built(name).double()  # a certainty near 1 magnifies what float32 rounds away
    exact = Recogniser(module, CALIBRATION, SLOTS).double()
    usual = Recogniser(built(name), CALIBRATION, SLOTS)
    for sample in [*asked()][:: 1 if name == "familiarity" else 5]:
        with torch.inference_mode():
            wanted, found, rounded = by_formula(module, **doubled(sample)), exact(**doubled(sample)), usual(**sample)
        for key, value in wanted.items():
            told = {"msg": lambda text, key=key: f"{name}: {key}: {text}", "equal_nan": True, "rtol": 0}
            torch.testing.assert_close(getattr(found, key), value, atol=1e-6, **told)
            torch.testing.assert_close(getattr(rounded, key).double(), value, atol=2e-4, **told)
        for key in ("probabilities", "without"):
            assert torch.equal(getattr(found, key).argmax(dim=1), wanted[key].argmax(dim=1))
            assert torch.equal(getattr(rounded, key).argmax(dim=1), wanted[key].argmax(dim=1))


@pytest.mark.parametrize("engine", engines.candidates("auto"))
@pytest.mark.parametrize("name", ["familiarity", "residual"])
def test_engines_give_the_same_for_all_sizes_and_vocabularies(name, engine, tmp_path):
    pytest.importorskip("onnx")
    part = Part("recogniser", Recogniser(built(name), CALIBRATION, SLOTS), [*asked()], DYNAMIC, OUTPUTS)
    part.write(tmp_path / "recogniser.onnx")
    run = engines.open_network(engine, tmp_path / "recogniser.onnx")
    for sample in part.samples:
        given = {key: sample[key].numpy() for key in INPUTS}
        for key, found, wanted in zip(OUTPUTS, run(given), part.compute(sample).values(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4, err_msg=key)


@pytest.mark.parametrize("name", [*SETTINGS])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_short_way_without_each_token_gives_what_a_batch_of_masks_gives(name, count):
    module = built(name)
    generator = torch.Generator().manual_seed(count)
    tokens = F.normalize(torch.randn(count, DIM, generator=generator) + 1, dim=1)
    ids = torch.randint(len(SLOTS), (count,), generator=generator)
    doubted = torch.rand(count, generator=generator) < 0.2
    place = torch.arange(count)
    for speaks in (place >= 0, place < 0, place == 0, place % 3 > 0):
        mask = left_out(speaks)
        with torch.inference_mode():
            found = module.leave_one_out(tokens, mask, ids, doubted)
            rows = (part.expand(count + 1, *part.shape) for part in (tokens, ids, doubted))
            shown, kinds, doubts = rows
            batch = module(shown, mask, kinds, doubts)
            proof = evidence_left_out(found, tokens, mask)
            whole = fusion.evidence(batch, shown, mask)
            if found.parts is not None:
                torch.testing.assert_close(found.parts @ tokens, batch.embedding, rtol=0, atol=1e-5)
        for one, other in zip((*found[:3], *proof), (*batch, *whole), strict=True):
            if one is not None:
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5, equal_nan=True)
    assert (found.parts is None) == (name not in ("familiarity", "reliability", "mean"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_a_silent_token_holds_spoils_nothing(value):
    network = Recogniser(built("familiarity"), CALIBRATION, SLOTS)
    sample = next(one for one in asked() if len(one["tokens"]) == 3)
    sample["speaks"] = torch.tensor([True, False, True])
    with torch.inference_mode():
        wanted = network(**sample)
        tokens = sample["tokens"].clone()
        tokens[1, 0] = value
        found = network(**sample | {"tokens": tokens})
    for key in ("embedding", "weights"):
        torch.testing.assert_close(getattr(found, key), getattr(wanted, key))
    torch.testing.assert_close(found.probabilities[[0, 1, 3]], wanted.probabilities[[0, 1, 3]])
    torch.testing.assert_close(found.without, wanted.without)


def test_no_sets_have_no_probabilities():
    assert CALIBRATION.probabilities(torch.zeros(0, 5), []).shape == (0, 5)


def test_a_large_set_is_fused_some_rows_at_a_time(monkeypatch):
    module, most = built("residual"), []
    fuse = module.fuse_doubted
    monkeypatch.setattr(module, "fuse_doubted", lambda *sets: most.append(len(sets[0])) or fuse(*sets))
    monkeypatch.setattr(base, "_ENTRIES", 30000)
    tokens, nothing = F.normalize(torch.randn(50, DIM), dim=1), torch.zeros(50, dtype=torch.int64)
    with torch.inference_mode():
        found = module.leave_one_out(tokens, left_out(nothing == 0), nothing, nothing > 0)
    assert found.embedding.shape == (51, DIM) and sum(most) == 51
    assert len(most) > 3 and max(most) * 50 * (DIM + 50) <= 30000


@pytest.mark.parametrize("name", ["familiarity", "paper"])
def test_recorded_steps_give_the_same_for_every_size_and_vocabulary(name):
    network = Recogniser(built(name), CALIBRATION, SLOTS)
    recorded: list[int] = []

    def capture(step, inputs):
        recorded.append(len(inputs[0]))
        return lambda: step(*inputs)

    fast = RecordedRecogniser(network, torch.device("cpu"), capture)
    labels, more = (F.normalize(torch.randn(size, DIM), dim=1) for size in (7, 4))
    for vocabulary, others in ((labels, labels[:0]), (more, labels)):
        for sample in [*samples(DIM, len(SLOTS), labels, most=4)] * 2:
            given = {**sample, "labels": vocabulary, "others": others}
            with torch.inference_mode():
                wanted = network(**given)
            for part, found, right in zip(OUTPUTS, fast(**given), wanted, strict=True):
                np.testing.assert_allclose(found.numpy(), right.numpy(), atol=1e-6, err_msg=part)
    assert recorded == [4, 3, 2, 1] * 2  # each size once for each vocabulary


def test_what_cannot_be_recorded_is_computed_as_it_is(caplog):
    network = Recogniser(built("paper"), CALIBRATION, SLOTS)

    def refuse(step, inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    fast = RecordedRecogniser(network, torch.device("cpu"), refuse)
    labels = F.normalize(torch.randn(7, DIM), dim=1)
    for sample in samples(DIM, len(SLOTS), labels, most=2):
        with torch.inference_mode():
            wanted = network(**sample)
        for found, right in zip(fast(**sample), wanted, strict=True):
            np.testing.assert_allclose(found.numpy(), right.numpy(), atol=1e-6)
    assert caplog.text.count("recognition runs without CUDA graphs: operation not permitted when stream") == 1
