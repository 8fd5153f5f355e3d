"""The last stage: every frame's pictures, its line, and a word to those who watch."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ndp_edge.console import info
from ndp_edge.runtime.linelog import SYNC_SECONDS, LineLog
from ndp_edge.runtime.observing import Control, Observer, Seen
from ndp_edge.runtime.sinks import DROPS, RESULTS, PictureSink, to_line
from ndp_edge.runtime.summary import Summary
from ndp_edge.runtime.work import Dropped, Work

GAUGE_SECONDS = 1.0


class Writer:
    """Writes what a `Pipeline` yields; a context manager, for one thread.

    The line comes last, so that a line in the log means that its pictures are there.

    Args:
        out: the run's folder.
        pictures: the frames' files.
        control: what was done to its threshold goes into the log.
        summary: counts what is written, and nothing else.
        gauges: asked about once a second, for the observers.
        observers: told after the line is written; one that raises is left out from then on.
        deadline_ms: a line later than this after the capture says so ("late").
        sync_seconds: how long a line may stay in the system's memory only.
    """

    def __init__(
        self,
        out: Path,
        pictures: PictureSink,
        control: Control,
        summary: Summary,
        *,
        gauges: Callable[[], Mapping[str, float]] = dict,
        observers: Iterable[Observer] = (),
        deadline_ms: float | None = None,
        sync_seconds: float = SYNC_SECONDS,
    ) -> None:
        self._pictures = pictures
        self._control = control
        self._summary = summary
        self._gauges = gauges
        self._observers = list(observers)
        self._deadline = deadline_ms
        self._files = contextlib.ExitStack()
        self._results = self._files.enter_context(LineLog(out / RESULTS, sync_seconds))
        self._drops_path, self._sync_seconds = out / DROPS, sync_seconds
        self._drops: LineLog | None = None
        self._gauged = 0.0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._audit(self._control.read()[1])
                self._files.close()
            else:  # on a full disk the flush fails too, and must not hide what came first
                with contextlib.suppress(OSError):
                    self._files.close()
        finally:
            for observer in list(self._observers):
                self._tell(observer, observer.close)

    def write(self, item: Work | Dropped | None) -> None:
        """Write one item; None is an idle turn.

        Raises:
            OSError: the disk is full or gone; what was written before is whole.
        """
        if isinstance(item, Work):
            self._verdict(item)
        elif item is not None:
            self._dropped(item)
        self._results.sync()
        if self._drops is not None:
            self._drops.sync()
        now = time.monotonic()
        if self._observers and now - self._gauged >= GAUGE_SECONDS:
            self._gauged = now
            values = self._gauges()
            for observer in list(self._observers):
                self._tell(observer, observer.gauges, values)

    def give_up(self, item: Work | Dropped | None) -> None:
        """Count a frame that cannot be written because the disk failed; say so if it can."""
        if item is None:
            return
        name, stamp = (
            (item.name, item.captured.time) if isinstance(item, Work) else (item.name, item.time)
        )
        try:
            self._dropped(Dropped(name, stamp, "disk"))
        except OSError:
            self._summary.drop("disk")

    def _verdict(self, work: Work) -> None:
        result, frame, smoothed = work.result, work.captured.frame, work.smoothed
        assert result is not None
        self._audit(work.audit)
        began = time.perf_counter()
        if frame is not None and smoothed is not None:
            self._pictures.write(work.name, frame.image, smoothed, result)
        now = time.perf_counter()
        total = 1e3 * (now - work.began)
        times = {**result.latency_ms, "write": 1e3 * (now - began), "total": total}
        line = to_line(dataclasses.replace(result, latency_ms=times))
        if work.scores:
            line["tiles"] = tiles(work)
        if self._deadline is not None and total > self._deadline:
            line["late"] = True
        self._results.append(line)
        self._summary.add(line)
        if self._observers:
            kept = None
            if smoothed is not None and any(observer.pictures for observer in self._observers):
                kept = smoothed.copy()
            seen = Seen(line, None if frame is None else frame.image, kept)
            for observer in list(self._observers):
                self._tell(observer, observer.verdict, seen)

    def _dropped(self, drop: Dropped) -> None:
        if self._drops is None:  # a run without drops has no such file
            log = LineLog(self._drops_path, self._sync_seconds)
            self._drops = self._files.enter_context(log)
        self._drops.append({"frame": drop.name, "time": round(drop.time, 6), "why": drop.why})
        self._summary.drop(drop.why)
        for observer in list(self._observers):
            self._tell(observer, observer.dropped, drop.name, drop.time, drop.why)

    def _audit(self, entries: Iterable[dict[str, Any]]) -> None:
        for entry in entries:
            self._results.append(entry)
            self._summary.add(entry)

    def _tell(self, observer: Observer, method: Callable[..., None], *words: object) -> None:
        try:
            method(*words)
        except Exception as error:  # whoever watches must not stop the line
            self._observers.remove(observer)
            name = type(observer).__name__
            info(f"warning: {name} failed and is left out from now on: {error!r}")


def tiles(work: Work) -> list[dict[str, Any]]:
    """A verdict per tile: box in the frame, the highest value in it, above the threshold?"""
    result, plan, slot = work.result, work.plan, work.slot
    if result is None or plan is None or plan.origins is None or slot is None:
        return []
    size = slot.maps.shape[1]
    height, width = plan.shape
    return [
        {
            "box": [x, y, min(size, width - x), min(size, height - y)],
            "score": score,
            "verdict": "reject" if score > result.threshold else "ok",
        }
        for (y, x), score in zip(plan.origins, work.scores, strict=True)
    ]
