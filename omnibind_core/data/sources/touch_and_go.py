"""Touch and Go: what a GelSight feels and a camera sees while a person touches things."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, register
from omnibind_core.data.sources.base.tables import read_lines, refuse
from omnibind_core.errors import DataError

_logger = logging.getLogger(__name__)

# By the number in the lists (ViT-Lens, modal_tactile/datasets.py).
# fmt: off
MATERIALS = (
    "concrete", "plastic", "glass", "wood", "metal", "brick", "tile", "leather", "synthetic fabric", "natural fabric",
    "rubber", "paper", "tree", "grass", "soil", "rock", "gravel", "sand", "plants", "others",
)
# fmt: on
_INCONCLUSIVE = "-1"
_LABELS = {str(number): name for number, name in enumerate(MATERIALS)}
_FOLDERS = {"image": "video_frame", "touch": "gelsight_frame"}
_SHARES = {"train": 0.7, "test": 0.2, "val": 0.1}


class Frame(NamedTuple):
    """One line of a list."""

    video: str
    name: str
    label: str
    split: str


@register
class TouchAndGo(Source):
    """Pairs of a touch and a colour picture of 20 materials, the frames during contact of about 140 videos.

    ``split`` chooses:

    * ``video``: drawn by ``seed`` so that every video is in one split only, about 70 % of each material's frames in
      ``train``, 10 % in ``val``, 20 % in ``test``; a material with one video is in ``train``;
    * ``official``: the published lists. They divide frames, not videos: of 106 test videos 100 also occur in train, so
      scores on it tell little about new objects. Use it only to compare with published figures.

    Frames that the authors labelled -1 (inconclusive) are left out.
    """

    name: ClassVar[str] = "touch_and_go"
    title: ClassVar[str] = "Touch and Go"
    licence: ClassVar[str] = "none stated for the data by the authors: ask them; research use with citation"
    citation: ClassVar[str] = (
        "Yang, Ma, Zhang, Zhu, Yuan, Owens: Touch and Go: Learning from Human-Collected Vision and Touch. NeurIPS "
        "Datasets and Benchmarks 2022"
    )
    homepage: ClassVar[str] = "https://touch-and-go.github.io"
    modalities: ClassVar[tuple[str, ...]] = ("image", "touch")
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    layout: ClassVar[str] = (
        "dataset/<video>/{video_frame,gelsight_frame}/<frame>.jpg (from the authors' extract_frame.py), with train.txt "
        "and test.txt of lines <video>/<frame>.jpg,<label>"
    )

    def __init__(self, root: Path, *, split: str = "video", **common: Any) -> None:
        super().__init__(root, **common)
        self._split = self._choice("split", split, ("video", "official"))
        self._base = "" if self.root.name == "dataset" else "dataset/"
        if self._base:
            self._find("dataset")
        self._inconclusive = 0
        self._frames: list[Frame] = []
        for name in ("train", "test"):
            self._frames += self._read_list(self._find(f"{name}.txt", f"dataset/{name}.txt"), name)
        twice = [key for key, count in Counter(frame[:2] for frame in self._frames).items() if count > 1]
        if twice:
            problems = [f"frame {'/'.join(key)} occurs twice in train.txt and test.txt" for key in twice]
            refuse(self.root, problems, len(self._frames) - len(twice), "frames")
        if split == "official":
            _logger.warning("%s: %s", self.title, self._leak())
        else:
            self._split_of = split_videos(Counter((frame.video, frame.label) for frame in self._frames), self.seed)

    def _read_list(self, path: Path, split: str) -> list[Frame]:
        lines = list(read_lines(path))
        frames, problems = [], []
        for number, line in enumerate(lines, 1):
            where, _, label = line.rpartition(",")
            video, _, name = where.rpartition("/")
            if not (video and name.endswith(".jpg")):
                problems.append(f"line {number}: '{line}', expected <video>/<frame>.jpg,<label>")
            elif label == _INCONCLUSIVE:
                self._inconclusive += 1
            elif label not in _LABELS:
                problems.append(f"line {number}: label '{label}', expected {_INCONCLUSIVE} to {len(MATERIALS) - 1}")
            else:
                frames.append(Frame(video, name, _LABELS[label], split))
        if problems:
            refuse(path, problems, len(lines) - len(problems), "lines")
        if not frames:
            raise DataError(f"{path} lists no frames: expected lines <video>/<frame>.jpg,<label>")
        return frames

    def _scan(self) -> Iterator[Sample]:
        for video, name, label, official in self._frames:
            is_official = self._split == "official"
            split = official if is_official else self._split_of[video]
            what = f"{video}/{name.removesuffix('.jpg')}"
            # The official split cuts videos in two; there the halves are groups.
            group = f"touch_and_go/{video}" + (f"/{split}" if is_official else "")
            for modality, folder in _FOLDERS.items():
                path = f"{self._base}{video}/{folder}/{name}"
                yield Sample(
                    f"{modality}/{what}", modality, self.name, path, label, split, group, f"touch_and_go/{what}"
                )

    def _labels(self) -> tuple[str, ...]:
        return MATERIALS

    def _notes(self) -> Iterator[str]:
        if self._inconclusive:
            yield f"{self._inconclusive} frames of inconclusive material (label {_INCONCLUSIVE}) are left out"
        if self._split == "official":
            yield self._leak()

    def _leak(self) -> str:
        train, test = ({frame.video for frame in self._frames if frame.split == name} for name in ("train", "test"))
        return (
            f"the official split leaks: {len(train & test)} of {len(test)} test videos also occur in train; "
            "split=video keeps videos apart"
        )


def split_videos(frames: Mapping[tuple[str, str], int], seed: int) -> dict[str, str]:
    """Draws whole videos into splits, the materials in equal shares.

    Args:
        frames: Number of frames by (video, material).
        seed: Of the order in which the videos of a material are dealt.

    Returns:
        Split by video.
    """
    by_video: dict[str, Counter[str]] = defaultdict(Counter)
    for (video, label), count in frames.items():
        by_video[video][label] += count
    videos_of: dict[str, list[str]] = defaultdict(list)
    for video, labels in sorted(by_video.items()):
        videos_of[max(sorted(labels), key=labels.__getitem__)].append(video)
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    for _, videos in sorted(videos_of.items()):
        dealt: Counter[str] = Counter()
        for i in rng.permutation(len(videos)):
            # to the split that has least of its share: the first to train, the second to test, the third to val
            split = min(_SHARES, key=lambda name: dealt[name] / _SHARES[name])
            found[videos[i]] = split
            dealt[split] += by_video[videos[i]].total()
    return found
