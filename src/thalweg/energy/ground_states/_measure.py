"""Measuring a wavefunction: fresh samples of it, until the error of its energy is small enough."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_number
from thalweg._items import check_resume
from thalweg._loop import Options
from thalweg._process import Run, simulate
from thalweg._results import Estimate, Status
from thalweg._strides import in_strides, more, nothing, spread_run
from thalweg.energy.ground_states._blocks import in_blocks
from thalweg.energy.ground_states._checks import check_count, one_key, real_numbers
from thalweg.energy.ground_states._contact import variance_diverges
from thalweg.energy.ground_states._judge import Measurement, judge
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._monte_carlo import (
    MOST_WALKERS,
    check_wavefunction,
    first_width,
    spread_walkers,
)
from thalweg.energy.ground_states._moves import METHODS, check_method
from thalweg.energy.ground_states._sampling import Walkers, wavefunction_sampler
from thalweg.energy.ground_states._trap import HarmonicTrap, check_trap
from thalweg.energy.ground_states._wavefunction import Wavefunction

STRIDE = 32  # records between two looks at the error
MOST = 4096  # records of every walker, unless told otherwise
MOST_SNAPSHOTS = 64  # of the positions of all walkers
FEWEST = 8  # energies that statistics can say something about


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
    on_stride: Callable[[int, dict[str, float]], Any] | None = None,
    options: Options | None = None,
    resume: bool = False,
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
    - `options`: `tw.Options`: `progress`, `checkpoint` (a folder), `shard` (the walkers over all devices). - `resume`:
      go on from the newest checkpoint in the folder, to equal numbers.

    **Returns** a `Measurement`. **When not to trust it**: as its status says; walkers that never cross between two
    places look well in each.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0, interaction=False)
    >>> found = tw.energy.measure(tw.energy.GaussianState.of(trap, alpha=1.2), trap, key=1, walkers=256)
    >>> abs(float(found.energy) - (1.2 + 1 / 1.2)) < 4 * float(found.energy.error)
    True
    >>> abs(float(found.virial_ratio) - 1.2**2) < 4 * found.virial_ratio.error     # not 1: this width is not the best
    True
    """
    check_trap(trap)
    check_wavefunction(psi, trap, "psi")
    method = check_method(method, psi, METHODS)
    if tol is not None:
        tol = float(check_number(tol, "tol", above=0))
    check_count(most, "most", 2**40, least=STRIDE)
    options = check_options(options, resume)
    first, second, third = jax.random.split(one_key(key), 3)
    if start is None:
        x = spread_walkers(trap, check_count(walkers, "walkers", MOST_WALKERS, least=2), first)
    else:
        x = real_numbers(start, "start", f"numbers of shape (walkers, {trap.coordinates})")
        if x.ndim != 2 or x.shape[1] != trap.coordinates or len(x) < 2:
            raise ValueError(f"start must have shape (walkers, {trap.coordinates}), got {x.shape}")
    process = wavefunction_sampler(psi, method, walkers=len(x), moves=moves)
    s = process.init(x, first_width(trap) if width is None else width)
    record = _Record(psi, trap)
    if method != "exact":
        # the same compiled run lets the walkers find psi^2: what it records is not kept
        how = Options(vectorise=options.vectorise, chunk=STRIDE // 4)
        over = _over if options.shard else None
        begun = spread_run(process, s, STRIDE, second, over, folder=options.checkpoint, record=record, options=how)
        s, status = begun.state, Status(int(begun.status))
        if status != Status.OK:
            return glance(process, s, psi, trap, third, status, {"step": 0, **begun.details})
    process = eqx.tree_at(lambda p: p.step.gain, process, jnp.zeros(()))
    tails = variance_diverges(psi, trap, s.x)

    def visit(done: int, run: Run, kept: _Kept) -> tuple[_Kept, bool]:
        kept = kept.with_run(run)
        found = kept.judged(trap, tails, tol)
        told = [float(found.energy), found.energy.error, found.variance, found.analysis.r_hat]
        kept = kept._replace(told=np.array(told))
        if on_stride is not None and on_stride(done, _scalars(kept)) is False:
            return kept, False
        error = found.energy.error
        hopeless = tol is not None and error > 0 and done * (error / tol) ** 2 > 4 * most
        # chains shorter than their memory have no error bar yet, however small it looks
        reached = (tol is None or error <= tol) and Status.TOO_SHORT not in found.analysis.problems
        return kept, not (reached or hopeless or not np.isfinite(found.variance))

    made = in_strides(
        process,
        s,
        most,
        STRIDE,
        third,
        visit,
        _Kept.nothing(x.shape),
        record=record,
        options=options,
        resume=resume,
        what={"tol": tol, "most": most},
        estimate=lambda kept: in_words(_scalars(kept)),
        endless=True,
        words="records",
        over=_over,
    )
    if not len(made.memory.snapshots):
        return glance(process, made.state, psi, trap, third, made.status, made.details)
    found = made.memory.judged(trap, tails, tol)
    return found if made.status == Status.OK else with_status(found, made.status, made.details)


def glance(
    process: Any, s: Walkers, psi: Wavefunction, trap: HarmonicTrap, key: Any, status: Status, details: dict[str, Any]
) -> Measurement:
    """What the walkers of a run that was cut short say: as few moves and records as give an error bar."""
    records = -(-FEWEST // len(s.x))
    how = Options(vectorise=False, chunk=records)
    run = simulate(process, s, records, key=key, record=_Record(psi, trap, before=True), options=how)
    kept = _Kept.nothing(s.x.shape).with_run(run)
    found = kept.judged(trap, variance_diverges(psi, trap, run.state.x), None, as_one=True)
    return with_status(found, status, details)


def with_status(found: Measurement, status: Status, details: dict[str, Any]) -> Measurement:
    """A measurement that was not brought to its end."""
    energy = Estimate(found.energy.value, found.energy.error, status, {**found.energy.details, **details})
    return dataclasses.replace(found, energy=energy)


def check_options(options: Options | None, resume: bool) -> Options:
    """The options as this room uses them: walkers step as the one array that they are."""
    options = Options() if options is None else options
    check_resume(options, resume)
    return dataclasses.replace(options, vectorise=False)


def _over(state: Walkers, spread: Callable[[Any], Any]) -> Walkers:
    return dataclasses.replace(state, x=spread(state.x))


def in_words(scalars: dict[str, float]) -> str:
    """`E = 20.178 ± 0.002 [variance 0.3, R-hat 1.001]`, for a line that shows how a run is doing."""
    if "r_hat" in scalars:
        quality = f"R-hat {scalars['r_hat']:.3f}"
    else:
        quality = f"acceptance {scalars['acceptance']:.2f}"
    return f"E = {Estimate(scalars['energy'], scalars['error'])} [variance {scalars['variance']:.2g}, {quality}]"


class _Record(eqx.Module):
    """What is kept of a step: the parts of the local energy after it (or before), the weights, the acceptance."""

    psi: Wavefunction
    trap: HarmonicTrap
    before: bool = eqx.field(static=True, default=False)

    def __call__(self, s: Walkers, w: Any, n: Walkers) -> tuple[Any, ...]:
        n = dataclasses.replace(n, x=s.x) if self.before else n
        parts = in_blocks(self.psi, lambda x: tuple(energy_at(self.psi.local_at(x), self.trap, x)), n.x.T)
        return jnp.real(parts[0]), *parts[1:], n.log_weight, n.acceptance


class _Kept(NamedTuple):
    """What is remembered of the records: each by record and walker, some positions, and what was last told."""

    records: tuple[Any, ...]
    snapshots: Any
    told: Any

    @classmethod
    def nothing(cls, shape: tuple[int, int]) -> "_Kept":
        rows = (*(np.empty((1, shape[0])) for _ in range(4)), np.empty(1))
        return cls(nothing(rows), nothing(np.empty((1, *shape))), np.zeros(4))

    def with_run(self, run: Run) -> "_Kept":
        # every second one of the old positions goes when there are too many
        old = self.snapshots[:: 1 + (len(self.snapshots) >= MOST_SNAPSHOTS)]
        return _Kept(more(self.records, run.record), more(old, np.asarray(run.state.x)[None]), self.told)

    def judged(self, trap: HarmonicTrap, diverges: bool, tol: float | None, as_one: bool = False) -> Measurement:
        """`as_one`: as independent energies, where there are few of every walker."""
        records = [np.asarray(one).T for one in self.records]
        kinetic, trapped, pairs, log_weight = (one.reshape(1, -1) if as_one else one for one in records[:4])
        weights = np.exp(log_weight - log_weight.max()) if np.ptp(log_weight) > 0 else None
        samples = np.moveaxis(np.asarray(self.snapshots), 0, 1)
        seen = samples.reshape(1, -1, samples.shape[-1]) if as_one else samples
        found = judge(kinetic, trapped, pairs, seen, trap, diverges, weights, float(records[4].mean()), tol)
        whole = found.energies.reshape(len(samples), -1)
        return dataclasses.replace(found, energies=whole, samples=samples) if as_one else found


def _scalars(kept: _Kept) -> dict[str, float]:
    return dict(zip(("energy", "error", "variance", "r_hat"), map(float, kept.told), strict=True))
