"""The fake's parts: queued work, memory that knows who uses it, streams, events, graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.cuda.base import (
    CudaError,
    DeviceBuffer,
    Event,
    Graph,
    PinnedBuffer,
    Resource,
    Stream,
)

POISON = 0xDB
"""What fresh memory holds."""


class RaceError(AssertionError):
    """A bug in the code under test that a real device would not have reported."""


@dataclass
class Work:
    """One piece of queued work: what it does, and the buffers it uses."""

    name: str
    do: Callable[[], None]
    reads: tuple[Memory, ...] = ()
    writes: tuple[Memory, ...] = ()
    done: bool = False
    clock: dict[int, int] = field(default_factory=dict)


@dataclass
class Mark:
    """An event recorded in a stream, or a stream's wait for one; behind what, by `clock`."""

    stream: FakeStream
    position: int
    clock: dict[int, int]


class Memory:
    """What pinned and device buffers share: bytes, and the queued work that uses them."""

    cuda: Any
    bytes: NDArray[np.uint8]
    users: list[tuple[FakeStream, Work]]

    def lay(self, cuda: Any, nbytes: int) -> None:
        self.cuda = cuda
        self.bytes = np.full(nbytes, POISON, np.uint8)
        self.users = []

    def must_be_idle(self, what: str) -> None:
        self.users = [(s, w) for s, w in self.users if not w.done]
        if self.users:
            names = ", ".join(work.name for _, work in self.users)
            raise RaceError(f"{what} of a buffer in flight: {names} not done")

    def use(self, stream: FakeStream, work: Work) -> None:
        """Refuse work on this buffer that another stream's work may overtake."""
        self.users = [(s, w) for s, w in self.users if not w.done]
        for other, earlier in self.users:
            ordered = other is stream or (
                earlier.clock[other.number] <= work.clock.get(other.number, 0)
            )
            if not ordered and (self in work.writes or self in earlier.writes):
                raise RaceError(f"{work.name} and {earlier.name} race on one buffer")
        self.users.append((stream, work))


class _Counted(Resource):
    kind: str

    def _free(self) -> None:
        cuda: Any = self._cuda
        cuda.called(f"free {self.kind}")
        if isinstance(self, Memory):
            self.must_be_idle("free")
        cuda.alive[self.kind] -= 1


class FakePinned(_Counted, PinnedBuffer, Memory):
    kind = "pinned"

    @property
    def array(self) -> NDArray[np.uint8]:
        if self._freed:
            raise RaceError("use of a pinned buffer that was freed")
        self.must_be_idle("use")
        return self.bytes


class FakeDevice(_Counted, DeviceBuffer, Memory):
    kind = "device"


class FakeStream(_Counted, Stream):
    kind = "stream"

    def start(self, cuda: Any, number: int) -> None:
        self.fake, self.number, self.handle = cuda, number, 0x5000 + number
        self.queue: list[Work | Mark] = []
        self.reached = 0
        self.clock: dict[int, int] = {}

    def add(self, work: Work) -> None:
        if self.fake.capturing is not None and self.fake.capturing[0] is self:
            self.fake.capturing[1].append(work)
            return
        self.clock[self.number] = len(self.queue) + 1
        work.clock = dict(self.clock)
        for buffer in (*work.reads, *work.writes):
            buffer.use(self, work)
        self.queue.append(work)

    def run(self, until: int) -> None:
        """Do what is queued up to a position; after a failure the rest is dropped, as on a card."""
        while self.reached < until:
            entry = self.queue[self.reached]
            self.reached += 1
            if isinstance(entry, Mark):
                entry.stream.run(entry.position)
                continue
            try:
                self.fake.execute(entry)
            except CudaError:
                for dropped in self.queue[self.reached :]:
                    if isinstance(dropped, Work):
                        dropped.done = True
                self.reached = len(self.queue)
                raise

    def synchronize(self) -> None:
        self.fake.called("cuStreamSynchronize", in_graph=False)
        self.run(len(self.queue))


class FakeEvent(_Counted, Event):
    kind = "event"
    mark: Mark | None = None

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, FakeStream)
        stream.fake.called("cuEventRecord")
        self.mark = Mark(stream, len(stream.queue), dict(stream.clock))

    def synchronize(self) -> None:
        cuda: Any = self._cuda
        cuda.called("cuEventSynchronize", in_graph=False)
        if self.mark is not None:
            self.mark.stream.run(self.mark.position)

    def elapsed_ms(self, other: Event) -> float:
        assert isinstance(other, FakeEvent)
        for event in (self, other):
            if event.mark is None or event.mark.stream.reached < event.mark.position:
                raise RaceError("time between events that were not both reached")
        return 1.0


class FakeGraph(_Counted, Graph):
    kind = "graph"

    def hold(self, works: list[Work]) -> None:
        self.works = works

    def launch(self, stream: Stream) -> None:
        assert isinstance(stream, FakeStream)
        stream.fake.called("cuGraphLaunch")
        stream.fake.graph_launches += 1
        for work in self.works:
            stream.add(Work(work.name, work.do, work.reads, work.writes))
