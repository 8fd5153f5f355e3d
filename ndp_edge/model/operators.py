"""The kernels as torch operators: `torch.ops.ndp_edge.rbfrm`, `ffm_select`, `smooth_max`.

On the CPU they are the plain torch expressions; on CUDA the kernels, compiled for the device
at their first call (call once before a CUDA graph is captured). For inference: they have no
gradient. Safe under torch.compile(fullgraph=True) and torch.export.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ndp_edge.errors import InputError
from ndp_edge.model import launch, rbam
from ndp_edge.model.config import PATCH_SIZES
from ndp_edge.model.prepared import prepare_reference
from ndp_edge.native.compile import build_device
from ndp_edge.native.library import Library

MEDIAN_WINDOW = 5
"""Side of the median filter (paper III-D)."""


def prepare(reference: Tensor) -> Tensor:
    """What `rbfrm` takes as `prepared`: float32 [20 C + 6 R] on the reference's device.

    Args:
        reference: [1, C, h, w], float16 or float32, the very tensor that `rbfrm` will get.

    Raises:
        InputError: another shape or type, NaN or infinity.
    """
    if reference.ndim != 4 or reference.shape[0] != 1 or reference.dtype not in launch.DTYPES:
        raise InputError(
            f"reference of shape {tuple(reference.shape)} and type {reference.dtype}: "
            "wanted [1, C, h, w], float16 or float32"
        )
    values = prepare_reference(reference[0].detach().cpu().contiguous().numpy())
    return torch.from_numpy(values).to(reference.device)


@cache
def _built(sm: int) -> Library:
    return Library(build_device(sm))


def device_library(device: torch.device) -> Library:
    """The kernels for a CUDA device, compiled for its architecture on the first call.

    Raises:
        MachineError: no nvcc, or it cannot compile for this device.
    """
    major, minor = torch.cuda.get_device_capability(device)
    return _built(10 * major + minor)


def _stream(x: Tensor) -> int:
    return int(torch.cuda.current_stream(x.device).cuda_stream)


@torch.library.custom_op(
    "ndp_edge::rbfrm",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor features, Tensor reference, Tensor prepared, float softmax_scale)"
    " -> (Tensor, Tensor, Tensor)",
)
def rbfrm(
    features: Tensor, reference: Tensor, prepared: Tensor, softmax_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Equations 3-6 for K = 2 and K = 4: R2, R4 and U = F + R2 + R4.

    Args:
        features: [N, C, H, W], float16 or float32, sides multiples of 4; on CUDA C is a
            multiple of 8 and N at most 64.
        reference: [1, C, h, w] of the same type, sides multiples of 4.
        prepared: float32, `prepare(reference)`.
        softmax_scale: factor on the cosine, above 0, at most 64.

    Returns:
        Three tensors like the features: type, and channels-last where they are.

    Raises:
        InputError: operands that do not belong together.
    """
    launch.check_rbfrm(features, reference, prepared)
    wide, ref = features.float(), reference.float()
    rep2, rep4 = (rbam.rbfrm(wide, ref, k, softmax_scale) for k in PATCH_SIZES)
    return _as(features, rep2), _as(features, rep4), _as(features, wide + rep2 + rep4)


@rbfrm.register_kernel("cuda")
def _(
    features: Tensor, reference: Tensor, prepared: Tensor, softmax_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.cuda.device(features.device):
        library, stream = device_library(features.device), _stream(features)
        return launch.rbfrm(library, features, reference, prepared, softmax_scale, stream=stream)


@rbfrm.register_fake
def _(
    features: Tensor, reference: Tensor, prepared: Tensor, softmax_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(features), _like(features), _like(features)


@torch.library.custom_op(
    "ndp_edge::ffm_select",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor logits, Tensor rep4, Tensor rep2, Tensor features) -> Tensor",
)
def ffm_select(logits: Tensor, rep4: Tensor, rep2: Tensor, features: Tensor) -> Tensor:
    """Equations 7 and 8: softmax over three branches per element, then their weighted sum.

    Args:
        logits: [N, 3C, H, W] in branch order rep4, rep2, features.
        rep4, rep2, features: [N, C, H, W], float16 or float32 as the logits; on CUDA C is a
            multiple of 8, the sides of 4, and N at most 64.

    Returns:
        [N, C, H, W] like the features: type, and channels-last where they are.

    Raises:
        InputError: operands that do not belong together.
    """
    launch.check_ffm_select(logits, rep4, rep2, features)
    return _as(features, rbam.ffm_select(*(x.float() for x in (logits, rep4, rep2, features))))


@ffm_select.register_kernel("cuda")
def _(logits: Tensor, rep4: Tensor, rep2: Tensor, features: Tensor) -> Tensor:
    with torch.cuda.device(features.device):
        library, stream = device_library(features.device), _stream(features)
        return launch.ffm_select(library, logits, rep4, rep2, features, stream=stream)


@ffm_select.register_fake
def _(logits: Tensor, rep4: Tensor, rep2: Tensor, features: Tensor) -> Tensor:
    return _like(features)


@torch.library.custom_op(
    "ndp_edge::smooth_max",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor maps) -> (Tensor, Tensor)",
)
def smooth_max(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The 5x5 median of each map, border replicated, and its maximum.

    A NaN in a pixel's window makes that pixel NaN, and one in a map makes its maximum NaN.

    Args:
        maps: float32 [N, H, W].

    Returns:
        float32 [N, H, W] and [N].

    Raises:
        InputError: another shape or type.
    """
    launch.check_smooth_max(maps)
    return plain_smooth_max(maps)


@smooth_max.register_kernel("cuda")
def _(maps: Tensor) -> tuple[Tensor, Tensor]:
    with torch.cuda.device(maps.device):
        return launch.smooth_max(device_library(maps.device), maps, stream=_stream(maps))


@smooth_max.register_fake
def _(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps.new_empty(maps.shape), maps.new_empty(maps.shape[0])


def plain_smooth_max(maps: Tensor) -> tuple[Tensor, Tensor]:
    """`smooth_max` in torch's own operations, on any device."""
    reach = MEDIAN_WINDOW // 2
    padded = F.pad(maps[:, None], (reach,) * 4, mode="replicate")[:, 0]
    windows = padded.unfold(1, MEDIAN_WINDOW, 1).unfold(2, MEDIAN_WINDOW, 1)
    smoothed = windows.flatten(3).median(dim=-1).values  # the 13th of 25; NaN if any is
    return smoothed, smoothed.flatten(1).amax(dim=1)


def _like(features: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=launch.memory_format(features))


def _as(features: Tensor, x: Tensor) -> Tensor:
    """`x` in the features' type and memory format, exactly as `_like` describes it.

    As in the kernels FP16 stops at its largest number: an infinity would be NaN one layer on.
    """
    if features.dtype == torch.float16:
        most = torch.finfo(torch.float16).max
        x = x.clamp(-most, most)
    return _like(features).copy_(x)
