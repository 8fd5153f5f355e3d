"""What a camera or a file hands over, as uint8 [H, W, 3] RGB: depth, mosaic and colour order.

A pixel format is written as in `--pixel`: `auto`; `mono8` to `mono16`; `rggb8`, `bggr8`, `grbg8`,
`gbrg8` to 16 for a Bayer mosaic (the letters are its first two rows); `rgb`, `bgr`. Without a
number the depth is that of the type. With one, 10, 12 and 14 bits lie in the low bits of 16.
Values are scaled by the format (the largest gives 255), never by what a picture happens to hold.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError

MOSAICS = ("rggb", "bggr", "grbg", "gbrg")
LAYOUTS = ("auto", "mono", *MOSAICS, "rgb", "bgr")
DEPTHS = (8, 10, 12, 14, 16)

_SPEC = re.compile(rf"({'|'.join(LAYOUTS)})(\d+)?")


def parse_pixel(spec: str) -> tuple[str, int | None]:
    """A format's layout (one of LAYOUTS) and depth in bits (None: that of the type).

    Raises:
        InputError: no such format.
    """
    found = _SPEC.fullmatch(spec.lower())
    depth = int(found[2]) if found and found[2] else None
    if found is None or (depth is not None and (depth not in DEPTHS or found[1] == "auto")):
        raise InputError(
            f"pixel format {spec!r}: there are auto, mono, {', '.join(MOSAICS)}, rgb and bgr, "
            f"all but auto with a depth where it is not the type's, as in mono12"
        )
    return found[1], depth


def to_rgb(raw: NDArray[Any], pixel: str = "auto") -> NDArray[np.uint8]:
    """One picture as the package takes it.

    Args:
        raw: uint8 or uint16; [H, W] or [H, W, 1] gray or mosaic, [H, W, 3] or [H, W, 4] colour
            with alpha last. Colour under "auto", and alpha's colour, is BGR as OpenCV has it.
        pixel: its format. "auto" takes two axes for gray and never for a mosaic. A mosaic
            format takes three equal channels too, since some drivers and codecs repeat gray.

    Returns:
        uint8 [H, W, 3] RGB, 0 to 255, contiguous. A mosaic is interpolated (bilinear) at its
        own depth; its outermost pixels repeat their neighbours.

    Raises:
        InputError: a type whose range is not known, a shape that does not go with the format,
            or a mosaic of less than 4x4.
    """
    layout, depth = parse_pixel(pixel)
    if raw.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"pixels of type {raw.dtype} have no known range; save it with 8 or 16 bits"
        )
    if raw.ndim == 3 and raw.shape[2] == 1:
        raw = raw[:, :, 0]
    if raw.size == 0 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[2] not in (3, 4)):
        raise InputError(f"an array of shape {raw.shape} is no picture")
    bits = 8 * raw.dtype.itemsize if depth is None else depth
    if bits > 8 * raw.dtype.itemsize:
        raise InputError(f"pixel format {pixel} is of {bits} bits, the picture of 8")
    if layout in MOSAICS or layout == "mono":
        raw = _one_channel(raw, pixel)
    if layout in MOSAICS:
        return _eight(_demosaic(raw, layout), bits)
    if raw.ndim == 2:
        if layout in ("rgb", "bgr"):
            raise InputError(f"the picture is gray; pixel format {pixel} wants three channels")
        return np.repeat(_eight(raw, bits)[:, :, np.newaxis], 3, axis=2)
    return np.ascontiguousarray(
        _eight(raw[:, :, :3] if layout == "rgb" else raw[:, :, 2::-1], bits)
    )


def _one_channel(raw: NDArray[Any], pixel: str) -> NDArray[Any]:
    if raw.ndim == 2:
        return raw
    first = raw[:, :, 0]
    if not all(np.array_equal(first, raw[:, :, channel]) for channel in (1, 2)):
        raise InputError(f"the picture has colour; pixel format {pixel} wants one channel")
    return first


def _demosaic(raw: NDArray[Any], layout: str) -> NDArray[Any]:
    import cv2

    if min(raw.shape) < 4:
        raise InputError(f"a mosaic of {raw.shape[1]}x{raw.shape[0]} is too small; 4x4 at least")
    code = getattr(cv2, f"COLOR_Bayer{layout.upper()}2RGB")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(raw), code))


def _eight(raw: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """round(255 v / (2^bits - 1)), as uint8; values that the depth does not allow become 255."""
    if bits == 8 and raw.dtype == np.uint8:
        return np.asarray(raw, np.uint8)
    return np.asarray(_table(bits)[raw])


@lru_cache(maxsize=len(DEPTHS))
def _table(bits: int) -> NDArray[np.uint8]:
    top = (1 << bits) - 1
    values = np.minimum(np.arange(1 << 16, dtype=np.uint32), top)
    return ((values * 255 + top // 2) // top).astype(np.uint8)
