"""The spectral radius of a map that keeps positive matrices positive."""

import math
from collections.abc import Callable

import numpy as np

SMALL = 12  # a matrix of so many rows has few enough second moments to list the map


def perron(
    apply: Callable[[np.ndarray], np.ndarray], d: int, tol: float, S: np.ndarray | None = None
) -> tuple[float, np.ndarray, float]:
    """The radius, the positive semidefinite (d, d) matrix of trace 1 that attains it, and what is left of the equation.

    By Krein and Rutman the radius is itself an eigenvalue with a positive eigenmatrix, so that no other eigenvalue has
    a larger real part. `S`: that matrix, where it is known already.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    def normed(S: np.ndarray) -> np.ndarray:
        S = (S + S.T) / 2
        return S if np.trace(S) >= 0 else -S

    if S is not None:
        S = normed(S)
    elif d <= SMALL:
        matrix = np.stack([apply(e) for e in np.eye(d * d)], axis=1)
        values, vectors = np.linalg.eig(matrix)
        most = np.max(abs(values))
        at = np.argmax(np.where(abs(values) >= most * (1 - 1e-9), values.real, -np.inf))
        S = normed(vectors[:, at].real.reshape(d, d))
    else:
        operator = LinearOperator((d * d, d * d), matvec=apply, dtype=float)
        try:
            values, vectors = eigs(operator, k=1, which="LR", v0=np.eye(d).reshape(-1), tol=tol, maxiter=300)
            S = normed(vectors[:, 0].real.reshape(d, d))
        except ArpackNoConvergence:
            S = np.eye(d)
            for _ in range(2000):  # slow, but sure for a positive map
                S = apply(S.reshape(-1)).reshape(d, d)
                S /= np.trace(S)
    size = np.trace(S)
    S = S / size if size > 0 else S
    after = apply(S.reshape(-1)).reshape(d, d)
    norm = np.sum(S * S)
    radius = float(np.sum(S * after) / norm) if norm > 0 else 0.0
    return radius, S, float(np.linalg.norm(after - radius * S) / max(math.sqrt(norm), 1e-300))
