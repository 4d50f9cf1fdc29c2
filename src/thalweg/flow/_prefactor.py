"""The prefactor of an escape rate in several dimensions, from the neighbourhood of the most probable path.

Density `K(x) exp(-V(x))` put into the master equation of a map, `P'(y) = E P(x_w) / |det dx'/dx|`, gives at leading
order `H(x, grad V) = log E exp(p . delta) = 0` and at the next, along the path `dx/dt = H_p`, with Z the Hessian of V,

`d log K / dt = -E[e^{p delta} (p . (D delta) delta + delta^T Z delta / 2 + tr D delta)]`,
`dZ / dt = -(H_xx + H_xp Z + Z H_px + Z H_pp Z)`.

At the bottom B and at the saddle S, Z is the inverse of the Sigma that solves `A Sigma + Sigma A^T + C = 0`, with A the
slope of the mean step and C its covariance. The flux over S, where A has the one positive eigenvalue lambda, is

`rate = lambda / (2 pi) sqrt(det Z_B / |det Z_S|) K_S / K_B exp(-V)`.

Maier and Stein (1997) and Bouchet and Reygner (2016) have this for diffusions; in one dimension it is the formula of
`quasi_potential`.
"""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg.flow._increments import Increments
from thalweg.flow._minimum_action import momenta

SEGMENTS = 256


class FixedPoint(NamedTuple):
    """A point that the mean step leaves alone: `slope` A, `covariance` C, and Z."""

    point: Float[np.ndarray, " d"]
    slope: Float[np.ndarray, "d d"]
    covariance: Float[np.ndarray, "d d"]
    hessian: Float[np.ndarray, "d d"]
    unstable: Float[np.ndarray, " k"]  # eigenvalues of A with a positive real part


def fixed_point(increments: Increments, near: Float[np.ndarray, " d"], follow: bool) -> FixedPoint | None:
    """By Newton from `near`; with `follow` after the mean step has been followed there."""
    from scipy.linalg import solve_continuous_lyapunov

    x = jnp.asarray(near)
    if follow:
        x = _followed(increments, x)
    for _ in range(50):
        m, A = _mean_and_slope(increments, x)
        step = np.linalg.lstsq(np.asarray(A), -np.asarray(m), rcond=None)[0]
        x = x + step
        if np.linalg.norm(step) <= 1e-13 * (1 + np.linalg.norm(x)):
            break
    else:
        return None
    if not np.all(np.isfinite(x)):
        return None
    A, C = np.asarray(_mean_and_slope(increments, x)[1]), np.asarray(_covariance(increments, x))
    if np.linalg.eigvalsh(C)[0] <= 1e-12 * np.trace(C):
        return None
    sigma = solve_continuous_lyapunov(A, -C)
    values = np.linalg.eigvals(A)
    return FixedPoint(np.asarray(x), A, C, np.linalg.inv((sigma + sigma.T) / 2), values[values.real > 0])


class Exponents(NamedTuple):
    """The rate is `exp(log_prefactor - barrier)`; `error` is that of the exponent."""

    log_prefactor: float
    barrier: float
    error: float


