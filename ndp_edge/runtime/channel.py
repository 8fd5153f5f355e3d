"""A bounded queue between two stages: blocks when full, or gives up its oldest item."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosedError(Exception):
    """The channel is closed: nothing more goes in, or (for `get`) comes out."""


class Channel(Generic[T]):
    """First in, first out; safe from any number of threads.

    `close` lets what is inside still be taken; `discard` hands it back to the caller.

    Args:
        capacity: items it holds at most, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Wait for room and append.

        Raises:
            ClosedError: it is, or was closed while waiting; the item is not inside.
        """
        with self._changed:
            while len(self._items) >= self.capacity and not self._closed:
                self._changed.wait()
            self._append(item)

    def offer(self, item: T) -> bool:
        """Append if there is room; False, and the item not inside, if there is none.

        Raises:
            ClosedError: it is; the item is not inside.
        """
        with self._changed:
            if len(self._items) >= self.capacity and not self._closed:
                return False
            self._append(item)
            return True

    def force(self, item: T) -> T | None:
        """Append at once; returns the oldest item, taken out where there was no room.

        Raises:
            ClosedError: it is; the item is not inside.
        """
        with self._changed:
            full = len(self._items) >= self.capacity and not self._closed
            oldest = self._items.popleft() if full else None
            self._append(item)
            return oldest

    def get(self, timeout: float | None = None) -> T | None:
        """Take the oldest item; None when none came for `timeout` seconds.

        Raises:
            ClosedError: it is, and nothing is left inside.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._items:
                if self._closed:
                    raise ClosedError
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing more goes in; whoever waits wakes up. Closing twice does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> list[T]:
        """Close, and take out everything at once."""
        with self._changed:
            self._closed = True
            left, self._items = list(self._items), deque()
            self._changed.notify_all()
            return left

    def _append(self, item: T) -> None:
        if self._closed:
            raise ClosedError
        self._items.append(item)
        self._changed.notify_all()
