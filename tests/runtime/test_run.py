"""The folder run: every frame one verdict, nothing overwritten silently."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Kit

import cv2
import numpy as np
import pytest

from ndp_edge import run
from ndp_edge.bundle import Bundle
from ndp_edge.image import write_png

SIZE = 64
THRESHOLD = 0.5
KEYS = ["frame", "time", "score", "threshold", "verdict", "defects", "latency_ms", "bundle"]


def test_a_folder_of_frames(kit: Kit, bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out) == 0
    found = kit.lines(out)
    assert [line["frame"] for line in found] == ["a.png", "b/2.png", "c.png"]
    assert [line["verdict"] for line in found] == ["reject", "ok", "ok"]
    for line in found:
        assert list(line) == KEYS
        assert line["threshold"] == THRESHOLD
        assert line["bundle"] == Bundle.open(bundle).hash
        stages = {"read", "wait", "tile", "infer", "judge", "write", "total"}
        assert set(line["latency_ms"]) == stages
        assert all(ms >= 0 for ms in line["latency_ms"].values())
        assert (line["score"] > THRESHOLD) == (line["verdict"] == "reject") == bool(line["defects"])
    defect = found[0]["defects"][0]
    x, y, width, height = defect["box"]
    assert (x, y, width, height) == (20, 10, 16, 8)
    assert defect["peak"] == pytest.approx(0.8)
    assert found[0]["score"] == pytest.approx(0.8)


def test_maps_and_overlays(kit: Kit, bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kit.go(bundle, folder, out)
    for line in kit.lines(out):
        stem = Path(line["frame"]).with_suffix("")
        shown = cv2.imread(str(out / "maps" / f"{stem}.tiff"), cv2.IMREAD_UNCHANGED)
        assert shown is not None
        assert shown.dtype == np.float32
        assert shown.shape == (SIZE, SIZE)
        assert float(shown.max()) == line["score"]
        marked = cv2.imread(str(out / "overlays" / f"{stem}.jpg"))
        assert marked is not None
        assert marked.shape == (SIZE, 2 * SIZE, 3)


def test_the_summary(kit: Kit, bundle: Path, folder: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out", tmp_path / "s.json"
    assert kit.go(bundle, folder, out, "--json", str(copy)) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads(copy.read_text())
    assert (summary["frames"], summary["ok"], summary["reject"], summary["errors"]) == (3, 2, 1, 0)
    assert summary["reject_rate"] == pytest.approx(1 / 3)
    assert summary["stopped"] is None
    assert summary["backend"] == "openvino"
    assert summary["bundle"] == Bundle.open(bundle).hash
    for times in summary["latency_ms"].values():
        assert times["p50"] <= times["p95"] <= times["p99"]
        assert times["n"] == 3


def test_max_frames(kit: Kit, bundle: Path, folder: Path, tmp_path: Path) -> None:
    assert kit.go(bundle, folder, tmp_path / "out", "--max-frames", "2") == 0
    assert len(kit.lines(tmp_path / "out")) == 2


def test_a_score_at_the_threshold_is_ok(kit: Kit, folder: Path, tmp_path: Path) -> None:
    exact = float(np.float32(204) / np.float32(255))
    out = tmp_path / "out"
    assert kit.go(kit.make_bundle(tmp_path / "b2", exact), folder, out) == 0
    assert [line["verdict"] for line in kit.lines(out)] == ["ok"] * 3


def test_results_are_never_overwritten_silently(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    kit.go(bundle, folder, out)
    before = (out / "results.jsonl").read_bytes()
    assert kit.go(bundle, folder, out) == 2
    assert "--force" in capsys.readouterr().err
    assert (out / "results.jsonl").read_bytes() == before
    assert kit.go(bundle, folder, out, "--force", "--max-frames", "1") == 0
    assert len(kit.lines(out)) == 1
    assert not (out / "maps" / "c.tiff").exists()


def test_a_folder_of_other_things_is_left_alone(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert kit.go(bundle, folder, out, "--force") == 2
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_resume_refuses_another_bundle(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    kit.go(bundle, folder, out)
    other = kit.make_bundle(tmp_path / "other", 0.6)
    assert kit.go(other, folder, out, "--resume") == 2
    assert "another bundle" in capsys.readouterr().err
    assert kit.go(bundle, folder, tmp_path / "none", "--resume") == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("v4l2:/dev/no-camera", "no camera"),
        ("http://127.0.0.1:9/", "cannot be opened"),
        ("FILE", "no video"),
        ("/no/such/folder", "is not there"),
        ("EMPTY", "holds no pictures"),
    ],
)
def test_sources_that_do_not_work(
    kit: Kit,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    words: str,
) -> None:
    (tmp_path / "film.mp4").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    named = {"FILE": str(tmp_path / "film.mp4"), "EMPTY": str(tmp_path / "empty")}
    out = tmp_path / "out"
    assert run.main([str(bundle), "--source", named.get(source, source), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_frames_that_share_a_stem_keep_two_maps(kit: Kit, bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "frames"
    root.mkdir()
    write_png(root / "a.png", kit.frame())
    cv2.imwrite(str(root / "a.bmp"), kit.frame(bright=8))
    assert kit.go(bundle, root, tmp_path / "out") == 0
    names = sorted(path.name for path in (tmp_path / "out" / "maps").iterdir())
    assert names == ["a.bmp.tiff", "a.png.tiff"]


def test_a_larger_square_frame_is_shrunk_as_in_training(
    kit: Kit, bundle: Path, tmp_path: Path
) -> None:
    """Boxes and areas are told in the frame's own pixels; the map has the net's size."""
    folder = tmp_path / "frames"
    folder.mkdir()
    picture = np.full((2 * SIZE, 2 * SIZE, 3), 20, np.uint8)
    picture[40:80, 20:100] = 250
    write_png(folder / "large.png", picture)
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out) == 0
    (line,) = kit.lines(out)
    assert line["verdict"] == "reject"
    (defect,) = line["defects"]
    assert np.abs(np.array(defect["box"]) - (20, 40, 80, 40)).max() <= 4
    assert defect["area"] == pytest.approx(80 * 40, rel=0.1)
    stored = cv2.imread(str(out / "maps" / "large.tiff"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (SIZE, SIZE)
    assert cv2.imread(str(out / "overlays" / "large.jpg")).shape[0] == SIZE
