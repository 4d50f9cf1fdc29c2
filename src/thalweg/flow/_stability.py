"""The largest learning rate that is stable in mean square, exactly."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._edge import check_choice, check_number
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.flow._asked import whole
from thalweg.flow._feedback import responses
from thalweg.flow._increments import as_state
from thalweg.flow._mean_square import ORDERS, as_scale, check_momentum, mixture, read_learner
from thalweg.flow._per_datum import Curvatures, curvatures
from thalweg.flow._perron import perron
from thalweg.processes._descent import _Descent


def largest_stable_learning_rate(
    loss: Callable[..., Any] | Process | None = None,
    params: Any = None,
    data: Any = None,
    batch_size: int = 1,
    order: str = "replacement",
    momentum: float = 0.0,
    preconditioner: Any = None,
    *,
    outputs: Callable[[Any, Any], Any] | None = None,
    factors: Any = None,
    hessians: Any = None,
    tol: float = 1e-8,
) -> Estimate:
    """The learning rate at which SGD about a minimum loses mean-square stability, exactly for any batch size.

    Linearised at a minimum that every datum agrees on, a step is `x' = x - eta P H_B x` with H_B the mean Hessian
    of the batch. The variance stays bounded below `eta* = 1 / lambda_max` of

    `E[H_B S H_B] = lambda (H S + S H)` on the range of H = E H_i,

    `E[H_B S H_B] = a E[H_i S H_i] + b H S H`: a = 1/B, b = 1 - 1/B with replacement; a = (n-B) / (B (n-1)),
    b = n (B-1) / (B (n-1)) for subsets; a = (n-B) / (B n), b = 1 where each datum is in the batch with probability B/n
    (the sum of its gradients over B). A preconditioner P turns H_i into `P^(1/2) H_i P^(1/2)`. With momentum
    beta (`v' = beta v + g, x' = x - eta v'`), eta* is where the noise feeds itself through the 2 x 2 response of each
    pair of modes. All is solved in the span of the H_i (from their Gram matrix, its null space dropped).

    **Arguments**: the curvature of each datum, in one of these ways

    - `loss(params, datum)`, `params`, `data`: exact Hessians; beyond 300 parameters where those of single data are of
      low rank (found from products with vectors) or small enough to store.
    - `outputs(params, datum)` with `loss(output, datum)`: Gauss-Newton, `H_i = J_i^T loss'' J_i`, for any number
      of parameters; equal to the Hessian where the data are fitted.
    - `factors`: array (n, d) or (n, m, d), `H_i = sum_m x_im x_im^T`.
    - `hessians`: array (n, d, d), or a list of scipy LinearOperators or sparse matrices (up to 300 parameters).
    - `largest_stable_learning_rate(learner, point)`: a learner of `tw.processes.sgd` with a learning rate.

    and how SGD runs

    - `batch_size`; `order`: `"replacement"`, `"subset"` or `"bernoulli"`. - `momentum`: from 0 up to below 1.
    - `preconditioner`: positive, like `params` or `(d,)`: for frozen Adam `1 / (sqrt(v) + eps)` (its average of
      gradients is momentum beta_1 at learning rate `eta (1 - beta_1)`).

    **Returns** an `Estimate`; its error comes from the eigensolver. `details`: `bounds` (published ones: `trace`
    2 / tr H, `largest_eigenvalue` 2 / lambda_max (full batch), `frobenius` 2 tr H / E tr H_B^2 (an upper bound on
    eta* without momentum), `coherence` `sigma / (lambda_max(H) sqrt(n/B - 1))`, an upper bound on eta* for
    `"bernoulli"`, with `sigma = lambda_max(|H_i^(1/2) H_j^(1/2)|_F) / max_i lambda_max(H_i)`), `trace`,
    `largest_eigenvalue`, `rank`, `mode` (the S that grows, in the basis `basis` of the span, trace 1). Status
    `UNDEFINED` with value 0 where H has a negative eigenvalue: no rate is stable at a saddle.

    **Raises** `ValueError` for arguments that cannot be used.

    **When not to trust it**: it is linear stability in mean square at this point. Above it paths may still
    converge almost surely; away from interpolation the gradients' own noise comes on top.

    Source: Wu et al. (2018), Ma and Ying (2021), Mulayoff and Michaeli (2024) for the operator; the coherence after
    Dexter et al. (2024), proved here in two lines: the noise alone, `S -> eta^2 (n/B - 1) / n^2 sum_i H_i S H_i`,
    has at least the radius `(eta max_i lambda_max(H_i) / n)^2 (n/B - 1)`, and
    `n lambda_max(H) <= lambda_max(|H_i^(1/2) H_j^(1/2)|_F)`.

    **Example**: three data in the plane (eta* tr H = 1.344, while full-batch descent allows 1.131).

    >>> import numpy as np, thalweg as tw
    >>> rate = tw.flow.largest_stable_learning_rate(factors=np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    >>> round(float(rate), 10), round(rate.details["bounds"]["largest_eigenvalue"], 5)
    (0.5760394922, 1.13148)
    """
    check_choice(order, "order", ORDERS)
    batch_size = whole(batch_size, "batch_size", 1)
    beta, scale = check_momentum(momentum), as_scale(preconditioner, params)
    tol = float(check_number(tol, "tol", above=0))
    weights = None
    if isinstance(loss, Process):
        loss, params, data, batch_size, order, weights = _learner(loss, params, data, batch_size, order)
    curved = curvatures(loss, params, data, outputs, factors, hessians, scale, weights)
    mix = mixture(curved.count, batch_size, order)
    details: dict[str, Any] = {
        "trace": float(np.sum(curved.spectrum)),
        "largest_eigenvalue": float(np.max(curved.spectrum, initial=0.0)),
        "rank": curved.rank,
        "bounds": _bounds(curved, mix, batch_size),
        "basis": curved.basis,
    }
    if curved.lowest < 0:
        why = f"the mean Hessian has the eigenvalue {curved.lowest:.3g} < 0: at a saddle no learning rate is stable"
        return Estimate(0.0, 0.0, Status.UNDEFINED, {**details, "why": why})
    if curved.leaks:
        why = "some Hessians act where their mean is zero: there the variance grows at any learning rate"
        return Estimate(0.0, 0.0, Status.UNDEFINED, {**details, "why": why})
    if not curved.rank:
        why = "all Hessians vanish: every learning rate is stable"
        return Estimate(math.inf, 0.0, Status.UNDEFINED, {**details, "why": why})
    if beta == 0:
        rate, mode, error = _without_momentum(curved, mix, tol)
    else:
        rate, mode, error = _with_momentum(curved, mix, beta, tol)
    details["mode"] = mode
    return Estimate(rate, error, Status.OK if error < 1e-4 * rate else Status.NOT_CONVERGED, details)


def _learner(process: Process, point: Any, data: Any, batch_size: int, order: str) -> tuple[Any, ...]:
    """What a learner says of its loss, its data and its batches."""
    step: Any = process.step
    if not isinstance(step, _Descent) or step.optimizer is not None:
        raise ValueError(
            "loss must be a function, or a learner of tw.processes.sgd with a learning rate (momentum= and "
            "preconditioner= stand for an optimizer)"
        )
    if data is not None or batch_size != 1 or order != "replacement":
        raise ValueError("a learner says its data, batch_size and order itself: leave them away")
    state = as_state(process, point, "params")
    loss, data, batch, order, weights = read_learner(process)
    return loss, state.params, data, batch, order, weights


def _without_momentum(
    curved: Curvatures, mix: tuple[float, float], tol: float
) -> tuple[float, Float[np.ndarray, "r r"], float]:
    """`1 / lambda_max` of the symmetric problem `A^(-1/2) C A^(-1/2)`, A = h_j + h_k in the eigenbasis of H."""
    h, a, b = curved.spectrum, *mix
    weight = 1 / np.sqrt(h[:, None] + h[None, :])

    def apply(v: np.ndarray) -> np.ndarray:
        S = weight * v.reshape(len(h), len(h))
        return (weight * (a * curved.sandwich(S) + b * h[:, None] * S * h[None, :])).reshape(-1)

    largest, v, residual = _largest(apply, len(h), tol, weight)
    S = weight * v.reshape(len(h), len(h))
    S = (S + S.T) / 2
    return 1 / largest, S / np.trace(S), residual / largest**2


def _largest(
    apply: Callable[[np.ndarray], np.ndarray], r: int, tol: float, weight: np.ndarray
) -> tuple[float, np.ndarray, float]:
    """The largest eigenvalue of a symmetric map of r x r matrices."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    if r <= 8:
        matrix = np.stack([apply(e) for e in np.eye(r * r)], axis=1)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        value, vector = values[-1], vectors[:, -1]
    else:
        start = (np.eye(r) * weight).reshape(-1)
        operator = LinearOperator((r * r, r * r), matvec=apply, dtype=float)
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=tol, maxiter=5000)
        value, vector = values[0], vectors[:, 0]
    return float(value), vector, float(np.linalg.norm(apply(vector) - value * vector))


