"""Encoders as a device runs them fastest: batches of fixed sizes, fallbacks, precisions, CUDA graphs."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from omnibind_core import OmniBind, encoders, fusion, modalities
from omnibind_core.encoders.inference import BatchedEncoders, batches, lower
from omnibind_core.encoders.inference.batches import SIZES, padded
from omnibind_core.encoders.inference.precision import LEAST_COSINE
from omnibind_core.errors import ConfigError

CPU = torch.device("cpu")


class Recorder:
    """Stands for CUDA graphs on a CPU: runs the step again, and counts what was recorded."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, step, inputs):
        self.sizes.append(tuple(inputs[0].shape))
        return lambda: step(*inputs)


def refuse(step, inputs):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def build(name: str, skip: tuple[str, ...] = ()) -> OmniBind:
    torch.manual_seed(0)
    config = encoders.load_config(name)
    parts = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
    model = OmniBind(config, encoders.build(config, set(config.modalities) - {*skip}), parts)
    with torch.no_grad():  # no head is zero, no layer the identity
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def tiny() -> OmniBind:
    return build("tiny")


def presets(model: OmniBind) -> dict:
    parts = {name: model.config.modalities[name] for name in model.encoders.heads}
    return {name: modalities.get(name).preset(part.preset) for name, part in parts.items()}


def views(model: OmniBind, modality: str, rng: np.random.Generator, count: int = 1) -> tuple[str, np.ndarray]:
    preset = presets(model)[modality]
    if preset.dtype == "str":
        return modality, np.array(["a small cup"] * count)
    shape = (count, *(64 if size < 0 else size for size in preset.shape))
    made = rng.integers(0, 256, shape) if preset.dtype == "uint8" else rng.standard_normal(shape)
    return modality, made.astype(preset.dtype)


def test_sizes_waste_a_third_at_most_and_end():
    for count in range(1, SIZES[-1] + 1):
        size = padded(count)
        assert size in SIZES
        assert count <= size
        assert size - count <= size / 3
    assert padded(SIZES[-1] + 1) is None


TICKS = [
    [("image", 1)],
    [("image", 1), ("touch", 1), ("thermal", 1), ("event", 2), ("point_cloud", 1), ("audio", 3), ("text", 1)],
    [("audio", 1), ("image", 1), ("audio", 4), ("image", 2), ("thermal", 1)],
    [("event", 1), ("event", 1), ("point_cloud", 1), ("point_cloud", 1), ("point_cloud", 1)],
    [("image", 5), ("touch", 9)],
    [("image", 40), ("touch", 40)],  # more than the largest size
]


def test_embeds_as_the_plain_model_does_whatever_is_alive(tiny, rng):
    recorder = Recorder()
    fast = BatchedEncoders(tiny.encoders, CPU, recorder)
    for tick in (*TICKS, *reversed(TICKS)):  # buffers hold what is left of larger batches
        items = [views(tiny, name, rng, count) for name, count in tick]
        found = fast.embed(items)
        torch.testing.assert_close(found, tiny.embed(items), rtol=0, atol=2e-6)
    assert len(recorder.sizes) == len(set(recorder.sizes))  # nothing twice
    assert {shape[0] for shape in recorder.sizes} <= set(SIZES)


def test_what_is_prepared_is_not_recorded_again(tiny, rng):
    recorder = Recorder()
    fast = BatchedEncoders(tiny.encoders, CPU, recorder)
    fast.prepare([views(tiny, name, rng) for name in ("image", "touch", "audio", "text")])
    ready = list(recorder.sizes)
    assert [shape[0] for shape in ready] == [1, 2, 3, 4, 6, 8] * 2  # of the trunks for pictures and for sound
    fast.embed([views(tiny, "thermal", rng, 5), views(tiny, "audio", rng, 3)])
    assert recorder.sizes == ready


