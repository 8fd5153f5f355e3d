"""What calibration is tested with: a small net as a file, and pictures of waves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from ndp_edge.checkpoint import Checkpoint
from ndp_edge.export.graph import build_graph
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet

SIDE = 64


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured waves, uint8 [count, SIDE, SIDE, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE][..., None]
    waves = []
    for _ in range(count):
        across, down = rng.uniform(0.1, 0.9, (2, 3))
        waves.append(np.sin(x * across + y * down))
    return (127 + 100 * np.stack(waves)).astype(np.uint8)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh tiny net as exported ONNX."""
    torch.manual_seed(0)
    net = NDPNet(NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=SIDE)).eval()
    with torch.no_grad():
        net.set_reference(torch.from_numpy(pictures(1)).permute(0, 3, 1, 2).float() / 255)
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    path = tmp_path_factory.mktemp("net") / "tiny.onnx"
    onnx.save(build_graph(Checkpoint(net.config, weights)), path)
    return path


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The function above, for test files that cannot import this one."""
    return SimpleNamespace(pictures=pictures, SIDE=SIDE)
