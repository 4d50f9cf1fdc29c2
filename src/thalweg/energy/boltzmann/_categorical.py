"""The restricted Boltzmann machine with visible units of several classes (Potts units)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._noise import Uniform
from thalweg.energy.boltzmann import _units
from thalweg.energy.boltzmann._machine import Machine, averaging, first_weights, parameter, rows


class CategoricalRBM(Machine):
    """A Boltzmann machine of categorical data: each visible unit is one of `classes` values 0, 1, 2, ...

    `E(v, h) = -sum_i a[i, v_i] - b.h - sum_ij W[i, v_i, j] h_j`, so a visible unit given `h` is a softmax.

    **Arguments**

    - `weights`: `W`, shape (visible, classes, hidden). - `visible_bias`: `a`, shape (visible, classes).
    - `hidden_bias`: `b`, shape (hidden,). - `units`: the two values of a hidden unit.

    A state `v` holds whole numbers, shape (..., visible). **Raises** `ValueError` as `RBM` does.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.CategoricalRBM(np.zeros((1, 3, 2)), np.log([[1, 2, 1]]), np.zeros(2))
    >>> model.visible_probabilities(np.zeros(2)).tolist()
    [[0.25, 0.5, 0.25]]
    """

    weights: Float[Array, "visible classes hidden"]
    visible_bias: Float[Array, "visible classes"]
    hidden_bias: Float[Array, " hidden"]
    units: _units.Units = eqx.field(static=True)

    def __init__(self, weights: Any, visible_bias: Any, hidden_bias: Any, units: Any = (0, 1)):
        self.weights = parameter("weights", weights, (None, None, None), "(visible, classes, hidden)")
        visible, classes, hidden = self.weights.shape
        shape = f"({visible}, {classes}), as the first two axes of weights"
        self.visible_bias = parameter("visible_bias", visible_bias, (visible, classes), shape)
        self.hidden_bias = parameter("hidden_bias", hidden_bias, (hidden,), f"({hidden},), as the last axis of weights")
        self.units = _units.check_units(units)

    @classmethod
    def from_arrays(cls, weights: Any, visible_bias: Any, hidden_bias: Any, units: Any = (0, 1)) -> "CategoricalRBM":
        """A machine from arrays of any library."""
        return cls(np.asarray(weights), np.asarray(visible_bias), np.asarray(hidden_bias), units)

    @classmethod
    def start(cls, data: Any, hidden: int, key: Any = 0, classes: int | None = None) -> "CategoricalRBM":
        """Where training starts well: the class frequencies of `data`, weights ~ Normal(0, 0.01^2)."""
        array, weights = first_weights(data, hidden, key)
        classes = int(array.max()) + 1 if classes is None else classes
        weights = np.random.default_rng(0).permuted(np.repeat(weights[:, None], classes, axis=1), axis=0)
        blank = cls(weights, np.zeros((array.shape[1], classes)), np.zeros(hidden))
        return cls(weights, blank.bias_of(blank.check_data(array)), np.zeros(hidden))

    @classmethod
    def from_rbms(cls, path: Any, update: int | None = None) -> "CategoricalRBM":
        """The Potts machine that the package rbms saved in an HDF5 file, at a saved update (the last by default)."""
        from thalweg.energy.boltzmann._files import read_rbms

        return cls(*read_rbms(path, update, "PBRBM"))

    @property
    def classes(self) -> int:
        """How many values a visible unit has."""
        return self.weights.shape[1]

    def one_hot(self, v: Any) -> Any:
        """Unit vectors in place of classes, shape (..., visible, classes)."""
        return jax.nn.one_hot(jnp.asarray(v).astype(int), self.classes, dtype=self.weights.dtype)

    def energy(self, v: Any, h: Any) -> Any:
        return -jnp.sum(self.one_hot(v) * self.visible_bias, axis=(-2, -1)) - jnp.sum(self.hidden_field(v) * h, axis=-1)

    def hidden_field(self, v: Any) -> Any:
        return self.hidden_bias + jnp.einsum("...ic,icj->...j", self.one_hot(v), self.weights)

    def visible_field(self, h: Any) -> Any:
        """The field on each class of each visible unit, shape (..., visible, classes)."""
        return self.visible_bias + jnp.einsum("...j,icj->...ic", jnp.asarray(h, self.weights.dtype), self.weights)

    def visible_probabilities(self, h: Any) -> Any:
        """The probabilities of the classes given the hidden units, shape (..., visible, classes)."""
        return jax.nn.softmax(self.visible_field(h), axis=-1)

    def log_unnormalized(self, v: Any) -> Any:
        sums = jnp.sum(_units.log_sum(self.hidden_field(v), self.units), axis=-1)
        return jnp.sum(self.one_hot(v) * self.visible_bias, axis=(-2, -1)) + sums

    def log_unnormalized_hidden(self, h: Any) -> Any:
        return h @ self.hidden_bias + jnp.sum(jax.nn.logsumexp(self.visible_field(h), axis=-1), axis=-1)

    def visible_mean(self, h: Any) -> Any:
        """The probabilities of the classes, which are the means of unit vectors."""
        return self.visible_probabilities(h)

    def draw_visible(self, h: Any, w: Any) -> Any:
        passed = w[..., None] >= jnp.cumsum(self.visible_probabilities(h), axis=-1)
        return jnp.minimum(jnp.sum(passed, axis=-1), self.classes - 1).astype(self.weights.dtype)

    def visible_noise(self, lead: tuple[int, ...] = ()) -> Uniform:
        return Uniform((*lead, self.visible))

    def derivatives(self, v: Any, weights: Any = None) -> "CategoricalRBM":
        v, weights = averaging(v, weights)
        return self._averaged(self.one_hot(v), self.hidden_mean(v), weights)

    def derivatives_given_hidden(self, h: Any, weights: Any = None) -> "CategoricalRBM":
        h, weights = averaging(h, weights)
        return self._averaged(self.visible_probabilities(h), h, weights)

    def _averaged(self, one_hot: Any, h: Any, weights: Any) -> "CategoricalRBM":
        weighted = weights[:, None] * h
        return CategoricalRBM(
            jnp.einsum("nic,nj->icj", one_hot, weighted),
            jnp.einsum("n,nic->ic", weights, one_hot),
            jnp.sum(weighted, axis=0),
            self.units,
        )

    def interpolate(self, other: "CategoricalRBM", t: Any) -> "CategoricalRBM":
        def mixed(name):
            return (1 - t) * getattr(self, name) + t * getattr(other, name)

        return CategoricalRBM(mixed("weights"), mixed("visible_bias"), mixed("hidden_bias"), self.units)

    def independent(self, data: Any = None) -> "CategoricalRBM":
        bias = jnp.zeros_like(self.visible_bias) if data is None else self.bias_of(data)
        return CategoricalRBM(jnp.zeros_like(self.weights), bias, jnp.zeros(self.hidden), self.units)

    def bias_of(self, data: Any) -> Any:
        """The biases of independent units with the class frequencies of `data`, 1/classes added to each count."""
        counts = jnp.sum(self.one_hot(jnp.reshape(jnp.asarray(data), (-1, self.visible))), axis=0)
        return jnp.log((counts + 1 / self.classes) / (jnp.sum(counts, axis=-1, keepdims=True) + 1))

    def log_partition_independent(self) -> Any:
        return jnp.sum(jax.nn.logsumexp(self.visible_bias, axis=-1)) + self.hidden * np.log(2)

    def visible_states(self, numbers: Any) -> Any:
        places = jnp.asarray([self.classes**i for i in range(self.visible)])
        return (numbers[..., None] // places % self.classes).astype(self.weights.dtype)

    @property
    def visible_count(self) -> int:
        return self.classes**self.visible

    def check_data(self, data: Any, name: str = "data") -> np.ndarray:
        array = rows(data, self.visible, name)
        if not np.all((array == np.round(array)) & (array >= 0) & (array < self.classes)):
            where = np.argwhere((array != np.round(array)) | (array < 0) | (array >= self.classes))[0]
            raise ValueError(
                f"{name} must hold classes, whole numbers from 0 to {self.classes - 1}, got {array[tuple(where)]:.6g} "
                f"in row {where[0]}, column {where[1]}"
            )
        return array
