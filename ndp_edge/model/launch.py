"""From tensors to launches of the kernels: layouts agreed, memory from torch, errors early.

The library is a parameter: the device build takes CUDA tensors, the host build takes CPU ones,
and everything here is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ndp_edge.errors import InputError
from ndp_edge.native.library import ALIGNMENT, WORKSPACE_ALIGNMENT, Library, MapShape

DTYPES = (torch.float16, torch.float32)


def rbfrm(
    library: Library,
    features: Tensor,
    reference: Tensor,
    prepared: Tensor,
    softmax_scale: float,
    *,
    stream: int = 0,
    out: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """R2, R4 and U = F + R2 + R4 by one call of `ndp_rbfrm`, in the features' memory format.

    Args:
        library: whose memory the tensors are in.
        features: [N, C, H, W], float16 or float32.
        reference: [1, C, h, w] of the same type.
        prepared: of that reference, see `ndp_edge.model.prepared`.
        softmax_scale: factor on the cosine.
        stream: a CUDA stream as a number.
        out: where to write; None allocates. Dense in `memory_format(features)`.

    Raises:
        InputError: tensors that do not belong together, or that the kernel refuses.
    """
    check_rbfrm(features, reference, prepared)
    form = memory_format(features)
    features, reference = (_dense(x, form) for x in (features, reference))
    prepared = _dense(prepared, torch.contiguous_format)
    rep2, rep4, fused = _outputs(features, 3, out)
    shape, ref_size = _shape(features, form), (reference.shape[2], reference.shape[3])
    size = library.rbfrm_workspace_bytes(shape, ref_size)
    workspace = _workspace(size, features.device)
    library.rbfrm(
        shape, ref_size, softmax_scale, features=features.data_ptr(),
        reference=reference.data_ptr(), prepared=prepared.data_ptr(), rep2=rep2.data_ptr(),
        rep4=rep4.data_ptr(), fused=fused.data_ptr(), workspace=workspace.data_ptr(),
        workspace_bytes=size, stream=stream,
    )  # fmt: skip
    return rep2, rep4, fused


def ffm_select(
    library: Library,
    logits: Tensor,
    rep4: Tensor,
    rep2: Tensor,
    features: Tensor,
    *,
    stream: int = 0,
    out: Tensor | None = None,
) -> Tensor:
    """Equations 7 and 8 by one call of `ndp_ffm_select`, in the features' memory format.

    Args:
        library, stream, out: as in `rbfrm`.
        logits: [N, 3C, H, W] in branch order rep4, rep2, features.
        rep4, rep2, features: [N, C, H, W], float16 or float32, all of one type.

    Raises:
        InputError: as `rbfrm`.
    """
    check_ffm_select(logits, rep4, rep2, features)
    form = memory_format(features)
    logits, rep4, rep2, features = (_dense(x, form) for x in (logits, rep4, rep2, features))
    (selected,) = _outputs(features, 1, None if out is None else (out,))
    library.ffm_select(
        _shape(features, form), logits=logits.data_ptr(), rep4=rep4.data_ptr(),
        rep2=rep2.data_ptr(), features=features.data_ptr(), selected=selected.data_ptr(),
        stream=stream,
    )  # fmt: skip
    return selected


def smooth_max(
    library: Library, maps: Tensor, *, stream: int = 0, out: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The 5x5 median [N, H, W] of float32 maps [N, H, W] and its maxima [N].

    Raises:
        InputError: as `rbfrm`.
    """
    check_smooth_max(maps)
    maps = _dense(maps, torch.contiguous_format)
    n, h, w = maps.shape
    smoothed, peaks = out or (torch.empty_like(maps), maps.new_empty(n))
    size = library.smooth_max_workspace_bytes(n, h, w)
    workspace = _workspace(size, maps.device)
    library.smooth_max(
        n, h, w, maps=maps.data_ptr(), smoothed=smoothed.data_ptr(), peaks=peaks.data_ptr(),
        workspace=workspace.data_ptr(), workspace_bytes=size, stream=stream,
    )  # fmt: skip
    return smoothed, peaks


