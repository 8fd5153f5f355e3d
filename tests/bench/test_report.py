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
from ndp_edge.bench.blocks import all_blocks
from ndp_edge.bench.saved import latencies, read_results
from ndp_edge.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results"

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
        "model": {"preset": preset, "source": "run"},
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


def test_the_readme_is_what_the_results_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Mend it with: python -m ndp_edge.bench.report --readme README.md"""
    words = ["--results", str(RESULTS), "--readme", str(README), "--check"]
    assert report.main(words) == 0, capsys.readouterr().err
    names = [match["name"] for match in report._MARKED.finditer(README.read_text("utf-8"))]
    assert {"accuracy", "int8", "paper", "predicted"} <= set(names)
    assert NOTHING not in README.read_text("utf-8")


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


def test_a_new_build_becomes_a_row(folder: Path, tmp_path: Path) -> None:
    write(folder, "wood_edge.json", build("edge", "wood"))
    block = all_blocks(read_results(folder))["accuracy"]
    rows = [row for row in block.rows if row[0] == "edge on wood"]
    assert rows == [
        ["edge on wood", "FP32", "0.9000", "0.8000", "0.7000", "1.00 %", "25.00 %", "80.0"]
    ]
    assert "40.0 (2.00 x)" in block.markdown
    assert "wood_edge.json" in block.markdown


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
    assert {one.source for one in measured} >= {"woven_nano.json", "int8_speed.json"}
    rows = all_blocks(found)["paper"].rows
    assert len(rows) == len(measured) + 2
    assert rows[1][3] == "28.746"


def test_every_predicted_row_says_that_it_is_one() -> None:
    blocks = all_blocks(read_results(RESULTS))
    rows = blocks["predicted"].rows[1:]
    assert rows
    assert all(row[0] == "prediction" for row in rows)
    assert "No row was measured" in blocks["predicted"].markdown


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
