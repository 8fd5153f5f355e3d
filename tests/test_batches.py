"""Training batches: who makes them does not matter, and what may be asked of their masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_edge.errors import InputError
from ndp_edge.training.batches import Batches, widened
from ndp_edge.training.options import TrainOptions, same_run
from ndp_edge.training.reference import choose


def make(seed: int = 0, **changes: object) -> Batches:
    options = TrainOptions(steps=(3, 4), batch_size=2, crop=64, seed=seed, **changes)  # type: ignore[arg-type]
    images = np.random.default_rng(1).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)
    return Batches(images, [], options, gray=False)


def test_processes_make_what_a_thread_makes_in_order() -> None:
    batches = make()
    # Wakes OpenCV's threads: a process forked from here would wait for them for ever.
    cv2.GaussianBlur(np.zeros((2048, 2048, 3), np.float32), (0, 0), 5)
    alone = list(batches.stream(1, 1))
    together = list(batches.stream(1, 1, workers=2))
    assert len(alone) == len(together) == 3
    for one, other in zip(alone, together, strict=True):
        for name in ("good", "bad", "mask"):
            mine, theirs = getattr(one, name), np.asarray(getattr(other, name))
            assert mine.shape == theirs.shape
            assert np.array_equal(mine, theirs)


def test_a_margin_widens_the_masks_of_phase_2_alone() -> None:
    for phase, same in ((0, True), (1, False)):
        plain, wide = make().make(phase, 0), make(margin=3).make(phase, 0)
        assert np.array_equal(plain.bad, wide.bad)
        assert np.array_equal(plain.mask, wide.mask) is same
        assert (wide.mask >= plain.mask).all()


@given(st.integers(1, 8), st.integers(0, 1000))
def test_a_widened_mask_reaches_as_far_as_it_says(margin: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 40), np.bool_)
    y, x = (int(n) for n in rng.integers(margin, 40 - margin, 2))
    mask[y, x] = True
    rows, columns = np.nonzero(widened(mask, margin))
    assert (rows.min(), rows.max()) == (y - margin, y + margin)
    assert (columns.min(), columns.max()) == (x - margin, x + margin)
    assert np.hypot(rows - y, columns - x).max() < margin + 1


def test_colour_on_a_gray_surface_comes_only_where_it_is_asked_for() -> None:
    gray = np.repeat(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8), 3, axis=3)
    options = TrainOptions(steps=(9, 9), batch_size=8, crop=64)

    def coloured(plain: bool) -> bool:
        bad = Batches(gray, [], options, gray=plain).make(1, 0).bad
        return bool((bad[:, 0] != bad[:, 2]).any())

    assert not coloured(True)
    assert coloured(False)


def test_the_typical_reference_is_no_outlier() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(90, 160, (9, 64, 64, 3), dtype=np.uint8)
    images[0] //= 4  # the first is dark
    images[5] = 255 - images[5] // 2
    assert choose(images, "first") == 0
    assert choose(images, "typical") not in (0, 5)


@given(st.integers(0, 100))
def test_where_things_lie_does_not_choose_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    flipped = images[:, ::-1].copy()
    assert choose(images, "typical") == choose(flipped, "typical")


@pytest.mark.parametrize("bad", [{"margin": -1}, {"margin": 17}, {"reference": "last"}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**bad)


def test_states_from_before_an_option_can_be_resumed() -> None:
    plain = same_run(TrainOptions(steps=(1, 1)), "{}", "d")
    assert not any(name in plain for name in ("margin", "colour", "reference", "lines"))
    assert "margin" in same_run(TrainOptions(steps=(1, 1), margin=4), "{}", "d")


def test_the_option_lets_colour_in_on_a_gray_surface() -> None:
    gray = np.repeat(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8), 3, axis=3)
    options = TrainOptions(steps=(9, 9), batch_size=8, crop=64, colour=True)
    bad = Batches(gray, [], options, gray=True).make(1, 0).bad
    assert (bad[:, 0] != bad[:, 2]).any()
