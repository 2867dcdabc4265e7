"""Both stages, predict and the streaming engine with a tiny model of each family; only the config's name differs."""

from __future__ import annotations

import csv
import json
import time

import cv2
import numpy as np
import pytest
import soundfile
import yaml
from domains import any_domain

from omnibind_core import OmniBind, cli, modalities
from omnibind_core.runtime import PerceptionEngine, SensorConfig

WORDS = ("cup", "dog", "car")
CONFIGS = ("imagebind_tiny", "point_bind_tiny", "open_clip_tiny")
S = 1_000_000_000


def picture(index: int, rng: np.random.Generator) -> np.ndarray:
    image = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
    image[:, 16 * index : 16 * index + 16] += 180
    return image


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A ``samples.csv`` tree of four modalities, every file real."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 4), ("val", 2)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                stem = f"{split}-{word}-{number}"
                for kind in ("image", "touch"):
                    cv2.imwrite(str(root / f"{kind}-{stem}.png"), picture(index, rng))
                tone = np.sin(2 * np.pi * 200 * 4**index * np.arange(8000) / 16000)
                soundfile.write(root / f"audio-{stem}.wav", tone.astype(np.float32), 16000)
                points = rng.uniform(-1, 1, (256, 3)) * [(1, 1, 1), (1, 1, 0.1), (1, 0.1, 0.1)][index]
                np.savez(root / f"point_cloud-{stem}.npz", points=points.astype(np.float32))
                for kind, suffix in (("image", "png"), ("touch", "png"), ("audio", "wav"), ("point_cloud", "npz")):
                    path = f"{kind}-{stem}.{suffix}"
                    rows.append((path, kind, "made", path, word, split, f"{split}-{number}"))
    with (root / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        writer.writerows(rows)
    (root / "labels.csv").write_text(
        "source,label,canonical,score,reason\n" + "".join(f"made,{word},{word},1.0,same word\n" for word in WORDS)
    )
    return root


def run(*argv: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 0


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, tree, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    settings = {
        "model": request.param,
        "data": str(tree),
        "labels": str(tree / "labels.csv"),
        "out": str(out),
        "augmentations": 0,
        "align": {"steps": 60, "batch": 12, "lr": 0.01},
        "fuse": {"steps": 20, "batch": 16},
    }
    (out / "experiment.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        for stage in ("align", "fuse"):
            run("train", stage, "--config", str(out / "experiment.yaml"))
    return out / "model"


def test_students_learn_on_the_image_trunk(trained):
    figures = json.loads((trained / "figures.json").read_text())
    assert figures["single"]["touch"]["top1"] >= 0.8, figures["single"]
    assert len(figures["combinations"]) >= 3


def test_predict_names_what_a_file_shows(trained, tree, capsys):
    run("predict", "--model", str(trained), "--touch", str(tree / "touch-val-dog-0.png"), "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["inputs"][0]["label"] == "dog"


def test_engine_runs_the_trained_model(trained, tree):
    model = OmniBind.from_pretrained(trained)
    sensors = [SensorConfig("skin", "touch"), SensorConfig("camera", "image"), SensorConfig("lidar", "point_cloud")]
    engine = PerceptionEngine(model, sensors, lambda sensor, payload: payload)
    for sensor, kind, suffix in (("skin", "touch", "png"), ("camera", "image", "png"), ("lidar", "point_cloud", "npz")):
        engine.push(sensor, S, S, modalities.get(kind).load(tree / f"{kind}-val-car-0.{suffix}"))
    prediction = engine.tick(S)
    assert [share.name for share in prediction.sensors] == ["skin", "camera", "lidar"]
    assert sum(share.weight for share in prediction.sensors) == pytest.approx(1, abs=1e-5)


def test_eval_reports_on_the_trained_model(trained, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    settings = ("--split", "val", "--count", "60", "--tables", "combinations", "single")
    run("eval", "--model", str(trained), "--data", str(tree), *settings, "--out", str(tmp_path / "report"))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["schema"] == "omnibind-report/1"
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.ros
def test_the_node_perceives_with_the_trained_model(trained, tree):
    """A real fusion node, configured and activated, and one picture through DDS."""
    rclpy = pytest.importorskip("rclpy")
    fusion_node = pytest.importorskip("omnibind_ros.node.fusion_node")
    from omnibind_ros.msg import Prediction
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image

    given = {"model": trained, "sensors": "[skin]", "skin.type": "touch", "skin.topic": "skin", "skin.window": 5.0}
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=any_domain())
    executor = SingleThreadedExecutor(context=context)
    words = [word for key, value in given.items() for word in ("-p", f"{key}:={value}")]
    node = fusion_node.FusionNode(context=context, cli_args=["--ros-args", *words])
    driver = rclpy.create_node("driver", context=context)
    heard: list[Prediction] = []
    driver.create_subscription(Prediction, "omnibind/prediction", heard.append, 10)
    publisher = driver.create_publisher(Image, "skin", 10)
    pixels = cv2.imread(str(tree / "touch-val-dog-0.png"))
    message = Image(height=48, width=48, encoding="bgr8", step=144, data=pixels.tobytes())
    try:
        assert node.trigger_configure() == node.trigger_activate()
        for one in (node, driver):
            executor.add_node(one)
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            message.header.stamp = driver.get_clock().now().to_msg()
            publisher.publish(message)
            executor.spin_once(timeout_sec=0.1)
        assert heard and heard[-1].labels[0] == "dog"
    finally:
        executor.shutdown()
        node.destroy_node()
        driver.destroy_node()
        rclpy.shutdown(context=context)
