"""`run` on a camera: what was captured cannot be read again, so it is judged or counted."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace as Kit
from typing import Any

import pytest

from ndp_edge import run
from ndp_edge.errors import InputError
from ndp_edge.run_watching import Watch
from ndp_edge.runtime.linelog import LineLog
from ndp_edge.runtime.observing import Observer, Seen
from ndp_edge.runtime.sources import Captured
from ndp_edge.types import Frame


class Camera:
    """Numbered frames at 200 a second until it is closed; something may happen at one of them."""

    live = True
    names = None
    reconnects = 3

    def __init__(self, kit: Kit, frames: int = 10_000, at: int = -1, then: Any = None) -> None:
        self._image = kit.frame(bright=8)
        self._frames, self._at, self._then = frames, at, then
        self._closed = False
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[Captured]:
        for number in range(self._frames):
            if self._closed:
                return
            if number == self._at:
                self._then()
            time.sleep(0.005)
            name = f"{number:06}"
            self.taken.append(name)
            now = time.time()
            yield Captured(name, now, Frame(name, self._image, now), None, 0.0)

    def close(self) -> None:
        self._closed = True


@pytest.fixture
def go(kit: Kit, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def started(camera: Camera, *options: str) -> int:
        monkeypatch.setattr(run, "open_source", lambda *_a, **_k: camera)
        monkeypatch.setattr(run, "is_camera", lambda _spec: True)
        return int(kit.go(bundle, Path("camera"), tmp_path / "out", "--keep", "none", *options))

    return started


def drops(out: Path) -> list[dict[str, Any]]:
    path = out / "drops.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("policy", ["block", "oldest"])
def test_a_signal_counts_what_waits(kit: Kit, go: Any, tmp_path: Path, policy: str) -> None:
    camera = Camera(kit, at=30, then=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert go(camera, "--drop", policy) == 128 + signal.SIGTERM
    out = tmp_path / "out"
    judged, lost = kit.lines(out), drops(out)
    names = [line["frame"] for line in (*judged, *lost)]
    assert Counter(names) == Counter(camera.taken)
    assert {drop["why"] for drop in lost} <= {"stopped", "queue full"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["frames"], summary["dropped"]) == (len(judged), len(lost))
    assert (summary["stopped"], summary["reconnects"]) == ("SIGTERM", 3)
    assert 20 < len(camera.taken) < 2000


def test_a_full_disk_counts_what_was_under_way(
    kit: Kit, go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = os.write, 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal count
        count += 1
        if count > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("os.write", full)
    camera = Camera(kit)
    assert go(camera) == 2
    out = tmp_path / "out"
    assert len(kit.lines(out)) == 10
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped"] == "disk"
    assert summary["frames"] == 10
    assert summary["dropped"] == len(camera.taken) - 10
    assert summary["drops"]["disk"] >= 1


def test_a_camera_that_is_lost_for_good(kit: Kit, go: Any, tmp_path: Path) -> None:
    def lost() -> None:
        raise InputError("--source camera: it ended")

    camera = Camera(kit, at=12, then=lost)
    assert go(camera) == 2
    assert [line["frame"] for line in kit.lines(tmp_path / "out")] == camera.taken
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["stopped"]) == (12, "source")


def test_a_disk_that_hangs_makes_nothing_grow(
    kit: Kit, go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even drops wait, and then the source does: memory is bounded and nothing is forgotten."""
    monkeypatch.setattr("ndp_edge.runtime.feeding.MOST_DROPPED", 5)
    append, hung = LineLog.append, []

    def slow(self: LineLog, line: dict[str, Any]) -> None:
        if not hung:
            hung.append(line)
            time.sleep(0.5)  # time for a hundred frames
            hung.append(len(camera.taken))
        append(self, line)

    monkeypatch.setattr(LineLog, "append", slow)
    camera = Camera(kit, frames=200)
    assert go(camera, "--drop", "oldest", "--queue", "2") == 0
    assert hung[1] < 40
    out = tmp_path / "out"
    names = [line["frame"] for line in (*kit.lines(out), *drops(out))]
    assert Counter(names) == Counter(camera.taken)
    assert len(camera.taken) == 200


class Watcher(Observer):
    """An observer that writes down what it is told, and may break."""

    def __init__(self, breaks: bool = False) -> None:
        self.seen: list[Seen] = []
        self.lost: list[tuple[str, str]] = []
        self.values: list[Mapping[str, float]] = []
        self.closed = 0
        self._breaks = breaks

    def verdict(self, seen: Seen) -> None:
        if self._breaks:
            raise RuntimeError("a bug in whoever watches")
        self.seen.append(seen)

    def dropped(self, name: str, time: float, why: str) -> None:
        self.lost.append((name, why))

    def gauges(self, values: Mapping[str, float]) -> None:
        self.values.append(values)

    def close(self) -> None:
        self.closed += 1


def test_observers_see_everything_and_cannot_stop_the_line(
    kit: Kit,
    go: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, bad = Watcher(), Watcher(breaks=True)
    watch = contextlib.nullcontext(Watch([bad, good]))
    monkeypatch.setattr(run, "watching", lambda *_a: watch)
    camera = Camera(kit, frames=60)
    assert go(camera, "--drop", "oldest", "--queue", "1", "--deadline-ms", "200") == 0
    out = tmp_path / "out"
    assert [seen.line for seen in good.seen] == kit.lines(out)
    assert good.lost == [(drop["frame"], drop["why"]) for drop in drops(out)]
    assert all(seen.image is not None and seen.smoothed is not None for seen in good.seen)
    maps = {id(seen.smoothed) for seen in good.seen}
    assert len(maps) == len(good.seen)  # each its own, to keep
    assert good.values and {"waiting", "frames_in_flight", "resident_bytes"} <= set(good.values[0])
    assert (good.closed, bad.closed) == (1, 0)
    assert capsys.readouterr().err.count("Watcher failed") == 1
