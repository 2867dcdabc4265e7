"""The parts every encoder family is made of: trunks shared by modalities, one head per modality.

A family turns a model config (see ``configs/model/*.json``) into an :class:`EncoderSet`. Touch, thermal and event run
through the image trunk with a head of their own (paper Sec. 4.1), so one batched trunk pass serves all of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.blocks import Blocks, Progress, address
from omnibind_core.files import cache_folder

_CHUNK = 64  # sentences that text towers encode at once
_LONG = 1024  # sentences of which one wants to see how far they are


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

    def of_tokens(self) -> nn.Module | None:
        """The network behind the tokeniser, by which the tower is exported; None if it stays in torch.

        It takes ids ``int64 [N, T]`` and mask ``bool [N, T]`` of :mod:`omnibind_core.encoders.lite.tokenisers`.
        """
        return None


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

    @torch.inference_mode()
    def encode_text_once(self, sentences: Sequence[str]) -> Tensor:
        """As :meth:`encode_text`, bit for bit, of sentences that come again in the next run: see :func:`text_once`."""
        return self.embed("text", text_once(self.trunks[self.trunk_of["text"]], sentences))


@torch.inference_mode()
def text_once(tower: nn.Module, sentences: Sequence[str]) -> Tensor:
    """What a text tower makes of sentences, ``float32 [N, feature_dim]``: computed once, and kept in the cache.

    The last bits of an embedding depend on the sentences that it is encoded with, so it is found by those, too: what is
    known changes nothing.
    """
    if not sentences:
        out: Tensor = tower(sentences)
        return out
    chunks = [list(sentences[start : start + _CHUNK]) for start in range(0, len(sentences), _CHUNK)]
    addresses = [[address(str(place), json.dumps(chunk)) for place in range(len(chunk))] for chunk in chunks]
    blocks = Blocks(cache_folder() / "texts" / address(type(tower).__qualname__, weights_identity(tower)))
    progress = Progress("text embeddings", "sentences") if len(sentences) >= _LONG else None
    missing = [number for number, rows in enumerate(addresses) if blocks.missing(rows)]
    for done, number in enumerate(missing, start=1):
        blocks.add(addresses[number], tower(chunks[number]).cpu().numpy())
        if progress is not None:
            progress(min(done * _CHUNK, len(sentences)), min(len(missing) * _CHUNK, len(sentences)))
    rows = np.array(blocks.gather([one for rows in addresses for one in rows]))
    return torch.from_numpy(rows).to(next(itertools.chain(tower.parameters(), tower.buffers())).device)


def weights_identity(module: nn.Module) -> str:
    """What tells the weights of a trunk or text tower from others; packaged weights are always the same."""
    if getattr(module, "packaged", False):
        return str(module.fingerprint)
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return digest.hexdigest()
