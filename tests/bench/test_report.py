"""The report from saved results: tables are what the files say, and the README keeps to them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_edge.bench import report
from ndp_edge.bench.block import NOTHING
from ndp_edge.bench.blocks import all_blocks, marked_blocks
from ndp_edge.bench.saved import latencies, read_results
from ndp_edge.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results"
DEVICES, ACCURACY = ROOT / "docs" / "devices.md", ROOT / "docs" / "accuracy.md"

Change = Callable[[dict[str, Any]], None]


def metrics(ms: float, auroc: float | None = 0.9) -> dict[str, Any]:
    return {
        "image_auroc": auroc,
        "pixel_auroc": 0.8,
        "aupro": 0.7,
        "false_reject_rate": 0.01,
        "miss_rate": 0.25,
        "latency_ms": {"p50": ms},
        "backend": "openvino",
        "device": "a CPU",
    }


def build(preset: str = "nano", data: str = "cloth", fp32: float = 80.0) -> dict[str, Any]:
    return {
        "title": f"{preset} on {data}: openvino int8",
        "metrics": {"fp32": metrics(fp32), "int8": metrics(40.0)},
        "model": {"preset": preset, "source": "w", "data": data},
        "frozen_metrics": {"int8": {"false_reject_rate": 0.02, "miss_rate": None}},
        "gate": {
            "passed": True,
            "rows": [
                {"metric": "image_auroc", "int8": 0.9, "low": -0.001, "high": 0.002},
                {"metric": "false_reject_rate", "int8": 0.02, "low": -0.0375, "high": 0.0375},
                {"metric": "pixel_auroc", "int8": 0.8, "low": 0, "high": 0, "on": "artificial"},
            ],
        },
        "threshold": {"target": 0.01},
        "device": "a CPU",
        "versions": {"openvino": "1"},
        "created": "2026-01-02T03:04:05+00:00",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The repository's results, to be changed."""
    return Path(shutil.copytree(RESULTS, tmp_path / "results"))


def write(folder: Path, name: str, data: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(data), "utf-8")
    return path


