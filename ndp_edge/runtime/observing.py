"""What watches the line (metrics, the monitor page, webhooks), and what turns its threshold.

Observers are called in the write stage, in frame order, and must return at once: whoever has
slow work keeps a bounded queue and a thread of his own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
            smaller than `image` where the frame was shrunk; None without a judgement, or where
            no observer looks at `pictures`.
    """

    line: dict[str, Any]
    image: NDArray[np.uint8] | None
    smoothed: NDArray[np.float32] | None


class Observer:
    """Sees everything that leaves the line; this base does nothing. No method may block or raise.

    Attributes:
        pictures: it looks at `Seen.smoothed`; where nobody does, the map is not copied for them.
    """

    pictures = True

    def verdict(self, seen: Seen) -> None:
        """A frame was judged, and its line is written."""

    def dropped(self, name: str, time: float, why: str) -> None:
        """A frame was given up; `time` is when it was captured (seconds since the epoch)."""

    def gauges(self, values: Mapping[str, float]) -> None:
        """About once a second: queue depths, frames in flight, memory (see `Pipeline`)."""

    def close(self) -> None:
        """The run is over; nothing but `close` is called afterwards."""


TURNS = 5
"""Turns of the threshold that `Control` remembers."""


class Control:
    """The threshold of a running line, which people may turn. Safe from any thread.

    Args:
        threshold: where it stands at first, in [0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self._lock = threading.Lock()
        self._threshold = checked(threshold)
        self._audit: list[dict[str, Any]] = []
        self._turns: deque[dict[str, Any]] = deque(maxlen=TURNS)

    @property
    def threshold(self) -> float:
        """Reject if and only if score > threshold."""
        return self._threshold

    def set_threshold(self, value: float, who: str, expected: float | None = None) -> None:
        """Turn the threshold; frames judged from now on use it.

        Args:
            value: the new one, in [0, 1].
            who: goes into the audit entry in results.jsonl.
            expected: what the person saw; somebody else may have turned it meanwhile. None
                does not care.

        Raises:
            InputError: not a number in [0, 1], or no longer at `expected`.
        """
        value = checked(value)
        with self._lock:  # two at once: the second sees what the first did
            if expected is not None and expected != self._threshold:
                raise InputError(
                    f"the threshold was turned to {self._threshold:g} meanwhile; look again"
                )
            if value == self._threshold:
                return
            stamp = round(time.time(), 6)
            turn = {"time": stamp, "from": self._threshold, "to": value, "who": str(who)}
            self._audit.append({"audit": "threshold", **turn})
            self._turns.append(turn)
            self._threshold = value

    def turns(self) -> list[dict[str, Any]]:
        """The last `TURNS` turns (time, from, to, who), newest first."""
        with self._lock:
            return list(self._turns)[::-1]

    def read(self) -> tuple[float, list[dict[str, Any]]]:
        """The threshold, and what was done to it since the last call, oldest first.

        For the judging stage: it hands the entries on with the frame, so that they stand in
        results.jsonl right before the first frame that was judged by the new threshold.
        """
        with self._lock:
            taken, self._audit = self._audit, []
            return self._threshold, taken


def checked(value: Any) -> float:
    """`value` as a threshold.

    Raises:
        InputError: not a number in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"threshold {value!r}: give a number in [0, 1]")
    if not 0 <= value <= 1:  # neither is NaN
        raise InputError(f"threshold {value}: give a number in [0, 1]")
    return float(value)
