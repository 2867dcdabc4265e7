"""Checkpoints of CLIP's towers to our state dicts, and to ImageBind's: pure functions of names and tensors.

Our names are OpenCLIP's. Other names for the same towers are Hugging Face's (``CLIPModel``) and ImageBind's, whose
image and text towers are those of OpenCLIP's ViT-H/14, frozen. ImageBind normalises with an epsilon of 1e-6 where
OpenCLIP has 1e-5, which changes embeddings a little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from omnibind_core.errors import WeightsError

_FRAMES = 2  # of the clips that ImageBind's stem takes; a picture is a clip of equal frames
_LAYER = re.compile(r"(?<=blocks\.|layers\.)\d+")
_QKV = re.compile(r"(.+\.self_attn)\.([qkv])_proj\.(weight|bias)")
# Saved beside the weights by some versions: masks, numbers of positions, settings of OpenAI's archives.
_NO_WEIGHTS = ("attn_mask", "position_ids", "input_resolution", "context_length", "vocab_size", "text.mask")


def _layers(theirs: str, ours: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {theirs + k: ours + v for k, v in parts.items()}


# The beginning of a foreign name (a layer's number is written {}) and of ours; what follows is the same in both.
_HF_LAYER = {
    "layer_norm1": "ln_1",
    "self_attn.in_proj_weight": "attn.in_proj_weight",  # of three matrices, see _joined
    "self_attn.in_proj_bias": "attn.in_proj_bias",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_HF_VISION = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "visual_projection.weight": "visual.proj",
    **_layers("vision_model.encoder.layers.{}.", "visual.transformer.resblocks.{}.", _HF_LAYER),
}
_HF_TEXT = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
    "logit_scale": "logit_scale",
    **_layers("text_model.encoder.layers.{}.", "transformer.resblocks.{}.", _HF_LAYER),
}
_IB_LAYER = {"norm_1": "ln_1", "attn": "attn", "norm_2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_IB_VISION = {
    "modality_preprocessors.vision.cls_token": "visual.class_embedding",
    "modality_preprocessors.vision.rgbt_stem.proj.1": "visual.conv1",
    "modality_preprocessors.vision.pos_embedding_helper.pos_embed": "visual.positional_embedding",
    "modality_trunks.vision.pre_transformer_layer.0": "visual.ln_pre",
    "modality_heads.vision.0": "visual.ln_post",
    "modality_heads.vision.2.weight": "visual.proj",
    **_layers("modality_trunks.vision.blocks.{}.", "visual.transformer.resblocks.{}.", _IB_LAYER),
}
_IB_TEXT = {
    "modality_preprocessors.text.token_embedding": "token_embedding",
    "modality_preprocessors.text.pos_embed": "positional_embedding",
    "modality_heads.text.proj.0": "ln_final",
    "modality_heads.text.proj.1.weight": "text_projection",
    "modality_postprocessors.text.1.log_logit_scale": "logit_scale",
    **_layers("modality_trunks.text.blocks.{}.", "transformer.resblocks.{}.", _IB_LAYER),
}

# Tensors that differ in more than their names, by ours.
_Make = Callable[[Tensor], Tensor]


def _transposed(x: Tensor) -> Tensor:
    return x.T.contiguous()


_FROM_HF: dict[str, _Make] = {"visual.proj": _transposed, "text_projection": _transposed}
_FROM_IB: dict[str, _Make] = {
    **_FROM_HF,
    "visual.class_embedding": lambda x: x.flatten(),
    "visual.conv1.weight": lambda x: x.sum(dim=2),
    "visual.positional_embedding": lambda x: x.squeeze(0),
    "positional_embedding": lambda x: x.squeeze(0),
}
_TO_IB: dict[str, _Make] = {
    **_FROM_HF,
    "visual.class_embedding": lambda x: x[None, None],
    "visual.conv1.weight": lambda x: (x / _FRAMES)[:, :, None].repeat(1, 1, _FRAMES, 1, 1),
    "visual.positional_embedding": lambda x: x[None],
    "positional_embedding": lambda x: x[None],
}


def vision(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`~omnibind_core.encoders.open_clip.model.OpenClipVision`.

    Args:
        checkpoint: Tensors named as OpenCLIP, Hugging Face or ImageBind name them.

    Returns:
        What the checkpoint has of the tower; names that have no counterpart are kept, so that they are noticed.

    Raises:
        WeightsError: It has nothing of the tower; says what was found.
    """
    if any(name.startswith("visual.") for name in checkpoint):
        return {name: checkpoint[name] for name in checkpoint if name.startswith("visual.")}
    return _foreign(checkpoint, "image", (("vision_model.", _HF_VISION, _FROM_HF), ("vision.", _IB_VISION, _FROM_IB)))


