"""Defects of the built-in surface, drawn by the physics of each: none is a pasted Perlin blob.

Each function takes a scene and gives the damaged material [H, W, 3]. The training defects
(ndp_edge.data.defects) are made by another process on purpose: a detector must find what it has
not been shown.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ndp_edge.data.surface_textures import Field, Rng, Scene, band_noise, blur, grid, smoothstep

VISIBLE = 8.0
"""Gray levels (of 255): a pixel belongs to the mask where the mean change around it exceeds this.

The mean is a Gaussian of 1.2 pixels over the largest channel difference, so that the grain of the
material does not pepper the mask with holes.
"""

SMALLEST = 24
"""Pixels: islands of the mask smaller than this are undone in the picture and not marked."""


def _place(rng: Rng, size: int, margin: float) -> tuple[float, float]:
    return float(rng.uniform(margin, size - margin)), float(rng.uniform(margin, size - margin))


def _local(rng: Rng, size: int, margin: float) -> tuple[Field, Field]:
    """Coordinates t, d in pixels around a random place, turned by a random angle."""
    x, y = grid(size)
    cx, cy = _place(rng, size, margin)
    angle = rng.uniform(0, np.pi)
    t = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    d = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    return t, d


def scratch(rng: Rng, scene: Scene, strength: float) -> Field:
    """A drawn-out groove: one flank dark, one bright, tapering ends, skipping here and there."""
    size = len(scene.clean)
    t, d = _local(rng, size, 0.25 * size)
    half = rng.uniform(0.09, 0.33) * size
    bend = rng.uniform(-0.10, 0.10) * half
    course = bend * (t / half) ** 2 + rng.uniform(0, 1.5) * np.sin(t / rng.uniform(9, 25))
    width = rng.uniform(0.8, 1.9)
    ends = smoothstep((half - np.abs(t)) / (0.25 * half))
    skip = 0.75 + 0.25 * smoothstep(1.2 + band_noise(rng, size, 5, 5))
    d = d - course
    groove = np.exp(-((d / width) ** 2))
    flank = np.exp(-(((d - 1.6 * width) / width) ** 2))
    sign = -1 if rng.random() < 0.6 else 1
    change = sign * (0.55 * groove - 0.30 * flank) * ends * skip * strength
    return scene.clean * (1 + change[..., None])


def _blob(rng: Rng, size: int, radius: float, rough: float) -> Field:
    """Signed distance-like field of a wobbly disc in pixels: positive inside."""
    t, d = _local(rng, size, min(0.4 * size, radius + 6))
    t = t * rng.uniform(0.7, 1.0)
    angle = np.arctan2(d, t)
    edge = np.zeros_like(t)
    for wave in range(2, 6):
        edge += rng.normal(0, rough / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(radius * (1 + edge) - np.hypot(t, d))


def stain(rng: Rng, scene: Scene, strength: float) -> Field:
    """A dried drop: tinted inside, darker towards its rim, with a soft and uneven edge."""
    size = len(scene.clean)
    inside = _blob(rng, size, rng.uniform(0.045, 0.15) * size, 0.25)
    inside = inside + 1.5 * band_noise(rng, size, 3, 3)
    body = smoothstep(inside / rng.uniform(3, 7))
    rim = np.exp(-(((inside - 3.5) / 3.0) ** 2))
    amount = body * (0.26 + 0.04 * band_noise(rng, size, 7, 7)) + 0.14 * rim
    if rng.random() < 0.25:  # a bleached spot instead
        return scene.clean + (0.8 * amount * strength)[..., None] * (0.85 - scene.clean)
    gray = bool(np.array_equal(scene.clean[..., 0], scene.clean[..., 2]))
    tint = np.array([1.0, 1.0, 1.0]) if gray else np.array([0.75, 1.0, 1.25])
    return np.asarray(scene.clean * (1 - (amount * strength)[..., None] * tint))


def hole(rng: Rng, scene: Scene, strength: float) -> Field:
    """Punched through: the dark behind shows, with a frayed edge and a lit lip."""
    size = len(scene.clean)
    inside = _blob(rng, size, rng.uniform(0.014, 0.05) * size, 0.30)
    inside = inside + 0.8 * band_noise(rng, size, 1.2, 1.2)
    open_ = smoothstep(inside / 2.0)
    behind = 0.08 + 0.01 * band_noise(rng, size, 8, 8)[..., None]
    lip = np.exp(-(((inside + 1.0) / 1.4) ** 2)) * (1 - open_)
    lit = blur(open_, 2.0)
    slope = np.roll(lit, (2, 2), (0, 1)) - np.roll(lit, (-2, -2), (0, 1))
    depth = min(1.0, 0.5 + 0.5 * strength)
    edge = scene.clean * (1 + (lip * (0.10 + 0.9 * slope) * strength)[..., None])
    return edge * (1 - depth * open_[..., None]) + depth * open_[..., None] * behind


def missing_thread(rng: Rng, scene: Scene, strength: float) -> Field:
    """A warp thread ends and goes on further down: the weft lies bare in the gap."""
    if scene.bare is None or scene.across is None:
        return dent(rng, scene, strength)
    size = len(scene.clean)
    _, y = grid(size)
    cx, cy = _place(rng, size, 0.12 * size)
    thread = np.floor(scene.across[int(cy), int(cx)])
    count = 2 if rng.random() < 0.25 else 1
    half = rng.uniform(0.08, 0.42) * size
    middle = thread + count / 2
    band = smoothstep((count / 2 + 0.06 - np.abs(scene.across - middle)) / 0.16)
    frayed = 2.5 * band_noise(rng, size, 1.5, 4)
    gap = band * smoothstep((half - np.abs(y - cy) + frayed) / 4.0)
    gap = gap * min(1.0, 0.35 + 0.55 * strength)
    return scene.clean * (1 - gap[..., None]) + scene.bare * gap[..., None]


def dent(rng: Rng, scene: Scene, strength: float) -> Field:
    """A pressed-in spot or gouge: no new colour, only slopes that take more or less light."""
    size = len(scene.clean)
    t, d = _local(rng, size, 0.2 * size)
    long_, wide = rng.uniform(0.03, 0.12) * size, rng.uniform(0.018, 0.035) * size
    bowl = np.exp(-((t / long_) ** 2) - (d / wide) ** 2)
    bowl = bowl * (1 + 0.15 * band_noise(rng, size, 4, 4))
    lamp = rng.uniform(0, 2 * np.pi)
    slope_y, slope_x = np.gradient(bowl)
    slope = (slope_x * np.cos(lamp) + slope_y * np.sin(lamp)) * wide
    change = 0.30 * slope - 0.38 * bowl
    return np.asarray(scene.clean * (1 + (change * strength)[..., None]))


def misprint(rng: Rng, scene: Scene, strength: float) -> Field:
    """A mark that does not belong there: a few pen strokes of faint ink, smeared one way."""
    size = len(scene.clean)
    t, d = _local(rng, size, 0.2 * size)
    tall = rng.uniform(0.05, 0.13) * size
    pen = rng.uniform(1.2, 2.6)
    near = np.full((size, size), np.inf)
    corners = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2)) * (tall * 0.7, tall)
    for (ta, da), (tb, db) in pairwise(corners):
        st, sd = tb - ta, db - da
        along = np.clip(((t - ta) * st + (d - da) * sd) / (st * st + sd * sd + 1e-9), 0, 1)
        near = np.minimum(near, np.hypot(t - ta - along * st, d - da - along * sd))
    ink = smoothstep((pen + 1.0 - near) / 2.0)
    smear_x, smear_y = (int(step) for step in rng.integers(-3, 4, 2))
    for step, weight in ((1, 0.45), (2, 0.30), (3, 0.18)):
        ghost = np.roll(ink, (smear_y * step, smear_x * step), (0, 1))
        ink = np.maximum(ink, weight * ghost)
    patchy = 0.8 + 0.2 * smoothstep(1.0 + band_noise(rng, size, 2, 2))
    return scene.clean * (1 - (0.50 * strength * ink * patchy)[..., None])


DEFECTS: dict[str, Callable[[Rng, Scene, float], Field]] = {
    "scratch": scratch,
    "stain": stain,
    "hole": hole,
    "missing_thread": missing_thread,
    "dent": dent,
    "misprint": misprint,
}


STRENGTHS = {"woven": (0.5, 1.35), "brushed": (0.25, 1.0), "granular": (0.7, 1.6)}
"""The range each surface draws a defect's strength from; the smooth one takes fainter ones."""


def kinds_for(surface: str) -> tuple[str, ...]:
    """The five defect kinds of a surface: cloth loses threads, the others take dents."""
    fourth = "missing_thread" if surface == "woven" else "dent"
    return ("scratch", "stain", "hole", fourth, "misprint")


def damage(
    rng: Rng, scene: Scene, kind: str, strengths: tuple[float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Photograph a scene with one defect: picture uint8 [H, W, 3] and its exact mask [H, W].

    Outside the mask the picture equals the good photograph of the same scene bit for bit; inside,
    the mean change around every pixel exceeds VISIBLE. A draw that shows nothing is drawn again.
    """
    good = scene.photograph(scene.clean)
    while True:
        strength = float(rng.uniform(*strengths))
        bad = scene.photograph(DEFECTS[kind](rng, scene, strength))
        change = np.abs(bad.astype(np.float64) - good).max(axis=2)
        mask = _without_islands(blur(change, 1.2) > VISIBLE)
        if mask.sum() >= 2 * SMALLEST:
            return np.where(mask[..., None], bad, good), mask


def _without_islands(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = np.asarray(stats)[:count, cv2.CC_STAT_AREA] >= SMALLEST
    large[0] = False
    return np.asarray(large[labels])
