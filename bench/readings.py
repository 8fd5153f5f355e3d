"""Readings of the paper where it is silent or says more than we run: what its V100 computed.

Our net is cheaper than the paper's text in three ways. Its MSDSM heads begin with a 1x1. The
reference image's maps are constants, where the text has the encoder extract them ("the encoder
extracts features of the fixed reference image"). Stages 1 to 3 of the image are computed once,
where "the input defective image and the defect-free reconstructed image are reinput to the
encoder".
"""

from __future__ import annotations

import re

from ndp_edge.bench.cost import Cost, Group
from ndp_edge.model.config import NdpConfig

_HEAD = re.compile(r"msdsm\d\.")
_ENCODER = re.compile(r"encoder\.stage(\d)\.")


def with_wide_heads(cost: Cost, config: NdpConfig, *, fused: bool = True) -> Cost:
    """The same net with MSDSM heads of 3x3 convolutions: 2C to C, C to C/2, C/2 to 1.

    The paper does not say what its heads are. With these, `paper` has the 187 GFLOP and the
    38.8 M parameters that DESIGN section 3 compares with the paper's 28.746 ms.

    Args:
        fused: as `cost` was made: False adds the passes of batch norm and ReLU.
    """
    old = [group for group in cost.groups if _HEAD.match(group.name)]
    groups = [group for group in cost.groups if not _HEAD.match(group.name)]
    new = []
    for scale in (1, 2, 3):
        c, side = config.channels[scale - 1], config.stage_size(scale)
        groups += [g for g in old if g.name == f"msdsm{scale}.cat"]
        for i, (c_in, c_out) in enumerate(((2 * c, c), (c, c // 2), (c // 2, 1)), 1):
            new += _convolution(f"msdsm{scale}.wide{i}", c_in, c_out, side, fused)
    weights = sum(g.weights for g in new) - sum(g.weights for g in old if g.matrix)
    return Cost((*groups, *new), cost.parameters + weights)


def _convolution(name: str, c_in: int, c_out: int, side: int, fused: bool) -> list[Group]:
    """A 3x3 convolution and what follows it: batch norm and ReLU, or the sigmoid alone."""
    pixels, last = side * side, c_out == 1
    weights = c_out * (c_in * 9 + 1)
    flops, moved = 2 * pixels * c_out * c_in * 9, pixels * (c_in + c_out)
    after = ("Sigmoid",) if last else ("BatchNormalization", "Relu")
    if fused:
        return [Group(name, ("Conv", after[-1]), flops, pixels * c_out, weights, moved, 0)]
    size = pixels * c_out
    passes = [Group(f"{name}.{op}", (op,), 0, size, 0, 0, 2 * size) for op in after]
    return [Group(name, ("Conv",), flops, 0, weights, moved, 0), *passes]


def as_described(cost: Cost) -> Cost:
    """The same net with nothing kept: the reference is encoded, and the image encoded twice.

    That is the encoder once more in full (the reference) and its stages 1 to 3 once more (the
    image, for the MSDSM).
    """
    stages = [(g, int(m[1])) for g in cost.groups if (m := _ENCODER.match(g.name))]
    again = [g for g, _ in stages] + [g for g, stage in stages if stage <= 3]
    return Cost((*cost.groups, *again), cost.parameters)
