"""The folder run: every frame one verdict, whatever happens to it, the disk or the process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import engines, run
from ndp_edge.bundle import Bundle, BundleWriter
from ndp_edge.engines.base import Engine
from ndp_edge.image import write_png
from ndp_edge.model.config import preset

SIZE = 64
THRESHOLD = 0.5
KEYS = ["frame", "time", "score", "threshold", "verdict", "defects", "latency_ms", "bundle"]


class Brightness(Engine):
    """An engine that calls bright pixels defective, and answers NaN to a black frame."""

    name = "openvino"

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = images.mean(axis=3, dtype=np.float32) / np.float32(255)
        dark = (images.max(axis=(1, 2, 3)) == 1) & (images.min(axis=(1, 2, 3)) == 1)
        maps[dark] = np.nan
        return maps

    def _submit(self, images: NDArray[np.uint8]) -> Any:
        return self._infer(images)

    def _collect(self, handle: Any) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = handle
        return answer

    def _describe(self) -> dict[str, Any]:
        return {"device": "test", "threads": 1, "versions": {}}

    def _close(self, pending: list[Any]) -> None:
        pending.clear()


def open_brightness(_backend: str, _model: Path, *, precision: str, **_: Any) -> Engine:
    return Brightness(precision, (SIZE, SIZE))


@pytest.fixture(autouse=True)
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "open_engine", open_brightness)


def make_bundle(out: Path, threshold: float = THRESHOLD) -> Path:
    empty = ("package", "input", "output", "calibration", "splits", "training", "metrics", "gate")
    manifest = {
        **{key: {} for key in (*empty, "latency_ms")},
        "created": "2026-11-22T20:00:00+00:00",
        "config": asdict(preset("nano", image_size=SIZE)),
        "engines": [{"backend": "openvino", "precision": "int8", "file": "model.int8.onnx"}],
        "default": {"backend": "openvino", "precision": "int8"},
        "threshold": {"value": threshold},
        "golden": {"file": "golden.npz"},
    }
    with BundleWriter(out) as writer:
        for name in ("model.int8.onnx", "golden.npz"):
            writer.path(name).write_bytes(b"x")
        return writer.commit(manifest)


def frame(bright: int = 0) -> NDArray[np.uint8]:
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    image[10 : 10 + bright, 20 : 20 + 2 * bright] = 204
    return image


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "frames"
    (root / "b").mkdir(parents=True)
    write_png(root / "b" / "2.png", frame())
    write_png(root / "a.png", frame(bright=8))
    write_png(root / "c.png", frame())
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


def go(bundle: Path, folder: Path, out: Path, *more: str) -> int:
    return run.main([str(bundle), "--source", str(folder), "--out", str(out), *more])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_a_folder_of_frames(bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert go(bundle, folder, out) == 0
    found = lines(out)
    assert [line["frame"] for line in found] == ["a.png", "b/2.png", "c.png"]
    assert [line["verdict"] for line in found] == ["reject", "ok", "ok"]
    for line in found:
        assert list(line) == KEYS
        assert line["threshold"] == THRESHOLD
        assert line["bundle"] == Bundle.open(bundle).hash
        assert set(line["latency_ms"]) == {"read", "infer", "judge", "write"}
        assert all(ms >= 0 for ms in line["latency_ms"].values())
        assert (line["score"] > THRESHOLD) == (line["verdict"] == "reject") == bool(line["defects"])
    defect = found[0]["defects"][0]
    x, y, width, height = defect["box"]
    assert (x, y, width, height) == (20, 10, 16, 8)
    assert defect["peak"] == pytest.approx(0.8)
    assert found[0]["score"] == pytest.approx(0.8)


def test_maps_and_overlays(bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(bundle, folder, out)
    for line in lines(out):
        stem = Path(line["frame"]).with_suffix("")
        shown = cv2.imread(str(out / "maps" / f"{stem}.tiff"), cv2.IMREAD_UNCHANGED)
        assert shown is not None
        assert shown.dtype == np.float32
        assert shown.shape == (SIZE, SIZE)
        assert float(shown.max()) == line["score"]
        marked = cv2.imread(str(out / "overlays" / f"{stem}.jpg"))
        assert marked is not None
        assert marked.shape == (SIZE, 2 * SIZE, 3)


def test_the_summary(bundle: Path, folder: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out", tmp_path / "s.json"
    assert go(bundle, folder, out, "--json", str(copy)) == 0
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


def test_max_frames(bundle: Path, folder: Path, tmp_path: Path) -> None:
    assert go(bundle, folder, tmp_path / "out", "--max-frames", "2") == 0
    assert len(lines(tmp_path / "out")) == 2


def test_frames_that_cannot_be_judged_are_rejected(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "d.png").write_bytes((folder / "c.png").read_bytes()[:60])
    (folder / "e.png").write_bytes(b"")
    write_png(folder / "f.png", np.zeros((SIZE, 2 * SIZE, 3), np.uint8))
    write_png(folder / "g.png", np.ones((SIZE, SIZE, 3), np.uint8))  # the engine answers NaN
    write_png(folder / "h.png", frame())
    out = tmp_path / "out"
    assert go(bundle, folder, out) == 2
    found = {line["frame"]: line for line in lines(out)}
    assert len(found) == 8
    for name, words in {"d": "truncated", "e": "empty", "f": "128x64", "g": "NaN"}.items():
        line = found[f"{name}.png"]
        assert (line["verdict"], line["score"], line["defects"]) == ("reject", None, [])
        assert words in line["error"]
        assert "\n" not in line["error"]
    assert "error" not in found["h.png"]
    assert found["h.png"]["verdict"] == "ok"
    assert "4 of 8 frames could not be judged" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["errors"] == 4


def test_a_score_at_the_threshold_is_ok(folder: Path, tmp_path: Path) -> None:
    exact = float(np.float32(204) / np.float32(255))
    out = tmp_path / "out"
    assert go(make_bundle(tmp_path / "b2", exact), folder, out) == 0
    assert [line["verdict"] for line in lines(out)] == ["ok"] * 3


def test_results_are_never_overwritten_silently(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    go(bundle, folder, out)
    before = (out / "results.jsonl").read_bytes()
    assert go(bundle, folder, out) == 2
    assert "--force" in capsys.readouterr().err
    assert (out / "results.jsonl").read_bytes() == before
    assert go(bundle, folder, out, "--force", "--max-frames", "1") == 0
    assert len(lines(out)) == 1
    assert not (out / "maps" / "c.tiff").exists()


def test_a_folder_of_other_things_is_left_alone(bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert go(bundle, folder, out, "--force") == 2
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_resume_goes_on_behind_a_torn_line(bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(bundle, folder, out, "--max-frames", "2")
    log = out / "results.jsonl"
    whole = log.read_text().splitlines()
    log.write_text(f"{whole[0]}\n{whole[1][:40]}")  # what a power cut leaves
    assert go(bundle, folder, out, "--resume") == 0
    assert [line["frame"] for line in lines(out)] == ["a.png", "b/2.png", "c.png"]
    assert log.read_text().splitlines()[0] == whole[0]
    assert json.loads((out / "summary.json").read_text())["frames"] == 3


def test_resume_refuses_another_bundle(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    go(bundle, folder, out)
    other = make_bundle(tmp_path / "other", 0.6)
    assert go(other, folder, out, "--resume") == 2
    assert "another bundle" in capsys.readouterr().err
    assert go(bundle, folder, tmp_path / "none", "--resume") == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("rtsp://camera/1", "later version"),
        ("v4l2:0", "later version"),
        ("FILE", "is a file"),
        ("/no/such/folder", "no such folder"),
        ("EMPTY", "holds no pictures"),
    ],
)
def test_sources_that_do_not_work(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, words: str
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


def test_a_full_disk_keeps_what_there_was(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    write, count = os.write, 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal count
        count += 1
        if count < 3:
            return write(descriptor, data)
        if count == 3:
            return write(descriptor, data[:25])  # the disk takes a part
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    assert go(bundle, folder, out) == 2
    assert [line["frame"] for line in lines(out)] == ["a.png", "b/2.png"]
    assert json.loads((out / "summary.json").read_text())["stopped"] == "disk"
    err = capsys.readouterr().err.strip().splitlines()
    assert "disk is full" in err[-1]
    assert str(out) in err[-1]
    monkeypatch.undo()
    monkeypatch.setattr(engines, "open_engine", open_brightness)
    assert go(bundle, folder, out, "--resume") == 0
    assert len(lines(out)) == 3


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_frames(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    class Interrupted(Brightness):
        calls = 0

        def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            Interrupted.calls += 1
            if Interrupted.calls == 2:  # the first is the warm-up
                os.kill(os.getpid(), kind)
            return super()._infer(images)

    monkeypatch.setattr(
        engines, "open_engine", lambda *_a, precision, **_k: Interrupted(precision, (SIZE, SIZE))
    )
    out = tmp_path / "out"
    assert go(bundle, folder, out) == 128 + kind
    assert [line["frame"] for line in lines(out)] == ["a.png"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped"] == signal.Signals(kind).name
    assert summary["frames"] == 1
    assert signal.getsignal(kind) is not None


def test_a_killed_run_leaves_whole_lines(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for index in range(400):
        write_png(root / f"{index:04}.png", frame(bright=index % 9))
    out = tmp_path / "out"
    code = (
        "import importlib.util as u, sys\n"
        f"spec = u.spec_from_file_location('t', {str(Path(__file__))!r})\n"
        "t = u.module_from_spec(spec); sys.modules['t'] = t; spec.loader.exec_module(t)\n"
        "t.engines.open_engine = t.open_brightness\n"
        f"t.run.main([{str(bundle)!r}, '--source', {str(root)!r}, '--out', {str(out)!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    log = out / "results.jsonl"
    while process.poll() is None and not (log.is_file() and log.stat().st_size > 2000):
        time.sleep(0.005)
    process.kill()
    process.wait()
    found = lines(out)
    assert 5 <= len(found) < 400
    for line in found:  # a line means that its pictures are there, whole
        stem = Path(line["frame"]).stem
        assert (out / "overlays" / f"{stem}.jpg").stat().st_size > 0
        assert (out / "maps" / f"{stem}.tiff").stat().st_size >= 4 * SIZE * SIZE
    assert go(bundle, root, out, "--resume") == 0
    assert [line["frame"] for line in lines(out)] == [f"{index:04}.png" for index in range(400)]


def test_frames_that_share_a_stem_keep_two_maps(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "frames"
    root.mkdir()
    write_png(root / "a.png", frame())
    cv2.imwrite(str(root / "a.bmp"), frame(bright=8))
    assert go(bundle, root, tmp_path / "out") == 0
    names = sorted(path.name for path in (tmp_path / "out" / "maps").iterdir())
    assert names == ["a.bmp.tiff", "a.png.tiff"]
