"""GenICam cameras, through a stand-in for harvesters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_edge.errors import InputError, MachineError
from ndp_edge.runtime.genicam import GenicamCamera, pixel_of
from ndp_edge.runtime.opening import open_source
from ndp_edge.runtime.reconnecting import LostError


class Harvester:
    """What GenicamCamera uses of harvesters 1.4: Harvester, its acquirers and their buffers."""

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


def test_a_camera_that_is_gone_is_freed_all_the_same(harvesters: str) -> None:
    """Otherwise its producer keeps the handle, and every try to get it back finds it busy."""
    camera = GenicamCamera(harvesters, 1)

    def pulled_out() -> None:
        raise RuntimeError("no such device")

    camera._camera.stop = pulled_out
    with pytest.raises(RuntimeError, match="no such device"):
        camera.close()
    assert Harvester.log[-2:] == ("destroy", "reset")


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
