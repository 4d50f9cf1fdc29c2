"""A process conditioned on an event, by Doob's transform: what it looks like when the rare thing happens.

With `h(x)` the probability of the event from x, outcome j of a step from x, of probability w_j, has given the event
the probability `w_j h(F_j(x)) / h(x)`. So typical escape paths are drawn at once, without waiting for an escape.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._loop import apply_step
from thalweg._noise import Uniform
from thalweg._process import Process
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._level import value_at
from thalweg.flow._space import Grid


class Waiting(NamedTuple):
    """A state with the number of steps in which the event must happen."""

    state: Any
    left: Any


def conditioned(
    process: Process,
    chart: Chart,
    grid: Grid,
    target: Predicate,
    avoiding: Predicate | None,
    table: Any,
    steps: int | None,
) -> Process:
    """The process given that it meets `target`, as a process of its own.

    `table` holds `h` on the cells: shape (cells,), or (steps + 1, cells), by the steps that are left.
    """
    try:
        draws, weights = process.noise.atoms()
    except ValueError as problem:
        raise ValueError(f"a conditioned process needs noise with finitely many values: {problem}") from None
    if not jax.tree.leaves(draws):
        raise ValueError("a process without noise is what it is: there is nothing to condition")
    step = _Conditioned(
        process.step, draws, jnp.asarray(weights), jnp.asarray(table), chart.selection, target, avoiding, grid, steps
    )
    if steps is None:
        return Process(step, Uniform(), process.init, coordinates=process.coordinates, smooth=False)
    return Process(
        step, Uniform(), lambda *given: Waiting(process.init(*given), jnp.asarray(steps, jnp.int64)), smooth=False
    )


def conditioned_chain(states: Any, table: Any, h: Any, steps: int | None) -> Process:
    """A chain on a list of states given an event of probability `h`: shape (n,), or (steps + 1, n) by steps left."""
    step = _ConditionedChain(jnp.asarray(states), jnp.asarray(table), jnp.asarray(h), steps)
    if steps is None:
        return Process(
            step, Uniform(), transition=lambda state: (step.states, step.chances(state, step.h)), smooth=False
        )
    return Process(
        step, Uniform(), lambda state: Waiting(jnp.asarray(state), jnp.asarray(steps, jnp.int64)), smooth=False
    )


class _ConditionedChain(eqx.Module):
    states: Any
    table: Any
    h: Any
    steps: int | None = eqx.field(static=True)

    def chances(self, state: Any, h: Any) -> Any:
        """The probabilities of the next state; those of the free chain where the event is out of reach."""
        same = jnp.all(jnp.reshape(self.states == state, (len(self.states), -1)), axis=1)
        row = self.table[jnp.argmax(same)]
        tilted = row * h
        total = jnp.sum(tilted)
        return jnp.where(total > 0, tilted / jnp.where(total > 0, total, 1.0), row)

    def __call__(self, state: Any, w: Any) -> Any:
        here = state if self.steps is None else state.state
        left = None if self.steps is None else jnp.maximum(state.left - 1, 0)
        chances = self.chances(here, self.h if left is None else self.h[left])
        last = jnp.max(jnp.where(chances > 0, jnp.arange(len(chances)), 0))
        after = self.states[jnp.minimum(jnp.sum(w >= jnp.cumsum(chances)), last)]
        return after if left is None else Waiting(after, left)


class _Conditioned(eqx.Module):
    step: Any
    draws: Any
    weights: Any
    table: Any
    selection: Any
    target: Any
    avoiding: Any
    grid: Grid = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)

    def __call__(self, state: Any, w: Any) -> Any:
        from thalweg.flow._chart import flatten

        here = state if self.steps is None else state.state
        left = None if self.steps is None else jnp.maximum(state.left - 1, 0)
        row = self.table if left is None else self.table[left]

        def image(draw):
            after = apply_step(self.step, here, draw, jnp.asarray(0, jnp.result_type(int)))
            met = self.target(after)
            lost = jnp.asarray(False) if self.avoiding is None else self.avoiding(after)
            h = value_at(self.grid, row, flatten(self.selection.get(after)))
            return after, jnp.where(met, 1.0, jnp.where(lost, 0.0, h))

        images, h = jax.vmap(image)(self.draws)
        share = self.weights * h
        share = jnp.where(jnp.sum(share) > 0, share, self.weights)
        chosen = jnp.sum(w * jnp.sum(share) >= jnp.cumsum(share))
        chosen = jnp.minimum(chosen, len(self.weights) - 1)
        after = jax.tree.map(lambda leaf: leaf[chosen], images)
        # What has arrived stays free: the event has happened.
        return after if left is None else Waiting(after, left)
