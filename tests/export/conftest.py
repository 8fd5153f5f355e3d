"""What the export is tested with: fresh nets whose maps vary, and each engine's answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from ndp_edge import checkpoint as checkpoints
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.model.config import NdpConfig, preset
from ndp_edge.model.load import load_net
from ndp_edge.model.network import NDPNet
from ndp_edge.ov_core import shared_core

TINY = NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=64)
Images = NDArray[np.uint8]


def fresh(config: NdpConfig) -> Checkpoint:
    """A net with seeded weights, batch norms that have seen data, and maps that vary."""
    torch.manual_seed(0)
    net = NDPNet(config)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.4)
            torch.nn.init.normal_(module.bias, 0.1, 0.2)
    for head in net.msdsm.heads:
        head.to_map.weight.data *= 150  # else every map is 0.5 and the comparison sees nothing
    net.decoder.to_image.weight.data *= 20
    net.set_reference(torch.rand(1, 3, config.image_size, config.image_size))
    weights = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    return Checkpoint(config, weights, {"seed": 0, "hashes": ["ab", "cd"], "note": "größer"})


@pytest.fixture(scope="session")
def tiny() -> Checkpoint:
    return fresh(TINY)


@pytest.fixture(scope="session")
def nano() -> Checkpoint:
    return fresh(preset("nano"))


@pytest.fixture(scope="session")
def saved(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    checkpoints.save(path, tiny)
    return path


def noise(count: int, size: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def run_torch(checkpoint: Checkpoint, images: Images) -> NDArray[np.float32]:
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return load_net(checkpoint)(x).numpy()


def ort_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_ort(model: onnx.ModelProto, images: Images) -> NDArray[np.float32]:
    return ort_session(model).run(None, {"image": images})[0]


def run_openvino(model: onnx.ModelProto, images: Images) -> NDArray[np.float32]:
    core = shared_core()
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", hint)
    return np.array(compiled(images)[0])


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for test files that cannot import this one."""
    return SimpleNamespace(
        TINY=TINY,
        fresh=fresh,
        noise=noise,
        run_torch=run_torch,
        ort_session=ort_session,
        run_ort=run_ort,
        run_openvino=run_openvino,
    )
