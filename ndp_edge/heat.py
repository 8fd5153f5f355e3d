"""Anomaly maps as colours, on one fixed scale for every picture of a bundle.

Cool colours lie below the threshold and warm ones above it, so a glance says what would be
rejected. The lower half of the scale runs linearly from 0 to the threshold and the upper
half linearly from the threshold to `TOP`; nothing is stretched per picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOP = 1.0
"""End of the scale: maps lie in [0, 1]. Anything above is drawn in the last colour."""

_COOL = ((0.0, (12, 16, 42)), (0.45, (32, 84, 160)), (1.0, (104, 190, 190)))
_WARM = ((0.0, (255, 214, 64)), (0.45, (244, 112, 36)), (1.0, (165, 12, 28)))
_HALF = 128

DEFECT_COLOUR = (255, 40, 40)
TRUTH_COLOUR = (60, 255, 120)


def _ramp(anchors: tuple[tuple[float, tuple[int, int, int]], ...]) -> NDArray[np.uint8]:
    at = np.linspace(0, 1, _HALF)
    stops = [stop for stop, _ in anchors]
    channels = [np.interp(at, stops, [c[i] for _, c in anchors]) for i in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


COLOURS: NDArray[np.uint8] = np.concatenate([_ramp(_COOL), _ramp(_WARM)])
"""uint8 [256, 3], RGB: the scale from bottom to top; the threshold lies in its middle."""


def position(value: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    """Where a value stands on the scale, in [0, 1]; the threshold stands at 0.5.

    A value above the threshold is always above 0.5 and one at it is not, as in the verdict.
    """
    low = min(max(threshold, 0.0), TOP)
    values = np.asarray(value, np.float64)
    below = 0.5 * np.clip(values / low, 0, 1) if low > 0 else np.full_like(values, 0.5)
    span = TOP - low
    upper = 0.5 + 0.5 * np.clip((values - low) / span, 0, 1) if span > 0 else np.ones_like(values)
    return np.where(values > threshold, upper, below)


def above(heat: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Where a map is above the threshold, compared in float64 as the verdict is."""
    result: NDArray[np.bool_] = heat.astype(np.float64) > threshold
    return result


def colours(heat: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """A map [H, W] as RGB, uint8 [H, W, 3]; or any other shape [...] as [..., 3]."""
    index = (position(heat, threshold) * (2 * _HALF - 1)).astype(np.intp)
    # Rounding must not carry a value across the threshold's edge.
    warm = above(heat, threshold)
    index = np.where(warm, np.maximum(index, _HALF), np.minimum(index, _HALF - 1))
    return COLOURS[index]


def overlay(
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    threshold: float,
    mask: NDArray[np.bool_] | None = None,
    *,
    zoom: int = 2,
) -> NDArray[np.uint8]:
    """The picture with its rejected regions tinted and outlined, and the truth's outline.

    Args:
        image: uint8 [H, W, 3], RGB.
        heat: float32 [H, W], the smoothed map.
        threshold: regions above it are defects.
        mask: bool [H, W], the true defect, or None.
        zoom: whole-number enlargement, so that outlines stay thin beside the defect.

    Returns:
        uint8 [H * zoom, W * zoom, 3], RGB.
    """
    hot = above(heat, threshold)
    tinted = image.copy()
    mixed = 0.65 * image[hot].astype(np.float32) + 0.35 * colours(heat[hot], threshold)
    tinted[hot] = np.rint(mixed.astype(np.float32)).astype(np.uint8)
    canvas = _enlarge(tinted, zoom)
    if mask is not None:
        _outline(canvas, mask, TRUTH_COLOUR, zoom)
    _outline(canvas, hot, DEFECT_COLOUR, zoom)
    return canvas


def _enlarge(image: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.repeat(zoom, axis=0).repeat(zoom, axis=1))


def _outline(
    canvas: NDArray[np.uint8], region: NDArray[np.bool_], colour: tuple[int, int, int], zoom: int
) -> None:
    import cv2

    big = region.astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
    contours, _ = cv2.findContours(big, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, 1 if zoom == 1 else 2)


def encode(image: NDArray[np.uint8], kind: str = ".jpg", quality: int = 88) -> bytes:
    """An RGB or gray picture as the bytes of a JPEG (".jpg") or PNG (".png") file."""
    import cv2

    ordered = image[..., ::-1] if image.ndim == 3 else image
    options = [int(cv2.IMWRITE_JPEG_QUALITY), quality] if kind == ".jpg" else []
    done, data = cv2.imencode(kind, np.ascontiguousarray(ordered), options)
    if not done:
        raise ValueError(f"cannot encode {image.shape} {image.dtype} as {kind}")
    return data.tobytes()