def test_a_broken_sensor_spoils_no_other(tiny, rng):
    fast = BatchedEncoders(tiny.encoders, CPU, Recorder())
    good, bad = views(tiny, "audio", rng, 2), views(tiny, "audio", rng, 2)
    bad[1][0, 0, 0] = np.nan
    wanted = tiny.embed([good])
    torch.testing.assert_close(fast.embed([good, bad])[0], wanted[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(fast.embed([good])[0], wanted[0], rtol=0, atol=2e-6)  # nor is it left over
    torch.testing.assert_close(fast.embed([views(tiny, "audio", rng), good])[1], wanted[0], rtol=0, atol=2e-6)


def test_what_cannot_be_recorded_runs_plainly_and_says_so_once(tiny, rng, caplog):
    fast = BatchedEncoders(tiny.encoders, CPU, refuse)
    for _ in range(3):
        items = [views(tiny, "image", rng), views(tiny, "thermal", rng, 2)]
        torch.testing.assert_close(fast.embed(items), tiny.embed(items), rtol=0, atol=2e-6)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "the trunk 'vision' runs without CUDA graphs: operation not permitted when stream is capturing",
    ]


def test_views_of_ever_new_shapes_do_not_fill_the_memory(tiny, rng, caplog, monkeypatch):
    monkeypatch.setattr(batches, "_MOST_SLOTS", 3)
    fast = BatchedEncoders(tiny.encoders, CPU, Recorder())
    for points in range(64, 70):
        items = [("point_cloud", rng.standard_normal((1, points, 3)).astype(np.float32))]
        wanted = tiny.encoders.embed("point_cloud", tiny.features("point", [items[0][1]]))
        torch.testing.assert_close(fast.embed(items), wanted, rtol=0, atol=2e-6)
    assert len(caplog.records) == 1


def test_input_at_fault_still_raises(tiny):
    fast = BatchedEncoders(tiny.encoders, CPU, Recorder())
    with pytest.raises(RuntimeError):
        fast.embed([("image", np.zeros((1, 2, 224, 224), np.uint8))])


# Precision


def test_a_verified_trunk_computes_in_half_precision_and_gives_float32(caplog, rng):
    caplog.set_level("INFO")
    model = build("tiny", skip=("point_cloud",))
    before = copy.deepcopy(model)
    found = lower(model.encoders, presets(model), "bfloat16", CPU)
    assert set(found) == {"vision", "audio"}  # no text
    assert all(precision == "bfloat16" and LEAST_COSINE <= cosine < 1 for precision, cosine in found.values())
    assert model.encoders.trunks["vision"].conv.weight.dtype == torch.bfloat16
    assert model.encoders.trunks["text"].words.weight.dtype == torch.float32
    assert model.encoders.heads["touch"].norm.weight.dtype == torch.float32
    items = [views(model, name, rng) for name in ("image", "touch", "audio", "text")]
    got, wanted = model.embed(items), before.embed(items)
    assert got.dtype == torch.float32
    assert not torch.equal(got[:3], wanted[:3])
    assert ((got * wanted).sum(dim=1) > 0.999).all()


class Rough(torch.nn.Module):
    """A head that makes much of little: where it stands, half precision is not enough."""

    def forward(self, features):
        return torch.sin(1e4 * features)


def test_a_trunk_whose_embeddings_differ_stays_in_float32(caplog):
    model = build("tiny")
    model.encoders.heads["thermal"] = Rough()
    found = lower(model.encoders, presets(model), "bfloat16", CPU)
    assert found["vision"][0] == "float32"
    assert found["vision"][1] < LEAST_COSINE
    assert found["audio"][0] == "bfloat16"
    assert model.encoders.trunks["vision"].conv.weight.dtype == torch.float32
    assert any("'vision' does not compute in bfloat16: the cosine of 'thermal'" in text for text in caplog.messages)


def test_a_trunk_that_knows_no_half_precision_stays_in_float32(caplog, monkeypatch):
    model = build("tiny")
    forward = type(model.encoders.trunks["vision"]).forward

    def only_float32(self, pictures):
        if self.conv.weight.dtype != torch.float32:
            raise RuntimeError('"conv" not implemented for BFloat16\nand more')
        return forward(self, pictures)

    monkeypatch.setattr(type(model.encoders.trunks["vision"]), "forward", only_float32)
    precision, cosine = lower(model.encoders, presets(model), "bfloat16", CPU)["vision"]
    assert precision == "float32"
    assert np.isnan(cosine)
    assert any("'vision' does not compute in bfloat16: \"conv\" not" in text for text in caplog.messages)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_on_a_cpu_nothing_changes(tiny_model, precision, rng):
    plain = OmniBind.from_pretrained(tiny_model)
    model = OmniBind.from_pretrained(tiny_model, precision=precision)
    for one, other in zip(plain.state_dict().values(), model.state_dict().values(), strict=True):
        assert one.dtype == other.dtype
    items = [views(plain, name, rng, 2) for name in ("image", "audio", "point_cloud", "event")]
    assert torch.equal(plain.embed(items), model.embed(items))


@pytest.mark.parametrize(("precision", "words"), [("half", "one of auto, float32"), ("float16", "a CPU does not")])
def test_precisions_that_are_refused(tiny_model, precision, words):
    with pytest.raises(ConfigError, match=f"precision is '?{precision}.*{words}"):
        OmniBind.from_pretrained(tiny_model, precision=precision)


# On a GPU


@pytest.fixture
def cuda(monkeypatch) -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by default, convolutions are as rough as float16
    return torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tiny", "imagebind_tiny"])
def test_graphs_embed_as_the_plain_model_does(name, cuda, rng, caplog):
    model = build(name).to(cuda)
    plain = copy.deepcopy(model)
    model.accelerate()
    kinds = [kind for kind in model.modalities if kind != "text"]
    for count in (1, 2, 1, 3):
        for some in (kinds, kinds[::-1], kinds[:2], kinds[2:]):
            items = [views(model, kind, rng, count) for kind in some]
            torch.testing.assert_close(model.embed(items), plain.embed(items).cpu(), rtol=0, atol=2e-5)
    assert not caplog.records, caplog.messages


@pytest.mark.gpu
def test_two_ticks_in_flight_do_not_mix(cuda, rng):
    from concurrent.futures import ThreadPoolExecutor

    model = build("tiny").to(cuda)
    plain = copy.deepcopy(model)
    model.accelerate()
    ticks = [[views(model, "image", rng), views(model, "audio", rng, 2)] for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.embed, ticks))
    for rows, items in zip(found, ticks, strict=True):
        torch.testing.assert_close(rows, plain.embed(items).cpu(), rtol=0, atol=2e-5)


