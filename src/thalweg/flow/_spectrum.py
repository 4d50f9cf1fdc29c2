"""The slow modes of a chain: eigenvalues near 1, and how long they take to die out."""

from typing import Any, NamedTuple

import numpy as np

DENSE = 400  # states up to which all eigenvalues are computed


class Modes(NamedTuple):
    """Slow modes, the slowest first; the first is the stationary one, with eigenvalue 1.

    - `eigenvalues`: shape (k,), of one step. - `functions`: shape (k, n), `K u = eigenvalue u`.
    - `densities`: shape (k, n), masses with `K^T m = eigenvalue m`.
    """

    eigenvalues: np.ndarray
    functions: np.ndarray
    densities: np.ndarray


def eigenvalues(matrix: Any, k: int) -> np.ndarray:
    """The k eigenvalues of largest modulus, in that order."""
    return np.asarray(_eigen(matrix, k)[0])


def modes(matrix: Any, k: int) -> Modes:
    """The k slowest modes of a row-stochastic matrix."""
    values, functions = _eigen(matrix, k)
    others, densities = _eigen(matrix.T.tocsr(), k)
    order = [int(np.argmin(np.abs(others - value))) for value in values]
    return Modes(values, functions.T, densities.T[order])


def _eigen(matrix: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse.linalg import eigs

    n = matrix.shape[0]
    if n <= max(DENSE, 3 * k):
        values, vectors = np.linalg.eig(matrix.toarray())
    else:
        start = np.random.default_rng(0).normal(size=n)
        values, vectors = eigs(matrix, k=k, which="LM", v0=start, ncv=min(n - 1, max(4 * k, 40)), maxiter=20_000)
    order = np.argsort(-np.abs(values), kind="stable")[:k]
    values, vectors = values[order], vectors[:, order]
    if np.all(np.abs(values.imag) < 1e-9):
        return values.real, vectors.real
    return values, vectors


def relaxation_times(values: np.ndarray) -> np.ndarray:
    """`-1 / log|eigenvalue|` of all but the first; infinite for another eigenvalue 1."""
    size = np.minimum(np.abs(values[1:]), 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.abs(np.log(size)))
