"""Between the states of a process and the points of a grid."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_finite, check_real, outline
from thalweg._loop import apply_step, as_arrays
from thalweg._process import Process
from thalweg._select import Selection, select


class Chart:
    """Points of a grid as states of a process, and back.

    The coordinates of a state are what `process.coordinates` picks (all floating leaves by default).
    """

    def __init__(self, process: Process, dimension: int, center: np.ndarray):
        self.dimension = dimension
        self.template = _template(process, dimension, center)
        self.selection = _coordinates(process, self.template)
        count = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.selection.get(self.template)))
        after = eqx.filter_eval_shape(_one_step, process, self.template)
        if outline(after) != outline(jax.eval_shape(lambda s: s, self.template)):
            raise ValueError(
                "the grid must have one axis for each coordinate of a state: from a point with "
                f"{dimension} coordinates process.init makes "
                f"{outline(self.template)}, of which a step makes {outline(after)}"
            )
        if count != dimension:
            raise ValueError(
                f"the grid must have one axis for each coordinate of a state: {outline(self.template)} has {count} "
                f"coordinates and the grid has {dimension} axes (coordinates= of the process says which numbers count)"
            )

    def state(self, point: Any) -> Any:
        """The state at a point, shape (axes,); traceable."""
        return embed(self.selection, self.template, point)

    def point(self, state: Any) -> Any:
        """The coordinates of a state, shape (axes,); traceable."""
        return flatten(self.selection.get(state))

    def start(self, start: Any) -> np.ndarray:
        """A start that the user gives, as a state or as a point."""
        try:
            given = as_arrays(start)
        except TypeError:
            raise TypeError(f"start must be a state of the process or a point of the grid, got {start!r}") from None
        check_finite(given, "start")
        check_real(given, "start")
        if bool(jax.tree.structure(given) == jax.tree.structure(self.template)) and all(
            a.shape == b.shape for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(self.template), strict=True)
        ):
            return np.asarray(self.point(given), dtype=float)
        leaves = jax.tree.leaves(given)
        if isinstance(start, list | tuple) and leaves and all(leaf.ndim == 0 for leaf in leaves):
            leaves = [jnp.stack(leaves)]
        if len(leaves) == 1 and leaves[0].size == self.dimension and leaves[0].ndim <= 1:
            return np.asarray(leaves[0], dtype=float).reshape(-1)
        raise ValueError(
            f"start must be a state like {outline(self.template)}, or a point with {self.dimension} "
            f"coordinates, got {outline(given)}"
        )


def _template(process: Process, dimension: int, center: np.ndarray) -> Any:
    """Some state of the process, made by its `init` from a point."""
    point = jnp.asarray(center[0]) if dimension == 1 else jnp.asarray(center)
    try:
        state = as_arrays(process.init(point))
        if sum(int(np.size(leaf)) for leaf in jax.tree.leaves(_coordinates(process, state).get(state))) == dimension:
            return state
    except (TypeError, ValueError):
        state = None
    try:  # an init that takes the coordinates one by one, as lorenz.init(a, b, c) does
        return as_arrays(process.init(*[float(x) for x in center]))
    except (TypeError, ValueError) as problem:
        if state is not None:
            return state
        raise ValueError(
            f"process.init must make a state from a point of the grid, got: {problem} (for a process on finitely many "
            "states pass tw.flow.States in place of a grid)"
        ) from None


def _coordinates(process: Process, template: Any) -> Selection:
    if process.coordinates is not None:
        return select(process.coordinates, template, "coordinates")
    floating = jax.tree.map(lambda leaf: np.full(leaf.shape, jnp.issubdtype(leaf.dtype, jnp.floating)), template)
    if not any(np.any(mask) for mask in jax.tree.leaves(floating)):
        raise ValueError(
            f"a grid needs states with floating coordinates, got {outline(template)}: pass tw.flow.States for a "
            "process on finitely many states"
        )
    return select(floating, template, "coordinates")


def embed(selection: Selection, template: Any, point: Any) -> Any:
    leaves, structure = jax.tree.flatten(selection.get(template))
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(point, sizes), leaves, strict=True)]
    return selection.put(template, jax.tree.unflatten(structure, parts))


def flatten(part: Any) -> Any:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(part)])


def _one_step(process: Process, state: Any) -> Any:
    w = process.noise.sample(jax.random.key(0), 0)
    return as_arrays(apply_step(process.step, state, w, jnp.asarray(0, jnp.result_type(int))))


Predicate = Callable[[Any], Any]
