"""`inject`: a step with something added to one of its nodes.

The step is traced to a jaxpr, and that is evaluated again with the addition made wherever the node is
used. A jaxpr inside it (a loop, a branch, a jitted function) is opened only if it holds the node.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend import core

from thalweg._node import _inner, _node, _nodes, _prefixes, made_again


def node_shapes(step: Callable[..., Any], name: str, *args: Any) -> dict[str, Any]:
    """The shape of each node that `name` means, by its full name. Refuses no node, and two shapes of one."""
    nodes = [(eqn.params["name"], eqn.invars[0].aval) for eqn in _nodes(jax.make_jaxpr(step)(*args).jaxpr)]
    shapes: dict[str, Any] = {}
    for full, aval in nodes:
        if name not in _prefixes(full):
            continue
        if full in shapes and shapes[full].shape != aval.shape:
            raise ValueError(
                f"node {full!r} has two shapes in one step, {shapes[full].shape} and {aval.shape}, so that a direction "
                "at it means nothing: give the two places two names"
            )
        shapes[full] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    if not shapes:
        named = ", ".join(sorted({repr(full) for full, _ in nodes})) or "none"
        raise ValueError(f"no node of the step is called {name!r}; its nodes: {named}")
    return shapes


def inject(step: Callable[..., Any], addends: dict[str, Any], *args: Any) -> Any:
    """`step(*args)` with `addends[name]` added to the node of each name, at every call of it in the step."""
    jaxpr, shape = jax.make_jaxpr(step, return_shape=True)(*args)
    out = _evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(args), addends)
    return jax.tree.unflatten(jax.tree.structure(shape), out)


# --------------------------------------------------------------------------------------------------


def _evaluate(jaxpr: Any, consts: Any, args: Any, addends: dict[str, Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(var):
        return var.val if isinstance(var, core.Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        if eqn.primitive is _node and eqn.params["name"] in addends:
            out = [_node.bind(inputs[0], **eqn.params) + addends[eqn.params["name"]]]
        elif any(node.params["name"] in addends for inner in _inner(eqn) for node in _nodes(inner)):
            out = _open(eqn, inputs, addends)
        else:
            out = made_again(eqn, inputs)
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _open(eqn: Any, inputs: list[Any], addends: dict[str, Any]) -> list[Any]:
    """An equation with a jaxpr inside, made again around the changed one, which closes over the addends."""

    def run(closed):
        return lambda *args: _evaluate(closed.jaxpr, closed.consts, args, addends)

    params, kind = eqn.params, eqn.primitive.name
    if kind == "scan":
        body, held, carried = run(params["jaxpr"]), params["num_consts"], params["num_carry"]
        consts, start, rows = inputs[:held], inputs[held : held + carried], inputs[held + carried :]

        def one(carry, row):
            out = body(*consts, *carry, *row)
            return out[:carried], out[carried:]

        end, stacked = lax.scan(one, start, rows, length=params["length"], reverse=params["reverse"])
        return [*end, *stacked]
    if kind == "while":
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        goes_on, body = run(params["cond_jaxpr"]), run(params["body_jaxpr"])
        return lax.while_loop(
            lambda carry: goes_on(*inputs[:first], *carry)[0],
            lambda carry: body(*inputs[first:second], *carry),
            inputs[second:],
        )
    if kind == "cond":
        return lax.switch(inputs[0], [run(branch) for branch in params["branches"]], *inputs[1:])
    if kind in ("jit", "pjit", "closed_call"):
        return run(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"])(*inputs)
    if kind in ("checkpoint", "remat", "remat2"):
        return _evaluate(params["jaxpr"], (), inputs, addends)
    raise ValueError(
        f"the perturbed node sits inside {kind}, which cannot be opened: put tw.node around its input or its output"
    )
