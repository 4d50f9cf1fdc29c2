"""A step of plain descent on one datum, kept as its two factors.

The gradient of a dense layer for one datum is `x_i delta_j`: what went in, times the gradient of what came out. So

    |dW_ij| = rate |x_i| |delta_j|,        T_W = |X|^T diag(1_g) |rate delta|,

and where the layer reads the datum itself (X are the data) the sums of `|rate delta|` by datum, (n, units), hold the
tallies of all its weights: they are made by one product when they are read. Signed tallies alike, without moduli. A
layer that reads other units is added to its table as an outer product. Forward and backward pass are those of the step.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg.knowledge import _rows
from thalweg.knowledge._attribution import small
from thalweg.knowledge._tallied import summed
from thalweg.processes._layers import Layer

LARGE = 4096  # entries from which on an array is not looked at whole in every step
MOST = 2**23  # numbers that a log may always have; a larger one must be smaller than the table


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Ways:
    """For each array of parameters how a step is added to its tally: "log", "outer" or "difference".

    - `units`: of a layer that is logged, how many it has. - `structure`, `shapes`: those of the parameters.
    """

    of: tuple[str, ...]
    units: tuple[int, ...]
    structure: Any
    shapes: tuple[tuple[tuple[int, ...], Any], ...]

    def like(self) -> Any:
        """Parameters of these shapes."""
        return jax.tree.unflatten(self.structure, [jnp.zeros(*one) for one in self.shapes])


class Probe(NamedTuple):
    """What the last step left: small arrays whole, and of a large one the entries of one input.

    A large array from before the step would have to be copied to be compared with the one from after it. So one of its
    inputs is looked at, another in every step, and what it was is kept from the step before.
    """

    small: list[Any]
    large: list[Any]
    ways: Ways


def probe(ways: Ways, params: Any, seen: Any) -> Probe:
    """What is to be remembered of parameters until the next step."""
    leaves = jax.tree.leaves(params)
    return Probe(
        [leaf for leaf in leaves if leaf.size < LARGE],
        [leaf[seen % len(leaf)] for leaf in leaves if leaf.size >= LARGE],
        ways,
    )


def plan(tally: Any, state: Any) -> Ways | None:
    """How steps from this state are kept; `None` where they are not of this kind.

    That is, for batches, momentum, clipping, optimizers that scale entry by entry, and small networks.
    """
    process = tally.process
    if process is None or process.layers is None:
        return None
    w = jax.eval_shape(lambda: process.noise.sample(jax.random.key(0), jnp.zeros((), int)))
    leaves, structure = jax.tree.flatten(state.params)
    split = tally._split(state.params)
    large = [leaf.size >= LARGE for leaf in leaves]
    if w.shape or split.remembers or split.scales or split.clipping != "none" or all(large) or not any(large):
        return None
    found: list[Layer | None] = []

    def look(state: Any) -> Any:
        found.extend(process.layers(state, jnp.zeros((), int)))
        return 0

    jax.eval_shape(look, state)
    parts = tally._parts(state.params)
    n = len(jax.tree.leaves(process.step.data)[0])

    def way(i: int, layer: Layer | None) -> str:
        if layer is None or layer.cotangents.shape[1] != 1:
            return "difference"
        mine = [part for part in parts if part.leaf == i]
        numbers = n * layer.cotangents.shape[2]
        fits = numbers <= max(MOST, (tally.count + 1) * leaves[i].size)
        whole = len(mine) == 1 and mine[0].local is None and mine[0].shape == leaves[i].shape
        logged = layer.inputs is not None and layer.given and whole and fits and leaves[i].size >= LARGE
        return "log" if logged else "outer"

    of = tuple(way(i, layer) for i, layer in enumerate(found))
    units = tuple(0 if layer is None else layer.cotangents.shape[-1] for layer in found)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    # Without the factors of a large array nothing is gained.
    gained = any(big and one != "difference" for big, one in zip(large, of, strict=True))
    return Ways(of, units, structure, shapes) if gained else None


def step(tally: Any, old: Probe, carry: Any, state: Any, w: Any, next_state: Any) -> tuple:
    """One step added to what `carry` holds: (the tallies, the largest error of conservation)."""
    process, params = tally.process, state.params
    before, after = jax.tree.leaves(params), jax.tree.leaves(next_state.params)
    e = small(before)
    found = tally._split(params).linear(process.step.rule, state.opt_state, next_state.opt_state, params, e)
    group = tally.groups[w]
    row = jnp.where(group < 0, tally.count, group)
    parts = tally._parts(params)
    kept = {kind: jax.tree.leaves(tree) for kind, tree in carry.kept.items()}
    layers = process.layers(state, w)
    steepest = jnp.max(jnp.stack([_largest(layer) for layer in layers if layer is not None]))
    ways = old.ways.of
    known = [a for a in before if a.size < LARGE]
    # Someone may have passed by a step: then the entries remembered are of other parameters.
    current = jnp.all(jnp.stack([jnp.all(a == b) for a, b in zip(known, old.small, strict=True)]))
    remembered = iter(old.large)
    off = []
    for i, (layer, way) in enumerate(zip(layers, ways, strict=True)):
        mine = [j for j, part in enumerate(parts) if part.leaf == i]
        large = before[i].size >= LARGE
        past = next(remembered) if large else before[i]
        if way == "difference":
            change = after[i] - before[i]
            _add(kept, mine, parts, row, change, tally.per)
            continue
        # A rate in double precision moves parameters in single precision in theirs.
        scale = jnp.reshape(found[i].gradient[0], ()).astype(before[i].dtype)
        x, delta = _factors(layer)
        delta = scale * delta
        at = (carry.seen - 1) % len(before[i]) if large else slice(None)
        one = _outer(x, delta, layer.transposed, at)
        there = after[i][at] if after[i].ndim else after[i]
        off.append(jnp.where(current | (not large), _off(one, past, there, abs(scale) * steepest), 0))
        if way == "log":
            for kind in kept:
                sized = abs(delta) if kind == "absolute" else delta
                kept[kind][mine[0]] = kept[kind][mine[0]].at[w].add(sized)
        else:
            _add(kept, mine, parts, row, _outer(x, delta, layer.transposed, slice(None)), tally.per)
    return kept, jnp.max(jnp.stack(off))


@eqx.filter_jit
def tables(tally: Any, ways: Ways, kept: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The tallies (G + 1, ...) that the logs hold."""
    params = ways.like()
    inputs = tally.process.step.inputs(params)
    out = {kind: list(leaves) for kind, leaves in kept.items()}
    batch = _rows.batch_of(jnp.where(tally.groups < 0, tally.count, tally.groups), tally.count)
    for j, part in enumerate(tally._parts(params)):
        if ways.of[part.leaf] != "log":
            continue
        x, transposed = inputs[part.leaf]
        for kind in kept:
            rows, moved = jnp.abs(x) if kind == "absolute" else x, out[kind][j][:, None]
            # A unit's sum is over all axes but the last of its array.
            if tally.per == "module" or (tally.per == "unit" and not transposed):
                rows = jnp.sum(rows, axis=-1, keepdims=True)
            if tally.per == "module" or (tally.per == "unit" and transposed):
                moved = jnp.sum(moved, axis=-1, keepdims=True)
            shape = {"parameter": part.shape, "unit": part.shape[-1:], "module": ()}[tally.per]
            slopes = _rows.slopes_of(Layer(rows, moved, transposed), None, batch, tally.count)
            data, size = _rows.one_step(None, slopes, batch, None), slopes.left.shape[0]
            one = lambda i, data=data, size=size, shape=shape: _rows.gradient(data, 0, i, 0, size, shape)  # noqa: E731
            out[kind][j] = lax.map(one, jnp.arange(tally.count + 1))
    return out


