"""Which frames can still have their verdict in time? As TCP estimates a round trip."""

from __future__ import annotations

import time

_MEAN, _SPREAD, _MARGIN, _FADE = 1 / 8, 1 / 4, 2.0, 0.9


class Patience:
    """Learns how long a frame takes from the engine's stage to its written line.

    Estimate: running mean plus twice the running mean deviation (Jacobson 1988, with his gains
    of 1/8 and 1/4; he adds it four times, but giving up a frame that had made it costs more here
    than waiting for a packet does there). Each refusal lets the estimate fade, so that one slow
    moment cannot make the line refuse every frame for ever: after a while one is tried again,
    and its time is learnt.

    Args:
        deadline_ms: from capture to verdict; None has patience with everything.
    """

    def __init__(self, deadline_ms: float | None) -> None:
        self._deadline = None if deadline_ms is None else 1e-3 * deadline_ms
        self._mean: float | None = None
        self._deviation = 0.0

    def hopeless(self, began: float) -> bool:
        """True when a frame captured at `began` (`time.perf_counter`) cannot make it."""
        if self._deadline is None:
            return False
        needs = 0.0 if self._mean is None else self._mean + _MARGIN * self._deviation
        if time.perf_counter() - began + needs <= self._deadline:
            return False
        if self._mean is not None:
            self._mean *= _FADE
            self._deviation *= _FADE
        return True

    def learn(self, seconds: float) -> None:
        """A frame took this long."""
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
            return
        error = seconds - self._mean
        self._mean += _MEAN * error
        self._deviation += _SPREAD * (abs(error) - self._deviation)
