"""What a step brings: the command, on a short real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndp_edge.bench import speed_work
from ndp_edge.bench.blocks import all_blocks
from ndp_edge.bench.saved import read_results


def test_a_short_run_compares_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"threads not pinned": speed_work.SETTINGS["threads not pinned"]}
    monkeypatch.setattr(speed_work, "SETTINGS", one)
    out = tmp_path / "speed.json"
    assert speed_work.main(["--rounds", "3", "--json", str(out)]) == 0
    found = json.loads(out.read_text("utf-8"))
    names = [row["variant"] for row in found["rows"]]
    assert names == [*speed_work.STEPS, *one]
    assert names[0] in capsys.readouterr().out
    for row in found["rows"]:
        assert row["ms"]["point"] > 0
        # Rounding: none of these may change an answer.
        assert row["difference"] < 1e-5
    assert found["rows"][0]["time_over_own"] == {"point": 1.0, "low": 1.0, "high": 1.0}
    block = all_blocks(read_results(tmp_path))["speed"]
    assert [row[1] for row in block.rows[1:]] == names


def test_too_few_rounds_are_refused() -> None:
    assert speed_work.main(["--rounds", "2"]) == 2
