"""Other batch sizes than 1: their time, and proof that they answer as batch 1 does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.engines import open_engine
from ndp_edge.errors import GateError, InputError
from ndp_edge.postprocess import smooth_max

LARGEST = 256
ROUNDS = 7
"""Timed calls per batch size, after one to warm up."""


def parse_batches(text: str) -> tuple[int, ...]:
    """ "1,8" to (1, 8): rising, each once.

    Raises:
        InputError: not whole numbers from 1 to `LARGEST`.
    """
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1 or found[-1] > LARGEST:
        raise InputError(f"--batch {text}: give whole numbers from 1 to {LARGEST}, such as 1,8")
    return found


def try_batches(
    backend: str,
    model: Path,
    precision: str,
    images: NDArray[np.uint8],
    scores: NDArray[np.float32],
    *,
    batches: Sequence[int],
    tolerance: float,
) -> list[dict[str, Any]]:
    """Time the engine at each batch size above 1 and compare its scores with batch 1's.

    Args:
        images: uint8 [N, H, W, 3]; taken from the front, and again where a batch is larger.
        scores: float32 [N], what batch 1 answered for them.
        tolerance: largest difference of a score allowed: the golden replay's.

    Returns:
        One dict a size: batch, ms (median call), ms_per_image, difference.

    Raises:
        GateError: a batch answers otherwise than its images alone.
    """
    larger = [b for b in batches if b > 1]
    if not larger:
        return []  # no engine is compiled to be asked nothing
    told = []
    with open_engine(backend, model, precision=precision) as engine:
        for batch in larger:
            chosen = np.arange(batch) % len(images)
            picked = np.ascontiguousarray(images[chosen])
            _, found = smooth_max(engine.infer(picked))
            difference = float(np.abs(found - scores[chosen]).max())
            if not difference <= tolerance:
                raise GateError(
                    f"at batch {batch} a score differs by {difference:.2g} from the same picture "
                    f"alone (allowed {tolerance:.2g}); leave --batch {batch} out"
                )
            ms = float(np.median([_call(engine.infer, picked) for _ in range(ROUNDS)]))
            told.append(
                {
                    "batch": batch,
                    "ms": round(ms, 3),
                    "ms_per_image": round(ms / batch, 3),
                    "difference": difference,
                }
            )
    return told


def _call(infer: Any, images: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    infer(images)
    return 1e3 * (time.perf_counter() - began)
