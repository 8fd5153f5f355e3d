"""Layers and their precisions, from the inspector's JSON and from a builder's log."""

from __future__ import annotations

import json

import pytest

from ndp_edge.engines.trt_report import (
    convolutions,
    layers_of_json,
    layers_of_log,
    say_convolutions,
)
from ndp_edge.errors import InputError
from ndp_edge.types import Layer


def _tensor(kind: str) -> str:
    return (
        "{ Name: t, Dimensions: [-1,8,64,64], Strides: [1,2,3,4], StrideOrder: [3,0,2,1], "
        f"Datatype: {kind}, Format: (NHWC) Channel major format }}"
    )


def _line(name: str, kind: str, read: list[str], write: list[str], nodes: str = "") -> str:
    inputs, outputs = (", ".join(map(_tensor, kinds)) for kinds in (read, write))
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], "
        f"Constants: [ {_tensor('Int8')}], Outputs: [ {outputs}], "
        f"TacticName: none, StreamId: 0, Metadata: {nodes}"
    )


LOG = "\n".join(
    [
        "Engine generation completed in 2 seconds.",
        "Layers:",
        _line(
            "a_U1_myl0_1", "correlation", ["Int8"], ["Float"], "[ONNX Layer: a][ONNX Layer: x.dq]"
        ),
        _line("__myl_CastMul_myl0_2", "kgen", ["Float"], ["Int8"], "[ONNX Layer: a.relu]"),
        _line("b_U2_myl0_3", "deconv", ["Half"], ["Half"], "[ONNX Layer: b]"),
        _line("__myl_CorrMul_myl0_4", "runtime_fusion", ["Float", "Half"], ["Half"]),
        "Name: w, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , "
        "StreamId: 0, Metadata: ",
        _line("a [profile 1]_U1_myl1_1", "correlation", ["Int8"], ["Float"]),
        _line("__myl_CastMul_myl1_2", "kgen", ["Float"], ["Int8"]),
        "",
        "I/O Tensors:",
        " Name: image, IOMode: Input, DataType: UInt8, Dimensions: [-1,64,64,3]",
    ]
)


def test_a_log_tells_each_layer_once() -> None:
    assert layers_of_log(["chatter", LOG]) == [
        Layer("a", "Convolution", "int8", 0.0),
        Layer("a.relu", "generated kernel", "int8", 0.0),
        Layer("b", "Deconvolution", "fp16", 0.0),
        Layer("__myl_CorrMul_myl0_4", "Convolution", "fp16", 0.0),
    ]
    assert layers_of_log(["nothing of the kind"]) == []


def test_convolutions_are_counted_by_what_they_multiply() -> None:
    layers = layers_of_log([LOG])
    assert convolutions(layers) == {"fp16": 2, "int8": 1}
    assert say_convolutions(layers) == "convolutions: 2 fp16, 1 int8"
    assert say_convolutions([]) == "convolutions: none"


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Int8", "int8"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
        ("Row major linear UINT8 format", "uint8"),
        ("Something new", "unknown"),
    ],
)
def test_every_versions_words_for_a_type(text: str, precision: str) -> None:
    for key in ("Datatype", "Format/Datatype"):
        told = [{"Name": "n", "LayerType": "Cast", "Inputs": [], "Outputs": [{key: text}]}]
        (layer,) = layers_of_json(json.dumps({"Layers": told}))
        assert layer.precision == precision


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["conv1", "conv2"]}', '{"Layers": [{}]}x'])
def test_an_engine_that_tells_names_alone_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="detailed profiling verbosity"):
        layers_of_json(text)
