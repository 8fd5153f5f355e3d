"""Folders, lists, folders that are being filled, and GenICam cameras through a stand-in."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_edge.errors import InputError, MachineError
from ndp_edge.image import write_png
from ndp_edge.runtime import watching
from ndp_edge.runtime.genicam import GenicamCamera, pixel_of
from ndp_edge.runtime.opening import open_source
from ndp_edge.runtime.reconnecting import LostError
from ndp_edge.runtime.sources import Captured
from ndp_edge.runtime.watching import WatchedFolder


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((8, 8), level, np.uint8))
    return path


def names(source: Any) -> list[str]:
    return [captured.name for captured in source]


def test_a_folder_with_skip_and_limit(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "c.png", ".hidden.png", ".cache/x.png"):
        picture(tmp_path / name)
    source: Any = open_source(str(tmp_path), skip=["a.png"], limit=2)
    assert names(source) == ["b/2.png"] and len(source) == 1
    assert source.names == ["a.png", "b/2.png", "c.png"] and not source.live
    frames = iter(open_source(str(tmp_path)))
    next(frames)
    source.close()
    assert names(source) == []


def test_a_folder_of_mosaics(tmp_path: Path) -> None:
    raw = np.zeros((8, 8), np.uint16)
    raw[::2, ::2] = 4095
    cv2.imwrite(str(tmp_path / "m.png"), raw)
    write_png(tmp_path / "n.png", np.full((8, 8), 9, np.uint8))
    mosaic, shallow = open_source(str(tmp_path), pixel="rggb12")
    assert mosaic.frame is not None and mosaic.frame.image[3, 3].tolist() == [255, 0, 0]
    assert shallow.error is not None and "n.png" in shallow.error and "12 bits" in shallow.error
    with pytest.raises(InputError, match="pixel format 'rgbg'"):
        open_source(str(tmp_path), pixel="rgbg")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# what to look at\n\n  sub/b.png\na.png\nno.png\n"),
        ("list.csv", "time,Path\n1,sub/b.png\n2, a.png\n\n3,no.png\n"),
        ("list.csv", "sub/b.png,1\na.png,2\nno.png,3\n"),
        ("list.txt", "\ufeffsub/b.png\r\na.png\r\nno.png\r\n"),
    ],
)
def test_a_list_in_its_order(tmp_path: Path, name: str, text: str) -> None:
    picture(tmp_path / "a.png", 7)
    picture(tmp_path / "sub" / "b.png", 9)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    source = open_source(str(tmp_path / name))
    b, a, missing = list(source)
    assert [b.name, a.name, missing.name] == ["sub/b.png", "a.png", "no.png"]
    assert b.frame is not None and b.frame.image.max() == 9
    assert missing.frame is None and "no such file" in str(missing.error)
    assert names(open_source(str(tmp_path / name), skip=["sub/b.png"], limit=2)) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("list.txt", b"# nothing\n", "names no pictures"),
        ("list.csv", b"path\n", "names no pictures"),
        ("list.csv", b"", "names no pictures"),
        ("list.txt", b"a.png\nb.png\na.png\n", "names a.png twice"),
        ("list.txt", b"\xff\xfe\x00", "it is not UTF-8"),
        ("one.png", b"x", "is one picture; give its folder"),
    ],
)
def test_files_that_are_no_source(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why):
        open_source(str(tmp_path / name))


def test_only_a_folder_can_be_watched(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\n")
    for spec in (str(tmp_path / "list.txt"), str(tmp_path / "none")):
        with pytest.raises(InputError, match="only a folder can be watched"):
            open_source(spec, watch=True)


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
    monkeypatch.setattr(watching, "PATIENCE_SECONDS", 0.6)


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


# GenICam: harvesters' interface as of 1.4, with a camera made of a list.


class Harvester:
    """What GenicamCamera uses of harvesters.core.Harvester and of its acquirers and buffers."""

    frames: tuple[Any, ...] = ()
    log: tuple[Any, ...] = ()

    def __init__(self) -> None:
        Harvester.log = ()
        self.coming = iter(Harvester.frames)

    def note(self, *event: Any) -> None:
        Harvester.log += (event if len(event) > 1 else event[0],)

    def add_file(self, path: str) -> None:
        self.note("add", path)

    def update(self) -> None:
        self.note("update")

    def reset(self) -> None:
        self.note("reset")

    def create(self, which: Any) -> Any:
        self.note("create", which)
        if which == 7:
            raise ValueError("no device found")
        return SimpleNamespace(
            start=lambda: self.note("start"),
            stop=lambda: self.note("stop"),
            destroy=lambda: self.note("destroy"),
            fetch=self.fetch,
        )

    def fetch(self, *, timeout: float) -> Any:
        item = next(self.coming, None)
        if item is None:
            raise TimeoutError(f"waited {timeout:g}")
        if item == "incomplete":
            return None
        data_format, data, height, width = item
        part = SimpleNamespace(data_format=data_format, data=data, height=height, width=width)
        payload = SimpleNamespace(components=[part])
        return SimpleNamespace(payload=payload, queue=lambda: self.note("queue"))


@pytest.fixture
def harvesters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A source's name whose producer is there; harvesters is the stand-in."""
    package, core = ModuleType("harvesters"), ModuleType("harvesters.core")
    package.__spec__ = SimpleNamespace(name="harvesters")  # type: ignore[assignment]
    core.Harvester = Harvester  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harvesters", package)
    monkeypatch.setitem(sys.modules, "harvesters.core", core)
    (tmp_path / "maker.cti").write_bytes(b"")
    return f"genicam:{tmp_path / 'maker.cti'}"


