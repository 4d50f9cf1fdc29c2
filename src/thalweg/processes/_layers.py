"""The dense layers inside a loss: what went in, and the gradient of what came out, datum by datum.

Where a matrix of parameters is used once in a loss, as `x @ W` or `W @ x`, its gradient is the sum of outer products of
`x` with the gradient of the product; that of a bias, added once, is the sum of the gradients of the sum. Both come from
one forward and backward pass, and give the gradient of any part of the data by one product more. The loss is traced to
a jaxpr, and such places are found in it; parameters used in any other way are left alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from thalweg._node import made_again


class Layer(NamedTuple):
    """One array of parameters: its gradient is `sum over data and rows of inputs x cotangents`.

    - `inputs`: (data, rows, inputs), or `None` for a bias; `cotangents`: (data, rows, units).
    - `transposed`: whether the array is (units, inputs) and not (inputs, units).
    - `given`: whether the inputs come from the datum alone, and not through any parameters.
    """

    inputs: Any
    cotangents: Any
    transposed: bool
    given: bool = False


def layers_of(
    loss: Callable[[Any, Any], Any], params: Any, data: Any, total: Callable[[Any], Any], lead: tuple[int, ...]
) -> list[Layer | None]:
    """For each array of `params`, its layer in `total(loss(params, data))`; `None` if it is none.

    `lead` is the shape of the batch: `()`, where `data` is one datum, or `(batch,)`. Where the gradient of the same
    loss is taken beside this in compiled code, one forward and backward pass serves both.
    """
    leaves = jax.tree.leaves(params)
    datum = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[len(lead) :], leaf.dtype), data)
    closed, tags, found = _found(loss, params, datum)
    if not found:
        return [None] * len(leaves)

    def perturbed(zeros: Any) -> Any:
        def one(datum: Any, zeros: Any) -> Any:
            seen: dict[int, Any] = {}
            args = [*leaves, *jax.tree.leaves(datum)]
            return _evaluate(closed.jaxpr, closed.consts, args, tags, zeros, seen)[0], seen

        losses, seen = (jax.vmap(one) if lead else one)(data, zeros)
        return total(losses), seen

    zeros = {leaf: jnp.zeros((*lead, *use.shape), leaves[leaf].dtype) for leaf, use in found.items()}
    cotangents, inputs = jax.grad(perturbed, has_aux=True)(zeros)
    layers: list[Layer | None] = [None] * len(leaves)
    for leaf, use in found.items():
        rows = lambda array: array.reshape(*(lead or (1,)), -1, array.shape[-1])  # noqa: E731
        x = inputs.get(leaf)
        layers[leaf] = Layer(None if x is None else rows(x), rows(cotangents[leaf]), use.transposed, use.given)
    return layers


def given_inputs(loss: Callable[[Any, Any], Any], params: Any, data: Any) -> dict[int, tuple[Any, bool]]:
    """For each array whose layer reads the datum alone: its inputs (data, rows, inputs), whether it is transposed."""
    leaves = jax.tree.leaves(params)
    datum = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
    closed, tags, found = _found(loss, params, datum)

    def one(datum: Any) -> Any:
        seen: dict[int, Any] = {}
        _evaluate(closed.jaxpr, closed.consts, [*leaves, *jax.tree.leaves(datum)], tags, dict.fromkeys(found, 0), seen)
        return {leaf: x for leaf, x in seen.items() if found[leaf].given}

    seen = jax.vmap(one)(data)
    return {leaf: (x.reshape(len(x), -1, x.shape[-1]), found[leaf].transposed) for leaf, x in seen.items()}


class _Use(NamedTuple):
    shape: tuple[int, ...]  # of the place where the layer's output is
    transposed: bool
    given: bool


def _found(loss: Callable[[Any, Any], Any], params: Any, datum: Any) -> tuple[Any, dict, dict[int, _Use]]:
    """The jaxpr of a datum's loss, which of its variables are parameters, and where those are layers."""
    leaves, structure = jax.tree.flatten(params)
    closed = jax.make_jaxpr(lambda leaves, datum: loss(jax.tree.unflatten(structure, leaves), datum))(leaves, datum)
    tags = dict(zip(closed.jaxpr.invars, range(len(leaves)), strict=False))
    uses: list[list[Any]] = [[] for _ in leaves]
    _find(closed.jaxpr, tags, uses, set(tags))
    return closed, tags, {i: use[0] for i, use in enumerate(uses) if len(use) == 1 and use[0] is not None}


