"""CUDA through pycuda: no graphs, and its own stack of contexts in front of the driver's."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
import warnings
from collections.abc import Callable, Iterator
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

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name."""

_FAILED = re.compile(r"^(\w+) failed: (.*)$", re.DOTALL)


class PyCuda(Cuda):
    """The device through pycuda.driver; `pycuda.autoinit` is never imported.

    pycuda frees an object of its own accord only on the thread that opened the context;
    everything is freed by name here, with the context current, so any thread will do.
    """

    name = "pycuda"
    no_graphs = "pycuda has no graph API: each frame is queued plainly; cuda-python captures graphs"

    def __init__(self, device: int = 0) -> None:
        """Retain the primary context of one device (raises MachineError, see `open_cuda`)."""
        super().__init__()
        self._driver = _import()
        try:
            with self.named():
                self._driver.init()
                found = self._driver.Device.count()
        except CudaError as error:
            # cuInit itself says so where the driver is there and the card is not.
            raise no_device() if "no CUDA-capable device" in str(error) else no_driver(error) from (
                error
            )
        if device >= found:
            raise no_device()
        with self.named():
            self._card = self._driver.Device(device)
            self._context = self._card.retain_primary_context()

    def wait(self, stream: Stream, event: Event) -> None:
        """See `Cuda.wait`."""
        assert isinstance(stream, _Stream) and isinstance(event, _Event)
        with self.named():
            stream.raw.wait_for_event(event.raw)

    def describe(self) -> dict[str, Any]:
        """See `Cuda.describe`."""
        with self.named():
            major, minor = self._card.compute_capability()
            driver = self._driver.get_driver_version()
            return {
                "package": self.name,
                "version": importlib.import_module("pycuda").VERSION_TEXT,
                "driver": f"{driver // 1000}.{driver % 1000 // 10}",
                "device": self._card.name(),
                "sm": 10 * major + minor,
                "memory": self._card.total_memory(),
            }

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """pycuda's errors as ours."""
        try:
            yield
        except self._driver.Error as error:
            told = " ".join(str(error).split())
            match = _FAILED.match(told)
            call, text = match.groups() if match else ("pycuda", told)
            raise CudaError(call, _code(text), text) from error

    def _push(self) -> None:
        with self.named():
            self._context.push()

    def _pop(self) -> None:
        with self.named():
            self._driver.Context.pop()

    def _pinned(self, nbytes: int) -> PinnedBuffer:
        with self.named():
            return _Pinned(self, self._driver.pagelocked_empty(nbytes, np.uint8))

    def _device(self, nbytes: int) -> DeviceBuffer:
        with self.named():
            return _Device(self, self._driver.mem_alloc(nbytes), nbytes)

    def _stream(self) -> Stream:
        with self.named():
            return _Stream(self, self._driver.Stream(_NON_BLOCKING))

    def _event(self) -> Event:
        with self.named():
            return _Event(self, self._driver.Event())

    def _copy_in(self, to: DeviceBuffer, source: PinnedBuffer, n: int, stream: Stream) -> None:
        assert isinstance(stream, _Stream)
        with self.named():
            self._driver.memcpy_htod_async(to.address, source.array[:n], stream.raw)

    def _copy_out(self, to: PinnedBuffer, source: DeviceBuffer, n: int, stream: Stream) -> None:
        assert isinstance(stream, _Stream)
        with self.named():
            self._driver.memcpy_dtoh_async(to.array[:n], source.address, stream.raw)

    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        raise CannotCaptureError(str(self.no_graphs))

    def _release(self) -> None:
        """Let the primary context go.

        pycuda's `detach` pushes the context, releases it and never pops it (it was written
        for contexts that vanish with the release). Left there, the next library to use CUDA
        on this thread would meet a destroyed context: pop it from the driver's stack. On
        another thread than the opening one `detach` does nothing, and the context stays
        until the process ends.
        """
        handle = self._context.handle
        with self.named():
            self._context.detach()
        driver, top = _libcuda(), ctypes.c_void_p()
        if driver and driver.cuCtxGetCurrent(ctypes.byref(top)) == 0 and top.value == handle:
            driver.cuCtxPopCurrent_v2(ctypes.byref(top))


class _Pinned(PinnedBuffer):
    def __init__(self, cuda: PyCuda, array: NDArray[np.uint8]) -> None:
        super().__init__(cuda)
        self._named = cuda.named
        self._array = array
        self._memory: Any = array.base
        self.nbytes = array.nbytes

    @property
    def array(self) -> NDArray[np.uint8]:
        if self._freed:
            raise ValueError("this pinned buffer was freed")
        return self._array

    def _free(self) -> None:
        with self._named():
            self._memory.free()


class _Device(DeviceBuffer):
    def __init__(self, cuda: PyCuda, memory: Any, nbytes: int) -> None:
        super().__init__(cuda)
        self._named = cuda.named
        self._memory = memory
        self.address = int(memory)
        self.nbytes = nbytes

    def _free(self) -> None:
        with self._named():
            self._memory.free()


class _Stream(Stream):
    def __init__(self, cuda: PyCuda, raw: Any) -> None:
        super().__init__(cuda)
        self._named = cuda.named
        self.raw = raw
        self.handle = int(raw.handle)

    def synchronize(self) -> None:
        with self._named():
            self.raw.synchronize()

    def _free(self) -> None:
        self.raw = None  # pycuda destroys the stream with its last reference


class _Event(Event):
    def __init__(self, cuda: PyCuda, raw: Any) -> None:
        super().__init__(cuda)
        self._named = cuda.named
        self.raw = raw

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, _Stream)
        with self._named():
            self.raw.record(stream.raw)

    def synchronize(self) -> None:
        with self._named():
            self.raw.synchronize()

    def elapsed_ms(self, other: Event) -> float:
        assert isinstance(other, _Event)
        with self._named():
            return float(other.raw.time_since(self.raw))

    def _free(self) -> None:
        self.raw = None  # as a stream


def _import() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of the error that it then raises
            return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        told = f"pycuda is not installed here ({error})"
        raise MachineError(f"{told}; install it with: {INSTALL['pycuda']}") from error
    except ImportError as error:
        if "libcuda.so" in str(error):
            raise no_driver(error) from error
        told = f"pycuda does not load here ({error})"
        raise MachineError(f"{told}; build it again: docs/pycuda.md says how") from error


def _libcuda() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _code(text: str) -> int | None:
    """CUDA's number for the text of an error: pycuda's exceptions have the text alone."""
    driver, found = _libcuda(), ctypes.c_char_p()
    for code in range(1, 1000) if driver else ():
        told = driver.cuGetErrorString(code, ctypes.byref(found)) == 0 and found.value
        if told and told.decode() == text.partition(" - ")[0]:
            return code
    return None
