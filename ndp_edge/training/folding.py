"""A net's convolutions as the exporter writes them: folded in float64, stored in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ndp_edge.model.rbam import NORM_EPS, to_patches

Folded = tuple[Tensor, Tensor]
"""A convolution's weights and bias, float32."""


def fold(block: Any, axis: int = 0) -> Folded:
    """Convolution block[0] and batch norm block[1] (eval mode) as one (`export.builder`).

    w' = w g / sqrt(var + eps), b' = beta - mean g / sqrt(var + eps). The gradient goes to w, g
    and beta. `axis` is the weights' output axis: 1 of a conv-transpose.
    """
    conv, norm = block[0], block[1]
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shape = [-1 if i == axis else 1 for i in range(4)]
    weight = conv.weight.double() * gain.reshape(shape)
    bias = norm.bias.double() - norm.running_mean.double() * gain
    return weight.float(), bias.float()


def subpixel_weight(weight: Tensor) -> Tensor:
    """A conv-transpose's [I, O, 4, 4] (stride 2, padding 1) as a convolution's [4 O, I, 2, 2].

    Output channels are (b1, b2, O) for the 2x2 block that each becomes; tap r of block element
    b is kernel element b + 2 (1 - r) (`calib.subpixel`).
    """
    taps = torch.tensor([[2, 0], [3, 1]], device=weight.device)
    spread = weight[:, :, taps[:, :, None, None], taps[None, None]]  # [I, O, b1, r1, b2, r2]
    return spread.permute(2, 4, 1, 0, 3, 5).reshape(-1, weight.shape[0], 2, 2)


def blocks_to_pixels(x: Tensor) -> Tensor:
    """[N, (b1, b2, C), H + 1, W + 1] to [N, C, 2 H, 2 W]: laid out, the outermost ring cut."""
    n, channels, height, width = x.shape
    split = x.reshape(n, 2, 2, channels // 4, height, width)
    whole = split.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // 4, 2 * height, 2 * width)
    return whole[:, :, 1:-1, 1:-1]


def reference_constants(
    reference: Tensor, k: int, softmax_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What RBFRM needs of a reference map [1, C, h, w] as two convolutions.

    Returns:
        keys [R, C, K, K]: unit patches times softmax_scale; values [K*K*C, R, 1, 1]: centred
        patches; mean [1, K*K*C, 1, 1]. K*K*C in the order of `pixel_shuffle` (the exported
        graph has ONNX's order; a channel and its scale only change places).
    """
    patches = to_patches(reference.double(), k)[0]
    unit = F.normalize(patches, dim=-1, eps=NORM_EPS) * softmax_scale
    keys = unit.reshape(len(patches), reference.shape[1], k, k)
    mean = patches.mean(dim=0)
    values = (patches - mean).t()[:, :, None, None]
    return keys.float(), values.float().contiguous(), mean[None, :, None, None].float()
