"""What `bench.stream` and `bench.soak` share: a camera in memory, and a check of what came out."""

from __future__ import annotations

import dataclasses
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.data.surface import draw
from ndp_edge.runtime.sinks import DROPS, RESULTS
from ndp_edge.runtime.sources import Captured
from ndp_edge.types import Frame

GOOD, DEFECTIVE = 1, 2
"""Streams of the built-in surface."""


def pictures(good: int, defective: int, size: int) -> list[NDArray[np.uint8]]:
    """Pictures of the built-in woven surface, uint8 [size, size, 3], the defective ones last."""
    kinds = [(GOOD, index) for index in range(good)]
    kinds += [(DEFECTIVE, index) for index in range(defective)]
    return [draw("woven", stream, index, size=size)[0] for stream, index in kinds]


class Camera:
    """Yields pictures by turns, numbered; `release` lets some through, as a trigger does."""

    live = False

    def __init__(self, images: list[NDArray[np.uint8]], frames: int) -> None:
        self._images = images
        self._frames = frames
        self._trigger = threading.Semaphore(0)

    def release(self, frames: int) -> None:
        """Let so many more frames through."""
        self._trigger.release(frames)

    def __iter__(self) -> Iterator[Captured]:
        for number in range(self._frames):
            self._trigger.acquire()
            yield capture(frame_name(number), self._images[number % len(self._images)])


def frame_name(number: int) -> str:
    """What the cameras here call their frames."""
    return f"{number:08}"


def growth(memory: Sequence[float]) -> dict[str, float]:
    """Mean of the second and of the last quarter of the samples, and the share it grew by.

    Args:
        memory: in MiB, in order; at least one. Of fewer than four all are the second quarter.
    """
    quarter = max(1, len(memory) // 4)
    second = statistics.mean(memory[quarter : 2 * quarter] or memory)
    last = statistics.mean(memory[-quarter:])
    return {
        "second_quarter": round(second, 2),
        "last_quarter": round(last, 2),
        "growth": round(last / second - 1, 5),
    }


def capture(name: str, image: NDArray[np.uint8]) -> Captured:
    """A frame that comes at this moment and cost no reading."""
    now = time.time()
    return Captured(name, now, Frame(name, image, now), None, 0.0)


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of the frames that were offered.

    Attributes:
        offered: names handed out, in order.
        verdicts, drops: lines of results.jsonl and of drops.jsonl.
        errors: verdicts with an error.
        lost, doubled: frames with neither, and with more than one of them.
        in_order: verdicts stand in the order in which the frames were offered.
    """

    offered: int
    verdicts: int
    drops: int
    errors: int
    lost: int
    doubled: int
    in_order: bool

    @property
    def exact(self) -> bool:
        """Every frame has exactly one verdict or one counted drop, and the order is kept."""
        return self.lost == 0 and self.doubled == 0 and self.in_order


def account(out: Path, offered: list[str]) -> Account:
    """Read a run's folder back and compare it with the frames that were offered."""
    results = [line for line in json_lines(out / RESULTS) if "audit" not in line]
    drops = json_lines(out / DROPS)
    counts = Counter(line["frame"] for line in (*results, *drops))
    place = {name: index for index, name in enumerate(offered)}
    order = [place.get(line["frame"], -1) for line in results]
    return Account(
        offered=len(offered),
        verdicts=len(results),
        drops=len(drops),
        errors=sum("error" in line for line in results),
        lost=sum(name not in counts for name in offered),
        doubled=sum(count > 1 for count in counts.values()),
        in_order=-1 not in order and order == sorted(order),
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none where it does not exist."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
