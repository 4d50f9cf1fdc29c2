"""Parallel tempering: copies at several temperatures that swap their states."""

import itertools
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
    init: Callable[..., Any] | None = None,
) -> Process:
    """Parallel tempering (Swendsen and Wang, 1986; Geyer, 1991): every copy makes a step, then neighbours may swap.

    Copies k and l swap with probability `min(1, p_k(x_l) p_l(x_k) / (p_k(x_k) p_l(x_l)))`. Pairs (0, 1), (2, 3), ...
    and (1, 2), (3, 4), ... take turns at random.

    **Arguments**

    - `kernel`: a `Process` whose step keeps the law of one copy; its state is a pair
      `(beta, x)`, of which it moves `x`.
    - `log_density`: `log_density(beta, x)`, up to a constant that may depend on `beta`.
    - `betas`: the inverse temperatures, shape (copies,), often from 0 (an easy law) to 1 (the law that is meant).
      `tempering_betas` finds them. - `init`: makes states of the copies from what a user has in hand.

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
    return Process(step, noise, init, smooth=False)


EVEN = 0.3  # shares of accepted swaps that differ by less are taken as even
TRIALS = 5  # after so many, uneven ones are taken too, if all are large enough


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
    return _trial(process, states, steps, key)[0]


def _trial(process: Process, states: Any, steps: int, key: Any, skip: int = 0) -> tuple[np.ndarray, Any]:
    """(the share of accepted swaps between neighbours after the first `skip` steps, the last states)."""
    from thalweg._process import simulate

    step: Any = process.step

    def record(before, w, after):
        taken = step.swaps(step.moved(before, w), w)
        at = jnp.arange(len(step.betas))
        tried = (at[:-1] % 2) == w["parity"]
        return tried, tried & (taken[:-1] == at[1:])

    run = simulate(process, states, steps, key=key, record=record)
    tried, taken = (np.asarray(part)[skip:].sum(axis=0) for part in run.record)
    return taken / np.maximum(tried, 1), run.state


def tempering_betas(
    make: Callable[[Any], Process],
    states: Callable[[int], Any],
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
    copies: int = 3,
    rate: float = 0.3,
    steps: int = 500,
    most: int = 64,
    key: Any = 0,
) -> np.ndarray:
    """Inverse temperatures at which neighbours swap about equally often, at least a share `rate` of the times they try.

    Starts with `copies` equally spaced ones. A trial shows how often each pair of neighbours refuses; the next trial's
    stand where the refusals, summed up from the lowest on, are equally spaced (Syed et al., 2022), and are more while
    neighbours refuse too often.

    **Arguments**

    - `make`: `make(betas)`, the tempered process at these inverse temperatures. - `states`: `states(count)`, states
      for that many copies. - `lowest`, `highest`: the ends. - `copies`: how many there are at least.
    - `rate`: the share that is wanted. - `steps`: steps a trial, of which the first fifth is not looked at.
    - `most`: no more copies than this. - `key`: a key or seed.

    **Returns** the inverse temperatures in increasing order.

    **Raises** `ValueError` where `most` copies do not suffice.
    """
    if not 0 < rate < 1 or not lowest < highest:
        raise ValueError(f"rate must be in (0, 1) and lowest < highest, got {rate}, {lowest}, {highest}")
    betas = np.linspace(lowest, highest, copies)
    for trial in itertools.count():
        rates, _ = _trial(make(betas), states(len(betas)), steps, key, skip=steps // 5)
        if rates.min() >= rate and (np.ptp(rates) < EVEN or trial >= TRIALS):
            break
        refusals = np.concatenate([[0.0], np.cumsum(np.maximum(1 - rates, 0.01))])
        wanted = 1 + int(np.ceil(refusals[-1] / (1 - rate)))
        count = max(len(betas) + (trial > 1 and rates.min() < rate), wanted)
        if count > most:
            raise ValueError(
                f"neighbours of {len(betas)} copies still swap less than {rate:g} of the time: allow more than "
                f"most={most}, a lower rate, or more steps"
            )
        betas = np.interp(np.linspace(0, refusals[-1], count), refusals, betas)
    return betas
