"""What is timed: the kernels, and the same mathematics in torch's own operations, on the same
FP16 channels-last data (the decomposed version in both layouts: the faster one counts)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ndp_edge.bench.gpu.rig import Rig
from ndp_edge.bench.gpu.timer import Calls
from ndp_edge.model import launch, operators, rbam
from ndp_edge.model.config import PATCH_SIZES

MOST_SETS = 64
FEWEST_SETS = 8


@dataclass
class Work:
    """One thing to time.

    Attributes:
        kernel: our kernel, one call per input set, each with outputs of its own.
        decomposed: layout -> the same in torch, one call per set.
        prepared: the decomposed one with all that depends on the reference alone taken out.
        copies: torch's copy of half as many bytes from one place to another, one per set: what
            so short a piece of work can reach of the bandwidth of long ones.
        compiled: the function for torch.compile and its arguments, one per set.
        bytes, operations: the least that one call must move and compute.
        sets: how many input sets take turns.
    """

    name: str
    kernel: Calls
    decomposed: dict[str, Calls]
    compiled: tuple[Callable[..., object], list[tuple[Tensor, ...]]]
    bytes: int
    operations: int
    sets: int
    prepared: Calls | None = None
    copies: Calls | None = None
    what: dict[str, int] = field(default_factory=dict)


def decomposed_rbfrm(features: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
    """Equations 3-6 as the plain net computes them."""
    rep2, rep4 = (rbam.rbfrm(features, reference, k) for k in PATCH_SIZES)
    return rep2, rep4, features + rep2 + rep4


def hoist(reference: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per K the normalised patches, transposed; the patches less their mean; the mean."""
    parts = []
    for k in PATCH_SIZES:
        b = rbam.to_patches(reference, k)[0]
        mean = b.mean(dim=0, keepdim=True)
        unit = F.normalize(b, dim=-1, eps=rbam.NORM_EPS).t().contiguous()
        parts.append((unit, (b - mean).contiguous(), mean))
    return parts


def hoisted_rbfrm(features: Tensor, parts: list[tuple[Tensor, Tensor, Tensor]]) -> object:
    """The same mathematics when the reference's side was computed once."""
    out = []
    for k, (unit, rest, mean) in zip(PATCH_SIZES, parts, strict=True):
        p = F.normalize(rbam.to_patches(features, k), dim=-1, eps=rbam.NORM_EPS)
        repaired = torch.softmax(p @ unit, dim=-1) @ rest + mean
        out.append(rbam.from_patches(repaired, k, features.shape[-2], features.shape[-1]))
    return (*out, features + out[0] + out[1])


def _sets(rig: Rig, bytes_each: int) -> int:
    """Enough input sets to be twice the L2 cache, within reason."""
    cache = 50 << 20
    if rig.real:
        cache = getattr(torch.cuda.get_device_properties(rig.device), "L2_cache_size", cache)
    return min(MOST_SETS, max(FEWEST_SETS, math.ceil(2 * cache / bytes_each))) if rig.real else 2


def _maps(rig: Rig, shape: tuple[int, ...]) -> Tensor:
    """FP16 noise after a ReLU, channels-last."""
    x = torch.relu(torch.randn(shape, device=rig.device)).half()
    return x.contiguous(memory_format=torch.channels_last)


def _nchw(x: Tensor) -> Tensor:
    return x.contiguous()


