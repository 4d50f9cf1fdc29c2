"""Measuring a wavefunction: fresh samples, the energy in its parts, and whether the error bar can be believed."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg import stats
from thalweg._edge import check_number
from thalweg._loop import Options
from thalweg._process import simulate
from thalweg._results import Estimate, Status
from thalweg.energy.ground_states._blocks import in_blocks
from thalweg.energy.ground_states._checks import check_count, one_key, real_numbers
from thalweg.energy.ground_states._contact import variance_diverges
from thalweg.energy.ground_states._known import known_energies
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._monte_carlo import (
    MOST_WALKERS,
    check_trap,
    check_wavefunction,
    first_width,
    spread_walkers,
)
from thalweg.energy.ground_states._moves import METHODS, check_method
from thalweg.energy.ground_states._sampling import Walkers, wavefunction_sampler
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import Wavefunction

STRIDE = 32  # records between two looks at the error
MOST = 4096  # records of every walker, unless told otherwise
MOST_SNAPSHOTS = 64  # of the positions of all walkers
STUCK = (0.02, 0.98)  # acceptance outside of which a random walk goes nowhere


@dataclass(frozen=True)
class Measurement:
    """The energy of a wavefunction from samples, and what the error bar rests on.

    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`, `virial_ratio`: `Estimate`s; the last is
      `2 T/(2 V_trap - V_interaction)` for `1/r` in a trap, 1 at every optimum with a free scale.
    - `variance`: of the local energy. - `acceptance`: of moves (1 for independent draws; NaN where not known).
    - `analysis`: of the energies, see `tw.stats.analyse`: autocorrelation time, R-hat, effective sample size.
    - `energies`: local energies, shape (walkers, records). - `weights`: of the samples, or None.
    - `samples`: positions of all walkers at some of the records, shape (walkers, snapshots, M).

    The status of `energy` says what is wrong, if anything: `NO_CUSP` (the variance is infinite), `BELOW_EXACT`,
    `STUCK`, those of `tw.stats.analyse`, `TOO_ROUGH` (the wanted error was not reached).
    """

    energy: Estimate
    kinetic: Estimate
    trap_energy: Estimate
    interaction_energy: Estimate
    virial_ratio: Estimate
    variance: float
    acceptance: float
    analysis: stats.Analysis
    energies: Float[np.ndarray, "walkers records"]
    samples: Float[np.ndarray, "walkers snapshots m"]
    weights: Float[np.ndarray, "walkers records"] | None = None

    @property
    def ok(self) -> bool:
        return self.energy.ok

    @property
    def message(self) -> str:
        return self.energy.message

    def __str__(self) -> str:
        return f"{self.energy} [variance {self.variance:.2g}, R-hat {self.analysis.r_hat:.3f}]"


def measure(
    psi: Wavefunction,
    trap: HarmonicTrap,
    *,
    key: Any = 0,
    tol: float | None = None,
    walkers: int = 1024,
    moves: int = 5,
    method: str = "auto",
    start: Any = None,
    width: Any = None,
    most: int = MOST,
    on_stride: Any = None,
) -> Measurement:
    """The energy of a wavefunction from fresh samples, with an error bar that holds.

    All walkers are moved for a while first, the width of a move settling. Then 32 records at a time are made of
    every walker, `moves` moves apart, until the error is below `tol`.

    **Arguments**

    - `psi`: the wavefunction. - `trap`: the Hamiltonian. - `key`: random key or seed.
    - `tol`: the wanted error of the energy; by default only as many records as the memory of the walkers asks for.
    - `most`: records a walker at most; where that clearly cannot do, measuring ends after the first 32.
    - `walkers`, `moves`, `method`: as in `variational_monte_carlo`; `"exact"` draws independent samples from the
      Boltzmann machine in psi and weighs them by the other factors.
    - `start`: walkers to begin with, shape (walkers, M). - `width`: of a move, to begin with.
    - `on_stride`: called as `on_stride(records, scalars)` after every 32 records; `False` stops.

    **Returns** a `Measurement`. **When not to trust it**: as its status says; walkers that never cross between two
    places look well in each.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0, interaction=False)
    >>> found = tw.energy.measure(tw.energy.GaussianState.of(trap, alpha=1.2), trap, key=1, walkers=256)
    >>> abs(float(found.energy) - (1.2 + 1 / 1.2)) < 4 * float(found.energy.error)
    True
    """
    check_trap(trap)
    check_wavefunction(psi, trap, "psi")
    method = check_method(method, psi, METHODS)
    if tol is not None:
        tol = float(check_number(tol, "tol", above=0))
    check_count(most, "most", 2**40, least=STRIDE)
    first, second, third = jax.random.split(one_key(key), 3)
    if start is None:
        x = spread_walkers(trap, check_count(walkers, "walkers", MOST_WALKERS, least=2), first)
    else:
        x = real_numbers(start, "start", f"numbers of shape (walkers, {trap.coordinates})")
        if x.ndim != 2 or x.shape[1] != trap.coordinates or len(x) < 2:
            raise ValueError(f"start must have shape (walkers, {trap.coordinates}), got {x.shape}")
    process = wavefunction_sampler(psi, method, walkers=len(x), moves=moves)
    s = process.init(x, first_width(trap) if width is None else width)
    options, record = Options(vectorise=False), _Record(psi, trap)
    if method != "exact":
        # the same compiled run lets the walkers find psi^2: what it records is not kept
        s = simulate(process, s, STRIDE, key=second, record=record, options=options).state
    process = eqx.tree_at(lambda p: p.step.gain, process, jnp.zeros(()))
    parts: list[Any] = []
    snapshots: list[np.ndarray] = []
    done, tails = 0, variance_diverges(psi, trap, s.x)
    while True:
        run = simulate(process, s, STRIDE, key=third, start=done, record=record, options=options)
        s, done = run.state, done + STRIDE
        parts.append(jax.tree.map(np.asarray, run.record))
        snapshots = [*snapshots[:: 1 + (len(snapshots) >= MOST_SNAPSHOTS)], np.asarray(s.x)]
        found = _found(parts, np.stack(snapshots, axis=1), trap, tails, tol)
        if on_stride is not None:
            told = {
                "energy": float(found.energy),
                "error": float(found.energy.error),
                "variance": found.variance,
                "r_hat": found.analysis.r_hat,
            }
            if on_stride(done, told) is False:
                return found
        error = found.energy.error
        hopeless = tol is not None and error > 0 and done * (error / tol) ** 2 > 4 * most
        # chains shorter than their memory have no error bar yet, however small it looks
        reached = (tol is None or error <= tol) and Status.TOO_SHORT not in found.analysis.problems
        if reached or done >= most or hopeless or not np.isfinite(found.variance):
            return found


class _Record(eqx.Module):
    """What is kept of a step: the parts of the local energy, the weights, the acceptance."""

    psi: Wavefunction
    trap: HarmonicTrap

    def __call__(self, s: Walkers, w: Any, n: Walkers) -> tuple[Any, ...]:
        parts = in_blocks(self.psi, lambda x: tuple(energy_at(self.psi.local_at(x), self.trap, x)), n.x.T)
        return jnp.real(parts[0]), *parts[1:], n.log_weight, n.acceptance


def _found(parts: list[Any], samples: np.ndarray, trap: HarmonicTrap, tails: bool, tol: float | None) -> Measurement:
    kinetic, trapped, pairs, log_weight, accepted = (np.concatenate(p).T for p in zip(*parts, strict=True))
    weights = np.exp(log_weight - log_weight.max()) if np.ptp(log_weight) > 0 else None
    return judge(kinetic, trapped, pairs, samples, trap, tails, weights, float(accepted.mean()), tol)


def judge(
    kinetic: np.ndarray,
    trapped: np.ndarray,
    pairs: np.ndarray,
    samples: np.ndarray,
    trap: HarmonicTrap,
    diverges: bool,
    weights: np.ndarray | None = None,
    acceptance: float = float("nan"),
    tol: float | None = None,
    known: bool = True,
) -> Measurement:
    """A `Measurement` of local energies of shape (walkers, records), with the status that they deserve.

    `known`: whether psi is smooth but for its nodes and contacts. Its variance is then finite unless it `diverges`,
    even if the tails look heavy: near a node `E_L ~ 1/d` has density `d^2`, an infinite fourth moment.
    """
    energies = kinetic + trapped + pairs
    finite = bool(np.all(np.isfinite(energies)))
    found = stats.analyse(energies if finite else np.nan_to_num(energies, posinf=1e150, neginf=-1e150), weights)
    problems = [p for p in found.problems if not (p == Status.HEAVY_TAILS and known) and p != Status.CONSTANT]
    if np.isfinite(acceptance) and not STUCK[0] <= acceptance <= STUCK[1] and acceptance != 1.0:
        problems.insert(0, Status.STUCK)
    details = {**found.mean.details, "acceptance": f"{acceptance:.3g}"}
    rounding = 1e-12 * abs(found.value)
    exact = next((row.value for row in known_energies(trap) if row.method == "exact"), None)
    if exact is not None and found.value < exact - 4 * max(found.error, rounding):
        problems.insert(0, Status.BELOW_EXACT)
        details["errors"] = f"{(exact - found.value) / max(found.error, rounding):.1f}"
        details["exact"] = f"{exact:.10g}"
    if diverges:
        problems.insert(0, Status.NO_CUSP)
    if not finite:
        problems.insert(0, Status.NOT_FINITE)
    if tol is not None and found.error > tol:
        problems.append(Status.TOO_ROUGH)
        details["error"], details["tol"] = f"{found.error:.2g}", f"{tol:.2g}"
        details["more"] = f"{(found.error / tol) ** 2:.1f}"
    energy = Estimate(found.value, found.error, problems[0] if problems else Status.OK, details)
    return Measurement(
        energy=energy,
        kinetic=_part(kinetic, weights, energy.status, diverges),
        trap_energy=_part(trapped, weights, energy.status, False),
        interaction_energy=_part(pairs, weights, energy.status, diverges),
        virial_ratio=_virial(kinetic, trapped, pairs, weights),
        variance=float(np.average((energies - found.value) ** 2, weights=weights)),
        acceptance=acceptance,
        analysis=found,
        energies=energies,
        samples=samples,
        weights=weights,
    )


def _part(values: np.ndarray, weights: Any, status: Any, diverges: bool) -> Estimate:
    """A part of the energy with its error; it shares the troubles of the chain, and of the contact if it feels it."""
    if np.ptp(values) == 0:
        return Estimate(float(values.flat[0]), 0.0)
    mean = stats.mean(values, weights)
    shared = status in (Status.STUCK, Status.NOT_FINITE, Status.CHAINS_DISAGREE, Status.TOO_SHORT)
    bad = Status.NO_CUSP if diverges else status if shared else Status.OK
    return Estimate(mean.value, mean.error, bad, mean.details)


def _virial(kinetic: np.ndarray, trapped: np.ndarray, pairs: np.ndarray, weights: Any) -> Estimate:
    """`2 T/(2 V_trap - V_pairs)`, its error by the delta method."""
    below = np.average(2 * trapped - pairs, weights=weights)
    ratio = 2 * np.average(kinetic, weights=weights) / below
    rest = (2 * kinetic - ratio * (2 * trapped - pairs)) / below
    return Estimate(float(ratio), 0.0 if np.ptp(rest) == 0 else stats.mean(rest, weights).error)