def text(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`~omnibind_core.encoders.open_clip.model.OpenClipText`; see :func:`vision`.

    Raises:
        WeightsError: The checkpoint has nothing of the tower; says what was found.
    """
    if any(name.removeprefix("text.").startswith("transformer.resblocks.") for name in checkpoint):
        own = (name for name in checkpoint if not name.startswith("visual.") and not name.endswith(_NO_WEIGHTS))
        return {name.removeprefix("text."): checkpoint[name] for name in own}
    return _foreign(checkpoint, "text", (("text_model.", _HF_TEXT, _FROM_HF), ("text.", _IB_TEXT, _FROM_IB)))


def to_imagebind(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageBind's image and text modalities, under its names, from OpenCLIP's towers.

    Args:
        checkpoint: As of :func:`vision`; one of the towers is enough.

    Raises:
        WeightsError: It has neither tower.
    """
    state: dict[str, Tensor] = {}
    for read, table in ((vision, _IB_VISION), (text, _IB_TEXT)):
        try:
            tower = read(checkpoint)
        except WeightsError:
            continue
        back = {ours: theirs for theirs, ours in table.items()}
        for name, tensor in tower.items():
            state[_renamed(name, back) or name] = _TO_IB.get(name, _same)(tensor)
    if not state:
        raise WeightsError(f"expected CLIP's image or text tower, got {_described(checkpoint)}")
    positions = state.get("modality_preprocessors.text.pos_embed")
    if positions is not None:
        mask = positions.new_full((positions.shape[1], positions.shape[1]), -torch.inf)
        state["modality_preprocessors.text.mask"] = mask.triu(1)
    return state


def _same(x: Tensor) -> Tensor:
    return x


def _foreign(
    checkpoint: Mapping[str, Tensor],
    tower: str,
    layouts: tuple[tuple[str, Mapping[str, str], Mapping[str, _Make]], ...],
) -> dict[str, Tensor]:
    """The tower by our names, from the first layout whose mark is in the names of the checkpoint."""
    for mark, table, make in layouts:
        # ImageBind's names are also found inside Point-Bind's and UniBind's, behind a prefix.
        part = mark if mark.endswith("_model.") else f"modality_trunks.{mark}"
        first = next((name for name in checkpoint if part in name), None)
        if first is None:
            continue
        prefix = first[: first.index(part)]
        own = {name[len(prefix) :]: name for name in checkpoint if name.startswith(prefix)}
        state: dict[str, Tensor] = {}
        split: dict[str, dict[str, Tensor]] = {}
        for theirs, name in own.items():
            if found := _QKV.fullmatch(theirs):
                whole = _renamed(f"{found[1]}.in_proj_{found[3]}", table)
                if whole is not None:
                    split.setdefault(whole, {})[found[2]] = checkpoint[name]
            elif (ours := _renamed(theirs, table)) is not None:
                state[ours] = make.get(ours, _same)(checkpoint[name])
            elif mark in theirs and not theirs.endswith(_NO_WEIGHTS):
                state[theirs] = checkpoint[name]
        return state | {name: torch.cat([x[k] for k in "qkv"]) for name, x in split.items() if len(x) == 3}
    raise WeightsError(f"expected CLIP's {tower} tower, got {_described(checkpoint)}")


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    """A name of the table's left side as one of its right side; None if it is not there."""
    layer = _LAYER.search(name)
    stem, rest = (_LAYER.sub("{}", name, count=1) if layer else name), ""
    while stem:
        if stem in table:
            new = table[stem] + rest
            return new.replace("{}", layer[0]) if layer else new
        stem, dot, last = stem.rpartition(".")
        rest = f"{dot}{last}{rest}"
    return None


def _described(checkpoint: Mapping[str, Tensor]) -> str:
    begins = sorted({".".join(name.split(".")[:2]) for name in checkpoint})
    return f"tensors named {', '.join(begins[:6])}{', …' if len(begins) > 6 else ''}" if begins else "no tensors"
