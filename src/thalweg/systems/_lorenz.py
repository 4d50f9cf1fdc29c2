"""The Lorenz equations, and his ring of 1996."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from thalweg._edge import check_number, is_whole, shown
from thalweg._process import Process
from thalweg.processes import ode

MOST_SITES = 10**7


def lorenz(rho: float, sigma: float = 10.0, beta: float = 8 / 3, dt: float = 0.01, method: str = "rk4") -> Process:
    """Lorenz's equations for convection (1963), with parts `a`, `b`, `c`.

    `a' = sigma (b - a)`, `b' = a (rho - c) - b`, `c' = a b - beta c`. The parts are nodes, read at every
    stage. `process.init(a=1, b=1, c=1)` makes a state.

    **Exact facts**: the Lyapunov exponents sum to `-(sigma + 1 + beta)`; below rho = 1 everything ends at 0; at
    rho = 28 the top exponent is 0.9056 per unit of time.

    >>> import thalweg as tw
    >>> process = tw.systems.lorenz(0.8)
    >>> end = tw.simulate(process, process.init(a=1, b=1, c=1), 10_000).state
    >>> abs(float(end["a"])) < 1e-6
    True
    """
    field = _Field(check_number(sigma, "sigma"), check_number(rho, "rho"), check_number(beta, "beta"))
    return ode(field, dt, method, init=_init)


def lorenz96(sites: int = 40, forcing: float = 8.0, dt: float = 0.01, method: str = "rk4") -> Process:
    """Lorenz's ring of 1996: `x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F`. The state is one array, node `state`.

    `process.init()` makes a state near the fixed point `x = F`, `process.init(x)` one of your own.

    **Exact facts**: the flow shrinks volumes at the rate `-sites`, so that the exponents sum to it; for F below 8/9
    everything ends at `x = F`.

    >>> import thalweg as tw
    >>> ring = tw.systems.lorenz96(40, forcing=0.5)
    >>> end = tw.simulate(ring, ring.init(), 5000).state
    >>> float(abs(end - 0.5).max()) < 1e-9
    True
    """
    if not is_whole(sites) or not 4 <= sites <= MOST_SITES:
        raise ValueError(f"sites must be a whole number from 4 to {MOST_SITES}, got {shown(sites)}")

    forcing = check_number(forcing, "forcing")

    def init(x: Any = None) -> Any:
        if x is None:
            return jnp.full(sites, forcing).at[0].add(0.01)
        x = check_number(x, "x")
        if x.shape[-1:] != (sites,):
            raise ValueError(f"x must hold {sites} numbers, one a site, got shape {x.shape}")
        return x

    return ode(_Ring(forcing), dt, method, init=init)


class _Ring(eqx.Module):
    forcing: Any

    def __call__(self, x: Any) -> Any:
        # The ring cut open, with its ends repeated, is written out once: XLA would otherwise join the pieces anew
        # wherever a neighbour is read, which made a step of 2,000 sites 4 times as long.
        sites = x.shape[-1]
        line = lax.optimization_barrier(jnp.concatenate([x[-2:], x, x[:1]]))
        return (line[3:] - line[:sites]) * line[1 : sites + 1] - x + self.forcing


class _Field(eqx.Module):
    sigma: Any
    rho: Any
    beta: Any

    def __call__(self, s: dict[str, Any]) -> dict[str, Any]:
        a, b, c = s["a"], s["b"], s["c"]
        return {"a": self.sigma * (b - a), "b": a * (self.rho - c) - b, "c": a * b - self.beta * c}


def _init(a: float, b: float, c: float) -> dict[str, Any]:
    return {"a": check_number(a, "a"), "b": check_number(b, "b"), "c": check_number(c, "c")}
