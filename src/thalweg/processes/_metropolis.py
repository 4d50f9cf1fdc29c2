"""Metropolis sampling: propose a move, accept it by what it gains."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._edge import is_traced
from thalweg._noise import Choice, Normal, Uniform
from thalweg._process import Process


def metropolis(
    log_density: Callable[[Any], Any],
    proposal: str = "normal",
    *,
    scale: Any = 1.0,
    shape: tuple[int, ...] = (),
    units: tuple[int, int] = (0, 1),
) -> Process:
    """Metropolis sampling (Metropolis et al., 1953): a proposed state is taken with probability `min(1, p(y)/p(x))`.

    **Arguments**

    - `log_density`: `log p(x)` up to a constant, a number.
    - `proposal`: `"normal"`: `y = x + scale * normal`, for real numbers; `"flip"`: one unit of two values,
      chosen at random, takes its other value.
    - `scale`: the width of a normal step, one number or the shape of the state. - `shape`: the shape of a state.
    - `units`: the two values of a unit, for `"flip"`.

    **Returns** a `Process`. With `"flip"` it carries its exact `transition`, to the states one flip away and
    to where it is.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> coin = tw.processes.metropolis(lambda x: jnp.log(3.0) * x[0], "flip", shape=(1,))  # p(1) = 3/4
    >>> coin.transition(jnp.array([1.0]))[1].round(6).tolist()
    [0.333333, 0.666667]
    """
    if not callable(log_density):
        raise TypeError(f"log_density must be a function of the state, got {log_density!r}")
    if proposal == "normal":
        if not is_traced(scale) and not (np.all(np.isfinite(scale)) and np.all(np.asarray(scale) > 0)):
            raise ValueError(f"scale must be > 0, got {scale}")
        walk = _Walk(log_density, jnp.asarray(scale, float))
        return Process(walk, {"move": Normal(shape), "accept": Uniform()}, smooth=False)
    if proposal != "flip":
        raise ValueError(f'proposal must be "normal" or "flip", got {proposal!r}')
    count = int(np.prod(shape))
    if not shape or count < 1:
        raise ValueError(f"shape must be that of a state of units, such as (10,), got {shape!r}")
    flip = _Flip(log_density, float(units[0] + units[1]))
    return Process(flip, {"site": Choice(count), "accept": Uniform()}, transition=flip.transition, smooth=False)


class _Walk(eqx.Module):
    log_density: Callable[[Any], Any]
    scale: Any

    def __call__(self, x: Any, w: Any) -> Any:
        y = x + self.scale * w["move"]
        # a gain that is NaN is refused, since no comparison with it holds
        yes = jnp.log(w["accept"]) < self.log_density(y) - self.log_density(x)
        return jnp.where(yes, y, x)


class _Flip(eqx.Module):
    log_density: Callable[[Any], Any]
    total: float = eqx.field(static=True)

    def __call__(self, x: Any, w: Any) -> Any:
        flat = jnp.ravel(x)
        y = flat.at[w["site"]].set(self.total - flat[w["site"]]).reshape(x.shape)
        yes = jnp.log(w["accept"]) < self.log_density(y) - self.log_density(x)
        return jnp.where(yes, y, x)

    def transition(self, x: Any) -> tuple[Any, Any]:
        x = jnp.asarray(x)
        flat = jnp.ravel(x)
        sites = jnp.arange(flat.size)
        others = jnp.stack([flat.at[i].set(self.total - flat[i]).reshape(x.shape) for i in range(flat.size)])
        gains = jnp.stack([self.log_density(other) for other in others]) - self.log_density(x)
        moves = jnp.minimum(1.0, jnp.exp(gains)) / len(sites)
        return jnp.concatenate([others, x[None]]), jnp.append(moves, 1 - jnp.sum(moves))
