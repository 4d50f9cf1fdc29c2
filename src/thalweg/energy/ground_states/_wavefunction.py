"""What every wavefunction can do, and products of them."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from thalweg._edge import check_one_number, shown
from thalweg.energy.ground_states._coordinates import coordinates_first
from thalweg.energy.ground_states._trap import check_trap


class Local(NamedTuple):
    """`ln|psi|`, its gradient (M, ...) and its Laplacian (...), with coordinates leading."""

    log: Any
    gradient: Any
    laplacian: Any


class Wavefunction(eqx.Module):
    """A wavefunction whose parameters are the leaves of this module.

    `log_psi(x)`, `gradient(x)` and `laplacian(x)` are `ln|psi|` and its derivatives by the coordinates;
    `derivatives(x)` are those by the parameters, in the order of `parameters`. Coordinates have shape (..., M), or
    (..., particles, dimension).

    A class of your own gives `particles`, `dimension`, `log_at`, `local_at` and `derivatives_at`, which take
    coordinates of shape (M, ...); or pass a function to `tw.energy.Ansatz`, which differentiates it for you.
    """

    particles: eqx.AbstractVar[int]
    dimension: eqx.AbstractVar[int]

    @abc.abstractmethod
    def log_at(self, x: Float[Array, "m ..."]) -> Float[Array, "..."]:
        """`ln|psi|`."""

    @abc.abstractmethod
    def local_at(self, x: Float[Array, "m ..."]) -> Local:
        """`ln|psi|`, its gradient and its Laplacian."""

    @abc.abstractmethod
    def derivatives_at(self, x: Float[Array, "m ..."]) -> Float[Array, "p ..."]:
        """`d ln|psi|/d theta` for every parameter, in the order of `parameters`."""

    def trained(self) -> "Wavefunction":
        """This module with `True` at every leaf that is trained: all floating arrays, unless a class says otherwise."""
        return jax.tree.map(eqx.is_inexact_array, self)

    @property
    def coordinates(self) -> int:
        return self.particles * self.dimension

    @property
    def parameters(self) -> Float[Array, " p"]:
        """All trained parameters in one vector."""
        return ravel_pytree(eqx.filter(self, self.trained()))[0]

    def with_parameters(self, vector: Any) -> "Wavefunction":
        """The same wavefunction with other parameters."""
        part, rest = eqx.partition(self, self.trained())
        return eqx.combine(ravel_pytree(part)[1](vector), rest)

    def log_psi(self, x: Any) -> Any:
        """`ln|psi(x)|` up to a constant, of shape (...)."""
        return self.log_at(self._first(x))

    def gradient(self, x: Any) -> Any:
        """The gradient of `ln|psi|` by the coordinates, of shape (..., M)."""
        return jnp.moveaxis(self.local_at(self._first(x)).gradient, 0, -1)

    def laplacian(self, x: Any) -> Any:
        """`sum_i d^2 ln|psi|/dx_i^2` over all M coordinates, of shape (...)."""
        return self.local_at(self._first(x)).laplacian

    def derivatives(self, x: Any) -> Any:
        """The gradient of `ln|psi|` by the parameters, of shape (..., parameters)."""
        return jnp.moveaxis(self.derivatives_at(self._first(x)), 0, -1)

    def drift(self, x: Any) -> Any:
        """The drift force `2 grad ln|psi|` of importance sampling, of shape (..., M)."""
        return 2 * self.gradient(x)

    def _first(self, x: Any) -> Any:
        return coordinates_first(x, self.particles, self.dimension)


def stacked(parts: list[Any], x: Any) -> Any:
    """Derivatives by parameter arrays, each of shape (*parameter, ...), as one array of shape (P, ...)."""
    batch = x.shape[1:]
    rows = [jnp.broadcast_to(part, (*part.shape[: part.ndim - len(batch)], *batch)) for part in parts]
    rows = [part.reshape(-1, *batch) for part in rows]
    return jnp.concatenate(rows) if rows else jnp.zeros((0, *batch))


def column(values: Any, x: Any) -> Any:
    """Values by coordinate or parameter, shaped to meet arrays whose leading axes are theirs and whose rest is x's."""
    return jnp.reshape(values, (*jnp.shape(values), *(1,) * (x.ndim - 1)))


