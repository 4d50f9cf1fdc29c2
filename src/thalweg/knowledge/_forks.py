"""Forks: twins of a training run on changed data and the same noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_finite, check_number, check_steps, check_truth, is_traced, is_whole, shown
from thalweg._noise import as_key
from thalweg._process import Process, Run, fork, simulate
from thalweg._results import Status
from thalweg.knowledge._pools import Pools
from thalweg.processes import sgd
from thalweg.processes._descent import Learner


@dataclass(frozen=True)
class Forks:
    """Four twins of one snapshot, each trained without one class of a pair.

    - `ends`: the parameters of each twin at its end, by the class that it kept of its pair.
    - `c`, `d`: |difference of the ends| of the first and of the second pair, like the parameters.
    - `share`: `c / (c + d)`, like the parameters; NaN where both are 0: there is nothing to share.
    - `status`, `message`: `NOT_FINITE` where a twin blew up.
    """

    ends: Mapping[int, Any]
    c: Any
    d: Any
    status: Status

    @property
    def share(self) -> Any:
        return jax.tree.map(share, self.c, self.d)

    @property
    def ok(self) -> bool:
        """Whether all twins stayed finite."""
        return self.status == Status.OK

    @property
    def message(self) -> str:
        """The status in words."""
        return self.status.sentence()


def forks(
    loss: Any,
    data: Any,
    optimizer: Any,
    params: Any,
    labels: Any,
    pairs: Any = ((1, 7), (6, 8)),
    steps: int = 9600,
    *,
    key: Any = 0,
    matched: bool = True,
    batch_size: int = 1,
) -> Forks:
    """Train four twins of one snapshot, each without one class of a pair: which parameters does the choice move?

    With pairs (1, 7) and (6, 8) the twins see 1|6,8; 7|6,8; 1,7|6; 1,7|8. A slot of a batch draws a pair with
    equal odds, then a datum of it.

    **Arguments**

    - `loss`, `data`, `optimizer`, `batch_size`: as in `tw.processes.sgd`.
    - `params`: the snapshot: parameters, or a `Learner` with the optimizer's memory.
    - `labels`: the class of each datum, (n,) whole numbers. - `pairs`: two pairs of classes.
    - `steps`: SGD steps of each twin.
    - `matched`: all twins have the same noise: the same slots for the first and the second pair, and the same
      rows of the pair that is shared. Otherwise each draws its own.

    **Returns** `Forks`. Two classes with the same data give a difference of exactly 0.

    **Raises** `ValueError` for labels of the wrong length and classes that do not occur.

    >>> import jax.numpy as jnp, numpy as np, thalweg as tw
    >>> x = jnp.array([0.0, 2.0, 5.0, 5.0])
    >>> loss = lambda p, x: (p - x) ** 2 / 2
    >>> f = tw.knowledge.forks(loss, x, 0.5, 0.0, np.array([1, 7, 6, 8]), steps=50, key=0)
    >>> float(f.d), float(f.share)  # 6 and 8 are the same datum
    (0.0, 1.0)
    """
    steps = check_steps(steps)
    check_truth(matched, "matched")
    learner = sgd(loss, data, optimizer, batch_size)
    n = len(jax.tree.leaves(data)[0])
    labels = check_labels(labels, n)
    (a, b), (c, d) = check_pairs(pairs, labels)
    start = params if isinstance(params, Learner) else learner.init(params)
    check_finite(jax.tree.map(jnp.asarray, start.params), "params")
    ends, status = twins(learner, start, labels, ((a, b), (c, d)), steps, as_key(key), matched)

    def between(one: int, other: int) -> Any:
        return jax.tree.map(lambda p, q: abs(p - q), ends[one], ends[other])

    return Forks(ends, between(a, b), between(c, d), status)


def twins(
    learner: Process, start: Any, labels: np.ndarray, pairs: Any, steps: int, key: Any, matched: bool, folds: Any = None
) -> tuple[dict[int, Any], Status]:
    """The ends of the four twins, by the class that each keeps of its pair, and the worst status.

    Labels outside the pairs belong to data that no twin sees.
    """
    (a, b), (c, d) = pairs
    keeps = {a: ((a,), (c, d)), b: ((b,), (c, d)), c: ((a, b), (c,)), d: ((a, b), (d,))}
    most = int(max(np.sum(np.isin(labels, pair)) for pair in pairs))
    ends, status = {}, Status.OK
    for number, (kept, groups) in enumerate(keeps.items()):
        pools = [np.flatnonzero(np.isin(labels, group)) for group in groups]
        twin = drawing(learner, Pools(pools, most, getattr(learner.noise, "shape", ())))
        run = simulate(twin, start, steps, key=key if matched else jax.random.fold_in(key, number), folds=folds)
        ends[kept], status = run.state.params, max(status, Status(int(run.status)))
    return ends, status


def drawing(learner: Process, noise: Any) -> Process:
    """The learner with its data drawn by another law."""
    return eqx.tree_at(lambda process: process.noise, learner, noise)


def fork_data(
    run: Run,
    at: int | None = None,
    *,
    remove: Any = None,
    replace: Any = None,
    reweight: Any = None,
    reorder: Any = None,
    **how: Any,
) -> Run:
    """A twin of a run of `tw.processes.sgd` that leaves it before step `at` and goes on with changed data, same noise.

    **Arguments**

    - `run`: a `Run` of SGD (or any optax optimizer). - `at`: the step; by default the first.
    - `remove`: which data are taken out: their numbers, or a mask. Their steps are skipped, the optimizer's too.
    - `replace`: data in place of the old ones, of the same shapes: relabelled, for example.
    - `reweight`: (n,) weights, >= 0, in place of the old ones.
    - `reorder`: a permutation of 0..n-1: where the run drew datum i, the twin sees datum `reorder[i]`. The other
      changes are made first: they speak of the data as they were numbered.
    - `how`: `record`, `folds`, `every`, `steps` as in `tw.fork`.

    **Returns** the twin, a `Run`. Without a change it ends where the run did, bit for bit.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> learner = tw.processes.sgd(lambda p, x: (p - x) ** 2 / 2, jnp.array([1.0, 3.0]), 0.5)
    >>> run = tw.simulate(learner, learner.init(0.0), 60, key=0)
    >>> round(float(tw.knowledge.fork_data(run, remove=[0]).state.params), 6)  # only 3 is left
    3.0
    """
    if not isinstance(run, Run):
        raise TypeError(f"run must be a Run, as tw.simulate gives it back, got {shown(run)}")
    step = run.process.step
    if not hasattr(step, "data") or not hasattr(step, "weights") or step.data is None:
        raise ValueError("run must be one of tw.processes.sgd, whose data can be changed, got another process")
    n = jax.tree.leaves(step.data)[0].shape[0]
    data, weights = step.data, step.weights
    if replace is not None:
        data = _like_data(replace, data)
    if reweight is not None:
        weights = check_number(reweight, "reweight", least=0)
        if weights.shape != (n,):
            raise ValueError(f"reweight must have shape ({n},), one a datum, got {weights.shape}")
    if remove is not None:
        gone = as_mask(remove, n, "remove")
        if gone.all():
            raise ValueError(f"remove must leave at least one datum, got all {n}")
        weights = jnp.where(gone, 0.0, jnp.ones(n) if weights is None else weights)
    if weights is not None and not is_traced(weights) and not jnp.any(weights > 0):
        raise ValueError("reweight and remove must leave at least one datum of weight > 0, got none")
    if reorder is not None:
        order = np.asarray(reorder)
        if order.shape != (n,) or order.dtype.kind not in "iu" or not np.array_equal(np.sort(order), np.arange(n)):
            raise ValueError(f"reorder must be a permutation of 0..{n - 1}, got {shown(reorder)}")
        data = jax.tree.map(lambda leaf: leaf[order], data)
        weights = None if weights is None else weights[order]
    changed = eqx.tree_at(
        lambda s: (s.data, s.weights), step, (data, weights), is_leaf=lambda leaf: leaf is None or leaf is data
    )
    # The process's other functions of the data follow the step's.
    process = Process(
        changed,
        run.process.noise,
        run.process.init,
        coordinates=run.process.coordinates,
        contributions=changed.contributions,
    )
    return fork(run, int(run.start) if at is None else at, process=process, **how)


# --------------------------------------------------------------------------------------------------


def share(a: Any, b: Any) -> Any:
    """`a / (a + b)`; NaN where both are 0."""
    total = a + b
    return jnp.where(total > 0, a / jnp.where(total > 0, total, 1.0), jnp.nan)


def check_labels(labels: Any, n: int, name: str = "labels") -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be {n} whole numbers, one a datum, got {shown(labels)}")
    return array


def check_pairs(pairs: Any, labels: np.ndarray | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two pairs of four different classes, each of which occurs."""
    try:
        found = tuple(tuple(pair) for pair in pairs)
    except TypeError:
        found = ()
    flat = [one for pair in found for one in pair]
    if [len(pair) for pair in found] != [2, 2] or not all(is_whole(one) for one in flat) or len(set(flat)) < 4:
        raise ValueError(f"pairs must be two pairs of four classes such as ((1, 7), (6, 8)), got {shown(pairs)}")
    missing = [] if labels is None else sorted(set(flat) - set(labels.tolist()))
    if missing:
        raise ValueError(f"pairs must name classes that occur among the labels, got {missing} that do not")
    return found  # type: ignore[return-value]


def as_mask(which: Any, n: int, name: str) -> np.ndarray:
    """Numbers of data, or a mask of them, as a mask."""
    array = np.asarray(which)
    if array.dtype == bool and array.shape == (n,):
        return array
    if array.dtype.kind not in "iu" or array.ndim > 1 or not array.size or array.min() < 0 or array.max() >= n:
        raise ValueError(f"{name} must be numbers of data from 0 to {n - 1}, or a mask of {n}, got {shown(which)}")
    mask = np.zeros(n, bool)
    mask[array] = True
    return mask


def _like_data(new: Any, old: Any) -> Any:
    if jax.tree.structure(new) != jax.tree.structure(old) or any(
        np.shape(a) != b.shape for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
    ):
        wanted = [leaf.shape for leaf in jax.tree.leaves(old)]
        raise ValueError(f"replace must have the shapes of the run's data, {wanted}, got {shown(new)}")
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, old)
