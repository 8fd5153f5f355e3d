"""The median and the maximum on the CPU: a median is one of its values, so all is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge import postprocess
from ndp_edge import reference as printed
from ndp_edge.native.host import HostKernels

Maps = NDArray[np.float32]


def judged(host: HostKernels, maps: Maps) -> tuple[Maps, Maps]:
    """Equal to reference.py's median, and the peaks to its maximum."""
    smoothed, peaks = host.smooth_max(maps)
    assert smoothed.dtype == peaks.dtype == np.float32
    expected = np.stack([printed.median_filter(one) for one in maps])
    np.testing.assert_array_equal(smoothed, expected)
    np.testing.assert_array_equal(peaks, expected.max(axis=(1, 2)))
    return smoothed, peaks


def noise(shape: tuple[int, ...], seed: int = 0) -> Maps:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=60)
@given(
    images=st.integers(1, 5),
    height=st.sampled_from([1, 2, 3, 5, 7, 8, 9, 16, 33]),
    width=st.sampled_from([1, 2, 3, 5, 31, 32, 33, 34, 65]),
    kind=st.sampled_from(["noise", "ties", "constant", "infinite"]),
    seed=st.integers(0, 99),
)
def test_any_shape(
    host: HostKernels, images: int, height: int, width: int, kind: str, seed: int
) -> None:
    maps = noise((images, height, width), seed)
    if kind == "ties":
        maps = np.round(maps)
    if kind == "constant":
        maps[:] = -0.25  # below 0: a maximum that starts at 0 would show
    if kind == "infinite":
        _infinite(host, maps, seed)
    else:
        judged(host, maps)


def _infinite(host: HostKernels, maps: Maps, seed: int) -> None:
    """Infinities, which reference.py refuses, are ordered like any other number."""
    put = np.random.default_rng(seed).random(maps.shape)
    finite = np.where(put < 0.3, np.float32(-1e9), np.where(put > 0.7, np.float32(1e9), maps))
    given_ = np.where(put < 0.3, -np.inf, np.where(put > 0.7, np.inf, maps)).astype(np.float32)
    expected = np.stack([printed.median_filter(one) for one in finite])
    expected[expected == -1e9], expected[expected == 1e9] = -np.inf, np.inf
    smoothed, peaks = host.smooth_max(given_)
    np.testing.assert_array_equal(smoothed, expected)
    np.testing.assert_array_equal(peaks, expected.max(axis=(1, 2)))


def test_the_networks_own_map(host: HostKernels) -> None:
    """256x256 as after the mean filter, as OpenCV has it in the CPU's post-processing."""
    maps = np.stack([printed.mean_filter(one) for one in noise((2, 256, 256))]).astype(np.float32)
    maps = 1 / (1 + np.exp(-5 * maps))
    smoothed, peaks = host.smooth_max(maps)
    theirs, scores = postprocess.smooth_max(maps)
    np.testing.assert_array_equal(smoothed, theirs)
    np.testing.assert_array_equal(peaks, scores)


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-38, 3.4e38, -3.4e38])
def test_constant_maps_of_any_magnitude(host: HostKernels, value: float) -> None:
    maps = np.full((2, 9, 33), value, np.float32)
    smoothed, peaks = host.smooth_max(maps)
    assert (smoothed == np.float32(value)).all()
    assert (peaks == np.float32(value)).all()


def test_one_odd_pixel_vanishes_and_a_blot_stays(host: HostKernels) -> None:
    maps = np.zeros((2, 20, 40), np.float32)
    maps[0, 10, 30] = 1.0
    maps[1, 8:12, 29:33] = 1.0
    smoothed, peaks = judged(host, maps)
    assert peaks.tolist() == [0.0, 1.0]
    assert smoothed[1].sum() > 0


@pytest.mark.parametrize(
    "at", [(0, 0), (7, 31), (8, 32), (19, 39), (10, 17)], ids=lambda at: f"{at[0]},{at[1]}"
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_nan_is_seen(host: HostKernels, at: tuple[int, int], sign: float) -> None:
    """In every pixel whose window holds it, in its map's maximum, and nowhere else."""
    maps = noise((3, 20, 40))
    whole, tops = host.smooth_max(maps)
    maps[1][at] = np.copysign(np.float32(np.nan), np.float32(sign))
    smoothed, peaks = host.smooth_max(maps)
    window: Any = tuple(slice(max(0, i - 2), i + 3) for i in at)
    expected = whole.copy()
    expected[1][window] = np.nan
    np.testing.assert_array_equal(smoothed, expected)
    np.testing.assert_array_equal(peaks, [tops[0], np.nan, tops[2]])


def test_a_map_of_nan_is_nan(host: HostKernels) -> None:
    smoothed, peaks = host.smooth_max(np.full((1, 3, 5), np.nan, np.float32))
    assert np.isnan(smoothed).all()
    assert np.isnan(peaks).all()
