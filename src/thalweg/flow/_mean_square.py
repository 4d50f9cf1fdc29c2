"""Mean-square stability: whether the variance of a learner about a fixed point grows or shrinks, exactly."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._edge import check_choice, check_number, shown
from thalweg._noise import Choice
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.flow._asked import whole
from thalweg.flow._feedback import growing_moments
from thalweg.flow._increments import Increments, as_state
from thalweg.flow._memory import Memory, linearise, plain
from thalweg.flow._per_datum import Curvatures, common_null_space, curvatures, flatten_like
from thalweg.flow._perron import SMALL, perron
from thalweg.processes._descent import _Descent

MOST_COORDINATES = 1500  # of a process that is no learner: its second moment is a square matrix of this side
ORDERS = ("replacement", "subset", "bernoulli")


def mean_square_stability(
    process: Process | None = None,
    fixed_point: Any = None,
    *,
    learning_rate: float | None = None,
    loss: Callable[..., Any] | None = None,
    params: Any = None,
    data: Any = None,
    batch_size: int = 1,
    order: str = "replacement",
    momentum: float = 0.0,
    preconditioner: Any = None,
    outputs: Callable[[Any, Any], Any] | None = None,
    factors: Any = None,
    hessians: Any = None,
    tol: float = 1e-10,
) -> Estimate:
    """By what factor a step multiplies the variance about a fixed point: stable below 1.

    The spectral radius of `S -> E[J_w S J_w^T]`, with J_w the Jacobian of the step under the noise w. For SGD
    `J_w = I - eta H_w`, with H_w the mean Hessian of the batch. At a point that every datum leaves alone, the variance
    itself decays or grows by this factor a step; elsewhere the radius decides whether a stationary variance exists.
    Directions that no step moves are left out (`details["frozen"]` counts them): there the factor is 1.

    A learner made by `tw.processes.sgd` is solved in the span of the curvatures of its data, whatever the batch size,
    without listing batches and without a matrix of the parameters' size: single Hessians of low rank are found from
    products with vectors. Its optimizer's memory counts, linearised at momentum 0; Adam's mean of squares is taken as
    it stands in the state (frozen), which at a point where all gradients vanish is exact.

    **Arguments**: either

    - `process`: a learner; or any process with a smooth step whose noise is finite, or Gaussian by quadrature, with at
      most 1500 coordinates.
    - `fixed_point`: a state, a point, or what `init` takes, that the mean step leaves alone.
    - `outputs(params, datum)` with `loss(output, datum)`: for a learner, the Gauss-Newton curvature instead of the
      Hessian, for networks away from where the data are fitted.

    or `learning_rate` and the curvature and batches as `largest_stable_learning_rate` takes them: `loss`, `params`,
    `data`, `outputs`, `factors`, `hessians`, `batch_size`, `order`, `momentum`, `preconditioner`.

    - `tol`: relative accuracy of the eigenvalue.

    **Returns** an `Estimate`: the radius, its error what is left of the eigenvalue equation. `details`: `mode` (the
    positive semidefinite S that attains it, trace 1; with memory, and beyond 1500 parameters, in the span), `basis` (of
    that span, (d, r), or `None` if `mode` is in the coordinates themselves or the basis is too large), `mean_radius`
    (spectral radius of E J_w: stability of the mean, never above `sqrt(radius)`), `frozen`, `offset` (length of the
    mean increment). Status `UNDEFINED` where the point is not fixed by the mean step.

    **Raises** `ValueError` for noise that cannot be integrated (`Shuffle`), for steps that jump, and for optimizers
    that do not act on each parameter by itself.

    **When not to trust it**: it is linear. Above 1, paths may still converge almost surely while rare excursions
    carry the variance.

    Source: Wu et al. (2018), Ma and Ying (2021), Mulayoff and Michaeli (2024).

    **Example**: one parameter, curvatures 1 +- s: radius E (1 - T a)^2.

    >>> import thalweg as tw
    >>> radius = tw.flow.mean_square_stability(tw.systems.linear_noise(0.5), 2.0)
    >>> round(float(radius), 12)  # ((1 - 0.6)^2 + (1 - 0.4)^2) / 2
    0.26
    """
    tol = float(check_number(tol, "tol", above=0))
    if process is None:
        if learning_rate is None:
            raise ValueError("mean_square_stability needs a process, or a learning_rate= and curvatures, got neither")
        rate = float(check_number(learning_rate, "learning_rate", least=0))
        beta = check_momentum(momentum)
        scale = as_scale(preconditioner, params)
        curved = curvatures(loss, params, data, outputs, factors, hessians, scale)
        mix = mixture(curved.count, whole(batch_size, "batch_size", 1), order)
        return _in_the_span(curved, mix, plain(rate, beta), 0.0, 1.0, tol)
    if learning_rate is not None or any(part is not None for part in (params, data, preconditioner, factors, hessians)):
        raise ValueError(
            "a process says its data and its learning rate itself: pass it alone, or with outputs= and loss=, or leave "
            "it away"
        )
    if isinstance(getattr(process, "step", None), _Descent):
        return _of_learner(process, fixed_point, outputs, loss, tol)
    if outputs is not None or loss is not None:
        raise ValueError("outputs and loss are for a learner made by tw.processes.sgd, got another process")
    return _of_process(process, fixed_point, tol)


def check_momentum(momentum: Any) -> float:
    if isinstance(momentum, bool) or not isinstance(momentum, int | float | np.number) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be from 0 up to below 1, got {shown(momentum)}")
    return float(momentum)


def as_scale(preconditioner: Any, params: Any) -> Float[np.ndarray, " d"] | None:
    scale = None if preconditioner is None else flatten_like(preconditioner, params, "preconditioner")
    if scale is not None and not np.all(scale > 0):
        raise ValueError(f"preconditioner must be positive everywhere, got {np.min(scale):.3g} as its least entry")
    return scale


def mixture(n: int, batch: int, order: str) -> tuple[float, float]:
    """(a, b) of `E[H_B S H_B] = a E[H_i S H_i] + b H S H` for batches out of n data."""
    check_choice(order, "order", ORDERS)
    if order != "replacement" and batch > n:
        raise ValueError(f"batch_size must be at most the number of data {n} without replacement, got {batch}")
    if order == "bernoulli":  # each datum with probability batch / n
        return (n - batch) / (n * batch), 1.0
    if n == 1:
        return 0.0, 1.0
    if order == "replacement":
        return 1 / batch, 1 - 1 / batch
    return (n - batch) / (batch * (n - 1)), n * (batch - 1) / (batch * (n - 1))


# Learners -----------------------------------------------------------------------------------------


def _of_learner(process: Process, fixed_point: Any, outputs: Any, output_loss: Any, tol: float) -> Estimate:
    step: Any = process.step
    state = as_state(process, fixed_point, "fixed_point")
    loss, data, batch, order, weights = read_learner(process)
    if (outputs is None) != (output_loss is None):
        raise ValueError("outputs= and loss= go together: loss is then a function of (output, datum)")
    if step.optimizer is None:
        memory = plain(float(step.learning_rate))
    else:
        memory = linearise(step.optimizer, state.params, state.opt_state)
        if weights is not None and not np.all(weights > 0):
            raise ValueError("weights of the data must be above 0 with an optimizer's memory, which skips other steps")
    by = loss if outputs is None else output_loss
    curved = curvatures(by, state.params, data, outputs, None, None, memory.scale, weights)
    mean = _mean_gradient(loss, state.params, data, weights) * (1.0 if memory.scale is None else memory.scale)
    offset = float(abs(memory.kick[0]) * np.linalg.norm(mean))
    size = float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(state.params))))
    return _in_the_span(curved, mixture(curved.count, batch, order), memory, offset, 1 + size, tol)


def read_learner(process: Process) -> tuple[Any, Any, int, str, np.ndarray | None]:
    """Loss of (params, datum), data, batch size, order and weights of a learner."""
    step: Any = process.step
    if step.data is None:
        return lambda params, _: step.loss(params), jnp.zeros(1), 1, "replacement", None
    law = process.noise
    if not isinstance(law, Choice) or law.p is not None:
        process.noise.atoms()  # says which law cannot be integrated
        raise ValueError(f"the noise of a learner must be drawn evenly, got {shown(law)}")
    batch = int(np.prod(law.shape)) if law.shape else 1
    weights = None if step.weights is None else np.asarray(step.weights)
    return step.loss, step.data, batch, "replacement" if law.replace else "subset", weights


def _mean_gradient(loss: Any, params: Any, data: Any, weights: np.ndarray | None) -> Float[np.ndarray, " d"]:
    from jax.flatten_util import ravel_pytree

    n = len(jax.tree.leaves(data)[0])
    scales = jnp.ones(n) if weights is None else jnp.asarray(weights)
    return np.asarray(ravel_pytree(_summed_gradient(loss, params, data, scales))[0]) / n


@eqx.filter_jit
def _summed_gradient(loss: Any, params: Any, data: Any, weights: Any) -> Any:
    def add(total, part):
        z, weight = part
        gradient = jax.grad(loss)(params, z)
        return jax.tree.map(lambda t, g: t + weight * g, total, gradient), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (data, weights))[0]


def _in_the_span(
    curved: Curvatures, mix: tuple[float, float], memory: Memory, offset: float, size: float, tol: float
) -> Estimate:
    """The radius over blocks S[a, b] (r, r), a and b running over parameters and memory.

    With `M_j = carry + h_j kick e_0^T` the step of a mode of curvature h_j, the mean step gives `M_j S M_k^T`, and the
    noise of the batch adds `kick kick^T (E[H_B S_00 H_B] - H S_00 H)`.
    """
    h, (a, b) = curved.spectrum, mix
    K, r = len(memory.kick), curved.rank
    M = np.broadcast_to(memory.carry, (r, K, K)).copy()
    M[:, :, 0] += h[:, None] * memory.kick
    pushed = memory.kick[:, None] * memory.kick

    def noise(first: np.ndarray) -> np.ndarray:
        return a * curved.sandwich(first) + (b - 1) * h[:, None] * first * h

    def apply(v: np.ndarray) -> np.ndarray:
        S = v.reshape(K, r, K, r)
        moved = np.einsum("jac,cjdk->ajdk", M, S, optimize=True)
        moved = np.einsum("kbd,ajdk->ajbk", M, moved, optimize=True)
        first = S[0, :, 0]
        return (moved + pushed[:, None, :, None] * noise(first)[None, :, None, :]).reshape(-1)

    details: dict[str, Any] = {"frozen": curved.frozen, "offset": offset, "basis": curved.basis, "rank": r}
    if r == 0:
        return Estimate(1.0, 0.0, Status.OK, {**details, "mode": np.zeros((0, 0)), "mean_radius": 1.0})
    known = growing_moments(M, memory.kick, noise, tol) if K > 1 and r > SMALL else None
    radius, mode, residual = perron(apply, K * r, tol, known)
    if K == 1 and curved.basis is not None and len(curved.basis) <= MOST_COORDINATES:
        mode, details["basis"] = curved.basis @ mode @ curved.basis.T, None
    details |= {"mode": mode, "mean_radius": float(np.max(abs(np.linalg.eigvals(M))))}
    return _told(radius, residual, details, offset, size)


def _told(radius: float, residual: float, details: dict[str, Any], offset: float, size: float) -> Estimate:
    status = Status.OK
    if offset > 1e-6 * size:
        status = Status.UNDEFINED
        details["why"] = f"the mean step moves the point by {offset:.3g}: it is no fixed point, move it to one"
    elif residual > 1e-4 * radius:
        status, details["iterations"] = Status.NOT_CONVERGED, "the allowed number of"
    return Estimate(radius, residual, status, details)


# Any process --------------------------------------------------------------------------------------


def _of_process(process: Process, fixed_point: Any, tol: float) -> Estimate:
    """From the Jacobians of all outcomes."""
    increments = Increments(process, fixed_point, "fixed_point")
    if not process.smooth:
        raise ValueError("process must be smooth, got smooth=False: the Jacobian of a step that jumps says nothing")
    d = increments.dimension
    if d > MOST_COORDINATES:
        raise ValueError(
            f"mean_square_stability holds a {d} x {d} matrix for a process that tw.processes.sgd did not make, wanted "
            f"at most {MOST_COORDINATES} coordinates: pass the curvatures with learning_rate= instead"
        )
    x = jnp.asarray(
        increments.of(fixed_point if _fits(increments, fixed_point) else increments.template, "fixed_point")
    )
    jacobians, weights = _jacobians(increments, x)
    null, rest = common_null_space(np.asarray(jacobians) - np.eye(d))
    r = rest.shape[1]
    reduced = jnp.asarray(rest.T @ np.asarray(jacobians) @ rest)  # no step moves the others

    def apply(v: np.ndarray) -> np.ndarray:
        return np.asarray(_second_moment(reduced, weights, jnp.asarray(v.reshape(r, r)))).reshape(-1)

    offset = float(jnp.linalg.norm(increments.mean(x)))
    mean = np.asarray(jnp.tensordot(weights, jacobians, axes=1))
    details = {"mean_radius": float(np.max(abs(np.linalg.eigvals(mean)))), "offset": offset, "frozen": null.shape[1]}
    if r == 0:
        return Estimate(1.0, 0.0, Status.OK, {**details, "mode": np.zeros((d, d)), "basis": None})
    radius, mode, residual = perron(apply, r, tol)
    details |= {"mode": rest @ mode @ rest.T, "basis": None}
    return _told(radius, residual, details, offset, 1 + float(jnp.linalg.norm(x)))


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
