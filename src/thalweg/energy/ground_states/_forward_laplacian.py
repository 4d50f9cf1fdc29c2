"""The forward Laplacian: value, gradient and Laplacian of any JAX function in one pass, without a Hessian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from thalweg._node import made_again

# Primitives that only wrap a function: it is walked through in their place.
WRAPPERS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call")


class Jet(NamedTuple):
    """A value that depends on x, its derivative by every coordinate (leading axis), and its Laplacian."""

    value: Any
    by_x: Any
    laplacian: Any


def forward_laplacian(f: Callable[[Any], Any], x: Float[Array, " m"]) -> tuple[Any, Any, Any]:
    """`f(x)`, its gradient (m,) and its Laplacian, carried forward together through every operation of `f`.

    For `y = g(u)`: `dy/dx_i = Dg[u_i]` and `lap y = Dg[lap u] + sum_i D^2 g[u_i, u_i]`, each from the operation's own
    forward derivatives. Memory is that of m tangents; a Hessian takes m gradients and m^2 numbers.

    **Arguments**

    - `f`: a JAX function of one array, with a single number, real or complex. - `x`: shape (m,).

    Source: Li et al., Nature Machine Intelligence 6, 209 (2024).

    >>> import jax.numpy as jnp
    >>> value, gradient, laplacian = forward_laplacian(lambda x: x[0] ** 2 * x[1] ** 3, jnp.array([2.0, 1.0]))
    >>> float(value), gradient.tolist(), float(laplacian)       # 2 y^3 + 6 x^2 y
    (4.0, [4.0, 12.0], 26.0)
    """
    closed = jax.make_jaxpr(f)(x)
    (out,) = _walk(closed.jaxpr, closed.consts, [Jet(x, jnp.eye(x.shape[0], dtype=x.dtype), jnp.zeros_like(x))])
    if not isinstance(out, Jet):  # f does not depend on x
        return out, jnp.zeros_like(x), jnp.zeros_like(out)
    return out


def _walk(jaxpr: Any, consts: Any, arguments: list[Any]) -> list[Any]:
    known: dict[Any, Any] = {}
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else known[atom]  # noqa: E731
    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if not any(isinstance(value, Jet) for value in inputs):
            outputs = made_again(eqn, inputs)
        elif eqn.primitive.name in WRAPPERS:
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr", eqn.params.get("fun_jaxpr")))
            body, held = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            outputs = _walk(body, held, inputs)
        else:
            outputs = _through(eqn, inputs)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _through(eqn: Any, inputs: list[Any]) -> list[Any]:
    """One operation, by its own first and second forward derivatives."""
    places = [i for i, value in enumerate(inputs) if isinstance(value, Jet)]
    jets = [inputs[i] for i in places]
    values = tuple(jet.value for jet in jets)

    def g(*moving):
        whole = list(inputs)
        for i, value in zip(places, moving, strict=True):
            whole[i] = value
        # whole numbers and truth values that come out (comparisons) carry no derivative
        return [out for out in made_again(eqn, whole) if jnp.issubdtype(out.dtype, jnp.inexact)]

    def both(tangents):
        first = lambda *moving: jax.jvp(g, moving, tangents)[1]  # noqa: E731
        return jax.jvp(first, values, tangents)

    by_x, second = jax.vmap(both)(tuple(jet.by_x for jet in jets))
    along = jax.jvp(g, values, tuple(jet.laplacian for jet in jets))[1]
    laplacians = [a + jnp.sum(b, axis=0) for a, b in zip(along, second, strict=True)]
    found = iter(zip(by_x, laplacians, strict=True))
    plain = made_again(eqn, [value.value if isinstance(value, Jet) else value for value in inputs])
    return [Jet(out, *next(found)) if jnp.issubdtype(out.dtype, jnp.inexact) else out for out in plain]
