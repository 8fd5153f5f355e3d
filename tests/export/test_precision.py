"""The precision plan: which tensors are FP16, which FP32 and why, and what it costs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.build_inputs import SHIPPED, load_dataset
from ndp_edge.calib.qdq import quantize
from ndp_edge.calib.ranges import collect_ranges
from ndp_edge.calib.subpixel import as_convolutions
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.data.folder import Sample, load_images, open_dataset
from ndp_edge.errors import InputError
from ndp_edge.export.functions import NORM_EPS
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.export.precision import RULES, plan, to_fp16

FP16, FP32 = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture(scope="module")
def exported(tiny: Checkpoint) -> onnx.ModelProto:
    return build_graph(tiny)


@pytest.fixture(scope="module")
def flat(exported: onnx.ModelProto) -> onnx.ModelProto:
    return inline(exported)


@pytest.fixture(scope="module")
def int8(kit: SimpleNamespace, flat: onnx.ModelProto) -> onnx.ModelProto:
    model = as_convolutions(flat)
    return quantize(model, collect_ranges(model, kit.noise(2, 64)))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> element type, as ONNX's strict inference finds it (mixed inputs fail there)."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)
    graph = inferred.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def test_the_plan_says_what_stays_fp32_and_why(flat: onnx.ModelProto) -> None:
    told = plan(flat)
    for tensor, word in {
        "rbam3.squares": "square",
        "rbam3.energy": "sum",
        "rbam3.k2.norm": "square",
        "rbam3.k2.root": "norm",
        "rbam3.k2.safe_norm": "norm",
        "rbam4.k4.per_norm": "more than FP16 holds",
        "rbam5.k2.shifted": "softmax",
        "rbam5.k2.exp": "softmax",
        "rbam5.k2.total": "sum",
        "rbam3.k2.correction": "softmax",
        "rbam3.k2.repaired": "mean",
        "rbam3.e0": "softmax",
        "rbam3.fused": "softmax",
        "combine.sum3": "eq. 11",
        "combine.map3.up": "eq. 11",
        "anomaly_map": "mean",
        "image01": "sum",
    }.items():
        precision, why = told[tensor]
        assert precision == "fp32", tensor
        assert word in why, tensor
    for tensor in ("encoder.stage1.conv1", "rbam3.k2.dots", "rbam3.r2", "rbam3.attend",
                   "decoder.step0.cat", "decoder.to_image", "msdsm1.logits"):  # fmt: skip
        assert told[tensor][0] == "fp16", tensor
    assert told["encoder.stage1.conv1.weight"][0] == "fp16"
    assert told["rbam3.norm_eps"][0] == "fp32"


@pytest.mark.parametrize("name", ["flat", "int8"])
def test_the_typed_graph_is_as_planned(name: str, request: pytest.FixtureRequest) -> None:
    model: onnx.ModelProto = request.getfixturevalue(name)
    before = model.SerializeToString()
    typed = to_fp16(model)
    assert model.SerializeToString() == before
    found = types(typed)
    for tensor, (precision, _) in plan(model).items():
        twin = f"{tensor}.fp16" if precision == "fp16" and tensor not in found else tensor
        assert found[twin] == (FP16 if precision == "fp16" else FP32), tensor
    assert typed.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert found["anomaly_map"] == FP32


@pytest.mark.parametrize("name", ["flat", "int8"])
def test_casts_stand_at_borders_alone(name: str, request: pytest.FixtureRequest) -> None:
    typed = to_fp16(request.getfixturevalue(name))
    found, made_by = types(typed), {o: n for n in typed.graph.node for o in n.output}
    casts = [n for n in typed.graph.node if n.op_type == "Cast"]
    assert len(casts) > 10
    for node in casts:
        assert found.get(node.input[0], TensorProto.UINT8) != found[node.output[0]]
        before = made_by.get(node.input[0])
        assert before is None or before.op_type != "Cast", "two casts in a row"
    first, second = typed.graph.node[:2]
    assert (first.op_type, second.op_type) == ("Cast", "Transpose")  # uint8 only into a Cast


def test_quantisers_agree_with_their_scales(int8: onnx.ModelProto) -> None:
    typed = to_fp16(int8)
    found = types(typed)
    nodes = [n for n in typed.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) > 100
    for node in nodes:
        float_side = node.input[0] if node.op_type == "QuantizeLinear" else node.output[0]
        assert found[float_side] == found[node.input[1]] == FP16
        assert found[node.input[2]] == TensorProto.INT8


def test_fp16_answers_as_fp32_does(kit: SimpleNamespace, flat: onnx.ModelProto) -> None:
    images = kit.noise(2, 64)
    plain, typed = kit.run_ort(flat, images), kit.run_ort(to_fp16(flat), images)
    assert np.isfinite(typed).all()
    assert np.ptp(plain) > 0.05
    assert np.abs(typed - plain).max() < 5e-3


def test_no_norm_is_lost(flat: onnx.ModelProto) -> None:
    """1e-12 is 0 in FP16, and a blank picture has patches of norm 0."""
    typed = to_fp16(flat)
    stored = {t.name: numpy_helper.to_array(t) for t in typed.graph.initializer}
    assert stored["rbam3.norm_eps"] == np.float32(NORM_EPS)
    assert "rbam3.norm_eps.fp16" not in stored


def _tiny(op: str, value: float) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", FP32, [1, 1, 4, 4])
    y = helper.make_tensor_value_info("y", FP32, ["n", "c", "h", "w"])
    weight = numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(op, ["c", "c"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=[weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_what_fp16_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="w reach beyond FP16"):
        to_fp16(_tiny("Add", 1e5))


def test_an_operator_without_a_rule_is_named() -> None:
    with pytest.raises(InputError, match="no precision rule for operator Pow"):
        to_fp16(_tiny("Pow", 1.0))
    with pytest.raises(InputError, match="Pow"):
        plan(_tiny("Pow", 1.0))
    assert "Pow" not in RULES


@pytest.mark.parametrize("scale", [0.01, 3.1e-5, 7e-6, 1e-12])
def test_weights_keep_their_values_however_small_their_scale(scale: float) -> None:
    """Below 6e-5 FP16 has fewer bits; the codes take up what the scale lost."""
    codes = np.arange(-127, 128, dtype=np.int8).reshape(1, -1, 1, 1)
    tensors = {
        "w.int8": codes,
        "w.scale": np.array([scale], np.float32),
        "w.zero": np.zeros(1, np.int8),
    }
    dequantise = helper.make_node("DequantizeLinear", list(tensors), ["w"], axis=0)
    convolve = helper.make_node("Conv", ["x", "w"], ["c"])
    nodes = [dequantise, convolve, helper.make_node("Add", ["c", "c"], ["y"])]
    x = helper.make_tensor_value_info("x", FP32, [1, 255, 1, 1])
    y = helper.make_tensor_value_info("y", FP32, ["n", "c", "h", "w"])
    stored = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], initializer=stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    found = {t.name: numpy_helper.to_array(t) for t in to_fp16(model).graph.initializer}
    half = found["w.scale.fp16"].astype(np.float64)
    assert half.dtype == np.float64
    assert (half > 0).all()
    wrong = np.abs(found["w.int8"] * half - codes * np.float64(np.float32(scale))).max()
    step = max(scale, float(np.finfo(np.float16).smallest_subnormal))
    assert wrong <= max(step / 2, 127 * scale * 2**-11) * 1.01


def _as_written(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """ONNX Runtime without its rewrites: one of them scales biases wrongly in FP16 Q/DQ graphs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    maps: np.ndarray = session.run(None, {"image": images})[0]
    return maps


