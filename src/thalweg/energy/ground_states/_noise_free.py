"""The best plain Boltzmann machine, by deterministic minimisation: no samples, no noise, no error bar to doubt."""

import functools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from thalweg._edge import is_whole, shown
from thalweg._noise import as_key
from thalweg._results import Estimate, Status
from thalweg.energy.ground_states._bfgs import Minimum, bfgs
from thalweg.energy.ground_states._judge import Judged
from thalweg.energy.ground_states._local_energy import LocalEnergy
from thalweg.energy.ground_states._mixture import NODES, mixture_parts, why_not
from thalweg.energy.ground_states._rbm_state import RBMState
from thalweg.energy.ground_states._trap import HarmonicTrap

SPREADS = (0.6, 1.0, 0.3)  # of the first weights, in oscillator lengths, in turn
ROUNDING = 1e-13  # of a sum over many Gaussians
SEARCHED = 1e-7  # how flat the end of a search shall be: its gradient, in units of omega
FLAT = 1e-5  # a gradient that counts as zero where rounding stops the search


def closed_form_energy(state: Any, trap: HarmonicTrap) -> "ClosedForm":
    """The energy of a plain Boltzmann machine in a trap, exactly: the judge of what any program has trained.

    **Arguments**

    - `state`: an `RBMState`, or a `tw.energy.GaussianRBM` whose density is `psi^2`.
    - `trap`: a `HarmonicTrap` of bosons, or of two electrons of opposite spin, with `1/r` or without interaction.

    **Returns** a `ClosedForm`. **Raises** `ValueError` where there is no closed form, with the reason.

    Its formulas are those of a mixture of Gaussians, see `mixture_parts` in this package's source.

    >>> import numpy as np, thalweg as tw
    >>> machine = tw.energy.GaussianRBM(np.zeros((4, 1)), np.zeros(4), [0.0], 0.0)      # s = 1, nothing coupled
    >>> found = tw.energy.closed_form_energy(machine, tw.energy.HarmonicTrap(2, interaction=False))
    >>> found.energy.value, found.kinetic.value, found.trap_energy.value     # not 2: the width is not the best
    (2.5, 0.5, 2.0)
    """
    _check_trap(trap)
    machine = state.machine if isinstance(state, RBMState) else state
    made = RBMState(machine, trap.particles)
    if machine.visible != trap.coordinates:
        raise ValueError(
            f"state must have {trap.coordinates} coordinates ({trap.particles} particles in {trap.dimension}-D), "
            f"got {machine.visible}"
        )
    _refuse(trap, machine.hidden, jnp.ndim(machine.log_variance) == 0)
    return ClosedForm.of(made, trap)


