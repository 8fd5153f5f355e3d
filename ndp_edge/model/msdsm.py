"""MSDSM: one small head per scale, from both encodings to a defect map (paper III-D, Fig. 6).

The paper leaves the heads' layout open. Ours squeezes 2C to C/2 with a 1x1 convolution first,
so that the two 3x3 convolutions cost a tenth of what they would at full width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ndp_edge.model.encoder import conv_bn_relu


class Head(nn.Module):
    """[N, C, h, w] of the image and of its reconstruction to logits [N, 1, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.squeeze = conv_bn_relu(2 * channels, width, 1)
        self.look = nn.Sequential(conv_bn_relu(width, width, 3), conv_bn_relu(width, width, 3))
        self.to_map = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        both = torch.cat([image, reconstruction], dim=1)
        logits: Tensor = self.to_map(self.look(self.squeeze(both)))
        return logits


class MSDSM(nn.Module):
    """Heads at encoder stages 1 to 3."""

    def __init__(self, channels: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(c) for c in channels[:3])

    def forward(self, image: list[Tensor], reconstruction: list[Tensor]) -> list[Tensor]:
        """Logits [N, 1, H / 2^i, W / 2^i] for i = 0, 1, 2; their sigmoids are AM1 to AM3."""
        return [head(a, b) for head, a, b in zip(self.heads, image, reconstruction, strict=True)]
