"""Frames that a program hands over instead of a file or a camera."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.runtime.channel import Channel, ClosedError
from ndp_edge.runtime.sources import Captured, read_file
from ndp_edge.runtime.video import number_name
from ndp_edge.types import Frame

_POLL = 0.002
"""Seconds between looks for room; an event loop cannot wait for a thread's lock."""


def captured(given: Any, name: str) -> Captured:
    """One frame as the pipeline takes it.

    Args:
        given: uint8 [H, W, 3] in RGB, uint8 [H, W] in gray, the path of a picture, a pair
            (name, one of these), or a Captured.
        name: for what brings none; a path is its own.

    Raises:
        InputError: none of these. A picture that cannot be read is no such error: it is told
            in the Captured.
    """
    if isinstance(given, Captured):
        return given
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str):
        name, given = given
    elif isinstance(given, (str, Path)):
        name = str(given)
    if isinstance(given, (str, Path)):
        return read_file(Path(given), name)
    stamp, began = time.time(), time.perf_counter()
    frame = Frame(name, rgb(given), stamp)
    return Captured(name, stamp, frame, None, 1e3 * (time.perf_counter() - began))


def rgb(image: Any) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] as it is, or uint8 [H, W] on three channels.

    Raises:
        InputError: another type or shape, or no pixels.
    """
    kind = getattr(image, "dtype", type(image).__name__)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise InputError(f"a frame is {kind}; wanted uint8 [H, W, 3] in RGB, or [H, W] in gray")
    if image.size == 0 or (image.ndim, image.shape[2:]) not in ((2, ()), (3, (3,))):
        raise InputError(f"a frame has the shape {image.shape}; wanted [H, W, 3] or [H, W]")
    return image if image.ndim == 3 else np.repeat(image[:, :, np.newaxis], 3, axis=2)


class Handed:
    """An iterable of frames as a source; those without a name are numbered from 000000."""

    live = False

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[Captured]:
        for number, given in enumerate(self._frames):
            yield captured(given, number_name(number))


class HandedLater:
    """An asynchronous iterable of frames as a source: `feed` runs in the event loop."""

    live = False

    def __init__(self, frames: AsyncIterable[Any]) -> None:
        self._frames = frames
        self._channel: Channel[Any] = Channel(1)
        self._failure: Exception | None = None

    async def feed(self) -> None:
        """Hand on what comes, until it ends, fails or the stream is closed."""
        try:
            async for given in self._frames:
                while not self._channel.offer(given):
                    await asyncio.sleep(_POLL)
        except ClosedError:
            pass
        except Exception as error:
            self._failure = error
        finally:
            self._channel.close()

    def __iter__(self) -> Iterator[Captured]:
        number = 0
        try:
            while True:
                yield captured(self._channel.get(), number_name(number))
                number += 1
        except ClosedError:
            pass
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Whoever waits wakes up."""
        self._channel.close()
