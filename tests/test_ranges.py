"""Ranges of activations, on graphs whose values are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.calib.ranges import METHODS, collect_ranges
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


@given(seed=st.integers(0, 1000), method=st.sampled_from(["entropy", "percentile"]))
@settings(max_examples=10)
def test_the_clipping_methods_only_narrow(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    widest = collect_ranges(model(-2.0), images)
    for name, (low, high) in collect_ranges(model(-2.0), images, method).items():
        assert widest[name][0] <= low <= high <= widest[name][1]
        assert max(abs(low), abs(high)) > 0


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_one_outlier_among_many_values_is_clipped(method: str) -> None:
    # 40 000 values: the outlier is 0.0025 % of them, less than the percentile leaves out. Most
    # values are small, so that levels spread up to the outlier would merge many of them.
    rng = np.random.default_rng(0)
    values = np.minimum(rng.geometric(0.1, (210, SIZE, SIZE, 3)), 100)
    images = values.astype(np.uint8)
    images[5, 2, 2, 0] = 255
    assert collect_ranges(model(), images)["x"][1] == 255
    assert 40 <= collect_ranges(model(), images, method)["x"][1] < 180


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
