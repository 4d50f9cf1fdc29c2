"""One move of many walkers at once: Metropolis, importance sampling, block Gibbs, independent draws."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._edge import check_choice
from thalweg._noise import Law
from thalweg.energy.ground_states._blocks import in_blocks
from thalweg.energy.ground_states._rbm_state import RBMState, Symmetrised
from thalweg.energy.ground_states._wavefunction import Product, Wavefunction, column

METHODS = ("metropolis", "importance", "gibbs", "exact")
# Acceptance that the width of a move is steered to; moves without a width have none.
GOALS = {"metropolis": 0.5, "importance": 0.6}
MOST_UNITS = 12  # hidden units whose 2^units states are listed for independent draws


class Moved(NamedTuple):
    """Walkers (M, W) with the logarithm and gradient there that the method needs, and who has just moved."""

    x: Any
    log: Any
    gradient: Any
    accepted: Any


class MoveNoise(Law):
    """The noise of all moves of a step, from one draw of random bits: one draw compiles four times faster than four.

    A draw is a dict: `proposal`, standard normal, shape (moves, M, walkers); `accept`, uniform, (moves, walkers);
    `hidden`, uniform, (moves, units, walkers); `probe`, 1 or -1, (M, walkers). Numbers have 32 random bits: normal ones
    end at 6.3 deviations.
    """

    moves: int = eqx.field(static=True)
    coordinates: int = eqx.field(static=True)
    walkers: int = eqx.field(static=True)
    units: int = eqx.field(static=True, default=0)
    probe: bool = eqx.field(static=True, default=False)

    def sample(self, key: Any, i: Any) -> dict[str, Any]:
        m, rows = self.coordinates, 1 + self.coordinates + self.units
        shape = (self.moves * rows + m * self.probe, self.walkers)
        u = (jax.random.bits(jax.random.fold_in(key, i), shape, jnp.uint32).astype(float) + 0.5) * 2.0**-32
        each = u[: self.moves * rows].reshape(self.moves, rows, self.walkers)
        draw = {"accept": each[:, 0], "proposal": np.sqrt(2) * lax.erf_inv(2 * each[:, 1 : m + 1] - 1)}
        if self.units:
            draw["hidden"] = each[:, m + 1 :]
        if self.probe:
            draw["probe"] = jnp.sign(u[self.moves * rows :] - 0.5)
        return draw

    def atoms(self) -> Any:
        raise ValueError("the noise of a sampler cannot be integrated over: its moves jump")


def move_noise(psi: Wavefunction, method: str, walkers: int, moves: int, probe: bool = False) -> MoveNoise:
    """The noise that `moves` moves of all walkers need."""
    units = 0
    if method == "gibbs":
        units = machine_of(psi).machine.machine.hidden + 1
    if method == "exact":
        moves, units = 1, 2
    return MoveNoise(moves, psi.coordinates, walkers, units, probe)


def move(psi: Wavefunction, x: Any, width: Any, w: Any, method: str) -> tuple[Any, Any]:
    """All moves of a step: the walkers (M, W) after them, and the share of moves that were accepted."""
    after = in_blocks(psi, lambda x, w: _moved(psi, x, width, w, method), x, w)
    return after[0], jnp.mean(after[1])


def _moved(psi: Wavefunction, x: Any, width: Any, w: Any, method: str) -> tuple[Any, Any]:
    """The walkers of one block after all moves, and for each the share of them that were accepted."""
    nobody = jnp.zeros(x.shape[1:], bool)
    if method == "metropolis":
        start, one = Moved(x, psi.log_at(x), None, nobody), metropolis_move
    elif method == "importance":
        local = psi.local_at(x)
        start, one = Moved(x, local.log, local.gradient, nobody), drift_move
    else:
        start, one = Moved(x, machine_of(psi).rest_at(x), None, nobody), gibbs_move

    def body(carry, w):
        at, taken = carry
        at = one(psi, at, width, w)
        return (at, taken + at.accepted), None

    (at, taken), _ = lax.scan(body, (start, jnp.zeros(x.shape[1:])), w)
    return at.x, taken / w["accept"].shape[0]


def metropolis_move(psi: Wavefunction, at: Moved, width: Any, w: Any) -> Moved:
    """`y = x + width * proposal`, taken with probability `min(1, psi(y)^2/psi(x)^2)`."""
    y = at.x + width * w["proposal"]
    return _choose(at, y, psi.log_at(y), None, 0.0, w["accept"])


def drift_move(psi: Wavefunction, at: Moved, width: Any, w: Any) -> Moved:
    """`y = x + (1/2) F dt + sqrt(dt) * proposal` with `F = 2 grad ln psi`, `dt = width^2`.

    The drift of each particle is tamed, `F_i -> F_i (sqrt(1 + F_i^2 dt/2) - 1) 4/(F_i^2 dt)`, since it is infinite
    on nodes (Umrigar, Nightingale and Runge, J. Chem. Phys. 99, 2865 (1993)); so is it in the Green's function.
    """
    dt = width**2
    y = at.x + _push(psi, at.gradient, dt) + width * w["proposal"]
    there = psi.local_at(y)
    back = at.x - y - _push(psi, there.gradient, dt)
    # ln G(x|y) - ln G(y|x)
    green = (jnp.sum(w["proposal"] ** 2, axis=0) - jnp.sum(back**2, axis=0) / dt) / 2
    return _choose(at, y, there.log, there.gradient, green, w["accept"])


def _push(psi: Wavefunction, gradient: Any, dt: Any) -> Any:
    """(1/2) F dt with F tamed: |grad| dt long where that is short, and never more than sqrt(2 dt)."""
    v = jnp.real(gradient).reshape(psi.particles, psi.dimension, *gradient.shape[1:])
    square = jnp.sum(v**2, axis=1, keepdims=True) * dt
    # (sqrt(1 + 2 a) - 1)/a without cancellation
    return (2 / (jnp.sqrt(1 + 2 * square) + 1) * v * dt).reshape(gradient.shape)


def gibbs_move(psi: Wavefunction, at: Moved, width: Any, w: Any) -> Moved:
    """Draw the hidden units given x, then y given them: reversible for the machine's density.

    The other factors J of psi are brought in by taking y with probability `min(1, J(y)^2/J(x)^2)`. A symmetrised
    machine is a mixture over exchanges: first one of them is drawn given x, and undone at the end.
    """
    parts = machine_of(psi)
    machine, orders = parts.machine, parts.orders
    x, u = at.x, w["hidden"]
    if orders is not None:
        images = jnp.stack([x[order] for order in orders], axis=1)
        share = jnp.cumsum(jax.nn.softmax(2 * machine.log_at(images), axis=0), axis=0)
        picked = jnp.minimum(jnp.sum(u[-1] > share, axis=0), len(orders) - 1)
        x = jnp.take_along_axis(images, picked[None, None], axis=1)[:, 0]
    theta = machine.field_at(x)
    y = _visible(machine, (u[: theta.shape[0]] < jax.nn.sigmoid(theta)).astype(float), w["proposal"])
    if orders is not None:
        y = jnp.take_along_axis(y, jnp.asarray(np.argsort(orders, axis=1).T)[:, picked], axis=0)
    return _choose(at, y, parts.rest_at(y), None, 0.0, w["accept"])


def draw(psi: Wavefunction, w: Any) -> tuple[Any, Any]:
    """Independent draws from the machine's density, and `ln J^2` of the other factors there: what they weigh."""
    parts = machine_of(psi)
    rbm = parts.machine.machine
    states = jnp.asarray((np.arange(2**rbm.hidden)[:, None] >> np.arange(rbm.hidden)) & 1, float)
    share = jnp.cumsum(jax.nn.softmax(rbm.log_unnormalized_hidden(states)))
    picked = jnp.minimum(jnp.searchsorted(share, w["hidden"][0]), len(states) - 1)
    x = _visible(parts.machine, states[picked].T, w["proposal"])
    if parts.orders is not None:
        order = jnp.asarray(parts.orders)[jnp.floor(w["hidden"][1] * len(parts.orders)).astype(int)]
        x = jnp.take_along_axis(x, order.T, axis=0)
    return x, 2 * parts.rest_at(x)


