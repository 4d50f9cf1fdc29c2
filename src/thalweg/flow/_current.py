"""The probability current: how much probability crosses where, in one step."""

from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg.flow._space import Grid


def crossings(grid: Grid, matrix: Any, masses: Float[np.ndarray, " cells"]) -> Float[np.ndarray, " faces"]:
    """On one axis: the net probability that passes each edge of the cells, rightwards, in a step."""
    moved = matrix.T @ masses - masses
    return np.concatenate([[0.0], -np.cumsum(moved)[:-1], [0.0]])


def displacements(grid: Grid, matrix: Any, masses: Float[np.ndarray, " cells"]) -> Float[np.ndarray, "axes ..."]:
    """In the plane or in space: the mean displacement of the probability that leaves and that enters each cell.

    `J(x) = (1/2) [p(x) E(dx | from x) + p'(x) E(dx | into x)]`, a density times a length a step. At stationarity what
    is left of it is circulation.
    """
    after = matrix.T @ masses
    parts = []
    for axis in range(grid.dimension):
        x = grid.points[:, axis]
        leaving = masses * (matrix @ x - x)
        entering = x * after - matrix.T @ (x * masses)
        parts.append(((leaving + entering) / 2 / grid.cell_volume).reshape(grid.shape))
    return np.stack(parts)
