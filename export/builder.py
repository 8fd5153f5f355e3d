"""A small writer of ONNX graphs whose tensor names are fit to be read in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ndp_edge.errors import InputError

BN_EPS = 1e-5
"""torch's default epsilon of BatchNorm2d, which NDPNet uses throughout."""


class GraphBuilder:
    """Collects nodes and initialisers; every node bears the name of its first output.

    Weights are taken by their state_dict names and shapes, each once checked, so that a
    checkpoint that does not fit its configuration is refused by name.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}
        self._weights = weights
        self._taken: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The checkpoint's array `name` in float64.

        Raises:
            InputError: missing, of another shape, or not finite.
        """
        if name not in self._weights:
            raise InputError(f"the checkpoint has no {name}; it is not of this configuration")
        value = np.asarray(self._weights[name], np.float64)
        if value.shape != shape:
            raise InputError(f"the checkpoint's {name} has shape {value.shape}, wanted {shape}")
        if not np.isfinite(value).all():
            raise InputError(
                f"the checkpoint's {name} is not finite; training diverged, train again"
            )
        self._taken.add(name)
        return value

    def check_all_taken(self) -> None:
        """Raise InputError when the checkpoint holds something the graph has no place for."""
        counters = (".num_batches_tracked",)
        for name in sorted(self._weights):
            if name not in self._taken and not name.endswith(counters):
                raise InputError(f"the checkpoint's {name} has no place in this configuration")

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Store `value` as the initialiser `name` (once) and return the name."""
        if name not in self.initialisers:
            self.initialisers[name] = numpy_helper.from_array(np.array(value, order="C"), name)
        return name

    def scalar(self, name: str, value: float) -> str:
        """A float32 initialiser of shape []."""
        return self.constant(name, np.array(value, np.float32))

    def node(
        self,
        op: str,
        inputs: list[str],
        outputs: str | list[str],
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node; returns its first output's name, which is the node's name too."""
        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(
            helper.make_node(op, inputs, names, name=names[0], domain=domain, **attributes)
        )
        return names[0]

    def conv(
        self,
        x: str,
        name: str,
        key: str,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        weight_name: str = "",
    ) -> str:
        """A convolution with its own bias: weights `key`.weight [O, I, k, k], `key`.bias [O]."""
        weight, bias = self.take(f"{key}.weight", shape), self.take(f"{key}.bias", shape[:1])
        return self._conv(
            "Conv", x, name, (weight, bias), weight_name=weight_name or name, stride=stride
        )

    def conv_bn_relu(
        self,
        x: str,
        name: str,
        key: str,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        transpose: bool = False,
        weight_name: str = "",
    ) -> str:
        """Convolution `key`.0 and batch norm `key`.1 in one, then ReLU. Returns the ReLU's output.

        The convolution's own output is called `name`.conv. `shape` is torch's weight shape:
        [O, I, k, k], or [I, O, k, k] when `transpose` is set. The folding is done in float64:
        w' = w g / sqrt(var + eps), b' = beta - mean g / sqrt(var + eps).
        """
        axis = 1 if transpose else 0
        weight = self.take(f"{key}.0.weight", shape)
        gamma, beta, mean, var = (
            self.take(f"{key}.1.{part}", (shape[axis],))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        if (var < 0).any():
            raise InputError(f"the checkpoint's {key}.1.running_var is negative; train again")
        gain = gamma / np.sqrt(var + BN_EPS)
        folded = weight * gain.reshape([-1 if i == axis else 1 for i in range(4)])
        op = "ConvTranspose" if transpose else "Conv"
        parts = (folded, beta - mean * gain)
        pre = self._conv(
            op, x, f"{name}.conv", parts, weight_name=weight_name or name, stride=stride
        )
        return self.node("Relu", [pre], name)

    def _conv(
        self,
        op: str,
        x: str,
        name: str,
        parts: tuple[NDArray[np.float64], NDArray[np.float64]],
        *,
        weight_name: str,
        stride: int,
    ) -> str:
        kernel = parts[0].shape[-1]
        weight = self.constant(f"{weight_name}.weight", parts[0].astype(np.float32))
        bias = self.constant(f"{weight_name}.bias", parts[1].astype(np.float32))
        return self.node(
            op,
            [x, weight, bias],
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[(kernel - 1) // 2] * 4,
        )
