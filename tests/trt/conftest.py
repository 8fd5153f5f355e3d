"""A TensorRT that builds nothing and remembers everything, in any version; and typed graphs."""

from __future__ import annotations

import enum
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ndp_edge.calib.calibrate import calibrate
from ndp_edge.checkpoint import Checkpoint
from ndp_edge.export.graph import build_graph
from ndp_edge.model.config import NdpConfig
from ndp_edge.model.network import NDPNet

TINY = NdpConfig("tiny", (8, 8, 16, 16, 16), 8, image_size=64)
LAYERS = [
    {
        "Name": "conv_a",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Channel major INT8 format where C % 16 == 0"}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Channel major INT8 format"}],
        "Metadata": "[ONNX Layer: encoder.stage1.conv1.conv]\x1e[ONNX Layer: encoder.stage1.conv1]",
    },
    {
        "Name": "conv_a [profile 1]",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Channel major INT8 format"}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Channel major INT8 format"}],
    },
    {
        "Name": "add",
        "LayerType": "ElementWise",
        "Inputs": [{"Name": "y", "Datatype": "Half"}],
        "Outputs": [{"Name": "z", "Datatype": "Float"}],
        "Metadata": "",
    },
]


class Builder:
    """`trt.Builder`: hands out recorders and gives a plan of some bytes, or None."""

    def __init__(self, fake: SimpleNamespace, logger: Any) -> None:
        self.fake, self.logger = fake, logger

    def create_network(self, flags: int) -> Any:
        self.fake.said.flags = flags
        image = SimpleNamespace(name="image", shape=(-1, 64, 64, 3))
        return SimpleNamespace(get_input=lambda index: image)

    def create_builder_config(self) -> Any:
        self.fake.said.config = Config(self.fake)
        return self.fake.said.config

    def create_optimization_profile(self) -> Any:
        profile = SimpleNamespace(shapes={})
        profile.set_shape = lambda name, *shapes: profile.shapes.update({name: shapes})
        return profile

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        weak = self.fake.said.flags == 0
        if self.fake.fails == "always" or (self.fake.fails == "strong" and not weak):
            self.logger.log(self.fake.ILogger.ERROR, "no tactic for\n node x")
            return None
        return b"plan"


class Config:
    """`trt.IBuilderConfig`."""

    def __init__(self, fake: SimpleNamespace) -> None:
        self.flags: list[str] = []
        self.profiles: list[Any] = []
        self.pools: dict[str, int] = {}
        self.cache: Any = None
        self.fake = fake
        self.cleared: list[str] = []

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag.name)

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile.shapes)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def create_timing_cache(self, data: bytes) -> Any:
        return None if data == b"damaged" else SimpleNamespace(serialize=lambda: data + b"+timed")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not cache.serialize().startswith(b"foreign")


class Parser:
    """`trt.OnnxParser`: refuses b"bad"."""

    num_errors = 7

    def __init__(self, network: Any, logger: Any) -> None:
        pass

    def parse(self, data: bytes) -> bool:
        return data != b"bad"

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: f"fault\n{index}", node_name=lambda: f"node{index}")


def _logger_base(**members: int) -> type:
    return type("ILogger", (), {**members, "__init__": lambda self: None})


class Engine:
    """`trt.ICudaEngine`."""

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": LAYERS}))


def make_fake(version: str, fails: str = "") -> SimpleNamespace:
    """The module of that version, with the names that this version has."""
    flags = ["TF32"] + (["FP16", "INT8"] if version.startswith("10") else [])
    fake = SimpleNamespace(__version__=version, fails=fails, said=SimpleNamespace())
    fake.ILogger = _logger_base(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)
    fake.BuilderFlag = enum.Enum("BuilderFlag", flags)  # type: ignore[misc]
    fake.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    fake.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    fake.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])  # type: ignore[misc]
    fake.LayerInformationFormat = SimpleNamespace(JSON="json")
    fake.OnnxParser = Parser
    fake.Builder = lambda logger: Builder(fake, logger)
    fake.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: Engine())
    fake.IBuilderConfig = SimpleNamespace()
    if version.startswith("10"):
        fake.IBuilderConfig.int8_calibrator = property()
        fake.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {})
    return fake


def _export(config: NdpConfig) -> onnx.ModelProto:
    torch.manual_seed(0)
    net = NDPNet(config).eval()
    net.set_reference(torch.rand(1, 3, config.image_size, config.image_size))
    return build_graph(Checkpoint(config, {k: v.numpy() for k, v in net.state_dict().items()}))


def _files(config: NdpConfig, folder: Path) -> tuple[Path, Path]:
    """model.onnx and model.int8.onnx of a net with random weights."""
    fp32, int8 = folder / "model.onnx", folder / "model.int8.onnx"
    onnx.save(_export(config), fp32)
    size = config.image_size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    calibrate(fp32, images, int8)
    return fp32, int8


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """model.onnx and model.int8.onnx of the smallest net."""
    return _files(TINY, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def net_files() -> Callable[[NdpConfig, Path], tuple[Path, Path]]:
    """Makes model.onnx and model.int8.onnx of any configuration in a folder."""
    return _files


@pytest.fixture
def fake() -> Callable[..., SimpleNamespace]:
    """Makes a TensorRT of a version."""
    return make_fake


@pytest.fixture(scope="session")
def rtx() -> None:
    """Skips where TensorRT-RTX is not installed (anywhere but x86-64 Linux)."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed here: pip install 'ndp-edge[rtx]'")
