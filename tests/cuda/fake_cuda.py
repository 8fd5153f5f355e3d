"""A CUDA device of host memory that is as asynchronous as a real one is allowed to be.

Nothing happens when it is queued; it happens at the latest moment CUDA allows: when somebody
synchronises, in the order of the streams, and events hold streams back. What a real device
would let pass and corrupt is an error here (`RaceError`): reading, refilling or freeing a buffer
that queued work still uses, and two streams on one buffer without an event between them.

    cuda = FakeCuda()
    cuda.fail_work(7)                the 7th piece of work fails when the device gets to it
    cuda.fail_call("cuMemAlloc", 2)  the 2nd such call fails at once
    cuda.alive                       what was made and not freed
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from fake_parts import (
    FakeDevice,
    FakeEvent,
    FakeGraph,
    FakePinned,
    FakeStream,
    RaceError,
    Work,
)

from ndp_edge.cuda.base import (
    CannotCaptureError,
    Cuda,
    CudaError,
    DeviceBuffer,
    Event,
    Graph,
    PinnedBuffer,
    Stream,
)

INVALID_CONTEXT, ILLEGAL_ADDRESS, CAPTURING = 201, 700, 900
_addresses = itertools.count(0x7F0000000000, 1 << 30)


class FakeCuda(Cuda):
    """See the module. `graphs=False` is a package without graphs, as pycuda is."""

    name = "fake"

    def __init__(self, *, sm: int = 87, graphs: bool = True) -> None:
        super().__init__()
        self.sm = sm
        self.no_graphs = None if graphs else "this fake has no graphs"
        self.alive: Counter[str] = Counter()
        self.made = 0
        self.calls: Counter[str] = Counter()
        self.graph_launches = 0
        self.capturing: tuple[FakeStream, list[Work]] | None = None
        self.log: list[str] = []
        self.released = 0
        self.dead: CudaError | None = None
        self._stacks = threading.local()
        self._fail_calls: dict[tuple[str, int], int] = {}
        self._fail_work: dict[int, bool] = {}
        self._memory: dict[int, FakeDevice] = {}
        self._streams: list[FakeStream] = []

    # --- what tests ask for ---

    def fail_call(self, call: str, nth: int = 1, code: int = 2) -> None:
        """The nth call of this name from now on fails at once."""
        self._fail_calls[call, self.calls[call] + nth] = code

    def fail_work(self, nth: int = 1, *, sticky: bool = False) -> None:
        """The nth piece of work done from now on fails; sticky: and every call after it."""
        self._fail_work[len(self.log) + nth] = sticky

    @property
    def depth(self) -> int:
        """How often the context is pushed on this thread."""
        return getattr(self._stacks, "depth", 0)

    @property
    def busy(self) -> bool:
        """Whether some stream has work that was not done."""
        return any(s.reached < len(s.queue) for s in self._streams)

    def memory_at(self, address: int) -> FakeDevice:
        """The device buffer at an address, which must be alive."""
        if address not in self._memory or self._memory[address]._freed:
            raise RaceError(f"no live device buffer at {address:#x}")
        return self._memory[address]

    def stream_at(self, handle: int) -> FakeStream:
        """The stream with a handle, which must be alive."""
        found = next((s for s in self._streams if s.handle == handle and not s._freed), None)
        if found is None:
            raise RaceError(f"no live stream {handle:#x}")
        return found

    # --- the device ---

    def called(self, call: str, *, in_graph: bool = True) -> None:
        """Every call comes through here: the context, planned failures, a capture under way."""
        self.calls[call] += 1
        if self.depth == 0:
            raise CudaError(call, INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT")
        if self.dead is not None:
            raise CudaError(call, self.dead.code, "CUDA_ERROR_ILLEGAL_ADDRESS")
        code = self._fail_calls.get((call, self.calls[call]))
        if code is not None:
            raise CudaError(call, code, "planned by the test")
        if self.capturing is not None and not in_graph:
            raise CudaError(call, CAPTURING, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def execute(self, work: Work) -> None:
        """Do one piece of work, or fail as planned."""
        work.done = True
        self.log.append(work.name)
        if self.dead is not None:
            raise self.dead
        sticky = self._fail_work.get(len(self.log))
        if sticky is None:
            work.do()
            return
        error = CudaError(work.name, ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS")
        self.dead = error if sticky else None
        raise error

    # --- Cuda ---

    def wait(self, stream: Stream, event: Event) -> None:
        assert isinstance(stream, FakeStream) and isinstance(event, FakeEvent)
        self.called("cuStreamWaitEvent")
        if event.mark is not None:
            stream.queue.append(event.mark)
            for number, seen in event.mark.clock.items():
                stream.clock[number] = max(stream.clock.get(number, 0), seen)

    def describe(self) -> dict[str, Any]:
        return {
            "package": "fake", "version": "0", "driver": "12.6", "device": "Fake GPU",
            "sm": self.sm, "memory": 1 << 33,
        }  # fmt: skip

    def _push(self) -> None:
        self._stacks.depth = self.depth + 1

    def _pop(self) -> None:
        assert self.depth > 0
        self._stacks.depth = self.depth - 1

    def _make(self, made: Any, call: str) -> Any:
        self.called(call, in_graph=False)
        self.alive[made.kind] += 1
        self.made += 1
        return made

    def _pinned(self, nbytes: int) -> PinnedBuffer:
        made: FakePinned = self._make(FakePinned(self), "cuMemHostAlloc")
        made.nbytes = nbytes
        made.lay(self, nbytes)
        return made

    def _device(self, nbytes: int) -> DeviceBuffer:
        made: FakeDevice = self._make(FakeDevice(self), "cuMemAlloc")
        made.nbytes, made.address = nbytes, next(_addresses)
        made.lay(self, nbytes)
        self._memory[made.address] = made
        return made

    def _stream(self) -> Stream:
        made: FakeStream = self._make(FakeStream(self), "cuStreamCreate")
        made.start(self, len(self._streams))
        self._streams.append(made)
        return made

    def _event(self) -> Event:
        made: FakeEvent = self._make(FakeEvent(self), "cuEventCreate")
        return made

    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        assert isinstance(stream, FakeStream)
        works: list[Work] = []
        self.capturing = (stream, works)
        try:
            work()
        except CudaError as error:
            raise CannotCaptureError(f"the graph could not be captured: {error}") from error
        finally:
            self.capturing = None
        made: FakeGraph = self._make(FakeGraph(self), "cuGraphInstantiate")
        made.hold(works)
        return made

    def _copy_in(self, to: DeviceBuffer, source: PinnedBuffer, n: int, stream: Stream) -> None:
        self._copy("cuMemcpyHtoDAsync", to, source, n, stream)

    def _copy_out(self, to: PinnedBuffer, source: DeviceBuffer, n: int, stream: Stream) -> None:
        self._copy("cuMemcpyDtoHAsync", to, source, n, stream)

    def _copy(self, name: str, to: Any, source: Any, nbytes: int, stream: Stream) -> None:
        assert isinstance(stream, FakeStream)
        self.called(name)

        def do() -> None:
            to.bytes[:nbytes] = source.bytes[:nbytes]

        stream.add(Work(name, do, (source,), (to,)))

    def _release(self) -> None:
        self.released += 1
