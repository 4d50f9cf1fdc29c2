"""Differential equations as processes, with every part of the state named at every stage."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._edge import check_arrays, check_choice, check_function, check_number
from thalweg._node import node
from thalweg._process import Process


def ode(field: Callable[[Any], Any], dt: float, method: str = "rk4", init: Callable[..., Any] | None = None) -> Process:
    """A step of `ds/dt = field(s)`.

    The field reads every part of the state through `tw.node`, called by its place in the state (`"a"` for
    `s["a"]` or `s.a`, `"state"` where the state is one array). So a clamp acts inside the field, at every
    stage; one that acted between steps only would be wrong by O(dt).

    **Arguments**

    - `field`: `field(state)`, a pytree like the state: its rate of change.
    - `dt`: the time of a step. - `method`: `"rk4"` (error O(dt^4)) or `"euler"` (O(dt)).
    - `init`: makes a state, as in `tw.Process`.

    >>> import thalweg as tw
    >>> decay = tw.processes.ode(lambda s: -s, dt=0.1)
    >>> round(float(tw.simulate(decay, 1.0, 10).state), 6)  # exp(-1) = 0.367879
    0.36788
    """
    check_function(field, "field", "state")
    check_choice(method, "method", ("rk4", "euler"))
    dt = check_number(dt, "dt", above=0)
    return Process(_Integrator(field, dt, method), None, init, dt, names=part_names)


def part_names(state: Any) -> Any:
    """The name of each part of a state: its path, or `"state"` where the state is one array."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator=".") or "state", state
    )


class _Integrator(eqx.Module):
    field: Callable[[Any], Any]
    dt: Any
    method: str = eqx.field(static=True)

    def __call__(self, state: Any, w: Any) -> Any:
        if self.method == "euler":
            return _moved(state, self.dt, self._rate(state))
        k1 = self._rate(state)
        k2 = self._rate(_moved(state, self.dt / 2, k1))
        k3 = self._rate(_moved(state, self.dt / 2, k2))
        k4 = self._rate(_moved(state, self.dt, k3))
        mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
        return _moved(state, self.dt, mean)

    def _rate(self, state: Any) -> Any:
        rate = self.field(jax.tree.map(node, state, part_names(state)))
        if jax.tree.structure(rate) != jax.tree.structure(state):
            raise ValueError(
                f"field must give a rate for each part of the state, {jax.tree.structure(state)}, "
                f"got {jax.tree.structure(rate)}"
            )
        check_arrays(rate, "field")
        for part, change in zip(jax.tree.leaves(state), jax.tree.leaves(rate), strict=True):
            if jnp.shape(change) not in (jnp.shape(part), ()):
                raise ValueError(
                    f"field must give rates in the shapes of the state, {jnp.shape(part)}, got {jnp.shape(change)}"
                )
        return rate


def _moved(state: Any, dt: Any, rate: Any) -> Any:
    return jax.tree.map(lambda s, r: s + dt * r, state, rate)
