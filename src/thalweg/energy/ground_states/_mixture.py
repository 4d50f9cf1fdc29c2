"""The plain Boltzmann machine without noise: its energy in a trap as a sum over a mixture of Gaussians."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg.energy.boltzmann._gaussian import GaussianRBM
from thalweg.energy.ground_states._local_energy import LocalEnergy

MOST_HIDDEN = 12  # the sum runs over 2^hidden Gaussians
NODES = 20  # of the integral over the width of the noise
NARROWEST, WIDEST = 0.17, 4.5  # half of that width: the law has 1e-17 of its weight outside


def why_not(trap: Any, hidden: int, even: bool = True) -> str | None:
    """Why the energy of a plain machine in this trap has no closed form here, or `None` where it has one.

    `even`: whether the machine has one width for all coordinates.
    """
    if trap.potential is not None:
        return "the potential is one of your own"
    if trap.interaction not in (True, False):
        return "the interaction is one of your own"
    if trap.statistics == "fermions" and max(trap.spins) > 1:
        return "electrons of like spin need a wavefunction that changes its sign"
    if hidden > MOST_HIDDEN:
        return f"2^{hidden} Gaussians are too many, at most {MOST_HIDDEN} hidden units"
    if trap.interaction and trap.particles > 1 and trap.dimension == 1:
        return "the mean of 1/r is infinite in one dimension unless the wavefunction vanishes at contact"
    if trap.interaction and trap.particles > 1 and not even:
        return "with 1/r all coordinates must have one width"
    return None


def mixture_parts(machine: GaussianRBM, trap: Any, nodes: int = NODES) -> LocalEnergy:
    """The energy of `psi = sqrt(p)` in a harmonic trap, without any sampling; differentiable.

    `p` is a mixture of 2^hidden Gaussians with weights `q_h`, means `m_h = a + W h` and variances `s_i^2`, so that

    ```
    trap         sum_i (omega_i^2/2) (s_i^2 + sum_h q_h m_hi^2)
    interaction  sum over pairs, with D the distance of their means and k = D^2/(8 s^2):
                 2-D  sum_h q_h sqrt(pi)/(2 s) e^-k I_0(k),   3-D  sum_h q_h erf(D/(2 s))/D
    kinetic      -(1/8) E[lap ln p] = sum_i 1/(8 s_i^2) - (1/8) sum_j c_j E[S_j (1 - S_j)],   c_j = sum_i W_ij^2/s_i^4
    ```

    Given `h` the field `theta_j` is a Gaussian number, so that each expectation in the kinetic part is an integral
    over one variable, see `_mean_slope`: good to 1e-10 with the default `nodes`, to rounding with twice as many.
    """
    w, a, b = machine.weights, machine.visible_bias, machine.hidden_bias
    variance = machine.variance
    h = machine.hidden_states(jnp.arange(machine.hidden_count))
    means = a + h @ w.T
    q = jax.nn.softmax(machine.log_unnormalized_hidden(h))
    frequencies = jnp.tile(trap.frequencies, trap.particles)
    potential = jnp.sum(frequencies**2 * (variance + q @ means**2)) / 2
    scaled = w / variance[:, None]
    width = jnp.sqrt(jnp.sum(w * scaled, axis=0) + 1e-300)
    bumps = _mean_slope(b + means @ scaled, width, nodes)
    kinetic = (jnp.sum(1 / variance) - jnp.sum(scaled**2, axis=0) @ (q @ bumps)) / 8
    if trap.interaction is False or trap.particles == 1:
        return LocalEnergy(kinetic, potential, jnp.zeros(()))
    one, other = np.triu_indices(trap.particles, 1)
    places = means.reshape(-1, trap.particles, trap.dimension)
    square = jnp.sum((places[:, one] - places[:, other]) ** 2, axis=-1)
    mean_inverse = _inverse_in_the_plane if trap.dimension == 2 else _inverse_in_space
    return LocalEnergy(kinetic, potential, q @ jnp.sum(mean_inverse(square, jnp.sqrt(variance[0])), axis=-1))


def _inverse_in_the_plane(square: Any, s: Any) -> Any:
    """`<1/r>` where the separation is Normal(D, 2 s^2) in two dimensions; `square` is `D^2`."""
    return jnp.sqrt(jnp.pi) / (2 * s) * jax.scipy.special.i0e(square / (8 * s**2))


def _inverse_in_space(square: Any, s: Any) -> Any:
    """`<1/r>` in three dimensions: erf(y)/(2 s y) with y = D/(2 s), by its series where y is small."""
    u = square / (4 * s**2)
    small = u < 0.01
    y = jnp.sqrt(jnp.where(small, 1.0, u))
    series = 1 - u / 3 + u**2 / 10 - u**3 / 42 + u**4 / 216 - u**5 / 1320
    return jnp.where(small, 2 / jnp.sqrt(jnp.pi) * series, jax.scipy.special.erf(y) / y) / (2 * s)


def _mean_slope(mean: Any, width: Any, nodes: int) -> Any:
    """`E[S(theta) (1 - S(theta))]` for a Gaussian field.

    The slope of a sigmoid is the density of logistic noise, and that is normal noise of a random width `2 k`, with the
    law of Kolmogorov for k (Andrews and Mallows, J. R. Stat. Soc. B 36, 99 (1974)). Added to the field each of these
    stays normal, of variance `width^2 + 4 k^2`. The trapezoidal rule over `ln k` converges exponentially.
    """
    k, weight = _kolmogorov(nodes)
    variance = width[..., None] ** 2 + 4 * k**2
    normal = jnp.exp(-(mean[..., None] ** 2) / (2 * variance)) / jnp.sqrt(2 * np.pi * variance)
    return normal @ weight


@functools.cache
def _kolmogorov(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for means over the law of Kolmogorov, `P(K < k) = sum_n (-1)^n exp(-2 n^2 k^2)`.

    Its density by this series where k is large, and by its theta transform where k is small.
    """
    k = np.exp(np.linspace(np.log(NARROWEST), np.log(WIDEST), nodes))
    n = np.arange(1, 40)[:, None]
    large = 8 * k * np.sum((-1.0) ** (n + 1) * n**2 * np.exp(-2 * n**2 * k**2), axis=0)
    odd = np.pi * (2 * n - 1) / k
    small = np.sqrt(2 * np.pi) / k**2 * np.sum(np.exp(-(odd**2) / 8) * (odd**2 / 4 - 1), axis=0)
    return k, np.where(k > 0.9, large, small) * k * np.log(k[1] / k[0])
