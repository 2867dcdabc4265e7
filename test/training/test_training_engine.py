"""The training engine: killed and resumed, shared by processes, logged, stopped early, refused."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from omnibind_core import OmniBind, cli
from omnibind_core.config import parse
from omnibind_core.encoders.config import CONFIGS
from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.files import only_one
from omnibind_core.training import config as training_config
from omnibind_core.training.config import StageConfig, TrainConfig
from omnibind_core.training.engine import Stage, Trainer, launch, learning_rate
from omnibind_core.training.logs import Log, Table

pytest.importorskip("lightning_fabric", reason="training needs Lightning Fabric")
COMMAND = "from omnibind_core.cli import main; main()"
WORDS = ("cup", "dog", "car")


class Points(Stage):
    """Fits a line through dropout: as small as a stage can be."""

    def __init__(self, settings: StageConfig, figures: tuple[float, ...] = ()) -> None:
        super().__init__("points", settings)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.steps = settings.steps
        self.figures = list(figures)
        self.seen: list[np.ndarray] = []

    def draw(self, step: int, rng: np.random.Generator) -> Tensor:
        batch = torch.from_numpy(rng.standard_normal((self.settings.batch, 4)).astype(np.float32))
        self.seen.append(batch.numpy())
        return batch

    def encode(self, batch: Tensor, share: slice) -> Tensor:
        out: Tensor = self.net(batch[share].to(self.net[0].weight.device))
        return out

    def losses(self, embeddings: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (embeddings[:, 0] - batch.sum(dim=1).to(embeddings.device)).square().mean()}

    def validate(self) -> dict[str, float]:
        return {"score": self.figures.pop(0)} if self.figures else {}


class KilledError(Exception):
    pass


class Dies(Points):
    """Is interrupted at a step."""

    def subject(self, step: int) -> str:
        if step == 13:
            raise KilledError
        return ""


def weights(stage: Stage) -> list[Tensor]:
    return [value.clone() for value in stage.state_dict().values()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_resumed_at_any_step_ends_in_the_same_weights_and_log(tmp_path, accumulate):
    settings = StageConfig(steps=30, batch=8, checkpoint_every=5, accumulate=accumulate)
    whole = Points(settings)
    Trainer(7, folder=tmp_path / "whole", logger="csv").run(whole)
    with pytest.raises(KilledError):
        Trainer(7, folder=tmp_path / "parts", logger="csv").run(Dies(settings))
    continued = Points(settings)
    Trainer(7, folder=tmp_path / "parts", logger="csv", resume=True).run(continued)
    assert len(continued.seen) == 20 * accumulate  # steps 10 to 29
    assert same(weights(whole), weights(continued))
    logs = [rows(tmp_path / name / "log" / "points.csv") for name in ("whole", "parts")]
    assert [row["step"] for row in logs[1]] == [str(step) for step in range(1, 31)]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]
    other = Points(settings)
    Trainer(8).run(other)
    assert not same(weights(whole), weights(other))


def test_a_finished_stage_is_not_trained_again(tmp_path):
    settings = StageConfig(steps=4, batch=4)
    first = Points(settings)
    Trainer(folder=tmp_path).run(first)
    again = Points(settings)
    Trainer(folder=tmp_path, resume=True).run(again)
    assert again.seen == [] and same(weights(first), weights(again))


def test_a_checkpoint_of_another_experiment_is_refused_and_names_the_keys(tmp_path):
    settings = StageConfig(steps=4, batch=4)
    Trainer(folder=tmp_path, agreement={"align.lr": 0.1, "seed": 0}).run(Points(settings))
    with pytest.raises(ConfigError, match=r"points\.last\.ckpt.*align\.lr was 0\.1, is 0\.2\. "):
        Trainer(folder=tmp_path, agreement={"align.lr": 0.2, "seed": 0}, resume=True).run(Points(settings))


def test_a_broken_checkpoint_is_refused(tmp_path):
    settings = StageConfig(steps=4, batch=4)
    Trainer(folder=tmp_path).run(Points(settings))
    path = tmp_path / "checkpoints" / "points.last.ckpt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"points\.last\.ckpt"):
        Trainer(folder=tmp_path, resume=True).run(Points(settings))


def test_without_resume_old_checkpoints_and_logs_go(tmp_path, caplog):
    settings = StageConfig(steps=4, batch=4)
    Trainer(folder=tmp_path, logger="csv").run(Points(settings))
    (tmp_path / "checkpoints" / "another.last.ckpt").touch()
    with caplog.at_level("INFO"):
        Trainer(folder=tmp_path, logger="csv")
    assert "--resume" in caplog.text
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "log").exists()
    Trainer(folder=tmp_path, logger="csv").run(Points(settings))
    Trainer(folder=tmp_path)
    Trainer(folder=tmp_path)  # nothing is there to be kept
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    both = {f"earlier-{n}/{name}" for n in (1, 2) for name in ("checkpoints/points.last.ckpt", "log/points.csv")}
    assert kept == {*both, "earlier-1/checkpoints/another.last.ckpt"}


def test_patience_stops_and_keep_chooses_the_weights(tmp_path):
    figures = (0.5, 0.7, 0.6, 0.7, 0.9)
    settings = StageConfig(steps=50, batch=4, validate_every=10, patience=2, keep="best")
    best = Points(settings, figures)
    Trainer(folder=tmp_path, logger="csv").run(best)
    assert len(best.seen) == 40  # 0.7 at step 20, not better at 30 and 40
    log = rows(tmp_path / "log" / "points_validation.csv")
    assert [(row["step"], row["score"]) for row in log] == [("10", "0.5"), ("20", "0.7"), ("30", "0.6"), ("40", "0.7")]
    until = Points(settings, figures)
    until.steps = 50
    with pytest.raises(IndexError):  # what step 20 left, taken out
        Trainer().run(_Stops(until, 20))
    assert same(weights(best), weights(until))
    last = Points(settings.model_copy(update={"keep": "last"}), figures)
    Trainer().run(last)
    assert not same(weights(best), weights(last))


class _Stops(Points):
    """Another stage's weights and draws, given up at a step."""

    def __init__(self, stage: Points, step: int) -> None:
        super().__init__(stage.settings)
        self.net = stage.net
        self.until = step

    def subject(self, step: int) -> str:
        if step == self.until:
            raise IndexError
        return ""


