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
    return sum(_ways(i, n, m, k) for i in range(x, n + 1)) / comb(n + m, n)


def most_by_chance(n: int, m: int, k: int, level: float = FALSE_ALARM) -> int:
    """The largest number, 0 to n, of rejected pictures that chance reaches with at least `level`.

    The arguments are those of `chance`. Where n is so small that even all of them rejected may be
    chance, that is n.
    """
    tail, x = 0, n + 1  # the orders in which at least x are above; from the far end, where it is 0
    while x and tail / comb(n + m, n) < level:
        x -= 1
        tail += _ways(x, n, m, k)
    return x


def _ways(x: int, n: int, m: int, k: int) -> int:
    """Orders of n + m scores in which just x of the n are above the k-th of the m."""
    return comb(x + m - k, x) * comb(n - x + k - 1, n - x)
