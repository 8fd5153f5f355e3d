"""One frame through the engine to a verdict. A frame that cannot be judged is rejected."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import NdpError
from ndp_edge.image import to_square
from ndp_edge.postprocess import find_defects, smooth_max
from ndp_edge.runtime.sources import Captured
from ndp_edge.types import Defect, Result


class Infers(Protocol):
    """The part of an engine that a verdict needs."""

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, 3] to float32 [N, H, W]."""


class Judge:
    """Scores frames with one engine at one threshold.

    Args:
        engine: its maps are smoothed here.
        size: side in pixels of the square frames that the net takes.
        threshold: reject if and only if score > threshold.
        bundle: hash, goes into every result.
    """

    def __init__(self, engine: Infers, size: int, threshold: float, bundle: str) -> None:
        self._engine = engine
        self._size = size
        self.threshold = threshold
        self._bundle = bundle

    def __call__(self, captured: Captured) -> tuple[Result, NDArray[np.float32] | None]:
        """The verdict, and the smoothed map [size, size]; None where there is none."""
        times = {"read": captured.read_ms}
        frame = captured.frame
        if frame is None:
            return self._reject(captured, times, captured.error or "the frame is missing"), None
        try:
            began = time.perf_counter()
            maps = self._engine.infer(to_square(frame.image, self._size)[np.newaxis])
            inferred = time.perf_counter()
            smoothed, scores = smooth_max(maps)
            defects = find_defects(smoothed[0], self.threshold)
            judged = time.perf_counter()
        except NdpError as error:  # a frame of a wrong size, an engine that answers NaN
            return self._reject(captured, times, str(error)), None
        times |= {"infer": 1e3 * (inferred - began), "judge": 1e3 * (judged - inferred)}
        score = float(scores[0])
        result = Result(
            frame.name,
            frame.time,
            score,
            self.threshold,
            "reject" if score > self.threshold else "ok",
            tuple(enlarge(d, frame.image.shape[0] / self._size) for d in defects),
            times,
            self._bundle,
        )
        return result, smoothed[0]

    def _reject(self, captured: Captured, times: dict[str, float], error: str) -> Result:
        line = " ".join(error.split())
        return Result(
            captured.name,
            captured.time,
            None,
            self.threshold,
            "reject",
            (),
            times,
            self._bundle,
            line,
        )


def enlarge(defect: Defect, zoom: float) -> Defect:
    """A defect found on a frame that was shrunk by `zoom` (>= 1), in the frame's own pixels."""
    x, y, w, h = (round(zoom * side) for side in defect.box)
    return Defect((x, y, w, h), round(zoom * zoom * defect.area), defect.peak)
