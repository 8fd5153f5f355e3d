"""bench.seams with an engine that sees pixel by pixel: no seams; and with one that has some."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_edge import engines
from ndp_edge.bench import seams


def measure(bundle: Path, out: Path, *more: str) -> dict[str, Any]:
    few = ["--frame", "150", "210", "--overlap", "16", "--shift", "16", "32", "--runs", "2"]
    assert seams.main([str(bundle), *few, "--alone", "--json", str(out), *more]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_local_engine_has_no_seams(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(bundle, tmp_path / "seams.json")
    (one,) = found["overlaps"]
    assert one["tiles"] == 15 and one["max"] < 1e-5
    assert one["step_blend"] == pytest.approx(one["step_one"], rel=0.5)
    assert all(len(ms) == 2 and min(ms) > 0 for ms in one["ms"].values())
    assert "overlap" in capsys.readouterr().out


def test_an_engine_that_is_blind_at_its_edges_shows(
    kit: SimpleNamespace, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind(kit.Brightness):  # type: ignore[misc, name-defined]
        def _infer(self, images: Any) -> Any:
            maps = super()._infer(images)
            inside = np.zeros_like(maps)
            inside[:, 12:-12, 12:-12] = maps[:, 12:-12, 12:-12]
            return inside

    def open_blind(_backend: str, _model: Path, *, precision: str, **_: Any) -> Any:
        return Blind(precision, (64, 64))

    monkeypatch.setattr(engines, "open_engine", open_blind)
    (one,) = measure(bundle, tmp_path / "seams.json")["overlaps"]
    assert one["max"] > 0.1 and one["step_blend"] > 1.3 * one["step_one"]


@pytest.mark.parametrize("wrong", [["--shift", "8", "16"], ["--frame", "100", "100"]])
def test_what_cannot_be_measured(bundle: Path, wrong: list[str]) -> None:
    assert seams.main([str(bundle), *wrong, "--alone"]) == 2
