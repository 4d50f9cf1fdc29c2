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
