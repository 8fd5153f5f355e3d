"""RBFRM's kernels on the CPU against float64, beside plain NumPy of the same precision."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge import reference as printed
from ndp_edge.native.compile import build_host
from ndp_edge.native.host import HostKernels
from ndp_edge.native.library import MapShape

Array = NDArray[Any]

LEVELS = {"stage 3": (256, 64), "stage 4": (512, 32), "stage 5": (512, 16)}
"""Channels and side of the maps that the paper's network repairs at 256x256."""

DTYPES = (np.float32, np.float16)
OUTPUTS = ("R2", "R4", "U")

SIDES = st.sampled_from([(4, 4), (4, 36), (68, 8), (12, 20), (36, 16), (8, 8)])


def both(maps: tuple[Array, Array], dtype: Any) -> tuple[Array, Array]:
    return maps[0].astype(dtype), maps[1].astype(dtype)


@pytest.fixture(params=[2, 4])
def patch_size(request: pytest.FixtureRequest) -> int:
    """Both of the network's patch sizes."""
    return int(request.param)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_judge_is_the_printed_one(kit: SimpleNamespace, patch_size: int, scale: float) -> None:
    """reference.py goes patch by patch, too slowly for whole maps; ours is it at a small size."""
    features, reference = kit.surface((2, 8, 8, 12))
    reference = reference[:, :4]
    features[1, :, :4, :4] = 0
    ours = kit.rbfrm_judge(features, reference, scale)[0 if patch_size == 2 else 1]
    theirs = np.stack([printed.rbfrm(f, reference, patch_size, scale) for f in features])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def judged(
    kit: SimpleNamespace, got: tuple[Array, ...], features: Array, reference: Array, scale: float,
    steps: float = 0.0,
) -> None:  # fmt: skip
    """Each output within twice the plain computation's error, or within `steps` of its type."""
    plain = kit.rbfrm_plain(features, reference, scale)
    judge = kit.rbfrm_judge(features, reference, scale)
    for name, x, p, j in zip(OUTPUTS, got, plain, judge, strict=True):
        assert x.dtype == features.dtype
        kit.assert_within(x, p, j, steps, name)


def few(dtype: Any, scale: float) -> float:
    """Steps that pass on small maps: one rounding of FP16; in FP32 also what a cosine's own
    rounding makes of a weight, which grows with the scale."""
    return 1.0 if dtype == np.float16 else 2 + scale / 4


def levels() -> list[Any]:
    """Every level, type, scale and kind of data; noise of the largest is for those with time."""
    cases = itertools.product(LEVELS, DTYPES, (1.0, 10.0), ("surface", "noise"))
    slow = ("stage 3", "noise")
    return [
        pytest.param(*case, marks=pytest.mark.slow if (case[0], case[3]) == slow else ())
        for case in cases
    ]


