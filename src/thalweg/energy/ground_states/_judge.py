"""What samples say of the energy, in its parts, and whether the error bar can be believed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg import stats
from thalweg._results import Estimate, Status
from thalweg.energy.ground_states._known import known_energies
from thalweg.energy.ground_states._trap import HarmonicTrap

ROUNDING = 1e-13  # of a local energy: where it is the same everywhere, no spread tells the error
STUCK = (0.02, 0.98)  # acceptance outside of which a random walk goes nowhere


class Judged:
    """Whatever holds an energy: it can be trusted as far as its energy can."""

    energy: Estimate

    @property
    def ok(self) -> bool:
        """Whether the energy and its error bar can be trusted."""
        return self.energy.ok

    @property
    def message(self) -> str:
        """That in words."""
        return self.energy.message


@dataclass(frozen=True)
class Measurement(Judged):
    """The energy of a wavefunction from samples, and what the error bar rests on.

    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`, `virial_ratio`: `Estimate`s; the last is
      `2 T/(2 V_trap - V_interaction)` for `1/r` in a trap, 1 at every optimum with a free scale. Where it is off by
      more than its error, the state is wider or narrower than the best of its kind: training has not converged. The
      energy is then a sound upper bound, but not the lowest; go on with `ground_state(trap, state=found.state)`.
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

    def __str__(self) -> str:
        return f"{self.energy} [variance {self.variance:.2g}, R-hat {self.analysis.r_hat:.3f}]"


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
    rounding = ROUNDING * abs(found.value)
    error = max(found.error, rounding)
    exact = next((row.value for row in known_energies(trap) if row.method == "exact"), None)
    if exact is not None and found.value < exact - 40 * rounding - 4 * found.error:
        problems.insert(0, Status.BELOW_EXACT)
        details["errors"] = f"{(exact - found.value) / error:.1f}"
        details["exact"] = f"{exact:.10g}"
    if diverges:
        problems.insert(0, Status.NO_CUSP)
    if not finite:
        problems.insert(0, Status.NOT_FINITE)
    if tol is not None and error > tol:
        problems.append(Status.TOO_ROUGH)
        details["error"], details["tol"] = f"{error:.2g}", f"{tol:.2g}"
        details["more"] = f"{(error / tol) ** 2:.1f}"
    energy = Estimate(found.value, error, problems[0] if problems else Status.OK, details)
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
