"""Verdicts as an iterator, or as an asynchronous one that does not block its event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ndp_edge.errors import InputError
from ndp_edge.runtime.handed import Handed, HandedLater
from ndp_edge.runtime.inspected import Inspected, inspected
from ndp_edge.runtime.opening import open_source
from ndp_edge.runtime.pipeline import Pipeline
from ndp_edge.runtime.sources import Source
from ndp_edge.runtime.work import Dropped, Work


class Stream:
    """What `Inspector.stream` returns: iterable once, by `for` or by `async for`.

    Args:
        source: as `to_source` takes it.
        running: gives the pipeline at work on a source, and ends it.
        on_drop: told about every frame that was given up.

    Attributes:
        drops: how many frames were given up, by reason.
    """

    def __init__(
        self,
        source: Any,
        running: Callable[[Source], AbstractContextManager[Pipeline]],
        on_drop: Callable[[Dropped], None] | None = None,
    ) -> None:
        self.drops: Counter[str] = Counter()
        self._source = source
        self._running = running
        self._on_drop = on_drop

    def __iter__(self) -> Iterator[Inspected]:
        if isinstance(self._source, AsyncIterable):
            raise InputError("an asynchronous source wants `async for`")
        with self._running(to_source(self._source)) as pipeline:
            items = iter(pipeline)
            while (found := self._next(items)) is not None:
                yield found

    async def __aiter__(self) -> AsyncIterator[Inspected]:
        loop = asyncio.get_running_loop()
        source = to_source(self._source)
        feeding = loop.create_task(source.feed()) if isinstance(source, HandedLater) else None
        try:
            with self._running(source) as pipeline:
                items = iter(pipeline)
                while True:
                    found = await loop.run_in_executor(None, self._next, items)
                    if found is None:
                        return
                    yield found
        finally:
            if feeding is not None:
                feeding.cancel()

    def _next(self, items: Iterator[Work | Dropped | None]) -> Inspected | None:
        """Wait for the next verdict; None behind the last."""
        for item in items:
            if isinstance(item, Work):
                return inspected(item)
            if item is not None:
                self.drops[item.why] += 1
                if self._on_drop is not None:
                    self._on_drop(item)
        return None


def to_source(given: Any) -> Source:
    """Whatever `Inspector.stream` takes, as a source.

    Raises:
        InputError: it is nothing of that kind, or there is no such source.
        MachineError: this machine lacks what opens the source.
    """
    if isinstance(given, (str, Path)):
        return open_source(str(given))
    if isinstance(given, AsyncIterable):
        return HandedLater(given)
    if hasattr(given, "live"):  # one of ours already
        source: Source = given
        return source
    if not isinstance(given, Iterable):
        raise InputError(f"a stream of {type(given).__name__}; give a folder or an iterable")
    return Handed(given)
