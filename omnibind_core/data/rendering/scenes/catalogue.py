"""Things of Debian packages that rooms and streets are furnished with: meshes, photographs, or both of one name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnibind_core.data.debian import fetch_package
from omnibind_core.data.rendering import demo_objects
from omnibind_core.data.rendering.demo_objects import Furniture, Stamp
from omnibind_core.data.rendering.scenes import cutouts, surfaces
from omnibind_core.data.rendering.scenes.layout import Built
from omnibind_core.data.rendering.scenes.places import Kind
from omnibind_core.errors import DataError

# Categories of the catalogue whose entries stand outdoors; the others stand in rooms, some in both.
_OUTDOORS = ("Exterior", "Vehicles", "Characters")
_BOTH = ("Characters", "Miscellaneous")
_NOWHERE = ("Doors and windows",)  # they are parts of a wall
# Smallest and largest longest side, m.
_SIZES: Mapping[Kind, tuple[float, float]] = {"rooms": (0.1, 2.6), "streets": (0.4, 22.0)}
_INDOORS = 1.2  # m, longest side of what may be in both that a room has space for
# Assumed height in metres of what has no mesh, by the place of its photograph, first match; and where it is found.
_HEIGHTS: tuple[tuple[str, float, tuple[Kind, ...]], ...] = (
    (r"animals/birds/owl", 0.5, ("rooms", "streets")),
    (r"animals/birds", 0.35, ("streets",)),
    (r"animals/mammals/elephant", 2.8, ("streets",)),
    (r"animals/mammals/bovines/cow", 1.45, ("streets",)),
    (r"animals/mammals/bovines/sheep", 0.9, ("streets",)),
    (r"animals/mammals/pig", 0.8, ("streets",)),
    (r"food/fruit/banana", 0.12, ("rooms",)),
    (r"music/percussion", 1.1, ("rooms",)),
    (r"music/string/cello", 1.2, ("rooms",)),
    (r"music/string", 0.95, ("rooms",)),
    (r"music/wind", 1.3, ("rooms",)),
    (r"household/dishes", 0.22, ("rooms",)),
    (r"household/toilet", 0.78, ("rooms",)),
    (r"household/tools", 0.25, ("rooms",)),
    (r"hanukkah/menorah", 0.35, ("rooms",)),
    (r"vehicles/emergency", 3.2, ("streets",)),
)
# Photographs are taken where their outline is about as wide as the mesh is from one of its sides.
_NEAR = 1.4
_FLAT, _HELD = (
    0.25,
    0.7,
)  # height to the longest side, below which a thing is stood up to be seen, if so long at most, m


@dataclass(frozen=True, eq=False)
class Kept:
    """One thing that scenes can be furnished with.

    Attributes:
        label: What it is.
        meshes: Entries of the catalogue, any of which it may be.
        photos: Photographs, any of which it may look like.
        height: Metres, where there is no mesh.
        temperature: Assumed, degrees Celsius.
    """

    label: str
    meshes: tuple[Furniture, ...]
    photos: tuple[Stamp, ...]
    height: float
    temperature: float


def find(kind: Kind, known: Collection[str] | None, cache: Path | None = None) -> list[Kept]:
    """Things of a kind of place, by label.

    Args:
        kind: Where they are looked for.
        known: Only these labels, if given.
        cache: Where packages are unpacked; see :func:`~omnibind_core.data.debian.fetch_package`.

    Raises:
        DataError: The packages cannot be had, or hold fewer than five such things.
    """
    stamps, furniture = (
        fetch_package(package, cache) / folder for package, folder in (demo_objects.STAMPS, demo_objects.FURNITURE)
    )
    meshes: dict[str, list[Furniture]] = {}
    for entry in demo_objects.read_catalogues(furniture):
        meshes.setdefault(demo_objects.singular(entry.name), []).append(entry)
    photos: dict[str, list[Stamp]] = {}
    for stamp in demo_objects.read_stamps(stamps):
        allowed = [name for name in stamp.names if known is None or name in known]
        if allowed:
            photos.setdefault(next((name for name in allowed if name in meshes), allowed[0]), []).append(stamp)
    names = sorted({*meshes, *photos} if known is None else {*meshes, *photos} & set(known))
    found = [kept for name in names if (kept := _kept(name, kind, meshes.get(name, []), photos.get(name, [])))]
    if len(found) < 5:
        raise DataError(f"the packages hold {len(found)} things for {kind}, expected at least 5")
    return found


def _kept(name: str, kind: Kind, meshes: list[Furniture], photos: list[Stamp]) -> Kept | None:
    low, high = _SIZES[kind]
    fit = tuple(one for one in meshes if _belongs(one, kind) and low <= max(one.size) <= high)
    temperature = photos[0].temperature if photos else demo_objects.COOL
    if not meshes:
        for pattern, height, kinds in _HEIGHTS:
            of = tuple(photo for photo in photos if re.search(pattern, photo.place))
            if of and kind in kinds:
                return Kept(name, (), of, height, of[0].temperature)
    return Kept(name, fit, tuple(photos), 0.0, temperature) if fit else None


def _belongs(entry: Furniture, kind: Kind) -> bool:
    if entry.hangs or entry.category in _NOWHERE:
        return False
    if entry.category in _BOTH:
        return kind == "streets" or max(entry.size) <= _INDOORS
    return (entry.category in _OUTDOORS) == (kind == "streets")


def build(kept: Kept, rng: np.random.Generator, photos: float = 0.75) -> Built:
    """One of the things that are meant.

    Args:
        kept: What is meant.
        rng: Source of the choice.
        photos: Share of those of which there are both that look like a photograph.

    Raises:
        DataError: A file of a package is damaged.
        MissingDependencyError: open3d is not installed.
    """
    warm = kept.temperature > demo_objects.COOL + 5
    picture = None
    if kept.photos and (not kept.meshes or rng.random() < photos):
        picture = cutouts.read(kept.photos[rng.integers(len(kept.photos))].photo)
    if not kept.meshes:
        assert picture is not None
        body = cutouts.relief(picture, kept.height)
        return Built(kept.label, body, body, kept.temperature, True, warm)
    shape = _stood_up(surfaces.read(kept.meshes[rng.integers(len(kept.meshes))]))
    if picture is not None:
        look = cutouts.relief(picture, float(shape.size[2]))
        turned = min((shape, shape.turned(_QUARTER)), key=lambda one: _misfit(look, one))
        if _misfit(look, turned) < np.log(_NEAR):
            return Built(kept.label, look, turned, kept.temperature, True, warm)
    return Built(kept.label, shape, shape, kept.temperature, False, warm)


def pick(kept: Sequence[Kept], rng: np.random.Generator) -> Iterator[Built]:
    """Things of all labels, in any order.

    Raises:
        DataError: A file of a package is damaged.
        MissingDependencyError: open3d is not installed.
    """
    return (build(kept[index], rng) for index in rng.permutation(len(kept)))


_QUARTER = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])


def _misfit(look: surfaces.Surface, shape: surfaces.Surface) -> float:
    return float(abs(np.log(look.size[0] / shape.size[0])))


def _stood_up(surface: surfaces.Surface) -> surfaces.Surface:
    """What lies flat leans on nothing, its broad side to the front."""
    width, depth, height = surface.size
    if height >= _FLAT * max(width, depth) or max(width, depth) > _HELD:
        return surface
    raised = surface.turned(np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]))
    return raised.standing(raised.size)
