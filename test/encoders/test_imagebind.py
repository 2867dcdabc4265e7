"""ImageBind: names and shapes of the checkpoint, stages against plain implementations, weights files, pipeline."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core import OmniBind, encoders, fusion, modalities
from omnibind_core.encoders import family
from omnibind_core.encoders.checkpoints import Checkpoint
from omnibind_core.encoders.imagebind import layers
from omnibind_core.encoders.imagebind.model import INPUTS, ImageBind
from omnibind_core.encoders.imagebind.video import video_clips
from omnibind_core.errors import ConfigError, InvalidInputError, WeightsError

SENTENCES = ["a dog", "A photo of a cup, and many more words than the others have", ""]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def config() -> encoders.ModelConfig:
    return encoders.load_config("imagebind_tiny")


@pytest.fixture(scope="module")
def bind(config) -> ImageBind:
    """All six modalities, tiny, no tensor constant."""
    torch.manual_seed(0)
    network = ImageBind(*config.trunks.values()).eval()
    for name, tensor in network.state_dict().items():
        if tensor.ndim and not name.endswith("mask"):
            tensor.add_(0.1 * torch.randn_like(tensor))
    return network


@pytest.fixture(scope="module")
def checkpoint(bind, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "imagebind_tiny.pth"
    torch.save(bind.state_dict(), path)
    return path


def of(config: encoders.ModelConfig, path: Path | str, **changes) -> encoders.ModelConfig:
    return config.model_copy(update={"weights": str(path), **changes})


# Names and shapes


def reference() -> dict[str, tuple[int, ...]]:
    """The 1311 tensors of ``imagebind_huge.pth``."""
    found: dict[str, tuple[int, ...]] = {}

    def put(stage: str, name: str, *shape: int) -> None:
        found[f"modality_{stage}.{name}"] = shape

    def norm(stage: str, name: str, width: int) -> None:
        put(stage, f"{name}.weight", width)
        put(stage, f"{name}.bias", width)

    put("preprocessors", "vision.cls_token", 1, 1, 1280)
    put("preprocessors", "vision.rgbt_stem.proj.1.weight", 1280, 3, 2, 14, 14)
    put("preprocessors", "vision.pos_embedding_helper.pos_embed", 1, 257, 1280)
    put("preprocessors", "text.pos_embed", 1, 77, 1024)
    put("preprocessors", "text.mask", 77, 77)
    put("preprocessors", "text.token_embedding.weight", 49408, 1024)
    for name, stem, width, places in (
        ("audio", "rgbt_stem", 768, 229),
        ("depth", "depth_stem", 384, 197),
        ("thermal", "rgbt_stem", 768, 197),
    ):
        put("preprocessors", f"{name}.cls_token", 1, 1, width)
        put("preprocessors", f"{name}.{stem}.proj.weight", width, 1, 16, 16)
        norm("preprocessors", f"{name}.{stem}.norm_layer", width)
        put("preprocessors", f"{name}.pos_embedding_helper.pos_embed", 1, places, width)
    put("preprocessors", "imu.pos_embed", 1, 251, 512)
    put("preprocessors", "imu.cls_token", 1, 1, 512)
    put("preprocessors", "imu.imu_stem.proj.weight", 512, 48)
    norm("preprocessors", "imu.imu_stem.norm_layer", 512)

    norm("trunks", "vision.pre_transformer_layer.0", 1280)
    sizes = {"vision": (1280, 32), "text": (1024, 24), "audio": (768, 12)}
    sizes |= {"depth": (384, 12), "thermal": (768, 12), "imu": (512, 6)}
    for name, (d, depth) in sizes.items():
        for i in range(depth):
            block = f"{name}.blocks.{i}"
            put("trunks", f"{block}.attn.in_proj_weight", 3 * d, d)
            put("trunks", f"{block}.attn.in_proj_bias", 3 * d)
            put("trunks", f"{block}.attn.out_proj.weight", d, d)
            put("trunks", f"{block}.attn.out_proj.bias", d)
            if name not in ("vision", "text"):
                put("trunks", f"{block}.attn.bias_k", 1, 1, d)
                put("trunks", f"{block}.attn.bias_v", 1, 1, d)
            norm("trunks", f"{block}.norm_1", d)
            norm("trunks", f"{block}.norm_2", d)
            put("trunks", f"{block}.mlp.fc1.weight", 4 * d, d)
            put("trunks", f"{block}.mlp.fc1.bias", 4 * d)
            put("trunks", f"{block}.mlp.fc2.weight", d, 4 * d)
            put("trunks", f"{block}.mlp.fc2.bias", d)
        if name == "text":
            norm("heads", "text.proj.0", d)
            put("heads", "text.proj.1.weight", 1024, d)
        else:
            norm("heads", f"{name}.0", d)
            put("heads", f"{name}.{3 if name == 'imu' else 2}.weight", 1024, d)
        if name != "vision":
            put("postprocessors", f"{name}.1.log_logit_scale")
    return found


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        network = ImageBind(*encoders.load_config("imagebind_huge").trunks.values())
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(ours) == 1311
    assert ours == reference()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_200_781_057
    buffers = dict(network.named_buffers())
    assert sum(buffer.numel() for buffer in buffers.values()) == 5_933
    assert "modality_postprocessors.text.1.log_logit_scale" not in buffers  # learned for text, fixed for the others
    assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())


def test_scales_start_as_published(config):
    scales = {
        name.split(".")[1]: tensor.exp().item()
        for name, tensor in ImageBind(*config.trunks.values()).state_dict().items()
        if name.endswith("log_logit_scale")
    }
    assert scales == pytest.approx({"text": 1 / 0.07, "audio": 20, "depth": 5, "thermal": 10, "imu": 5})


# Stages against plain implementations


@pytest.mark.parametrize(("extra_token", "causal"), [(True, False), (False, True), (False, False)])
def test_attention_is_torchs_multi_head_attention(extra_token, causal):
    theirs = nn.MultiheadAttention(24, 4, add_bias_kv=extra_token)
    ours = layers.Attention(24, 4, extra_token, causal)
    for parameter in theirs.parameters():
        parameter.normal_(std=0.3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 7, 24)
    mask = torch.full((7, 7), -torch.inf).triu(1) if causal else None
    expected = theirs(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1), attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(ours(x), expected.transpose(0, 1), rtol=0, atol=1e-5)


def plain_block(state: dict[str, Tensor], block: str, heads: int, x: Tensor, mask: Tensor | None) -> Tensor:
    width = x.shape[2]

    def norm(name: str, value: Tensor) -> Tensor:
        return F.layer_norm(value, (width,), state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"], 1e-6)

    attention = nn.MultiheadAttention(width, heads, add_bias_kv=f"{block}.attn.bias_k" in state)
    own = f"{block}.attn."
    attention.load_state_dict({name[len(own) :]: tensor for name, tensor in state.items() if name.startswith(own)})
    y = norm("norm_1", x).transpose(0, 1)
    x = x + attention(y, y, y, attn_mask=mask, need_weights=False)[0].transpose(0, 1)
    y = norm("norm_2", x) @ state[f"{block}.mlp.fc1.weight"].T + state[f"{block}.mlp.fc1.bias"]
    y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
    return x + y @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]


def plain_tokens(state: dict[str, Tensor], modality: str, part, x: Tensor) -> Tensor:
    def get(name: str) -> Tensor:
        return state[f"modality_preprocessors.{modality}.{name}"]

    if modality == "text":
        return torch.stack([get("token_embedding.weight")[row] for row in x]) + get("pos_embed")
    if modality == "vision":
        video = torch.stack([x, x], dim=2) if x.ndim == 4 else x
        patch = (2, part.patch, part.patch)
        tokens = F.conv3d(video, get("rgbt_stem.proj.1.weight"), stride=patch).flatten(2).transpose(1, 2)
    else:
        stem = {"depth": "depth_stem", "imu": "imu_stem"}.get(modality, "rgbt_stem")
        kernel = get(f"{stem}.proj.weight")
        if modality == "imu":
            pieces = [x[:, :, i : i + part.patch].flatten(1) for i in range(0, x.shape[2], part.patch)]
            tokens = torch.stack(pieces, dim=1) @ kernel.T
        else:
            tokens = F.conv2d(x, kernel, stride=part.stride or part.patch).flatten(2).transpose(1, 2)
        tokens = F.layer_norm(
            tokens, tokens.shape[2:], get(f"{stem}.norm_layer.weight"), get(f"{stem}.norm_layer.bias")
        )
    tokens = torch.cat([get("cls_token").repeat(len(x), 1, 1), tokens], dim=1)
    return tokens + get("pos_embed" if modality == "imu" else "pos_embedding_helper.pos_embed")


def plain(state: dict[str, Tensor], modality: str, part, x: Tensor) -> Tensor:
    tokens = plain_tokens(state, modality, part, x)
    trunk, head = f"modality_trunks.{modality}", f"modality_heads.{modality}"
    if modality == "vision":
        name = f"{trunk}.pre_transformer_layer.0"
        tokens = F.layer_norm(tokens, (part.width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)
    mask = state["modality_preprocessors.text.mask"] if modality == "text" else None
    for i in range(part.depth):
        tokens = plain_block(state, f"{trunk}.blocks.{i}", part.heads, tokens, mask)
    norm, last = {"text": ("proj.0", "proj.1"), "imu": ("0", "3")}.get(modality, ("0", "2"))
    end = x.argmax(dim=1) if modality == "text" else torch.zeros(len(x), dtype=torch.int64)
    token = tokens[torch.arange(len(x)), end]
    token = F.layer_norm(token, (part.width,), state[f"{head}.{norm}.weight"], state[f"{head}.{norm}.bias"], 1e-6)
    out = token @ state[f"{head}.{last}.weight"].T
    out = out / out.norm(dim=1, keepdim=True)
    scale = f"modality_postprocessors.{modality}.1.log_logit_scale"
    return out * state[scale].exp().clamp(max=100) if scale in state else out


def inputs(modality: str, bind: ImageBind, config: encoders.ModelConfig) -> Tensor:
    if modality != "text":
        return torch.randn(2, *INPUTS[modality], generator=torch.Generator().manual_seed(1))
    text = encoders.build(config, {"text"}).trunks["text"]
    return text.tokeniser(SENTENCES)


@pytest.mark.parametrize("modality", ["vision", "text", "audio", "depth", "thermal", "imu"])
def test_every_modality_equals_the_plain_one(bind, config, modality):
    x = inputs(modality, bind, config)
    expected = plain(bind.state_dict(), modality, config.trunks[modality], x)
    torch.testing.assert_close(bind.encode(modality, x), expected, rtol=0, atol=1e-5)
    tokens = plain_tokens(bind.state_dict(), modality, config.trunks[modality], x)
    difference = bind.modality_preprocessors[modality](x) - tokens
    assert difference.abs().max() < 1e-5 * tokens.abs().max()


def test_a_picture_is_a_video_that_stands_still(bind, config):
    picture = torch.randn(2, 3, 224, 224)
    still = torch.stack([picture, picture], dim=2)
    torch.testing.assert_close(bind.encode("vision", still), bind.encode("vision", picture), rtol=0, atol=1e-5)
    moving = torch.randn(2, 3, 2, 224, 224)
    expected = plain(bind.state_dict(), "vision", config.trunks["vision"], moving)
    torch.testing.assert_close(bind.encode("vision", moving), expected, rtol=0, atol=1e-5)


def test_clips_are_averaged_where_asked_for_only(bind, config):
    clips = torch.randn(2, 3, *INPUTS["audio"])
    rows = torch.stack([bind.encode("audio", clip) for clip in clips])
    torch.testing.assert_close(bind.encode_clips("audio", clips), rows.mean(dim=1), rtol=0, atol=1e-5)
    built = encoders.build(config, {"audio"})
    views = torch.randn(5, *INPUTS["audio"])
    means = built.features("audio", views, [2, 3])
    torch.testing.assert_close(means[1], built.trunks["audio"](views[2:]).mean(dim=0))
    assert means[0].norm() < 20  # of two vectors of length 20


def test_videos_are_cut_into_clips(config):
    """Ten seconds at 10 Hz, twice as wide as high; every frame is as bright as its number, brighter to the right."""
    frames = np.arange(100, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 112, 224, 3), np.uint8)
    frames[:, :, 112:] += 100
    views = video_clips(frames, rate=10.0)
    assert views.shape == (15, 3, 2, 224, 224) and views.dtype == np.uint8
    # Clips begin at 0, 2, 4, 6 and 8 s and have 20 frames, of which the first and the last are taken.
    assert views[::3, 0, :, 0, 0].tolist() == [[0, 19], [20, 39], [40, 59], [60, 79], [80, 99]]
    left, middle, right = views[:3, 0, 0]
    assert (left[:, :-2] == 0).all() and (right[:, 2:] == 100).all()  # but where the edge is smoothed
    assert middle[0, 0] == 0 and middle[0, -1] == 100
    short = video_clips(frames[:3], rate=10.0)
    assert short[::3, 0, :, 0, 0].tolist() == [[0, 2]] * 5
    high = video_clips(frames[:1].transpose(0, 2, 1, 3), rate=30.0)
    assert (high[0, 0, 0, :-2] == 0).all() and (high[2, 0, 0, 2:] == 100).all()
    built = encoders.build(config, {"image"})
    features = built.features("vision", torch.from_numpy(views), [15])
    torch.testing.assert_close(features[0], built.trunks["vision"](torch.from_numpy(views)).mean(dim=0))
    for wrong, rate in ((frames[..., 0], 10.0), (frames[:0], 10.0), (frames, 0.0), (frames.astype(float), 10.0)):
        with pytest.raises(InvalidInputError, match="video"):
            video_clips(wrong, rate)


def test_text_ends_where_the_end_token_is(bind, config):
    """What stands behind the end token changes nothing."""
    ids = inputs("text", bind, config)
    end = int(ids[0].argmax())
    changed = ids.clone()
    changed[0, end + 1 :] = 7
    assert torch.equal(bind.encode("text", changed)[0], bind.encode("text", ids)[0])
    torch.testing.assert_close(bind.encode("text", ids[:1, : end + 1]), bind.encode("text", ids[:1]), rtol=0, atol=1e-5)
    built = encoders.build(config, {"text"})
    whole = F.normalize(built.trunks["text"].encode("text", ids), dim=1)
    torch.testing.assert_close(built.encode_text(SENTENCES), whole, rtol=0, atol=1e-5)


def test_pictures_are_normalised_by_clips_constants(config):
    built = encoders.build(config, {"image"})
    pictures = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    kept = pictures.clone()
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    x = torch.stack([(pictures[:, i] / 255 - mean[i]) / std[i] for i in range(3)], dim=1)
    expected = plain(built.trunks["vision"].state_dict(), "vision", config.trunks["vision"], x)
    torch.testing.assert_close(built.trunks["vision"](pictures), expected, rtol=0, atol=1e-5)
    assert torch.equal(pictures, kept)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near(config, checkpoint, precision):
    whole = encoders.build(of(config, checkpoint))
    parts = {name: part.model_copy(update={"precision": precision}) for name, part in config.trunks.items()}
    half = encoders.build(of(config, checkpoint, trunks=parts), device="cuda")  # a CPU computes it, too, but slowly
    tolerance = 0.05 if precision == "bfloat16" else 0.01
    for trunk in ("vision", "audio", "thermal"):
        assert {p.dtype for p in half.trunks[trunk].parameters()} == {getattr(torch, precision)}
        views = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8) if trunk == "vision" else None
        views = torch.randn(2, *INPUTS[trunk]) if views is None else views
        near, exact = half.trunks[trunk](views), whole.trunks[trunk](views)
        assert near.dtype == torch.float32
        assert (near - exact).norm() < tolerance * exact.norm()
    assert (half.encode_text(SENTENCES) - whole.encode_text(SENTENCES)).norm() < tolerance * 2


@pytest.mark.parametrize("modality", ["vision", "text", "audio"])
def test_trunks_compile_in_one_piece(config, modality):
    built = encoders.build(config)
    trunk = built.trunks[modality]
    torch._dynamo.reset()
    if modality == "text":
        run, x = (lambda ids: trunk.encode("text", ids)), trunk.tokeniser(SENTENCES)
    else:
        run = trunk
        x = (
            torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
            if modality == "vision"
            else torch.randn(2, *INPUTS[modality])
        )
    compiled = torch.compile(run, backend="eager", fullgraph=True)  # raises at a graph break
    torch.testing.assert_close(compiled(x), run(x))


# Weights files


def test_one_modality_reads_its_own_tensors_only(config, checkpoint, bind, monkeypatch):
    read = []
    original = Checkpoint.__getitem__
    monkeypatch.setattr(Checkpoint, "__getitem__", lambda self, name: read.append(name) or original(self, name))
    built = encoders.build(of(config, checkpoint), {"audio"})
    assert set(built.trunks) == {"audio"}
    assert {name.split(".")[1] for name in read} == {"audio"}
    assert built.trunks["audio"].state_dict().keys() == {name for name in bind.state_dict() if ".audio." in name}
    x = torch.randn(1, *INPUTS["audio"])
    torch.testing.assert_close(built.trunks["audio"](x), bind.encode("audio", x))
    assert not any(parameter.requires_grad for parameter in built.trunks.parameters())


@pytest.mark.parametrize("prefix", ["bind.", "backbone.bind."])
def test_names_of_point_bind_and_unibind_are_understood(config, bind, prefix, tmp_path):
    path = tmp_path / "unibind.safetensors"
    save_file({prefix + name: tensor.clone() for name, tensor in bind.state_dict().items()}, path)
    built = encoders.build(of(config, path), {"thermal", "text"})
    x = torch.randn(1, *INPUTS["thermal"])
    torch.testing.assert_close(built.trunks["thermal"](x), bind.encode("thermal", x))


def test_unibinds_linear_head_is_taken(config, bind, tmp_path):
    state = {f"backbone.bind.{name}": tensor for name, tensor in bind.state_dict().items()}
    layer = nn.Linear(32, 32)
    state |= {f"mlp_for_event.{name}": tensor for name, tensor in layer.state_dict().items()}
    path = tmp_path / "event_model_best.pt"
    torch.save(state, path)
    event = config.modalities["event"].model_copy(update={"head": encoders.config.LinearConfig(type="linear")})
    changed = of(config, path, modalities={**config.modalities, "event": event})
    built = encoders.build(changed, {"event", "touch"})
    assert torch.equal(built.heads["event"].weight, layer.weight)
    assert torch.equal(built.heads["event"].bias, layer.bias)
    # The head gets ImageBind's embedding, as in UniBind, and the result is normalised.
    views = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    features = built.features("vision", views, [1])
    torch.testing.assert_close(built.embed("event", features), F.normalize(layer(features), dim=1))


def test_a_file_of_half_precision_is_refused_on_a_cpu_unless_widened(config, bind, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in bind.state_dict().items()}, path)
    with pytest.raises(WeightsError, match=r"half\.safetensors is in float16.*expected.*'precision' float32"):
        encoders.build(of(config, path), {"audio"})
    parts = {name: part.model_copy(update={"precision": "float32"}) for name, part in config.trunks.items()}
    built = encoders.build(of(config, path, trunks=parts), {"audio"})
    assert {parameter.dtype for parameter in built.trunks.parameters()} == {torch.float32}
    x = torch.randn(1, *INPUTS["audio"])
    torch.testing.assert_close(built.trunks["audio"](x), bind.encode("audio", x), rtol=0, atol=0.1)


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def damaged(kind: str, bind: ImageBind, whole: Path, folder: Path) -> Path:
    path = folder / "damaged.pth"
    state = dict(bind.state_dict())
    if kind == "truncated":
        path.write_bytes(whole.read_bytes()[:-2000])
    elif kind == "code":
        path.write_bytes(pickle.dumps({"modality_trunks.audio.x": Code()}))
    elif kind == "code in a torch file":
        torch.save({**state, "modality_trunks.audio.x": Code()}, path)
    elif kind == "other family":
        torch.save({"visual.conv1.weight": torch.zeros(2, 3, 4, 4), "ln_final.bias": torch.zeros(3)}, path)
    elif kind == "lacks audio":
        torch.save({name: x for name, x in state.items() if ".audio." not in name}, path)
    elif kind == "lacks one":
        torch.save({name: x for name, x in state.items() if name != "modality_heads.audio.0.bias"}, path)
    elif kind == "other size":
        name = "modality_trunks.audio.blocks.1.mlp.fc1.weight"
        torch.save({**state, name: torch.zeros(64, 32)}, path)
    elif kind == "two":
        torch.save({**state, **{f"bind.{name}": x for name, x in state.items()}}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", r"damaged\.pth.*not a whole PyTorch file"),
        ("code", r"damaged\.pth"),
        ("code in a torch file", r"would run code"),
        ("other family", r"expected a checkpoint of ImageBind.*got.*'ln_final\.bias', 'visual\.conv1"),
        ("lacks audio", r"has the modalities depth, imu, text, thermal, vision, expected 'audio'"),
        ("lacks one", r"'modality_heads\.audio\.0\.bias' is missing"),
        ("other size", r"blocks\.1\.mlp\.fc1\.weight' has shape \[64, 32\], expected \[128, 32\]"),
        ("two", r"under '', 'bind\.'"),
        ("absent", r"nothing at .*damaged\.pth.*OMNIBIND_WEIGHTS"),
    ],
)
def test_bad_files_are_refused_before_anything_is_loaded(
    config, bind, checkpoint, tmp_path, capsys, kind, message, monkeypatch
):
    filled = []
    monkeypatch.setattr(encoders.factory, "_fill", lambda *args: filled.append(args))
    path = damaged(kind, bind, checkpoint, tmp_path)
    with pytest.raises(WeightsError, match=message):
        encoders.build(of(config, path), {"image", "audio"})
    assert not filled
    assert "this ran" not in capsys.readouterr().out


def test_config_errors(config, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"heads is 5, expected a divisor of width, 32"):
        encoders.load_config({"extends": "imagebind_tiny", "name": "x", "trunks": {"audio": {"heads": 5}}})
    with pytest.raises(ConfigError, match=r"family is 'imagebin'"):
        encoders.load_config({"extends": "imagebind_tiny", "name": "x", "family": "imagebin"})
    large = encoders.load_config({"extends": "imagebind_tiny", "name": "x", "trunks": {"audio": {"patch": 300}}})
    with pytest.raises(ConfigError, match=r"patch is 300"):
        encoders.build(large, {"audio"})
    text = encoders.load_config({"extends": "imagebind_tiny", "name": "x", "trunks": {"text": {"tokens": 600}}})
    with pytest.raises(WeightsError, match=r"bytes has 514 tokens, expected the 600"):
        encoders.build(text, {"text"}).encode_text(["a"])
    audio = {"extends": "imagebind_tiny", "name": "x", "modalities": {"audio": {"preset": "yamnet"}}}
    with pytest.raises(
        ConfigError, match=r"modalities\.audio\.preset: 'yamnet' makes float32 \[96, 64\].*\[1, 128, 204\]"
    ):
        encoders.build(encoders.load_config(audio), {"audio"})
    thermal = {"extends": "imagebind_tiny", "name": "x", "modalities": {"thermal": {"trunk": "vision"}}}
    with pytest.raises(ConfigError, match=r"'imagebind' makes float32 \[1, 224, 224\].*'vision' takes, uint8 \[3, 224"):
        encoders.build(encoders.load_config(thermal), {"thermal"})
    thermal["modalities"]["thermal"]["preset"] = "efficientnet"
    assert encoders.build(encoders.load_config(thermal), {"thermal"}).trunk_of == {"thermal": "vision"}
    monkeypatch.setenv(family.WEIGHTS_VARIABLE, str(tmp_path))
    (tmp_path / "here.pth").touch()
    assert family.weights_path("here.pth") == tmp_path / "here.pth"


# The whole model


def model_of(config: encoders.ModelConfig) -> OmniBind:
    torch.manual_seed(0)
    return OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))


def test_a_saved_model_refers_to_its_weights_file(config, bind, checkpoint, tmp_path):
    model = model_of(of(config, checkpoint))
    model.set_labels(("cup", "dog"))
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < checkpoint.stat().st_size / 2
    again = OmniBind.from_pretrained(tmp_path / "model", modalities={"touch"})
    assert again.modalities == ("text", "touch")
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    views = model.process("touch", picture)
    torch.testing.assert_close(again.embed([("touch", views)]), model.embed([("touch", views)]))

    other = {name: x + 0.01 if x.is_floating_point() else x for name, x in bind.state_dict().items()}
    kept = checkpoint.read_bytes()
    checkpoint.unlink()
    torch.save(other, checkpoint)
    try:
        with pytest.raises(WeightsError, match=r"trunk 'vision' is another one.*fingerprint"):
            OmniBind.from_pretrained(tmp_path / "model", modalities={"touch"})
    finally:
        checkpoint.unlink()
        checkpoint.write_bytes(kept)


def test_pictures_of_all_sensors_share_one_pass(config, monkeypatch):
    model = model_of(config)
    passes = []
    vision = model.encoders.trunks["vision"]
    original = vision.forward
    monkeypatch.setattr(vision, "forward", lambda views: passes.append(len(views)) or original(views))
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    items = [(name, model.process(name, picture)) for name in ("image", "touch")]
    embeddings = model.embed(items)
    assert passes == [2] and embeddings.shape == (2, 32)
    sound = modalities.Sound(np.zeros(16000, np.float32), 16000)
    assert model.process("audio", sound).shape == (3, 1, 128, 204)
