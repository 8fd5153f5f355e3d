"""EfficientAD-S (Batzner, Heckler, Konig, WACV 2024): teacher, student and an autoencoder.

All three see the image; where the student disagrees with the teacher, or with the
autoencoder, is a defect. The patch description network (PDN) has four convolutions.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 384
SIDES = (3, 8, 15, 32, 63, 127)
"""The autoencoder's enlargements, made for images of 256x256."""


def pdn(outside: int) -> nn.Sequential:
    """PDN-S with padding: [N, 3, 256, 256] to [N, outside, 64, 64] before the last kernel of 4."""
    return nn.Sequential(
        nn.Conv2d(3, 128, 4, padding=3),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=1),
        nn.Conv2d(128, 256, 4, padding=3),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=1),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, outside, 4),
    )


class Autoencoder(nn.Module):
    """Image to a 64-channel point and back to the teacher's features."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 64)
        down: list[nn.Module] = []
        for a, b in pairwise(widths):
            down += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        self.down = nn.Sequential(*down, nn.Conv2d(64, 64, 8))
        self.up = nn.ModuleList(nn.Conv2d(64, 64, 4, padding=2) for _ in range(6))
        self.last = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(64, FEATURES, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor, out: list[int]) -> Tensor:
        """[N, 3, H, W] to [N, FEATURES, *out]."""
        x = self.down(x)
        for conv, side in zip(self.up, SIDES, strict=True):
            x = F.interpolate(x, [side, side], mode="bilinear", align_corners=False)
            x = F.relu(conv(x))
        x = F.interpolate(x, out, mode="bilinear", align_corners=False)
        features: Tensor = self.last(x)
        return features


class EfficientAdS(nn.Module):
    """Images [N, 3, 256, 256] in [0, 1] to maps [N, 1, 256, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = pdn(FEATURES), pdn(2 * FEATURES)
        self.autoencoder = Autoencoder()

    def forward(self, x: Tensor) -> Tensor:
        """The mean of both disagreements, enlarged."""
        teacher, student = self.teacher(x), self.student(x)
        repainted = self.autoencoder(x, list(teacher.shape[-2:]))
        local = (teacher - student[:, :FEATURES]).square().mean(1, keepdim=True)
        structural = (repainted - student[:, FEATURES:]).square().mean(1, keepdim=True)
        maps = 0.5 * local + 0.5 * structural
        return F.interpolate(maps, list(x.shape[-2:]), mode="bilinear", align_corners=False)
