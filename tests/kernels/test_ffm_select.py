"""The FFM's selection on the CPU against float64, beside plain NumPy of the same precision."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge import reference as printed
from ndp_edge.native.host import HostKernels

Array = NDArray[Any]

DTYPES = (np.float32, np.float16)
LAYOUTS = ("nhwc", "nchw")
LEVELS = {"stage 3": (256, 64), "stage 4": (512, 32), "stage 5": (512, 16)}


def inputs(
    kit: SimpleNamespace, shape: tuple[int, int, int, int], dtype: Any, seed: int = 0
) -> list[Array]:
    """Logits [N, 3C, H, W] that decide here and there, and three branches, the first two alike."""
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    features, _ = kit.surface(shape, seed)
    rep2, rep4 = (features + 0.1 * rng.normal(size=shape) for _ in range(2))
    logits = rng.normal(0, 3, (n, 3 * c, h, w))
    return [x.astype(dtype) for x in (logits, rep4, rep2, features)]


def judged(host: HostKernels, kit: SimpleNamespace, arrays: list[Array], layout: str) -> Array:
    got = host.ffm_select(*arrays, layout=layout)
    assert got.dtype == arrays[0].dtype
    kit.assert_within(got, kit.select_plain(*arrays), kit.select_judge(*arrays), steps=1)
    return got


def test_the_judge_is_the_printed_one(kit: SimpleNamespace) -> None:
    logits, *branches = inputs(kit, (2, 8, 4, 8), np.float32)
    theirs = [
        printed.ffm_select(logits[i].reshape(3, 8, 4, 8), *(branch[i] for branch in branches))
        for i in range(2)
    ]
    np.testing.assert_allclose(kit.select_judge(logits, *branches), theirs, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_the_paper(
    host: HostKernels, kit: SimpleNamespace, level: str, layout: str, dtype: Any
) -> None:
    channels, side = LEVELS[level]
    arrays = inputs(kit, (1, channels, side, side), dtype)
    got = host.ffm_select(*arrays, layout=layout)
    kit.assert_within(got, kit.select_plain(*arrays), kit.select_judge(*arrays))


@settings(max_examples=30)
@given(
    images=st.integers(1, 5),
    channels=st.sampled_from([8, 24, 40]),
    sides=st.sampled_from([(4, 4), (4, 36), (68, 8), (12, 20)]),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_any_shape(
    host: HostKernels, kit: SimpleNamespace, images: int, channels: int, sides: tuple[int, int],
    layout: str, dtype: Any, seed: int,
) -> None:  # fmt: skip
    """The output starts as NaN, so that an element left unwritten is seen."""
    judged(host, kit, inputs(kit, (images, channels, *sides), dtype, seed), layout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("branch", [0, 1, 2])
def test_a_branch_that_is_chosen_comes_through(
    host: HostKernels, kit: SimpleNamespace, branch: int, layout: str, dtype: Any
) -> None:
    """Logits as far apart as the type allows; each branch holds a number of its own."""
    shape, most = (1, 16, 4, 8), np.finfo(dtype).max
    logits = np.full((1, 3, *shape[1:]), -most, dtype)
    logits[:, branch] = most
    branches = [np.full(shape, value, dtype) for value in (4.0, 2.0, 1.0)]
    got = host.ffm_select(logits.reshape(1, 48, 4, 8), *branches, layout=layout)
    assert (got == branches[branch]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [-60000.0, -1.0, 0.0, 60000.0])
def test_equal_logits_give_the_mean(
    host: HostKernels, kit: SimpleNamespace, offset: float, dtype: Any
) -> None:
    """However large or small the logits are: nothing overflows on the way."""
    logits, *branches = inputs(kit, (1, 8, 4, 4), dtype)
    logits[:] = offset
    got = judged(host, kit, [logits, *branches], "nhwc")
    mean = sum(branch.astype(np.float64) for branch in branches) / 3
    assert (kit.error(got, mean) <= np.abs(mean).max() * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", ["huge", "tiny", "subnormal", "zero"])
def test_maps_of_any_magnitude(
    host: HostKernels, kit: SimpleNamespace, size: str, dtype: Any
) -> None:
    """A weighted mean of large numbers is none larger, and subnormal ones stay."""
    half = dtype == np.float16
    factors = {
        "huge": kit.HALF_MOST if half else 1e30,
        "tiny": 1e-4 if half else 1e-30,
        "subnormal": 64 * float(np.finfo(dtype).smallest_subnormal),
        "zero": 0.0,
    }
    logits, *branches = inputs(kit, (1, 24, 8, 4), dtype)
    top = max(np.abs(branch).max() for branch in branches)
    scaled = [(x.astype(np.float64) / top * factors[size]).astype(dtype) for x in branches]
    for layout in LAYOUTS:
        got = host.ffm_select(logits, *scaled, layout=layout)
        judge = kit.select_judge(logits, *scaled)
        kit.assert_within(got, judge, judge, steps=2)
