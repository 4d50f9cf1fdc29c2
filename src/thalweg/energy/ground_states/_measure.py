"""Measuring a wavefunction: fresh samples, the energy in its parts, and whether the error bar can be believed."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg import stats
from thalweg._loop import Options
from thalweg._noise import Normal, Uniform, as_key
from thalweg._process import Process, simulate
from thalweg._results import Estimate
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._monte_carlo import GOAL, move, spread_walkers
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import Wavefunction

FEWEST = 32  # records of every walker
MOST = 4096
MOST_SNAPSHOTS = 64  # of the positions of all walkers


@dataclass(frozen=True)
class Measurement:
    """The energy of a wavefunction from fresh samples, and what the error bar rests on.

    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`, `virial_ratio`: `Estimate`s; the last is
      `2 T/(2 V_trap - V_interaction)` for `1/r`, 1 at every optimum with a free scale.
    - `variance`: of the local energy. - `acceptance`: of moves.
    - `analysis`: of the energies, see `tw.stats.analyse`: autocorrelation time, R-hat, effective sample size.
    - `energies`: local energies, shape (walkers, records).
    - `samples`: positions of all walkers at some of the records, shape (walkers, snapshots, M).
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

    def __str__(self) -> str:
        return f"{self.energy} [variance {self.variance:.2g}, R-hat {self.analysis.r_hat:.3f}]"


class Walkers(eqx.Module):
    """The state of a sampler: walkers of shape (walkers, M), the width of a move, the acceptance of the last step."""

    x: Any
    width: Any
    acceptance: Any


def walk(
    psi: Wavefunction, method: str = "metropolis", *, walkers: int = 1024, moves: int = 5, adapt: bool = True
) -> Process:
    """Sampling of psi^2, as a `Process` with state `Walkers`."""
    laws = {"proposal": Normal((moves, psi.coordinates, walkers)), "accept": Uniform((moves, walkers))}

    def init(x: Any, width: Any = 0.3) -> Walkers:
        return Walkers(jnp.asarray(x, float), jnp.asarray(width, float), jnp.zeros(()))

    return Process(_Walk(psi, jnp.asarray(0.5 if adapt else 0.0), method), laws, init, smooth=False)


class _Walk(eqx.Module):
    psi: Wavefunction
    gain: Any
    method: str = eqx.field(static=True)

    def __call__(self, s: Walkers, w: Any) -> Walkers:
        x, acceptance = move(self.psi, s.x.T, s.width, w, self.method)
        return Walkers(x.T, s.width * jnp.exp(self.gain * (acceptance - GOAL[self.method])), acceptance)


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
    on_stride: Any = None,
) -> Measurement:
    """Measure the energy of a wavefunction."""
    method = "metropolis" if method == "auto" else method
    first, second, third = jax.random.split(as_key(key), 3)
    x = spread_walkers(trap, walkers, first) if start is None else start
    walkers = x.shape[0]
    process = walk(psi, method, walkers=walkers, moves=moves)
    s = process.init(x, 0.5 / np.sqrt(float(jnp.mean(trap.frequencies)) * trap.coordinates) if width is None else width)
    options = Options(vectorise=False)
    record = lambda s, w, n: (*energy_at(psi.local_at(n.x.T), trap, n.x.T), n.acceptance)  # noqa: E731
    # the same compiled run thermalises: what it records is not kept
    s = simulate(process, s, FEWEST, key=second, record=record, options=options).state
    process = eqx.tree_at(lambda p: p.step.gain, process, jnp.zeros(()))
    parts: list[Any] = []
    snapshots: list[np.ndarray] = []
    done = 0
    while True:
        run = simulate(process, s, FEWEST, key=third, start=done, record=record, options=options)
        s, done = run.state, done + FEWEST
        parts.append(run.record)
        snapshots = [*snapshots[:: 1 + (len(snapshots) >= MOST_SNAPSHOTS)], np.asarray(s.x)]
        kinetic, trapped, pairs, accepted = (np.concatenate(p) for p in zip(*parts, strict=True))
        energies = (kinetic + trapped + pairs).T
        found = stats.analyse(energies)
        if on_stride is not None:
            told = {"energy": found.value, "error": found.error, "variance": energies.var(), "r_hat": found.r_hat}
            if on_stride(done, told) is False:
                break
        if tol is None or found.error <= tol or done >= MOST:
            break
    estimates = [stats.mean(part.T) for part in (kinetic, trapped, pairs)]
    virial = _virial(kinetic.T, trapped.T, pairs.T)
    return Measurement(
        found.mean,
        estimates[0],
        estimates[1],
        estimates[2],
        virial,
        float(energies.var()),
        float(accepted.mean()),
        found,
        energies,
        np.stack(snapshots, axis=1),
    )


def _virial(kinetic: np.ndarray, trapped: np.ndarray, pairs: np.ndarray) -> Estimate:
    """`2 T/(2 V_trap - V_pairs)`, its error by the delta method."""
    below = (2 * trapped - pairs).mean()
    ratio = 2 * kinetic.mean() / below
    return Estimate(ratio, stats.mean((2 * kinetic - ratio * (2 * trapped - pairs)) / below).error)
