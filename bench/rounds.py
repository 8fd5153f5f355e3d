"""Everything that is compared takes turns in one process, round after round.

A round visits every row once, forwards and then backwards in turn. A visit begins with one
call that nobody times (the caches fill, the threads of the one before fall asleep), then
calls of the row alternate with calls of the reference work. What slows the machine for a
second slows both neighbours, so that their ratio stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.bench.sensors import Condition, Meter, Queue, Sensors
from ndp_edge.errors import InputError
from ndp_edge.image import to_square
from ndp_edge.postprocess import find_defects, smooth_max

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]

STAGES = ("prepare", "infer", "judge")
"""What a frame goes through: area averaging to the net's size, the engine, then median,
maximum and defect regions."""

WARM_UP = 3
"""Calls of each row before the first round."""


@dataclass
class Row:
    """One engine at one batch size, and its times.

    Attributes:
        name: what it is called in tables and on the command line ("openvino-int8").
        batch: frames per call.
        infer: uint8 [batch, S, S, 3] to float32 [batch, S, S].
        about: what distinguishes its figures: backend, precision, device, threads, versions.
        times: milliseconds per call under "prepare", "infer", "judge" and "total".
        rounds: one dict a round: ms (median total), reference_ms (median), ratio (of the two,
            geometric mean over the calls: on a noisy machine it varies less than the median),
            cpu_ratio (the same of the processor time that all threads took), waited (the
            share of the threads' time in which others had the cores; absent: not told).
        joules: energy of all timed calls, None where the device does not tell.
        most: timed calls in each round, at most; None: as many as the run asks for.
    """

    name: str
    batch: int
    infer: Callable[[Images], Maps]
    about: dict[str, Any]
    times: dict[str, list[float]] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    joules: float | None = None
    most: int | None = None

    @property
    def label(self) -> str:
        """The name, with the batch where it is not 1."""
        return self.name if self.batch == 1 else f"{self.name} x{self.batch}"


@dataclass(frozen=True)
class Frames:
    """What every row is given.

    Attributes:
        images: decoded frames, uint8 [N, H, H, 3] with H at least `size`.
        size: the net's side in pixels.
        threshold: reject above it; only where the defects' regions are, time hangs on it.
    """

    images: Images
    size: int
    threshold: float

    def batch(self, start: int, count: int) -> Images:
        """`count` frames from the `start`th on, over and over."""
        return self.images[np.arange(start, start + count) % len(self.images)]

    def square(self, start: int, count: int) -> Images:
        """The same at the net's size."""
        return np.stack([to_square(frame, self.size) for frame in self.batch(start, count)])


class Run:
    """The rows of one run, and what they share.

    Args:
        rows: at least one.
        reference: work that is not ours, see `reference_work`.
        frames: what the rows are given.
        sensors: what the device tells of itself.

    Raises:
        InputError: no row.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        reference: Callable[[], None],
        frames: Frames,
        sensors: Sensors,
    ) -> None:
        if not rows:
            raise InputError("nothing to time: no engine is left")
        self.rows = list(rows)
        self.frames = frames
        self.looks: list[Condition] = []
        self._reference = reference
        self._sensors = sensors
        self._queue = Queue()
        self._done = 0
        self._next = 0.0

    def warm_up(self) -> None:
        """WARM_UP untimed calls of each row and of the reference work; one of a row with `most`."""
        for turn in range(WARM_UP):
            self._reference()
            for row in self.rows:
                if turn == 0 or row.most is None:
                    self.call(row, 0)

    def measure(self, rounds: Iterable[int], runs: int, every: float = 0.0) -> None:
        """One round for each of `rounds` (a range, perhaps behind a progress bar).

        Args:
            runs: timed calls of each row in each round, at least 1.
            every: seconds from the beginning of a round to that of the next, at least: a shared
                machine has moods of half a minute, and a run must see more than one.
        """
        for _ in rounds:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + every
            forwards = self._done % 2 == 0
            for row in self.rows if forwards else reversed(self.rows):
                self._visit(row, runs)
            self.looks.append(self._sensors.condition())
            self._done += 1

    def call(self, row: Row, start: int) -> dict[str, float]:
        """One batch from decoded frames to verdicts; milliseconds per stage and "total"."""
        threshold = self.frames.threshold
        began = time.perf_counter()
        images = self.frames.square(start, row.batch)
        prepared = time.perf_counter()
        maps = row.infer(images)
        inferred = time.perf_counter()
        smoothed, _ = smooth_max(maps)
        for one in smoothed:
            find_defects(one, threshold)
        judged = time.perf_counter()
        marks = (began, prepared, inferred, judged)
        times = {s: 1e3 * (b - a) for s, a, b in zip(STAGES, marks, marks[1:], strict=False)}
        return times | {"total": 1e3 * (judged - began)}

    def _visit(self, row: Row, runs: int) -> None:
        self._reference()
        self.call(row, 0)
        self._queue.waited()
        totals, references, work, reference_work = [], [], [], []
        for i in range(min(runs, row.most or runs)):
            wall, cpu = self._time_reference()
            references.append(wall)
            reference_work.append(cpu)
            before = _joules(self._sensors.meter)
            began = time.process_time()
            times = self.call(row, self._done + i)
            work.append(1e3 * (time.process_time() - began))
            after = _joules(self._sensors.meter)
            if before is not None and after is not None:
                row.joules = (row.joules or 0.0) + after - before
            for stage, ms in times.items():
                row.times.setdefault(stage, []).append(ms)
            totals.append(times["total"])
        waited = self._queue.waited()
        row.rounds.append(
            {
                "ms": median(totals),
                "reference_ms": median(references),
                "ratio": _ratio(totals, references),
                "cpu_ratio": _ratio(work, reference_work),
            }
            | ({} if waited is None else {"waited": waited})
        )

    def _time_reference(self) -> tuple[float, float]:
        """Milliseconds by the clock and of processor time."""
        began, worked = time.perf_counter(), time.process_time()
        self._reference()
        wall, cpu = time.perf_counter() - began, time.process_time() - worked
        return 1e3 * wall, 1e3 * cpu


def _ratio(above: list[float], below: list[float]) -> float:
    """Geometric mean of the pairwise ratios; a clock too coarse to see the work counts as one
    microsecond."""
    a, b = (np.log(np.maximum(values, 1e-3)) for values in (above, below))
    return float(np.exp(np.mean(a - b)))


def _joules(meter: Meter | None) -> float | None:
    return meter.joules() if meter is not None else None
