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

from thalweg.energy.boltzmann._base import UniformBase

LEAPS = 5  # leapfrog steps of a Hamiltonian move
ACCEPTED = 0.75  # the share of moves that the pilot aims at
PILOT = 64  # chains of the pilot
CLIMBS = 10  # sweeps of flips that only rise


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


def _start(log_density: Callable, base: Any, x: Any) -> tuple[Any, Any]:
    """How chains are looked at, and where they stand: their places, with values and slopes of density and base."""
    target, start = jax.vmap(jax.value_and_grad(log_density)), jax.vmap(jax.value_and_grad(base.log_density))
    look = lambda x: (x, target(x), start(x))  # noqa: E731
    return look, look(x)


def _mixed(point: Any, t: Any) -> tuple[Any, Any]:
    """Value and slope on the path at `t`. At t = 0 a density that is -inf does not meet a factor 0."""
    _, target, base = point
    return jax.tree.map(lambda there, here: (1 - t) * here + jnp.where(t > 0, t * there, 0.0), target, base)


@eqx.filter_jit
def _hamiltonian(log_density: Callable, base: Any, x: Any, steps: int, key: Any, tuning: Any, way: int) -> Any:
    """Anneal from the base to the density (`way` 1), or back (-1)."""
    look, point = _start(log_density, base, x)
    sizes, widths = tuning

    def gain(point):
        return (point[1][0] - point[2][0]) / steps

    def move(s, carry):
        point, log_weights = carry
        t = s / steps if way > 0 else 1 - (s - 1) / steps
        index = jnp.where(way > 0, s - 1, steps - s)
        if way > 0:
            log_weights = log_weights + gain(point)
        point, _ = _leap(look, point, t, sizes[index], widths[index], jax.random.fold_in(key, s))
        if way < 0:
            log_weights = log_weights - gain(point)
        return point, log_weights

    point, log_weights = lax.fori_loop(1, steps + 1, move, (point, jnp.zeros(len(x))))
    return log_weights, point[0]


@eqx.filter_jit
def _tune(log_density: Callable, base: Any, x: Any, steps: int, key: Any) -> Any:
    """Step sizes and widths for every t, from the spread of the pilot's chains and how many moves they accept."""
    look, point = _start(log_density, base, x)

    def move(carry, s):
        point, log_size = carry
        width = jnp.maximum(jnp.std(point[0], axis=0), 1e-6 * base.scale)
        inside = jnp.isfinite(point[1][0])  # outside the support of a density nothing can be learned
        point, accepted = _leap(look, point, s / steps, jnp.exp(log_size), width, jax.random.fold_in(key, s))
        share = jnp.sum(accepted & inside) / jnp.maximum(jnp.sum(inside), 1)
        log_size = log_size + 0.1 * (share - ACCEPTED)
        return (point, log_size), (jnp.exp(log_size), width)

    return lax.scan(move, (point, jnp.log(0.3)), jnp.arange(1, steps + 1))[1]


def _leap(look: Callable, point: Any, t: Any, size: Any, width: Any, key: Any) -> tuple[Any, Any]:
    """One Hamiltonian move of every chain (Duane et al., 1987), and whether it was accepted."""
    for_push, for_accept = jax.random.split(key)
    push = jax.random.normal(for_push, point[0].shape)
    stride = size * width

    def leap(_, there):
        other, p = there
        other = look(other[0] + stride * p)
        return other, p + stride * _mixed(other, t)[1]

    value, slope = _mixed(point, t)
    other, p = lax.fori_loop(0, LEAPS, leap, (point, push + stride / 2 * slope))
    other_value, other_slope = _mixed(other, t)
    p = p - stride / 2 * other_slope
    gain = other_value - jnp.sum(p**2, axis=-1) / 2 - value + jnp.sum(push**2, axis=-1) / 2
    accepted = jnp.log(jax.random.uniform(for_accept, (len(push),))) < gain  # a gain that is NaN is refused

    def chosen(new, old):
        return jnp.where(accepted.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(chosen, other, point), accepted


@eqx.filter_jit
def _flips(log_density: Callable, base: UniformBase, x: Any, steps: int, key: Any, way: int) -> Any:
    """Anneal units of two values from the uniform law to the density (`way` 1), or back (-1)."""
    batch = jax.vmap(lambda x: log_density(x) - base.log_density(x))
    value = jax.vmap(log_density)

    def sweep(x, t, key):
        log_uniform = jnp.log(jax.random.uniform(key, (base.size, len(x)))) / t
        return _flip_each(value, base, x, value(x), log_uniform)[0]

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


def _flip_each(value: Callable, base: UniformBase, x: Any, now: Any, least_gain: Any) -> tuple[Any, Any]:
    """Every unit in turn, flipped where its gain is above `least_gain` (units, chains): the states, their values."""

    def flip(i, carry):
        x, now = carry
        flat = x.reshape(len(x), -1)
        y = flat.at[:, i].set(sum(base.units) - flat[:, i]).reshape(x.shape)
        then = value(y)
        yes = then - now > least_gain[i]
        return jnp.where(yes.reshape(-1, *[1] * (x.ndim - 1)), y, x), jnp.where(yes, then, now)

    return lax.fori_loop(0, base.size, flip, (x, now))


@eqx.filter_jit
def climb(log_density: Callable, base: UniformBase, x: Any) -> tuple[Any, Any]:
    """(states, log densities) that flips end on which only rise, from every `x`."""
    value, least = jax.vmap(log_density), jnp.zeros((base.size, len(x)))
    return lax.fori_loop(0, CLIMBS, lambda _, c: _flip_each(value, base, c[0], c[1], least), (x, value(x)))


def settle(log_density: Callable, base: Any, x: Any, steps: int, key: Any, tuning: Any) -> Any:
    """Moves at the density itself, so that samples that are given come to rest."""
    return _settle(log_density, base, x, steps, key, tuning[0][-1], tuning[1][-1])


@eqx.filter_jit
def _settle(log_density: Callable, base: Any, x: Any, steps: int, key: Any, size: Any, width: Any) -> Any:
    look, point = _start(log_density, base, x)
    move = lambda i, point: _leap(look, point, 1.0, size, width, jax.random.fold_in(key, i))[0]  # noqa: E731
    return lax.fori_loop(0, steps, move, point)[0]