def _with_momentum(
    curved: Curvatures, mix: tuple[float, float], beta: float, tol: float
) -> tuple[float, Float[np.ndarray, "r r"], float]:
    """The root in eta of `mu(eta) = 1`, where mu says how much of its noise a step's noise brings back."""
    from scipy.optimize import brentq

    h, a, b = curved.spectrum, *mix
    edge = 2 * (1 + beta) / np.max(h)  # beyond it the mean diverges
    modes: dict[float, np.ndarray] = {}

    def feedback(eta: float) -> float:
        response = pair_response(eta * h, beta)

        def apply(v: np.ndarray) -> np.ndarray:
            S = v.reshape(len(h), len(h))
            noise = a * curved.sandwich(S) + (b - 1) * h[:, None] * S * h[None, :]
            return (response * eta**2 * noise).reshape(-1)

        mu, modes[eta], _ = perron(apply, len(h), tol)
        return mu

    if feedback(edge * (1 - 1e-9)) < 1:
        return edge, modes[edge * (1 - 1e-9)], edge * 1e-9
    eta = brentq(lambda eta: feedback(eta) - 1, edge * 1e-9, edge * (1 - 1e-9), xtol=edge * 1e-13, rtol=max(tol, 1e-14))
    feedback(eta)
    return float(eta), modes[eta], float(eta) * max(tol, 1e-12) * 10


