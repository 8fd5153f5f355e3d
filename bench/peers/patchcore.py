"""PatchCore (Roth et al., CVPR 2022): the distance of every patch to the nearest good one.

Wide ResNet-50-2, stages 2 and 3, averaged over 3x3, joined at stage 2's size; the memory bank
is a tenth of the patches of the good pictures. Without the paper's re-weighting of the image
score, which one patch decides and which costs nothing beside the search.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ndp_edge.bench.peers.resnet import wide_resnet50

PICTURES = 260
"""Good pictures behind the bank: as many as the built-in surface has for training."""

PATCHES, SHARE, FEATURES = 32 * 32, 0.1, 512 + 1024
"""Patches of a 256x256 picture, the coreset's share of them, features of each."""


class PatchCore(nn.Module):
    """Images [N, 3, H, W] in [0, 1] to maps [N, 1, H, W]."""

    def __init__(self, patches: int = int(SHARE * PICTURES * PATCHES)) -> None:
        super().__init__()
        self.backbone = wide_resnet50()
        self.register_buffer("bank", torch.randn(patches, FEATURES))
        self.register_buffer("norms", self.get_buffer("bank").square().sum(1))

    def forward(self, x: Tensor) -> Tensor:
        """Euclidean distance to the bank's nearest patch, enlarged."""
        _, fine, coarse = self.backbone(x)
        fine, coarse = (F.avg_pool2d(m, 3, 1, 1) for m in (fine, coarse))
        size = list(fine.shape[-2:])
        coarse = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        patches = torch.cat([fine, coarse], 1).flatten(2).transpose(1, 2)
        dots = patches @ self.get_buffer("bank").T
        squares = patches.square().sum(2, keepdim=True) + self.get_buffer("norms") - 2 * dots
        nearest = squares.amin(2).clamp_min(0).sqrt()
        maps = nearest.reshape(x.shape[0], 1, *size)
        return F.interpolate(maps, list(x.shape[-2:]), mode="bilinear", align_corners=False)
