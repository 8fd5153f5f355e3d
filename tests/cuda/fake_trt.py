"""A TensorRT of a few names: plans are JSON, the net is a mean over the colours.

It refuses what the library refuses (a context without shape, address, memory or profile) and
queues its work on the fake device's streams, so that nothing is computed before its turn.
"""

from __future__ import annotations

import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import FakeCuda
from fake_parts import Work
from numpy.typing import NDArray

SIZE = (4, 6)


class _Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    """As the library's: subclassed by ours."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = _Severity


def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the fake net says of uint8 [N, H, W, 3]: float32 [N, H, W]."""
    return images.mean(axis=3, dtype=np.float32) / np.float32(255)


def plan_bytes(batches: tuple[int, ...] = (1,), **changed: Any) -> bytes:
    """A plan of the fake; `changed` gives tensors or sizes that are not ours."""
    content = {"batches": list(batches), "size": SIZE, "scratch": 64, "tensors": None, **changed}
    return json.dumps(content).encode()


class FakeTrt(SimpleNamespace):
    """The module. Give it the device its kernels run on."""

    ILogger = ILogger
    DataType = SimpleNamespace(UINT8="uint8", FLOAT="float32", HALF="float16")
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    ExecutionContextAllocationStrategy = SimpleNamespace(STATIC=0, USER_MANAGED=2)

    def __init__(self, cuda: FakeCuda, version: str = "10.3.0") -> None:
        super().__init__(cuda=cuda, __version__=version, configs=[], ends=[], refuse_enqueue=0)

    def Runtime(self, logger: ILogger) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda data: _engine(self, logger, data))


class FakeRtx(FakeTrt):
    """TensorRT-RTX: the same, and what `engines.trt_jit` asks for."""

    ComputeCapability = SimpleNamespace(SM86=86)
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY=0, EAGER=1)
    CudaGraphStrategy = SimpleNamespace(DISABLED=0, WHOLE_GRAPH_CAPTURE=1)


def _engine(trt: FakeTrt, logger: Any, data: bytes) -> Any:
    try:
        plan = json.loads(data)
    except ValueError:
        logger.log(ILogger.ERROR, "magic tag does not\n match")
        return None
    return FakeEngine(trt, logger, plan)


class FakeEngine:
    """ICudaEngine."""

    def __init__(self, trt: FakeTrt, logger: Any, plan: dict[str, Any]) -> None:
        height, width = plan["size"]
        self.trt, self.logger, self.plan = trt, logger, plan
        self.tensors = plan["tensors"] or {
            "image": ["uint8", "in", [-1, height, width, 3]],
            "anomaly_map": ["float32", "out", [-1, 1, height, width]],
        }
        self.num_io_tensors = len(self.tensors)
        self.device_memory_size_v2 = plan["scratch"]

    def __del__(self) -> None:
        """The library wants its context current, and nobody at work, when an engine goes."""
        cuda = self.trt.cuda
        unwell = ["no context"] if cuda.depth == 0 else []
        unwell += ["graphs"] if cuda.alive["graph"] else []
        unwell += ["work"] if cuda.busy else []
        self.trt.ends.append(unwell)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.tensors[name][0]

    def get_tensor_mode(self, name: str) -> str:
        return self.tensors[name][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name][2])

    def create_runtime_config(self) -> Any:
        return FakeRuntimeConfig()

    def create_execution_context(self, how: Any) -> FakeContext:
        strategy = how.strategy if isinstance(how, FakeRuntimeConfig) else how
        assert strategy == FakeTrt.ExecutionContextAllocationStrategy.USER_MANAGED
        made = FakeContext(self, how)
        self.trt.configs.append(how)
        return made


class FakeRuntimeConfig:
    """IRuntimeConfig."""

    def __init__(self) -> None:
        self.strategy = 0
        self.dynamic_shapes_kernel_specialization_strategy = 0
        self.cuda_graph_strategy = 0
        self.cache: FakeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: int) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache()

    def set_runtime_cache(self, cache: FakeCache) -> bool:
        self.cache = cache
        return True


class FakeCache:
    """IRuntimeCache: takes what begins with its own word."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"jit:"):
            return False
        self.kernels = set(blob[4:].decode().split(","))
        return True

    def serialize(self) -> bytes:
        return b"jit:" + ",".join(sorted(self.kernels)).encode() if self.kernels else b""


class FakeContext:
    """IExecutionContext."""

    def __init__(self, engine: FakeEngine, how: Any) -> None:
        self.engine, self.how = engine, how
        self.batch: int | None = None
        self.profile: int | None = None
        self.memory: int | None = None
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.engine.trt.cuda.stream_at(stream)
        self.profile = profile
        return profile < len(self.engine.plan["batches"])

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self.engine.trt.cuda.memory_at(memory).nbytes >= size
        self.memory = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        good = shape == (self.engine.plan["batches"][self.profile], *self.engine.plan["size"], 3)
        self.batch = shape[0] if good else None
        return name == "image" and good

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream: int) -> bool:
        trt, (height, width) = self.engine.trt, self.engine.plan["size"]
        if trt.refuse_enqueue:
            trt.refuse_enqueue -= 1
            self.engine.logger.log(ILogger.ERROR, "no tactic\nleft")
            return False
        trt.cuda.called("enqueueV3")
        assert self.batch and (self.memory or not self.engine.plan["scratch"])
        source, target = (trt.cuda.memory_at(self.addresses[n]) for n in ("image", "anomaly_map"))
        scratch = (trt.cuda.memory_at(self.memory),) if self.memory else ()
        pixels = self.batch * height * width
        if isinstance(self.how, FakeRuntimeConfig) and self.how.cache is not None:
            self.how.cache.kernels.add(f"batch{self.batch}")

        def do() -> None:
            images = source.bytes[: 3 * pixels].reshape(-1, height, width, 3)
            target.bytes[: 4 * pixels] = answer(images).reshape(-1).view(np.uint8)

        trt.cuda.stream_at(stream).add(Work("net", do, (source,), (target, *scratch)))
        return True
