"""Langevin dynamics: a particle in a potential, kicked by a heat bath."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import is_traced
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
    _check(potential, temperature, dt)
    return Process(
        _Overdamped(potential, jnp.asarray(temperature, float), jnp.asarray(dt, float)), Normal(shape), dt=dt
    )


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
    _check(potential, temperature, dt)
    for name, value, least in (("friction", friction, 0.0), ("mass", mass, np.nextafter(0.0, 1.0))):
        if not is_traced(value) and not (np.all(np.isfinite(value)) and np.all(np.asarray(value) >= least)):
            raise ValueError(f"{name} must be {'> 0' if least else '>= 0'}, got {value}")
    step = _Underdamped(potential, *(jnp.asarray(v, float) for v in (temperature, friction, mass, dt)))

    def init(position: Any, velocity: Any = None) -> PhasePoint:
        position = jnp.asarray(position, float)
        return PhasePoint(position, jnp.zeros_like(position) if velocity is None else as_arrays(velocity))

    return Process(step, Normal(shape), init, dt=dt)


class _Overdamped(eqx.Module):
    potential: Callable[[Any], Any]
    temperature: Any
    dt: Any

    def __call__(self, x: Any, w: Any) -> Any:
        return x - self.dt * jax.grad(self.potential)(x) + jnp.sqrt(2 * self.temperature * self.dt) * w


class _Underdamped(eqx.Module):
    potential: Callable[[Any], Any]
    temperature: Any
    friction: Any
    mass: Any
    dt: Any

    def __call__(self, state: PhasePoint, w: Any) -> PhasePoint:
        kick = lambda x, v: v - self.dt / 2 * jax.grad(self.potential)(x) / self.mass  # noqa: E731
        x, v = state
        v = kick(x, v)
        x = x + self.dt / 2 * v
        keep = jnp.exp(-self.friction * self.dt)
        v = keep * v + jnp.sqrt((1 - keep**2) * self.temperature / self.mass) * w
        x = x + self.dt / 2 * v
        return PhasePoint(x, kick(x, v))


def _check(potential: Any, temperature: Any, dt: Any) -> None:
    if not callable(potential):
        raise TypeError(f"potential must be a function of the position, got {potential!r}")
    if not is_traced(temperature) and not (np.all(np.isfinite(temperature)) and np.all(np.asarray(temperature) >= 0)):
        raise ValueError(f"temperature must be >= 0, got {temperature}; for descent without noise pass 0")
    if not is_traced(dt) and not (np.all(np.isfinite(dt)) and np.all(np.asarray(dt) > 0)):
        raise ValueError(f"dt must be a positive time, got {dt}")
