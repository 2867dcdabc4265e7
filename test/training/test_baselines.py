"""What AF is compared with: fusions behind the same interface, and ridge probes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core import encoders, fusion
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.evaluation.probes import (
    STRENGTHS,
    TEMPERATURES,
    Probe,
    Probes,
    _decompose,
    _leave_one_out,
    shape_features,
)
from omnibind_core.fusion import fusion_loss
from omnibind_core.fusion.baselines import SlotFusion
from omnibind_core.labels import LabelBank
from omnibind_core.modalities.point_cloud.corruption import rotation
from omnibind_core.model import OmniBind

DIM = 16
SLOTS = ("image", "text", "touch", "audio")


def tokens(batch: int, count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(batch, count, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def full(batch: int, count: int) -> torch.Tensor:
    return torch.ones(batch, count, dtype=torch.bool)


BASELINES = [found.name for found in fusion.baselines()]


@pytest.fixture(params=BASELINES)
def module(request):
    torch.manual_seed(0)
    return fusion.build(DIM, {"type": request.param}, SLOTS).eval()


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_any_number_of_tokens_gives_a_unit_embedding_and_shares_that_sum_to_one(module, count):
    modality_ids = (
        torch.arange(count).remainder(len(SLOTS)).expand(3, -1)
    )  # from five on, several tokens of one modality
    fused = module(tokens(3, count), full(3, count), modality_ids)
    assert fused.embedding.shape == (3, DIM)
    torch.testing.assert_close(fused.embedding.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(fused.weights.sum(dim=1), torch.ones(3))
    assert (fused.weights > 0).all()


def test_a_padded_batch_gives_exactly_what_the_unpadded_one_gives(module):
    x, mask = tokens(3, 3), torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    modality_ids = torch.tensor([[0, 2, 2], [3, 0, 1], [0, 1, 2]])
    places = [1, 3, 4]
    padded, wide = torch.full((3, 6, DIM), float("nan")), torch.zeros(3, 6, dtype=torch.bool)
    wide_ids = torch.full((3, 6), -1)
    padded[:, places], wide[:, places], wide_ids[:, places] = x, mask, modality_ids
    alone, with_padding = module(x, mask, modality_ids), module(padded, wide, wide_ids)
    assert torch.equal(with_padding.embedding, alone.embedding)
    assert torch.equal(with_padding.weights[:, places], alone.weights)
    assert (with_padding.weights[~wide] == 0).all()


def test_training_computes_what_evaluation_does_and_reaches_every_weight(module):
    x = tokens(4, 4).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    modality_ids = torch.arange(4).expand(4, -1)
    noisy = torch.where(mask[..., None], x, torch.nan)
    evaluated, trained = module.eval()(noisy, mask, modality_ids), module.train()(noisy, mask, modality_ids)
    torch.testing.assert_close(trained.embedding, evaluated.embedding, atol=1e-6, rtol=1e-5)
    trained.embedding.sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name
    assert x.grad.isfinite().all() and (x.grad[~mask] == 0).all()


def test_order_of_the_tokens_does_not_matter(module):
    x, modality_ids = tokens(2, 4), torch.tensor([[0, 2, 3, 2], [1, 0, 3, 3]])
    order = torch.tensor([2, 0, 3, 1])
    shuffled, straight = module(x[:, order], full(2, 4), modality_ids[:, order]), module(x, full(2, 4), modality_ids)
    torch.testing.assert_close(shuffled.embedding, straight.embedding, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(shuffled.weights, straight.weights[:, order])


def test_tokens_of_one_modality_share_its_slot():
    torch.manual_seed(0)
    module = fusion.build(DIM, {"type": "cat"}, SLOTS).eval()
    x = tokens(1, 3)
    fused = module(x, full(1, 3), torch.tensor([[0, 2, 2]]))
    slots = torch.zeros(len(SLOTS), DIM)
    slots[0], slots[2] = x[0, 0], (x[0, 1] + x[0, 2]) / 2
    torch.testing.assert_close(fused.embedding[0], F.normalize(module.linear(slots.flatten()), dim=0))
    torch.testing.assert_close(fused.weights, torch.tensor([[0.5, 0.25, 0.25]]))


def test_outer_products_by_hand():
    module = fusion.build(2, {"type": "outer_product", "rank": 1}, ("image", "touch")).eval()
    with torch.no_grad():
        for down in module.down:
            down.weight.copy_(torch.tensor([[1.0, 2.0]]))
            down.bias.zero_()
        module.up.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]))
        module.up.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # projected to 1 and 2: products 2, 1, 2, 1
    both = module(x, full(1, 2), torch.tensor([[0, 1]])).embedding
    torch.testing.assert_close(both, F.normalize(torch.tensor([[2.0, 4.0]])))
    one = module(x[:, :1], full(1, 1), torch.tensor([[0]])).embedding  # 0, 1 and the two ones: 0, 1, 0, 1
    torch.testing.assert_close(one, F.normalize(torch.tensor([[0.0, 2.0]])))


def test_what_is_fused_without_weights_is_the_mean_and_linear_turns_it():
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    mean, linear = fusion.build(2, {"type": "mean"}), fusion.build(2, {"type": "linear"})
    with torch.no_grad():
        linear.linear.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
        linear.linear.bias.copy_(torch.tensor([0.5, -0.5]))
    torch.testing.assert_close(mean(x, mask).embedding, F.normalize(torch.tensor([[1.0, 1.0]])))
    torch.testing.assert_close(linear(x, mask).embedding, F.normalize(torch.tensor([[1.0 + 0.5, 2.0 - 0.5]])))
    for module in (mean, linear):
        assert module(x, mask).weights.tolist() == [[0.5, 0.5, 0.0]]


def test_unseen_adds_up_what_each_present_modality_spreads_over_the_positions():
    torch.manual_seed(3)
    settings = {"type": "unseen", "width": 8, "positions": 3, "heads": 2, "layers": 2, "branches": 2}
    module = fusion.build(DIM, settings, SLOTS).eval()
    x, mask = tokens(2, 2), torch.tensor([[True, True], [True, False]])
    fused = module(x, mask, torch.tensor([[0, 2], [3, 1]])).embedding

    def run(layers, rows):
        for layer in layers:
            rows = layer(rows[None])[0][0]
        return rows

    for row, present in enumerate(({0: x[0, 0], 2: x[0, 1]}, {3: x[1, 0]})):
        total = module.place
        for slot, token in present.items():
            part = module.spread[slot]
            feature = part.project(token)
            share = part.scores(run(part.transformer, (feature + part.place[0])[None])[0]).exp()
            total = total + torch.outer(share / share.sum(), feature)
        read = run(module.transformer, torch.cat([module.readers, total]))[:2]
        expected = sum(module.up(module.norm(hidden)) for hidden in read)
        torch.testing.assert_close(fused[row], F.normalize(expected, dim=0), atol=1e-5, rtol=1e-5)


def test_the_transformers_of_unseen_start_with_small_places_and_ordinary_weights():
    torch.manual_seed(0)
    module = fusion.build(64, {"type": "unseen", "positions": 16, "branches": 16}, SLOTS[:2])
    for part in (module.place, module.readers, module.spread[0].place):
        assert part.std().item() == pytest.approx(0.02, rel=0.25) and abs(part.mean().item()) < 0.005
    for layer in (*module.transformer, *module.spread[1].transformer):
        for name, weight in layer.named_parameters():
            if weight.ndim == 2:  # uniform (Glorot and Bengio 2010)
                bound = (6 / sum(weight.shape)) ** 0.5
                assert 0.9 * bound < weight.abs().max() <= bound, name
                torch.nn.init.zeros_(weight)
        hidden = torch.randn(1, 3, 128)
        torch.nn.init.zeros_(layer.ffn[-1].bias)
        torch.testing.assert_close(layer(hidden)[0], hidden)  # the residual path is left


UNSEEN = ("width", "positions", "heads", "layers", "ffn", "branches")


def test_sizes_that_are_not_named_are_those_that_saved_weights_have():
    module = fusion.build(DIM, {"type": "unseen"}, SLOTS)
    assert module.place.shape == (8, 128) and module.readers.shape == (2, 128)
    assert [part.shape for part in module.spread[0].place] == [(128,)]
    for layers in (module.transformer, *(spread.transformer for spread in module.spread)):
        assert [layer.heads for layer in layers] == [4]
        assert {name: tuple(part.shape) for name, part in layers.named_parameters() if name.endswith("weight")} == {
            "0.norm.weight": (128,),
            "0.ffn.0.weight": (128,),
            "0.qkv.weight": (384, 128),
            "0.out.weight": (128, 128),
            "0.ffn.1.weight": (256, 128),
            "0.ffn.3.weight": (128, 256),
        }
    outer = fusion.build(DIM, {"type": "outer_product"}, SLOTS)
    assert [down.out_features for down in outer.down] == [16] * 4
    assert outer.up.in_features == 6 * 17**2  # pairs of four slots


@pytest.mark.parametrize(("name", "key"), [("outer_product", "rank"), *(("unseen", key) for key in UNSEEN)])
def test_the_least_size_is_one(name, key):
    least = {"type": name} | dict.fromkeys(UNSEEN if name == "unseen" else ["rank"], 1)
    fused = fusion.build(DIM, least, SLOTS).eval()(tokens(2, 2), full(2, 2), torch.tensor([[0, 1], [2, 3]]))
    torch.testing.assert_close(fused.embedding.norm(dim=-1), torch.ones(2))
    with pytest.raises(ConfigError, match=f"fusion.{key}"):
        fusion.build(DIM, {**least, key: 0}, SLOTS)


def test_two_modalities_are_enough_for_slots_and_one_is_not():
    assert fusion.build(DIM, {"type": "cat"}, SLOTS[:2]).linear.in_features == 2 * DIM
    with pytest.raises(ConfigError, match="modalities, got image"):
        fusion.build(DIM, {"type": "cat"}, SLOTS[:1])


@pytest.mark.parametrize("fusion_type", [name for name in BASELINES if name != "mean"])
def test_every_baseline_learns_by_the_loss_of_stage_two(fusion_type):
    torch.manual_seed(0)
    module = fusion.build(DIM, {"type": fusion_type}, SLOTS)
    prototypes = tokens(1, 6, seed=5)[0]
    turn = torch.linalg.qr(torch.randn(len(SLOTS), DIM, DIM, generator=torch.Generator().manual_seed(1)))[0]
    label = torch.arange(48) % 6
    modality_ids = torch.arange(4).expand(48, -1)
    mask = torch.rand(48, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[torch.arange(48), torch.arange(48) % 4] = True
    x = torch.einsum("bd,sde->bse", prototypes[label], turn)  # each modality sees the label from another side
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    wrong = prototypes[(label[:, None] + torch.arange(1, 6)) % 6]
    module.train()
    for _ in range(120):
        fused = module(x, mask, modality_ids).embedding
        loss = fusion_loss(fused, prototypes[label], wrong, full(48, 5), 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (module.eval()(x, mask, modality_ids).embedding @ prototypes.T).argmax(1) == label
    assert right.float().mean() > (0.9 if isinstance(module, SlotFusion) else 0.4)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"type": "sum"}, "fusion.type"),
        ({"type": "mean", "heads": 2}, "fusion.heads"),
        ({"type": "outer_product", "rank": 0}, "fusion.rank"),
        ({"type": "unseen", "heads": 3}, "fusion.heads"),
        ({"type": "cat", "preset": "paper"}, "fusion.preset"),
    ],
)
def test_wrong_settings_name_the_key(data, key):
    with pytest.raises(ConfigError, match=key):
        fusion.build(DIM, data, SLOTS)


def test_slots_need_the_modalities():
    with pytest.raises(ConfigError, match="modalities"):
        fusion.build(DIM, {"type": "cat"})
    with pytest.raises(InvalidInputError, match="modality_ids"):
        fusion.build(DIM, {"type": "cat"}, SLOTS)(tokens(1, 2), full(1, 2))


def test_another_type_starts_from_its_own_settings():
    assert fusion.changed({"preset": "paper", "heads": 4, "type": "attention"}, {"type": "cat"}) == {"type": "cat"}
    assert fusion.changed({"heads": 4}, {"type": "attention"}) == {"heads": 4, "type": "attention"}
    assert fusion.changed({"preset": "paper", "heads": 4}, {"preset": "residual"}) == {"preset": "residual", "heads": 4}


@pytest.mark.parametrize("fusion_type", BASELINES)
def test_a_model_with_a_baseline_is_saved_and_loaded(fusion_type, tmp_path):
    config = encoders.load_config("tiny").model_copy(update={"fusion": {"type": fusion_type}})
    torch.manual_seed(1)
    module = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
    model = OmniBind(config, encoders.build(config), module)
    model.labels = LabelBank.from_names(("cup", "dog"), model.embed_text)
    model.save_pretrained(tmp_path)
    loaded = OmniBind.from_pretrained(tmp_path)
    rows = F.normalize(torch.randn(3, config.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    found, again = (m.recognise(("touch", "audio", "touch"), rows) for m in (model, loaded))
    np.testing.assert_array_equal(found.embedding, again.embedding)
    assert found.weights.sum() == pytest.approx(1)
    with pytest.raises(ConfigError, match="smell"):
        loaded.recognise(("smell",), rows[:1])


def blobs(rng, count=12, width=20, classes=3, spread=0.6):
    centres = rng.normal(size=(classes, width))
    concept = np.arange(count * classes) % classes
    return centres[concept] + spread * rng.normal(size=(len(concept), width)), concept


@pytest.mark.parametrize("width", [5, 60])
def test_ridge_is_the_textbook_solution_in_whichever_dimension(rng, width):
    features, concept = blobs(rng, width=width)
    probe = Probe.fit(features, concept)
    x = (np.sign(features) * np.sqrt(np.abs(features)) - probe.mean) / probe.scale
    target = np.eye(3)[concept]
    gram = x.T @ x
    ridge = probe.strength * np.trace(gram) / np.linalg.matrix_rank(gram)
    weight = np.linalg.solve(gram + ridge * np.eye(width), x.T @ (target - target.mean(0)))
    np.testing.assert_allclose(probe.weight, weight, atol=1e-8)
    np.testing.assert_allclose(probe.scores(features), x @ weight + target.mean(0), atol=1e-8)
    assert probe.strength in STRENGTHS and probe.temperature in TEMPERATURES


@pytest.mark.parametrize("variants", [1, 3])
def test_leaving_a_sample_out_is_fitting_without_it(rng, variants):
    rows, ridge = rng.normal(size=(8 * variants, 6)), 0.7
    target = rng.normal(size=(len(rows), 2))
    design = np.column_stack([rows - rows.mean(0), np.ones(len(rows))])
    target -= target.mean(0)
    power, u, _ = _decompose(rows - rows.mean(0))
    found = _leave_one_out(u, power / (power + ridge), u.T @ target, target, variants)
    for sample in range(8):
        rest = np.delete(np.arange(len(rows)), np.arange(sample * variants, (sample + 1) * variants))
        penalty = ridge * np.diag([1.0] * 6 + [0.0])
        weight = np.linalg.solve(design[rest].T @ design[rest] + penalty, design[rest].T @ target[rest])
        np.testing.assert_allclose(found[sample], design[sample * variants] @ weight, atol=1e-6)


def test_probes_know_their_own_classes_and_fuse_by_the_mean(rng):
    one, concept = blobs(rng, spread=1.5)
    other, _ = blobs(rng, width=8, spread=1.5)
    probes = Probes.fit(
        {"image": one, "audio": other[concept < 2]}, {"image": concept, "audio": concept[concept < 2]}, 5
    )
    rows = {name: probes.probabilities(name, x) for name, x in (("image", one), ("audio", other))}
    for row in rows.values():
        assert row.shape == (36, 5) and (row >= 0).all()
        np.testing.assert_allclose(row.sum(axis=1), 1)
    assert (rows["audio"][:, 2:] == 0).all() and (rows["image"][:, 3:] == 0).all()
    fused = probes.predict({"image": one, "audio": other})
    np.testing.assert_array_equal(fused, (rows["image"] + rows["audio"]).argmax(axis=1))
    assert (probes.predict({"image": one}) == concept).mean() > 0.8
    with pytest.raises(InvalidInputError, match="no modality"):
        probes.predict({})


def test_one_sample_per_class_is_enough_for_a_probe(rng):
    features, concept = blobs(rng, count=2, width=200)
    probe = Probe.fit(features[:3], concept[:3])
    assert (probe.scores(features[3:]).argmax(axis=1) == concept[3:]).all()


def test_shape_features_see_the_shape_and_not_the_pose(rng):
    box = rng.uniform(-1, 1, (400, 3)) * (1.0, 0.5, 0.2)
    ball = rng.normal(size=(400, 3))
    clouds = np.stack([box, 7 * box @ rotation(1.1, 0, 0).T + 3, box[:, [2, 1, 0]], ball])
    found = shape_features(clouds)
    assert found.dtype == np.float32 and found.shape == (4, 99)
    np.testing.assert_allclose(found[:, :96].reshape(4, 6, 16).sum(axis=2), 1, atol=1e-5)
    turned, upright, other = (np.abs(found[0] - found[row]).sum() for row in (1, 2, 3))
    assert turned < 0.05 < 0.5 < min(upright, other)
    np.testing.assert_array_equal(found, shape_features(clouds))
