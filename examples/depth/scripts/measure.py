#!/usr/bin/env python3
"""What depth adds to photographs: top-1 on pairs of a photo and a depth picture of the same kind of thing.

``measure.py --model out/depth/align --data out/depth/data`` takes the pairs from the split ``val``, with the photos as
they are, and damaged in every way that the image modality knows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnibind_core import OmniBind, modalities
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model with depth")
    parser.add_argument("--data", type=Path, required=True, help="folder with samples.csv")
    parser.add_argument("--count", type=int, default=5000, help="pairs (default: %(default)s)")
    args = parser.parse_args()
    modalities.register(Path(__file__).parent.parent)
    model = OmniBind.from_pretrained(args.model, modalities=("image", "depth"))
    concepts, source = Concepts.read(args.model / "labels.csv"), FolderSource(args.data)
    samples = {
        name: [s for s in source.samples(split="val", modality=name) if concepts.of(s) in model.labels.names]
        for name in ("image", "depth")
    }
    shared = set.intersection(*({concepts.of(sample) for sample in found} for found in samples.values()))
    if not shared:
        sys.exit(f"{args.data}: no label of the model has photos and depth pictures in the split 'val'")
    photos, views = ([s for s in samples[name] if concepts.of(s) in shared] for name in ("image", "depth"))
    rng = np.random.default_rng(0)
    label = rng.choice(sorted(shared), args.count)
    pick = [
        [rng.choice([row for row, s in enumerate(found) if concepts.of(s) == name]) for name in label]
        for found in (photos, views)
    ]

    def embed(found: list[Sample], damage: str | None = None) -> Tensor:
        rows = []
        for sample in found:
            raw = source.load(sample)
            if damage is not None:
                raw = modalities.get("image").corrupt(raw, damage, rng)
            rows.append(model.embed([(sample.modality, model.process(sample.modality, raw))]))
        return torch.cat(rows)

    def top1(**tokens: Tensor) -> str:
        stacked = torch.stack(list(tokens.values()), dim=1)
        slots = torch.tensor([[*model.config.modalities].index(name) for name in tokens]).expand(len(stacked), -1)
        with torch.inference_mode():
            fused = model.fusion(stacked, torch.ones(stacked.shape[:2], dtype=torch.bool), slots).embedding
        found = np.array(model.labels.names)[model.labels.similarities(fused).argmax(dim=1).numpy()]
        return f"{np.mean(found == label):6.1%}"

    print(f"{args.count} pairs of {len(photos)} photos and {len(views)} depth pictures, {len(shared)} concepts")
    print("photos        photo   depth    both")
    depth = embed(views)[pick[1]]
    for damage in (None, *modalities.get("image").corruptions):
        photo = embed(photos, damage)[pick[0]]
        print(
            f"{damage or 'as they are':12} {top1(image=photo)}  {top1(depth=depth)}  {top1(image=photo, depth=depth)}"
        )


if __name__ == "__main__":
    main()
