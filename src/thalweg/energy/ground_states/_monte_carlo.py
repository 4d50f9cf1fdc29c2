"""Variational Monte Carlo: walkers move under psi^2, then the parameters move downhill in energy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._edge import check_choice, check_number, is_whole, shown
from thalweg._noise import Normal, Uniform, as_key
from thalweg._process import Process
from thalweg.energy.ground_states._local_energy import energy_at
from thalweg.energy.ground_states._moves import Moved, drift_move, metropolis_move
from thalweg.energy.ground_states._reconfiguration import stochastic_reconfiguration
from thalweg.energy.ground_states._trap import HarmonicTrap
from thalweg.energy.ground_states._wavefunction import Wavefunction

CLIP = 8.0  # median absolute deviations beyond which a local energy counts no more in the gradient
LEAST_EFFECTIVE = 0.8  # share of the samples that must still count after a step
LARGEST_TURN = 0.2  # of psi in one step, as sqrt(d.S.d) rate
GOAL = {"metropolis": 0.5, "importance": 0.6}  # acceptance that the width of a move is steered to


class Training(eqx.Module):
    """The state of a variational Monte Carlo run.

    - `psi`: the wavefunction. - `walkers`: their coordinates, shape (walkers, M).
    - `width`: of a move. - `rate`: of a step of the parameters, in inverse energies.
    - `wait`: steps that the walkers still get to find psi^2 before the parameters move.
    - of the last step: `energy`, its `error`, the `variance` of the local energy, the `acceptance` of moves,
      the effective share of the samples after the step (`effective`), how far psi turned (`turn`).
    """

    psi: Wavefunction
    walkers: Any
    width: Any
    rate: Any
    wait: Any
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
    relative_shift: float = 1e-3,
    shift: float = 0.0,
) -> Process:
    """Variational Monte Carlo with stochastic reconfiguration, as a `Process`.

    A step moves every walker `moves` times under psi^2, takes local energies and derivatives there, and steps
    `theta -= rate d` with d of `stochastic_reconfiguration`. No rate has to be chosen: the same samples,
    reweighted by |psi'/psi|^2, tell the energy after the step. Where it fell by three quarters or more of what was
    predicted, the rate grows; by less than four tenths, it shrinks; where it rose, or fewer than 0.8 of the samples
    still count, the step is refused.

    **Arguments**

    - `trap`: the Hamiltonian. - `state`: the wavefunction to begin with.
    - `walkers`: how many. - `moves`: of every walker between two steps of the parameters.
    - `method`: `"metropolis"`, `"importance"` (moves along the drift force), or `"auto"`.
    - `relative_shift`, `shift`: regularisation of S.

    **Returns** a `Process` with state `Training`; `process.init(key)` makes one, its walkers spread over the cloud.
    Measure with the parameters held still: `tw.clamp(process, lambda s: s.psi)`.

    >>> import thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(2, 2, 1.0, interaction=False)
    >>> vmc = tw.energy.variational_monte_carlo(trap, tw.energy.GaussianState.of(trap, alpha=1.3), walkers=256, moves=5)
    >>> run = tw.simulate(vmc, vmc.init(0), 60, key=1)
    >>> abs(float(run.state.energy) - 2.0) < 1e-6
    True
    """
    if not isinstance(trap, HarmonicTrap):
        raise TypeError(f"trap must be a tw.energy.HarmonicTrap, got {type(trap).__name__}")
    check_wavefunction(state, trap)
    for name, value in (("walkers", walkers), ("moves", moves)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {shown(value)}")
    check_choice(method, "method", ("auto", "metropolis", "importance"))
    method = "metropolis" if method == "auto" else method
    step = _Step(
        trap,
        method,
        check_number(relative_shift, "relative_shift", least=0),
        check_number(shift, "shift", least=0),
    )
    laws = {
        "proposal": Normal((moves, trap.coordinates, walkers)),
        "accept": Uniform((moves, walkers)),
    }
    frequency = float(np.asarray(trap.frequencies).mean())

    def init(key: Any = 0, start: Any = None) -> Training:
        zero = jnp.zeros(())
        x = spread_walkers(trap, walkers, key) if start is None else jnp.asarray(start, float)
        return Training(
            state,
            x,
            jnp.asarray(0.5 / np.sqrt(frequency * trap.coordinates)),
            jnp.asarray(0.1 / frequency),
            jnp.asarray(10),
            zero,
            zero,
            zero,
            zero,
            zero,
            zero,
        )

    return Process(step, laws, init, smooth=False)


def check_wavefunction(state: Any, trap: HarmonicTrap) -> None:
    if not isinstance(state, Wavefunction):
        raise TypeError(
            f"state must be a wavefunction such as tw.energy.RBMState, got {type(state).__name__}: wrap a function in "
            "tw.energy.Ansatz"
        )
    if (state.particles, state.dimension) != (trap.particles, trap.dimension):
        raise ValueError(
            f"state must be of {trap.particles} particles in {trap.dimension} dimensions, got one of {state.particles} "
            f"in {state.dimension}"
        )


def spread_walkers(trap: HarmonicTrap, walkers: int, key: Any) -> Any:
    """Walkers drawn from a Gaussian about as wide as the cloud, shape (walkers, M)."""
    filled = np.array([n for part in trap.orbitals for n in part])
    width = np.sqrt((filled.mean(axis=0) + 0.5) / np.asarray(trap.frequencies))
    normal = jax.random.normal(as_key(key), (walkers, trap.particles, trap.dimension))
    return (normal * width).reshape(walkers, trap.coordinates)


class _Step(eqx.Module):
    trap: HarmonicTrap
    method: str = eqx.field(static=True)
    relative_shift: Any
    shift: Any

    def __call__(self, s: Training, w: Any) -> Training:
        psi, trap = s.psi, self.trap
        x, acceptance = move(psi, s.walkers.T, s.width, w, self.method)
        local = psi.local_at(x)
        energies = energy_at(local, trap, x).total
        clipped = clip(energies)
        o = psi.derivatives_at(x)
        d = stochastic_reconfiguration(o, clipped, relative_shift=self.relative_shift, shift=self.shift)

        along = d @ (o - jnp.mean(o, axis=1, keepdims=True))
        turn = jnp.sqrt(jnp.mean(along**2))
        rate = jnp.minimum(s.rate, LARGEST_TURN / jnp.maximum(turn, 1e-300))
        new = psi.with_parameters(psi.parameters - rate * d)
        then = new.local_at(x)
        weights = jax.nn.softmax(2 * (then.log - local.log))
        effective = 1 / jnp.sum(weights**2) / len(weights)
        after, before = jnp.sum(weights * energy_at(then, trap, x).total), jnp.mean(energies)
        predicted = 2 * rate * jnp.mean(along * energies)
        ratio = (before - after) / jnp.maximum(predicted, 1e-300)
        noise = 1e-13 * jnp.abs(before)  # rounding of the two energies
        good = (effective >= LEAST_EFFECTIVE) & ((ratio > 0) | (predicted < noise)) & jnp.isfinite(after)
        waits = s.wait > 0
        take = good & ~waits
        psi = jax.tree.map(lambda a, b: jnp.where(take, a, b) if eqx.is_array(a) else a, new, psi)
        factor = jnp.where(~good | (ratio < 0.4), 0.6, jnp.where((ratio > 0.75) & (rate == s.rate), 1.25, 1.0))
        factor = jnp.where(waits | (predicted < noise) & good, 1.0, factor)
        longest = 2 / jnp.min(trap.frequencies)
        goal = GOAL[self.method]
        return Training(
            psi=psi,
            walkers=x.T,
            width=s.width * jnp.exp(0.5 * (acceptance - goal)),
            rate=jnp.clip(s.rate * factor, longest / 200, longest),
            wait=jnp.maximum(s.wait - 1, 0),
            energy=jnp.mean(energies),
            error=jnp.std(energies) / jnp.sqrt(len(energies)),
            variance=jnp.var(energies),
            acceptance=acceptance,
            effective=effective,
            turn=turn * rate,
        )


def move(psi: Wavefunction, x: Any, width: Any, w: Any, method: str) -> tuple[Any, Any]:
    """All moves of a step: the walkers after them, and the share of moves that were accepted."""
    one = metropolis_move if method == "metropolis" else drift_move
    if method == "metropolis":
        start = Moved(x, psi.log_at(x), None, jnp.zeros(x.shape[1:], bool))
    else:
        local = psi.local_at(x)
        start = Moved(x, local.log, local.gradient, jnp.zeros(x.shape[1:], bool))

    def body(at, w):
        at = one(psi, at, width, w["proposal"], w["accept"])
        return at, jnp.mean(at.accepted, dtype=float)

    at, accepted = lax.scan(body, start, {name: w[name] for name in ("proposal", "accept")})
    return at.x, jnp.mean(accepted)


def clip(energies: Any) -> Any:
    """Local energies drawn in to within some median absolute deviations."""
    middle = jnp.median(energies)
    reach = CLIP * jnp.median(jnp.abs(energies - middle)) + 1e-12 * jnp.abs(middle)
    return jnp.clip(energies, middle - reach, middle + reach)
