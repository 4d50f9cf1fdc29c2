"""An optimizer about a fixed point: what a gradient does to the parameters and to the memory, linearised."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float


class Memory(NamedTuple):
    """`z' = carry z + kick g` for each parameter, z its value (about the fixed point) and its entries in the memory.

    - `scale`: the preconditioner P, shape (d,), or `None`. With it z is measured in `P^(1/2)` (memory in
      `P^(-1/2)`), the curvature is `P^(1/2) H P^(1/2)`, and one `carry` and `kick` serve all parameters.
    """

    carry: Float[np.ndarray, "k k"]
    kick: Float[np.ndarray, " k"]
    scale: Float[np.ndarray, " d"] | None


def plain(learning_rate: float, momentum: float = 0.0) -> Memory:
    """SGD with the momentum `v' = beta v + g`, `x' = x - eta v'`."""
    if momentum == 0:
        return Memory(np.ones((1, 1)), np.array([-learning_rate]), None)
    carry = np.array([[1.0, -learning_rate * momentum], [0.0, momentum]])
    return Memory(carry, np.array([-learning_rate, 1.0]), None)


def linearise(optimizer: Any, params: Any, opt_state: Any) -> Memory:
    """An optax optimizer at gradient 0 and momentum 0: exact where it acts on each parameter by itself.

    What a gradient reaches in first order counts as memory (a momentum). What it does not reach is frozen, as Adam's
    mean of squares is, whose slope vanishes where all gradients do.
    """
    flat, back = ravel_pytree(params)
    d = flat.size
    likes = jax.tree.structure(params), [leaf.shape for leaf in jax.tree.leaves(params)]

    def like_params(tree: Any) -> bool:
        leaves = jax.tree.leaves(tree)
        return (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in leaves]) == likes and all(
            jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves
        )

    parts, structure = jax.tree.flatten(opt_state, is_leaf=like_params)
    slots = [i for i, part in enumerate(parts) if like_params(part)]
    given = [ravel_pytree(parts[i])[0] for i in slots]

    def step(x, memory, g):
        filled = list(parts)
        for i, value in zip(slots, memory, strict=True):
            filled[i] = back(value)
        update, after = optimizer.update(back(g), jax.tree.unflatten(structure, filled), back(x))
        after = jax.tree.flatten(after, is_leaf=like_params)[0]
        return x + ravel_pytree(update)[0], [ravel_pytree(after[i])[0] for i in slots]

    slope = _Slopes(step, flat, given, jnp.zeros(d))
    reached = [k for k in range(len(slots)) if np.any(slope(("g",))[1 + k])]
    slope = _Slopes(
        step, flat, [jnp.zeros(d) if k in reached else value for k, value in enumerate(given)], jnp.zeros(d)
    )
    outputs = [0, *(1 + k for k in reached)]
    inputs: list[tuple[Any, ...]] = [("x",), *(("m", k) for k in reached)]
    rates = {(a, b): slope(at)[a] for b, at in enumerate(inputs) for a in outputs}
    pushed = slope(("g",))
    frozen = [1 + k for k in range(len(slots)) if k not in reached]
    if any(np.any(slope(at)[k]) for at in inputs for k in frozen):
        raise ValueError(_REFUSED.format("has a memory that momentum or parameters move, and gradients do not"))
    P = -pushed[0]
    if not np.all(P > 0):
        raise ValueError(_REFUSED.format("moves some parameters along their gradient, or not at all"))
    if np.ptp(P) <= 1e-9 * P.max():
        scale, unit = None, np.ones(d)
    else:
        scale, unit = P, P
    size = len(outputs)
    carry, kick = np.zeros((size, size)), np.zeros(size)
    for a, out in enumerate(outputs):
        kick[a] = _constant(pushed[out] / (unit if a == 0 else 1.0))
        for b in range(size):
            measure = unit if a and not b else 1 / unit if b and not a else 1.0
            carry[a, b] = _constant(rates[out, b] * measure)
    return Memory(carry, kick, scale)


_REFUSED = "the optimizer of the process {}: give the curvature with momentum= and preconditioner= instead"


class _Slopes:
    """The slope of each part of a step along each of its inputs, entry by entry; refused if entries mix."""

    def __init__(self, step: Any, x: Any, memory: Any, g: Any):
        self._step, self._at = step, (x, memory, g)

    def __call__(self, along: tuple[Any, ...]) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        found = []
        for _ in range(2):
            r = jnp.asarray(random.uniform(0.5, 1.5, self._at[0].size))
            found.append([np.asarray(out) / np.asarray(r) for out in _tangent(self._step, self._at, along, r)])
        for one, two in zip(*found, strict=True):
            if not (np.all(np.isfinite(one)) and np.allclose(one, two, rtol=1e-8, atol=1e-12 * np.abs(one).max())):
                raise ValueError(_REFUSED.format("does not act on each parameter by itself, linearly at gradient 0"))
        return found[0]


@eqx.filter_jit
def _tangent(step: Any, at: Any, along: tuple[Any, ...], r: Any) -> list[Any]:
    x, memory, _ = at
    still = jnp.zeros_like(x)
    tangent = (
        r if along[0] == "x" else still,
        [r if along == ("m", k) else still for k in range(len(memory))],
        r if along[0] == "g" else still,
    )
    x, memory = jax.jvp(step, at, tangent)[1]
    return [x, *memory]


def _constant(values: np.ndarray) -> float:
    if np.ptp(values) > 1e-8 * max(np.abs(values).max(), 1e-30):
        raise ValueError(_REFUSED.format("treats its parameters in ways that no preconditioner explains"))
    return float(np.mean(values))
