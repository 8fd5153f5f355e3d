"""Golden inputs and outputs: how a bundle proves, anywhere, that its engines still answer alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.postprocess import smooth_max

if TYPE_CHECKING:
    from ndp_edge.engines.base import Engine

FP32_TOLERANCE = (1e-3, 1e-4)
"""Largest and mean absolute difference of two float32 maps: ten times the 1e-4 within which
ONNX Runtime, OpenVINO and torch agree, and a hundredth of what a defect changes."""

LOW_TOLERANCE = (2e-2, 2e-3)
"""The least that a lower precision is allowed; see `tolerance`."""

_LIMIT = 1 << 30
"""Bytes of pixels; a golden file holds a few images, more is no golden file."""


@dataclass(frozen=True)
class Golden:
    """Attributes:
    images: uint8 [n, H, W, 3], RGB.
    maps: engine key ("openvino-int8") -> float32 [n, H, W], as `Engine.infer` gave them.
    """

    images: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Replay:
    """How far an engine's answers lie from the golden ones.

    Attributes:
        max_abs, mean_abs: absolute difference of the maps (before the median).
        changed: images whose verdict differs.
        n: images replayed.
        passed: both differences are within tolerance, and the maps are finite.
    """

    max_abs: float
    mean_abs: float
    changed: int
    n: int
    passed: bool


def engine_key(backend: str, precision: str) -> str:
    """The name of an engine's maps in golden.npz and of its tolerances in the manifest."""
    return f"{backend}-{precision}"


def pick(scores: NDArray[Any], labels: NDArray[Any], each: int = 2) -> list[int]:
    """Indices of images to keep: `each` good and `each` defective, spread from the middle of
    their scores to the highest, so that the maps are neither all empty nor all extreme."""
    order = np.argsort(np.asarray(scores), kind="stable")
    chosen: list[int] = []
    for label in (0, 1):
        kind = [int(i) for i in order if int(labels[i]) == label]
        if kind:
            places = np.linspace(len(kind) // 2, len(kind) - 1, each).round().astype(int)
            chosen += [kind[i] for i in dict.fromkeys(places.tolist())]
    return chosen


def record(engine: Engine, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The engine's maps [n, H, W] for images [n, H, W, 3], one image per call as on a line."""
    return np.concatenate([engine.infer(images[i : i + 1]) for i in range(len(images))])


def tolerance(maps: NDArray[np.float32], fp32: NDArray[np.float32]) -> dict[str, float]:
    """What another device may differ by: {"max_abs", "mean_abs"}.

    Another CPU's int8 kernels may round otherwise, but not by more than what quantising cost
    here: the difference to FP32 on the same images, and at least LOW_TOLERANCE.
    """
    if maps is fp32:
        return {"max_abs": FP32_TOLERANCE[0], "mean_abs": FP32_TOLERANCE[1]}
    difference = np.abs(maps - fp32)
    return {
        "max_abs": max(LOW_TOLERANCE[0], float(difference.max())),
        "mean_abs": max(LOW_TOLERANCE[1], float(difference.mean())),
    }


def write_golden(path: Path, golden: Golden) -> None:
    """One .npz without pickles: "images" and one "maps.<engine key>" per engine."""
    arrays = {f"maps.{key}": maps for key, maps in golden.maps.items()}
    np.savez_compressed(path, images=golden.images, **arrays)  # type: ignore[arg-type]


def read_golden(path: Path) -> Golden:
    """Read what `write_golden` wrote.

    Raises:
        InputError: not such a file, or arrays of other shapes, types or values.
    """
    try:
        # Our own handle: np.load leaks its own when the file is damaged.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            images = file["images"]
            maps = {k.removeprefix("maps."): file[k] for k in file.files if k.startswith("maps.")}
    except Exception as error:  # zipfile, zlib, NumPy: each has its own for a damaged file
        raise InputError(f"{path} is no golden file ({error}); build the bundle again") from error
    good = images.dtype == np.uint8 and images.ndim == 4 and 0 < images.nbytes < _LIMIT
    for array in maps.values():
        good = good and array.dtype == np.float32 and array.shape == images.shape[:3]
        good = good and bool(np.isfinite(array).all())
    if not good or not maps:
        raise InputError(f"{path} holds other arrays than a golden file; build the bundle again")
    return Golden(images, maps)


def replay(
    engine: Engine, golden: Golden, key: str, allowed: dict[str, float], threshold: float
) -> Replay:
    """Run the golden images through an engine and compare with the maps under `key`.

    Raises:
        InputError: there are no maps under that key.
    """
    if key not in golden.maps:
        raise InputError(f"the golden file has no maps for {key}; build the bundle again")
    before = golden.maps[key]
    after = record(engine, golden.images)
    difference = np.abs(after - before)
    max_abs, mean_abs = float(difference.max()), float(difference.mean())
    passed = bool(
        np.isfinite(after).all()  # NaN compares as small to nothing and large to nothing
        and max_abs <= allowed["max_abs"]
        and mean_abs <= allowed["mean_abs"]
    )
    changed = int(np.sum(_rejects(before, threshold) != _rejects(after, threshold)))
    return Replay(max_abs, mean_abs, changed, len(before), passed)


def _rejects(maps: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    if not np.isfinite(maps).all():
        return np.ones(len(maps), np.bool_)  # what cannot be judged is rejected
    return smooth_max(maps)[1].astype(np.float64) > threshold
