"""Export: the ONNX is the trained net, whatever runs it; what does not fit is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ndp_edge import checkpoint as checkpoints
from ndp_edge import reference
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.data.folder import load_images, open_dataset
from ndp_edge.errors import GateError, InputError, MachineError
from ndp_edge.export import exporter
from ndp_edge.export.__main__ import main
from ndp_edge.export.exporter import export_onnx, load_model, read_config
from ndp_edge.export.functions import DOMAIN, OPSET, ffm_select, rbfrm
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.export.torch_net import load_net
from ndp_edge.model.config import NdpConfig, preset
from ndp_edge.model.network import NDPNet

TINY = NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=64)
Images = NDArray[np.uint8]


def fresh(config: NdpConfig) -> Checkpoint:
    """A net with seeded weights, batch norms that have seen data, and maps that vary."""
    torch.manual_seed(0)
    net = NDPNet(config)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.4)
            torch.nn.init.normal_(module.bias, 0.1, 0.2)
    for head in net.msdsm.heads:
        head.to_map.weight.data *= 150  # else every map is 0.5 and the comparison sees nothing
    net.decoder.to_image.weight.data *= 20
    net.set_reference(torch.rand(1, 3, config.image_size, config.image_size))
    weights = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    return Checkpoint(config, weights, {"seed": 0, "hashes": ["ab", "cd"], "note": "größer"})


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return fresh(TINY)


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return fresh(preset("nano"))


@pytest.fixture(scope="module")
def saved(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    checkpoints.save(path, tiny)
    return path


def noise(count: int, size: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def run_torch(checkpoint: Checkpoint, images: Images) -> NDArray[np.float32]:
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return load_net(checkpoint)(x).numpy()


def ort_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_ort(model: onnx.ModelProto, images: Images) -> NDArray[np.float32]:
    return ort_session(model).run(None, {"image": images})[0]


def run_openvino(model: onnx.ModelProto, images: Images) -> NDArray[np.float32]:
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", hint)
    return np.array(compiled(images)[0])


def assert_equal_maps(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert got.shape == wanted.shape and got.dtype == np.float32
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= 1e-4


# --- the same net in every engine -----------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_engines_agree_with_torch_on_noise(tiny: Checkpoint, count: int) -> None:
    images = noise(count, 64)
    wanted = run_torch(tiny, images)
    assert wanted.shape == (count, 1, 64, 64) and np.ptp(wanted) > 0.05
    model = build_graph(tiny)
    flat = inline(model)
    for got in (run_ort(model, images), run_ort(flat, images), run_openvino(flat, images)):
        assert_equal_maps(got, wanted)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_pictures_give_finite_equal_maps(tiny: Checkpoint, value: int) -> None:
    images = np.full((2, 64, 64, 3), value, np.uint8)
    wanted = run_torch(tiny, images)
    flat = inline(build_graph(tiny))
    assert_equal_maps(run_ort(flat, images), wanted)
    assert_equal_maps(run_openvino(flat, images), wanted)


def test_an_image_whose_features_are_all_zero_is_finite(tiny: Checkpoint) -> None:
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
    wanted = run_torch(dead, noise(1, 64))
    assert_equal_maps(run_ort(flat, noise(1, 64)), wanted)
    assert_equal_maps(run_openvino(flat, noise(1, 64)), wanted)


@pytest.mark.parametrize("surface", ["kolektor_sdd", "dagm_class1"])
def test_nano_agrees_with_torch_on_real_pictures(
    nano: Checkpoint, real_data: Path, surface: str
) -> None:
    dataset = open_dataset(real_data / surface)
    images = load_images([dataset.train[0], dataset.test[-1]], 256)
    wanted = run_torch(nano, images)
    assert np.ptp(wanted) > 0.05
    model = build_graph(nano)
    assert_equal_maps(run_ort(model, images), wanted)
    assert_equal_maps(run_openvino(inline(model), images), wanted)


@settings(max_examples=8)
@given(
    scale=st.floats(0.01, 100),
    size=st.sampled_from([64, 128, 192]),
    count=st.integers(1, 3),
    map_weights=st.sampled_from([(0.2, 0.2, 0.6), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5)]),
)
def test_any_configuration_agrees_with_torch(
    scale: float, size: int, count: int, map_weights: tuple[float, float, float]
) -> None:
    net = fresh(replace(TINY, softmax_scale=scale, image_size=size, map_weights=map_weights))
    images = noise(count, size, seed=count)
    assert_equal_maps(run_ort(inline(build_graph(net)), images), run_torch(net, images))


# --- the two functions, each alone, against the float64 reference ---------------------------


def alone(
    function: onnx.FunctionProto, inputs: dict[str, list[Any]], **attributes: Any
) -> onnxruntime.InferenceSession:
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
    return ort_session(model)


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
    session = alone(rbfrm(), inputs, softmax_scale=scale)
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
    shape: tuple[int, int, int], spread: float, seed: int
) -> None:
    c, h, w = shape
    rng = np.random.default_rng(seed)
    logits = (spread * rng.standard_normal((1, 3 * c, h, w))).astype(np.float32)
    branches = [rng.standard_normal((1, c, h, w)).astype(np.float32) for _ in range(3)]
    inputs: dict[str, list[Any]] = {"l": [1, 3 * c, h, w]}
    inputs |= {name: [1, c, h, w] for name in ("r4", "r2", "f")}
    feeds = dict(zip(inputs, [logits, *branches], strict=True))
    got = alone(ffm_select(), inputs).run(None, feeds)[0][0]
    wanted = reference.ffm_select(logits.reshape(3, c, h, w), *(x[0] for x in branches))
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= 2e-6


# --- what the file promises -----------------------------------------------------------------


def test_input_output_and_metadata(tiny: Checkpoint) -> None:
    model = build_graph(tiny)
    for graph in (model.graph, inline(model).graph):
        (image,), (score,) = graph.input, graph.output
        dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
        assert (image.name, image.type.tensor_type.elem_type) == ("image", TensorProto.UINT8)
        assert dims == ["N", 64, 64, 3]
        dims = [d.dim_param or d.dim_value for d in score.type.tensor_type.shape.dim]
        assert (score.name, score.type.tensor_type.elem_type) == ("anomaly_map", TensorProto.FLOAT)
        assert dims == ["N", 1, 64, 64]
    assert read_config(model) == (TINY, tiny.training)
    assert read_config(inline(model)) == (TINY, tiny.training)


def test_what_tensorrt_asks_of_the_file(tiny: Checkpoint) -> None:
    """Cast before Transpose, plugin attributes, no aliases, versions 10.3 can parse."""
    model = build_graph(tiny)
    assert [n.op_type for n in model.graph.node[:3]] == ["Cast", "Transpose", "Mul"]
    calls = [n for n in model.graph.node if n.domain == DOMAIN]
    assert [n.op_type for n in calls] == ["RBFRM", "FFMSelect"] * 3
    for call in calls:
        attributes = {a.name: helper.get_attribute_value(a) for a in call.attribute}
        assert attributes["plugin_namespace"] == b"" and attributes["plugin_version"] == b"1"
        if call.op_type == "RBFRM":
            assert attributes["softmax_scale"] == TINY.softmax_scale
            assert len(call.input) == 2 and len(call.output) == 3
    outer = {n for node in model.graph.node for n in (*node.input, *node.output)}
    for function in model.functions:
        inner = {n for node in function.node for n in (*node.input, *node.output)}
        assert not inner & outer
        assert {node.domain for node in function.node} == {""}
    assert model.ir_version <= 10
    assert {e.domain: e.version for e in model.opset_import} == {"": OPSET, DOMAIN: 1}
    assert OPSET <= 20


def test_nano_is_small_enough_to_ship(nano: Checkpoint) -> None:
    assert len(build_graph(nano).SerializeToString()) <= 9_000_000


def test_names_can_be_read_in_a_report(tiny: Checkpoint) -> None:
    flat = inline(build_graph(tiny))
    tensors = {name for node in flat.graph.node for name in node.output}
    assert {
        "image01",
        "encoder.stage1.conv1",
        "reencoder.stage3.conv2",
        "rbam3.r2",
        "rbam5.u",
        "rbam4.k2.scores",
        "rbam3.fused",
        "decoder.step0.cat",
        "decoder.step0.up",
        "reconstruction",
        "msdsm1.logits",
    } <= tensors
    weights = {t.name for t in flat.graph.initializer}
    assert {"encoder.stage1.conv1.weight", "rbam3.k2.keys", "rbam5.k4.values"} <= weights
    assert not any("__" in name for name in tensors | weights)
    assert [n.name for n in flat.graph.node] == [n.output[0] for n in flat.graph.node]


# --- inlining -------------------------------------------------------------------------------


def test_inlining_leaves_standard_operators_and_no_constant_work(tiny: Checkpoint) -> None:
    model = build_graph(tiny)
    before = model.SerializeToString(deterministic=True)
    flat = inline(model)
    assert model.SerializeToString(deterministic=True) == before
    assert not flat.functions and [e.domain for e in flat.opset_import] == [""]
    constant = {t.name for t in flat.graph.initializer}
    used = {name for node in flat.graph.node for name in node.input}
    assert constant <= used
    for node in flat.graph.node:
        assert not node.domain and node.op_type not in ("Constant", "Shape", "Identity")
        assert any(name and name not in constant for name in node.input), node.name
    stored = [(tuple(t.dims), numpy_helper.to_array(t).tobytes()) for t in flat.graph.initializer]
    assert len(set(stored)) == len(stored)


def test_onnxsim_finds_nothing_more() -> None:
    """But for the 1/255, kept on purpose: `image01` is what quantisation must leave alone."""
    onnxsim = pytest.importorskip("onnxsim")
    flat = inline(build_graph(fresh(replace(TINY, image_size=128))))
    simplified, same = onnxsim.simplify(flat)
    assert same
    kept = {name for node in simplified.graph.node for name in node.output}
    assert {n.name for n in flat.graph.node if not kept & set(n.output)} <= {"image01"}
    assert len(simplified.graph.initializer) >= len(flat.graph.initializer) - 1


def test_inlining_twice_changes_nothing(tiny: Checkpoint) -> None:
    flat = inline(build_graph(tiny))
    again = inline(flat)
    assert [n.name for n in again.graph.node] == [n.name for n in flat.graph.node]
    assert np.array_equal(run_ort(again, noise(1, 64)), run_ort(flat, noise(1, 64)))


def test_functions_that_were_stripped_cannot_be_inlined(tiny: Checkpoint) -> None:
    model = build_graph(tiny)
    del model.functions[:]
    with pytest.raises(InputError, match="RBFRM"):
        inline(model)


_BYTES = """
import hashlib, sys
from pathlib import Path
from ndp_edge import checkpoint
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
model = build_graph(checkpoint.load(Path(sys.argv[1])))
for m in (model, inline(model)):
    print(hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest())
