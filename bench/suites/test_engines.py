"""Every engine on uint8 images, alone and from decoded frames to verdicts.

    pytest bench/ --benchmark-only --benchmark-autosave
    pytest bench/ --benchmark-only --benchmark-compare --benchmark-compare-fail=median:25%

The engines do not take turns here, so on a shared machine compare with care: the gate that
is meant to be relied on is `python -m ndp_edge.bench --baseline`.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ndp_edge.bench.contenders import Net, open_infer
from ndp_edge.bench.rounds import Row, Run
from ndp_edge.bench.sensors import Sensors
from ndp_edge.bench.torch_side import Infer

FEW = {"warmup": True, "warmup_iterations": 2, "min_rounds": 5, "max_time": 0.5}


@pytest.mark.benchmark(group="engine", **FEW)
def test_infer(benchmark: BenchmarkFixture, infer: Infer, net: Net) -> None:
    images = net.frames.images[:1]
    maps = benchmark(infer, images)
    assert maps.shape == images.shape[:3]
    assert np.isfinite(maps).all()


@pytest.mark.benchmark(group="end to end", **FEW)
def test_frame_to_verdict(benchmark: BenchmarkFixture, infer: Infer, net: Net) -> None:
    row = Row("engine", 1, infer, {})
    run = Run([row], lambda: None, net.frames, Sensors())
    times = benchmark(run.call, row, 0)
    assert times["total"] >= times["infer"] > 0


@pytest.mark.parametrize("batch", [4, 8])
@pytest.mark.benchmark(group="tile batches", **FEW)
def test_tile_batch(benchmark: BenchmarkFixture, net: Net, batch: int) -> None:
    pytest.importorskip("openvino")
    with ExitStack() as stack:
        infer, _ = open_infer("openvino-int8", net, stack, threads=None)
        maps = benchmark(infer, net.frames.batch(0, batch))
    assert len(maps) == batch
