"""CUDA through cuda-python: the driver's own functions, graphs included."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.cuda import INSTALL
from ndp_edge.cuda.base import (
    CannotCaptureError,
    Cuda,
    CudaError,
    DeviceBuffer,
    Event,
    Graph,
    PinnedBuffer,
    Stream,
    no_device,
    no_driver,
)
from ndp_edge.errors import MachineError

# `cuda.cuda` is what versions before 12.6 call it.
_MODULES = ("cuda.bindings.driver", "cuda.cuda")
_NO_DEVICE = (100, 101)
"""CUDA_ERROR_NO_DEVICE and CUDA_ERROR_INVALID_DEVICE."""


class _Driver:
    """The bindings' functions, with the error tuple that each returns made an exception."""

    def __init__(self) -> None:
        self.module: Any = _import()

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Call the driver's function and return its one result, or None.

        Raises:
            CudaError: it returned an error, or the driver has no such function.
        """
        try:
            code, *results = getattr(self.module, name)(*arguments)
        except RuntimeError as error:  # how the bindings say that a library or function is missing
            raise CudaError(name, None, " ".join(str(error).split())) from error
        if int(code) != 0:
            raise CudaError(name, int(code), getattr(code, "name", "unknown error"))
        return results[0] if results else None


class CudaPython(Cuda):
    """The device through cuda.bindings (or cuda.cuda)."""

    name = "cuda-python"

    def __init__(self, device: int = 0) -> None:
        """Retain the primary context of one device (raises MachineError, see `open_cuda`)."""
        super().__init__()
        self._call = _Driver()
        try:
            self._call("cuInit", 0)
            self._ordinal = self._call("cuDeviceGet", device)
        except CudaError as error:
            raise no_device() if error.code in _NO_DEVICE else no_driver(error) from error
        self._context = self._call("cuDevicePrimaryCtxRetain", self._ordinal)

    def wait(self, stream: Stream, event: Event) -> None:
        """See `Cuda.wait`."""
        assert isinstance(stream, _Stream) and isinstance(event, _Event)
        self._call("cuStreamWaitEvent", stream.raw, event.raw, 0)

    def describe(self) -> dict[str, Any]:
        """See `Cuda.describe`."""
        call = self._call
        kinds = call.module.CUdevice_attribute
        major, minor = (
            call("cuDeviceGetAttribute", kind, self._ordinal)
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        driver = call("cuDriverGetVersion")
        name = call("cuDeviceGetName", 256, self._ordinal)
        return {
            "package": self.name,
            "version": _version(),
            "driver": f"{driver // 1000}.{driver % 1000 // 10}",
            "device": name.split(b"\0")[0].decode(),
            "sm": 10 * major + minor,
            "memory": call("cuDeviceTotalMem", self._ordinal),
        }

    def _push(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def _pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def _pinned(self, nbytes: int) -> PinnedBuffer:
        return _Pinned(self, self._call, nbytes)

    def _device(self, nbytes: int) -> DeviceBuffer:
        return _Device(self, self._call, nbytes)

    def _stream(self) -> Stream:
        return _Stream(self, self._call)

    def _event(self) -> Event:
        return _Event(self, self._call)

    def _copy_in(self, to: DeviceBuffer, source: PinnedBuffer, n: int, stream: Stream) -> None:
        assert isinstance(source, _Pinned) and isinstance(stream, _Stream)
        self._call("cuMemcpyHtoDAsync", to.address, source.host, n, stream.raw)

    def _copy_out(self, to: PinnedBuffer, source: DeviceBuffer, n: int, stream: Stream) -> None:
        assert isinstance(to, _Pinned) and isinstance(stream, _Stream)
        self._call("cuMemcpyDtoHAsync", to.host, source.address, n, stream.raw)

    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Thread-local mode: what other threads do with CUDA meanwhile does not matter."""
        assert isinstance(stream, _Stream)
        mode = self._call.module.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream.raw, mode)
        try:
            work()
        except BaseException as error:
            self._abandon(stream)
            if isinstance(error, CudaError):
                raise CannotCaptureError(f"the graph could not be captured: {error}") from error
            raise
        try:
            graph = self._call("cuStreamEndCapture", stream.raw)
        except CudaError as error:
            raise CannotCaptureError(f"the graph could not be captured: {error}") from error
        try:
            return _Graph(self, self._call, graph)
        except CudaError as error:
            raise CannotCaptureError(f"the graph could not be made: {error}") from error
        finally:
            self._call("cuGraphDestroy", graph)

    def _abandon(self, stream: _Stream) -> None:
        """End a capture that went wrong; the driver usually calls it invalid, and ends it."""
        try:
            graph = self._call("cuStreamEndCapture", stream.raw)
        except CudaError:
            return
        self._call("cuGraphDestroy", graph)

    def _release(self) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._ordinal)


class _Pinned(PinnedBuffer):
    def __init__(self, cuda: Cuda, call: _Driver, nbytes: int) -> None:
        super().__init__(cuda)
        self._call = call
        self.host: int = call("cuMemHostAlloc", nbytes, 0)
        self.nbytes = nbytes
        memory = (ctypes.c_uint8 * nbytes).from_address(self.host)
        self._array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)

    @property
    def array(self) -> NDArray[np.uint8]:
        if self._freed:
            raise ValueError("this pinned buffer was freed")
        return self._array

    def _free(self) -> None:
        self._call("cuMemFreeHost", self.host)


class _Device(DeviceBuffer):
    def __init__(self, cuda: Cuda, call: _Driver, nbytes: int) -> None:
        super().__init__(cuda)
        self._call = call
        self.address = int(call("cuMemAlloc", nbytes))
        self.nbytes = nbytes

    def _free(self) -> None:
        self._call("cuMemFree", self.address)


class _Stream(Stream):
    def __init__(self, cuda: Cuda, call: _Driver) -> None:
        super().__init__(cuda)
        self._call = call
        self.raw = call("cuStreamCreate", call.module.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.handle = int(self.raw)

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self.raw)

    def _free(self) -> None:
        self._call("cuStreamDestroy", self.raw)


class _Event(Event):
    def __init__(self, cuda: Cuda, call: _Driver) -> None:
        super().__init__(cuda)
        self._call = call
        self.raw = call("cuEventCreate", call.module.CUevent_flags.CU_EVENT_DEFAULT)

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, _Stream)
        self._call("cuEventRecord", self.raw, stream.raw)

    def synchronize(self) -> None:
        self._call("cuEventSynchronize", self.raw)

    def elapsed_ms(self, other: Event) -> float:
        assert isinstance(other, _Event)
        return float(self._call("cuEventElapsedTime", self.raw, other.raw))

    def _free(self) -> None:
        self._call("cuEventDestroy", self.raw)


class _Graph(Graph):
    def __init__(self, cuda: Cuda, call: _Driver, graph: Any) -> None:
        super().__init__(cuda)
        self._call = call
        self._raw = call("cuGraphInstantiate", graph, 0)

    def launch(self, stream: Stream) -> None:
        assert isinstance(stream, _Stream)
        self._call("cuGraphLaunch", self._raw, stream.raw)

    def _free(self) -> None:
        self._call("cuGraphExecDestroy", self._raw)


def _version() -> str:
    for name in ("cuda-bindings", "cuda-python"):  # the second alone in older ones
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


def _import() -> Any:
    broken: Exception | None = None
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            broken = broken or error
        except (ImportError, OSError, RuntimeError) as error:
            broken = error  # it is there, but its library does not load
    told = f"cuda-python is not installed here ({broken})"
    raise MachineError(f"{told}; install it with: {INSTALL['cuda-python']}") from broken
