"""Golden files hold arrays only, and a replay notices engines that answer otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_edge.errors import InputError
from ndp_edge.golden import Golden, pick, read_golden, replay, tolerance, write_golden
from ndp_edge.scoring import answer, rates

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
MAPS = RNG.random((3, 16, 16), dtype=np.float32)
ALLOWED = {"max_abs": 1e-3, "mean_abs": 1e-4}


class FakeEngine(SimpleNamespace):
    """Answers with brightness, plus an offset; remembers the batches it was given."""

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(images))
        grey: NDArray[np.float32] = images.mean(axis=3).astype(np.float32)
        return np.asarray(grey / 255 + self.offset, np.float32)


def fake(offset: float = 0.0) -> Any:
    return FakeEngine(batches=[], offset=offset)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_golden(tmp_path / "golden.npz", Golden(IMAGES, {"openvino-fp32": MAPS}))
    back = read_golden(tmp_path / "golden.npz")
    np.testing.assert_array_equal(back.images, IMAGES)
    np.testing.assert_array_equal(back.maps["openvino-fp32"], MAPS)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": IMAGES},
        {"images": IMAGES.astype(np.float32), "maps.a": MAPS},
        {"images": IMAGES, "maps.a": MAPS[:2]},
        {"images": IMAGES, "maps.a": MAPS.astype(np.float64)},
        {"images": IMAGES, "maps.a": MAPS * np.float32(np.nan)},
        {"maps.a": MAPS},
        {"images": np.array([{"a": 1}], dtype=object), "maps.a": MAPS},
    ],
)
def test_other_arrays_and_pickles_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(InputError, match="golden file"):
        read_golden(tmp_path / "golden.npz")


def test_rubbish_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04rubbish", b"\x93NUMPY"):
        (tmp_path / "golden.npz").write_bytes(data)
        with pytest.raises(InputError, match="no golden file"):
            read_golden(tmp_path / "golden.npz")


def test_replay_passes_the_same_and_fails_the_other_engine() -> None:
    golden = Golden(IMAGES, {"a": fake().infer(IMAGES)})
    engine = fake()
    same = replay(engine, golden, "a", ALLOWED, 0.5)
    assert (same.passed, same.max_abs, same.changed, same.n) == (True, 0.0, 0, 3)
    assert engine.batches == [1, 1, 1]
    assert not replay(fake(0.01), golden, "a", ALLOWED, 0.5).passed
    assert not replay(fake(float("nan")), golden, "a", ALLOWED, 0.5).passed
    with pytest.raises(InputError, match="no maps for b"):
        replay(fake(), golden, "b", ALLOWED, 0.5)


def test_replay_counts_verdicts_that_change() -> None:
    golden = Golden(IMAGES, {"a": fake().infer(IMAGES)})
    assert replay(fake(5.0), golden, "a", ALLOWED, 3.0).changed == 3


def test_a_mean_difference_fails_even_when_the_largest_is_allowed() -> None:
    golden = Golden(IMAGES, {"a": fake().infer(IMAGES)})
    assert not replay(fake(5e-4), golden, "a", ALLOWED, 0.5).passed


def test_a_lower_precision_may_differ_by_what_quantising_cost() -> None:
    assert tolerance(MAPS, MAPS) == {"max_abs": 1e-3, "mean_abs": 1e-4}
    close = tolerance(MAPS + np.float32(1e-5), MAPS)
    assert close == {"max_abs": 2e-2, "mean_abs": 2e-3}
    far = tolerance(MAPS + np.float32(0.25), MAPS)
    assert far["max_abs"] == pytest.approx(0.25, abs=1e-6)


def test_pick_takes_middle_and_extreme_of_both_kinds() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.9, 0.8])
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert pick(scores, labels) == [1, 2, 5, 4]
    assert pick(scores[:1], labels[:1]) == [0]
    assert pick(scores[3:], labels[3:]) == [2, 1]


def test_every_image_goes_once_through_every_engine_in_turns() -> None:
    images = RNG.integers(0, 256, (19, 16, 16, 3), dtype=np.uint8)
    engines = {"fp32": fake(), "int8": fake(0.5)}
    found = answer(engines, images, "test")
    assert sum(engines["fp32"].batches) == 19 + 3
    assert len(found["int8"].ms) == 19
    assert found["int8"].latency["n"] == 19
    assert found["fp32"].latency["p50"] <= found["fp32"].latency["p99"]
    np.testing.assert_allclose(found["int8"].scores, found["fp32"].scores + 0.5, rtol=1e-6)
    np.testing.assert_array_equal(found["fp32"].scores, found["fp32"].smoothed.max(axis=(1, 2)))


def test_rates_count_strictly_above_the_threshold() -> None:
    found = rates(np.array([0.1, 0.5, 0.6, 0.5]), np.array([0, 0, 0, 1]), 0.5)
    assert found == {"false_reject_rate": 1 / 3, "miss_rate": 1.0, "threshold": 0.5}
    assert rates(np.array([0.1]), np.array([0]), 0.5)["miss_rate"] is None
