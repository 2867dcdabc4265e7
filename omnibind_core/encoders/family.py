"""The interface of a family of encoders: the trunks that a model config can name, and how they get their weights.

A family is a folder beside this module, and one line in ``registry.py``. It has

* ``config.py``: for each type of trunk a schema derived from :class:`TrunkConfig`, with ``type`` a literal string, or
  from :class:`FileTrunkConfig` if the weights are in a file that the user has. Its fields are what a model config says
  of the trunk; it does nothing;
* the networks, each a :class:`~omnibind_core.encoders.base.Trunk` or :class:`~omnibind_core.encoders.base.TextTower`,
  and in ``convert.py`` pure functions that pick the tensors of one out of a file;
* ``family.py``: the :class:`Family` that says which schema makes which network, as one :class:`TrunkType` each.

Everything else is common: finding and opening the file, checking names and shapes before memory is spent, precision,
saving, loading, and the heads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from omnibind_core.config import Config
from omnibind_core.encoders.base import TextTower, Trunk
from omnibind_core.errors import WeightsError

WEIGHTS_VARIABLE = "OMNIBIND_WEIGHTS"
"""Environment variable with the folder in which files of weights and vocabularies are looked for."""

Precision = Literal["float32", "bfloat16", "float16"]


class TrunkConfig(Config):
    """What a model config says of a trunk.

    Attributes:
        type: Name of the type of trunk; a literal string in every schema.
    """

    type: str


class FileTrunkConfig(TrunkConfig):
    """A trunk whose weights are in a file that the user has.

    Attributes:
        weights: The file or folder, see :func:`weights_path`; None for that of the whole
            model. Without either the trunk starts at random and is saved with the model.
        precision: In which the weights are kept and used; a file of another precision is converted. None for that of
            the file, float32 without one. A CPU does not compute in float16.
    """

    weights: str | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class TrunkType:
    """A type of trunk.

    Attributes:
        config: Its schema.
        make: Settings to the trunk, with packaged weights if it has them, at random otherwise. Raises
            MissingDependencyError where a package that is needed is not installed, WeightsError where a packaged file
            is not the known one.
        state: Settings and a file's tensors by their names there to the state dict of the trunk; None if no file has
            its weights. Each tensor is read from disk when it is looked up, not before. Raises WeightsError where the
            file is of another family, or lacks this trunk, saying what was found.
        head_state: A file's tensors and a modality to its trained ``linear`` head, ``weight`` and ``bias``, or nothing;
            None if no file of this type has heads.
    """

    config: type[TrunkConfig]
    make: Callable[[Any], Trunk | TextTower]
    state: Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    head_state: Callable[[Mapping[str, Tensor], str], dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class Family:
    """A family of encoders.

    Attributes:
        trunks: Its types of trunk.
        licence: Of weights that the user brings, for those who are about to use them; empty if there are none.
    """

    trunks: tuple[TrunkType, ...]
    licence: str = ""


def weights_path(source: str) -> Path:
    """Where a file or folder is that a model config names: weights, or a vocabulary.

    Args:
        source: An absolute path, or one relative to the working directory or to the folder
            :data:`WEIGHTS_VARIABLE` of the environment. In that folder, its last part is enough.

    Raises:
        WeightsError: It is at none of these places; names them.
    """
    folder = os.environ.get(WEIGHTS_VARIABLE)
    # By its name alone, too: a model that was trained elsewhere names the place where the file was there.
    shelf = [] if not folder else [Path(folder).expanduser() / name for name in (source, Path(source).name)]
    places = list(dict.fromkeys([Path(source).expanduser(), *shelf]))
    for place in places:
        if place.exists():
            return place
    tried = " or ".join(str(place.absolute()) for place in places)
    raise WeightsError(
        f"nothing at {tried}: it is not shipped (docs/backbones.md says where to get them). Give "
        f"the path in the model config, or put it into the folder that {WEIGHTS_VARIABLE} names in the environment"
    )
