"""One frame on its way through the stages, and the memory that it borrows for that."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.runtime.layout import Plan
from ndp_edge.runtime.sources import Captured
from ndp_edge.types import Result


class Slot:
    """Buffers of one frame under way; allocated anew only when frames change their size."""

    def __init__(self) -> None:
        empty = np.empty(0, np.float32)
        self.tiles: NDArray[np.uint8] | None = None
        self.maps: NDArray[np.float32] = empty
        self.smoothed: NDArray[np.float32] = empty

    def fit(self, plan: Plan, size: int) -> None:
        """Make room: tiles uint8 and maps float32 [count, size, size], smoothed [plan.shape]."""
        cut = (plan.count, size, size)
        if plan.origins is None:
            self.tiles = None
        elif self.tiles is None or self.tiles.shape[:3] != cut:
            self.tiles = np.empty((*cut, 3), np.uint8)
        if self.maps.shape != cut:
            self.maps = np.empty(cut, np.float32)
        if self.smoothed.shape != plan.shape:
            self.smoothed = np.empty(plan.shape, np.float32)


class Slots:
    """Lends slots, no more than a limit at a time, and keeps those that come back."""

    def __init__(self) -> None:
        self._idle: list[Slot] = []
        self._lent = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """How many are lent."""
        return self._lent

    def take(self, limit: int) -> Slot | None:
        """Wait until less than `limit` are lent and take one; None once closed."""
        with self._changed:
            while self._lent >= limit and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._lent += 1
            return self._idle.pop() if self._idle else Slot()

    def give_back(self, slot: Slot) -> None:
        """The frame is done with; nothing may read the slot any more."""
        with self._changed:
            self._lent -= 1
            self._idle.append(slot)
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever waits gets None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass
class Work:
    """One frame and what the stages have found so far.

    Attributes:
        captured: what the source gave.
        began: when reading began (`time.perf_counter`).
        since: when the stage before had done its part.
        plan, slot, tiles: how the frame is cut, its buffers, what the net takes.
        taken: when the engine stage took the frame.
        times: milliseconds per stage.
        error: why the frame cannot be judged.
        dropped: why the frame was given up.
        result, smoothed, audit: the verdict, the map behind it (in the slot's memory), and
            what people did to the threshold since the frame before.
        scores: float32 [count], the highest value in each tile; empty for a frame of one.
    """

    captured: Captured
    began: float
    since: float
    plan: Plan | None = None
    slot: Slot | None = None
    tiles: NDArray[np.uint8] | None = None
    taken: float = 0.0
    times: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    dropped: str | None = None
    result: Result | None = None
    smoothed: NDArray[np.float32] | None = None
    audit: list[dict[str, Any]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, captured: Captured) -> Work:
        """What the source has just handed over."""
        now = time.perf_counter()
        times = {"read": captured.read_ms}
        return cls(captured, now - 1e-3 * captured.read_ms, now, times=times)

    @property
    def name(self) -> str:
        """The frame's name."""
        return self.captured.name

    @property
    def lost(self) -> bool:
        """True once there is nothing to compute any more."""
        return self.error is not None or self.dropped is not None


@dataclass(frozen=True)
class Dropped:
    """A frame that was given up before it was judged.

    Attributes:
        name, time: as captured (seconds since the epoch).
        why: "queue full", "deadline" or "stopped".
    """

    name: str
    time: float
    why: str