@pytest.mark.gpu
def test_a_tick_with_a_text_and_a_moved_model(cuda, rng):
    model = build("tiny").to(cuda)
    model.accelerate()
    items = [views(model, "text", rng), views(model, "image", rng)]
    found = model.embed(items)
    model.to("cpu")  # what was recorded is forgotten
    torch.testing.assert_close(model.embed(items), found, rtol=0, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_half_precision_on_a_gpu(precision, cuda, rng):
    model = build("imagebind_tiny").to(cuda)
    plain = copy.deepcopy(model)
    model.accelerate(precision)
    lowered = {next(trunk.parameters()).dtype for name, trunk in model.encoders.trunks.items() if name != "text"}
    assert lowered & {torch.float16, torch.bfloat16}
    items = [views(model, kind, rng, 2) for kind in model.modalities if kind != "text"]
    got, wanted = model.embed(items), plain.embed(items).cpu()
    assert got.dtype == torch.float32
    assert ((got * wanted).sum(dim=1) > 0.999).all()


@pytest.mark.gpu
def test_recognised_on_a_gpu_as_on_a_cpu(tiny_model, cuda, rng, caplog):
    here, there = (OmniBind.from_pretrained(tiny_model, device, precision="float32") for device in ("cpu", cuda))
    kinds = ["image", "audio", "thermal"]
    there.warm_up(kinds)
    items = [views(here, kind, rng) for kind in kinds]
    for labels in (None, ["a cat", "a dog", "a drum"]):  # graphs of another vocabulary are others
        for model in (here, there) if labels else ():
            model.set_labels(labels)
        for count in (3, 1, 2, 3):
            one, other = (model.recognise(kinds[:count], model.embed(items[:count])) for model in (here, there))
            for name, value in vars(one).items():
                if name == "names":
                    assert other.names == value
                else:
                    np.testing.assert_allclose(getattr(other, name), value, atol=2e-4, err_msg=name)
    assert not caplog.records, caplog.messages


WAITS = """
import copy
import logging

import numpy as np
import torch

from omnibind_core import OmniBind, encoders, fusion

logging.basicConfig(format="%(message)s")
torch.backends.cudnn.allow_tf32 = False
config = encoders.load_config("tiny")
parts = fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
model = OmniBind(config, encoders.build(config, {"image", "audio"}), parts).to("cuda")
plain = copy.deepcopy(model)
trunk = model.encoders.trunks["vision"]
forward = trunk.forward
trunk.forward = lambda pictures: forward(pictures) * min(1, len(pictures) + forward(pictures).sum().item() ** 2)
model.accelerate()
rng = np.random.default_rng(0)
stream = torch.cuda.current_stream()
for count in (1, 2, 1):
    pictures = rng.integers(0, 256, (count, 3, 224, 224)).astype(np.uint8)
    items = [("image", pictures), ("audio", rng.standard_normal((count, 96, 64)).astype(np.float32))]
    torch.testing.assert_close(model.embed(items), plain.embed(items).cpu(), rtol=0, atol=2e-5)
    assert torch.cuda.current_stream() == stream
"""


@pytest.mark.gpu
def test_a_trunk_that_waits_for_the_gpu_falls_back(cuda):
    """In a process of its own, since a recording that fails leaves torch's random numbers on the GPU unusable."""
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("runs without CUDA graphs") == 1, done.stderr
    assert "the trunk 'vision' runs without CUDA graphs" in done.stderr
