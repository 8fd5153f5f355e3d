"""The encoder: five stages, each halving the one before it (paper III-B, Fig. 1)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


def conv_bn_relu(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; "same" size at stride 1, half at stride 2."""
    padding = (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    )


class Encoder(nn.Module):
    """RGB image [N, 3, H, W] in [0, 1] to the maps of stages 1 to `depth`.

    Stage 1 is two 3x3 convolutions at full size; stages 2 to 5 are a 4x4 convolution of
    stride 2 and a 3x3 one. Stage l gives [N, channels[l-1], H / 2^(l-1), W / 2^(l-1)].
    """

    def __init__(self, channels: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        stages = [
            nn.Sequential(
                conv_bn_relu(3, channels[0], 3), conv_bn_relu(channels[0], channels[0], 3)
            )
        ]
        for c_in, c_out in pairwise(channels):
            stages.append(
                nn.Sequential(conv_bn_relu(c_in, c_out, 4, 2), conv_bn_relu(c_out, c_out, 3))
            )
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor, depth: int = 5) -> list[Tensor]:
        """Maps of stages 1 to `depth` (1 to 5), shallowest first."""
        maps: list[Tensor] = []
        x = image
        for stage in list(self.stages)[:depth]:
            x = stage(x)
            maps.append(x)
        return maps
