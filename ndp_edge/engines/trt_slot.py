"""One lane of double buffering: its own memory, stream and contexts, at most one batch under way.

Two slots let the copies and the host's work on one batch run while the net is at the other.
Everything is made when the slot is; a frame allocates nothing on the device.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.cuda.base import CannotCaptureError, Cuda, CudaError, Graph
from ndp_edge.engines.base import Images, Maps
from ndp_edge.engines.trt_plan import Plan
from ndp_edge.errors import MachineError, NdpError

_FLOAT = 4
_WARM_UPS = 2
"""Runs before a capture: the library finishes its own preparations in the first."""


@dataclass
class Part:
    """What one slot computes for one request.

    Attributes:
        out: float32 [n, H, W], filled when the part is settled.
        error: why it was not.
        slot: where it is under way; None once settled.
    """

    out: Maps
    error: NdpError | None = None
    slot: Slot | None = None


class Slot:
    """Buffers for the largest batch; one context, and where possible one graph, per batch size.

    Every method needs the CUDA context current.
    """

    def __init__(self, cuda: Cuda, plan: Plan, batches: tuple[int, ...]) -> None:
        """Allocate; `prepare` comes next (raises CudaError)."""
        self._cuda = cuda
        self._plan = plan
        self._pixels = plan.size[0] * plan.size[1]
        most = max(batches) * self._pixels
        self._stream = cuda.stream()
        self._done = cuda.event()
        self._host_in = cuda.pinned(3 * most)
        self._host_out = cuda.pinned(_FLOAT * most)
        self._device_in = cuda.device(3 * most)
        self._device_out = cuda.device(_FLOAT * most)
        self._scratch = cuda.device(plan.scratch) if plan.scratch else None
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Graph] = {}
        self._no_graph: str | None = None
        self.part: Part | None = None
        self._batches = batches

    def prepare(self) -> None:
        """Make the contexts, run each and capture it; `close` whatever happens.

        Raises:
            MachineError: the plan cannot be run.
        """
        for profile, batch in enumerate(self._batches):
            self._prepare(profile, batch)

    def start(self, images: Images, batch: int, part: Part) -> None:
        """Queue `images` (at most `batch`; the rest is padding) and leave the answer to `settle`.

        The slot must be idle. What goes wrong becomes `part.error`, raised for its own frame.
        """
        view = self._host_in.array[: 3 * batch * self._pixels].reshape(batch, *self._plan.size, 3)
        view[: len(images)] = images  # behind them stays what was there: its answer is not read
        try:
            if batch in self._graphs:
                self._graphs[batch].launch(self._stream)
            else:
                self._queue(batch)
            self._done.record(self._stream)
        except NdpError as error:
            part.error = error
            self._drain()
            return
        part.slot, self.part = self, part

    def settle(self) -> None:
        """Wait for the part under way and hand its maps or its error over; idle afterwards."""
        part, self.part = self.part, None
        if part is None:
            return
        part.slot = None
        try:
            self._done.synchronize()
            part.out[:] = self._maps(len(part.out))
        except CudaError as error:
            part.error = error
            self._drain()

    def graphs(self) -> str:
        """Which batch sizes run as a captured graph, and why the others do not."""
        if self._no_graph is None:
            return "one per batch size"
        some = f"for batch {', '.join(map(str, self._graphs))} alone" if self._graphs else "none"
        return f"{some}: {self._no_graph}"

    def close(self) -> None:
        """Drop graphs and contexts (before the plan goes); the memory is the `Cuda`'s to free."""
        self._drain()
        for graph in self._graphs.values():
            with contextlib.suppress(CudaError):  # `Cuda.close` meets it again, and tells
                graph.free()
        self._graphs.clear()
        self._contexts.clear()

    def _maps(self, count: int) -> NDArray[np.float32]:
        used = self._host_out.array[: _FLOAT * count * self._pixels]
        return used.view(np.float32).reshape(count, *self._plan.size)

    def _drain(self) -> None:
        """After a failure: be sure that nothing still reads or writes the buffers."""
        with contextlib.suppress(CudaError):  # the failure once more, or a context that is gone
            self._stream.synchronize()

    def _prepare(self, profile: int, batch: int) -> None:
        plan, stream = self._plan, self._stream
        scratch = self._scratch.address if self._scratch else 0
        context = plan.context(profile, stream.handle, scratch)
        stream.synchronize()
        plan.bind(context, batch, self._device_in.address, self._device_out.address)
        self._contexts[batch] = context
        self._host_in.array[:] = 0
        for _ in range(_WARM_UPS):
            self._queue(batch)
            stream.synchronize()
        if plan.jit is not None:
            self._no_graph = "TensorRT-RTX captures its own"
            return
        try:
            self._graphs[batch] = self._cuda.capture(stream, lambda: self._queue(batch))
        except CannotCaptureError as error:
            self._no_graph = str(error)

    def _queue(self, batch: int) -> None:
        """Copy in, run, copy out; always the whole batch, so that a graph of it can be replayed."""
        stream, pixels = self._stream, batch * self._pixels
        self._cuda.copy_in(self._device_in, self._host_in, 3 * pixels, stream)
        if not self._contexts[batch].execute_async_v3(stream.handle):
            raise MachineError(f"TensorRT could not run: {self._plan.why('it gave no reason')}")
        self._cuda.copy_out(self._host_out, self._device_out, _FLOAT * pixels, stream)