def test_a_loss_that_is_not_finite_stops_with_a_hint(tmp_path):
    stage = Points(StageConfig(steps=20, batch=4))
    with torch.no_grad():
        stage.net[0].weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"loss is nan at step 1; .* smaller points\.lr"):
        Trainer(folder=tmp_path).run(stage)
    assert not (tmp_path / "checkpoints").exists()


def test_nothing_to_learn_is_skipped(tmp_path):
    stage = Points(StageConfig(steps=0, batch=4))
    Trainer(folder=tmp_path).run(stage)
    assert stage.seen == [] and not (tmp_path / "checkpoints").exists()


def test_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert np.diff(rates[10:]) == pytest.approx(-1 / 90)
    assert rates[-1] == pytest.approx(1 / 90)


def test_a_table_takes_new_columns_and_forgets_later_rows(tmp_path):
    table = Table(tmp_path / "log.csv", 0)
    table.write([{"step": 1, "a": 1}])
    table.write([{"step": 2, "a": 2, "b": 3}])
    assert rows(tmp_path / "log.csv") == [{"step": "1", "a": "1", "b": ""}, {"step": "2", "a": "2", "b": "3"}]
    Table(tmp_path / "log.csv", 1)
    assert rows(tmp_path / "log.csv") == [{"step": "1", "a": "1", "b": ""}]


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    Trainer(folder=tmp_path, logger="both").run(Points(StageConfig(steps=4, batch=4), (0.1,)))
    assert list((tmp_path / "log" / "tensorboard").glob("events*"))
    assert len(rows(tmp_path / "log" / "points.csv")) == 4


def test_tensorboard_takes_figures_with_spaces_in_their_names(tmp_path, caplog):
    pytest.importorskip("tensorboardX")
    caplog.set_level("INFO")
    with Log(tmp_path, "tensorboard", "fuse", 1, quiet=True) as log:
        log.validated(1, {"2 modalities": 0.5}, 0.1)
    assert "illegal" not in caplog.text
    written = b"".join(file.read_bytes() for file in (tmp_path / "log" / "tensorboard").glob("events*"))
    assert b"fuse/validation/2_modalities" in written