@dataclass(frozen=True)
class ClosedForm(Judged):
    """The energy of a plain Boltzmann machine without noise; energies in hartree.

    - `energy`, `kinetic`, `trap_energy`, `interaction_energy`: `Estimate`s. The error is what is left of the
      integration and of the search for the minimum, usually 1e-12; there is no sampling error. `ok` and `message` say
      whether the energy can be trusted.
    - `state`: the `RBMState`. - `starts`: the energies that the starts of the search ended at, the lowest first.
    - `advice`: what would happen to whoever samples this state; empty where that is harmless.
    """

    energy: Estimate
    kinetic: Estimate
    trap_energy: Estimate
    interaction_energy: Estimate
    state: RBMState
    starts: Float[np.ndarray, " starts"]
    advice: str

    @classmethod
    def of(
        cls,
        state: RBMState,
        trap: Any,
        coarse: float | None = None,
        remains: float = 0.0,
        status: Status = Status.OK,
        starts: Any = (),
        **details: Any,
    ) -> "ClosedForm":
        found = _parts(state.machine, trap, 2 * NODES)
        coarse = float(_parts(state.machine, trap, NODES).total) if coarse is None else coarse
        left = abs(float(found.total) - coarse) + ROUNDING * abs(float(found.total))
        advice = _advice(trap)
        details = {**details, "advice": advice}

        def estimate(name: str) -> Estimate:
            return Estimate(float(getattr(found, name)), left + (remains if name == "total" else 0.0), status, details)

        return cls(
            energy=estimate("total"),
            kinetic=estimate("kinetic"),
            trap_energy=estimate("trap"),
            interaction_energy=estimate("interaction"),
            state=state,
            starts=np.asarray(starts),
            advice=advice,
        )

    @property
    def virial_ratio(self) -> Estimate:
        """`2 kinetic / (2 trap_energy - interaction_energy)`: 1 wherever the width is the best one."""
        below = 2 * self.trap_energy.value - self.interaction_energy.value
        return Estimate(2 * self.kinetic.value / below, 4 * self.energy.error / below, self.energy.status)

    def draw(self, n: int, key: Any = 0) -> Float[np.ndarray, "n m"]:
        """Independent positions under psi^2, shape (n, particles * dimension): first `h`, then `x` given `h`."""
        machine, (first, second) = self.state.machine, jax.random.split(as_key(key))
        states = machine.hidden_states(jnp.arange(machine.hidden_count))
        chosen = jax.random.categorical(first, machine.log_unnormalized_hidden(states), shape=(n,))
        return np.asarray(machine.draw_visible(states[chosen], jax.random.normal(second, (n, machine.visible))))

    def __str__(self) -> str:
        return f"{self.energy} without sampling" + (f" ({self.advice})" if self.advice else "")


def noise_free_ground_state(
    trap: HarmonicTrap,
    hidden: int = 2,
    *,
    sigma: Any = "trained",
    starts: int = 6,
    key: Any = 0,
    iterations: int = 2000,
) -> ClosedForm:
    """The lowest energy of a plain Boltzmann machine `psi = sqrt(p)`, by BFGS on its closed form.

    **Arguments**

    - `trap`: a `HarmonicTrap` of two electrons of opposite spin, or of bosons, with `1/r` or without interaction.
    - `hidden`: hidden units, 1 to 12; the time grows as `2^hidden`.
    - `sigma`: `"trained"` (default), or a fixed width `s`.
    - `starts`: from how many random starts, default 6; the lowest end is kept. - `key`: of the starts.
    - `iterations`: the most that one search may take.

    **Returns** a `ClosedForm`. Its status is `NOT_CONVERGED` where the best search ended elsewhere than at a minimum.

    **Raises** `ValueError` where there is no closed form, with the reason.

    **When not to trust it.** There are local minima from 3 hidden units on; compare `starts`, of which several should
    end at the lowest.

    >>> import thalweg as tw
    >>> found = tw.energy.noise_free_ground_state(tw.energy.HarmonicTrap(2), hidden=2, starts=2)
    >>> round(found.energy.value, 6), round(found.virial_ratio.value, 6)
    (3.060091, 1.0)
    """
    _check_trap(trap)
    for name, value, most in (("starts", starts, 10_000), ("iterations", iterations, 10**6)):
        if not is_whole(value) or not 1 <= value <= most:
            raise ValueError(f"{name} must be a whole number from 1 to {most}, got {shown(value)}")
    if not is_whole(hidden) or hidden < 1:
        raise ValueError(f"hidden must be a whole number of units >= 1, got {shown(hidden)}")
    if np.ndim(sigma):
        raise ValueError(f'sigma must be "trained" or one width > 0, got {shown(sigma)}')
    _refuse(trap, hidden)
    single = as_key(key)
    if single.ndim:
        raise ValueError(f"key must be one key, got {single.shape[0]}")
    keys = jax.random.split(single, starts)
    firsts = [RBMState.start(trap, hidden, sigma, keys[i], SPREADS[i % len(SPREADS)]) for i in range(starts)]
    _refuse(trap, hidden, jnp.ndim(firsts[0].machine.log_variance) == 0)
    moving = _moving(firsts[0])
    firsts = [RBMState(first.machine, trap.particles) for first in firsts]
    scale = _scale(firsts[0], trap)
    unit = float(np.mean(np.asarray(trap.frequencies)))
    ends = [_descend(first, trap, scale, moving, iterations) for first in firsts]
    best = min(ends, key=lambda end: end.value)
    converged = float(np.max(np.abs(best.gradient))) < FLAT
    energies = unit * np.sort([end.value for end in ends])
    return ClosedForm.of(
        RBMState(_with_parameters(firsts[0], best.x * scale).machine, trap.particles, sigma == "trained"),
        trap,
        unit * best.value,
        unit * best.falls,
        Status.OK if converged else Status.NOT_CONVERGED,
        energies,
        iterations=sum(end.iterations for end in ends),
        agreeing=int(np.sum(energies < energies[0] + 1e-6 * unit)),
    )


