"""Annealed importance sampling for any log density: Hamiltonian moves for real numbers, flips for units of two values.

The path is `(1 - t) log base + t log density`. For real numbers a pilot run finds step sizes for every `t`; the run
that is weighed uses them unchanged, so that its weights stay independent and unbiased.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg.energy.boltzmann._base import NormalBase, UniformBase

LEAPS = 5  # leapfrog steps of a Hamiltonian move
ACCEPTED = 0.75  # the share of moves that the pilot aims at
PILOT = 64  # chains of the pilot


def forward(log_density: Callable, base: Any, chains: int, steps: int, key: Any) -> tuple[Any, Any, Any]:
    """(log weights, last states, tuning) of chains that start from the base."""
    if isinstance(base, UniformBase):
        x = base.draw(jax.random.fold_in(key, 0), chains)
        return *_flips(log_density, base, x, steps, jax.random.fold_in(key, 1), 1), None
    tuning = _tune(log_density, base, base.draw(jax.random.fold_in(key, 2), PILOT), steps, jax.random.fold_in(key, 3))
    x = base.draw(jax.random.fold_in(key, 0), chains)
    return *_hamiltonian(log_density, base, x, steps, jax.random.fold_in(key, 1), tuning, 1), tuning


def backward(log_density: Callable, base: Any, x: Any, steps: int, key: Any, tuning: Any) -> Any:
    """Log weights, of mean `Z_0 / Z`, of chains that start at samples `x` of the density."""
    if isinstance(base, UniformBase):
        return _flips(log_density, base, x, steps, key, -1)[0]
    return _hamiltonian(log_density, base, x, steps, key, tuning, -1)[0]


def _mixed(log_density: Callable, base: Any, t: Any) -> Callable:
    """The path at `t`. At the ends a density that is -inf does not meet a factor 0."""

    def at(x):
        target = log_density(x)
        return (1 - t) * base.log_density(x) + jnp.where(t > 0, t * target, 0.0)

    return at


@eqx.filter_jit
def _hamiltonian(log_density: Callable, base: NormalBase, x: Any, steps: int, key: Any, tuning: Any, way: int) -> Any:
    """Anneal from the base to the density (`way` 1), or back (-1)."""
    batch = jax.vmap(lambda x: log_density(x) - base.log_density(x))
    sizes, widths = tuning

    def move(s, carry):
        x, log_weights = carry
        t = s / steps if way > 0 else 1 - (s - 1) / steps
        index = jnp.where(way > 0, s - 1, steps - s)
        here = _mixed(log_density, base, t)
        if way > 0:
            log_weights = log_weights + batch(x) / steps
        x, _ = _leap(here, x, sizes[index], widths[index], jax.random.fold_in(key, s))
        if way < 0:
            log_weights = log_weights - batch(x) / steps
        return x, log_weights

    x, log_weights = lax.fori_loop(1, steps + 1, move, (x, jnp.zeros(len(x))))
    return log_weights, x


@eqx.filter_jit
def _tune(log_density: Callable, base: NormalBase, x: Any, steps: int, key: Any) -> Any:
    """Step sizes and widths for every t, from the spread of the pilot's chains and how many moves they accept."""

    def move(carry, s):
        x, log_size = carry
        width = jnp.maximum(jnp.std(x, axis=0), 1e-6 * base.scale)
        here = _mixed(log_density, base, s / steps)
        x, accepted = _leap(here, x, jnp.exp(log_size), width, jax.random.fold_in(key, s))
        log_size = log_size + 0.1 * (jnp.mean(accepted) - ACCEPTED)
        return (x, log_size), (jnp.exp(log_size), width)

    return lax.scan(move, (x, jnp.log(0.3)), jnp.arange(1, steps + 1))[1]


def _leap(log_density: Callable, x: Any, size: Any, width: Any, key: Any) -> tuple[Any, Any]:
    """One Hamiltonian move of every chain (Duane et al., 1987), and whether it was accepted."""
    slope = jax.vmap(jax.grad(log_density))
    for_push, for_accept = jax.random.split(key)
    push = jax.random.normal(for_push, x.shape)

    def leap(_, point):
        y, p = point
        y = y + size * width * p
        return y, p + size * width * slope(y)

    half = size / 2 * width
    y, p = lax.fori_loop(0, LEAPS, leap, (x, push + half * slope(x)))
    p = p - half * slope(y)
    value = jax.vmap(log_density)
    gain = value(y) - jnp.sum(p**2, axis=-1) / 2 - value(x) + jnp.sum(push**2, axis=-1) / 2
    accepted = jnp.log(jax.random.uniform(for_accept, (len(x),))) < gain  # a gain that is NaN is refused
    return jnp.where(accepted[:, None], y, x), accepted


@eqx.filter_jit
def _flips(log_density: Callable, base: UniformBase, x: Any, steps: int, key: Any, way: int) -> Any:
    """Anneal units of two values from the uniform law to the density (`way` 1), or back (-1)."""
    batch = jax.vmap(lambda x: log_density(x) - base.log_density(x))
    value, total = jax.vmap(log_density), sum(base.units)

    def sweep(x, t, key):
        uniform = jax.random.uniform(key, (base.size, len(x)))

        def flip(i, carry):
            x, now = carry
            flat = x.reshape(len(x), -1)
            y = flat.at[:, i].set(total - flat[:, i]).reshape(x.shape)
            then = value(y)
            yes = jnp.log(uniform[i]) < t * (then - now)
            return jnp.where(yes.reshape(-1, *[1] * (x.ndim - 1)), y, x), jnp.where(yes, then, now)

        return lax.fori_loop(0, base.size, flip, (x, value(x)))[0]

    def move(s, carry):
        x, log_weights = carry
        t = s / steps if way > 0 else 1 - (s - 1) / steps
        if way > 0:
            log_weights = log_weights + batch(x) / steps
        x = sweep(x, t, jax.random.fold_in(key, s))
        if way < 0:
            log_weights = log_weights - batch(x) / steps
        return x, log_weights

    x, log_weights = lax.fori_loop(1, steps + 1, move, (x, jnp.zeros(len(x))))
    return log_weights, x


def settle(log_density: Callable, base: Any, x: Any, steps: int, key: Any, tuning: Any) -> Any:
    """Moves at the density itself, so that samples that are given come to rest."""
    if isinstance(base, UniformBase):
        return x
    size, width = tuning[0][-1], tuning[1][-1]
    return _settle(log_density, x, steps, key, size, width)


@eqx.filter_jit
def _settle(log_density: Callable, x: Any, steps: int, key: Any, size: Any, width: Any) -> Any:
    return lax.fori_loop(0, steps, lambda i, x: _leap(log_density, x, size, width, jax.random.fold_in(key, i))[0], x)
