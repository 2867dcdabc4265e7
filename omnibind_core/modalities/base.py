"""What a modality is: its raw form, how a file of it is read, and how raw data becomes encoder input.

One folder per modality, those of plug-ins included, each with the same files: ``modality.py`` (the class, file reading,
checks), ``processing.py`` (raw data to encoder input, with named presets), ``corruption.py`` (augmentation for
training, damage for robustness tests) and, where it takes more than a line, ``drawing.py`` (an item as a picture for
people); ``plausibility.py`` where a sensor can deliver what is no reading of the kind. Nothing here imports torch or
ROS.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities.drawing import Picture, view_picture
from omnibind_core.modalities.objects import as_array, is_array_like
from omnibind_core.optional import distribution

RawT = TypeVar("RawT")
PresetT = TypeVar("PresetT", bound="Preset")
Corruption = Callable[[RawT, np.random.Generator], RawT]
"""Damages a checked item; same generator state, same result."""
Corruptions = Mapping[str, Corruption[RawT]]
"""By name."""


class Role(str, enum.Enum):
    """Data-rich modalities teach, data-poor ones are aligned to them (paper Sec. 3.1)."""

    TEACHER = "teacher"
    STUDENT = "student"


@dataclass(frozen=True)
class Preset:
    """How raw data becomes encoder input. Subclasses add the constants of their modality.

    Attributes:
        name: Name it is chosen by in a model config.
        shape: Shape of one view, without the leading view axis; ``-1`` where it varies.
        dtype: ``"uint8"`` for pictures, ``"str"`` for text, ``"float32"`` otherwise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class PicturePreset(Preset):
    """A preset whose output is a picture ``uint8 [views, 3, size, size]``.

    Mean and standard deviation belong to the trunk's weights and are applied there, on the trunk's device.

    Attributes:
        resize: Short side in pixels after resizing, before the crop (``fit="crop"`` only).
        fit: ``"crop"`` (short side to ``resize``, then the centre), ``"letterbox"`` (whole picture, padded) or
            ``"stretch"`` (whole picture, aspect ratio not kept).
        interpolation: ``"bilinear"`` or ``"bicubic"``; areas are averaged when shrinking.
    """

    shape: tuple[int, ...] = (3, 224, 224)
    dtype: str = "uint8"
    resize: int = 256
    fit: str = "crop"
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class Events:
    """Events of an event camera, in time order.

    Attributes:
        x: ``uint16 [N]``, column in pixels from the left, below ``width``.
        y: ``uint16 [N]``, row in pixels from the top, below ``height``.
        t: ``int64 [N]``, microseconds, not decreasing, from any origin.
        p: ``uint8 [N]``, polarity: 1 = brighter, 0 = darker.
        width: Sensor width in pixels.
        height: Sensor height in pixels.
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    t: NDArray[np.int64]
    p: NDArray[np.uint8]
    width: int
    height: int

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def duration(self) -> float:
        """Time from the first event to the last, in seconds."""
        return float(self.t[-1] - self.t[0]) * 1e-6 if len(self) else 0.0


@dataclass(frozen=True)
class Sound:
    """A piece of sound.

    Attributes:
        samples: ``float32 [T]``, mono, -1..1.
        sample_rate: Hz.
    """

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples.shape[0] / self.sample_rate


@dataclass(frozen=True)
class Doubt:
    """What speaks against an item that can be read: see :func:`omnibind_core.modalities.doubt`.

    Attributes:
        reason: In words, with the measured and the expected value.
        excludes: Whether nothing can be said from the item: it counts nothing and has no answer of its own. Otherwise
            it counts as the least familiar.
        empty: Whether the sensor is as it should be, and there is just nothing, such as silence: nobody is warned.
    """

    reason: str
    excludes: bool = True
    empty: bool = False

    def __str__(self) -> str:
        return f"{'nothing to say' if self.empty else 'implausible'}: {self.reason}"


@dataclass(frozen=True)
class Reading:
    """One checked item, ready to be recognised: see :func:`omnibind_core.modalities.load`.

    Attributes:
        modality: What kind of sensor it is of.
        raw: In the raw form of the modality.
        source: File path, or what the caller named it.
        doubt: What speaks against it; None if nothing does.
    """

    modality: str
    raw: Any = field(repr=False)
    source: str
    doubt: Doubt | None = None


class Modality(ABC, Generic[RawT, PresetT]):
    """One kind of sensor data. Instances hold no state; get them by :func:`omnibind_core.modalities.get`.

    Attributes:
        name: Key used everywhere: configs, checkpoints, messages.
        role: Teacher or student.
        is_sensor: False if it comes from people (text): no topic is taken for it unasked, and no noise stands for it.
        is_camera: True if an item is a picture of the scene, which is shown before those of other sensors.
        is_stream: True if the data flow without frames (sound, events), so that a time window is cut before fusion.
        default_window: Seconds of a stream that one embedding covers; 0 for frames.
        topics: Regular expression that is found, in any case, in names of its topics, where the message type alone may
            be of several modalities; ``""``: it has those that no other one claims.
        topic_ending: Last part of the topic that a sensor has by default, after the sensor's name.
        sensor_defaults: Settings of its sensors that are by default not those of other sensors, by name: ``timeout``,
            ``readmit_after``.
        measured: Where a ROS picture of one channel holds measured values, which the sensor's ``scale`` and ``offset``
            bring to the raw form's unit: their dtype, ``"float32"`` or ``"uint8"`` (then cut to 0..255). ``""`` for
            pictures of light, and for all that are no pictures.
        suffixes: File endings that :meth:`load` reads, lower-case with the dot, the most usual ones first.
        needs: Of those, what an optional package reads: its import name, as :func:`omnibind_core.optional.require`
            takes it. ``omnibind predict --help`` and docs/data.md list both.
        units: What :meth:`convert` takes beside the numbers, by name: in words, with the unit.
        presets: Presets by name. The first is the default.
        corruptions: What :meth:`corrupt` can do to an item, by name.
    """

    name: ClassVar[str]
    role: ClassVar[Role]
    is_sensor: ClassVar[bool] = True
    is_camera: ClassVar[bool] = False
    is_stream: ClassVar[bool] = False
    default_window: ClassVar[float] = 0.0
    topics: ClassVar[str] = ""
    topic_ending: ClassVar[str] = "image_raw"
    sensor_defaults: ClassVar[Mapping[str, Any]] = {}
    measured: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[Mapping[str, str]] = {}
    units: ClassVar[Mapping[str, str]] = {}
    presets: ClassVar[Mapping[str, Any]]
    corruptions: ClassVar[Corruptions[Any]] = {}

    @abstractmethod
    def check(self, raw: RawT, source: str) -> RawT:
        """Checks one item and brings it into the canonical raw form (dtype, channels), without a copy where possible.

        What it returns passes again unchanged: :meth:`omnibind_core.model.OmniBind.process` checks everything.

        Args:
            raw: The item.
            source: Sensor name or file path, for the error message.

        Raises:
            InvalidInputError: Empty, not finite, wrong shape or out of range; names the source, the value and what was
                expected.
        """

    def formats(self) -> str:
        """The file endings that are read, in words: those that need nothing, then the others with what they need."""
        by_package: dict[str, list[str]] = {}
        for suffix in self.suffixes:
            package = distribution(self.needs[suffix]) if suffix in self.needs else ""
            by_package.setdefault(package, []).append(suffix)
        plain = [", ".join(by_package.pop(""))] if "" in by_package else []
        return "; ".join(plain + [f"with {name}: {', '.join(found)}" for name, found in sorted(by_package.items())])

    @abstractmethod
    def load(self, path: Path) -> RawT:
        """Reads one file and checks it.

        Raises:
            InvalidInputError: The file is missing, of another format, truncated or unusable.
        """

    def read(self, path: Path) -> Any:
        """What a file holds, as :meth:`convert` takes it.

        Here the checked item of :meth:`load`; another where the numbers of a file may be in several units.

        Raises:
            InvalidInputError: As :meth:`load`.
        """
        return self.load(path)

    def convert(self, given: Any, source: str, **units: Any) -> RawT:
        """Turns what a program has at hand into a checked item, where it can mean one thing only.

        Here the raw form itself, and arrays as all that :func:`.objects.as_array` takes.

        Args:
            given: The raw form, an array, a torch tensor, a PIL picture, or what the modality says.
            source: Sensor name or file path, for the error message.
            units: Some of :attr:`units`.

        Raises:
            InvalidInputError: It cannot be used, or could mean several things; says what would be accepted.
        """
        is_array = is_array_like(given) and not isinstance(given, str)  # NumPy's are both
        return self.check(cast(RawT, as_array(given, source)) if is_array else given, source)

    @abstractmethod
    def process(self, raw: RawT, preset: PresetT) -> NDArray[Any]:
        """Turns one checked item into encoder input.

        Args:
            raw: A checked item.
            preset: One of :attr:`presets`.

        Returns:
            ``preset.dtype [views, *preset.shape]``, C-contiguous, at least one view. The encoder averages the views.
        """

    @abstractmethod
    def augment(self, raw: RawT, rng: np.random.Generator) -> RawT:
        """A random, label-preserving variant for training. Same generator state, same result."""

    def corrupt(self, raw: RawT, name: str, rng: np.random.Generator) -> RawT:
        """A damaged variant for robustness tests.

        Args:
            raw: A checked item.
            name: One of :attr:`corruptions`.
            rng: Source of randomness.

        Raises:
            ConfigError: The modality has no such corruption.
        """
        if name not in self.corruptions:
            known = ", ".join(self.corruptions) or "none"
            raise ConfigError(f"{self.name} has no corruption '{name}'; it has {known}")
        damaged: RawT = self.corruptions[name](raw, rng)
        return damaged

    def noise_only(self, raw: RawT, rng: np.random.Generator) -> RawT:
        """Noise in the place of an item, of its shape and range: nothing of the item is left.

        Here for arrays: every value is random between the lowest and the highest one, in ``uint8`` from 0 to 255.

        Args:
            raw: A checked item.
            rng: Source of randomness.

        Raises:
            ConfigError: The raw form is no array, and the modality has no noise of its own.
        """
        if not isinstance(raw, np.ndarray):
            raise ConfigError(f"{self.name} has no noise: a raw form that is no array needs a noise_only of its own")
        low, high = (0.0, 255.0) if raw.dtype == np.uint8 else (float(raw.min()), float(raw.max()))
        noise: NDArray[Any] = np.asarray(rng.uniform(low, high, raw.shape))
        made: Any = (np.rint(noise) if raw.dtype.kind in "ui" else noise).astype(raw.dtype)
        return cast(RawT, made)

    def draw(self, raw: RawT, height: int = 240) -> Picture:
        """An item as a picture for people: in the debug picture, the live view, contact sheets and reports.

        Here as the encoder sees it: the first view of the default preset.

        Args:
            raw: A checked item; it is not changed, and the picture may share its memory.
            height: Pixels, where the item has no size in pixels of its own.

        Returns:
            RGB ``uint8 [H, W, 3]``.
        """
        return view_picture(self.process(raw, self.preset())[0])

    def join(self, chunks: Sequence[tuple[int, RawT]], end_ns: int, duration: float) -> RawT:
        """Cuts one window out of consecutive chunks of a stream.

        Args:
            chunks: ``(stamp in ns of the first sample or event, item)``, oldest first.
            end_ns: End of the window, ns, on the clock of the stamps.
            duration: Length of the window, s. Less is returned if the chunks hold less.

        Raises:
            InvalidInputError: The chunks do not fit together (sample rate, sensor size), or the window is empty.
            TypeError: The modality is not a stream.
        """
        raise TypeError(f"{self.name} comes in frames; only streams are joined")

    def preset(self, name: str | None = None) -> PresetT:
        """The preset of that name, or the default one.

        Args:
            name: One of :attr:`presets`. Those that make square pictures can be asked for at any size:
                ``efficientnet@260`` makes pictures of 260 pixels, resized as much more.

        Raises:
            ConfigError: There is none of that name, or it makes no square pictures.
        """
        key = next(iter(self.presets)) if name is None else name
        base, at, pixels = key.partition("@")
        if base not in self.presets:
            raise ConfigError(f"{self.name} has no preset '{base}'; it has {', '.join(self.presets)}")
        found: PresetT = self.presets[base]
        return _sized(found, key, pixels) if at else found


def _sized(preset: Any, name: str, pixels: str) -> Any:
    """A picture preset at another size.

    Raises:
        ConfigError: It makes no square pictures, or the size is none.
    """
    if not isinstance(preset, PicturePreset) or preset.shape[1] != preset.shape[2]:
        raise ConfigError(f"preset '{name}': '{preset.name}' makes no square pictures, which alone have a size")
    if not pixels.isdecimal() or int(pixels) == 0:
        raise ConfigError(f"preset '{name}': the size is '{pixels}', expected a number of pixels")
    channels, side, _ = preset.shape
    size = int(pixels)
    return replace(preset, name=name, shape=(channels, size, size), resize=round(preset.resize * size / side))


def positive(units: Mapping[str, Any], name: str, source: str) -> float | None:
    """A unit that is a number above 0; None if it is not given.

    Raises:
        InvalidInputError: It is no such number.
    """
    value = units.get(name)
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.size == 1:  # as archives hold numbers
        value = value.item()
    if not (isinstance(value, (int, float, np.number)) and 0 < value < float("inf")):
        raise InvalidInputError(source, f"{name}={value!r}", "a number above 0")
    return float(value)


SCALING: Mapping[str, str] = {
    "scale": "with offset: value * scale + offset is {unit}, as in the node's parameters of these names",
    "offset": "see scale; 0 by default",
}
"""Units of measured values; ``{unit}`` is what they become."""


def rescaled(values: NDArray[Any], units: Mapping[str, Any], source: str) -> NDArray[np.float32] | None:
    """``values * scale + offset``; None if neither is given.

    Args:
        values: Numbers of any shape.
        units: May have ``scale`` and ``offset``.
        source: For the error message.

    Raises:
        InvalidInputError: One is no finite number, the scale is 0, or the values are no numbers.
    """
    scale, offset = units.get("scale", 1.0), units.get("offset", 0.0)
    if "scale" not in units and "offset" not in units:
        return None
    for name, value in (("scale", scale), ("offset", offset)):
        if not isinstance(value, (int, float, np.number)) or not np.isfinite(value) or (name == "scale" and not value):
            raise InvalidInputError(source, f"{name}={value!r}", "a number" + (" other than 0" * (name == "scale")))
    if values.dtype.kind not in "uif":
        raise InvalidInputError(source, f"a scale of dtype {values.dtype}", "numbers")
    scaled: NDArray[np.float32] = (values * float(scale) + float(offset)).astype(np.float32)
    return scaled


def readable_file(path: Path, suffixes: tuple[str, ...], what: str) -> Path:
    """Returns the path if it is a file with one of the endings.

    Raises:
        InvalidInputError: It is missing, a folder, empty, or has another ending.
    """
    try:
        is_file = path.is_file()
    except OSError:  # a name that is too long for one
        is_file = False
    if not is_file:
        raise InvalidInputError(str(path), "no such file", what)
    if path.suffix.lower() not in suffixes:
        raise InvalidInputError(str(path), f"a file ending in '{path.suffix}'", f"{what} ({', '.join(suffixes)})")
    if path.stat().st_size == 0:
        raise InvalidInputError(str(path), "an empty file (0 bytes)", what)
    return path
