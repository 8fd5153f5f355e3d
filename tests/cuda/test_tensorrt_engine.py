"""The TensorRT engine over the fake device: order, overlap, errors, memory, refusals."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_trt import SIZE, FakeTrt, answer, plan_bytes
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndp_edge.cuda.base import CudaError
from ndp_edge.engines.sidecar import Sidecar, write_sidecar
from ndp_edge.engines.tensorrt_engine import TensorRtEngine, split
from ndp_edge.errors import InputError, MachineError

SIDECAR = Sidecar(
    backend="tensorrt", version="10.3.0", precision="int8", variant="native", batches=(1,),
    sm="sm87", gpu="Fake GPU", cuda="12.6", onnx="0" * 64, source="model.int8.onnx",
)  # fmt: skip
Opened = tuple[TensorRtEngine, FakeCuda]


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def write_plan(folder: Path, batches: tuple[int, ...] = (1,), **changed: Any) -> Path:
    """A plan with its sidecar in a bundle's folder; `changed` alters the sidecar or the plan."""
    names = {field.name for field in dataclasses.fields(Sidecar)}
    beside = {key: value for key, value in changed.items() if key in names}
    inside = {key: value for key, value in changed.items() if key not in names}
    plan = folder / "bundle" / "engines" / "made.plan"
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(plan_bytes(batches, **inside))
    write_sidecar(plan, dataclasses.replace(SIDECAR, batches=batches, **beside))
    return plan


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens engines over fresh devices, closes them, and sees that nothing is left alive."""
    made: list[Opened] = []

    def open_one(batches: tuple[int, ...] = (1,), *, graphs: bool = True, **more: Any) -> Opened:
        cuda = FakeCuda(graphs=graphs)
        trt = FakeTrt(cuda)
        plan = write_plan(tmp_path, batches, **more)
        engine = TensorRtEngine(plan, "int8", trt=trt, cuda=cuda)
        made.append((engine, cuda))
        return engine, cuda

    yield open_one
    for engine, cuda in made:
        engine.close()
        assert cuda.released == 1
        assert cuda.depth == 0
        assert cuda.dead or +cuda.alive == {}


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("batches", [(1,), (1, 4), (4,)])
@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_answers(
    opened: Callable[..., Opened], batches: tuple[int, ...], count: int, graphs: bool
) -> None:
    engine, cuda = opened(batches, graphs=graphs)
    images = pictures(count)
    maps = engine.infer(images)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, answer(images))
    assert bool(cuda.graph_launches) == graphs
    assert engine.infer(images[:, :, ::-1]).shape == (count, *SIZE)


def test_batches_are_split_and_the_rest_is_padded() -> None:
    assert split(8, (1, 8)) == [(0, 8, 8)]
    assert split(19, (1, 8)) == [(0, 8, 8), (8, 8, 8), (16, 1, 1), (17, 1, 1), (18, 1, 1)]
    assert split(3, (8,)) == [(0, 3, 8)]
    assert split(7, (2, 4)) == [(0, 4, 4), (4, 2, 2), (6, 1, 2)]


def test_two_batches_overlap_and_a_third_waits_for_the_first(
    opened: Callable[..., Opened],
) -> None:
    engine, cuda = opened()
    begun = len(cuda.log)
    tickets = [engine.submit(pictures(1, seed)) for seed in (1, 2)]
    assert len(cuda.log) == begun, "neither was waited for"
    tickets.append(engine.submit(pictures(1, 3)))
    assert cuda.log[begun:] == ["cuMemcpyHtoDAsync", "net", "cuMemcpyDtoHAsync"]
    for seed, ticket in reversed(list(enumerate(tickets, 1))):
        np.testing.assert_array_equal(engine.collect(ticket), answer(pictures(1, seed)))
    with pytest.raises(InputError, match="not waiting"):
        engine.collect(tickets[0])


def test_the_callers_images_and_answers_are_its_own(opened: Callable[..., Opened]) -> None:
    engine, _ = opened()
    images = pictures(1)
    expected = answer(images)
    ticket = engine.submit(images)
    images[:] = 0
    first = engine.collect(ticket)
    for seed in range(4):
        engine.infer(pictures(1, seed))
    np.testing.assert_array_equal(first, expected)


@given(st.lists(st.one_of(st.integers(1, 9), st.just(0), st.just(-1)), max_size=14), st.booleans())
def test_any_interleaving(steps: list[int], graphs: bool) -> None:
    """n > 0 submits n images, 0 collects the oldest ticket, -1 the newest; -1 and 0 may repeat."""
    cuda = FakeCuda(graphs=graphs)
    engine = _over(cuda, (2, 4))
    made = cuda.made
    waiting: list[tuple[int, NDArray[np.uint8]]] = []
    for seed, step in enumerate(steps):
        if step > 0:
            images = pictures(step, seed)
            waiting.append((engine.submit(images), images))
        elif waiting:
            ticket, images = waiting.pop(step)
            np.testing.assert_array_equal(engine.collect(ticket), answer(images))
    assert cuda.made == made, "a frame allocated"
    engine.close()
    assert +cuda.alive == {}


_FOLDER: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    _FOLDER[:] = [tmp_path_factory.mktemp("plans")]


def _over(cuda: FakeCuda, batches: tuple[int, ...]) -> TensorRtEngine:
    """An engine for hypothesis, which shares one folder between its examples."""
    return TensorRtEngine(write_plan(_FOLDER[0], batches), "int8", trt=FakeTrt(cuda), cuda=cuda)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("piece", [1, 2, 3])
def test_an_error_inside_a_frame_surfaces_on_that_frame(
    opened: Callable[..., Opened], piece: int, graphs: bool
) -> None:
    """Copy in, net, copy out of the second of four frames, inside its graph where there is one."""
    engine, cuda = opened(graphs=graphs)
    cuda.fail_work(3 + piece)
    tickets = [engine.submit(pictures(1, seed)) for seed in range(4)]
    for seed, ticket in enumerate(tickets):
        if seed == 1:
            with pytest.raises(CudaError, match=r"failed: CUDA_ERROR_ILLEGAL_ADDRESS \(700\)"):
                engine.collect(ticket)
        else:
            np.testing.assert_array_equal(engine.collect(ticket), answer(pictures(1, seed)))
    np.testing.assert_array_equal(engine.infer(pictures(1)), answer(pictures(1)))


def test_a_crashed_kernel_fails_its_frame_and_those_after_it_and_no_earlier(
    opened: Callable[..., Opened],
) -> None:
    engine, cuda = opened()
    good = engine.submit(pictures(1))
    cuda.fail_work(5, sticky=True)
    bad = engine.submit(pictures(1, 1))
    np.testing.assert_array_equal(engine.collect(good), answer(pictures(1)))
    later = engine.submit(pictures(1, 2))
    for ticket in (bad, later, engine.submit(pictures(1, 3))):
        with pytest.raises(CudaError, match="700"):
            engine.collect(ticket)


def test_the_first_error_is_not_hidden_by_what_the_driver_says_while_closing(
    opened: Callable[..., Opened],
) -> None:
    engine, cuda = opened()
    cuda.fail_work(2, sticky=True)
    with pytest.raises(CudaError, match="net failed"), engine:
        engine.infer(pictures(1))
    assert cuda.released == 1


@pytest.mark.parametrize("call", ["enqueueV3", "cuEventRecord", "cuEventSynchronize"])
def test_a_call_that_fails_does_so_in_its_own_collect(
    opened: Callable[..., Opened], call: str
) -> None:
    """And the slot that it left half filled is drained before it is filled again."""
    engine, cuda = opened(graphs=False)
    before = engine.submit(pictures(1))
    np.testing.assert_array_equal(engine.collect(before), answer(pictures(1)))
    cuda.fail_call(call)
    failing = engine.submit(pictures(1, 1))
    with pytest.raises(CudaError, match=call):
        engine.collect(failing)
    for seed in range(3):
        np.testing.assert_array_equal(engine.infer(pictures(1, seed)), answer(pictures(1, seed)))


def test_a_refusal_of_the_library_is_one_line(tmp_path: Path) -> None:
    cuda = FakeCuda(graphs=False)
    trt = FakeTrt(cuda)
    with TensorRtEngine(write_plan(tmp_path), "int8", trt=trt, cuda=cuda) as engine:
        trt.refuse_enqueue = 1
        with pytest.raises(MachineError, match="TensorRT could not run: no tactic left"):
            engine.infer(pictures(1))
        np.testing.assert_array_equal(engine.infer(pictures(1)), answer(pictures(1)))


def test_closing_with_work_under_way_waits_and_frees_in_the_librarys_order(tmp_path: Path) -> None:
    cuda = FakeCuda()
    trt = FakeTrt(cuda)
    engine = TensorRtEngine(write_plan(tmp_path), "int8", trt=trt, cuda=cuda)
    ticket = engine.submit(pictures(1))
    engine.close()
    engine.close()
    assert trt.ends == [[]], "the plan went before its graphs, its work or its context"
    assert +cuda.alive == {}
    assert (cuda.released, cuda.depth) == (1, 0)
    with pytest.raises(InputError, match="closed"):
        engine.collect(ticket)


@pytest.mark.parametrize("nth", range(1, 12))
@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemHostAlloc", "cuStreamSynchronize"])
def test_an_engine_that_cannot_open_leaves_nothing(tmp_path: Path, call: str, nth: int) -> None:
    cuda = FakeCuda()
    trt = FakeTrt(cuda)
    cuda.fail_call(call, nth)
    try:
        engine = TensorRtEngine(write_plan(tmp_path, (1, 4)), "int8", trt=trt, cuda=cuda)
    except CudaError as error:
        assert f"{call} failed: planned by the test (2)" in str(error)
    else:
        assert cuda.calls[call] < nth, "the planned failure never came"
        engine.close()
    assert trt.ends == [[]]
    assert +cuda.alive == {}
    assert (cuda.released, cuda.depth) == (1, 0)


@pytest.mark.parametrize(("nth", "words"), [(3, "for batch 2 alone"), (6, "for batch 1 alone")])
def test_a_graph_that_cannot_be_captured_is_told_and_done_without(
    tmp_path: Path, nth: int, words: str
) -> None:
    """Each third run of the net is the one in a capture, behind two that warm up."""
    cuda = FakeCuda()
    cuda.fail_call("enqueueV3", nth, code=900)
    plan = write_plan(tmp_path, (1, 2))
    with TensorRtEngine(plan, "int8", trt=FakeTrt(cuda), cuda=cuda, slots=1) as engine:
        told = engine.describe()["graphs"]
        assert told.startswith(f"{words}: the graph could not be captured: enqueueV3")
        np.testing.assert_array_equal(engine.infer(pictures(3)), answer(pictures(3)))
        assert cuda.graph_launches == 1


def test_another_thread_may_use_the_engine_and_is_left_as_it_was(
    opened: Callable[..., Opened],
) -> None:
    engine, cuda = opened()
    seen: dict[str, Any] = {}

    def work() -> None:
        ticket = engine.submit(pictures(1))
        seen["maps"] = engine.collect(ticket)
        seen["depth"] = cuda.depth

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(seen["maps"], answer(pictures(1)))
    assert (seen["depth"], cuda.depth) == (0, 0)


def test_describe(opened: Callable[..., Opened]) -> None:
    engine, _ = opened((1, 4))
    told = engine.describe()
    assert told["backend"] == "tensorrt"
    assert told["device"] == "Fake GPU"
    assert told["sm"] == "sm87"
    assert told["versions"] == {"tensorrt": "10.3.0", "fake": "0", "driver": "12.6"}
    assert told["graphs"] == "one per batch size"
    assert told["batches"] == [1, 4]
    assert "jit_cache" not in told
    json.dumps(told)
