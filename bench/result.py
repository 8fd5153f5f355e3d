"""One run as JSON: figures with intervals, and everything that they hang on."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

from ndp_edge import __version__
from ndp_edge.bench.contenders import TORCH, Net
from ndp_edge.bench.figures import Interval, spread
from ndp_edge.bench.rounds import STAGES, WARM_UP, Row, Run
from ndp_edge.bench.sensors import told
from ndp_edge.bundle import Bundle
from ndp_edge.calib.gate import AREAS, RATES
from ndp_edge.doctor import cpu_model, isa, usable_cores
from ndp_edge.engines import PLANNED
from ndp_edge.metrics import latency

KIND = "ndp-edge-bench-1"
NOT_TOLD = "not told"

FASTER_THAN = (TORCH, "openvino-fp32")
"""Rows that the others' speed is told against, where they are in the run."""


def machine() -> dict[str, Any]:
    """The processor, by name and by what int8 speed hangs on, and how many cores we may use."""
    return {
        "cpu": cpu_model(),
        "isa": isa(),
        "cores": usable_cores(),
        "machine": platform.machine(),
    }


def on_card(row: Row) -> bool:
    """Whether the row's net runs on an NVIDIA card, of whose speed the reference says nothing."""
    return row.about["backend"] in PLANNED or bool(row.about.get("card"))


def key(row: Row, net: dict[str, Any], reference: dict[str, str]) -> dict[str, Any]:
    """What must be equal before two runs' figures for a row may be compared."""
    about, here = row.about, machine()
    card = on_card(row)
    return {
        "device": about["device"] if card else here["cpu"],
        "isa": here["isa"],
        "cores": here["cores"],
        "machine": here["machine"],
        "engine": row.name,
        "batch": row.batch,
        "threads": about["threads"],
        "net": f"{net['preset']} {net['image_size']}",
        "versions": {**about["versions"], "python": ".".join(platform.python_version_tuple()[:2])},
        "reference": {} if card else reference,
    }


def result(
    run: Run,
    net: Net,
    reference: dict[str, str],
    settings: dict[str, Any],
    meter: str | None,
    bundle: Bundle | None,
    notes: list[str],
) -> dict[str, Any]:
    """Everything that a run found out; plain values only."""
    return {
        "kind": KIND,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "net": net.about,
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "settings": settings | {"rounds": len(run.rows[0].rounds), "warm_up": WARM_UP},
        "latency": "milliseconds per call, from decoded frames to verdicts",
        **told(run.looks),
        "energy": meter or NOT_TOLD,
        "rows": [row_result(row, run.rows, net.about, reference) for row in run.rows],
        "accuracy": accuracy(bundle),
        "notes": notes,
    }


def row_result(
    row: Row, rows: list[Row], net: dict[str, Any], reference: dict[str, str]
) -> dict[str, Any]:
    """One row's figures."""
    medians = [one["ms"] for one in row.rounds]
    calls, total = len(row.times["total"]), latency(row.times["total"])
    return {
        "name": row.name,
        "label": row.label,
        "batch": row.batch,
        "backend": row.about["backend"],
        "precision": row.about["precision"],
        "key": key(row, net, reference),
        "latency_ms": total,
        "ms_interval": spread(medians).rounded(),
        "ms_per_frame": round(total["p50"] / row.batch, 3),
        "stages_ms": {stage: latency(row.times[stage]) for stage in STAGES},
        "faster_than": {
            other.name: faster(row, other).rounded()
            for other in rows
            if other.name in FASTER_THAN and other is not row and other.batch == row.batch
        },
        "joules_per_frame": (
            NOT_TOLD if row.joules is None else round(row.joules / (calls * row.batch), 4)
        ),
        "compares": "ms" if on_card(row) else "ratio",
        "rounds": [{k: round(v, 5) for k, v in one.items()} for one in row.rounds],
    }


def faster(row: Row, other: Row) -> Interval:
    """How many times faster `row` is than `other`: rounds are pairs, both were in each."""
    return spread([b["ms"] / a["ms"] for a, b in zip(row.rounds, other.rounds, strict=True)])


def accuracy(bundle: Bundle | None) -> dict[str, Any] | None:
    """What the bundle's own build measured, and on which pictures; None without a bundle.

    The numbers of good and defective pictures come from the limits that the gate wrote down:
    a rate may always rise by one picture.
    """
    if bundle is None or not bundle.manifest["metrics"]:
        return None
    manifest = bundle.manifest
    part = "test" if "test" in manifest["splits"] else "threshold"
    rows = manifest["gate"].get("rows", [])
    # "on": judged on something else than the pictures, such as artificial defects on them.
    limits = {row["metric"]: row["limit"] for row in rows if not row.get("on")}
    max_drop = manifest["gate"].get("max_drop", 0.0)

    def count(metric: str) -> int | None:
        limit = limits.get(metric, 0.0)
        return round(1 / limit) if limit > max_drop else None

    return {
        "backend": manifest["default"]["backend"],
        "split": part,
        "pictures": manifest["splits"].get(part, {}).get("digest"),
        "good": count("false_reject_rate"),
        "defective": count("miss_rate"),
        "metrics": {
            precision: {name: found.get(name) for name in (*AREAS, *RATES)}
            for precision, found in manifest["metrics"].items()
        },
    }
