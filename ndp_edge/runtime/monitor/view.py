"""What the page is told, as one JSON object; and what another threshold would change."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.metrics import latency
from ndp_edge.runtime.baseline import Baseline, Drift
from ndp_edge.runtime.monitor.gallery import Gallery
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.recent import Recent, Window
from ndp_edge.runtime.remote import Remote

BINS = 50
_TOPS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass
class View:
    """The line as the page sees it; safe from any thread.

    Attributes:
        recent, drift, gallery, remotes: what has been seen.
        control: the threshold.
        shipped: the bundle's own threshold.
        source, bundle: names for the head of the page.
        deadline_ms: the run's, or None.
        read_only: nobody may turn the threshold here.
        run: a word that differs from run to run; pictures are named by it.
    """

    recent: Recent
    drift: Drift
    gallery: Gallery
    control: Control
    shipped: float
    source: str = ""
    bundle: str = ""
    deadline_ms: float | None = None
    read_only: bool = False
    remotes: Sequence[Remote] = ()
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def state(self) -> dict[str, Any]:
        """Everything on the page. Times are seconds since the epoch, latencies ms."""
        window = self.recent.window()
        last, rejects = self.gallery.shots()
        threshold = self.control.threshold
        return {
            "run": self.run,
            "source": self.source,
            "bundle": self.bundle[:12],
            "deadline_ms": self.deadline_ms,
            "threshold": threshold,
            "shipped": self.shipped,
            "read_only": self.read_only,
            **self.recent.report(),
            "latency_ms": latency(window.ms) if len(window.ms) else None,
            "histogram": histogram(window, self.drift.baseline, max(threshold, self.shipped)),
            "drift": self.drift.report(),
            "tiled": bool(last) and "tiles" in last[0].line,
            "last": [shot.describe() for shot in last],
            "rejects": [shot.describe() for shot in rejects],
            "remotes": [remote.report() for remote in self.remotes],
            "turns": self.control.turns(),
        }

    def preview(self, threshold: float) -> dict[str, Any]:
        """What a threshold in [0, 1] would do to the last frames that were judged.

        Returns:
            frames (how many), now and then (rejects among them), more and fewer (frames whose
            verdict would change), baseline_now and baseline_then (share of the good pictures
            behind the baseline that is above, or None), n (those pictures).
        """
        window, now = self.recent.window(), self.control.threshold
        before, after = window.above(now), window.above(threshold)
        baseline = self.drift.baseline
        return {
            "frames": len(window.scores),
            "now": before,
            "then": after,
            "more": max(after - before, 0),
            "fewer": max(before - after, 0),
            "n": None if baseline is None else baseline.n,
            "baseline_now": None if baseline is None else baseline.rejected(now),
            "baseline_then": None if baseline is None else baseline.rejected(threshold),
        }


def histogram(window: Window, baseline: Baseline | None, threshold: float) -> dict[str, Any]:
    """Scores of the window and of the baseline, on one axis that moves as rarely as it can.

    Returns:
        top (end of the axis; what lies above is in the last bin), line and baseline (shares
        that sum to 1, `BINS` each; None without scores or without a baseline), n.
    """
    highest = threshold if baseline is None else max(threshold, float(baseline.quantiles[-1]))
    top = next((top for top in _TOPS if 1.15 * highest <= top), _TOPS[-1])
    edges = np.linspace(0, top, BINS + 1)
    expected = None
    if baseline is not None:
        reached = baseline.share(edges)
        reached[0], reached[-1] = 0.0, 1.0
        expected = _shares(np.diff(reached))
    n = len(window.samples)
    counts, _ = np.histogram(np.clip(window.samples, 0, top), edges)
    return {"top": top, "n": n, "line": _shares(counts / n) if n else None, "baseline": expected}


def _shares(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 5) for value in values]
