"""A verdict as a program gets it: with its map, its picture, and memory of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_edge import heat
from ndp_edge.errors import InputError
from ndp_edge.runtime.sinks import shown
from ndp_edge.runtime.work import Work
from ndp_edge.types import Result


@dataclass(frozen=True)
class Inspected(Result):
    """A verdict with what it was read from; see `ndp_edge.types.Result` for the rest.

    Attributes:
        heat: the smoothed map, float32 [h, w] in [0, 1]: of the frame's size for a frame that
            was tiled, of the net's for one that was shrunk. None where there is no judgement.
        image: the frame, uint8 [H, W, 3], RGB; None where it could not be read.
    """

    heat: NDArray[np.float32] | None = None
    image: NDArray[np.uint8] | None = None

    @property
    def rejected(self) -> bool:
        """The verdict as a truth value."""
        return self.verdict == "reject"

    def overlay(self) -> NDArray[np.uint8]:
        """The frame with its defects tinted and outlined, at the map's size: uint8 [h, w, 3].

        Raises:
            InputError: the frame was not judged.
        """
        if self.heat is None or self.image is None:
            raise InputError(f"{self.frame} was not judged: {self.error}")
        return heat.overlay(shown(self.image, self.heat), self.heat, self.threshold, zoom=1)


def inspected(work: Work) -> Inspected:
    """A result that owns its arrays, whatever becomes of the slot."""
    result, frame = work.result, work.captured.frame
    assert result is not None
    times = {**result.latency_ms, "total": 1e3 * (time.perf_counter() - work.began)}
    fields = {**vars(result), "latency_ms": times}
    heated = None if work.smoothed is None else work.smoothed.copy()
    return Inspected(**fields, heat=heated, image=None if frame is None else frame.image)
