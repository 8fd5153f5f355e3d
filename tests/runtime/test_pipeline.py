"""The pipeline: order kept, every frame out exactly once, bounded whatever is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Kit
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.errors import InputError, MachineError, NdpError
from ndp_edge.runtime.inspect import Judge
from ndp_edge.runtime.layout import Layout
from ndp_edge.runtime.observing import Control
from ndp_edge.runtime.pipeline import Pipeline
from ndp_edge.runtime.sources import Captured
from ndp_edge.runtime.work import Dropped, Work
from ndp_edge.types import Frame

SIZE = 64


def captured(name: str, height: int = SIZE, width: int = SIZE, value: int = 60) -> Captured:
    image = np.full((height, width, 3), value, np.uint8)
    return Captured(name, time.time(), Frame(name, image, time.time()), None, 0.0)


class Frames:
    """A source out of a list; `live` and pauses as told."""

    def __init__(self, frames: list[Captured], live: bool = False, period: float = 0.0) -> None:
        self.frames = frames
        self.live = live
        self.period = period
        self.taken = 0
        self.closed = False

    def __iter__(self) -> Iterator[Captured]:
        for frame in self.frames:
            time.sleep(self.period)
            self.taken += 1
            yield frame

    def close(self) -> None:
        self.closed = True


def made(engine: Any, source: Any, control: Control | None = None, **options: Any) -> Pipeline:
    judge = Judge(control or Control(0.5), "bundle")
    return Pipeline(engine, source, Layout(SIZE), judge, **options)


def told(item: Work | Dropped) -> tuple[str, str]:
    if isinstance(item, Dropped):
        return item.name, item.why
    assert item.result is not None
    return item.name, "error" if item.error else item.result.verdict


def drain(pipeline: Pipeline) -> list[tuple[str, str]]:
    with pipeline:
        return [told(item) for item in pipeline if item is not None]


sides = st.sampled_from([(SIZE, SIZE), (SIZE, 3 * SIZE), (100, 70), (30, 30), (20, 90)])
kinds = st.lists(st.tuples(sides, st.sampled_from([1, 60, 204, None])), max_size=12)


@given(kinds=kinds, in_flight=st.integers(1, 5), queue=st.integers(1, 3), batch=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_frame_comes_out_once_and_in_order(
    kinds: list[tuple[tuple[int, int], int | None]], in_flight: int, queue: int, batch: int
) -> None:
    """Sizes change from frame to frame; some are unreadable, too small, or broken by the engine."""
    frames = [
        Captured(str(i), 0.0, None, "torn", 0.0) if v is None else captured(str(i), *side, v)
        for i, (side, v) in enumerate(kinds)
    ]
    engine = brightness_engine()
    engine.batch = batch
    found = drain(made(engine, Frames(frames), in_flight=in_flight, queue=queue))
    assert [name for name, _ in found] == [frame.name for frame in frames]
    for (_, verdict), (side, value) in zip(found, kinds, strict=True):
        square_too_small = side[0] == side[1] < SIZE
        broken = value in (None, 1) or square_too_small  # 1: the engine answers NaN
        assert verdict == ("error" if broken else "reject" if value == 204 else "ok")
    assert engine._pending == {}


def brightness_engine() -> Any:
    """The conftest's engine, for tests that hypothesis runs many times over."""
    from ndp_edge import engines

    return engines.open_engine("openvino", Path("x"), precision="int8")


def test_tiles_of_one_frame_share_one_verdict(kit: Kit) -> None:
    frame = captured("wide", SIZE, 5 * SIZE)
    assert frame.frame is not None
    frame.frame.image[20:30, 200:220] = 204
    with made(kit.Brightness("int8", (SIZE, SIZE)), Frames([frame])) as pipeline:
        work = next(item for item in pipeline if item is not None)
        assert isinstance(work, Work) and work.result is not None
        assert work.result.verdict == "reject"
        (defect,) = work.result.defects
        assert defect.box == (200, 20, 20, 10)
        assert work.smoothed is not None and work.smoothed.shape == (SIZE, 5 * SIZE)
        assert work.plan is not None and len(work.scores) == work.plan.count > 5
        assert max(work.scores) == work.result.score


class Slow:
    """Wraps an engine class so that each answer takes `seconds`."""

    def __new__(cls, kit: Kit, seconds: float) -> Any:
        class Slowed(kit.Brightness):
            def _collect(self, handle: Any) -> NDArray[np.float32]:
                time.sleep(seconds)
                answer: NDArray[np.float32] = handle
                return answer

        return Slowed("int8", (SIZE, SIZE))


def test_a_full_line_lets_the_source_wait(kit: Kit) -> None:
    source = Frames([captured(str(i)) for i in range(60)])
    with made(Slow(kit, 0.0), source, in_flight=2, queue=2) as pipeline:
        items = iter(pipeline)
        next(items)
        time.sleep(0.3)  # nobody takes the verdicts
        stuck = source.taken
        assert stuck < 20
        assert sum(item is not None for item in items) == 59
    assert source.closed


def test_oldest_drops_and_keeps_the_rest_in_order(kit: Kit) -> None:
    source = Frames([captured(str(i)) for i in range(80)], live=True, period=0.002)
    found = drain(made(Slow(kit, 0.02), source, in_flight=1, queue=2, drop="oldest"))
    assert sorted(int(name) for name, _ in found) == list(range(80))
    judged = [int(name) for name, what in found if what == "ok"]
    dropped = [int(name) for name, what in found if what == "queue full"]
    assert judged == sorted(judged)
    assert dropped == sorted(dropped)
    assert len(judged) >= 5
    assert len(dropped) >= 20
    assert judged[-1] == 79  # the newest is never the one given up


