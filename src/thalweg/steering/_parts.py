"""What `op` is asked about: the agent that is held, the source that is perturbed, the target that is read."""

import contextlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from thalweg._clamp import Held, _is_mask, check_window, clamp
from thalweg._edge import check_arrays, check_function, check_start, check_steps, is_traced, number, outline, shown
from thalweg._inject import inject, node_shapes
from thalweg._loop import Batch, apply_step
from thalweg._node import _prefixes, node_names
from thalweg._process import Process, check_process, key_for, settle
from thalweg._response import _find_source, _shaped_like, _Source
from thalweg._select import Selection, select


def check_run(
    process: Process, state: Any, steps: Any, key: Any, start: Any = 0, tangent: bool = True
) -> tuple[Any, int, Any, Any]:
    """The state, the number of steps, the key and the first step of a run along which something is carried."""
    check_process(process)
    steps, start, key = check_steps(steps), check_start(start), key_for(process, key)
    if np.ndim(start) or key.ndim:
        what = "start" if np.ndim(start) else "key"
        raise ValueError(f"{what} must be one, got several: for one a member, put this under jax.vmap")
    state = settle(process, state, key, Batch(), real=True)
    if not tangent:
        return state, steps, key, start
    if not any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)):
        raise ValueError(
            'the state is not differentiable, since it holds no floating number: use method="fork", or '
            "tw.steering.FiniteSystem for a finite system"
        )
    if not process.smooth:
        raise ValueError(
            "this process jumps (accept/reject or binary units), so that its tangent misses what a change does: "
            'use method="fork"'
        )
    return state, steps, key, start


class Source(eqx.Module):
    """What is perturbed: part of the state (before the first step), part of the process (for the whole run),
    or a node (in the first step)."""

    selection: Any  # a Selection; None for a node
    nodes: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())
    kind: str = eqx.field(static=True, default="state")

    def part(self, process: Process, state: Any) -> Any:
        """The perturbed numbers, unperturbed."""
        if self.kind == "node":
            return {name: jnp.zeros(shape, dtype) for name, (shape, dtype) in self.nodes}
        return _Source(self.selection, self.kind == "state").get(process, state)

    def stepper(self, process: Process, first: bool = False) -> Callable[..., Any]:
        """The step as a function of the floating numbers of the state and of the perturbed part."""

        def step(moving, part, still, w, i):
            state, changed = eqx.combine(moving, still), process
            if self.kind == "process":
                changed = _Source(self.selection, False).into_process(process, part)
            if self.kind == "node" and first:
                after = inject(lambda s: apply_step(changed.step, s, w, i), part, state)
            else:
                after = apply_step(changed.step, state, w, i)
            return eqx.partition(after, eqx.is_inexact_array)

        return step


def find_source(source: Any, process: Process, state: Any, key: Any, every_entry: bool) -> tuple[Source, Any]:
    """A source and its direction (all ones where every entry is a source of its own)."""
    where, direction = source, None
    if isinstance(source, tuple) and len(source) == 2 and not _is_mask(source):
        where, direction = source
    if not (isinstance(where, str) or callable(where) or _is_mask(where)):
        raise TypeError(
            f"source must be a node's name, a selector, a boolean mask, or one of them with a direction, "
            f"got {shown(source)}"
        )
    part_of_state = _named_part(where, process, state) if isinstance(where, str) else where
    if part_of_state is not None:
        try:
            found = _find_source(part_of_state, process, state)
        except ValueError as wrong:
            raise ValueError(str(wrong).replace("wrt", "source")) from None
        spec = Source(found.selection, (), "state" if found.of_state else "process")
    else:
        w = process.noise.sample(key, number(0))
        try:
            shapes = node_shapes(lambda s: apply_step(process.step, s, w, number(0)), where, state)
        except ValueError as wrong:
            raise ValueError(f"source: {wrong}") from None
        if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in shapes.values()):
            raise ValueError(f"source {where!r} must be a node of floating numbers: whole numbers carry no tangent")
        spec = Source(None, tuple((name, (a.shape, a.dtype)) for name, a in sorted(shapes.items())), "node")
    like = spec.part(process, state)
    if every_entry:
        if direction is not None:
            raise ValueError('source must come without a direction for mode="reverse": every entry of it is a source')
        return spec, jax.tree.map(jnp.ones_like, like)
    if direction is None:
        if sum(leaf.size for leaf in jax.tree.leaves(like)) != 1:
            raise ValueError(
                f"source picks out {outline(like)}: say along which direction, as source=(selector, direction), or "
                'take every entry for a source of its own with mode="reverse"'
            )
        direction = 1.0
    if spec.kind == "node":
        direction = _node_direction(direction, where, like)
    else:
        direction = _shaped_like(direction, like, "the direction of source")
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(direction)]))
    if not is_traced(largest) and not (np.isfinite(largest) and largest > 0):
        raise ValueError(f"the direction of source must be finite and not zero, got {direction!r}")
    return spec, direction


def _node_direction(direction: Any, name: str, like: dict[str, Any]) -> dict[str, Any]:
    """A direction at a node that holds several arrays is a pytree with their paths."""
    if jax.tree.structure(direction) == jax.tree.structure(0) and jnp.ndim(direction) == 0:
        return _shaped_like(direction, like, "the direction of source")
    paths = jax.tree_util.tree_leaves_with_path(direction)
    names = [
        ".".join([name, *([jax.tree_util.keystr(path, simple=True, separator=".")] if path else [])])
        for path, _ in paths
    ]
    if sorted(names) != sorted(like):
        raise ValueError(f"the direction of source must have entries for {sorted(like)}, got {sorted(names)}")
    named = dict(zip(names, [leaf for _, leaf in paths], strict=True))
    return _shaped_like(named, like, "the direction of source")


