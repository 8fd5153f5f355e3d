"""Engines through their public doors: answers, refusals, order, memory."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ndp_edge.calib.calibrate import calibrate
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.engines import RUNNABLE, available, choose, open_engine
from ndp_edge.engines.base import Engine
from ndp_edge.engines.executed import executed_layers, int8_share
from ndp_edge.errors import InputError, MachineError, NdpError
from ndp_edge.export.graph import build_graph
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet
from ndp_edge.types import Layer

SIDE = 64


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@functools.cache
def net() -> NDPNet:
    torch.manual_seed(0)
    made = NDPNet(NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=SIDE))
    images = torch.from_numpy(pictures(2)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for _ in range(5):
            made(images)  # in training mode: fills the batch norms' statistics
        made.eval().set_reference(images[:1])
        for head, logits in zip(made.msdsm.heads, made.analyse(images).logits, strict=True):
            head.to_map.weight.div_(logits.std())  # maps that use their whole range
            head.to_map.bias.sub_(logits.mean()).div_(logits.std())
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """precision -> ONNX file of one small net."""
    folder = tmp_path_factory.mktemp("models")
    weights = {name: value.numpy() for name, value in net().state_dict().items()}
    files = {"fp32": folder / "model.onnx", "int8": folder / "model.int8.onnx"}
    onnx.save(build_graph(Checkpoint(net().config, weights)), files["fp32"])
    calibrate(files["fp32"], pictures(4), files["int8"])
    return files


@pytest.fixture(params=RUNNABLE, scope="module")
def engine(request: pytest.FixtureRequest, models: dict[str, Path]) -> Iterator[Engine]:
    with open_engine(request.param, models["fp32"], precision="fp32", threads=1) as opened:
        yield opened


def test_fp32_answers_as_torch(engine: Engine) -> None:
    images = pictures(3, seed=1)
    with torch.no_grad():
        expected = net()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)[:, 0].numpy()
    maps = engine.infer(images)
    assert maps.dtype == np.float32
    assert maps.shape == (3, SIDE, SIDE)
    assert expected.std() > 0.01
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_images_give_finite_maps(engine: Engine, value: int) -> None:
    maps = engine.infer(np.full((1, SIDE, SIDE, 3), value, np.uint8))
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_int8_of_both_backends_agrees(models: dict[str, Path]) -> None:
    images = pictures(4)
    answers = []
    for backend in RUNNABLE:
        with open_engine(backend, models["int8"], precision="int8", threads=1) as engine:
            answers.append(engine.infer(images))
            assert engine.describe()["precision"] == "int8"
    spread = answers[0].std()
    assert np.abs(answers[0] - answers[1]).mean() < 0.1 * spread


def test_submitted_batches_come_back_as_inferred_in_any_order(engine: Engine) -> None:
    batches = [pictures(n, seed=n) for n in (1, 2, 1, 3)]
    expected = [engine.infer(batch) for batch in batches]
    reused = [batch.copy() for batch in batches]
    tickets = [engine.submit(batch) for batch in reused]
    for batch in reused:
        batch[:] = 0  # the engine has its own copy
    assert len(set(tickets)) == 4
    for i in (2, 0, 3, 1):
        np.testing.assert_allclose(engine.collect(tickets[i]), expected[i], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="not waiting"):
        engine.collect(tickets[0])


def test_maps_can_be_collected_into_memory_at_hand(engine: Engine) -> None:
    batches = [pictures(n, seed=n) for n in (1, 2)]
    expected = [engine.infer(batch) for batch in batches]
    room = np.full((3, *engine.size), np.nan, np.float32)
    tickets = [engine.submit(batch) for batch in batches]
    assert engine.collect(tickets[1], room[1:]).base is room
    engine.collect(tickets[0], room[:1])
    np.testing.assert_allclose(room, np.concatenate(expected), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="not waiting"):
        engine.collect(tickets[0], room[:1])


def test_done_tells_when_collecting_does_not_wait(engine: Engine) -> None:
    ticket = engine.submit(pictures(1))
    until = time.monotonic() + 60
    while not engine.done(ticket) and time.monotonic() < until:
        time.sleep(0.001)
    assert engine.done(ticket)
    engine.collect(ticket)
    with pytest.raises(InputError, match="not waiting"):
        engine.done(ticket)
    assert engine.lanes >= 1
    assert engine.batch >= 1


def test_answers_belong_to_the_caller(engine: Engine) -> None:
    first = engine.infer(pictures(1))
    kept = first.copy()
    engine.infer(pictures(1, seed=5))
    np.testing.assert_array_equal(first, kept)


def test_more_batch_sizes_than_are_kept(engine: Engine) -> None:
    images = pictures(6)
    expected = engine.infer(images)
    for count in range(1, 7):
        maps = engine.infer(images[:count])
        np.testing.assert_allclose(maps, expected[:count], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, SIDE, SIDE, 3), np.float32), "images are float32"),
        (np.zeros((SIDE, SIDE, 3), np.uint8), "images of shape"),
        (np.zeros((1, SIDE, SIDE, 1), np.uint8), "images of shape"),
        (np.zeros((1, 32, SIDE, 3), np.uint8), rf"takes \[N, {SIDE}, {SIDE}, 3\]"),
        (np.zeros((0, SIDE, SIDE, 3), np.uint8), "no image"),
        ([[1]], "images are list"),
    ],
)
def test_wrong_images_are_refused(engine: Engine, images: NDArray[np.uint8], words: str) -> None:
    with pytest.raises(InputError, match=words):
        engine.infer(images)
    with pytest.raises(InputError, match=words):
        engine.submit(images)


def test_strided_images_are_taken(engine: Engine) -> None:
    wide = pictures(2)[:, :, ::-1]
    same = np.ascontiguousarray(wide)
    np.testing.assert_allclose(engine.infer(wide), engine.infer(same), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_a_closed_engine_says_so(backend: str, models: dict[str, Path]) -> None:
    engine = open_engine(backend, models["fp32"], precision="fp32", threads=1)
    ticket = engine.submit(pictures(1))
    engine.close()
    engine.close()
    for use in (
        lambda: engine.infer(pictures(1)),
        lambda: engine.submit(pictures(1)),
        lambda: engine.collect(ticket),
        engine.describe,
        engine.__enter__,
    ):
        with pytest.raises(InputError, match="closed"):
            use()


def test_describe_says_what_runs(engine: Engine) -> None:
    told = engine.describe()
    assert told["backend"] == engine.name
    assert told["precision"] == "fp32"
    assert told["threads"] == 1
    assert set(told["versions"]) == {engine.name}
    assert told["device"]


def test_a_net_that_answers_nan_is_caught(models: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(models["fp32"])
    name = "msdsm1.logits"
    node = next(n for n in model.graph.node if n.name == name)
    tensor = next(t for t in model.graph.initializer if t.name == node.input[2])
    tensor.CopyFrom(numpy_helper.from_array(np.full(1, np.nan, np.float32), tensor.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    for backend in RUNNABLE:
        with (
            open_engine(backend, broken, precision="fp32", threads=1) as engine,
            pytest.raises(NdpError, match="NaN or infinity"),
        ):
            engine.infer(pictures(1))


@pytest.mark.parametrize("backend", RUNNABLE)
def test_wrong_files_are_refused(backend: str, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds an int8 model"):
        open_engine(backend, models["int8"], precision="fp32")
    with pytest.raises(InputError, match="holds an fp32 model"):
        open_engine(backend, models["fp32"], precision="int8")
    with pytest.raises(InputError, match="holds an fp32 model, but fp16"):
        open_engine(backend, models["fp32"], precision="fp16")
    with pytest.raises(InputError, match="precision 'fp64'"):
        open_engine(backend, models["fp32"], precision="fp64")
    with pytest.raises(InputError, match="no model at"):
        open_engine(backend, tmp_path / "none.onnx", precision="fp32")
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"not an onnx file")
    with pytest.raises(InputError, match="is not an ONNX model"):
        open_engine(backend, junk, precision="fp32")
    with pytest.raises(InputError, match="threads 0"):
        open_engine(backend, models["fp32"], precision="fp32", threads=0)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_a_model_with_another_input_is_refused(backend: str, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])
    other = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, ir_version=9), other)
    with pytest.raises(InputError, match="not uint8"):
        open_engine(backend, other, precision="fp32")


def test_choice_is_explained_and_unknown_names_are_refused() -> None:
    assert choose("auto")[0] == "openvino"
    assert "auto" in choose("auto")[1]
    assert choose("onnxruntime") == ("onnxruntime", "asked for")
    with pytest.raises(InputError, match="no backend 'abacus'"):
        choose("abacus")
    with pytest.raises(MachineError, match="pip install"):
        choose("tensorrt")


def test_missing_backends_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert set(available().values()) == {None}
    with pytest.raises(MachineError, match="pip install openvino"):
        choose("openvino")
    with pytest.raises(MachineError, match="pip install"):
        choose("auto")


def test_every_convolution_of_features_executes_in_int8(models: dict[str, Path]) -> None:
    layers = executed_layers(models["int8"], pictures(1), precision="int8", runs=1, threads=1)
    wide = {layer.name for layer in layers if "Conv" in layer.type and layer.precision != "int8"}
    assert len(wide) == 1
    assert all("encoder.stage1.conv1" in name for name in wide)
    assert sorted(layers, key=lambda layer: -layer.ms) == layers
    plain = executed_layers(models["fp32"], pictures(1), precision="fp32", runs=1, threads=1)
    assert int8_share(plain) == 0.0


def test_the_int8_share_is_a_share_of_time() -> None:
    layers = [
        Layer("a", "Convolution", "int8", 3.0),
        Layer("b", "ConvolutionBackpropData", "fp32", 1.0),
        Layer("c", "Subgraph", "fp32", 50.0),
    ]
    assert int8_share(layers) == 0.75
    with pytest.raises(InputError, match="no convolution"):
        int8_share(layers[2:])
