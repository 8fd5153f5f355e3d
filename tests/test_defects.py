"""Artificial defects: eq. 1 to the last bit, gray stays gray, every draw is reproducible."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge.data.defects import make_defect, perlin, perlin_mask, procedural_source


def _good(rng: np.random.Generator, size: int, gray: bool) -> np.ndarray:
    picture = rng.random((size, size, 1 if gray else 3), dtype=np.float32)
    return np.repeat(picture, 3, axis=2) if gray else picture


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([64, 128]), st.booleans())
def test_outside_the_mask_nothing_changes(seed: int, size: int, gray: bool) -> None:
    rng = np.random.default_rng(seed)
    good = _good(rng, size, gray)
    bad, mask = make_defect(good, procedural_source(size, rng), rng, gray=gray)
    assert bad.dtype == np.float32
    assert mask.shape == (size, size)
    assert np.array_equal(bad[~mask], good[~mask])
    assert np.isfinite(bad).all()
    assert bad.min() >= 0
    assert bad.max() <= 1
    if gray:
        assert np.array_equal(bad[..., 0], bad[..., 1])
        assert np.array_equal(bad[..., 0], bad[..., 2])


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_structural_defects_keep_the_rules(seed: int, gray: bool) -> None:
    rng = np.random.default_rng(seed)
    good = _good(rng, 64, gray)
    bad, mask = make_defect(good, None, rng, gray=gray)
    assert np.array_equal(bad[~mask], good[~mask])
    assert np.isfinite(bad).all()
    assert bad.min() >= 0
    assert bad.max() <= 1
    if gray:
        assert np.array_equal(bad[..., 0], bad[..., 2])


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_lines_are_thin_seen_and_keep_the_rules(seed: int, gray: bool) -> None:
    rng = np.random.default_rng(seed)
    good = np.clip(_good(rng, 64, gray), 0.2, 1)
    bad, mask = make_defect(good, None, rng, gray=gray, lines=1.0)
    assert np.array_equal(bad[~mask], good[~mask])
    assert np.isfinite(bad).all()
    assert bad.min() >= 0
    assert bad.max() <= 1
    if gray:
        assert np.array_equal(bad[..., 0], bad[..., 2])
    # No more than 5 pixels wide: two erosions of 3 x 3 leave crossings and bends at most.
    left = cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=0)
    assert left.sum() <= 0.05 * 64 * 64
    changed = bad[mask] != good[mask]
    assert changed.mean() > 0.5 if mask.any() else True


def test_of_the_defects_a_share_are_lines() -> None:
    """On a flat surface a line alone is darker or lighter throughout; these sources are neither."""
    good, source = np.full((64, 64, 3), 0.5, np.float32), np.full((64, 64, 3), 0.5, np.float32)
    source[:, ::2] = 0.1

    def flat(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        bad, mask = make_defect(good, source, rng, gray=True, lines=0.5)
        return bool(mask.any()) and float(np.ptp(bad[mask])) == 0

    assert 60 <= sum(flat(seed) for seed in range(200)) <= 140


def test_opacity_scales_the_change() -> None:
    source = procedural_source(64, np.random.default_rng(5))
    good = np.full((64, 64, 3), 0.5, np.float32)
    seed = next(s for s in range(50) if perlin_mask(64, np.random.default_rng(s)).any())
    opaque, mask = make_defect(good, source, np.random.default_rng(seed), gray=False)
    faint, same = make_defect(
        good, source, np.random.default_rng(seed), gray=False, opacity=(0.25, 0.25)
    )
    assert np.array_equal(mask, same)
    assert np.allclose((faint - good)[mask], 0.25 * (opaque - good)[mask], atol=1e-6)


def test_masks_are_mostly_there_and_sometimes_empty() -> None:
    shares = [perlin_mask(128, np.random.default_rng(s)).mean() for s in range(300)]
    empty = np.mean([s == 0 for s in shares])
    assert 0 < empty < 0.2
    assert 0.02 < np.mean(shares) < 0.35


def test_perlin_is_smooth_and_vanishes_at_its_lattice() -> None:
    noise = perlin(128, (4, 8), np.random.default_rng(0))
    assert np.allclose(noise[::32, ::16], 0, atol=1e-6)
    assert np.abs(np.diff(noise, axis=1)).max() < 0.25
    assert 0.3 < np.abs(noise).max() <= 1.5


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9))
def test_perlin_is_its_definition(seed: int, down: int, across: int) -> None:
    """A pixel is the interpolation, with Perlin's fade, of four corners' gradient products."""
    noise = perlin(24, (down, across), np.random.default_rng(seed))
    angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, (down + 1, across + 1))

    def fade(t: float) -> float:
        return t**3 * (t * (t * 6 - 15) + 10)

    for y, x in np.random.default_rng(seed + 1).integers(0, 24, (5, 2)):
        v, u = y * down / 24, x * across / 24
        i, j = min(int(v + 1e-6), down - 1), min(int(u + 1e-6), across - 1)
        v, u = v - i, u - j
        corners = [
            np.sin(angles[i + a, j + b]) * (v - a) + np.cos(angles[i + a, j + b]) * (u - b)
            for a in (0, 1) for b in (0, 1)
        ]  # fmt: skip
        top = corners[0] + fade(u) * (corners[1] - corners[0])
        bottom = corners[2] + fade(u) * (corners[3] - corners[2])
        assert noise[y, x] == pytest.approx(np.sqrt(2) * (top + fade(v) * (bottom - top)), abs=1e-4)
