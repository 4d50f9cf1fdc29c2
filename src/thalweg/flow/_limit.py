"""The shape that masses take after many steps."""

from typing import Any

import numpy as np

from thalweg._progress import Tell, silent

MOST_ITERATIONS = 100_000
PATIENCE = 20  # hundreds of steps before the leading eigenvector is looked for instead


def limit(backward: Any, mass: np.ndarray, tell: Tell = silent) -> tuple[np.ndarray, bool]:
    """The shape that masses take under many steps, brought to sum 1, and whether it has been reached."""
    for round_ in range(MOST_ITERATIONS // 100):
        before = mass
        for _ in range(100):
            mass = backward @ mass
        mass = mass / max(mass.sum(), np.finfo(float).tiny)
        moved = float(np.abs(mass - before).sum())
        tell(100 * (round_ + 1), lambda moved=moved: f"the last 100 moved {moved:.1e} of the mass")
        if moved < 1e-11:
            after = backward @ mass  # one step must change nothing either: a cycle whose length divides 100 is no rest
            if np.abs(after / max(after.sum(), np.finfo(float).tiny) - mass).sum() < 1e-9:
                return mass, True
            by_krylov = _slowest_shape(backward, mass)
            return (mass, False) if by_krylov is None else (by_krylov, True)
        if round_ == PATIENCE:
            by_krylov = _slowest_shape(backward, mass)
            if by_krylov is not None:
                return by_krylov, True
    return mass, False


def _slowest_shape(backward: Any, mass: np.ndarray) -> np.ndarray | None:
    """The leading eigenvector, if it stands alone: for chains that mix too slowly to wait for."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    if len(mass) < 64:
        values, vectors = np.linalg.eig(backward.toarray())
        return _alone(values, vectors)
    try:
        values, vectors = eigs(backward, k=2, which="LR", v0=mass, ncv=min(len(mass) - 1, 60), tol=1e-13, maxiter=5000)
    except ArpackNoConvergence:
        return None
    return _alone(values, vectors)


def _alone(values: np.ndarray, vectors: np.ndarray) -> np.ndarray | None:
    """The eigenvector of the largest eigenvalue as masses, if no other comes near it."""
    first, *others = np.argsort(-values.real)
    if others and values[first].real - values[others[0]].real < 1e-10:
        return None
    shape = vectors[:, first].real
    shape = shape * np.sign(shape.sum())
    if shape.min() < -1e-9 * shape.max():
        return None
    shape = np.maximum(shape, 0.0)  # rounding
    return np.asarray(shape / shape.sum())
