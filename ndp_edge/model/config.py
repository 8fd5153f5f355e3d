"""What shape a net has: presets and their configuration. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ndp_edge.errors import InputError

STRIDE = 64
"""Image sides are multiples of this: five stages halve four times, and the deepest map
must still be divisible by the largest patch size, 4 (16 * 4)."""

PATCH_SIZES = (2, 4)
"""The two patch sizes K of RBFRM (paper III-C2)."""

RBAM_STAGES = (3, 4, 5)
"""Encoder stages that an RBAM repairs (paper III-C4)."""

PAPER_MAP_WEIGHTS = (0.2, 0.2, 0.6)
"""lambda 1, 2, 3 of eq. 11."""


@dataclass(frozen=True)
class NdpConfig:
    """Everything that fixes the graph of one NDP-Net.

    Attributes:
        preset: the name it goes by.
        channels: channels of encoder stages 1 to 5, multiples of 8.
        ffm_channels: width of the FFM's squeezed map (the paper's 64).
        ffm_kernel: the paper's m = 5.
        softmax_scale: factor on the cosine of eq. 4; 1.0 is the printed equation.
        image_size: side of the square input in pixels, a multiple of 64.
        map_weights: lambda 1, 2, 3 of eq. 11.
        gray: True when the surface was photographed without colour.
    """

    preset: str
    channels: tuple[int, int, int, int, int]
    ffm_channels: int
    ffm_kernel: int = 5
    softmax_scale: float = 1.0
    image_size: int = 256
    map_weights: tuple[float, float, float] = PAPER_MAP_WEIGHTS
    gray: bool = False

    def __post_init__(self) -> None:
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise InputError(
                f"image size {self.image_size} is not a multiple of {STRIDE}; "
                f"try {max(STRIDE, round(self.image_size / STRIDE) * STRIDE)}"
            )
        if len(self.channels) != 5 or any(c < 8 or c % 8 for c in self.channels):
            raise InputError(f"channels {self.channels} must be five multiples of 8")
        if self.ffm_channels < 8 or self.ffm_kernel % 2 == 0:
            raise InputError("ffm_channels must be at least 8 and ffm_kernel odd")
        if not 0 < self.softmax_scale < math.inf or not all(map(math.isfinite, self.map_weights)):
            raise InputError("softmax_scale must be positive, and it and map_weights finite")

    def stage_size(self, stage: int) -> int:
        """Side in pixels of the map of encoder stage 1 to 5."""
        return self.image_size >> (stage - 1)

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NdpConfig:
        """Read what `to_json` wrote.

        Raises:
            InputError: the text is not such a configuration.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            raw["channels"] = tuple(raw["channels"])
            raw["map_weights"] = tuple(raw["map_weights"])
            return cls(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"not an NDP-Net configuration: {error}") from error


_PRESETS: dict[str, tuple[tuple[int, int, int, int, int], int]] = {
    "paper": ((64, 128, 256, 512, 512), 64),
    "edge": ((32, 64, 128, 256, 256), 32),
    # Below a quarter in the two deepest stages, so that the shipped net stays under 9 MB.
    "nano": ((16, 32, 64, 96, 96), 16),
}
PRESETS = tuple(_PRESETS)


def preset(
    name: str, *, image_size: int = 256, softmax_scale: float = 1.0, gray: bool = False,
    map_weights: Sequence[float] = PAPER_MAP_WEIGHTS,
) -> NdpConfig:  # fmt: skip
    """The configuration that goes by `name`: "paper", "edge" or "nano".

    `map_weights` are brought to a sum of 1, so that the map keeps its range.

    Raises:
        InputError: no such preset, an image size the net cannot have, or map weights that are
            negative, not finite or all zero.
    """
    if name not in _PRESETS:
        raise InputError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    total = sum(map_weights)
    if not 0 < total < math.inf or min(map_weights) < 0:
        raise InputError(f"map weights {tuple(map_weights)} must not be negative, nor all zero")
    one, two, three = (w / total for w in map_weights)
    channels, ffm = _PRESETS[name]
    return NdpConfig(
        name, channels, ffm, softmax_scale=softmax_scale, image_size=image_size,
        map_weights=(one, two, three), gray=gray,
    )  # fmt: skip
