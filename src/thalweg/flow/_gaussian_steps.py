"""Steps that are normally distributed, integrated over every cell in closed form.

Where a step is `a(x) + B(x) w` with `w` standard normal, its law on one axis is normal with mean `a` and
variance `B B^T`, and the
mean of a piecewise linear function is a sum of error functions and Gaussians. Quadrature would miss the jump at
the edge of a target; this does not.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float

from thalweg._noise import Normal
from thalweg._process import Process
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._outcomes import at_draws, holds
from thalweg.flow._space import Grid

REACH = 12.0  # standard deviations that are integrated: 1e-32 lies beyond
MOST_ENTRIES = 6e7
ENTRIES_AT_ONCE = 2**20


class GaussianSteps(NamedTuple):
    """The mean and the standard deviation of a step from each cell."""

    mean: Float[np.ndarray, " cells"]
    deviation: Float[np.ndarray, " cells"]


def gaussian_steps(process: Process, chart: Chart, points: Float[np.ndarray, "cells axes"]) -> GaussianSteps | None:
    """The normal law of a step from each point, or `None` where the step is not linear in the noise."""
    assert isinstance(process.noise, Normal)
    shape = process.noise.shape
    count = int(np.prod(shape))
    probes = np.random.default_rng(0).normal(size=(3, count))
    draws = np.concatenate([np.zeros((1, count)), np.eye(count), probes])
    images = at_draws(process, chart, points, jnp.asarray(draws.reshape(-1, *shape)))[:, :, 0]
    if not np.all(np.isfinite(images)):
        bad = points[~np.all(np.isfinite(images), axis=1)][0]
        raise ValueError(f"a step from {bad.tolist()} on the grid leads to NaN or infinity: make the grid smaller")
    mean, slopes = images[:, 0], images[:, 1 : count + 1] - images[:, :1]
    expected = mean[:, None] + slopes @ probes.T
    scale = np.abs(slopes).sum(axis=1, keepdims=True) + np.abs(mean[:, None]) * 1e-3
    if np.any(np.abs(expected - images[:, count + 1 :]) > 1e-9 * scale + 1e-300):
        return None
    deviation = np.sqrt((slopes**2).sum(axis=1))
    if np.any(deviation <= 1e-6 * np.diff(points[:2, 0])):
        return None  # no noise somewhere: outcomes serve better
    return GaussianSteps(mean, deviation)


def target_edges(grid: Grid, chart: Chart, target: Predicate) -> tuple[np.ndarray, np.ndarray]:
    """Where a target begins and ends on one axis, to round-off, and whether it holds in each of the parts between.

    Seen are changes between neighbours of the cells' centers and edges; the first and last part reach to infinity.
    """
    places = np.sort(np.concatenate([grid.edges[0], grid.centers[0]]))
    inside = holds(target, chart, places[:, None])
    change = np.flatnonzero(inside[1:] != inside[:-1])
    low, high, left = places[change], places[change + 1], inside[change]
    for _ in range(60):
        middle = (low + high) / 2
        if not len(middle):
            break
        as_left = holds(target, chart, middle[:, None]) == left
        low, high = np.where(as_left, middle, low), np.where(as_left, high, middle)
    return high, np.concatenate([inside[:1], inside[change + 1]])


def hat_weights(
    grid: Grid, steps: GaussianSteps, edges: Float[np.ndarray, " edges"], inside: np.ndarray
) -> tuple[Any, np.ndarray, np.ndarray]:
    """(matrix on the part outside the target, probability to land in the target, probability to leave the grid).

    `u` is linear between the centers and constant beyond the outermost. Over a piece [a, b] on which it is linear, a
    normal variable with mean m and deviation s has `P = Phi(z_b) - Phi(z_a)` and
    `E[x; piece] = m P - s (phi(z_b) - phi(z_a))`, `z = (x - m) / s`.
    """
    width, n = float(grid.widths[0]), grid.size
    mean, deviation = steps
    pieces = np.unique(np.concatenate([grid.centers[0], edges, [grid.lower[0], grid.upper[0]]]))
    reach = REACH * deviation
    first = np.searchsorted(pieces, mean - reach)
    count = int(np.max(np.searchsorted(pieces, mean + reach) - first)) + 2
    if count * n > MOST_ENTRIES:
        raise ValueError(
            f"a grid of {n} cells needs {count * n:.2g} entries, since the noise is {np.max(deviation) / width:.0f} "
            f"cells wide: {max(4, int(n * (MOST_ENTRIES / (count * n)) ** 0.5))} cells are more than enough"
        )
    parts = []
    rows = max(1, ENTRIES_AT_ONCE // count)
    for begin in range(0, n, rows):
        some = slice(begin, begin + rows)
        parts.append(_rows(grid, mean[some, None], deviation[some, None], pieces, first[some], count, edges, inside))
    data, columns, hit, leak = (np.concatenate(part) for part in zip(*parts, strict=True))
    matrix = scipy.sparse.csr_matrix((data, columns, np.arange(n + 1) * (2 * count)), shape=(n, n))
    matrix.sum_duplicates()
    return matrix, hit, leak


def _rows(
    grid: Grid,
    mean: Float[np.ndarray, "rows 1"],
    deviation: Float[np.ndarray, "rows 1"],
    pieces: np.ndarray,
    first: np.ndarray,
    count: int,
    edges: np.ndarray,
    inside: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Entries and columns of some rows of the matrix, and their chances to hit and to leak."""
    centers, width, n = grid.centers[0], float(grid.widths[0]), grid.size
    # Each row sees a window of the pieces, which reaches to infinity on both sides.
    padded = np.concatenate([[-np.inf], pieces, [np.inf]])
    window = np.clip(first[:, None] + np.arange(count + 1), 0, len(padded) - 1)
    low, high = padded[window[:, :-1]], padded[window[:, 1:]]
    low[:, 0] = -np.inf
    high[:, -1] = np.inf
    zl, zh = (low - mean) / deviation, (high - mean) / deviation
    mass = _normal_mass(zl, zh)
    middle = np.where(np.isinf(low), high - width / 2, np.where(np.isinf(high), low + width / 2, (low + high) / 2))
    middle = np.where(np.isfinite(middle), middle, mean)
    met = inside[np.searchsorted(edges, middle, side="right")]
    first_moment = mean * mass - deviation * (_phi(zh) - _phi(zl))
    below = np.clip(np.floor((middle - centers[0]) / width), 0, n - 2).astype(np.int32)
    share = np.clip((first_moment - centers[below] * mass) / width, 0.0, mass)
    share = np.where(middle <= centers[0], 0.0, np.where(middle >= centers[-1], mass, share))
    kept = mass * ~met
    data = np.stack([(mass - share) * ~met, share * ~met], axis=-1).reshape(-1)
    columns = np.stack([below, below + 1], axis=-1).reshape(-1)
    outside = (middle < grid.lower[0]) | (middle > grid.upper[0])
    return data, columns, np.sum(mass * met, axis=1), np.sum(kept * outside, axis=1)


def _phi(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.minimum(z * z, 1400.0) / 2) / np.sqrt(2 * np.pi) * np.isfinite(z)


def _normal_mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """P(low < z < high), with the tails' relative precision."""
    from scipy.special import ndtr

    flip = low > 0
    return np.maximum(ndtr(np.where(flip, -low, high)) - ndtr(np.where(flip, -high, low)), 0.0)
