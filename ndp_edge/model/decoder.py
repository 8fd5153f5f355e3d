"""The decoder: from repaired stages 5, 4, 3 back to a picture of the normal texture (Fig. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ndp_edge.model.encoder import conv_bn_relu


class UpStep(nn.Module):
    """Conv-transpose 4x4 s2 p1 + BN + ReLU, concatenation with a skip, two conv3x3 + BN + ReLU."""

    def __init__(self, c_in: int, c_skip: int, c_out: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
        )
        self.mix = nn.Sequential(
            conv_bn_relu(c_out + c_skip, c_out, 3), conv_bn_relu(c_out, c_out, 3)
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.up(x)
        mixed: Tensor = self.mix(x if skip is None else torch.cat([x, skip], dim=1))
        return mixed


class Decoder(nn.Module):
    """Maps of stages 3, 4, 5 to an RGB picture [N, 3, H, W] in [0, 1]; no skips from 1 and 2."""

    def __init__(self, channels: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.steps = nn.ModuleList(
            [UpStep(c5, c4, c4), UpStep(c4, c3, c3), UpStep(c3, 0, c2), UpStep(c2, 0, c1)]
        )
        self.to_image = nn.Conv2d(c1, 3, 3, padding=1)

    def forward(self, stage3: Tensor, stage4: Tensor, stage5: Tensor) -> Tensor:
        x = self.steps[0](stage5, stage4)
        x = self.steps[1](x, stage3)
        x = self.steps[3](self.steps[2](x))
        return torch.sigmoid(self.to_image(x))
