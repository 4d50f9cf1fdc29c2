"""Annealed importance sampling of `log Z`: forward from a base, and backward from samples of the model.

Along a path of laws `p_0, ..., p_T`, a chain collects the log weight `sum_t log p~_t(v) - log p~_(t-1)(v)` and moves
by a step that keeps `p_t`. The mean of the weights is `Z_T / Z_0` (Neal, 2001; Salakhutdinov and Murray, 2008).
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._results import Estimate, Status
from thalweg.energy.boltzmann._machine import Machine

FEWEST_WEIGHTS = 10.0  # below this effective number of chains the error bar itself cannot be trusted
TILT = 0.75  # the power of the weights at which their spread is taken
FAR = 4.0  # standard errors at which two ways of computing one number disagree
ABOVE = 3.0  # standard errors by which a lower bound may exceed a value
PEAKS = "peaks found by climbing"  # the run from a base that is made of them


@eqx.filter_jit
def forward(path: Sequence[Machine], chains: int, key: Any, steps: int) -> tuple[Any, Any]:
    """(log weights, last states) of chains that are drawn from the first machine, which has no couplings."""
    v, log_weights = jnp.zeros((chains, path[0].visible)), jnp.zeros(chains)
    for leg, (first, last) in enumerate(itertools.pairwise(path)):

        def move(t, carry, first=first, last=last, leg=leg):
            v, log_weights = carry
            before, here = first.interpolate(last, jnp.maximum(t - 1, 0) / steps), first.interpolate(last, t / steps)
            log_weights = log_weights + here.log_unnormalized(v) - before.log_unnormalized(v)
            return sweep(here, v, jax.random.fold_in(jax.random.fold_in(key, leg), t)), log_weights

        # Without couplings one sweep from anywhere, at t = 0 of the first leg, is an exact draw.
        v, log_weights = lax.fori_loop(min(leg, 1), steps + 1, move, (v, log_weights))
    return log_weights, v


@eqx.filter_jit
def backward(path: Sequence[Machine], v: Any, key: Any, steps: int) -> Any:
    """Log weights, of mean `Z_0 / Z_T`, of chains that start at `v` and first settle for as many steps."""
    log_weights = jnp.zeros(len(v))
    for leg, (first, last) in enumerate(zip(path[-2::-1], path[:0:-1], strict=True)):

        def move(t, carry, first=first, last=last, leg=leg):
            v, log_weights = carry
            here = first.interpolate(last, 1 - jnp.maximum(t - 1, 0) / steps)
            after = first.interpolate(last, 1 - jnp.maximum(t, 0) / steps)
            v = sweep(here, v, jax.random.fold_in(jax.random.fold_in(key, leg), t + steps))
            return v, log_weights + after.log_unnormalized(v) - here.log_unnormalized(v)

        v, log_weights = lax.fori_loop(1 if leg else 1 - steps, steps + 1, move, (v, log_weights))
    return log_weights


def sweep(machine: Machine, v: Any, key: Any) -> Any:
    """One Gibbs sweep of many chains: the hidden layer, then the visible one."""
    for_hidden, for_visible = jax.random.split(key)
    h = machine.draw_hidden(v, jax.random.uniform(for_hidden, (len(v), machine.hidden)))
    return machine.draw_visible(h, machine.visible_noise((len(v),)).sample(for_visible, 0))


@eqx.filter_jit
def sweeps(machine: Machine, v: Any, key: Any, count: int) -> Any:
    """Many Gibbs sweeps."""
    return lax.fori_loop(0, count, lambda i, v: sweep(machine, v, jax.random.fold_in(key, i)), v)


class Weighed(eqx.Module):
    """The log of the mean of importance weights, with its error and the effective number of weights."""

    log_mean: float
    error: float
    effective: float
    count: int

    @property
    def few(self) -> bool:
        return self.effective < FEWEST_WEIGHTS


def weigh(log_weights: Any) -> Weighed:
    """The mean of the weights, its relative standard error, and their effective number.

    The largest weights are those that a few chains hardly ever meet, so that the variance over the chains is often too
    small. It is set against `exp(curvature) - 1`, the variance of log-normal weights, whose curvature
    `d^2 log mean(w^q) / dq^2` is taken at q = 3/4, where chains are not short of points; the larger of the two counts.
    A mean of n weights of skewness g is off by `sqrt(1 + 2 (1 + g^2) / n)` times what its standard error says (the
    variance of Student's t in the next order: Johnson, 1978).
    """
    logs = np.asarray(log_weights, dtype=float)
    n, top = len(logs), logs.max()
    if np.any(np.isnan(logs)) or not np.isfinite(top):
        return Weighed(math.nan, math.inf, 0.0, n)
    weights = np.exp(logs - top)
    mean, positive = weights.mean(), np.isfinite(logs)
    apart = weights / mean - 1
    tilted = weights[positive] ** TILT / np.sum(weights[positive] ** TILT)
    curvature = tilted @ (logs[positive] - tilted @ logs[positive]) ** 2 * n / (n - 1)
    expected = math.exp(min(float(curvature), 50.0)) / float(positive.mean()) - 1
    variance = max(float(apart @ apart) / (n - 1), expected)
    skewness = float(np.mean(apart**3) / max(np.mean(apart**2), 1e-300) ** 1.5)
    error = math.sqrt(variance / n * (1 + 2 * (1 + skewness**2) / n))
    return Weighed(float(top + np.log(mean)), error, n / (1 + variance), n)


def best(runs: dict[str, tuple[float, Weighed]]) -> str:
    """The forward run with the most effective weights, or that from peaks if it lies higher.

    A run that misses a mode can be as sure as one that does not; it then lies lower, and never higher.
    """
    forwards = [name for name in runs if not name.startswith("reverse")]
    chosen = max(forwards, key=lambda name: runs[name][1].effective)
    if PEAKS in runs and not runs[PEAKS][1].few:
        (value, weighed), (other, w) = runs[chosen], runs[PEAKS]
        return PEAKS if other - value > FAR * math.hypot(weighed.error, w.error) else chosen
    return chosen


def judged(runs: dict[str, tuple[float, Weighed]], bounds: dict[str, float], details: dict[str, Any]) -> Estimate:
    """One estimate of `log Z` from several, and from lower bounds.

    The best forward run gives the number. All others, and the bounds, can only object. A run from a wide base that lies
    lower is no objection to chains from peaks that nearly all count: that it misses narrow modes is why there are such.
    """
    chosen = best(runs)
    value, weighed = runs[chosen]
    details = {
        **details,
        "base": chosen,
        "effective": round(weighed.effective, 1),
        "n": weighed.count,
        "runs": {
            name: {"value": other, "error": w.error, "effective": w.effective} for name, (other, w) in runs.items()
        },
    }
    if not math.isfinite(value):
        return Estimate(value, math.inf, Status.NOT_FINITE, details)
    if weighed.few:
        return Estimate(value, weighed.error, Status.FEW_WEIGHTS, details)
    sure = chosen == PEAKS and weighed.effective >= weighed.count / 2
    for name, (other, w) in runs.items():
        apart = abs(other - value) / max(math.hypot(weighed.error, w.error), 1e-9 * (1 + abs(value)))
        explained = sure and other < value and not name.startswith("reverse")
        if name != chosen and not w.few and apart > FAR and not explained:
            why = f"{chosen} gives {value:.4f}, {name} gives {other:.4f}, {apart:.1f} standard errors apart"
            return Estimate(value, weighed.error, Status.PATHS_DISAGREE, {**details, "why": why})
    for name, bound in bounds.items():
        if bound > value + ABOVE * weighed.error + 1e-9 * (1 + abs(value)):
            why = f"{name} alone give log Z >= {bound:.4f}, the chains {value:.4f}"
            return Estimate(value, weighed.error, Status.PATHS_DISAGREE, {**details, "why": why})
    return Estimate(value, weighed.error, Status.OK, details)
