"""A captured frame becomes what the net takes, in borrowed memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from ndp_edge.errors import InputError
from ndp_edge.runtime.layout import Layout, Plan
from ndp_edge.runtime.work import Slot, Work


def cut(work: Work, layout: Layout, borrow: Callable[[Plan], Slot]) -> None:
    """Fill in `work`'s plan, slot, tiles and times; or its error, for a frame that has none.

    Args:
        work: fresh from the source.
        layout: picks the plan.
        borrow: a slot for a plan; may wait.
    """
    frame = work.captured.frame
    if frame is None:
        work.error = work.captured.error or "the frame is missing"
        return
    height, width = frame.image.shape[:2]
    try:
        work.plan = plan = layout.plan((height, width))
        work.slot = slot = borrow(plan)
        slot.fit(plan, layout.size)
        began = time.perf_counter()
        work.times["wait"] = 1e3 * (began - work.since)
        work.tiles = plan.cut(frame.image, slot.tiles)
    except InputError as error:  # a size that cannot be inspected
        work.error = str(error)
        return
    work.since = time.perf_counter()
    work.times["tile"] = 1e3 * (work.since - began)
