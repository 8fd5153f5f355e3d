"""What the ONNX promises, also once inlined; a checkpoint that does not fit is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ndp_edge.checkpoint import Checkpoint
from ndp_edge.errors import InputError
from ndp_edge.export.exporter import read_config
from ndp_edge.export.functions import DOMAIN, OPSET
from ndp_edge.export.graph import build_graph
from ndp_edge.export.inline import inline
from ndp_edge.model.load import load_net

# --- what the file promises -------------------------------------------------------------------


def test_input_output_and_metadata(kit: SimpleNamespace, tiny: Checkpoint) -> None:
    model = build_graph(tiny)
    for graph in (model.graph, inline(model).graph):
        (image,), (score,) = graph.input, graph.output
        dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
        assert (image.name, image.type.tensor_type.elem_type) == ("image", TensorProto.UINT8)
        assert dims == ["N", 64, 64, 3]
        dims = [d.dim_param or d.dim_value for d in score.type.tensor_type.shape.dim]
        assert (score.name, score.type.tensor_type.elem_type) == ("anomaly_map", TensorProto.FLOAT)
        assert dims == ["N", 1, 64, 64]
    assert read_config(model) == (kit.TINY, tiny.training)
    assert read_config(inline(model)) == (kit.TINY, tiny.training)


def test_what_tensorrt_asks_of_the_file(kit: SimpleNamespace, tiny: Checkpoint) -> None:
    """Cast before Transpose, plugin attributes, no aliases, versions 10.3 can parse."""
    model = build_graph(tiny)
    assert [n.op_type for n in model.graph.node[:3]] == ["Cast", "Transpose", "Mul"]
    calls = [n for n in model.graph.node if n.domain == DOMAIN]
    assert [n.op_type for n in calls] == ["RBFRM", "FFMSelect"] * 3
    for call in calls:
        attributes = {a.name: helper.get_attribute_value(a) for a in call.attribute}
        assert attributes["plugin_namespace"] == b"" and attributes["plugin_version"] == b"1"
        if call.op_type == "RBFRM":
            assert attributes["softmax_scale"] == kit.TINY.softmax_scale
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


# --- inlining ---------------------------------------------------------------------------------


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


def test_onnxsim_finds_nothing_more(kit: SimpleNamespace) -> None:
    """But for the 1/255, kept on purpose: `image01` is what quantisation must leave alone."""
    onnxsim = pytest.importorskip("onnxsim")
    flat = inline(build_graph(kit.fresh(replace(kit.TINY, image_size=128))))
    simplified, same = onnxsim.simplify(flat)
    assert same
    kept = {name for node in simplified.graph.node for name in node.output}
    assert {n.name for n in flat.graph.node if not kept & set(n.output)} <= {"image01"}
    assert len(simplified.graph.initializer) >= len(flat.graph.initializer) - 1


def test_inlining_twice_changes_nothing(kit: SimpleNamespace, tiny: Checkpoint) -> None:
    flat = inline(build_graph(tiny))
    again = inline(flat)
    assert [n.name for n in again.graph.node] == [n.name for n in flat.graph.node]
    assert np.array_equal(kit.run_ort(again, kit.noise(1, 64)), kit.run_ort(flat, kit.noise(1, 64)))


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


# --- what does not fit is refused by name -----------------------------------------------------


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
