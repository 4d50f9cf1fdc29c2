"""Kernel Stein discrepancies: how far samples lie from a law that is known up to its normalisation.

A Stein operator of a law p maps every test function to one whose mean under p is 0. Applied to both arguments of a
kernel it gives a kernel `u(x, y)` whose mean over samples of p is 0, and greater than 0 over samples of another law.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def continuous(x: np.ndarray, score: np.ndarray) -> np.ndarray:
    """`u(x_i, x_j)`, shape (n, n), of real samples with their scores `d log p / dx`, both (n, d).

    Langevin's Stein operator and inverse multiquadric kernels `(1 + |x - y|^2 / l^2)^(-1/2)`, summed over lengths `l`
    of 1, 1/2 and 1/4 of the median distance (Gorham and Mackey, 2017: unlike a Gaussian kernel these do not lose sight
    of tails).
    """
    r2 = distances2(x)
    along = np.sum(score * x, axis=1)
    cross = score @ x.T
    towards = along[:, None] - cross - cross.T + along[None]  # (s_i - s_j).(x_i - x_j)
    products, total = score @ score.T, np.zeros_like(r2)
    for length2 in median(r2) / np.array([1, 4, 16]):
        base = 1 + r2 / length2
        slope = -(base**-1.5) / length2  # the gradient of the kernel in x is slope (x - y)
        total += products * base**-0.5 - towards * slope - x.shape[1] * slope - 3 * r2 * base**-2.5 / length2**2
    return total


def discrete(signs: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """`u(x_i, x_j)`, shape (n, n), of samples of two-valued units, as `signs` of -1 and +1, shape (n, d).

    The Stein operator is the generator of heat-bath flips, `A f(x) = sum_i r_i(x) (f(x with i flipped) - f(x))` with
    `rates` `r_i = 1 / (1 + p(x) / p(x flipped))`, shape (n, d), which are bounded where ratios of probabilities are
    not. The kernel is `exp(g x.y)` with `g = 2 / d`. As Yang et al. (2018), with another operator.
    """
    d = signs.shape[1]
    g = 2 / d
    k = np.exp(g * (signs @ signs.T - d))
    turned, total = rates * signs, np.sum(rates, axis=1)
    # Flipping unit i in x multiplies k by exp(-2 g x_i y_i) = cosh 2g - x_i y_i sinh 2g.
    one = (np.cosh(2 * g) - 1) * total[:, None] - np.sinh(2 * g) * (turned @ signs.T)
    both = (1 - np.cosh(4 * g)) * (rates @ rates.T) + np.sinh(4 * g) * (turned @ turned.T)
    return k * (one * one.T + both)


def p_value(kernel: np.ndarray, rng: np.random.Generator, draws: int) -> tuple[float, float]:
    """(the mean of `u` over pairs, how often chance gives as much), by random signs (the wild bootstrap)."""
    off = kernel - np.diag(np.diagonal(kernel))  # without the diagonal both are of mean 0 under p
    statistic, count = off.sum() / len(off) ** 2, 0
    for size in _parts(draws, len(off)):
        signs = rng.choice([-1.0, 1.0], (size, len(off)))
        count += int(np.sum(np.sum((signs @ off) * signs, axis=1) / len(off) ** 2 >= statistic))
    return float(statistic), (1 + count) / (1 + draws)


def two_sample(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, draws: int) -> tuple[float, float]:
    """(squared maximum mean discrepancy of two samples, how often shuffled samples differ as much).

    Gaussian kernels of five widths, from a quarter to four times the median distance, added (Gretton et al., 2012).
    """
    r2 = distances2(np.concatenate([x, y]))
    kernel = np.sum([np.exp(-r2 / (2 * median(r2) * f**2)) for f in (0.25, 0.5, 1.0, 2.0, 4.0)], axis=0)
    np.fill_diagonal(kernel, 0.0)
    label = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])
    statistic, count = label @ kernel @ label, 0
    for size in _parts(draws, len(kernel)):
        shuffled = rng.permuted(np.tile(label, (size, 1)), axis=1)
        count += int(np.sum(np.sum((shuffled @ kernel) * shuffled, axis=1) >= statistic * (1 - 1e-12)))
    return float(statistic), (1 + count) / (1 + draws)


def distances2(x: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs of rows, shape (n, n)."""
    squares = np.sum(x**2, axis=1)
    return np.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0.0)


def median(r2: np.ndarray) -> float:
    """The median of the squared distances of different rows; 1 where all are the same."""
    found = float(np.median(r2[np.triu_indices(len(r2), 1)]))
    return found if found > 0 else float(r2.mean()) or 1.0


def _parts(draws: int, n: int) -> list[int]:
    """Draws in parts of about four million numbers."""
    size = max(1, 4_000_000 // n)
    return [min(size, draws - done) for done in range(0, draws, size)]


def gain_along(score: Callable[[Any], Any], x: Any, y: Any, nodes: int = 96) -> Any:
    """`log p(y) - log p(x)` as the integral of the score along the straight line, by Gauss-Legendre quadrature."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    points = jnp.asarray((t + 1) / 2)
    many = jax.vmap(lambda s: jax.vmap(score)(x + s * (y - x)))(points)  # (nodes, n, d)
    return jnp.einsum("s,snd,nd->n", jnp.asarray(w / 2), many, y - x)
