"""Mean-square stability: whether the variance of a learner about a fixed point grows or shrinks, exactly."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._edge import check_choice, check_number, shown
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.flow._asked import whole
from thalweg.flow._increments import Increments
from thalweg.flow._per_datum import Curvatures, curvatures, flatten_like

MOST_COORDINATES = 1500  # the second moment of the process is a square matrix of this side


def mean_square_stability(process: Process, fixed_point: Any, *, tol: float = 1e-10) -> Estimate:
    """By what factor a step multiplies the variance about a fixed point: stable below 1.

    The spectral radius of `S -> E[J_w S J_w^T]`, with J_w the Jacobian of the step under the noise w. For SGD
    `J_w = I - eta H_w`. At a point that every datum leaves alone, the variance itself decays or grows by this
    factor a step; elsewhere the radius decides whether a stationary variance exists.

    **Arguments**

    - `process`: noise finite, or Gaussian by quadrature; a smooth step. The memory of an optimizer counts where
      `process.coordinates` says so; at most 1500 coordinates (for many parameters and SGD use
      `largest_stable_learning_rate`).
    - `fixed_point`: a state, a point, or what `init` takes, that the mean step leaves alone.
    - `tol`: relative accuracy of the eigenvalue.

    **Returns** an `Estimate`: the radius, its error a bound from the residual. `details`: `mode` (the positive
    semidefinite S that attains it, trace 1), `mean_radius` (spectral radius of E J_w: stability of the mean, never
    above `sqrt(radius)`), `offset` (length of the mean increment). Status `UNDEFINED` where the point is not fixed
    by the mean step.

    **Raises** `ValueError` for noise that cannot be integrated and for steps that jump.

    **When not to trust it**: it is linear. Above 1, paths may still converge almost surely while rare excursions
    carry the variance.

    **Example**: one parameter, curvatures 1 +- s: radius E (1 - T a)^2.

    >>> import thalweg as tw
    >>> radius = tw.flow.mean_square_stability(tw.systems.linear_noise(0.5), 2.0)
    >>> round(float(radius), 12)  # ((1 - 0.6)^2 + (1 - 0.4)^2) / 2
    0.26
    """
    tol = float(check_number(tol, "tol", above=0))
    increments = Increments(process, fixed_point, "fixed_point")
    if not process.smooth:
        raise ValueError("process must be smooth, got smooth=False: the Jacobian of a step that jumps says nothing")
    d = increments.dimension
    if d > MOST_COORDINATES:
        raise ValueError(
            f"mean_square_stability holds a {d} x {d} matrix, wanted at most {MOST_COORDINATES} coordinates: use "
            "tw.flow.largest_stable_learning_rate"
        )
    x = jnp.asarray(
        increments.of(fixed_point if _fits(increments, fixed_point) else increments.template, "fixed_point")
    )
    jacobians, weights = _jacobians(increments, x)

    def apply(S):
        return _second_moment(jacobians, weights, jnp.asarray(S.reshape(d, d)))

    radius, mode, residual = _perron(lambda v: np.asarray(apply(v)).reshape(-1), d, tol)
    offset = float(jnp.linalg.norm(increments.mean(x)))
    mean = np.asarray(jnp.tensordot(weights, jacobians, axes=1))
    details = {"mode": mode, "mean_radius": float(np.max(abs(np.linalg.eigvals(mean)))), "offset": offset}
    status = Status.OK
    if offset > 1e-6 * (1 + float(jnp.linalg.norm(x))):
        status = Status.UNDEFINED
        details["why"] = f"the mean step moves the point by {offset:.3g}: it is no fixed point, move it to one"
    return Estimate(radius, residual, status, details)


def _fits(increments: Increments, given: Any) -> bool:
    try:
        increments.of(given, "fixed_point")
    except (ValueError, TypeError):
        return False
    return True


@eqx.filter_jit
def _jacobians(increments: Increments, x: Any) -> tuple[Any, Any]:
    jacobians = jax.jacfwd(increments)(x) + jnp.eye(len(x))
    return jacobians, increments.weights


@eqx.filter_jit
def _second_moment(jacobians: Any, weights: Any, S: Any) -> Any:
    def add(total, part):
        J, w = part
        return total + w * J @ S @ J.T, None

    return jax.lax.scan(add, jnp.zeros_like(S), (jacobians, weights))[0]


def _perron(apply: Callable[[np.ndarray], np.ndarray], d: int, tol: float) -> tuple[float, np.ndarray, float]:
    """The spectral radius of a map that keeps positive matrices positive, its positive eigenmatrix, a residual.

    By Krein and Rutman the radius is itself an eigenvalue with a positive eigenmatrix, so that among the
    eigenvalues of the largest modulus the real positive one is wanted.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    def normed(S: np.ndarray) -> np.ndarray:
        S = (S + S.T) / 2
        return S if np.trace(S) >= 0 else -S

    if d <= 12:
        basis = np.eye(d * d)
        matrix = np.stack([apply(e) for e in basis], axis=1)
        values, vectors = np.linalg.eig(matrix)
        most = np.max(abs(values))
        at = np.argmax(np.where(abs(values) >= most * (1 - 1e-9), values.real, -np.inf))
        S = normed(vectors[:, at].real.reshape(d, d))
    else:
        operator = LinearOperator((d * d, d * d), matvec=apply, dtype=float)
        try:
            values, vectors = eigs(operator, k=1, which="LM", v0=np.eye(d).reshape(-1), tol=tol)
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


# Learning rates -----------------------------------------------------------------------------------


