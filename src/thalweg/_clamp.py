"""`clamp`: a process whose part is held still while something else is perturbed."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._edge import check_function, one_truth, outline, shown
from thalweg._loop import apply_step
from thalweg._node import Mask, _prefixes, hold, hold_nodes, in_worlds
from thalweg._process import Process, check_process
from thalweg._select import Selection, select


def clamp(process: Process, where: Any, window: Any = None) -> Process:
    """A process whose part is held still, for every instrument.

    What is held keeps the values that it has in the unperturbed run, at the same call inside the step. By
    itself such a process runs as the free one does, bit for bit; a perturbation is not
    carried through what is held. `tw.response` carries tangents that way, `tw.fork` finite changes.

    **Arguments**

    - `where`: the name of a node (`tw.node`), a selector (`lambda s: s.room`), a boolean mask, or a
      tuple of them. A part of the state that the process names (`Process.names`; `processes.ode` names every
      part) is held inside the step too, at every stage.
    - `window`: when it is held: a boolean array over step numbers (`False` beyond its end), or a
      function `window(state, w)`; always by default.

    **Raises**, where the step is first traced, `ValueError` for a name that no node carries.

    >>> import thalweg as tw
    >>> room = tw.Process(lambda s, w: s - 0.5 * tw.node(s, "cooling"))
    >>> for process in (room, tw.clamp(room, "cooling")):
    ...     print(float(tw.response(process, 1.0, 2).jvp(1.0).log_norm))
    -1.3862943611198906
    0.0
    """
    check_process(process)
    where = where if isinstance(where, tuple) else (where,)
    if not where:
        raise ValueError("where of a clamp must name something to hold, got an empty tuple")
    for part in where:
        if not (isinstance(part, str) or callable(part) or _is_mask(part)):
            raise TypeError(
                "where of a clamp must be a node's name, a selector, a boolean mask or a tuple of them, "
                f"got {shown(part)}"
            )
    return eqx.tree_at(lambda p: p.step, process, Held(process.step, process.names, where, check_window(window)))


def check_window(window: Any) -> Any:
    """When a part is held: `None`, a function of state and noise, or a boolean array over steps."""
    if callable(window):
        check_function(window, "window", "state, w")
    elif window is not None:
        window = np.asarray(window)
        if window.dtype != bool or window.ndim != 1:
            raise TypeError(
                f"window must be a function of (state, w) or a boolean array over steps, got {window.dtype} of shape "
                f"{window.shape}"
            )
    return window


class Held(eqx.Module):
    """The step of a clamped process: the same values; what is held carries no change."""

    step: Callable[[Any, Any], Any]
    names: Callable[[Any], Any] | None = eqx.field(static=True)
    where: tuple[Any, ...] = eqx.field(static=True)
    window: Any = eqx.field(static=True)

    def __init__(self, step: Any, names: Any, where: tuple[Any, ...], window: Any):
        self.step = step
        self.names = names
        self.where = tuple(part if isinstance(part, str) or callable(part) else _Static(part) for part in where)
        self.window = window if window is None or callable(window) else _Static(window)

    def __call__(self, state: Any, w: Any) -> Any:
        if isinstance(self.window, _Static):
            raise ValueError(
                "a clamp with a window over steps needs the number of the step: call step.at_step(state, w, i)"
            )
        return self.at_step(state, w, None)

    def at_step(self, state: Any, w: Any, i: Any) -> Any:
        """The step of number `i`, held if its window says so."""
        if self.window is None:
            return self._held(state, w, i)
        return lax.cond(
            self._active(state, w, i),
            lambda s: self._held(s, w, i),
            lambda s: apply_step(self.step, s, w, i),
            state,
        )

    def beside(self, reference: Callable[[Any, Any], Any]) -> "Beside":
        """A step of two worlds: the unperturbed one, and one that takes what is held from it."""
        return Beside(self, reference)

    def _active(self, state: Any, w: Any, i: Any) -> Any:
        if isinstance(self.window, _Static):
            window = jnp.asarray(self.window.value)
            return jnp.where(i < window.size, window[jnp.minimum(i, window.size - 1)], False)
        return one_truth(self.window(state, w), "window")

    def _held(self, state: Any, w: Any, i: Any) -> Any:
        nodes, masks = self._resolve(state)
        state = _hold_parts(state, masks)
        after = hold_nodes(lambda s: apply_step(self.step, s, w, i), nodes, state)
        return _hold_parts(after, masks)

    def _resolve(self, state: Any) -> tuple[dict[str, Mask | None], list[Mask | None]]:
        """Which nodes to hold (whole, or where a mask says), and which entries of each leaf of the state."""
        leaves, structure = jax.tree.flatten(state)
        names = [None] * len(leaves) if self.names is None else structure.flatten_up_to(self.names(state))
        masks: list[Any] = [np.zeros(jnp.shape(leaf), dtype=bool) for leaf in leaves]
        nodes: dict[str, Mask | None] = {}
        for part in self.where:
            if isinstance(part, str):
                nodes[part] = None
                meant = [name is not None and part in _prefixes(name) for name in names]
                masks = [np.ones_like(m) if means else m for m, means in zip(masks, meant, strict=True)]
            else:
                selection = _selected(part.value if isinstance(part, _Static) else part, state)
                masks = [m | picked for m, picked in zip(masks, selection.masks, strict=True)]
        for name, mask in zip(names, masks, strict=True):
            if name is not None and mask.any() and name not in nodes:
                nodes[name] = Mask(mask)
        return nodes, [Mask(mask) if mask.any() else None for mask in masks]


def _selected(where: Any, state: Any) -> Selection:
    try:
        return select(where, state, "where of a clamp")
    except (AttributeError, KeyError, IndexError, TypeError) as problem:
        raise ValueError(
            f"where of a clamp picks nothing out of the state {outline(state)}: {type(problem).__name__} {problem}"
        ) from None


class Beside(eqx.Module):
    """A step of two worlds, (unperturbed, held), with the same noise."""

    held: Held
    reference: Callable[[Any, Any], Any]

    def __call__(self, worlds: tuple[Any, Any], w: Any) -> tuple[Any, Any]:
        return self.at_step(worlds, w, None)

    def at_step(self, worlds: tuple[Any, Any], w: Any, i: Any) -> tuple[Any, Any]:
        numbers, functions = eqx.partition(self.held, eqx.is_array)
        if jax.tree.structure(eqx.partition(self.reference, eqx.is_array)[0]) != jax.tree.structure(numbers.step):
            raise ValueError("a clamped process in a fork must be the run's own process, with other numbers at most")
        reference, _ = eqx.partition(eqx.tree_at(lambda h: h.step, self.held, self.reference), eqx.is_array)
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), (reference, worlds[0]), (numbers, worlds[1]))

        def step(world, w):
            numbers, state = world
            return eqx.combine(numbers, functions).at_step(state, w, i)

        after = in_worlds(step, both, w, 2)
        return jax.tree.map(lambda leaf: leaf[0], after), jax.tree.map(lambda leaf: leaf[1], after)


class _Static:
    """A pytree of arrays or names as a hashable setting."""

    def __init__(self, value: Any):
        self.value = value
        leaves, structure = jax.tree.flatten(value)
        self._key = (structure, tuple(_bytes(leaf) for leaf in leaves))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self._key == other._key


def _bytes(leaf: Any) -> Any:
    return leaf if isinstance(leaf, str) else (np.shape(leaf), np.asarray(leaf).tobytes())


def _is_mask(part: Any) -> bool:
    leaves = jax.tree.leaves(part)
    return bool(leaves) and all(not isinstance(leaf, str) and np.asarray(leaf).dtype == bool for leaf in leaves)


def _hold_parts(state: Any, masks: list[Mask | None]) -> Any:
    leaves, structure = jax.tree.flatten(state)
    held = [leaf if mask is None else hold(jnp.asarray(leaf), mask) for leaf, mask in zip(leaves, masks, strict=True)]
    return jax.tree.unflatten(structure, held)
