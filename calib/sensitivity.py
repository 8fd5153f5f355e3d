"""Which layers INT8 costs most in: each group back to float in turn, and what that brings.

Turning one off in the whole INT8 net, and not one on in the FP32 net, asks what a fall-back
wants to know: how much better the net gets that would be shipped. Judged on good pictures and
artificial defects (`calib.artificial`), never on test images.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.calib.artificial import TuneSet, figures
from ndp_edge.calib.partial import Quantised, groups
from ndp_edge.console import progress
from ndp_edge.engines import open_engine
from ndp_edge.postprocess import smooth_max

GOOD_PICTURES = 4
"""Of the tune split; with their artificial defects twelve pictures a group, about a second."""


def sensitivity(fp32: Path, int8: Path, tune: TuneSet, backend: str) -> dict[str, Any]:
    """Turn off each group of Q/DQ pairs in turn.

    Args:
        fp32: the exported ONNX.
        int8: its Q/DQ model, every convolution quantised.
        tune: a dozen pictures are enough: a map has 65536 values.
        backend: "openvino" or "onnxruntime".

    Returns:
        backend, pictures, seconds; fp32 and int8: their `artificial.figures`; layers: for each
        group name, tensors, convolutions, its figures when it is back in float, and gain, the
        share of the mean squared map difference that goes with it (negative: it got worse); the
        largest gain first.

    Raises:
        InputError: files that do not belong together.
        MachineError: the backend is missing.
    """
    began = time.perf_counter()
    quantised = Quantised.read(fp32, int8)
    found = groups(quantised.model)
    yardstick = _answer(backend, fp32, "fp32", tune)

    def told_of(model: Path) -> dict[str, float]:
        return figures(_answer(backend, model, "int8", tune), yardstick, tune)

    whole = told_of(int8)
    layers = []
    with tempfile.TemporaryDirectory(prefix="ndp-edge-layers-") as folder:
        trial = Path(folder) / "trial.onnx"
        for group in progress(found, total=len(found), label="layers"):
            quantised.leave_float(group.convolutions, trial)
            told = told_of(trial)
            line = {
                "name": group.name,
                "tensors": list(group.tensors),
                "convolutions": list(group.convolutions),
                **told,
                "gain": _gain(whole["map_rms"], told["map_rms"]),
            }
            layers.append(line)
    return {
        "backend": backend,
        "pictures": len(tune.images),
        "seconds": round(time.perf_counter() - began, 3),
        "fp32": figures(yardstick, yardstick, tune),
        "int8": whole,
        "layers": sorted(layers, key=lambda line: -line["gain"]),
    }


def _gain(whole: float, without: float) -> float:
    return 1 - (without / whole) ** 2 if whole > 0 else 0.0


def _answer(backend: str, model: Path, precision: str, tune: TuneSet) -> NDArray[np.float32]:
    """Maps float32 [N, H, W] after the median."""
    with open_engine(backend, model, precision=precision) as engine:
        maps = np.concatenate([engine.infer(image[None]) for image in tune.images])
    return smooth_max(maps)[0]
