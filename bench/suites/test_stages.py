"""The stages of a verdict around the engine, and the parts of the net in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from ndp_edge.image import to_square
from ndp_edge.model.config import preset
from ndp_edge.postprocess import find_defects, smooth_max

QUICK = {"min_rounds": 20, "max_time": 0.5}
SLOW = {"warmup": True, "warmup_iterations": 1, "min_rounds": 5, "max_time": 1}


@pytest.fixture(scope="module")
def defective_map() -> NDArray[np.float32]:
    """A map [1, 256, 256] with three bright regions on a quiet ground."""
    rng = np.random.default_rng(0)
    found = rng.uniform(0, 0.2, (1, 256, 256)).astype(np.float32)
    for y, x in ((20, 30), (120, 200), (200, 80)):
        found[0, y : y + 30, x : x + 20] += 0.7
    return found


@pytest.mark.parametrize("side", [256, 512, 1024])
@pytest.mark.benchmark(group="prepare", **QUICK)
def test_prepare(benchmark: BenchmarkFixture, side: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    assert benchmark(to_square, frame, 256).shape == (256, 256, 3)


@pytest.mark.benchmark(group="judge", **QUICK)
def test_smooth_max(benchmark: BenchmarkFixture, defective_map: NDArray[np.float32]) -> None:
    _, scores = benchmark(smooth_max, defective_map)
    assert 0.6 < scores[0] <= 0.9


@pytest.mark.benchmark(group="judge", **QUICK)
def test_find_defects(benchmark: BenchmarkFixture, defective_map: NDArray[np.float32]) -> None:
    smoothed, _ = smooth_max(defective_map)
    assert len(benchmark(find_defects, smoothed[0], 0.5)) == 3


@pytest.fixture(scope="module")
def parts() -> dict[str, Callable[[], Any]]:
    """Encoder, RBAMs, decoder and MSDSM of a fresh `nano` net, each on what the one before gave."""
    torch = pytest.importorskip("torch")
    from ndp_edge.model.network import NDPNet

    torch.manual_seed(0)
    net = NDPNet(preset("nano")).eval()
    image = torch.rand(1, 3, 256, 256)
    net.set_reference(image)
    with torch.inference_mode():
        features = net.encoder(image)
        repaired = net.repair(features[2:])
        again = net.encoder(net.decoder(*repaired), depth=3)
    works = {
        "encoder": lambda: net.encoder(image),
        "rbam": lambda: net.repair(features[2:]),
        "decoder": lambda: net.decoder(*repaired),
        "msdsm": lambda: net.msdsm(features[:3], again),
    }

    def inferring(work: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return work()

        return call

    return {name: inferring(work) for name, work in works.items()}


@pytest.mark.parametrize("part", ["encoder", "rbam", "decoder", "msdsm"])
@pytest.mark.benchmark(group="net in torch, nano", **SLOW)
def test_part(benchmark: BenchmarkFixture, parts: dict[str, Callable[[], Any]], part: str) -> None:
    assert benchmark(parts[part]) is not None
