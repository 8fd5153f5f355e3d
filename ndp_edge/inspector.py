"""The inspection as a library: one frame, or a stream of them, to verdicts.

>>> import ndp_edge
>>> with ndp_edge.Inspector("bundle") as inspector:             # doctest: +SKIP
...     result = inspector("photos/test/good/000.png")
...     print(result.verdict, result.score)
ok 0.2341...

`docs/library.md` has more; its examples are run by the tests.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.bundle import Bundle
from ndp_edge.errors import InputError, NdpError
from ndp_edge.image import read_marks
from ndp_edge.runtime.channel import Channel
from ndp_edge.runtime.cutting import cut
from ndp_edge.runtime.engine import open_engine, requests, warm_up
from ndp_edge.runtime.feeding import DROPS, DropPolicy
from ndp_edge.runtime.handed import captured
from ndp_edge.runtime.inferring import Inferring
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.inspected import Inspected, inspected
from ndp_edge.runtime.layout import Layout, Mode
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.patience import Patience
from ndp_edge.runtime.pipeline import QUEUE, Pipeline
from ndp_edge.runtime.sources import Captured, Source
from ndp_edge.runtime.streaming import Stream
from ndp_edge.runtime.work import Dropped, Slot, Work

__all__ = ["Inspected", "Inspector", "Stream"]

Image = NDArray[np.uint8]


class Inspector:
    """A bundle's engine and threshold, ready for frames. A context manager.

    Serves one thread at a time, and either single frames or one stream.

    Args:
        bundle: folder of a bundle, as `python -m ndp_edge.build` makes it.
        threshold: reject if and only if score > threshold; None takes the bundle's.
        layout: "shrink" square frames to the net's size as in training, cut "tiles" at native
            scale, or "auto": shrink square frames, tile the others.
        overlap: pixels that neighbouring tiles share.
        roi: where defects count: bool [H, W] of the frames' size or the path of a mask.
        in_flight: requests in the engine at once; 1 tunes it for latency, None for throughput.

    Raises:
        InputError: no such bundle, or an argument is out of its range.
        MachineError: the bundle's backend is not installed.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        threshold: float | None = None,
        layout: Mode = "auto",
        overlap: int = 32,
        roi: NDArray[np.bool_] | Path | str | None = None,
        in_flight: int | None = None,
    ) -> None:
        if in_flight is not None and in_flight < 1:
            raise InputError(f"in_flight {in_flight}: at least 1, or None")
        self.bundle = Bundle.open(Path(bundle))
        self.size = self.bundle.config.image_size
        where = read_marks(roi) if isinstance(roi, (str, Path)) else roi
        self._control = Control(self.bundle.threshold if threshold is None else threshold)
        self._layout = Layout(self.size, layout, overlap, where)
        self._judge = Judge(self._control, self.bundle.hash)
        self._engine = open_engine(self.bundle, in_flight)
        self._in_flight = requests(self._engine, in_flight)
        self._slot = Slot()
        self._busy = threading.Lock()
        self._streaming: Pipeline | None = None
        self._closed = False
        warm_up(self._engine, self._in_flight)

    def __enter__(self) -> Inspector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def threshold(self) -> float:
        """Reject if and only if score > threshold; may be set, to a number in [0, 1]."""
        return self._control.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._control.set_threshold(value, "library")

    def __call__(self, frame: Image | Path | str, name: str | None = None) -> Inspected:
        """The verdict on one frame.

        Args:
            frame: uint8 [H, W, 3] in RGB, uint8 [H, W] in gray, or the path of a picture.
            name: goes into the result; by default the path, or "frame".

        Raises:
            InputError: not such a frame, or of a size that cannot be inspected; a stream is
                running; or the inspector is closed.
            NdpError: the engine failed on this frame.
        """
        given = captured(frame, "frame") if name is None else captured((name, frame), name)
        if given.frame is None:
            raise InputError(given.error or "the frame is missing")
        self._begin()
        try:
            return inspected(self._inspect(given))
        finally:
            self._busy.release()

    def stream(
        self,
        source: Iterable[Any] | AsyncIterable[Any] | Path | str,
        *,
        queue: int = QUEUE,
        drop: DropPolicy = "block",
        deadline_ms: float | None = None,
        on_drop: Callable[[Dropped], None] | None = None,
    ) -> Stream:
        """Verdicts on many frames, in their order, while reading and inference go on.

        Iterate over it with `for`, or with `async for` in an event loop, which it does not
        block. Leaving the loop early ends the stream. A frame that cannot be judged gives a
        result with `error` set, which is a reject.

        Args:
            source: a folder or whatever else `--source` takes, or an iterable (with
                `async for` an asynchronous one, too) of frames as `__call__` takes them or of
                (name, frame).
            queue: frames that may wait.
            drop: "block" lets the source wait when the queue is full, "oldest" gives up the
                frame that waited for longest.
            deadline_ms: with "oldest", frames that cannot have their verdict this many
                milliseconds after their capture are given up.
            on_drop: told about every frame that was given up.

        Raises:
            InputError: an argument is out of its range; in the loop, where there is no such
                source.
        """
        if queue < 1 or drop not in DROPS:
            raise InputError(f"queue {queue}, drop {drop!r}: at least 1, and {' or '.join(DROPS)}")
        options = {"queue": queue, "drop": drop, "deadline_ms": deadline_ms}
        return Stream(source, lambda frames: self._running(frames, options), on_drop)

    def close(self) -> None:
        """End a running stream and free the engine. Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            if self._streaming is not None:
                self._streaming.__exit__()
            self._engine.close()

    def _begin(self) -> None:
        if self._closed:
            raise InputError("this inspector is closed; make another")
        if not self._busy.acquire(blocking=False):
            raise InputError("this inspector is busy with a stream; end it, or make another")

    def _inspect(self, given: Captured) -> Work:
        """The stages of a pipeline one after the other, for one frame."""
        work = Work.begin(given)
        cut(work, self._layout, lambda _plan: self._slot)
        if work.error is not None:
            raise InputError(work.error)
        before: Channel[Work] = Channel(1)
        before.put(work)
        before.close()
        after: Channel[Work] = Channel(1)
        patience = Patience(None)
        Inferring(self._engine, self._in_flight, before, after, patience, lambda: False).run()
        self._judge(work)
        if work.error is not None:
            raise NdpError(work.error)
        return work

    @contextlib.contextmanager
    def _running(self, source: Source, options: dict[str, Any]) -> Iterator[Pipeline]:
        """A pipeline at work; the inspector is busy until it has ended."""
        self._begin()
        try:
            flight = self._in_flight
            with Pipeline(
                self._engine, source, self._layout, self._judge, in_flight=flight, **options
            ) as pipeline:
                self._streaming = pipeline
                yield pipeline
        finally:
            self._streaming = None
            self._busy.release()
