"""Are the calibration pictures good product? FP32's own threshold says how many look it.

Calibration and threshold pictures come from one folder of good product. If they are alike, a
calibration picture lies above the k-th smallest of m threshold scores as often as a threshold
picture does, and the number X of n that do follows the negative hypergeometric law
P(X = x) = C(x + m - k, x) C(n - x + k - 1, n - x) / C(n + m, n), whatever the scores'
distribution. More than that is no chance: noise, defects or another product went in.
"""

from __future__ import annotations

from math import comb

FALSE_ALARM = 0.001
"""How often good calibration pictures may be called wrong, at most."""


def chance(x: int, n: int, m: int, k: int) -> float:
    """P(X >= x): at least x of n further pictures score above the k-th smallest of m.

    Args:
        x: 0 to n + 1.
        n: further pictures, at least 1.
        m: pictures behind the threshold, at least 1.
        k: rank of the threshold among them, 1 to m.

    Returns:
        0 to 1; exact but for one division. Ties make it an upper bound.
    """
    ways = sum(comb(i + m - k, i) * comb(n - i + k - 1, n - i) for i in range(x, n + 1))
    return ways / comb(n + m, n)


def most_by_chance(n: int, m: int, k: int, level: float = FALSE_ALARM) -> int:
    """The largest number, 0 to n, of rejected pictures that chance reaches with at least `level`.

    The arguments are those of `chance`. Where n is so small that even all of them rejected may be
    chance, that is n.
    """
    return max(x for x in range(n + 1) if chance(x, n, m, k) >= level)
