"""Where the kernels run: the GPU, or in a dry run their host build on CPU tensors.

Checks hand NumPy arrays in and get NumPy arrays back. In between every output lies between two
guard bands and holds NaN, so that an element left unwritten and one written beside are both seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ndp_edge.errors import MachineError
from ndp_edge.model import launch, operators
from ndp_edge.native.compile import build_host
from ndp_edge.native.library import Library

GUARD = 4096
"""Bytes of guard band on either side of an output; a multiple of every alignment."""

PATTERN = 0xA5


class WrongError(AssertionError):
    """A check that failed, and why."""


def need(condition: bool, message: str) -> None:
    """Raise WrongError with the message unless the condition holds."""
    if not condition:
        raise WrongError(message)


@dataclass(frozen=True)
class Rig:
    """A library and the device whose memory it works in."""

    library: Library
    device: torch.device

    @property
    def real(self) -> bool:
        """True on a GPU: only then is a time worth writing down."""
        return self.device.type == "cuda"

    def stream(self) -> int:
        """The current CUDA stream as a number."""
        return int(torch.cuda.current_stream(self.device).cuda_stream) if self.real else 0

    def tensor(self, x: NDArray[Any], nhwc: bool = False) -> Tensor:
        """A copy on the device; [N, C, H, W] channels-last in memory if `nhwc`."""
        t = torch.from_numpy(np.array(x, order="C"))
        # The layout is changed before the copy: no kernel but ours runs on the device.
        return (t.contiguous(memory_format=torch.channels_last) if nhwc else t).to(self.device)

    def rbfrm(
        self, features: NDArray[Any], reference: NDArray[Any], scale: float, nhwc: bool
    ) -> tuple[NDArray[Any], ...]:
        """R2, R4, U [N, C, H, W] of features [N, C, H, W] and reference [C, h, w]."""
        f, r = self.tensor(features, nhwc), self.tensor(reference[None], nhwc)
        prepared = operators.prepare(r)
        with self.guarded(f, 3) as out:
            launch.rbfrm(self.library, f, r, prepared, scale, stream=self.stream(), out=out)
        return tuple(x.cpu().contiguous().numpy() for x in out)

    def ffm_select(
        self,
        logits: NDArray[Any],
        rep4: NDArray[Any],
        rep2: NDArray[Any],
        features: NDArray[Any],
        nhwc: bool,
    ) -> NDArray[Any]:
        """The selection [N, C, H, W]; logits [N, 3C, H, W]."""
        given = [self.tensor(x, nhwc) for x in (logits, rep4, rep2, features)]
        with self.guarded(given[3], 1) as out:
            launch.ffm_select(self.library, *given, stream=self.stream(), out=out[0])
        return out[0].cpu().contiguous().numpy()

    def smooth_max(self, maps: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Smoothed maps [N, H, W] and peaks [N]."""
        given = self.tensor(maps)
        with self.guarded(given, 1) as smoothed, self.guarded(given[:, 0, 0], 1) as peaks:
            launch.smooth_max(self.library, given, stream=self.stream(), out=(*smoothed, *peaks))
        return smoothed[0].cpu().numpy(), peaks[0].cpu().numpy()

    @contextlib.contextmanager
    def guarded(self, like: Tensor, count: int) -> Iterator[list[Tensor]]:
        """`count` outputs shaped and laid out as `like`; the bands are looked at on leaving.

        Raises:
            WrongError: a kernel wrote outside an output.
        """
        last = like.ndim == 4 and launch.memory_format(like) == torch.channels_last
        shape = [like.shape[i] for i in (0, 2, 3, 1)] if last else list(like.shape)
        size = like.numel() * like.element_size()
        raws = []
        for _ in range(count):
            raw = torch.full((size + 2 * GUARD,), PATTERN, dtype=torch.uint8)
            raw[GUARD : GUARD + size] = 0xFF  # NaN in every type
            raws.append(raw.to(self.device))
        inside = [raw[GUARD : GUARD + size].view(like.dtype).view(shape) for raw in raws]
        yield [x.permute(0, 3, 1, 2) if last else x for x in inside]
        self.wait()
        for raw in raws:
            bands = torch.cat([raw[:GUARD].cpu(), raw[GUARD + size :].cpu()])
            need(bool((bands == PATTERN).all()), "wrote outside its output")

    def wait(self) -> None:
        """Until the device has done all work. An error of an earlier launch surfaces here."""
        if self.real:
            torch.cuda.synchronize(self.device)


def host_rig() -> Rig:
    """The host build on CPU tensors. Raises MachineError without a C++ compiler."""
    return Rig(Library(build_host()), torch.device("cpu"))


def cuda_rig() -> Rig:
    """The first visible GPU. Raises MachineError without one, or without nvcc."""
    if not torch.cuda.is_available():
        raise MachineError("torch sees no CUDA device here; bench/gpu/verify.sh needs one")
    device = torch.device("cuda", torch.cuda.current_device())
    return Rig(operators.device_library(device), device)
