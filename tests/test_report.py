"""report.html: self-contained, escaped, honest about what is missing; its curves are exact."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndp_edge import heat, metrics, report_svg
from ndp_edge.report import Evidence, Layer, Pictures, SamplePicture, write_report

THRESHOLD = 0.3
VOID = {"meta", "img", "input", "br"}


class Checker(html.parser.HTMLParser):
    """Every tag closed in order; collects tags, links and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def read(path: Path) -> tuple[Checker, str]:
    checker = Checker()
    checker.feed(path.read_text("utf-8"))
    checker.close()
    assert checker.open == []
    return checker, " ".join(" ".join(checker.words).split())


def evidence(shift: float = 0.0) -> Evidence:
    rng = np.random.default_rng(0)
    maps = rng.random((6, 16, 16), np.float32) * 0.25
    masks = np.zeros((6, 16, 16), bool)
    masks[3:, 4:8, 4:8] = True
    maps[masks] += 0.5 + shift
    labels = np.array([0, 0, 0, 1, 1, 1])
    times = 10 + rng.random(50)
    return Evidence(maps.max(axis=(1, 2)), labels, maps, masks, times.tolist())


def keys(shown: Evidence, ms: float) -> dict[str, Any]:
    assert shown.maps is not None
    assert shown.masks is not None
    found = metrics.summary(shown.scores, shown.labels, shown.maps, shown.masks, THRESHOLD)
    times = {"p50": ms, "p95": ms * 1.1, "p99": ms * 1.2, "mean": ms, "n": 50}
    return {**found, "latency_ms": times, "backend": "openvino", "device": "CPU"}


def sample(kind: str, name: str = "test/x/001.png") -> SamplePicture:
    at = 0 if kind == "good" else 4
    shown = evidence()
    assert shown.maps is not None
    assert shown.masks is not None
    image = np.full((16, 16, 3), 90, np.uint8)
    score = float(shown.scores[at])
    verdict = "reject" if score > THRESHOLD else "ok"
    mask = None if kind == "good" else shown.masks[at]
    return SamplePicture(name, kind, image, mask, shown.maps[at], score, verdict)


def full() -> tuple[dict[str, Any], Pictures]:
    slow, fast = evidence(), evidence(0.01)
    report = {
        "title": "nano on cloth",
        "precision": "int8",
        "backend": "openvino",
        "metrics": {"fp32": keys(slow, 40.0), "int8": keys(fast, 10.0)},
        "gate": {"passed": True, "reason": "all within 0.005", "max_drop": 0.005,
                 "rows": [{"metric": "aupro", "fp32": 0.9, "int8": 0.9, "passed": True}]},
        "threshold": {"value": THRESHOLD, "target": 0.01, "n": 100, "method": "split-conformal"},
        "splits": {"train": {"n": 300, "digest": "ab" * 32}},
        "calibration": {"method": "minmax", "images": 40},
        "versions": {"openvino": "2026.4"},
        "notes": ["no perceptual loss"],
    }  # fmt: skip
    layers = [Layer("conv1", "Convolution", "i8", 3.0), Layer("soft", "SoftMax", "f32", 1.0)]
    pictures = Pictures([sample("good"), sample("scratch")], {"fp32": slow, "int8": fast}, layers)
    return report, pictures


def write(tmp_path: Path, report: dict[str, Any], pictures: Pictures) -> tuple[Checker, str]:
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    write_report(report, pictures, page, data)
    return read(page)


def test_the_whole_page(tmp_path: Path) -> None:
    report, pictures = full()
    checker, text = write(tmp_path, report, pictures)
    assert "INT8 gate passed" in text
    assert "4.00 times as fast" in text
    assert "at most 1 % of good pictures" in text
    assert "100 good ones" in text
    assert "split-conformal" in text
    assert "i8 75 %" in text
    assert "ab" * 32 in text
    assert "no perceptual loss" in text
    assert checker.tags >= {"svg", "img", "table", "details"}
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["int8"]["aupro"] > 0.9


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    checker, _ = write(tmp_path, *full())
    assert "script" not in checker.tags
    assert "link" not in checker.tags
    assert checker.links
    assert all(link.startswith("data:image/") for link in checker.links)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", page)


def test_text_is_escaped(tmp_path: Path) -> None:
    report, pictures = full()
    evil = "<script>alert(1)</script>\"'&"
    report.update(title=evil, device=evil, versions={evil: evil}, notes=[evil])
    report["gate"]["reason"] = evil
    report["metrics"]["int8"]["device"] = evil
    report["splits"] = {evil: {"n": evil, "digest": evil}}
    shown = Pictures([sample(evil, evil)], pictures.evidence, [Layer(evil, evil, evil, 1.0)])
    checker, text = write(tmp_path, report, shown)
    assert "script" not in checker.tags
    assert text.count("<script>alert(1)</script>") >= 10


def test_a_failed_gate_is_said_at_the_top(tmp_path: Path) -> None:
    report, pictures = full()
    report["gate"] = {"passed": False, "reason": "AUPRO fell by 0.02"}
    _, text = write(tmp_path, report, pictures)
    assert "INT8 gate failed AUPRO fell by 0.02" in text
    assert "passed" not in text.split("Accuracy and speed")[0]


