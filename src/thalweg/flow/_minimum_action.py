"""The geometric minimum action method: the cheapest path on `H(x, p) = 0` (Heymann and Vanden-Eijnden, 2008)."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._results import Estimate, Status
from thalweg.flow._increments import Increments

FLAT = 1e-10  # a covariance is flat where its least eigenvalue is this share of its largest
INNER = 40  # Newton steps for the momentum of a segment; 5 to 10 are needed


def minimum_action(
    increments: Increments, start: Any, target: Any, nodes: int, iterations: int, tol: float, kind: str
) -> tuple[Estimate, Any, Any, Any]:
    """The least `int p . dx` from start to target: (value, points, momentum, cost on the way).

    `kind`: `"exact"`, `H = log E exp(p . delta)`; or `"diffusion"`, its second order in p. The path is a chain of
    segments, first half as many and then `nodes`, so that the midpoint rule's error, O(1/nodes^2), can be told
    and removed.
    """
    line = np.linspace(0.0, 1.0, max(4, nodes // 2) + 1)[:, None]
    path = start + line * (target - start)
    stiff = np.linalg.eigvalsh(np.asarray(_covariances(increments, jnp.asarray(path))))
    if not np.any(stiff[:, 0] > FLAT * stiff[:, -1]):
        why = (
            "the noise moves the state along fewer directions than it has coordinates: most points are out of its reach"
        )
        return Estimate(math.inf, 0.0, Status.UNDEFINED, {"why": why}), None, None, None
    coarse, rough, _ = _relax(increments, path, iterations, tol, kind)
    path = _even(rough, nodes)
    fine, path, moved = _relax(increments, path, iterations, tol, kind)
    points = jnp.asarray(path)
    parts, p, trusted = (np.asarray(a) for a in _segments(increments, points, kind))
    value = fine + (fine - coarse) / 3
    error = abs(fine - coarse) / 3 + moved
    cost = np.concatenate([[0.0], np.cumsum(parts)])
    momentum = np.concatenate([p[:1], (p[1:] + p[:-1]) / 2, p[-1:]])
    if not np.all(trusted):
        where = np.asarray((points[1:] + points[:-1]) / 2)[~trusted][0]
        why = f"the noise does not push the state along every direction at {np.round(where, 6)}: no path is found there"
        return Estimate(math.inf, 0.0, Status.UNDEFINED, {"why": why}), None, None, None
    status = Status.OK if moved <= 1e-3 * max(abs(value), 1e-12) else Status.NOT_CONVERGED
    return Estimate(value, error, status, {"iterations": iterations, "coarse": rough}), path, momentum, cost


def _relax(
    increments: Increments, path: np.ndarray, iterations: int, tol: float, kind: str
) -> tuple[float, np.ndarray, float]:
    """The path relaxed to the least action, with the last change of its action."""
    from scipy.optimize import minimize

    frames = _frames(path)
    last, change, value = math.inf, math.inf, math.inf
    for _ in range(8):
        reference, across = jnp.asarray(path), jnp.asarray(frames)

        def cost(u, reference=reference, across=across):
            value, slope = _action(increments, reference, across, jnp.asarray(u), kind)
            return float(value), np.asarray(slope)

        found = minimize(
            cost,
            np.zeros(across.shape[0] * across.shape[2]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": iterations, "ftol": 1e-15, "gtol": tol * 1e-3, "maxcor": 30},
        )
        path = np.asarray(_displaced(reference, across, jnp.asarray(found.x)))
        value = float(found.fun)
        change = abs(value - last)
        if change <= tol * abs(value):
            break
        last = value
        path = _even(path, len(path) - 1)
        frames = _frames(path)
    return value, path, change


def _even(path: np.ndarray, segments: int) -> np.ndarray:
    """The path with its points at equal distances."""
    from scipy.interpolate import PchipInterpolator

    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    return PchipInterpolator(s, path, axis=0)(np.linspace(0, s[-1], segments + 1))


def _frames(path: np.ndarray) -> np.ndarray:
    """Directions across the path at its inner points, shape (n-1, d, d-1): sliding along it changes nothing."""
    tangent = path[2:] - path[:-2]
    tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    d = path.shape[1]
    # A Householder reflection that sends the first axis to the tangent; its other columns lie across.
    sign = np.where(tangent[:, 0] > 0, 1.0, -1.0)
    v = tangent.copy()
    v[:, 0] += sign
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    return (np.eye(d) - 2 * v[:, :, None] * v[:, None, :])[:, :, 1:]


def _displaced(reference: Array, across: Array, u: Array) -> Array:
    moved = jnp.einsum("ndk,nk->nd", across, u.reshape(across.shape[0], across.shape[2]))
    return reference.at[1:-1].add(moved)


@eqx.filter_jit
def _covariances(increments: Increments, points: Array) -> Array:
    return jax.vmap(lambda x: increments.moments(x)[1])(points)


@eqx.filter_jit
def _action(increments: Increments, reference: Array, across: Array, u: Array, kind: str) -> tuple[Any, Any]:
    def total(u):
        return jnp.sum(_pieces(increments, _displaced(reference, across, u), kind)[0])

    return jax.value_and_grad(total)(u)


def momenta(increments: Increments, path: Array, kind: str) -> Array:
    """The momentum of each segment of a path, (n, d)."""
    found: Array = _segments(increments, path, kind)[1]
    return found


@eqx.filter_jit
def _segments(increments: Increments, points: Array, kind: str) -> Any:
    return _pieces(increments, points, kind)


def _pieces(increments: Increments, points: Array, kind: str) -> Any:
    """For each segment: its cost, its momentum, and whether the momentum was found."""
    return jax.vmap(lambda x, v: _piece(increments, x, v, kind))(
        (points[1:] + points[:-1]) / 2, points[1:] - points[:-1]
    )


def _piece(increments: Increments, x: Float[Array, " d"], v: Float[Array, " d"], kind: str) -> Any:
    """The support function `sup {p . v : H(x, p) <= 0}`, whose slope in x is `-H_x / lambda` (envelope theorem)."""
    still = jax.lax.stop_gradient(x)
    size = jnp.linalg.norm(jax.lax.stop_gradient(v))
    direction = jax.lax.stop_gradient(v) / size
    delta = jax.lax.stop_gradient(increments(still))
    w = increments.weights
    m, C = w @ delta, (w[:, None] * (delta - w @ delta)).T @ (delta - w @ delta)
    floor = 1e-13 * jnp.trace(C) * jnp.eye(len(x))

    def newton(p):
        """One step on the quadratic model of H at p, solved exactly."""
        if kind == "diffusion":
            h, g, A = m @ p + p @ C @ p / 2, m + C @ p, C
        else:
            tilt = w * jnp.exp(delta @ p - jnp.max(delta @ p))
            h = jax.nn.logsumexp(delta @ p, b=w)
            tilt = tilt / jnp.sum(tilt)
            g = tilt @ delta
            A = (tilt[:, None] * (delta - g)).T @ (delta - g)
        solve = jnp.linalg.solve(A + floor, jnp.stack([direction, g], axis=1))
        along, back = solve[:, 0], solve[:, 1]
        speed = jnp.sqrt(jnp.maximum(g @ back - 2 * h, 0) / (direction @ along))
        return speed * along - back, speed, h, g

    def body(carry):
        count, p, _ = carry
        step = newton(p)[0]
        reach = jnp.max(abs(delta @ step))
        # The tilt exp(p . delta) may change by e^2 a step; the diffusion's model of H is H itself.
        after = p + step * (jnp.minimum(1.0, 2.0 / jnp.maximum(reach, 1e-300)) if kind == "exact" else 1.0)
        return count + 1, jnp.where(jnp.all(jnp.isfinite(after)), after, p), reach

    def unsettled(carry):
        count, p, reach = carry
        return (count < INNER) & (reach > 1e-11 * (1 + jnp.max(abs(delta @ p))))

    _, p, _ = jax.lax.while_loop(unsettled, body, (0, jnp.zeros_like(x), jnp.array(jnp.inf)))
    step, speed, _, _ = newton(p)
    # Found if the last step is small against the reach of a single outcome, and C moves the state every way.
    trusted = jnp.max(abs(delta @ step)) <= 1e-6 * (1 + jnp.max(abs(delta @ p)))
    trusted &= jnp.linalg.eigvalsh(C)[0] > FLAT * jnp.trace(C)
    p, slowness = jax.lax.stop_gradient((p, size / jnp.maximum(speed, 1e-200)))
    return p @ v - slowness * increments.hamiltonian(x, p, kind), p, trusted
