"""Stage I, Cross-modal Alignment Distillation (CAD): students aligned to frozen teachers (paper Sec. 3.2, Eq. 2 to 7).

The paper states the loss twice, differently. Both are here as presets. ``listing`` is the code of App. B to the letter:
the student against the image teacher, samples of the same label as negatives, weights of 100 that only make sense for
its temperature of 1, where the KL terms are small. ``equation`` is Eq. 7 with a temperature, and departs from the
paper in what the shipped weights were trained with: samples of the same label are left out of the contrast, and the
teachers' cross-correspondence has its rows and columns exchanged.

Eq. 3 writes that matrix as a product with the student, against its own text (text with image), which is followed: text
@ image^T, in App. B image @ text^T. In both, row i compares sample i of the centre with the batch of the other teacher;
``cross_rows="center"`` is that. The default ``cross_rows="other"`` is the transpose: row i compares sample i of the
other teacher with the batch of the centre, as row i of the student's matrix, student @ center^T, does with the student.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.config import Config

PRESETS: dict[str, dict[str, Any]] = {
    "equation": {"tau_in": 0.07, "tau_kl": 0.07, "w_in": 1.0, "w_cr": 1.0, "w_se": 1.0},
    "listing": {
        "tau_in": 1.0,
        "tau_kl": 1.0,
        "w_in": 1 / 3,
        "w_cr": 100 / 3,
        "w_se": 100 / 3,
        "align_center": "image",
        "cross_rows": "center",
        "self_target": "image",
        "same_label": "negative",
    },
}


class CADConfig(Config):
    """Settings of the alignment loss.

    Attributes:
        tau_in: Temperature of the contrastive term.
        tau_kl: Temperature of both KL terms.
        w_in: Weight of the contrastive term.
        w_cr: Weight of the cross-correspondence term.
        w_se: Weight of the self-correspondence term.
        align_center: Teacher that the student is contrasted with; text is best in the paper's Table 7.
        cross_rows: Whose samples are the rows of the teachers' cross-correspondence matrix: ``"other"`` (the teacher
            that is not the centre, so that its columns are those of the student's matrix) or ``"center"`` (Eq. 3, 4 and
            App. B; rows and columns exchanged).
        self_target: Whose self-correspondence is distilled: the mean of both teachers (Eq. 5), or one.
        same_label: What samples of the same label in a batch are to each other in the contrastive term: ``"ignore"``
            (neither positive nor negative) or ``"negative"`` (as in the paper's listing).
    """

    tau_in: float = Field(0.07, gt=0)
    tau_kl: float = Field(0.07, gt=0)
    w_in: float = Field(1.0, ge=0)
    w_cr: float = Field(1.0, ge=0)
    w_se: float = Field(1.0, ge=0)
    align_center: str = Field("text", pattern="^(text|image)$")
    cross_rows: str = Field("other", pattern="^(other|center)$")
    self_target: str = Field("mean", pattern="^(mean|image|text)$")
    same_label: str = Field("ignore", pattern="^(ignore|negative)$")


class CADTerms(NamedTuple):
    """The terms of the loss, unweighted, and their weighted sum. All scalars."""

    contrastive: Tensor
    cross: Tensor
    self_: Tensor
    total: Tensor


def contrastive_loss(student: Tensor, center: Tensor, tau: float, label: Tensor | None = None) -> Tensor:
    """Each student embedding against the teacher embeddings of the batch (Eq. 2).

    Args:
        student: ``[B, D]``, unit length.
        center: ``[B, D]``, unit length, the teacher's embedding of the same samples.
        tau: Temperature.
        label: ``int64 [B]``; if given, samples of the same label are not each other's negatives.

    Returns:
        Scalar.
    """
    logits = student @ center.T / tau
    if label is not None:
        same = label[:, None] == label[None, :]
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def correspondence_loss(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """KL(teacher || student) of row-wise softmaxed similarity matrices, mean over the rows (Eq. 4 and 6).

    Args:
        student: ``[B, B]`` similarities of the student.
        teacher: ``[B, B]`` similarities of the teachers; no gradient flows into them.
        tau: Temperature of both softmaxes.

    Returns:
        Scalar, zero when both are equal.
    """
    target = (teacher.detach() / tau).log_softmax(dim=-1)
    return F.kl_div((student / tau).log_softmax(dim=-1), target, reduction="batchmean", log_target=True)


def cad_loss(student: Tensor, image: Tensor, text: Tensor, config: CADConfig, label: Tensor | None = None) -> CADTerms:
    """The whole loss of stage I (Eq. 7).

    Args:
        student: ``[B, D]`` student embeddings, unit length.
        image: ``[B, D]`` image teacher's embeddings of samples that match the student's, unit length.
        text: ``[B, D]`` text teacher's embeddings of their labels, unit length.
        config: Settings.
        label: ``int64 [B]``, needed for ``same_label="ignore"``.

    Returns:
        The three terms and their weighted sum.
    """
    image, text = image.detach(), text.detach()
    center, other = (text, image) if config.align_center == "text" else (image, text)
    contrastive = contrastive_loss(student, center, config.tau_in, label if config.same_label == "ignore" else None)
    teachers = other @ center.T if config.cross_rows == "other" else center @ other.T
    cross = correspondence_loss(student @ center.T, teachers, config.tau_kl)
    self_ = correspondence_loss(student @ student.T, _self_target(image, text, config.self_target), config.tau_kl)
    total = config.w_in * contrastive + config.w_cr * cross + config.w_se * self_
    return CADTerms(contrastive, cross, self_, total)


def _self_target(image: Tensor, text: Tensor, target: str) -> Tensor:
    if target == "image":
        return image @ image.T
    if target == "text":
        return text @ text.T
    return (image @ image.T + text @ text.T) / 2