class Product(Wavefunction):
    """A product of wavefunctions of the same particles: `psi = psi_1 psi_2 ...`.

    **Arguments**: `factors`, such as a `GaussianState`, `SlaterDeterminants` and a `PadeJastrow`.

    **Raises** `ValueError` where there is no factor, or factors are of different particles.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0)
    >>> psi = tw.energy.Product(tw.energy.GaussianState.of(trap), tw.energy.PadeJastrow.of(trap))
    >>> round(float(psi.log_psi([0.0, 0.0, 1.0, 0.0])), 6)      # -1/2 + 1/(1 + 1)
    0.0
    """

    factors: tuple[Wavefunction, ...]
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, *factors: Wavefunction):
        if not factors or not all(isinstance(factor, Wavefunction) for factor in factors):
            raise TypeError(f"factors must be wavefunctions, at least one, got {shown(factors)}")
        kinds = {(factor.particles, factor.dimension) for factor in factors}
        if len(kinds) > 1:
            raise ValueError(f"factors must be of the same particles, got (particles, dimension) = {sorted(kinds)}")
        self.factors = factors
        ((self.particles, self.dimension),) = kinds

    def trained(self) -> "Product":
        return eqx.tree_at(lambda p: p.factors, self, tuple(factor.trained() for factor in self.factors))

    def log_at(self, x: Any) -> Any:
        return sum(factor.log_at(x) for factor in self.factors)

    def local_at(self, x: Any) -> Local:
        return Local(*(sum(part) for part in zip(*(factor.local_at(x) for factor in self.factors), strict=True)))

    def derivatives_at(self, x: Any) -> Any:
        return jnp.concatenate([factor.derivatives_at(x) for factor in self.factors])


class GaussianState(Wavefunction):
    """The ground state of a trap without interaction, at a width that is trained.

    `ln psi = -(alpha/2) sum_i sum_d omega_d x_id^2`, exact for free bosons at `alpha = 1`. With one `omega` for all
    directions its energy is `M omega (alpha + 1/alpha)/4` and the variance of the local energy is
    `M omega^2 (1 - alpha^2)^2/(8 alpha^2)`.

    **Arguments**

    - `log_alpha`: `ln alpha`. - `frequencies`: `omega_d`, shape (dimension,). - `particles`: how many.

    >>> import thalweg as tw
    >>> psi = tw.energy.GaussianState.of(tw.energy.HarmonicTrap(2, 1, 3.0, interaction=False))
    >>> psi.gradient([1.0, -1.0]).tolist(), float(psi.laplacian([1.0, -1.0]))
    ([-3.0, 3.0], -6.0)
    """

    log_alpha: Float[Array, ""]
    frequencies: Float[Array, " d"]
    particles: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, log_alpha: Any, frequencies: Any, particles: int):
        self.log_alpha = jnp.asarray(log_alpha, float)
        self.frequencies = jnp.atleast_1d(jnp.asarray(frequencies, float))
        self.particles, self.dimension = int(particles), int(self.frequencies.shape[0])

    @classmethod
    def of(cls, trap: Any, alpha: float = 1.0) -> "GaussianState":
        """The state of a `HarmonicTrap`."""
        check_trap(trap)
        return cls(jnp.log(check_one_number(alpha, "alpha", above=0)), trap.frequencies, trap.particles)

    def trained(self) -> "GaussianState":
        return eqx.tree_at(lambda p: (p.log_alpha, p.frequencies), self, (True, False))

    def log_at(self, x: Any) -> Any:
        return -jnp.sum(self._stiffness(x) * x**2, axis=0) / 2

    def local_at(self, x: Any) -> Local:
        gradient = -self._stiffness(x) * x
        laplacian = -jnp.exp(self.log_alpha) * self.particles * jnp.sum(self.frequencies)
        return Local(jnp.sum(gradient * x, axis=0) / 2, gradient, jnp.broadcast_to(laplacian, x.shape[1:]))

    def derivatives_at(self, x: Any) -> Any:
        return self.log_at(x)[None]

    def _stiffness(self, x: Any) -> Any:
        return column(jnp.exp(self.log_alpha) * jnp.tile(self.frequencies, self.particles), x)