@pytest.mark.parametrize(("level", "dtype", "scale", "data"), levels())
def test_every_level_of_the_paper(
    host: HostKernels, kit: SimpleNamespace, level: str, dtype: Any, scale: float, data: str
) -> None:
    channels, side = LEVELS[level]
    features, reference = both(getattr(kit, data)((1, channels, side, side)), dtype)
    # Both layouts have their turn at every level; that they agree is a test of its own.
    layout = "nhwc" if (data == "surface") == (scale == 1.0) else "nchw"
    got = host.rbfrm(features, reference, scale, layout=layout)
    judged(kit, got, features, reference, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", ["stage 4", "stage 5"])
def test_split_channels(
    host: HostKernels, spread: HostKernels, kit: SimpleNamespace, level: str, dtype: Any
) -> None:
    """What a large GPU does with small maps: partial sums over the channels, added later."""
    channels, side = LEVELS[level]
    features, reference = both(kit.surface((1, channels, side, side)), dtype)
    shape, size = MapShape(dtype == np.float16, True, 1, channels, side, side), (side, side)
    whole, split = (one.library.rbfrm_workspace_bytes(shape, size) for one in (host, spread))
    assert split > 1.5 * whole, "nothing was split"
    judged(kit, spread.rbfrm(features, reference, 10.0), features, reference, 10.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_agree(host: HostKernels, kit: SimpleNamespace, dtype: Any) -> None:
    """They sum in another order, and that is all."""
    features, reference = both(kit.surface((2, 40, 12, 8)), dtype)
    one = host.rbfrm(features, reference, 10.0, layout="nhwc")
    other = host.rbfrm(features, reference, 10.0, layout="nchw")
    for x, y in zip(one, other, strict=True):
        tolerance = 4 * np.finfo(dtype).eps
        np.testing.assert_allclose(x.astype(float), y.astype(float), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_reference_patches(host: HostKernels, kit: SimpleNamespace, dtype: Any) -> None:
    """4096 patches of K = 2, as at 512x512: so long a sum made in one go errs too much."""
    features, _ = both(kit.noise((1, 8, 16, 16)), dtype)
    _, reference = both(kit.noise((1, 8, 128, 128), seed=1), dtype)
    judged(kit, host.rbfrm(features, reference, 10.0), features, reference, 10.0)


def test_the_workspace_stays_small(host: HostKernels) -> None:
    """Large maps go in pieces: more images take no more memory."""
    size = host.library.rbfrm_workspace_bytes
    for half in (False, True):
        few, many = (MapShape(half, True, n, 8, 32, 32) for n in (8, 64))
        assert 2**25 < size(few, (256, 128)) <= size(many, (256, 128)) < 2**26 + 2**20


@pytest.fixture(scope="session")
def in_pieces(host: HostKernels) -> HostKernels:
    """A build that has room for no more than two groups of patches at once."""
    return HostKernels(build_host(("-O2", "-DNDP_PIECE_BYTES=1")))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_a_map_larger_than_the_workspace_goes_in_pieces(
    host: HostKernels, in_pieces: HostKernels, kit: SimpleNamespace, layout: str, dtype: Any
) -> None:
    """Five groups in three pieces, bit for bit as in one."""
    features, reference = both(kit.surface((3, 24, 20, 20)), dtype)
    shape, size = MapShape(dtype == np.float16, True, 3, 24, 20, 20), (20, 20)
    whole, less = (one.library.rbfrm_workspace_bytes(shape, size) for one in (host, in_pieces))
    assert less < 0.5 * whole
    expected = host.rbfrm(features, reference, 10.0, layout=layout)
    got = in_pieces.rbfrm(features, reference, 10.0, layout=layout)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_array_equal(x, y)


@settings(max_examples=30)
@given(
    images=st.integers(1, 5),
    channels=st.sampled_from([8, 24, 40]),
    sides=SIDES,
    ref_sides=SIDES,
    scale=st.sampled_from([0.01, 1.0, 10.0, 64.0]),
    layout=st.sampled_from(["nhwc", "nchw"]),
    dtype=st.sampled_from(DTYPES),
    data=st.sampled_from(["surface", "noise"]),
    seed=st.integers(0, 99),
    wide=st.booleans(),
)
def test_any_shape(
    host: HostKernels, spread: HostKernels, kit: SimpleNamespace, images: int, channels: int,
    sides: tuple[int, int], ref_sides: tuple[int, int], scale: float, layout: str, dtype: Any,
    data: str, seed: int, wide: bool,
) -> None:  # fmt: skip
    """Outputs start as NaN, so that an element left unwritten is seen."""
    features = getattr(kit, data)((images, channels, *sides), seed)[0].astype(dtype)
    reference = getattr(kit, data)((1, channels, *ref_sides), seed + 100)[1].astype(dtype)
    kernels = spread if wide else host
    got = kernels.rbfrm(features, reference, scale, layout=layout)
    judged(kit, got, features, reference, scale, few(dtype, scale))


def check(
    host: HostKernels, kit: SimpleNamespace, features: Array, reference: Array, scale: float
) -> None:
    """Both layouts, as `judged`."""
    for layout in ("nchw", "nhwc"):
        got = host.rbfrm(features, reference, scale, layout=layout)
        judged(kit, got, features, reference, scale, few(features.dtype, scale))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zero", ["features", "a patch", "reference", "reference patches", "all"])
def test_zero_patches(host: HostKernels, kit: SimpleNamespace, dtype: Any, zero: str) -> None:
    """A black patch has cosine 0 with everything, not 0/0."""
    features, reference = both(kit.surface((2, 24, 8, 12)), dtype)
    if zero in {"features", "all"}:
        features[1] = 0
    if zero == "a patch":
        features[0, :, :4, 4:8] = 0
        features[1, :, 2:4, 2:4] = 0
    if zero in {"reference", "all"}:
        reference[:] = 0
    if zero == "reference patches":
        reference[:, 4:8, :8] = 0
        reference[:, :2, :2] = 0
    check(host, kit, features, reference, 10.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.25])
def test_constant_maps(host: HostKernels, kit: SimpleNamespace, dtype: Any, value: float) -> None:
    """Every cosine is 1, -1 or 0 and every weight the same: the repaired map is the reference."""
    features = np.full((1, 16, 8, 8), value, dtype)
    reference = np.full((16, 12, 4), 2.5, dtype)
    check(host, kit, features, reference, 64.0)


FAR = {"2^-122": 2.0**-122, "2^-100": 2.0**-100, "2^-40": 2.0**-40, "1": 1.0, "2^100": 2.0**100,
       "2^120": 2.0**120}  # fmt: skip
"""Magnitudes of FP32 maps; 2^-40 is where the norm's least value begins to count."""


@pytest.mark.parametrize("features_to", FAR)
@pytest.mark.parametrize("reference_to", FAR)
def test_fp32_of_any_magnitude(
    host: HostKernels, kit: SimpleNamespace, features_to: str, reference_to: str
) -> None:
    """Sums of squares leave FP32 long before the maps do.

    Plain FP32 would divide by an infinite norm there. Its yardstick is the same map brought
    down by a power of two, which changes no cosine: the error grows with the reference.
    """
    scale, (f_to, r_to) = 10.0, (np.float32(FAR[to]) for to in (features_to, reference_to))
    features, reference = kit.noise((1, 24, 8, 12))
    features, reference = features * f_to, reference * r_to
    down_f, down_r = (max(to, np.float32(1)) for to in (f_to, r_to))
    plain = [x * down_r for x in kit.rbfrm_plain(features / down_f, reference / down_r, scale)[:2]]
    plain.append(features + plain[0] + plain[1])
    judge = kit.rbfrm_judge(features, reference, scale)
    for layout in ("nchw", "nhwc"):
        got = host.rbfrm(features, reference, scale, layout=layout)
        for name, x, p, j in zip(OUTPUTS, got, plain, judge, strict=True):
            kit.assert_within(x, p, j, few(np.float32, scale), name)


def test_fp32_with_huge_and_tiny_patches(host: HostKernels, kit: SimpleNamespace) -> None:
    """Side by side, in the features and in the reference; each patch is scaled by itself."""
    features, reference = kit.noise((1, 24, 8, 12))
    for x in (features[0], reference):
        x[:, :4, :4] *= np.float32(1e30)
        x[:, :4, 4:8] *= np.float32(1e-30)
        x[:, 4:6, 4:6] *= np.float32(1e18)  # a 2x2 patch beside ordinary ones in its 4x4 patch
    judge = kit.rbfrm_judge(features, reference, 10.0)
    for layout in ("nchw", "nhwc"):
        got = host.rbfrm(features, reference, 10.0, layout=layout)
        for name, x, j in zip(OUTPUTS, got, judge, strict=True):
            kit.assert_within(x, j, j, few(np.float32, 10.0), name)


@pytest.mark.parametrize("features_to", ["largest", "one", "subnormal"])
@pytest.mark.parametrize("reference_to", ["largest", "one", "subnormal"])
def test_fp16_of_any_magnitude(
    host: HostKernels, kit: SimpleNamespace, features_to: str, reference_to: str
) -> None:
    """From +-65504, where U saturates instead of becoming infinite, down to subnormals."""
    factors = {"largest": kit.HALF_MOST, "one": 1.0, "subnormal": 2.0**-19}
    features, reference = (
        (x / np.abs(x).max() * factors[to]).astype(np.float16)
        for x, to in zip(kit.noise((1, 512, 8, 12)), (features_to, reference_to), strict=True)
    )
    assert np.count_nonzero(features) > 0.9 * features.size
    check(host, kit, features, reference, 10.0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_fp16_saturates(host: HostKernels, kit: SimpleNamespace, sign: int, layout: str) -> None:
    most = np.float16(sign * kit.HALF_MOST)
    features, reference = np.full((1, 8, 4, 4), most), np.full((8, 4, 4), most)
    for x in host.rbfrm(features, reference, layout=layout):
        assert (x == most).all()
