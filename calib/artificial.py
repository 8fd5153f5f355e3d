"""Good pictures and artificial defects on them: what may choose, so that no test image does.

From good pictures of the tune split, which nothing else uses, come as many with a pasted defect
(as in training) and as many with a drawn one (scratch, stain, hole, dent, misprint). Which
calibration method is best, and which layers go back to float, is decided on these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_edge import metrics
from ndp_edge.calib.gate import AREAS
from ndp_edge.data.defects import make_defect, procedural_source
from ndp_edge.data.surface_defects import damage
from ndp_edge.data.surface_textures import Scene
from ndp_edge.engines.base import Engine
from ndp_edge.errors import InputError
from ndp_edge.image import is_gray
from ndp_edge.scoring import answer

MOST_GOOD = 32
"""Good pictures taken at most; three times as many are judged."""

DRAWN = ("scratch", "stain", "hole", "dent", "misprint")
STRENGTHS = (0.5, 1.35)
"""Of drawn defects: what the built-in cloth takes."""

OPACITY = (0.3, 1.0)
"""Of pasted defects: faint ones too, which is where INT8 would lose something."""

DARK = 0.2
"""Mean reflectance below which nothing is drawn: a scratch on black shows nothing, and
`damage` would draw again for ever. Such a picture gets a second pasted defect."""


@dataclass(frozen=True)
class TuneSet:
    """What is judged: N pictures, the good ones first.

    Attributes:
        images: uint8 [N, S, S, 3] RGB.
        labels: int64 [N], 1 for defective.
        masks: bool [N, S, S].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]


def make_tune_set(good: NDArray[np.uint8], seed: int = 0) -> TuneSet:
    """The good pictures (MOST_GOOD at most, the first), and two defective ones from each.

    Equal arguments give equal pictures.

    Args:
        good: uint8 [G, S, S, 3] RGB, used for nothing else; S at least 64.
        seed: of the defects.

    Raises:
        InputError: no picture, or an array of another kind.
    """
    if good.dtype != np.uint8 or good.ndim != 4 or good.shape[3] != 3 or len(good) == 0:
        raise InputError(
            f"the tune set needs good pictures, uint8 [G, S, S, 3]; got {good.dtype} {good.shape}"
        )
    good = good[:MOST_GOOD]
    gray = is_gray(good)
    bad, masks = [], []
    for index, picture in enumerate(good):
        for way in range(2):
            rng = np.random.default_rng([seed, way, index])
            if way == 1 and picture.mean() >= 255 * DARK:
                made, mask = _draw(picture, rng, DRAWN[index % len(DRAWN)])
            else:
                made, mask = _paste(picture, rng, gray)
            bad.append(made)
            masks.append(mask)
    labels = np.repeat([0, 1], [len(good), len(bad)]).astype(np.int64)
    nothing = np.zeros(good.shape[:3], np.bool_)
    return TuneSet(np.concatenate([good, bad]), labels, np.concatenate([nothing, masks]))


class TuneJudge:
    """Puts engines against FP32 on one tune set.

    Args:
        tune: the pictures.
        fp32: the engine that the others stand in for; asked once, here.
    """

    def __init__(self, tune: TuneSet, fp32: Engine) -> None:
        self.tune = tune
        self._maps = answer({"fp32": fp32}, tune.images, "tune fp32")["fp32"].smoothed
        self.fp32 = figures(self._maps, self._maps, tune)

    def score(self, engine: Engine) -> dict[str, float]:
        """What an engine makes of the tune set; see `figures`."""
        told = answer({"tune": engine}, self.tune.images, "tune")["tune"]
        return figures(told.smoothed, self._maps, self.tune)


def figures(
    maps: NDArray[np.float32], fp32: NDArray[np.float32], tune: TuneSet
) -> dict[str, float]:
    """What smoothed maps [N, S, S] of the tune set are worth, and how far they are from FP32's.

    Returns:
        image_auroc, pixel_auroc, aupro in [0, 1]; score_rms and map_rms, the root of the mean
        squared difference from FP32 of the scores and of the maps, in units of the score.
    """
    scores, before = maps.max(axis=(1, 2)), fp32.max(axis=(1, 2))
    found: dict[str, Any] = metrics.summary(scores, tune.labels, maps, tune.masks, None)
    return {
        **{key: float(found[key]) for key in AREAS},
        "score_rms": metrics.rms(scores, before),
        "map_rms": metrics.rms(maps, fp32),
    }


def drop(found: dict[str, float], fp32: dict[str, float]) -> float:
    """How much an engine lost against FP32: the sum of the areas' drops; a gain counts nothing.

    A gain over FP32 on a few dozen pictures is luck: counted, it would reward a model for being
    far from FP32.
    """
    return sum(max(0.0, fp32[key] - found[key]) for key in AREAS)


def _paste(
    picture: NDArray[np.uint8], rng: np.random.Generator, gray: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Equation 1 with a mask that is not empty: a procedural picture, or the surface disturbed."""
    unit = np.asarray(picture.astype(np.float32) / np.float32(255))
    while True:
        source = procedural_source(len(unit), rng) if rng.random() < 0.5 else None
        made, mask = make_defect(unit, source, rng, gray=gray, opacity=OPACITY)
        if mask.any():
            return np.rint(made * 255).clip(0, 255).astype(np.uint8), mask


def _draw(
    picture: NDArray[np.uint8], rng: np.random.Generator, kind: str
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A drawn defect; the photograph itself is the material, its light and noise are in it."""
    size = picture.shape[:2]
    scene = Scene(picture / 255.0, None, None, np.ones(size), np.zeros(size))
    return damage(rng, scene, kind, STRENGTHS)
