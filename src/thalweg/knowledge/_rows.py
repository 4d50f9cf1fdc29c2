"""Steps divided among the groups of their batches, array by array and tile by tile.

The parts of a step are (G + 1) times as large as the parameters. They are made for one tile of an array and one group
at a time, so that they stay in the processor's cache, and only the tallies themselves go through memory. Dense layers
give a group's gradient as one product over the group's rows of the batch, which is sorted by group for this. Where
several steps are divided at once, a tile of the tallies goes through memory once for all of them.
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
AT_ONCE = 2**17  # numbers; an array whose parts by group are no more is divided in one piece
AT_ONCE_THERE = 2**27  # on an accelerator, which has memory to spare, and for which a tile is no work


def on_cpu() -> bool:
    """Whether the run is on CPUs."""
    device = jax.config.jax_default_device
    return getattr(device, "platform", device or jax.default_backend()) == "cpu"


def in_one_piece(entries: int, groups: int) -> bool:
    """Whether the parts of so many entries, by group and of none, are all made at once."""
    return (groups + 1) * entries <= (AT_ONCE if on_cpu() else AT_ONCE_THERE)


class Batch(NamedTuple):
    """A batch sorted by group: the groups of its slots, their order, and where each group starts and ends in it."""

    groups: Any
    order: Any
    starts: Any
    ends: Any


def batch_of(groups: Any, others: int) -> Batch:
    """The batch with slots in `groups` (`others` is no group)."""
    groups = jnp.reshape(groups, (-1,))
    counts = jnp.zeros(others + 1, int).at[groups].add(1)
    ends = jnp.cumsum(counts)
    return Batch(groups, jnp.argsort(groups), ends - counts, ends)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slopes:
    """Where the gradients of one array by group come from: rows of a dense layer, or one gradient a group.

    The gradient of a group is `left right` over its columns of `left` and rows of `right`, those of the sorted batch
    (`per` of them a datum), or the sum over its columns of `left`.
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


def gradients(layer: Any, groups: Any, others: int, shape: tuple[int, ...]) -> Any:
    """The gradients (G + 1, ...) of one layer by group; `groups` are those of the batch."""
    rows = lambda array: array.reshape(-1, array.shape[-1])  # noqa: E731
    mine = jnp.reshape(groups, (-1, 1)) == jnp.arange(others + 1)
    mine = jnp.repeat(mine, layer.cotangents.shape[1], axis=0).astype(layer.cotangents.dtype)
    if layer.inputs is None:
        return (mine.T @ rows(layer.cotangents)).reshape(-1, *shape)
    first, second = (layer.cotangents, layer.inputs) if layer.transposed else (layer.inputs, layer.cotangents)
    return jnp.einsum("rg,ri,rj->gij", mine, rows(first), rows(second))


def slopes_of(layer: Any, stacked: Any, batch: Batch, groups: int) -> Slopes:
    """The gradients of one array, from its layer or, where it is none, from one gradient a group (and for no group)."""
    if layer is None:
        return Slopes(None, None, 1, 1, stacked)
    data, per = layer.cotangents.shape[:2]
    # Most groups should fit one block; longer ones take several.
    block = min(data * per, max(8, math.ceil(data * per / (8 * min(groups + 1, data))) * 8))

    def rows(array: Any) -> Any:
        array = array[batch.order].reshape(data * per, -1)
        return jnp.concatenate([array, jnp.zeros((block, array.shape[1]), array.dtype)])

    first, second = (layer.cotangents, layer.inputs) if layer.transposed else (layer.inputs, layer.cotangents)
    if layer.inputs is None:
        return Slopes(rows(layer.cotangents).T, None, per, block, None)
    return Slopes(rows(first).T, rows(second), per, block, None)


class Steps(NamedTuple):
    """Steps of one array. All but `count` (how many there are, if fewer than there is room for) lead with the steps.

    - `starts`, `ends`: of each group in the sorted batch. - `steepest`: the largest gradient, whose rounding is known.
    """

    coefficients: Coefficients
    slopes: Slopes
    starts: Any
    ends: Any
    steepest: Any
    count: Any = None


def one_step(c: Any, slopes: Slopes, batch: Batch, steepest: Any) -> Steps:
    """A single step."""
    lead = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)  # noqa: E731
    return Steps(*lead((c, slopes, batch.starts, batch.ends, steepest)))


class Tiles(NamedTuple):
    """An array and its tables as so many rows, in tiles of so many rows."""

    rows: int
    tile: int


def dividing(array: Any, tiled: bool = True) -> Tiles:
    """Tiles that divide an array; one if it is not `tiled`."""
    size = array.shape[0] if array.ndim else 1
    most = rows_of_tile(array) if tiled else size
    return Tiles(size, next(tile for tile in range(min(most, size), 0, -1) if size % tile == 0))


