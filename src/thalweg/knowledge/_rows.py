"""One step divided among the groups of its batch, array by array and tile by tile.

The parts of a step are (G + 1) times as large as the parameters. They are made for one tile of an array and one group
at a time, so that they stay in the processor's cache, and only the tallies themselves go through memory. Dense layers
give a group's gradient as one product over the group's rows of the batch, which is sorted by group for this.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from thalweg.knowledge._attribution import Coefficients, combined
from thalweg.knowledge._tallied import summed

TILE = 2**17  # bytes of a tile: a few of them fit a core's cache


class Batch(NamedTuple):
    """A batch sorted by group: groups of its slots, their order, the rows it touches, and where each has slots."""

    groups: Any
    order: Any
    visited: Any
    starts: Any
    ends: Any
    count: Any


def batch_of(groups: Any, others: int, all_rows: bool) -> Batch:
    """The batch with slots in `groups` (`others` is no group); `all_rows` if groups that are absent move too."""
    groups = jnp.reshape(groups, (-1,))
    order = jnp.argsort(groups)
    ordered = groups[order]
    if all_rows:
        visited, count = jnp.arange(others + 1), others + 1
    else:
        first = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
        visited = ordered[jnp.nonzero(first, size=len(groups), fill_value=0)[0]]
        count = jnp.sum(first)
    starts, ends = (jnp.searchsorted(ordered, visited, side=side, method="compare_all") for side in ("left", "right"))
    return Batch(groups, order, visited, starts, ends, count)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slopes:
    """Where the gradients of one array by group come from: rows of a dense layer, or one gradient a group.

    The gradient of a group is `left^T right` over its rows of the sorted batch (`per` rows a datum), or the sum of
    `left`.
    """

    left: Any
    right: Any
    per: int = dataclasses.field(metadata={"static": True})
    block: int = dataclasses.field(metadata={"static": True})
    stacked: Any

    @property
    def largest(self) -> Any:
        """The size of the largest gradient of one row."""
        if self.stacked is not None:
            return jnp.max(jnp.abs(self.stacked))
        right = 1.0 if self.right is None else jnp.max(jnp.abs(self.right))
        return jnp.max(jnp.abs(self.left)) * right


def slopes_of(layer: Any, stacked: Any, batch: Batch, groups: int) -> Slopes:
    """The gradients of one array, from its layer or, where it is none, from one gradient a group (and for no group)."""
    if layer is None:
        return Slopes(None, None, 1, 1, stacked)
    data, per = layer.cotangents.shape[:2]
    # Most groups should fit one block; longer ones take several.
    block = min(data * per, max(8, math.ceil(data * per / (8 * min(groups + 1, data))) * 8))

    def rows(array: Any) -> Any:
        if array is None:
            return None
        array = array[batch.order].reshape(data * per, -1)
        return jnp.concatenate([array, jnp.zeros((block, array.shape[1]), array.dtype)])

    first, second = (layer.cotangents, layer.inputs) if layer.transposed else (layer.inputs, layer.cotangents)
    return Slopes(rows(second if first is None else first), None if first is None else rows(second), per, block, None)


def gradient(slopes: Slopes, batch: Batch, i: Any, cut: Callable[[Any, int], Any], shape: tuple[int, ...]) -> Any:
    """The gradient of one tile by the i-th group visited; `cut(array, axis)` takes the tile out of an array."""
    if slopes.stacked is not None:
        return cut(slopes.stacked[batch.visited[i]], 0)
    start, end = batch.starts[i] * slopes.per, batch.ends[i] * slopes.per

    def block(j: Any) -> Any:
        at = start + j * slopes.block
        inside = (at + jnp.arange(slopes.block) < end)[:, None]
        left = jnp.where(inside, cut(lax.dynamic_slice_in_dim(slopes.left, at, slopes.block), 1), 0)
        if slopes.right is None:
            return jnp.sum(left, axis=0)
        return left.T @ lax.dynamic_slice_in_dim(slopes.right, at, slopes.block)

    blocks = -((start - end) // slopes.block)
    return lax.fori_loop(1, blocks, lambda j, total: total + block(j), block(0)).reshape(shape)


class Measured(NamedTuple):
    """How a step's parts compare with its change; see `Tallied`."""

    off: Any
    largest: Any
    moved: Any


class Faded(NamedTuple):
    """What became of the momenta of one array since the last tallied step.

    - `falls[k][i]`: what is left in momentum k of what momentum i was then. - `now`, `then`: the optimizer's momenta.
    """

    falls: list[list[Any]]
    now: list[Any]
    then: list[Any]


