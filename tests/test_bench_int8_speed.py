"""The INT8 speed command: runs through its door, and its arithmetic is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndp_edge.bench import int8_speed


def test_contenders_take_turns() -> None:
    order: list[str] = []
    contenders = {name: (lambda n=name: order.append(n)) for name in ("fp32", "int8")}
    times = int8_speed.interleave(contenders, 3)
    assert order == ["fp32", "int8"] * 4
    assert [len(v) for v in times.values()] == [3, 3]
    assert all(ms >= 0 for v in times.values() for ms in v)


def test_a_figure_comes_with_its_device_and_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speed.json"
    assert int8_speed.main(["--preset", "nano", "--runs", "3", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())["results"]
    assert found["device"]
    assert found["versions"]["openvino"]
    assert found["int8_share_of_convolution_time"] >= 0.9
    gain = found["speed_over_fp32"]["int8"]
    assert gain["q25"] <= gain["median"] <= gain["q75"]
    assert "nano" in capsys.readouterr().out


def test_too_few_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert int8_speed.main(["--runs", "1"]) == 2
    assert "at least 3" in capsys.readouterr().err
