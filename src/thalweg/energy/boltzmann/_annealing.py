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
FEWEST_CARRIERS = 3.0  # below this effective number of chains that the error is estimated from, it is not known
FAR = 4.0  # standard errors at which two ways of computing one number disagree
ABOVE = 3.0  # standard errors by which a lower bound may exceed a value


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
    carriers: float = math.inf

    @property
    def few(self) -> bool:
        return self.effective < min(FEWEST_WEIGHTS, self.count / 2) or (
            self.carriers < min(FEWEST_CARRIERS, self.count / 10)
        )


def weigh(log_weights: Any, finite: bool = True) -> Weighed:
    """The mean of the weights, its relative standard error, and their effective number.

    `carriers`, `(sum d^2)^2 / sum d^4` with `d` the distances from the mean, is the effective number of weights that
    the error rests on. With `finite=False` weights may be 0.
    """
    logs = np.asarray(log_weights, dtype=float)
    if not (np.all(np.isfinite(logs)) if finite else np.isfinite(logs.max())):
        return Weighed(math.nan, math.inf, 0.0, len(logs))
    top = logs.max()
    weights = np.exp(logs - top)
    mean = weights.mean()
    error = weights.std(ddof=1) / (mean * math.sqrt(len(weights)))
    effective, apart = float(weights.sum() ** 2 / (weights**2).sum()), (weights / mean - 1) ** 2
    carriers = float(apart.sum() ** 2 / (apart**2).sum()) if apart.sum() > 1e-18 else math.inf
    return Weighed(float(top + np.log(mean)), float(error), effective, len(logs), carriers)


def judged(
    runs: dict[str, tuple[float, Weighed]], bounds: dict[str, tuple[float, float]], details: dict[str, Any]
) -> Estimate:
    """One estimate of `log Z` from several, and from lower bounds (each with its error).

    The forward run with the most effective weights gives the number. All others, and the bounds, can only object.
    """
    forwards = [name for name in runs if not name.startswith("reverse")]
    chosen = max(forwards, key=lambda name: runs[name][1].effective)
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
    for name, (other, w) in runs.items():
        apart = abs(other - value) / max(math.hypot(weighed.error, w.error), 1e-9 * (1 + abs(value)))
        if name != chosen and not w.few and apart > FAR:
            why = f"{chosen} gives {value:.4f}, {name} gives {other:.4f}, {apart:.1f} standard errors apart"
            return Estimate(value, weighed.error, Status.PATHS_DISAGREE, {**details, "why": why})
    for name, (bound, error) in bounds.items():
        if bound > value + ABOVE * math.hypot(weighed.error, error) + 1e-9 * (1 + abs(value)):
            why = f"{name} alone give log Z >= {bound:.4f}, the chains {value:.4f}"
            return Estimate(value, weighed.error, Status.PATHS_DISAGREE, {**details, "why": why})
    return Estimate(value, weighed.error, Status.OK, details)
