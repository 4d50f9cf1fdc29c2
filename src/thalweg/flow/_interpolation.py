"""Linear interpolation between the centers of cells, as a sparse matrix."""

import functools

import numpy as np
from jaxtyping import Float

from thalweg.flow._space import Grid


def weights(grid: Grid, points: Float[np.ndarray, "n axes"]) -> tuple[np.ndarray, np.ndarray]:
    """The cells around each point, shape (n, 2^axes), and their weights.

    The weights of a point are >= 0 and sum to 1. Beyond the outermost centers the nearest is taken, so that
    what leaves the grid is put back at its edge.
    """
    index = np.zeros((len(points), 1), dtype=np.int32)
    weight = np.ones((len(points), 1))
    for axis, (low, width, n) in enumerate(zip(grid.lower, grid.widths, grid.shape, strict=True)):
        place = np.clip((points[:, axis] - low) / width - 0.5, 0.0, n - 1.0)
        below = np.minimum(place.astype(np.int32), n - 2)
        share = place - below
        index = np.concatenate([index * n + (below + side)[:, None] for side in (0, 1)], axis=1).astype(np.int32)
        weight = np.concatenate([weight * (1 - share)[:, None], weight * share[:, None]], axis=1)
    return index, weight


@functools.lru_cache(maxsize=64)
def overlap(fine: int, coarse: int) -> Float[np.ndarray, "coarse fine"]:
    """The share of each coarse cell that each fine cell covers, on one axis: averages a density."""
    edges = np.arange(coarse + 1)[:, None] * fine / coarse
    cells = np.arange(fine)
    matrix = np.clip(np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells), 0.0, None)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def averaged(density: np.ndarray, grid: Grid) -> np.ndarray:
    """A density on the cells of a coarser grid over the same box."""
    for axis, (fine, coarse) in enumerate(zip(density.shape, grid.shape, strict=True)):
        if fine == coarse:
            continue
        density = np.moveaxis(np.tensordot(overlap(fine, coarse), density, axes=(1, axis)), 0, axis)
    return density


def spread(density: np.ndarray, coarse: Grid, grid: Grid) -> np.ndarray:
    """A density of a coarse grid, read off at the centers of a finer one."""
    index, weight = weights(coarse, grid.points)
    return np.sum(density.reshape(-1)[index] * weight, axis=1).reshape(grid.shape)