def _check_trap(trap: Any) -> None:
    if not isinstance(trap, HarmonicTrap):
        raise TypeError(f"trap must be a tw.energy.HarmonicTrap, got {type(trap).__name__}")


def _refuse(trap: Any, hidden: int, even: bool = True) -> None:
    reason = why_not(trap, hidden, even)
    if reason:
        raise ValueError(f"the energy of this state has no closed form: {reason}; use tw.energy.ground_state")


def _advice(trap: Any) -> str:
    if not trap.interaction or trap.particles == 1 or trap.dimension != 2:
        return ""
    return (
        "psi is not 0 where two particles meet, so the local energy grows as 1/r and the variance of the usual "
        "estimator diverges: error bars of samples mean nothing; keep to this closed form, or add a cusp (jastrow=True)"
    )


def _scale(state: RBMState, trap: Any) -> Any:
    """Units of the parameters in which the search goes: lengths are oscillator lengths."""
    length = jnp.tile(1 / jnp.sqrt(trap.frequencies), trap.particles)
    machine = eqx.tree_at(
        lambda m: (m.weights, m.visible_bias, m.hidden_bias, m.log_variance),
        state.machine,
        (
            jnp.broadcast_to(length[:, None], state.machine.weights.shape),
            length,
            jnp.ones(state.machine.hidden),
            jnp.ones_like(state.machine.log_variance),
        ),
    )
    return np.asarray(RBMState(machine, state.particles).parameters)


def _with_parameters(state: RBMState, vector: Any) -> RBMState:
    changed: Any = state.with_parameters(vector)
    return changed


@eqx.filter_jit
def _parts(machine: Any, trap: Any, nodes: int) -> LocalEnergy:
    return mixture_parts(machine, trap, nodes)


def _moving(state: RBMState) -> np.ndarray:
    """Which parameters of a state with a trained width move where it may be fixed; the width is the last of them."""
    count = len(RBMState(state.machine, state.particles).parameters)
    return np.arange(count) < len(state.parameters)


def _descend(first: RBMState, trap: Any, scale: Any, moving: np.ndarray, iterations: int) -> Minimum:
    """Down from a start, in units of the scale and of the mean frequency."""
    leaves, structure = jax.tree.flatten((first, trap))
    arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
    rest = tuple(leaf if array is None else None for leaf, array in zip(leaves, arrays, strict=True))

    def function(u: np.ndarray) -> tuple[float, np.ndarray]:
        found = np.asarray(_value_and_gradient((structure, rest), u, scale, arrays))
        return float(found[0]), found[1:] * moving

    return bfgs(function, np.asarray(first.parameters) / scale, SEARCHED, iterations)


# A call takes tens of microseconds: what does not change must cost nothing, as it would under eqx.filter_jit.
@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradient(static: Any, u: Any, scale: Any, arrays: list[Any]) -> Any:
    """The energy in units of the mean frequency, and its gradient, in one array."""
    structure, rest = static
    leaves = [b if a is None else a for a, b in zip(arrays, rest, strict=True)]
    state, trap = jax.tree.unflatten(structure, leaves)

    def energy(u: Any) -> Any:
        return mixture_parts(_with_parameters(state, u * scale).machine, trap).total / jnp.mean(trap.frequencies)

    value, gradient = jax.value_and_grad(energy)(u)
    return jnp.concatenate([value[None], gradient])
