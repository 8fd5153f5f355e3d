"""A peer's torch net as rows of a run: eager, and converted for OpenVINO."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ndp_edge.bench.torch_side import Infer, module_infer
from ndp_edge.errors import MachineError
from ndp_edge.ov_core import cpu_request, import_openvino


def open_peer(
    name: str, net: nn.Module, size: int, threads: int | None
) -> dict[str, tuple[Infer, dict[str, Any]]]:
    """`name`/torch-fp32 and, where OpenVINO is installed, `name`/openvino-fp32.

    Args:
        net: images [N, 3, size, size] in [0, 1] to maps [N, 1, size, size].
    """
    found = {f"{name}/torch-fp32": module_infer(net, threads=threads)}
    try:
        ov = import_openvino()
    except MachineError:
        return found
    return found | {f"{name}/openvino-fp32": _openvino(ov, net, size, threads)}


def _openvino(
    ov: Any, net: nn.Module, size: int, threads: int | None
) -> tuple[Infer, dict[str, Any]]:
    """The same settings as our own engine has; one compiled model per batch size."""
    requests: dict[int, Any] = {}

    def compiled(batch: int) -> Any:
        copied = copy.deepcopy(net)  # the torch row's own may be on a card, and stays there
        example = torch.zeros(batch, 3, size, size)
        with torch.no_grad(), warnings.catch_warnings():
            # OpenVINO traces; torch would rather it exported (which warns just as much).
            warnings.simplefilter("ignore", DeprecationWarning)
            model = ov.convert_model(copied.cpu().eval(), example_input=example)
        model.reshape(list(example.shape))
        return cpu_request(model, threads)

    def infer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images) not in requests:
            requests[len(images)] = compiled(len(images))
        x = images.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
        answer = requests[len(images)].infer([np.ascontiguousarray(x)])
        return np.array(next(iter(answer.values()))[:, 0], np.float32)

    about = {
        "backend": "openvino",
        "precision": "fp32",
        "device": "CPU",
        "threads": threads or 0,
        "versions": {"openvino": str(ov.__version__), "torch": str(torch.__version__)},
    }
    return infer, about
