"""Gibbs sampling in blocks: each part of the state in turn is drawn given all the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax

from thalweg._noise import as_law
from thalweg._process import Process


def gibbs(
    conditionals: Sequence[tuple[str, Callable[[Any, Any], Any]]],
    noise: Mapping[str, Any],
    init: Callable[..., Any] | None = None,
    *,
    sweeps: int = 1,
    transition: Callable[[Any], tuple[Any, Any]] | None = None,
) -> Process:
    """Block Gibbs sampling (Geman and Geman, 1984): a step draws each block once, in order, given the others.

    **Arguments**

    - `conditionals`: pairs (name of the block, `draw(state, w)`), in the order in which they are drawn. `draw` gives a
      draw of the block, from the conditional law given the rest of the state, made with the noise `w`.
    - `noise`: the law of the noise of each block, by name.
    - `init`: makes a state, a dict of the blocks. - `sweeps`: sweeps a step.
    - `transition`: the exact law of the next state, where states are few.

    **Returns** a `Process` whose state is a dict of the blocks. It jumps, so `smooth` is `False`.

    **Raises** `ValueError` where blocks and noise do not have the same names.

    Two coupled spins a and b with `p(a = b) = 0.9`:

    >>> import jax.numpy as jnp, thalweg as tw
    >>> agree = lambda other: lambda s, w: jnp.where(w < 0.9, s[other], -s[other])
    >>> pair = tw.processes.gibbs(
    ...     [("a", agree("b")), ("b", agree("a"))], {"a": tw.noise.Uniform(), "b": tw.noise.Uniform()})
    >>> start = {"a": jnp.array(1.0), "b": jnp.array(1.0)}
    >>> run = tw.simulate(pair, start, 20_000, key=0, record=lambda s, w, n: n["a"] * n["b"])
    >>> abs(float(run.record.mean()) - 0.8) < 0.02
    True
    """
    names = [name for name, _ in conditionals]
    if not names or sorted(names) != sorted(noise):
        raise ValueError(f"conditionals and noise must name the same blocks, got {names} and {sorted(noise)}")
    for name, draw in conditionals:
        if not callable(draw):
            raise TypeError(f"conditional {name!r} must be a function draw(state, w), got {draw!r}")
    if isinstance(sweeps, bool) or not isinstance(sweeps, int) or sweeps < 1:
        raise ValueError(f"sweeps must be a whole number >= 1, got {sweeps!r}")
    laws = {name: as_law(noise[name]) for name in names}
    step = _Gibbs(tuple(names), tuple(draw for _, draw in conditionals))
    if sweeps == 1:
        return Process(step, laws, init, transition=transition, smooth=False)
    return Process(_Repeated(step), tuple(laws for _ in range(sweeps)), init, transition=transition, smooth=False)


class _Gibbs(eqx.Module):
    names: tuple[str, ...] = eqx.field(static=True)
    draws: tuple[Callable[[Any, Any], Any], ...]

    def __call__(self, state: Any, w: Any) -> Any:
        for name, draw in zip(self.names, self.draws, strict=True):
            block = draw(state, w[name])
            state = {**state, name: jax.numpy.asarray(block).astype(jax.numpy.asarray(state[name]).dtype)}
        return state


class _Repeated(eqx.Module):
    step: Callable[[Any, Any], Any]

    def __call__(self, state: Any, w: Any) -> Any:
        for draw in w:
            state = self.step(state, draw)
        return state
