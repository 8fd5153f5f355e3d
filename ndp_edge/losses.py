"""The paper's losses, equations 2, 9, 10, 12 to 17. Every squared norm is a mean.

Images are [N, 3, H, W] in [0, 1], masks [N, 1, H, W] of 0 and 1, features [N, C, h, w].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

REC_WEIGHT = 100.0
"""w_rec of eq. 14 and 17; every other weight is 1."""

FOCAL_GAMMA = 2.0


def reconstruction(image: Tensor, reconstructed: Tensor) -> Tensor:
    """Eq. 12, 15: mean squared error."""
    return F.mse_loss(reconstructed, image)


def defect_perception(good: Sequence[Tensor], bad: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Eq. 2: per stage, the min-max normalised squared feature gap against the mask.

    N(.) is min-max per image and stage. Images with an empty mask have nothing to perceive
    (their gap is zero everywhere) and are left out; with none left the loss is 0.
    """
    keep = mask.flatten(1).amax(dim=1) > 0
    total = mask.new_zeros(len(mask))
    for a, b in zip(good, bad, strict=True):
        gap = ((a - b) ** 2).mean(dim=1, keepdim=True)
        low, high = gap.amin(dim=(2, 3), keepdim=True), gap.amax(dim=(2, 3), keepdim=True)
        wanted = F.interpolate(mask, size=gap.shape[-2:], mode="area")
        error = ((gap - low) / (high - low).clamp_min(1e-8) - wanted) ** 2
        total = total + error.flatten(1).mean(dim=1)
    # Weighed, not picked: no branch on what the device holds, so that a CUDA graph can hold it.
    return (total * keep).sum() / keep.sum().clamp_min(1) / len(good)


def feature_repair(repaired: Sequence[Tensor], good: Sequence[Tensor]) -> Tensor:
    """Eq. 9: F_out of stages 3-5 against the good image's F_o.

    The printed factor is 1 / (l2 - l1) = 1 / 2 over three stages; we keep it.
    """
    terms = [F.mse_loss(r, g) for r, g in zip(repaired, good, strict=True)]
    return torch.stack(terms).sum() / (len(terms) - 1)


def focal(logits: Tensor, target: Tensor, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Binary focal loss without alpha: mean of (1 - p_t)^gamma * -log p_t, from logits."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = torch.sigmoid(logits)
    miss = torch.where(target > 0.5, 1 - p, p)
    return (miss**gamma * cross_entropy).mean()


def segmentation(logits: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Eq. 10: focal loss at three scales.

    The mask is shrunk by maximum (a cell with any defect is defect): with an average, thin
    scratches would vanish from the deepest map, which carries 0.6 of eq. 11.
    """
    terms = [focal(x, F.adaptive_max_pool2d(mask, x.shape[-2:])) for x in logits]
    return torch.stack(terms).mean()


def agreement(logits: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean Kullback-Leibler divergence of the maps' pixels from the target's, three scales.

    A pixel is a Bernoulli variable of p = sigmoid(logit); 0 where all logits agree.
    """
    terms = []
    for x, t in zip(logits, target, strict=True):
        p = torch.sigmoid(t)
        cross = F.binary_cross_entropy_with_logits(x, p)
        terms.append(cross - F.binary_cross_entropy_with_logits(t, p))
    return torch.stack(terms).mean()


def joint(parts: dict[str, Tensor]) -> Tensor:
    """Eq. 14 and 17: 100 * "rec" plus every other part once."""
    return torch.stack([REC_WEIGHT * v if name == "rec" else v for name, v in parts.items()]).sum()
