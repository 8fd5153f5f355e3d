"""What only a GPU can show: streams, CUDA graphs, and the torch operators on CUDA."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ndp_edge.bench.gpu import checks
from ndp_edge.bench.gpu.judge import maps
from ndp_edge.bench.gpu.rig import Rig, need
from ndp_edge.bench.gpu.timer import captured, side_stream
from ndp_edge.model import operators
from ndp_edge.model.config import preset
from ndp_edge.model.fused import fuse
from ndp_edge.model.network import NDPNet

Report = dict[str, float]
Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def cases() -> list[checks.Case]:
    """The checks of this file, all `cuda_only`."""
    named = {
        "a side stream gives the same bits": another_stream,
        "a captured graph replays to the same bits": graph,
        "operators on CUDA agree with those on the CPU": operators_agree,
        "operators pass torch's own opcheck on CUDA": operators_opcheck,
        "the fused net agrees with the plain one": network,
    }
    return [checks.Case(name, run, cuda_only=True) for name, run in named.items()]


def _operands(device: torch.device, seed: int = 0) -> Operands:
    """Features, reference, prepared, logits (all FP16 channels-last) and score maps."""
    given = [maps(seed, (2, 64, 16, 16), np.float16), maps(seed + 1, (1, 64, 16, 16), np.float16)]
    given.append(maps(seed + 2, (2, 192, 16, 16), np.float16))
    f, r, logits = (
        torch.from_numpy(x).contiguous(memory_format=torch.channels_last).to(device) for x in given
    )
    scores = torch.from_numpy(maps(seed + 3, (2, 40, 40), np.float32)).to(device)
    return f, r, operators.prepare(r), logits, scores


def _all(o: Operands) -> tuple[Tensor, ...]:
    """Every operator once."""
    f, r, prepared, logits, scores = o
    rep2, rep4, fused = operators.rbfrm(f, r, prepared, 3.0)
    selected = operators.ffm_select(logits, rep4, rep2, f)
    return (rep2, rep4, fused, selected, *operators.smooth_max(scores))


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...], message: str) -> None:
    for x, y in zip(a, b, strict=True):
        need(bool(torch.isfinite(x).all()), "not finite")
        need(torch.equal(x, y), message)


def another_stream(rig: Rig) -> Report:
    """On another stream, behind work that holds that stream up: a launch on the default
    stream would run before its input is there."""
    given = _operands(rig.device)
    wanted = _all(given)
    rig.wait()
    side = side_stream()
    late = tuple(torch.zeros_like(x) for x in given)
    rig.wait()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]  # cycles: about 10 ms
        for x, y in zip(late, given, strict=True):
            x.copy_(y)
        f, r, prepared, logits, scores = late
        got = _all((f, r, prepared, logits, scores))
    rig.wait()
    _same(got, wanted, "the side stream gives other numbers")
    return {}


def graph(rig: Rig) -> Report:
    """Replays on new inputs, twice, equal what the launches give directly."""
    given = _operands(rig.device)
    replay, result = captured(lambda: _all(given), lambda: _all(given))
    for seed in (20, 30):
        for x, y in zip(given, _operands(rig.device, seed), strict=True):
            x.copy_(y)
        replay.replay()
        rig.wait()
        _same(result, _all(given), "a replay gives other numbers")
    return {}


def operators_agree(rig: Rig) -> Report:
    """The same operators on the CPU, which are the plain torch expressions in float32."""
    report: Report = {}
    on_cpu = _all(tuple(x.cpu() for x in _operands(rig.device)))  # type: ignore[arg-type]
    for name, x, y in zip(
        ("r2", "r4", "u", "selected", "smoothed", "peaks"),
        _all(_operands(rig.device)),
        on_cpu,
        strict=True,
    ):
        need(x.stride() == y.stride(), f"{name}: strides {x.stride()}, on the CPU {y.stride()}")
        apart = float((x.cpu().float() - y.float()).abs().max())
        need(apart <= 4e-3 * float(y.float().abs().max()), f"{name} differs by {apart:.3g}")
        report[f"{name}_difference"] = apart
    return report


def operators_opcheck(rig: Rig) -> Report:
    """Schema, fake tensors and tracing, both layouts."""
    f, r, prepared, logits, scores = _operands(rig.device)
    for form in (torch.channels_last, torch.contiguous_format):
        x, y = f.contiguous(memory_format=form), logits.contiguous(memory_format=form)
        torch.library.opcheck(operators.rbfrm, (x, r, prepared, 3.0))
        torch.library.opcheck(operators.ffm_select, (y, x, x, x))
    torch.library.opcheck(operators.smooth_max, (scores,))
    return {}


@torch.no_grad()
def network(rig: Rig) -> Report:
    """`fuse` against the plain net in float32, and the same net in FP16 in a graph: finite,
    and near it (FP16 convolutions have errors of their own)."""
    torch.manual_seed(0)
    net = NDPNet(preset("nano", image_size=128)).eval()
    net.set_reference(torch.rand(1, 3, 128, 128))
    image = torch.rand(2, 3, 128, 128).to(rig.device)
    net = net.to(rig.device)
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        plain, fused = net(image), fuse(net)(image)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    half = fuse(net.half().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    given = image.half().contiguous(memory_format=torch.channels_last)
    replay, result = captured(lambda: half(given), lambda: half(given))
    replay.replay()
    rig.wait()
    report: Report = {}
    for name, x, most in (("fp32", fused, 1e-4), ("fp16", result, 2e-2)):
        need(bool(torch.isfinite(x).all()), f"{name}: not finite")
        report[f"{name}_difference"] = apart = float((x.float() - plain).abs().max())
        need(apart <= most, f"{name}: the map differs by {apart:.3g}, allowed {most:g}")
    return report