def divide(
    c: Coefficients,
    slopes: Slopes,
    batch: Batch,
    others: int,
    kept: list[tuple[Any, str, Any]],
    shares: list[Any],
    faded: Faded | None,
    before: Any,
    after: Any,
    steepest: Any,
    per: str,
) -> tuple[list[Any], list[Any], Measured]:
    """Add one step of one array to the tallies.

    - `others`: the row of what no group caused. - `kept`: (tally, its kind, which entries of the array it is of).
    - `shares`: the groups' parts of the momenta; `faded`: how those have faded since the last tallied step, if at all.

    **Returns** the tallies, the momenta's parts, and what the step measured.
    """
    if faded is not None:
        # What has entered the momenta since then is nobody's.
        left = [sum(f * m for f, m in zip(line, faded.then, strict=True)) for line in faded.falls]
        entered = [now - old for now, old in zip(faded.now, left, strict=True)]
    whole = all(part.local is None and part.shape == before.shape for _, _, part in kept)
    size = before.shape[0] if before.ndim else 1
    tile = tile_of(before) if whole else size

    def one_tile(t: Any, carried: tuple) -> tuple:
        tallies, shares, measured = carried

        def cut(array: Any, axis: int) -> Any:
            if tile == size or array.shape[axis] != size:
                return array
            return lax.dynamic_slice_in_dim(array, t * tile, tile, axis)

        here = cut(before, 0) if before.ndim else before
        coefficients = jax.tree.map(lambda leaf: cut(leaf, 0) if jnp.ndim(leaf) else leaf, c)
        if faded is not None:
            falls, new = jax.tree.map(lambda leaf: cut(leaf, 0) if jnp.ndim(leaf) else leaf, (faded.falls, entered))

        def one_row(i: Any, carried: tuple) -> tuple:
            tallies, renewed, total, sizes = carried
            row = batch.visited[i]
            slope = gradient(slopes, batch, i, cut if before.ndim else lambda array, axis: array, here.shape)
            memory = [_read(share, row, t * tile, here) for share in shares]
            if faded is not None:
                past = [sum(f * m for f, m in zip(line, memory, strict=True)) for line in falls]
                memory = [p + jnp.where(row == others, n, 0) for p, n in zip(past, new, strict=True)]
            # Decay, and whatever else does not come from a gradient, is nobody's.
            made = [
                combined(coefficients, k, slope, memory) + jnp.where(row == others, rest, 0)
                for k, rest in enumerate(coefficients.rest)
            ]
            change = made[0]
            renewed = [_write(new, row, 0, one) for new, one in zip(renewed, made[1:], strict=True)]
            tallies = [
                added(tally, row, t * tile, jnp.abs(change) if kind == "absolute" else change, part, per)
                for tally, (_, kind, part) in zip(tallies, kept, strict=True)
            ]
            return tallies, renewed, total + change, sizes + jnp.abs(change)

        zero = jnp.zeros_like(here)
        # The new momenta of a tile are put back together: rows that are read and written in one turn would be copied.
        renewed = [jnp.zeros((others + 1, *here.shape), share.dtype) for share in shares]
        tallies, renewed, total, sizes = lax.fori_loop(0, batch.count, one_row, (tallies, renewed, zero, zero))
        shares = [
            lax.dynamic_update_slice(share, new, _at(0, t * tile, share))
            for share, new in zip(shares, renewed, strict=True)
        ]
        there = cut(after, 0) if before.ndim else after
        # The change is known to the rounding of the parameter, a gradient to that of the largest in the backward pass.
        known = (
            jnp.maximum(jnp.abs(here), jnp.abs(there)) + jnp.abs(coefficients.gradient[0]) * steepest + jnp.max(sizes)
        )
        off = jnp.maximum(jnp.abs(total - (there - here)) - jnp.finfo(here.dtype).eps * known, 0)
        now = Measured(jnp.max(jnp.where(off == 0, 0, off / sizes)), jnp.max(sizes), jnp.max(jnp.abs(total)))
        return tallies, shares, Measured(*map(jnp.maximum, measured, now))

    start = ([tally for tally, _, _ in kept], shares, Measured(*jnp.zeros((3,), before.dtype)))
    return lax.fori_loop(0, size // tile, one_tile, start) if tile < size else one_tile(0, start)


def tile_of(array: Any) -> int:
    """Rows of an array in one tile: a divisor of their number."""
    size = array.shape[0] if array.ndim else 1
    row = max(1, array.size // max(1, size)) * array.dtype.itemsize
    most = max(1, TILE // row)
    return next(tile for tile in range(min(most, size), 0, -1) if size % tile == 0)


def _at(row: Any, start: Any, array: Any) -> tuple[Any, ...]:
    return (row, start, *[0] * (array.ndim - 2)) if array.ndim > 1 else (row,)


def _read(array: Any, row: Any, start: Any, like: Any) -> Any:
    return lax.dynamic_slice(array, _at(row, start, array), (1, *like.shape))[0]


def _write(array: Any, row: Any, start: Any, value: Any) -> Any:
    return lax.dynamic_update_slice(array, value[None].astype(array.dtype), _at(row, start, array))


def added(tally: Any, row: Any, start: Any, change: Any, part: Any, per: str) -> Any:
    """A tally with a part of the step added to its row."""
    if per == "parameter" and part.local is None and tally.shape[1:] == part.shape:
        same = tally.ndim == change.ndim + 1 and tally.shape[2:] == change.shape[1:]
        if same:
            return _write(tally, row, start, _read(tally, row, start, change) + change)
    value = change if part.local is None else change.reshape(-1)[part.local]
    return tally.at[row].add(
        summed(value.reshape(part.shape) if value.size == math.prod(part.shape) else value, per, 0, -1)
    )
