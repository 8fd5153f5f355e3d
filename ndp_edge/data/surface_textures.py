"""Procedural materials for the built-in surface: woven cloth, brushed metal, granular stone.

Everything is float64 NumPy and no cv2: the last-bit differences between processors then change a
rounded gray level about once in 10^5 whole surfaces, so every machine draws the same files, and
the splits, which follow the files' content, come out the same everywhere. In float32, or through
cv2's SIMD paths, thousands of pixels would differ and a shipped net could be judged on pictures
that it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """One picture of a material before the camera.

    clean: the material, float64 [H, W, 3], reflectance about 0 to 1. bare: the same place where
    the warp threads are missing (woven only, else None). across: thread coordinate [H, W], whole
    numbers between threads (woven only). light: illumination [H, W] around 1. noise: sensor noise
    [H, W], in the same unit.
    """

    clean: Field
    bare: Field | None
    across: Field | None
    light: Field
    noise: Field

    def photograph(self, material: Field) -> NDArray[np.uint8]:
        """What the camera gives of a material in this scene: uint8 [H, W, 3] RGB."""
        exposed = material * (255 * self.light)[:, :, None]
        exposed += (255 * self.noise + 0.5)[:, :, None]
        return np.clip(exposed, 0, 255, out=exposed).astype(np.uint8)


def grid(size: int) -> tuple[Field, Field]:
    """Pixel coordinates x, y [size, size] in pixels."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    return x, y


@lru_cache(maxsize=64)
def _kernel(size: int, sigma: float) -> Field:
    """Gaussian interpolation [size, n] from a coarse row of latents, one per 0.8 sigma.

    Rows have length 1, so that unit white noise keeps its deviation at every pixel.
    """
    step = max(1.0, 0.8 * sigma)
    reach = 3 * sigma
    latents = np.arange(-reach, size + reach + step, step)
    kernel = np.exp(-((np.arange(size)[:, None] - latents[None, :]) ** 2) / (2 * sigma**2))
    return np.asarray(kernel / np.sqrt((kernel * kernel).sum(axis=1, keepdims=True)))


@lru_cache(maxsize=64)
def _bands(size: int, sigma: float) -> list[tuple[int, int, Field]]:
    """_kernel in strips of eight rows: first row, first latent, the strip's non-zero part.

    Small products on purpose: OpenBLAS runs them on one thread, and on a busy machine its waiting
    threads made drawing five times slower. Weights below 1e-16 are left out.
    """
    kernel = _kernel(size, sigma)
    bands = []
    for first in range(0, size, 8):
        strip = kernel[first : first + 8]
        used = np.flatnonzero((strip > 1e-16).any(axis=0))
        low, high = int(used[0]), int(used[-1]) + 1
        bands.append((first, low, np.ascontiguousarray(strip[:, low:high])))
    return bands


def _smooth_rows(white: Field, size: int, sigma: float) -> Field:
    """Smooth [n, W] down to [size, W]: products for wide kernels, shifted sums for narrow ones."""
    if sigma > 1.0:
        smooth = np.empty((size, white.shape[1]))
        for first, low, strip in _bands(size, sigma):
            np.matmul(strip, white[low : low + strip.shape[1]], out=smooth[first : first + 8])
        return smooth
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))
    taps = taps / np.sqrt((taps * taps).sum())
    total = taps[0] * white[0:size]
    for shift in range(1, 5):
        total += taps[shift] * white[shift : shift + size]
    return np.asarray(total)


def _latents(size: int, sigma: float) -> int:
    return _kernel(size, sigma).shape[1] if sigma > 1.0 else size + 4


def band_noise(rng: Rng, size: int, sigma_x: float, sigma_y: float) -> Field:
    """Gaussian noise [size, size] with a Gaussian correlation of sigma_x, sigma_y pixels.

    Mean 0 and deviation 1 over many draws.
    """
    white = rng.standard_normal((_latents(size, sigma_y), _latents(size, sigma_x)))
    tall = _smooth_rows(white, size, sigma_y)
    noise: Field = _smooth_rows(tall.T, size, sigma_x).T
    return noise


