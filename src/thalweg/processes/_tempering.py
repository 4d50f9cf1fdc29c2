"""Parallel tempering: copies at several temperatures that swap their states."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._noise import Choice, Law, Uniform
from thalweg._process import Process


def tempering(
    kernel: Process,
    log_density: Callable[[Any, Any], Any],
    betas: Any,
) -> Process:
    """Parallel tempering (Swendsen and Wang, 1986; Geyer, 1991): every copy makes a step, then neighbours may swap.

    Copies k and l swap with probability `min(1, p_k(x_l) p_l(x_k) / (p_k(x_k) p_l(x_l)))`. Pairs (0, 1), (2, 3), ...
    and (1, 2), (3, 4), ... take turns at random.

    **Arguments**

    - `kernel`: a `Process` whose step keeps the law of one copy; its state is a pair
      `(beta, x)`, of which it moves `x`.
    - `log_density`: `log_density(beta, x)`, up to a constant that may depend on `beta`.
    - `betas`: the inverse temperatures, shape (copies,), often from 0 (an easy law) to 1 (the law that is meant).
      `tempering_betas` finds them.

    **Returns** a `Process` whose state leads with the copies: `state[k]` is at `betas[k]`.

    **Raises** `ValueError` for fewer than two copies.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> well = lambda beta, x: -8 * beta * (x**2 - 1) ** 2
    >>> walk = tw.Process(
    ...     lambda s, w: (s[0], jnp.where(jnp.log(w["u"]) < well(s[0], s[1] + 0.7 * w["z"]) - well(*s),
    ...                                   s[1] + 0.7 * w["z"], s[1])),
    ...     {"u": tw.noise.Uniform(), "z": tw.noise.Normal()})
    >>> process = tw.processes.tempering(walk, well, [0.05, 0.2, 0.5, 1.0])
    >>> run = tw.simulate(process, jnp.ones(4), 20_000, key=0, record=lambda s, w, n: n[-1] > 0)
    >>> 0.4 < float(run.record.mean()) < 0.6  # both wells are seen
    True
    """
    betas = np.asarray(betas, dtype=float)
    if betas.ndim != 1 or len(betas) < 2 or not np.all(np.isfinite(betas)):
        raise ValueError(f"betas must be at least two finite numbers, got {betas!r}")
    if not isinstance(kernel, Process):
        raise TypeError(f"kernel must be a tw.Process on pairs (beta, x), got {type(kernel).__name__}")
    if not callable(log_density):
        raise TypeError(f"log_density must be a function log_density(beta, x), got {log_density!r}")
    step = _Tempering(kernel.step, log_density, jnp.asarray(betas))
    noise = {"copies": Copies(kernel.noise, len(betas)), "swap": Uniform(len(betas)), "parity": Choice(2)}
    return Process(step, noise, smooth=False)


class Copies(Law):
    """Independent draws of one law, one a copy, along a leading axis."""

    law: Law
    count: int = eqx.field(static=True)

    def sample(self, key: Any, i: Any) -> Any:
        one = lambda copy: self.law.sample(jax.random.fold_in(key, copy), i)  # noqa: E731
        return jax.vmap(one)(jnp.arange(self.count))

    def atoms(self) -> tuple[Any, Any]:
        raise ValueError("the draws of many copies cannot be integrated exactly: ask by Monte Carlo")


class _Tempering(eqx.Module):
    kernel: Callable[[Any, Any], Any]
    log_density: Callable[[Any, Any], Any]
    betas: Any

    def __call__(self, states: Any, w: Any) -> Any:
        states = self.moved(states, w)
        return jax.tree.map(lambda leaf: leaf[self.swaps(states, w)], states)

    def moved(self, states: Any, w: Any) -> Any:
        """The states after every copy has made its step."""
        return jax.vmap(lambda beta, x, draw: self.kernel((beta, x), draw)[1])(self.betas, states, w["copies"])

    def swaps(self, states: Any, w: Any) -> Any:
        """From which copy each copy takes its state."""
        count = len(self.betas)
        at = jnp.arange(count)
        partner = jnp.where(at % 2 == w["parity"], at + 1, at - 1)
        partner = jnp.where((partner < 0) | (partner >= count), at, partner)
        value = jax.vmap(self.log_density)
        others = jax.tree.map(lambda leaf: leaf[partner], states)
        own, swapped = value(self.betas, states), value(self.betas, others)
        gain = swapped + swapped[partner] - own - own[partner]
        uniform = w["swap"][jnp.minimum(at, partner)]  # both of a pair see one number
        return jnp.where(jnp.log(uniform) < gain, partner, at)


def swap_rates(process: Process, states: Any, steps: int, key: Any) -> np.ndarray:
    """The share of accepted swaps between neighbours, shape (copies - 1,), over a run from `states`.

    A chain of copies carries states well where every share is between about 0.2 and 0.5.
    """
    from thalweg._process import simulate

    step: Any = process.step

    def record(before, w, after):
        taken = step.swaps(step.moved(before, w), w)
        at = jnp.arange(len(step.betas))
        tried = (at[:-1] % 2) == w["parity"]
        return tried, tried & (taken[:-1] == at[1:])

    tried, taken = simulate(process, states, steps, key=key, record=record).record
    return np.asarray(taken.sum(axis=0) / np.maximum(tried.sum(axis=0), 1))


def tempering_betas(
    make: Callable[[Any], Process],
    states: Callable[[int], Any],
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
    rate: float = 0.3,
    steps: int = 500,
    most: int = 64,
    key: Any = 0,
) -> np.ndarray:
    """Inverse temperatures at which neighbours swap at least a share `rate` of the times they try.

    Starts with three and puts a new one in the middle of every gap that swaps too rarely.

    **Arguments**

    - `make`: `make(betas)`, the tempered process at these inverse temperatures. - `states`: `states(count)`, states
      for that many copies. - `lowest`, `highest`: the ends. - `rate`: the share that is wanted.
    - `steps`: steps a trial. - `most`: no more copies than this. - `key`: a key or seed.

    **Returns** the inverse temperatures in increasing order.

    **Raises** `ValueError` where `most` copies do not suffice.
    """
    if not 0 < rate < 1 or not lowest < highest:
        raise ValueError(f"rate must be in (0, 1) and lowest < highest, got {rate}, {lowest}, {highest}")
    betas = np.linspace(lowest, highest, 3)
    while True:
        rates = swap_rates(make(betas), states(len(betas)), steps, key)
        gaps = np.flatnonzero(rates < rate)
        if not gaps.size:
            return betas
        betas = np.sort(np.concatenate([betas, (betas[gaps] + betas[gaps + 1]) / 2]))
        if len(betas) > most:
            raise ValueError(
                f"neighbours of {len(betas)} copies still swap less than {rate:g} of the time: allow more than "
                f"most={most}, a lower rate, or more steps"
            )