def test_the_readme_and_the_page_of_devices_are_what_the_results_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Mend with the command at the head of docs/accuracy.md."""
    words = ["--results", str(RESULTS), "--readme", str(README), "--readme", str(DEVICES)]
    words += ["--readme", str(ACCURACY)]
    assert report.main([*words, "--check"]) == 0, capsys.readouterr().err
    for path, wanted in (
        (README, {"accuracy", "int8", "gate", "paper-short", "predicted-short"}),
        (README, {"bench_nano_peers-short", "bench_paper-short"}),
        (DEVICES, {"paper", "predicted", "v100", "calibration", "ceiling"}),
        (DEVICES, {"gpu-kernels", "gpu-nets", "gpu-targets"}),
        (ACCURACY, {"table6_nano-against", "ablations_nano", "real_nano", "train-speed"}),
    ):
        text = path.read_text("utf-8")
        assert wanted <= {match["name"] for match in report._MARKED.finditer(text)}
        assert NOTHING not in text


def test_a_changed_result_is_found_and_mended(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = Path(shutil.copy(README, tmp_path))
    words = ["--results", str(folder), "--readme", str(readme)]
    path = folder / "woven_nano.json"
    data = json.loads(path.read_text("utf-8"))
    data["metrics"]["int8"]["image_auroc"] = 0.1234
    write(folder, path.name, data)
    assert report.main([*words, "--check"]) == 1
    assert "accuracy" in capsys.readouterr().err
    assert readme.read_text("utf-8") == README.read_text("utf-8")
    assert report.main(words) == 0
    assert "0.1234" in readme.read_text("utf-8")
    assert report.main([*words, "--check"]) == 0


def test_one_bad_file_leaves_all_as_they_were(tmp_path: Path) -> None:
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    text = "<!-- bench:accuracy -->\nold\n<!-- /bench -->\n"
    first.write_text(text, "utf-8")
    second.write_text(text.replace("accuracy", "nothing-of-ours"), "utf-8")
    words = ["--results", str(RESULTS), "--readme", str(first), "--readme", str(second)]
    assert report.main(words) == 2
    assert first.read_text("utf-8") == text


def test_a_new_build_becomes_a_row(folder: Path, tmp_path: Path) -> None:
    write(folder, "wood_edge.json", build("edge", "wood"))
    block = all_blocks(read_results(folder))["accuracy"]
    rows = [row for row in block.rows if row[0].startswith("edge on wood")]
    assert rows[0][1:] == ["FP32", "0.9000", "0.8000", "0.7000", "1.00 %", "25.00 %"]
    below = block.rows[block.rows.index(rows[0]) + 1]
    assert below == [
        "`build --checkpoint runs/w --data …/wood --int8`",
        "INT8",
        "0.9000 (-0.0010 to 0.0020)",
        "0.8000",
        "0.7000",
        "2.00 % (-3.8 to 3.8)",
        "-",
    ]
    assert "wood_edge.json" in block.markdown


def test_a_build_that_the_gate_refused_says_so(tmp_path: Path) -> None:
    data = build()
    data["gate"]["passed"] = False
    write(tmp_path, "bad.json", data)
    rows = all_blocks(read_results(tmp_path))["accuracy"].rows
    assert [row[1] for row in rows[1:]] == ["FP32", "INT8, refused"]


def test_processors_are_told_apart(tmp_path: Path) -> None:
    """A file names its own; of one that does not, the day does; two machines show in the rows."""
    by_day = {"2026-01-02": ["AVX2"]}
    write(tmp_path, "machines.json", {"kind": "ndp-edge-machines-1", "by_day": by_day})
    write(tmp_path, "a.json", build("edge"))
    (one,) = all_blocks(read_results(tmp_path))["accuracy"].rows[1:2]
    assert one[0] == "edge on cloth"
    write(tmp_path, "b.json", build() | {"isa": ["AVX2", "AVX-512", "AVX-512 VNNI"]})
    rows = all_blocks(read_results(tmp_path))["accuracy"].rows
    assert rows[1][0] == "nano on cloth, a CPU (AVX-512 VNNI)"
    assert rows[3][0] == "edge on cloth, a CPU (AVX2)"
    devices = {one.source: one.device for one in latencies(read_results(tmp_path))}
    assert devices == {"a.json": "a CPU (AVX2)", "b.json": "a CPU (AVX-512 VNNI)"}


def test_what_is_undefined_is_a_dash(tmp_path: Path) -> None:
    data = build()
    data["metrics"] = {"int8": metrics(40.0, None) | {"latency_ms": None}}
    data["threshold"] = None
    write(tmp_path, "good_only.json", data)
    block = all_blocks(read_results(tmp_path))["accuracy"]
    assert block.rows[1][2] == "-"
    assert block.rows[1][-1] == "-"
    assert not latencies(read_results(tmp_path))


def test_blocks_without_a_file_say_so(tmp_path: Path) -> None:
    write(tmp_path, "one.json", build())
    blocks = all_blocks(read_results(tmp_path))
    assert blocks["int8"].markdown == NOTHING
    assert blocks["predicted"].markdown == NOTHING
    text = "<!-- bench:int8 -->\n<!-- /bench -->\n"
    assert report.fill(text, blocks) == f"<!-- bench:int8 -->\n{NOTHING}\n<!-- /bench -->\n"


def test_filling_twice_changes_nothing_and_keeps_the_prose() -> None:
    blocks = all_blocks(read_results(RESULTS))
    text = "before\n<!-- bench:ceiling -->\nold\n<!-- /bench -->\nafter $1 \\1\n"
    once = report.fill(text, blocks)
    assert once.startswith("before\n")
    assert once.endswith("after $1 \\1\n")
    assert "old" not in once
    assert report.fill(once, blocks) == once


@pytest.mark.parametrize(
    "text",
    [
        "<!-- bench:accuracy -->\nno end\n",
        "<!-- /bench -->\n",
        "<!-- bench:accuracy -->\n<!-- bench:int8 -->\n<!-- /bench -->\n",
        "<!-- bench:nothing-of-ours -->\n<!-- /bench -->\n",
    ],
)
def test_bad_markers_are_refused(text: str, tmp_path: Path) -> None:
    readme = tmp_path / "R.md"
    readme.write_text(text, "utf-8")
    assert report.main(["--results", str(RESULTS), "--readme", str(readme)]) == 2
    assert readme.read_text("utf-8") == text


def test_both_pages_hold_every_table_and_escape_what_files_say(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, "evil.json", build(data="<script>alert(1)</script> | pipe"))
    write(folder, "strange.json", {"what": "<b>unknown</b>"})
    page, text = tmp_path / "r.html", tmp_path / "r.md"
    words = ["--results", str(folder), "--html", str(page), "--markdown", str(text)]
    assert report.main(words) == 0
    html, markdown = page.read_text("utf-8"), text.read_text("utf-8")
    assert "<script" not in html
    assert "&lt;b&gt;unknown" in html
    assert "\\| pipe" in markdown
    for block in all_blocks(read_results(folder)).values():
        if block.markdown != NOTHING:
            assert block.title in markdown
    assert html.count("<svg") >= 3
    assert "src=" not in html
    assert "`strange.json`: other" in markdown


def test_every_latency_of_the_results_stands_beside_the_papers() -> None:
    found = read_results(RESULTS)
    measured = latencies(found)
    wanted = {"woven_nano.json", "int8_speed.json", "bench_nano_peers.json", "bench_paper.json"}
    assert {one.source for one in measured} >= wanted
    rows = all_blocks(found)["paper"].rows
    assert len(rows) == len(measured) + 2
    assert rows[1][3] == "28.746"


@pytest.mark.parametrize(("name", "least"), [("predicted", 22), ("predicted-short", 5)])
def test_every_predicted_row_says_that_it_is_one(name: str, least: int) -> None:
    block = marked_blocks(read_results(RESULTS))[name]
    rows = block.rows[1:]
    assert len(rows) >= least
    assert all(row[0] == "prediction" for row in rows)
    assert all("-" not in row[2:] for row in rows)
    assert "28.746 published" in block.markdown


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_bad_results_are_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no JSON"):
        read_results(tmp_path)
    (tmp_path / "x.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"x\.json"):
        read_results(tmp_path)


def test_check_wants_a_readme() -> None:
    assert report.main(["--results", str(RESULTS), "--check"]) == 2
