"""The kernels as torch operators: the plain numbers on the CPU, torch's own rules, the launches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ndp_edge import reference
from ndp_edge.errors import InputError
from ndp_edge.model import launch, operators, rbam
from ndp_edge.model.config import preset
from ndp_edge.model.fused import fuse
from ndp_edge.model.network import NDPNet
from ndp_edge.native.compile import build_host
from ndp_edge.native.library import Library

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
DTYPES = (torch.float32, torch.float16)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3}


def maps(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Noise after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.relu(torch.randn(shape, generator=generator)).to(dtype)


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def form(request: pytest.FixtureRequest) -> torch.memory_format:
    """Both memory formats."""
    return request.param


@pytest.fixture(params=DTYPES, ids=["fp32", "fp16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both types."""
    return request.param


@pytest.fixture(scope="module")
def library() -> Library:
    """The kernels on CPU tensors."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler: apt install g++")
    return Library(build_host())


def test_rbfrm_is_the_plain_expression(dtype: torch.dtype, form: torch.memory_format) -> None:
    f = maps(2, 16, 8, 12, dtype=dtype).contiguous(memory_format=form)
    ref = maps(1, 16, 8, 4, dtype=dtype, seed=1)
    got = operators.rbfrm(f, ref, operators.prepare(ref), 3.0)
    wide, wide_ref = f.float(), ref.float()
    rep2, rep4 = (rbam.rbfrm(wide, wide_ref, k, 3.0) for k in (2, 4))
    for x, wanted in zip(got, (rep2, rep4, wide + rep2 + rep4), strict=True):
        assert torch.equal(x, wanted.to(dtype))
        assert x.is_contiguous(memory_format=form)


def test_ffm_select_is_the_plain_expression(dtype: torch.dtype, form: torch.memory_format) -> None:
    f = maps(2, 8, 4, 4, dtype=dtype).contiguous(memory_format=form)
    logits = 5 * maps(2, 24, 4, 4, dtype=dtype, seed=1)
    got = operators.ffm_select(logits, 2 * f, f + 1, f)
    wide = [x.float() for x in (logits, 2 * f, f + 1, f)]
    assert torch.equal(got, rbam.ffm_select(*wide).to(dtype))
    assert got.is_contiguous(memory_format=form)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 9), (3, 12, 7)])
def test_smooth_max_is_the_judges(shape: tuple[int, int, int]) -> None:
    given = maps(*shape)
    smoothed, peaks = operators.smooth_max(given)
    judge = np.stack([reference.median_filter(x) for x in given.numpy()])
    assert np.array_equal(smoothed.numpy(), judge)
    assert np.array_equal(peaks.numpy(), judge.max(axis=(1, 2)))


def test_a_nan_is_not_smoothed_away() -> None:
    given = maps(2, 9, 9)
    given[1, 4, 4] = torch.nan
    smoothed, peaks = operators.smooth_max(given)
    wanted = torch.zeros(2, 9, 9, dtype=torch.bool)
    wanted[1, 2:7, 2:7] = True
    assert torch.equal(smoothed.isnan(), wanted)
    assert peaks.isnan().tolist() == [False, True]


def test_half_precision_has_no_trap_for_black_patches_and_bright_ones() -> None:
    """1e-12 is 0 in FP16, so that the plain expression in FP16 divides 0 by 0; and a sum that
    FP16 cannot hold stops at what it can."""
    f, ref = (maps(1, 8, 8, 8, dtype=torch.float16, seed=seed) for seed in (0, 1))
    f[:, :, :4, :4] = 0
    ref[:, :, 4:, 4:] = 0
    for x in operators.rbfrm(f, ref, operators.prepare(ref), 1.0):
        assert torch.isfinite(x).all()
    bright = torch.full_like(f, 4e4)
    fused = operators.rbfrm(bright, bright, operators.prepare(bright), 1.0)[2]
    assert (fused == 65504).all()


def test_torchs_own_checks(dtype: torch.dtype, form: torch.memory_format) -> None:
    f = maps(2, 8, 8, 4, dtype=dtype).contiguous(memory_format=form)
    ref = maps(1, 8, 4, 8, dtype=dtype, seed=1)
    torch.library.opcheck(operators.rbfrm, (f, ref, operators.prepare(ref), 3.0))
    torch.library.opcheck(operators.ffm_select, (maps(2, 24, 8, 4, dtype=dtype), f, f * 2, f + 1))
    torch.library.opcheck(operators.smooth_max, (maps(2, 5, 7),))


@pytest.mark.parametrize("wrong", ["reference", "batch", "sides", "prepared", "half", "select"])
def test_what_does_not_belong_together_is_refused(wrong: str) -> None:
    f, ref = maps(2, 8, 8, 8), maps(1, 8, 8, 8)
    prepared = operators.prepare(ref)
    calls: dict[str, tuple[str, Callable[[], object]]] = {
        "reference": ("reference", lambda: operators.rbfrm(f, ref.half(), prepared, 1.0)),
        "batch": (r"wanted \[1, 8", lambda: operators.rbfrm(f, f, prepared, 1.0)),
        "sides": ("multiples of 4", lambda: operators.rbfrm(f[:, :, :6], ref, prepared, 1.0)),
        "prepared": (r"prepared .* \[184\]", lambda: operators.rbfrm(f, ref, prepared[:-1], 1.0)),
        "half": ("after any", lambda: operators.rbfrm(f, ref, prepared.half(), 1.0)),
        "select": ("rep2", lambda: operators.ffm_select(maps(2, 24, 8, 8), f, f[:1], f)),
    }
    message, call = calls[wrong]
    with pytest.raises(InputError, match=message):
        call()
    with pytest.raises(InputError, match="smooth_max"):
        operators.smooth_max(f)
    with pytest.raises(InputError, match="float16 or float32"):
        operators.prepare(ref.double())


# --- the launches, on the host build ----------------------------------------------------------


def test_launches_give_what_the_operators_give(
    library: Library, dtype: torch.dtype, form: torch.memory_format
) -> None:
    f = maps(2, 16, 8, 12, dtype=dtype).contiguous(memory_format=form)
    ref, logits = maps(1, 16, 12, 4, dtype=dtype, seed=1), maps(2, 48, 8, 12, dtype=dtype, seed=2)
    prepared = operators.prepare(ref)
    launched = list(launch.rbfrm(library, f, ref, prepared, 3.0))
    launched.append(launch.ffm_select(library, logits, launched[1], launched[0], f))
    plain = list(operators.rbfrm(f, ref, prepared, 3.0))
    plain.append(operators.ffm_select(logits, plain[1], plain[0], f))
    for x, wanted in zip(launched, plain, strict=True):
        assert torch.isfinite(x).all()
        assert x.stride() == wanted.stride()
        assert torch.allclose(x, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    for x, wanted in zip(
        launch.smooth_max(library, f[:, 0].float()),
        operators.smooth_max(f[:, 0].float()),
        strict=True,
    ):
        assert torch.equal(x, wanted)


def test_launches_take_any_strides(library: Library) -> None:
    """A slice, a transpose, another layout than the features': copied, not misread."""
    f = maps(3, 16, 12, 8).transpose(2, 3)[1:]
    ref = maps(1, 16, 8, 8, seed=1).contiguous(memory_format=torch.channels_last)
    loose = torch.cat([torch.zeros(1), operators.prepare(ref)])[1:]
    assert loose.data_ptr() % 16
    got = launch.rbfrm(library, f, ref, loose, 3.0)
    wanted = operators.rbfrm(f.contiguous(), ref, operators.prepare(ref), 3.0)
    for x, y in zip(got, wanted, strict=True):
        assert x.is_contiguous()
        assert torch.allclose(x, y, atol=1e-5)