def _visible(machine: RBMState, hidden: Any, normal: Any) -> Any:
    rbm = machine.machine
    mean = column(rbm.visible_bias, normal) + jnp.tensordot(rbm.weights, hidden, axes=1)
    return mean + column(jnp.sqrt(rbm.variance), normal) * normal


def _choose(at: Moved, y: Any, log: Any, gradient: Any, extra: Any, accept: Any) -> Moved:
    # a gain that is NaN is refused, since no comparison with it holds
    yes = jnp.log(accept) < 2 * (log - at.log) + extra
    pick = lambda new, old: None if old is None else jnp.where(yes, new, old)  # noqa: E731
    return Moved(pick(y, at.x), pick(log, at.log), pick(gradient, at.gradient), yes)


class Machine(NamedTuple):
    """The one Boltzmann machine among the factors of a wavefunction, its exchanges if symmetrised, and the rest."""

    machine: RBMState
    orders: np.ndarray | None
    rest: tuple[Wavefunction, ...]

    def rest_at(self, x: Any) -> Any:
        return sum((factor.log_at(x) for factor in self.rest), jnp.zeros(x.shape[1:]))


def has_machine(psi: Wavefunction) -> bool:
    """Whether exactly one factor is a Boltzmann machine."""
    return sum(map(_is_machine, psi.factors if isinstance(psi, Product) else (psi,))) == 1


def machine_of(psi: Wavefunction) -> Machine:
    """The Boltzmann machine of a wavefunction that has one."""
    factors = psi.factors if isinstance(psi, Product) else (psi,)
    (found,) = [factor for factor in factors if _is_machine(factor)]
    rest = tuple(factor for factor in factors if factor is not found)
    if isinstance(found, Symmetrised):
        return Machine(found.state, np.array(found.orders), rest)  # type: ignore[arg-type]
    return Machine(found, None, rest)  # type: ignore[arg-type]


def _is_machine(factor: Wavefunction) -> bool:
    return isinstance(factor.state if isinstance(factor, Symmetrised) else factor, RBMState)


def check_method(method: Any, psi: Wavefunction, methods: tuple[str, ...] = METHODS) -> str:
    """The method that a user asks for, or the one that suits the wavefunction."""
    check_choice(method, "method", ("auto", *methods))
    if method == "auto":
        determinants = any(
            type(f).__name__ in ("SlaterDeterminants", "BackflowDeterminants") for f in getattr(psi, "factors", ())
        )
        return "gibbs" if has_machine(psi) and not determinants else "importance"
    if method in ("gibbs", "exact") and not has_machine(psi):
        raise ValueError(
            f'method "{method}" needs a wavefunction with one Boltzmann machine among its factors: use "metropolis" or '
            '"importance"'
        )
    if method == "exact" and machine_of(psi).machine.machine.hidden > MOST_UNITS:
        raise ValueError(f'method "exact" lists the states of at most {MOST_UNITS} hidden units: use "gibbs"')
    return method
