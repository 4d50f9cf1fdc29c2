"""A process that tells its `contributions` only, seen as a learner.

Its step is taken for a number times the gradient, another number in every step perhaps: a schedule, clipping by the
norm. The number comes out of the step itself. Where the step is something else (momentum, decay, a scale for each
entry), the parts do not sum to the change, and `conservation` says so.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from thalweg._edge import shown
from thalweg._process import Process


class Seen(NamedTuple):
    """A state as that of a learner: its parameters, no memory of an optimizer, and all of it."""

    params: Any
    opt_state: Any
    whole: Any


class ByGradient(eqx.Module):
    """What a tally asks of a learner, of a process that has `contributions`."""

    process: Process
    optimizer: None = None
    weights: None = None
    layers: None = None

    @property
    def step(self) -> "ByGradient":
        """The step's rule and gradient are here too."""
        return self

    @property
    def noise(self) -> Any:
        """The law by which data are drawn."""
        return self.process.noise

    def rule(self, gradient: Any, memory: Any, params: Any) -> tuple[Any, Any]:
        """The update, up to the number that the step tells."""
        return gradient, memory

    def contributions(self, state: Seen, w: Any, slot_weights: Any = None) -> Any:
        """The gradient, each slot of the batch weighted."""
        assert self.process.contributions is not None
        found = self.process.contributions(state.whole, w, slot_weights)
        shapes, wanted = (jax.tree.map(jnp.shape, tree) for tree in (found, state.params))
        if shapes != wanted:
            raise ValueError(
                "contributions(state, w, slot_weights) must give a gradient shaped like the parameters (state.params, "
                f"the process's coordinates, or the state), {wanted}, got {shapes}"
            )
        return found

    def seen(self, state: Any) -> Seen:
        """A state of the process as that of a learner."""
        if hasattr(state, "params"):
            return Seen(state.params, (), state)
        return Seen(state if self.process.coordinates is None else self.process.coordinates(state), (), state)


def by_gradient(process: Process, n: int) -> ByGradient:
    """A process that has `contributions` as a learner from `n` data. Refuses one that draws something else."""
    w = jax.eval_shape(lambda: process.noise.sample(jax.random.key(0), jnp.zeros((), int)))
    numbers = hasattr(w, "dtype") and jnp.issubdtype(w.dtype, jnp.integer)
    if not numbers or len(w.shape) > 1:
        raise ValueError(
            "process must draw the numbers of its data, one or a batch of them, as tw.noise.Choice does: its noise is "
            f"{shown(process.noise)}"
        )
    drawn = getattr(process.noise, "n", n)
    if drawn != n:
        raise ValueError(f"groups must have length {drawn}, one a datum that the process draws, got {n}")
    return ByGradient(process)
