"""The restricted Boltzmann machine with units of two values in both layers."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import is_traced
from thalweg._noise import Uniform
from thalweg.energy.boltzmann import _units
from thalweg.energy.boltzmann._machine import Machine, averaging, first_weights, parameter, rows


class RBM(Machine):
    """A restricted Boltzmann machine: `E(v, h) = -a.v - b.h - v.W.h`, `p(v, h) = exp(-E) / Z`.

    **Arguments**

    - `weights`: `W`, shape (visible, hidden).
    - `visible_bias`: `a`, shape (visible,). - `hidden_bias`: `b`, shape (hidden,).
    - `units`: the two values of a unit, `(0, 1)` or `(-1, 1)`, for both layers.

    **Raises** `ValueError` for shapes that do not fit together and numbers that are not finite.

    For units {0, 1}, `log p~(v) = a.v + sum_j log(1 + exp(b_j + (vW)_j))`. Source: Smolensky (1986); Hinton (2002).

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM(np.zeros((3, 2)), np.zeros(3), np.zeros(2))
    >>> float(model.log_unnormalized(np.array([1, 0, 1])))  # 2 ln 2
    1.3862943611198906
    """

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]
    units: _units.Units = eqx.field(static=True)

    def __init__(self, weights: Any, visible_bias: Any, hidden_bias: Any, units: Any = (0, 1)):
        self.weights = parameter("weights", weights, (None, None), "(visible, hidden)")
        visible, hidden = self.weights.shape
        self.visible_bias = parameter("visible_bias", visible_bias, (visible,), f"({visible},), as weights have rows")
        self.hidden_bias = parameter("hidden_bias", hidden_bias, (hidden,), f"({hidden},), as weights have columns")
        self.units = _units.check_units(units)

    @classmethod
    def from_arrays(cls, weights: Any, visible_bias: Any, hidden_bias: Any, units: Any = (0, 1)) -> "RBM":
        """A machine from arrays of any library; transposed weights (hidden, visible) are recognised by the biases."""
        array, a, b = np.asarray(weights), np.asarray(visible_bias), np.asarray(hidden_bias)
        flipped = array.ndim == 2 and array.shape == (b.size, a.size) and a.size != b.size
        return cls(array.T if flipped else array, a.reshape(-1), b.reshape(-1), units)

    @classmethod
    def start(cls, data: Any, hidden: int, key: Any = 0, units: Any = (0, 1)) -> "RBM":
        """Where training starts well: biases that give the means of `data`, weights ~ Normal(0, 0.01^2)."""
        array, weights = first_weights(data, hidden, key)
        blank = cls(weights, np.zeros(array.shape[1]), np.zeros(hidden), units)
        rows = blank.check_data(array)
        return cls(weights, blank.bias_of(rows), np.zeros(hidden), units)

    @classmethod
    def from_sklearn(cls, estimator: Any) -> "RBM":
        """The machine in a fitted `sklearn.neural_network.BernoulliRBM` (or an estimator with its attributes).

        >>> import numpy as np, thalweg as tw
        >>> from sklearn.neural_network import BernoulliRBM
        >>> data = np.array([[0, 1, 1], [1, 0, 1]])
        >>> tw.energy.RBM.from_sklearn(BernoulliRBM(2, n_iter=1, random_state=0).fit(data)).weights.shape
        (3, 2)
        """
        names = ("components_", "intercept_visible_", "intercept_hidden_")
        missing = [name for name in names if not hasattr(estimator, name)]
        if missing:
            raise ValueError(
                f"estimator must be a fitted BernoulliRBM with {', '.join(names)}; this "
                f"{type(estimator).__name__} lacks {', '.join(missing)}: call its fit(data) first"
            )
        components, visible, hidden = (np.asarray(getattr(estimator, name)) for name in names)
        return cls(np.atleast_2d(components).T, np.ravel(visible), np.ravel(hidden))

    @classmethod
    def from_rbms(cls, path: Any, update: int | None = None) -> "RBM":
        """The machine that the package rbms saved in an HDF5 file, at a saved update (the last by default)."""
        from thalweg.energy.boltzmann._files import read_rbms

        return cls(*read_rbms(path, update, "BBRBM"))

    def energy(self, v: Any, h: Any) -> Any:
        return -(v @ self.visible_bias) - h @ self.hidden_bias - jnp.sum((v @ self.weights) * h, axis=-1)

    def hidden_field(self, v: Any) -> Any:
        return self.hidden_bias + v @ self.weights

    def visible_field(self, h: Any) -> Any:
        """The field on each visible unit."""
        return self.visible_bias + h @ self.weights.T

    def log_unnormalized(self, v: Any) -> Any:
        return v @ self.visible_bias + jnp.sum(_units.log_sum(self.hidden_field(v), self.units), axis=-1)

    def log_unnormalized_hidden(self, h: Any) -> Any:
        return h @ self.hidden_bias + jnp.sum(_units.log_sum(self.visible_field(h), self.units), axis=-1)

    def visible_mean(self, h: Any) -> Any:
        return _units.mean(self.visible_field(h), self.units)

    def draw_visible(self, h: Any, w: Any) -> Any:
        return _units.draw(self.visible_field(h), w, self.units)

    def visible_noise(self, lead: tuple[int, ...] = ()) -> Uniform:
        return Uniform((*lead, self.visible))

    def derivatives(self, v: Any, weights: Any = None) -> "RBM":
        v, weights = averaging(v, weights)
        return self._averaged(v, self.hidden_mean(v), weights)

    def derivatives_given_hidden(self, h: Any, weights: Any = None) -> "RBM":
        h, weights = averaging(h, weights)
        return self._averaged(self.visible_mean(h), h, weights)

    def _averaged(self, v: Any, h: Any, weights: Any) -> "RBM":
        weighted = weights[:, None] * h
        return RBM(v.T @ weighted, weights @ v, jnp.sum(weighted, axis=0), self.units)

    def interpolate(self, other: "RBM", t: Any) -> "RBM":
        def mixed(name):
            return (1 - t) * getattr(self, name) + t * getattr(other, name)

        return RBM(mixed("weights"), mixed("visible_bias"), mixed("hidden_bias"), self.units)

    def independent(self, data: Any = None) -> "RBM":
        bias = jnp.zeros(self.visible) if data is None else self.bias_of(data)
        return RBM(jnp.zeros_like(self.weights), bias, jnp.zeros(self.hidden), self.units)

    def bias_of(self, data: Any) -> Any:
        """The visible biases of independent units with the means of `data`, one half count added to each value."""
        low, high = self.units
        xp: Any = jnp if is_traced(data) else np  # NumPy has nothing to compile
        data = xp.reshape(xp.asarray(data), (-1, self.visible))
        high_share = (xp.sum((data - low) / (high - low), axis=0) + 0.5) / (len(data) + 1)
        return xp.log(high_share / (1 - high_share)) / (high - low)

    def log_partition_independent(self) -> Any:
        return jnp.sum(_units.log_sum(self.visible_bias, self.units)) + self.hidden * np.log(2)

    def visible_states(self, numbers: Any) -> Any:
        return _units.states(numbers, self.visible, self.units)

    @property
    def visible_count(self) -> int:
        return 2**self.visible

    def check_data(self, data: Any, name: str = "data") -> np.ndarray:
        array = rows(data, self.visible, name)
        low, high = self.units
        if not np.all((array >= low) & (array <= high)):
            where = np.argwhere((array < low) | (array > high))[0]
            raise ValueError(
                f"{name} must lie in [{low}, {high}] for units {self.units}, got {array[tuple(where)]:.6g} in row "
                f"{where[0]}, column {where[1]}: rescale it, or use a GaussianRBM"
            )
        return array
