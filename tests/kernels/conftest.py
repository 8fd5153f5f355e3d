"""What the kernels are judged with: float64 answers, the plain computation, maps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.native.host import HostKernels

Array = NDArray[Any]

HALF_MOST = 65504.0
"""FP16 outputs stop here: an infinity would be NaN one layer later."""


def _patches(x: Array, k: int) -> Array:
    """[N, C, H, W] to its patches in raster order, [N, (H/k)(W/k), C*k*k]."""
    n, c, h, w = x.shape
    cut = x.reshape(n, c, h // k, k, w // k, k).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(n, -1, c * k * k)


def _compose(patches: Array, k: int, shape: tuple[int, ...]) -> Array:
    n, c, h, w = shape
    return patches.reshape(n, h // k, w // k, c, k, k).transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def _unit(x: Array) -> Array:
    norm = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    return x / np.maximum(norm, x.dtype.type(1e-12))


def repair(features: Array, reference: Array, k: int, scale: float) -> Array:
    """Equations 3-5 as they are printed, in the arrays' own type."""
    b = _patches(reference[None], k)[0]
    s = _unit(_patches(features, k)) @ _unit(b).T * features.dtype.type(scale)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return _compose(e / e.sum(axis=-1, keepdims=True) @ b, k, features.shape)


def _rbfrm_in(kind: type, features: Array, reference: Array, scale: float) -> tuple[Array, ...]:
    f, b = features.astype(kind), reference.astype(kind)
    r2, r4 = (repair(f, b, k, scale) for k in (2, 4))
    return r2, r4, f + r2 + r4


def rounded(x: Array, kind: Any) -> Array:
    """As a kernel stores it: FP16 stops at its largest number."""
    return (np.clip(x, -HALF_MOST, HALF_MOST) if kind == np.float16 else x).astype(kind)


def rbfrm_judge(features: Array, reference: Array, scale: float) -> tuple[Array, ...]:
    """R2, R4 and U in float64; for FP16 no further out than FP16 reaches."""
    answers = _rbfrm_in(np.float64, features, reference, scale)
    most = HALF_MOST if features.dtype == np.float16 else np.inf
    return tuple(np.clip(x, -most, most) for x in answers)


def rbfrm_plain(features: Array, reference: Array, scale: float) -> tuple[Array, ...]:
    """R2, R4 and U as plain FP32 NumPy has them, from and to the arrays' own type."""
    answers = _rbfrm_in(np.float32, features, reference, scale)
    return tuple(rounded(x, features.dtype) for x in answers)


def _select_in(kind: type, logits: Array, branches: Sequence[Array]) -> Array:
    n, c, h, w = branches[0].shape
    a = logits.astype(kind).reshape(n, 3, c, h, w)
    e = np.exp(a - a.max(axis=1, keepdims=True))
    weights = e / e.sum(axis=1, keepdims=True)
    return sum(weights[:, i] * branch.astype(kind) for i, branch in enumerate(branches))


def select_judge(logits: Array, *branches: Array) -> Array:
    """Equations 7 and 8 in float64."""
    return _select_in(np.float64, logits, branches)


def select_plain(logits: Array, *branches: Array) -> Array:
    """Equations 7 and 8 in plain FP32 NumPy, from and to the arrays' own type."""
    return rounded(_select_in(np.float32, logits, branches), logits.dtype)


def error(x: Array, judge: Array) -> NDArray[np.float64]:
    """Largest and root mean square error; not finite, it is no error but a failure."""
    assert x.shape == judge.shape
    assert np.isfinite(x).all(), f"{np.count_nonzero(~np.isfinite(x))} numbers are not finite"
    difference = np.abs(x.astype(np.float64) - judge)
    return np.array([difference.max(), np.sqrt(np.square(difference).mean())])


def assert_within(
    x: Array, plain: Array, judge: Array, steps: float = 0.0, what: str = "the kernel"
) -> None:
    """`x` errs at most twice as much as `plain`, in both measures.

    Where maps are small, the plain computation may be lucky with all of their few numbers: so
    many of the type's `steps` at the map's largest number (RMS: a quarter) pass as well.
    """
    ours, theirs = error(x, judge), error(plain, judge)
    about = np.finfo(x.dtype)
    step = max(float(np.abs(judge).max() * about.eps), float(about.smallest_subnormal))
    passes = np.maximum(2 * theirs, steps * step * np.array([1, 0.25]))
    assert (ours <= passes).all(), f"{what}: max and RMS error {ours}, {passes} passes"


def surface(shape: tuple[int, int, int, int], seed: int = 0) -> tuple[Array, Array]:
    """Maps such as a ReLU leaves of a textured surface, float32: [N, C, H, W] and [C, H, W].

    Channels mix a few smooth patterns (so that patches resemble each other), have gains of
    their own, and are zero about half of the time. The reference is the same surface shifted.
    """
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    coarse = rng.normal(size=(12, h // 4 + 1, w // 4 + 1))
    patterns = np.kron(coarse, np.ones((4, 4)))
    patterns += 0.5 * rng.normal(size=patterns.shape)
    mix, gain = rng.normal(size=(c, 12)), np.exp(rng.normal(0, 0.7, (c, 1, 1)))
    maps = []
    for i in range(n + 1):
        seen = np.roll(patterns, (i, 2 * i), axis=(1, 2))[:, :h, :w]
        mixed = np.einsum("cp,phw->chw", mix, seen) / 3 + 0.2 * rng.normal(size=(c, h, w))
        maps.append((gain * np.maximum(mixed, 0)).astype(np.float32))
    return np.stack(maps[1:]), maps[0]


def noise(shape: tuple[int, int, int, int], seed: int = 0) -> tuple[Array, Array]:
    """Normal noise without any structure, float32: [N, C, H, W] and [C, H, W]."""
    rng = np.random.default_rng(seed)
    features, reference = rng.normal(size=shape), rng.normal(size=shape[1:])
    return features.astype(np.float32), reference.astype(np.float32)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        repair=repair,
        rbfrm_judge=rbfrm_judge,
        rbfrm_plain=rbfrm_plain,
        select_judge=select_judge,
        select_plain=select_plain,
        rounded=rounded,
        error=error,
        assert_within=assert_within,
        surface=surface,
        noise=noise,
        HALF_MOST=HALF_MOST,
    )


@pytest.fixture(scope="session")
def host() -> HostKernels:
    """The kernels on the CPU; skips where there is no C++ compiler."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler: apt install g++")
    return HostKernels()


@pytest.fixture(scope="session")
def spread(host: HostKernels) -> HostKernels:
    """The same, cutting its work as for a large GPU: small maps split their channels."""
    return HostKernels(multiprocessors=132)
