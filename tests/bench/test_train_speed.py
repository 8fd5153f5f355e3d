"""`bench.train_speed` through its command, few steps on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndp_edge.bench.train_speed import main, ways


def test_both_phases_of_every_way_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "t.json"
    small = ["--crop", "64", "--batch-size", "1", "--steps", "2", "--rounds", "1", "--threads", "1"]
    assert main([*small, "--device", "cpu", "--json", str(told)]) == 0
    report = json.loads(told.read_text())
    assert [row["way"] for row in report["rows"]] == ["float32", "bfloat16"]
    assert all(0 < rate < 1000 for row in report["rows"] for rate in row["images_per_s"])
    assert report["device"] == "CPU"
    assert report["batch_size"] == 1
    assert "phase 2, images/s" in capsys.readouterr().out


def test_a_card_is_timed_with_and_without_a_graph() -> None:
    found = ways("cuda", compiled=True)
    assert {(way.amp, way.capture) for way in found} == {
        (amp, graph) for amp in ("none", "bf16") for graph in (False, True)
    }
    assert [way.compile for way in found].count(True) == 1


@pytest.mark.parametrize("bad", [["--steps", "0"], ["--json", "/nowhere/t.json"]])
def test_bad_options_are_refused_before_anything_is_timed(bad: list[str]) -> None:
    assert main(["--device", "cpu", *bad]) == 2