def check_rbfrm(features: Tensor, reference: Tensor, prepared: Tensor) -> None:
    """What a kernel cannot see behind bare pointers. Raises InputError."""
    _check_map("rbfrm: features", features)
    n, c = features.shape[:2]
    if reference.ndim != 4 or tuple(reference.shape[:2]) != (1, c):
        raise InputError(
            f"rbfrm: reference of shape {tuple(reference.shape)}: wanted [1, {c}, h, w]"
        )
    _check_alike("rbfrm: reference", reference, features)
    sides = (*features.shape[2:], *reference.shape[2:])
    if not n or any(side % 4 or not side for side in sides):
        raise InputError(f"rbfrm: sides {sides} of {n} images: wanted multiples of 4, none empty")
    wanted = 20 * c + 6 * (reference.shape[2] // 4) * (reference.shape[3] // 4)
    if prepared.dtype != torch.float32 or tuple(prepared.shape) != (wanted,):
        raise InputError(
            f"rbfrm: prepared of shape {tuple(prepared.shape)} and type {prepared.dtype}: "
            f"wanted float32 [{wanted}]; prepare it from this reference, after any .half()"
        )
    if prepared.device != features.device:
        raise InputError(f"rbfrm: prepared is on {prepared.device}, features on {features.device}")


def check_ffm_select(logits: Tensor, rep4: Tensor, rep2: Tensor, features: Tensor) -> None:
    """The same for `ffm_select`."""
    _check_map("ffm_select: features", features)
    n, c, *sides = features.shape
    wanted = ((n, 3 * c, *sides), features.shape, features.shape)
    names = ("logits", "rep4", "rep2")
    for name, x, shape in zip(names, (logits, rep4, rep2), wanted, strict=True):
        if x.shape != shape:
            raise InputError(f"ffm_select: {name} of shape {tuple(x.shape)}: wanted {tuple(shape)}")
        _check_alike(f"ffm_select: {name}", x, features)


def check_smooth_max(maps: Tensor) -> None:
    """The same for `smooth_max`."""
    if maps.ndim != 3 or maps.dtype != torch.float32 or not maps.numel():
        raise InputError(
            f"smooth_max: maps of shape {tuple(maps.shape)} and type {maps.dtype}: "
            "wanted float32 [N, H, W], none empty"
        )


def memory_format(features: Tensor) -> torch.memory_format:
    """channels_last for a tensor that is only that; whatever is neither counts as contiguous."""
    last = features.is_contiguous(memory_format=torch.channels_last)
    if last and not features.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def _check_map(what: str, x: Tensor) -> None:
    if x.ndim != 4 or x.dtype not in DTYPES:
        raise InputError(
            f"{what} of shape {tuple(x.shape)} and type {x.dtype}: "
            "wanted [N, C, H, W], float16 or float32"
        )


def _check_alike(what: str, x: Tensor, features: Tensor) -> None:
    if x.dtype != features.dtype or x.device != features.device:
        raise InputError(
            f"{what}: {x.dtype} on {x.device}, the features {features.dtype} on {features.device}"
        )


def _dense(x: Tensor, form: torch.memory_format) -> Tensor:
    """`x` dense in that format and aligned; itself where it already is."""
    x = x.contiguous(memory_format=form)
    return x.clone(memory_format=form) if x.data_ptr() % ALIGNMENT else x


def _outputs(features: Tensor, count: int, out: Sequence[Tensor] | None) -> Sequence[Tensor]:
    """`out` where it is given and fits, else fresh tensors in the features' format."""
    form = memory_format(features)
    if out is None:
        return [torch.empty_like(features, memory_format=form) for _ in range(count)]
    for x in out:
        if x.shape != features.shape or not x.is_contiguous(memory_format=form):
            raise InputError(f"out of shape {tuple(x.shape)} and strides {x.stride()} does not fit")
        _check_alike("out", x, features)
    return out


def _shape(features: Tensor, form: torch.memory_format) -> MapShape:
    n, c, h, w = features.shape
    return MapShape(features.dtype == torch.float16, form == torch.channels_last, n, c, h, w)


def _workspace(size: int, device: torch.device) -> Tensor:
    """Bytes at a 256-byte boundary. Freed as soon as the launcher has returned: torch hands the
    memory on only to later work of the same stream (a graph keeps its own pool)."""
    raw = torch.empty(size + WORKSPACE_ALIGNMENT, dtype=torch.uint8, device=device)
    return raw[-raw.data_ptr() % WORKSPACE_ALIGNMENT :]
