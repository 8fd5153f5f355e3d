"""A camera or stream that comes back: back-off, a stall timeout, and a prompt end.

Drivers and network libraries block where they like, also for ever. So each connection lives in
a thread of its own (`Grabber`), which alone touches the device and hands over one frame at a
time; the source only ever waits for that thread with a timeout. One that hangs is left behind
and frees its device when it wakes up.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from ndp_edge.console import info
from ndp_edge.errors import InputError
from ndp_edge.pixels import to_rgb
from ndp_edge.runtime.sources import Captured
from ndp_edge.runtime.video import number_name
from ndp_edge.types import Frame

STALL_SECONDS = 5.0
_SLOW_START = 2
"""Stall times until the first frame of a connection: it is made first."""

_MOST_HANGING = 4
"""Connections left behind in their driver; with so many no further one is tried."""

_GRACE = 1.0
"""Seconds that a device is given to be freed when the source is closed."""


class LostError(Exception):
    """The device or stream cannot be opened, ended or broke; the message says why."""


class Connection(Protocol):
    """An open camera or stream, used by one thread."""

    pixel: str
    """What its pictures hold, see `ndp_edge.pixels`."""

    def wait(self) -> None:
        """Block until the next frame is there. Raises LostError when none will come."""

    def take(self) -> NDArray[Any] | None:
        """That frame's pixels, fresh memory; None where it cannot be decoded."""

    def close(self) -> None:
        """Free the device."""


@dataclass(frozen=True)
class Backoff:
    """Seconds between tries: half to all of first * 2^tries, at most `most`.

    The random half keeps many cameras from knocking at one switch in step.
    """

    first: float = 0.5
    most: float = 30.0

    def seconds(self, tries: int) -> float:
        """Before try number `tries`, counted from 0."""
        longest = min(self.most, self.first * float(2 ** min(tries, 30)))
        return longest * random.uniform(0.5, 1)


@dataclass(frozen=True)
class _Grabbed:
    """What a grabber hands over.

    stamp and clock are time.time and time.perf_counter when the frame was there; raw None means
    that it cannot be decoded.
    """

    raw: NDArray[Any] | None
    pixel: str
    stamp: float
    clock: float


