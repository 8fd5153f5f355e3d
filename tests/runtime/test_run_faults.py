"""The folder run when frames, the disk or the process fail: no verdict is lost or torn."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace as Kit

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge import engines
from ndp_edge.image import write_png

SIZE = 64


def test_frames_that_cannot_be_judged_are_rejected(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "d.png").write_bytes((folder / "c.png").read_bytes()[:60])
    (folder / "e.png").write_bytes(b"")
    write_png(folder / "f.png", np.zeros((SIZE // 2, SIZE // 2, 3), np.uint8))
    write_png(folder / "g.png", np.ones((SIZE, SIZE, 3), np.uint8))  # the engine answers NaN
    write_png(folder / "h.png", kit.frame())
    out = tmp_path / "out"
    assert kit.go(bundle, folder, out) == 2
    found = {line["frame"]: line for line in kit.lines(out)}
    assert len(found) == 8
    for name, words in {"d": "truncated", "e": "empty", "f": "32x32", "g": "NaN"}.items():
        line = found[f"{name}.png"]
        assert (line["verdict"], line["score"], line["defects"]) == ("reject", None, [])
        assert words in line["error"]
        assert "\n" not in line["error"]
    assert "error" not in found["h.png"]
    assert found["h.png"]["verdict"] == "ok"
    assert "4 of 8 frames could not be judged" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["errors"] == 4


def test_resume_goes_on_behind_a_torn_line(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kit.go(bundle, folder, out, "--max-frames", "2")
    log = out / "results.jsonl"
    whole = log.read_text().splitlines()
    log.write_text(f"{whole[0]}\n{whole[1][:40]}")  # what a power cut leaves
    assert kit.go(bundle, folder, out, "--resume") == 0
    assert [line["frame"] for line in kit.lines(out)] == ["a.png", "b/2.png", "c.png"]
    assert log.read_text().splitlines()[0] == whole[0]
    assert json.loads((out / "summary.json").read_text())["frames"] == 3


def test_a_full_disk_keeps_what_there_was(
    kit: Kit,
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
    assert kit.go(bundle, folder, out) == 2
    assert [line["frame"] for line in kit.lines(out)] == ["a.png", "b/2.png"]
    assert json.loads((out / "summary.json").read_text())["stopped"] == "disk"
    err = capsys.readouterr().err.strip().splitlines()
    assert "disk is full" in err[-1]
    assert str(out) in err[-1]
    monkeypatch.undo()
    monkeypatch.setattr(engines, "open_engine", kit.open_brightness)
    assert kit.go(bundle, folder, out, "--resume") == 0
    assert len(kit.lines(out)) == 3


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_engine_finish_and_begin_nothing(
    kit: Kit, bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    warm_ups = kit.Brightness.lanes + 1

    class Interrupted(kit.Brightness):
        calls = 0

        def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            Interrupted.calls += 1
            if Interrupted.calls == warm_ups + 1:
                os.kill(os.getpid(), kind)
                time.sleep(0.3)  # the main thread hears of it
            return super()._infer(images)

    monkeypatch.setattr(
        engines, "open_engine", lambda *_a, precision, **_k: Interrupted(precision, (SIZE, SIZE))
    )
    out, before = tmp_path / "out", signal.getsignal(kind)
    assert kit.go(bundle, folder, out) == 128 + kind
    assert [line["frame"] for line in kit.lines(out)] == ["a.png"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped"] == signal.Signals(kind).name
    assert summary["frames"] == 1
    assert signal.getsignal(kind) is before
    monkeypatch.setattr(engines, "open_engine", kit.open_brightness)
    assert kit.go(bundle, folder, out, "--resume") == 0
    assert [line["frame"] for line in kit.lines(out)] == ["a.png", "b/2.png", "c.png"]


def test_a_killed_run_leaves_whole_lines(kit: Kit, bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for index in range(400):
        write_png(root / f"{index:04}.png", kit.frame(bright=index % 9))
    out = tmp_path / "out"
    code = (
        "import importlib.util as u, sys\n"
        f"spec = u.spec_from_file_location('t', {str(kit.file)!r})\n"
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
    found = kit.lines(out)
    assert 5 <= len(found) < 400
    for line in found:  # a line means that its pictures are there, whole
        stem = Path(line["frame"]).stem
        assert (out / "overlays" / f"{stem}.jpg").stat().st_size > 0
        assert (out / "maps" / f"{stem}.tiff").stat().st_size >= 4 * SIZE * SIZE
    assert kit.go(bundle, root, out, "--resume") == 0
    assert [line["frame"] for line in kit.lines(out)] == [f"{index:04}.png" for index in range(400)]
