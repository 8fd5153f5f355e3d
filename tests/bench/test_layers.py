"""Operations and bytes per layer: against counts by hand, and against the design's totals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.bench import layers
from ndp_edge.bench.cost import Cost, cost_of
from ndp_edge.bench.readings import as_described, with_wide_heads
from ndp_edge.build_inputs import SHIPPED
from ndp_edge.errors import InputError
from ndp_edge.model.config import preset


def model(
    nodes: list[onnx.NodeProto], weights: dict[str, list[int]], c: int, side: int
) -> onnx.ModelProto:
    """float32 [1, c, side, side] through `nodes` to `y`, whose shape is inferred."""
    constants = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, c, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None, None, None])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@settings(max_examples=30, deadline=None)
@given(
    c_in=st.integers(1, 9),
    c_out=st.integers(1, 9),
    side=st.integers(3, 17),
    k=st.sampled_from([1, 3]),
)
def test_a_convolution_and_its_relu_by_hand(c_in: int, c_out: int, side: int, k: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["z"], name="conv", pads=[k // 2] * 4),
        helper.make_node("Relu", ["z"], ["y"], name="relu"),
    ]
    net = model(nodes, {"w": [c_out, c_in, k, k], "b": [c_out]}, c_in, side)
    (group,) = cost_of(net).groups
    pixels, weights = side * side, c_out * c_in * k * k + c_out
    assert group.flops == 2 * pixels * c_out * c_in * k * k
    assert group.weights == weights
    # The ReLU's input never leaves the group.
    assert group.traffic("fp32") == 4 * (pixels * (c_in + c_out) + weights)
    # INT8 quantises what the convolution reads; what it writes nobody convolves.
    assert group.traffic("int8") == pixels * c_in + 2 * pixels * c_out + weights
    eager = cost_of(net, fused=False)
    assert [g.nodes for g in eager.groups] == [("Conv",), ("BatchNormalization",), ("Relu",)]
    assert eager.flops == group.flops
    moved = pixels * (c_in + c_out) + weights + 4 * pixels * c_out
    assert eager.traffic("fp32") == 4 * moved


def test_a_conv_transpose_by_hand() -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2], pads=[1, 1, 1, 1]
    )
    (group,) = cost_of(model([node], {"w": [3, 5, 4, 4]}, 3, 8)).groups
    assert group.flops == 2 * 8 * 8 * 3 * 5 * 4 * 4


def test_a_tensor_read_twice_is_written_once_and_read_by_each() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "v"], ["b"], name="second"),
        helper.make_node("Concat", ["a", "b"], ["y"], name="cat", axis=1),
    ]
    found = cost_of(model(nodes, {"w": [2, 2, 1, 1], "v": [2, 2, 1, 1]}, 2, 4))
    elements = [group.narrow + group.wide for group in found.groups]
    assert elements == [32 + 32, 32 + 32, 64 + 64]


@pytest.fixture(scope="module")
def nano() -> Cost:
    return cost_of(onnx.load(SHIPPED))


def test_int8_moves_less_than_fp16_and_that_half_of_fp32(nano: Cost) -> None:
    assert nano.traffic("fp16") * 2 == nano.traffic("fp32")
    assert nano.traffic("int8") < nano.traffic("fp16")
    for group in nano.groups:
        assert group.traffic("int8") <= group.traffic("fp16")


def test_wide_heads_and_the_described_procedure_cost_more(nano: Cost) -> None:
    config = preset("nano")
    wide = with_wide_heads(nano, config)
    heads = sum(g.flops for g in wide.groups if g.name.startswith("msdsm"))
    want = 0
    for scale in (1, 2, 3):
        c, side = config.channels[scale - 1], config.stage_size(scale)
        want += 2 * side * side * 9 * (2 * c * c + c * c // 2 + c // 2)
    assert heads == want
    described = as_described(wide)
    encoder = sum(g.flops for g in nano.groups if g.name.startswith("encoder."))
    again = sum(g.flops for g in nano.groups if g.name.startswith("reencoder."))
    assert described.flops == wide.flops + encoder + again
    assert described.parameters == wide.parameters


@pytest.mark.slow
def test_the_paper_preset_has_the_designs_totals() -> None:
    """DESIGN section 3: 187 GFLOP, 38.8 M parameters with 3x3 heads; ours are cheaper."""
    pytest.importorskip("torch")
    ours = cost_of(layers.preset_model("paper"))
    wide = with_wide_heads(ours, preset("paper"))
    assert wide.flops / 1e9 == pytest.approx(187, abs=0.5)
    assert wide.parameters / 1e6 == pytest.approx(38.8, abs=0.1)
    assert ours.flops / 1e9 == pytest.approx(159.4, abs=0.1)


def test_the_command_prints_layers_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "layers.json"
    assert layers.main([str(SHIPPED), "--top", "3", "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "rbam3.attend" in lines[1]
    found = json.loads(out.read_text())
    assert found["gflop"] == pytest.approx(sum(g["flops"] for g in found["layers"]) / 1e9, abs=1e-3)


def test_what_is_not_a_net_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no net")
    assert layers.main([str(bad)]) == 2
    two = helper.make_node("MatMul", ["x", "x"], ["y"], name="square")
    with pytest.raises(InputError, match="two activations"):
        cost_of(model([two], {}, 1, 4))
