"""Ranges of the tensors to quantise, from images of good product.

ONNX Runtime computes the tensors; the statistics are our own. Its entropy and percentile
calibrators keep every activation of every image in memory (the tensors of 40 images of `nano`
are 4.3 GB, of `paper` four times that), and its minmax writes its graph to a file. Here each
image is reduced to a histogram per tensor and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ndp_edge.calib.clipping import BINS, CLIPS
from ndp_edge.calib.graph import quantisable, scale_groups
from ndp_edge.engines.base import missing
from ndp_edge.errors import InputError

METHODS = ("minmax", *CLIPS)
"""In the order in which `auto` prefers equals."""

MOST_VALUES = 1 << 16
"""Values of one tensor and image that enter its histogram; of a larger tensor every n-th does."""

Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Statistics:
    """What every method needs to know of the tensors to quantise.

    Attributes:
        extremes: tensor -> (lowest, highest).
        counts: tensor -> int64 [BINS] magnitudes over [0, largest]; empty where only minmax
            was wanted.
    """

    extremes: Ranges
    counts: dict[str, NDArray[np.int64]]

    def ranges(self, method: str) -> Ranges:
        """Ranges by one method, as `collect_ranges` gives them."""
        if method == "minmax":
            return dict(self.extremes)
        clip, ranges = CLIPS[method], Ranges()
        for name, (low, high) in self.extremes.items():
            limit = max(abs(low), abs(high)) * clip(self.counts[name]) / BINS
            ranges[name] = (max(low, -limit), min(high, limit))
        return ranges


def collect_ranges(
    model: onnx.ModelProto, images: NDArray[np.uint8], method: str = "minmax"
) -> Ranges:
    """Range of every activation that `qdq.quantize` quantises.

    Args:
        model: inlined float32 model with one uint8 input [N, H, W, 3].
        images: uint8 [N, H, W, 3], good product only; one at a time goes through the model.
        method: "minmax": the extremes. "percentile": clips the 0.01 % largest magnitudes.
            "entropy": the clip whose 128 levels lose least information (Kullback-Leibler, as
            TensorRT's calibrator). "mse": the clip of least mean squared error. All but minmax
            only ever narrow the extremes.

    Returns:
        tensor name -> (lowest, highest), both finite.

    Raises:
        InputError: an unknown method, no image, or a model that makes NaN or infinity of one.
        MachineError: onnxruntime is missing.
    """
    if method not in METHODS:
        raise InputError(f"no calibration method {method!r}; there are {', '.join(METHODS)}")
    return collect(model, images, histograms=method != "minmax").ranges(method)


def collect(
    model: onnx.ModelProto, images: NDArray[np.uint8], *, histograms: bool = True
) -> Statistics:
    """Statistics for every method from one or (with histograms) two passes over the images.

    Raises:
        InputError: no image, or a model that makes NaN or infinity of one.
        MachineError: onnxruntime is missing.
    """
    if len(images) == 0:
        raise InputError("no calibration image; give at least one photograph of good product")
    names = sorted(scale_groups(model, quantisable(model)))
    extremes = _extremes(model, names, images)
    return Statistics(extremes, _histograms(model, names, images, extremes) if histograms else {})


def _extremes(model: onnx.ModelProto, names: list[str], images: NDArray[np.uint8]) -> Ranges:
    """Smallest and largest value of each tensor, reduced inside the graph."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    outputs: list[str] = []
    for i, name in enumerate(names):
        for op in ("ReduceMin", "ReduceMax"):
            outputs.append(f"ndp_edge.{op}.{i}")
            wide.graph.node.append(helper.make_node(op, [name], [outputs[-1]], keepdims=0))
    low = np.full(len(names), np.inf)
    high = np.full(len(names), -np.inf)
    for index, values in enumerate(_run(wide, outputs, images)):
        found = np.array([float(v) for v in values]).reshape(-1, 2)
        if not np.isfinite(found).all():
            name = names[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]
            raise InputError(f"calibration image {index} makes tensor {name} NaN or infinite")
        low, high = np.minimum(low, found[:, 0]), np.maximum(high, found[:, 1])
    return {n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}


def _histograms(
    model: onnx.ModelProto, names: list[str], images: NDArray[np.uint8], extremes: Ranges
) -> dict[str, NDArray[np.int64]]:
    """Counts of magnitudes in BINS equal bins up to each tensor's largest magnitude.

    One float multiplication and one bincount per value: twice as fast as np.histogram.
    The step through a large tensor is odd, so that it visits every column of its rows.
    """
    limits = [max(abs(v) for v in extremes[name]) for name in names]
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for values in _run(model, names, images):
        for name, value, limit in zip(names, values, limits, strict=True):
            if limit > 0:
                step = -(-value.size // MOST_VALUES) | 1
                scaled = np.abs(value.ravel()[::step]) * np.float32(BINS / limit)
                bins = np.minimum(scaled, BINS - 1).astype(np.int16)
                counts[name] += np.bincount(bins, minlength=BINS)
    return counts


def _run(
    model: onnx.ModelProto, outputs: list[str], images: NDArray[np.uint8]
) -> Iterator[list[NDArray[np.float32]]]:
    """The named tensors for one image after the other."""
    try:
        import onnxruntime as ort  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("onnxruntime", "pip install onnxruntime") from error
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.output[:]
    wide.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Threads that spin while they wait would take the cores from the statistics between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(
        wide.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    for image in images:
        yield session.run(outputs, {feed: image[None]})
