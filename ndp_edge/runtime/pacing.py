"""A folder or a film played as a camera: frames at a steady rate, whoever is ready or not."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

from ndp_edge.runtime.sources import Captured, Source


class Paced:
    """Hands out at most `fps` frames a second; behind schedule it hands out at once.

    Reading goes on between the beats: a frame counts as captured when it is handed out, as
    with a camera. Like one it is late, not slower, when nobody takes the frames.

    Args:
        source: what is played; closed with this.
        fps: frames a second, above 0.
    """

    live = False

    def __init__(self, source: Source, fps: float) -> None:
        self._source = source
        self._period = 1 / fps
        self._closed = threading.Event()

    def __getattr__(self, name: str) -> Any:
        """`names`, `reconnects` and the like are the source's."""
        return getattr(self._source, name)

    def __len__(self) -> int:
        """Raises TypeError where the source does not know."""
        return len(self._source)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Captured]:
        due = time.perf_counter()
        for captured in self._source:
            if self._closed.wait(max(0.0, due - time.perf_counter())):
                return
            due += self._period
            stamp = time.time()
            frame = captured.frame
            if frame is not None:
                frame = dataclasses.replace(frame, time=stamp)
            yield dataclasses.replace(captured, time=stamp, frame=frame, read_ms=0.0)

    def close(self) -> None:
        """Ends the waiting, and the source."""
        self._closed.set()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
