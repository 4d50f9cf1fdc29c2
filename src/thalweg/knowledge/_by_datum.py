"""How far each datum moved each unit: the factored tally of a dense layer on the input.

For SGD on one datum `dW_ij = -rate x_i delta_j` and `db_j = -rate delta_j`, so that |dW_ij| = |x_i| |db_j|: the sizes
of the bias updates, by datum, hold the tallies of all weights, for any grouping made later.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Layer(NamedTuple):
    """The part of the parameters that is looked at: a dense layer on the input, and what reads its units.

    - `weights` (inputs, units), `biases` (units,), `outgoing` (units, outputs), `next_biases` (outputs,).
    """

    weights: Any
    biases: Any
    outgoing: Any
    next_biases: Any


def first_layer(params: Any) -> Layer:
    """The first layer of `tw.systems.perceptron`, and of any dict with its names."""
    return Layer(params["W1"], params["b1"], params["W2"], params["b2"])


class Visits(eqx.Module):
    """A fold: the sizes of the bias updates that each datum caused, outside and inside a window of steps.

    The result has shape (2, n, units): `[0]` outside, `[1]` inside.
    """

    biases: Callable[[Any], Any] = eqx.field(static=True)
    n: int = eqx.field(static=True)
    first: Any
    end: Any

    def init(self, state: Any) -> Any:
        return jnp.zeros((), int), jnp.zeros((2, self.n, *self.biases(state.params).shape))

    def update(self, carry: Any, state: Any, w: Any, next_state: Any) -> Any:
        step, sizes = carry
        moved = abs(self.biases(next_state.params) - self.biases(state.params))
        inside = ((step >= self.first) & (step < self.end)).astype(int)
        return step + 1, sizes.at[inside, w].add(moved)

    def result(self, carry: Any) -> Float[Array, "2 n units"]:
        return carry[1]


class Shares(NamedTuple):
    """The share of the first group in each weight and bias; NaN where neither group moved it."""

    weights: Float[np.ndarray, "inputs units"]
    biases: Float[np.ndarray, " units"]


def tally_shares(
    x: Float[np.ndarray, "n inputs"], moved: Float[np.ndarray, "n units"], group: np.ndarray
) -> tuple[Shares, Float[np.ndarray, "inputs units"]]:
    """Shares of the data where `group` is true, and the whole tally of the weights."""
    size = np.abs(x)
    first, second = size[group].T @ moved[group], size[~group].T @ moved[~group]
    return Shares(ratio(first, second), ratio(moved[group].sum(0), moved[~group].sum(0))), first + second


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a / (a + b)`; NaN where both are 0."""
    total = a + b
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, a / total, np.nan)
