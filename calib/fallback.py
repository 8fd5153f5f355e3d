"""The way back: the layers that INT8 costs most in go to float until the gate passes.

The order comes from `calib.sensitivity`, on good pictures and artificial defects. The gate, on
test images, says after each step only whether it is enough; it orders nothing. The steps double,
so that the gate is asked five times and not fifty: whoever asks often enough passes by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

STEPS = (1, 2, 4, 8, 16)
"""How many groups are in float at each attempt."""

MOST = 0.5
"""Share of the groups beyond which what is left is no INT8 engine any more."""


def attempts(layers: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The groups to leave in float at each attempt, ever more of them.

    Args:
        layers: of `sensitivity`, the largest gain first. A group that brings nothing is never
            among them.
    """
    useful = [layer for layer in layers if layer["gain"] > 0]
    most = min(len(useful), int(MOST * len(layers)), STEPS[-1])
    for count in dict.fromkeys(min(step, most) for step in STEPS):
        if count:
            yield useful[:count]


def say(layer: Mapping[str, Any]) -> str:
    """A group by its tensors' names in the graph."""
    others = [name for name in layer["tensors"] if name != layer["name"]]
    return f"{layer['name']} ({', '.join(others)})" if others else str(layer["name"])
