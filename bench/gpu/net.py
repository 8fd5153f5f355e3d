"""The whole net with and without the kernels: FP16, channels-last, batch 1, in a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ndp_edge.bench.gpu.rig import Rig
from ndp_edge.bench.gpu.timer import Attempts, Timer
from ndp_edge.bench.gpu.words import number, over
from ndp_edge.model.config import PRESETS, preset
from ndp_edge.model.fused import fuse
from ndp_edge.model.network import NDPNet

PAPER_MS = 28.746
"""The paper's time for one image on a V100: another device, another year; for scale only."""


def nets(rig: Rig, timer: Timer) -> Iterator[dict[str, Any]]:
    """One row per preset. Fresh weights: they do not matter for time."""
    torch.backends.cudnn.benchmark = rig.real
    for name in PRESETS if rig.real else ("nano",):
        yield _row(rig, timer, name, 256 if rig.real else 64)


def _row(rig: Rig, timer: Timer, name: str, side: int) -> dict[str, Any]:
    torch.manual_seed(0)
    net = NDPNet(preset(name, image_size=side)).eval()
    net.set_reference(torch.rand(1, 3, side, side))
    image = torch.rand(1, 3, side, side)
    wanted = net.to(rig.device)(image.to(rig.device))
    kind = torch.float16 if rig.real else torch.float32
    plain = net.to(kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = fuse(plain)
    given = image.to(rig.device, kind).contiguous(memory_format=torch.channels_last)
    # One image: in a graph its maps would be in the cache on a camera line as well.
    tries = Attempts(timer)
    with_ours = tries.graph("with kernels", [lambda: fused(given)])
    without = tries.graph("decomposed", [lambda: plain(given)])
    eager = tries.eager("eager", [lambda: plain(given)])
    difference = float((fused(given).float() - wanted).abs().max())
    # The paper's time is of its own width.
    against = {"papers_28.746_ms_over_this": over(PAPER_MS * 1e3, with_ours)}
    return {
        "name": "network",
        "preset": name,
        "side": side,
        "batch": 1,
        "measured": {
            "with_kernels_ms": number(with_ours, 1e-3),
            "decomposed_ms": number(without, 1e-3),
            "eager_ms": number(eager, 1e-3),
            "times_faster_than_decomposed": over(without, with_ours),
            "largest_difference_from_fp32": number(difference if rig.real else None),
            **(against if name == "paper" else {}),
        },
        **tries.report(),
    }
