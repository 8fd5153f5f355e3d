"""What Table VI puts in MSDSM's place: maps from an image and its reconstruction, no weights.

The paper names the three and gives no formula; each docstring says what was taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation in pixels of SSIM's Gaussian window."""

C1, C2 = 0.01**2, 0.03**2
"""SSIM's constants for values in [0, 1]."""

LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in a gray value (ITU-R BT.601)."""


def pixel_gap(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean over the channels of |image - reconstruction|.

    Args:
        image, rebuilt: [N, 3, H, W] in [0, 1].

    Returns:
        [N, 1, H, W] in [0, 1].
    """
    return (image - rebuilt).abs().mean(dim=1, keepdim=True)


def feature_residual(image: Sequence[Tensor], rebuilt: Sequence[Tensor]) -> Tensor:
    """MSFR: the squared gap of features, averaged over channels, enlarged, summed over stages.

    Args:
        image, rebuilt: encoder features, the largest first, each [N, C, h, w].

    Returns:
        [N, 1, H, W] of the first one's size, not below 0; bilinear where enlarged.
    """
    size = image[0].shape[-2:]
    total = image[0].new_zeros(())
    for a, b in zip(image, rebuilt, strict=True):
        gap = ((a - b) ** 2).mean(dim=1, keepdim=True)
        total = total + F.interpolate(gap, size=size, mode="bilinear", align_corners=False)
    return total


def ssim_gap(image: Tensor, rebuilt: Tensor) -> Tensor:
    """1 - SSIM of the gray pictures (Wang et al. 2004, IEEE Trans. Image Processing 13, 4).

    The picture is mirrored at its border.

    Args:
        image, rebuilt: float32 [N, 3, H, W] in [0, 1], sides above 5.

    Returns:
        [N, 1, H, W] in [0, 2].
    """
    x, y = _gray(image), _gray(rebuilt)
    means = _blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    mx, my, xx, yy, xy = means
    alike = (2 * mx * my + C1) * (2 * (xy - mx * my) + C2)
    spread = (mx * mx + my * my + C1) * ((xx - mx * mx) + (yy - my * my) + C2)
    return (1 - alike / spread).clamp(0, 2)


def _gray(x: Tensor) -> Tensor:
    return LUMA[0] * x[:, :1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:]


def _blur(x: Tensor) -> Tensor:
    """The Gaussian mean of [N, 1, H, W], rows and columns in turn."""
    reach = WINDOW // 2
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    line = torch.exp(-(at**2) / (2 * SIGMA**2))
    line = line / line.sum()
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