def _copies(rig: Rig, moved: int, sets: int) -> Calls:
    pairs = [
        [torch.zeros(moved // 2, dtype=torch.uint8, device=rig.device) for _ in range(2)]
        for _ in range(sets)
    ]
    return [partial(target.copy_, source) for target, source in pairs]


def rbfrm(rig: Rig, channels: int, side: int, batch: int = 1) -> Work:
    """Both K at one level; every set against the one reference."""
    shape = (batch, channels, side, side)
    elements = math.prod(shape)
    sets = _sets(rig, 2 * elements * 4)
    reference = _maps(rig, (1, channels, side, side))
    prepared, parts = operators.prepare(reference), hoist(reference)
    given = [_maps(rig, shape) for _ in range(sets)]
    outs = [[torch.empty_like(f) for _ in range(3)] for f in given]

    def kernel(f: Tensor, out: list[Tensor]) -> Callable[[], object]:
        return lambda: launch.rbfrm(
            rig.library, f, reference, prepared, 1.0, stream=rig.stream(), out=out
        )

    plain, ref_plain = [_nchw(f) for f in given], _nchw(reference)
    patches = (side // 2) ** 2
    dots = 2 * batch * patches * patches * 4 * channels
    return Work(
        name="rbfrm",
        kernel=[kernel(f, out) for f, out in zip(given, outs, strict=True)],
        decomposed={
            "nhwc": [partial(decomposed_rbfrm, f, reference) for f in given],
            "nchw": [partial(decomposed_rbfrm, f, ref_plain) for f in plain],
        },
        prepared=[partial(hoisted_rbfrm, f, parts) for f in plain],
        compiled=(decomposed_rbfrm, [(f, reference) for f in given]),
        # F and the reference read, R2, R4 and U written. The K = 4 dots are sums of the K = 2
        # ones; blending takes as much again for K = 2, and a quarter of that for K = 4.
        bytes=2 * (4 * elements + elements // batch),
        operations=2 * dots + dots // 4,
        sets=sets,
        what={"channels": channels, "side": side, "batch": batch},
    )


def ffm_select(rig: Rig, channels: int, side: int, batch: int = 1) -> Work:
    """The selection at one level."""
    shape = (batch, channels, side, side)
    elements = math.prod(shape)
    sets = _sets(rig, 2 * elements * 7)
    given = []
    for _ in range(sets):
        logits = _maps(rig, (batch, 3 * channels, side, side))
        given.append((logits, *(_maps(rig, shape) for _ in range(3))))
    outs = [torch.empty_like(g[3]) for g in given]

    def kernel(g: tuple[Tensor, ...], out: Tensor) -> Callable[[], object]:
        return lambda: launch.ffm_select(rig.library, *g, stream=rig.stream(), out=out)

    plain = [tuple(_nchw(x) for x in g) for g in given]
    return Work(
        name="ffm_select",
        kernel=[kernel(g, out) for g, out in zip(given, outs, strict=True)],
        decomposed={
            "nhwc": [partial(rbam.ffm_select, *g) for g in given],
            "nchw": [partial(rbam.ffm_select, *g) for g in plain],
        },
        compiled=(rbam.ffm_select, list(given)),
        copies=_copies(rig, 2 * 7 * elements, sets),
        bytes=2 * 7 * elements,
        operations=0,
        sets=sets,
        what={"channels": channels, "side": side, "batch": batch},
    )


def smooth_max(rig: Rig, side: int, batch: int) -> Work:
    """Median and maximum of `batch` maps."""
    shape = (batch, side, side)
    elements = math.prod(shape)
    sets = _sets(rig, 2 * 4 * elements)
    given = [torch.rand(shape, device=rig.device) for _ in range(sets)]
    outs = [(torch.empty_like(m), m.new_empty(batch)) for m in given]

    def kernel(m: Tensor, out: tuple[Tensor, Tensor]) -> Callable[[], object]:
        return lambda: launch.smooth_max(rig.library, m, stream=rig.stream(), out=out)

    return Work(
        name="smooth_max",
        kernel=[kernel(m, out) for m, out in zip(given, outs, strict=True)],
        decomposed={"fp32": [partial(operators.plain_smooth_max, m) for m in given]},
        compiled=(operators.plain_smooth_max, [(m,) for m in given]),
        copies=_copies(rig, 2 * 4 * elements, sets),
        bytes=2 * 4 * elements,
        operations=0,
        sets=sets,
        what={"side": side, "batch": batch},
    )
