"""Mixtures of Gaussians of one width: densities whose normalisation, moments and draws are exact."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_number, shown
from thalweg._noise import as_key


class GaussianMixture(eqx.Module):
    """A mixture of Gaussians `sum_k weights_k Normal(means_k, scale^2)`; made by `gaussian_mixture`.

    - `means`: (k, d). - `weights`: (k,), they sum to 1. - `scale`: one standard deviation for all.
    """

    means: Float[Array, "k d"]
    weights: Float[Array, " k"]
    scale: Any

    def log_density(self, x: Any) -> Any:
        """`log p(x)` of one point of shape (d,), or of many in rows."""
        squares = jnp.sum((jnp.asarray(x)[..., None, :] - self.means) ** 2, axis=-1) / (2 * self.scale**2)
        constant = self.means.shape[1] * jnp.log(2 * math.pi * self.scale**2) / 2
        return jax.nn.logsumexp(jnp.log(self.weights) - squares, axis=-1) - constant

    def draw(self, n: int, key: Any = 0) -> np.ndarray:
        """`n` independent draws, shape (n, d)."""
        return np.asarray(_draw(self, n, as_key(key)))

    @property
    def mean(self) -> Any:
        """The mean, shape (d,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Any:
        """The covariance matrix, shape (d, d)."""
        off = self.means - self.mean
        return off.T @ (self.weights[:, None] * off) + self.scale**2 * jnp.eye(self.means.shape[1])


@eqx.filter_jit
def _draw(mixture: GaussianMixture, n: int, key: Any) -> Any:
    for_part, for_place = jax.random.split(key)
    part = jax.random.choice(for_part, len(mixture.weights), (n,), p=mixture.weights)
    return mixture.means[part] + mixture.scale * jax.random.normal(for_place, (n, mixture.means.shape[1]))


def gaussian_mixture(means: Any = None, weights: Any = None, scale: Any = 0.8) -> GaussianMixture:
    """Gaussians of one width at several places; by default four at the corners of a leaning parallelogram.

    The default is a product: `x = (-2, -1) + (4, 0) h1 + (0.5, 3) h2 + 0.8 noise`, with independent `h1 = 1` half of
    the time and `h2 = 1` with probability 0.3. A Gaussian-binary machine with two hidden units has such means; its
    weights are a product only where the two steps are orthogonal, and here they are not.

    **Exact facts**: the density is normalised; mean and covariance in closed form.

    **Arguments**: `means` (k, d), `weights` (k,) that sum to 1 (equal by default), `scale` > 0.

    >>> import numpy as np, thalweg as tw
    >>> mixture = tw.systems.gaussian_mixture()
    >>> np.round(mixture.mean, 3).tolist(), np.round(np.diag(mixture.covariance), 4)
    ([0.15, -0.1], array([4.6925, 2.53  ]))
    """
    check_number(scale, "scale", above=0)
    if means is None:
        if weights is not None:
            raise ValueError("weights must be left out where means are: the default mixture has its own")
        h = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
        means = np.array([-2.0, -1.0]) + h @ np.array([[4.0, 0.0], [0.5, 3.0]])
        weights = 0.5 * np.where(h[:, 1], 0.3, 0.7)
    means = np.asarray(means)
    if means.ndim != 2 or means.dtype.kind not in "iuf" or 0 in means.shape or not np.all(np.isfinite(means)):
        raise ValueError(f"means must be finite numbers of shape (k, d), got {shown(means)}")
    weights = np.full(len(means), 1 / len(means)) if weights is None else np.asarray(weights)
    if weights.shape != (len(means),) or weights.dtype.kind not in "iuf":
        raise ValueError(f"weights must be numbers of shape ({len(means)},), one a Gaussian, got {shown(weights)}")
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or abs(weights.sum() - 1) > 1e-9:
        raise ValueError(f"weights must be >= 0 and sum to 1, got {shown(weights)}")
    return GaussianMixture(jnp.asarray(means, float), jnp.asarray(weights, float), jnp.asarray(scale, float))
