"""Which precision a build takes, and the line that the report has on each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.build_choice import gate_of, lines, passed, pick_precision

verdicts = st.dictionaries(
    st.sampled_from(["int8", "fp16"]),
    st.tuples(st.booleans(), st.floats(0.2, 5)),
    max_size=2,
)


def gates_of(drawn: dict[str, tuple[bool, float]]) -> dict[str, dict[str, Any]]:
    return {p: {"passed": ok, "reason": f"why {p}", "rows": []} for p, (ok, _) in drawn.items()}


@given(verdicts)
def test_auto_takes_the_fastest_that_passes(drawn: dict[str, tuple[bool, float]]) -> None:
    gates, speeds = gates_of(drawn), {p: speed for p, (_, speed) in drawn.items()}
    emitted, told = pick_precision("auto", gates, speeds)
    assert passed(gates, emitted)
    mine = speeds.get(emitted, 1.0)
    assert all(speed <= mine for p, speed in speeds.items() if gates[p]["passed"])
    assert mine >= 1
    for precision, (ok, speed) in drawn.items():
        name = precision.upper()
        assert (f"{name} did not pass the gate: why {precision}" in told) == (not ok)
        assert (f"{name} is not worth it here: {speed:.2f} x FP32" in told) == (speed <= 1)


@given(verdicts, st.sampled_from(["int8", "fp16"]))
def test_what_is_asked_for_is_taken_and_its_slowness_told(
    drawn: dict[str, tuple[bool, float]], asked: str
) -> None:
    speeds = {p: speed for p, (_, speed) in drawn.items()}
    emitted, told = pick_precision(asked, gates_of(drawn), speeds)
    assert emitted == asked
    assert any("not worth it" in line for line in told) == any(s <= 1 for s in speeds.values())


def test_what_was_built_for_another_machine_has_no_speed_and_counts_as_faster() -> None:
    gates = gates_of({"int8": (True, 0.5)})
    assert pick_precision("auto", gates, {})[0] == "int8"
    assert pick_precision("auto", gates_of({"int8": (False, 0.5)}), {})[0] == "fp32"


def test_the_verdict_shown_is_of_what_was_emitted_or_refused() -> None:
    gates = gates_of({"fp16": (True, 2), "int8": (False, 3)})
    assert gate_of("fp16", gates)["reason"] == "why fp16"
    assert gate_of("fp32", gates)["reason"] == "why int8"
    assert gate_of("fp32", {})["passed"]


def metrics(**ms: float) -> dict[str, Any]:
    return {name: {"latency_ms": {"p50": value}} for name, value in ms.items()}


def test_a_line_per_precision() -> None:
    told = lines(metrics(fp32=80.0, int8=40.0), gates_of({"int8": (True, 2)}), "int8", {})
    assert [(one["name"], one["speed"], one["passed"], one["emitted"]) for one in told] == [
        ("FP32", 1.0, None, False),
        ("INT8", 2.0, True, True),
    ]


@pytest.mark.parametrize("emitted", ["int8", "fp32"])
def test_layers_in_float_have_a_line_of_their_own_timed_beside_the_others(emitted: str) -> None:
    back = {"float": ["a", "b"], "fp32_ms": 90.0, "whole_ms": 30.0, "ms": 45.0}
    gates = gates_of({"int8": (True, 2)})
    told = lines(metrics(fp32=80.0, int8=40.0), gates, emitted, back)
    assert [(one["name"], one["speed"], one["passed"], one["emitted"]) for one in told] == [
        ("FP32", 1.0, None, emitted == "fp32"),
        ("INT8 throughout", 3.0, False, False),
        ("INT8, 2 convolutions in float", 2.0, True, emitted == "int8"),
    ]
