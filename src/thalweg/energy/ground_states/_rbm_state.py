"""The Boltzmann machine as a wavefunction: the square root of a Gaussian-binary RBM."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_number, is_whole, shown
from thalweg.energy.boltzmann._gaussian import GaussianRBM
from thalweg.energy.ground_states._checks import check_count, one_key
from thalweg.energy.ground_states._coordinates import exchanges
from thalweg.energy.ground_states._wavefunction import Local, Wavefunction, column, stacked

MOST_HIDDEN = 4096
MOST_EXCHANGES = 24  # images that a symmetric state averages over


class RBMState(Wavefunction):
    """The square root of the density of a Gaussian-binary Boltzmann machine: `psi = sqrt(p~)`.

    ```
    ln psi = -sum_i (x_i - a_i)^2/(4 s_i^2) + (1/2) sum_j ln(1 + e^theta_j),   theta_j = b_j + sum_i x_i W_ij/s_i^2
    d/dx_i = [-(x_i - a_i) + sum_j W_ij S_j]/(2 s_i^2),                       S_j = 1/(1 + e^-theta_j)
    d^2/dx_i^2 = -1/(2 s_i^2) + sum_j W_ij^2 S_j (1 - S_j)/(2 s_i^4)
    ```

    **Arguments**

    - `machine`: a `tw.energy.GaussianRBM` on the M = particles * dimension coordinates, its units (0, 1).
    - `particles`: how many. - `train_width`: whether `ln s^2` is trained; default True.

    **When not to trust it.** It is positive: right for bosons and for two electrons of opposite spin, and for others as
    a factor. With `1/r` in two dimensions it has no cusp, and the variance of its local energy is infinite.
    It is not symmetric under exchange of particles; `Symmetrised` makes it so.

    Source: lecture notes FYS4411/9411 (2023), with `s^2` dividing the coupling throughout.

    >>> import thalweg as tw
    >>> machine = tw.energy.GaussianRBM([[0.0], [0.0]], [0.0, 0.0], [0.0], 0.0)
    >>> psi = tw.energy.RBMState(machine, particles=1)
    >>> psi.gradient([1.0, 0.0]).tolist(), float(psi.laplacian([1.0, 0.0]))
    ([-0.5, 0.0], -1.0)
    """

    machine: GaussianRBM
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)
    train_width: bool = eqx.field(static=True)

    def __init__(self, machine: GaussianRBM, particles: int, train_width: bool = True):
        if not isinstance(machine, GaussianRBM):
            raise TypeError(f"machine must be a tw.energy.GaussianRBM, got {type(machine).__name__}")
        if tuple(machine.units) != (0, 1):
            raise ValueError(f"machine must have units (0, 1), got {machine.units}")
        if not is_whole(particles) or particles < 1 or machine.visible % particles:
            raise ValueError(
                f"particles must divide the {machine.visible} visible units of the machine, got {shown(particles)}"
            )
        self.machine, self.particles = machine, int(particles)
        self.dimension, self.train_width = machine.visible // int(particles), bool(train_width)

    @classmethod
    def start(cls, trap: Any, hidden: int = 2, sigma: Any = "trained", key: Any = 0, spread: float = 0.3) -> "RBMState":
        """Where training starts well: `s^2 = 1/(2 omega)`, weights Normal with deviation `spread` oscillator lengths.

        `sigma` is a fixed width s, or `"trained"`. At weights of 0 the hidden units do nothing, which is a saddle.
        """
        check_count(hidden, "hidden", MOST_HIDDEN)
        trained = isinstance(sigma, str) and sigma == "trained"
        if isinstance(sigma, str) and not trained:
            raise ValueError(f'sigma must be "trained" or a width > 0, got {shown(sigma)}')
        frequencies = np.asarray(trap.frequencies)
        if trained:
            # one s for all where the trap is the same in all directions
            even = np.all(frequencies == frequencies[0])
            log_variance = -np.log(2 * frequencies[0]) if even else -np.log(2 * np.tile(frequencies, trap.particles))
        else:
            log_variance = 2 * np.log(np.asarray(check_number(sigma, "sigma", above=0)))
        length = np.tile(1 / np.sqrt(frequencies), trap.particles)[:, None]
        w, b = jax.random.normal(one_key(key), (2, trap.coordinates, hidden))
        weights = spread * length * np.asarray(w)
        machine = GaussianRBM(weights, np.zeros(trap.coordinates), spread * np.asarray(b)[0], log_variance)
        return cls(machine, trap.particles, trained)

    @property
    def width(self) -> Any:
        """`s`, one number or one a coordinate."""
        return jnp.exp(self.machine.log_variance / 2)

    def trained(self) -> "RBMState":
        everything = jax.tree.map(eqx.is_inexact_array, self)
        return eqx.tree_at(lambda p: p.machine.log_variance, everything, self.train_width)

    def log_at(self, x: Any) -> Any:
        shift, theta, variance = self._parts(x)
        return -jnp.sum(shift**2 / variance, axis=0) / 4 + jnp.sum(jax.nn.softplus(theta), axis=0) / 2

    def local_at(self, x: Any) -> Local:
        shift, theta, variance = self._parts(x)
        w, active = self.machine.weights, jax.nn.sigmoid(theta)
        log = -jnp.sum(shift**2 / variance, axis=0) / 4 + jnp.sum(jax.nn.softplus(theta), axis=0) / 2
        gradient = (jnp.tensordot(w, active, axes=1) - shift) / (2 * variance)
        curvature = jnp.sum((w / self.machine.variance[:, None]) ** 2, axis=0) / 2
        bend = jnp.tensordot(curvature, active * (1 - active), axes=1)
        return Local(log, gradient, bend - jnp.sum(1 / self.machine.variance) / 2)

    def derivatives_at(self, x: Any) -> Any:
        shift, theta, variance = self._parts(x)
        active = jax.nn.sigmoid(theta)
        by_weight = (x / (2 * variance))[:, None] * active
        parts = [by_weight, shift / (2 * variance), active / 2]
        if self.train_width:
            pull = jnp.tensordot(self.machine.weights, active, axes=1)
            by_width = (shift**2 / 4 - x * pull / 2) / variance
            parts.append(by_width if jnp.ndim(self.machine.log_variance) else jnp.sum(by_width, axis=0, keepdims=True))
        return stacked(parts, x)

    def field_at(self, x: Any) -> Any:
        """`theta_j`, what the hidden units feel, of shape (hidden, ...)."""
        machine = self.machine
        pull = jnp.tensordot((machine.weights / machine.variance[:, None]).T, x, axes=1)
        return pull + column(machine.hidden_bias, x)

    def _parts(self, x: Any) -> tuple[Any, Any, Any]:
        return x - column(self.machine.visible_bias, x), self.field_at(x), column(self.machine.variance, x)


class Symmetrised(Wavefunction):
    """A positive wavefunction made symmetric under exchange: `psi^2 = mean over exchanges P of psi_0(P x)^2`.

    The average is over densities, so that a machine stays a mixture that can be drawn from. The kinetic energy of
    `sqrt(p)` is convex in `p` (it is a Fisher information) and the potential energy is linear, so averaging never
    raises the energy of `sqrt(p)`.

    **Arguments**

    - `state`: the wavefunction. - `spins`: `(up, down)`, or `(N, 0)` for N bosons: who is identical to whom.

    **Raises** `ValueError` for more than 24 exchanges.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 1, 1.0, statistics="bosons")
    >>> psi = tw.energy.Symmetrised(tw.energy.RBMState.start(trap), trap.spins)
    >>> bool(psi.log_psi([0.3, -1.0]) == psi.log_psi([-1.0, 0.3]))
    True
    """

    state: Wavefunction
    orders: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, state: Wavefunction, spins: tuple[int, int]):
        if not isinstance(state, Wavefunction):
            raise TypeError(f"state must be a wavefunction such as tw.energy.RBMState, got {shown(state)}")
        if not isinstance(spins, tuple | list) or len(spins) != 2 or not all(is_whole(n) and n >= 0 for n in spins):
            raise ValueError(f"spins must be two whole numbers (up, down), got {shown(spins)}")
        if sum(spins) != state.particles:
            raise ValueError(f"spins must add up to {state.particles} particles, got {shown(spins)}")
        count = math.prod(math.factorial(n) for n in spins)
        if count > MOST_EXCHANGES:
            raise ValueError(f"spins must allow at most {MOST_EXCHANGES} exchanges, got {count} for {spins}")
        self.state, self.particles, self.dimension = state, state.particles, state.dimension
        self.orders = exchanges((int(spins[0]), int(spins[1])), state.dimension)

    def trained(self) -> "Symmetrised":
        return eqx.tree_at(lambda p: p.state, self, self.state.trained())

    def log_at(self, x: Any) -> Any:
        logs = self.state.log_at(self._images(x))
        return (jax.nn.logsumexp(2 * logs, axis=0) - np.log(len(self.orders))) / 2

    def local_at(self, x: Any) -> Local:
        # ln psi = (1/2) ln mean e^(2 u): weights q = softmax(2 u), grad = <u'>, lap = <u''> + 2 (<u'^2> - <u'>^2)
        log, gradient, laplacian = self.state.local_at(self._images(x))
        q = jax.nn.softmax(2 * log, axis=0)
        back = np.argsort(np.array(self.orders), axis=1)
        each = jnp.stack([gradient[order, g] for g, order in enumerate(back)], axis=1)
        mean = jnp.sum(q * each, axis=1)
        spread = jnp.sum(q * jnp.sum(each**2, axis=0), axis=0) - jnp.sum(mean**2, axis=0)
        total = (jax.nn.logsumexp(2 * log, axis=0) - np.log(len(self.orders))) / 2
        return Local(total, mean, jnp.sum(q * laplacian, axis=0) + 2 * spread)

    def derivatives_at(self, x: Any) -> Any:
        images = self._images(x)
        q = jax.nn.softmax(2 * self.state.log_at(images), axis=0)
        return jnp.sum(q * self.state.derivatives_at(images), axis=1)

    def _images(self, x: Any) -> Any:
        return jnp.stack([x[np.array(order)] for order in self.orders], axis=1)
