"""What travels between the rooms: shapes, dtypes and units. No I/O, nothing heavy imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["ok", "reject"]
"""`reject` iff the score is above the threshold, or the frame could not be judged at all."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: the tensor's name.
        shape: its dimensions; a string stands for a symbolic one ("N").
        dtype: NumPy's name of the element type ("uint8", "float32").
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Frame:
    """One picture from a source.

    Attributes:
        name: the file name relative to the source's root, or the frame's number as text.
        image: uint8 [H, W, 3], RGB.
        time: seconds since the epoch when the source handed it over.
    """

    name: str
    image: NDArray[np.uint8]
    time: float


@dataclass(frozen=True)
class Defect:
    """One 8-connected region of the smoothed map above the threshold.

    Attributes:
        box: (x, y, width, height) in pixels of the frame; x to the right, y down.
        area: pixels.
        peak: the largest value of the smoothed map inside it, in the score's unit.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


@dataclass(frozen=True)
class Result:
    """The verdict on one frame: one line of results.jsonl.

    Attributes:
        frame: the frame's name.
        time: seconds since the epoch when the source handed the frame over.
        score: maximum of the smoothed map, in [0, 1]; None when the frame could not be judged.
        threshold: the bundle's frozen threshold, in the score's unit.
        verdict: "reject" iff score > threshold, or the frame could not be judged (fail-safe).
        defects: regions above the threshold; empty for "ok".
        latency_ms: milliseconds per stage ("read", "infer", "judge", "write").
        bundle: sha256 hex of the bundle's manifest.
        error: why the frame could not be judged, else None.
    """

    frame: str
    time: float
    score: float | None
    threshold: float
    verdict: Verdict
    defects: tuple[Defect, ...]
    latency_ms: dict[str, float]
    bundle: str
    error: str | None = None


@dataclass(frozen=True)
class Layer:
    """One layer as a backend executed it.

    Attributes:
        name: the backend's name for it.
        type: what it computes ("Convolution").
        precision: the one it ran in ("i8", "f32").
        ms: milliseconds.
    """

    name: str
    type: str
    precision: str
    ms: float
