"""The end of the net as matrix products: the same numbers, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ndp_edge.build_inputs import SHIPPED
from ndp_edge.engines import open_engine
from ndp_edge.engines.executed import executed_layers
from ndp_edge.engines.tail import enlarge_matrix, mean_matrix, with_products
from ndp_edge.export.inline import inline


def tail(side: int, factors: list[int], window: int = 5, **pool: int) -> onnx.ModelProto:
    """Maps `m0`, `m1`, ... weighted, enlarged by `factors`, summed and averaged to `out`."""
    nodes, constants, total = [], [], ""
    inputs = []
    for i, factor in enumerate(factors):
        small = [1, 1, side // factor, side // factor]
        inputs.append(helper.make_tensor_value_info(f"m{i}", TensorProto.FLOAT, small))
        constants.append(numpy_helper.from_array(np.float32(0.2 * (i + 1)), f"weight{i}"))
        nodes.append(helper.make_node("Mul", [f"m{i}", f"weight{i}"], [f"w{i}"], name=f"w{i}"))
        x = f"w{i}"
        if factor > 1:
            scales = np.array([1, 1, factor, factor], np.float32)
            constants.append(numpy_helper.from_array(scales, f"scales{i}"))
            nodes.append(
                helper.make_node(
                    "Resize",
                    [x, "", f"scales{i}"],
                    [f"up{i}"],
                    name=f"up{i}",
                    mode="linear",
                    coordinate_transformation_mode="half_pixel",
                )
            )
            x = f"up{i}"
        if total:
            nodes.append(helper.make_node("Add", [total, x], [f"sum{i}"], name=f"sum{i}"))
        total = f"sum{i}" if total else x
    given_pool = {"kernel_shape": [window] * 2, "strides": [1, 1], "pads": [window // 2] * 4}
    given_pool["count_include_pad"] = pool.get("count_include_pad", 0)
    nodes.append(helper.make_node("AveragePool", [total], ["out"], name="out", **given_pool))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, side, side])
    graph = helper.make_graph(nodes, "tail", inputs, [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answer(model: onnx.ModelProto, maps: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    feeds = {f"m{i}": value for i, value in enumerate(maps)}
    found: NDArray[np.float32] = ReferenceEvaluator(model).run(None, feeds)[0]
    return found


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@settings(max_examples=25, deadline=None)
@given(
    side=st.sampled_from([8, 12, 16, 24]),
    factors=st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_sum_of_maps_stays(side: int, factors: list[int], seed: int) -> None:
    model = tail(side, factors)
    rng = np.random.default_rng(seed)
    maps = [rng.random((1, 1, side // f, side // f), np.float32) for f in factors]
    want = answer(model, maps)
    with_products(model, (side, side))
    assert set(kinds(model)) == {"MatMul", "Add"}
    onnx.checker.check_model(model, full_check=True)
    assert np.abs(answer(model, maps) - want).max() < 5e-6


@given(side=st.integers(1, 40), factor=st.integers(1, 5))
def test_enlarging_keeps_means_of_constants_and_never_leaves_the_range(
    side: int, factor: int
) -> None:
    matrix = enlarge_matrix(side, factor)
    assert matrix.shape == (side * factor, side)
    assert (matrix >= 0).all()
    assert np.allclose(matrix.sum(axis=1), 1)
    assert np.allclose(matrix, matrix[::-1, ::-1])


@given(side=st.integers(1, 40), window=st.sampled_from([1, 3, 5]))
def test_a_mean_counts_what_is_inside_the_edge(side: int, window: int) -> None:
    values = np.random.default_rng(0).random(side)
    reach = window // 2
    want = [values[max(0, i - reach) : i + reach + 1].mean() for i in range(side)]
    assert np.allclose(mean_matrix(side, window) @ values, want)


@pytest.mark.parametrize("spoil", ["padding counts", "half of it is read", "size", "nearest"])
def test_another_end_is_left_alone(spoil: str) -> None:
    model = tail(16, [1, 2], count_include_pad=int(spoil == "padding counts"))
    size = (15, 15) if spoil == "size" else (16, 16)
    if spoil == "half of it is read":
        model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
        model.graph.node.append(helper.make_node("Identity", ["sum1"], ["x"], name="x"))
    if spoil == "nearest":
        resize = next(node for node in model.graph.node if node.op_type == "Resize")
        resize.attribute[0].s = b"nearest"
    before = model.SerializeToString()
    with_products(model, size)
    assert model.SerializeToString() == before


def test_the_shipped_net_ends_in_products_and_answers_as_the_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    with (
        open_engine("openvino", SHIPPED, precision="fp32") as ours,
        open_engine("onnxruntime", SHIPPED, precision="fp32") as plain,
    ):
        assert np.abs(ours.infer(images) - plain.infer(images)).max() < 1e-5
    types = {layer.type for layer in executed_layers(SHIPPED, images, precision="fp32", runs=1)}
    assert not types & {"Interpolate", "Resize"}


def test_the_exported_graph_keeps_its_own_end() -> None:
    assert kinds(inline(onnx.load(SHIPPED)))[-1] == "AveragePool"
