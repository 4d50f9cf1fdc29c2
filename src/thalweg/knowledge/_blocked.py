"""Steps of plain descent on batches, of which the factors are kept and added to the tallies several steps at a time.

A dense layer's gradient for a group is `X_g^T D_g`: what went in, times the gradient of what came out. A step of plain
descent is that gradient times a number, so that the factors of a few steps are all that is to be kept. Then one tile of
the weights and one group after the other is brought up to date for all of these steps: the tallies, (G + 1) times as
large as the weights, go through memory once for all.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg.knowledge import _rows
from thalweg.knowledge._factored import LARGE

STEPS = 8  # that are kept at most
MOST = 0.5  # of the bytes of a table, that its factors may take


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Plan:
    """The arrays whose factors are kept, by number; which of the tally's parts these are; how many steps are kept."""

    arrays: tuple[int, ...]
    parts: tuple[tuple[int, Any], ...]
    steps: int


class Kept(NamedTuple):
    """Steps that are not in the tallies yet; all but the last three lead with the steps.

    - `slopes`: of each array of the plan; a group's change is `left^T right` over its rows. - `starts`, `ends`: of each
      group in the sorted batch. - `sharp`: the rounding of the largest gradient, by array.
    - `count`: how many steps. - `last`, `since`: the arrays after the last of them, and less what these steps changed.
    - `small`: the small arrays after the last one, and `current`: whether each step began where the last had ended.
    """

    plan: Plan
    slopes: list[_rows.Slopes]
    starts: Any
    ends: Any
    sharp: Any
    count: Any
    since: list[Any]
    last: list[Any]
    small: list[Any]
    current: Any


def start(tally: Any, state: Any) -> Kept | tuple[()]:
    """Room for a few steps from this state; nothing where its steps are not of this kind.

    That is, for single data, momentum, clipping, optimizers that scale entry by entry, and small networks.
    """
    process = tally.process
    if process is None or process.layers is None:
        return ()
    w = jax.eval_shape(lambda: process.noise.sample(jax.random.key(0), jnp.zeros((), int)))
    leaves = jax.tree.leaves(state.params)
    split = tally._split(state.params)
    if not w.shape or split.remembers or split.scales or split.clipping != "none":
        return ()
    parts = tally._parts(state.params)

    def rows(state: Any) -> list[Any]:
        batch = _rows.batch_of(jnp.zeros(w.shape, int), tally.count, True)
        layers = process.layers(state, jnp.zeros(w.shape, w.dtype))
        found = [one if one is not None and one.inputs is not None else None for one in layers]
        return [None if one is None else _rows.slopes_of(one, None, batch, tally.count) for one in found]

    arrays, shapes, steps = [], [], STEPS
    for i, slopes in enumerate(jax.eval_shape(rows, state)):
        mine = [part for part in parts if part.leaf == i]
        whole = len(mine) == 1 and mine[0].local is None and mine[0].shape == leaves[i].shape
        if slopes is None or not whole or leaves[i].size < LARGE:
            continue
        fits = int(MOST * (tally.count + 1) * leaves[i].size / (slopes.left.size + slopes.right.size))
        if fits >= 2:
            arrays.append(i)
            shapes.append(slopes)
            steps = min(steps, fits)
    if not arrays:
        return ()
    room = lambda array: jnp.zeros((steps, *array.shape), array.dtype)  # noqa: E731
    none = jnp.zeros((steps, tally.count + 1), int)
    return Kept(
        Plan(tuple(arrays), tuple((n, part) for i in arrays for n, part in enumerate(parts) if part.leaf == i), steps),
        jax.tree.map(room, shapes),
        none,
        none,
        [jnp.zeros(steps, leaves[i].dtype) for i in arrays],
        jnp.zeros((), int),
        [leaves[i] for i in arrays],
        [leaves[i] for i in arrays],
        _small(leaves),
        jnp.ones((), bool),
    )


def keep(
    tally: Any,
    blocked: Kept,
    batch: _rows.Batch,
    slopes: list[Any],
    rates: list[Any],
    steepest: Any,
    before: list,
    after: list,
) -> Kept:
    """One more step. `batch` and `slopes` are those of `_rows`, `rates` what the gradients of each array are times."""
    groups = jnp.arange(blocked.starts.shape[1])
    ordered = batch.groups[batch.order]
    starts, ends = (jnp.searchsorted(ordered, groups, side=side, method="compare_all") for side in ("left", "right"))
    at = blocked.count
    put = lambda rows, one: lax.dynamic_update_index_in_dim(rows, one.astype(rows.dtype), at, 0)  # noqa: E731
    mine = [dataclasses.replace(slopes[i], right=rates[i] * slopes[i].right) for i in blocked.plan.arrays]
    same = [jnp.all(a == b) for a, b in zip(_small(before), blocked.small, strict=True)]
    if tally.every == 1 and tally.window is None:
        since, current = blocked.since, blocked.current & jnp.all(jnp.stack([jnp.asarray(True), *same]))
    else:  # what the steps in between changed is taken off
        olds = [before[i] for i in blocked.plan.arrays]
        since = [s + (b - a) for s, b, a in zip(blocked.since, olds, blocked.last, strict=True)]
        current = blocked.current
    return blocked._replace(
        slopes=jax.tree.map(put, blocked.slopes, mine),
        starts=put(blocked.starts, starts),
        ends=put(blocked.ends, ends),
        sharp=[put(s, abs(rates[i]) * steepest) for s, i in zip(blocked.sharp, blocked.plan.arrays, strict=True)],
        count=at + 1,
        since=since,
        last=[after[i] for i in blocked.plan.arrays],
        small=_small(after),
        current=current,
    )


