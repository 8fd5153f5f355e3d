"""INT8 with some layers in float: which layers go together, and the graph without them.

Works from files alone: the scales stand in the int8 ONNX, so that nothing is calibrated again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx

from ndp_edge.calib.calibrate import flat, quantised
from ndp_edge.calib.graph import quantisable, scale_groups
from ndp_edge.calib.qdq import LIMIT
from ndp_edge.calib.ranges import Ranges
from ndp_edge.calib.whole import activation_scales
from ndp_edge.engines.base import read_model
from ndp_edge.engines.unsigned import UNSIGNED_KEY
from ndp_edge.errors import InputError
from ndp_edge.files import write_atomic

_INNER = (".parts", ".blocks")
"""Tensors inside a conv-transpose's rewriting (`calib.subpixel`), of no interest to a reader."""


@dataclass(frozen=True)
class Group:
    """Convolutions that go back to float together: they read tensors of one scale.

    One alone would not free its input of the Q/DQ pair that the others still need.

    Attributes:
        name: the tensor that names the group.
        tensors: the activations that are quantised with one scale, by their names in the graph.
        convolutions: the nodes that read them.
    """

    name: str
    tensors: tuple[str, ...]
    convolutions: tuple[str, ...]


def groups(model: onnx.ModelProto) -> list[Group]:
    """The groups of an inlined float32 model, in the order in which they are computed."""
    nodes = quantisable(model)
    root = scale_groups(model, nodes)
    tensors: dict[str, list[str]] = {}
    for name, group in root.items():
        if not name.endswith(_INNER):
            tensors.setdefault(group, []).append(name)
    readers: dict[str, list[str]] = {}
    for node in nodes:
        readers.setdefault(root[node.input[0]], []).append(node.name)
    return [Group(g, tuple(sorted(tensors[g])), tuple(found)) for g, found in readers.items()]


def stored_ranges(int8: onnx.ModelProto) -> Ranges:
    """Tensor -> range that gives the scale and the sign that an int8 model of ours has stored.

    Raises:
        InputError: there is no quantised activation in it.
    """
    entries = {entry.key: entry.value for entry in int8.metadata_props}
    unsigned = set(json.loads(entries.get(UNSIGNED_KEY, "[]")))
    return {
        name: (0.0 if name in unsigned else -LIMIT * scale, LIMIT * scale)
        for name, scale in activation_scales(int8).items()
    }


@dataclass(frozen=True)
class Quantised:
    """An int8 model of ours taken apart: the float graph, and the ranges that it was made with."""

    model: onnx.ModelProto
    ranges: Ranges

    @classmethod
    def read(cls, fp32: Path, int8: Path) -> Quantised:
        """From the exported ONNX and its model with every layer in int8.

        Raises:
            InputError: files that do not belong together.
        """
        model = flat(read_model(fp32, "fp32"))
        ranges = stored_ranges(read_model(int8, "int8"))
        lacking = sorted(set(scale_groups(model, quantisable(model))) - set(ranges))
        if lacking:
            raise InputError(f"{int8.name} has no scale for {lacking[0]}, which {fp32.name} has")
        return cls(model, ranges)

    def leave_float(self, convolutions: Collection[str], out: Path) -> None:
        """Write the int8 model with these convolutions in float to `out`, atomically.

        Raises:
            InputError: a name that is no convolution.
        """
        write_atomic(out, quantised(self.model, self.ranges, skip=convolutions))
