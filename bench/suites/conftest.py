"""What the suites time: the shipped net, FP32 and int8, on eight frames of noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ndp_edge.bench.contenders import TORCH, Net, net_of_preset, open_infer
from ndp_edge.bench.torch_side import Infer
from ndp_edge.errors import MachineError


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Net:
    """The shipped net, calibrated once."""
    return net_of_preset("nano", Path(tmp_path_factory.mktemp("net")))


@pytest.fixture(
    scope="module",
    params=["openvino-int8", "openvino-fp32", "onnxruntime-fp32", "onnxruntime-int8", TORCH],
)
def infer(request: pytest.FixtureRequest, net: Net) -> Iterator[Infer]:
    """Each engine in turn; skips where its package is missing."""
    name = str(request.param)
    with ExitStack() as stack:
        try:
            opened, _ = open_infer(name, net, stack, threads=None)
        except MachineError as error:
            pytest.skip(str(error))
        yield opened
