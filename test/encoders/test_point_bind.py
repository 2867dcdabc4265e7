"""Point-Bind: names of the checkpoints, farthest points, and both encoders against plain implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core import encoders
from omnibind_core.encoders.imagebind.config import I2PMAEConfig, PointBERTConfig
from omnibind_core.encoders.imagebind.convert import points as convert
from omnibind_core.encoders.imagebind.model import ImageBind
from omnibind_core.encoders.imagebind.point_bind import PatchEncoder, PointBindTrunk, farthest_points, neighbourhoods
from omnibind_core.encoders.registry import make_trunk
from omnibind_core.errors import WeightsError

TINY = {
    "i2p_mae": I2PMAEConfig(
        type="i2p_mae",
        groups=(32, 16, 8),
        neighbours=(8, 4, 4),
        widths=(12, 24, 36),
        depths=(2, 1, 2),
        radii=(0.5, 0.8, 1.2),
        projected=16,
        embed_dim=24,
    ),
    "point_bert": PointBERTConfig(
        type="point_bert",
        groups=16,
        neighbours=8,
        encoder_dim=20,
        width=24,
        depth=2,
        heads=4,
        projected=16,
        embed_dim=24,
    ),
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def trunk_of(config: I2PMAEConfig | PointBERTConfig) -> PointBindTrunk:
    """Random, no tensor constant."""
    torch.manual_seed(0)
    trunk = PointBindTrunk(config).eval()
    for name, tensor in trunk.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point() and tensor.ndim and "weight" not in name:
            tensor.normal_(std=0.1)
    return trunk


def cloud(batch: int = 2, count: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, count, 3, generator=generator)
    x = x / x.norm(dim=2, keepdim=True) * torch.rand(batch, count, 1, generator=generator) ** 0.5
    x[:, 5:40] *= 0.02  # near the origin
    return x


# Names and shapes


def patches(found: dict[str, tuple[int, ...]], name: str, widths: tuple[int, ...]) -> None:
    """Two pairs of convolutions with a batch normalisation between them."""
    width_in, narrow, wide, compared, width_out = widths
    for conv, (first, hidden, last) in {
        "first_conv": (width_in, narrow, wide),
        "second_conv": (2 * wide, compared, width_out),
    }.items():
        found[f"{name}.{conv}.0.weight"], found[f"{name}.{conv}.0.bias"] = (hidden, first, 1), (hidden,)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{conv}.1.{part}"] = (hidden,)
        found[f"{name}.{conv}.1.num_batches_tracked"] = ()
        found[f"{name}.{conv}.3.weight"], found[f"{name}.{conv}.3.bias"] = (last, hidden, 1), (last,)


def blocks(found: dict[str, tuple[int, ...]], name: str, d: int, depth: int) -> None:
    for j in range(depth):
        own = f"{name}.blocks.{j}"
        for norm in ("norm1", "norm2"):
            found[f"{own}.{norm}.weight"] = found[f"{own}.{norm}.bias"] = (d,)
        found[f"{own}.mlp.fc1.weight"], found[f"{own}.mlp.fc1.bias"] = (4 * d, d), (4 * d,)
        found[f"{own}.mlp.fc2.weight"], found[f"{own}.mlp.fc2.bias"] = (d, 4 * d), (d,)
        found[f"{own}.attn.qkv.weight"] = (3 * d, d)
        found[f"{own}.attn.proj.weight"], found[f"{own}.attn.proj.bias"] = (d, d), (d,)


def positions(found: dict[str, tuple[int, ...]], name: str, hidden: int, d: int) -> None:
    found[f"{name}.0.weight"], found[f"{name}.0.bias"] = (hidden, 3), (hidden,)
    found[f"{name}.2.weight"], found[f"{name}.2.bias"] = (d, hidden), (d,)


def i2p_mae() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"norm.weight": (384,), "norm.bias": (384,)}
    for level, (below, d) in enumerate(((3, 96), (96, 192), (192, 384))):
        widths = (3, 128, 256, 512, 96) if level == 0 else (below, below, below, d, d)
        patches(found, f"h_encoder.token_embed.{level}", widths)
        positions(found, f"h_encoder.encoder_pos_embeds.{level}", d, d)
        blocks(found, f"h_encoder.encoder_blocks.{level}", d, 5)
    return found


def point_bert() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"norm.weight": (384,), "norm.bias": (384,)}
    found |= {"cls_token": (1, 1, 384), "cls_pos": (1, 1, 384)}
    found |= {"reduce_dim.weight": (384, 256), "reduce_dim.bias": (384,)}
    patches(found, "encoder", (3, 128, 256, 512, 256))
    positions(found, "pos_embed", 128, 384)
    blocks(found, "blocks", 384, 12)
    return found


@pytest.mark.parametrize(
    ("name", "reference", "width", "tensors"),
    [("point_bind", i2p_mae, 384, 233), ("point_bind_point_bert", point_bert, 768, 160)],
)
def test_names_and_shapes_are_those_of_the_published_files(name, reference, width, tensors):
    config = encoders.load_config(name)
    with torch.device("meta"):
        trunk = make_trunk(config.trunks["points"])
        whole = ImageBind(*(part for key, part in config.trunks.items() if key != "points"))
    ours = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
    expected = {f"point_encoder.{key}": shape for key, shape in reference().items()}
    assert len(expected) == tensors
    expected |= {"pc_projection": (width, 512), "bind.modality_head_point.2.weight": (1024, 512)}
    expected |= {f"bind.modality_head_point.0.{part}": (512,) for part in ("weight", "bias")}
    expected |= {"bind.modality_postprocessor_point.1.log_logit_scale": ()}
    assert ours == expected
    if name == "point_bind":
        assert sum(parameter.numel() for parameter in trunk.point_encoder.parameters()) == 12_654_400
        file = {*ours, *(f"bind.{key}" for key in whole.state_dict()), "logit_scale"}
        assert len(file) == 1550


# Parts


def farthest_by_hand(points: np.ndarray, count: int, skip_origin: bool) -> list[int]:
    chosen, distance = [0], np.full(len(points), 1e10)
    for _ in range(count - 1):
        best, index = -1.0, 0
        for k, point in enumerate(points):
            if skip_origin and (point**2).sum() <= 1e-3:
                continue
            distance[k] = min(distance[k], ((point - points[chosen[-1]]) ** 2).sum())
            if distance[k] > best:
                best, index = distance[k], k
        chosen.append(index)
    return chosen


@pytest.mark.parametrize("skip_origin", [True, False])
def test_farthest_points_follow_the_rule(skip_origin):
    points = cloud()
    found = farthest_points(points, 190, skip_origin)
    for row, own in zip(found, points.double().numpy(), strict=True):
        assert row.tolist() == farthest_by_hand(own, 190, skip_origin)


def test_farthest_points_near_the_origin_alone():
    assert farthest_points(torch.rand(1, 5, 3) * 0.01, 3, True).tolist() == [[0, 0, 0]]
    line = torch.tensor([[[0.0, 0, 0], [0.01, 0, 0], [2, 0, 0], [1.2, 0, 0], [0.02, 0, 0]]])
    assert farthest_points(line, 3, True).tolist() == [[0, 2, 3]]


def test_neighbours_are_the_nearest():
    points = cloud()
    centres, near = neighbourhoods(points, 12, 7, skip_origin=True)
    for b in range(2):
        for centre, own in zip(centres[b], near[b], strict=True):
            distance = ((points[b].double() - centre.double()) ** 2).sum(dim=1)
            assert set(own.tolist()) == set(distance.argsort()[:7].tolist())


def plain_patches(state: dict[str, Tensor], name: str, sets: Tensor) -> Tensor:
    """One set after another, one layer after another."""

    def two(conv: str, rows: Tensor) -> Tensor:
        own = f"{name}.{conv}"
        x = rows @ state[f"{own}.0.weight"][:, :, 0].T + state[f"{own}.0.bias"]
        x = (x - state[f"{own}.1.running_mean"]) / (state[f"{own}.1.running_var"] + 1e-5).sqrt()
        x = (x * state[f"{own}.1.weight"] + state[f"{own}.1.bias"]).clamp(min=0)
        return x @ state[f"{own}.3.weight"][:, :, 0].T + state[f"{own}.3.bias"]

    out = []
    for rows in sets.flatten(0, 1):
        x = two("first_conv", rows)
        whole = x.max(dim=0).values.repeat(len(x), 1)
        out.append(two("second_conv", torch.cat([whole, x], dim=1)).max(dim=0).values)
    return torch.stack(out).unflatten(0, sets.shape[:2])


def plain_blocks(
    state: dict[str, Tensor], name: str, x: Tensor, place: Tensor, heads: int, far: Tensor | None
) -> Tensor:
    depth = len({key[len(name) + 8 :].split(".")[0] for key in state if key.startswith(f"{name}.blocks.")})
    for j in range(depth):
        own = {k[len(f"{name}.blocks.{j}.") :]: v for k, v in state.items() if k.startswith(f"{name}.blocks.{j}.")}
        width = x.shape[2]
        x = x + place
        y = F.layer_norm(x, (width,), own["norm1.weight"], own["norm1.bias"])
        attention = nn.MultiheadAttention(width, heads, batch_first=True)
        attention.load_state_dict(
            {
                "in_proj_weight": own["attn.qkv.weight"],
                "in_proj_bias": torch.zeros(3 * width),
                "out_proj.weight": own["attn.proj.weight"],
                "out_proj.bias": own["attn.proj.bias"],
            }
        )
        mask = None if far is None else (far * -1e5).repeat_interleave(heads, dim=0)
        x = x + attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        y = F.layer_norm(x, (width,), own["norm2.weight"], own["norm2.bias"])
        y = F.gelu(y @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"])
        x = x + y @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
    return x


def plain_positions(state: dict[str, Tensor], name: str, centres: Tensor) -> Tensor:
    hidden = F.gelu(centres @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"])
    return hidden @ state[f"{name}.2.weight"].T + state[f"{name}.2.bias"]


def grouped(points: Tensor, groups: int, neighbours: int, skip_origin: bool) -> tuple[Tensor, list[list[Tensor]]]:
    centres = torch.stack([p[farthest_by_hand(p.double().numpy(), groups, skip_origin)] for p in points])
    near = [
        [((p.double() - c.double()) ** 2).sum(dim=1).argsort()[:neighbours] for c in own]
        for p, own in zip(points, centres, strict=True)
    ]
    return centres, near


def plain_i2p_mae(state: dict[str, Tensor], config: I2PMAEConfig, points: Tensor) -> Tensor:
    tokens = points
    for level in range(3):
        centres, near = grouped(points, config.groups[level], config.neighbours[level], True)
        sets = torch.stack([torch.stack([t[i] for i in own]) for t, own in zip(tokens, near, strict=True)])
        if level == 0:
            sets = sets - centres[:, :, None]
        far = ((centres[:, :, None] - centres[:, None]).norm(dim=3) >= config.radii[level]).float()
        place = plain_positions(state, f"h_encoder.encoder_pos_embeds.{level}", centres)
        tokens = plain_patches(state, f"h_encoder.token_embed.{level}", sets)
        tokens = plain_blocks(state, f"h_encoder.encoder_blocks.{level}", tokens, place, config.heads, far)
        points = centres
    tokens = F.layer_norm(tokens, tokens.shape[2:], state["norm.weight"], state["norm.bias"])
    return tokens.mean(dim=1) + tokens.max(dim=1).values


def plain_point_bert(state: dict[str, Tensor], config: PointBERTConfig, points: Tensor) -> Tensor:
    centres, near = grouped(points, config.groups, config.neighbours, False)
    sets = torch.stack([torch.stack([p[i] for i in own]) for p, own in zip(points, near, strict=True)])
    tokens = plain_patches(state, "encoder", sets - centres[:, :, None])
    tokens = tokens @ state["reduce_dim.weight"].T + state["reduce_dim.bias"]
    tokens = torch.cat([state["cls_token"].repeat(len(points), 1, 1), tokens], dim=1)
    place = plain_positions(state, "pos_embed", centres)
    place = torch.cat([state["cls_pos"].repeat(len(points), 1, 1), place], dim=1)
    tokens = plain_blocks(state, "blocks", tokens, place, config.heads, None)
    tokens = F.layer_norm(tokens, tokens.shape[2:], state["norm.weight"], state["norm.bias"])
    return torch.cat([tokens[:, 0], tokens[:, 1:].max(dim=1).values], dim=1)


@pytest.mark.parametrize(("name", "plain"), [("i2p_mae", plain_i2p_mae), ("point_bert", plain_point_bert)])
def test_encoders_equal_the_plain_ones(name, plain):
    config, trunk = TINY[name], trunk_of(TINY[name])
    features = trunk.point_encoder(cloud())
    expected = plain(trunk.point_encoder.state_dict(), config, cloud())
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    state = trunk.state_dict()
    x = expected @ state["pc_projection"]
    head = "bind.modality_head_point"
    x = F.layer_norm(x, (16,), state[f"{head}.0.weight"], state[f"{head}.0.bias"], 1e-6) @ state[f"{head}.2.weight"].T
    torch.testing.assert_close(trunk(cloud()), x / x.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)


def test_each_set_is_described_by_itself():
    encoder = PatchEncoder((3, 8, 16, 8, 5)).eval()
    sets = torch.randn(2, 4, 6, 3)
    torch.testing.assert_close(encoder(sets)[1, 2], encoder(sets[1:, 2:3])[0, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder(sets), encoder(sets[:, :, torch.randperm(6)]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_trunks_compile_in_one_piece(name):
    trunk = trunk_of(TINY[name])
    torch._dynamo.reset()
    compiled = torch.compile(trunk, backend="eager", fullgraph=True)  # raises at a graph break
    torch.testing.assert_close(compiled(cloud()), trunk(cloud()))


@pytest.mark.parametrize("name", TINY)
def test_half_precision_looks_at_the_same_points(name):
    trunk = trunk_of(TINY[name])
    exact = trunk(cloud())
    near = trunk.to(torch.bfloat16)(cloud())
    assert near.dtype == torch.float32 and (near - exact).norm() < 0.05 * exact.norm()


# Files


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_file_of_the_whole_model_gives_its_points(tmp_path, prefix):
    config = encoders.load_config("point_bind_tiny")
    torch.manual_seed(1)
    bind = ImageBind(*(part for name, part in config.trunks.items() if name != "points"))
    points = make_trunk(config.trunks["points"])
    state = {f"bind.{name}": tensor for name, tensor in bind.state_dict().items()}
    state |= points.state_dict() | {"logit_scale": torch.zeros(())}
    path = tmp_path / "point_bind.pt"
    torch.save({prefix + name: tensor for name, tensor in state.items()}, path)
    built = encoders.build(config.model_copy(update={"weights": str(path)}), {"point_cloud", "audio"})
    torch.testing.assert_close(built.trunks["points"](cloud()), points.eval()(cloud()))
    for name, tensor in built.trunks["audio"].state_dict().items():
        assert torch.equal(tensor, bind.state_dict()[name])


def test_imagebinds_own_file_has_no_points():
    with pytest.raises(WeightsError, match=r"expected a checkpoint of Point-Bind.*got.*'modality_trunks\.x'"):
        convert({"modality_trunks.x": torch.zeros(1)})