def test_a_weak_detector_is_not_praised(tmp_path: Path) -> None:
    report, pictures = full()
    _, text = write(tmp_path, report, pictures)
    assert "weak" not in text
    report["metrics"]["int8"] |= {"image_auroc": 0.5, "miss_rate": 0.9}
    _, text = write(tmp_path, report, pictures)
    assert "misses 90 % of the defects" in text


def test_one_precision_has_no_gate_and_no_comparison(tmp_path: Path) -> None:
    report, pictures = full()
    report["metrics"] = {"fp32": report["metrics"]["fp32"]}
    report |= {"precision": "fp32", "gate": {"passed": True, "reason": "FP32 only", "rows": []}}
    _, text = write(tmp_path, report, Pictures(pictures.samples, {"fp32": evidence()}))
    assert "No gate" in text
    assert "times as fast" not in text


def test_verdicts_against_the_truth_are_marked(tmp_path: Path) -> None:
    report, _ = full()
    good, bad = sample("good"), sample("scratch")
    wrong = [replace(good, verdict="reject"), replace(bad, verdict="ok")]
    _, text = write(tmp_path, report, Pictures(wrong))
    assert "false reject" in text
    assert "missed" in text


@pytest.mark.parametrize("defects", [0, 6])
def test_one_kind_of_picture_draws_no_roc(tmp_path: Path, defects: int) -> None:
    labels = np.array([1] * defects + [0] * (6 - defects))
    shown = replace(evidence(), labels=labels, latencies_ms=())
    report = {"threshold": {"value": THRESHOLD}}
    _, text = write(tmp_path, report, Pictures((), {"fp32": shown}))
    assert "ROC" not in text
    assert "Scores, FP32" in text


def test_an_empty_report_is_still_a_page(tmp_path: Path) -> None:
    _, text = write(tmp_path, {}, Pictures())
    assert "No gate" in text


def area(x: np.ndarray, y: np.ndarray) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


@given(st.data())
def test_the_roc_has_the_area_of_the_auroc(data: st.DataObject) -> None:
    labels = data.draw(hnp.arrays(np.bool_, st.integers(2, 40)))
    labels[0], labels[-1] = False, True
    scores = data.draw(hnp.arrays(np.float32, len(labels), elements=st.integers(0, 9)))
    false, true = report_svg.roc(scores, labels)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert (false[-1], true[-1]) == (1.0, 1.0)
    assert area(false, true) == pytest.approx(metrics.image_auroc(scores, labels))


def test_the_pixel_roc_is_close_to_the_exact_area() -> None:
    rng = np.random.default_rng(1)
    masks = np.zeros((4, 64, 64), bool)
    masks[:2, 10:30, 10:30] = True
    maps = rng.random((4, 64, 64), np.float32) + 0.4 * masks.astype(np.float32)
    false, true = report_svg.pixel_roc(maps, masks)
    assert area(false, true) == pytest.approx(metrics.pixel_auroc(maps, masks), abs=2e-3)


@given(
    hnp.arrays(np.float32, (4, 4), elements=st.floats(0, 2, width=32)),
    st.floats(0, 1.5),
)
def test_colours_say_what_the_verdict_says(shown: np.ndarray, threshold: float) -> None:
    rejected = shown.astype(np.float64) > threshold
    picture = heat.colours(shown, threshold)
    warm = picture[..., 0] > picture[..., 2]
    assert (warm == rejected).all()


def test_the_overlay_outlines_what_is_above() -> None:
    image = np.full((32, 32, 3), 128, np.uint8)
    shown = np.zeros((32, 32), np.float32)
    assert (heat.overlay(image, shown, 0.5) == 128).all()
    shown[8:16, 8:16] = 0.9
    marked = heat.overlay(image, shown, 0.5, zoom=1)
    assert (marked == heat.DEFECT_COLOUR).all(axis=-1).any()
    assert (marked[20:] == 128).all()


@pytest.mark.parametrize("scores", [[0.2, 0.2], [1e-4, 0.9], [0.0, 0.0]])
def test_a_histogram_of_any_spread(scores: list[float]) -> None:
    drawn = report_svg.histogram_plot(np.array(scores), np.array([0, 1]), 0.2)
    assert "nan" not in drawn
    assert drawn.count("<rect") == 3  # the ground and one bar per picture


def test_calibration_methods_are_a_table_and_only_where_they_were_tried(tmp_path: Path) -> None:
    report, pictures = full()
    _, text = write(tmp_path, report, pictures)
    assert "Calibration methods" not in text
    figures = {"image_auroc": 0.96, "pixel_auroc": 0.91, "aupro": 0.75, "score_rms": 0.0}
    report["calibration_methods"] = {
        "fp32": figures,
        "candidates": [
            {**figures, "method": "minmax", "aupro": 0.74321, "drop": 0.00679, "kept": False},
            {**figures, "method": "mse", "drop": 0.0, "kept": True},
        ],
        "tie": 0.01,
    }
    _, text = write(tmp_path, report, pictures)
    assert "Calibration methods" in text
    assert "within 0.01 of the least" in text
    assert "mse, kept" in text
    assert "minmax, kept" not in text
    assert "0.74321" in text