_INSIDE = ("jit", "pjit", "closed_call")


def _find(jaxpr: Any, tags: dict[Any, int], uses: list[list[Any]], learned: set[Any]) -> None:
    """The uses of each array of parameters; `None` stands for one that is no layer.

    `learned`: the variables that come through parameters.
    """
    tags, learned = dict(tags), set(learned)
    for eqn in jaxpr.eqns:
        through = [at for at, var in enumerate(eqn.invars) if not isinstance(var, core.Literal) and var in learned]
        if through:
            learned.update(eqn.outvars)
        own = [(at, tags[var]) for at, var in enumerate(eqn.invars) if _tag(var, tags) is not None]
        if not own:
            continue
        kind = eqn.primitive.name
        if kind in _INSIDE:
            inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
            within = {inner.jaxpr.invars[at]: leaf for at, leaf in own}
            _find(inner.jaxpr, within, uses, {inner.jaxpr.invars[at] for at in through})
            if any(var in inner.jaxpr.invars for var in inner.jaxpr.outvars if not isinstance(var, core.Literal)):
                for _, leaf in own:
                    uses[leaf].append(None)
        elif _spreads(eqn):
            tags[eqn.outvars[0]] = own[0][1]
        else:
            for at, leaf in own:
                uses[leaf].append(_use(eqn, at, through == [at]) if len(own) == 1 else None)
    for var in jaxpr.outvars:
        if _tag(var, tags) is not None and not any(var is given for given in jaxpr.invars):
            uses[tags[var]].append(None)


def _tag(var: Any, tags: dict[Any, int]) -> int | None:
    return None if isinstance(var, core.Literal) else tags.get(var)


def _spreads(eqn: Any) -> bool:
    """Whether this repeats a bias along leading axes."""
    if eqn.primitive.name != "broadcast_in_dim" or eqn.invars[0].aval.ndim != 1:
        return False
    shape = eqn.params["shape"]
    return eqn.params["broadcast_dimensions"] == (len(shape) - 1,) and shape[-1] == eqn.invars[0].aval.shape[0]


def _use(eqn: Any, at: int, given: bool) -> _Use | None:
    """What an equation makes of the array of parameters at this place."""
    kind, out = eqn.primitive.name, eqn.outvars[0].aval
    if kind == "add" and eqn.invars[at].aval.ndim >= 1 and eqn.invars[at].aval.shape == out.shape:
        return _Use(out.shape, False, given)
    if kind != "dot_general" or eqn.invars[at].aval.ndim != 2:
        return None
    (left, right), (batch, _) = eqn.params["dimension_numbers"]
    other = eqn.invars[1 - at].aval
    if len(left) != 1 or batch or not other.ndim:
        return None
    own, others = (left[0], right[0]) if at == 0 else (right[0], left[0])
    if others != other.ndim - 1 or (at == 0 and other.ndim > 1):
        return None
    return _Use(out.shape, own == 1, given)


def _evaluate(jaxpr: Any, consts: Any, args: Any, tags: dict, zeros: dict, seen: dict) -> list[Any]:
    """The jaxpr with zeros added to the layers' outputs; `seen` collects what goes into them."""
    tags = dict(tags)
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda var: var.val if isinstance(var, core.Literal) else values[var]  # noqa: E731
    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        own = [(at, tags[var]) for at, var in enumerate(eqn.invars) if _tag(var, tags) in zeros]
        if own and eqn.primitive.name in _INSIDE:
            inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
            inside = {inner.jaxpr.invars[at]: leaf for at, leaf in own}
            out = _evaluate(inner.jaxpr, inner.consts, inputs, inside, zeros, seen)
        else:
            out = made_again(eqn, inputs)
            if own and _spreads(eqn):
                tags[eqn.outvars[0]] = own[0][1]
            elif own:
                at, leaf = own[0]
                if eqn.primitive.name == "dot_general":
                    seen[leaf] = inputs[1 - at]
                out = [out[0] + zeros[leaf]]
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(var) for var in jaxpr.outvars]