def test_bf16_trains(tmp_path):
    stage = Points(StageConfig(steps=200, batch=32, lr=0.01))
    Trainer(fabric=launch("cpu", precision="bf16-mixed"), folder=tmp_path, logger="csv").run(stage)
    losses = [float(row["loss"]) for row in rows(tmp_path / "log" / "points.csv")]
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])
    assert all(value.dtype == torch.float32 for value in stage.state_dict().values())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resumed_on_a_gpu_ends_in_the_same_weights(tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    settings = StageConfig(steps=30, batch=64, checkpoint_every=5)
    fabric = launch("cuda", precision=precision)
    whole, continued = Points(settings), Points(settings)
    Trainer(7, fabric, tmp_path / "whole").run(whole)
    with pytest.raises(KilledError):
        Trainer(7, fabric, tmp_path / "parts").run(Dies(settings))
    Trainer(7, fabric, tmp_path / "parts", resume=True).run(continued)
    assert weights(whole)[0].is_cuda and same(weights(whole), weights(continued))


# ------------------------------------------------------------------------------------------- through the command line


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Features of three concepts by four modalities: a ``samples.csv`` tree, images small enough to be instant."""
    import cv2

    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    lines = []
    for split, count in (("train", 5), ("val", 2)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                stem = f"{split}-{word}-{number}"
                image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                image[..., index] = 220
                cv2.imwrite(str(root / f"{stem}.png"), image)
                cloud = rng.uniform(-1, 1, (64, 3)) * [(1, 1, 1), (1, 1, 0.1), (1, 0.1, 0.1)][index]
                np.savez(root / f"{stem}.npz", points=cloud.astype(np.float32))
                for modality, suffix in (("image", "png"), ("thermal", "png"), ("point_cloud", "npz")):
                    lines.append((f"{modality}-{stem}", modality, "made", f"{stem}.{suffix}", word, split, stem))
    with (root / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        writer.writerows(lines)
    (root / "labels.csv").write_text(
        "source,label,canonical,score,reason\n" + "".join(f"made,{word},{word},1.0,same word\n" for word in WORDS)
    )
    return root


@pytest.fixture(scope="module")
def experiment(tree, tmp_path_factory):
    """A config file, without dropout."""
    folder = tmp_path_factory.mktemp("experiment")
    settings = {
        "model": "tiny",
        "data": str(tree),
        "labels": str(tree / "labels.csv"),
        "out": str(folder / "out"),
        "device": "cpu",
        "augmentations": 1,
        "image_text": {"steps": 20, "batch": 15},
        "align": {"steps": 40, "batch": 15, "checkpoint_every": 2, "per_student": {"point_cloud": {"steps": 20}}},
        "fuse": {"steps": 20, "batch": 33},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of sub-processes; this one gets the same, so that all compute the same bits."""
    own = {"OMNIBIND_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LT_", "TORCHELASTIC"))}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", own["OMNIBIND_CACHE"])
        yield {**kept, **own, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    torch.set_num_threads(threads)


def arguments(path: Path, stage: str, *settings: str) -> list[str]:
    return ["train", stage, "--config", str(path), *(word for text in settings for word in ("--set", text))]


def train(path: Path, stage: str, *settings: str, resume: bool = False) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments(path, stage, *settings), *(["--resume"] if resume else [])])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def alone(experiment, environment):
    """Both stages by one process, uninterrupted."""
    assert train(experiment, "align") == 0
    assert train(experiment, "fuse") == 0
    return experiment.parent / "out"


