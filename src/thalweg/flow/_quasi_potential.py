"""The quasi-potential: what a rare excursion of a learner with finite noise costs, in nats."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_number, shown
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.flow._asked import whole
from thalweg.flow._increments import Increments
from thalweg.flow._minimum_action import minimum_action
from thalweg.flow._prefactor import FixedPoint, exponents, fixed_point


class Path(NamedTuple):
    """The most probable path: points (n, d), the momentum at each (n, d), and the cost gathered so far (n,)."""

    points: Float[np.ndarray, "n d"]
    momentum: Float[np.ndarray, "n d"]
    cost: Float[np.ndarray, " n"]


class QuasiPotential(NamedTuple):
    """What `quasi_potential` gives back.

    - `value`: the cost in nats (an `Estimate`): a rate is `exp(-value)` to leading order. Infinite where the noise
      cannot oppose the drift.
    - `path`: the most probable path (`Path`), or `None` if there is none.
    - `rate`: the asymptotic escape rate a step, with its prefactor (an `Estimate` whose relative error is
      O(step size), not counted in its error bar), of the well in which `start` lies; beyond one dimension `target` must
      be its saddle. Else status `UNDEFINED`.
    - `log_rate`: its logarithm, for rates that underflow.
    - `diffusion`: the same for the diffusion approximation (first order), whose exponent is wrong.
    """

    value: Estimate
    path: Path | None
    rate: Estimate
    log_rate: float
    diffusion: "QuasiPotential | None" = None


def quasi_potential(
    process: Process, start: Any, target: Any, *, nodes: int = 64, iterations: int = 400, tol: float = 1e-8
) -> QuasiPotential:
    """What it costs a process to be driven by its noise from one point to another, in nats.

    For small steps a learner is found at x with probability `exp(-V(x))`, where `p = grad V` solves
    `H(x, p) = log E exp(p . delta(x)) = 0` and delta is the increment of one step. The cost of a path is
    `int p . dx`, and V is the least cost of all. Downhill is free. In one dimension p is the nonzero root, so
    that V is an integral; the escape rate a step over one lip L from the bottom B is

    `rate = sqrt(m'_B |m'_L|) / 2 pi  sqrt(C_L / C_B)  exp(int k dx)  exp(-V)`,
    `k = -E[e^{p delta} (p delta delta' + p' delta^2 / 2 + delta')] / E[e^{p delta} delta]`,

    with m and C mean and variance of the increment. In more dimensions the path is that of least action, and the
    prefactor comes from a Riccati equation along it (`_prefactor.py`). For SGD `V = (1/T) int p dW`: multiply by T for
    the form that does not depend on the learning rate.

    **Arguments**

    - `process`: noise finite, or Gaussian (by quadrature).
    - `start`, `target`: states or points. Escape: the bottom of the well and a point at or beyond the lip.
    - `nodes`: segments of the path in more than one dimension (half as many serve for the error; a prefactor on a path
      that bends may need 100 and more); stretches of the quadrature in one.
    - `iterations`, `tol`: of the minimisation, in more than one dimension.

    **Returns** a `QuasiPotential`. The error of `value` is that of its discretisation.

    **Raises** `ValueError` for noise that cannot be integrated, or points that are no states.

    **When not to trust it**: the limit is that of small steps. The rate is off by a relative amount of the order of
    the step size (2% on the pit at learning rate 0.004), and without meaning where maps expand. In more than one
    dimension the minimum found is a local one, near the straight line, and the rate takes V to be smooth about the
    path and one saddle to be in charge.

    Source: Freidlin and Wentzell (1984); Heymann and Vanden-Eijnden (2008) for the minimum over paths; the
    prefactor by a WKB expansion of the master equation of the map, as Maier and Stein (1997) and Bouchet and Reygner
    (2016) have it for diffusions.

    **Example**: Langevin dynamics climbs a barrier of 1 at temperature 0.05 for 20 nats.

    >>> import thalweg as tw
    >>> climb = tw.flow.quasi_potential(tw.systems.double_well(temperature=0.05, dt=0.001), -1.0, 0.0)
    >>> round(float(climb.value), 2)
    20.0
    """
    nodes, iterations = whole(nodes, "nodes", 8), whole(iterations, "iterations", 1)
    tol = float(check_number(tol, "tol", above=0))
    increments = Increments(process, start, "start")
    a, b = increments.of(start, "start"), increments.of(target, "target")
    if np.array_equal(a, b):
        raise ValueError(f"target must differ from start, got {shown(target)} for both")
    if increments.dimension == 1:
        return _on_a_line(increments, float(a[0]), float(b[0]), max(nodes, 32))
    return _in_the_plane(increments, a, b, nodes, iterations, tol)


# Several dimensions -------------------------------------------------------------------------------


def _in_the_plane(
    increments: Increments, a: np.ndarray, b: np.ndarray, nodes: int, iterations: int, tol: float
) -> QuasiPotential:
    """The exponent of the least action, the prefactor from the path's neighbourhood."""
    found = {}
    bottom, saddle, why = _ends(increments, a, b)
    for kind in ("exact", "diffusion"):
        value, points, momentum, cost = minimum_action(increments, a, b, nodes, iterations, tol, kind)
        path = None if points is None else Path(points, momentum, cost)
        if path is None or bottom is None or saddle is None:
            found[kind] = QuasiPotential(value, path, *_no_rate_at_all(why or value.message))
            continue
        ends_differ = max(np.linalg.norm(a - bottom.point), np.linalg.norm(b - saddle.point)) > 1e-7
        over = value
        if ends_differ:
            over, points, _, _ = minimum_action(increments, bottom.point, saddle.point, nodes, iterations, tol, kind)
        if points is None or not over.ok:
            found[kind] = QuasiPotential(value, path, *_no_rate_at_all(over.message))
            continue
        fine, coarse = (
            exponents(
                increments, bottom, saddle, np.concatenate([bottom.point[None], on[1:-1], saddle.point[None]]), kind
            )
            for on in (points, over.details["coarse"])
        )
        log_prefactor, barrier, error = fine
        log_rate = log_prefactor - barrier
        # The prefactor feels the path in first order: a path of half the segments says how far it may be off.
        error += abs(log_rate - (coarse.log_prefactor - coarse.barrier)) / 3
        status = Status.OK if error < 0.5 else Status.NOT_CONVERGED
        details = {
            "prefactor": math.exp(log_prefactor),
            "bottom": bottom.point,
            "lip": saddle.point,
            "barrier": barrier,
            "iterations": f"the path of {nodes} segments (nodes=), or {iterations}",
        }
        rate = Estimate(math.exp(log_rate), math.exp(log_rate) * error, status, details)
        found[kind] = QuasiPotential(value, path, rate, log_rate)
    return found["exact"]._replace(diffusion=found["diffusion"])


