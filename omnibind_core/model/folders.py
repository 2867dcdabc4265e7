"""Where saved models lie, and what tells them from others. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnibind_core import modalities, resources
from omnibind_core.config import read_mapping
from omnibind_core.encoders.inference.parts import MANIFEST, code_digest
from omnibind_core.errors import ConfigError

WEIGHTS = resources.path("weights")
"""Models that come with the package, one folder each."""
CONFIG = "config.json"
MODEL = "model.safetensors"
LABELS = "labels.json"
CALIBRATION = "calibration.json"
DIGEST = "digest.json"
"""Of each file of a saved model, a hash of what it says: files of two models are not one."""
FILES = (DIGEST, CONFIG, MODEL, LABELS, CALIBRATION)
"""What a saved model is; the first tells what the others have to be."""
HOME = "home.safetensors"
"""What its encoders were trained on, see :func:`omnibind_core.features.adaptation.save_homes`."""
TRAINED = (HOME, "labels.csv", "train.yaml", "figures.json")
"""What a training writes beside it."""
EXPORTED = "exported"
"""Folder in that of a model where ``omnibind export`` may put its parts, to be found with it."""


def available() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CONFIG}")))


def model_folder(source: str | Path) -> Path:
    """Folder of a saved model, by the name of one that comes with the package or by its own path.

    Args:
        source: Name or path.

    Raises:
        ConfigError: No such model.
    """
    for folder in _places(source):
        if (folder / CONFIG).is_file():
            return folder
    raise ConfigError(
        f"no model '{source}': expected a folder with {CONFIG}, or one of {', '.join(available()) or 'none shipped'}"
    )


def _places(source: str | Path) -> tuple[Path, ...]:
    """Where a model may be, in turn: what has a separator is a path, not a name."""
    named = (WEIGHTS / str(source),) if str(source) == Path(source).name else ()
    return (*named, Path(source).expanduser())


def is_export(source: str | Path) -> bool:
    """Whether it is a folder of exported parts that is a model by itself; names of shipped models come first."""
    places = _places(source)
    return (places[-1] / MANIFEST).is_file() and not any((place / CONFIG).is_file() for place in places)


def identity(folder: Path) -> dict[str, Any]:
    """What an export has to be of, to answer as a model does: model, code, and plug-ins that it uses.

    Raises:
        ConfigError: The folder is not whole.
    """
    own = {name: modalities.fingerprint(name) for name in saved_modalities(folder) if name not in modalities.NAMES}
    return {"model": answer_digest(folder), "code": code_digest(), "plugins": own}


def embedding_digest(folder: Path) -> str:
    """Hash of everything that shapes the embeddings."""
    return _hash(folder, (CONFIG, MODEL))[:8]


def answer_digest(folder: Path) -> str:
    """Hash of everything that shapes the answers.

    Raises:
        ConfigError: The folder is not whole.
    """
    try:
        return _hash(folder, (CONFIG, MODEL, LABELS, CALIBRATION))
    except OSError as error:
        raise ConfigError(f"{folder}: no whole model: {error}") from error


def _hash(folder: Path, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def content_digests(folder: Path) -> dict[str, str]:
    """Of each file of a saved model, and of :data:`HOME` if there is one, a hash of what it says, for :data:`DIGEST`.

    How a JSON file is laid out does not matter.
    """
    found = {name: _hash(folder, (name,)) for name in (MODEL, HOME) if name == MODEL or (folder / name).is_file()}
    for name in (CONFIG, LABELS, CALIBRATION):
        text = json.dumps(json.loads((folder / name).read_bytes()), sort_keys=True)
        found[name] = hashlib.sha256(text.encode()).hexdigest()
    return dict(sorted(found.items()))


def kept_digests(folder: Path) -> dict[str, str] | None:
    """What :func:`content_digests` said when the model was saved; None of one that an older version saved.

    Raises:
        ConfigError: The file cannot be read.
    """
    return read_mapping(folder / DIGEST) if (folder / DIGEST).is_file() else None


def strangers(folder: Path, kept: Mapping[str, str] | None) -> list[str]:
    """Files of a saved model that are not those that were saved together; none where that is not known.

    Args:
        folder: The folder, all files of which can be read.
        kept: :func:`kept_digests` of it before the first file was read: it may be replaced meanwhile.
    """
    if kept is None:
        return []
    found = content_digests(folder)
    return sorted(name for name in {*kept, *found} - ({HOME} - {*kept}) if found.get(name) != kept.get(name))


def saved_modalities(source: str | Path) -> tuple[str, ...]:
    """The modalities of a saved model, without reading its weights.

    Args:
        source: Name or path.

    Raises:
        ConfigError: No such model, or its configuration is wrong.
    """
    if is_export(source):
        return tuple(read_mapping(Path(source).expanduser() / MANIFEST).get("answers", {}).get("modalities", {}))
    return tuple(read_mapping(model_folder(source) / CONFIG).get("modalities", {}))
