"""One optimiser step per batch; on a CUDA card captured in a graph after the first few.

A step of the small presets is some thousand short kernels: launched one by one, the card waits
for Python. Replayed as one graph it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ndp_edge.losses import joint
from ndp_edge.training.batches import Batch
from ndp_edge.training.options import TrainOptions
from ndp_edge.training.phases import Parts

PLAIN_FIRST = 4
"""Steps before the capture: they make the optimiser's state and let cuDNN choose its kernels."""

MakeParts = Callable[[Tensor, Tensor, Tensor], tuple[Parts, list[Tensor]]]


@dataclass
class Told:
    """What a step gave, on the device: losses by `names`, "total" the last, and the rows of a
    sample sheet. With a graph the next step overwrites both."""

    names: list[str]
    values: Tensor
    rows: list[Tensor]


def make_optimiser(
    parameters: list[nn.Parameter], o: TrainOptions, device: str
) -> torch.optim.Adam:
    """Adam in one kernel; on CUDA with its rate on the device, where a graph reads it."""
    if device != "cuda":
        return torch.optim.Adam(parameters, o.lr, weight_decay=o.weight_decay)
    rate = torch.tensor(o.lr, device=device)
    return torch.optim.Adam(
        parameters, rate, weight_decay=o.weight_decay, fused=True, capturable=True
    )


class Steps:
    """Forward, backward and update.

    Args:
        parts: (good, bad, mask) to the terms of the loss and the rows of a sample sheet. To be
            captured it must neither wait for the device nor branch on what is there.
        optimiser: of `make_optimiser`.
        amp: "none" or "bf16".
        device: "cpu" or "cuda".
        capture: whether steps may be captured; they are on CUDA only.
    """

    def __init__(
        self,
        parts: MakeParts,
        optimiser: torch.optim.Adam,
        amp: str,
        device: str,
        *,
        capture: bool = True,
    ) -> None:
        self._parts, self._optimiser, self._amp, self._device = parts, optimiser, amp, device
        self._capture = capture and device == "cuda"
        stream = torch.cuda.Stream() if self._capture else None  # type: ignore[no-untyped-call]
        self._stream: torch.cuda.Stream | None = stream
        # Blocking: who waits for the card must not take a core from those who make batches.
        end = torch.cuda.Event(blocking=True) if self._capture else None  # type: ignore[no-untyped-call]
        self._end: torch.cuda.Event | None = end
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._told: Told | None = None
        self._done = 0

    def __call__(self, batch: Batch, rate: float) -> Told:
        """One step at this learning rate. The values may be read at once: reading waits."""
        for group in self._optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        given = [as_tensor(x, self._device) for x in (batch.good, batch.bad, batch.mask)]
        self._done += 1
        if self._stream is None:
            return self._step(given)
        # Everything of a graph stays on its stream; what came before, and what comes after on
        # the usual one (averages, saving), is waited for.
        self._stream.wait_stream(torch.cuda.current_stream())
        if self._done <= PLAIN_FIRST:
            with torch.cuda.stream(self._stream):
                told = self._step(given)
        else:
            told = self._replay(given)
        if self._end is not None:
            self._end.record(self._stream)
            self._end.synchronize()
        return told

    def _replay(self, given: list[Tensor]) -> Told:
        assert self._stream is not None
        if self._graph is None:
            self._inputs = [torch.empty_like(x) for x in given]
        for mine, x in zip(self._inputs, given, strict=True):
            mine.copy_(x)
        self._stream.wait_stream(torch.cuda.current_stream())
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            self._optimiser.zero_grad(set_to_none=True)
            # thread_local: the thread that pins batches goes on meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._told = self._step(self._inputs)
            self._graph = graph
        with torch.cuda.stream(self._stream):
            self._graph.replay()
        assert self._told is not None
        return self._told

    def _step(self, given: list[Tensor]) -> Told:
        good, bad, mask = given
        with torch.autocast(self._device, torch.bfloat16, enabled=self._amp == "bf16"):
            parts, rows = self._parts(good, bad, mask)
        loss = joint(parts)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimiser.step()
        values = torch.stack([v.detach().float() for v in (*parts.values(), loss)])
        return Told([*parts, "total"], values, [row.detach() for row in rows])


def as_tensor(array: object, device: str) -> Tensor:
    """A batch's array (or the tensor that a worker made of it) on the device, channels-last."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
    return tensor.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
