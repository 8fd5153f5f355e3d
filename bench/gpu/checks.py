"""What is checked on a GPU, as plain functions of a rig: tests/gpu wraps them for pytest.

`cases()` lists them. The dry run takes the same functions to the host build at small sizes; what
only a GPU can show (streams, graphs, the torch operators on CUDA) is marked `cuda_only`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from ndp_edge import reference
from ndp_edge.bench.gpu import judge
from ndp_edge.bench.gpu.judge import Array, compare, maps, within
from ndp_edge.bench.gpu.rig import Rig, need

LEVELS = ((256, 64), (512, 32), (512, 16))
"""Channels and side of stages 3, 4, 5 of the paper's net at 256x256."""

SMALL_LEVELS = ((32, 16), (64, 8), (64, 4))
SCALES = (1.0, 10.0)
DTYPES = (np.float16, np.float32)

Report = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One check: `run(rig)` returns its figures or raises (WrongError, or what went wrong)."""

    name: str
    run: Callable[[Rig], Report]
    cuda_only: bool = False


def cases(small: bool = False) -> list[Case]:
    """Every check; `small` keeps the host build and a sanitizer within seconds."""
    from ndp_edge.bench.gpu import checks_cuda

    found = [*_level_cases(small), *_shape_cases(), *_extreme_cases()]
    found += [*_small_kernel_cases(small), *_refusals()]
    found.append(Case("rbfrm twice the same", repeated))
    return [*found, *checks_cuda.cases()]


def _word(dtype: Any, nhwc: bool) -> str:
    return f"{'fp16' if dtype == np.float16 else 'fp32'} {'nhwc' if nhwc else 'nchw'}"


# --- rbfrm ---------------------------------------------------------------------------------


def _level_cases(small: bool) -> Iterator[Case]:
    levels = SMALL_LEVELS if small else LEVELS
    for (c, side), dtype, scale, nhwc in product(levels, DTYPES, SCALES, (True, False)):
        run = _bound(rbfrm_level, c, side, dtype, scale, nhwc, not small)
        yield Case(f"rbfrm {c}x{side}x{side} {_word(dtype, nhwc)} scale {scale:g}", run)


def _bound(function: Callable[..., Report], *args: Any) -> Callable[[Rig], Report]:
    return lambda rig: function(rig, *args)


@lru_cache(maxsize=2)
def _level(
    c: int, side: int, dtype: Any, scale: float
) -> tuple[Array, Array, tuple[Array, ...], tuple[Array, ...]]:
    """Features, reference, plain and judge of a level. The judge takes seconds: both layouts
    share it, which is why layout is the innermost loop of the cases."""
    f, ref = maps(1, (c, side, side), dtype), maps(2, (c, side, side), dtype)
    return f, ref, judge.rbfrm_plain(f, ref, scale), judge.rbfrm_judge(f, ref, scale)


def rbfrm_level(
    rig: Rig, c: int, side: int, dtype: Any, scale: float, nhwc: bool, strict: bool
) -> Report:
    """R2, R4 and U of one level against the judge, by the rule of `judge.compare`."""
    f, ref, plain, exact = _level(c, side, dtype, scale)
    got = rig.rbfrm(f[None], ref, scale, nhwc)
    report: Report = {}
    for name, x, p, e in zip(("r2", "r4", "u"), got, plain, exact, strict=True):
        report |= compare(name, x[0], p, e, strict)
    return report


SHAPES = (
    # images, channels, (height, width), (reference height, width)
    (1, 8, (4, 4), (4, 4)),
    (3, 8, (4, 12), (8, 4)),
    (3, 24, (12, 20), (4, 28)),
    (1, 40, (20, 4), (12, 12)),
    (2, 72, (8, 36), (20, 8)),
    (1, 16, (68, 4), (4, 132)),
    (5, 136, (4, 4), (8, 8)),
)


def _shape_cases() -> Iterator[Case]:
    for shape, dtype, nhwc in product(SHAPES, DTYPES, (True, False)):
        n, c, (h, w), (rh, rw) = shape
        name = f"rbfrm {n}x{c}x{h}x{w} on {rh}x{rw} {_word(dtype, nhwc)}"
        yield Case(name, _bound(rbfrm_shape, shape, dtype, nhwc))


def rbfrm_shape(rig: Rig, shape: Any, dtype: Any, nhwc: bool) -> Report:
    """Odd sizes, batches, a reference of another size: every image against the judge."""
    n, c, size, ref_size = shape
    f = (maps(3, (n, c, *size), np.float32) - 0.3).astype(dtype)
    ref = (maps(4, (c, *ref_size), np.float32) - 0.3).astype(dtype)
    f[0, :, :4, :4] = 0.0
    got = rig.rbfrm(f, ref, 3.0, nhwc)
    plain = _stacked([judge.rbfrm_plain(x, ref, 3.0) for x in f])
    exact = _stacked([judge.rbfrm_judge(x, ref, 3.0) for x in f])
    report: Report = {}
    for name, x, p, e in zip(("r2", "r4", "u"), got, plain, exact, strict=True):
        report |= compare(name, x, p, e)
    return report


def _stacked(images: list[tuple[Array, ...]]) -> list[Array]:
    return [np.stack(parts) for parts in zip(*images, strict=True)]


EXTREMES = {
    # name: (features, reference) amplitude for FP32, the same for FP16
    "huge": ((1e18, 1e18), (5e3, 5e3)),
    "tiny": ((1e-30, 1e-30), (1e-6, 1e-6)),
    "huge on tiny": ((1e18, 1e-18), (1e4, 1e-5)),
    "zero features": ((0.0, 1.0), (0.0, 1.0)),
    "zero reference": ((1.0, 0.0), (1.0, 0.0)),
    "all zero": ((0.0, 0.0), (0.0, 0.0)),
}
CONSTANT = {"constant": (0.7, 3.1), "U beyond FP16": (4e4, 4e4)}
"""Name -> the features' and the reference's one value."""


def _extreme_cases() -> Iterator[Case]:
    for name, dtype in product([*EXTREMES, *CONSTANT], DTYPES):
        yield Case(f"rbfrm {name} {_word(dtype, True)}", _bound(rbfrm_extreme, name, dtype))


def rbfrm_extreme(rig: Rig, name: str, dtype: Any) -> Report:
    """Finite, and right to a few roundings of the largest number, where plain FP32 may not be."""
    shape = (24, 8, 12)
    if name in CONSTANT:
        f, ref = (np.full(shape, value, dtype) for value in CONSTANT[name])
    else:
        low, high = EXTREMES[name][0 if dtype == np.float32 else 1]
        f, ref = maps(5, shape, dtype, low), maps(6, shape, dtype, high)
        ref[:, 4:8, 4:8] = 0.0
        f[:, :4, :4] = 0.0
    got = rig.rbfrm(f[None], ref, 10.0, True)
    # A few roundings; FP16 numbers near zero come in steps of 6e-8 whatever their size.
    tolerance = 1e-5 if dtype == np.float32 else 2e-3
    for part, x, exact in zip(("r2", "r4", "u"), got, judge.rbfrm_judge(f, ref, 10.0), strict=True):
        step = 6e-8 / max(float(np.abs(exact).max()), 1e-30) if dtype == np.float16 else 0.0
        within(f"{name} {part}", x[0], exact, tolerance + step)
    return {}


def repeated(rig: Rig) -> Report:
    """The same inputs twice give the same bits."""
    f, ref = maps(7, (2, 64, 16, 16), np.float16), maps(8, (64, 16, 16), np.float16)
    first, second = (rig.rbfrm(f, ref, 1.0, True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        need(a.tobytes() == b.tobytes(), "two runs of the same inputs differ")
    return {}


# --- ffm_select and smooth_max -----------------------------------------------------------------


def _small_kernel_cases(small: bool) -> Iterator[Case]:
    sizes = [(1, *level) for level in (SMALL_LEVELS if small else LEVELS)]
    for (n, c, side), dtype, nhwc in product([*sizes, (3, 40, 12)], DTYPES, (True, False)):
        name = f"ffm_select {n}x{c}x{side}x{side} {_word(dtype, nhwc)}"
        yield Case(name, _bound(select, n, c, side, dtype, nhwc))
    sides = [(1, 1, 1), (2, 5, 7), (1, 2, 40), (3, 33, 65), (8 if not small else 2, 64, 64)]
    for shape in [*sides, *([] if small else [(1, 256, 256)])]:
        yield Case("smooth_max " + "x".join(map(str, shape)), _bound(smooth, shape))
    yield Case("smooth_max NaN", smooth_nan)


def select(rig: Rig, n: int, c: int, side: int, dtype: Any, nhwc: bool) -> Report:
    """The selection, for logits near one another and far apart."""
    report: Report = {}
    for spread in (1.0, 50.0):
        rng = np.random.default_rng(9)
        logits = (spread * rng.standard_normal((n, 3 * c, side, side))).astype(dtype)
        rep4, rep2, f = branches = [maps(seed, (n, c, side, side), dtype) for seed in (10, 11, 12)]
        got = rig.ffm_select(logits, rep4, rep2, f, nhwc)
        by_branch = logits.reshape(n, 3, c, side, side)
        each = list(zip(by_branch, *branches, strict=True))
        plain = np.stack([judge.ffm_plain(*one) for one in each])
        exact = np.stack([reference.ffm_select(*one) for one in each])
        report |= compare(f"spread{spread:g}", got, plain, exact)
    return report


def smooth(rig: Rig, shape: tuple[int, int, int]) -> Report:
    """Median and maximum only choose among numbers: the result is the judge's exactly."""
    given = np.random.default_rng(13).random(shape).astype(np.float32)
    given[given < 0.2] = -1.0  # many equal numbers
    smoothed, peaks = rig.smooth_max(given)
    exact = np.stack([reference.median_filter(x) for x in given])
    need(np.array_equal(smoothed, exact), "a smoothed map is not the judge's")
    need(np.array_equal(peaks, exact.max(axis=(1, 2))), f"peaks {peaks} are not the maxima")
    return {}


def smooth_nan(rig: Rig) -> Report:
    """A NaN spreads over its window and to its map's peak, and no farther."""
    given = np.random.default_rng(14).random((3, 9, 70)).astype(np.float32)
    given[1, 4, 40] = np.nan
    smoothed, peaks = rig.smooth_max(given)
    wanted = np.zeros(given.shape, bool)
    wanted[1, 2:7, 38:43] = True
    need(np.array_equal(np.isnan(smoothed), wanted), "NaN is not exactly where its window reaches")
    need(np.isnan(peaks).tolist() == [False, True, False], f"peaks {peaks}")
    return {}


# --- refusals ----------------------------------------------------------------------------------


def _refusals() -> Iterator[Case]:
    from ndp_edge.bench.gpu import checks_refused

    for name in checks_refused.REFUSED:
        yield Case(f"refuses {name}", _bound(checks_refused.refuses, name))
