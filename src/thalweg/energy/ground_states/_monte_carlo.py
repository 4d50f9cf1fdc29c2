"""Variational Monte Carlo: walkers move under psi^2, then the parameters move downhill in energy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_number, check_truth, shown
from thalweg._process import Process
from thalweg.energy.ground_states._ansatz import Ansatz
from thalweg.energy.ground_states._blocks import in_blocks
from thalweg.energy.ground_states._checks import check_count, one_key, real_numbers
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._moves import GOALS, METHODS, check_method, move, move_noise
from thalweg.energy.ground_states._reconfiguration import stochastic_reconfiguration
from thalweg.energy.ground_states._trap import HarmonicTrap, check_trap
from thalweg.energy.ground_states._wavefunction import Wavefunction

MOST_WALKERS, MOST_MOVES = 2**22, 2**16
CLIP = 7.0  # mean absolute deviations beyond which a local energy counts no more in the gradient
LEAST_EFFECTIVE = 0.8  # share of the samples that must still count after a step
MOST_SPREAD = 1.5  # times the deviation of the local energy, after a step
LARGEST_TURN = 0.2  # of psi in one step, as rate sqrt(d.S.d)
WAIT = 10  # steps that the walkers get to find psi^2 before the parameters move


class MonteCarlo(eqx.Module):
    """The state of a variational Monte Carlo run.

    - `psi`: the wavefunction. - `walkers`: their coordinates, shape (walkers, M). - `width`: of a move.
    - `rate`: of a step of the parameters, in inverse energies. - `wait`: steps until the parameters move.
    - `memory`: what an optimizer of optax carries, or None.
    - of the last step: `energy`, its `error`, the `variance` of the local energy, the `acceptance` of moves,
      the effective share of the samples after the step (`effective`), how far psi turned (`turn`).
    """

    psi: Wavefunction
    walkers: Any
    width: Any
    rate: Any
    wait: Any
    memory: Any
    energy: Any
    error: Any
    variance: Any
    acceptance: Any
    effective: Any
    turn: Any


def variational_monte_carlo(
    trap: HarmonicTrap,
    state: Wavefunction,
    *,
    walkers: int = 1024,
    moves: int = 20,
    method: str = "auto",
    optimizer: Any = "reconfiguration",
    relative_shift: float = 1e-3,
    shift: float = 1e-6,
    train: bool = True,
) -> Process:
    """Variational Monte Carlo, as a `Process`: moves of all walkers, then one step of the parameters.

    By stochastic reconfiguration a step is `theta -= rate d` with d of `stochastic_reconfiguration`. No rate has to be
    chosen: the same samples, reweighted by |psi'/psi|^2, tell the energy after the step. Where it fell by three
    quarters or more of what was predicted, the rate grows; by less than four tenths, it shrinks; where it rose, fewer
    than 0.8 of the samples still count, or the local energy spreads 1.5 times as wide, the step is refused. No step
    turns psi by more than 0.2.

    **Arguments**

    - `trap`: the Hamiltonian. - `state`: the wavefunction to begin with.
    - `walkers`: how many. - `moves`: of every walker between two steps of the parameters.
    - `method`: `"metropolis"`; `"importance"`: moves along the drift force; `"gibbs"`: block Gibbs for a
      Boltzmann machine; `"auto"`: Gibbs for a machine without determinants, else importance.
    - `optimizer`: `"reconfiguration"`, or for comparison a learning rate (plain descent along the energy's gradient
      `2 cov(E_L, O)`) or an optax optimizer: these take every step as it comes.
    - `relative_shift`, `shift`: regularisation of S. Without `shift` a parameter that no sample feels, such as the
      weight of a hidden unit that is always off, may leap, and psi grows where no walker has been.
    - `train`: `False` holds the parameters still: the phase of measuring, as the same `Process`.

    **Returns** a `Process` with state `MonteCarlo`; `process.init(key)` makes one, its walkers spread over the cloud;
    `process.init(key, walkers)` starts from walkers of your own. The parameters wait for 10 steps.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0, interaction=False)
    >>> vmc = tw.energy.variational_monte_carlo(trap, tw.energy.GaussianState.of(trap, alpha=1.3), walkers=256, moves=5)
    >>> run = tw.simulate(vmc, vmc.init(0), 60, key=1)
    >>> abs(float(run.state.energy) - 2.0) < 1e-6
    True
    """
    check_trap(trap)
    check_wavefunction(state, trap)
    # at least two walkers, since their spread is the error
    check_count(walkers, "walkers", MOST_WALKERS, least=2), check_count(moves, "moves", MOST_MOVES)
    check_truth(train, "train")
    method = check_method(method, state, METHODS[:3])
    update = _optimizer(optimizer)
    step = _Step(
        trap,
        check_number(relative_shift, "relative_shift", least=0),
        check_number(shift, "shift", least=0),
        method,
        update,
    )

    noise = move_noise(state, method, walkers, moves, probe=update is None)
    return Process(step, noise, _Init(trap, state, walkers, update, WAIT if train else 2**62), smooth=False)


class _Init(eqx.Module):
    """Makes the state of a run. A class, since two of them are equal, and nothing compiles again."""

    trap: HarmonicTrap
    state: Wavefunction
    walkers: int = eqx.field(static=True)
    optimizer: Any = eqx.field(static=True)
    wait: int = eqx.field(static=True)

    def __call__(self, key: Any = 0, start: Any = None) -> MonteCarlo:
        trap, zero = self.trap, jnp.zeros(())
        x = spread_walkers(trap, self.walkers, key) if start is None else _check_walkers(start, self.walkers, trap)
        return MonteCarlo(
            psi=self.state,
            walkers=x,
            width=first_width(trap),
            rate=0.1 / jnp.mean(trap.frequencies),
            wait=jnp.asarray(self.wait),
            memory=None if self.optimizer is None else self.optimizer.init(self.state.parameters),
            energy=zero,
            error=zero,
            variance=zero,
            acceptance=zero,
            effective=zero,
            turn=zero,
        )


class _Step(eqx.Module):
    trap: HarmonicTrap
    relative_shift: Any
    shift: Any
    method: str = eqx.field(static=True)
    optimizer: Any = eqx.field(static=True)

    def __call__(self, s: MonteCarlo, w: Any) -> MonteCarlo:
        moves = {name: noise for name, noise in w.items() if name != "probe"}
        x, acceptance = move(s.psi, s.walkers.T, s.width, moves, self.method)
        log, complex_energies = self._energies(s.psi, x)
        energies = jnp.real(complex_energies)
        counted = (
            clip(energies) + 1j * jnp.imag(complex_energies) if jnp.iscomplexobj(complex_energies) else clip(energies)
        )
        if self.optimizer is None:
            both = lambda x, v: jax.jvp(s.psi.derivatives_at, (x,), (v,))  # noqa: E731
            o, slopes = in_blocks(s.psi, both, x, w["probe"])
            o = o - jnp.mean(o, axis=1, keepdims=True)
            changed = self._reconfigure(s, x, log, energies, counted, o, slopes)
        else:
            o = in_blocks(s.psi, s.psi.derivatives_at, x)
            o = o - jnp.mean(o, axis=1, keepdims=True)
            slope = 2 * jnp.mean(jnp.real(jnp.conj(o) * (counted - jnp.mean(counted))), axis=1)
            step, memory = self.optimizer.update(slope, s.memory, s.psi.parameters)
            moved = s.psi.with_parameters(s.psi.parameters + step)
            along = step @ o
            changed = {
                "psi": _choose(s.wait > 0, s.psi, moved),
                "memory": _choose(s.wait > 0, s.memory, memory),
                "rate": s.rate,
                "effective": jnp.ones(()),
                "turn": jnp.sqrt(jnp.mean(jnp.abs(along) ** 2)),
            }
        goal = GOALS.get(self.method)
        return MonteCarlo(
            **changed,
            walkers=x.T,
            width=s.width if goal is None else s.width * jnp.exp(0.5 * (acceptance - goal)),
            wait=jnp.maximum(s.wait - 1, 0),
            energy=jnp.mean(energies),
            error=jnp.std(energies) / jnp.sqrt(len(energies)),
            variance=jnp.var(energies),
            acceptance=acceptance,
        )

    def _energies(self, psi: Wavefunction, x: Any) -> tuple[Any, Any]:
        """`ln|psi|` and the local energy of all walkers."""

        def of_block(x):
            local = psi.local_at(x)
            return local.log, energy_at(local, self.trap, x).total

        return in_blocks(psi, of_block, x)

    def _reconfigure(
        self, s: MonteCarlo, x: Any, log: Any, energies: Any, counted: Any, o: Any, slopes: Any
    ) -> dict[str, Any]:
        """A step of stochastic reconfiguration, judged by the samples that it was made from."""
        shifts = {"relative_shift": self.relative_shift, "shift": self.shift}
        d = stochastic_reconfiguration(o, counted, slopes=slopes, rate=s.rate, **shifts)
        along = d @ o
        turn = jnp.sqrt(jnp.mean(jnp.abs(along) ** 2))
        rate = jnp.minimum(s.rate, LARGEST_TURN / jnp.maximum(turn, 1e-300))
        new = s.psi.with_parameters(s.psi.parameters - rate * d)
        log_then, then = self._energies(new, x)
        weights = jax.nn.softmax(2 * (log_then - log))
        effective = 1 / jnp.sum(weights**2) / len(weights)
        # Each sample's own change: to first order its mean is noise (H is Hermitian), which is known from its spread.
        change = len(weights) * weights * (jnp.real(then) - jnp.mean(energies))
        change = energies - jnp.mean(energies) - change
        fall, noise = jnp.mean(change), 2 * jnp.std(change) / jnp.sqrt(len(change))
        cost = jnp.mean(jnp.abs(d @ slopes) ** 2) / 2
        predicted = 2 * rate * jnp.mean(jnp.real(jnp.conj(along) * counted)) - rate**2 * cost
        # Near the ground state a step can lose more in the spread of the local energy than the noise of its mean shows.
        spreads = jnp.std(clip(jnp.real(then))) <= MOST_SPREAD * jnp.std(jnp.real(counted))
        good = (effective >= LEAST_EFFECTIVE) & (fall > -noise) & spreads
        waits = s.wait > 0
        shrinks = ~good | (fall + noise < 0.4 * predicted)
        grows = (fall > 0.75 * predicted) & (rate == s.rate)
        factor = jnp.where(waits, 1.0, jnp.where(shrinks, 0.6, jnp.where(grows, 1.25, 1.0)))
        longest = 1 / jnp.min(self.trap.frequencies)
        return {
            "psi": _choose(good & ~waits, new, s.psi),
            "memory": None,
            # a rate that has died of noise could not come back; steps at the least one are still judged
            "rate": jnp.clip(s.rate * factor, longest / 100, longest),
            "effective": effective,
            "turn": turn * rate,
        }


def clip(energies: Any) -> Any:
    """Local energies drawn in to within some mean absolute deviations of their mean, both found without outliers."""
    inside = energies
    for _ in range(4):
        middle = jnp.mean(inside)
        reach = CLIP * jnp.mean(jnp.abs(inside - middle))
        inside = jnp.clip(energies, middle - reach, middle + reach)
    return inside


def _choose(which: Any, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b) if eqx.is_array(a) else a, one, other)


def _optimizer(optimizer: Any) -> Any:
    """None for stochastic reconfiguration, or an optimizer of optax."""
    if isinstance(optimizer, str) and optimizer == "reconfiguration":
        return None
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return optimizer
    if isinstance(optimizer, str) or not isinstance(optimizer, int | float | np.number):
        raise TypeError(
            'optimizer must be "reconfiguration", a learning rate > 0 or an optax optimizer, such as optax.adam(1e-2), '
            f"got {shown(optimizer)}"
        )
    import optax

    return optax.sgd(float(check_number(optimizer, "optimizer", above=0)))


def check_wavefunction(state: Any, trap: HarmonicTrap, name: str = "state") -> None:
    if not isinstance(state, Wavefunction):
        raise TypeError(
            f"{name} must be a wavefunction such as tw.energy.RBMState, got {shown(state)}: wrap a function in "
            "tw.energy.Ansatz"
        )
    if (state.particles, state.dimension) != (trap.particles, trap.dimension):
        raise ValueError(
            f"{name} must be of {trap.particles} particles in {trap.dimension} dimensions, "
            f"got one of {state.particles} in {state.dimension}"
        )


def check_start(state: Wavefunction, walkers: Any) -> None:
    """Refuse a wavefunction of a user's own that is not finite where the walkers start."""
    if isinstance(state, Ansatz):
        logs = np.asarray(eqx.filter_jit(state.log_at)(walkers.T))
        if not np.all(np.isfinite(logs)):
            raise ValueError(
                f"state must give a finite log_psi where the walkers start, got NaN or infinity at "
                f"{np.count_nonzero(~np.isfinite(logs))} of {logs.size}"
            )


def first_width(trap: HarmonicTrap) -> Any:
    """Where the width of a move starts: about right for many coordinates."""
    return 0.8 / jnp.sqrt(jnp.mean(trap.frequencies) * trap.coordinates)


def spread_walkers(trap: HarmonicTrap, walkers: int, key: Any) -> Any:
    """Walkers drawn from a Gaussian about as wide as the cloud, shape (walkers, M)."""
    filled = np.array([n for part in trap.orbitals for n in part])
    width = np.sqrt((filled.mean(axis=0) + 0.5) / np.asarray(trap.frequencies))
    normal = jax.random.normal(one_key(key), (walkers, trap.particles, trap.dimension))
    return (normal * width).reshape(walkers, trap.coordinates)


def _check_walkers(start: Any, walkers: int, trap: HarmonicTrap) -> Any:
    start = real_numbers(start, "start", f"numbers of shape ({walkers}, {trap.coordinates})")
    if start.shape != (walkers, trap.coordinates):
        raise ValueError(f"start must have shape ({walkers}, {trap.coordinates}), one row a walker, got {start.shape}")
    return start
