"""What watches the line (metrics, the monitor page, webhooks), and what turns its threshold.

Observers are called in the write stage, in frame order, and must return at once: whoever has
slow work keeps a bounded queue and a thread of his own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError


@dataclass(frozen=True)
class Seen:
    """One frame that was judged. The observer may keep the arrays, and must not change them.

    Attributes:
        line: the frame's line of results.jsonl (DESIGN section 8), not to be changed.
        image: uint8 [h, w, 3], RGB; None for a frame that could not be read.
        smoothed: float32 [h, w] in [0, 1], the map behind the verdict, at the net's scale:
            smaller than `image` where the frame was shrunk; None without a judgement.
    """

    line: dict[str, Any]
    image: NDArray[np.uint8] | None
    smoothed: NDArray[np.float32] | None


class Observer(Protocol):
    """Sees everything that leaves the line. No method may block or raise."""

    def verdict(self, seen: Seen) -> None:
        """A frame was judged, and its line is written."""

    def dropped(self, name: str, time: float, why: str) -> None:
        """A frame was given up; `time` is when it was captured (seconds since the epoch)."""

    def gauges(self, values: Mapping[str, float]) -> None:
        """About once a second: queue depths, frames in flight, memory (see `Pipeline`)."""

    def close(self) -> None:
        """The run is over; nothing but `close` is called afterwards."""


class Onlooker:
    """An observer that does nothing: a base for those who care about some of it."""

    def verdict(self, seen: Seen) -> None:
        """A frame was judged."""

    def dropped(self, name: str, time: float, why: str) -> None:
        """A frame was given up."""

    def gauges(self, values: Mapping[str, float]) -> None:
        """About once a second."""

    def close(self) -> None:
        """The run is over."""


class Control:
    """The threshold of a running line, which people may turn. Safe from any thread.

    Args:
        threshold: where it stands at first, in [0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self._lock = threading.Lock()
        self._threshold = _checked(threshold)
        self._audit: list[dict[str, Any]] = []

    @property
    def threshold(self) -> float:
        """Reject if and only if score > threshold."""
        return self._threshold

    def set_threshold(self, value: float, who: str) -> None:
        """Turn the threshold; frames judged from now on use it.

        Args:
            value: the new one, in [0, 1].
            who: goes into the audit entry in results.jsonl.

        Raises:
            InputError: not a number in [0, 1].
        """
        value = _checked(value)
        with self._lock:
            if value == self._threshold:
                return
            stamp = round(time.time(), 6)
            turn = {"from": self._threshold, "to": value, "who": str(who)}
            self._audit.append({"audit": "threshold", "time": stamp, **turn})
            self._threshold = value

    def read(self) -> tuple[float, list[dict[str, Any]]]:
        """The threshold, and what was done to it since the last call, oldest first.

        For the judging stage: it hands the entries on with the frame, so that they stand in
        results.jsonl right before the first frame that was judged by the new threshold.
        """
        with self._lock:
            taken, self._audit = self._audit, []
            return self._threshold, taken


def _checked(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"threshold {value!r}: give a number in [0, 1]")
    if not 0 <= value <= 1:  # neither is NaN
        raise InputError(f"threshold {value}: give a number in [0, 1]")
    return float(value)
