"""A plan made ready to run: deserialised, its inputs and outputs checked, contexts on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ndp_edge.engines.trt_compat import make_logger
from ndp_edge.engines.trt_jit import Jit
from ndp_edge.errors import MachineError

INPUT, OUTPUT = "image", "anomaly_map"


class Plan:
    """A deserialised engine of TensorRT or TensorRT-RTX; the CUDA context must be current.

    Attributes:
        size: (height, width) of its images.
        scratch: bytes of device memory that one context works in.
        jit: TensorRT-RTX's part; None for TensorRT.
    """

    def __init__(self, trt: Any, path: Path, rebuild: str) -> None:
        """Deserialise the plan at `path`.

        Args:
            trt: the module.
            path: the file.
            rebuild: the command that builds it again.

        Raises:
            MachineError: the library refuses it, or its tensors are not ours.
        """
        self._trt = trt
        self._rebuild = f"{path.name} cannot be used; rebuild with: {rebuild}"
        self.logger: Any = make_logger(trt)
        self._runtime: Any = trt.Runtime(self.logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise MachineError(f"{self.why('it was refused')}: {self._rebuild}")
        self.size = self._check_tensors()
        self.scratch = int(self._engine.device_memory_size_v2)
        self.jit = Jit.of(trt, self._engine, path)

    def why(self, otherwise: str) -> str:
        """The library's last complaint, for an error message."""
        errors: list[str] = self.logger.errors
        return " ".join(errors[-1].split())[:300] if errors else otherwise

    def context(self, profile: int, stream: int, scratch: int) -> Any:
        """An execution context for one optimisation profile, whose working memory is ours.

        Contexts that run one after the other on one stream may share that memory, and with it
        a captured graph stays valid whatever else is run (the library would otherwise own it).

        Args:
            profile: its index.
            stream: handle of the stream it will run on; synchronise it before the first run.
            scratch: address of `self.scratch` bytes on the device.

        Raises:
            MachineError: the library refused.
        """
        made = self._engine.create_execution_context(
            self.jit.config
            if self.jit
            else self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if made is None or not made.set_optimization_profile_async(profile, stream):
            raise MachineError(f"{self.why(f'no context for profile {profile}')}: {self._rebuild}")
        if self.scratch:
            made.set_device_memory(scratch, self.scratch)
        return made

    def bind(self, context: Any, batch: int, image: int, anomaly_map: int) -> None:
        """Tell a context its batch size and the device addresses of input and output.

        Raises:
            MachineError: the plan was not built for that batch size.
        """
        height, width = self.size
        done = (
            context.set_input_shape(INPUT, (batch, height, width, 3))
            and context.set_tensor_address(INPUT, image)
            and context.set_tensor_address(OUTPUT, anomaly_map)
        )
        if not done:
            raise MachineError(f"{self.why(f'batch {batch} was refused')}: {self._rebuild}")

    def close(self) -> None:
        """Let engine and runtime go, in that order; every context must be gone already."""
        self.jit = None
        self._engine = self._runtime = None

    def _check_tensors(self) -> tuple[int, int]:
        kinds, modes = self._trt.DataType, self._trt.TensorIOMode
        wanted = {INPUT: (kinds.UINT8, modes.INPUT), OUTPUT: (kinds.FLOAT, modes.OUTPUT)}
        engine = self._engine
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        if names != set(wanted):
            raise MachineError(f"its tensors are {', '.join(sorted(names))}: {self._rebuild}")
        for name, (kind, mode) in wanted.items():
            if (engine.get_tensor_dtype(name), engine.get_tensor_mode(name)) != (kind, mode):
                raise MachineError(f"its {name} has another type or direction: {self._rebuild}")
        batch, *rest = tuple(engine.get_tensor_shape(INPUT))
        shape = tuple(engine.get_tensor_shape(OUTPUT))
        if len(rest) != 3 or rest[2] != 3 or shape != (batch, 1, *rest[:2]):
            raise MachineError(f"its shapes are not ours: {self._rebuild}")
        return rest[0], rest[1]