def exponents(
    increments: Increments, bottom: FixedPoint, saddle: FixedPoint, path: Float[np.ndarray, "n d"], kind: str
) -> Exponents:
    """Prefactor and barrier for the most probable path from the bottom to the saddle.

    On two refinements of the path, with the errors of second order taken out.
    """
    lift = float(saddle.unstable[0].real)
    ratio = np.linalg.slogdet(bottom.hessian)[1] - np.linalg.slogdet(saddle.hessian)[1]
    ends = math.log(lift / (2 * math.pi)) + ratio / 2
    fine, coarse = (np.array(_along(increments, bottom, _resampled(path, n), kind)) for n in (SEGMENTS, SEGMENTS // 2))
    log_k, barrier = fine + (fine - coarse) / 3
    return Exponents(ends + log_k, barrier, float(np.sum(np.abs(fine - coarse)) / 3))


def _resampled(path: Float[np.ndarray, "n d"], segments: int) -> Float[np.ndarray, "m d"]:
    from scipy.interpolate import CubicSpline

    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    return np.asarray(CubicSpline(s, path)(np.linspace(0.0, s[-1], segments + 1)))


def _along(
    increments: Increments, bottom: FixedPoint, path: Float[np.ndarray, "n d"], kind: str
) -> tuple[float, float]:
    """`log K_S / K_B` by the Riccati equation, and `int p dx`, along the path.

    Along the path Z is known, since p moves with it: `Z t = dp/ds`. Only its part across the path is integrated, which
    forgets its errors.
    """
    from scipy.interpolate import CubicSpline

    n, d = len(path) - 1, path.shape[1]
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    t = np.diff(path, axis=0) / lengths[:, None]
    x = (path[1:] + path[:-1]) / 2
    p = np.asarray(momenta(increments, jnp.asarray(path), kind))
    s = np.concatenate([[0.0], np.cumsum(lengths)])
    middle = (s[1:] + s[:-1]) / 2
    ends = np.zeros((1, d))
    q = CubicSpline(np.concatenate([[0.0], middle, [s[-1]]]), np.concatenate([ends, p, ends]))(middle, 1)
    bend = np.gradient(t, middle, axis=0)
    local = [np.asarray(part) for part in _expansion(increments, jnp.asarray(x), jnp.asarray(p), kind)]
    v, Hxx, Hxp, Hpp, rest = local
    speed = np.linalg.norm(v, axis=1)
    across = np.linalg.svd(t[0][None])[2][1:].T
    Y = across.T @ bottom.hessian @ across
    total = 0.0
    for i in range(n):
        if i:  # carried to the next segment: turned as little as possible
            across = across - np.outer(t[i], t[i] @ across)
            across = np.linalg.qr(across)[0] if d > 2 else across / np.linalg.norm(across, axis=0)
        c = across.T @ q[i]
        Z0 = np.outer(q[i], t[i]) + np.outer(t[i], q[i]) - (t[i] @ q[i]) * np.outer(t[i], t[i])
        k = across.T @ bend[i]
        alpha = Hxx[i] + Hxp[i] @ Z0 + Z0 @ Hxp[i].T + Z0 @ Hpp[i] @ Z0
        alpha = across.T @ alpha @ across + speed[i] * (np.outer(k, c) + np.outer(c, k))
        beta = across.T @ (Hxp[i] + Z0 @ Hpp[i]) @ across
        gamma = across.T @ Hpp[i] @ across
        before = Y
        Y = _riccati(Y, alpha, beta, gamma, lengths[i] / speed[i])
        Z = Z0 + across @ ((before + Y) / 2) @ across.T
        second = Hpp[i] + np.outer(v[i], v[i]) if kind == "exact" else Hpp[i]  # E[e^{p delta} delta delta^T]
        total -= lengths[i] / speed[i] * (rest[i] + np.sum(second * Z) / 2)
    return float(total), float(np.sum(p * np.diff(path, axis=0)))


def _riccati(Y: np.ndarray, alpha: np.ndarray, beta: np.ndarray, gamma: np.ndarray, time: float) -> np.ndarray:
    """`Y' = -(alpha + beta Y + Y beta^T + Y gamma Y)` over a time, exactly: `Y = V U^-1`, (U, V) moving linearly."""
    from scipy.linalg import expm

    k = len(Y)
    if not k:
        return Y
    flow = np.block([[beta.T, gamma], [-alpha, -beta]])
    parts = max(1, math.ceil(time * np.abs(flow).max() / 20))
    step = expm(flow * time / parts)
    for _ in range(parts):
        UV = step @ np.concatenate([np.eye(k), Y])
        Y = UV[k:] @ np.linalg.inv(UV[:k])
        Y = (Y + Y.T) / 2
    return Y


@eqx.filter_jit
def _mean_and_slope(increments: Increments, x: Any) -> tuple[Any, Any]:
    return increments.mean(x), jax.jacfwd(increments.mean)(x)


@eqx.filter_jit
def _covariance(increments: Increments, x: Any) -> Any:
    return increments.moments(x)[1]


@eqx.filter_jit
def _followed(increments: Increments, x: Any) -> Any:
    """Where the mean step leads."""

    def unsettled(carry):
        count, _, moved, most = carry
        return (count < 100_000) & (moved > 1e-4 * most)

    def go(carry):
        count, x, _, most = carry
        step = increments.mean(x)
        moved = jnp.linalg.norm(step)
        return count + 1, x + step, moved, jnp.maximum(most, moved)

    return jax.lax.while_loop(unsettled, go, (0, x, jnp.array(1.0), jnp.array(1e-300)))[1]


@eqx.filter_jit
def _expansion(increments: Increments, points: Float[Array, "n d"], momentum: Float[Array, "n d"], kind: str) -> Any:
    """At each point: H_p, H_xx, H_xp (row x, column p), H_pp, and the part of the transport equation without Z."""

    H = functools.partial(increments.hamiltonian, kind=kind)

    def at(x, p):
        v = jax.grad(H, 1)(x, p)
        Hxx, Hxp, Hpp = jax.hessian(H)(x, p), jax.jacfwd(jax.grad(H, 0), 1)(x, p), jax.hessian(H, 1)(x, p)
        if kind == "diffusion":
            divergence = jnp.trace(jax.jacfwd(increments.mean)(x))
            slopes = jax.jacfwd(lambda y: increments.moments(y)[1])(x)
            return v, Hxx, Hxp, Hpp, divergence + jnp.einsum("iji,j->", slopes, p)
        delta, D = increments(x), jax.jacfwd(increments)(x)
        tilt = increments.weights * jnp.exp(delta @ p)
        return v, Hxx, Hxp, Hpp, tilt @ (jnp.einsum("i,wij,wj->w", p, D, delta) + jnp.einsum("wii->w", D))

    return jax.vmap(at)(points, momentum)
