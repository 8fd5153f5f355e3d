"""How a frame becomes what the net takes, and the net's maps become one map of the frame."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.image import to_square
from ndp_edge.runtime.tiler import Tiler

Mode = Literal["auto", "shrink", "tiles"]
MODES: tuple[Mode, ...] = ("auto", "shrink", "tiles")

MOST_SIZES = 4
"""Frame sizes whose plan is kept; a source that changes its size changes it rarely."""


class Plan(Protocol):
    """The way of frames of one size.

    Attributes:
        count: images [size, size, 3] that the net sees per frame.
        shape: (height, width) of the frame's map.
        zoom: pixels of the frame per pixel of its map, along one axis.
        origins: (y, x) in the frame of every tile; None where the frame is shrunk instead, and
            `cut` takes the frame's own memory and wants no `out`.
    """

    count: int
    shape: tuple[int, int]
    zoom: float
    origins: list[tuple[int, int]] | None

    def cut(self, image: NDArray[np.uint8], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] to uint8 [count, size, size, 3], in `out` where it is needed."""

    def stitch(self, maps: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [count, size, size] to the frame's map, float32 [shape]: `out` or `maps`."""


class Shrunk:
    """A square frame brought to the net's size by area averaging, as in training."""

    def __init__(self, frame: tuple[int, int], size: int, roi: NDArray[np.bool_] | None) -> None:
        self._size = size
        self.count = 1
        self.shape = (size, size)
        self.zoom = frame[0] / size
        self.origins: list[tuple[int, int]] | None = None
        self._outside: NDArray[np.bool_] | None = None
        if roi is not None:
            shrunk = to_square(np.repeat(255 * roi[:, :, np.newaxis].astype(np.uint8), 3, 2), size)
            self._outside = shrunk[:, :, 0] < 128

    def cut(self, image: NDArray[np.uint8], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """Raises InputError for a frame smaller than the net's input."""
        return to_square(image, self._size)[np.newaxis]

    def stitch(self, maps: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """The one map itself, 0 outside the region of interest."""
        if self._outside is not None:
            maps[0][self._outside] = 0
        whole: NDArray[np.float32] = maps[0]
        return whole


class Tiled:
    """A frame cut into overlapping tiles at its native scale, the maps blended."""

    def __init__(
        self, frame: tuple[int, int], size: int, overlap: int, roi: NDArray[np.bool_] | None
    ) -> None:
        self._tiler = Tiler(frame, size, overlap, roi)
        self.count = self._tiler.count
        self.shape = frame
        self.zoom = 1.0
        self.origins: list[tuple[int, int]] | None = list(self._tiler.origins)

    def cut(self, image: NDArray[np.uint8], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """The tiles, written into `out`."""
        return self._tiler.cut(image, out)

    def stitch(self, maps: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """The blended map, written into `out`."""
        return self._tiler.stitch(maps, out)


class Layout:
    """Picks and keeps the plan for each frame size.

    Args:
        size: side in pixels of what the net takes.
        mode: "shrink" (square frames only), "tiles", or "auto": shrink square frames and tile
            the others.
        overlap: pixels that neighbouring tiles share, 0 <= overlap < size.
        roi: bool [H, W] of the frames' size, True where defects count; None is everywhere.

    Raises:
        InputError: an overlap outside its range, or an empty region of interest.
    """

    def __init__(
        self,
        size: int,
        mode: Mode = "auto",
        overlap: int = 32,
        roi: NDArray[np.bool_] | None = None,
    ) -> None:
        if not 0 <= overlap < size:
            raise InputError(f"overlap {overlap}: give 0 to {size - 1}, less than a tile's side")
        if roi is not None and not roi.any():
            raise InputError("the region of interest is empty; mark where defects count")
        self.size = size
        self._mode = mode
        self._overlap = overlap
        self._roi = roi
        self._plans: OrderedDict[tuple[int, int], Plan] = OrderedDict()

    def plan(self, frame: tuple[int, int]) -> Plan:
        """The plan for frames of (height, width).

        Raises:
            InputError: a frame that the mode does not take, or not of the region's size.
        """
        if frame not in self._plans:
            self._plans[frame] = self._make(frame)
            while len(self._plans) > MOST_SIZES:
                self._plans.popitem(last=False)
        self._plans.move_to_end(frame)
        return self._plans[frame]

    def _make(self, frame: tuple[int, int]) -> Plan:
        height, width = frame
        if self._roi is not None and self._roi.shape != frame:
            marked = f"{self._roi.shape[1]}x{self._roi.shape[0]}"
            raise InputError(
                f"the frame has {width}x{height} pixels, the region of interest {marked}"
            )
        if self._mode == "tiles" or (self._mode == "auto" and height != width):
            return Tiled(frame, self.size, self._overlap, self._roi)
        return Shrunk(frame, self.size, self._roi)
