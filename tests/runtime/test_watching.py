"""Folders that are being filled: whole files only, in order, for ever."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_edge.errors import InputError
from ndp_edge.image import write_png
from ndp_edge.runtime import watching
from ndp_edge.runtime.opening import open_source
from ndp_edge.runtime.sources import Captured
from ndp_edge.runtime.watching import WatchedFolder


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((8, 8), level, np.uint8))
    return path


def names(source: Any) -> list[str]:
    return [captured.name for captured in source]


class Watch:
    """A watched folder read in a thread, and what came of it."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.source: Any = open_source(str(root), watch=True, **options)
        assert isinstance(self.source, WatchedFolder)
        self.got: list[Captured] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        self.got.extend(self.source)  # list.extend shows each item as it comes

    def wait(self, count: int, seconds: float = 8.0) -> list[str]:
        """The names once there are `count`, or after that time."""
        end = time.monotonic() + seconds
        while len(self.got) < count and time.monotonic() < end:
            time.sleep(0.01)
        return names(self.got)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(watching, "SETTLE_SECONDS", 0.15)
    monkeypatch.setattr(watching, "PATIENCE_SECONDS", 1.2)


@pytest.fixture
def watch(quick: None, tmp_path: Path) -> Iterator[Any]:
    watches: list[Watch] = []

    def start(**options: Any) -> Watch:
        watches.append(Watch(tmp_path / "in", **options))
        return watches[-1]

    (tmp_path / "in").mkdir()
    yield start
    for one in watches:
        one.source.close()
        one.thread.join(5)
        assert not one.thread.is_alive()


def aged(path: Path, seconds: float) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_what_is_there_comes_by_time_and_what_comes_later_too(tmp_path: Path, watch: Any) -> None:
    root = tmp_path / "in"
    for name, age in (("a.png", 10), ("z.png", 30), ("m.png", 20), ("b.png", 10)):
        aged(picture(root / name), age)
    os.utime(root / "b.png", ns=((root / "a.png").stat().st_mtime_ns,) * 2)
    line = watch()
    assert line.wait(4) == ["z.png", "m.png", "a.png", "b.png"]
    picture(root / "new" / "later.png")
    (root / "notes.txt").write_text("no picture")
    picture(root / ".part.png")
    assert line.wait(5)[4:] == ["new/later.png"]
    picture(tmp_path / "moved.png", 5).replace(root / "moved.png")
    assert line.wait(6)[5:] == ["moved.png"]
    time.sleep(0.2)
    assert len(line.got) == 6 and all(one.error is None for one in line.got)


def test_a_folder_that_was_removed_and_comes_again_is_new(tmp_path: Path, watch: Any) -> None:
    root = tmp_path / "in"
    picture(root / "day" / "a" / "1.png")
    line = watch()
    assert line.wait(1) == ["day/a/1.png"]
    shutil.rmtree(root / "day")
    time.sleep(0.2)
    picture(root / "day" / "a" / "1.png")
    assert line.wait(2) == ["day/a/1.png"] * 2


def test_a_file_is_taken_when_it_is_whole(tmp_path: Path, watch: Any) -> None:
    data = picture(tmp_path / "whole.png", 77).read_bytes()
    line = watch()
    with (tmp_path / "in" / "slow.png").open("wb") as file:
        for at in range(0, len(data), 12):
            file.write(data[at : at + 12])
            file.flush()
            time.sleep(0.04)
    (written,) = line.wait(1)
    assert written == "slow.png" and line.got[0].frame.image.max() == 77


def test_a_pause_in_the_middle_is_waited_out_and_a_broken_file_told(
    tmp_path: Path, watch: Any
) -> None:
    data = picture(tmp_path / "whole.png", 77).read_bytes()
    line = watch()
    (tmp_path / "in" / "broken.png").write_bytes(data[:-20])
    with (tmp_path / "in" / "pause.png").open("wb") as file:
        file.write(data[:30])
        file.flush()
        time.sleep(0.35)  # longer than SETTLE_SECONDS, so it is read in vain once
        file.write(data[30:])
    assert sorted(line.wait(2)) == ["broken.png", "pause.png"]
    by_name = {one.name: one for one in line.got}
    assert by_name["pause.png"].error is None
    assert "truncated" in str(by_name["broken.png"].error)


def test_a_limit_and_names_of_a_former_run(tmp_path: Path, watch: Any) -> None:
    root = tmp_path / "in"
    for number in range(5):
        aged(picture(root / f"{number}.png"), 60 - number)
    line = watch(skip=["0.png", "2.png"], limit=4)
    line.thread.join(5)
    assert not line.thread.is_alive() and names(line.got) == ["1.png", "3.png"]


def test_a_name_that_is_used_again_is_a_new_frame(tmp_path: Path, watch: Any) -> None:
    root = tmp_path / "in"
    path = picture(root / "a.png", 1)
    line = watch()
    line.wait(1)
    path.unlink()
    time.sleep(0.2)
    picture(path, 2)
    assert line.wait(2) == ["a.png", "a.png"]
    assert [one.frame.image.max() for one in line.got] == [1, 2]


def test_a_folder_that_goes_away_and_comes_back(
    tmp_path: Path, watch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    picture(root / "a.png")
    line = watch()
    line.wait(1)
    root.rename(tmp_path / "away")
    time.sleep(0.2)
    picture(tmp_path / "away" / "b.png")
    (tmp_path / "away").rename(root)
    assert line.wait(2) == ["a.png", "b.png"]
    assert line.source.reconnects == 1
    told = capsys.readouterr().err
    assert "is gone; waiting" in told and "is back" in told


def test_waiting_costs_little_and_ends_at_once(
    tmp_path: Path, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "in"
    for number in range(30):
        aged(picture(root / f"{number}.png"), 60)
    os.utime(root, (time.time() - 60,) * 2)
    line = watch()
    assert len(line.wait(30)) == 30
    listed: list[Any] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), real(path))[1])
    time.sleep(0.3)
    assert listed == []  # the folder has not changed: one stat a pass
    monkeypatch.setattr(watching, "POLL_SECONDS", 30.0)
    time.sleep(0.1)
    began = time.monotonic()
    line.source.close()
    line.thread.join(5)
    assert time.monotonic() - began < 1


def test_a_folder_to_watch_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        WatchedFolder(tmp_path / "none")
    shutil.rmtree(tmp_path)
