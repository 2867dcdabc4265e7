"""Where frames are to each other, over time: what tf2 knows, without ROS."""

from __future__ import annotations

import bisect
import functools
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

SECOND = 1_000_000_000
MOST_FRAMES = 2048
"""Frames that a tree holds: robots have a hundred, and each message may name as many as it likes."""
MOST_LEVELS = 128
"""Of a frame below what it hangs on at last."""
MOST_TIMES = 10_000
"""Transforms of one frame that are kept, the newest: 1 kHz for ten seconds."""
_TOLD = 20  # frames that are named in a sentence
_LENGTH_TOLERANCE = 1e-2  # of a quaternion


@functools.cache
def _rotation() -> type[Rotation]:
    """SciPy's; imported when first needed, as a node that tells of no things needs none of it."""
    from scipy.spatial.transform import Rotation

    return Rotation


@dataclass(frozen=True)
class Transform:
    """Takes points from one frame to another: ``rotation @ point + translation``.

    Attributes:
        rotation: ``float64 [3, 3]``.
        translation: ``float64 [3]``, metres.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def of(cls, translation: Iterable[float], quaternion: Iterable[float]) -> Transform:
        """From metres and a quaternion ``(x, y, z, w)``, which is brought to unit length.

        Raises:
            InvalidInputError: A number is not finite, or the quaternion is far from unit length.
        """
        moved, turned = np.array([*translation], np.float64), np.array([*quaternion], np.float64)
        length = float(np.linalg.norm(turned))
        if not np.isfinite(moved).all() or not abs(length - 1) <= _LENGTH_TOLERANCE:
            found = f"translation {moved.tolist()} and a quaternion of length {length:.3g}"
            raise InvalidInputError("transform", found, "finite metres and a quaternion of length 1")
        return cls(_rotation().from_quat(turned).as_matrix(), moved)

    @classmethod
    def identity(cls) -> Transform:
        """Leaves points where they are."""
        return cls(np.eye(3), np.zeros(3))

    def __call__(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points ``[N, 3]`` in the other frame."""
        return np.asarray(np.asarray(points, np.float64) @ self.rotation.T + self.translation)

    def __matmul__(self, first: Transform) -> Transform:
        """Does ``first``, then this."""
        return Transform(self.rotation @ first.rotation, self.rotation @ first.translation + self.translation)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Its rotation as ``(x, y, z, w)``."""
        x, y, z, w = _rotation().from_matrix(self.rotation).as_quat()
        return float(x), float(y), float(z), float(w)

    def inverse(self) -> Transform:
        """The way back."""
        return Transform(self.rotation.T, -self.rotation.T @ self.translation)

    def between(self, other: Transform, share: float) -> Transform:
        """So much of the way to another, 0..1: as tf2, straight on, turning at an even speed."""
        turn = _rotation().from_matrix(self.rotation.T @ other.rotation).as_rotvec()
        rotation = self.rotation @ _rotation().from_rotvec(share * turn).as_matrix()
        return Transform(rotation, (1 - share) * self.translation + share * other.translation)


class _Edge:
    """Where a frame was in its parent: for ever, or at known times."""

    def __init__(self, parent: str, static: bool) -> None:
        self.parent = parent
        self.static = static
        self.stamps: list[int] = []
        self.transforms: list[Transform] = []


class FrameTree:
    """Frames and their transforms; as tf2's buffer, of the last seconds.

    Thread-safe.

    Args:
        keep: s of transforms that are kept of every frame.
        reach: s by which a transform may be asked for after the newest one that is known (the newest is taken then): a
            picture's own transform often comes a little after the picture.
    """

    def __init__(self, keep: float = 10.0, reach: float = 0.2) -> None:
        self._keep = round(keep * SECOND)
        self._reach = round(reach * SECOND)
        self._edges: dict[str, _Edge] = {}
        self._lock = threading.Lock()

    def add(self, parent: str, child: str, transform: Transform, stamp_ns: int | None = None) -> None:
        """Takes in where ``child`` is in ``parent``.

        Args:
            parent: Frame that the transform leads to.
            child: Frame that it takes points of. A leading slash is dropped.
            transform: From child to parent.
            stamp_ns: When; ``None`` for ever.

        Raises:
            InvalidInputError: A name is empty, a frame would be its own ancestor, or stands still in one message and
                moves in another, or there are too many.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child:
            raise InvalidInputError("tf", f"a transform from '{child}' to '{parent}'", "names of two frames")
        with self._lock:
            way = [parent, *self._ancestors(parent)]
            if child in way:
                loop = " -> ".join([child, *way[: way.index(child) + 1]])
                raise InvalidInputError("tf", f"a loop: {loop}", "a tree, where no frame is its own ancestor")
            if len(way) > MOST_LEVELS:
                raise InvalidInputError("tf", f"a frame below {len(way)} others", f"at most {MOST_LEVELS}")
            if child not in self._edges and len(self._edges) >= MOST_FRAMES and not self._make_room():
                raise InvalidInputError("tf", f"a frame beside {len(self._edges)} others", f"at most {MOST_FRAMES}")
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent:  # it was hung up elsewhere: tf2 forgets, too
                edge = self._edges[child] = _Edge(parent, stamp_ns is None)
            elif edge.static != (stamp_ns is None):
                raise InvalidInputError("tf", f"'{child}' both on /tf and on /tf_static", "one of them")
            if stamp_ns is None:
                edge.stamps, edge.transforms = [0], [transform]
                return
            place = bisect.bisect_left(edge.stamps, stamp_ns)
            if place < len(edge.stamps) and edge.stamps[place] == stamp_ns:
                edge.transforms[place] = transform
                return
            edge.stamps.insert(place, stamp_ns)
            edge.transforms.insert(place, transform)
            old = bisect.bisect_left(edge.stamps, edge.stamps[-1] - self._keep)
            old = max(old, len(edge.stamps) - MOST_TIMES)
            del edge.stamps[:old], edge.transforms[:old]

    def _make_room(self) -> bool:
        """Forgets frames that nobody has told for as long as transforms are kept: of things that are gone."""
        newest = max((edge.stamps[-1] for edge in self._edges.values() if not edge.static), default=0)
        self._edges = {
            child: edge for child, edge in self._edges.items() if edge.static or edge.stamps[-1] >= newest - self._keep
        }
        return len(self._edges) < MOST_FRAMES

    def clear(self) -> None:
        """Forgets what moves, because time went backwards; what stands still stays."""
        with self._lock:
            self._edges = {child: edge for child, edge in self._edges.items() if edge.static}

    def __contains__(self, frame: object) -> bool:
        """Whether anything is known of a frame."""
        with self._lock:
            return frame in self._edges or any(edge.parent == frame for edge in self._edges.values())

    def root(self, frame: str) -> str:
        """What a frame hangs on at last: itself, if nothing is known of it."""
        with self._lock:
            frame = frame.lstrip("/")
            return [frame, *self._ancestors(frame)][-1]

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """From one frame to another at a time.

        Args:
            target: Frame that points are wanted in.
            source: Frame that they are in.
            stamp_ns: When they were measured.

        Raises:
            InvalidInputError: A frame is not known, the two are not connected, or the time is before or after what is
                known; the sentence names both frames.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._lock:
            if target == source:
                return Transform.identity()
            up = [source, *self._ancestors(source)]
            down = [target, *self._ancestors(target)]
            known = {*self._edges, *(edge.parent for edge in self._edges.values())}
            for frame in (source, target):
                if frame not in known:
                    told = ", ".join(sorted(known)[:_TOLD]) or "none"
                    told += f" and {len(known) - _TOLD} more" if len(known) > _TOLD else ""
                    raise InvalidInputError(
                        "tf", f"no frame '{frame}', for a transform from '{source}' to '{target}'", f"one of: {told}"
                    )
            common = next((frame for frame in up if frame in down), None)
            if common is None:
                trees = f"'{up[-1]}' and '{down[-1]}'"
                raise InvalidInputError(
                    "tf", f"no way from '{source}' to '{target}'", f"one tree; they hang on {trees}"
                )
            asked = f"from '{source}' to '{target}'"
            rise = self._rise(up[: up.index(common)], stamp_ns, asked)
            return self._rise(down[: down.index(common)], stamp_ns, asked).inverse() @ rise

    def _ancestors(self, frame: str) -> list[str]:
        found = []
        while frame in self._edges:
            frame = self._edges[frame].parent
            found.append(frame)
        return found

    def _rise(self, frames: Iterable[str], stamp_ns: int, asked: str) -> Transform:
        found = Transform.identity()
        for frame in frames:
            found = self._at(frame, stamp_ns, asked) @ found
        return found

    def _at(self, frame: str, stamp_ns: int, asked: str) -> Transform:
        edge = self._edges[frame]
        if edge.static:
            return edge.transforms[0]
        place = bisect.bisect_left(edge.stamps, stamp_ns)
        if place < len(edge.stamps) and edge.stamps[place] == stamp_ns:
            return edge.transforms[place]
        if place == len(edge.stamps):
            late = stamp_ns - edge.stamps[-1]
            if late <= self._reach:
                return edge.transforms[-1]
            raise self._outside(frame, edge, f"{late / SECOND:.3f} s after the newest", asked)
        if place == 0:
            raise self._outside(frame, edge, f"{(edge.stamps[0] - stamp_ns) / SECOND:.3f} s before the oldest", asked)
        before, after = edge.stamps[place - 1 : place + 1]
        share = (stamp_ns - before) / (after - before)
        return edge.transforms[place - 1].between(edge.transforms[place], share)

    def _outside(self, frame: str, edge: _Edge, found: str, asked: str) -> InvalidInputError:
        known = (edge.stamps[-1] - edge.stamps[0]) / SECOND
        return InvalidInputError(
            "tf",
            f"a time {found} transform of '{frame}' in '{edge.parent}', for one {asked}",
            f"one inside of the {known:.3f} s that are known, or at most {self._reach / SECOND:g} s later",
        )


def rpy(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Quaternion ``(x, y, z, w)`` of angles, rad, about the fixed axes x, y, z, as in URDF and tf2."""
    if not all(map(math.isfinite, (roll, pitch, yaw))):
        raise InvalidInputError("transform", f"angles {roll:g}, {pitch:g}, {yaw:g}", "finite radians")
    x, y, z, w = _rotation().from_euler("xyz", (roll, pitch, yaw)).as_quat()
    return float(x), float(y), float(z), float(w)
