"""What the line did lately: counts since it began, and a window of the last frames."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.runtime.baseline import one_score
from ndp_edge.runtime.observing import Observer, Seen

KEEP = 2000
"""Frames in the window."""

TICKS = 120
"""Verdicts that are told one by one."""

RATE_SECONDS = 10.0
"""Frames per second are counted over so long."""


@dataclass(frozen=True)
class Window:
    """The last frames that could be judged, oldest first.

    Attributes:
        scores: float64 [n], of whole frames.
        samples: float64 [n], of single pictures: the frame's score, or that of one of its
            tiles (`baseline.one_score`).
        ms: float64 [n], from capture to the line in results.jsonl.
    """

    scores: NDArray[np.float64]
    samples: NDArray[np.float64]
    ms: NDArray[np.float64]

    def above(self, threshold: float) -> int:
        """How many of the frames a threshold rejects."""
        return int((self.scores > threshold).sum())


class Recent(Observer):
    """An observer; its readers may be in any thread.

    Args:
        keep: frames in the window.
    """

    pictures = False

    def __init__(self, keep: int = KEEP) -> None:
        self._lock = threading.Lock()
        self._judged: deque[tuple[float, float, float]] = deque(maxlen=keep)
        self._verdicts: deque[bool] = deque(maxlen=keep)
        self._arrivals: deque[float] = deque(maxlen=keep)
        self._counts: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._row = 0
        self._values: dict[str, float] = {}
        self._began = time.monotonic()

    def verdict(self, seen: Seen) -> None:
        """Count a frame."""
        line = seen.line
        rejected = line["verdict"] == "reject"
        with self._lock:
            sample = one_score(line, self._counts["frames"])
            self._counts["frames"] += 1
            self._counts[line["verdict"]] += 1
            self._counts["late"] += bool(line.get("late"))
            self._counts["not_judged"] += sample is None
            self._row = self._row + 1 if rejected else 0
            self._verdicts.append(rejected)
            self._arrivals.append(time.monotonic())
            if sample is not None:
                self._judged.append((line["score"], sample, line["latency_ms"]["total"]))

    def dropped(self, name: str, time: float, why: str) -> None:
        """Count a drop."""
        with self._lock:
            self._drops[why] += 1

    def gauges(self, values: Mapping[str, float]) -> None:
        """Keep the newest."""
        with self._lock:
            self._values = dict(values)

    def window(self) -> Window:
        """A copy of the window."""
        with self._lock:
            rows = list(self._judged)
        table = np.array(rows, np.float64).reshape(-1, 3)
        return Window(table[:, 0], table[:, 1], table[:, 2])

    def report(self) -> dict[str, Any]:
        """Counts for people.

        Returns:
            frames, ok, reject, not_judged, late, dropped, drops (why -> count), in_a_row
            (rejects since the last ok), idle (seconds since the last verdict, or None), fps
            (over `RATE_SECONDS`), recent ({n, reject}: verdicts in the window), ticks (one
            letter for each of the last `TICKS` frames, "o" or "r", oldest first), gauges.
        """
        with self._lock:
            now = time.monotonic()
            verdicts = list(self._verdicts)
            fresh = [at for at in self._arrivals if now - at <= RATE_SECONDS]
            counted = {
                key: self._counts[key] for key in ("frames", "ok", "reject", "not_judged", "late")
            }
            return {
                **counted,
                "dropped": sum(self._drops.values()),
                "drops": dict(self._drops),
                "in_a_row": self._row,
                "idle": now - self._arrivals[-1] if self._arrivals else None,
                "fps": self._fps(fresh, now),
                "recent": {"n": len(verdicts), "reject": sum(verdicts)},
                "ticks": "".join("r" if rejected else "o" for rejected in verdicts[-TICKS:]),
                "gauges": dict(self._values),
            }

    def _fps(self, fresh: list[float], now: float) -> float:
        # A window that is full holds less than RATE_SECONDS of a very fast line.
        full = len(fresh) == self._arrivals.maxlen
        span = now - fresh[0] if full else min(RATE_SECONDS, now - self._began)
        return len(fresh) / max(span, 1e-3)
