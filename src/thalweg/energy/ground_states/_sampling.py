"""Sampling the density of a wavefunction at fixed parameters, as a process on many walkers."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from thalweg._edge import check_number, check_truth, shown
from thalweg._process import Process
from thalweg.energy.ground_states._checks import check_count, real_numbers
from thalweg.energy.ground_states._monte_carlo import MOST_MOVES, MOST_WALKERS
from thalweg.energy.ground_states._moves import GOALS, METHODS, check_method, draw, move, move_noise
from thalweg.energy.ground_states._wavefunction import Wavefunction


class Walkers(eqx.Module):
    """The state of a sampler: walkers (walkers, M), `ln` of their weights, the width and the acceptance of moves."""

    x: Any
    log_weight: Any
    width: Any
    acceptance: Any


def wavefunction_sampler(
    psi: Wavefunction, method: str = "auto", *, walkers: int = 1024, moves: int = 1, adapt: bool = True
) -> Process:
    """A sampler of `psi^2`, as a `Process` on many walkers at once.

    **Arguments**

    - `psi`: the wavefunction.
    - `method`: `"metropolis"`: `y = x + width * normal`, taken with probability `min(1, psi(y)^2/psi(x)^2)`;
      `"importance"`: `y = x + (1/2) F dt + sqrt(dt) * normal` along the drift force `F = 2 grad ln psi`, with
      `dt = width^2`;
      `"gibbs"`: hidden units, then coordinates of the Boltzmann machine, taken by what the other factors gain;
      `"exact"`: independent draws from the machine, weighted by the other factors; `"auto"`.
    - `walkers`: how many. - `moves`: of each walker in one step.
    - `adapt`: whether the width is steered to an acceptance of 0.5 (0.6 with the drift force). A width that still
      changes spoils detailed balance: measure with a sampler that does not adapt.

    **Returns** a `Process` with state `Walkers`: `x`, `log_weight` (0 but for `"exact"`), `width`, `acceptance`.
    `process.init(x, width)` makes one from walkers of shape (walkers, M).

    >>> import jax.numpy as jnp, thalweg as tw
    >>> trap = tw.energy.HarmonicTrap(1, 1, 1.0)
    >>> process = tw.energy.wavefunction_sampler(tw.energy.GaussianState.of(trap), "metropolis", walkers=512)
    >>> run = tw.simulate(process, process.init(jnp.zeros((512, 1))), 400, key=0, record=lambda s, w, n: n.x)
    >>> abs(float((run.record[100:] ** 2).mean()) - 0.5) < 0.02
    True
    """
    if not isinstance(psi, Wavefunction):
        raise TypeError(f"psi must be a wavefunction such as tw.energy.RBMState, got {shown(psi)}")
    check_count(walkers, "walkers", MOST_WALKERS), check_count(moves, "moves", MOST_MOVES)
    check_truth(adapt, "adapt")
    method = check_method(method, psi, METHODS)

    step = _Sample(psi, jnp.asarray(0.5 if adapt else 0.0, float), method)  # no weak type: `measure` changes it
    return Process(step, move_noise(psi, method, walkers, moves), _Init(walkers, psi.coordinates), smooth=False)


class _Init(eqx.Module):
    """Makes the state of a sampler. A class, since two of them are equal, and nothing compiles again."""

    walkers: int = eqx.field(static=True)
    coordinates: int = eqx.field(static=True)

    def __call__(self, x: Any, width: Any = 0.5) -> Walkers:
        shape = (self.walkers, self.coordinates)
        x = real_numbers(x, "x", f"numbers of shape {shape}")
        if x.shape != shape:
            raise ValueError(f"x must have shape {shape}, one row a walker, got {x.shape}")
        return Walkers(x, jnp.zeros(self.walkers), check_number(width, "width", above=0), jnp.zeros(()))


class _Sample(eqx.Module):
    psi: Wavefunction
    gain: Any
    method: str = eqx.field(static=True)

    def __call__(self, s: Walkers, w: Any) -> Walkers:
        if self.method == "exact":
            x, log_weight = draw(self.psi, {name: noise[0] for name, noise in w.items()})
            return Walkers(x.T, log_weight, s.width, jnp.ones(()))
        x, acceptance = move(self.psi, s.x.T, s.width, w, self.method)
        goal = GOALS.get(self.method)
        width = s.width if goal is None else s.width * jnp.exp(self.gain * (acceptance - goal))
        return Walkers(x.T, s.log_weight, width, acceptance)
