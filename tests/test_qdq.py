"""Q/DQ by TensorRT's rules, checked on the written graph, and what it costs in accuracy."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.calib.calibrate import calibrate
from ndp_edge.calib.qdq import quantize
from ndp_edge.calib.ranges import collect_ranges
from ndp_edge.calib.subpixel import as_convolutions
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.engines.unsigned import UNSIGNED_KEY, to_unsigned
from ndp_edge.errors import InputError
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet

SIDE = 64
Images = NDArray[np.uint8]


def pictures(count: int, seed: int = 0) -> Images:
    """Smooth coloured waves, as a surface might be."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE][..., None]
    waves = []
    for _ in range(count):
        across, down = rng.uniform(0.1, 0.9, (2, 3))
        waves.append(np.sin(x * across + y * down))
    return (127 + 100 * np.stack(waves)).astype(np.uint8)


@functools.cache
def exported() -> onnx.ModelProto:
    """A small net with random weights and lively maps, exported."""
    torch.manual_seed(0)
    net = NDPNet(NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=SIDE))
    images = torch.from_numpy(pictures(4)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for _ in range(5):
            net(images)  # in training mode: fills the batch norms' statistics
        net.eval().set_reference(images[:1])
        for head, logits in zip(net.msdsm.heads, net.analyse(images).logits, strict=True):
            head.to_map.weight.div_(logits.std())  # maps that use their whole range
            head.to_map.bias.sub_(logits.mean()).div_(logits.std())
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    return build_graph(Checkpoint(net.config, weights))


@functools.cache
def float_model() -> onnx.ModelProto:
    return as_convolutions(inline(exported()))


@functools.cache
def int8_model() -> onnx.ModelProto:
    return quantize(float_model(), collect_ranges(float_model(), pictures(4)))


def run(model: onnx.ModelProto, images: Images) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    maps: NDArray[np.float32] = session.run(None, {"image": images})[0]
    return maps


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


PICTURES = {"encoder.stage1.conv1.conv"}
"""What reads the camera's image stays in float."""


def test_every_convolution_of_features_reads_int8_activations_and_int8_weights() -> None:
    model = int8_model()
    made_by = {name: node for node in model.graph.node for name in node.output}
    values = constants(model)
    convolutions = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    before = [n for n in inline(exported()).graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert {n.name for n in convolutions} == {n.name for n in before}
    for node in convolutions:
        if node.name in PICTURES:
            assert node.input[1] in values
            assert node.input[0] == "image01"
            continue
        activation, weight = made_by[node.input[0]], made_by[node.input[1]]
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert made_by[activation.input[0]].op_type == "QuantizeLinear"
        codes, scale, zero = (values[name] for name in weight.input)
        assert codes.dtype == zero.dtype == np.int8
        assert np.abs(codes.astype(int)).max() <= 127
        assert not zero.any()
        assert [a.i for a in weight.attribute if a.name == "axis"] == [0]
        assert scale.shape == (codes.shape[0],)
        assert (scale > 0).all()


def test_activations_are_symmetric_int8_with_one_scale_each() -> None:
    values = constants(int8_model())
    pairs = [n for n in int8_model().graph.node if n.op_type == "QuantizeLinear"]
    assert len(pairs) > 30
    for node in pairs:
        scale, zero = values[node.input[1]], values[node.input[2]]
        assert scale.shape == zero.shape == ()
        assert scale > 0
        assert zero.dtype == np.int8
        assert zero == 0


def test_all_branches_of_a_concat_share_one_scale() -> None:
    values = constants(int8_model())
    made_by = {name: node for node in int8_model().graph.node for name in node.output}
    reads = {n.input[0]: n for n in int8_model().graph.node if n.op_type == "QuantizeLinear"}
    joins = [n for n in int8_model().graph.node if n.op_type == "Concat"]
    assert len(joins) == 5
    for join in joins:
        branches = [made_by[name] for name in join.input]
        assert {node.op_type for node in branches} == {"DequantizeLinear"}
        scales = {float(values[n.input[1]]) for n in (*branches, reads[join.output[0]])}
        assert len(scales) == 1


def test_int8_answers_close_to_float() -> None:
    images = pictures(6, seed=1)
    exact, found = run(float_model(), images), run(int8_model(), images)
    assert exact.std() > 0.01
    assert np.isfinite(found).all()
    assert np.abs(found - exact).mean() < 0.1 * exact.std()


def test_skipped_convolutions_stay_float() -> None:
    name = "msdsm1.logits"
    ranges = collect_ranges(float_model(), pictures(1))
    model = quantize(float_model(), ranges, skip=[name])
    node = next(n for n in model.graph.node if n.name == name)
    assert node.input[1] in {t.name for t in model.graph.initializer}
    with pytest.raises(InputError, match=r"no convolution is named nowhere"):
        quantize(float_model(), ranges, skip=["nowhere"])


def test_missing_and_broken_ranges_are_refused() -> None:
    ranges = collect_ranges(float_model(), pictures(1))
    name = sorted(ranges)[0]
    with pytest.raises(InputError, match=f"no range for tensor {name}"):
        quantize(float_model(), {k: v for k, v in ranges.items() if k != name})
    with pytest.raises(InputError, match="not finite"):
        quantize(float_model(), ranges | {name: (0.0, float("nan"))})


def test_quantising_leaves_its_argument_as_it_was() -> None:
    before = float_model().SerializeToString()
    quantize(float_model(), collect_ranges(float_model(), pictures(1)))
    assert float_model().SerializeToString() == before


def test_unsigned_codes_answer_as_the_signed_ones() -> None:
    images = pictures(4)  # the calibration images: nothing is outside its range
    model = to_unsigned(int8_model())
    values = constants(model)
    zeros = {values[n.input[2]].dtype for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert zeros == {np.dtype(np.uint8)}
    # The codes are equal; runtimes differ in how they round and fuse the two types.
    signed, unsigned = run(int8_model(), images), run(model, images)
    assert np.abs(signed - unsigned).max() < 0.02
    assert np.abs(signed - unsigned).mean() < 1e-3


def test_what_calibration_saw_below_zero_stays_signed() -> None:
    ranges = collect_ranges(float_model(), pictures(1))
    name = "encoder.stage1.conv1"
    model = quantize(float_model(), ranges | {name: (-1.0, 1.0)})
    recorded = {e.key: e.value for e in model.metadata_props}[UNSIGNED_KEY]
    assert name not in json.loads(recorded)
    zeros = {
        n.input[0]: constants(to_unsigned(model))[n.input[2]].dtype
        for n in to_unsigned(model).graph.node
        if n.op_type == "QuantizeLinear"
    }
    assert zeros.pop(name) == np.int8
    assert set(zeros.values()) == {np.dtype(np.uint8)}


def test_a_model_without_the_record_is_refused() -> None:
    with pytest.raises(InputError, match="not made by ndp-edge"):
        to_unsigned(float_model())


def transposed(
    weights: NDArray[np.float32], bias: NDArray[np.float32], relu: bool, pads: int = 1
) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "ConvTranspose", ["x", "w", "b"], ["y"], name="up", strides=[2, 2], pads=[pads] * 4
        ),
        helper.make_node("Relu" if relu else "Identity", ["y"], ["out"], name="act"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "up", [image], [out], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 4),
    relu=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_a_conv_transpose_as_a_convolution_answers_the_same(
    height: int, width: int, channels: int, relu: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((3, channels, 4, 4)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    images = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    model = transposed(weights, bias, relu)
    changed = as_convolutions(model)
    assert "ConvTranspose" not in {n.op_type for n in changed.graph.node}
    before, after = run(model, images), run(changed, images)
    assert before.shape == after.shape
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max() + 1e-6)


def test_other_conv_transposes_are_quantised_per_tensor() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 2, 4, 4)).astype(np.float32)
    model = as_convolutions(transposed(weights, np.zeros(2, np.float32), True, pads=0))
    assert "ConvTranspose" in {n.op_type for n in model.graph.node}
    quantised = quantize(model, {"x": (0.0, 255.0)})
    node = next(n for n in quantised.graph.node if n.op_type == "ConvTranspose")
    weight = next(n for n in quantised.graph.node if n.output[0] == node.input[1])
    assert constants(quantised)[weight.input[1]].shape == ()
    images = pictures(1)
    exact = run(model, images)
    assert np.abs(run(quantised, images) - exact).mean() < 0.02 * exact.std()


def test_two_calibrations_write_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(exported(), source)
    images = pictures(3)
    reports = [
        calibrate(source, batch, tmp_path / f"{i}.onnx")
        for i, batch in enumerate((images, images[::-1]))
    ]
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()
    assert [r["n"] for r in reports] == [3, 3]
    assert reports[0]["method"] == "minmax"
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "0.onnx", "1.onnx"}
    kept = {e.key for e in onnx.load(tmp_path / "0.onnx").metadata_props}
    assert kept >= {e.key for e in exported().metadata_props}


def test_calibration_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    source, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(exported(), source)
    with pytest.raises(InputError, match="this net takes uint8"):
        calibrate(source, pictures(1)[:, :32], out)
    with pytest.raises(InputError, match="this net takes uint8"):
        calibrate(source, pictures(1).astype(np.float32), out)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no calibration image"):
        calibrate(source, pictures(1)[:0], out)
    with pytest.raises(InputError, match="no model at"):
        calibrate(tmp_path / "nothing.onnx", pictures(1), out)
    assert not out.exists()
