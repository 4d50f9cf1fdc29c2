"""The ground state of trapped particles: train a wavefunction, freeze it, measure it with fresh samples."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import check_number, check_truth, is_whole, shown
from thalweg._process import simulate
from thalweg._results import Estimate
from thalweg.energy.ground_states._backflow import BackflowDeterminants
from thalweg.energy.ground_states._checks import check_count, one_key
from thalweg.energy.ground_states._jastrow import PadeJastrow
from thalweg.energy.ground_states._measure import Measurement, measure
from thalweg.energy.ground_states._mixture import why_not
from thalweg.energy.ground_states._monte_carlo import (
    MonteCarlo,
    check_start,
    check_trap,
    check_wavefunction,
    variational_monte_carlo,
)
from thalweg.energy.ground_states._noise_free import ClosedForm, noise_free_ground_state
from thalweg.energy.ground_states._rbm_state import MOST_EXCHANGES, MOST_HIDDEN, RBMState, Symmetrised
from thalweg.energy.ground_states._slater import SlaterDeterminants
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import GaussianState, Product, Wavefunction

MOST_SHIFTED = 12  # particles up to which backflow is worth its cost by default
FEW_HIDDEN = 8  # up to which the sum over 2^hidden Gaussians takes seconds
SEEN = ("energy", "error", "variance", "acceptance", "rate")
STRIDE = 20  # steps between two looks at the energy


@dataclass(frozen=True)
class GroundState:
    """What `ground_state` found.

    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`: `Estimate`s from fresh samples of the frozen state.
    - `state`: the trained `Wavefunction`. - `trap`: the Hamiltonian.
    - `measurement`: everything measured: variance, virial ratio, acceptance, autocorrelation time, R-hat, samples.
      For a plain Boltzmann machine whose energy has a closed form: that, a `ClosedForm`, without samples or noise.
    - `history`: of training, by step: "energy", "error", "variance", "acceptance", "rate".
    - `training`: the last state of the run, to go on from.
    """

    energy: Estimate
    state: Wavefunction
    trap: HarmonicTrap
    measurement: Measurement | ClosedForm
    history: dict[str, Float[np.ndarray, " steps"]]
    training: MonteCarlo | None

    @property
    def kinetic(self) -> Estimate:
        return self.measurement.kinetic

    @property
    def trap_energy(self) -> Estimate:
        return self.measurement.trap_energy

    @property
    def interaction_energy(self) -> Estimate:
        return self.measurement.interaction_energy

    @property
    def virial_ratio(self) -> Estimate:
        return self.measurement.virial_ratio

    @property
    def ok(self) -> bool:
        return self.energy.ok

    @property
    def message(self) -> str:
        return self.energy.message

    def measure(self, *, key: Any, tol: float | None = None, **settings: Any) -> Measurement:
        """Fresh samples of the trained state: a new `Measurement`; arguments as those of `tw.energy.measure`."""
        return measure(self.state, self.trap, key=key, tol=tol, **settings)

    def to_xarray(self) -> Any:
        """Everything found as an `xarray.Dataset`: numbers, training by step, densities, the blocking curve."""
        from thalweg.energy.ground_states._labelled import labelled

        return labelled(self)

    def __str__(self) -> str:
        return f"E = {self.measurement}"


def ground_state(
    trap: HarmonicTrap,
    hidden: int = 2,
    jastrow: bool | str = "auto",
    sigma: float | str = "trained",
    tol: float | None = None,
    key: Any = 0,
    *,
    state: Wavefunction | None = None,
    symmetric: bool | None = None,
    backflow: bool | None = None,
    walkers: int = 1024,
    moves: int = 10,
    method: str = "auto",
    steps: int | None = None,
    on_stride: Any = None,
) -> GroundState:
    """The ground-state energy of trapped particles by variational Monte Carlo, with an error bar that can be trusted.

    **Arguments**

    - `trap`: a `HarmonicTrap`.
    - `hidden`: hidden units of the Boltzmann machine that is a factor of the wavefunction; 0 for a Gaussian.
    - `jastrow`: whether there is a `PadeJastrow` factor; `"auto"`: where more than two particles interact,
      or two on a line.
    - `sigma`: the width s of the machine, or `"trained"`.
    - `tol`: the error of the energy that is wanted; default 1e-4 of the energy of the free particles.
    - `key`: random key or seed.
    - `state`: a wavefunction of your own to train, in place of the one described above.
    - `symmetric`: whether the machine is made symmetric under exchange of identical particles; by default where
      there is a Jastrow factor and there are at most 24 exchanges.
    - `backflow`: whether the places in the determinants are shifted by where the others are
      (`BackflowDeterminants`); by default where there is a Jastrow factor and there are at most 12 particles.
    - `walkers`, `moves`, `method`: as in `variational_monte_carlo`.
    - `steps`: steps of training; by default until the energy falls no more.
    - `on_stride`: called as `on_stride(step, scalars)` every 20 steps of training, then every 32 records of measuring
      (whose scalars hold "r_hat"); `False` stops what it is called from.

    A plain Boltzmann machine whose energy has a closed form is minimised without sampling (`noise_free_ground_state`),
    unless `steps` or a `method` of sampling is given.

    **Returns** a `GroundState`.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap((2, 1), 2, 1.0, interaction=False)
    >>> found = tw.energy.ground_state(trap, hidden=0, walkers=64)
    >>> abs(float(found.energy) - 4.0) < 1e-8
    True
    """
    check_trap(trap)
    tol = default_tolerance(trap) if tol is None else float(check_number(tol, "tol", above=0))
    if steps is not None:
        check_count(steps, "steps", 2**40, least=0)
    first, second, third = jax.random.split(one_key(key), 3)
    if state is None and method == "auto" and steps is None and not symmetric:
        found = _without_noise(trap, hidden, jastrow, sigma, first)
        if found is not None:
            return GroundState(found.energy, found.state, trap, found, {}, None)
    if state is None:
        state = build_state(trap, hidden, jastrow, sigma, symmetric, first, backflow)
    else:
        check_wavefunction(state, trap)
    process = variational_monte_carlo(trap, state, walkers=walkers, moves=moves, method=method)
    start = process.init(second)
    check_start(state, start.walkers)
    training, history = _train(process, start, second, tol, steps, on_stride)
    measured = measure(
        training.psi,
        trap,
        key=third,
        tol=tol,
        method=method,
        walkers=walkers,
        start=training.walkers,
        width=training.width,
        on_stride=on_stride,
    )
    return GroundState(measured.energy, training.psi, trap, measured, history, training)


def _without_noise(trap: HarmonicTrap, hidden: Any, jastrow: Any, sigma: Any, key: Any) -> ClosedForm | None:
    """The plain Boltzmann machine by its closed form, where there is one."""
    plain = jastrow is False or (jastrow == "auto" and not _wants_jastrow(trap))
    if not plain or not is_whole(hidden) or not 1 <= hidden <= FEW_HIDDEN:
        return None
    even = not isinstance(sigma, str) or bool(np.ptp(np.asarray(trap.frequencies)) == 0)
    return None if why_not(trap, hidden, even) else noise_free_ground_state(trap, hidden, sigma=sigma, key=key)


def _wants_jastrow(trap: HarmonicTrap) -> bool:
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
        jastrow = _wants_jastrow(trap)
    check_truth(jastrow, "jastrow")
    check_count(hidden, "hidden", MOST_HIDDEN, least=0)
    factors: list[Wavefunction] = []
    if hidden:
        machine = RBMState.start(trap, hidden, sigma, key)
        exchanges = math.prod(math.factorial(n) for n in trap.spins)
        symmetric = (jastrow is True and exchanges <= MOST_EXCHANGES) if symmetric is None else symmetric
        check_truth(symmetric, "symmetric")
        factors.append(Symmetrised(machine, trap.spins) if symmetric and exchanges > 1 else machine)
    else:
        alpha = 1.0 if isinstance(sigma, str) else 1 / (2 * float(sigma) ** 2 * float(jnp.mean(trap.frequencies)))
        factors.append(GaussianState.of(trap, alpha))
    if any(any(numbers) for part in trap.orbitals for numbers in part):
        by_default = bool(jastrow) and 2 < trap.particles <= MOST_SHIFTED
        backflow = by_default if backflow is None else backflow
        check_truth(backflow, "backflow")
        factors.append((BackflowDeterminants if backflow else SlaterDeterminants).of(trap))
    elif backflow:
        raise ValueError("backflow must be False or None where every particle is in the lowest orbital, got True")
    if jastrow:
        factors.append(PadeJastrow.of(trap))
    return factors[0] if len(factors) == 1 else Product(*factors)


def _seen(s: MonteCarlo, w: Any, n: MonteCarlo) -> tuple[Any, Any]:
    """What is recorded of a step of training."""
    return tuple(getattr(n, name) for name in SEEN), n.psi.parameters


def _train(process: Any, training: MonteCarlo, key: Any, tol: float, steps: int | None, on_stride: Any) -> Any:
    """Strides of training until the energy falls no more; the parameters averaged over the last third."""
    most = 600 if steps is None else steps
    kept: dict[str, list] = {name: [] for name in SEEN}
    parameters: list[np.ndarray] = []
    done = 0
    while done < most:
        count = min(STRIDE, most - done)
        run = simulate(process, training, count, key=key, start=done, record=_seen)
        training, done = run.state, done + count
        scalars, vectors = run.record
        for name, values in zip(kept, scalars, strict=True):
            kept[name].extend(np.asarray(values))
        parameters.extend(np.asarray(vectors))
        told = {name: float(np.mean(values[-count:])) for name, values in kept.items()}
        if on_stride is not None and on_stride(done, told) is False:
            break
        if steps is None and _settled(np.array(kept["energy"]), np.array(kept["error"]), tol):
            break
    if done and parameters[0].size:
        mean = np.mean(parameters[-max(1, done // 3) :], axis=0)
        training = eqx.tree_at(lambda t: t.psi, training, training.psi.with_parameters(jnp.asarray(mean)))
    return training, {name: np.array(values) for name, values in kept.items()}


def _settled(energy: Array, error: Array, tol: float) -> bool:
    """Whether the last third lies no lower than the third before it, as far as can be told or matters."""
    n = len(energy)
    if n < 3 * STRIDE:
        return False
    third = n // 3
    late, earlier = slice(n - third, n), slice(n - 2 * third, n - third)
    noise = np.sqrt(np.mean(error[late] ** 2) / third + np.mean(error[earlier] ** 2) / third)
    return bool(np.mean(energy[earlier]) - np.mean(energy[late]) < max(noise, tol / 2))