heavy = {"torch", "onnxruntime", "openvino", "cv2"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""


def test_another_process_gives_the_same_bytes_and_needs_no_torch(saved: Path) -> None:
    told = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _BYTES, str(saved)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1] and len(told[0].split()) == 2


# --- export_onnx and its check --------------------------------------------------------------


def test_export_reports_what_it_compared(saved: Path, tiny: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    report = export_onnx(saved, out, images=noise(2, 64))
    check = report["check"]
    assert check["images"] == 7 and check["map_range"][0] < check["map_range"][1]
    assert 0 <= check["onnxruntime"]["reconstruction"] <= 1e-4
    assert 0 <= check["onnxruntime"]["anomaly_map"] <= 1e-4
    assert 0 <= check["openvino"]["anomaly_map"] <= 1e-4
    assert report["bytes"] == out.stat().st_size and json.dumps(report)
    assert read_config(out) == (TINY, tiny.training)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def broken(weight: str, value: float) -> Any:
    """A build_graph whose result has one wrong weight."""

    def build(checkpoint: Checkpoint) -> onnx.ModelProto:
        model = build_graph(checkpoint)
        for tensor in model.graph.initializer:
            if tensor.name == weight:
                array = numpy_helper.to_array(tensor).copy()
                array.flat[0] += value
                tensor.CopyFrom(numpy_helper.from_array(array, weight))
                return model
        raise LookupError(weight)

    return build


@pytest.mark.parametrize(
    ("weight", "value", "told"),
    [
        ("msdsm2.to_map.bias", 0.05, "anomaly_map differs"),
        ("decoder.to_image.bias", 0.05, "differs"),
        ("encoder.stage3.conv1.weight", float("nan"), "not finite"),
        ("rbam4.reference", float("inf"), "not finite"),
    ],
)
def test_a_failed_check_leaves_no_file(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weight: str,
    value: float,
    told: str,
) -> None:
    monkeypatch.setattr(exporter, "build_graph", broken(weight, value))
    with pytest.raises(GateError, match=told):
        export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_the_check_has_passed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that not even SIGKILL during the check can leave an unchecked file."""
    seen: list[list[Path]] = []
    compare = exporter.compare_with_torch

    def look(*arguments: Any) -> dict[str, Any]:
        seen.append(list(tmp_path.iterdir()))
        return compare(*arguments)

    monkeypatch.setattr(exporter, "compare_with_torch", look)
    export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert seen == [[]] and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_a_failed_check_keeps_the_earlier_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.onnx"
    export_onnx(saved, out, images=None, check=False)
    before = out.read_bytes()
    monkeypatch.setattr(exporter, "build_graph", broken("decoder.to_image.bias", 0.5))
    with pytest.raises(GateError):
        export_onnx(saved, out, images=None)
    assert out.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_openvino_alone_being_wrong_fails_the_check(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(model: onnx.ModelProto) -> onnx.ModelProto:
        return inline(broken("msdsm1.to_map.bias", 1.0)(checkpoints.load(saved)))

    monkeypatch.setattr("ndp_edge.export.check.inline", spoilt)
    with pytest.raises(GateError, match="openvino"):
        export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_check_says_what_to_install(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MachineError, match=r'pip install "ndp-edge\[train\]"'):
        export_onnx(saved, tmp_path / "net.onnx", images=None)
    assert main(["--checkpoint", str(saved), "--out", str(tmp_path / "net.onnx")]) == 3
    assert capsys.readouterr().err.splitlines()[-1].endswith('pip install "ndp-edge[train]"')
    assert list(tmp_path.iterdir()) == []
    report = export_onnx(saved, tmp_path / "net.onnx", images=None, check=False)
    assert report["check"] is None and (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
)
def test_check_images_of_another_kind_are_refused(
    saved: Path, tmp_path: Path, images: NDArray[Any]
) -> None:
    with pytest.raises(InputError, match=r"wanted uint8 \[N, 64, 64, 3\]"):
        export_onnx(saved, tmp_path / "net.onnx", images=images)


# --- what does not fit is refused by name ---------------------------------------------------


def faulty(tiny: Checkpoint, fault: str) -> tuple[Checkpoint, str]:
    weights = dict(tiny.weights)
    name = "decoder.steps.1.mix.0.0.weight"
    if fault == "missing":
        del weights[name]
    elif fault == "shape":
        weights[name] = weights[name][:4]
    elif fault == "extra":
        name = "rbam.3.ffm.attend.bias"
        weights[name] = np.zeros(3, np.float32)
    elif fault == "nan":
        weights[name] = np.full_like(weights[name], np.nan)
    elif fault == "variance":
        name = "encoder.stages.0.0.1.running_var"
        weights[name] = -weights[name]
    return Checkpoint(tiny.config, weights), name


@pytest.mark.parametrize("fault", ["missing", "shape", "extra", "nan", "variance"])
def test_a_checkpoint_that_does_not_fit_is_refused(tiny: Checkpoint, fault: str) -> None:
    net, name = faulty(tiny, fault)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        build_graph(net)


@pytest.mark.parametrize("fault", ["missing", "shape", "extra"])
def test_torch_refuses_it_too(tiny: Checkpoint, fault: str) -> None:
    net, name = faulty(tiny, fault)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_net(net)


def test_a_saved_checkpoint_comes_back_as_the_same_net(saved: Path, tiny: Checkpoint) -> None:
    images = noise(1, 64)
    assert np.array_equal(run_torch(checkpoints.load(saved), images), run_torch(tiny, images))


def test_what_is_no_onnx_of_ours_is_refused(tmp_path: Path, tiny: Checkpoint) -> None:
    with pytest.raises(InputError, match="no ONNX at"):
        read_config(tmp_path / "missing.onnx")
    for name, content in (("text.onnx", b"not a model at all"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is not an ONNX model"):
            load_model(tmp_path / name)
    model = build_graph(tiny)
    whole = model.SerializeToString()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not an ONNX model"):
        read_config(tmp_path / "half.onnx")
    training = {e.key: e for e in model.metadata_props}["ndp_edge.training"]
    for value in ("{", "[1]"):
        training.value = value
        with pytest.raises(InputError, match="training record"):
            read_config(model)
    del model.metadata_props[:]
    with pytest.raises(InputError, match="ndp-edge"):
        read_config(model)


# --- the command ----------------------------------------------------------------------------


def test_command_writes_file_table_and_json(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, told = tmp_path / "net.onnx", tmp_path / "report.json"
    assert main(["--checkpoint", str(saved), "--out", str(out), "--json", str(told)]) == 0
    assert "onnxruntime anomaly_map" in capsys.readouterr().out
    assert json.loads(told.read_text())["bytes"] == out.stat().st_size


def test_command_takes_real_pictures(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(tmp_path / "net.safetensors", fresh(replace(TINY, image_size=256)))
    arguments = ["--checkpoint", tmp_path / "net.safetensors", "--out", tmp_path / "net.onnx"]
    arguments += ["--data", real_data / "kolektor_sdd", "--json", "-"]
    assert main([str(a) for a in arguments]) == 0
    assert json.loads(capsys.readouterr().out)["check"]["images"] == 9


@pytest.mark.parametrize("fault", ["no checkpoint", "not one", "no folder", "a folder", "no data"])
def test_bad_input_is_one_line_and_exit_2(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    checkpoint, out, extra = saved, tmp_path / "net.onnx", []
    if fault == "no checkpoint":
        checkpoint = tmp_path / "none"
    elif fault == "not one":
        checkpoint = tmp_path / "text.safetensors"
        checkpoint.write_text("hello")
    elif fault == "no folder":
        out = tmp_path / "none" / "net.onnx"
    elif fault == "a folder":
        out = tmp_path
    else:
        extra = ["--data", str(tmp_path / "none")]
    assert main(["--checkpoint", str(checkpoint), "--out", str(out), *extra]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert not out.is_file() and not list(tmp_path.glob(".*"))
