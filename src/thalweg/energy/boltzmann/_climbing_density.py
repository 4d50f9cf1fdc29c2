"""Modes that a user's density of real numbers has, found by climbing, and how much they weigh together.

Many climbs from narrow and wide starts end on the peaks. A mixture of Gaussians with the peaks' curvatures proposes
points whose importance weights have the mean `Z`, if the mixture covers the density, and less if it does not: a number
that may object to an annealed `log Z` from above, and is never given as the answer.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg.energy.boltzmann._base import NormalBase

SCALES = (0.25, 0.5, 1.0, 2.0)  # of the base, where climbs start: a narrow mode has a narrow basin
STARTS = 256  # climbs from each
CLIMB = 200  # steps of a climb
PEAKS = 8  # that the mixture has room for
DRAWS = 1000
MOST_COORDINATES = 50  # beyond, curvatures cost too much


def log_weights(log_density: Callable, base: NormalBase, width: Any, key: Any) -> np.ndarray:
    """Log importance weights, of mean `Z` or less, from a mixture of Gaussians at the peaks that climbs end on.

    `width`, shape (d,): the length of a first step.
    """
    tops, values = (np.asarray(part) for part in _climb(log_density, base, width, jax.random.fold_in(key, 0)))
    peaks = _distinct(tops, values, np.asarray(width))
    return np.asarray(_weights(log_density, jnp.asarray(peaks), width, jax.random.fold_in(key, 1)))


def _distinct(tops: np.ndarray, values: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The highest ends of climbs that lie apart, the first one repeated where there are fewer than `PEAKS`."""
    chosen: list[np.ndarray] = []
    for top in tops[np.argsort(-np.nan_to_num(values, nan=-np.inf))]:
        if all(np.mean(((top - other) / width) ** 2) > 0.1 for other in chosen):
            chosen.append(top)
        if len(chosen) == PEAKS:
            break
    return np.array(chosen + chosen[:1] * (PEAKS - len(chosen)))


@eqx.filter_jit
def _climb(log_density: Callable, base: NormalBase, width: Any, key: Any) -> tuple[Any, Any]:
    """(ends, values): steps along the slope that grow while they rise and shrink where they would not."""
    value = jax.vmap(jax.value_and_grad(log_density))
    scale = jnp.repeat(jnp.asarray(SCALES), STARTS)[:, None]
    x = base.mean + scale * base.scale * jax.random.normal(key, (len(scale), *base.shape))

    def step(_, carry):
        x, now, slope, size = carry
        y = x + size[:, None] * width**2 * slope
        then, steep = value(y)
        better = then > now
        x, slope = jnp.where(better[:, None], y, x), jnp.where(better[:, None], steep, slope)
        return x, jnp.where(better, then, now), slope, size * jnp.where(better, 1.3, 0.4)

    x, now, *_ = lax.fori_loop(0, CLIMB, step, (x, *value(x), jnp.full(len(x), 0.3)))
    return x, now


@eqx.filter_jit
def _weights(log_density: Callable, peaks: Any, width: Any, key: Any) -> Any:
    """Weights of draws from Gaussians at the peaks, each as likely as its curvature says that it is."""
    size = peaks.shape[1]
    curvature = -lax.map(jax.hessian(log_density), peaks) * width * width[:, None]
    steep, axes = jnp.linalg.eigh(jnp.nan_to_num(curvature))
    steep = jnp.maximum(steep, 1e-2)  # flat directions reach ten widths
    log_volume = jnp.sum(jnp.log(width)) - jnp.sum(jnp.log(steep), axis=1) / 2 + size / 2 * jnp.log(2 * jnp.pi)
    share = jax.nn.log_softmax(jax.vmap(log_density)(peaks) + log_volume)
    for_peak, for_place = jax.random.split(key)
    at = jax.random.categorical(for_peak, share, shape=(DRAWS,))
    z = jax.random.normal(for_place, (DRAWS, size)) / jnp.sqrt(steep[at])
    x = peaks[at] + width * jnp.einsum("nij,nj->ni", axes[at], z)

    def proposed(x):
        along = jnp.einsum("kij,ki->kj", axes, (x - peaks) / width)
        return jax.nn.logsumexp(share - log_volume - jnp.sum(steep * along**2, axis=1) / 2)

    return jax.vmap(log_density)(x) - jax.vmap(proposed)(x)
