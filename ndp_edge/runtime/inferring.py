"""The stage that owns the engine: several requests under way, frames in their order."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ndp_edge.engines.base import Engine
from ndp_edge.errors import NdpError
from ndp_edge.runtime.channel import Channel, ClosedError
from ndp_edge.runtime.patience import Patience
from ndp_edge.runtime.work import Work

_LOOK = 0.002
"""Seconds between looks at the engine while one of its lanes is idle."""


@dataclass(frozen=True)
class _Request:
    """Tiles [first, first + count) of a frame; the ticket is None where nothing was asked."""

    ticket: int | None
    work: Work
    first: int
    count: int
    last: bool


class Inferring:
    """Takes frames from `before`, fills the maps in their slots, hands them to `after`.

    Args:
        engine: touched by the thread that calls `run`, and by no other.
        in_flight: requests under way at once, at least 1.
        patience: a frame that it calls hopeless is given up unasked.
        stopping: once true, frames that the engine has not begun are given up.
    """

    def __init__(
        self,
        engine: Engine,
        in_flight: int,
        before: Channel[Work],
        after: Channel[Work],
        patience: Patience,
        stopping: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._in_flight = in_flight
        self._before = before
        self._after = after
        self._patience = patience
        self._stopping = stopping
        self._under_way: deque[_Request] = deque()

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._under_way)

    def run(self) -> None:
        """The stage, until `before` is closed and empty and everything is handed on."""
        try:
            while True:
                work = self._next()
                if work is not None:
                    self._start(work)
                else:
                    self._land()
        except ClosedError:
            pass
        while self._under_way:  # where nobody takes them any more, they are collected all the same
            with contextlib.suppress(ClosedError):
                self._land()

    def _next(self) -> Work | None:
        """The next frame; None when the oldest request had better be collected first."""
        while self._under_way:
            head = self._under_way[0]
            full = len(self._under_way) >= self._in_flight
            if full or head.ticket is None or self._engine.done(head.ticket):
                # A frame that waits already goes first, where there is room for it.
                return None if full else self._before.get(0)
            work = self._before.get(_LOOK)
            if work is not None:
                return work
        return self._before.get()

    def _start(self, work: Work) -> None:
        work.taken = time.perf_counter()
        work.times["wait"] = work.times.get("wait", 0.0) + 1e3 * (work.taken - work.since)
        if not work.lost:
            if self._stopping():
                work.dropped = "stopped"
            elif self._patience.hopeless(work.began):
                work.dropped = "deadline"
        if work.lost:
            self._under_way.append(_Request(None, work, 0, 0, True))
            return
        assert work.tiles is not None
        total, batch = len(work.tiles), self._engine.batch
        for first in range(0, total, batch):
            while len(self._under_way) >= self._in_flight:
                self._land()
            images = work.tiles[first : first + batch]
            last = first + batch >= total
            try:
                ticket = self._engine.submit(images)
            except NdpError as error:
                work.error = str(error)
                self._under_way.append(_Request(None, work, first, 0, True))
                return
            self._under_way.append(_Request(ticket, work, first, len(images), last))

    def _land(self) -> None:
        """Collect the oldest request; hand its frame on when that was the last of it."""
        request = self._under_way[0]
        work = request.work
        try:
            if request.ticket is not None:
                assert work.slot is not None
                out = work.slot.maps[request.first : request.first + request.count]
                self._engine.collect(request.ticket, out)
        except NdpError as error:
            work.error = work.error or str(error)
        self._under_way.popleft()
        if request.last:
            if not work.lost:
                work.times["infer"] = 1e3 * (time.perf_counter() - work.taken)
            work.tiles = None
            self._after.put(work)
