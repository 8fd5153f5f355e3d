"""The roofline and the paper: bounds, labels, quotes, and the command on a small run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.bench import calibration, charts, paper, paper_tables
from ndp_edge.bench.cost import Cost, Group, cost_of
from ndp_edge.bench.devices import DEVICES, V100
from ndp_edge.bench.published import METHODS, NDP_MS, QUOTES
from ndp_edge.bench.roofline import Ceilings, ideal_ms, layer_ms, of_device, shares
from ndp_edge.build_inputs import SHIPPED
from ndp_edge.model.config import preset

PAPER = Path("/work/shared/paper/ndp_net.txt")

group = st.builds(
    Group,
    name=st.just("g"),
    nodes=st.just(("Conv",)),
    flops=st.integers(0, 10**12),
    vector_ops=st.just(0),
    weights=st.integers(0, 10**7),
    narrow=st.integers(0, 10**8),
    wide=st.integers(0, 10**8),
)
ceilings = st.builds(
    Ceilings,
    tops=st.floats(0.01, 5000),
    bandwidth=st.floats(1, 9000),
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    launch_us=st.floats(0.1, 10),
)


@given(one=group, limits=ceilings, factor=st.floats(1, 100))
def test_a_layer_is_held_by_its_slowest_part(one: Group, limits: Ceilings, factor: float) -> None:
    ms, held = layer_ms(one, limits)
    assert ms >= one.flops / (limits.tops * 1e9)
    assert ms >= one.traffic(limits.precision) / (limits.bandwidth * 1e6)
    assert held in {"compute", "memory", "launch"}
    better = replace(limits, tops=limits.tops * factor, bandwidth=limits.bandwidth * factor)
    assert layer_ms(one, better)[0] <= ms


@given(groups=st.lists(group, min_size=1, max_size=5), limits=ceilings)
def test_shares_are_a_whole(groups: list[Group], limits: Ceilings) -> None:
    cost = Cost(tuple(groups), 0)
    assert sum(shares(cost, limits).values()) == pytest.approx(1)
    assert ideal_ms(cost, limits) == pytest.approx(sum(layer_ms(g, limits)[0] for g in groups))


def test_known_numbers_by_hand() -> None:
    one = Group("g", ("Conv",), flops=157 * 10**9, vector_ops=0, weights=0, narrow=0, wide=0)
    limits = of_device(V100, "fp32")
    assert limits is not None
    assert layer_ms(one, limits) == (pytest.approx(10.0), "compute")
    moved = Group("g", ("Add",), 0, 0, 0, narrow=0, wide=225_000_000)
    assert layer_ms(moved, limits) == (pytest.approx(1.0), "memory")


def test_every_device_asked_for_is_there_with_sane_ceilings() -> None:
    words = ["Orin Nano", "Orin NX", "AGX Orin", "AGX Thor", "T4", "L4", "A2", "A2000"]
    words += ["4000 Ada", "V100", "H200"]
    assert len(DEVICES) == len(words)
    for word, device in zip(words, DEVICES, strict=True):
        assert word in device.name
        assert device.note
        assert 0 < device.bandwidth < 10_000
        if device is not V100:
            assert device.int8 == pytest.approx(2 * device.fp16, rel=0.02)


def measured(name: str, efficiency: float) -> dict[str, Any]:
    value = {"point": efficiency, "low": efficiency, "high": efficiency}
    precision = name.rpartition("-")[2]
    return {"name": name, "precision": precision, "cpu_ms": value, "efficiency": value}


@pytest.fixture(scope="module")
def nano() -> onnx.ModelProto:
    return onnx.load(SHIPPED)


def test_predictions_are_labelled_and_follow_the_efficiency(nano: onnx.ModelProto) -> None:
    cost = cost_of(nano)
    rows = paper.predict(cost, {"openvino-fp32": 0.5, "openvino-int8": 0.25}, 0.5)
    assert len(rows) == 2 * len(DEVICES)
    for row in rows:
        assert row["label"] == "prediction"
        factor = 1.0 if row["precision"] == "fp16" else 2.0
        assert row["ms"] == pytest.approx(factor * row["ms_at_v100_efficiency"], abs=2e-3)
    assert not paper.predict(cost, {"torch-fp32": 0.5}, 0.5)


def test_the_check_tells_how_far_each_reading_is_off(
    monkeypatch: pytest.MonkeyPatch, nano: onnx.ModelProto
) -> None:
    monkeypatch.setattr(paper, "preset", lambda _: preset("nano"))
    perfect = paper.v100_check(nano, {"torch-fp32": 1.0, "openvino-fp32": 1.0})
    assert [r["ms"] for r in perfect["readings"]] == [r["ideal_ms"] for r in perfect["readings"]]
    ideal = perfect["ms"]
    exact = paper.v100_check(nano, {"torch-fp32": ideal / NDP_MS})
    assert exact["error"] == pytest.approx(0, abs=1e-2)
    assert exact["within_goal"] is True
    assert exact["readings"][2]["ms"] is None
    assert paper.v100_check(nano, {"torch-fp32": ideal / (2 * NDP_MS)})["within_goal"] is False
    none = paper.v100_check(nano, {})
    assert none["ms"] is None
    assert "not checked" in paper_tables.check_line({"v100": none})


def test_quotes_and_figures_are_the_papers_own() -> None:
    if not PAPER.is_file():
        pytest.skip("the paper's text is not on this machine")
    text = " ".join(PAPER.read_text("utf-8").split()).replace("\u00d7\\times", "x")
    for quote in QUOTES.values():
        assert quote in text
    assert f"{NDP_MS}" in text
    averages = re.findall(r"Average ((?:\\ul)?[\d.]+(?: (?:\\ul)?[\d.]+)+)", text)
    assert len(averages) >= 3
    for method in METHODS:
        for value, line in zip((method.image, method.pixel, method.pro), averages, strict=False):
            assert value is None or f"{value:.2f}" in line


def test_an_efficiency_above_one_counts_as_one() -> None:
    net = {"measured": [measured("torch-fp32", 0.4), measured("openvino-int8", 1.3)]}
    assert paper._efficiencies(net) == {"torch-fp32": 0.4, "openvino-int8": 1.0}


def test_too_few_rounds_are_refused() -> None:
    assert paper.main(["--rounds", "2"]) == 2


def test_calibration_of_the_shipped_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nano: onnx.ModelProto
) -> None:
    """A short real run: peaks, efficiencies and what is made of them."""
    monkeypatch.setattr(calibration, "VISIT_S", 1e-9)
    monkeypatch.setattr(calibration, "COPY_MB", 16)
    monkeypatch.setattr(calibration, "WIDTH", 64)
    monkeypatch.setattr(calibration, "CHAINS", {"matrix product": (1, 2), "3x3": (3, 1)})
    monkeypatch.setattr(calibration, "ENGINES", ("openvino-fp32", "openvino-int8"))
    found = calibration.calibrate_roofline("nano", tmp_path, range(3))
    assert found["rounds"] == 3
    assert [row["name"] for row in found["measured"]] == ["openvino-int8", "openvino-fp32"]
    assert all(value > 0 for value in found["peaks"].values())
    for row in found["measured"]:
        part = row["efficiency"]
        assert 0.01 < part["low"] <= part["point"] <= part["high"] < 50
    efficiency = paper._efficiencies(found)
    net = found | {"predictions": paper.predict(cost_of(nano), efficiency, 0.5)}
    assert len(paper_tables.predicted_rows(net)) == 1 + 2 * len(DEVICES)
    svg = charts.paper_chart({"paper": {"ms": NDP_MS}, "nets": [net]}, [])
    assert svg.count("predicted") == 2 * len(DEVICES)
    assert svg.count("<rect") == 1 + 2 * len(DEVICES)
