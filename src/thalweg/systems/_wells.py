"""Particles in wells."""

from typing import Any

from thalweg._process import Process
from thalweg.processes import langevin


def double_well(temperature: float, dt: float) -> Process:
    """Overdamped Langevin dynamics in `U(x) = (x^2 - 1)^2`, with wells at -1 and 1 and a barrier of 1.

    **Exact facts**: symmetric, so that the probability of x > 0 is 1/2 in the long run; for small `dt` the
    stationary density is `exp(-U / temperature)`.

    >>> import thalweg as tw
    >>> process = tw.systems.double_well(temperature=0.0, dt=0.01)
    >>> round(float(tw.simulate(process, 0.5, 1000, key=0).state), 6)  # without noise, into the well at 1
    1.0
    """
    return langevin(_quartic, temperature, dt)


def _quartic(x: Any) -> Any:
    return (x**2 - 1) ** 2
