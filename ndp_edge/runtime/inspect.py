"""From the net's maps of one frame to its verdict. A frame that cannot be judged is rejected."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import NdpError
from ndp_edge.postprocess import find_defects, smooth_into
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.work import Work
from ndp_edge.types import Defect, Result


class Judge:
    """Stitches, smooths and scores; serves one thread.

    Args:
        control: its threshold: reject if and only if score > threshold.
        bundle: hash, goes into every result.
    """

    def __init__(self, control: Control, bundle: str) -> None:
        self._control = control
        self._bundle = bundle
        self._stitched: NDArray[np.float32] = np.empty(0, np.float32)

    def __call__(self, work: Work) -> None:
        """Fill in `work`'s result, smoothed, scores, audit and its "judge" time."""
        if work.dropped is not None:
            return
        began = time.perf_counter()
        threshold, work.audit = self._control.read()
        score: float | None = None
        defects: tuple[Defect, ...] = ()
        if work.error is None:
            try:
                score, defects = self._look(work, threshold)
            except NdpError as error:
                work.error = str(error)
        if work.error is not None:
            work.error = " ".join(work.error.split())
            score, work.smoothed = None, None
        else:
            work.times["judge"] = 1e3 * (time.perf_counter() - began)
        work.result = Result(
            work.name,
            work.captured.time,
            score,
            threshold,
            "reject" if score is None or score > threshold else "ok",
            defects,
            work.times,
            self._bundle,
            work.error,
        )

    def _look(self, work: Work, threshold: float) -> tuple[float, tuple[Defect, ...]]:
        plan, slot = work.plan, work.slot
        assert plan is not None and slot is not None
        if self._stitched.shape != plan.shape:
            self._stitched = np.empty(plan.shape, np.float32)
        whole = plan.stitch(slot.maps, self._stitched)
        score = smooth_into(whole, slot.smoothed)
        work.smoothed = slot.smoothed
        if plan.count > 1 and plan.origins is not None:
            size = slot.maps.shape[1]
            cuts = (slot.smoothed[y : y + size, x : x + size] for y, x in plan.origins)
            work.scores = [float(cut.max()) for cut in cuts]
        if score <= threshold:
            return score, ()
        found = find_defects(slot.smoothed, threshold)
        return score, tuple(enlarge(defect, plan.zoom) for defect in found)


def enlarge(defect: Defect, zoom: float) -> Defect:
    """A defect found on a frame that was shrunk by `zoom` (>= 1), in the frame's own pixels."""
    if zoom == 1:
        return defect
    x, y, w, h = (round(zoom * side) for side in defect.box)
    return Defect((x, y, w, h), round(zoom * zoom * defect.area), defect.peak)
