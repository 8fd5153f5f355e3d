"""From an exported float32 ONNX and good images to the int8 ONNX."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ndp_edge.calib.graph import quantisable
from ndp_edge.calib.qdq import quantize
from ndp_edge.calib.ranges import Ranges, collect_ranges
from ndp_edge.calib.subpixel import as_convolutions
from ndp_edge.engines.base import image_size, read_model
from ndp_edge.errors import InputError
from ndp_edge.export.inline import inline
from ndp_edge.files import write_atomic


def calibrate(
    fp32_onnx: Path,
    images: NDArray[np.uint8],
    out: Path,
    *,
    method: str = "minmax",
    seed: int = 0,
) -> dict[str, Any]:
    """Write the static symmetric int8 Q/DQ model of `fp32_onnx` to `out`, atomically.

    The same model, images (in their order or another), method and seed give the same bytes.

    Args:
        fp32_onnx: what `export` wrote, local functions and all.
        images: uint8 [N, H, W, 3] RGB of the model's size: good product, none of it used to
            train, to set the threshold or to test.
        out: where to write.
        method: one of `ranges.METHODS`; see `ranges.collect_ranges`.
        seed: recorded; no method draws at random.

    Returns:
        method, n (images), seed, tensors (activations quantised), convolutions (in int8),
        seconds.

    Raises:
        InputError: no image, images of another size or dtype, an unknown method, or a model
            that is not one of ours.
        MachineError: onnxruntime is missing.
    """
    began = time.perf_counter()
    model = checked(fp32_onnx, images)
    ranges = collect_ranges(model, images, method)
    write_atomic(out, quantised(model, ranges))
    told = describe(model, ranges, method, seed, len(images))
    return {**told, "seconds": round(time.perf_counter() - began, 3)}


def checked(fp32_onnx: Path, images: NDArray[np.uint8]) -> onnx.ModelProto:
    """The graph to quantise (`flat`), of a file that fits the images.

    Raises:
        InputError: no model of ours, or images that do not fit it.
    """
    exported = read_model(fp32_onnx, "fp32")
    height, width = image_size(exported)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
        raise InputError(
            f"calibration images are {images.dtype} {images.shape}; "
            f"this net takes uint8 [N, {height}, {width}, 3]"
        )
    return flat(exported)


def flat(exported: onnx.ModelProto) -> onnx.ModelProto:
    """The exported float32 model as it is quantised: inlined, conv-transposes as convolutions."""
    return as_convolutions(inline(exported))


def quantised(model: onnx.ModelProto, ranges: Ranges, *, skip: Collection[str] = ()) -> bytes:
    """The int8 Q/DQ model as a file's bytes; equal arguments give equal ones.

    Args and errors as of `qdq.quantize`.
    """
    return bytes(quantize(model, ranges, skip=skip).SerializeToString(deterministic=True))


def describe(
    model: onnx.ModelProto, ranges: Ranges, method: str, seed: int, count: int
) -> dict[str, Any]:
    """What `calibrate` returns, less the time."""
    return {
        "method": method,
        "n": count,
        "seed": seed,
        "tensors": len(ranges),
        "convolutions": len(quantisable(model)),
    }
