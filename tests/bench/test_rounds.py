"""Turns, pairs and stages: what is timed, in which order, and what stays untimed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.bench import reference_work, rounds
from ndp_edge.bench.net_parts import parts_ms
from ndp_edge.bench.rounds import WARM_UP, Frames, Row, Run
from ndp_edge.bench.sensors import Condition, Sensors
from ndp_edge.errors import InputError
from ndp_edge.types import Layer

SIZE = 64


class Meter:
    """A joule per look."""

    source = "test"

    def __init__(self) -> None:
        self.looks = 0.0

    def joules(self) -> float:
        self.looks += 1
        return self.looks


def a_run(tmp_path: Any, names: str = "ab") -> tuple[Run, list[str]]:
    order: list[str] = []
    frames = np.full((2, 2 * SIZE, 2 * SIZE, 3), 100, np.uint8)
    frames[1] = 200

    def row(name: str) -> Row:
        def infer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            assert images.shape == (1, SIZE, SIZE, 3)
            order.append(f"{name}{images[0, 0, 0, 0]}")
            return np.zeros(images.shape[:3], np.float32)

        return Row(name, 1, infer, {})

    rows = [row(name) for name in names]
    run = Run(rows, lambda: order.append("."), Frames(frames, SIZE, 0.5), Sensors(tmp_path))
    return run, order


def test_rows_take_turns_beside_the_reference(tmp_path: Any) -> None:
    run, order = a_run(tmp_path)
    run.measure(range(2), runs=2)
    visit = ". {0}100 . {0}{1} . {0}{2}"
    first = [visit.format(name, 100, 200) for name in "ab"]
    second = [visit.format(name, 200, 100) for name in "ba"]
    assert order == " ".join(first + second).split()
    for row in run.rows:
        assert len(row.rounds) == 2
        assert all(len(ms) == 4 for ms in row.times.values())
        for stages in zip(*row.times.values(), strict=True):
            prepare, infer, judge, total = stages
            assert total == pytest.approx(prepare + infer + judge)
    assert run.looks == [Condition({}, {})] * 2


def test_warming_up_is_not_timed(tmp_path: Any) -> None:
    run, order = a_run(tmp_path)
    run.warm_up()
    assert order.count(".") == WARM_UP
    assert all(row.times == {} for row in run.rows)


def test_slow_rows_are_called_less(tmp_path: Any) -> None:
    run, order = a_run(tmp_path)
    run.rows[1].most = 1
    run.warm_up()
    assert [order.count("a100"), order.count("b100")] == [WARM_UP, 1]
    run.measure(range(2), runs=3)
    assert [len(row.times["total"]) for row in run.rows] == [6, 2]


def test_rounds_keep_their_distance(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = a_run(tmp_path)
    slept: list[float] = []
    monkeypatch.setattr(rounds.time, "sleep", slept.append)
    run.measure(range(2), runs=1, every=100.0)
    run.measure(range(1), runs=1, every=100.0)
    assert slept[0] == 0
    assert all(99 < seconds <= 100 for seconds in slept[1:])


def test_energy_is_that_of_the_timed_calls(tmp_path: Any) -> None:
    run, _ = a_run(tmp_path)
    run._sensors.meter = Meter()
    run.measure(range(3), runs=2)
    assert [row.joules for row in run.rows] == [6.0, 6.0]


def test_no_row_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="nothing to time"):
        a_run(tmp_path, names="")


def test_the_reference_work_is_fixed_and_int8() -> None:
    """Two makings are one graph, every convolution is quantised, and its answer is finite."""
    graph = reference_work.graph()
    assert graph == reference_work.graph()
    kinds = [node.op_type for node in graph.graph.node]
    convolutions = sum(count for _, count in reference_work.LEVELS)
    assert kinds.count("Conv") == kinds.count("QuantizeLinear") == convolutions
    assert kinds.count("DequantizeLinear") == 2 * convolutions
    image = np.full((1, 3, 256, 256), 0.5, np.float32)
    for runtime in (reference_work._openvino, reference_work._onnxruntime):
        ready = runtime(image)
        assert ready is not None
        answer = ready[0]()
        values = answer[0] if isinstance(answer, list) else next(iter(answer.values()))
        assert np.isfinite(values).all()
        assert values.std() > 0


def test_layers_add_up_by_part() -> None:
    layers = [
        Layer("encoder.stage1.conv1", "Convolution", "int8", 1.0),
        Layer("reencoder.stage1.conv1", "Convolution", "int8", 2.0),
        Layer("rbam3.k2.dots", "MatMul", "fp32", 4.0),
        Layer("rbam5.l0", "Softmax", "fp32", 8.0),
        Layer("msdsm1.cat", "Concat", "int8", 16.0),
        Layer("FakeQuantize_21", "FakeQuantize", "int8", 32.0),
        Layer("anomaly_map", "Result", "fp32", 64.0),
    ]
    found = parts_ms(layers)
    assert found == {
        "encoder": 1.0, "rbam": 12.0, "decoder": 0.0, "reencoder": 2.0, "msdsm": 16.0,
        "combine": 0.0, "input and output": 96.0,
    }  # fmt: skip
