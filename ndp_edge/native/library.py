"""The C interface of `kernels/src/ndp_kernels.h` in Python: raw pointers in, errors out.

What is checked here is what only this side knows (a size, a version); every other argument is
checked by the launchers themselves.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path

from ndp_edge.errors import InputError, MachineError

ABI = 1
"""NDP_KERNELS_ABI of the header that the structures below mirror."""

ALIGNMENT = 16
"""Bytes to which every array is aligned."""

WORKSPACE_ALIGNMENT = 256


class _Rbfrm(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in ("dtype", "layout", "images", "channels")),
        *((name, c_int32) for name in ("height", "width", "ref_height", "ref_width")),
        ("softmax_scale", c_float),
        ("multiprocessors", c_int32),
        *((name, c_void_p) for name in ("features", "reference", "prepared")),
        *((name, c_void_p) for name in ("rep2", "rep4", "fused", "workspace")),
        ("workspace_bytes", c_uint64),
    ]


class _FfmSelect(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in ("dtype", "layout", "images", "channels")),
        *((name, c_int32) for name in ("height", "width")),
        *((name, c_void_p) for name in ("logits", "rep4", "rep2", "features", "selected")),
    ]


class _SmoothMax(ctypes.Structure):
    _fields_ = [
        *((name, c_int32) for name in ("images", "height", "width")),
        *((name, c_void_p) for name in ("maps", "smoothed", "peaks", "workspace")),
        ("workspace_bytes", c_uint64),
    ]


@dataclass(frozen=True)
class MapShape:
    """A dense batch of feature maps.

    Attributes:
        half: float16, else float32.
        nhwc: channels last in memory, else NCHW.
        images, channels, height, width: the logical [N, C, H, W].
    """

    half: bool
    nhwc: bool
    images: int
    channels: int
    height: int
    width: int

    def words(self) -> dict[str, int]:
        """The fields that the C structures call by these names."""
        return {
            "dtype": int(self.half),
            "layout": int(self.nhwc),
            "images": self.images,
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
        }


class Library:
    """A loaded kernel library. Its functions put work on `stream` (a CUDA stream as a number;
    0 is the default one, and the host build ignores it) and do not wait for it.

    Pointers are addresses of device memory (of ordinary memory for the host build). The caller
    keeps every array alive until the stream has passed the call.
    """

    def __init__(self, path: Path, multiprocessors: int = 0) -> None:
        """Load what `compile.py` built.

        Args:
            path: the library.
            multiprocessors: what `rbfrm` cuts its work for; 0 asks CUDA (1 on a host).

        Raises:
            MachineError: not a library, or one of another version of the interface.
        """
        try:
            self._c = ctypes.CDLL(str(path))
            version = int(self._c.ndp_kernels_abi())
        except (OSError, AttributeError) as error:
            raise MachineError(f"{path} is no kernel library ({error}); delete it") from None
        if version != ABI:
            raise MachineError(
                f"{path} has interface {version}, this package wants {ABI}; delete the file"
            )
        self._multiprocessors = multiprocessors
        self._declare()

    def _declare(self) -> None:
        kinds = (("rbfrm", _Rbfrm), ("ffm_select", _FfmSelect), ("smooth_max", _SmoothMax))
        for name, struct in kinds:
            launch = getattr(self._c, f"ndp_{name}")
            launch.argtypes, launch.restype = [POINTER(struct), c_void_p], c_char_p
        for name, struct in (kinds[0], kinds[2]):
            size = getattr(self._c, f"ndp_{name}_workspace_bytes")
            size.argtypes, size.restype = [POINTER(struct)], c_uint64
        self._c.ndp_rbfrm_prepared_floats.argtypes = [c_int32, c_int32, c_int32]
        self._c.ndp_rbfrm_prepared_floats.restype = c_uint64

    def rbfrm_prepared_floats(self, channels: int, ref_height: int, ref_width: int) -> int:
        """How long the vector of `prepare_reference` is."""
        return int(self._c.ndp_rbfrm_prepared_floats(channels, ref_height, ref_width))

    def rbfrm_workspace_bytes(self, shape: MapShape, ref_size: tuple[int, int]) -> int:
        """Bytes of workspace, 0 for a shape that `rbfrm` refuses."""
        args = _Rbfrm(
            **shape.words(), ref_height=ref_size[0], ref_width=ref_size[1],
            multiprocessors=self._multiprocessors,
        )  # fmt: skip
        return int(self._c.ndp_rbfrm_workspace_bytes(ctypes.byref(args)))

    def rbfrm(
        self, shape: MapShape, ref_size: tuple[int, int], softmax_scale: float,
        *, features: int, reference: int, prepared: int, rep2: int, rep4: int, fused: int,
        workspace: int, workspace_bytes: int, stream: int = 0,
    ) -> None:  # fmt: skip
        """Equations 3-6 for K = 2 and 4: R2, R4 and U = F + R2 + R4.

        Args:
            shape: of features, rep2, rep4 and fused; the reference has its type and layout.
            ref_size: the reference's height and width.
            softmax_scale: factor on the cosine, above 0, at most 64.
            features, reference, prepared, rep2, rep4, fused, workspace: addresses.
            workspace_bytes: at least `rbfrm_workspace_bytes`.
            stream: see the class.

        Raises:
            InputError: the launcher names the argument that it refuses; nothing was launched.
            MachineError: CUDA refused the launch.
        """
        args = _Rbfrm(
            **shape.words(), ref_height=ref_size[0], ref_width=ref_size[1],
            multiprocessors=self._multiprocessors, softmax_scale=softmax_scale,
            features=features, reference=reference, prepared=prepared, rep2=rep2, rep4=rep4,
            fused=fused, workspace=workspace, workspace_bytes=workspace_bytes,
        )  # fmt: skip
        _raise_if("rbfrm", self._c.ndp_rbfrm(ctypes.byref(args), stream))

    def ffm_select(
        self, shape: MapShape,
        *, logits: int, rep4: int, rep2: int, features: int, selected: int, stream: int = 0,
    ) -> None:  # fmt: skip
        """Equations 7 and 8. `shape` is that of all but the logits, which have 3C channels.

        Raises:
            InputError, MachineError: as `rbfrm`.
        """
        args = _FfmSelect(
            **shape.words(), logits=logits, rep4=rep4, rep2=rep2, features=features,
            selected=selected,
        )  # fmt: skip
        _raise_if("ffm_select", self._c.ndp_ffm_select(ctypes.byref(args), stream))

    def smooth_max_workspace_bytes(self, images: int, height: int, width: int) -> int:
        """Bytes of workspace; may be 0."""
        args = _SmoothMax(images=images, height=height, width=width)
        return int(self._c.ndp_smooth_max_workspace_bytes(ctypes.byref(args)))

    def smooth_max(
        self, images: int, height: int, width: int,
        *, maps: int, smoothed: int, peaks: int, workspace: int, workspace_bytes: int,
        stream: int = 0,
    ) -> None:  # fmt: skip
        """5x5 median and its maximum; maps and smoothed float32 [N, H, W], peaks [N].

        Raises:
            InputError, MachineError: as `rbfrm`.
        """
        args = _SmoothMax(
            images=images, height=height, width=width, maps=maps, smoothed=smoothed, peaks=peaks,
            workspace=workspace, workspace_bytes=workspace_bytes,
        )  # fmt: skip
        _raise_if("smooth_max", self._c.ndp_smooth_max(ctypes.byref(args), stream))


def _raise_if(kernel: str, message: bytes | None) -> None:
    """Lines about an argument begin with the kernel's name; what does not is CUDA's own word."""
    if message is None:
        return
    text = message.decode(errors="replace")
    if text.startswith(kernel):
        raise InputError(text)
    raise MachineError(f"{kernel}: CUDA says: {text}; see what python -m ndp_edge.doctor finds")
