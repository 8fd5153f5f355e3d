"""STFPM (Wang, Han, Ding, Huang, BMVC 2021): a student that never saw defects disagrees there.

Teacher and student are ResNet-18 up to stage 3; the map is the product of the three stages'
distances between normalised features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ndp_edge.bench.peers.resnet import resnet18


class Stfpm(nn.Module):
    """Images [N, 3, H, W] in [0, 1] to maps [N, 1, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = resnet18(), resnet18()

    def forward(self, x: Tensor) -> Tensor:
        """Half the squared distance per stage, enlarged, multiplied."""
        total = torch.ones_like(x[:, :1])
        for a, b in zip(self.teacher(x), self.student(x), strict=True):
            difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
            distance = 0.5 * difference.square().sum(1, keepdim=True)
            size = list(x.shape[-2:])
            total = total * F.interpolate(distance, size, mode="bilinear", align_corners=False)
        return total
