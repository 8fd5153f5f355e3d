"""How long work takes on the GPU: events around replays of a CUDA graph.

A graph holds one call per input set, so that the sets take turns and what a call reads is not
what the call before left in the cache. The figure is the median over the replays, per call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")

Calls = Sequence[Callable[[], object]]

REPLAYS = 20

WARM_UP = 0.1
"""Seconds of the same work before the clock counts: an idle GPU runs slower at first."""


class Timer(Protocol):
    """Microseconds per call; None where nothing was measured."""

    def graph(self, calls: Calls) -> float | None:
        """Captured once, replayed."""

    def eager(self, calls: Calls) -> float | None:
        """Launched from Python each time."""


class NoTimer:
    """The dry run's: every call is made once, and no time is written down."""

    def graph(self, calls: Calls) -> float | None:
        """Runs the first call; the others differ in their data only."""
        calls[0]()
        return None

    eager = graph


def side_stream() -> torch.cuda.Stream:
    """A stream that is not the default one."""
    stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    return stream


def captured(
    work: Callable[[], T], warm_up: Callable[[], object]
) -> tuple[torch.cuda.CUDAGraph, T]:
    """`work` in a CUDA graph, and what it returned: each replay writes there.

    `warm_up` runs twice before, on a side stream as capture wants it: what compiles, loads or
    chooses at its first call must have done so.
    """
    side = side_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            warm_up()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result


class CudaTimer:
    """The real one."""

    def graph(self, calls: Calls) -> float | None:
        """One graph of all calls; they differ in their data only, so the first warms up."""
        graph, _ = captured(lambda: _all(calls), calls[0])
        return self._median(graph.replay, len(calls))

    def eager(self, calls: Calls) -> float | None:
        """The clock runs from the first launch to the end of the last kernel."""
        return self._median(lambda: _all(calls), len(calls))

    @staticmethod
    def _median(work: Callable[[], object], calls: int) -> float:
        began = time.monotonic()
        while time.monotonic() - began < WARM_UP:
            work()
            torch.cuda.synchronize()
        times = []
        for _ in range(REPLAYS):
            begin, end = _event(), _event()
            torch.cuda.synchronize()
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(1e3 * float(begin.elapsed_time(end)))
        return statistics.median(times) / calls


def _all(calls: Calls) -> None:
    for call in calls:
        call()


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


class Attempts:
    """Times that may fail one by one: a version of torch's that cannot be captured, say."""

    def __init__(self, timer: Timer) -> None:
        self.timer = timer
        self.failures: list[str] = []

    def graph(self, name: str, calls: Calls | None) -> float | None:
        """Microseconds in a graph; None for no calls, no time, or a failure (which is kept)."""
        return self._try(name, self.timer.graph, calls)

    def eager(self, name: str, calls: Calls) -> float | None:
        """The same, launched from Python."""
        return self._try(name, self.timer.eager, calls)

    def report(self) -> dict[str, list[str]]:
        """The failures for a row, or nothing."""
        return {"failures": self.failures} if self.failures else {}

    def _try(
        self, name: str, measure: Callable[[Calls], float | None], calls: Calls | None
    ) -> float | None:
        if not calls:
            return None
        try:
            return measure(calls)
        except Exception as error:
            # Whatever is lacking for one contender (a compiler, Triton), the others still count.
            first = (str(error).strip().splitlines() or [""])[0]
            self.failures.append(f"{name}: {type(error).__name__}: {first}"[:300])
            return None


def copy_rate(timer: Timer, device: torch.device, mib: int) -> float | None:
    """Bytes read and written per microsecond by torch's own copy of `mib` MiB."""
    source, target = (torch.zeros(mib << 20, dtype=torch.uint8, device=device) for _ in range(2))
    taken = timer.graph([lambda: target.copy_(source)] * 4)
    return None if taken is None else 2 * (mib << 20) / taken


def matmul_rate(timer: Timer, device: torch.device, size: int) -> float | None:
    """FP16 operations per microsecond of a square matrix product with random numbers."""
    a, b = (torch.randn(size, size, device=device).half() for _ in range(2))
    out = torch.empty_like(a)
    taken = timer.graph([lambda: torch.mm(a, b, out=out)] * 4)
    return None if taken is None else 2 * size**3 / taken
