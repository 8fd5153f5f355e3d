"""What the package wants of CUDA: memory, copies, streams, events, graphs, a context per thread.

Two packages stand behind it, one file each. The rules are CUDA's own:

- Work is asynchronous. `copy_in`, `copy_out`, `Graph.launch` and TensorRT's enqueue return
  before anything has happened; a buffer belongs to the device until the stream, or an event
  recorded behind the work, has been synchronised.
- Every call needs the context current on the calling thread: `with cuda.current():`.
- Everything made here lives until its `free()` or the `close()` of the `Cuda` that made it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import MachineError, NdpError

DOCTOR = "python -m ndp_edge.doctor shows the card and its driver"


class CudaError(MachineError):
    """A call into CUDA failed, or work queued before it did.

    Attributes:
        call: the driver's function ("cuMemAlloc").
        code: CUDA's number (2), None where the package does not tell it.
    """

    def __init__(self, call: str, code: int | None, text: str) -> None:
        number = "" if code is None else f" ({code})"
        super().__init__(f"{call} failed: {text}{number}; {DOCTOR}")
        self.call = call
        self.code = code


class CannotCaptureError(NdpError):
    """No graph could be captured; the message says why. Enqueue the same work plainly instead."""


class Resource(ABC):
    """Something that must be freed: once, and not while the device still uses it."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._freed = False

    def free(self) -> None:
        """Give it back (needs the context current). Freeing twice does nothing.

        Raises:
            CudaError: the driver refused.
        """
        if self._freed:
            return
        self._free()
        self._freed = True
        self._cuda.forget(self)

    @abstractmethod
    def _free(self) -> None: ...


class PinnedBuffer(Resource):
    """Page-locked host memory, which the device reads and writes by itself.

    Attributes:
        nbytes: its size.
    """

    nbytes: int

    @property
    @abstractmethod
    def array(self) -> NDArray[np.uint8]:
        """The memory itself, uint8 [nbytes]; copy what must outlive the buffer."""


class DeviceBuffer(Resource):
    """Device memory.

    Attributes:
        nbytes: its size.
        address: as kernels and TensorRT take it.
    """

    nbytes: int
    address: int


class Stream(Resource):
    """A queue of work that the device does in order.

    Attributes:
        handle: the cudaStream_t as a number, for TensorRT.
    """

    handle: int

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all of its work.

        Raises:
            CudaError: some of that work failed.
        """


class Event(Resource):
    """A mark in a stream."""

    @abstractmethod
    def record(self, stream: Stream) -> None:
        """Put the mark behind what `stream` has been given so far."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the mark is reached (raises CudaError: work before it failed)."""

    @abstractmethod
    def elapsed_ms(self, other: Event) -> float:
        """Milliseconds from this mark to `other`; both must have been reached."""


class Graph(Resource):
    """Work captured once, launched as one."""

    @abstractmethod
    def launch(self, stream: Stream) -> None:
        """Queue all of it on `stream`."""


_R = TypeVar("_R", bound=Resource)


class Cuda(ABC):
    """One device through one package.

    Attributes:
        name: "pycuda" or "cuda-python".
        no_graphs: why this package cannot capture graphs; None where it can.
    """

    name: str
    no_graphs: str | None = None

    def __init__(self) -> None:
        self._owned: dict[int, Resource] = {}
        self._closed = False

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Push the device's context on this thread, pop it when the block ends."""
        self._push()
        try:
            yield
        finally:
            self._pop()

    def pinned(self, nbytes: int) -> PinnedBuffer:
        """Page-locked host memory (raises CudaError: there is no more)."""
        return self._own(self._pinned(nbytes))

    def device(self, nbytes: int) -> DeviceBuffer:
        """Device memory (raises CudaError: there is no more)."""
        return self._own(self._device(nbytes))

    def stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        return self._own(self._stream())

    def event(self) -> Event:
        """An event that measures time."""
        return self._own(self._event())

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Record what `work` queues on `stream`, without doing it.

        Raises:
            CannotCaptureError: the package has no graphs, or `work` holds something that
                a graph cannot; `stream` is as it was.
        """
        if self.no_graphs is not None:
            raise CannotCaptureError(self.no_graphs)
        return self._own(self._capture(stream, work))

    def copy_in(
        self, device: DeviceBuffer, pinned: PinnedBuffer, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy of the first `nbytes` to the device."""
        _check_size(nbytes, device.nbytes, pinned.nbytes)
        self._copy_in(device, pinned, nbytes, stream)

    def copy_out(
        self, pinned: PinnedBuffer, device: DeviceBuffer, nbytes: int, stream: Stream
    ) -> None:
        """Queue a copy of the first `nbytes` from the device."""
        _check_size(nbytes, device.nbytes, pinned.nbytes)
        self._copy_out(pinned, device, nbytes, stream)

    @abstractmethod
    def wait(self, stream: Stream, event: Event) -> None:
        """Make what is queued on `stream` from now on wait for `event`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """package, version, driver (text), device (name), sm (86) and memory (bytes)."""

    def close(self) -> None:
        """Free everything, newest first, and let the context go. Closing twice does nothing.

        X
            Raises:
                CudaError: the first refusal.
        """
        if self._closed:
            return
        self._closed = True
        refused: list[CudaError] = []
        try:
            with self.current():
                self._free_all(refused)
        except CudaError as error:
            refused.append(error)
        self._owned.clear()
        self._release()
        if refused:
            raise refused[0]

    def forget(self, resource: Resource) -> None:
        """Called by `Resource.free`."""
        self._owned.pop(id(resource), None)

    def _free_all(self, refused: list[CudaError]) -> None:
        owned = list(reversed(self._owned.values()))
        waits = [r.synchronize for r in owned if isinstance(r, Stream)]
        for step in [*waits, *(r.free for r in owned)]:
            try:
                step()
            except CudaError as error:
                refused.append(error)

    def _own(self, made: _R) -> _R:
        self._owned[id(made)] = made
        return made

    @abstractmethod
    def _push(self) -> None: ...

    @abstractmethod
    def _pop(self) -> None: ...

    @abstractmethod
    def _pinned(self, nbytes: int) -> PinnedBuffer: ...

    @abstractmethod
    def _device(self, nbytes: int) -> DeviceBuffer: ...

    @abstractmethod
    def _stream(self) -> Stream: ...

    @abstractmethod
    def _event(self) -> Event: ...

    @abstractmethod
    def _capture(self, stream: Stream, work: Callable[[], None]) -> Graph: ...

    @abstractmethod
    def _copy_in(self, to: DeviceBuffer, source: PinnedBuffer, n: int, stream: Stream) -> None: ...

    @abstractmethod
    def _copy_out(self, to: PinnedBuffer, source: DeviceBuffer, n: int, stream: Stream) -> None: ...

    @abstractmethod
    def _release(self) -> None: ...


def _check_size(nbytes: int, *sizes: int) -> None:
    # A copy that is too long is a bug here, and on the device it would corrupt memory silently.
    if not 0 < nbytes <= min(sizes):
        raise ValueError(f"a copy of {nbytes} bytes between buffers of {sizes}")


def no_driver(error: object) -> MachineError:
    """The error for a machine without NVIDIA's driver."""
    told = " ".join(str(error).split())
    return MachineError(
        f"no NVIDIA driver answers here ({told}); install the card's driver, nvidia-smi shows it"
    )


def no_device() -> MachineError:
    """The error for a driver that sees no card."""
    return MachineError("NVIDIA's driver sees no CUDA device here; nvidia-smi lists those it has")
