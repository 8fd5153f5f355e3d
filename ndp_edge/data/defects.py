"""Artificial defects (eq. 1): something natural pasted inside a Perlin-noise mask.

I_ad = I_o * (1 - I_m) + I_n * I_m. Both images come from one array, so that they are equal
to the last bit outside the mask. NumPy and OpenCV only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Rng = np.random.Generator

MAX_OCTAVE = 5
"""Perlin cells per axis are 2^0 to 2^5, drawn per axis (DRAEM)."""

MASK_LEVEL = 0.5
"""Noise above this is defect. About one mask in 25 comes out empty."""


def perlin(size: int, cells: tuple[int, int], rng: Rng) -> Image:
    """Perlin noise [size, size], float32, about [-1, 1], with `cells` cells per axis (y, x)."""
    angles = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    sin, cos = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    axes = [np.arange(size, dtype=np.float32) * (c / size) for c in cells]
    cell = [np.minimum(a.astype(np.int64), c - 1) for a, c in zip(axes, cells, strict=True)]
    frac = [a - c for a, c in zip(axes, cell, strict=True)]

    def corner(dy: int, dx: int) -> Image:
        # Rows, then columns: indexing both at once takes ten times as long.
        y, x = (g.take(cell[0] + dy, 0).take(cell[1] + dx, 1) for g in (sin, cos))
        dot = y * (frac[0][:, None] - dy) + x * (frac[1][None, :] - dx)
        return np.asarray(dot, np.float32)

    fade_y, fade_x = (f**3 * (f * (f * 6 - 15) + 10) for f in frac)
    top = corner(0, 0) + fade_x[None, :] * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + fade_x[None, :] * (corner(1, 1) - corner(1, 0))
    noise = np.sqrt(2.0) * (top + fade_y[:, None] * (bottom - top))
    return np.asarray(noise, np.float32)


def rotate(image: Image, degrees: float) -> Image:
    """Turn [H, W] or [H, W, 3] about its centre; what comes in from outside is mirrored."""
    h, w = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(image, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.float32)


def perlin_mask(size: int, rng: Rng) -> NDArray[np.bool_]:
    """A defect mask [size, size]: Perlin noise, turned by up to 90 degrees, above 0.5.

    May be empty.
    """
    cells = (2 ** int(rng.integers(0, MAX_OCTAVE + 1)), 2 ** int(rng.integers(0, MAX_OCTAVE + 1)))
    noise = rotate(perlin(size, cells, rng), float(rng.uniform(-90, 90)))
    return np.asarray(noise > MASK_LEVEL)


def line_mask(size: int, rng: Rng) -> NDArray[np.bool_]:
    """A thin crooked line [size, size], as cracks, scratches and threads are; not in the paper.

    The zero line of Perlin noise, 1 to 5 pixels wide, of which a window of a third of the side
    and more is kept. May be empty.
    """
    cells = tuple(2 ** int(n) for n in rng.integers(0, 3, 2))
    above = rotate(perlin(size, (cells[0], cells[1]), rng), float(rng.uniform(-90, 90))) > 0
    edge = above & ~np.asarray(cv2.erode(above.astype(np.uint8), np.ones((3, 3), np.uint8)), bool)
    width = int(rng.integers(1, 5))
    wide = cv2.dilate(edge.astype(np.uint8), np.ones((width, width), np.uint8)).astype(bool)
    height, length = (int(n) for n in rng.integers(size // 3, size + 1, 2))
    y, x = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - length + 1))
    mask = np.zeros((size, size), np.bool_)
    mask[y : y + height, x : x + length] = wide[y : y + height, x : x + length]
    return mask


def _gamma(x: Image, rng: Rng) -> Image:
    return np.asarray(x ** rng.uniform(0.5, 2.0), np.float32)


def _brightness(x: Image, rng: Rng) -> Image:
    return np.asarray(x * rng.uniform(0.8, 1.2) + rng.uniform(-0.12, 0.12), np.float32)


def _sharpen(x: Image, rng: Rng) -> Image:
    soft = cv2.GaussianBlur(x, (0, 0), 1.5)
    return np.asarray(x + rng.uniform(-0.8, 1.5) * (x - soft), np.float32)


def _hue(x: Image, rng: Rng) -> Image:
    hsv = cv2.cvtColor(np.clip(x, 0, 1), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-70, 70)) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] + rng.uniform(-0.2, 0.2), 0, 1)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def _solarise(x: Image, rng: Rng) -> Image:
    return np.where(x > rng.uniform(0.12, 0.5), 1 - x, x).astype(np.float32)


def _posterise(x: Image, rng: Rng) -> Image:
    levels = float(rng.integers(3, 17))
    return np.asarray(np.floor(x * levels) / levels, np.float32)


def _invert(x: Image, rng: Rng) -> Image:
    return np.asarray(1 - x, np.float32)


def _stretch(x: Image, rng: Rng) -> Image:
    low, high = float(x.min()), float(x.max())
    return np.asarray((x - low) / max(high - low, 1e-3), np.float32)


def _turn(x: Image, rng: Rng) -> Image:
    return rotate(x, float(rng.uniform(-45, 45)))


AUGMENTATIONS: Sequence[Callable[[Image, Rng], Image]] = (
    _gamma, _brightness, _sharpen, _hue, _solarise, _posterise, _invert, _stretch, _turn,
)  # fmt: skip


def augment_source(image: Image, rng: Rng, *, gray: bool) -> Image:
    """Three different photometric or geometric changes of a pasted source, then [0, 1].

    On a gray surface the source must be gray too: otherwise the net learns "colour is a
    defect" and finds nothing real (measured: image AUROC 0.48).
    """
    for i in rng.choice(len(AUGMENTATIONS), 3, replace=False):
        image = np.clip(AUGMENTATIONS[int(i)](image, rng), 0, 1)
    return to_gray(image) if gray else image


def to_gray(image: Image) -> Image:
    """RGB [H, W, 3] to its luma in all three channels."""
    luma = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(luma[..., None], 3, axis=2).astype(np.float32)


def random_crop(image: NDArray[Any], size: int, rng: Rng) -> NDArray[Any]:
    """A [size, size] window anywhere in [H, W, ...]; H and W at least `size`."""
    y = int(rng.integers(0, image.shape[0] - size + 1))
    x = int(rng.integers(0, image.shape[1] - size + 1))
    return image[y : y + size, x : x + size]


def procedural_source(size: int, rng: Rng) -> Image:
    """A picture to paste where no folder of photographs was named, [size, size, 3] in [0, 1].

    Blurred colour noise, stripes or Perlin blobs in two random colours.
    """
    kind = int(rng.integers(0, 3))
    if kind == 0:
        coarse = rng.random((2 ** int(rng.integers(2, 7)),) * 2 + (3,), dtype=np.float32)
        smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        return np.clip(smooth, 0, 1)  # a cubic overshoots
    if kind == 1:
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 40)
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        blend = (wave * rng.uniform(0.3, 4)).clip(-1, 1) / 2 + 0.5
    else:
        cells = 2 ** int(rng.integers(1, 6))
        blend = (perlin(size, (cells, cells), rng) * rng.uniform(1, 6)).clip(-1, 1) / 2 + 0.5
    a, b = rng.random((2, 3), dtype=np.float32)
    noise = rng.normal(0, rng.uniform(0, 0.1), (size, size, 1))
    return np.asarray(np.clip(a + blend[..., None] * (b - a) + noise, 0, 1), np.float32)


def structural_source(good: Image, rng: Rng) -> Image:
    """The surface itself with its structure disturbed: blurred, turned, shifted, dimmed or lit.

    Not in the paper. Defects that keep the surface's own colours and mean (a blurred weave, a
    displaced thread) look like nothing that a pasted photograph could teach.
    """
    kind = int(rng.integers(0, 4))
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(good, (0, 0), float(rng.uniform(1.0, 4.0))), np.float32)
    if kind == 1:
        return rotate(good, float(rng.uniform(20, 160)))
    if kind == 2:
        shift = [int(s) for s in rng.integers(4, max(5, good.shape[0] // 2), 2)]
        return np.roll(good, shift, axis=(0, 1))
    gain, lift = rng.uniform(0.6, 1.5), rng.uniform(-0.15, 0.15)
    return np.asarray(np.clip(gain * good + lift, 0, 1), np.float32)


def shaded(good: Image, rng: Rng) -> Image:
    """The surface [H, W, 3] plainly darker (7 times in 10) or lighter, in [0, 1]: lines so thin
    would not be seen otherwise."""
    gain = rng.uniform(0.35, 0.8) if rng.random() < 0.7 else rng.uniform(1.2, 1.7)
    return np.asarray(np.clip(np.float32(gain) * good, 0, 1), np.float32)


def make_defect(
    good: Image,
    source: Image | None,
    rng: Rng,
    *,
    gray: bool,
    opacity: tuple[float, float] = (1.0, 1.0),
    lines: float = 0.0,
) -> tuple[Image, NDArray[np.bool_]]:
    """Eq. 1 with a mask drawn by `rng`.

    Args:
        good: I_o, float32 [S, S, 3] in [0, 1].
        source: I_n before augmentation, same shape; None for `structural_source(good)`.
        rng: the only source of chance.
        gray: the surface has no colour.
        opacity: range from which the paste's opacity is drawn; (1, 1) is the paper's opaque
            paste, lower values make fainter defects.
        lines: share of defects that are thin lines (`line_mask`) in which the surface is
            `shaded`, whatever `source` is; 0 is the paper's.

    Returns:
        I_ad float32 [S, S, 3] and I_m bool [S, S] (possibly empty).
    """
    if lines and rng.random() < lines:
        mask, pasted = line_mask(good.shape[0], rng), shaded(good, rng)
    else:
        mask = perlin_mask(good.shape[0], rng)
        if source is None:
            pasted = structural_source(good, rng)
        else:
            pasted = augment_source(source, rng, gray=gray)
    alpha = np.float32(rng.uniform(*opacity))
    defective = good.copy()
    defective[mask] += alpha * (pasted[mask] - good[mask])
    return defective, mask
