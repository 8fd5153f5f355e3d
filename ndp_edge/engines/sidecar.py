"""The JSON beside every TensorRT engine: what it was built by, for, and of.

A plan says none of this in a way that can be read without the library and the card, and a plan
that does not fit is a crash in some versions: so the sidecar is compared first.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ndp_edge.errors import InputError, MachineError
from ndp_edge.files import write_atomic

LIMIT = 4 << 20


@dataclass(frozen=True)
class Sidecar:
    """Attributes:
    backend: "tensorrt" or "tensorrt-rtx"; version: of that library.
    precision: "fp32", "fp16" or "int8"; variant: "native" or "plugin".
    batches: images per call; optimisation profile i takes exactly batches[i].
    sm: "sm86"; gpu: the card's name, None for a cross-build.
    cuda: version of CUDA that the driver or library tells, None where none does.
    onnx: sha256 hex of the bundle's ONNX file that it was made of; source: that file's name.
    plugin: hash of the plugin library, None for "native".
    typing: "strong", or "weak" where TensorRT 10.3 needed it.
    layers: one dict per layer: name, type, precision.
    """

    backend: str
    version: str
    precision: str
    variant: str
    batches: tuple[int, ...]
    sm: str | None
    gpu: str | None
    cuda: str | None
    onnx: str
    source: str
    plugin: str | None = None
    typing: str = "strong"
    layers: list[dict[str, str]] = field(default_factory=list)


def plan_name(backend: str, precision: str, sm: str | None) -> str:
    """The engine's file in a bundle."""
    return f"engines/{backend}-{precision}{'-' + sm if sm else ''}.plan"


def sidecar_of(plan: Path) -> Path:
    """The sidecar's path."""
    return plan.with_suffix(".json")


def write_sidecar(plan: Path, sidecar: Sidecar) -> None:
    """Write it beside the plan, atomically."""
    text = json.dumps(asdict(sidecar), indent=1, sort_keys=True, allow_nan=False)
    write_atomic(sidecar_of(plan), f"{text}\n".encode())


def read_sidecar(plan: Path) -> Sidecar:
    """Read the sidecar of a plan.

    Raises:
        InputError: there is none, or it is malformed.
    """
    path = sidecar_of(plan)
    if not path.is_file() or path.stat().st_size > LIMIT:
        raise InputError(f"{plan} has no sidecar {path.name}; build the engine again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Sidecar(**{**content, "batches": tuple(content["batches"])})
        good = all(isinstance(b, int) and b > 0 for b in found.batches) and bool(found.batches)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); build the engine again") from error
    if not good or not isinstance(found.version, str) or not isinstance(found.onnx, str):
        raise InputError(f"{path} is malformed; build the engine again")
    return found


def check_fits(plan: Path, sidecar: Sidecar, here: dict[str, Any], rebuild: str) -> None:
    """See that an engine fits this machine.

    Args:
        plan, sidecar: the engine.
        here: what this machine has under any of the keys version, sm, plugin and onnx.
        rebuild: the command that builds the engine again.

    Raises:
        MachineError: it does not; one line says what differs and has the command.
    """
    words = {"version": sidecar.backend, "sm": "the card", "plugin": "the plugin", "onnx": "ONNX"}
    differing = [
        f"{words[key]} is {value} here, {getattr(sidecar, key)} in the engine"
        for key, value in here.items()
        if getattr(sidecar, key) != value
    ]
    if differing:
        raise MachineError(f"{plan.name} does not fit: {'; '.join(differing)}; run: {rebuild}")
