"""The float64 judge: against the printed equations by hand, and torch in float64 against it."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_edge import reference
from ndp_edge.errors import InputError
from ndp_edge.model import network, rbam

TOLERANCE = 1e-9
deterministic = settings(derandomize=True, deadline=None, max_examples=40)


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))[None]


def agree(fast: torch.Tensor, judge: np.ndarray) -> None:
    got = fast.numpy()
    assert got.dtype == np.float64
    assert got.shape == judge.shape
    assert np.isfinite(got).all()
    assert np.isfinite(judge).all()
    assert np.abs(got - judge).max() <= TOLERANCE


# --- eq. 3-5 ------------------------------------------------------------------------------


def rbfrm_by_the_book(f: list, ref: list, k: int, scale: float) -> list:
    """Eq. 3-5 with nothing but Python floats, for maps [C][H][W] given as nested lists."""

    def patches(x: list) -> list:
        rows, cols = range(0, len(x[0]), k), range(0, len(x[0][0]), k)
        inside = [(c, dy, dx) for c in range(len(x)) for dy in range(k) for dx in range(k)]
        return [[x[c][i + dy][j + dx] for c, dy, dx in inside] for i in rows for j in cols]

    repaired = []
    b = patches(ref)
    for p in patches(f):
        norms = [math.sqrt(math.fsum(v * v for v in q)) for q in b]
        own = math.sqrt(math.fsum(v * v for v in p))
        s = [
            math.fsum(u * v for u, v in zip(p, q, strict=True)) / (own * n)
            for q, n in zip(b, norms, strict=True)
        ]
        e = [math.exp(scale * v) for v in s]
        weights = [v / math.fsum(e) for v in e]
        terms = [
            math.fsum(w * q[d] for w, q in zip(weights, b, strict=True)) for d in range(len(p))
        ]
        repaired.append(terms)
    return repaired


def test_rbfrm_follows_the_printed_equations() -> None:
    rng = np.random.default_rng(1)
    f, ref = rng.random((3, 4, 6)), rng.random((3, 4, 4))
    for k, scale in ((1, 1.0), (2, 1.0), (2, 10.0)):
        got = reference.rbfrm(f, ref, k, scale)
        book = np.array(rbfrm_by_the_book(f.tolist(), ref.tolist(), k, scale))
        cut = [got[:, i : i + k, j : j + k].ravel() for i in range(0, 4, k) for j in range(0, 6, k)]
        assert np.abs(np.array(cut) - book).max() < 1e-13


@st.composite
def map_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    k = draw(st.sampled_from([1, 2, 3, 4]))
    channels, h, w, h_ref, w_ref = (draw(st.integers(1, 5)) for _ in range(5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    amplitude = 10.0 ** draw(st.integers(-6, 3))
    f = amplitude * rng.standard_normal((channels, h * k, w * k))
    ref = rng.standard_normal((channels, h_ref * k, w_ref * k))
    if draw(st.booleans()):  # as after a ReLU, with whole black patches
        f, ref = np.maximum(f, 0), np.maximum(ref, 0)
        f[:, :k, :k] = 0
        ref[:, -k:, -k:] = 0
    return f, ref, k


@deterministic
@given(map_pairs(), st.sampled_from([1.0, 10.0]))
def test_torch_rbfrm_agrees(pair: tuple[np.ndarray, np.ndarray, int], scale: float) -> None:
    f, ref, k = pair
    agree(rbam.rbfrm(tensor(f), tensor(ref), k, scale)[0], reference.rbfrm(f, ref, k, scale))


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_torch_rbfrm_agrees_at_a_real_stage_size(k: int, scale: float) -> None:
    rng = np.random.default_rng(k)
    f, ref = (np.maximum(rng.standard_normal((96, 16, 16)), 0) for _ in range(2))
    agree(rbam.rbfrm(tensor(f), tensor(ref), k, scale)[0], reference.rbfrm(f, ref, k, scale))


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("left", [0.0, 1.0, 1e-30, 1e6])
@pytest.mark.parametrize("right", [0.0, 1.0, 255.0])
def test_constant_maps_repair_to_the_reference(left: float, right: float, scale: float) -> None:
    f, ref = np.full((4, 8, 8), left), np.full((4, 8, 12), right)
    got = reference.rbfrm(f, ref, 4, scale)
    assert np.allclose(got, right, rtol=1e-14, atol=0)
    agree(rbam.rbfrm(tensor(f), tensor(ref), 4, scale)[0], got)


def test_a_black_patch_becomes_the_mean_reference_patch() -> None:
    ref = np.random.default_rng(0).random((2, 8, 8))
    got = reference.rbfrm(np.zeros((2, 4, 4)), ref, 4)
    mean = np.mean([ref[:, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)], axis=0)
    assert np.allclose(got, mean, rtol=1e-14)


def test_a_sharp_softmax_copies_the_nearest_reference_patch() -> None:
    ref = np.zeros((2, 2, 4))
    ref[0, :, :2] = 3.0
    ref[1, :, 2:] = 5.0
    f = np.zeros((2, 2, 2))
    f[1] = 0.01
    assert np.allclose(reference.rbfrm(f, ref, 2, 1000.0), ref[:, :, 2:])


def test_only_the_direction_of_a_patch_counts() -> None:
    rng = np.random.default_rng(3)
    f, ref = rng.random((3, 4, 4)), rng.random((3, 4, 4))
    brighter = reference.rbfrm(7.0 * f, ref, 2)
    assert np.allclose(brighter, reference.rbfrm(f, ref, 2), rtol=1e-13)
    doubled = reference.rbfrm(f, 2.0 * ref, 2)
    assert np.allclose(doubled, 2.0 * reference.rbfrm(f, ref, 2), rtol=1e-13)


@pytest.mark.parametrize(
    ("f", "ref", "k", "scale"),
    [
        (np.ones((2, 5, 4)), np.ones((2, 4, 4)), 2, 1.0),
        (np.ones((2, 4, 4)), np.ones((2, 4, 6)), 4, 1.0),
        (np.ones((2, 4, 4)), np.ones((3, 4, 4)), 2, 1.0),
        (np.ones((4, 4)), np.ones((2, 4, 4)), 2, 1.0),
        (np.ones((2, 0, 4)), np.ones((2, 4, 4)), 2, 1.0),
        (np.ones((2, 4, 4)), np.ones((2, 4, 4)), 0, 1.0),
        (np.ones((2, 4, 4)), np.ones((2, 4, 4)), 2, 0.0),
        (np.ones((2, 4, 4)), np.ones((2, 4, 4)), 2, math.nan),
        (np.full((2, 4, 4), np.nan), np.ones((2, 4, 4)), 2, 1.0),
        (np.ones((2, 4, 4)), np.full((2, 4, 4), np.inf), 2, 1.0),
        (np.ones((2, 4, 4), complex), np.ones((2, 4, 4)), 2, 1.0),
    ],
)
def test_rbfrm_refuses(f: np.ndarray, ref: np.ndarray, k: int, scale: float) -> None:
    with pytest.raises(InputError):
        reference.rbfrm(f, ref, k, scale)


# --- eq. 7 and 8 --------------------------------------------------------------------------


@deterministic
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.1, 1.0, 50.0, 2000.0]),
    st.integers(0, 2**32 - 1),
)
def test_torch_ffm_select_agrees(c: int, h: int, w: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = spread * rng.standard_normal((3, c, h, w))
    rep4, rep2, f = rng.standard_normal((3, c, h, w))
    judge = reference.ffm_select(logits, rep4, rep2, f)
    agree(
        rbam.ffm_select(tensor(logits.reshape(3 * c, h, w)), tensor(rep4), tensor(rep2), tensor(f))[
            0
        ],
        judge,
    )
    lowest, highest = np.min([rep4, rep2, f], axis=0), np.max([rep4, rep2, f], axis=0)
    assert (judge >= lowest - 1e-12).all()
    assert (judge <= highest + 1e-12).all()


def test_ffm_branches_are_in_the_order_rep4_rep2_features() -> None:
    branches = [np.full((2, 3, 3), v) for v in (4.0, 2.0, 1.0)]
    for chosen, value in enumerate((4.0, 2.0, 1.0)):
        logits = np.zeros((3, 2, 3, 3))
        logits[chosen] = 100.0
        assert np.allclose(reference.ffm_select(logits, *branches), value)
    even = reference.ffm_select(np.zeros((3, 2, 3, 3)), *branches)
    assert np.allclose(even, 7.0 / 3.0)


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 2, 4, 4), (2, 4, 4), (2, 4, 4), (2, 4, 5)],
        [(2, 2, 4, 4), (2, 4, 4), (2, 4, 4), (2, 4, 4)],
        [(6, 4, 4), (2, 4, 4), (2, 4, 4), (2, 4, 4)],
        [(3, 2, 4, 4), (4, 4), (2, 4, 4), (2, 4, 4)],
    ],
)
def test_ffm_select_refuses(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(InputError):
        reference.ffm_select(*(np.zeros(s) for s in shapes))


# --- eq. 11 and the two filters -----------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@deterministic
@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_torch_map_agrees(h: int, w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = [3.0 * rng.standard_normal((4 * h >> i, 4 * w >> i)) for i in range(3)]
    combined = reference.anomaly_map(*(sigmoid(x) for x in logits), weights=(0.2, 0.2, 0.6))
    fast = network.combine([tensor(x[None]) for x in logits], (0.2, 0.2, 0.6))
    agree(fast[0, 0], combined)
    agree(network.mean_filter(fast)[0, 0], reference.mean_filter(combined))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.37])
def test_constant_maps_stay_what_they_are(value: float) -> None:
    maps = [np.full((32 >> i, 48 >> i), value) for i in range(3)]
    combined = reference.anomaly_map(*maps)
    assert np.allclose(combined, value, rtol=1e-14)
    assert np.allclose(reference.smooth(combined), value, rtol=1e-14)


def test_the_weights_belong_to_the_scales() -> None:
    maps = [np.zeros((8, 8)), np.zeros((4, 4)), np.zeros((2, 2))]
    for scale, expected in enumerate((0.2, 0.2, 0.6)):
        lit = [np.ones_like(m) if i == scale else m for i, m in enumerate(maps)]
        assert np.allclose(reference.anomaly_map(*lit), expected)
        assert np.allclose(reference.anomaly_map(*lit, weights=(1.0, 2.0, 3.0)), scale + 1.0)


def test_upsampling_puts_pixel_centres_half_way() -> None:
    # Half-pixel centres: doubling [0, 1] samples at -0.25, 0.25, 0.75, 1.25.
    assert np.allclose(reference.upsample(np.array([[0.0, 1.0]]), 1, 4), [[0.0, 0.25, 0.75, 1.0]])
    ramp = reference.upsample(np.arange(8.0)[None, :], 2, 32)
    assert np.allclose(np.diff(ramp[0, 2:-2]), 0.25)
    assert np.allclose(ramp[0], ramp[1])


@deterministic
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_filters_pixel_by_pixel(h: int, w: int, seed: int) -> None:
    x = np.random.default_rng(seed).random((h, w))
    mean, median = reference.mean_filter(x), reference.median_filter(x)
    for i in range(h):
        for j in range(w):
            window = [(i + di, j + dj) for di in range(-2, 3) for dj in range(-2, 3)]
            present = [x[y, z] for y, z in window if 0 <= y < h and 0 <= z < w]
            assert mean[i, j] == pytest.approx(math.fsum(present) / len(present), abs=1e-14)
            replicated = [x[min(max(y, 0), h - 1), min(max(z, 0), w - 1)] for y, z in window]
            assert median[i, j] == statistics.median(replicated)
    assert np.array_equal(reference.smooth(x), reference.median_filter(mean))


@pytest.mark.parametrize(
    "maps",
    [
        [np.ones((8, 8)), np.ones((4, 4)), np.ones((3, 2))],
        [np.ones((8, 8)), np.ones((8, 8)), np.ones((8, 8))],
        [np.ones((6, 6)), np.ones((3, 3)), np.ones((1, 1))],
        [np.ones((8, 8)), np.full((4, 4), np.nan), np.ones((2, 2))],
        [np.ones((1, 8, 8)), np.ones((4, 4)), np.ones((2, 2))],
    ],
)
def test_anomaly_map_refuses(maps: list[np.ndarray]) -> None:
    with pytest.raises(InputError):
        reference.anomaly_map(*maps)


def test_bad_weights_and_bad_maps_are_refused() -> None:
    maps = [np.ones((8, 8)), np.ones((4, 4)), np.ones((2, 2))]
    for weights in ((0.2, 0.8), (0.2, 0.2, math.nan)):
        with pytest.raises(InputError):
            reference.anomaly_map(*maps, weights=weights)
    with pytest.raises(InputError):
        reference.smooth(np.full((8, 8), np.nan))
    with pytest.raises(InputError):
        reference.smooth(np.zeros((0, 8)))
    with pytest.raises(InputError):
        reference.upsample(np.ones((2, 2)), 0, 4)
