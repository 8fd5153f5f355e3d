"""The table of `bench.accuracy`: mean and spread over seeds, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ndp_edge.bench.tables import markdown_table
from ndp_edge.calib.gate import RATES

LABELS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "false_reject_rate": "false rejects",
    "miss_rate": "misses",
}
"""Report key -> the column's head."""

PAPER = (
    "The paper reports image AUROC 98.81, pixel AUROC 98.54 and AUPRO 95.73 % on MVTec AD's "
    "textures, which cannot be had here, and pixel AUROC 99.59 % on DAGM (all ten classes)."
)


def group(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per (surface, preset, recipe): what its seeds gave.

    Args:
        records: of cells that are done.

    Returns:
        surface, preset, recipe, seeds, minutes (mean of the trainings), gate_failed (how many
        seeds) and test, tune: precision -> key -> {mean, low, high, n}; keys without a figure
        are left out; heads: view -> {test, tune}, each with what `test` has for a precision
        ({} unless `bench.torch_judge` judged).
    """
    rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        key = (record["surface"], record["preset"], record["recipe"])
        rows.setdefault(key, []).append(record)
    return [
        {
            "surface": surface,
            "preset": preset,
            "recipe": recipe,
            "seeds": sorted(record["seed"] for record in members),
            "minutes": float(np.mean([record["minutes"] for record in members])),
            "gate_failed": sum(record["gate_passed"] is False for record in members),
            "test": _spread(record["test"] for record in members),
            "tune": _spread(record["tune"] for record in members),
            "heads": _heads(members),
        }
        for (surface, preset, recipe), members in rows.items()
    ]


def _heads(members: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    told = [record.get("heads", {}) for record in members]
    views = dict.fromkeys(view for heads in told for view in heads)
    return {view: _spread(heads[view] for heads in told if view in heads) for view in views}


def _spread(found: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, list[float]]] = {}
    for one in found:
        for precision, figures in one.items():
            for key in LABELS:
                if figures.get(key) is not None:
                    values.setdefault(precision, {}).setdefault(key, []).append(figures[key])
    return {
        precision: {
            key: {"mean": float(np.mean(v)), "low": min(v), "high": max(v), "n": len(v)}
            for key, v in figures.items()
        }
        for precision, figures in values.items()
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Mean and, in brackets, lowest and highest seed; FP32 and INT8 of the test folder, and
    FP32 on the tune set (good pictures and artificial defects), by which recipes are chosen."""
    lines = [["net", "", *LABELS.values()]]
    for row in rows:
        name = f"{row['surface']}, {row['preset']}, {row['recipe']}"
        told = [
            ("FP32", row["test"].get("fp32", {})),
            ("INT8", row["test"].get("int8", {})),
            ("tune, FP32", row["tune"].get("fp32", {})),
        ]
        for i, (label, figures) in enumerate(told):
            first = f"{name} ({len(row['seeds'])} x {row['minutes']:.0f} min)" if i == 0 else ""
            cells = [cell(figures.get(key), rate=key in RATES) for key in LABELS]
            lines.append([first, label, *cells])
    return "\n\n".join([markdown_table(lines), *_heads_table(rows), f"{PAPER}\n"])


def _heads_table(rows: list[dict[str, Any]]) -> list[str]:
    """The maps of single heads; nothing where none were judged."""
    lines = [
        [f"{row['surface']}, {row['preset']}, {row['recipe']}", view, label]
        + [cell(figures.get(key), rate=key in RATES) for key in LABELS]
        for row in rows
        for view, parts in row["heads"].items()
        for label, figures in (("FP32", parts.get("test", {})), ("tune, FP32", parts["tune"]))
    ]
    if not lines:
        return []
    told = "Maps of single MSDSM heads and of all three alike, the same trainings:"
    return [told, markdown_table([["net", "map", "", *LABELS.values()], *lines])]


def cell(figure: Mapping[str, Any] | None, *, rate: bool) -> str:
    """A figure of `group` for people: its mean and, of several seeds, the extremes."""
    if figure is None:
        return "-"
    scale, shape, unit = (100, "{:.1f}", " %") if rate else (1, "{:.4f}", "")
    mean, low, high = (shape.format(scale * figure[key]) for key in ("mean", "low", "high"))
    if figure["n"] == 1:
        return f"{mean}{unit}"
    return f"{mean}{unit} ({low} to {high}{unit})"
