"""Cameras that stop, stall, or send what cannot be decoded; made of scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.runtime.reconnecting import Backoff, LiveSource, LostError
from ndp_edge.runtime.sources import Captured

FAST = Backoff(0.001, 0.01)
STALL = 0.25


class Fake:
    """A connection that plays a script: an array is a frame, None one that cannot be decoded,
    a number seconds to hang; at the script's end it is lost. An exception is raised."""

    pixel = "auto"
    open_now = 0
    most_open = 0
    wake = threading.Event()

    def __init__(self, script: Sequence[Any]) -> None:
        self.script = iter(script)
        self.frame: NDArray[Any] | None = None
        Fake.open_now += 1
        Fake.most_open = max(Fake.most_open, Fake.open_now)

    def wait(self) -> None:
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            if not isinstance(item, float):
                self.frame = item
                return
            Fake.wake.wait(item)
        raise LostError("it ended")

    def take(self) -> NDArray[Any] | None:
        return self.frame

    def close(self) -> None:
        Fake.open_now -= 1


@pytest.fixture(autouse=True)
def no_devices_left() -> Iterator[None]:
    Fake.open_now = Fake.most_open = 0
    Fake.wake = threading.Event()
    yield
    Fake.wake.set()  # whoever still hangs
    end = time.monotonic() + 5
    while Fake.open_now and time.monotonic() < end:
        time.sleep(0.01)
    assert Fake.open_now == 0


def gray(level: int) -> NDArray[np.uint8]:
    return np.full((8, 8), level, np.uint8)


def fake_source(*scripts: Any, **options: Any) -> LiveSource:
    """Each connection plays the next script; a script that is an exception cannot be opened."""
    waiting = list(scripts)

    def connect() -> Fake:
        script = waiting.pop(0) if waiting else LostError("no more")
        if isinstance(script, Exception):
            raise script
        return Fake(script)

    settings = {"stall_seconds": STALL, "backoff": FAST, **options}
    return LiveSource("fake", connect, **settings)


def levels(got: Sequence[Captured]) -> list[int | None]:
    return [None if one.frame is None else int(one.frame.image[0, 0, 0]) for one in got]


def test_it_goes_on_through_losses_and_counts_them() -> None:
    source = fake_source(
        [gray(1), gray(2)],
        LostError("not yet"),
        RuntimeError("a driver's own"),
        [gray(3), RuntimeError("pulled out")],
        [gray(4), gray(5)],
        limit=5,
    )
    got = list(source)
    assert levels(got) == [1, 2, 3, 4, 5]
    assert [one.name for one in got] == [f"{number:06}" for number in range(5)]
    assert source.live and source.names is None and source.reconnects == 2


def test_resumed_with_a_lower_limit_than_it_had_it_ends_at_once() -> None:
    done = [f"{number:06}" for number in range(25)]
    assert list(fake_source([gray(1)], skip=done, limit=10)) == []


def test_one_that_hangs_is_left_and_opened_again(capsys: pytest.CaptureFixture[str]) -> None:
    source = fake_source([gray(1), 1.0, gray(9)], [gray(2), gray(3)], limit=3)
    began = time.monotonic()
    assert levels(list(source)) == [1, 2, 3]
    assert STALL <= time.monotonic() - began < 0.9
    assert source.reconnects == 1
    told = capsys.readouterr().err
    assert "fake is lost (no frame for 0.25 s)" in told and "fake is back" in told


def test_few_connections_hang_at_once() -> None:
    source = fake_source(*([[1.2]] * 6), [gray(1)], limit=1, stall_seconds=0.05)
    assert levels(list(source)) == [1]
    assert Fake.most_open <= 4


def test_a_broken_frame_is_a_frame_and_no_loss() -> None:
    source = fake_source([gray(1), None, np.zeros((4, 4), np.float32), gray(2)], limit=4)
    got = list(source)
    assert levels(got) == [1, None, None, 2] and source.reconnects == 0
    assert "cannot be decoded" in str(got[1].error) and "float32" in str(got[2].error)


def test_the_size_may_change() -> None:
    source = fake_source([gray(1), np.zeros((5, 7, 3), np.uint8), gray(3)], limit=3)
    sizes = [one.frame.image.shape for one in source if one.frame is not None]
    assert sizes == [(8, 8, 3), (5, 7, 3), (8, 8, 3)]


def test_a_format_of_its_own_and_one_that_was_asked_for() -> None:
    deep = np.full((4, 4), 4095, np.uint16)
    (auto,) = fake_source([deep], limit=1)
    (asked,) = fake_source([deep], limit=1, pixel="mono12")
    assert levels([auto, asked]) == [16, 255]


def test_going_on_behind_a_former_run() -> None:
    source = fake_source([gray(1)] * 9, skip=["000000", "000004", "x.png"], limit=7)
    assert [one.name for one in source] == ["000005", "000006"]


def test_without_reconnecting_the_first_loss_is_the_end() -> None:
    source = fake_source([gray(1)], [gray(2)], reconnect=False)
    frames = iter(source)
    assert levels([next(frames)]) == [1]
    with pytest.raises(InputError, match="--source fake: it ended"):
        next(frames)


@pytest.mark.parametrize("script", [[5.0], LostError("gone"), [gray(1), 5.0]])
def test_closing_ends_it_at_once(script: Any) -> None:
    source = fake_source(script, *[LostError("gone")] * 99, stall_seconds=9, backoff=Backoff(9, 9))
    ended = threading.Event()

    def read() -> None:
        list(source)
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    time.sleep(0.1)
    began = time.monotonic()
    source.close()
    assert ended.wait(3) and time.monotonic() - began < 2


def test_a_slow_taker_holds_the_camera_back_and_sees_the_waiting_time() -> None:
    source = fake_source([gray(1), gray(2), gray(3)], limit=3, stall_seconds=0.1)
    got = []
    for one in source:
        got.append(one)
        time.sleep(0.2)  # longer than the stall time, which is the camera's, not the taker's
    assert levels(got) == [1, 2, 3] and source.reconnects == 0
    assert got[1].read_ms > 100


def test_backoff_doubles_up_to_its_limit_with_jitter() -> None:
    backoff = Backoff(0.5, 30)
    for tries, longest in [(0, 0.5), (1, 1), (2, 2), (5, 16), (6, 30), (1000, 30)]:
        waits = [backoff.seconds(tries) for _ in range(200)]
        assert longest / 2 <= min(waits) and max(waits) <= longest
        assert max(waits) - min(waits) > longest / 5


def test_a_wrong_camera_is_told_before_the_run() -> None:
    with pytest.raises(InputError, match="fake: gone"):
        fake_source(LostError("gone")).check()
    with pytest.raises(InputError, match="no frame within"):
        fake_source([0.3], stall_seconds=0.05).check()
    fake_source([gray(1)]).check()
