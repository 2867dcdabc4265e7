"""What a family of encoders is: the trunks that a model config can name, and how they get their weights.

A family is a folder or module beside this one, and one line in ``families.py``. For each kind of trunk it has

* a schema derived from :class:`TrunkConfig`, with ``type`` a literal string: its fields are what a model config says of
  the trunk. ``build`` imports the trunk's class when it is called, never before, and returns a
  :class:`~omnibind_core.encoders.base.Trunk` or :class:`~omnibind_core.encoders.base.TextTower`;
* if the weights are in a file that the user has, a schema derived from :class:`FileTrunkConfig`, whose ``state`` picks
  the trunk's tensors out of that file, by a pure function in ``convert.py``.

Everything else is common: finding and opening the file, checking names and shapes before memory is spent, precision,
saving, loading, and the heads.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from omnibind_core.config import Config
from omnibind_core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from omnibind_core.encoders.base import TextTower, Trunk

WEIGHTS_VARIABLE = "OMNIBIND_WEIGHTS"
"""Environment variable with the folder in which files of weights and vocabularies are looked for."""

Precision = Literal["float32", "bfloat16", "float16"]


class TrunkConfig(Config):
    """What a model config says of a trunk.

    Attributes:
        type: Kind of trunk; a literal string in every schema.
    """

    type: str

    @abstractmethod
    def build(self) -> Trunk | TextTower:
        """Makes the trunk, with packaged weights if it has them, at random otherwise.

        Raises:
            MissingDependencyError: A package that is needed is not installed.
            WeightsError: A packaged file is not the known one.
        """


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

    @abstractmethod
    def state(self, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of the trunk that :meth:`build` makes.

        Args:
            checkpoint: Tensors by their names in the file. Each is read from disk when it is used, not before.

        Raises:
            WeightsError: The file is of another family, or lacks this trunk; says what was found.
        """

    def head_state(self, checkpoint: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
        """The trained ``linear`` head of a modality, if the file has one: ``weight`` and ``bias``, else nothing."""
        return {}


class Family(NamedTuple):
    """A family of encoders.

    Attributes:
        schemas: Kinds of trunk.
        licence: Of weights that the user brings, for those who are about to use them; empty if there are none.
    """

    schemas: tuple[type[TrunkConfig], ...]
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
