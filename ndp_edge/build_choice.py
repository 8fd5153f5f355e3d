"""Which precision a build emits: what was asked for, or the fastest that passes the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndp_edge.console import counted

Gates = Mapping[str, Mapping[str, Any]]

FP32_ONLY = {"passed": True, "reason": "FP32 only: no lower precision to compare", "rows": []}
"""The verdict where there is nothing to judge."""


def pick_precision(asked: str, gates: Gates, speeds: Mapping[str, float]) -> tuple[str, list[str]]:
    """The precision to emit, and what to tell about the choice.

    Args:
        asked: of the options; "auto" takes the fastest that passes, FP32 among them.
        gates: precision below FP32 -> the verdict on it; empty where FP32 is alone.
        speeds: precision -> how many times FP32's speed it has; without those that were not
            measured (an engine for another machine), which count as faster.
    """
    told = []
    for precision, gate in gates.items():
        speed = speeds.get(precision)
        if speed is not None and speed <= 1:
            told.append(f"{precision.upper()} is not worth it here: {speed:.2f} x FP32")
        if asked == "auto" and not gate["passed"]:
            told.append(f"{precision.upper()} did not pass the gate: {gate['reason']}")
    if asked != "auto":
        return asked, told
    worth = {p: speeds.get(p, float("inf")) for p, gate in gates.items() if gate["passed"]}
    emitted = max({"fp32": 1.0, **worth}.items(), key=lambda item: item[1])[0]
    if gates:
        told.append(f"--auto took {emitted.upper()}, the fastest that passed the gate")
    return emitted, told


def passed(gates: Gates, precision: str) -> bool:
    """Whether a precision may be emitted; FP32 is never judged."""
    return precision not in gates or bool(gates[precision]["passed"])


def gate_of(emitted: str, gates: Gates) -> dict[str, Any]:
    """The verdict that the report shows: on the emitted precision, or on what FP32 was kept for."""
    if not gates:
        return dict(FP32_ONLY)
    return dict(gates.get(emitted) or gates.get("int8") or next(iter(gates.values())))


def lines(
    metrics: Mapping[str, Mapping[str, Any]],
    gates: Gates,
    emitted: str,
    fallback: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One line per precision, for the report's verdict.

    INT8 with layers in float has a line of its own; the times of all lines then come from the
    one pass in which FP32, INT8 throughout and INT8 with these layers took turns.

    Args:
        metrics: report keys per precision, FP32's first.
        fallback: of `build_fallback.WayBack`.

    Returns:
        name, ms (median of a picture at batch 1), speed (times FP32's), passed (None for FP32,
        which is the yardstick), emitted.
    """
    mixed = bool(fallback.get("float"))
    told = []
    for precision, found in metrics.items():
        ms = found["latency_ms"]["p50"]
        passed = gates[precision]["passed"] if precision in gates else None
        one = {"name": precision.upper(), "ms": ms, "passed": passed}
        one["emitted"] = precision == emitted
        if mixed and precision == "fp32":
            one["ms"] = fallback["fp32_ms"]
        if mixed and precision == "int8":
            whole = {"name": "INT8 throughout", "ms": fallback["whole_ms"], "passed": False}
            told.append({**whole, "emitted": False})
            one |= {"name": f"INT8, {counted(len(fallback['float']), 'convolution')} in float"}
            one |= {"ms": fallback["ms"]}
        told.append(one)
    return [{**one, "speed": told[0]["ms"] / one["ms"]} for one in told]
