"""Arguments that the launchers must refuse, naming the wrong one and launching nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ndp_edge.bench.gpu.rig import Rig, need
from ndp_edge.errors import InputError
from ndp_edge.native.library import MapShape

GOOD = MapShape(half=True, nhwc=True, images=1, channels=8, height=4, width=4)

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    # what it is: (kernel, what is changed, the word that the line must have)
    "no image": ("rbfrm", {"images": 0}, "images"),
    "65 images": ("rbfrm", {"images": 65}, "images"),
    "12 channels": ("rbfrm", {"channels": 12}, "channels"),
    "height 6": ("rbfrm", {"height": 6}, "height"),
    "width 0": ("rbfrm", {"width": 0}, "width"),
    "reference height 2": ("rbfrm", {"ref_height": 2}, "ref_height"),
    "scale 0": ("rbfrm", {"softmax_scale": 0.0}, "softmax_scale"),
    "scale 65": ("rbfrm", {"softmax_scale": 65.0}, "softmax_scale"),
    "scale NaN": ("rbfrm", {"softmax_scale": float("nan")}, "softmax_scale"),
    "no features": ("rbfrm", {"features": 0}, "features"),
    "prepared off by 4 bytes": ("rbfrm", {"prepared": 4}, "prepared"),
    "a small workspace": ("rbfrm", {"workspace_bytes": 1}, "workspace"),
    "outputs that overlap": ("rbfrm", {"rep4": "rep2"}, "overlap"),
    "9 channels to select": ("ffm_select", {"channels": 9}, "channels"),
    "no logits": ("ffm_select", {"logits": 0}, "logits"),
    "a selection over its features": ("ffm_select", {"selected": "features"}, "overlap"),
    "an empty map to smooth": ("smooth_max", {"height": 0}, "height"),
    "no peaks": ("smooth_max", {"peaks": 0}, "peaks"),
}


def refuses(rig: Rig, name: str) -> dict[str, float]:
    """One of REFUSED: an InputError with the word in it, and untouched memory."""
    kernel, change, word = REFUSED[name]
    memory = torch.full((1 << 20,), 0xA5, dtype=torch.uint8).to(rig.device)
    call = {"rbfrm": _rbfrm, "ffm_select": _ffm_select, "smooth_max": _smooth_max}[kernel]
    said = ""
    try:
        call(rig, memory, change)
    except InputError as error:
        said = str(error)
    need(bool(said), "was not refused")
    need(said.startswith(kernel) and word in said, f"{said!r} does not name {word}")
    rig.wait()
    need(bool((memory.cpu() == 0xA5).all()), "something was launched all the same")
    return {}


def _places(memory: torch.Tensor, names: tuple[str, ...], change: dict[str, Any]) -> dict[str, int]:
    """Each name's place in memory, 32 KiB apart; changed to null, to 4 beside, to another's."""
    base = memory.data_ptr() + -memory.data_ptr() % 256
    found = {name: base + (i << 15) for i, name in enumerate(names)}
    for name in names:
        if isinstance(changed := change.get(name), str):
            found[name] = found[changed]
        elif changed is not None:
            found[name] = found[name] + changed if changed else 0
    return found


def _map(change: dict[str, Any]) -> MapShape:
    sizes = ("images", "channels", "height", "width")
    return replace(GOOD, **{key: change[key] for key in sizes if key in change})


def _rbfrm(rig: Rig, memory: torch.Tensor, change: dict[str, Any]) -> None:
    names = ("features", "reference", "prepared", "rep2", "rep4", "fused", "workspace")
    ref_size = (change.get("ref_height", 4), 4)
    size = max(rig.library.rbfrm_workspace_bytes(GOOD, (4, 4)), 2)
    rig.library.rbfrm(
        _map(change), ref_size, change.get("softmax_scale", 1.0),
        **_places(memory, names, change), workspace_bytes=change.get("workspace_bytes", size),
        stream=rig.stream(),
    )  # fmt: skip


def _ffm_select(rig: Rig, memory: torch.Tensor, change: dict[str, Any]) -> None:
    names = ("logits", "rep4", "rep2", "features", "selected")
    places = _places(memory, names, change)
    rig.library.ffm_select(_map(change), **places, stream=rig.stream())


def _smooth_max(rig: Rig, memory: torch.Tensor, change: dict[str, Any]) -> None:
    names = ("maps", "smoothed", "peaks", "workspace")
    size = max(rig.library.smooth_max_workspace_bytes(1, 8, 8), 256)
    rig.library.smooth_max(
        1, change.get("height", 8), 8, **_places(memory, names, change),
        workspace_bytes=size, stream=rig.stream(),
    )  # fmt: skip
