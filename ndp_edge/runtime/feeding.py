"""The stage that reads the source, and what it does when the stages behind it are busy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

from ndp_edge.runtime.channel import Channel, ClosedError
from ndp_edge.runtime.sources import Captured, Source
from ndp_edge.runtime.work import Dropped, Work

DropPolicy = Literal["block", "oldest"]
DROPS: tuple[DropPolicy, ...] = ("block", "oldest")

MOST_DROPPED = 1000
"""Drops that may wait to be written down. Behind that many reading stops, so that even a disk
that hangs makes the line neither grow nor forget."""


class Feeder:
    """Reads into `waiting`.

    Args:
        source: its `live` (default False) says whether frames that are left are lost.
        queue: capacity of `waiting`.
        drop: "block" or "oldest", when it is full.
        stopping: once true, nothing more is read.
    """

    def __init__(
        self, source: Source, queue: int, drop: DropPolicy, stopping: Callable[[], bool]
    ) -> None:
        self.live = bool(getattr(source, "live", False))
        self.waiting: Channel[Work] = Channel(queue)
        self.failure: Exception | None = None
        self._source = source
        self._drop = drop
        self._stopping = stopping
        self._dropped: deque[Dropped] = deque()

    def read(self) -> None:
        """The stage: until the source ends, fails or `stop`."""
        try:
            for captured in self._source:
                self._hand_on(captured)
                if self._stopping():
                    return
        except ClosedError:
            raise
        except Exception as error:  # the source gave up; what it gave before is still judged
            self.failure = error

    def stop(self) -> None:
        """Give up what waits."""
        for work in self.waiting.discard():
            self._give_up(work, "stopped")

    def take_dropped(self) -> Iterator[Dropped]:
        """The drops since the last call, oldest first."""
        while self._dropped:
            yield self._dropped.popleft()

    def _hand_on(self, captured: Captured) -> None:
        work = Work.begin(captured)
        try:
            if self._drop == "block":
                self.waiting.put(work)
                return
            while len(self._dropped) >= MOST_DROPPED and not self._stopping():
                time.sleep(0.01)
            oldest = self.waiting.force(work)
        except ClosedError:
            self._give_up(work, "stopped")
            raise
        if oldest is not None:
            self._give_up(oldest, "queue full")

    def _give_up(self, work: Work, why: str) -> None:
        # What a folder still holds is not lost by stopping: a later run reads it again.
        if why != "stopped" or self.live:
            self._dropped.append(Dropped(work.name, work.captured.time, why))