def rows_of_tile(array: Any) -> int:
    """How many rows of an array make a tile."""
    row = max(1, array.size // max(1, array.shape[0] if array.ndim else 1)) * array.dtype.itemsize
    return max(1, TILE // row)


def gradient(steps: Steps, k: Any, row: Any, first: Any, rows: int, shape: tuple[int, ...]) -> Any:
    """The gradient of one group in step k, of the tile of this shape: so many rows of the array from `first` on."""
    slopes = steps.slopes
    if slopes.stacked is not None:
        return _read(slopes.stacked[k], row, first, shape)
    start, end = steps.starts[k, row] * slopes.per, steps.ends[k, row] * slopes.per

    def block(j: Any) -> Any:
        at = start + j * slopes.block
        inside = at + jnp.arange(slopes.block) < end
        left = lax.dynamic_slice(slopes.left, (k, first, at), (1, rows, slopes.block))[0]
        if slopes.right is None:
            return jnp.sum(jnp.where(inside, left, 0), axis=1)
        right = lax.dynamic_slice(slopes.right, (k, at, 0), (1, slopes.block, slopes.right.shape[2]))[0]
        return left @ jnp.where(inside[:, None], right, 0)

    blocks = -((start - end) // slopes.block)
    return lax.fori_loop(1, blocks, lambda j, total: total + block(j), block(0)).reshape(shape)


class Measured(NamedTuple):
    """How the parts compare with the change; see `Tallied`."""

    off: Any
    largest: Any
    moved: Any


def divide(
    steps: Steps,
    tiles: Tiles,
    shape: tuple[int, ...],
    all_rows: bool,
    kept: list[tuple[Any, str, Any]],
    shares: list[Any],
    compared: Callable[[Any, tuple[int, ...]], tuple[Any, Any, Any]],
    per: str,
) -> tuple[list[Any], list[Any], Measured]:
    """Add steps of one array, of this shape, to its tallies.

    - `all_rows`: whether groups that are absent move too. - `kept`: (tally, its kind, which entries of the array it is
      of). - `shares`: the groups' parts of the momenta. - `compared(first, shape)`: a tile before and after the steps,
      and whether they are to be compared.

    **Returns** the tallies, the momenta's parts, and what was measured.
    """
    most, others = steps.starts.shape[0], steps.starts.shape[1] - 1
    count = most if steps.count is None else steps.count
    steepest = jnp.where(jnp.arange(most) < count, steps.steepest, 0)
    shape = (tiles.tile, *shape[1:]) if shape else ()
    groups, visited, turns, turned = _visits(steps, count, all_rows)

    def one_tile(t: Any, carried: tuple) -> tuple:
        tallies, shares, measured = carried
        first = t * tiles.tile

        def at_step(k: Any) -> Coefficients:
            return jax.tree.map(lambda leaf: _tile(leaf, k, first, shape), steps.coefficients)

        def one_row(i: Any, carried: tuple) -> tuple:
            tallies, shares, total, sizes = carried
            row = groups[i]

            def one_step(n: Any, carried: tuple) -> tuple:
                memory, went, moved = carried
                k = turns[row, n]
                slope = gradient(steps, k, row, first, tiles.tile, shape)
                now = at_step(k)
                # Decay, and whatever else does not come from a gradient, is nobody's.
                made = [
                    combined(now, j, slope, memory) + jnp.where(row == others, rest, 0)
                    for j, rest in enumerate(now.rest)
                ]
                memory = [one.astype(old.dtype) for one, old in zip(made[1:], memory, strict=True)]
                return memory, went + made[0].astype(went.dtype), moved + jnp.abs(made[0]).astype(went.dtype)

            memory = [_read(share, row, first, shape) for share in shares]
            start = (memory, zero, zero)
            # Momenta that are read and written again without a loop between would be copied, whole.
            once = most == 1 and not shares
            memory, went, moved = one_step(0, start) if once else lax.fori_loop(0, turned[row], one_step, start)
            tallies = [
                _added(tally, row, first, moved if kind == "absolute" else went, part, per)
                for tally, (_, kind, part) in zip(tallies, kept, strict=True)
            ]
            shares = [_write(share, row, first, one) for share, one in zip(shares, memory, strict=True)]
            return tallies, shares, total + went, sizes + moved

        zero = jnp.zeros(shape, steps.steepest.dtype)
        tallies, shares, total, sizes = lax.fori_loop(0, visited, one_row, (tallies, shares, zero, zero))
        before, after, due = compared(first, shape)

        def off(_: Any, most_off: Any) -> Any:
            # A gradient is known to the rounding of the largest.
            rate = lambda k: jnp.abs(combined(at_step(k), 0, steepest[k], [0] * len(shares)))  # noqa: E731
            none = (most_off < 0).astype(int)  # 0; the compiler does not know, and so does not do this ahead each time
            sharp = jnp.sum(jax.vmap(rate)(jnp.arange(most) + none), axis=0)
            return jnp.maximum(most_off, _off(total, sizes, before, after, count, sharp).astype(most_off.dtype))

        worst = off(0, measured.off) if due is True else lax.fori_loop(0, due.astype(int), off, measured.off)
        largest, moved = (
            jnp.maximum(old, jnp.max(new)) for old, new in zip(measured[1:], (sizes, abs(total)), strict=True)
        )
        return tallies, shares, Measured(worst, largest, moved)

    start = ([tally for tally, _, _ in kept], shares, Measured(*jnp.zeros((3,), steps.steepest.dtype)))
    if tiles.tile == tiles.rows:
        return one_tile(0, start)
    return lax.fori_loop(0, tiles.rows // tiles.tile, one_tile, start)


def divide_at_once(
    c: Coefficients,
    gradients: Any,
    kept: list[tuple[Any, str, Any]],
    shares: list[Any],
    before: Any,
    after: Any,
    steepest: Any,
    per: str,
) -> tuple[list[Any], list[Any], Measured]:
    """`divide` for one step of a small array, whose `gradients` lead with the groups."""
    made = [combined(c, j, gradients, shares).at[-1].add(rest) for j, rest in enumerate(c.rest)]
    change, groups = made[0].astype(before.dtype), len(gradients)

    def of(part: Any, value: Any) -> Any:
        value = value.reshape(groups, -1)
        return value.reshape(groups, *part.shape) if part.local is None else value[:, part.local]

    tallies = [
        tally + summed(of(part, abs(change) if kind == "absolute" else change), per, 1, -1).astype(tally.dtype)
        for tally, kind, part in kept
    ]
    total, sizes = jnp.sum(change, axis=0), jnp.sum(jnp.abs(change), axis=0)
    sharp = jnp.abs(combined(c, 0, steepest, [0] * len(shares)))
    measured = Measured(_off(total, sizes, before, after, 1, sharp), jnp.max(sizes), jnp.max(jnp.abs(total)))
    return tallies, [one.astype(old.dtype) for one, old in zip(made[1:], shares, strict=True)], measured


def _off(total: Any, sizes: Any, before: Any, after: Any, count: Any, sharp: Any) -> Any:
    """How far the parts miss the change in so many steps, as a part of their size, beyond what is known of it."""
    # In every step the change is known to the rounding of the parameter.
    known = count * jnp.maximum(jnp.abs(before), jnp.abs(after)) + (count - 1) * sizes + jnp.max(sizes)
    off = jnp.abs(total - (after - before)) - jnp.finfo(total.dtype).eps * (known + sharp.astype(known.dtype))
    off = jnp.maximum(off, 0)
    return jnp.max(jnp.where(off == 0, 0, off / sizes))


def _visits(steps: Steps, count: Any, all_rows: bool) -> tuple[Any, Any, Any, Any]:
    """The groups that move and their number; by group, the steps in which it does, and how many."""
    most, groups = steps.starts.shape
    every = jnp.arange(most)
    if all_rows:
        return jnp.arange(groups), groups, jnp.tile(every, (groups, 1)), jnp.full(groups, count)
    busy = (steps.ends > steps.starts) & (every < count)[:, None]
    first = lambda true: jnp.nonzero(true, size=len(true), fill_value=0)[0]  # noqa: E731
    moving = jnp.any(busy, axis=0)
    turns = jax.vmap(first, 1)(busy) if most > 1 else jnp.zeros((groups, 1), int)
    return first(moving), jnp.sum(moving), turns, jnp.sum(busy, axis=0)


def _tile(leaf: Any, k: Any, first: Any, shape: tuple[int, ...]) -> Any:
    """A tile of an array's numbers in step k; one number that holds for all entries is left."""
    return leaf[k] if leaf.ndim == 1 or leaf.shape[1] == 1 else _read(leaf, k, first, shape)


def _at(row: Any, start: Any, array: Any) -> tuple[Any, ...]:
    return (row, start, *[0] * (array.ndim - 2)) if array.ndim > 1 else (row,)


def _read(array: Any, row: Any, start: Any, shape: tuple[int, ...]) -> Any:
    return lax.dynamic_slice(array, _at(row, start, array), (1, *shape))[0]


def _write(array: Any, row: Any, start: Any, value: Any) -> Any:
    return lax.dynamic_update_slice(array, value[None].astype(array.dtype), _at(row, start, array))


def _added(tally: Any, row: Any, start: Any, change: Any, part: Any, per: str) -> Any:
    """A tally with a part of the steps added to its row."""
    whole = per == "parameter" and part.local is None and tally.ndim == change.ndim + 1
    if whole and tally.shape[2:] == change.shape[1:]:
        return _write(tally, row, start, _read(tally, row, start, change.shape) + change)
    value = change if part.local is None else change.reshape(-1)[part.local]
    return tally.at[row].add(
        summed(value.reshape(part.shape) if value.size == math.prod(part.shape) else value, per, 0, -1)
    )
