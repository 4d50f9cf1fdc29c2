"""Laws with known `log Z` that annealing starts from, for log densities of a user's own."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg.energy.boltzmann import _units


class NormalBase(eqx.Module):
    """Independent normal numbers: where annealing of a density of real numbers starts.

    **Arguments**

    - `mean`: shape (d,). - `scale`: standard deviations, one number or shape (d,). Choose it wider than the target:
      a mode that no chain of the base reaches is not seen.

    >>> import numpy as np, thalweg as tw
    >>> round(float(tw.energy.NormalBase(np.zeros(2), 3.0).log_density(np.zeros(2))), 6)  # -ln(2 pi 9)
    -4.035102
    """

    mean: Any
    scale: Any

    def __init__(self, mean: Any, scale: Any = 1.0):
        mean = np.atleast_1d(np.asarray(mean, dtype=float))
        if mean.ndim != 1 or not np.all(np.isfinite(mean)):
            raise ValueError(f"mean must be finite numbers of shape (d,), got {mean!r}")
        try:
            wide = np.broadcast_to(np.asarray(scale, dtype=float), mean.shape)
        except ValueError:
            raise ValueError(f"scale must be one number or shape {mean.shape}, got {np.shape(scale)}") from None
        if not (np.all(np.isfinite(wide)) and np.all(wide > 0)):
            raise ValueError(f"scale must be standard deviations > 0, got {scale}")
        self.mean, self.scale = jnp.asarray(mean), jnp.asarray(wide)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def log_density(self, x: Any) -> Any:
        z = (x - self.mean) / self.scale
        return -jnp.sum(z**2) / 2 - jnp.sum(jnp.log(self.scale)) - self.mean.size * math.log(2 * math.pi) / 2

    def draw(self, key: Any, chains: int) -> Any:
        return self.mean + self.scale * jax.random.normal(key, (chains, *self.shape))


class UniformBase(eqx.Module):
    """Independent units of two values, each with probability 1/2: for densities over such units.

    **Arguments**

    - `shape`: the shape of a state, such as `(4, 4)` for a lattice. - `units`: `(0, 1)` or `(-1, 1)`.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    units: _units.Units = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...], units: Any = (0, 1)):
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not shape or not all(isinstance(size, int | np.integer) and size > 0 for size in shape):
            raise ValueError(f"shape must be a tuple of positive whole numbers, got {shape}")
        self.shape, self.units = tuple(int(size) for size in shape), _units.check_units(units)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def log_density(self, x: Any) -> Any:
        return jnp.full((), -self.size * math.log(2))

    def draw(self, key: Any, chains: int) -> Any:
        low, high = self.units
        return jnp.where(jax.random.bernoulli(key, 0.5, (chains, *self.shape)), float(high), float(low))

    def states(self, numbers: Any) -> Any:
        """The states with these numbers, from 0 to 2^size - 1."""
        return jnp.reshape(_units.states(numbers, self.size, self.units), (*jnp.shape(numbers), *self.shape))