class Grabber:
    """One connection in its thread.

    Args:
        connect: opens it; raises LostError.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._changed = threading.Condition()
        self._given: _Grabbed | None = None
        self._lost: str | None = None
        self._left = False
        self.thread = threading.Thread(target=self._run, name="ndp-edge camera", daemon=True)
        self.thread.start()

    def get(self, seconds: float) -> _Grabbed | None:
        """The next frame, or None after that time or when left.

        Raises:
            LostError: there will be none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._given or self._lost or self._left, seconds)
            given, self._given = self._given, None
            self._changed.notify_all()
        if given is None and self._lost is not None:
            raise LostError(self._lost)
        return given

    def leave(self) -> None:
        """Want no more; the thread ends as soon as its device lets it."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _run(self) -> None:
        lost = "it ended"
        try:
            connection = self._connect()
            try:
                while not self._left:
                    connection.wait()
                    stamp, clock = time.time(), time.perf_counter()
                    self._give(_Grabbed(connection.take(), connection.pixel, stamp, clock))
            finally:
                connection.close()
        except LostError as error:
            lost = str(error)
        except Exception as error:  # whatever a driver may raise, the line goes on
            lost = f"{type(error).__name__}: {error}"
        with self._changed:
            self._lost = lost
            self._changed.notify_all()

    def _give(self, grabbed: _Grabbed) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._given is None or self._left)
            self._given = grabbed
            self._changed.notify_all()


class LiveSource:
    """Frames of a camera or stream, numbered on through every reconnection.

    A frame's time is when it arrived, and `read_ms` what passed until it was handed over.

    Args:
        spec: what the user called it, without secrets.
        connect: opens a connection; raises LostError, and may hang.
        skip: names already judged; numbering goes on behind the highest.
        limit: numbers below this only.
        pixel: what the pictures hold; "auto" leaves it to the connection.
        reconnect: False ends with the first loss.
        stall_seconds: without a frame for so long, it counts as lost.
        backoff: how long to wait between tries.

    Attributes:
        reconnects: how often it was lost and gave frames again.
    """

    live = True
    names: list[str] | None = None

    def __init__(
        self,
        spec: str,
        connect: Callable[[], Connection],
        *,
        skip: Sequence[str] = (),
        limit: int | None = None,
        pixel: str = "auto",
        reconnect: bool = True,
        stall_seconds: float = STALL_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self.spec = spec
        self.reconnects = 0
        self._connect = connect
        self._number = 1 + max((int(name) for name in skip if name.isdecimal()), default=-1)
        self._limit = limit
        self._pixel = pixel
        self._reconnect = reconnect
        self._stall = stall_seconds
        self._backoff = backoff or Backoff()
        self._closed = threading.Event()
        self._grabber: Grabber | None = None
        self._hanging: list[Grabber] = []

    def check(self) -> None:
        """Take one frame and let go again, so that a wrong name is told before anything starts.

        Raises:
            InputError: there is no frame within the stall time.
        """
        grabber = Grabber(self._connect)
        try:
            if grabber.get(_SLOW_START * self._stall) is None:
                raise LostError(f"no frame within {_SLOW_START * self._stall:g} s")
        except LostError as error:
            raise InputError(f"--source {self.spec}: {error}") from None
        finally:
            grabber.leave()
            grabber.thread.join(_GRACE)

    def __iter__(self) -> Iterator[Captured]:
        """Raises InputError when it is lost and must not reconnect."""
        tries = 0
        while not self._done():
            before = self._number
            try:
                yield from self._connected(came_back=tries > 0)
            except LostError as error:
                if self._closed.is_set():
                    return
                if not self._reconnect:
                    raise InputError(f"--source {self.spec}: {error}") from None
                tries = 0 if self._number > before else tries
                if tries == 0:
                    info(f"{self.spec} is lost ({error}); trying to get it back")
                self._wait_for(tries)
                tries += 1

    def close(self) -> None:
        """End the iteration at once; the device is given a moment to be freed."""
        self._closed.set()
        grabber = self._grabber
        if grabber is not None:
            grabber.leave()
            grabber.thread.join(_GRACE)

    def _done(self) -> bool:
        # Beyond it where a run is resumed with a lower one than it had.
        full = self._limit is not None and self._number >= self._limit
        return self._closed.is_set() or full

    def _connected(self, *, came_back: bool) -> Iterator[Captured]:
        """One connection's frames. Raises LostError at its end."""
        grabber = self._grabber = Grabber(self._connect)
        patience = _SLOW_START * self._stall
        try:
            while not self._done():
                grabbed = grabber.get(patience)
                if grabbed is None:
                    if self._closed.is_set():
                        return
                    self._hanging.append(grabber)
                    raise LostError(f"no frame for {patience:g} s")
                patience = self._stall
                if came_back:
                    came_back = False
                    self.reconnects += 1
                    info(f"{self.spec} is back")
                yield self._captured(grabbed)
        finally:
            grabber.leave()

    def _captured(self, grabbed: _Grabbed) -> Captured:
        name = number_name(self._number)
        self._number += 1
        frame, error = None, None
        if grabbed.raw is None:
            error = f"{self.spec}: a frame that cannot be decoded"
        else:
            pixel = grabbed.pixel if self._pixel == "auto" else self._pixel
            try:
                frame = Frame(name, to_rgb(grabbed.raw, pixel), grabbed.stamp)
            except InputError as problem:
                error = f"{self.spec}: {problem}"
        read_ms = 1e3 * (time.perf_counter() - grabbed.clock)
        return Captured(name, grabbed.stamp, frame, error, read_ms)

    def _wait_for(self, tries: int) -> None:
        """The back-off; and with many connections hanging in their driver, until one wakes up."""
        self._closed.wait(self._backoff.seconds(tries))
        while not self._closed.is_set():
            self._hanging = [one for one in self._hanging if one.thread.is_alive()]
            if len(self._hanging) < _MOST_HANGING:
                return
            self._closed.wait(1.0)
