"""Selecting part of a pytree: get it, put something in its place, mask it.

`lambda s: s.room`, `lambda s: s["W"][:, 3]` and a boolean mask all say which numbers are meant. A selector
is called once on a tree of position numbers, so that what it picks out can also be put back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_function, shown


class Selection(eqx.Module):
    """The part of a pytree that a selector picks out.

    - `get(tree)`: the part; `put(tree, part)`: the tree with that part replaced.
    - `masks`: for each leaf of the tree, which entries are selected.
    """

    picked: Any = eqx.field(static=True)  # position numbers, in the shape of what is picked out
    offsets: tuple[int, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def get(self, tree: Any) -> Any:
        leaves = jax.tree.leaves(tree)

        def one(positions: Positions):
            which = self._leaf_of(positions)
            leaf = jnp.asarray(leaves[which])
            local = positions.numbers - self.offsets[which]
            if np.array_equal(local.reshape(-1), np.arange(leaf.size)):
                return leaf.reshape(local.shape)
            return leaf.reshape(-1)[local]

        return jax.tree.map(one, self.picked)

    def put(self, tree: Any, part: Any) -> Any:
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        positions, structure = jax.tree.flatten(self.picked)
        if jax.tree.structure(part) != structure:
            raise ValueError(f"expected a part of structure {structure}, got {jax.tree.structure(part)}")
        for at, value in zip(positions, jax.tree.leaves(part), strict=True):
            which = self._leaf_of(at)
            leaf, local = leaves[which], at.numbers - self.offsets[which]
            if jnp.shape(value) != local.shape:
                raise ValueError(f"expected a part of shape {local.shape}, got {jnp.shape(value)}")
            if np.array_equal(local.reshape(-1), np.arange(leaf.size)):
                leaves[which] = jnp.asarray(value, dtype=leaf.dtype).reshape(leaf.shape)
            else:
                leaves[which] = leaf.reshape(-1).at[local].set(value).reshape(leaf.shape)
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    @property
    def masks(self) -> list[np.ndarray]:
        masks = [np.zeros(int(np.prod(shape)), dtype=bool) for shape in self.shapes]
        for at in jax.tree.leaves(self.picked):
            which = self._leaf_of(at)
            masks[which][(at.numbers - self.offsets[which]).reshape(-1)] = True
        return [mask.reshape(shape) for mask, shape in zip(masks, self.shapes, strict=True)]

    def _leaf_of(self, positions: "Positions") -> int:
        return int(np.searchsorted(self.offsets, positions.numbers.reshape(-1)[0], side="right")) - 1


class Positions:
    """Position numbers as one hashable leaf."""

    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers

    def __hash__(self) -> int:
        return hash((self.numbers.shape, self.numbers.tobytes()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Positions) and np.array_equal(self.numbers, other.numbers)


def select(where: Callable[[Any], Any] | Any, tree: Any, name: str = "where") -> Selection:
    """What `where` picks out of `tree`: a selector, or a boolean mask (an array, or a pytree like `tree`).

    Raises `ValueError` where the selector computes instead of picking, or picks nothing.
    """
    leaves, structure = jax.tree.flatten(tree)
    sizes = [int(np.prod(np.shape(leaf))) for leaf in leaves]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    numbered = [
        np.arange(start, start + size).reshape(np.shape(leaf)).view(_Numbered)
        for leaf, start, size in zip(leaves, offsets, sizes, strict=False)
    ]
    if callable(where):
        check_function(where, name, "state")
        try:
            picked = where(jax.tree.unflatten(structure, numbered))
        except _Computes as problem:
            raise ValueError(f"{name} {problem}") from None
    else:
        picked = _masked(where, numbered, structure, name)
    parts = jax.tree.leaves(picked)
    if not parts or not all(np.size(part) for part in parts):
        raise ValueError(f"{name} must pick at least one number of the state, got nothing")
    for part in parts:
        inside = isinstance(part, np.ndarray | np.integer) and np.asarray(part).dtype == np.int64
        if inside:
            flat = np.asarray(part).reshape(-1)
            which = np.searchsorted(offsets, flat, side="right") - 1
            inside = flat.min() >= 0 and flat.max() < offsets[-1] and len(set(which.tolist())) == 1
        if not inside:
            raise ValueError(
                f"{name} must pick leaves, entries or slices out of the state, and not compute: got {shown(part)}"
            )
    picked = jax.tree.map(lambda part: Positions(np.asarray(part)), picked)
    return Selection(picked, tuple(int(o) for o in offsets[:-1]), tuple(np.shape(leaf) for leaf in leaves))


class _Numbered(np.ndarray):
    """Position numbers that can be sliced and reshaped, but not computed with."""

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise _Computes("must pick leaves, entries or slices, and not compute with them")


class _Computes(ValueError):
    """A selector did more than pick."""


def _masked(mask: Any, numbered: Sequence[np.ndarray], structure: Any, name: str) -> Any:
    masks = jax.tree.leaves(mask)
    if len(masks) != len(numbered) or any(
        np.asarray(m).dtype != bool or np.shape(m) != np.shape(n) for m, n in zip(masks, numbered, strict=False)
    ):
        raise ValueError(
            f"{name} must be a name, a selector, or a boolean mask of the state's shapes, got {shown(mask)}"
        )
    return [np.asarray(n)[np.asarray(m)] for m, n in zip(masks, numbered, strict=True) if np.any(m)]
