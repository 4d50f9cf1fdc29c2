"""The Lorenz equations."""

from typing import Any

import equinox as eqx

from thalweg._edge import check_number
from thalweg._process import Process
from thalweg.processes import ode


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


class _Field(eqx.Module):
    sigma: Any
    rho: Any
    beta: Any

    def __call__(self, s: dict[str, Any]) -> dict[str, Any]:
        a, b, c = s["a"], s["b"], s["c"]
        return {"a": self.sigma * (b - a), "b": a * (self.rho - c) - b, "c": a * b - self.beta * c}


def _init(a: float, b: float, c: float) -> dict[str, Any]:
    return {"a": check_number(a, "a"), "b": check_number(b, "b"), "c": check_number(c, "c")}