def test_killed_and_resumed_ends_in_the_same_bytes(alone, experiment, environment, tmp_path, capsys, caplog):
    out = tmp_path / "out"
    checkpoint = out / "align" / "checkpoints" / "align.last.ckpt"
    command = [sys.executable, "-c", COMMAND, *arguments(experiment, "align", f"out={out}")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert 0 < torch.load(checkpoint, weights_only=True)["progress"]["step"] < 60
    with caplog.at_level("INFO"):
        assert train(experiment, "align", f"out={out}", resume=True) == 0
    assert "continuing" in caplog.text
    for name in ("model.safetensors", "labels.json", "config.json"):
        assert (out / "align" / name).read_bytes() == (alone / "align" / name).read_bytes(), name
    steps = [int(row["step"]) for row in rows(out / "align" / "log" / "align.csv")]
    assert steps == list(range(1, 61))
    assert train(experiment, "align", f"out={out}", "align.lr=0.5", "fuse.lr=0.5", resume=True) == 2
    error = capsys.readouterr().err
    assert "align.lr was 0.001, is 0.5" in error and "fuse.lr" not in error


def test_a_second_run_into_the_same_folder_is_refused(experiment, environment, tmp_path, capsys):
    with only_one(tmp_path):
        assert train(experiment, "align", f"out={tmp_path}") == 2
        assert train(experiment, "fuse", f"out={tmp_path}", resume=True) == 2
    assert capsys.readouterr().err.count(f"omnibind: another process writes {tmp_path}: expected") == 2
    assert not list(tmp_path.iterdir())


def one_curve(alone: Path, out: Path) -> None:
    for name in ("image_text", "align"):
        one, two = (rows(folder / "align" / "log" / f"{name}.csv") for folder in (alone, out))
        assert [row["student"] for row in one] == [row["student"] for row in two]
        for term in ("loss", "contrastive", "cross", "self") if name == "align" else ("loss",):
            curves = ([float(row[term]) for row in log] for log in (one, two))
            np.testing.assert_allclose(*curves, atol=1e-5, err_msg=f"{name}: {term}")


def test_two_processes_of_torchrun_train_as_one(alone, experiment, environment, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python"]
    torchrun += ["--log-dir", str(tmp_path / "torchrun")]  # by itself it leaves a folder in /tmp
    command = [*torchrun, sys.executable, "-c", COMMAND, *arguments(experiment, "align", f"out={tmp_path}")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stage I done") == 1
    one_curve(alone, tmp_path)


@pytest.mark.slow
def test_two_processes_of_our_own_train_as_one(alone, experiment, environment, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(COMMAND)
    command = [sys.executable, str(script), *arguments(experiment, "align", f"out={tmp_path}", "devices=2")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one_curve(alone, tmp_path)


def test_another_seed_draws_other_batches_of_the_same_features(alone, experiment, environment, tmp_path):
    cache = Path(environment["OMNIBIND_CACHE"])
    before = sorted(cache.rglob("*.safetensors"))
    assert train(experiment, "align", f"out={tmp_path}", "seed=5", "align.steps=2") == 0
    assert sorted(cache.rglob("*.safetensors")) == before
    first, second = (rows(folder / "align" / "log" / "image_text.csv") for folder in (alone, tmp_path))
    assert [row["loss"] for row in first] != [row["loss"] for row in second]


def test_start_leaves_everything_else_as_it_is(alone, experiment, environment, tmp_path):
    start = alone / "model"
    config = json.loads((CONFIGS / "tiny.json").read_text())
    config["trunks"]["ears"] = config["trunks"]["audio"]
    model = tmp_path / "model.json"
    model.write_text(json.dumps(config))
    settings = (f"start={start}", f"model={model}", f"out={tmp_path}", "align.students=[thermal]", "align.steps=5")
    assert train(experiment, "align", *settings) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "align"))
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(key.startswith("encoders.heads.thermal.") for key in changed)
    for name in ("calibration.json", "labels.json"):
        assert (start / name).read_bytes() == (tmp_path / "align" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"embed_dim": 16}, (), "embed_dim is 16, that of .* is 32"),
        ({}, ("align.students=[touch]",), r"align\.students has 'touch', expected some of .* thermal, point_cloud"),
        ({}, ("align.per_student={text: {lr: 1}}",), r"align\.per_student\.text: a teacher"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(alone, experiment, tmp_path, capsys, change, settings, message):
    model = tmp_path / "model.json"
    model.write_text(json.dumps({**json.loads((CONFIGS / "tiny.json").read_text()), **change}))
    assert train(experiment, "align", f"start={alone / 'model'}", f"model={model}", f"out={tmp_path}", *settings) == 2
    assert re.search(message, capsys.readouterr().err)


def test_labels_that_start_lacks_are_added_at_the_end(alone, experiment, environment, tree, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text((tree / "labels.csv").read_text().replace("made,car,car", "made,car,truck"))
    settings = (f"start={alone / 'model'}", f"labels={labels}", f"out={tmp_path}", "align.steps=2", "model=null")
    assert train(experiment, "align", *settings) == 0
    old, new = (OmniBind.from_pretrained(folder).labels for folder in (alone / "model", tmp_path / "align"))
    assert new.names == (*old.names, "truck")
    assert torch.equal(new.rows[: len(old.rows)], old.rows)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("align.patience=2 align.validate_every=0", r"align.*validate_every is 0"),
        ("align.per_student.touch.lr=0", r"align\.per_student\.touch\.lr"),
        ("align.keep=first", r"align\.keep"),
        ("image_text.steps=-1", r"image_text\.steps"),
        ("precision=fp16", "precision"),
        ("logger=wandb", "logger"),
    ],
)
def test_wrong_settings_name_the_key(override, message):
    with pytest.raises(ConfigError, match=message):
        training_config.load("lite", override.split())


def test_the_experiment_of_the_paper_has_the_values_of_its_table_10():
    """Batch, learning rate and epochs of touch, thermal, event and AF; one student after the other; CLS negatives."""
    config = training_config.load("paper_table10")
    samples = 5120
    for name, batch, rate in (("touch", 512, 5e-4), ("thermal", 256, 1e-3), ("event", 128, 5e-4)):
        assert config.align.batch_of(name, 10_000) == batch
        assert config.align.lr_of(name) == rate
        assert config.align.steps_of(name, samples) == 20 * samples // batch
    assert config.align.order == "sequential"
    assert config.align.imagined == {} and config.descriptions == "none"
    assert (config.fuse.batch, config.fuse.lr, config.fuse.steps) == (512, 1e-3, round(10 * 50_080 / 512))
    assert config.fuse.fusion == {"preset": "paper"} and config.fuse.negatives == "wrong"
    assert config.fuse.damage == 0 and config.fuse.conflict == 0
    assert config.align.weight_decay == config.fuse.weight_decay == 0.01


@pytest.mark.parametrize("name", ["lite", "lite2", "paper_table10"])
def test_shipped_experiments_are_valid(name):
    config = training_config.load(name)
    assert config.align.batch_of("touch", 10_000) == (512 if name == "paper_table10" else 256)
    assert config.align.steps_of("event", 1280) == (200 if name == "paper_table10" else 600)
    assert config.align.lr_of("event") == (0.0005 if name == "paper_table10" else 0.001)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tie.steps=1", "'tie' is now 'image_text'"),
        ("fuse.lie=0.4", "'fuse.lie' is now 'fuse.conflict'"),
    ],
)
def test_former_names_of_keys_are_refused_with_the_new_ones(override, message):
    with pytest.raises(ConfigError, match=message) as refused:
        training_config.load("lite", [override])
    assert "got {" not in str(refused.value)  # not all of the settings
    key, _, value = override.partition("=")
    stage, _, setting = key.partition(".")
    with pytest.raises(ConfigError, match=rf"model/train\.yaml: .*{message}"):  # as a trained model has it
        parse(TrainConfig, {"data": "made", stage: {setting: float(value)}}, "model/train.yaml")


def test_checkpoints_of_a_former_version_are_refused(tmp_path):
    settings = StageConfig(steps=2, batch=2)
    Trainer(folder=tmp_path, agreement={"tie.steps": 3}).run(Points(settings))
    with pytest.raises(ConfigError, match="'tie' is now 'image_text'"):
        Trainer(folder=tmp_path, agreement={"image_text.steps": 3}, resume=True).run(Points(settings))
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "points.last.ckpt").rename(checkpoints / "tie.last.ckpt")
    photos = Points(settings)
    photos.name = "image_text"
    with pytest.raises(ConfigError, match=r"tie\.last\.ckpt: 'tie' is now 'image_text'; train without --resume"):
        Trainer(folder=tmp_path, resume=True).run(photos)
