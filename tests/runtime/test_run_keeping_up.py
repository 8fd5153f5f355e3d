"""`run` as a line that may fall behind: deadlines, drops, what is kept, and going on after it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace as Kit
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import engines
from ndp_edge.image import write_png
from ndp_edge.runtime.linelog import LineLog

SIZE = 64


def slow_engine(kit: Kit, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    class Slowed(kit.Brightness):
        def _collect(self, handle: Any) -> NDArray[np.float32]:
            time.sleep(seconds)
            answer: NDArray[np.float32] = handle
            return answer

    monkeypatch.setattr(
        engines, "open_engine", lambda *_a, precision, **_k: Slowed(precision, (SIZE, SIZE))
    )


@pytest.fixture
def many(kit: Kit, tmp_path: Path) -> Path:
    root = tmp_path / "many"
    root.mkdir()
    for index in range(60):
        write_png(root / f"{index:04}.png", kit.frame(bright=8 * (index % 2)))
    return root


def drops(out: Path) -> list[dict[str, Any]]:
    path = out / "drops.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_overload_with_oldest_drops_counts_and_goes_on(
    kit: Kit, bundle: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_engine(kit, monkeypatch, 0.02)
    out = tmp_path / "out"
    options = ("--fps", "100", "--drop", "oldest", "--queue", "2", "--in-flight", "1")
    assert kit.go(bundle, many, out, *options, "--deadline-ms", "90", "--max-frames", "40") == 0
    judged, lost = kit.lines(out), drops(out)
    assert len(judged) >= 8
    assert len(lost) >= 8
    assert all(list(drop) == ["frame", "time", "why"] for drop in lost)
    assert {drop["why"] for drop in lost} <= {"queue full", "deadline"}
    names = [line["frame"] for line in judged]
    assert names == sorted(names)
    assert Counter([*names, *(drop["frame"] for drop in lost)]) == Counter(
        f"{index:04}.png" for index in range(40)
    )
    for line in judged:
        assert line.get("late", False) == (line["latency_ms"]["total"] > 90)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == len(judged)
    assert summary["dropped"] == len(lost) == sum(summary["drops"].values())
    assert summary["late"] == sum(line.get("late", False) for line in judged)
    # What was dropped stays dropped: going on reads only what nobody has seen.
    assert kit.go(bundle, many, out, "--resume") == 0
    assert len(kit.lines(out)) == len(judged) + 20
    assert json.loads((out / "summary.json").read_text())["dropped"] == len(lost)


def test_late_verdicts_say_so(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_engine(kit, monkeypatch, 0.03)
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out, "--deadline-ms", "5") == 0
    assert [line["late"] for line in kit.lines(out)] == [True] * 3
    assert json.loads((out / "summary.json").read_text())["late"] == 3
    assert drops(out) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--drop", "oldest"), "--fps"),
        (("--keep", "none", "--masks"), "--masks"),
        (("--overlap", "64"), "overlap"),
        (("--overlap", "-1"), "overlap"),
        (("--roi", "/no/such.png"), "no such file"),
        (("--monitor-host", "0.0.0.0"), "--monitor PORT"),
        (("--monitor-read-only",), "--monitor PORT"),
        (("--tell", "rejects"), "--webhook"),
        (("--webhook", "gopher://x/"), "--webhook"),
        (("--mqtt", "broker"), "--mqtt"),
        (("--monitor", "0", "--monitor-host", "203.0.113.7"), "--monitor 0"),
        (("--metrics-port", "0", "--monitor-host", "203.0.113.7"), "--metrics-port 0"),
    ],
)
def test_options_that_make_no_sense_touch_nothing(
    kit: Kit,
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: str,
) -> None:
    assert kit.go(bundle, folder, tmp_path / "out", *options) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keep", "stored"), [("all", ["2", "a", "c"]), ("rejects", ["a"]), ("none", [])]
)
def test_which_pictures_are_kept(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, keep: str, stored: list[str]
) -> None:
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out, "--keep", keep) == 0
    assert len(kit.lines(out)) == 3
    for kind in ("maps", "overlays"):
        assert sorted(path.stem for path in (out / kind).rglob("*.*")) == stored
    assert not (out / "masks").exists()


def test_masks(kit: Kit, bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out, "--masks") == 0
    for line in kit.lines(out):
        stem = Path(line["frame"]).with_suffix("")
        mask = cv2.imread(str(out / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert mask is not None and mask.shape == (SIZE, SIZE)
        assert (mask == 255).sum() == sum(defect["area"] for defect in line["defects"])
        assert set(np.unique(mask)) <= {0, 255}


def test_defects_outside_the_region_of_interest_do_not_count(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    roi = np.zeros((SIZE, SIZE), np.uint8)
    roi[40:] = 255
    write_png(tmp_path / "roi.png", roi)
    assert kit.go(bundle, folder, tmp_path / "out", "--roi", str(tmp_path / "roi.png")) == 0
    assert [line["verdict"] for line in kit.lines(tmp_path / "out")] == ["ok"] * 3


def test_frames_of_other_sizes_are_tiled(kit: Kit, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    wide = np.full((90, 200, 3), 60, np.uint8)
    wide[70:80, 150:170] = 204
    write_png(folder / "a.png", wide)
    write_png(folder / "b.png", kit.frame())
    write_png(folder / "c.png", wide)
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out) == 0
    tiled, square, again = kit.lines(out)
    assert tiled["defects"][0]["box"] == [150, 70, 20, 10] == again["defects"][0]["box"]
    assert (tiled["verdict"], square["verdict"]) == ("reject", "ok")
    assert "tiles" not in square
    hit = [tile for tile in tiled["tiles"] if tile["verdict"] == "reject"]
    assert len(tiled["tiles"]) > len(hit) >= 1
    assert max(tile["score"] for tile in tiled["tiles"]) == tiled["score"]
    for x, y, width, height in (tile["box"] for tile in tiled["tiles"]):
        assert min(x, y) >= 0 and x + width <= 200 and y + height <= 90
    stored = cv2.imread(str(out / "maps" / "a.tiff"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (90, 200)
    assert cv2.imread(str(out / "overlays" / "a.jpg")).shape == (90, 400, 3)
    assert kit.go(bundle, folder, tmp_path / "shrunk", "--layout", "shrink") == 2
    assert [line["score"] is None for line in kit.lines(tmp_path / "shrunk")] == [True, False, True]


def test_a_slow_disk_with_oldest_drops_and_with_block_waits(
    kit: Kit, bundle: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = LineLog.append

    def slow(self: LineLog, line: dict[str, Any]) -> None:
        time.sleep(0.02 if "verdict" in line else 0)
        append(self, line)

    monkeypatch.setattr(LineLog, "append", slow)
    limit = ("--max-frames", "30", "--keep", "none", "--fps", "200")
    assert kit.go(bundle, many, tmp_path / "block", *limit) == 0
    assert len(kit.lines(tmp_path / "block")) == 30
    assert kit.go(bundle, many, tmp_path / "oldest", *limit, "--drop", "oldest") == 0
    judged, lost = kit.lines(tmp_path / "oldest"), drops(tmp_path / "oldest")
    assert len(judged) + len(lost) == 30
    assert len(lost) >= 5
    assert {drop["why"] for drop in lost} == {"queue full"}


def test_killed_in_an_overload_every_frame_has_one_verdict_or_one_drop(
    kit: Kit, bundle: Path, tmp_path: Path
) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for index in range(300):
        write_png(root / f"{index:04}.png", kit.frame())
    out = tmp_path / "out"
    code = (
        "import importlib.util as u, sys, time\n"
        f"spec = u.spec_from_file_location('t', {str(kit.file)!r})\n"
        "t = u.module_from_spec(spec); sys.modules['t'] = t; spec.loader.exec_module(t)\n"
        "class Slow(t.Brightness):\n"
        "    def _collect(self, handle): time.sleep(0.005); return handle\n"
        "t.engines.open_engine = lambda *a, precision, **k: Slow(precision, (64, 64))\n"
        f"t.run.main([{str(bundle)!r}, '--source', {str(root)!r}, '--out', {str(out)!r},"
        " '--fps', '400', '--drop', 'oldest', '--queue', '2', '--keep', 'none'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    log = out / "drops.jsonl"
    while process.poll() is None and not (log.is_file() and log.stat().st_size > 2000):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9
    first = len(kit.lines(out)) + len(drops(out))
    assert 20 < first < 300
    assert kit.go(bundle, root, out, "--resume", "--keep", "none") == 0
    names = [line["frame"] for line in (*kit.lines(out), *drops(out))]
    assert Counter(names) == Counter(f"{index:04}.png" for index in range(300))


def test_two_runs_never_write_into_one_folder(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    kit.go(bundle, folder, out, "--max-frames", "1")
    with LineLog(out / "results.jsonl"):
        for again in ("--resume", "--force"):
            assert kit.go(bundle, folder, out, again) == 2
            assert "another run" in capsys.readouterr().err
    assert len(kit.lines(out)) == 1
    assert kit.go(bundle, folder, out, "--resume") == 0


def test_an_audit_line_is_no_frame_and_the_threshold_stays_where_it_was_left(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    kit.go(bundle, folder, out, "--max-frames", "1")
    turn = {"audit": "threshold", "time": 1.0, "from": 0.5, "to": 0.1, "who": "operator"}
    with LineLog(out / "results.jsonl") as log:
        log.append(turn)
    assert kit.go(bundle, folder, out, "--resume") == 0
    assert "0.1" in capsys.readouterr().err
    found = kit.lines(out)
    assert found[1] == turn
    assert [line["threshold"] for line in found if "audit" not in line] == [0.5, 0.1, 0.1]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["frames"], summary["audit"]) == (3, [turn])
