"""Processes on finitely many states."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from thalweg._edge import is_whole, shown
from thalweg._noise import Uniform
from thalweg._process import Process


def finite(table: Any) -> Process:
    """A map or a Markov chain on the states 0, ..., n-1.

    **Arguments**

    - `table`: whole numbers of shape (n,): the next state of each; or probabilities of shape (n, n), row
      `i` holding those of the next state given `i`.

    **Returns** a `Process` with its exact `transition`. **Raises** `ValueError` for next states outside the
    table or rows that do not sum to 1.

    >>> import thalweg as tw
    >>> chain = tw.processes.finite([[0.9, 0.1], [0.5, 0.5]])
    >>> chain.transition(0)[1].tolist()
    [0.9, 0.1]
    """
    try:
        array = np.asarray(table)
    except ValueError:
        raise ValueError(f"table must have rows of equal length, got {shown(table)}") from None
    if array.ndim == 1 and array.dtype.kind in "iu":
        if array.size == 0 or array.min() < 0 or array.max() >= array.size:
            raise ValueError(f"table must hold next states from 0 to {array.size - 1}, got {shown(table)}")
        mapping = _Map(jnp.asarray(array))
        return Process(mapping, None, _init(array.size), transition=mapping.transition, smooth=False)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"table must be next states (n,) or probabilities (n, n), got shape {array.shape} of {array.dtype}"
        )
    array = array.astype(float)
    sums = array.sum(axis=1)
    bad = np.flatnonzero(~(np.all(array >= 0, axis=1) & (np.abs(sums - 1) < 1e-9)))
    if bad.size:
        raise ValueError(f"row {bad[0]} of table must be probabilities (>= 0, sum 1), got a sum of {sums[bad[0]]:.12g}")
    chain = _Chain(jnp.asarray(array))
    return Process(chain, Uniform(), _init(len(array)), transition=chain.transition, smooth=False)


class _Map(eqx.Module):
    table: Int[Array, " n"]

    def __call__(self, state: Any, w: Any) -> Any:
        return self.table[state].astype(jnp.asarray(state).dtype)

    def transition(self, state: Any) -> tuple[Any, Any]:
        return self.table[state][None], jnp.ones(1)


class _Chain(eqx.Module):
    table: Float[Array, "n n"]

    def __call__(self, state: Any, w: Any) -> Any:
        reached = jnp.sum(w >= jnp.cumsum(self.table[state]))
        last = jnp.max(jnp.where(self.table[state] > 0, jnp.arange(len(self.table)), 0))
        return jnp.minimum(reached, last).astype(jnp.asarray(state).dtype)

    def transition(self, state: Any) -> tuple[Any, Any]:
        return jnp.arange(len(self.table)), self.table[state]


def _init(n: int) -> Any:
    def init(state: int) -> Any:
        if not is_whole(state) or not 0 <= state < n:
            raise ValueError(f"state must be a whole number from 0 to {n - 1}, got {state!r}")
        return jnp.asarray(state)

    return init
