"""A frame of any size as overlapping tiles of the net's size, and their maps as one map.

Tiles start at multiples of GRID pixels, so that the strided convolutions of two tiles see what
they share in the same phase. On the shipped `nano` in fp32, the map of a tile that is moved by 16
pixels stays the same within 0.002, 48 pixels or more from its edges; moved by one pixel it
differs by up to 0.2 (bench.seams). Only the last tile of a row or column leaves the grid, to end
where the frame ends. To let it overhang by a few reflected pixels instead was tried: the mirror
line looks like a defect to the net, and 15 of 24 good frames of cloth were rejected for it,
against none. A frame smaller than a tile has to be filled up, by reflection about its last
pixels, and pays that price: 5 of 16 good strips of 128 x 256 were rejected.

Where tiles overlap, their maps are averaged with weights that rise from a tile's edge inwards
(a raised cosine over the overlap): a tile knows least at its edge, where its neighbour sees
what lies beyond. The weights of a pixel are divided by their sum, so the blended map is a convex
combination of the tiles' maps: no higher than the highest of them, no lower than the lowest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError

GRID = 16
"""Pixels of the frame per pixel of the encoder's deepest stage."""


class Tiler:
    """Cuts frames of one size and blends the maps; computed once, used for every frame.

    `cut` may run in one thread while `stitch` runs in another.

    Args:
        frame: (height, width) in pixels, each at least 1.
        tile: side of a tile, S.
        overlap: pixels that neighbours share at least, 0 <= overlap < tile.
        roi: bool [H, W], True where defects count; None is everywhere. Tiles that lie wholly
            outside are not cut.

    Attributes:
        frame: as given.
        tile: as given.
        count: tiles per frame, T.
        origins: (y, x) of each tile's first pixel, row by row, inside the frame.

    Raises:
        InputError: sizes out of range, or a region of another size or with nothing in it.
    """

    def __init__(
        self,
        frame: tuple[int, int],
        tile: int,
        overlap: int = 32,
        roi: NDArray[np.bool_] | None = None,
    ) -> None:
        _check(frame, tile, overlap, roi)
        self.frame = frame
        self.tile = tile
        (ys, down), (xs, across) = (_axis(extent, tile, overlap) for extent in frame)
        grid = [(i, j) for i in range(len(ys)) for j in range(len(xs))]
        if roi is not None:
            grid = [(i, j) for i, j in grid if self._part(roi, ys[i], xs[j]).any()]
        self.origins = [(ys[i], xs[j]) for i, j in grid]
        self.count = len(grid)
        self._weights = [(down[i][:, np.newaxis], across[j]) for i, j in grid]
        self._outside = None if roi is None or roi.all() else ~roi
        self._scratch = np.empty((tile, tile), np.float32)

    def cut(
        self, image: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """The tiles of one frame.

        Args:
            image: uint8 [H, W, 3] of this tiler's frame size.
            out: uint8 [T, S, S, 3], contiguous, to write them into and return; None makes one.

        Raises:
            InputError: an image of another size or type.
            ValueError: `out` of another shape or type.
        """
        if image.shape != (*self.frame, 3) or image.dtype != np.uint8:
            height, width = self.frame
            raise InputError(
                f"a frame of shape {image.shape} and type {image.dtype}; "
                f"wanted uint8 [{height}, {width}, 3]"
            )
        if out is None:
            out = np.empty((self.count, self.tile, self.tile, 3), np.uint8)
        _same(out, (self.count, self.tile, self.tile, 3), np.uint8)
        for (y, x), target in zip(self.origins, out, strict=True):
            part = self._part(image, y, x)
            if part.shape == target.shape:
                target[:] = part
            else:
                _reflect(part, target)
        return out

    def stitch(
        self, maps: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """One map of the frame from the maps of its tiles; 0 outside the region of interest.

        Args:
            maps: float32 [T, S, S], in the order of `origins`.
            out: float32 [H, W] to write it into and return; None makes one.

        Raises:
            ValueError: another shape or type.
        """
        _same(maps, (self.count, self.tile, self.tile), np.float32)
        if out is None:
            out = np.empty(self.frame, np.float32)
        _same(out, self.frame, np.float32)
        out.fill(0)
        for (y, x), (down, across), tile in zip(self.origins, self._weights, maps, strict=True):
            target = self._part(out, y, x)
            height, width = target.shape
            weighted = np.multiply(tile, down, out=self._scratch)
            weighted *= across
            target += weighted[:height, :width]
        if self._outside is not None:
            out[self._outside] = 0
        return out

    def _part(self, array: NDArray[Any], y: int, x: int) -> NDArray[Any]:
        """What a tile covers of an array [H, W, ...]: a view, smaller where the array is."""
        return array[y : y + self.tile, x : x + self.tile]


def _starts(extent: int, tile: int, overlap: int) -> list[int]:
    """First pixels of as few tiles as cover an axis with this overlap or more, nearly even.

    Multiples of GRID but for the last, which ends with the axis; and but for an overlap that
    leaves less than GRID pixels between two.
    """
    step = tile - overlap
    grid = GRID if step >= GRID else 1
    left = max(0, extent - tile)
    gaps = math.ceil(left / (step - step % grid))
    if gaps == 0:
        return [0]
    gap = grid * math.ceil(left / gaps / grid)
    return [*(i * gap for i in range(gaps)), left]


def _axis(extent: int, tile: int, overlap: int) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Along one axis, the tiles' first pixels and each one's weights, float32 [tile].

    At every pixel of the axis the weights of the tiles there sum to 1; behind its end they
    are 0.
    """
    starts = _starts(extent, tile, overlap)
    ramp = _ramp(tile, overlap)
    total = np.zeros(extent)
    for start in starts:
        total[start : start + tile] += ramp[: extent - start]
    weights = []
    for start in starts:
        weight = np.zeros(tile)
        here = total[start : start + tile]
        weight[: len(here)] = ramp[: len(here)] / here
        weights.append(weight.astype(np.float32))
    return starts, weights


def _ramp(tile: int, overlap: int) -> NDArray[np.float64]:
    """Weights [tile] in (0, 1]: sin^2 from either edge over `overlap` pixels, 1 between."""
    inwards = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    share = np.minimum(inwards / max(overlap, 0.5), 1)
    ramp: NDArray[np.float64] = np.sin(0.5 * np.pi * share) ** 2
    return ramp


def _reflect(part: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Fill `target` [S, S, 3] with a smaller part, reflected about its last row and column."""
    import cv2

    down, right = (target.shape[axis] - part.shape[axis] for axis in (0, 1))
    cv2.copyMakeBorder(part, 0, down, 0, right, cv2.BORDER_REFLECT_101, target)


def _same(array: NDArray[Any], shape: tuple[int, ...], kind: type) -> None:
    """Raises ValueError for an array that would be written elsewhere, or read wrongly."""
    if array.shape != shape or array.dtype != kind:
        wanted = f"{np.dtype(kind)} {list(shape)}"
        raise ValueError(f"an array of shape {array.shape} and type {array.dtype}, not {wanted}")


def _check(frame: tuple[int, int], tile: int, overlap: int, roi: NDArray[np.bool_] | None) -> None:
    height, width = frame
    if min(height, width, tile) < 1:
        raise InputError(f"a frame of {width}x{height} cannot be cut into tiles of {tile}")
    if not 0 <= overlap < tile:
        raise InputError(f"overlap {overlap}: give 0 to {tile - 1}, less than a tile's side")
    if roi is None:
        return
    if roi.shape != frame or roi.dtype != np.bool_:
        raise InputError(f"the region of interest is {roi.shape}, the frame {frame}; make it fit")
    if not roi.any():
        raise InputError("the region of interest is empty; mark where defects count")
