"""Step 0, image-text alignment: the image teacher is aligned to the text teacher, in families whose image head learns.

After this the image teacher is frozen like the text teacher. ImageBind and CLIP come aligned and skip this.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.features.sets import learns, top1_by_text
from omnibind_core.training.batches import Batch, Batches
from omnibind_core.training.config import ImageTextConfig
from omnibind_core.training.dataset import TrainingData, prompts
from omnibind_core.training.engine import Stage


class ImageText(Stage):
    """Photos against the text embeddings of all labels. Without photos, or a head that learns, it has no steps.

    Args:
        data: What to train on; its photos are used.
        model: Architecture.
        encoder_set: The encoders; the image head is changed.
        settings: Of the stage.
    """

    def __init__(
        self, data: TrainingData, model: ModelConfig, encoder_set: EncoderSet, settings: ImageTextConfig
    ) -> None:
        super().__init__("image_text", settings, salt="tie")  # its name when the shipped model was trained
        self.tau = settings.tau
        self._frozen = (data, model, encoder_set.eval())
        self.steps = 0
        photos = data.train.get("image")
        if photos is None or not learns(encoder_set.heads["image"]):
            return
        self.head = encoder_set.heads["image"]
        self.text = prompts(data, encoder_set)
        self.batches = Batches("image", [(photos, min(settings.batch, len(photos)))], settings.balance)
        self.steps = settings.steps_over(len(photos))

    def draw(self, step: int, rng: np.random.Generator) -> Batch:
        """See :meth:`Stage.draw`."""
        return self.batches.draw(rng)

    def encode(self, batch: Batch, share: slice) -> Tensor:
        """See :meth:`Stage.encode`."""
        _, model, encoder_set = self._frozen
        return batch.embed(share, encoder_set, model)

    def losses(self, embeddings: Tensor, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Stage.losses`."""
        label = torch.from_numpy(batch.concept).to(embeddings.device)
        return {"loss": F.cross_entropy(embeddings @ self.text.T / self.tau, label)}

    def validate(self) -> dict[str, float]:
        """See :meth:`Stage.validate`: top-1 of photos."""
        data, model, encoder_set = self._frozen
        photos = data.val.get("image")
        return {} if photos is None else {"image": top1_by_text(photos, "image", model, encoder_set, self.text)}
