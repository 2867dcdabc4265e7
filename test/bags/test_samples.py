"""``omnibind bag samples``: what is cut out of a bag is what a sensor saw in the interval that its label is from."""

from __future__ import annotations

import numpy as np
import pytest

from omnibind_core import cli, modalities
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.modalities import Sound

pytest.importorskip("rosbags.rosbag2")

from omnibind_ros.bags import scene_bag, types, write
from omnibind_ros.replay import samples

S = 1_000_000_000


def omnibind(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bag", "samples", *map(str, arguments)])
    return ended.value.code


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Touch pictures at 10 Hz for 4 s, the number of each in its pixels."""
    path = tmp_path_factory.mktemp("bag") / "day"
    with write.BagWriter(path) as writer:
        for number in range(40):
            time_ns = scene_bag.EPOCH_NS + number * S // 10
            picture = scene_bag.image_fields(np.full((28, 50), 5 * number, np.uint8), "mono8")
            writer.write(
                "/tactile/image_raw", scene_bag.IMAGE, time_ns, types.message(scene_bag.IMAGE, picture, time_ns)
            )
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "truth.csv"
    path.write_text("start_s,end_s,label,bag\n0,2,cup,day\n2,3.9,dog,day\n0,4,car,another\n")
    return path


def test_moments_lie_in_their_interval_and_stay_together(bag, table, tmp_path, capsys):
    out = tmp_path / "out"
    assert omnibind(bag, "--labels", table, "--moments", 3, "--settle", 0.5, "--out", out) == 0
    output = capsys.readouterr()
    assert "touch           6 samples of 2 labels" in output.out
    assert output.err.count("nothing to say: no contact") == 1 and "day: 6 samples of tactile are doubted" in output.err
    source = FolderSource(out)
    found = source.samples()
    assert [one.label for one in found] == ["cup"] * 3 + ["dog"] * 3
    assert {(one.modality, one.source, one.split) for one in found} == {("touch", "day", "train")}
    assert [one.group for one in found] == ["day-0"] * 3 + ["day-1"] * 3
    assert len({one.pair for one in found}) == 6
    seen = [float(np.max(source.load(one))) for one in found]  # the number of the picture
    step = seen[1] - seen[0]
    assert seen == sorted(seen)
    assert step > 0
    assert max(seen[:3]) < seen[3] - step  # half a second after the change is left out


def test_a_part_of_an_interval_is_a_group_of_its_own(bag, table, tmp_path):
    cut = samples.write([bag], tmp_path / "out", table, moments=4, parts=2)
    assert cut.counts == {("touch", "cup"): 4, ("touch", "dog"): 4}
    groups = [one.group for one in FolderSource(tmp_path / "out").samples()]
    assert groups == ["day-0.0"] * 2 + ["day-0.1"] * 2 + ["day-1.0"] * 2 + ["day-1.1"] * 2


def test_sensors_of_a_moment_are_a_pair_and_no_window_reaches_into_the_scene_before(tmp_path):
    rate = 16000
    sound = {level: Sound(np.full(4 * rate, 0.01 * level, np.float32), rate) for level in (10, 40)}
    scenes = [
        scene_bag.SceneData(
            label,
            {
                "touch": np.full((28, 50), level, np.uint8),
                "audio": sound[level],
            },
            frozenset(),
            dict.fromkeys(("touch", "audio"), "test"),
        )
        for label, level in (("cup", 10), ("dog", 40))
    ]
    path = tmp_path / "bag"
    scene_bag.write(path, path / "truth.csv", scenes, duration=4.0)
    samples.write([path], tmp_path / "out", moments=8, settle=0.0)
    source = FolderSource(tmp_path / "out")
    sounds = source.samples(modality="audio")
    pressed = {one.pair for one in source.samples(modality="touch")}
    assert sounds
    assert {one.pair for one in sounds} <= pressed
    assert len(sounds) < len(pressed)
    window = modalities.get("audio").default_window
    for one in sounds:
        raw = source.load(one)
        assert abs(raw.duration - window) < 0.21
        assert np.ptp(raw.samples) < 0.05  # of one scene


def test_what_cannot_be_cut_is_told_and_nothing_is_left(bag, tmp_path, capsys):
    out, table = tmp_path / "out", tmp_path / "late.csv"
    table.write_text("start_s,end_s,label\n0.0,0.05,cup\n")
    assert omnibind(bag, "--labels", table, "--out", out) == 2
    assert "no sensor has usable data in any interval of day" in capsys.readouterr().err
    for arguments, message in (
        (("--parts", 5), "--parts is 5, expected 1 to --moments, 4"),
        (("--moments", 0), "--moments is 0"),
        (("--settle", -1), "--settle is -1.0"),
    ):
        assert omnibind(bag, "--labels", table, "--out", out, *arguments) == 2
        assert message in capsys.readouterr().err
    assert omnibind(bag, bag, "--labels", table, "--out", out) == 2
    assert "two bags have the same name" in capsys.readouterr().err
    assert not out.exists()