def add_full(tally: Any, carry: Any) -> Any:
    """`carry`, with the steps that it keeps added to its tallies if there is no room for more."""
    full = (carry.blocked.count == carry.blocked.plan.steps).astype(int)
    return lax.fori_loop(0, full, lambda _, c: add(tally, c), carry)


def add(tally: Any, carry: Any) -> Any:
    """`carry`, with the steps that it keeps added to its tallies."""
    blocked = carry.blocked
    kept, structure = {}, None
    for kind, tree in carry.kept.items():
        kept[kind], structure = jax.tree.flatten(tree)
    none = blocked.count == 0
    off, largest, moved = carry.conservation, [], []
    for j, (at, part) in enumerate(blocked.plan.parts):
        tables = [kept[kind][at] for kind in kept]
        tables, measured = _array(tally, blocked, j, list(kept), part, tables)
        for kind, table in zip(kept, tables, strict=True):
            kept[kind][at] = table
        off = jnp.maximum(off, jnp.where(blocked.current, measured.off, 0))
        largest.append(measured.largest)
        moved.append(measured.moved)
    size, far = jnp.max(jnp.stack(largest)), jnp.max(jnp.stack(moved))
    cancelling = jnp.where(none | (size == 0), 1, size / far)
    return carry._replace(
        kept={kind: jax.tree.unflatten(structure, leaves) for kind, leaves in kept.items()},
        conservation=off,
        cancellation=jnp.maximum(carry.cancellation, cancelling),
        blocked=blocked._replace(
            count=jnp.zeros_like(blocked.count),
            since=blocked.last,
            current=jnp.ones_like(blocked.current),
        ),
    )


add_now = eqx.filter_jit(add)


def _array(
    tally: Any, blocked: Kept, j: int, kinds: list[str], part: Any, tables: list[Any]
) -> tuple[list[Any], _rows.Measured]:
    """The steps of one array added to its tables."""
    slopes, before, after = blocked.slopes[j], blocked.since[j], blocked.last[j]
    rows, block = slopes.per, slopes.block
    size = before.shape[0]
    tile = _rows.tile_of(before)
    eps = jnp.finfo(before.dtype).eps

    def one_tile(t: Any, carried: tuple) -> tuple:
        tables, measured = carried
        cut = lambda array: lax.dynamic_slice_in_dim(array, t * tile, tile, 0)  # noqa: E731
        here, there = cut(before), cut(after)
        zero = jnp.zeros_like(here)

        def one_group(g: Any, carried: tuple) -> tuple:
            tables, total, sizes = carried

            def one_step(k: Any, sums: tuple) -> tuple:
                start, end = blocked.starts[k, g] * rows, blocked.ends[k, g] * rows

                def product(n: Any) -> Any:
                    at = start + n * block
                    inside = (at + jnp.arange(block) < end)[:, None]
                    left = lax.dynamic_slice(slopes.left, (k, at, t * tile), (1, block, tile))[0]
                    right = lax.dynamic_slice(slopes.right, (k, at, 0), (1, block, slopes.right.shape[2]))[0]
                    return jnp.where(inside, left, 0).T @ right

                blocks = -((start - end) // block)
                change = lax.fori_loop(1, blocks, lambda n, sum: sum + product(n), product(0))
                return sums[0] + change, sums[1] + jnp.abs(change)

            went, moved = lax.fori_loop(0, blocked.count, one_step, (zero, zero))
            tables = [
                _rows.added(table, g, t * tile, moved if kind == "absolute" else went, part, tally.per)
                for kind, table in zip(kinds, tables, strict=True)
            ]
            return tables, total + went, sizes + moved

        tables, total, sizes = lax.fori_loop(0, tally.count + 1, one_group, (tables, zero, zero))
        # The change is known to the rounding of the parameter in every step, a gradient to that of the largest.
        steps = jnp.arange(blocked.plan.steps) < blocked.count
        sharp = jnp.sum(jnp.where(steps, blocked.sharp[j], 0))
        known = blocked.count * (jnp.maximum(jnp.abs(here), jnp.abs(there)) + sizes) + sharp + jnp.max(sizes)
        off = jnp.maximum(jnp.abs(total - (there - here)) - eps * known, 0)
        now = _rows.Measured(
            jnp.max(jnp.where(off == 0, 0, off / sizes)), jnp.max(sizes), jnp.max(jnp.abs(there - here))
        )
        return tables, _rows.Measured(*map(jnp.maximum, measured, now))

    start = (tables, _rows.Measured(*jnp.zeros((3,), before.dtype)))
    return lax.fori_loop(0, size // tile, one_tile, start)


def _small(leaves: list[Any]) -> list[Any]:
    return [leaf for leaf in leaves if leaf.size < LARGE]
