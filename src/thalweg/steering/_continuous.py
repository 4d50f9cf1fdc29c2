"""Optimizing strength of continuous states: uniform squares and Gaussians, in nats."""

import math
from typing import Any, NamedTuple

import numpy as np

from thalweg._edge import check_one_number, is_whole, shown
from thalweg.stats._series import as_numbers


class ContinuousStrength(NamedTuple):
    """Strength, total correlation and adjusted strength, in nats."""

    optimizing_strength: float
    total_correlation: float
    adjusted_optimizing_strength: float


def square_strength(gain: float) -> ContinuousStrength:
    """A thermostat that starts from a uniform square, one step later: `strength = k/2 - log k` for k <= 1.

    `T' = R`, `R' = R - k T` turns the square into a parallelogram with sides sqrt(2) and k; its twin is the
    product of that parallelogram's marginals (and 1/(2k) for k > 1). P is the square's image, so that all of the
    strength is total correlation: a linear map forgets equally under P and P'.

    From J. Bostock's posts on optimization, part 2.

    >>> import thalweg as tw
    >>> round(tw.steering.square_strength(0.3).optimizing_strength, 6)
    1.353973
    """
    gain = float(check_one_number(gain, "gain", above=0))
    strength = gain / 2 - math.log(gain) if gain <= 1 else 1 / (2 * gain)
    return ContinuousStrength(strength, strength, 0.0)


def gaussian_strength(jacobian: Any, covariance: Any, blocks: Any = None) -> ContinuousStrength:
    """Strength of a linear map for a Gaussian, with `S = log det(covariance)/2 + const` for the entropy.

    `P'` keeps the blocks of the covariance and drops what links them. The adjusted strength of an invertible
    map is 0; only total correlation is left.

    **Arguments**

    - `jacobian`: the map, shape (n, n). - `covariance`: of P, shape (n, n), positive definite.
    - `blocks`: the sizes of the parts in order, by default all 1.

    **Raises** `ValueError` for a singular map, whose image has no density.

    >>> import numpy as np, thalweg as tw
    >>> turn = np.array([[0.0, 1.0], [-0.5, 1.0]])  # T' = R, R' = R - T/2
    >>> found = tw.steering.gaussian_strength(turn, turn @ turn.T)  # P: the image of equal variances
    >>> round(2 * found.optimizing_strength, 12) == round(float(np.log((1 + 0.25) / 0.25)), 12)
    True
    """
    j, c = as_numbers(jacobian, "jacobian"), as_numbers(covariance, "covariance")
    n = len(c) if c.ndim else 0
    if c.shape != (n, n) or j.shape != (n, n) or n == 0:
        raise ValueError(f"jacobian and covariance must be square and equal in shape, got {j.shape} and {c.shape}")
    if not np.all(np.isfinite(j)) or not np.all(np.isfinite(c)):
        raise ValueError("jacobian and covariance must be finite, got NaN or infinity in one")
    sign, _ = np.linalg.slogdet(j)
    if sign == 0:
        raise ValueError("jacobian must be invertible: the image of a singular map has no density")
    if not np.allclose(c, c.T) or np.min(np.linalg.eigvalsh(c)) <= 0:
        raise ValueError("covariance must be symmetric and positive definite")
    sizes = [1] * n if blocks is None else list(blocks) if isinstance(blocks, list | tuple | np.ndarray) else []
    if not sizes or not all(is_whole(size) and size > 0 for size in sizes) or sum(sizes) != n:
        raise ValueError(f"blocks must be positive whole sizes that add up to {n}, got {shown(blocks)}")
    twin, at = np.zeros_like(c), 0
    for size in sizes:
        part = slice(at, at + size)
        twin[part, part] = c[part, part]
        at += size

    def half_log_det(matrix):
        return np.linalg.slogdet(matrix)[1] / 2

    strength = half_log_det(j @ twin @ j.T) - half_log_det(j @ c @ j.T)
    correlation = half_log_det(twin) - half_log_det(c)
    return ContinuousStrength(float(strength), float(correlation), float(strength - correlation))