def _factors(layer: Layer) -> tuple[Any, Any]:
    """What went in, and the gradient of what came out, of one datum; a bias has no inputs."""
    return None if layer.inputs is None else layer.inputs[0, 0], layer.cotangents[0, 0]


def _outer(x: Any, delta: Any, transposed: bool, at: Any) -> Any:
    """The change of the array, or of its entries `at` along the first axis."""
    if x is None:
        return delta[at]
    first, second = (delta, x) if transposed else (x, delta)
    first = first[at]
    return first[:, None] * second if first.ndim else first * second


def _largest(layer: Layer) -> Any:
    x, delta = _factors(layer)
    return jnp.max(jnp.abs(delta)) * (1 if x is None else jnp.max(jnp.abs(x)))


def _off(part: Any, before: Any, after: Any, sharp: Any) -> Any:
    """How far a part is from the change, as a part of it, beyond the rounding of both."""
    size = jnp.abs(part)
    known = jnp.maximum(jnp.abs(before), jnp.abs(after)) + sharp + jnp.max(size)
    off = jnp.maximum(jnp.abs(part - (after - before)) - jnp.finfo(part.dtype).eps * known, 0)
    return jnp.max(jnp.where(off == 0, 0, off / size))


def _add(kept: dict[str, list[Any]], mine: list[int], parts: list[Any], row: Any, change: Any, per: str) -> None:
    for kind, sums in kept.items():
        sized = jnp.abs(change) if kind == "absolute" else change
        for j in mine:
            part = parts[j]
            here = sized.reshape(part.shape) if part.local is None else sized.reshape(-1)[part.local]
            sums[j] = sums[j].at[row].add(summed(here, per, 0, -1))
