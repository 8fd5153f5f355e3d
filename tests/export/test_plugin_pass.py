"""The two files that TensorRT gets of one model, and that they compute the same.

The plugin's nodes are played by NumPy, written from what kernels/src/ndp_kernels.h says of the
prepared vector.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ndp_edge.checkpoint import Checkpoint
from ndp_edge.errors import InputError
from ndp_edge.export.functions import DOMAIN
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.export.plugin_pass import for_native, for_plugin
from ndp_edge.model.prepared import prepare_reference

Array = NDArray[Any]
PARTS = ("r2", "r4", "u", "fused")
TENSORS = [f"rbam{stage}.{part}" for stage in (3, 4, 5) for part in PARTS]


def patches(x: Array, k: int) -> Array:
    """[N, C, H, W] to [N, (H/k)(W/k), C, k, k] in raster order."""
    n, c, h, w = x.shape
    cut = x.reshape(n, c, h // k, k, w // k, k).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(n, -1, c, k, k)


def keys_of(prepared: Array, k: int, c: int, h: int, w: int) -> tuple[Array, Array]:
    """The mean patch [C, k, k] and the inverse norms [R] of all KxK patches in raster order."""
    blocks, skip = (h // 4) * (w // 4), 0 if k == 2 else 4 * c
    mean = prepared[skip : skip + k * k * c].reshape(k, k, c).transpose(2, 0, 1)
    rest = prepared[20 * c :]
    shift = rest[5 * blocks :]
    if k == 4:
        return mean, rest[4 * blocks : 5 * blocks] * shift
    small = (rest[: 4 * blocks].reshape(blocks, 4) * shift[:, None]).reshape(h // 4, w // 4, 2, 2)
    return mean, small.transpose(0, 2, 1, 3).reshape(-1)


class RBFRM(OpRun):
    """Eq. 3-6 with the reference's norms and means from the vector."""

    op_domain = DOMAIN

    def _run(
        self, features: Array, reference: Array, prepared: Array, **attributes: Any
    ) -> tuple[Array, ...]:
        assert reference.dtype == features.dtype and prepared.dtype == np.float32
        assert attributes["half"] == (reference.dtype == np.float16)
        _, c, h, w = reference.shape
        n, _, height, width = features.shape
        x, ref, vector = (a.astype(np.float64) for a in (features, reference, prepared))
        repaired = []
        for k in (2, 4):
            mean, key = keys_of(vector, k, c, h, w)
            b = patches(ref, k)[0]
            p = patches(x, k)
            norm = np.sqrt((p**2).sum(axis=(2, 3, 4)))
            dots = np.einsum("npcxy,rcxy->npr", p, b) * key
            score = attributes["softmax_scale"] * dots / np.maximum(norm, 1e-12)[:, :, None]
            weights = np.exp(score - score.max(axis=2, keepdims=True))
            weights /= weights.sum(axis=2, keepdims=True)
            out = mean + np.einsum("npr,rcxy->npcxy", weights, b - mean)
            grid = out.reshape(n, height // k, width // k, c, k, k).transpose(0, 3, 1, 4, 2, 5)
            repaired.append(grid.reshape(features.shape))
        total = x + repaired[0] + repaired[1]
        return tuple(y.astype(features.dtype) for y in (*repaired, total))


class FFMSelect(OpRun):
    """Eq. 7 and 8."""

    op_domain = DOMAIN

    def _run(
        self, logits: Array, rep4: Array, rep2: Array, features: Array, **_: Any
    ) -> tuple[Array]:
        wide = logits.astype(np.float64)
        parts = np.exp(wide - wide.max()).reshape(len(logits), 3, *features.shape[1:])
        weights = parts / parts.sum(axis=1, keepdims=True)
        branches = np.stack([rep4, rep2, features], axis=1).astype(np.float64)
        return ((weights * branches).sum(axis=1).astype(features.dtype),)


def seen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose outputs are the map and what every plugin node gives."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for name in TENSORS:
        out.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return out


def run(model: onnx.ModelProto, images: Array) -> list[Array]:
    """The plugin model's outputs by NumPy, in `seen`'s order."""
    evaluator = ReferenceEvaluator(seen(model), new_ops=[RBFRM, FFMSelect])  # type: ignore
    return [np.asarray(a) for a in evaluator.run(None, {"image": images})]


def run_native(kit: SimpleNamespace, model: onnx.ModelProto, images: Array) -> list[Array]:
    """The same outputs in standard operators, by ONNX Runtime."""
    return list(kit.ort_session(seen(model)).run(None, {"image": images}))


def worst(got: list[Array], wanted: list[Array]) -> float:
    """The largest difference, each output's relative to its own spread."""
    assert [a.shape for a in got] == [a.shape for a in wanted]
    assert all(np.isfinite(a).all() for a in (*got, *wanted))
    return max(float(np.abs(a - b).max() / np.ptp(b)) for a, b in zip(got, wanted, strict=True))


def calls_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.fixture(scope="module")
def varied(tiny: Checkpoint) -> Checkpoint:
    """Reference maps whose patches differ in direction and size, and a softmax that tells them
    apart: with a fresh net's maps the answer is nearly the mean patch, whatever the norms."""
    rng = np.random.default_rng(3)
    weights = dict(tiny.weights)
    for name in ("reference3", "reference4", "reference5"):
        shape = weights[name].shape
        size = rng.uniform(0.5, 4.0, (1, 1, *shape[2:]))
        weights[name] = (size * rng.exponential(1.0, shape)).astype(np.float32)
    return Checkpoint(replace(tiny.config, softmax_scale=20.0), weights)


@pytest.fixture(scope="module")
def exported(varied: Checkpoint) -> onnx.ModelProto:
    return build_graph(varied)


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """RBFRM in FP16 between Casts, its reference through a Cast of its own."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.node[:]
    for node in model.graph.node:
        if node.op_type != "RBFRM":
            out.graph.node.append(node)
            continue
        narrow = [f"{node.name}.in{i}" for i in range(2)]
        half = helper.make_node("RBFRM", narrow, [f"{n}.half" for n in node.output], node.name)
        half.domain = DOMAIN
        half.attribute.extend(node.attribute)
        casts = [(*pair, TensorProto.FLOAT16) for pair in zip(node.input, narrow, strict=True)]
        back = [(*pair, TensorProto.FLOAT) for pair in zip(half.output, node.output, strict=True)]
        made = [helper.make_node("Cast", [a], [b], to=kind) for a, b, kind in (*casts, *back)]
        out.graph.node.extend([*made[:2], half, *made[2:]])
    return out


# --- with the plugin --------------------------------------------------------------------------


def test_a_plugin_model_has_nodes_and_no_functions(exported: onnx.ModelProto) -> None:
    before = exported.SerializeToString()
    model = for_plugin(exported)
    assert exported.SerializeToString() == before
    assert list(model.functions) == [] and len(exported.functions) == 2
    onnx.checker.check_model(model)
    constants = constants_of(model)
    old = {node.name: node for node in calls_of(exported)}
    assert [n.op_type for n in calls_of(model)] == ["RBFRM", "FFMSelect"] * 3
    for node in calls_of(model):
        kept = attributes_of(node)
        if node.op_type == "RBFRM":
            reference, prepared = (constants[name] for name in node.input[1:])
            assert reference.dtype == np.float32 and prepared.dtype == np.float32
            np.testing.assert_array_equal(prepared, prepare_reference(reference[0]))
            assert kept.pop("half") == 0
        else:
            assert list(node.input) == list(old[node.name].input)
        assert kept == attributes_of(old[node.name])
        assert list(node.output) == list(old[node.name].output)
    assert {"image", "anomaly_map"} == {v.name for v in (*model.graph.input, *model.graph.output)}
    assert list(model.metadata_props) == list(exported.metadata_props)


def test_both_files_compute_the_same(kit: SimpleNamespace, exported: onnx.ModelProto) -> None:
    images = kit.noise(2, 64)
    wanted = run_native(kit, for_native(exported), images)
    assert worst(run(for_plugin(exported), images), wanted) <= 1e-4


def test_softmax_scale_reaches_the_node(
    kit: SimpleNamespace, exported: onnx.ModelProto, varied: Checkpoint
) -> None:
    flat = build_graph(Checkpoint(replace(varied.config, softmax_scale=1.0), varied.weights))
    images = kit.noise(1, 64)
    got = run(for_plugin(flat), images)
    assert worst(got, run_native(kit, for_native(flat), images)) <= 1e-4
    assert worst(got, run(for_plugin(exported), images)) > 0.05


@pytest.mark.parametrize("norms", [slice(320, 384), slice(384, 400)], ids=["2x2", "4x4"])
def test_a_wrong_vector_shows(
    kit: SimpleNamespace, exported: onnx.ModelProto, norms: slice
) -> None:
    """The comparison above can fail. (The means cancel in exact arithmetic.)"""
    model, images = for_plugin(exported), kit.noise(1, 64)
    right = run(model, images)
    (tensor,) = (t for t in model.graph.initializer if t.name == "rbam3.prepared")
    vector = numpy_helper.to_array(tensor).copy()
    assert vector.shape == (20 * 16 + 6 * 16,)
    vector[norms] *= 0.7
    tensor.CopyFrom(numpy_helper.from_array(vector, tensor.name))
    assert worst(run(model, images), right) > 1e-3


def test_fp16_prepares_the_rounded_reference(
    kit: SimpleNamespace, exported: onnx.ModelProto
) -> None:
    model = for_plugin(typed(exported))
    onnx.checker.check_model(model)
    constants, plain = constants_of(model), constants_of(exported)
    for stage, node in zip((3, 4, 5), calls_of(model)[::2], strict=True):
        reference = constants[node.input[1]]
        assert reference.dtype == np.float16 and attributes_of(node)["half"] == 1
        rounded = plain[f"rbam{stage}.reference"].astype(np.float16)
        np.testing.assert_array_equal(reference, rounded)
        np.testing.assert_array_equal(constants[node.input[2]], prepare_reference(rounded[0]))
        assert f"rbam{stage}.reference" not in constants, "the float32 map is read by nobody"
    casts = {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    assert not any(name.endswith(".in1") for name in casts)
    images = kit.noise(1, 64)
    native = run_native(kit, for_native(exported), images)
    assert 1e-4 < worst(run(model, images), native) <= 5e-3


def test_the_pass_may_run_twice_and_heals_a_stale_vector(exported: onnx.ModelProto) -> None:
    once = for_plugin(exported)
    assert for_plugin(once).SerializeToString() == once.SerializeToString()
    for tensor in once.graph.initializer:  # as a pass that changes types leaves it
        if tensor.name.endswith(".reference"):
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    again = for_plugin(once)
    constants = constants_of(again)
    for node in calls_of(again)[::2]:
        reference, prepared = (constants[name] for name in node.input[1:])
        np.testing.assert_array_equal(prepared, prepare_reference(reference[0]))
        assert attributes_of(node)["half"] == 1


def test_what_the_kernels_do_not_take_is_refused(
    exported: onnx.ModelProto, varied: Checkpoint
) -> None:
    with pytest.raises(InputError, match=r"no RBFRM node.*model\.onnx"):
        for_plugin(inline(exported))
    sharp = Checkpoint(replace(varied.config, softmax_scale=65.0), varied.weights)
    with pytest.raises(InputError, match=r"softmax_scale.*at most 64, not 65\.0"):
        for_plugin(build_graph(sharp))
    changed = onnx.ModelProto()
    changed.CopyFrom(exported)
    calls_of(changed)[0].input[1] = "image01"
    with pytest.raises(InputError, match="image01 is no constant"):
        for_plugin(changed)
    for shape in ((1, 12, 16, 16), (2, 8, 16, 16), (1, 8, 16, 10)):
        changed.CopyFrom(exported)
        (tensor,) = (t for t in changed.graph.initializer if t.name == "rbam3.reference")
        tensor.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), tensor.name))
        with pytest.raises(InputError, match=r"reference"):
            for_plugin(changed)


# --- without it -------------------------------------------------------------------------------


def test_a_native_model_has_standard_operators_only(exported: onnx.ModelProto) -> None:
    model = for_native(exported)
    assert calls_of(model) == [] and list(model.functions) == []
    assert {node.domain for node in model.graph.node} == {""}
    assert model.SerializeToString() == inline(exported).SerializeToString()
    assert for_native(model) == model and for_native(model) is not model
    with pytest.raises(InputError, match=r"FFMSelect, RBFRM: a plugin's node without"):
        for_native(for_plugin(exported))
