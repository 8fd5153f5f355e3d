"""How a number, and the lack of one, is written."""

from __future__ import annotations

NOT_MEASURED = "not measured"


def number(value: float | None, factor: float = 1.0) -> float | str:
    """Four digits, or the words."""
    return NOT_MEASURED if value is None else float(f"{value * factor:.4g}")


def over(a: float | None, b: float | None) -> float | str:
    """a / b, or the words where either is missing."""
    return NOT_MEASURED if a is None or not b else number(a / b)
