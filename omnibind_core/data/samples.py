"""One sample of a data set: a file of one modality with one label."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One labelled item on disk.

    Attributes:
        id: Unique within its source.
        modality: One of :data:`omnibind_core.modalities.NAMES`.
        source: Name of the data set it comes from; labels are compared within and between these.
        path: File, relative to the source's root, with forward slashes.
        label: The data set's own word.
        split: ``"train"``, ``"val"`` or ``"test"``.
        group: What must stay together in one split: a recording, a mesh, a scene, a fold.
    """

    id: str
    modality: str
    source: str
    path: str
    label: str
    split: str
    group: str
