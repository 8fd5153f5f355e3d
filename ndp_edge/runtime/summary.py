"""What a run came to: counts, rates and latency percentiles, in memory that does not grow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

STAGES = ("read", "wait", "tile", "infer", "judge", "write", "total")
"""Keys of a line's latency_ms: "wait" is time in queues, "total" from capture to the line.
Frames under way overlap, so the stages' sum says nothing about frames per second."""

_LOWEST, _STEP, _BINS = 1e-3, 1.01, 2400
"""A histogram's bins: 1 % wide each, from a microsecond to half a year."""


class Histogram:
    """Times in ms, counted in bins of 1 % width: percentiles are right to half a percent."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._sum = 0.0
        self.n = 0

    def add(self, ms: float) -> None:
        """Count one time."""
        place = math.log(max(ms, _LOWEST) / _LOWEST) / math.log(_STEP)
        self._counts[min(int(place), _BINS - 1)] += 1
        self._sum += ms
        self.n += 1

    def to_dict(self) -> dict[str, float]:
        """p50, p95, p99 (the middle of their bins), mean and n; not without a time."""
        reached = np.cumsum(self._counts)
        report: dict[str, float] = {}
        for percent in (50, 95, 99):
            index = int(np.searchsorted(reached, self.n * percent / 100))
            report[f"p{percent}"] = float(_LOWEST * _STEP ** (index + 0.5))
        return {**report, "mean": self._sum / self.n, "n": self.n}


class Summary:
    """Collects lines of results.jsonl and drops."""

    def __init__(self) -> None:
        self.counts = {"ok": 0, "reject": 0}
        self.errors = 0
        self.late = 0
        self.drops: Counter[str] = Counter()
        self.audit: list[dict[str, Any]] = []
        self._ms = {stage: Histogram() for stage in STAGES}

    @property
    def frames(self) -> int:
        """How many frames have a verdict."""
        return sum(self.counts.values())

    def add(self, line: Mapping[str, Any]) -> None:
        """Count one line; an audit entry is kept."""
        if "audit" in line:
            self.audit.append(dict(line))
            return
        self.counts[line["verdict"]] += 1
        self.late += bool(line.get("late"))
        if line.get("error") is not None:
            self.errors += 1
            return  # a frame that was not judged says nothing about how long judging takes
        for stage, ms in line["latency_ms"].items():
            if stage in self._ms:
                self._ms[stage].add(float(ms))

    def drop(self, why: str) -> None:
        """Count one frame that was given up."""
        self.drops[why] += 1

    def to_dict(self) -> dict[str, Any]:
        """frames, ok, reject, errors, late, dropped (and why), reject_rate (None without
        frames), audit, latency_ms per stage."""
        total = self.frames
        return {
            "frames": total,
            **self.counts,
            "errors": self.errors,
            "late": self.late,
            "dropped": sum(self.drops.values()),
            "drops": dict(self.drops),
            "reject_rate": self.counts["reject"] / total if total else None,
            "latency_ms": {stage: ms.to_dict() for stage, ms in self._ms.items() if ms.n},
            "audit": list(self.audit),
        }
