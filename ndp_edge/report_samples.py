"""The sample pictures of report.html: picture, heat map, overlay, on one fixed scale."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ndp_edge import heat, report_svg

if TYPE_CHECKING:
    from ndp_edge.report import SamplePicture


def section(samples: Sequence[SamplePicture], threshold: float | None) -> str:
    """All samples, good and defective by turns so that they stand side by side."""
    if not samples or threshold is None:
        return ""
    good = [sample for sample in samples if sample.kind == "good"]
    bad = [sample for sample in samples if sample.kind != "good"]
    turns = [
        sample
        for index in range(max(len(good), len(bad)))
        for group in (good, bad)
        for sample in group[index : index + 1]
    ]
    cards = "".join(_card(sample, threshold) for sample in turns)
    return (
        "<section><h2>Samples</h2>"
        f'<div class="key"><div class="bar">{colour_bar(threshold)}</div>'
        f"{_line(heat.DEFECT_COLOUR, 'found: above the threshold')}"
        f"{_line(heat.TRUTH_COLOUR, 'true defect')}</div>"
        '<p class="sub">Every map has the same scale. Tap a picture to enlarge it.</p>'
        f'<div class="samples">{cards}</div></section>'
    )


def _line(colour: tuple[int, int, int], name: str) -> str:
    return f'<span><i style="color:rgb{colour}"></i>{html.escape(name)}</span>'


def _card(sample: SamplePicture, threshold: float) -> str:
    marked = heat.overlay(sample.image, sample.heat, threshold, sample.mask)
    views = (
        ("picture", sample.image),
        ("heat map", heat.colours(sample.heat, threshold)),
        ("overlay", marked),
    )
    name = html.escape(sample.name)
    images = "".join(_view(image, f"{name}: {what}") for what, image in views)
    rejected = sample.verdict == "reject"
    wrong = ""
    if rejected != (sample.kind != "good"):
        wrong = f'<span class="wrong">{"false reject" if rejected else "missed"}</span> '
    mark = f'<span class="mark {"reject" if rejected else ""}">{html.escape(sample.verdict)}</span>'
    return (
        f'<div class="sample"><div class="views">{images}</div><div class="words">{mark}'
        f"<b>{html.escape(sample.kind)}</b> {wrong}score {sample.score:.4g}<br>"
        f'<span class="sub">{name}</span></div></div>'
    )


def _view(image: NDArray[np.uint8], label: str) -> str:
    """A picture that grows to the whole window when tapped; a checkbox does it without scripts."""
    source = base64.b64encode(heat.encode(image)).decode()
    return (
        f'<label><input type="checkbox" aria-label="enlarge {label}">'
        f'<img src="data:image/jpeg;base64,{source}" alt="{label}" loading="lazy"></label>'
    )


def colour_bar(threshold: float) -> str:
    """The fixed scale as SVG: 0, the threshold in the middle, and the top."""
    width, height, left = 440, 18, 12
    data = base64.b64encode(heat.encode(heat.COLOURS[np.newaxis].repeat(2, 0), ".png")).decode()
    parts = [
        f'<image href="data:image/png;base64,{data}" x="{left}" y="4" width="{width}" '
        f'height="{height}" preserveAspectRatio="none"/>'
    ]
    middle = left + width / 2
    parts.append(
        report_svg.line(middle, 0, middle, 26, report_svg.REJECT, extra='stroke-width="2"')
    )
    parts.append(report_svg.text(left, 42, "0", anchor="start"))
    parts.append(
        report_svg.text(middle, 42, f"threshold {threshold:.4g}", colour=report_svg.REJECT)
    )
    parts.append(report_svg.text(left + width, 42, f"{heat.TOP:g}", anchor="end"))
    return report_svg.svg(parts, "Colour scale of the heat maps", 48)
