"""Checks of engines for NVIDIA cards that need no card: files against files.

A plan cannot be opened without the card's driver, not even to ask whether it is valid; so what
is checked is that plan, sidecar, manifest and ONNX belong together, and the rest is named.
"""

from __future__ import annotations

from typing import Any

from ndp_edge.bundle import Bundle
from ndp_edge.engines import PLANNED, card_sm
from ndp_edge.engines.sidecar import read_sidecar
from ndp_edge.errors import InputError


def is_plan(entry: dict[str, Any]) -> bool:
    """Whether a manifest's engine is a plan for a card."""
    return entry["backend"] in PLANNED


def golden_key(entry: dict[str, Any]) -> str:
    """Under which the golden file has an engine's maps: its own, or its judge's."""
    return str(entry.get("golden", f"{entry['backend']}-{entry['precision']}"))


def unfit(bundle: Bundle, entry: dict[str, Any]) -> list[str]:
    """What does not fit between a plan's sidecar, the manifest and the ONNX it was made of."""
    try:
        sidecar = read_sidecar(bundle.file(entry["file"]))
    except InputError as error:
        return [str(error)]
    wrong = [
        f"the sidecar says {key} {found}, the manifest {entry.get(name)}"
        for key, name, found in (
            ("backend", "backend", sidecar.backend),
            ("precision", "precision", sidecar.precision),
            ("card", "sm", sidecar.sm),
            ("variant", "variant", sidecar.variant),
        )
        if entry.get(name) != found
    ]
    source = bundle.manifest["files"].get(sidecar.source, {}).get("sha256")
    if source != sidecar.onnx:
        wrong.append(f"it was made of another {sidecar.source} than the bundle's")
    return wrong


def describe(bundle: Bundle, entry: dict[str, Any]) -> str:
    """What a sound plan is, for a table."""
    sidecar = read_sidecar(bundle.file(entry["file"]))
    counted = entry.get("convolutions") or {}
    told = ", ".join(f"{n} {precision}" for precision, n in counted.items()) or "untold"
    return (
        f"{sidecar.backend} {sidecar.version} for {sidecar.sm}, {sidecar.variant}, batches "
        f"{', '.join(map(str, sidecar.batches))}; convolutions: {told}"
    )


def why_not_run(entry: dict[str, Any]) -> str | None:
    """Why a plan cannot be replayed on this machine; None where its card is here."""
    here = card_sm()
    if here == entry.get("sm"):
        return None
    judge = entry.get("judged_on")
    before = f"; accuracy was judged on {judge}" if judge else ""
    return f"needs an NVIDIA card of {entry.get('sm')}, here is {here or 'none'}{before}"
