"""Exports a model that was loaded in torch, so that the next start needs none."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnibind_core.encoders.base import TextTower
from omnibind_core.encoders.inference.compiled import kept_part
from omnibind_core.encoders.inference.engines import candidates
from omnibind_core.encoders.inference.export import Part, failure, reason, write
from omnibind_core.encoders.inference.parts import FILES, FORMAT, MANIFEST, code_digest, read_manifest, unharmed
from omnibind_core.errors import OmniBindError, WeightsError
from omnibind_core.files import write_folder_atomically
from omnibind_core.model.exported import LABELS
from omnibind_core.model.omnibind import OmniBind

_log = logging.getLogger(__name__)


def keep(model: OmniBind, folder: Path, of: Mapping[str, Any], text: bool) -> bool:
    """Exports what is missing of a model, if all its trunks run in an engine, and writes a folder that names the parts.

    What does not work is told in the log: torch goes on answering.

    Args:
        model: The model, with the vocabulary that it was saved with.
        folder: What is written. Parts of other modalities that it names are kept.
        of: What tells the model from others, for the manifest.
        text: Whether the text tower is exported, too.

    Returns:
        Whether the folder is there.
    """
    trunks = {name for name, trunk in model.encoders.trunks.items() if not isinstance(trunk, TextTower)}
    if not candidates("auto") or model.labels.reduce != "mean" or not trunks <= model.encoders.compiled.keys():
        return False
    started = time.monotonic()
    try:
        parts = _known(folder, of)
        for part in model.parts(text):
            parts[part.name] = _kept(part)
        manifest = {
            "format": FORMAT,
            "model": model.identity,
            "of": dict(of),
            "answers": model.described(),
            "parts": parts,
            "failed": {},
        }
        with write_folder_atomically(folder, FILES) as fresh:
            (fresh / LABELS).write_bytes(model.exported_labels())
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    except (OSError, OmniBindError) as error:
        _log.info("torch will be needed at the next start, too: %s", reason(error))
        return False
    _log.info("exported in %.1f s, so that the next start needs no torch: %s", time.monotonic() - started, folder)
    return True


def _known(folder: Path, of: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that the folder names already and that are unharmed."""
    try:
        manifest = read_manifest(folder)
    except WeightsError:
        return {}
    if manifest.get("of") != dict(of):
        return {}
    return {name: entry for name, entry in manifest["parts"].items() if unharmed(folder, entry)}


def _kept(part: Part) -> dict[str, Any]:
    """The part's entry for a manifest beside its folder, exported now unless it is there.

    Raises:
        WeightsError: It cannot be exported.
    """
    place = kept_part(part)
    for fresh in (False, True):
        if fresh:
            write([part], place, candidates("auto"), {"code": code_digest()})
        try:
            manifest = read_manifest(place)
        except WeightsError:
            continue
        if manifest.get("code") != code_digest():
            continue
        entry = manifest["parts"].get(part.name)
        if entry is not None and entry.get("digest") == part.digest and unharmed(place, entry):
            return {**entry, "file": f"../{place.name}/{entry['file']}"}
        if problem := failure(place, part.name):
            raise WeightsError(f"'{part.name}' is not exported: {problem}")
    raise WeightsError(f"{place}: '{part.name}' is not as it was written")
