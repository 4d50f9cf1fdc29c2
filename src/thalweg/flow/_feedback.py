"""How fast second moments grow, from the noise that they feed back: a small eigenproblem in place of a large one.

The second moments `S_jk` of modes j and k, matrices over the parameter and its memory, go in a step to
`M_j S_jk M_k^T + kick kick^T N(S_00)_jk`: what the mean step does, and the noise that the parameters' own moments S_00
make. If they grow by rho a step, `S_jk = (rho - M_j (x) M_k)^-1 kick kick^T N(S_00)_jk`, so that rho is where the map
`S_00 -> R(rho) N(S_00)`, R the response of the parameters, has radius 1. Slow modes crowd about 1 as eigenvalues of a
step, and an eigensolver takes thousands of steps to tell them apart; in R they stand `1 / (rho - ...)` apart.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from thalweg.flow._perron import perron

NEAR = 1e-10  # relative to the mean step's own radius: growth that is nearer to it owes nothing to the noise


def responses(M: Float[np.ndarray, "r k k"], kick: Float[np.ndarray, " k"], rho: float) -> Float[np.ndarray, "r r k k"]:
    """`(rho - M_j (x) M_k)^-1 kick kick^T` for each pair of modes."""
    r, k = len(M), len(kick)
    pushed = np.outer(kick, kick).reshape(k * k, 1)
    found = np.empty((r, r, k, k))
    for j in range(r):
        pairs = np.einsum("ab,kcd->kacbd", M[j], M).reshape(r, k * k, k * k)
        found[j] = np.linalg.solve(rho * np.eye(k * k) - pairs, pushed).reshape(r, k, k)
    return found


def growing_moments(
    M: Float[np.ndarray, "r k k"], kick: Float[np.ndarray, " k"], noise: Callable[[np.ndarray], np.ndarray], tol: float
) -> Float[np.ndarray, "kr kr"] | None:
    """The second moments that grow fastest, where the noise makes them; `None` where the mean step alone does."""
    from scipy.optimize import brentq

    r, size = len(M), M.shape[0] * M.shape[1]
    floor = max(float(np.max(np.abs(np.linalg.eigvals(M)))) ** 2, 1e-12)

    @functools.cache  # near the root rho takes few values, to rounding
    def moments(rho: float) -> tuple[float, np.ndarray]:
        response = responses(M, kick, rho)
        radius, S, _ = perron(lambda v: (response[:, :, 0, 0] * noise(v.reshape(r, r))).reshape(-1), r, tol)
        return radius, np.einsum("jkab,jk->ajbk", response, noise(S)).reshape(size, size)

    def surplus(x: float) -> float:
        return math.log(max(moments(floor + math.exp(x))[0], 1e-300))

    low, high = math.log(NEAR * floor), math.log(floor)
    if surplus(low) <= 0:
        return None
    while surplus(high) > 0:
        high += 2
    return moments(floor + math.exp(brentq(surplus, low, high, xtol=tol, rtol=1e-14)))[1]
