"""`--calib-method auto`: every method tried, the best on the tune set kept.

The tune set is good pictures and artificial defects (`calib.artificial`); no test image chooses.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.calib.artificial import TuneJudge, TuneSet, drop
from ndp_edge.calib.calibrate import checked, describe, quantised
from ndp_edge.calib.ranges import METHODS, collect
from ndp_edge.console import info
from ndp_edge.engines import open_engine
from ndp_edge.files import write_atomic

TIE = 0.01
"""Difference of two methods' `drop` that is luck. On the built-in surface a method's drop against
minmax's moved by up to 0.010 with the seed of the defects (48 pictures, four seeds), while on
300 pictures all four methods lay within 0.004 of each other."""


def calibrate_auto(
    fp32_onnx: Path,
    images: NDArray[np.uint8],
    out: Path,
    *,
    tune: TuneSet,
    backend: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the int8 model of the method that is best on the tune set, as `calibrate` does.

    The tensors are computed once for all methods.

    Args:
        fp32_onnx, images, out, seed: as of `calibrate`.
        tune: what the candidates are judged on; shares no picture with `images`.
        backend: "openvino" or "onnxruntime"; what judges them.

    Returns:
        As `calibrate`, with method the one kept, and: asked "auto", judged_on the backend,
        tune the number of pictures, tie TIE, fp32 its figures on them, candidates: one dict per
        method with method, the figures of `TuneJudge.score`, drop and kept.

    Raises:
        InputError, MachineError: as `calibrate`; the backend is missing.
    """
    began = time.perf_counter()
    model = checked(fp32_onnx, images)
    found = collect(model, images)
    files = {method: quantised(model, found.ranges(method)) for method in METHODS}
    with open_engine(backend, fp32_onnx, precision="fp32") as engine:
        judge = TuneJudge(tune, engine)
    figures = {method: _try(data, judge, backend) for method, data in files.items()}
    candidates = [
        {"method": method, **told, "drop": drop(told, judge.fp32)}
        for method, told in figures.items()
    ]
    kept = pick(candidates)
    info(f"calibration by {kept}, the best of {len(METHODS)} on the tune set")
    write_atomic(out, files[kept])
    return {
        **describe(model, found.extremes, kept, seed, len(images)),
        "asked": "auto",
        "judged_on": backend,
        "tune": len(tune.images),
        "tie": TIE,
        "fp32": judge.fp32,
        "candidates": [{**line, "kept": line["method"] == kept} for line in candidates],
        "seconds": round(time.perf_counter() - began, 3),
    }


def pick(candidates: Sequence[Mapping[str, Any]]) -> str:
    """The method of least drop; of those within TIE of it the first in the order of METHODS.

    Args:
        candidates: method and drop (see `artificial.drop`) of each, in any order.
    """
    least = min(float(line["drop"]) for line in candidates)
    near = [str(line["method"]) for line in candidates if float(line["drop"]) <= least + TIE]
    return min(near, key=METHODS.index)


def _try(data: bytes, judge: TuneJudge, backend: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="ndp-edge-calib-") as folder:
        path = Path(folder) / "candidate.onnx"
        path.write_bytes(data)
        with open_engine(backend, path, precision="int8") as engine:
            return judge.score(engine)
