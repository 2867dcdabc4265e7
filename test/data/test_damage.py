"""Damaged samples: every kind of every sensor, the same twice, still good input for the encoders."""

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.data import damage
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import ConfigError

SENSORS = ("image", "touch", "thermal", "event", "point_cloud", "audio")


@pytest.mark.parametrize("name", SENSORS)
def test_each_kind_gives_input_for_the_encoder_that_depends_on_sample_kind_and_seed(shared_data, name):
    source = FolderSource(shared_data)
    first, second = source.samples(split="val", modality=name)[:2]
    kind = modalities.get(name)
    assert damage.NOISE in damage.damages(name)
    for what in damage.damages(name):
        one = kind.process(kind.check(damage.Damaged(source, what, 0).load(first), "test"), kind.preset())
        again = kind.process(damage.Damaged(source, what, 0).load(first), kind.preset())
        assert np.array_equal(one, again)
        assert not np.array_equal(one, kind.process(source.load(first), kind.preset()))
    noise = [
        kind.process(damage.Damaged(source, damage.NOISE, s).load(x), kind.preset())
        for s, x in ((0, first), (1, first), (0, second))
    ]
    assert not np.array_equal(noise[0], noise[1]) and not np.array_equal(noise[0], noise[2])


def test_an_unknown_kind_is_refused(shared_data):
    source = FolderSource(shared_data)
    sample = source.samples(split="val", modality="audio")[0]
    with pytest.raises(ConfigError, match="no corruption 'rust'"):
        damage.Damaged(source, "rust", 0).load(sample)
