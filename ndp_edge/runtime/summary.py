"""What a run came to: counts, rates and latency percentiles from the lines it wrote."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

STAGES = ("read", "infer", "judge", "write")


class Summary:
    """Collects lines of results.jsonl; eight bytes per stage and frame are all it keeps."""

    def __init__(self) -> None:
        self.counts = {"ok": 0, "reject": 0}
        self.errors = 0
        self._ms = {stage: array("d") for stage in (*STAGES, "total")}

    @property
    def frames(self) -> int:
        """How many frames have a verdict."""
        return sum(self.counts.values())

    def add(self, line: Mapping[str, Any]) -> None:
        """Count one line."""
        self.counts[line["verdict"]] += 1
        if line.get("error") is not None:
            self.errors += 1
            return  # a frame that was not judged says nothing about how long judging takes
        times = line["latency_ms"]
        for stage in STAGES:
            self._ms[stage].append(float(times.get(stage, 0.0)))
        self._ms["total"].append(float(sum(times.values())))

    def to_dict(self) -> dict[str, Any]:
        """frames, ok, reject, errors, reject_rate (None without frames), latency_ms per stage."""
        total = self.frames
        return {
            "frames": total,
            **self.counts,
            "errors": self.errors,
            "reject_rate": self.counts["reject"] / total if total else None,
            "latency_ms": {stage: latency(ms) for stage, ms in self._ms.items() if len(ms)},
        }


def latency(ms: Any) -> dict[str, float]:
    """p50, p95, p99 and mean in ms, and n, of a sequence of times in ms (not empty)."""
    values = np.asarray(ms, np.float64)
    p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99, "mean": float(values.mean()), "n": len(values)}
