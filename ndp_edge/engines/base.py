"""One interface before every backend: its public half checks, its private half computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ndp_edge.errors import InputError, MachineError, NdpError

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]


class Engine(ABC):
    """A net ready to run on one device.

    `infer` and `collect` return arrays that belong to the caller; nothing overwrites them.
    `submit` copies what it needs: the caller may reuse its images at once. An engine serves
    one thread at a time. Leave the `with` block (or call `close`) to free its memory.

    Attributes:
        name: the backend, such as "openvino" or "tensorrt".
        precision: "fp32", "fp16" or "int8".
        size: (height, width) in pixels of the images it takes.
        lanes: tickets that keep the device busy.
        batch: images that one ticket had best hold when there are many.
    """

    name: str
    lanes = 2
    batch = 1

    def __init__(self, precision: str, size: tuple[int, int]) -> None:
        self.precision = precision
        self.size = size
        self._closed = False
        self._next_ticket = 0
        self._pending: dict[int, Any] = {}

    def infer(self, images: Images) -> Maps:
        """Anomaly maps float32 [N, H, W] in [0, 1] (before the median) of uint8 [N, H, W, 3] RGB.

        Raises:
            InputError: wrong dtype, shape or size, no image, or the engine is closed.
            NdpError: the backend answered with NaN or infinity.
        """
        self._check(images)
        return self._finite(self._infer(images))

    def submit(self, images: Images) -> int:
        """Start on images (as `infer` takes them) and return a ticket for `collect`.

        Raises:
            InputError: as `infer`.
        """
        self._check(images)
        handle = self._submit(images)
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        self._pending[ticket] = handle
        return ticket

    def collect(self, ticket: int, out: Maps | None = None) -> Maps:
        """Wait for one ticket's maps, float32 [N, H, W]. Tickets may be collected in any order.

        Args:
            ticket: from `submit`.
            out: float32 [N, H, W] to write them into and return; None makes a new array.

        Raises:
            InputError: the ticket is unknown or was collected already, or the engine is closed.
            NdpError: the backend answered with NaN or infinity.
        """
        handle = self._waiting(ticket)
        del self._pending[ticket]
        if out is None:
            return self._finite(self._collect(handle))
        self._collect_into(handle, out)
        return self._finite(out)

    def done(self, ticket: int) -> bool:
        """False while `collect` would have to wait; True too where a backend cannot tell.

        Raises:
            InputError: as `collect`.
        """
        return self._done(self._waiting(ticket))

    def describe(self) -> dict[str, Any]:
        """backend, precision, device, threads (0: the backend's choice) and versions."""
        self._check_open()
        return {"backend": self.name, "precision": self.precision, **self._describe()}

    def close(self) -> None:
        """Free everything, after waiting for what is under way. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        pending, self._pending = self._pending, {}
        self._close(list(pending.values()))

    def __enter__(self) -> Engine:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _infer(self, images: Images) -> Maps: ...

    @abstractmethod
    def _submit(self, images: Images) -> Any: ...

    @abstractmethod
    def _collect(self, handle: Any) -> Maps: ...

    @abstractmethod
    def _describe(self) -> dict[str, Any]: ...

    @abstractmethod
    def _close(self, pending: list[Any]) -> None: ...

    def _collect_into(self, handle: Any, out: Maps) -> None:
        out[:] = self._collect(handle)

    def _done(self, handle: Any) -> bool:
        return True

    def _waiting(self, ticket: int) -> Any:
        self._check_open()
        if ticket not in self._pending:
            raise InputError(f"ticket {ticket} is not waiting: never given, or collected already")
        return self._pending[ticket]

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("this engine is closed; open it again with open_engine")

    def _check(self, images: Images) -> None:
        self._check_open()
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            kind = getattr(images, "dtype", type(images).__name__)
            raise InputError(f"images are {kind}; wanted uint8 [N, H, W, 3] in RGB")
        height, width = self.size
        if images.ndim != 4 or images.shape[1:] != (height, width, 3):
            raise InputError(
                f"images of shape {images.shape}; this engine takes [N, {height}, {width}, 3]"
            )
        if len(images) == 0:
            raise InputError("no image in the batch; give at least one")

    def _finite(self, maps: Maps) -> Maps:
        if not np.isfinite(maps).all():
            raise NdpError(
                f"{self.name} {self.precision} answered with NaN or infinity; the model is broken "
                "(run python -m ndp_edge.verify on the bundle)"
            )
        return maps


def read_model(path: Path, precision: str) -> onnx.ModelProto:
    """The ONNX file behind an engine, refused when it is not what `precision` says.

    Raises:
        InputError: no such file, not an ONNX model of ours, or of another precision.
    """
    if precision not in ("fp32", "fp16", "int8"):
        raise InputError(f"precision {precision!r}: there are fp32, fp16 and int8")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise InputError(f"no model at {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf and the checker have no common base
        raise InputError(f"{path} is not an ONNX model; export or build it again") from error
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    found = "int8" if quantised else "fp16" if half else "fp32"
    if found != precision:
        raise InputError(f"{path.name} holds an {found} model, but {precision} was asked for")
    return model


def image_size(model: onnx.ModelProto) -> tuple[int, int]:
    """(height, width) of the model's input `image`, uint8 [N, H, W, 3].

    Raises:
        InputError: the model has another input.
    """
    inputs = model.graph.input
    dims = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    kind = inputs[0].type.tensor_type.elem_type if dims else None
    if len(dims) != 4 or dims[3] != 3 or kind != onnx.TensorProto.UINT8 or not all(dims[1:]):
        raise InputError("the model's input is not uint8 [N, H, W, 3]; export it with ndp-edge")
    return dims[1], dims[2]


def check_threads(threads: int | None) -> int:
    """Threads as backends want them: 0 means their own choice.

    Raises:
        InputError: less than one thread asked for.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: at least 1, or leave it out")
    return threads or 0


def missing(package: str, install: str) -> MachineError:
    """The error for a backend that is not installed."""
    return MachineError(f"{package} is not installed here; install it with: {install}")
