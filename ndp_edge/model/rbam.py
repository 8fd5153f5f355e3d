"""RBAM: reference-based feature repair (RBFRM, eq. 3-5) and feature fusion (FFM, eq. 6-8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ndp_edge.model.config import PATCH_SIZES
from ndp_edge.model.encoder import conv_bn_relu

NORM_EPS = 1e-12
"""Patches of norm below this count as having this norm, so that a black patch has cosine 0
with everything instead of 0/0. `reference.py` and the kernels use the same value."""


def to_patches(x: Tensor, k: int) -> Tensor:
    """[N, C, H, W] to its non-overlapping KxK patches, [N, (H/K)(W/K), C*K*K]."""
    return F.pixel_unshuffle(x, k).flatten(2).transpose(1, 2)


def from_patches(patches: Tensor, k: int, height: int, width: int) -> Tensor:
    """The inverse of `to_patches` for a map of the given size."""
    n, _, d = patches.shape
    return F.pixel_shuffle(patches.transpose(1, 2).reshape(n, d, height // k, width // k), k)


def rbfrm(
    features: Tensor, reference: Tensor, patch_size: int, softmax_scale: float = 1.0
) -> Tensor:
    """Repair `features` with patches of the reference map (eq. 3-5).

    Args:
        features: [N, C, H, W], H and W divisible by `patch_size`.
        reference: [1, C, H', W']; its size may differ from the features' (training on crops).
        patch_size: the paper's K.
        softmax_scale: factor on the cosine; 1.0 is the printed equation.

    Returns:
        [N, C, H, W]: each patch is the softmax-weighted sum of the un-normalised reference
        patches, computed as mean + weights @ (patches - mean), which is the same number
        (the weights sum to 1) with the large term kept exact.
    """
    p = to_patches(features, patch_size)
    b = to_patches(reference, patch_size)[0]
    cosine = F.normalize(p, dim=-1, eps=NORM_EPS) @ F.normalize(b, dim=-1, eps=NORM_EPS).t()
    mean = b.mean(dim=0, keepdim=True)
    repaired = torch.softmax(cosine * softmax_scale, dim=-1) @ (b - mean) + mean
    return from_patches(repaired, patch_size, features.shape[-2], features.shape[-1])


def ffm_select(logits: Tensor, rep4: Tensor, rep2: Tensor, features: Tensor) -> Tensor:
    """Softmax over the three branches per element, then their weighted sum (eq. 7, 8).

    `logits` is [N, 3C, H, W] in branch order rep4, rep2, features; the rest [N, C, H, W].
    """
    weights = torch.softmax(torch.stack(logits.chunk(3, dim=1)), dim=0)
    return weights[0] * rep4 + weights[1] * rep2 + weights[2] * features


class FFM(nn.Module):
    """Feature fusion: squeeze U, one convolution for the logits of all three branches, select."""

    def __init__(self, channels: int, squeezed: int, kernel: int) -> None:
        super().__init__()
        self.squeeze = conv_bn_relu(channels, squeezed, kernel)
        # The paper's three convolutions, side by side in one (branch order as in ffm_select).
        self.attend = nn.Conv2d(squeezed, 3 * channels, kernel, padding=kernel // 2)

    def forward(self, rep4: Tensor, rep2: Tensor, features: Tensor) -> Tensor:
        fused = features + rep2 + rep4
        return ffm_select(self.attend(self.squeeze(fused)), rep4, rep2, features)


class RBAM(nn.Module):
    """RBFRM with K = 2 and K = 4 against one reference map, then the FFM. Keeps [N, C, H, W]."""

    def __init__(self, channels: int, squeezed: int, kernel: int, softmax_scale: float) -> None:
        super().__init__()
        self.softmax_scale = softmax_scale
        self.ffm = FFM(channels, squeezed, kernel)

    def forward(self, features: Tensor, reference: Tensor) -> Tensor:
        rep2, rep4 = (rbfrm(features, reference, k, self.softmax_scale) for k in PATCH_SIZES)
        fused: Tensor = self.ffm(rep4, rep2, features)
        return fused
