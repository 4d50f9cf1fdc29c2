"""Langevin dynamics: a particle in a potential, kicked by a heat bath."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._edge import check_function, check_number, one_number
from thalweg._loop import as_arrays
from thalweg._noise import Normal
from thalweg._process import Process


class PhasePoint(NamedTuple):
    """Where a particle is and how fast it moves."""

    position: Any
    velocity: Any


def langevin(potential: Callable[[Any], Any], temperature: float, dt: float, shape: tuple[int, ...] = ()) -> Process:
    """Overdamped Langevin dynamics by Euler and Maruyama: `x' = x - dt grad U(x) + sqrt(2 temperature dt) w`.

    For small `dt` its stationary density is `exp(-U / temperature)`; on `U = x^2/2` the variance is
    `temperature / (1 - dt/2)`.

    **Arguments**

    - `potential`: `U(x)`, a number. - `temperature`: >= 0, in units of the potential.
    - `dt`: the time of a step. - `shape`: the shape of `x`.

    >>> import thalweg as tw
    >>> cold = tw.processes.langevin(lambda x: x**2 / 2, temperature=0.0, dt=0.5)
    >>> float(tw.simulate(cold, 1.0, 3, key=0).state)
    0.125
    """
    temperature, dt = _checked(potential, temperature, dt)
    return Process(_Overdamped(potential, temperature, dt), Normal(shape), dt=dt)


def underdamped_langevin(
    potential: Callable[[Any], Any],
    temperature: float,
    friction: float,
    dt: float,
    shape: tuple[int, ...] = (),
    mass: float = 1.0,
) -> Process:
    """Langevin dynamics with inertia, by the BAOAB splitting (Leimkuhler and Matthews, 2013).

    Half a kick, half a drift, the exact heat bath, half a drift, half a kick. On a harmonic potential the
    positions are sampled without error in `dt`.

    **Arguments**: as `langevin`; `friction` per unit of time, >= 0; `mass` > 0. The state is a
    `PhasePoint`; `process.init(position, velocity=0)` makes one.

    >>> import thalweg as tw
    >>> swing = tw.processes.underdamped_langevin(lambda x: x**2 / 2, temperature=0.0, friction=0.0, dt=0.01)
    >>> end = tw.simulate(swing, swing.init(1.0), 314, key=0).state
    >>> round(float(end.position), 4)  # half a period
    -1.0
    """
    temperature, dt = _checked(potential, temperature, dt)
    friction, mass = check_number(friction, "friction", least=0), check_number(mass, "mass", above=0)
    step = _Underdamped(potential, temperature, friction, mass, dt)

    def init(position: Any, velocity: Any = None) -> PhasePoint:
        position = jnp.asarray(position, float)
        return PhasePoint(position, jnp.zeros_like(position) if velocity is None else as_arrays(velocity))

    return Process(step, Normal(shape), init, dt=dt)


class _Overdamped(eqx.Module):
    potential: Callable[[Any], Any]
    temperature: Any
    dt: Any

    def __call__(self, x: Any, w: Any) -> Any:
        return x - self.dt * _slope(self.potential, x) + jnp.sqrt(2 * self.temperature * self.dt) * w


class _Underdamped(eqx.Module):
    potential: Callable[[Any], Any]
    temperature: Any
    friction: Any
    mass: Any
    dt: Any

    def __call__(self, state: PhasePoint, w: Any) -> PhasePoint:
        kick = lambda x, v: v - self.dt / 2 * _slope(self.potential, x) / self.mass  # noqa: E731
        x, v = state
        v = kick(x, v)
        x = x + self.dt / 2 * v
        keep = jnp.exp(-self.friction * self.dt)
        v = keep * v + jnp.sqrt((1 - keep**2) * self.temperature / self.mass) * w
        x = x + self.dt / 2 * v
        return PhasePoint(x, kick(x, v))


def _slope(potential: Callable[[Any], Any], x: Any) -> Any:
    return jax.grad(lambda x: one_number(potential(x), "potential"))(x)


def _checked(potential: Any, temperature: Any, dt: Any) -> tuple[Any, Any]:
    check_function(potential, "potential", "x")
    fix = "; for descent without noise pass 0"
    return check_number(temperature, "temperature", least=0, fix=fix), check_number(dt, "dt", above=0)
