"""Ranges of activations, on graphs whose values are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    create_calibrator,
)

from ndp_edge.calib.clipping import BINS, CLIPS, PERCENTILE
from ndp_edge.calib.ranges import METHODS, collect, collect_ranges
from ndp_edge.errors import InputError

SIZE = 8


def model(gain: float = 2.0) -> onnx.ModelProto:
    """Cast, transpose, two 1x1 convolutions: x -> conv(identity) -> gain * relu -> conv."""
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "eye"], ["y"], name="first"),
        helper.make_node("Mul", ["y", "gain"], ["z"]),
        helper.make_node("Conv", ["z", "eye"], ["out"], name="second"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    weights = [
        numpy_helper.from_array(eye, "eye"),
        numpy_helper.from_array(np.array(gain, np.float32), "gain"),
    ]
    graph = helper.make_graph(nodes, "small", [image], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def ramp(count: int = 2) -> NDArray[np.uint8]:
    values = np.arange(count * SIZE * SIZE * 3) % 251
    return values.reshape(count, SIZE, SIZE, 3).astype(np.uint8)


def test_minmax_is_the_extremes_over_all_images() -> None:
    images = ramp()
    images[0, 0, 0, 0], images[1, 3, 3, 1] = 7, 255
    images = np.clip(images, 7, 255)
    assert collect_ranges(model(-3.0), images) == {"x": (7.0, 255.0), "z": (-765.0, -21.0)}


def test_the_order_of_the_images_does_not_matter() -> None:
    images = ramp(5)
    for method in METHODS:
        forward = collect_ranges(model(), images, method)
        assert forward == collect_ranges(model(), images[::-1], method)


@given(seed=st.integers(0, 1000), method=st.sampled_from(sorted(CLIPS)))
@settings(max_examples=10)
def test_the_clipping_methods_only_narrow(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    widest = collect_ranges(model(-2.0), images)
    for name, (low, high) in collect_ranges(model(-2.0), images, method).items():
        assert widest[name][0] <= low <= high <= widest[name][1]
        assert max(abs(low), abs(high)) > 0


@pytest.mark.parametrize(("method", "most"), [("entropy", 180), ("percentile", 180), ("mse", 220)])
def test_one_outlier_among_many_values_is_clipped(method: str, most: float) -> None:
    # 40 000 values: the outlier is 0.0025 % of them, less than the percentile leaves out. Most
    # values are small, so that levels spread up to the outlier would merge many of them. mse
    # pays for the outlier by the square of what it loses, and clips less.
    rng = np.random.default_rng(0)
    values = np.minimum(rng.geometric(0.1, (210, SIZE, SIZE, 3)), 100)
    images = values.astype(np.uint8)
    images[5, 2, 2, 0] = 255
    assert collect_ranges(model(), images)["x"][1] == 255
    assert 40 <= collect_ranges(model(), images, method)["x"][1] < most


class _Reader(CalibrationDataReader):
    """Hands ONNX Runtime's calibrators one image after the other."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


@pytest.mark.parametrize(
    ("method", "theirs", "options"),
    [
        ("minmax", CalibrationMethod.MinMax, {}),
        (
            "percentile",
            CalibrationMethod.Percentile,
            {"num_bins": BINS, "percentile": PERCENTILE, "symmetric": True},
        ),
    ],
)
def test_it_agrees_with_onnx_runtimes_calibrator(
    tmp_path: Path, method: str, theirs: CalibrationMethod, options: dict[str, float]
) -> None:
    rng = np.random.default_rng(0)
    images = np.minimum(rng.geometric(0.05, (210, SIZE, SIZE, 3)), 255).astype(np.uint8)
    images[5, 2, 2, 0] = 255
    onnx.save(model(-3.0), tmp_path / "m.onnx")
    calibrator = create_calibrator(
        str(tmp_path / "m.onnx"),
        ["Conv"],
        augmented_model_path=str(tmp_path / "wide.onnx"),
        calibrate_method=theirs,
        extra_options=options,
    )
    calibrator.collect_data(_Reader(images))
    found = calibrator.compute_data().data
    for name, (low, high) in collect_ranges(model(-3.0), images, method).items():
        bin_width = max(abs(v) for v in collect_ranges(model(-3.0), images)[name]) / BINS
        wanted = [float(np.squeeze(v)) for v in found[name].range_value]
        assert [low, high] == pytest.approx(wanted, abs=bin_width if method != "minmax" else 0)


def test_one_collection_serves_every_method() -> None:
    images = ramp(3)
    found = collect(model(-3.0), images)
    for method in METHODS:
        assert found.ranges(method) == collect_ranges(model(-3.0), images, method)
    for name, (low, high) in found.extremes.items():
        assert found.counts[name].sum() == images.size
        assert found.counts[name][-1] > 0, f"the largest magnitude of {low}..{high} is counted"


@pytest.mark.parametrize("method", METHODS)
def test_black_images_give_a_finite_range(method: str) -> None:
    black = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    assert collect_ranges(model(), black, method) == {"x": (0.0, 0.0), "z": (0.0, 0.0)}


def test_a_tensor_that_is_not_finite_is_named() -> None:
    with pytest.raises(InputError, match="tensor z NaN or infinite"):
        collect_ranges(model(float("inf")), ramp())


def test_unknown_methods_and_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no calibration method 'guess'"):
        collect_ranges(model(), ramp(), "guess")
    with pytest.raises(InputError, match="no calibration image"):
        collect_ranges(model(), ramp(0))
