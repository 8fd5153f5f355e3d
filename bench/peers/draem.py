"""DRAEM (Zavrtanik, Kristan, Skocaj, ICCV 2021): reconstruct, then discriminate.

Two U-nets at full width: one without skips repaints the image as if it were good, the other
compares both and segments. Widths as in the authors' release: 128 and 64.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ndp_edge.errors import InputError


def block(inside: int, outside: int, middle: int | None = None) -> nn.Sequential:
    """Two 3x3 convolutions, each with BN and ReLU."""
    between = middle or outside
    return nn.Sequential(
        nn.Conv2d(inside, between, 3, padding=1),
        nn.BatchNorm2d(between),
        nn.ReLU(inplace=True),
        nn.Conv2d(between, outside, 3, padding=1),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Up(nn.Sequential):
    """Twice the size, bilinear, then one 3x3 convolution with BN and ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        )


class Reconstructive(nn.Module):
    """RGB in, RGB out; five levels down, no skips."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            [block(3, w), block(w, 2 * w), block(2 * w, 4 * w), block(4 * w, 8 * w)]
        )
        self.bottom = block(8 * w, 8 * w)
        self.up = nn.ModuleList([Up(8 * w, 8 * w), Up(4 * w, 4 * w), Up(2 * w, 2 * w), Up(w, w)])
        self.mix = nn.ModuleList(
            [block(8 * w, 4 * w, 8 * w), block(4 * w, 2 * w, 4 * w), block(2 * w, w, 2 * w),
             block(w, w)]
        )  # fmt: skip
        self.out = nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] to the same."""
        for down in self.down:
            x = F.max_pool2d(down(x), 2)
        x = self.bottom(x)
        for up, mix in zip(self.up, self.mix, strict=True):
            x = mix(up(x))
        out: Tensor = self.out(x)
        return out


class Discriminative(nn.Module):
    """Image and reconstruction in, two logits a pixel out; six levels with skips."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = [6, *(width * m for m in (1, 2, 4, 8, 8, 8))]
        self.down = nn.ModuleList(block(a, b) for a, b in pairwise(sizes))
        w = width
        self.up = nn.ModuleList(
            [Up(8 * w, 8 * w), Up(8 * w, 4 * w), Up(4 * w, 2 * w), Up(2 * w, w), Up(w, w)]
        )
        self.mix = nn.ModuleList(
            [block(16 * w, 8 * w), block(12 * w, 4 * w), block(6 * w, 2 * w), block(3 * w, w),
             block(2 * w, w)]
        )  # fmt: skip
        self.out = nn.Conv2d(w, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6, H, W] to [N, 2, H, W]."""
        skips = []
        for i, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        skips.pop()
        for up, mix in zip(self.up, self.mix, strict=True):
            x = mix(torch.cat([up(x), skips.pop()], 1))
        out: Tensor = self.out(x)
        return out


class Draem(nn.Module):
    """Images [N, 3, H, W] in [0, 1] to maps [N, 1, H, W]; H and W multiples of 32."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.reconstruct = Reconstructive(width)
        self.discriminate = Discriminative(width // 2)

    def forward(self, x: Tensor) -> Tensor:
        """The defect's probability after the paper's 21x21 mean."""
        logits = self.discriminate(torch.cat([self.reconstruct(x), x], 1))
        return F.avg_pool2d(logits.softmax(1)[:, 1:], 21, 1, 10)


def load_draem(path: Path) -> Draem:
    """A trained net.

    Raises:
        InputError: no such file, or no weights of this net.
    """
    net = Draem()
    try:
        net.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{path} holds no weights of DRAEM: {line}") from error
    return net