def _ends(increments: Increments, a: np.ndarray, b: np.ndarray) -> tuple[FixedPoint | None, FixedPoint | None, str]:
    """The bottom in whose well the start lies and the saddle at the target, or why there is no rate."""
    bottom, saddle = fixed_point(increments, a, follow=True), fixed_point(increments, b, follow=False)
    if bottom is None or len(bottom.unstable):
        return None, None, "start lies in no well: the mean step must lead to a stable point with noise every way"
    span = float(np.linalg.norm(b - bottom.point))
    if saddle is None or len(saddle.unstable) != 1 or np.linalg.norm(saddle.point - b) > 0.02 * span:
        return (
            None,
            None,
            (
                "in more than one dimension a rate needs the saddle for its target: a point that the mean step leaves "
                "alone, unstable in one direction"
            ),
        )
    return bottom, saddle, ""


def _no_rate_at_all(why: str) -> tuple[Estimate, float]:
    return _no_rate(why), -math.inf


# One dimension ------------------------------------------------------------------------------------


class _Local(NamedTuple):
    """What is needed of the increments at a point: momentum, prefactor integrand, moments."""

    p: Any  # the nonzero root
    k: Any
    mean: Any
    variance: Any
    slope: Any  # m'
    most: Any  # the largest increment towards the target


@eqx.filter_jit
def _mean(increments: Increments, x: Any) -> Any:
    return increments.mean(jnp.reshape(jnp.asarray(x, float), 1))[0]


