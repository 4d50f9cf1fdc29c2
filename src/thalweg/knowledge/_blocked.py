"""Steps on batches that are kept for a while, and divided among the groups several at a time.

A dense layer's gradient for a group is `X_g^T D_g`: what went in, times the gradient of what came out. With these
factors of a few steps, and the coefficients of the optimizer's rule in each, one tile of the weights and one group
after the other is brought up to date for all of them: the tallies and the groups' momenta, each (G + 1) times as large
as the weights, go through memory once for all. They are filled up to whole tiles.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg.knowledge import _rows
from thalweg.knowledge._factored import LARGE

STEPS = 16  # that are kept at most
MOST = 1.0  # of the bytes of the tables, that what is kept may take


@dataclasses.dataclass(frozen=True)
class Array:
    """One array that is divided late: its number, its shape, the part of the tally that it is, the number of that part.

    - `tiles`: those of its tables, the last of which may reach beyond the array. - `slots`: its momenta among those of
      all arrays.
    """

    number: int
    shape: tuple[int, ...]
    part: Any
    at: int
    tiles: _rows.Tiles
    slots: tuple[int, ...]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Plan:
    """The arrays that are divided late, how many steps are kept, and whether groups that are absent move too."""

    arrays: tuple[Array, ...]
    steps: int
    all_rows: bool

    def __contains__(self, number: int) -> bool:
        return any(array.number == number for array in self.arrays)


class Kept(NamedTuple):
    """Steps that are not in the tallies yet.

    - `steps`: those of each array, `count` of them. - `turn`: how often steps were added; it chooses the tile of each
      array on which they are checked. - `since`, `ended`, `last`: that tile before the first of the steps, less what
      was not tallied since; after the last of them; and now. - `small`: the small arrays now. - `current`: whether each
      step began where the last had ended.
    """

    plan: Plan
    steps: list[_rows.Steps]
    count: Any
    turn: Any
    since: list[Any]
    ended: list[Any]
    last: list[Any]
    small: list[Any]
    current: Any


def start(tally: Any, state: Any) -> Kept | tuple[()]:
    """Room for a few steps from this state; nothing where its steps are not of this kind.

    That is, for single data and small networks. On an accelerator, whose memory is quick, nothing is gained.
    """
    process = tally.process
    if process is None or process.layers is None or not _rows.on_cpu():
        return ()
    w = jax.eval_shape(lambda: process.noise.sample(jax.random.key(0), jnp.zeros((), int)))
    leaves = jax.tree.leaves(state.params)
    split = tally._split(state.params)
    if not w.shape:
        return ()

    past = tally._past(split, state)

    def look(state: Any, w: Any) -> list[Any]:
        batch = _rows.batch_of(jnp.zeros(w.shape, int), tally.count)
        found = zip(process.layers(state, w), tally._coefficients(split, past, state, w, state), leaves, strict=True)
        return [
            None
            if layer is None or layer.inputs is None
            else _rows.one_step(c, _rows.slopes_of(layer, None, batch, tally.count), batch, jnp.zeros((), leaf.dtype))
            for layer, c, leaf in found
        ]

    parts, most = tally._parts(state.params), STEPS
    arrays, kept, slots = [], [], 0
    for i, (leaf, one) in enumerate(zip(leaves, jax.eval_shape(look, state, w), strict=True)):
        own = tuple(range(slots, slots := slots + len(split.memories[i])))
        mine = [(at, part) for at, part in enumerate(parts) if part.leaf == i]
        whole = len(mine) == 1 and mine[0][1].local is None and mine[0][1].shape == leaf.shape
        if one is None or not whole or leaf.size < LARGE:
            continue
        tables = (len(tally.kinds) + len(own)) * (tally.count + 1) * leaf.size
        fits = int(MOST * tables / sum(number.size for number in jax.tree.leaves(one)))
        if fits >= 2:
            at, part = mine[0]
            arrays.append(Array(i, leaf.shape, part, at, _tiles(leaf), own))
            kept.append(one)
            most = min(most, fits)
    if not arrays:
        return ()
    plan = Plan(tuple(arrays), most, split.remembers)
    tiles, none = _checked(plan, leaves, 0), jnp.zeros((), int)
    steps = [_room(array, one, most) for array, one in zip(arrays, kept, strict=True)]
    return Kept(plan, steps, none, none, tiles, tiles, tiles, _small(leaves), jnp.ones((), bool))


def keep(blocked: Kept, steps: list[_rows.Steps], before: list[Any], after: list[Any]) -> Kept:
    """One more step, of every array; `before` and `after` it the parameters were these.

    Of `before` only small arrays are looked at: a large one would have to be copied.
    """

    def put(room: Any, one: Any) -> Any:
        return lax.dynamic_update_slice(room, one.astype(room.dtype), (blocked.count, *[0] * (room.ndim - 1)))

    mine = [steps[array.number] for array in blocked.plan.arrays]
    same = [jnp.all(a == b) for a, b in zip(_small(before), blocked.small, strict=True)]
    return blocked._replace(
        steps=jax.tree.map(put, blocked.steps, mine),
        count=blocked.count + 1,
        since=[a + (b - c) for a, b, c in zip(blocked.since, blocked.last, blocked.ended, strict=True)],
        ended=_checked(blocked.plan, after, blocked.turn),
        current=blocked.current & jnp.all(jnp.stack([jnp.ones((), bool), *same])),
    )


def follow(blocked: Kept, params: Any) -> Kept:
    """What is to be remembered of the parameters after a step, whether it was kept or not."""
    leaves = jax.tree.leaves(params)
    last, none = _checked(blocked.plan, leaves, blocked.turn), blocked.count == 0
    return blocked._replace(
        since=[jnp.where(none, new, old) for new, old in zip(last, blocked.since, strict=True)],
        ended=[jnp.where(none, new, old) for new, old in zip(last, blocked.ended, strict=True)],
        last=last,
        small=_small(leaves),
    )


def add_full(tally: Any, carry: Any) -> Any:
    """`carry`, with the steps that it keeps added to its tallies if there is no room for more."""
    full = (carry.blocked.count == carry.blocked.plan.steps).astype(int)
    return lax.fori_loop(0, full, lambda _, c: add(tally, c), carry)


def add(tally: Any, carry: Any) -> Any:
    """`carry`, with the steps that it keeps added to its tallies."""
    blocked = carry.blocked
    kept, shares, measured = {kind: jax.tree.leaves(tree) for kind, tree in carry.kept.items()}, list(carry.shares), []
    for j, array in enumerate(blocked.plan.arrays):
        steps = blocked.steps[j]._replace(count=blocked.count)
        chosen = _turn(array, blocked.turn)

        def compared(first: Any, shape: Any, j: int = j, chosen: Any = chosen) -> tuple[Any, Any, Any]:
            return blocked.since[j], blocked.ended[j], blocked.current & (first == chosen)

        mine = [(kept[kind][array.at], kind, array.part) for kind in kept]
        own = [shares[slot] for slot in array.slots]
        new, own, one = _rows.divide(
            steps, array.tiles, array.shape, blocked.plan.all_rows, mine, own, compared, tally.per
        )
        measured.append(one)
        for kind, table in zip(kept, new, strict=True):
            kept[kind][array.at] = table
        for slot, table in zip(array.slots, own, strict=True):
            shares[slot] = table
    off, largest, moved = (jnp.max(jnp.stack(values)) for values in zip(*measured, strict=True))
    return carry._replace(
        kept={kind: jax.tree.unflatten(jax.tree.structure(carry.kept[kind]), leaves) for kind, leaves in kept.items()},
        shares=tuple(shares),
        conservation=jnp.maximum(carry.conservation, off),
        cancellation=jnp.maximum(carry.cancellation, jnp.where(largest == 0, 1, largest / moved)),
        blocked=blocked._replace(
            count=jnp.zeros_like(blocked.count), turn=blocked.turn + 1, current=jnp.ones_like(blocked.current)
        ),
    )


@eqx.filter_jit
def joined(tally: Any, carry: Any) -> Any:
    """`carry`, with all steps added to its tallies, which are as long as their arrays."""
    carry = add(tally, carry)
    lengths = {array.at: array.shape[0] for array in carry.blocked.plan.arrays if tally.per == "parameter"}

    def cut(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(
            structure, [leaf[:, : lengths[at]] if at in lengths else leaf for at, leaf in enumerate(leaves)]
        )

    return carry._replace(kept={kind: cut(tree) for kind, tree in carry.kept.items()})


def padded(array: Array, table: Any, per: str) -> Any:
    """A table (G + 1, ...), filled up to whole tiles where it has the array's rows."""
    if per != "parameter":
        return table
    return jnp.pad(table, ((0, 0), (0, array.tiles.rows - array.shape[0]), *[(0, 0)] * (table.ndim - 2)))


