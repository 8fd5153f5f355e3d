"""Which layers of a TensorRT engine run in int8, fp16 or fp32, as the library itself tells.

Where the card is, the engine inspector tells it as JSON. TensorRT-RTX builds where no card is,
and there an engine cannot be opened; but its builder's log has the same words, one line a layer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ndp_edge.errors import InputError
from ndp_edge.types import Layer

CONVOLUTION, DECONVOLUTION = "Convolution", "Deconvolution"
UNKNOWN = "unknown"
LONGEST_NAME = 120

_WORDS = (
    ("int8", "int8"),
    ("uint8", "uint8"),
    ("half", "fp16"),
    ("fp16", "fp16"),
    ("float", "fp32"),
    ("fp32", "fp32"),
    ("bf16", "bf16"),
    ("bfloat16", "bf16"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("bool", "bool"),
)
_WIDTH = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LINE = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), (?P<rest>.*)$")
_PART = re.compile(r"(Inputs|Outputs): \[(.*?)\](?=, (?:Constants|Outputs|TacticName)|$)")
_LATER_PROFILE = re.compile(r"\[profile [1-9]|_myl[1-9]\d*_\d+$")
"""An engine lists every layer again for each further optimisation profile."""
_TYPE = re.compile(r"(?:Datatype|Format/Datatype): ([^,}]*)")


def layers_of_json(text: str) -> list[Layer]:
    """Layers as `EngineInspector.get_engine_information(JSON)` tells them, in the engine's order.

    A `Layer`'s precision is that of a convolution's input, and what any other layer writes; its
    ms is 0, since nothing was timed. The name is that of the ONNX nodes in it. Of an engine with
    several optimisation profiles, the first one's layers.

    Raises:
        InputError: not such JSON, or without detailed profiling verbosity (names alone).
    """
    try:
        told = json.loads(text)["Layers"]
        return [_layer(_of_json(entry)) for entry in told if _has_data(entry)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"the engine tells no layers ({error}); build it with detailed profiling verbosity"
        ) from error


def layers_of_log(lines: Iterable[str]) -> list[Layer]:
    """The same from a builder's verbose log: its lines "Name: ..., LayerType: ..., ..."."""
    found = []
    for line in "\n".join(lines).splitlines():
        match = _LINE.match(line)
        if match is None or _LATER_PROFILE.search(match["name"]):
            continue
        parts = {kind: _TYPE.findall(body) for kind, body in _PART.findall(match["rest"])}
        if parts.get("Outputs"):  # signals and waits move nothing
            names = _ONNX_LAYER.findall(match["rest"])
            inputs, outputs = parts.get("Inputs", []), parts["Outputs"]
            found.append(_layer((match["name"], match["type"], names, inputs, outputs)))
    return found


def convolutions(layers: Iterable[Layer]) -> dict[str, int]:
    """How many (transposed) convolutions run in each precision, most first."""
    kinds = (CONVOLUTION, DECONVOLUTION)
    return dict(Counter(one.precision for one in layers if one.type in kinds).most_common())


def say_convolutions(layers: Iterable[Layer]) -> str:
    """ "convolutions: 59 int8" for a terminal or a report."""
    counted = convolutions(layers)
    return "convolutions: " + (", ".join(f"{n} {p}" for p, n in counted.items()) or "none")


_Told = tuple[str, str, Sequence[str], Sequence[str], Sequence[str]]


def _of_json(entry: Mapping[str, Any]) -> _Told:
    def types(key: str) -> list[str]:
        return [str(t.get("Datatype", t.get("Format/Datatype", ""))) for t in entry.get(key, ())]

    names = _ONNX_LAYER.findall(str(entry.get("Metadata", "")))
    return entry["Name"], str(entry["LayerType"]), names, types("Inputs"), types("Outputs")


def _has_data(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("Outputs")) and not _LATER_PROFILE.search(entry["Name"])


def _layer(told: _Told) -> Layer:
    name, kind, onnx_names, inputs, outputs = told
    kind = _kind(kind, name)
    if kind in (CONVOLUTION, DECONVOLUTION):
        # The narrowest input: a fused one may read a factor in FP32 beside what it multiplies.
        read = [p for p in map(_precision, inputs) if p in _WIDTH]
        precision = min(read, key=_WIDTH.__getitem__, default=UNKNOWN)
    else:
        precision = _precision(outputs[0]) if outputs else UNKNOWN
    shown = " + ".join(n for n in onnx_names if not n.endswith((".dq", ".q"))) or name
    if len(shown) > LONGEST_NAME:
        shown = shown[: LONGEST_NAME - 3] + "..."
    return Layer(shown, kind, precision, 0.0)


def _kind(kind: str, name: str) -> str:
    """One word for what versions call CaskConvolution, correlation, runtime_fusion of a Corr."""
    words = f"{kind} {name}" if kind == "runtime_fusion" else kind
    lowered = words.lower()
    if "deconv" in lowered:
        return DECONVOLUTION
    if "conv" in lowered or "corr" in lowered:
        return CONVOLUTION
    return "generated kernel" if kind == "kgen" else kind


def _precision(text: str) -> str:
    """ "Half", "Int8" or a format's sentence ("Channel major FP16 format ...") as one word."""
    for word in re.findall(r"[a-z]+\d*", text.lower()):
        for known, precision in _WORDS:
            if word == known:
                return precision
    return UNKNOWN
