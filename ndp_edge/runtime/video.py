"""A video file as frames, numbered from 000000."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_edge.errors import InputError
from ndp_edge.pixels import to_rgb
from ndp_edge.runtime.sources import Captured
from ndp_edge.types import Frame

if TYPE_CHECKING:
    import cv2

MISSING = 2
"""Frames that a file may have less than its header says: some containers only estimate."""


def number_name(number: int) -> str:
    """The name of frame `number` of a video or a camera."""
    return f"{number:06}"


class VideoSource:
    """The frames of a video file, in order.

    A file that ends before the number of frames in its header says so in one last frame that
    cannot be read. Where a stream is damaged in the middle, the decoder hides it or leaves
    frames out; this cannot be seen from here.

    Args:
        path: the file.
        skip: names already judged; these frames are passed over without decoding the picture.
        limit: at most this many frames.
        pixel: what the pictures hold, see `ndp_edge.pixels`.

    Raises:
        InputError: no such file, or nothing in it that OpenCV can decode.
    """

    live = False
    names: list[str] | None = None
    reconnects = 0

    def __init__(
        self,
        path: Path,
        skip: Sequence[str] = (),
        limit: int | None = None,
        pixel: str = "auto",
    ) -> None:
        if not path.is_file():
            raise InputError(f"--source {path}: no such file; give a video, a folder or a camera")
        self.path = path
        self._done = set(skip)
        self._limit = limit
        self._pixel = pixel
        self._closed = False
        import cv2

        capture = self._open()
        self._told = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # often -1 or nonsense in streams
        capture.release()

    def __iter__(self) -> Iterator[Captured]:
        capture = self._open()
        try:
            number = 0
            while not self._closed and number != self._limit:
                name = number_name(number)
                stamp, began = time.time(), time.perf_counter()
                if not capture.grab():
                    if number + MISSING < self._told and name not in self._done:
                        yield self._short(name, stamp, number)
                    return
                number += 1
                if name not in self._done:
                    yield self._decode(capture, name, stamp, began)
        finally:
            capture.release()

    def close(self) -> None:
        """The frame being read is the last."""
        self._closed = True

    def _open(self) -> cv2.VideoCapture:
        import cv2

        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise InputError(f"--source {self.path}: is no video that can be decoded here")
        return capture

    def _decode(self, capture: cv2.VideoCapture, name: str, stamp: float, began: float) -> Captured:
        frame, error = None, None
        read, raw = capture.retrieve()
        if not read or raw is None:
            error = f"{self.path}: frame {name} cannot be decoded"
        else:
            try:
                frame = Frame(name, to_rgb(raw, self._pixel), stamp)
            except InputError as problem:
                error = f"{self.path}: frame {name}: {problem}"
        return Captured(name, stamp, frame, error, 1e3 * (time.perf_counter() - began))

    def _short(self, name: str, stamp: float, number: int) -> Captured:
        error = (
            f"{self.path}: ends after {number} of {self._told} frames; it is truncated or "
            "damaged, copy it again from its source"
        )
        return Captured(name, stamp, None, error, 0.0)
