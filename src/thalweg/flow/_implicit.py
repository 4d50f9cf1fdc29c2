"""Implicit steps in time: L-stable, of second order, and never negative."""

import math
from typing import Any

import numpy as np

SHARE = 1 - 1 / math.sqrt(2)  # of a time step that both stages take implicitly, so that one factorisation serves


def evolve(matrix: Any, start: np.ndarray, time: float, fineness: int, keep_mass: bool = True) -> np.ndarray:
    """`exp(time matrix) start`, by TR-BDF2 (Bank and others, 1985) on steps that double.

    `fineness` steps of a length are made before it doubles, so that the first steps resolve a sharp start and the last
    a slow decay. No scheme of second order is positive for all steps; where a step makes a number negative, it is
    repeated as implicit Euler steps, which never do.
    """
    from scipy.sparse import identity
    from scipy.sparse.linalg import splu

    if time <= 0:
        return start.copy()
    eye = identity(matrix.shape[0], format="csc")
    fastest = float(np.max(np.abs(matrix.diagonal())))
    levels = max(1, math.ceil(math.log2(max(2.0, time * fastest / fineness) + 1)))
    levels = min(levels, 40)
    length = time / (fineness * (2**levels - 1))
    now, total = start.copy(), start.sum()
    for _ in range(levels):
        solve = splu((eye - SHARE * length * matrix).tocsc()).solve
        euler = None
        for _ in range(fineness):
            nxt = _tr_bdf2(matrix, now, length, solve)
            if nxt.min() < 0:
                if euler is None:
                    euler = splu((eye - length / 4 * matrix).tocsc()).solve
                nxt = now
                for _ in range(4):
                    nxt = euler(nxt)
                nxt = np.maximum(nxt, 0.0)  # rounding only: the inverse of an M-matrix is positive
            now = nxt * (total / nxt.sum()) if keep_mass else nxt
        length *= 2
    return np.asarray(now)


def _tr_bdf2(matrix: Any, now: np.ndarray, length: float, solve: Any) -> np.ndarray:
    gamma = 2 * SHARE
    middle = solve(now + SHARE * length * (matrix @ now))
    return np.asarray(solve((middle - (1 - gamma) ** 2 * now) / (gamma * (2 - gamma))))
