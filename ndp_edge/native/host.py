"""The kernels on NumPy arrays, without a GPU: the host build behind logical NCHW arrays."""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.errors import InputError, MachineError
from ndp_edge.model.prepared import prepare_reference
from ndp_edge.native.compile import build_host
from ndp_edge.native.library import ALIGNMENT, WORKSPACE_ALIGNMENT, Library, MapShape

LAYOUTS = ("nchw", "nhwc")


class HostKernels:
    """The three kernels on the CPU: slow, and the very sources that run on a GPU.

    Arrays in and out are logically NCHW; `layout` is what the kernel sees in memory.
    """

    def __init__(self, library: Path | None = None, multiprocessors: int = 0) -> None:
        """Load `library`, a host build; None compiles or takes the cached one.

        `multiprocessors` of the GPU whose way to cut the work is to be taken; 0 is 1.

        Raises:
            MachineError: no C++ compiler, or not such a library.
        """
        self.library = Library(library or build_host(), multiprocessors)

    def rbfrm(
        self,
        features: NDArray[Any],
        reference: NDArray[Any],
        softmax_scale: float = 1.0,
        layout: str = "nhwc",
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Equations 3-6 for K = 2 and K = 4.

        Args:
            features: [N, C, H, W], float16 or float32, C a multiple of 8, sides of 4.
            reference: [C, h, w] of the same type, sides multiples of 4.
            softmax_scale: factor on the cosine, above 0, at most 64.
            layout: "nhwc" or "nchw".

        Returns:
            R2, R4 and U = F + R2 + R4, each as the features.

        Raises:
            InputError: shapes, types or numbers that the kernel does not take.
        """
        shape = _map_shape(features, layout)
        if reference.ndim != 3 or reference.shape[0] != shape.channels:
            raise InputError(
                f"reference of shape {reference.shape}: wanted [{shape.channels}, h, w]"
            )
        if reference.dtype != features.dtype:
            raise InputError(f"reference is {reference.dtype}, the features {features.dtype}")
        ref_size = (reference.shape[1], reference.shape[2])
        inside, ref = _inward(features, shape.nhwc), _inward(reference[None], shape.nhwc)
        prepared = prepare_reference(reference)
        outputs = [aligned(inside.shape, features.dtype) for _ in range(3)]
        size = self.library.rbfrm_workspace_bytes(shape, ref_size)
        workspace = aligned((size,), np.uint8)
        self.library.rbfrm(
            shape, ref_size, softmax_scale, features=_at(inside), reference=_at(ref),
            prepared=_at(prepared), rep2=_at(outputs[0]), rep4=_at(outputs[1]),
            fused=_at(outputs[2]), workspace=_at(workspace), workspace_bytes=size,
        )  # fmt: skip
        rep2, rep4, fused = (_outward(x, shape.nhwc) for x in outputs)
        return rep2, rep4, fused

    def ffm_select(
        self,
        logits: NDArray[Any],
        rep4: NDArray[Any],
        rep2: NDArray[Any],
        features: NDArray[Any],
        layout: str = "nhwc",
    ) -> NDArray[Any]:
        """Equations 7 and 8.

        Args:
            logits: [N, 3C, H, W] in branch order rep4, rep2, features.
            rep4, rep2, features: [N, C, H, W] of the logits' type, float16 or float32.
            layout: "nhwc" or "nchw".

        Returns:
            [N, C, H, W] of that type.

        Raises:
            InputError: shapes, types or numbers that the kernel does not take.
        """
        shape = _map_shape(features, layout)
        n, c, *sides = features.shape
        wanted = ((n, 3 * c, *sides), features.shape, features.shape)
        arrays = (logits, rep4, rep2, features)
        if tuple(a.shape for a in arrays[:3]) != wanted:
            raise InputError(
                f"ffm_select: shapes {[a.shape for a in arrays]} do not belong together"
            )
        if len({a.dtype for a in arrays}) != 1:
            raise InputError(f"ffm_select: types {[str(a.dtype) for a in arrays]} differ")
        inside = [_inward(a, shape.nhwc) for a in arrays]
        selected = aligned(inside[3].shape, features.dtype)
        at = [_at(a) for a in inside]
        self.library.ffm_select(
            shape, logits=at[0], rep4=at[1], rep2=at[2], features=at[3], selected=_at(selected)
        )
        return _outward(selected, shape.nhwc)

    def smooth_max(
        self, maps: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """5x5 median, border replicated, and its maximum per map; NaN stays NaN.

        Args:
            maps: float32 [N, H, W].

        Returns:
            float32 [N, H, W] and [N].

        Raises:
            InputError: another shape or type.
        """
        if maps.ndim != 3 or maps.dtype != np.float32:
            raise InputError(f"maps of {maps.shape} {maps.dtype}: wanted float32 [N, H, W]")
        n, h, w = maps.shape
        source = _aligned_copy(maps)
        smoothed, peaks = aligned(maps.shape, np.float32), aligned((n,), np.float32)
        size = self.library.smooth_max_workspace_bytes(n, h, w)
        workspace = aligned((size,), np.uint8)
        self.library.smooth_max(
            n, h, w, maps=_at(source), smoothed=_at(smoothed), peaks=_at(peaks),
            workspace=_at(workspace), workspace_bytes=size,
        )  # fmt: skip
        return smoothed, peaks


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A new array at a 256-byte boundary, every byte 0xFF (NaN), its end that of its memory.

    An element that a kernel leaves unwritten is therefore seen, and a sanitizer sees the first
    byte behind the array as foreign (NumPy would have to over-allocate for the alignment).
    """
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    address = ctypes.c_void_p()
    libc = ctypes.CDLL(None)
    if libc.posix_memalign(
        ctypes.byref(address), ctypes.c_size_t(WORKSPACE_ALIGNMENT), ctypes.c_size_t(max(size, 1))
    ):
        raise MachineError(f"no memory for {size} bytes; close other programs")
    memory = (ctypes.c_ubyte * max(size, 1)).from_address(address.value or 0)
    weakref.finalize(memory, libc.free, address)
    ctypes.memset(memory, 0xFF, max(size, 1))
    return np.frombuffer(memory, kind, int(np.prod(shape))).reshape(shape)


def _map_shape(features: NDArray[Any], layout: str) -> MapShape:
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}: wanted {' or '.join(LAYOUTS)}")
    if features.ndim != 4 or features.dtype not in (np.float16, np.float32):
        raise InputError(
            f"features of {features.shape} {features.dtype}: "
            "wanted [N, C, H, W], float16 or float32"
        )
    n, c, h, w = features.shape
    return MapShape(features.dtype == np.float16, layout == "nhwc", n, c, h, w)


def _inward(x: NDArray[Any], nhwc: bool) -> NDArray[Any]:
    return _aligned_copy(x.transpose(0, 2, 3, 1) if nhwc else x)


def _outward(x: NDArray[Any], nhwc: bool) -> NDArray[Any]:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if nhwc else x


def _aligned_copy(x: NDArray[Any]) -> NDArray[Any]:
    """`x` itself where it is dense and aligned, else a copy that is."""
    if x.flags.c_contiguous and x.ctypes.data % ALIGNMENT == 0:
        return x
    copy = aligned(x.shape, x.dtype)
    copy[...] = x
    return copy


def _at(x: NDArray[Any]) -> int:
    return int(x.ctypes.data)
