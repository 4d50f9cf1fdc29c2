"""The restricted Boltzmann machine with real visible units and hidden units of two values."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._noise import Normal
from thalweg.energy.boltzmann import _units
from thalweg.energy.boltzmann._machine import Machine, averaging, first_weights, parameter, rows


class GaussianRBM(Machine):
    """A Boltzmann machine of real data: given the hidden units, `x ~ Normal(a + W h, s^2)`.

    `E(x, h) = sum_i (x_i - a_i)^2 / (2 s_i^2) - b.h - sum_ij x_i W_ij h_j / s_i^2`. Its marginal is a mixture
    of 2^hidden Gaussians with means `a + W h` and one covariance `diag(s^2)`.

    **Arguments**

    - `weights`: `W`, shape (visible, hidden). - `visible_bias`: `a`, shape (visible,), in units of the data.
    - `hidden_bias`: `b`, shape (hidden,).
    - `log_variance`: `ln s^2`, one number or shape (visible,).
    - `units`: the two values of a hidden unit, `(0, 1)` or `(-1, 1)`.

    **Raises** `ValueError` for shapes that do not fit together and numbers that are not finite.

    **When not to trust it.** As a variance shrinks onto a data point the likelihood grows without bound: `fit`
    bounds it below.

    Source: Welling, Rosen-Zvi and Hinton (2004), in the convention where `s^2` divides the coupling.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.GaussianRBM([[2.0]], [0.0], [0.0], 0.0)
    >>> float(model.visible_mean(np.array([1.0]))[0]), float(model.hidden_mean(np.array([0.0]))[0])
    (2.0, 0.5)
    """

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]
    log_variance: Float[Array, "..."]
    units: _units.Units = eqx.field(static=True)

    def __init__(self, weights: Any, visible_bias: Any, hidden_bias: Any, log_variance: Any = 0.0, units: Any = (0, 1)):
        self.weights = parameter("weights", weights, (None, None), "(visible, hidden)")
        visible, hidden = self.weights.shape
        self.visible_bias = parameter("visible_bias", visible_bias, (visible,), f"({visible},), as weights have rows")
        self.hidden_bias = parameter("hidden_bias", hidden_bias, (hidden,), f"({hidden},), as weights have columns")
        shape = () if np.ndim(log_variance) == 0 else (visible,)
        self.log_variance = parameter("log_variance", log_variance, shape, f"() or ({visible},)")
        self.units = _units.check_units(units)

    @classmethod
    def from_arrays(
        cls, weights: Any, visible_bias: Any, hidden_bias: Any, log_variance: Any = 0.0, units: Any = (0, 1)
    ) -> "GaussianRBM":
        """A machine from arrays of any library; transposed weights (hidden, visible) are recognised by the biases."""
        array, a, b = np.asarray(weights), np.asarray(visible_bias), np.asarray(hidden_bias)
        flipped = array.ndim == 2 and array.shape == (b.size, a.size) and a.size != b.size
        return cls(array.T if flipped else array, a.reshape(-1), b.reshape(-1), log_variance, units)

    @classmethod
    def start(cls, data: Any, hidden: int, key: Any = 0, units: Any = (0, 1)) -> "GaussianRBM":
        """Where training starts well: the means of `data`, a quarter of its variances, weights of 0.3 of its spread.

        A start at the data's own variances is a trap: with them, independent units explain all that uncoupled units
        can see, and weights shrink to 0. The hidden fields are 0 at the means.
        """
        array, weights = first_weights(data, hidden, key)
        spread = array.std(axis=0)
        if not np.all(spread > 0):
            column = int(np.argmin(spread))
            raise ValueError(f"column {column} of data is constant, so that it has no variance to learn: drop it")
        mean, weights = array.mean(axis=0), 30 * spread[:, None] * weights
        log_variance = 2 * np.log(spread) - np.log(4)
        middle = 0.5 * sum(_units.check_units(units))
        return cls(
            weights,
            mean - middle * weights.sum(axis=1),
            -(mean / np.exp(log_variance)) @ weights,
            log_variance,
            units,
        )

    def rescaled(self, shift: Any, scale: Any) -> "GaussianRBM":
        """The machine of `shift + scale x` where this one is of `x`: train on standard data, then bring it back.

        >>> import numpy as np, thalweg as tw
        >>> model = tw.energy.GaussianRBM([[2.0]], [0.0], [0.5], 0.0).rescaled(3.0, 10.0)
        >>> float(model.visible_bias[0]), float(model.weights[0, 0]), float(model.variance[0].round(6))
        (3.0, 20.0, 100.0)
        """
        shift, scale = (jnp.broadcast_to(jnp.asarray(value, float), (self.visible,)) for value in (shift, scale))
        weights, log_variance = scale[:, None] * self.weights, self.log_variance + 2 * jnp.log(jnp.abs(scale))
        # The field b + x W / s^2 must stay what it was, which moves b by what the shift adds to it.
        hidden_bias = self.hidden_bias - shift @ (weights / jnp.exp(log_variance)[:, None])
        return GaussianRBM(weights, shift + scale * self.visible_bias, hidden_bias, log_variance, self.units)

    @property
    def variance(self) -> Any:
        """`s^2`, one entry a visible unit."""
        return jnp.broadcast_to(jnp.exp(self.log_variance), (self.visible,))

    def energy(self, x: Any, h: Any) -> Any:
        pull = jnp.sum((x - self.visible_bias) ** 2 / (2 * self.variance), axis=-1)
        return pull - h @ self.hidden_bias - jnp.sum(((x / self.variance) @ self.weights) * h, axis=-1)

    def hidden_field(self, x: Any) -> Any:
        return self.hidden_bias + (x / self.variance) @ self.weights

    def log_unnormalized(self, x: Any) -> Any:
        pull = jnp.sum((x - self.visible_bias) ** 2 / (2 * self.variance), axis=-1)
        return jnp.sum(_units.log_sum(self.hidden_field(x), self.units), axis=-1) - pull

    def log_unnormalized_hidden(self, h: Any) -> Any:
        # (mean^2 - a^2) / (2 s^2), as a product: no large squares are subtracted from each other
        shift = h @ self.weights.T
        gain = jnp.sum(shift * (2 * self.visible_bias + shift) / (2 * self.variance), axis=-1)
        return h @ self.hidden_bias + gain + jnp.sum(jnp.log(2 * jnp.pi * self.variance)) / 2

    def visible_mean(self, h: Any) -> Any:
        return self.visible_bias + h @ self.weights.T

    def draw_visible(self, h: Any, w: Any) -> Any:
        return self.visible_mean(h) + jnp.sqrt(self.variance) * w

    def visible_noise(self, lead: tuple[int, ...] = ()) -> Normal:
        return Normal((*lead, self.visible))

    def derivatives(self, x: Any, weights: Any = None) -> "GaussianRBM":
        x, weights = averaging(x, weights)
        h = self.hidden_mean(x)
        per_unit = weights @ ((x - self.visible_bias) ** 2 / 2 - x * (h @ self.weights.T))
        return self._averaged(x, h, weights, per_unit)

    def derivatives_given_hidden(self, h: Any, weights: Any = None) -> "GaussianRBM":
        h, weights = averaging(h, weights)
        x, shift = self.visible_mean(h), h @ self.weights.T
        per_unit = weights @ ((shift**2 + self.variance) / 2 - x * shift)
        return self._averaged(x, h, weights, per_unit)

    def _averaged(self, x: Any, h: Any, weights: Any, per_unit: Any) -> "GaussianRBM":
        weighted, variance = weights[:, None] * h, self.variance
        by_log_variance = per_unit / variance
        return GaussianRBM(
            (x.T @ weighted) / variance[:, None],
            (weights @ x - jnp.sum(weights) * self.visible_bias) / variance,
            jnp.sum(weighted, axis=0),
            by_log_variance if jnp.ndim(self.log_variance) else jnp.sum(by_log_variance),
            self.units,
        )

    def interpolate(self, other: "GaussianRBM", t: Any) -> "GaussianRBM":
        # Precisions, and fields divided by variances, are what the energy is linear in.
        precision = (1 - t) / self.variance + t / other.variance
        bias = (1 - t) * self.visible_bias / self.variance + t * other.visible_bias / other.variance
        coupling = (1 - t) * self.weights / self.variance[:, None] + t * other.weights / other.variance[:, None]
        return GaussianRBM(
            coupling / precision[:, None],
            bias / precision,
            (1 - t) * self.hidden_bias + t * other.hidden_bias,
            -jnp.log(precision),
            self.units,
        )

    def independent(self, data: Any = None) -> "GaussianRBM":
        if data is None:
            mean, log_variance = self.visible_bias, jnp.broadcast_to(self.log_variance, (self.visible,))
        else:
            data = jnp.reshape(jnp.asarray(data, dtype=float), (-1, self.visible))
            mean = jnp.mean(data, axis=0)
            # half as wide again as the data, so that the base covers the model's tails
            log_variance = jnp.log(jnp.maximum(2.25 * jnp.var(data, axis=0), self.variance))
        return GaussianRBM(jnp.zeros_like(self.weights), mean, jnp.zeros(self.hidden), log_variance, self.units)

    def log_partition_independent(self) -> Any:
        return jnp.sum(jnp.log(2 * jnp.pi * self.variance)) / 2 + self.hidden * np.log(2)

    def visible_states(self, numbers: Any) -> Any:
        raise ValueError("the visible states of a GaussianRBM are real and cannot be enumerated")

    @property
    def visible_count(self) -> None:
        return None

    def check_data(self, data: Any, name: str = "data") -> np.ndarray:
        return rows(data, self.visible, name)
