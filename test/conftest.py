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


# Groups that begin first, in this order: those that mostly wait, then those that compute longest, so that none is left
# alone at the end.
FIRST = (
    "test_faults",
    "nodes",
    "test_evaluation",
    "test_exported",
    "test_packaging",
    "test_bag_eval",
    "test_training_engine",
    "test_comparison",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stays together where tests run side by side: a file, for its fixtures; nodes, for the sake of the machine.

    Nodes are files of which every test needs ROS. Those with faults have a worker of their own.
    """
    turns = {}
    for item in items:
        group, module = item.path.stem, item.getparent(pytest.Module)
        if module and any(mark.name == "ros" for mark in module.own_markers) and group != "test_faults":
            group = "nodes"
        item.add_marker(pytest.mark.xdist_group(group))
        turns[item] = FIRST.index(group) if group in FIRST else len(FIRST)
    items.sort(key=turns.__getitem__)


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
