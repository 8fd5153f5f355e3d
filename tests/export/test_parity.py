"""The same map from every engine, and each local function against the float64 reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ndp_edge import reference
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.export.functions import DOMAIN, OPSET, ffm_select, rbfrm
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline

# --- the same net in every engine -------------------------------------------------------------


def assert_equal_maps(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert got.shape == wanted.shape and got.dtype == np.float32
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= 1e-4


@pytest.mark.parametrize("count", [1, 3])
def test_engines_agree_with_torch_on_noise(
    kit: SimpleNamespace, tiny: Checkpoint, count: int
) -> None:
    images = kit.noise(count, 64)
    wanted = kit.run_torch(tiny, images)
    assert wanted.shape == (count, 1, 64, 64) and np.ptp(wanted) > 0.05
    model = build_graph(tiny)
    flat = inline(model)
    for got in (
        kit.run_ort(model, images),
        kit.run_ort(flat, images),
        kit.run_openvino(flat, images),
    ):
        assert_equal_maps(got, wanted)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_pictures_give_finite_equal_maps(
    kit: SimpleNamespace, tiny: Checkpoint, value: int
) -> None:
    images = np.full((2, 64, 64, 3), value, np.uint8)
    wanted = kit.run_torch(tiny, images)
    flat = inline(build_graph(tiny))
    assert_equal_maps(kit.run_ort(flat, images), wanted)
    assert_equal_maps(kit.run_openvino(flat, images), wanted)


def test_an_image_whose_features_are_all_zero_is_finite(
    kit: SimpleNamespace, tiny: Checkpoint
) -> None:
    weights = dict(tiny.weights)
    for stage in range(5):  # batch norm that shuts every channel off: patches of norm 0
        weights[f"encoder.stages.{stage}.1.1.weight"] = np.zeros_like(
            weights[f"encoder.stages.{stage}.1.1.weight"]
        )
        weights[f"encoder.stages.{stage}.1.1.bias"] = -np.ones_like(
            weights[f"encoder.stages.{stage}.1.1.bias"]
        )
    dead = Checkpoint(tiny.config, weights)
    flat = inline(build_graph(dead))
    wanted = kit.run_torch(dead, kit.noise(1, 64))
    assert_equal_maps(kit.run_ort(flat, kit.noise(1, 64)), wanted)
    assert_equal_maps(kit.run_openvino(flat, kit.noise(1, 64)), wanted)


@pytest.mark.parametrize("surface", ["kolektor_sdd", "dagm_class1"])
def test_nano_agrees_with_torch_on_real_pictures(
    kit: SimpleNamespace, nano: Checkpoint, real_data: Path, surface: str
) -> None:
    dataset = open_dataset(real_data / surface)
    images = load_images([dataset.train[0], dataset.test[-1]], 256)
    wanted = kit.run_torch(nano, images)
    assert np.ptp(wanted) > 0.05
    model = build_graph(nano)
    assert_equal_maps(kit.run_ort(model, images), wanted)
    assert_equal_maps(kit.run_openvino(inline(model), images), wanted)


@settings(max_examples=8)
@given(
    scale=st.floats(0.01, 100),
    size=st.sampled_from([64, 128, 192]),
    count=st.integers(1, 3),
    map_weights=st.sampled_from([(0.2, 0.2, 0.6), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5)]),
)
def test_any_configuration_agrees_with_torch(
    kit: SimpleNamespace,
    scale: float,
    size: int,
    count: int,
    map_weights: tuple[float, float, float],
) -> None:
    net = kit.fresh(
        replace(kit.TINY, softmax_scale=scale, image_size=size, map_weights=map_weights)
    )
    images = kit.noise(count, size, seed=count)
    assert_equal_maps(kit.run_ort(inline(build_graph(net)), images), kit.run_torch(net, images))


# --- the two functions, each alone, against the float64 reference -----------------------------


def alone(
    function: onnx.FunctionProto, inputs: dict[str, list[Any]], **attributes: Any
) -> onnx.ModelProto:
    """A model that is one call of the function."""
    outputs = [f"y{i}" for i in range(len(function.output))]
    given_all = {"plugin_namespace": "", "plugin_version": "1", **attributes}
    node = helper.make_node(function.name, list(inputs), outputs, domain=DOMAIN, **given_all)
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()
    ]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list("abcd")) for n in outputs]
    model = helper.make_model(
        helper.make_graph([node], "alone", infos, results),
        functions=[function],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


maps = st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=20)
@given(
    shape=maps,
    other=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    count=st.integers(1, 2),
    scale=st.floats(0.01, 100),
    level=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_rbfrm_alone_is_equations_3_to_5(
    kit: SimpleNamespace,
    shape: tuple[int, int, int],
    other: tuple[int, int],
    count: int,
    scale: float,
    level: float,
    seed: int,
) -> None:
    """Also where the reference's map has another size, and where the features are black."""
    c, h, w = shape[0], 4 * shape[1], 4 * shape[2]
    rng = np.random.default_rng(seed)
    features = (level * rng.standard_normal((count, c, h, w))).astype(np.float32)
    patches = rng.standard_normal((1, c, 4 * other[0], 4 * other[1])).astype(np.float32)
    inputs = {"f": ["n", c, "h", "w"], "r": [1, c, "x", "y"]}
    session = kit.ort_session(alone(rbfrm(), inputs, softmax_scale=scale))
    r2, r4, u = session.run(None, {"f": features, "r": patches})
    limit = 1e-5 * (1 + scale)  # a cosine's rounding error is multiplied by the scale
    for i in range(count):
        for k, got in ((2, r2[i]), (4, r4[i])):
            wanted = reference.rbfrm(features[i], patches[0], k, scale)
            assert np.isfinite(got).all()
            assert np.abs(got - wanted).max() <= limit
    assert np.allclose(u, features + r2 + r4, rtol=1e-6, atol=1e-6)


@settings(max_examples=20)
@given(shape=maps, spread=st.sampled_from([0.1, 10.0, 1e4]), seed=st.integers(0, 99))
def test_ffm_select_alone_is_equations_7_and_8(
    kit: SimpleNamespace, shape: tuple[int, int, int], spread: float, seed: int
) -> None:
    c, h, w = shape
    rng = np.random.default_rng(seed)
    logits = (spread * rng.standard_normal((1, 3 * c, h, w))).astype(np.float32)
    branches = [rng.standard_normal((1, c, h, w)).astype(np.float32) for _ in range(3)]
    inputs: dict[str, list[Any]] = {"l": [1, 3 * c, h, w]}
    inputs |= {name: [1, c, h, w] for name in ("r4", "r2", "f")}
    feeds = dict(zip(inputs, [logits, *branches], strict=True))
    got = kit.ort_session(alone(ffm_select(), inputs)).run(None, feeds)[0][0]
    wanted = reference.ffm_select(logits.reshape(3, c, h, w), *(x[0] for x in branches))
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= 2e-6
