"""Objects of which Debian packages hold a photograph, a sound and a mesh, and what each sensor makes of them.

``tuxpaint-stamps-default`` has labelled pictures with their sound beside them, ``sweethome3d-furniture`` named meshes.
They are matched by name: nothing here lists the objects.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omnibind_core import modalities
from omnibind_core.data.debian import fetch_package
from omnibind_core.data.rendering import camera, events, meshes, thermal, touch
from omnibind_core.errors import DataError
from omnibind_core.modalities.pictures import centre_square

STAMPS = ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps")
FURNITURE = ("sweethome3d-furniture", "usr/share/sweethome3d/furniture")

RENDERING = 2
"""Goes up when the same objects and seed give other data: recordings made before are then made anew."""

# What the demo's recording computes; the rest it takes as it is.
RENDERED = ("touch", "thermal", "event", "point_cloud")

# Assumed temperature of an object in degrees Celsius by the folder of its stamp, first match; others are as warm as
# the room. Skin and fur of mammals and birds, running appliances, engines just switched off.
_TEMPERATURES = (
    (r"animals/(mammals|birds|marsupials)|halloween/blackcat", 33.0),
    (r"people", 34.0),
    (r"naturalforces/fire|candle|tealight", 60.0),
    (r"vehicles/(?!.*(wheel|tyre|cycle|spoke))", 40.0),
    (r"household/electronics", 38.0),
    (r"household/(kettle|microwave|Washing-machine|vacuum)", 45.0),
)
_PLAIN_ADJECTIVES = (
    "red|green|blue|black|white|brown|grey|yellow|pink|silver|open|closed|small|large|big|little|colorful"
)
COOL = 20.5  # other things: as warm as the floor that they stand on


@dataclass(frozen=True)
class PackagedObject:
    """One object and where its data are.

    Attributes:
        name: What it is, in lower case.
        photo: PNG with transparency.
        sound: Ogg file, or None.
        mesh: Where its mesh is, or None.
        temperature: Assumed, degrees Celsius.
    """

    name: str
    photo: Path
    sound: Path | None
    mesh: Furniture | None
    temperature: float

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that :meth:`items` gives."""
        seen = ("image", "thermal", "event")
        return (*seen, *(("audio",) if self.sound else ()), *(("touch", "point_cloud") if self.mesh else ()))

    def items(self, rng: np.random.Generator) -> dict[str, Any]:
        """Raw sensor data by modality, each as its modality's ``check`` returns it; thermal in degrees Celsius.

        Raises:
            DataError: A file of the package is damaged.
        """
        picture = cv2.imread(str(self.photo), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
            raise DataError(f"{self.photo}: cannot be read as a PNG picture with transparency")
        shot = camera.shoot(np.asarray(picture, np.uint8), rng)
        raw: dict[str, Any] = {
            "image": shot.photo,
            "thermal": thermal.render(shot.opacity, shot.photo, self.temperature, rng),
            "event": events.simulate(centre_square(shot.photo), rng),
        }
        if self.sound:
            raw["audio"] = modalities.get("audio").load(self.sound)
        if self.mesh:
            mesh = self.mesh.load()
            raw["touch"] = touch.press(mesh, rng)
            raw["point_cloud"] = meshes.scan(mesh, rng)
        return {name: modalities.get(name).check(item, f"{self.name}: {name}") for name, item in raw.items()}


@dataclass(frozen=True)
class Stamp:
    """One photograph of ``tuxpaint-stamps-default``.

    Attributes:
        names: What it may be called, lower case, best first.
        photo: PNG with transparency.
        place: The same in the package, for example ``animals/cow.png``.
        temperature: Assumed, degrees Celsius.
    """

    names: tuple[str, ...]
    photo: Path
    place: str
    temperature: float


@dataclass(frozen=True)
class Furniture:
    """One entry of a sweethome3d catalogue.

    Attributes:
        name: Name in the catalogue, lower case.
        archive: Catalogue file.
        member: OBJ file in it.
        size: Width, depth, height, m.
        category: In the catalogue, as it stands there.
        hangs: Whether it hangs above the floor.
    """

    name: str
    archive: Path
    member: str
    size: tuple[float, float, float]
    category: str = ""
    hangs: bool = False

    def load(self) -> meshes.Mesh:
        """Reads the mesh, in its real size.

        Raises:
            DataError: The catalogue is damaged.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mesh.obj"
            try:
                with zipfile.ZipFile(self.archive) as catalogue:
                    path.write_bytes(catalogue.read(self.member))
            except (OSError, KeyError, zipfile.BadZipFile) as error:
                raise DataError(f"{self.archive}: cannot read {self.member}: {error}") from error
            return meshes.fit(meshes.read_obj(path), np.array(self.size, dtype=np.float32))


def find_objects(cache_dir: Path | None = None) -> list[PackagedObject]:
    """Objects of which there is a photograph and also a sound or a mesh, by name.

    Args:
        cache_dir: Where packages that are not installed are unpacked; see :func:`~.debian.fetch_package`.

    Returns:
        One per name, those with most modalities first, then by name.

    Raises:
        DataError: A package can neither be found nor fetched, or is laid out in another way.
    """
    stamps, furniture = (fetch_package(package, cache_dir) / folder for package, folder in (STAMPS, FURNITURE))
    by_name: dict[str, Furniture] = {}
    for entry in read_catalogues(furniture):
        by_name.setdefault(singular(entry.name), entry)
    found: dict[str, PackagedObject] = {}
    for stamp in read_stamps(stamps):
        sound = stamp.photo.with_suffix(".ogg")
        name = next((name for name in stamp.names if name in by_name), stamp.names[0])
        mesh = by_name.get(name)
        one = PackagedObject(name, stamp.photo, sound if sound.is_file() else None, mesh, stamp.temperature)
        if len(one.modalities) > len(found[name].modalities if name in found else ("image", "thermal", "event")):
            found[name] = one
    if not found:
        raise DataError(f"no object has a photograph and a sound or a mesh in {stamps} and {furniture}")
    return sorted(found.values(), key=lambda one: (-len(one.modalities), one.name))


def read_stamps(folder: Path) -> Iterator[Stamp]:
    """Photographs with a caption, in the order of their places; no drawings, signs and mirrored ones."""
    for photo in sorted(folder.rglob("*.png")):
        place = photo.relative_to(folder).as_posix()
        caption = photo.with_suffix(".txt")
        if re.search("cartoon|toys|symbols|roadsigns|flags|_mirror|_flip", place) or not caption.is_file():
            continue
        names = stamp_names(caption.read_text(encoding="utf-8", errors="replace"), photo.stem)
        temperature = next((value for pattern, value in _TEMPERATURES if re.search(pattern, place)), COOL)
        yield Stamp(tuple(names), photo, place, temperature)


def stamp_names(caption: str, stem: str) -> list[str]:
    """Names of a stamp in the singular, best first: its caption, the same without a colour or size, its file name.

    A head noun alone is not taken: a cement mixer is no mixer.

    Args:
        caption: First line "A red apple.", translations after it.
        stem: File name without its ending, the object first: "apple_red".
    """
    words = re.split(r"[.!?;,(]", caption.strip().splitlines()[0].lower() + ".")[0]
    words = re.sub(r"^(an?|the|some)\s+", "", words.strip())
    words = re.sub(r"^(pair|bunch|cluster|string|head) of\s+", "", words)
    file_words = re.sub(r"[_\-\d]+", " ", stem).strip().lower()
    captions = [words, re.sub(rf"^({_PLAIN_ADJECTIVES})\s+", "", words)] if len(words.split()) <= 4 else []
    files = [file_words, *([file_words.split()[0]] if "_" in stem else [])]
    return list(dict.fromkeys(singular(name) for name in (*captions, *files) if name))


def singular(name: str) -> str:
    """A plain English plural's singular; scissors, glasses and the like stay."""
    if re.search(r"(ss|us|is|scissors|glasses|pliers|tongs|trousers|jeans)$", name):
        return name
    return re.sub(r"(?<=[^aeiou])ies$", "y", name) if name.endswith("ies") else re.sub(r"s$", "", name)


def read_catalogues(folder: Path) -> Iterator[Furniture]:
    """Entries of every catalogue (``*.sh3f``) in a folder.

    Raises:
        DataError: There is none, or one is damaged.
    """
    archives = sorted(folder.glob("*.sh3f"))
    if not archives:
        raise DataError(f"no furniture catalogue (*.sh3f) in {folder}")
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as catalogue:
                text = catalogue.read("PluginFurnitureCatalog.properties").decode("latin-1")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{archive}: not a furniture catalogue: {error}") from error
        entries: dict[str, dict[str, str]] = {}
        for key, number, value in re.findall(r"^(\w+)#(\d+)\s*=\s*(.*?)\s*$", text, re.MULTILINE):
            entries.setdefault(number, {})[key] = value
        for entry in entries.values():
            if entry.keys() >= {"name", "model", "width", "depth", "height"} and "modelRotation" not in entry:
                yield _entry(archive, entry)


def _entry(archive: Path, entry: Mapping[str, str]) -> Furniture:
    width, depth, height = (float(entry[key]) / 100 for key in ("width", "depth", "height"))  # centimetres
    hangs = float(entry.get("elevation", 0)) > 0
    member = entry["model"].lstrip("/")
    return Furniture(entry["name"].lower(), archive, member, (width, depth, height), entry.get("category", ""), hangs)
