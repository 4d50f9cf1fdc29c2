"""Entropies of finite distributions that keep their digits where almost all weight is in one cell."""

from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg.stats._series import as_numbers

NATS_PER_BIT = np.log(2.0)


def entropy(p: Any) -> float:
    """The entropy of a distribution, in bits: `-sum p log2 p`, empty cells counting 0.

    The heaviest cell is taken as one minus the others, `log1p(-sum of the others)`, so that an entropy of 1e-9 bits is
    as exact as one of 1.

    **Arguments**: `p`: probabilities of any shape, >= 0 with sum 1.

    >>> import thalweg as tw
    >>> tw.steering.entropy([0.5, 0.5]), tw.steering.entropy([1.0, 0.0])
    (1.0, 0.0)
    >>> print(f"{tw.steering.entropy([1 - 1e-10, 1e-10]):.9e}")  # e (1 - log e) / log 2
    3.466197599e-09
    """
    return float(nats(check_probabilities(p, "p")) / NATS_PER_BIT)


def check_probabilities(p: Any, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Probabilities as an array, or a sentence about what is wrong with them."""
    if np.asarray(p).dtype.kind == "b":
        raise TypeError(f"{name} must be probabilities, got truth values")
    p = as_numbers(p, name)
    if shape is not None and p.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, one number a joint state, got {p.shape}")
    if p.size == 0 or not np.all(np.isfinite(p)) or np.any(p < 0):
        raise ValueError(f"{name} must be probabilities: finite numbers >= 0, got {p.reshape(-1)[:9].tolist()}")
    if abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"{name} must sum to 1, got {p.sum():.12g}: divide by the sum")
    return p


def one_chance(chance: Any, name: str) -> float:
    """A probability that a mapping gives."""
    number = as_numbers(chance, name)
    if number.ndim:
        raise ValueError(f"{name} must map to single probabilities, got shape {number.shape}")
    return float(number)


def nats(p: Float[np.ndarray, "..."]) -> float:
    """The entropy in nats."""
    p = p.reshape(-1)
    heaviest = int(np.argmax(p))
    others = np.delete(p, heaviest)
    others = others[others > 0]
    rest = others.sum()
    heavy = -(1 - rest) * np.log1p(-rest) if rest < 1 else 0.0
    return float(heavy - np.sum(others * np.log(others)))


def divergence(p: Float[np.ndarray, "..."], q: Float[np.ndarray, "..."]) -> float:
    """The Kullback-Leibler divergence of p from q in nats, as a sum of terms that are never negative.

    `sum q h((p - q)/q)` with `h(x) = (1 + x) log(1 + x) - x`, which is `x^2/2` for small x.
    """
    p, q = p.reshape(-1), q.reshape(-1)
    reached = q > 0
    p, q = p[reached], q[reached]
    x = (p - q) / q
    small = np.abs(x) < 1e-3
    far = np.where(small, 1.0, 1 + x)
    h = np.where(far > 0, far * np.log(np.where(far > 0, far, 1.0)), 0.0) - (far - 1)
    series = x**2 * (1 / 2 - x * (1 / 6 - x * (1 / 12 - x * (1 / 20 - x / 30))))
    return float(np.sum(q * np.where(small, series, h)))