def test_frames_that_cannot_make_their_deadline_are_given_up(kit: Kit) -> None:
    """At twice the capacity: what is judged is judged in time, but for a few."""
    source = Frames([captured(str(i)) for i in range(120)], live=True, period=0.01)
    options: dict[str, Any] = {"in_flight": 1, "queue": 50, "drop": "oldest", "deadline_ms": 120.0}
    ages, found = [], []
    with made(Slow(kit, 0.02), source, **options) as pipeline:
        for item in pipeline:
            if isinstance(item, Work):
                ages.append(time.perf_counter() - item.began)
            if item is not None:
                found.append(told(item))
    assert len(found) == 120
    assert {what for _, what in found} == {"ok", "deadline"}
    assert len(ages) >= 20
    assert np.percentile(ages, 90) < 0.2


def test_a_deadline_nobody_can_make_still_lets_a_frame_through_now_and_then(kit: Kit) -> None:
    source = Frames([captured(str(i)) for i in range(60)], live=True, period=0.004)
    options: dict[str, Any] = {"in_flight": 1, "queue": 50, "drop": "oldest", "deadline_ms": 15.0}
    found = [what for _, what in drain(made(Slow(kit, 0.02), source, **options))]
    assert found.count("ok") >= 2
    assert found.count("deadline") >= 20


@pytest.mark.parametrize("live", [True, False])
def test_stop_gives_up_what_waits(kit: Kit, live: bool) -> None:
    source = Frames([captured(str(i)) for i in range(500)], live=live)
    found = []
    with made(Slow(kit, 0.01), source, in_flight=1, queue=4) as pipeline:
        for item in pipeline:
            if item is not None:
                found.append(told(item))
            if len(found) == 3:
                pipeline.stop()
    names = [int(name) for name, _ in found]
    stopped = [name for name, what in found if what == "stopped"]
    assert bool(stopped) == live
    assert sorted(names) == list(range(source.taken if live else len(names)))
    assert source.taken < 40


def test_a_stop_from_outside_is_heard_without_frames(kit: Kit) -> None:
    asked = threading.Event()

    class Silent:
        live = True

        def __iter__(self) -> Iterator[Captured]:
            yield captured("0")
            asked.wait(10)

    threading.Timer(0.2, asked.set).start()
    began = time.monotonic()
    assert drain(made(Slow(kit, 0.0), Silent(), stop=asked.is_set)) == [("0", "ok")]
    assert time.monotonic() - began < 5


def test_a_source_that_fails_has_its_frames_judged_first(kit: Kit) -> None:
    class Dies(Frames):
        def __iter__(self) -> Iterator[Captured]:
            yield from super().__iter__()
            raise MachineError("the camera is gone")

    found = []
    with (
        pytest.raises(MachineError, match="gone"),
        made(Slow(kit, 0.005), Dies([captured(str(i)) for i in range(9)])) as pipeline,
    ):
        for item in pipeline:
            found += [told(item)[0]] if item is not None else []
    assert found == [str(i) for i in range(9)]


@pytest.mark.parametrize("error", [NdpError("sick"), ZeroDivisionError("a bug")])
def test_an_engine_that_fails(kit: Kit, error: Exception) -> None:
    """Ours rejects the frame; anything else is a bug, ends the run and is told as it is."""

    class Fails(kit.Brightness):
        calls = 0

        def _collect(self, handle: Any) -> NDArray[np.float32]:
            Fails.calls += 1
            if Fails.calls == 3:
                raise error
            answer: NDArray[np.float32] = handle
            return answer

    pipeline = made(Fails("int8", (SIZE, SIZE)), Frames([captured(str(i)) for i in range(6)]))
    if isinstance(error, NdpError):
        verdicts = [what for _, what in drain(pipeline)]
        assert verdicts == ["ok", "ok", "error", "ok", "ok", "ok"]
    else:
        with pytest.raises(ZeroDivisionError):
            drain(pipeline)


def test_no_thread_outlives_the_pipeline(kit: Kit) -> None:
    before = threading.active_count()
    with made(Slow(kit, 0.01), Frames([captured(str(i)) for i in range(50)])) as pipeline:
        next(iter(pipeline))
    assert threading.active_count() == before


def test_steady_state_borrows_the_same_memory(kit: Kit) -> None:
    source = Frames([captured(str(i), SIZE, 3 * SIZE) for i in range(40)])
    seen = set()
    with made(Slow(kit, 0.0), source, in_flight=2) as pipeline:
        for item in pipeline:
            if isinstance(item, Work) and item.slot is not None:
                seen.add((id(item.slot.maps), id(item.slot.tiles), id(item.slot.smoothed)))
    assert len(seen) <= 4


def test_the_threshold_can_be_turned_while_frames_come(kit: Kit) -> None:
    control = Control(0.5)
    source = Frames([captured(str(i), value=204) for i in range(12)])
    verdicts, audits = [], []
    with made(Slow(kit, 0.0), source, control, in_flight=1, queue=1) as pipeline:
        for item in pipeline:
            if isinstance(item, Work) and item.result is not None:
                verdicts.append((item.result.threshold, item.result.verdict))
                audits.append([entry["to"] for entry in item.audit])
            if len(verdicts) == 2:
                control.set_threshold(0.9, "operator")
    turned = verdicts.index((0.9, "ok"))
    assert 0 < turned < 12
    assert verdicts == [(0.5, "reject")] * turned + [(0.9, "ok")] * (12 - turned)
    assert audits == [[]] * turned + [[0.9]] + [[]] * (11 - turned)


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1, float("inf"), True, "0.5"])
def test_a_threshold_is_a_number_between_0_and_1(value: Any) -> None:
    control = Control(0.5)
    with pytest.raises(InputError, match="threshold"):
        control.set_threshold(value, "operator")
    assert control.read() == (0.5, [])
