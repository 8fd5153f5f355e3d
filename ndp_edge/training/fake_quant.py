"""int8 rounding that a gradient can pass: ONNX's Q/DQ pairs in torch, bit for bit.

Forward is what QuantizeLinear and DequantizeLinear compute. Rounding has no useful gradient;
backward takes the identity in its place (the straight-through estimator of Bengio, Léonard and
Courville, arXiv 1308.3432).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LIMIT = 127
"""Largest weight code; a scale is the largest magnitude / 127. As in `calib.qdq`."""

LOWEST = -128
"""Where QuantizeLinear saturates an activation below."""

SMALLEST = 1e-8
"""Floor of a range, as in `calib.qdq`: a channel of zeros still needs a positive scale."""


def quantise_activation(x: Tensor, scale: Tensor) -> Tensor:
    """clamp(round(x / scale), -128, 127) * scale, halves to even.

    Args:
        x: float32, any shape.
        scale: float32 [], positive, on the device of `x`.

    Gradient: to `x` where it was not clamped, 0 elsewhere; none to `scale`, which is
    calibrated and not learnt.
    """
    return _apply(_Activation, x, scale)


def quantise_weight(weight: Tensor) -> Tensor:
    """The values that a Conv's int8 weights stand for: one scale per output channel (axis 0).

    Args:
        weight: float32 [O, ...], finite.

    Nothing is clamped, since the scale follows the largest magnitude; the gradient passes.
    """
    return _apply(_Weight, weight)


def weight_scale(weight: Tensor) -> Tensor:
    """float32 [O, 1, ...]: each output channel's largest magnitude / 127."""
    reach = weight.double().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    return (reach.clamp_min(SMALLEST) / LIMIT).float()


def _apply(function: type[torch.autograd.Function], *arguments: Tensor) -> Tensor:
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        code = torch.round(x / scale)
        ctx.save_for_backward((code >= LOWEST) & (code <= LIMIT))
        return code.clamp(LOWEST, LIMIT) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        # In float64, as calib.qdq rounds them.
        scale = weight_scale(weight)
        codes = torch.round(weight.double() / scale.double()).clamp(-LIMIT, LIMIT)
        return codes.float() * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]
