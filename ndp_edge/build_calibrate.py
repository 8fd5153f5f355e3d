"""The calibrating part of a build: which pictures, by which method, and what the record says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.build_inputs import Net
from ndp_edge.console import info
from ndp_edge.data.folder import Sample, load_images
from ndp_edge.data.splits import Splits
from ndp_edge.engines import RUNNABLE, open_engine
from ndp_edge.errors import InputError
from ndp_edge.image import read_square
from ndp_edge.scoring import answer

if TYPE_CHECKING:
    from ndp_edge.calib.artificial import TuneSet


def calibration_samples(splits: Splits, wanted: int | None, size: int) -> list[Sample]:
    """`wanted` good pictures of the calibration split, spread over the surface's looks.

    By default all, or `sample.MOST` of more. The choice follows what the files hold and the
    split's seed, not names or order, and a longer choice begins with the shorter one.

    Args:
        size: side in pixels at which pictures are looked at: the net's.

    Raises:
        InputError: less than one wanted, or a picture that cannot be read.
    """
    from ndp_edge.calib.sample import MOST, farthest_points, statistics

    if wanted is not None and wanted < 1:
        raise InputError(f"--calib-images {wanted}: at least 1 is needed")
    ranked = _by_content(splits, splits.calibration)
    if wanted is not None and wanted > len(ranked):
        info(f"the calibration split has {len(ranked)} images, not {wanted}: taking all")
    features = statistics(read_square(sample.path, size) for sample in ranked)
    return [ranked[i] for i in farthest_points(features, wanted or MOST, splits.seed)]


def tune_set(splits: Splits, size: int, most: int | None = None) -> TuneSet:
    """Good pictures of the tune split and artificial defects on them (`calib.artificial`).

    Args:
        size: side in pixels.
        most: good pictures at most; None: `artificial.MOST_GOOD`.

    Raises:
        InputError: the tune split is empty, or a picture cannot be read.
    """
    from ndp_edge.calib.artificial import MOST_GOOD, make_tune_set

    require_tune(splits)
    samples = _by_content(splits, splits.tune)[: most or MOST_GOOD]
    return make_tune_set(load_images(samples, size), splits.seed)


def require_tune(splits: Splits) -> None:
    """Raise InputError where there is no tune split."""
    if not splits.tune:
        raise InputError(
            "too few good pictures for a tune split, on which the choice is made; add photographs "
            "to train/good"
        )


def quantise(
    net: Net, splits: Splits, out: Path, *, method: str, wanted: int | None, backend: str
) -> dict[str, Any]:
    """Calibrate on good images of the calibration split alone; writes the INT8 ONNX.

    Args:
        method: a calibration method, or "auto": the best of all on the tune split.
        wanted: pictures to calibrate on; None: see `calibration_samples`.
        backend: what the build judges on; only "auto" asks. One for cards is stood in for by
            ONNX Runtime, which computes symmetric int8 as the file says.

    Returns:
        As `calibrate` or `calibrate_auto`, with pool (pictures that there were to choose from),
        files (name -> sha256 of those chosen), hashes (sorted) and scores (name -> FP32's score,
        for `build_pictures`).
    """
    size = net.config.image_size
    judge = backend if backend in RUNNABLE else "onnxruntime"
    samples = calibration_samples(splits, wanted, size)
    images = load_images(samples, size)
    info(f"calibrating on {len(samples)} good images ({method})")
    if method == "auto":
        from ndp_edge.calib.auto import calibrate_auto

        tune = tune_set(splits, size)
        done = calibrate_auto(net.model, images, out, tune=tune, backend=judge, seed=splits.seed)
    else:
        from ndp_edge.calib.calibrate import calibrate

        done = calibrate(net.model, images, out, method=method, seed=splits.seed)
    files = {sample.name: splits.hashes[sample.name] for sample in samples}
    scores = _fp32_scores(net.model, images, judge)
    told = {
        "pool": len(splits.calibration),
        "files": files,
        "scores": dict(zip(files, scores, strict=True)),
    }
    return {**done, **told, "hashes": sorted(set(files.values()))}


def _fp32_scores(model: Path, images: NDArray[np.uint8], backend: str) -> list[float]:
    """Of the very arrays that calibrated, whatever file they came from."""
    with open_engine(backend, model, precision="fp32") as engine:
        found = answer({"fp32": engine}, images, "calibration")["fp32"]
    return [float(score) for score in found.scores]


def _by_content(splits: Splits, samples: list[Sample]) -> list[Sample]:
    """Ordered by file hash, so that names decide nothing; a copy keeps beside its original."""
    return sorted(samples, key=lambda sample: (splits.hashes[sample.name], sample.name))
