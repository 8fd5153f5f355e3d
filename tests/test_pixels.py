"""Depths, mosaics and colour orders become RGB by their format, never by their content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.pixels import MOSAICS, parse_pixel, to_rgb


def mosaic(rgb: NDArray[np.uint16], layout: str) -> NDArray[np.uint16]:
    """What a sensor behind such a filter sees of [H, W, 3]."""
    raw = np.zeros(rgb.shape[:2], rgb.dtype)
    for place, colour in enumerate(layout):
        y, x = divmod(place, 2)
        raw[y::2, x::2] = rgb[y::2, x::2, "rgb".index(colour)]
    return raw


@pytest.mark.parametrize("layout", MOSAICS)
@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_a_mosaic_of_one_colour_is_that_colour(layout: str, bits: int, kind: type) -> None:
    top = (1 << bits) - 1
    colour = np.array([0.9, 0.5, 0.1])
    rgb = np.broadcast_to(np.round(colour * top).astype(kind), (10, 14, 3))
    found = to_rgb(mosaic(rgb, layout), f"{layout}{bits}")
    assert found.shape == (10, 14, 3) and found.dtype == np.uint8
    assert np.abs(found - np.round(colour * 255)).max() <= 1


@pytest.mark.parametrize("layout", MOSAICS)
def test_a_mosaic_keeps_slopes(layout: str) -> None:
    """Bilinear: a slope comes back exactly, but for the outermost pixels."""
    y, x = np.mgrid[0:20, 0:30]
    rgb = np.stack([4 * x + 20, 4 * y + 40, 2 * x + 2 * y + 60], 2).astype(np.uint8)
    found = to_rgb(mosaic(rgb, layout), layout)
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(found[inner].astype(int) - rgb[inner]).max() <= 1


@given(st.sampled_from([10, 12, 14, 16]), st.integers(0, 65535))
def test_values_are_scaled_by_the_depth(bits: int, value: int) -> None:
    top = (1 << bits) - 1
    found = to_rgb(np.full((2, 2), value, np.uint16), f"mono{bits}")
    assert abs(float(found[0, 0, 0]) - min(255.0, 255 * value / top)) <= 0.5


def test_the_content_does_not_matter() -> None:
    dark = np.full((4, 4), 300, np.uint16)
    assert to_rgb(dark).max() == 1
    assert to_rgb(dark, "mono10").max() == 75


def test_colour_orders_and_alpha() -> None:
    raw = np.zeros((2, 3, 4), np.uint8)
    raw[:] = (10, 20, 30, 77)
    assert to_rgb(raw)[0, 0].tolist() == [30, 20, 10]
    assert to_rgb(raw, "bgr")[0, 0].tolist() == [30, 20, 10]
    assert to_rgb(raw[:, :, :3], "rgb8")[0, 0].tolist() == [10, 20, 30]
    assert to_rgb(raw, "rgb")[0, 0].tolist() == [10, 20, 30]
    deep = raw[:, :, :3].astype(np.uint16) * 16
    assert to_rgb(deep, "rgb12")[0, 0].tolist() == [10, 20, 30]


def test_gray_on_three_channels_is_a_mosaic_all_the_same() -> None:
    """Codecs and drivers repeat one channel."""
    raw = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    three = np.repeat(raw[:, :, np.newaxis], 3, axis=2)
    assert np.array_equal(to_rgb(three, "rggb"), to_rgb(raw, "rggb"))
    assert np.array_equal(to_rgb(raw[:, :, np.newaxis]), three)
    assert to_rgb(three, "mono").flags.c_contiguous


@pytest.mark.parametrize("spec", ["", "rggb9", "auto8", "mono-8", "bayer", "rgb8x", "grgb"])
def test_unknown_formats_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="there are auto, mono, rggb"):
        parse_pixel(spec)


@pytest.mark.parametrize(
    ("raw", "pixel", "why"),
    [
        (np.zeros((4, 4), np.float32), "auto", "float32 have no known range"),
        (np.zeros((4, 4, 2), np.uint8), "auto", "no picture"),
        (np.zeros((0, 4), np.uint8), "auto", "no picture"),
        (np.zeros((4,), np.uint8), "auto", "no picture"),
        (np.zeros((4, 4), np.uint8), "mono12", "12 bits, the picture of 8"),
        (np.zeros((4, 4), np.uint8), "rgb", "wants three channels"),
        (np.eye(4, dtype=np.uint8)[:, :, None] * [1, 2, 3], "rggb", "int64 have no known"),
        (np.ones((3, 9), np.uint8), "rggb", "9x3 is too small"),
    ],
)
def test_what_does_not_fit_is_refused(raw: NDArray, pixel: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        to_rgb(raw, pixel)


def test_colour_is_no_mosaic() -> None:
    raw = np.zeros((4, 4, 3), np.uint8)
    raw[2, 2, 1] = 9
    with pytest.raises(InputError, match="has colour"):
        to_rgb(raw, "gbrg")
