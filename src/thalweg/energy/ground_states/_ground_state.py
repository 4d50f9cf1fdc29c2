"""The ground state of trapped particles: train a wavefunction, freeze it, measure it with fresh samples."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from thalweg._edge import check_number, is_whole
from thalweg._loop import Options
from thalweg._results import Status
from thalweg.energy.ground_states._build import build_state, default_tolerance, wants_jastrow
from thalweg.energy.ground_states._checks import check_count, one_key
from thalweg.energy.ground_states._judge import Judged, Measurement
from thalweg.energy.ground_states._measure import check_options, glance, measure
from thalweg.energy.ground_states._mixture import why_not
from thalweg.energy.ground_states._monte_carlo import (
    MonteCarlo,
    check_start,
    check_wavefunction,
    variational_monte_carlo,
)
from thalweg.energy.ground_states._noise_free import ClosedForm, noise_free_ground_state
from thalweg.energy.ground_states._sampling import wavefunction_sampler
from thalweg.energy.ground_states._train import train
from thalweg.energy.ground_states._trap import HarmonicTrap, check_trap
from thalweg.energy.ground_states._wavefunction import Wavefunction

FEW_HIDDEN = 8  # up to which the sum over 2^hidden Gaussians takes seconds


def _measured(name: str, what: str) -> Any:
    return property(lambda self: getattr(self.measurement, name), doc=what)


@dataclass(frozen=True)
class GroundState(Judged):
    """What `ground_state` found.

    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`, `virial_ratio`: `Estimate`s from fresh samples of the
      frozen state; `ok` and `message` say whether the energy can be trusted.
    - `state`: the trained `Wavefunction`. - `trap`: the Hamiltonian.
    - `measurement`: everything measured, what the above are read from: variance, acceptance, autocorrelation time,
      R-hat, samples. For a plain Boltzmann machine whose energy has a closed form: that, a `ClosedForm`, without
      samples or noise.
    - `history`: of training, by step: "energy", "error", "variance", "acceptance", "rate".
    - `training`: the last state of the run, to go on from.
    """

    state: Wavefunction
    trap: HarmonicTrap
    measurement: Measurement | ClosedForm
    history: dict[str, Float[np.ndarray, " steps"]]
    training: MonteCarlo | None

    energy = _measured("energy", "The ground-state energy, an `Estimate`.")
    kinetic = _measured("kinetic", "Its kinetic part.")
    trap_energy = _measured("trap_energy", "Its part in the trap.")
    interaction_energy = _measured("interaction_energy", "Its part between the particles.")
    virial_ratio = _measured("virial_ratio", "`2 T/(2 V_trap - V_interaction)`, 1 at every optimum with a free scale.")

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
    on_stride: Callable[[int, dict[str, float]], Any] | None = None,
    options: Options | None = None,
    resume: bool = False,
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
    - `options`: `tw.Options`: `progress`; `checkpoint`, a folder, in which Ctrl-C and SIGTERM leave what was done;
      `shard`, the walkers over all devices, also of several processes (`tw.connect`). - `resume`: go on from what is in
      the folder, to equal numbers.

    A plain Boltzmann machine whose energy has a closed form is minimised without sampling (`noise_free_ground_state`),
    unless `steps` or a `method` of sampling is given.

    **Returns** a `GroundState`. A run that was interrupted or that diverged says so in its status; its energy is then
    that of the walkers where they were left, its state the last one that was finite.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap((2, 1), 2, 1.0, interaction=False)
    >>> found = tw.energy.ground_state(trap, hidden=0, walkers=64)
    >>> abs(float(found.energy) - 4.0) < 1e-8
    True
    """
    check_trap(trap)
    options = check_options(options, resume)
    tol = default_tolerance(trap) if tol is None else float(check_number(tol, "tol", above=0))
    if steps is not None:
        check_count(steps, "steps", 2**40, least=0)
    first, second, third = jax.random.split(one_key(key), 3)
    if state is None and method == "auto" and steps is None and not symmetric:
        found = _without_noise(trap, hidden, jastrow, sigma, first)
        if found is not None:
            return GroundState(found.state, trap, found, {}, None)
    if state is None:
        state = build_state(trap, hidden, jastrow, sigma, symmetric, first, backflow)
    else:
        check_wavefunction(state, trap)
    process = variational_monte_carlo(trap, state, walkers=walkers, moves=moves, method=method)
    start = process.init(second)
    check_start(state, start.walkers)
    run = train(process, start, second, tol, steps, on_stride, _phase(options, "training"), resume)
    if run.status != Status.OK:
        sampler = wavefunction_sampler(run.last.psi, method, walkers=walkers, moves=moves)
        left = sampler.init(run.last.walkers, run.last.width)
        seen = glance(sampler, left, run.last.psi, trap, third, run.status, run.details)
        return GroundState(run.last.psi, trap, seen, run.history, run.last)
    measured = measure(
        run.state.psi,
        trap,
        key=third,
        tol=tol,
        method=method,
        walkers=walkers,
        start=run.state.walkers,
        width=run.state.width,
        on_stride=on_stride,
        options=_phase(options, "measuring"),
        resume=resume,
    )
    return GroundState(run.state.psi, trap, measured, run.history, run.state)


def _phase(options: Options, name: str) -> Options:
    """The options of one of the two runs that a ground state is made of: each has a folder of its own."""
    if options.checkpoint is None:
        return options
    return dataclasses.replace(options, checkpoint=Path(str(options.checkpoint)) / name)


def _without_noise(trap: HarmonicTrap, hidden: Any, jastrow: Any, sigma: Any, key: Any) -> ClosedForm | None:
    """The plain Boltzmann machine by its closed form, where there is one."""
    plain = jastrow is False or (jastrow == "auto" and not wants_jastrow(trap))
    if not plain or not is_whole(hidden) or not 1 <= hidden <= FEW_HIDDEN:
        return None
    even = not isinstance(sigma, str) or bool(np.ptp(np.asarray(trap.frequencies)) == 0)
    return None if why_not(trap, hidden, even) else noise_free_ground_state(trap, hidden, sigma=sigma, key=key)
