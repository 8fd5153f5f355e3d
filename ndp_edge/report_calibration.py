"""The report's part on calibration: what it holds, and how `--calib-method auto` chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndp_edge.report_tables import NONE, esc, figure_cells

COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "score_rms": "scores moved (RMS)",
    "map_rms": "maps moved (RMS)",
    "drop": "sum of drops",
}
"""Key of a candidate -> the column's head."""


TRIED = ("fp32", "candidates", "tie")


def calibration_keys(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What report.json holds of the build's record of calibration (`build_calibrate.quantise`).

    Returns:
        calibration: the flat facts. calibration_files: picture -> SHA-256 of its file; absent
        without INT8, as is calibration_scores: picture -> FP32's score. calibration_methods:
        TRIED; absent unless methods were tried.
    """
    apart = ("files", "scores", "hashes", *TRIED)
    told: dict[str, Any] = {"calibration": {k: v for k, v in calibration.items() if k not in apart}}
    if calibration.get("files"):
        told["calibration_files"] = calibration["files"]
        told["calibration_scores"] = calibration["scores"]
    if calibration.get("candidates"):
        told["calibration_methods"] = {key: calibration[key] for key in TRIED}
    return told


def calibration_section(report: Mapping[str, Any]) -> str:
    """FP32 and each method on the tune set; empty where only one method was tried.

    Args:
        report: its "calibration_methods" holds TRIED of what `calib.auto` returns.
    """
    tried: Mapping[str, Any] = report.get("calibration_methods") or {}
    candidates: Sequence[Mapping[str, Any]] = tried.get("candidates") or ()
    if not candidates:
        return ""
    rows = [_row("FP32", tried.get("fp32") or {})]
    rows += [_row(f"{c.get('method')}{', kept' * bool(c.get('kept'))}", c) for c in candidates]
    head = "".join(f"<th>{name}</th>" for name in ("method", *COLUMNS.values()))
    return (
        "<section><h2>Calibration methods</h2><p>On the tune set, good pictures and artificial "
        "defects on them; no test picture chose. A gain over FP32 counts nothing. Methods whose "
        f"sum of drops lies within {esc(tried.get('tie', NONE))} of the least are about equal: the "
        f'first of them is kept.</p><div class="scroll"><table><tr>{head}</tr>{"".join(rows)}'
        "</table></div></section>"
    )


def _row(name: str, figures: Mapping[str, Any]) -> str:
    return f"<tr><td>{esc(name)}</td>{figure_cells(figures, COLUMNS)}</tr>"
