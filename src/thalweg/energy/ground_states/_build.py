"""The wavefunction that fits a trap, where a user does not bring one."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_one_number, check_truth, shown
from thalweg.energy.ground_states._backflow import BackflowDeterminants
from thalweg.energy.ground_states._checks import check_count
from thalweg.energy.ground_states._jastrow import PadeJastrow
from thalweg.energy.ground_states._rbm_state import MOST_EXCHANGES, MOST_HIDDEN, RBMState, Symmetrised
from thalweg.energy.ground_states._slater import SlaterDeterminants
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import GaussianState, Product, Wavefunction

MOST_SHIFTED = 12  # particles up to which backflow is worth its cost by default


def wants_jastrow(trap: HarmonicTrap) -> bool:
    """More than two particles that interact have one by default, and two on a line, where 1/r demands it."""
    return trap.interaction is not False and (trap.particles > 2 or (trap.particles == 2 and trap.dimension == 1))


def default_tolerance(trap: HarmonicTrap) -> float:
    filled = np.array([n for part in trap.orbitals for n in part])
    energy = ((filled + 0.5) @ np.asarray(trap.frequencies)).mean() * trap.particles
    return 1e-4 * float(energy)


def build_state(
    trap: HarmonicTrap,
    hidden: int,
    jastrow: bool | str,
    sigma: float | str,
    symmetric: bool | None,
    key: Any,
    backflow: bool | None = None,
) -> Wavefunction:
    """The wavefunction that the arguments of `ground_state` describe."""
    if isinstance(jastrow, str) and jastrow != "auto":
        raise ValueError(f'jastrow must be True, False or "auto", got {shown(jastrow)}')
    if isinstance(jastrow, str):
        jastrow = wants_jastrow(trap)
    check_truth(jastrow, "jastrow")
    for value, name in ((symmetric, "symmetric"), (backflow, "backflow")):
        if value is not None:
            check_truth(value, name)
    check_count(hidden, "hidden", MOST_HIDDEN, least=0)
    factors: list[Wavefunction] = []
    if hidden:
        machine = RBMState.start(trap, hidden, sigma, key)
        exchanges = math.prod(math.factorial(n) for n in trap.spins)
        symmetric = (jastrow is True and exchanges <= MOST_EXCHANGES) if symmetric is None else symmetric
        factors.append(Symmetrised(machine, trap.spins) if symmetric and exchanges > 1 else machine)
    else:
        factors.append(GaussianState.of(trap, _stiffness(trap, sigma)))
    if any(any(numbers) for part in trap.orbitals for numbers in part):
        by_default = bool(jastrow) and 2 < trap.particles <= MOST_SHIFTED
        backflow = by_default if backflow is None else backflow
        factors.append((BackflowDeterminants if backflow else SlaterDeterminants).of(trap))
    elif backflow:
        raise ValueError("backflow must be False or None where every particle is in the lowest orbital, got True")
    if jastrow:
        factors.append(PadeJastrow.of(trap))
    return factors[0] if len(factors) == 1 else Product(*factors)


def _stiffness(trap: HarmonicTrap, sigma: float | str) -> float:
    """The alpha at which a Gaussian has the width sigma; it is trained from there."""
    if isinstance(sigma, str):
        if sigma != "trained":
            raise ValueError(f'sigma must be "trained" or a width > 0, got {shown(sigma)}')
        return 1.0
    width = float(check_one_number(sigma, "sigma", above=0))
    return 1 / (2 * width**2 * float(jnp.mean(trap.frequencies)))
