"""Frames through read, tile, infer and judge at once, in order, with bounded memory.

Each stage is a thread; bounded channels join them, and the caller is the last stage: it
iterates and gets every frame back exactly once, judged or dropped. The engine's stage alone
touches the engine and keeps several requests under way. A frame borrows its buffers from
`Slots`, so that in steady state nothing large is allocated but what the source hands over.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

from ndp_edge.engines.base import Engine
from ndp_edge.runtime.channel import Channel, ClosedError
from ndp_edge.runtime.cutting import cut
from ndp_edge.runtime.engine import requests
from ndp_edge.runtime.feeding import DropPolicy, Feeder
from ndp_edge.runtime.inferring import Inferring
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.layout import Layout, Plan
from ndp_edge.runtime.patience import Patience
from ndp_edge.runtime.sources import Source
from ndp_edge.runtime.work import Dropped, Slot, Slots, Work

QUEUE = 4

_TICK = 0.1
"""Seconds after which the caller gets a turn though no frame came."""

_GRACE = 2.0
"""Seconds that a source stuck in a read is given when the run ends."""

_OUTSIDE = 3
"""Frames with buffers that are not in the engine: one cut, one judged, one written."""


class Pipeline:
    """A context manager to iterate once: `Work` (judged), `Dropped`, or None for an idle turn.

    A `Work` and the arrays in it are valid until the next one is asked for.

    Args:
        engine: used by a thread of the pipeline until the `with` block ends.
        source: read by a thread of the pipeline; closed with it where it has a `close`.
        layout: frames to tiles and back.
        judge: maps to verdicts.
        in_flight: requests that the engine is given at once; None takes what keeps it busy.
        queue: frames that may wait between the source and the tiling.
        drop: what happens when that queue is full: "block" lets the source wait, "oldest"
            gives up the frame that has waited for longest.
        deadline_ms: with "oldest", a frame that cannot have its verdict this many milliseconds
            after its capture is given up before it costs the engine time.
        stop: looked at between frames; once true, the same as `stop()`.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        layout: Layout,
        judge: Judge,
        *,
        in_flight: int | None = None,
        queue: int = QUEUE,
        drop: DropPolicy = "block",
        deadline_ms: float | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.in_flight = requests(engine, in_flight)
        self._batch = engine.batch
        self._source = source
        self._layout = layout
        self._judge = judge
        self._asked = stop
        self._stopped = False
        self._failure: BaseException | None = None
        self._slots = Slots()
        self._patience = Patience(deadline_ms if drop == "oldest" else None)
        self._feeder = Feeder(source, queue, drop, self._stopping)
        self._tiled: Channel[Work] = Channel(1)
        self._inferred: Channel[Work] = Channel(2)
        self._judged: Channel[Work] = Channel(2)
        self._engine = Inferring(
            engine, self.in_flight, self._tiled, self._inferred, self._patience, self._stopping
        )
        self._threads = [
            self._thread("read", self._feeder.read, self._feeder.waiting),
            self._thread("tile", self._tile, self._tiled),
            self._thread("infer", self._engine.run, self._inferred),
            self._thread("judge", self._judge_all, self._judged),
        ]

    @property
    def live(self) -> bool:
        """The source's frames cannot be read again."""
        return self._feeder.live

    def __enter__(self) -> Pipeline:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._abandon()
        reader, *others = self._threads
        for thread in others:  # the engine may be closed behind us: nobody uses it any more
            thread.join()
        reader.join(_GRACE)

    def stop(self) -> None:
        """Read no more; what the engine has begun is finished, what waits is given up.

        Frames of a live source that were given up come out as `Dropped`; others are simply
        left, for a later run to read again.
        """
        self._stopped = True
        self._feeder.stop()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def gauges(self) -> dict[str, float]:
        """Frames waiting between the stages and under way, and how often the source came back."""
        return {
            "waiting": len(self._feeder.waiting),
            "tiled": len(self._tiled),
            "inferred": len(self._inferred),
            "judged": len(self._judged),
            "requests": len(self._engine),
            "frames_in_flight": len(self._slots),
            "reconnects": float(getattr(self._source, "reconnects", 0)),
        }

    def __iter__(self) -> Iterator[Work | Dropped | None]:
        """Yield until the source ends, `stop` was called, or a stage fails.

        Raises:
            Exception: what the source raised, after every frame before that has come out; or
                what another stage raised, and then frames under way are lost.
        """
        while True:
            if self._asked() and not self._stopped:
                self.stop()
            yield from self._feeder.take_dropped()
            try:
                work = self._judged.get(_TICK)
            except ClosedError:
                break
            if work is None:
                yield None
                continue
            if work.dropped is None:
                yield work
                if work.error is None:
                    self._patience.learn(time.perf_counter() - work.taken)
            elif work.dropped != "stopped" or self._feeder.live:
                yield Dropped(work.name, work.captured.time, work.dropped)
            self._free(work)
        if self._failure is not None:
            raise self._failure
        if self._stopping():  # a read under way may still hand over its frame
            self._threads[0].join(_GRACE)
        yield from self._feeder.take_dropped()
        if self._feeder.failure is not None:
            raise self._feeder.failure

    def _thread(
        self, name: str, stage: Callable[[], None], after: Channel[Work]
    ) -> threading.Thread:
        def body() -> None:
            try:
                stage()
            except ClosedError:
                pass
            except BaseException as error:
                self._failure = self._failure or error
                self._abandon()
            finally:
                after.close()

        return threading.Thread(target=body, name=f"ndp-edge {name}", daemon=True)

    def _stopping(self) -> bool:
        return self._stopped or self._asked()

    def _abandon(self) -> None:
        """Let every stage end now; what is under way is lost."""
        for channel in (self._feeder.waiting, self._tiled, self._inferred, self._judged):
            channel.discard()
        self._slots.close()

    def _free(self, work: Work) -> None:
        slot, work.slot, work.smoothed = work.slot, None, None
        if slot is not None:
            self._slots.give_back(slot)

    def _tile(self) -> None:
        while True:
            work = self._feeder.waiting.get()
            assert work is not None
            if self._patience.hopeless(work.began):
                work.dropped = "deadline"
            else:
                cut(work, self._layout, self._borrow)
            self._tiled.put(work)

    def _borrow(self, plan: Plan) -> Slot:
        in_engine = math.ceil(self.in_flight * self._batch / plan.count)
        slot = self._slots.take(_OUTSIDE + in_engine)
        if slot is None:
            raise ClosedError
        return slot

    def _judge_all(self) -> None:
        while True:
            work = self._inferred.get()
            assert work is not None
            self._judge(work)
            self._judged.put(work)
