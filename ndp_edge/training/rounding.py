"""What happens to the tensors of `Deployed`: ranges are observed, or int8 codes taken.

Ranges are the extremes over pictures of good product (`--calib-method minmax` of a build).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ndp_edge.training.fake_quant import LIMIT, SMALLEST, quantise_activation, quantise_weight

Ranges = Mapping[str, tuple[float, float]]

SHARED = {
    **{f"reencoder.stage{s}.conv2": f"encoder.stage{s}.conv2" for s in (1, 2, 3)},
    "rbam4.fused": "decoder.step0.up",
    "rbam3.fused": "decoder.step1.up",
}
"""Tensors that a Concat joins to another one: both have one scale (`calib.graph.scale_groups`)."""


class Observed:
    """Leaves every tensor as it is and keeps the extremes of each activation."""

    def __init__(self) -> None:
        self.ranges: dict[str, tuple[float, float]] = {}

    def activation(self, name: str, x: Tensor) -> Tensor:
        low, high = (float(v) for v in x.detach().aminmax())
        a, b = self.ranges.get(name, (low, high))
        self.ranges[name] = (min(a, low), max(b, high))
        return x

    def weight(self, weight: Tensor) -> Tensor:
        return weight


class Rounded:
    """Rounds to int8 codes as the Q/DQ file does.

    Args:
        ranges: tensor -> (lowest, highest), finite, for every activation of `Deployed`.
        device: where the net is.
    """

    def __init__(self, ranges: Ranges, device: str = "cpu") -> None:
        reach: dict[str, float] = {}
        for name, (low, high) in ranges.items():
            group = SHARED.get(name, name)
            reach[group] = max(reach.get(group, 0.0), abs(low), abs(high), SMALLEST)
        # Tensors, since torch divides by a number as it pleases (times its inverse on a GPU).
        self.scales = {
            name: torch.tensor(reach[SHARED.get(name, name)] / LIMIT, device=device)
            for name in ranges
        }

    def activation(self, name: str, x: Tensor) -> Tensor:
        return quantise_activation(x, self.scales[name])

    def weight(self, weight: Tensor) -> Tensor:
        return quantise_weight(weight)
