"""Units of two values, {0, 1} or {-1, +1}: sums over them, their means, their draws, all their states."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from thalweg._precision import use_float64

use_float64()

Units = tuple[int, int]


def check_units(units: Any) -> Units:
    try:
        pair = () if isinstance(units, str) else tuple(int(value) for value in units)
    except (TypeError, ValueError):
        pair = ()
    if pair not in ((0, 1), (-1, 1)):
        raise ValueError(f"units must be (0, 1) or (-1, 1), got {units!r}")
    return pair[0], pair[1]


def log_sum(field: Any, units: Units) -> Any:
    """`log sum_s exp(field s)` over the two values s of a unit; softplus where they are 0 and 1."""
    low, high = units
    return jnp.logaddexp(low * field, high * field)


def mean(field: Any, units: Units) -> Any:
    """The mean of a unit in a field: the logistic function, or the hyperbolic tangent."""
    low, high = units
    return low + (high - low) * jax.nn.sigmoid((high - low) * field)


def draw(field: Any, uniform: Any, units: Units) -> Any:
    """A unit drawn with a number that is uniform on [0, 1)."""
    low, high = units
    return jnp.where(uniform < jax.nn.sigmoid((high - low) * field), float(high), float(low))


def states(numbers: Any, count: int, units: Units) -> Float[Array, "... count"]:
    """The states of `count` units with these numbers, from 0 to 2^count - 1."""
    low, high = units
    bits = (numbers[..., None] >> jnp.arange(count)) & 1
    return low + (high - low) * bits.astype(float)
