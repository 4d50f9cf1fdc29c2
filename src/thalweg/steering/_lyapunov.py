"""Lyapunov exponents, and conditional ones with a part held still, by repeated orthonormalisation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._clamp import Held
from thalweg._edge import is_whole, number, shown
from thalweg._loop import all_finite, apply_step
from thalweg._noise import next_draw, open_stream
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.steering._frames import orthonormalise, push_frame
from thalweg.steering._parts import check_run, find_agent

BATCHES = 32
LINKED = 0.6  # correlation of neighbouring batch means above which they are not independent


def lyapunov_exponents(
    process: Process,
    state: Any,
    steps: int,
    k: int | None = None,
    clamp: Any = None,
    *,
    key: Any = None,
    discard: int | None = None,
    every: int = 1,
    window: Any = None,
    start: int = 0,
) -> Estimate:
    """The k largest Lyapunov exponents: at what rates small changes grow, in the long run.

    `lambda_j = lim (1/t) log R_jj`, with tangents made orthonormal by QR on the way (Benettin et al. 1980). With
    a `clamp` these are the conditional exponents (Pecora and Carroll 1990): the rates with that part held at the
    values of the run. The late rate of Op is the top conditional exponent minus the top exponent.

    **Arguments**

    - `process`, `state`, `steps`, `key`, `start`: the run, as for `tw.simulate`.
    - `k`: how many; all by default. - `clamp`, `window`: what is held, as in `tw.clamp`.
    - `discard`: steps before counting begins, by default a tenth.
    - `every`: steps between two orthonormalisations. 1 is safe; 10 is faster where a step stretches little.

    **Returns** an `Estimate` of shape (k,), descending: per unit of time where the process has a `dt`, else per
    step. The error comes from batch means over time, and is good to a factor of about 1.5 itself. It works under
    `vmap` over starts.

    **Raises** `ValueError` for k beyond the free coordinates or a state without floating numbers.

    When not to trust it: `TOO_SHORT`, where neighbouring batches are still correlated (drift, transients); a
    scheme of low order has exponents of its own (Lorenz by Euler, dt = 0.01: top exponent 14% high).

    >>> import thalweg as tw
    >>> lorenz = tw.systems.lorenz(28.0)
    >>> found = tw.steering.lyapunov_exponents(lorenz, lorenz.init(a=1, b=1, c=1), 20_000, clamp="b")
    >>> [round(float(v), 4) for v in found.value]  # -beta and -sigma, to the order of the scheme
    [-2.6667, -10.0]
    """
    state, steps, key, start = check_run(process, state, steps, key, start)
    held = find_agent(clamp, window, process, state, key, "clamp")
    free = _free_entries(held, state)
    coordinates = sum(int(mask.sum()) for mask in free)
    if coordinates == 0:
        raise ValueError("clamp holds every coordinate of the state: nothing is left to grow")
    if k is None:
        k = coordinates
    if not is_whole(k) or not 1 <= k <= coordinates:
        raise ValueError(f"k must be a whole number from 1 to {coordinates}, the free coordinates, got {shown(k)}")
    if not is_whole(every) or every < 1:
        raise ValueError(f"every must be a whole number of steps >= 1, got {shown(every)}")
    if discard is None:
        discard = steps // 10
    elif not is_whole(discard) or discard < 0:
        raise ValueError(f"discard must be a whole number of steps >= 0, got {shown(discard)}")
    length = (steps - int(discard)) // (BATCHES * int(every))
    if length < 1:
        raise ValueError(
            f"steps must exceed discard by at least {BATCHES * every} for {BATCHES} batches of every {every} steps, "
            f"got steps {steps} and discard {discard}"
        )
    frame = _first_frame(free, state, int(k))
    logs, finite = _stretches(process, held, state, key, start, frame, number(discard), number(length), int(every))
    return _estimate(logs, length * every * (1.0 if process.dt is None else process.dt), finite)


# --------------------------------------------------------------------------------------------------


def _free_entries(held: Process, state: Any) -> list[np.ndarray]:
    """Which floating entries of the state are not held, leaf by leaf."""
    leaves = jax.tree.leaves(state)
    masks = (
        held.step._resolve(state)[1]
        if isinstance(held.step, Held) and held.step.window is None
        else [None] * len(leaves)
    )
    free = [
        np.ones(jnp.shape(leaf), bool) if mask is None else ~mask.held for leaf, mask in zip(leaves, masks, strict=True)
    ]
    return [mask for mask, leaf in zip(free, leaves, strict=True) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _first_frame(free: list[np.ndarray], state: Any, k: int) -> Any:
    """k orthonormal tangents in the free coordinates, the same in every call."""
    size = sum(int(mask.sum()) for mask in free)
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, k)))
    leaves, at = [], 0
    for mask in free:
        leaf = np.zeros((k, *mask.shape))
        leaf[:, mask] = q[at : at + mask.sum()].T
        at += int(mask.sum())
        leaves.append(leaf)
    moving = eqx.filter(state, eqx.is_inexact_array)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(moving)]
    leaves = [jnp.asarray(leaf, dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(moving), leaves)


@eqx.filter_jit
def _stretches(process, held, state, key, start, frame, discard, length, every: int) -> tuple[Any, Any]:
    """The summed log stretches of each batch, shape (batches, k)."""
    moving, still = eqx.partition(state, eqx.is_inexact_array)

    def one(t, carried):
        moving, still, frame, noise = carried
        w, noise = next_draw(process.noise, key, start + t, noise)

        def step(m):
            after = apply_step(held.step, eqx.combine(m, still), w, start + t)
            return eqx.partition(after, eqx.is_inexact_array)

        return (*_in_order(push_frame(step, moving, frame)), noise)

    def round_of(r, both, first):
        carried, logs = both
        moving, still, frame, noise = lax.fori_loop(first + r * every, first + (r + 1) * every, one, carried)
        frame, stretch = orthonormalise(frame)
        return (moving, still, frame, noise), logs + stretch

    def rounds(carried, first, count):
        none = jnp.zeros(jax.tree.leaves(frame)[0].shape[0])
        return lax.fori_loop(0, count, lambda r, both: round_of(r, both, first), (carried, none))

    carried, _ = rounds((moving, still, frame, open_stream(process.noise, key, start)), number(0), discard // every)

    def batch(carried, b):
        return rounds(carried, discard // every * every + b * length * every, length)

    carried, logs = lax.scan(batch, carried, jnp.arange(BATCHES))
    return logs, all_finite(carried[0])


def _in_order(pushed: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    moving, frame, still = pushed
    return moving, still, frame


def _error(rates: Any) -> Any:
    """The error of the mean of all batches.

    Stretches telescope: what a batch gains at its end the next one loses, so that plain batch means overstate the
    error (Lorenz, batches of 6 units of time: fourfold). The squared error from batches of length L behaves as
    D + c/L; it is fitted over 32, 16 and 8 batches and taken at the whole length. Where it grows with L
    instead, the batches are correlated, and the longest ones tell.
    """
    squares, inverse, weights = [], [], []
    for joined in (1, 2, 4):
        means = rates.reshape(BATCHES // joined, joined, -1).mean(axis=1)
        squares.append(means.var(axis=0, ddof=1) / len(means))
        inverse.append(1 / joined)
        weights.append(len(means))
    e, x, w = jnp.stack(squares), np.array(inverse)[:, None], np.array(weights)[:, None] / sum(weights)
    slope = jnp.sum(w * (x - np.sum(w * x)) * e, axis=0) / np.sum(w * (x - np.sum(w * x)) ** 2)
    at_whole = jnp.sum(w * e, axis=0) + slope * (1 / BATCHES - np.sum(w * x))
    return jnp.sqrt(jnp.where(slope > 0, jnp.maximum(at_whole, slope / BATCHES), e[-1]))


@eqx.filter_jit
def _estimate(logs: Any, time: Any, finite: Any) -> Estimate:
    rates = logs / time
    value, error = rates.mean(axis=0), _error(rates)
    off = rates - value
    spread = jnp.sum(off**2, axis=0)
    linked = jnp.sum(off[1:] * off[:-1], axis=0) / jnp.where(spread > 0, spread, 1.0)
    drifts = (linked > LINKED) & (error > 1e-9 * (1 + jnp.abs(value)))
    order = jnp.argsort(-value)
    status = jnp.where(drifts, int(Status.TOO_SHORT), int(Status.OK))[order]
    status = jnp.where(jnp.isneginf(value[order]), int(Status.NO_RESPONSE), status)
    status = jnp.where(finite & ~jnp.isnan(value[order]), status, int(Status.NOT_FINITE))
    error = jnp.where(jnp.isneginf(value), jnp.nan, error)
    return Estimate(value[order], error[order], status, {"factor": 10})