def pair_response(curvature: Float[np.ndarray, " r"], beta: float) -> Float[np.ndarray, "r r"]:
    """`sum_t a_j(t) a_k(t)`, a_j(t) the displacement of mode j, t steps after a unit kick, with momentum beta.

    `a_j(t+1) = (1 + beta - c_j) a_j(t) - beta a_j(t-1)`. The sums Z = (<aa>, <a a'>, <a'a>, <a'a'>), with a' the value
    a step before, solve `Z = kick + M_j (x) M_k Z`; without momentum they are `1 / (1 - (1-c_j)(1-c_k))`.
    """
    M = np.zeros((len(curvature), 2, 2))
    M[:, 0, 0], M[:, 0, 1], M[:, 1, 0] = 1 + beta - curvature, -beta, 1.0
    return responses(M, np.array([1.0, 0.0]), 1.0)[:, :, 0, 0]


def _bounds(curved: Curvatures, mix: tuple[float, float], batch_size: int) -> dict[str, float]:
    h, n = curved.spectrum, curved.count
    trace, most = float(np.sum(h)), float(np.max(h, initial=0.0))
    overlaps = curved.overlaps()  # tr H_i H_j
    squares = mix[0] * float(np.mean(np.diag(overlaps))) + mix[1] * float(np.sum(h * h))
    norms = np.linalg.eigvalsh(np.sqrt(np.maximum(overlaps, 0)))
    coherence = float(norms[-1]) / max(curved.largest_of_one(), 1e-300)
    odds = n / batch_size - 1
    safe = lambda top, bottom: top / bottom if bottom > 0 else math.inf  # noqa: E731
    return {
        "trace": safe(2, trace),
        "largest_eigenvalue": safe(2, most),
        "frobenius": safe(2 * trace, squares),
        "coherence": safe(coherence, most * math.sqrt(max(odds, 0.0))),
    }
