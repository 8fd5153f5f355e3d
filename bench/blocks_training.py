"""The report's blocks about trainings: tables of `bench.accuracy`, and how fast steps are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ndp_edge.bench.accuracy_table import LABELS, cell
from ndp_edge.bench.block import Block, Rows
from ndp_edge.bench.saved import Saved, of_kind
from ndp_edge.calib.gate import AREAS, RATES

WHOLE = "A whole net"
"""The recipe that Table VI's others are compared with."""

PAPERS = {
    "B without RBAM": "-1.24 / -0.91",
    "C without L_def_per": "-1.05 / -2.42",
    "D pixel gap for MSDSM": "-2.76 / -13.29",
    "E MSFR for MSDSM": "-1.66 / -5.28",
    "F SSIM for MSDSM": "-8.59 / -11.19",
}
"""Image and pixel AUROC, percentage points against the whole net: the paper's IV-D, MVTec AD's
wood."""


def trainings(saved: Sequence[Saved]) -> list[Block]:
    """Two blocks for each table of `bench.accuracy`: figures, and differences from a base."""
    found = []
    for one in of_kind(saved, "trainings"):
        stem = one.name.removesuffix(".json")
        found.append(Block(stem, f"Trainings: {stem}", _figures(one.data), (_note(one),)))
        if any(row["recipe"] == WHOLE for row in one.data["rows"]):
            rows = _differences(one.data)
            found.append(
                Block(f"{stem}-against", f"Against the whole net: {stem}", rows, (_note(one),))
            )
        if any(row.get("heads") for row in one.data["rows"]):
            found.append(Block(f"{stem}-heads", f"Single heads: {stem}", _heads(one.data)))
    return found


def _note(one: Saved) -> str:
    devices = {found.get("device", "CPU") for found in one.data["cells"]}
    return (
        f"{one.data['date']}; judged on {', '.join(sorted(devices))}. Mean and, in brackets, "
        f"lowest and highest seed; each seed has splits of its own. "
        f"tune: good pictures and artificial defects. File: `{one.name}`."
    )


def _figures(data: dict[str, Any]) -> Rows:
    int8 = any("int8" in row["test"] for row in data["rows"])
    rows: Rows = [["net", "seeds", *(["", ] if int8 else []), *LABELS.values(), "tune: image AUROC",
                   "pixel AUROC", "AUPRO"]]  # fmt: skip
    for row in data["rows"]:
        name = ", ".join(dict.fromkeys([row["surface"], row["preset"], row["recipe"]]))
        for i, (precision, found) in enumerate(row["test"].items()):
            tune = row["tune"].get(precision, {})
            first = [name, str(len(row["seeds"]))] if i == 0 else ["", ""]
            rows.append(
                [
                    *first,
                    *([precision.upper()] if int8 else []),
                    *(cell(found.get(key), rate=key in RATES) for key in LABELS),
                    *(cell(tune.get(key), rate=False) for key in AREAS),
                ]
            )
    return rows


def _differences(data: dict[str, Any]) -> Rows:
    """Mean over the seeds of the difference from the whole net of the same seed, in points."""
    parts = {"test": "", "tune": "tune: "}
    names = [f"{word}{LABELS[key]}" for word in parts.values() for key in AREAS]
    rows: Rows = [["points against A", *names, "the paper: image / pixel"]]
    base = {found["seed"]: found for found in data["cells"] if found["recipe"] == WHOLE}
    for recipe in dict.fromkeys(found["recipe"] for found in data["cells"]):
        if recipe == WHOLE:
            continue
        cells = [c for c in data["cells"] if c["recipe"] == recipe and c["seed"] in base]
        told = [
            _points([_of(c, part, key) - _of(base[c["seed"]], part, key) for c in cells])
            for part in parts
            for key in AREAS
        ]
        rows.append([recipe, *told, PAPERS.get(recipe, "-")])
    return rows


def _of(found: dict[str, Any], part: str, key: str) -> float:
    return float(found[part]["fp32"][key])


def _points(values: list[float]) -> str:
    mean, low, high = (100 * float(f(values)) for f in (np.mean, min, max))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _heads(data: dict[str, Any]) -> Rows:
    rows: Rows = [["net", "map", *(LABELS[key] for key in AREAS), "tune: image AUROC",
                   "pixel AUROC", "AUPRO"]]  # fmt: skip
    for row in data["rows"]:
        for view, found in row.get("heads", {}).items():
            values = [
                cell(found.get(part, {}).get(key), rate=False)
                for part in ("test", "tune")
                for key in AREAS
            ]
            rows.append([row["recipe"], view, *values])
    return rows


def train_speed(saved: Sequence[Saved]) -> Block:
    """Images a second by preset and way."""
    rows: Rows = [["device", "preset", "crops a step", "way", "phase 1, images/s", "phase 2"]]
    notes = []
    for one in of_kind(saved, "train_speed"):
        for row in one.data["rows"]:
            rates = [f"{rate:.0f}" for rate in row["images_per_s"]]
            words = [one.data["device"], row["preset"], str(one.data["batch_size"]), row["way"]]
            rows.append([*words, *rates])
        threads = one.data["threads"]
        notes.append(
            f"{one.data['device']}, {one.data['machine']['cpu']}, torch {one.data['torch']}, "
            f"{threads} thread{'s' if threads > 1 else ''}, crops of {one.data['crop']}; "
            f"{one.data['date']}. File: `{one.name}`."
        )
    return Block("train-speed", "How fast steps are", rows, tuple(notes))
