"""Planted faults in a legal Q/DQ graph, each named; and what reaches the plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ndp_edge.build_trt import Models, realise
from ndp_edge.calib.legality import complaints, require_legal
from ndp_edge.calib.whole import activation_scales, quantize_whole
from ndp_edge.errors import InputError
from ndp_edge.export.precision import to_fp16

Files = tuple[Path, Path]


@pytest.fixture
def model(files: Files) -> onnx.ModelProto:
    return onnx.load(files[1])


def _store(model: onnx.ModelProto, name: str, value: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
            return
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def _uint8(m: onnx.ModelProto) -> None:
    _store(m, "u8", np.zeros((), np.uint8))
    for part in ("q", "dq"):
        _node(m, f"encoder.stage1.conv1.{part}").input[2] = "u8"


def _zero_point(m: onnx.ModelProto) -> None:
    _store(m, "three", np.array(3, np.int8))
    _node(m, "encoder.stage1.conv1.q").input[2] = "three"


def _no_zero_point(m: onnx.ModelProto) -> None:
    del _node(m, "encoder.stage1.conv1.q").input[2]


def _axis(m: onnx.ModelProto) -> None:
    _node(m, "encoder.stage1.conv2.weight.dq").attribute[0].i = 1


def _per_tensor_weights(m: onnx.ModelProto) -> None:
    _store(m, "encoder.stage2.conv2.weight.scale", np.float32(0.1))


def _per_channel_activation(m: onnx.ModelProto) -> None:
    _store(m, "encoder.stage1.conv1.scale", np.full(8, 0.01, np.float32))


def _two_scales_of_a_pair(m: onnx.ModelProto) -> None:
    _store(m, "other", np.float32(0.5))
    _node(m, "encoder.stage1.conv1.dq").input[1] = "other"


def _scale_zero(m: onnx.ModelProto) -> None:
    _store(m, "encoder.stage1.conv1.scale", np.float32(0))


def _concat(m: onnx.ModelProto) -> None:
    _store(m, "encoder.stage1.conv2.scale", np.float32(0.5))


def _lowest_code(m: onnx.ModelProto) -> None:
    name = "encoder.stage1.conv2.weight.int8"
    codes = next(numpy_helper.to_array(t) for t in m.graph.initializer if t.name == name).copy()
    codes.flat[0] = -128
    _store(m, name, codes)


def _half_quantised(m: onnx.ModelProto) -> None:
    _node(m, "encoder.stage1.conv2.conv").input[0] = "encoder.stage1.conv1"


def _inside_conv_and_relu(m: onnx.ModelProto) -> None:
    """Conv -> Q -> DQ -> Relu."""
    relu = _node(m, "encoder.stage1.conv2")
    pair = [
        helper.make_node(
            "QuantizeLinear", [relu.input[0], "encoder.stage1.conv1.scale", "z8"], ["pq"], name="pq"
        ),
        helper.make_node(
            "DequantizeLinear", ["pq", "encoder.stage1.conv1.scale", "z8"], ["pd"], name="pd"
        ),
    ]
    _store(m, "z8", np.zeros((), np.int8))
    at = list(m.graph.node).index(relu)
    for node in reversed(pair):
        m.graph.node.insert(at, node)
    _node(m, "encoder.stage1.conv2").input[0] = "pd"


FAULTS: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (_uint8, "codes of uint8"),
    (_zero_point, "zero-point other than 0"),
    (_no_zero_point, "no constant zero-point"),
    (_axis, "on axis 1"),
    (_per_tensor_weights, r"scales \(\)"),
    (_per_channel_activation, "an activation with 8 scales"),
    (_two_scales_of_a_pair, "dequantised with another scale"),
    (_scale_zero, "not above 0"),
    (_concat, "different scales"),
    (_lowest_code, "-128"),
    (_half_quantised, "only its weight is quantised"),
    (_inside_conv_and_relu, "between encoder.stage1.conv2.conv and its Relu"),
]


def test_what_calibration_writes_is_legal(files: Files, model: onnx.ModelProto) -> None:
    assert complaints(model) == []
    assert complaints(to_fp16(model)) == []
    assert complaints(onnx.load(files[0])) == []


@pytest.mark.parametrize(("plant", "words"), FAULTS, ids=lambda part: getattr(part, "__name__", ""))
def test_a_planted_fault_is_named(
    model: onnx.ModelProto, plant: Callable[[onnx.ModelProto], None], words: str
) -> None:
    plant(model)
    with pytest.raises(InputError, match=words):
        require_legal(model)


def test_the_builder_refuses_an_illegal_graph(
    files: Files, model: onnx.ModelProto, tmp_path: Path
) -> None:
    _uint8(model)
    onnx.save(model, tmp_path / "model.int8.onnx")
    with pytest.raises(InputError, match="codes of uint8"):
        realise(Models(files[0], tmp_path / "model.int8.onnx"), "int8", "native")


def test_a_pair_right_before_a_plugin_has_to_be_meant(files: Files, model: onnx.ModelProto) -> None:
    whole = quantize_whole(onnx.load(files[0]), model)
    assert complaints(whole) == []
    node = next(n for n in whole.graph.node if n.op_type == "RBFRM")
    node.input[0] = f"{node.input[0]}.dequantised"
    assert len(complaints(whole)) == 1
    assert "right before a plugin" in complaints(whole)[0]
    assert complaints(whole, int8_plugins=True) == []


def test_the_plugins_graph_has_the_same_scales_and_whole_nodes(
    files: Files, model: onnx.ModelProto
) -> None:
    whole = quantize_whole(onnx.load(files[0]), model)
    kinds = [n.op_type for n in whole.graph.node if n.domain == "ndp_edge"]
    assert kinds == ["RBFRM", "FFMSelect"] * 3
    native, plugin = activation_scales(model), activation_scales(whole)
    assert plugin.items() <= native.items()
    # Only what the plugin does inside is missing: exponentials, and a map that it alone reads.
    assert {name.rpartition(".")[2] for name in native.keys() - plugin.keys()} == {"exp", "conv2"}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_plugin_nodes_read_and_write_fp16(files: Files, precision: str) -> None:
    graph = onnx.load_from_string(realise(Models(*files), precision, "plugin")).graph
    stored = {t.name: t.data_type for t in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "RBFRM":
            assert stored[node.input[1]] == onnx.TensorProto.FLOAT16  # the reference
            assert stored[node.input[2]] == onnx.TensorProto.FLOAT  # norms of it
            assert made_by[node.input[0]].op_type == "Relu"
    assert not onnx.load_from_string(realise(Models(*files), precision, "plugin")).functions


def test_an_int8_engine_needs_an_int8_file(files: Files) -> None:
    with pytest.raises(InputError, match="--int8"):
        realise(Models(files[0]), "int8", "native")
    with pytest.raises(InputError, match="no quantised activation"):
        activation_scales(onnx.load(files[0]))
