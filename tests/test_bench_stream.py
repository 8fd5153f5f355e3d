"""The stream's measurements: their arithmetic is right, and they notice what they are there for."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge import engines
from ndp_edge.bench import fault_cases, faults, soak, stream
from ndp_edge.bench.fault_rig import Rig
from ndp_edge.bench.stream_rig import account
from ndp_edge.bundle import BundleWriter
from ndp_edge.engines.base import Engine
from ndp_edge.model.config import preset

SIZE = 64


class Sleepy(Engine):
    """Every answer takes a millisecond and is gray."""

    name = "openvino"

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._collect(self._submit(images))

    def _submit(self, images: NDArray[np.uint8]) -> int:
        return len(images)

    def _collect(self, handle: int) -> NDArray[np.float32]:
        time.sleep(0.001)
        return np.full((handle, *self.size), 0.25, np.float32)

    def _describe(self) -> dict[str, Any]:
        return {"device": "test", "threads": 1, "versions": {}}

    def _close(self, pending: list[Any]) -> None:
        pending.clear()


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        engines, "open_engine", lambda *_a, precision, **_k: Sleepy(precision, (SIZE, SIZE))
    )
    keys = ("package", "input", "output", "calibration", "splits", "training", "metrics", "gate")
    manifest: dict[str, Any] = {
        **{key: {} for key in (*keys, "latency_ms")},
        "created": "2026-11-22T20:00:00+00:00",
        "config": vars(preset("nano", image_size=SIZE)),
        "engines": [{"backend": "openvino", "precision": "int8", "file": "model.int8.onnx"}],
        "default": {"backend": "openvino", "precision": "int8"},
        "threshold": {"value": 0.5},
        "golden": {"file": "golden.npz"},
    }
    with BundleWriter(tmp_path / "bundle") as writer:
        for name in ("model.int8.onnx", "golden.npz"):
            writer.path(name).write_bytes(b"x")
        return writer.commit(manifest)


def write(out: Path, verdicts: list[int], drops: list[int]) -> None:
    for name, numbers in (("results", verdicts), ("drops", drops)):
        lines = [json.dumps({"frame": str(number)}) + "\n" for number in numbers]
        (out / f"{name}.jsonl").write_text("".join(lines))


fates = st.lists(st.sampled_from(["verdict", "drop", "both", "twice", "lost"]), max_size=12)


@given(fates=fates)
def test_the_account_finds_what_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    out = tmp_path_factory.mktemp("out")
    verdicts = [n for n, fate in enumerate(fates) if fate in ("verdict", "both", "twice")]
    verdicts = sorted(verdicts + [n for n, fate in enumerate(fates) if fate == "twice"])
    write(out, verdicts, [n for n, fate in enumerate(fates) if fate in ("drop", "both")])
    found, tally = account(out, [str(n) for n in range(len(fates))]), Counter(fates)
    assert found.lost == tally["lost"]
    assert found.doubled == tally["both"] + tally["twice"]
    assert found.in_order
    assert found.exact == (found.lost == found.doubled == 0)


def test_the_account_finds_disorder_and_strangers(tmp_path: Path) -> None:
    for verdicts in ([0, 2, 1], [0, 1, 2, 7]):
        write(tmp_path, verdicts, [])
        found = account(tmp_path, ["0", "1", "2"])
        assert not found.in_order
        assert not found.exact


def test_the_stream_measurement(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "s.json"
    words = [str(bundle), "--frames", "40", "--block", "5", "--json", str(report)]
    assert stream.main([*words, "--goal", "0.01", "--growth", "0.5"]) == 0
    found = json.loads(report.read_text())
    assert found["account"]["verdicts"] == found["frames"] == 40
    assert found["account"]["in_order"] is True
    assert set(found["blocks"]) >= {"bare_seconds", "pipeline_seconds", "resident_mib"}
    assert all(len(values) == 8 for values in found["blocks"].values())
    assert found["share_of_bare"]["whole_run"] > 0
    assert "tiles a second" in capsys.readouterr().out
    # The same run with a goal out of reach is told, with exit code 1.
    assert stream.main([*words, "--goal", "5"]) == 1
    assert "goal 5" in capsys.readouterr().err
    assert stream.main([str(bundle), "--frames", "4", "--block", "5"]) == 2


def test_figures_by_hand() -> None:
    rows = {
        "bare_seconds": [1.0, 1.0, 1.0, 1.0],
        "pipeline_seconds": [1.25, 1.25, 1.25, 1.25],
        "bare_cpu_seconds": [2.0] * 4,
        "pipeline_cpu_seconds": [2.5] * 4,
        "resident_mib": [50.0, 100.0, 105.0, 110.0],
    }
    found = stream.figures(10, rows)
    assert found["tiles_per_second"] == {"bare": 10.0, "pipeline": 8.0}
    assert found["share_of_bare"]["whole_run"] == found["share_of_bare"]["by_cpu_time"] == 0.8
    assert found["resident_mib"]["growth"] == pytest.approx(0.1)
    assert found["interrupted_blocks"] == 0
    rows["bare_seconds"][2] = 600.0  # somebody suspended the process
    again = stream.figures(10, rows)
    assert again["interrupted_blocks"] == 1
    for key in ("tiles_per_second", "share_of_bare", "resident_mib"):
        assert again[key] == found[key]


def test_the_soak(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 0.05)
    monkeypatch.setattr(soak, "TURN_SECONDS", 0.3)
    monkeypatch.setattr(soak, "BURST_SECONDS", 0.2)
    report, drawing = tmp_path / "s.json", tmp_path / "s.svg"
    words = [str(bundle), "--minutes", "0.02", "--json", str(report), "--svg", str(drawing)]
    assert soak.main([*words, "--growth", "0.5", "--load", "0.5"]) == 0
    found = json.loads(report.read_text())
    assert found["exact"] is True
    assert found["account"]["offered"] == found["account"]["verdicts"] + found["account"]["drops"]
    assert found["account"]["verdicts"] > 20
    assert found["audit"]
    assert xml.etree.ElementTree.parse(drawing).getroot().tag.endswith("svg")
    assert soak.main([str(bundle), "--minutes", "0.001"]) == 2
    capsys.readouterr()


def test_the_fault_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = Rig(tmp_path, tmp_path)
    rig.out.mkdir()
    names = rig.fill(3)
    lines = [json.dumps({"frame": name, "verdict": "ok"}) + "\n" for name in names]
    (rig.out / "results.jsonl").write_text("".join(lines))
    assert rig.row("none", names, (0, 0)).holds
    assert not rig.row("another exit code", names, (1, 0)).holds
    assert not rig.row("a frame without a verdict", [*names, "9.png"], (0, 0)).holds
    broken = rig.row("something else", names, (0, 0), "seen", told=False)
    assert not broken.holds
    table = faults.markdown([rig.row("none", names, (0, 0)), broken])
    assert "| none | 3 | 3 | 0 | 0 | 0 | yes |  |" in table
    assert "**NO** | seen; not told |" in table
    (rig.out / "maps").mkdir()  # then pictures are wanted, and there are none
    assert not rig.partial("no pictures", (0, 0), "").holds
    assert faults.main([str(tmp_path), "--only", "earthquake"]) == 2
    assert "earthquake" in capsys.readouterr().err
    assert len(fault_cases.CASES) >= 10
