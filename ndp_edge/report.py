"""report.json and report.html: one page that an inspection engineer reads at one look.

The page is self-contained: inline SVG and base64 pictures, no scripts, no network.
"""

from __future__ import annotations

import importlib.resources
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge.console import json_text
from ndp_edge.files import write_atomic
from ndp_edge.types import Layer

__all__ = ["Evidence", "Layer", "Pictures", "SamplePicture", "write_report"]


@dataclass(frozen=True)
class SamplePicture:
    """One test picture to show.

    Attributes:
        name: its name relative to the data root.
        kind: "good" or the name of the defect.
        image: uint8 [H, W, 3], RGB.
        mask: bool [H, W], True inside the true defect; None where there is none or unknown.
        heat: float32 [H, W], the smoothed map (after the 5x5 median) of the shipped precision.
        score: the maximum of `heat`.
        verdict: "ok" or "reject".
    """

    name: str
    kind: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    heat: NDArray[np.float32]
    score: float
    verdict: str


@dataclass(frozen=True)
class Evidence:
    """What one precision answered on the test pictures; the page draws its plots from it.

    Attributes:
        scores: float [N].
        labels: int or bool [N], 1 for defective.
        maps: float32 [N, H, W], smoothed; None when no pixel ROC is wanted.
        masks: bool [N, H, W]; None likewise.
        latencies_ms: milliseconds of each timed call at batch 1, in order; may be empty.
    """

    scores: NDArray[Any]
    labels: NDArray[Any]
    maps: NDArray[np.float32] | None = None
    masks: NDArray[np.bool_] | None = None
    latencies_ms: Sequence[float] = ()


@dataclass(frozen=True)
class Pictures:
    """Everything on the page that is not in report.json.

    Attributes:
        samples: pictures to show, in the order to show them (four good and eight defective
            ones are plenty; each costs about 50 kB).
        evidence: precision ("fp32", "int8") -> what it answered; the shipped one last.
        layers: the executed graph of the shipped precision; empty when not measured.
        engines: an engine's file -> its layers, of engines that were built and not timed.
    """

    samples: Sequence[SamplePicture] = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    layers: Sequence[Layer] = ()
    engines: Mapping[str, Sequence[Layer]] = field(default_factory=dict)


def write_report(
    report: Mapping[str, Any], pictures: Pictures, html_path: Path, json_path: Path
) -> None:
    """Write report.json and report.html, each atomically.

    Args:
        report: goes into report.json as it is. The page reads these keys and leaves out what
            is missing or None:
            title: str; created: str (ISO 8601); version: str; bundle: str (hash);
            precision: str, the shipped one; backend: str; device: str;
            metrics: {precision: report keys of DESIGN section 8}, FP32 first;
            gate: {passed: bool, reason: str, max_drop: float, rows: list of dicts
            (`calib.gate.Verdict`), images: {good, defective, artificial}};
            choices: a dict per precision (`build_choice.lines`);
            sensitivity: of `calib.sensitivity`; fallback: of `build_fallback.WayBack`;
            threshold: {value, target, n, method} (threshold.Threshold's fields);
            splits: {split: {n: int, digest: str}};
            calibration: flat dict (method, images, seed, ...);
            calibration_methods: {fp32, candidates, tie} (`calib.auto`);
            model: flat dict (preset, image size, ...); versions: {package: version};
            notes: list of str, what the reader must know (fallbacks, lacking data).
        pictures: what to draw.
        html_path, json_path: the files; their folders must exist.
    """
    from ndp_edge import report_page

    write_atomic(json_path, json_text(report).encode())
    template = importlib.resources.files("ndp_edge").joinpath("report.html").read_text("utf-8")
    page = string.Template(template).substitute(
        title=report_page.title(report), body=report_page.body(report, pictures)
    )
    write_atomic(html_path, page.encode())