def _named_part(name: str, process: Process, state: Any) -> Any:
    """The mask of the part of the state that is called `name`, `None` where no part is."""
    leaves, structure = jax.tree.flatten(state)
    if process.names is None:
        return None
    names = structure.flatten_up_to(process.names(state))
    meant = [given is not None and name in _prefixes(given) for given in names]
    if not any(meant):
        return None
    if sum(meant) == 1:
        which = meant.index(True)
        return lambda tree: jax.tree.leaves(tree)[which]
    masks = [np.full(jnp.shape(leaf), means) for leaf, means in zip(leaves, meant, strict=True)]
    return jax.tree.unflatten(structure, masks)


def find_agent(agent: Any, window: Any, process: Process, state: Any, key: Any, name: str = "agent") -> Process:
    """The process with the agent held. Selectors become masks, so that an equal agent compiles nothing again."""
    parts = agent if isinstance(agent, tuple) and not _is_mask(agent) else (agent,)
    if len(parts) == 0 or agent is None:
        check_window(window)
        return process
    where = []
    for part in parts:
        if isinstance(part, str):
            where.append(part)
            continue
        if not (callable(part) or _is_mask(part)):
            raise TypeError(
                f"{name} must be a node's name, a selector, a boolean mask or a tuple of them, got {shown(part)}"
            )
        try:
            masks = select(part, state, name).masks
        except (AttributeError, KeyError, IndexError, TypeError) as missing:
            raise ValueError(
                f"{name} picks nothing out of the state: {type(missing).__name__} {missing}; "
                f"the state is {outline(state)}"
            ) from None
        where.append(jax.tree.unflatten(jax.tree.structure(state), masks))
    names = [part for part in where if isinstance(part, str)]
    if names:
        i = number(0)
        known = node_names(lambda s, w: apply_step(process.step, s, w, i), state, process.noise.sample(key, i))
        for part in names:
            if not any(part in _prefixes(full) for full in known):
                listed = ", ".join(map(repr, sorted(known))) or "none"
                raise ValueError(f"{name}: no node of the step is called {part!r}; its nodes: {listed}")
    return clamp(process, tuple(where), window)


def check_outside(held: Process, source: Source, target: Any, state: Any) -> None:
    """Refuse a source or a target inside the agent."""
    if not isinstance(held.step, Held):
        return
    agent: Held = held.step
    nodes, masks = agent._resolve(state)
    flags = [np.zeros(jnp.shape(leaf), bool) if mask is None else mask.held
             for leaf, mask in zip(jax.tree.leaves(state), masks, strict=True)]  # fmt: skip
    window = agent.window
    at_first = window is None or (not callable(window) and len(window.value) > 0 and bool(window.value[0]))
    if at_first:
        overlap = source.kind == "state" and any(
            np.any(a & b) for a, b in zip(flags, source.selection.masks, strict=True)
        )
        overlap |= any(name in _prefixes(full) or full in _prefixes(name) for full, _ in source.nodes for name in nodes)
        if overlap:
            raise ValueError(
                "source lies inside the agent, which is held still: nothing of a change there would be left; "
                "perturb something outside the agent"
            )
    if window is None:
        read = _read_masks(target, state)
        inside = [r & f for r, f in zip(read, flags, strict=True)]
        if any(np.any(r) for r in read) and all(np.array_equal(r, i) for r, i in zip(read, inside, strict=True)):
            raise ValueError(
                "target lies inside the agent, which is held still: it would not respond at all; "
                "read something outside the agent"
            )


def find_target(target: Any, process: Process, state: Any) -> Callable[[Any], Any]:
    """What is read. Where it only picks, the picking itself, so that an equal target compiles nothing again."""
    if isinstance(target, str):
        part = _named_part(target, process, state)
        if part is None:
            raise ValueError(f"target {target!r} is no part of the state by name; give a function of the state")
        target = part
    check_function(target, "target", "state")
    with contextlib.suppress(Exception):  # a target may compute, or fail: the next line says how
        target = Picked(select(target, state, "target"))
    try:
        reading = jax.eval_shape(lambda s: _checked(target(s)), state)
    except (AttributeError, KeyError, IndexError) as missing:
        raise ValueError(
            f"target reads something that the state lacks: {type(missing).__name__} {missing}; "
            f"the state is {outline(state)}"
        ) from None
    leaves = jax.tree.leaves(reading)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise TypeError(f"target must give floating numbers, got {outline(reading)}: whole numbers carry no tangent")
    return target


def _checked(reading: Any) -> Any:
    check_arrays(reading, "target")
    return reading


class Picked(eqx.Module):
    """A target that picks numbers out of the state."""

    selection: Selection

    def __call__(self, state: Any) -> Any:
        return self.selection.get(state)


def _read_masks(target: Any, state: Any) -> list[np.ndarray]:
    """Which entries of the state a target reads: exactly where it picks, by whole leaves where it computes."""
    if isinstance(target, Picked):
        return target.selection.masks
    leaves = jax.tree.leaves(state)
    jaxpr = jax.make_jaxpr(target)(state).jaxpr
    used = {var for eqn in jaxpr.eqns for var in eqn.invars if not isinstance(var, core.Literal)}
    used |= {var for var in jaxpr.outvars if not isinstance(var, core.Literal)}
    return [np.full(jnp.shape(leaf), var in used) for leaf, var in zip(leaves, jaxpr.invars, strict=True)]
