"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws from the global generator of torch does not depend on the tests before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(2405)  # not 0, which the tests seed their own generators with


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stays together where tests run side by side: a file, for its fixtures; nodes, for the sake of the machine.

    Those that mostly wait begin first, and those with faults have a worker of their own.
    """
    for item in items:
        group = item.path.stem
        if item.get_closest_marker("ros") and group != "test_faults":
            group = "nodes"
        item.add_marker(pytest.mark.xdist_group(group))
    first = ["test_faults", "nodes"]
    items.sort(key=lambda item: [*first, ""].index(group) if (group := _group(item)) in first else len(first))


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return "" if marker is None else str(marker.args[0])


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real sensor data in the ``samples.csv`` format."""
    root = Path(os.environ.get("OMNIBIND_DATA", REPO.parent / "shared" / "data"))
    if not (root / "samples.csv").is_file():
        pytest.skip(f"no real sensor data: {root / 'samples.csv'} is missing; set OMNIBIND_DATA")
    return root


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved model that is small and knows nothing."""
    import torch

    from omnibind_core import OmniBind, encoders, fusion

    folder = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(0)
    config = encoders.load_config("tiny")
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(("cup", "dog", "car", "rain"))
    model.save_pretrained(folder)
    return folder
