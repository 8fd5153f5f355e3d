"""The page on the gate and on the layers: intervals, the choice, the way back, in plain words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ndp_edge.report_gate import gate_section, row_name, said
from ndp_edge.report_layers import sensitivity_section


def row(metric: str, **facts: Any) -> dict[str, Any]:
    usual = {"fp32": 0.95, "int8": 0.949, "worse": 0.001, "low": -0.001, "high": 0.004}
    told = {"metric": metric, **usual, "limit": 0.005, "passed": True, "shown": True}
    return {**told, **facts}


def gate(*rows: dict[str, Any], **facts: Any) -> dict[str, Any]:
    images = {"good": 60, "defective": 60, "artificial": 0}
    return {"gate": {"passed": True, "rows": list(rows), "images": images, **facts}}


def test_every_figure_has_its_interval_its_limit_and_a_point_in_the_chart() -> None:
    page = gate_section(gate(row("image_auroc"), row("aupro", worse=0.0, low=-0.002, high=0.0)))
    assert "-0.0010 to +0.0040" in page
    assert "-0.0020 to +0.0000" in page
    assert page.count("0.00500") == 2
    assert page.count("<circle") == 2
    assert "each of its ends holds with 95 %" in page
    assert "Judged on 60 good and 60 defective pictures" in page


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"shown": True}, "within, shown"),
        ({"shown": False, "high": 0.02}, "within, not shown"),
        ({"shown": None, "low": None, "high": None}, "within"),
        ({"worse": 0.02, "shown": False}, "beyond, may be chance"),
        ({"worse": 0.2, "passed": False}, "FELL SHORT"),
        ({"worse": None, "passed": None}, "not judged"),
        ({"worse": None, "int8": None, "passed": False}, "FELL SHORT"),
    ],
)
def test_a_row_says_what_it_means(facts: dict[str, Any], words: str) -> None:
    one = row("miss_rate", **facts)
    assert said(one) == words
    page = gate_section(gate(one))
    assert f">{words}</span>" in page
    assert ('class="wrong"' in page) == (words == "FELL SHORT")


def test_rows_on_artificial_defects_say_so() -> None:
    one = row("aupro", on="artificial defects")
    assert row_name(one) == "AUPRO, artificial defects"
    other = row("score_difference", on="good images", low=None, high=None, shown=None)
    assert row_name(other) == "Good scores moved, good images"
    counts = {"good": 30, "defective": 0, "artificial": 60}
    page = gate_section(gate(one, other, images=counts))
    assert "60 artificial defects: there are no real ones here" in page
    assert "what INT8 costs on real ones these cannot show" in page


def test_points_stay_on_the_chart() -> None:
    page = gate_section(gate(row("aupro", worse=0.9, low=-3.0, high=5.0, passed=False)))
    across = [float(x) for x in re.findall(r'(?:x1|x2|cx)="(-?[\d.]+)"', page)]
    assert across
    assert all(0 <= x <= 480 for x in across)


def choice(name: str, ms: float, speed: float, passed: bool | None, emitted: bool) -> Any:
    return {"name": name, "ms": ms, "speed": speed, "passed": passed, "emitted": emitted}


def test_a_line_per_precision_says_what_it_is_worth() -> None:
    told = {
        "choices": [
            choice("FP32", 80.0, 1.0, None, False),
            choice("FP16", 90.0, 0.89, True, False),
            choice("INT8", 20.0, 4.0, False, False),
            choice("INT8, 3 convolutions in float", 40.0, 2.0, True, True),
        ]
    }
    page = gate_section(told)
    lines = re.findall(r"<tr><td>(.*?)</tr>", page)
    assert "yardstick" in lines[0]
    assert "not worth it here" in lines[1]
    assert "failed" in lines[2]
    assert "2.00 x" in lines[3]
    assert "in this bundle" in lines[3]
    assert "stands in here" not in page
    assert "timed on openvino, which stands in here" in gate_section(
        told | {"judged_on": "openvino"}
    )


def test_nothing_to_tell_is_no_section() -> None:
    assert gate_section({}) == ""
    assert gate_section({"choices": [choice("FP32", 80.0, 1.0, None, True)]}) == ""
    assert sensitivity_section({"sensitivity": {}}) == ""


def layer(name: str, gain: float) -> dict[str, Any]:
    figures = {"image_auroc": 0.9, "pixel_auroc": 0.8, "aupro": 0.5, "map_rms": 0.01}
    told = {"name": name, "tensors": [name], "convolutions": [f"{name}.conv"], "gain": gain}
    return {**told, **figures}


def layers(count: int) -> dict[str, Any]:
    found = [layer(f"layer{i}", 0.5 / (i + 1) - 0.1) for i in range(count)]
    return {"sensitivity": {"pictures": 12, "fp32": {}, "int8": {}, "layers": found}}


def test_the_layers_are_a_chart_and_a_table() -> None:
    page = sensitivity_section(layers(20))
    assert page.count("<rect") == 12
    assert "8 more layers" in page
    assert all(f"layer{i}" in page for i in range(20))
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="16"', page)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0  # a layer that brings nothing
    assert "The way back" not in page


def test_the_way_back_names_what_went_to_float_and_its_cost() -> None:
    tried = [
        {"layers": ["layer0"], "convolutions": 1, "passed": False, "reason": "aupro <drops>"},
        {"layers": ["layer0", "layer1"], "convolutions": 2, "passed": True, "reason": ""},
    ]
    back = {"attempts": tried, "float": ["layer0.conv", "layer1.conv"], "layers": ["x"]}
    times = {"fp32_ms": 90.0, "whole_ms": 30.0, "ms": 45.0}
    page = sensitivity_section({**layers(3), "fallback": {**back, **times}})
    assert "layer1, in float" in page
    assert "layer2, in float" not in page
    assert "failed, aupro &lt;drops&gt;" in page
    assert "the gate was asked 2 times" in page
    assert "30.00 to 45.00 ms a picture, 1.50 times the time of INT8" in page
    nothing = {"attempts": tried[:1], "float": [], "layers": []}
    assert "No attempt passed" in sensitivity_section({**layers(3), "fallback": nothing})
