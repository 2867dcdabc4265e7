"""all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers): a six-layer BERT whose token outputs are averaged."""

from __future__ import annotations

from collections.abc import Sequence

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.base import TextTower
from omnibind_core.encoders.lite.convert import minilm
from omnibind_core.encoders.lite.tokenisers import word_pieces
from omnibind_core.encoders.packages import MINILM_WEIGHTS, packaged_file
from omnibind_core.errors import WeightsError

# The checkpoint's config.json.
_VOCABULARY, _POSITIONS = 30522, 512
_WIDTH, _HIDDEN, _LAYERS, _HEADS = 384, 1536, 6, 12
_EPS = 1e-12
_BATCH = 64  # sentences encoded at once


class Layer(nn.Module):
    """A transformer layer that normalises after each residual sum, as BERT does."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.norm1 = nn.LayerNorm(_WIDTH, eps=_EPS)
        self.expand = nn.Linear(_WIDTH, _HIDDEN)
        self.project = nn.Linear(_HIDDEN, _WIDTH)
        self.norm2 = nn.LayerNorm(_WIDTH, eps=_EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``[N, T, 384]`` to the same, attending where the mask ``[N, T]`` is true."""
        q, k, v = self.qkv(x).unflatten(2, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = self.norm1(x + self.out(attended.transpose(1, 2).flatten(2)))
        out: Tensor = self.norm2(x + self.project(F.gelu(self.expand(x))))
        return out


class MiniLM(nn.Module):
    """Token ids ``int64 [N, T]`` and mask ``bool [N, T]`` (true: a token) to embeddings ``float32 [N, 384]``."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_VOCABULARY, _WIDTH)
        self.positions = nn.Embedding(_POSITIONS, _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH, eps=_EPS)
        self.layers = nn.ModuleList(Layer() for _ in range(_LAYERS))

    @classmethod
    def from_package(cls) -> MiniLM:
        """The trained network.

        Raises:
            MissingDependencyError: The package that carries the weights is not installed.
            WeightsError: Its file is not the known one.
        """
        path = packaged_file(MINILM_WEIGHTS)
        try:
            checkpoint = safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is no safetensors file: {error}") from error
        with torch.device("meta"):  # every tensor is replaced: initialising 22 M numbers would only cost time
            network = cls()
        network.load_state_dict(minilm(checkpoint), assign=True)
        return network.requires_grad_(False).eval()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        x = self.norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        weights = mask.to(x.dtype)[..., None]
        return (x * weights).sum(dim=1) / weights.sum(dim=1)


class MiniLMTower(TextTower):
    """Sentences to MiniLM embeddings. Weights and tokenizer are read when the first sentence comes."""

    packaged = True
    feature_dim = _WIDTH
    network: MiniLM | None
    anchor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = None
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # follows .to(): where the network goes

    def _load(self) -> MiniLM:
        tokeniser = word_pieces()
        network = MiniLM.from_package().to(self.anchor.device)
        self.tokeniser, self.network = tokeniser, network  # whole, since two threads may come here at once
        return network

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """See :meth:`TextTower.forward`."""
        if len(sentences) == 0:
            return self.anchor.new_empty(0, _WIDTH)
        network = self._load() if self.network is None else self.network
        embeddings = []
        for start in range(0, len(sentences), _BATCH):
            found = self.tokeniser(sentences[start : start + _BATCH])
            tokens, mask = (torch.from_numpy(found[key]).to(self.anchor.device) for key in ("tokens", "mask"))
            embeddings.append(network(tokens, mask))
        return torch.cat(embeddings)

    def of_tokens(self) -> MiniLM:
        """See :meth:`TextTower.of_tokens`."""
        return self._load() if self.network is None else self.network
