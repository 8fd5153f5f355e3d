"""Ctrl-C and SIGTERM as a flag that the line looks at between two frames."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Set by SIGINT or SIGTERM; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def name(self) -> str | None:
        """The signal's name; None when there was none."""
        return None if self.signal is None else signal.Signals(self.signal).name

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Catch both signals inside the block and restore the former handlers after it."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        former = {kind: signal.signal(kind, self._on_signal) for kind in kinds}
        try:
            yield self
        finally:
            for kind, handler in former.items():
                signal.signal(kind, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
