"""The fake device is as strict as it says: a fake that lets a race pass proves nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_parts import POISON, RaceError
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.cuda.base import CannotCaptureError, CudaError


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    """A device with its context current."""
    made = FakeCuda()
    with made.current():
        yield made


def test_nothing_happens_before_somebody_waits(cuda: FakeCuda) -> None:
    source, target = cuda.pinned(4), cuda.pinned(4)
    device, stream = cuda.device(4), cuda.stream()
    source.array[:] = 5
    cuda.copy_in(device, source, 4, stream)
    cuda.copy_out(target, device, 3, stream)
    assert cuda.log == []
    stream.synchronize()
    assert cuda.log == ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"]
    assert target.array.tolist() == [5, 5, 5, POISON]


@pytest.mark.parametrize(
    "use", [lambda b: b.array, lambda b: b.free()], ids=["read or refill", "free"]
)
def test_a_buffer_in_flight_is_untouchable(cuda: FakeCuda, use: Callable[..., object]) -> None:
    pinned, device, stream = cuda.pinned(4), cuda.device(4), cuda.stream()
    cuda.copy_in(device, pinned, 4, stream)
    with pytest.raises(RaceError, match="in flight"):
        use(pinned)
    with pytest.raises(RaceError, match="in flight"):
        device.free()
    stream.synchronize()
    use(pinned)
    device.free()


def test_an_event_frees_what_lies_before_it_and_no_more(cuda: FakeCuda) -> None:
    first, second, stream, mark = cuda.pinned(4), cuda.pinned(4), cuda.stream(), cuda.event()
    device = cuda.device(4)
    cuda.copy_in(device, first, 4, stream)
    mark.record(stream)
    cuda.copy_in(device, second, 4, stream)
    mark.synchronize()
    assert len(first.array) == 4
    with pytest.raises(RaceError):
        _ = second.array


def test_two_streams_on_one_buffer_need_an_event(cuda: FakeCuda) -> None:
    pinned, out = cuda.pinned(4), cuda.pinned(4)
    device, one, two, mark = cuda.device(4), cuda.stream(), cuda.stream(), cuda.event()
    pinned.array[:] = 9
    cuda.copy_in(device, pinned, 4, one)
    with pytest.raises(RaceError, match="race"):
        cuda.copy_out(out, device, 4, two)
    mark.record(one)
    cuda.wait(two, mark)
    cuda.copy_out(out, device, 4, two)
    two.synchronize()
    assert out.array.tolist() == [9] * 4


def test_a_graph_is_captured_without_being_done_and_launched_as_one(cuda: FakeCuda) -> None:
    pinned, out, device, stream = cuda.pinned(4), cuda.pinned(4), cuda.device(4), cuda.stream()

    def work() -> None:
        cuda.copy_in(device, pinned, 4, stream)
        cuda.copy_out(out, device, 4, stream)

    graph = cuda.capture(stream, work)
    stream.synchronize()
    assert cuda.log == []
    for value in (1, 2):
        pinned.array[:] = value
        graph.launch(stream)
        stream.synchronize()
        assert out.array.tolist() == [value] * 4
    with pytest.raises(CannotCaptureError, match="900"):
        cuda.capture(stream, stream.synchronize)
    with pytest.raises(CannotCaptureError, match="no graphs"):
        FakeCuda(graphs=False).capture(stream, work)


def test_an_error_surfaces_where_somebody_waits_and_drops_the_rest(cuda: FakeCuda) -> None:
    pinned, device, stream = cuda.pinned(4), cuda.device(4), cuda.stream()
    cuda.fail_work(2)
    for _ in range(3):
        cuda.copy_in(device, pinned, 4, stream)
    with pytest.raises(CudaError, match=r"cuMemcpyHtoDAsync failed.*700") as caught:
        stream.synchronize()
    assert (caught.value.call, caught.value.code) == ("cuMemcpyHtoDAsync", 700)
    assert len(cuda.log) == 2
    stream.synchronize()
    assert len(pinned.array) == 4


def test_a_sticky_error_ends_the_context(cuda: FakeCuda) -> None:
    pinned, device, stream = cuda.pinned(4), cuda.device(4), cuda.stream()
    cuda.fail_work(1, sticky=True)
    cuda.copy_in(device, pinned, 4, stream)
    for use in (stream.synchronize, cuda.stream, lambda: cuda.copy_in(device, pinned, 4, stream)):
        with pytest.raises(CudaError, match="700"):
            use()


def test_without_a_push_no_call_works(cuda: FakeCuda) -> None:
    seen = []

    def other() -> None:
        try:
            cuda.stream()
        except CudaError as error:
            seen.append(error.code)
        with cuda.current(), cuda.current():
            cuda.stream()
        seen.append(cuda.depth)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [201, 0]
    assert cuda.depth == 1


def test_close_frees_everything_newest_first_even_what_is_in_flight() -> None:
    cuda = FakeCuda()
    with cuda.current():
        pinned, device, stream = cuda.pinned(4), cuda.device(4), cuda.stream()
        cuda.event().free()
        cuda.copy_in(device, pinned, 4, stream)
        assert +cuda.alive == {"pinned": 1, "device": 1, "stream": 1}
    cuda.close()
    cuda.close()
    assert +cuda.alive == {}
    assert cuda.released == 1
    assert cuda.depth == 0


def test_close_goes_on_behind_a_refusal_and_tells_the_first() -> None:
    cuda = FakeCuda()
    with cuda.current():
        for _ in range(3):
            cuda.device(4)
    cuda.fail_call("free device", 1, code=400)
    with pytest.raises(CudaError, match=r"free device failed.*400"):
        cuda.close()
    assert cuda.alive["device"] == 1
    assert cuda.released == 1


def test_a_copy_must_fit(cuda: FakeCuda) -> None:
    small, large, stream = cuda.pinned(4), cuda.device(8), cuda.stream()
    for size in (0, 5):
        with pytest.raises(ValueError, match="a copy of"):
            cuda.copy_in(large, small, size, stream)
        with pytest.raises(ValueError, match="a copy of"):
            cuda.copy_out(small, large, size, stream)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 255)), max_size=12))
def test_streams_keep_their_order(steps: list[tuple[int, int]]) -> None:
    """Each stream ends with its own last value, however the streams were interleaved."""
    cuda = FakeCuda()
    with cuda.current():
        lanes = [(cuda.device(1), cuda.pinned(1), cuda.stream()) for _ in range(3)]
        held = []
        for lane, value in steps:
            device, out, stream = lanes[lane]
            source = cuda.pinned(1)
            source.array[:] = value
            held.append(source)
            cuda.copy_in(device, source, 1, stream)
            cuda.copy_out(out, device, 1, stream)
        for lane, (_, out, stream) in enumerate(lanes):
            stream.synchronize()
            last = [value for number, value in steps if number == lane][-1:] or [POISON]
            np.testing.assert_array_equal(out.array, last)
    cuda.close()
    assert +cuda.alive == {}