def test_typed_int8_is_as_near_to_fp32_as_int8_is(
    kit: SimpleNamespace, flat: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    images = kit.noise(2, 64)
    plain, quantised = kit.run_ort(flat, images), _as_written(int8, images)
    typed = _as_written(to_fp16(int8), images)
    cost = np.abs(quantised - plain).mean()
    assert np.isfinite(typed).all()
    assert 0 < np.abs(typed - plain).mean() < 1.5 * cost


@pytest.fixture(scope="module")
def shipped() -> onnx.ModelProto:
    return inline(onnx.load(SHIPPED))


def _differ_little(kit: SimpleNamespace, model: onnx.ModelProto, samples: list[Sample]) -> None:
    images = load_images(samples, 256)
    plain, typed = kit.run_ort(model, images), kit.run_ort(to_fp16(model), images)
    assert np.isfinite(typed).all()
    assert np.ptp(plain) > 0.1
    assert np.abs(typed - plain).max() < 1e-2
    assert np.abs(typed.max((1, 2, 3)) - plain.max((1, 2, 3))).max() < 5e-3


def test_fp16_on_the_built_in_surface(kit: SimpleNamespace, shipped: onnx.ModelProto) -> None:
    test = load_dataset(None).test
    _differ_little(kit, shipped, [*test[:2], *test[-2:]])


def test_fp16_on_real_photographs(
    kit: SimpleNamespace, shipped: onnx.ModelProto, real_data: Path
) -> None:
    """Far from what the net was trained on: activations there are larger than at home."""
    test = open_dataset(real_data / "kolektor_sdd").test
    _differ_little(kit, shipped, [*test[:2], *test[-2:]])
