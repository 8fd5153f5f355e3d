"""Layers in float: which go together, the graph without them, and which one is at fault."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.calib import sensitivity as room
from ndp_edge.calib.artificial import make_tune_set
from ndp_edge.calib.calibrate import calibrate, checked, flat, quantised
from ndp_edge.calib.fallback import MOST, STEPS, attempts, say
from ndp_edge.calib.graph import quantisable
from ndp_edge.calib.partial import Group, Quantised, groups
from ndp_edge.calib.ranges import collect_ranges
from ndp_edge.calib.sensitivity import sensitivity
from ndp_edge.engines import open_engine
from ndp_edge.errors import InputError

LAYER = "msdsm2.look1"
FEW = (LAYER, "encoder.stage3.conv1", "decoder.step0.cat", "rbam4.u", "msdsm1.cat")


@pytest.fixture(scope="module")
def int8(exported: Path, kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    calibrate(exported, kit.pictures(6), path)
    return path


def test_every_convolution_is_in_one_group(exported: Path) -> None:
    model = flat(onnx.load(exported))
    found = groups(model)
    told = [name for group in found for name in group.convolutions]
    assert sorted(told) == sorted(node.name for node in quantisable(model))
    assert len(set(told)) == len(told)
    readers = {node.name: node.input[0] for node in quantisable(model)}
    tensors = [name for group in found for name in group.tensors]
    assert len(set(tensors)) == len(tensors)
    assert all(readers[c] in g.tensors for g in found for c in g.convolutions)


def test_none_in_float_is_the_file_itself(exported: Path, int8: Path, tmp_path: Path) -> None:
    Quantised.read(exported, int8).leave_float([], tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == int8.read_bytes()


def test_all_in_float_answer_as_fp32(
    exported: Path, int8: Path, tmp_path: Path, kit: SimpleNamespace
) -> None:
    quantised = Quantised.read(exported, int8)
    everything = [node.name for node in quantisable(quantised.model)]
    quantised.leave_float(everything, tmp_path / "float.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "float.onnx").graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    images = kit.pictures(2, seed=5)
    with open_engine("onnxruntime", exported, precision="fp32") as engine:
        wanted = engine.infer(images)
    with open_engine("onnxruntime", tmp_path / "float.onnx", precision="fp32") as engine:
        np.testing.assert_allclose(engine.infer(images), wanted, atol=2e-5)


def test_one_group_alone_goes_to_float_and_the_other_scales_stay(
    exported: Path, int8: Path, tmp_path: Path
) -> None:
    quantised = Quantised.read(exported, int8)
    group = next(group for group in groups(quantised.model) if group.name == "msdsm1.cat")
    assert len(group.convolutions) == 3
    quantised.leave_float(group.convolutions, tmp_path / "mixed.onnx")
    with pytest.raises(InputError, match="has no scale for"):
        Quantised.read(exported, tmp_path / "mixed.onnx")
    before, after = onnx.load(int8), onnx.load(tmp_path / "mixed.onnx")
    scales = [
        {t.name: t.SerializeToString() for t in m.graph.initializer if t.name.endswith(".scale")}
        for m in (before, after)
    ]
    gone = set(scales[0]) - set(scales[1])
    assert {f"{name}.scale" for name in group.tensors} <= gone
    assert all(scales[0][name] == scales[1][name] for name in scales[1])
    weights = {t.name for t in after.graph.initializer}
    wide = {n.name for n in after.graph.node if n.op_type == "Conv" and n.input[1] in weights}
    assert wide - {"encoder.stage1.conv1.conv"} == set(group.convolutions)


def test_a_stranger_is_refused(exported: Path, int8: Path, tmp_path: Path) -> None:
    quantised = Quantised.read(exported, int8)
    with pytest.raises(InputError, match=r"no convolution is named nothing"):
        quantised.leave_float(["nothing"], tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_range_twenty_times_too_wide_is_found(
    exported: Path, kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = kit.pictures(6)
    model = checked(exported, images)
    ranges = collect_ranges(model, images)
    ranges[LAYER] = (20 * ranges[LAYER][0], 20 * ranges[LAYER][1])
    sabotaged = tmp_path / "model.int8.onnx"
    sabotaged.write_bytes(quantised(model, ranges))

    def few(model: onnx.ModelProto) -> list[Group]:
        return [group for group in groups(model) if group.name in FEW]

    monkeypatch.setattr(room, "groups", few)
    tune = make_tune_set(kit.pictures(3, seed=9))
    told = sensitivity(exported, sabotaged, tune, "onnxruntime")
    first, second = told["layers"][:2]
    assert first["name"] == LAYER
    assert first["gain"] > 0.5 > second["gain"]
    assert first["convolutions"] == ["msdsm2.look2.conv"]
    assert {layer["name"] for layer in told["layers"]} == set(FEW)
    assert told["pictures"] == 9
    assert told["fp32"]["map_rms"] == 0 < told["int8"]["map_rms"]
    for layer in told["layers"]:
        left = (layer["map_rms"] / told["int8"]["map_rms"]) ** 2
        assert layer["gain"] == pytest.approx(1 - left)


gains = st.lists(st.floats(-1, 1), min_size=1, max_size=60)


@given(gains)
def test_attempts_take_the_costliest_first_and_ever_more(values: list[float]) -> None:
    layers = [{"name": str(i), "gain": gain} for i, gain in enumerate(sorted(values)[::-1])]
    tried = list(attempts(layers))
    assert len(tried) <= len(STEPS)
    for fewer, more in itertools.pairwise(tried):
        assert len(fewer) < len(more)
    for groups_ in tried:
        assert groups_ == layers[: len(groups_)]
        assert 0 < len(groups_) <= math.floor(MOST * len(layers))
        assert all(layer["gain"] > 0 for layer in groups_)
    useful = sum(gain > 0 for gain in values)
    assert bool(tried) == (useful > 0 and len(values) > 1)


def test_a_group_is_said_by_its_tensors() -> None:
    assert say({"name": "a", "tensors": ["a"]}) == "a"
    assert say({"name": "a", "tensors": ["c", "a", "b"]}) == "a (c, b)"