def test_launches_write_where_they_are_told(library: Library) -> None:
    f, ref = maps(1, 8, 4, 4), maps(1, 8, 4, 4, seed=1)
    out = [torch.full_like(f, torch.nan) for _ in range(3)]
    got = launch.rbfrm(library, f, ref, operators.prepare(ref), 1.0, out=out)
    for x, y in zip(got, out, strict=True):
        assert x is y
        assert torch.isfinite(x).all()
    last = [x.contiguous(memory_format=torch.channels_last) for x in out]
    with pytest.raises(InputError, match="does not fit"):
        launch.rbfrm(library, f, ref, operators.prepare(ref), 1.0, out=last)
    with pytest.raises(InputError, match="softmax_scale"):
        launch.rbfrm(library, f, ref, operators.prepare(ref), 65.0)


# --- the whole net ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net() -> NDPNet:
    """A small net with a reference in it."""
    torch.manual_seed(0)
    made = NDPNet(preset("nano", image_size=64, softmax_scale=4.0)).eval()
    made.set_reference(torch.rand(1, 3, 64, 64))
    return made


IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def twin(net: NDPNet) -> NDPNet:
    """A second net with the same weights: `.half()` changes a net in place."""
    copy = NDPNet(net.config).eval()
    copy.load_state_dict(net.state_dict())
    return copy


@torch.no_grad()
def test_the_fused_net_gives_the_same_numbers(net: NDPNet) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fused = fuse(net)
    assert torch.allclose(fused(IMAGE), net(IMAGE), atol=1e-6)
    assert not any(p.requires_grad for p in fused.parameters())
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    half = fuse(twin(net).half())
    assert {x.dtype for name, x in half.state_dict().items() if "prepared" in name} == {
        torch.float32
    }
    assert torch.allclose(half(IMAGE.half()).float(), net(IMAGE), atol=2e-2)


@torch.no_grad()
def test_what_fuse_cannot_fuse_is_refused(net: NDPNet) -> None:
    with pytest.raises(InputError, match="fused already"):
        fuse(fuse(net))
    with pytest.raises(InputError, match=r"prepared .*after any"):
        fuse(net).half()(IMAGE.half())
    with pytest.raises(InputError, match="float16 or float32"):
        fuse(twin(net).double())
    broken = twin(net)
    broken.references[0][0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        fuse(broken)


@torch.no_grad()
def test_export_keeps_the_operators(net: NDPNet) -> None:
    exported = torch.export.export(fuse(net), (IMAGE,))
    called = [str(node.target) for node in exported.graph.nodes if "ndp_edge" in str(node.target)]
    assert called == ["ndp_edge.rbfrm.default", "ndp_edge.ffm_select.default"] * 3
    assert torch.allclose(exported.module()(IMAGE), net(IMAGE), atol=1e-6)


@torch.no_grad()
def test_compile_takes_the_whole_graph(net: NDPNet) -> None:
    compiled = torch.compile(fuse(net), fullgraph=True, backend="aot_eager")
    for last in (False, True):
        given = IMAGE.contiguous(memory_format=torch.channels_last) if last else IMAGE
        assert torch.allclose(compiled(given), net(IMAGE), atol=1e-6)
