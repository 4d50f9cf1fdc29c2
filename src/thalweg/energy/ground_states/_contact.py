"""Where two particles meet: does the local energy have a variance at all?"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg.energy.ground_states._backflow import BackflowDeterminants
from thalweg.energy.ground_states._coordinates import CLOSEST
from thalweg.energy.ground_states._jastrow import PadeJastrow
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._rbm_state import RBMState, Symmetrised
from thalweg.energy.ground_states._slater import SlaterDeterminants
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import GaussianState, Product, Wavefunction

SMOOTH = (GaussianState, RBMState, Symmetrised, SlaterDeterminants, BackflowDeterminants)


def variance_diverges(psi: Wavefunction, trap: HarmonicTrap, walkers: Any) -> bool:
    """Whether the variance of the local energy is infinite because of what happens where two particles meet.

    With `psi ~ r^p` and `E_L ~ r^-q` the variance is `int r^(2p - 2q + D - 1) dr` near r = 0: infinite for
    `2q >= 2p + D`. With `1/r` and no cusp q = 1, so that in two dimensions it is infinite where psi(0) > 0, and
    finite for a pair that exchange keeps apart. For the factors of this package p and q are known; for any other
    wavefunction they are measured on `walkers`, shape (walkers, M), by bringing two particles together.
    """
    if trap.interaction is False or trap.particles < 2:
        return False
    factors = psi.factors if isinstance(psi, Product) else (psi,)
    jastrows = [factor for factor in factors if isinstance(factor, PadeJastrow)]
    if trap.interaction is True and all(isinstance(factor, (*SMOOTH, PadeJastrow)) for factor in factors):
        if len(jastrows) == 1 and bool(jnp.any(jastrows[0].cusps != 0)):
            return False
        return trap.dimension <= 2 and _may_meet(trap)
    return _measured(psi, trap, jnp.asarray(walkers)[:64])


def _may_meet(trap: HarmonicTrap) -> bool:
    """Whether there is a pair that exchange does not keep apart."""
    return trap.statistics == "bosons" or min(trap.spins) > 0


def _measured(psi: Wavefunction, trap: HarmonicTrap, walkers: Any) -> bool:
    pairs = [(0, 1)] if trap.spins[0] > 1 else []
    pairs += [(0, trap.spins[0])] if min(trap.spins) > 0 else []
    near, nearer = 1e-2, 1e-4
    for i, j in pairs:
        logs, energies = zip(*(_brought_together(psi, trap, walkers, i, j, r) for r in (near, nearer)), strict=True)
        p = np.median(np.asarray(logs[0] - logs[1])) / np.log(near / nearer)
        q = -np.median(np.log(np.abs(energies[0]) + CLOSEST) - np.log(np.abs(energies[1]) + CLOSEST))
        q = q / np.log(near / nearer)
        if np.isfinite(p) and np.isfinite(q) and q > 0.4 and 2 * q >= 2 * p + trap.dimension - 0.3:
            return True
    return False


@eqx.filter_jit
def _brought_together(psi: Wavefunction, trap: HarmonicTrap, walkers: Any, i: int, j: int, r: Any) -> tuple[Any, Any]:
    """`ln|psi|` and the local energy with particle j at a distance r, in oscillator lengths, from particle i."""
    d = trap.dimension
    x = walkers.T.reshape(trap.particles, d, -1)
    way = jax.random.normal(jax.random.key(0), (d, x.shape[-1]))
    way = way / jnp.linalg.norm(way, axis=0) * r / jnp.sqrt(jnp.mean(trap.frequencies))
    x = x.at[j].set(x[i] + way).reshape(trap.coordinates, -1)
    local = psi.local_at(x)
    return local.log, jnp.real(energy_at(local, trap, x).total)
