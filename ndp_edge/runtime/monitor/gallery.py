"""Small pictures of the last frames and the last rejects, made behind the line's back.

`verdict` only leaves a reference. A thread of the gallery's own shrinks what it finds there, so
that no large frame is kept, and JPEGs are made when somebody asks for one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import heat
from ndp_edge.runtime.observing import Observer, Seen

SIDE = 480
"""Longest side in pixels of a picture that is kept."""

LAST, REJECTS = 8, 24
"""How many of the last frames and of the last rejects are kept: at most 55 MB in all."""

KINDS = ("photo", "marked", "heat")

_PENDING = 4
"""Rejects that may wait for the thread with their full frames."""

_PACE = 0.2
"""Seconds between two frames that were ok: nobody looks faster, and the line needs the CPU."""


@dataclass(frozen=True)
class Shot:
    """One frame, small enough to keep.

    Attributes:
        number: counts up from 1 with every frame of the line.
        line: its line of results.jsonl.
        image: uint8 [h, w, 3], RGB, no side longer than `SIDE`; None without a picture.
        smoothed: float32 [h, w], the largest value of the map under each pixel; None likewise.
    """

    number: int
    line: dict[str, Any]
    image: NDArray[np.uint8] | None = None
    smoothed: NDArray[np.float32] | None = None
    _jpegs: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def rejected(self) -> bool:
        """The verdict."""
        return bool(self.line["verdict"] == "reject")

    def jpeg(self, kind: str) -> bytes | None:
        """The picture as it is ("photo"), with its defects ("marked"), or its map ("heat").

        None where there is none: a frame that could not be read has no picture, and one that
        could not be judged no map.
        """
        if kind not in self._jpegs:
            drawn = self._draw(kind)
            if drawn is None:
                return None
            self._jpegs[kind] = heat.encode(drawn, quality=82)
        return self._jpegs[kind]

    def _draw(self, kind: str) -> NDArray[np.uint8] | None:
        threshold = float(self.line["threshold"])
        if kind == "photo":
            return self.image
        if self.smoothed is None:
            return None
        if kind == "heat":
            return heat.colours(self.smoothed, threshold)
        if self.image is None:
            return None
        zoom = 2 if max(self.smoothed.shape) <= SIDE else 1  # outlines stay thin
        return heat.overlay(self.image, self.smoothed, threshold, zoom=zoom)

    def describe(self) -> dict[str, Any]:
        """What the page shows of it: number, frame, time, score, threshold, verdict, error,
        late, defects (how many), pictures (the kinds there are), size ([width, height])."""
        line = self.line
        kinds = [] if self.image is None else ["photo"]
        if self.smoothed is not None:
            kinds += ["marked", "heat"]
        return {
            "number": self.number,
            **{key: line[key] for key in ("frame", "time", "score", "threshold", "verdict")},
            "error": line.get("error"),
            "late": bool(line.get("late")),
            "defects": len(line["defects"]),
            "pictures": kinds,
            "size": None if self.image is None else list(self.image.shape[1::-1]),
        }


class Gallery(Observer):
    """An observer; its readers may be in any thread.

    Every reject gets into the strip while they come slower than the thread works; the newest
    frame is always among the last ones, the others between are a sample.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._pending: deque[tuple[int, Seen]] = deque(maxlen=_PENDING)
        self._newest: tuple[int, Seen] | None = None
        self._last: deque[Shot] = deque(maxlen=LAST)
        self._rejects: deque[Shot] = deque(maxlen=REJECTS)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ndp-edge gallery", daemon=True)
        self._thread.start()

    def verdict(self, seen: Seen) -> None:
        """Leave the frame for the thread."""
        with self._changed:
            self._number += 1
            if seen.line["verdict"] == "reject":
                self._pending.append((self._number, seen))
            else:
                self._newest = (self._number, seen)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; what it has made can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def shots(self) -> tuple[list[Shot], list[Shot]]:
        """The last frames and the last rejects, each newest first."""
        with self._changed:
            last, rejects = list(self._last), list(self._rejects)
        newest_first = sorted(last, key=lambda shot: -shot.number)
        return newest_first, rejects[::-1]

    def find(self, number: int) -> Shot | None:
        """A shot by its number; None once it has been pushed out."""
        last, rejects = self.shots()
        return next((shot for shot in (*last, *rejects) if shot.number == number), None)

    def _run(self) -> None:
        shown = 0.0
        while True:
            with self._changed:
                while not self._closed and not self._pending:
                    left = shown + _PACE - time.monotonic()
                    if self._newest is not None and left <= 0:
                        break
                    self._changed.wait(None if self._newest is None else left)
                if self._closed:
                    return
                if self._pending:
                    number, seen = self._pending.popleft()
                elif self._newest is not None:
                    (number, seen), self._newest = self._newest, None
                    shown = time.monotonic()
            shot = shrink(number, seen)
            del seen
            with self._changed:
                self._last.append(shot)
                if shot.rejected:
                    self._rejects.append(shot)


def shrink(number: int, seen: Seen) -> Shot:
    """A frame as a `Shot`."""
    image, smoothed = seen.image, seen.smoothed
    if image is None:
        return Shot(number, seen.line)
    shape = image.shape[:2] if smoothed is None else smoothed.shape
    factor = -(-max(shape) // SIDE)
    height, width = (-(-side // factor) for side in shape)
    if image.shape[:2] != (height, width):  # also where it was shrunk for the net
        import cv2

        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        image = np.asarray(small, np.uint8)
    if smoothed is not None and factor > 1:
        smoothed = _peaks(smoothed, factor)
    return Shot(number, seen.line, image, smoothed)


def _peaks(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The maximum of each factor x factor block: a small defect must not shrink away."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % factor), (0, -width % factor)), mode="edge")
    blocks = padded.reshape(len(padded) // factor, factor, -1, factor)
    found: NDArray[np.float32] = blocks.max(axis=(1, 3))
    return found
