"""The local energy, and its parts."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from thalweg.energy.ground_states._coordinates import coordinates_first
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import Local, Wavefunction


class LocalEnergy(NamedTuple):
    """`E_L = (H psi)/psi` in its three parts, each of shape (...)."""

    kinetic: Any
    trap: Any
    interaction: Any

    @property
    def total(self) -> Any:
        return self.kinetic + self.trap + self.interaction


def local_energy(psi: Wavefunction, trap: HarmonicTrap, x: Any) -> LocalEnergy:
    """`E_L(x) = -(1/2) sum_i [d_i^2 ln psi + (d_i ln psi)^2] + V(x)`, the sum over all coordinates.

    **Arguments**

    - `psi`: a wavefunction. - `trap`: the Hamiltonian. - `x`: shape (..., M) or (..., particles, dimension).

    **Returns** a `LocalEnergy` with `kinetic`, `trap`, `interaction` and `total`, each of shape (...). Where `psi` is
    an eigenstate the total is the same everywhere.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0, interaction=False)
    >>> float(tw.energy.local_energy(tw.energy.GaussianState.of(trap), trap, [0.3, -1.0, 2.0, 0.1]).total)
    2.0
    """
    return energy_at(psi.local_at(x := coordinates_first(x, trap.particles, trap.dimension)), trap, x)


def energy_at(local: Local, trap: HarmonicTrap, x: Any) -> LocalEnergy:
    """The local energy of derivatives that are already known, coordinates leading."""
    kinetic = -(jnp.sum(local.gradient**2, axis=0) + local.laplacian) / 2
    return LocalEnergy(kinetic, trap.trap_at(x), trap.interaction_at(x))
