"""Noise that draws a pool of data, then a datum of it: twins with other pools keep the noise."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg._noise import Law


class Pools(Law):
    """The numbers of data, drawn from pools: each pool has equal odds, and so has each datum of the pool drawn.

    Under one key two laws draw the same pool at the same step and, within it, datum `floor(u len(pool))` for the same
    u: pools that agree give the same datum. `shape` is `()` for one datum a step, `(batch,)` for several.
    """

    members: Int[Array, "pools most"]
    counts: Int[Array, " pools"]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, pools: Sequence[Any], most: int | None = None, shape: tuple[int, ...] = ()):
        filled = np.zeros((len(pools), most or max(map(len, pools))), dtype=int)
        for row, pool in zip(filled, pools, strict=True):
            row[: len(pool)] = pool
        self.members = jnp.asarray(filled)
        self.counts = jnp.asarray([len(pool) for pool in pools])
        self.shape = shape

    def sample(self, key: Any, i: Any) -> Int[Array, "..."]:
        u, v = jax.random.uniform(jax.random.fold_in(key, i), (2, *self.shape))
        pool = jnp.floor(u * len(self.counts)).astype(int)
        count = self.counts[pool]
        return self.members[pool, jnp.minimum(jnp.floor(v * count).astype(int), count - 1)]

    def atoms(self) -> tuple[Any, Float[Array, " atoms"]]:
        if math.prod(self.shape) > 1:
            raise ValueError("the mean over batches of pools is not formed: take batches of one datum")
        pools, most = self.members.shape
        odds = jnp.where(jnp.arange(most) < self.counts[:, None], 1 / (pools * self.counts[:, None]), 0.0)
        return self.members.reshape(-1, *self.shape), odds.ravel()
