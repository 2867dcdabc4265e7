"""The parts every encoder family is made of: trunks shared by modalities, one head per modality.

A family turns a model config (see ``configs/model/*.json``) into an :class:`EncoderSet`. Touch, thermal and event run
through the image trunk with a head of their own (paper Sec. 4.1), so one batched trunk pass serves all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Trunk(nn.Module):
    """Turns views into features.

    Attributes:
        feature_dim: Width of the features.
        parts: Widths of the parts that the features consist of, whose scales may differ; empty if they are one.
        packaged: The weights come from an installed package or a file of the user, so they are not saved with the
            model.
        fingerprint: Of weights from a file, to tell them from others; empty otherwise.
        takes: Shape of one view, -1 for any size, and dtype, as of a preset; None if presets are not compared with it.
        trainable: Trained by us; other trunks are frozen.
    """

    feature_dim: int
    parts: tuple[int, ...] = ()
    takes: tuple[tuple[int, ...], str] | None = None
    packaged: bool = False
    fingerprint: str = ""
    trainable: ClassVar[bool] = False

    @abstractmethod
    def forward(self, views: Tensor) -> Tensor:
        """Encodes views.

        Args:
            views: ``[N, ...]`` as the modality's preset makes them; pictures are ``uint8 [N, 3, H, W]`` and are
                normalised here, on this module's device.

        Returns:
            ``float32 [N, feature_dim]``, in whichever precision the weights are.
        """


class TextTower(nn.Module):
    """Turns sentences into embeddings.

    Attributes:
        feature_dim: Width of the embeddings.
        packaged: As of a :class:`Trunk`.
        fingerprint: As of a :class:`Trunk`.
        trainable: As of a :class:`Trunk`.
    """

    feature_dim: int
    packaged: bool = False
    fingerprint: str = ""
    trainable: ClassVar[bool] = False

    @abstractmethod
    def forward(self, sentences: Sequence[str]) -> Tensor:
        """Encodes sentences: ``float32 [N, feature_dim]``, not normalised."""


@dataclass(frozen=True)
class CompiledTrunk:
    """A trunk in another engine than torch.

    Attributes:
        engine: Its name.
        run: As :meth:`Trunk.forward`, on the CPU.
    """

    engine: str
    run: Callable[[Tensor], Tensor]


class EncoderSet(nn.Module):
    """All encoders of one model.

    Args:
        trunks: Trunks by trunk name. A text tower may be among them.
        heads: One per modality, ``[N, feature_dim] -> [N, embed_dim]``.
        trunk_of: Trunk name of each modality.
        embed_dim: Width of the shared space.

    Attributes:
        compiled: What stands for a trunk where nothing is learned, by trunk name.
    """

    def __init__(
        self,
        trunks: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        trunk_of: Mapping[str, str],
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.trunks = nn.ModuleDict(trunks)
        self.heads = nn.ModuleDict(heads)
        self.trunk_of = dict(trunk_of)
        self.embed_dim = embed_dim
        self.compiled: dict[str, CompiledTrunk] = {}

    def features(self, trunk: str, views: Tensor, counts: Sequence[int]) -> Tensor:
        """Trunk features of several samples in one pass.

        Args:
            trunk: Trunk name.
            views: ``[sum(counts), ...]``, the views of all samples one after another.
            counts: Number of views of each sample, each at least 1.

        Returns:
            ``float32 [len(counts), feature_dim]``, the mean over each sample's views.
        """
        compiled = self.compiled.get(trunk)
        features: Tensor = self.trunks[trunk](views) if compiled is None else compiled.run(views)
        if all(count == 1 for count in counts):
            return features
        return torch.stack([part.mean(dim=0) for part in features.split(list(counts))])

    def embed(self, modality: str, features: Tensor) -> Tensor:
        """Unit-length embeddings ``[N, embed_dim]`` of trunk features ``[N, feature_dim]``."""
        return F.normalize(self.heads[modality](features), dim=-1)

    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """Unit-length embeddings ``[N, embed_dim]`` of sentences."""
        return self.embed("text", self.trunks[self.trunk_of["text"]](sentences))
