"""Coordinates of particles: their shapes, their pairs, their exchanges."""

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg._edge import shown
from thalweg.energy.ground_states._checks import real_numbers

MOST_PARTICLES = 1000
CLOSEST = 1e-150  # of two particles on top of each other, so that 1/r stays finite when squared


def coordinates_first(x: Any, particles: int, dimension: int) -> Any:
    """Coordinates of shape (..., M) or (..., particles, dimension), as an array of shape (M, ...)."""
    m = particles * dimension
    x = real_numbers(x, "x", f"numbers of shape (..., {m}) or (..., {particles}, {dimension})")
    if x.ndim >= 2 and x.shape[-2:] == (particles, dimension):
        x = x.reshape(*x.shape[:-2], m)
    if not x.ndim or x.shape[-1] != m:
        raise ValueError(
            f"x must have shape (..., {m}) or (..., {particles}, {dimension}) for {particles} particles, "
            f"got {shown(x.shape)}"
        )
    return jnp.moveaxis(x, -1, 0)


@functools.cache
def pairs(particles: int) -> tuple[np.ndarray, np.ndarray]:
    """The two particles of every pair i < j."""
    return np.triu_indices(particles, 1)


def separations(x: Any, particles: int, dimension: int) -> Any:
    """`r_i - r_j` for every pair i < j: shape (M, ...) -> (pairs, dimension, ...)."""
    r = x.reshape(particles, dimension, *x.shape[1:])
    i, j = pairs(particles)
    return r[i] - r[j]


def pair_distances(x: Any, particles: int, dimension: int) -> Any:
    """`r_ij` for every pair i < j: shape (M, ...) -> (pairs, ...)."""
    return length(separations(x, particles, dimension))


def length(difference: Any) -> Any:
    """The length of vectors of shape (pairs, dimension, ...), never quite 0."""
    return jnp.sqrt(jnp.maximum(jnp.sum(difference**2, axis=1), CLOSEST**2))


def exchanges(spins: tuple[int, int], dimension: int) -> tuple[tuple[int, ...], ...]:
    """All exchanges of identical particles, as orders of the M coordinates; the identity is the first."""
    up, down = spins
    orders = []
    for first in itertools.permutations(range(up)):
        for second in itertools.permutations(range(up, up + down)):
            orders.append(tuple(p * dimension + d for p in (*first, *second) for d in range(dimension)))
    return tuple(orders)