def largest_stable_learning_rate(
    loss: Callable[..., Any] | None = None,
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
    b = n (B-1) / (B (n-1)) for subsets. A preconditioner P turns H_i into `P^(1/2) H_i P^(1/2)`. With momentum
    beta (`v' = beta v + g, x' = x - eta v'`), eta* is where the noise feeds itself through the 2 x 2 response of each
    pair of modes. All is solved in the span of the H_i (from their Gram matrix, its null space dropped).

    **Arguments**: the curvature of each datum, in one of these ways

    - `loss(params, datum)`, `params`, `data`: exact Hessians, for up to 300 parameters.
    - `outputs(params, datum)` with `loss(output, datum)`: Gauss-Newton, `H_i = J_i^T loss'' J_i`, for any number
      of parameters; equal to the Hessian where the data are fitted.
    - `factors`: array (n, d) or (n, m, d), `H_i = sum_m x_im x_im^T`.
    - `hessians`: array (n, d, d), or a list of scipy LinearOperators or sparse matrices (up to 300 parameters).

    and how SGD runs

    - `batch_size`; `order`: `"replacement"` or `"subset"`. - `momentum`: from 0 up to below 1.
    - `preconditioner`: positive, like `params` or `(d,)`: for frozen Adam `1 / (sqrt(v) + eps)` (its average of
      gradients is momentum beta_1 at learning rate `eta (1 - beta_1)`).

    **Returns** an `Estimate`; its error comes from the eigensolver. `details`: `bounds` (published ones: `trace`
    2 / tr H, `largest_eigenvalue` 2 / lambda_max (full batch), `frobenius` 2 tr H / E tr H_B^2 (an upper bound on
    eta*), `coherence` (Dexter et al. 2024, an upper bound for batches drawn by Bernoulli trials)), `trace`,
    `largest_eigenvalue`, `rank`, `mode` (the S that grows, in the basis `basis` of the span, trace 1). Status
    `UNDEFINED` with value 0 where H has a negative eigenvalue: no rate is stable at a saddle.

    **Raises** `ValueError` for arguments that cannot be used.

    **When not to trust it**: it is linear stability in mean square at this point. Above it paths may still
    converge almost surely; away from interpolation the gradients' own noise comes on top.

    Source: Wu et al. (2018), Ma and Ying (2021), Mulayoff and Michaeli (2024) for the operator.

    **Example**: three data in the plane (eta* tr H = 1.344, while full-batch descent allows 1.131).

    >>> import numpy as np, thalweg as tw
    >>> rate = tw.flow.largest_stable_learning_rate(factors=np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    >>> round(float(rate), 10), round(rate.details["bounds"]["largest_eigenvalue"], 5)
    (0.5760394922, 1.13148)
    """
    check_choice(order, "order", ("replacement", "subset"))
    batch_size = whole(batch_size, "batch_size", 1)
    if isinstance(momentum, bool) or not isinstance(momentum, int | float | np.number) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be from 0 up to below 1, got {shown(momentum)}")
    tol = float(check_number(tol, "tol", above=0))
    scale = None if preconditioner is None else flatten_like(preconditioner, params, "preconditioner")
    if scale is not None and not np.all(scale > 0):
        raise ValueError(f"preconditioner must be positive everywhere, got {np.min(scale):.3g} as its least entry")
    curved = curvatures(loss, params, data, outputs, factors, hessians, scale)
    n = curved.count
    if order == "subset" and batch_size > n:
        raise ValueError(f"batch_size must be at most the number of data {n} without replacement, got {batch_size}")
    B = int(batch_size)
    if order == "replacement" or n == 1:
        mix = (1 / B, 1 - 1 / B) if n > 1 else (0.0, 1.0)
    else:
        mix = ((n - B) / (B * (n - 1)), n * (B - 1) / (B * (n - 1)))

    details: dict[str, Any] = {
        "trace": float(np.sum(curved.spectrum)),
        "largest_eigenvalue": float(np.max(curved.spectrum, initial=0.0)),
        "rank": curved.rank,
        "bounds": _bounds(curved, mix, B),
        "basis": curved.basis,
    }
    if curved.lowest < -1e-9 * max(details["largest_eigenvalue"], 1e-300):
        why = f"the mean Hessian has the eigenvalue {curved.lowest:.3g} < 0: at a saddle no learning rate is stable"
        return Estimate(0.0, 0.0, Status.UNDEFINED, {**details, "why": why})
    if curved.leaks:
        why = "some Hessians act where their mean is zero: there the variance grows at any learning rate"
        return Estimate(0.0, 0.0, Status.UNDEFINED, {**details, "why": why})
    if not curved.rank:
        why = "all Hessians vanish: every learning rate is stable"
        return Estimate(math.inf, 0.0, Status.UNDEFINED, {**details, "why": why})
    if momentum == 0:
        rate, mode, error = _without_momentum(curved, mix, tol)
    else:
        rate, mode, error = _with_momentum(curved, mix, float(momentum), tol)
    details["mode"] = mode
    return Estimate(rate, error, Status.OK if error < 1e-4 * rate else Status.NOT_CONVERGED, details)


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

        mu, modes[eta], _ = _perron(apply, len(h), tol)
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
    r = len(curvature)
    M = np.zeros((r, 2, 2))
    M[:, 0, 0], M[:, 0, 1], M[:, 1, 0] = 1 + beta - curvature, -beta, 1.0
    pairs = np.einsum("jab,kcd->jkacbd", M, M).reshape(r, r, 4, 4)
    kick = np.zeros((r, r, 4, 1))
    kick[..., 0, 0] = 1.0
    return np.linalg.solve(np.eye(4) - pairs, kick)[..., 0, 0]


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
