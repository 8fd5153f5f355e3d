"""Verdicts sent elsewhere: to a webhook, or to an MQTT broker. The line never waits for them.

Each receiver has a bounded queue and a thread. While it does not answer, the same verdict is
tried again with growing pauses, and when the queue is full the oldest verdict in it is lost and
counted. A verdict may arrive twice, when an answer gets lost: its `frame` and `time` tell.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ndp_edge.console import info, plain
from ndp_edge.runtime.observing import Observer, Seen

ROOM = 1000
"""Verdicts that may wait for a receiver."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries, doubled each time."""

GRACE = 3.0
"""Seconds that are left for what still waits when the run ends."""


class RefusedError(Exception):
    """The receiver does not want this message, now or ever."""


class Sender(Protocol):
    """A way to a receiver; used by one thread."""

    def __call__(self, message: bytes) -> None:
        """Hand over one message.

        Raises:
            RefusedError: trying again is no use.
            OSError: it may be later.
        """

    def close(self) -> None:
        """Let go of the connection."""


class Remote(Observer):
    """An observer that sends each verdict's line of results.jsonl as JSON.

    Args:
        kind: "webhook" or "mqtt"; for figures and messages.
        sender: the way there; closed when the run ends.
        rejects: send rejects only.
        room: verdicts that may wait.
        pauses: the first and the longest pause between two tries, in seconds.
        grace: seconds for what still waits at the end.
        tell: takes a line for the log when a receiver fails and when it is back.
    """

    pictures = False

    def __init__(
        self,
        kind: str,
        sender: Sender,
        *,
        rejects: bool = False,
        room: int = ROOM,
        pauses: tuple[float, float] = (FIRST_PAUSE, LONGEST_PAUSE),
        grace: float = GRACE,
        tell: Callable[[str], None] = info,
    ) -> None:
        self.kind = kind
        self._sender = sender
        self._rejects = rejects
        self._room = room
        self._pauses = pauses
        self._grace = grace
        self._tell = tell
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, Any]] = deque()
        self._sending = False
        self._ends: float | None = None
        self._over = False
        self._counts = {"delivered": 0, "refused": 0, "lost": 0}
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"ndp-edge {kind}", daemon=True)
        self._thread.start()

    def verdict(self, seen: Seen) -> None:
        """Queue the line; where there is no room, the oldest in the queue is lost."""
        if self._rejects and seen.line["verdict"] != "reject":
            return
        with self._changed:
            if self._over:
                return
            self._waiting.append(seen.line)
            if len(self._waiting) > self._room:
                self._waiting.popleft()
                self._counts["lost"] += 1
            self._changed.notify_all()

    def report(self) -> dict[str, Any]:
        """to, delivered, refused, lost, waiting, and trouble (why it fails now, or None)."""
        with self._changed:
            waiting = len(self._waiting) + self._sending
            return {
                "to": self.kind,
                **self._counts,
                "waiting": waiting,
                "trouble": self._trouble,
            }

    def close(self) -> None:
        """Send what still waits, for at most `grace` seconds; count the rest as lost."""
        with self._changed:
            if self._over:
                return
            self._ends = time.monotonic() + self._grace
            self._changed.notify_all()
        self._thread.join(self._grace)
        with self._changed:
            self._over = True
            self._counts["lost"] += len(self._waiting) + self._sending
            self._waiting.clear()
            self._sending = False
            self._changed.notify_all()
        missing = self._counts["lost"] + self._counts["refused"]
        if missing:
            total = missing + self._counts["delivered"]
            self._tell(
                f"warning: {self.kind}: {missing} of {total} verdicts were not delivered "
                f"({self._counts['lost']} lost, {self._counts['refused']} refused)"
            )

    def _run(self) -> None:
        while (line := self._next()) is not None:
            pause = self._pauses[0]
            message = json.dumps(plain(line), allow_nan=False).encode()
            while (how := self._try(message)) is None and self._wait(pause):
                pause = min(2 * pause, self._pauses[1])
            with self._changed:
                if self._over:
                    break
                self._sending = False
                self._counts[how or "lost"] += 1
        self._sender.close()

    def _next(self) -> dict[str, Any] | None:
        """The next line; None when the run is over and nothing waits."""
        with self._changed:
            while not self._waiting and self._ends is None:
                self._changed.wait()
            if self._over or not self._waiting:
                return None
            self._sending = True
            return self._waiting.popleft()

    def _try(self, message: bytes) -> str | None:
        """How it went: "delivered", "refused", or None for not yet."""
        try:
            self._sender(message)
        except RefusedError as error:
            self._fail(str(error))
            return "refused"
        except OSError as error:
            self._fail(error.strerror or str(error) or type(error).__name__)
            return None
        except Exception as error:  # a bug of ours costs this verdict, not all that follow
            self._fail(repr(error))
            return "refused"
        if self._trouble is not None:
            self._trouble = None
            self._tell(f"{self.kind}: receives verdicts again")
        return "delivered"

    def _fail(self, why: str) -> None:
        before, self._trouble = self._trouble, why
        if before is None:
            self._tell(f"warning: {self.kind}: {why}; verdicts are kept in {self._room} places")

    def _wait(self, seconds: float) -> bool:
        """Pause before the next try; False once there is no time left for one."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                now = time.monotonic()
                if self._over or (self._ends is not None and now >= self._ends):
                    return False
                end = until if self._ends is None else min(until, self._ends)
                if now >= end:
                    return True
                self._changed.wait(end - now)
