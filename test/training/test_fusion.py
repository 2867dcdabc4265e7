"""Stage II: masked attention over any set of tokens, and its loss."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core import fusion
from omnibind_core.errors import ConfigError
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, gather, with_conflicts
from omnibind_core.features.sets import FeatureSet
from omnibind_core.fusion import FusionConfig, MeanFusion, fusion_loss, wrong_predictions
from omnibind_core.fusion.attention import AttentionLayer
from omnibind_core.labels import LabelBank
from omnibind_core.training.config import FuseConfig
from omnibind_core.training.fuse import Fuse

DIM = 32


def tokens(batch: int, count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(batch, count, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def full(batch: int, count: int) -> torch.Tensor:
    return torch.ones(batch, count, dtype=torch.bool)


FORMS = (
    {"preset": "paper"},
    {"preset": "residual", "ffn": 2},
    {"preset": "residual", "layers": 2},
    {"preset": "reliability", "dropout": 0.0},
    {"preset": "residual", "pool": "reliability", "dropout": 0.0},
    {"preset": "reliability", "agreement": True, "dropout": 0.0},
)


@pytest.fixture(params=FORMS)
def module(request):
    torch.manual_seed(0)
    built = fusion.build(DIM, request.param)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built.eval()


def test_any_number_of_tokens_gives_a_unit_embedding_and_shares_that_sum_to_one(module):
    for count in (1, 2, 5, 9):
        fused = module(tokens(3, count), full(3, count))
        assert fused.embedding.shape == (3, DIM)
        torch.testing.assert_close(fused.embedding.norm(dim=-1), torch.ones(3))
        torch.testing.assert_close(fused.weights.sum(dim=1), torch.ones(3))


def test_a_padded_batch_gives_exactly_what_the_unpadded_one_gives(module):
    x, mask = tokens(3, 3), torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    places = [1, 3, 4]
    padded, wide = torch.full((3, 6, DIM), float("nan")), torch.zeros(3, 6, dtype=torch.bool)
    padded[:, places], wide[:, places] = x, mask
    alone, with_padding = module(x, mask), module(padded, wide)
    assert torch.equal(with_padding.embedding, alone.embedding)
    assert torch.equal(with_padding.weights[:, places], alone.weights)
    assert (with_padding.weights[~wide] == 0).all() and with_padding.weights.isfinite().all()


def test_training_computes_what_evaluation_does(module):
    x = tokens(4, 3)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    evaluated, trained = module.eval()(x, mask), module.train()(x, mask)
    torch.testing.assert_close(trained.embedding, evaluated.embedding, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(trained.weights, evaluated.weights, atol=1e-6, rtol=1e-5)


def test_order_does_not_matter(module):
    x = tokens(2, 4)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(x[:, order], full(2, 4)).embedding, module(x, full(2, 4)).embedding)


def test_paper_preset_is_attention_then_mean():
    torch.manual_seed(0)
    module = fusion.build(DIM, {"preset": "paper", "heads": 4})
    reference = torch.nn.MultiheadAttention(DIM, 4, batch_first=True)
    layer = module.layers[0]
    reference.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    x = tokens(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    out, _ = reference(x, x, x, key_padding_mask=~mask)
    mean = (out * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(module(x, mask).embedding, F.normalize(mean, dim=-1), atol=1e-6, rtol=1e-5)


def test_masked_attention_by_hand():
    """Eq. 9 with identity projections: softmax over the present tokens of x_q x_k / sqrt(D)."""
    layer = AttentionLayer(2, FusionConfig(type="attention", heads=1))
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(2).repeat(3, 1))
        layer.out.weight.copy_(torch.eye(2))
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    mixed, flow = layer(x, torch.tensor([[True, True, False]]))
    near = math.exp(1 / math.sqrt(2)) / (math.exp(1 / math.sqrt(2)) + 1)
    expected = torch.tensor([[near, 1 - near], [1 - near, near]])
    torch.testing.assert_close(flow[0, :2], torch.cat([expected, torch.zeros(2, 1)], dim=1))
    torch.testing.assert_close(mixed[0, :2], expected)


def test_gradients_reach_every_weight_and_no_absent_token(module):
    x = tokens(4, 3).requires_grad_()
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    module.train()(x, mask).embedding.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert (x.grad[~mask] == 0).all() and (x.grad[mask] != 0).any(dim=-1).all()


def test_residual_preset_starts_as_mean_fusion():
    module = fusion.build(DIM, {"preset": "residual", "layers": 2, "ffn": 2})
    x = tokens(3, 4)
    torch.testing.assert_close(module(x, full(3, 4)).embedding, MeanFusion()(x, full(3, 4)).embedding)


def test_loss_by_hand():
    fused = torch.tensor([[1.0, 0.0]])
    positive = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    only_first = torch.tensor([[True, False]])
    # Cosines 1 and 0 over a temperature of 0.5.
    assert fusion_loss(fused, positive, negatives, only_first, 0.5).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_loss_is_the_mean_over_the_batch_and_falls_towards_the_label():
    fused = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    positive = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    negatives = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, -1.0]]])
    everything = torch.ones(2, 2, dtype=torch.bool)
    rows = [
        math.log(1 + math.exp((0 - 1) / 0.5) + math.exp((-1 - 1) / 0.5)),
        math.log(1 + math.exp((0.6 - 0.8) / 0.5) + math.exp((-0.8 - 0.8) / 0.5)),
    ]
    assert fusion_loss(fused, positive, negatives, everything, 0.5).item() == pytest.approx(sum(rows) / 2)


def test_negatives_are_the_wrong_predictions_or_one_random_wrong_label():
    scores = torch.zeros(2, 3, 4)
    scores[0, 0, 1] = scores[0, 1, 2] = scores[0, 2, 3] = 1.0
    scores[1, :, 2] = 1.0
    mask = torch.tensor([[True, True, False], [True, True, True]])
    label = torch.tensor([1, 2])
    index, present = wrong_predictions(scores, mask, label, torch.Generator().manual_seed(0))
    assert index[0][present[0]].tolist() == [2]  # token 0 is right, token 2 is absent
    chance = index[1][present[1]].tolist()
    assert len(chance) == 1 and chance[0] != 2


def test_of_one_label_alone_there_is_no_wrong_one():
    scores, mask, label = torch.zeros(2, 3, 1), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    _, present = wrong_predictions(scores, mask, label, torch.Generator().manual_seed(0))
    assert not present.any()


@pytest.mark.parametrize(
    ("data", "key"),
    [({"preset": "none"}, "fusion.preset"), ({"heads": 7}, "fusion.heads"), ({"depth": 1}, "fusion.depth")],
)
def test_wrong_settings_name_the_key(data, key):
    with pytest.raises(ConfigError, match=key):
        fusion.build(DIM, data)


@pytest.mark.parametrize("variants", [1, 2])
def test_conflicts_change_one_token_of_some_combinations_and_no_label(variants):
    rng = np.random.default_rng(0)
    x = {name: tokens(64, variants, seed) for seed, name in enumerate(("image", "touch", "audio"))}
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]] * 16, bool)
    rows = np.where(mask, np.arange(64)[:, None], -1)
    chosen = None if variants == 1 else rng.integers(variants, size=mask.shape)
    clean = Combinations(tuple(x), rows, np.arange(64), chosen)
    drawn = with_conflicts(clean, 0.8, rng)
    before, after = gather(x, clean), gather(x, drawn)
    changed = (after.tokens != before.tokens).any(dim=-1)
    assert 20 < changed.any(dim=1).sum() <= 48
    assert changed.sum(dim=1).max() == 1
    assert not changed[~torch.from_numpy(mask)].any() and not changed[mask.sum(axis=1) == 1].any()
    assert drawn.label.tolist() == list(range(64)) and drawn.mask.tolist() == mask.tolist()
    assert clean.rows.tolist() == rows.tolist()
    column = changed.nonzero()[:, 1]
    for donor, index in zip(after.tokens[changed], column, strict=True):
        assert (before.tokens[:, index] == donor).all(dim=-1).any()


def test_reliability_starts_as_the_mean_and_never_leaves_what_the_tokens_say():
    x, mask = tokens(5, 4), full(5, 4)
    module = fusion.build(DIM, {"preset": "reliability"}).eval()
    torch.testing.assert_close(module(x, mask).embedding, F.normalize(x.mean(dim=1), dim=-1))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    fused = module(x, mask)
    assert fused.weights.std(dim=1).min() > 0
    torch.testing.assert_close(fused.embedding, F.normalize((fused.weights[..., None] * x).sum(dim=1), dim=-1))


def test_reliability_learns_to_leave_damaged_tokens_out():
    """Noise lies near one direction whatever the label is; a label that training lacked is fused as well as others."""
    rng = torch.Generator().manual_seed(0)
    labels, noise = F.normalize(torch.randn(13, DIM, generator=rng), dim=-1).split([12, 1])
    torch.manual_seed(0)
    module = fusion.build(DIM, {"preset": "reliability", "dropout": 0.2})
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)

    def draw(label):
        clean = labels[label][:, None] + 0.1 * torch.randn(len(label), 2, DIM, generator=rng)
        broken = torch.rand(len(label), generator=rng) < 0.5
        clean[broken, 0] = noise + 0.1 * torch.randn(int(broken.sum()), DIM, generator=rng)
        return F.normalize(clean, dim=-1), broken

    for _ in range(100):
        label = torch.randint(0, 9, (64,), generator=rng)
        loss = F.cross_entropy(module(draw(label)[0], full(64, 2)).embedding @ labels.T / 0.1, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    label = torch.randint(9, 12, (300,), generator=rng)
    x, broken = draw(label)
    fused = module.eval()(x, full(300, 2))
    assert fused.weights[broken, 0].mean() < 0.1
    assert (fused.weights[~broken, 0] - 0.5).abs().mean() < 0.2
    assert ((fused.embedding @ labels.T).argmax(dim=1) == label).float().mean() > 0.99


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_a_negative_is_never_the_label(labels):
    rng = torch.Generator().manual_seed(labels)
    scores, label = torch.randn(500, 3, labels, generator=rng), torch.randint(labels, (500,), generator=rng)
    mask = torch.rand(500, 3, generator=rng) < 0.5
    index, counts = wrong_predictions(scores, mask, label, rng)
    assert not (counts & (index == label[:, None])).any()
    assert counts.any(dim=1).all()
    chance = index[counts[:, -1], -1]
    assert len(chance) > 50 and set(chance.tolist()) == set(range(labels))


@pytest.mark.parametrize("conflict", [0.0, 0.5, 1.0])
def test_stage_two_learns_on_the_share_of_conflicts_that_is_asked_for(conflict):
    concept = np.repeat(np.arange(10), 3)
    names = ("image", "touch", "audio")
    sets = {name: FeatureSet((), np.zeros((30, 1, 0), np.float32), concept) for name in names}
    bank = LabelBank(tuple("abcdefghij"), torch.eye(10), torch.arange(10))
    shown = {name: torch.eye(10)[concept][:, None] for name in names}  # a token says what it shows
    split = EmbeddedSplit(bank.names, sets, tokens=shown)
    settings = FuseConfig(conflict=conflict, batch=2000, negatives="all")
    batch = Fuse(split, None, bank, MeanFusion(), settings).draw(0, np.random.default_rng(0))
    other = (batch.sets.tokens.argmax(dim=-1) != batch.label[:, None]) & batch.sets.mask
    several = batch.sets.mask.sum(dim=1) > 1
    assert not other[~several].any() and other.sum(dim=1).max() == (1 if conflict else 0)
    # A donor has the modality in two of three, and another label in nine of ten.
    share = other.any(dim=1)[several].float().mean().item()
    donors = batch.sets.mask.float().mean().item() * 0.9
    assert share == pytest.approx(conflict * donors, abs=0.06)


def test_a_fusion_is_registered_once():
    with pytest.raises(ConfigError, match="'mean' already"):
        fusion.register("mean", "Mean", FusionConfig)(lambda dim, config, slots: fusion.MeanFusion())
    assert [found.name for found in fusion.types()].count("mean") == 1


def test_what_registers_a_fusion_leaves_its_maker_as_it_is_and_takes_it_for_one_that_learns(monkeypatch):
    monkeypatch.setattr(fusion.registry, "_types", {})

    def make(dim, config, slots):
        return MeanFusion()

    assert fusion.register("sum", "Sum", FusionConfig)(make) is make
    assert fusion.registry._types["sum"] == fusion.FusionType("sum", "Sum", FusionConfig, make, None, True)
    assert fusion.FusionType("sum", "Sum", FusionConfig, make).learns


def test_af_is_first_and_the_others_are_its_baselines():
    first, *others = fusion.types()
    assert first.name == "attention" and first.learns
    assert fusion.baselines() == tuple(others)
    learns = {found.name: found.learns for found in others}
    paper = {"mean": False, "linear": True, "unseen": True, "cat": True, "outer_product": True}
    assert learns | paper == learns


@pytest.mark.parametrize(
    "asked", [fusion.types, fusion.baselines, lambda: fusion.build(DIM, {"type": "found"})], ids=["types", "all", "one"]
)
def test_a_module_with_a_fusion_is_found_by_itself(asked, tmp_path, monkeypatch):
    (tmp_path / "found_by_itself.py").write_text(
        "from omnibind_core.fusion import FusionConfig, MeanFusion, register\n"
        "class FoundConfig(FusionConfig):\n    type: str = 'found'\n"
        "register('found', 'Found', FoundConfig)(lambda dim, config, slots: MeanFusion())\n"
    )
    monkeypatch.setattr(fusion, "__path__", [*fusion.__path__, str(tmp_path)])
    monkeypatch.setattr(fusion.registry, "_types", dict(fusion.registry._types))
    fusion.registry._load.cache_clear()
    try:
        asked()
        assert [found.name for found in fusion.types()][-1] == "found"
    finally:
        sys.modules.pop("omnibind_core.fusion.found_by_itself", None)


def test_the_network_of_reliability_may_be_of_any_width():
    module = fusion.build(DIM, {"preset": "reliability", "hidden": DIM + 3}).eval()
    assert module(torch.ones(1, 2, DIM), full(1, 2)).weights.tolist() == [[0.5, 0.5]]


def test_the_presets_are_built_as_they_say():
    paper, residual, reliability = (
        fusion.build(DIM, {"preset": name}) for name in ("paper", "residual", "reliability")
    )
    assert [len(module.layers) for module in (paper, residual, reliability)] == [1, 1, 0]
    assert [module.reliability is not None for module in (paper, residual, reliability)] == [False, False, True]