def blur(image: Field, sigma: float) -> Field:
    """Gaussian blur of [H, W] or [H, W, C], sigma up to about 2 pixels, border repeated."""
    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    taps = taps / (taps[0] + 2 * taps[1:].sum())
    for axis in (0, 1):
        length = image.shape[axis]
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.moveaxis(np.pad(image, padding, mode="edge"), axis, 0)
        total = taps[0] * padded[reach : reach + length]
        for shift in range(1, reach + 1):
            pair = padded[reach - shift : reach - shift + length]
            pair = pair + padded[reach + shift : reach + shift + length]
            total += taps[shift] * pair
        image = np.moveaxis(total, 0, axis)
    return image


def _soften(image: Field, side: float) -> Field:
    """The lens: three taps (side, 1 - 2 side, side) along both axes, border repeated."""
    for axis in (0, 1):
        padding = [(1, 1) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.pad(image, padding, mode="edge")
        if axis == 0:
            image = (1 - 2 * side) * image + side * (padded[:-2] + padded[2:])
        else:
            image = (1 - 2 * side) * image + side * (padded[:, :-2] + padded[:, 2:])
    return image


def smoothstep(value: Field) -> Field:
    """0 below 0, 1 above 1, 3t^2 - 2t^3 between."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _light(rng: Rng, size: int) -> Field:
    """A tilted, slightly vignetted lamp whose strength drifts by a few per cent."""
    x, y = grid(size)
    x, y = x / (size - 1) - 0.5, y / (size - 1) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    tilt = rng.uniform(0.0, 0.10)
    level = rng.uniform(0.94, 1.06)
    vignette = rng.uniform(0.0, 0.12)
    lit = 1 + tilt * (x * np.cos(angle) + y * np.sin(angle)) - vignette * (x * x + y * y)
    return np.asarray(level * lit)


def _sensor(rng: Rng, size: int) -> Field:
    return rng.standard_normal((size, size)) * 0.008


def _turned(rng: Rng, size: int, period: float, degrees: float) -> tuple[Field, Field]:
    """Thread coordinates u, v in threads: turned, scaled, shifted, drifting slowly."""
    x, y = grid(size)
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    scale = period * rng.uniform(0.97, 1.03)
    u = (x * np.cos(angle) + y * np.sin(angle)) / scale + rng.uniform(100, 200)
    v = (y * np.cos(angle) - x * np.sin(angle)) / scale + rng.uniform(100, 200)
    u = u + 0.22 * band_noise(rng, size, 40, 70)
    v = v + 0.22 * band_noise(rng, size, 70, 40)
    return u, v


def _threads(rng: Rng, along: Field) -> tuple[Field, Field, Field]:
    """Per-thread jitter at a thread coordinate: offset from its middle, half width, brightness."""
    index = np.floor(along).astype(np.int64)
    count = int(index.max()) + 1
    offset = rng.normal(0, 0.045, count)[index]
    width = rng.uniform(0.86, 1.06, count)[index]
    shade = rng.normal(1, 0.035, count)[index]
    inside = 2 * (along - index - 0.5 - offset) / width
    return np.clip(inside, -1, 1), np.abs(inside), shade


_WARP_TINT = np.array([1.07, 1.0, 0.87])
_WEFT_TINT = np.array([0.97, 1.0, 1.02])


def woven(rng: Rng, size: int) -> Scene:
    """Cloth in 2/1 twill: warp threads run down, weft threads across, each with its own jitter."""
    u, v = _turned(rng, size, 9.0, 1.5)
    warp_at, _, warp_shade = _threads(rng, u)
    weft_at, _, weft_shade = _threads(rng, v)
    over = (np.floor(u) + np.floor(v)) % 3  # 0, 1: warp on top; 2: weft on top
    # a thread's cylinder is lit from above; where it dives under the other one it darkens
    dive_warp = np.cos(np.pi * (weft_at * 0.5 + np.where(over == 0, 0.25, -0.25)))
    dive_weft = np.cos(np.pi * warp_at * 0.5)
    fibre_warp = band_noise(rng, size, 0.5, 4.0)
    fibre_weft = band_noise(rng, size, 4.0, 0.5)
    roundness_warp = np.sqrt(1 - 0.75 * warp_at**2)
    roundness_weft = np.sqrt(1 - 0.75 * weft_at**2)
    warp = warp_shade * roundness_warp * (0.72 + 0.28 * np.abs(dive_warp))
    weft = weft_shade * roundness_weft * (0.70 + 0.30 * dive_weft)
    warp = warp * (1 + 0.055 * fibre_warp)
    weft = weft * (1 + 0.055 * fibre_weft)
    on_top = over == 2
    tone = 1 + 0.02 * band_noise(rng, size, 30, 30)
    gray = _soften(np.where(on_top, 0.52 * weft, 0.62 * warp), 0.21) * tone
    weft_share = _soften(on_top.astype(np.float64), 0.21)[:, :, None]
    # where a warp thread is missing the weft floats deep between its neighbours, in their shadow
    floats = 0.52 * weft_shade * roundness_weft * (0.62 + 0.25 * warp_at**2) * tone
    return Scene(
        clean=gray[:, :, None] * (_WARP_TINT + weft_share * (_WEFT_TINT - _WARP_TINT)),
        bare=floats[:, :, None] * _WEFT_TINT,
        across=u,
        light=_light(rng, size),
        noise=_sensor(rng, size),
    )


def brushed(rng: Rng, size: int) -> Scene:
    """Brushed metal: streaks of several lengths and widths across the picture, gray."""
    x, y = grid(size)
    slope = np.deg2rad(rng.uniform(-2.0, 2.0))
    rows = y - x * np.tan(slope)
    streaks = np.zeros((size, size))
    for sigma_x, sigma_y, weight in ((60, 0.45, 0.050), (25, 0.9, 0.035), (120, 2.5, 0.020)):
        streaks += weight * _sheared(band_noise(rng, size, sigma_x, sigma_y), rows - y)
    sheen = 0.05 * np.cos(2 * np.pi * (rows / size * rng.uniform(0.3, 0.7) + rng.uniform()))
    gray = 0.56 + streaks + sheen + 0.010 * band_noise(rng, size, 1.5, 0.5)
    gray = _soften(gray, 0.12)
    return Scene(
        clean=np.repeat(gray[:, :, None], 3, axis=2),
        bare=None,
        across=None,
        light=_light(rng, size),
        noise=_sensor(rng, size),
    )


def _sheared(image: Field, shift: Field) -> Field:
    """Sample [H, W] at row + shift (periodic, linear): streaks at a small angle."""
    size = image.shape[0]
    rows = np.arange(size)[:, None] + shift
    low = np.floor(rows)
    part = rows - low
    columns = np.arange(image.shape[1])[None, :]
    first = low.astype(np.int64) % size
    return np.asarray(
        (1 - part) * image[first, columns] + part * image[(first + 1) % size, columns]
    )


def granular(rng: Rng, size: int) -> Scene:
    """Fine stone: grains of three sizes, dark and light specks, warm tint."""
    coarse = band_noise(rng, size, 4.0, 4.0)
    middle = band_noise(rng, size, 1.8, 1.8)
    fine = band_noise(rng, size, 0.7, 0.7)
    cloud = band_noise(rng, size, 28, 28)
    dark = smoothstep((middle - 1.2) / 0.8)
    bright = smoothstep((band_noise(rng, size, 1.3, 1.3) - 1.7) / 0.6)
    gray = 0.55 + 0.045 * coarse + 0.040 * middle + 0.030 * fine + 0.012 * cloud
    gray = gray * (1 - 0.35 * dark) + 0.16 * bright
    tint = np.array([1.06, 1.0, 0.92]) + 0.012 * cloud[..., None] * np.array([1.0, 0.0, -1.0])
    return Scene(
        clean=_soften(gray, 0.18)[..., None] * tint,
        bare=None,
        across=None,
        light=_light(rng, size),
        noise=_sensor(rng, size),
    )


TEXTURES: dict[str, Callable[[Rng, int], Scene]] = {
    "woven": woven,
    "brushed": brushed,
    "granular": granular,
}