def _local(increments: Increments, x: Any, towards: float, kind: str) -> _Local:
    x = np.asarray(x, float)
    size = 4 if len(x) <= 4 else -(-len(x) // 640) * 640  # few sizes, so that little is compiled
    padded = jnp.asarray(np.concatenate([x, np.full(size - len(x), x[-1])]))
    return _Local(*(np.asarray(part)[: len(x)] for part in _compiled_local(increments, padded, towards, kind)))


@eqx.filter_jit
def _compiled_local(increments: Increments, x: Float[Array, " n"], towards: Any, kind: str) -> _Local:
    def at(x):
        delta, slope = jax.jvp(lambda y: increments(y[None])[:, 0], (x,), (jnp.ones(()),))
        delta, slope, w = towards * delta, slope, increments.weights  # the axis points at the target
        m = w @ delta
        C = w @ (delta - m) ** 2
        most = jnp.max(jnp.where(w > 0, delta, -jnp.inf))
        guess = -2 * m / jnp.where(C > 0, C, 1.0)
        dm = w @ slope
        if kind == "diffusion":
            p, k = guess, jnp.zeros(())
        else:
            p = _root(w, delta, guess)
            tilt = jnp.exp(p * delta)
            # m' in these coordinates is slope; delta' = d(towards delta)/d(towards x) = slope.
            down = w @ (tilt * delta)
            dp = -p * (w @ (tilt * slope)) / down
            k = -(w @ (tilt * (p * delta * slope + dp * delta**2 / 2 + slope))) / down
        return _Local(p, k, m, C, dm, most)

    return jax.vmap(at)(x)


def _root(w: Any, delta: Any, guess: Any) -> Any:
    """The nonzero root of `log E exp(p delta) = 0`, for a mean increment below 0; by Newton from above.

    f is convex with f(0) = 0 and f'(0) < 0, so that from any point above the root Newton's steps decrease
    to it; points above are found by doubling.
    """

    def f(p):
        return jax.nn.logsumexp(p * delta, b=w)

    def fine(p):  # E expm1, which keeps its digits where p is small
        return jnp.log1p(w @ jnp.expm1(p * delta))

    p = jax.lax.fori_loop(0, 60, lambda _, p: jnp.where(f(p) < 0, 2 * p, p), jnp.maximum(guess, 1e-300))

    def newton(_, p):
        value = jnp.where(jnp.max(abs(p * delta)) < 1, fine(p), f(p))
        weights = jax.nn.softmax(p * delta, where=w > 0) * w
        slope = (weights @ delta) / jnp.sum(weights)
        after = p - value / slope
        return jnp.where(jnp.isfinite(after) & (after > 0), after, p)

    return jax.lax.fori_loop(0, 60, newton, p)


def _on_a_line(increments: Increments, start: float, target: float, stretches: int) -> QuasiPotential:
    towards = math.copysign(1.0, target - start)
    exact = _line(increments, start, target, towards, stretches, "exact")
    return exact._replace(diffusion=_line(increments, start, target, towards, stretches, "diffusion"))


def _line(
    increments: Increments, start: float, target: float, towards: float, stretches: int, kind: str
) -> QuasiPotential:
    mean = lambda x: float(_mean(increments, np.float64(x))) * towards  # noqa: E731
    cuts = _sign_changes(increments, start, target, towards, mean)
    uphill = [(a, b) for a, b in itertools.pairwise(cuts) if mean((a + b) / 2) < 0]
    fine = _gather(increments, uphill, towards, stretches, kind)
    blocked = fine.blocked if kind == "exact" else fine.flat
    if blocked is not None:
        why = (
            f"no outcome of a step moves from {blocked:.6g} towards {target:.6g} against the drift: the target is not "
            "reached by small steps"
            if kind == "exact"
            else f"the noise vanishes at {blocked:.6g} against the drift: the diffusion does not pass"
        )
        value = Estimate(math.inf, 0.0, Status.UNDEFINED, {"why": why})
        return QuasiPotential(value, None, Estimate(0.0, 0.0, Status.UNDEFINED, {"why": why}), -math.inf)
    coarse = _gather(increments, uphill, towards, max(8, stretches // 2), kind)
    error = abs(fine.total - coarse.total)
    value = Estimate(fine.total, error)
    path = _path_on_line(increments, start, target, towards, uphill, kind)
    return QuasiPotential(value, path, *_rate(increments, start, target, towards, stretches, kind, mean))


def _sign_changes(
    increments: Increments, start: float, target: float, towards: float, mean: Callable[[float], float]
) -> list[float]:
    """Start, target, and the points between where the mean increment changes its sign."""
    from scipy.optimize import brentq

    x = np.linspace(start, target, 2049)
    m = _local(increments, x, towards, "diffusion").mean
    scale = np.max(abs(m))
    inner = []
    for i in np.flatnonzero(np.sign(m[:-1]) * np.sign(m[1:]) < 0):
        root = brentq(mean, *sorted((x[i], x[i + 1])), xtol=1e-15, rtol=1e-15)
        # A sign change that only rounding makes at an end that is itself a fixed point is none.
        if min(abs(root - start), abs(root - target)) > 1e-9 * abs(target - start):
            inner.append(root)
    inner += [float(x[i]) for i in np.flatnonzero(abs(m) <= 1e-15 * scale) if 0 < i < len(x) - 1]
    return [start, *sorted(set(inner), reverse=towards < 0), target]


class _Gathered(NamedTuple):
    total: float
    log_prefactor: float
    blocked: float | None
    flat: float | None


def _gather(
    increments: Increments, uphill: list[tuple[float, float]], towards: float, stretches: int, kind: str
) -> _Gathered:
    """`int p dx` and `int k dx` over the stretches against the drift, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    total = log_prefactor = 0.0
    blocked = flat = None
    for a, b in uphill:
        edges = np.linspace(a, b, stretches + 1)
        x = ((edges[:-1] + edges[1:]) / 2)[:, None] + np.diff(edges)[:, None] / 2 * nodes
        dx = (abs(np.diff(edges))[:, None] / 2 * weights).reshape(-1)
        local = _local(increments, x.reshape(-1), towards, kind)
        most, variance = local.most, local.variance
        stuck = np.flatnonzero(~(most > 1e-12 * np.max(abs(most))))
        still = np.flatnonzero(~(variance > 1e-24 * np.max(variance) + 1e-300))
        blocked = float(x.reshape(-1)[stuck[0]]) if stuck.size and blocked is None else blocked
        flat = float(x.reshape(-1)[still[0]]) if still.size and flat is None else flat
        total += float(np.sum(local.p * dx))
        log_prefactor += float(np.sum(local.k * dx))
    return _Gathered(total, log_prefactor, blocked, flat)


def _rate(
    increments: Increments,
    start: float,
    target: float,
    towards: float,
    stretches: int,
    kind: str,
    mean: Callable[[float], float],
) -> tuple[Estimate, float]:
    """The escape rate over the one lip between the bottom of the start's well and the target."""
    bottom = _bottom(increments, start, mean, towards)
    if bottom is None:
        return _no_rate(
            "start lies in no well: the mean step must lead back to a point that it leaves alone"
        ), -math.inf
    cuts = _sign_changes(increments, bottom, target, towards, mean)
    slopes = [float(_local(increments, [c], towards, kind).slope[0]) for c in cuts]
    at_end = abs(mean(cuts[-1])) <= 1e-6 * abs(slopes[-1] * (cuts[-1] - cuts[0]))
    lips = [c for c, s in zip(cuts[1:], slopes[1:], strict=True) if s > 0 and (c != cuts[-1] or at_end)]
    if len(lips) != 1:
        return _no_rate(f"a rate needs one lip between start and target, got {len(lips)}"), -math.inf
    lip = lips[0]
    fine = _gather(increments, [(bottom, lip)], towards, stretches, kind)
    coarse = _gather(increments, [(bottom, lip)], towards, max(8, stretches // 2), kind)
    ends = _local(increments, [bottom, lip], towards, kind)
    C, slope = ends.variance, ends.slope
    if not np.all(C > 0):
        return _no_rate("the noise vanishes at the bottom or at the lip: there is no prefactor"), -math.inf
    ratio = math.sqrt(C[1] / C[0]) if kind == "exact" else math.sqrt(C[0] / C[1])
    prefactor = math.sqrt(-slope[0] * slope[1]) / (2 * math.pi) * ratio * math.exp(fine.log_prefactor)
    log_rate = math.log(prefactor) - fine.total
    error = abs(fine.total - coarse.total) + abs(fine.log_prefactor - coarse.log_prefactor)
    details = {"prefactor": prefactor, "bottom": bottom, "lip": lip, "barrier": fine.total}
    return Estimate(math.exp(log_rate), math.exp(log_rate) * error, Status.OK, details), log_rate


def _bottom(increments: Increments, start: float, mean: Callable[[float], float], towards: float) -> float | None:
    """The stable point of the mean step in whose well `start` lies."""
    from scipy.optimize import brentq

    x, scale = start, None
    slope = float(_local(increments, [start], towards, "diffusion").slope[0])
    if slope < 0:  # near enough for Newton
        for _ in range(50):
            slope = float(_local(increments, [x], towards, "diffusion").slope[0])
            if not slope < 0:
                break
            step = -towards * mean(x) / slope
            x += step
            if abs(step) < 1e-14 * max(1.0, abs(x)):
                crossed = np.linspace(start, x, 65)
                m = [mean(c) for c in crossed[1:-1]]
                if all(np.sign(v) == np.sign(m[0]) or abs(v) < 1e-15 for v in m):
                    return x
                break
    # Otherwise follow the drift until it turns.
    x, direction = start, math.copysign(1.0, towards * mean(start))
    scale = abs(mean(start))
    if scale == 0:
        return None
    for _ in range(100_000):
        after = x + direction * max(abs(mean(x)), 1e-3 * scale)
        if mean(after) * mean(x) <= 0:
            return float(brentq(mean, *sorted((x, after)), xtol=1e-15, rtol=1e-15))
        x = after
    return None


def _path_on_line(
    increments: Increments, start: float, target: float, towards: float, uphill: list[tuple[float, float]], kind: str
) -> Path:
    x = np.linspace(start, target, 513)
    local = _local(increments, x, towards, kind)
    p = np.where(local.mean < 0, local.p, 0.0)
    p = np.where(np.isfinite(p), p, 0.0)
    cost = np.concatenate([[0.0], np.cumsum((p[1:] + p[:-1]) / 2 * abs(np.diff(x)))])
    return Path(x[:, None], towards * p[:, None], cost)


def _no_rate(why: str) -> Estimate:
    return Estimate(math.nan, math.inf, Status.UNDEFINED, {"why": why})
