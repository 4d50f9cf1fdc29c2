"""One move of many walkers at once: Metropolis, importance sampling with the drift force, block Gibbs."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from thalweg.energy.ground_states._wavefunction import Wavefunction


class Moved(NamedTuple):
    """Walkers (M, W) with `ln|psi|` there, its gradient where the method needs it, and who has just moved."""

    x: Any
    log: Any
    gradient: Any
    accepted: Any


def metropolis_move(psi: Wavefunction, at: Moved, width: Any, proposal: Any, accept: Any) -> Moved:
    """`y = x + width * proposal`, taken with probability `min(1, psi(y)^2/psi(x)^2)`."""
    y = at.x + width * proposal
    return _choose(at, y, psi.log_at(y), at.gradient, 0.0, accept)


def drift_move(psi: Wavefunction, at: Moved, width: Any, proposal: Any, accept: Any) -> Moved:
    """`y = x + (1/2) F dt + sqrt(dt) * proposal` with `F = 2 grad ln psi`, `dt = width^2`.

    The drift of each particle is tamed, `F_i -> F_i (sqrt(1 + F_i^2 dt/2) - 1) 4/(F_i^2 dt)`, since it is infinite
    on nodes (Umrigar, Nightingale and Runge, J. Chem. Phys. 99, 2865 (1993)); so is it in the Green's function.
    """
    dt = width**2
    push = _push(psi, at.gradient, dt)
    y = at.x + push + width * proposal
    there = psi.local_at(y)
    back = at.x - y - _push(psi, there.gradient, dt)
    # ln G(x|y) - ln G(y|x)
    green = (jnp.sum(proposal**2, axis=0) - jnp.sum(back**2, axis=0) / dt) / 2
    return _choose(at, y, there.log, there.gradient, green, accept)


def _push(psi: Wavefunction, gradient: Any, dt: Any) -> Any:
    """(1/2) F dt with F tamed: of length |grad| dt where that is short, and sqrt(2 dt) at most."""
    v = gradient.reshape(psi.particles, psi.dimension, *gradient.shape[1:])
    square = jnp.sum(v**2, axis=1, keepdims=True) * dt
    # (sqrt(1 + 2 a) - 1)/a without cancellation
    return (2 / (jnp.sqrt(1 + 2 * square) + 1) * v * dt).reshape(gradient.shape)


def _choose(at: Moved, y: Any, log: Any, gradient: Any, extra: Any, accept: Any) -> Moved:
    # a gain that is NaN is refused, since no comparison with it holds
    yes = jnp.log(accept) < 2 * (log - at.log) + extra
    pick = lambda new, old: None if old is None else jnp.where(yes, new, old)  # noqa: E731
    return Moved(pick(y, at.x), pick(log, at.log), pick(gradient, at.gradient), yes)
