"""Which good picture the net compares with (the paper takes one and does not say which)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BLURS = (0.0, 2.0, 8.0)
"""Standard deviations, in pixels, at which gray values are looked at: grain, structure, light."""

QUANTILES = np.linspace(0, 1, 33)


def choose(images: NDArray[np.uint8], how: str) -> int:
    """Index of the reference among good pictures, uint8 [N, S, S, 3], N at least 1.

    "first" is the first; "typical" the medoid: the picture whose gray values, plain and blurred,
    are distributed most like those of all others (sum of L1 distances of their quantiles). Where
    things lie in the picture does not count, since RBFRM takes patches from anywhere.
    """
    if how == "first":
        return 0
    told = np.stack([_quantiles(image) for image in images])
    return int(np.argmin([np.abs(told - one).sum() for one in told]))


def _quantiles(image: NDArray[np.uint8]) -> NDArray[Any]:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    seen = [gray if not blur else cv2.GaussianBlur(gray, (0, 0), blur) for blur in BLURS]
    return np.concatenate([np.quantile(one, QUANTILES) for one in seen])