def _tiles(array: Any) -> _rows.Tiles:
    """Tiles of about equal length, which reach to the end of an array or beyond."""
    count = -(-len(array) // _rows.rows_of_tile(array))
    tile = -(-len(array) // count)
    return _rows.Tiles(count * tile, tile)


def _room(array: Array, one: Any, most: int) -> Any:
    """Zeros for so many steps; what has an entry for each row of the array is filled up like its tables."""
    rows = array.tiles.rows
    room = lambda leaf: jnp.zeros((most, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    long = lambda leaf: jnp.zeros((most, rows, *array.shape[1:]), leaf.dtype)  # noqa: E731
    left = one.slopes.left
    return jax.tree.map(room, one)._replace(
        coefficients=jax.tree.map(lambda a: long(a) if a.shape[1:] == array.shape else room(a), one.coefficients),
        slopes=dataclasses.replace(
            jax.tree.map(room, one.slopes), left=jnp.zeros((most, rows, left.shape[2]), left.dtype)
        ),
    )


def _turn(array: Array, turn: Any) -> Any:
    """The first row of the tile on which the steps of this turn are checked."""
    return turn % (array.tiles.rows // array.tiles.tile) * array.tiles.tile


def _checked(plan: Plan, leaves: list[Any], turn: Any) -> list[Any]:
    """The tiles on which the steps of this turn are checked, zero where they reach beyond the array."""

    def one(array: Array) -> Any:
        first, tile = _turn(array, turn), array.tiles.tile
        found = lax.dynamic_slice_in_dim(leaves[array.number], first, tile)
        if array.tiles.rows == array.shape[0]:
            return found
        beyond = jnp.maximum(first + tile - array.shape[0], 0)  # the slice began so many rows before
        inside = jnp.arange(tile) < tile - beyond
        return jnp.where(inside.reshape(-1, *[1] * (found.ndim - 1)), jnp.roll(found, -beyond, 0), 0)

    return [one(array) for array in plan.arrays]


def _small(leaves: list[Any]) -> list[Any]:
    return [leaf for leaf in leaves if leaf.size < LARGE]
