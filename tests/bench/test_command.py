"""`python -m ndp_edge.bench` through its door, with an engine that takes no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.bench import __main__ as command
from ndp_edge.bench import contenders, rounds
from ndp_edge.model.config import preset

SIZE = 64

Go = Callable[..., int]


def spin(seconds: float) -> None:
    end = rounds.time.perf_counter() + seconds
    while rounds.time.perf_counter() < end:
        pass


def brightness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    spin(1e-3 * len(images))
    maps: NDArray[np.float32] = images.mean(axis=3, dtype=np.float32) / np.float32(255)
    return maps


class FakeReference:
    """A millisecond of work."""

    def __init__(self) -> None:
        self.about = {"work": "spin"}

    def __call__(self) -> None:
        spin(1e-3)


def about(name: str) -> dict[str, Any]:
    backend, _, precision = name.rpartition("-")
    versions = {"openvino": "2026.4.1-22982"}
    return {"device": "CPU", "threads": 0, "versions": versions} | {
        "backend": backend,
        "precision": precision,
    }


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Go:
    """Runs the command on two engines, FP32 and int8, that do the same."""
    frames = rounds.Frames(contenders.noise(3, SIZE), SIZE, 0.5)
    told = {"preset": "nano", "image_size": SIZE, "source": "the shipped net", "bundle": None}
    models = {"fp32": Path("a.onnx"), "int8": Path("b.onnx")}
    net = contenders.Net(preset("nano", image_size=SIZE), models, {}, frames, told)

    def open_infer(name: str, _net: Any, _stack: ExitStack, *, threads: int | None) -> Any:
        return brightness, about(name) | {"threads": threads or 0}

    monkeypatch.setattr(contenders, "net_of_preset", lambda _name, _folder: net)
    monkeypatch.setattr(contenders, "open_infer", open_infer)
    monkeypatch.setattr(command, "ReferenceWork", FakeReference)

    def run(*words: str) -> int:
        return command.main(["--rounds", "3", "--runs", "2", "--every", "0", *words])

    return run


def saved(go: Go, path: Path, *words: str) -> dict[str, Any]:
    assert go("--engines", "openvino-int8", "--json", str(path), *words) == 0
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_every_figure_comes_with_what_it_hangs_on(go: Go, tmp_path: Path) -> None:
    report = saved(go, tmp_path / "a.json", "--batch", "1,2")
    assert [row["label"] for row in report["rows"]] == ["openvino-int8", "openvino-int8 x2"]
    for row in report["rows"]:
        assert row["latency_ms"]["n"] == 6
        assert row["latency_ms"]["p50"] >= row["batch"]
        assert row["ms_interval"]["low"] <= row["ms_interval"]["high"]
        assert set(row["stages_ms"]) == {"prepare", "infer", "judge"}
        assert len(row["rounds"]) == 3
        assert {"ms", "reference_ms", "ratio", "cpu_ratio"} <= set(row["rounds"][0])
        assert {"device", "cores", "engine", "batch", "net", "versions", "reference"} <= set(
            row["key"]
        )
    assert report["machine"]["cpu"]
    assert report["settings"]["rounds"] == 3
    assert report["accuracy"] is None
    for name in ("clock_mhz", "celsius", "energy"):
        assert report[name]


def test_all_engines_side_by_side(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    assert go("--json", "-") == 0
    out, shown = capsys.readouterr()
    report = json.loads(out)
    names = [row["name"] for row in report["rows"]]
    assert {"torch-fp32", "openvino-fp32", "openvino-int8", "onnxruntime-fp32"} <= set(names)
    int8 = next(row for row in report["rows"] if row["name"] == "openvino-int8")
    gain = int8["faster_than"]["torch-fp32"]
    assert gain["low"] <= gain["point"] <= gain["high"]
    assert "torch-compile-fp32: not timed" in shown
    assert "tensorrt: not timed" in shown


def test_an_unchanged_run_passes_and_says_so(go: Go, tmp_path: Path) -> None:
    base, pull = tmp_path / "base.json", tmp_path / "pull.md"
    saved(go, base)
    code = go(
        "--engines", "openvino-int8", "--baseline", str(base), "--max-regress", "9",
        "--markdown", str(pull),
    )  # fmt: skip
    assert code == 0
    text = pull.read_text()
    assert "No regression." in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    heads = [[cell.strip() for cell in table[0].strip("|").split("|")] for table in tables]
    assert [head[0] for head in heads] == ["engine", "engine"]
    assert heads[0][-1] == "verdict"
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
        assert len(table) == 3


def test_a_regression_ends_with_1_and_keeps_its_reports(
    go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, after, pull = tmp_path / "base.json", tmp_path / "after.json", tmp_path / "pull.md"
    report = saved(go, base)
    for one in report["rows"][0]["rounds"]:
        one["ratio"] /= 5
        one["cpu_ratio"] /= 5
    base.write_text(json.dumps(report))
    words = ["--engines", "openvino-int8", "--baseline", str(base)]
    assert go(*words, "--json", str(after), "--markdown", str(pull)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: regression: openvino-int8")
    assert "**regression**" in pull.read_text()
    compared = json.loads(after.read_text())["baseline"]
    assert compared["passed"] is False
    assert compared["speed"][0]["verdict"] == "regressed"
    assert json.loads(after.read_text())["settings"]["rounds"] >= 6  # it was looked at twice


def test_another_key_ends_with_2_before_anything_is_timed(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.json"
    report = saved(go, base)
    report["rows"][0]["key"]["versions"]["openvino"] = "2025.1"
    base.write_text(json.dumps(report))
    capsys.readouterr()
    monkeypatch.setattr(rounds.Run, "warm_up", lambda _run: pytest.fail("timed all the same"))
    assert go("--engines", "openvino-int8", "--baseline", str(base)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "2025.1" in line
    assert "2026.4.1" in line


def test_more_rounds_while_undecided(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, after = tmp_path / "base.json", tmp_path / "after.json"
    saved(go, base)
    monkeypatch.setattr(command.regression.Comparison, "undecided", True)
    words = ["--engines", "openvino-int8", "--max-regress", "9", "--baseline", str(base)]
    assert go(*words, "--json", str(after)) == 0
    assert json.loads(after.read_text())["settings"]["rounds"] == 3 * (1 + command.EXTRA)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engines", "nonsense-int8"], "openvino-int8"),
        (["--rounds", "2"], "--rounds 2"),
        (["--runs", "0"], "--runs 0"),
        (["--batch", "1,x"], "--batch"),
        (["--batch", "0"], "--batch 0"),
        (["--max-regress", "-1"], "--max-regress"),
        (["--max-regress", "nan"], "--max-regress"),
        (["--threads", "0"], "--threads 0"),
        (["--every", "-1"], "--every -1"),
        (["--baseline", "absent.json"], "absent.json"),
        (["--json", "absent/a.json"], "absent"),
        (["--preset", "nano", "bundle"], "not both"),
        (["--draem", "run"], "--peers"),
    ],
)
def test_wrong_options_end_with_2_and_one_line(
    go: Go, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line


def test_an_engine_asked_for_that_is_not_here_ends_with_3(
    go: Go, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str, *_: Any, **__: Any) -> Any:
        raise contenders.MachineError(f"{name} is missing: pip install it")

    monkeypatch.setattr(contenders, "open_infer", refuse)
    assert go("--engines", "openvino-int8") == 3
    assert "pip install" in capsys.readouterr().err
    assert go() == 2  # nothing is left to time
    assert "nothing to time" in capsys.readouterr().err
