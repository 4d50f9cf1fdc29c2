"""Implicit steps in time: L-stable, of second order, and never negative."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from thalweg._progress import progress

Solver = Callable[[np.ndarray], np.ndarray]
SHARE = 1 - 1 / math.sqrt(2)  # of a time step that both stages take implicitly, so that one factorisation serves


class Implicit:
    """`exp(time matrix)` by TR-BDF2 (Bank and others, 1985) on steps that double; what the matrix is, is read once."""

    def __init__(self, matrix: Any):
        self._factorised = _factoriser(matrix)
        self._fastest = float(np.max(np.abs(matrix.diagonal())))

    def evolve(
        self, start: np.ndarray, time: float, fineness: int, keep_mass: bool = True, show: bool = False
    ) -> np.ndarray:
        """`exp(time matrix) start`.

        `fineness` steps of a length are made before it doubles, so that the first steps resolve a sharp start and the
        last a slow decay. No scheme of second order is positive for all steps; where a step makes a number negative,
        it is repeated as implicit Euler steps, which never do.
        """
        if time <= 0:
            return start.copy()
        levels = max(1, math.ceil(math.log2(max(2.0, time * self._fastest / fineness) + 1)))
        levels = min(levels, 40)
        length = time / (fineness * (2**levels - 1))
        now, total = start.copy(), start.sum()
        with progress(show, levels, f"{len(start)} cells: lengths of time step") as tell:
            for level in range(levels):
                solve = self._factorised(SHARE * length)
                euler = None
                for _ in range(fineness):
                    nxt = _tr_bdf2(now, solve)
                    if nxt.min() < 0:
                        euler = euler or self._factorised(length / 4)
                        nxt = now
                        for _ in range(4):
                            nxt = euler(nxt)
                        nxt = np.maximum(nxt, 0.0)  # rounding only: the inverse of an M-matrix is positive
                    now = nxt * (total / nxt.sum()) if keep_mass else nxt
                tell(level + 1)
                length *= 2
        return np.asarray(now)


def _tr_bdf2(now: np.ndarray, solve: Solver) -> np.ndarray:
    gamma = 2 * SHARE
    middle = 2 * solve(now) - now  # (1 - c A)^-1 (1 + c A), the trapezoidal stage
    return np.asarray(solve((middle - (1 - gamma) ** 2 * now) / (gamma * (2 - gamma))))


def _factoriser(matrix: Any) -> Callable[[float], Solver]:
    """`length -> (1 - length matrix)^-1`, as functions; LAPACK's tridiagonal one where there are only neighbours."""
    from scipy.linalg.lapack import dgttrf, dgttrs
    from scipy.sparse import identity
    from scipy.sparse.linalg import splu

    offsets = matrix.todia().offsets if matrix.nnz <= 3 * matrix.shape[0] else np.array([9])
    if np.all(np.abs(offsets) <= 1):
        below, middle, above = (matrix.diagonal(k) for k in (-1, 0, 1))

        def neighbours(length: float) -> Solver:
            factors = dgttrf(-length * below, 1 - length * middle, -length * above)[:-1]
            return lambda right: dgttrs(*factors, right)[0]

        return neighbours

    eye = identity(matrix.shape[0], format="csc")

    def sparse(length: float) -> Solver:
        solver: Solver = splu((eye - length * matrix).tocsc()).solve
        return solver

    return sparse