def test_a_genicam_camera(harvesters: str) -> None:
    mono = np.arange(12, dtype=np.uint8)
    bayer = np.zeros((4, 6), np.uint16)
    bayer[::2, ::2] = 4095
    short = ("Mono8", mono[:7], 3, 4)
    Harvester.frames = (
        ("Mono8", mono, 3, 4),
        ("BayerRG12", bayer.ravel(), 4, 6),
        ("RGB8", np.arange(24, dtype=np.uint8), 2, 4),
        "incomplete",
        short,
    )
    source: Any = open_source(harvesters, limit=5, reconnect=False, stall_seconds=1)
    assert Harvester.log[-4:] == ("queue", "stop", "destroy", "reset")  # the check let go again
    got = list(source)
    assert got[0].frame.image[:, :, 0].ravel().tolist() == mono.tolist()
    assert got[1].frame.image[1, 2].tolist() == [255, 0, 0]
    assert got[2].frame.image[0, 1].tolist() == [3, 4, 5]
    assert [one.frame for one in got[3:]] == [None, None]
    assert Harvester.log.count("queue") == 4  # every buffer went back
    assert Harvester.log[1:4] == ("update", ("create", 0), "start")


def test_which_genicam_camera(harvesters: str) -> None:
    Harvester.frames = ()
    GenicamCamera(f"{harvesters}#2").close()
    assert ("create", 2) in Harvester.log and Harvester.log[-1] == "reset"
    GenicamCamera(f"{harvesters}#40012345").close()
    assert ("create", {"serial_number": "40012345"}) in Harvester.log
    with pytest.raises(LostError, match="no device found"):
        GenicamCamera(f"{harvesters}#7")
    assert Harvester.log[-1] == "reset"


def test_a_genicam_camera_that_sends_nothing_or_something_packed(harvesters: str) -> None:
    Harvester.frames = ()
    with pytest.raises(InputError, match=r"TimeoutError: waited 0\.9"):
        open_source(harvesters, stall_seconds=1)
    Harvester.frames = (("Mono12Packed", np.zeros(18, np.uint8), 3, 4),)
    with pytest.raises(InputError, match="sends Mono12Packed; set its PixelFormat"):
        open_source(harvesters, stall_seconds=1)
    assert pixel_of("BayerGB10") == "gbrg10" and pixel_of("BGR8") == "bgr8"


def test_genicam_without_harvesters(tmp_path: Path) -> None:
    (tmp_path / "maker.cti").write_bytes(b"")
    spec = f"genicam:{tmp_path / 'maker.cti'}"
    try:
        import harvesters  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(MachineError, match=r"pip install 'ndp-edge\[genicam\]'"):
            open_source(spec)
    else:
        pytest.skip("harvesters is installed here")
