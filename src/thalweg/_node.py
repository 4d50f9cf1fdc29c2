"""`node`: a quantity inside a step, given a name, so that a clamp can hold it still.

A node is a JAX primitive: the identity that carries its name. It survives `jit`, `scan`, `vmap` and
inner gradients, because a clamp does not act while the step is traced. The step is traced to a jaxpr
first, with every inner gradient resolved; then the clamped nodes are marked in it and in all its
sub-jaxprs; only then is it differentiated, or run beside another world.

A marked node does two things. It carries no tangent. And along the axis `WORLDS` of a `vmap`, every
world gets the value of the first.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from thalweg._edge import check_arrays, shown
from thalweg._precision import use_float64

use_float64()

WORLDS = "thalweg worlds"


def node(value: Any, name: str) -> Any:
    """Name a quantity inside a step. The value is returned unchanged; `tw.clamp` can hold it still by its name.

    **Arguments**

    - `value`: a number, an array or a pytree of them, whose leaves are then called `name.path`.
    - `name`: its name. A name may be used many times in a step, such as once a stage. To hold `name` is
      to hold all its leaves.

    >>> import thalweg as tw
    >>> loop = tw.Process(lambda s, w: s - 0.5 * tw.node(s, "control"))
    >>> unit, log_norm = tw.response(loop, 1.0, 3, clamp="control").jvp(1.0)  # without control nothing decays
    >>> float(log_norm)
    0.0
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a non-empty string, got {shown(name)}")

    check_arrays(value, "value of a node")

    def one(path, leaf):
        parts = [name, *([jax.tree_util.keystr(path, simple=True, separator=".")] if path else [])]
        return _node.bind(jnp.asarray(leaf), name=".".join(parts), held=None)

    return jax.tree_util.tree_map_with_path(one, value)


class Mask:
    """Which entries of an array are held, as a hashable parameter of the primitive."""

    def __init__(self, held: Any):
        self.held = np.asarray(held, dtype=bool)

    def __hash__(self) -> int:
        return hash((self.held.shape, self.held.tobytes()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.held, other.held)


def hold(value: Any, held: Mask) -> Any:
    """An array whose entries in `held` carry no tangent, and are the first world's in every world."""
    return _node.bind(value, name="", held=held)


def hold_nodes(step: Callable[..., Any], held: dict[str, Mask | None], *args: Any) -> Any:
    """`step(*args)` with its nodes held: those of each name in `held`, whole or where its mask says so."""
    jaxpr, shape = jax.make_jaxpr(step, return_shape=True)(*args)
    found = {eqn.params["name"] for eqn in _nodes(jaxpr.jaxpr)}
    missing = sorted(set(held) - {name for node in found for name in _prefixes(node)})
    if missing:
        named = ", ".join(sorted(map(repr, found))) or "none"
        raise ValueError(f"where of a clamp: no node of the step is called {missing[0]!r}; its nodes: {named}")
    marked = core.ClosedJaxpr(_mark(jaxpr.jaxpr, held), jaxpr.consts)
    out = core.jaxpr_as_fun(marked)(*jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shape), out)


def node_names(step: Callable[..., Any], *args: Any) -> set[str]:
    """The names of the nodes that a step runs through."""
    return {eqn.params["name"] for eqn in _nodes(jax.make_jaxpr(step)(*args).jaxpr)}


def in_worlds(step: Callable[..., Any], worlds: Any, shared: Any, count: int) -> Any:
    """`step(world, shared)` in `count` worlds side by side; held nodes take the first world's values."""
    return jax.vmap(step, in_axes=(0, None), axis_name=WORLDS, axis_size=count)(worlds, shared)


# --------------------------------------------------------------------------------------------------

_node = core.Primitive("node")
_node.def_impl(lambda x, *, name, held: x)
_node.def_abstract_eval(lambda x, *, name, held: x)
mlir.register_lowering(_node, mlir.lower_fun(lambda x, *, name, held: x, multiple_results=False))


def _held_entries(held: Mask, shape: tuple[int, ...]) -> Any:
    # Batch axes come in front (see _batch), so that the mask broadcasts against the trailing axes.
    return np.broadcast_to(held.held, shape)


def _jvp(primals, tangents, *, name, held):
    (x,), (t,) = primals, tangents
    out = _node.bind(x, name=name, held=held)
    if held is None or isinstance(t, ad.Zero):
        return out, t
    if held.held.all():
        return out, ad.Zero(jax.typeof(t))
    return out, jnp.where(_held_entries(held, x.shape), jnp.zeros((), t.dtype), t)


ad.primitive_jvps[_node] = _jvp


def _batch(axis, values, dims, *, name, held):
    (x,), (dim,) = values, dims
    if dim is None:
        return _node.bind(x, name=name, held=held), dim
    x = jnp.moveaxis(x, dim, 0)
    if held is not None and axis.name == WORLDS:
        x = jnp.where(_held_entries(held, x.shape), x[:1], x)
    return _node.bind(x, name=name, held=held), 0


batching.fancy_primitive_batchers[_node] = _batch


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr and of the jaxprs inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _inner(eqn):
            yield from equations(inner)


def made_again(eqn: Any, inputs: list[Any]) -> list[Any]:
    """What an equation of a jaxpr gives for other inputs."""
    given = eqn.primitive.get_bind_params(eqn.params)
    functions, params = given if isinstance(given, tuple) else ((), given)  # JAX before 0.9 gives a pair
    out = eqn.primitive.bind(*functions, *inputs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _nodes(jaxpr: Any) -> Iterator[Any]:
    return (eqn for eqn in equations(jaxpr) if eqn.primitive is _node)


def _prefixes(name: str) -> list[str]:
    """`update.W1` is also meant by `update`."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _inner(eqn: Any) -> Iterator[Any]:
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _mark(jaxpr: Any, held: dict[str, Mask | None]) -> Any:
    """The jaxpr with its held nodes marked, here and in every jaxpr inside."""

    def mark(value):
        if isinstance(value, core.ClosedJaxpr):
            return core.ClosedJaxpr(_mark(value.jaxpr, held), value.consts)
        if isinstance(value, core.Jaxpr):
            return _mark(value, held)
        if isinstance(value, tuple | list):
            return type(value)(mark(item) for item in value) if type(value) in (tuple, list) else value
        return value

    def held_as(eqn):
        names = _prefixes(eqn.params["name"]) if eqn.primitive is _node else []
        return next((name for name in names if name in held), None)

    eqns = []
    for eqn in jaxpr.eqns:
        name = held_as(eqn)
        if name is not None:
            shape = eqn.invars[0].aval.shape
            mask = held[name] or Mask(np.ones(shape, dtype=bool))
            if mask.held.shape != shape:
                raise ValueError(
                    f"node {eqn.params['name']!r} has shape {shape}, but the clamp wants to hold part of an array of "
                    f"shape {mask.held.shape}: hold the node by its name alone"
                )
            eqn = eqn.replace(params={**eqn.params, "held": mask})
        elif any(held_as(inner_node) is not None for inner in _inner(eqn) for inner_node in _nodes(inner)):
            if eqn.primitive.name.startswith(("custom_jvp", "custom_vjp")):
                raise ValueError(
                    "a clamped node sits inside a function with a derivative rule of its own "
                    f"({eqn.primitive.name}): put tw.node around its input or its output instead"
                )
            eqn = eqn.replace(params={key: mark(value) for key, value in eqn.params.items()})
        eqns.append(eqn)
    return jaxpr.replace(eqns=eqns)
