"""The CUDA layer on a real card, through each package that is installed there."""

from __future__ import annotations

import numpy as np
import pytest

from ndp_edge.cuda import BACKENDS, open_cuda
from ndp_edge.cuda.base import CannotCaptureError, Cuda
from ndp_edge.errors import MachineError

pytestmark = pytest.mark.gpu
SIZE = 1 << 20


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_come_back_and_a_graph_replays(backend: str) -> None:
    try:
        cuda = open_cuda(backend)
    except MachineError as error:
        pytest.skip(str(error))
    try:
        with cuda.current():
            _round_trip(cuda)
        told = cuda.describe()
        assert told["sm"] >= 50
        assert told["memory"] > SIZE
    finally:
        cuda.close()


def _round_trip(cuda: Cuda) -> None:
    source, target = cuda.pinned(SIZE), cuda.pinned(SIZE)
    device, stream = cuda.device(SIZE), cuda.stream()
    began, ended = cuda.event(), cuda.event()

    def work() -> None:
        cuda.copy_in(device, source, SIZE, stream)
        cuda.copy_out(target, device, SIZE, stream)

    rng = np.random.default_rng(0)
    source.array[:] = rng.integers(0, 256, SIZE, dtype=np.uint8)
    began.record(stream)
    work()
    ended.record(stream)
    ended.synchronize()
    assert began.elapsed_ms(ended) > 0
    np.testing.assert_array_equal(target.array, source.array)
    if cuda.no_graphs is not None:
        with pytest.raises(CannotCaptureError):
            cuda.capture(stream, work)
        return
    graph = cuda.capture(stream, work)
    for _ in range(2):
        source.array[:] = rng.integers(0, 256, SIZE, dtype=np.uint8)
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(target.array, source.array)
