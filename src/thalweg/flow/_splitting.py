"""Adaptive multilevel splitting: rare events by branching the paths that come nearest."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._checkpoints import digest
from thalweg._edge import check_function, check_number, one_number
from thalweg._items import each_of
from thalweg._loop import Batch, Options, apply_step
from thalweg._noise import Law, Shuffle, Together, as_key
from thalweg._process import Process, _vectorises, check_process, settle, what_it_is
from thalweg._results import Estimate, Status
from thalweg.flow._asked import whole
from thalweg.flow._increments import as_state


def splitting(
    process: Process,
    start: Any,
    score: Callable[[Any], Any],
    level: float,
    steps: int,
    *,
    key: Any,
    paths: int = 1000,
    kill: int = 50,
    repeats: int = 10,
    most_levels: int = 100_000,
    options: Options | None = None,
    resume: bool = False,
) -> Estimate:
    """The probability that a process reaches `score(state) >= level` within `steps` steps, however rare.

    `paths` paths are run. Again and again the `kill`-th smallest of their highest scores is found, *all* paths
    that came no higher are killed, and each is replaced by a survivor, copied up to the first time it stood
    strictly above and run anew from there. With K_j killed at level j, the estimate of one repeat is

    `P = prod_j (1 - K_j / paths) * (share of the paths at the level)`,

    which is unbiased for any score; a good score makes it precise. The value is the mean over the repeats.

    **Arguments**

    - `process`: any process; `start`: its state (a pytree), or what its `init` takes.
    - `score`: a number for a state: how near it is. `level`: what counts as there.
    - `steps`: the horizon. - `key`: a key or a seed.
    - `paths`, `kill`: paths a repeat, and how many are killed a level at least. - `repeats`: independent repeats.
    - `most_levels`: give up on a repeat after so many levels.
    - `options`: `tw.Options`: `progress`, `checkpoint` (a folder, from which `resume=True` goes on), `shard` (repeats
      over all devices, and the processes of `tw.connect`). A job that is stopped early answers with the repeats it has.

    **Returns** an `Estimate`; its error is the standard error of the mean over the repeats. `details`: `repeats` (each
    estimate), `spread` (relative standard deviation of one repeat), `ideal_spread` (the least possible with so
    many paths: `sqrt(sum_j K_j / (paths (paths - K_j)))`), `levels`, `extinct` (repeats that died out), `bytes` (memory
    of the paths: lineages, not states; a branch is replayed from the start, to the same bits), `log10`.

    The status is `POOR_SCORE` where repeats died out, or the spread of one repeat is beyond 1 or beyond 4 times
    the least possible: then the mean hangs on few repeats and its error bar cannot be trusted. `NOT_CONVERGED` where a
    repeat went through `most_levels` levels: the score stalls.

    **Raises** `ValueError` for a start at or above the level, for noise that ties steps together (`Shuffle`, epochs
    without replacement), and for a score that is not one finite number.

    Source: Cerou and Guyader (2007); Brehier, Gazeau, Goudenege, Lelievre and Rousset (2016) for ties and
    the proof that the estimate is unbiased.

    **Example**: a coin that must rise ten times in ten steps, 2^-10.

    >>> import thalweg as tw
    >>> walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    >>> p = tw.flow.splitting(walk, 0.0, lambda x: x, 10.0, 10, key=0, paths=500)
    >>> abs(float(p) * 2**10 - 1) < 4 * p.error * 2**10
    True
    """
    check_process(process)
    steps, paths, kill = whole(steps, "steps", 1), whole(paths, "paths", 2), whole(kill, "kill", 1)
    repeats, most_levels = whole(repeats, "repeats", 2), whole(most_levels, "most_levels", 1)
    if kill >= paths:
        raise ValueError(f"kill must be below paths = {paths}, got {kill}: some paths must survive")
    check_function(score, "score", "state")
    height_wanted = check_number(level, "level")
    if height_wanted.shape:
        raise ValueError(f"level must be one number, got shape {height_wanted.shape}")
    level = float(height_wanted)
    if _ties_steps(process.noise):
        raise ValueError(
            "splitting cannot branch an epoch without replacement (Shuffle): a branch draws its own noise; use "
            'order="subset" or order="replacement"'
        )
    key = as_key(key)
    if key.ndim:
        raise ValueError(f"key must be one key, got {key.shape[0]}")
    state = settle(process, as_state(process, start, "start"), key, Batch())
    height = _height(score, state)
    if height >= level:
        raise ValueError(f"start must lie below the level {level}, got a score of {height:.6g} there")

    first = jax.tree.map(lambda leaf: leaf[None], state)
    together = _vectorises(process, first, jax.random.split(key, 1), Batch(1, "nothing", False), None)
    sizes = Sizes(int(steps), int(paths), int(kill), together)

    def one(repeat):
        run = _one_repeat(
            process,
            state,
            score,
            jnp.asarray(level, float),
            jax.random.fold_in(key, repeat),
            jnp.asarray(most_levels),
            sizes,
        )
        if bool(run.broken):
            raise ValueError("score must be a finite number wherever the process goes, got NaN on the way")
        return run._asdict()

    def so_far(answers):
        return f"P = {estimate(answers)}" if len(answers) > 1 else ""

    def estimate(answers):
        return _estimate([Repeat(**answer) for answer in answers], sizes.steps, sizes.paths, int(most_levels))

    identity = what_it_is(process, state, key) | {
        "score": digest(str(jax.make_jaxpr(score)(state)), score),
        "sizes": repr((*sizes, level, int(most_levels))),
    }
    answers, status = each_of(int(repeats), one, "repeats", options, identity=identity, resume=resume, estimate=so_far)
    if len(answers) < 2:
        raise KeyboardInterrupt(f"splitting was stopped after {len(answers)} of {repeats} repeats")
    found = estimate(answers)
    if status != Status.OK and found.ok:
        return Estimate(found.value, found.error, status, found.details | {"step": len(answers)})
    return found


class Sizes(NamedTuple):
    """What the compiled program is made for."""

    steps: int
    paths: int
    kill: int
    together: bool  # lanes step as one array, or one after the other (where that changes sums)


class Repeat(NamedTuple):
    """What one repeat gives."""

    log_kept: Any  # log of the product of kept shares
    arrived: Any  # share of the paths at the level in the end
    ideal: Any  # relative variance with a perfect score
    levels: Any
    extinct: Any
    broken: Any


class Population(NamedTuple):
    """The paths: `names[m, t]` names the noise of step t of path m; `best[m]` is its highest score."""

    names: Any
    best: Any


@eqx.filter_jit
def _one_repeat(
    process: Process, state: Any, score: Callable[[Any], Any], level: Any, key: Any, most: Any, sizes: Sizes
) -> Repeat:
    steps, paths, kill, together = sizes

    def advance(lane, name, floor, t):
        """One step of one lane: on its parent's noise up to its first time above `floor`, then on its own."""
        state, branched, best, parent = lane
        use = jnp.where(branched, name, parent)
        w = process.noise.sample(jax.random.fold_in(key, use), t)
        state = apply_step(process.step, state, w, t)
        height = jnp.asarray(score(state), float)
        return (state, branched | (height > floor), jnp.maximum(best, height), parent), use

    def grow(parents, names, floor):
        """New paths from their parents' lineages, shape (lanes, steps): their own lineages and best scores."""
        lanes = len(names)
        fresh = jnp.broadcast_to(floor < score0, (lanes,))
        begin = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (lanes, *leaf.shape)), state)

        def body(carry):
            t, states, branched, best, lineage = carry

            def one(lane):
                return advance(lane[:4], lane[4], floor, t)

            lane = (states, branched, best, parents[:, t], names)
            (states, branched, best, _), use = jax.vmap(one)(lane) if together else jax.lax.map(one, lane)
            return t + 1, states, branched, best, lineage.at[:, t].set(use)

        def going(carry):
            return (carry[0] < steps) & ~jnp.all(carry[3] >= level)

        best = jnp.full(lanes, score0)
        end = jax.lax.while_loop(going, body, (jnp.array(0), begin, fresh, best, jnp.zeros((lanes, steps), jnp.int32)))
        return end[4], end[3]

    score0 = jnp.asarray(score(state), float)

    def refill(population, order, count, floor, survivors, round_key, first_name):
        """Replace `order[:count]` by branches of survivors, `kill` at a time."""

        def some(j, population):
            lane = j * kill + jnp.arange(kill)
            wanted = lane < count
            victims = jnp.where(wanted, order[jnp.minimum(lane, paths - 1)], paths)
            # Survivors are order[count:]; each is drawn with equal odds.
            drawn = jax.random.randint(jax.random.fold_in(round_key, j), (kill,), 0, jnp.maximum(survivors, 1))
            parents = order[jnp.minimum(count + drawn, paths - 1)]
            names, best = grow(population.names[parents], (first_name + lane).astype(jnp.int32), floor)
            return Population(
                population.names.at[victims].set(names, mode="drop"),
                population.best.at[victims].set(best, mode="drop"),
            )

        return jax.lax.fori_loop(0, -(-count // kill), some, population)

    empty = Population(jnp.zeros((paths, steps), jnp.int32), jnp.full(paths, -jnp.inf))
    population = refill(empty, jnp.arange(paths), jnp.array(paths), -jnp.inf, 0, key, 0)

    def cut(population):
        order = jnp.argsort(population.best)
        ordered = population.best[order]
        return order, ordered[kill - 1]

    def body(carry):
        population, repeat = carry
        order, floor = cut(population)
        count = jnp.sum(population.best <= floor)
        left = paths - count
        share = left / paths
        round_key = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), repeat.levels)
        first_name = paths + repeat.levels * paths
        population = refill(population, order, jnp.where(left > 0, count, 0), floor, left, round_key, first_name)
        repeat = Repeat(
            repeat.log_kept + jnp.log(share),
            repeat.arrived,
            repeat.ideal + jnp.where(left > 0, count / (paths * jnp.maximum(left, 1)), 0.0),
            repeat.levels + 1,
            left == 0,
            repeat.broken | jnp.any(jnp.isnan(population.best)),
        )
        return population, repeat

    def going(carry):
        population, repeat = carry
        return (cut(population)[1] < level) & ~repeat.extinct & ~repeat.broken & (repeat.levels < most)

    zero = jnp.zeros(())
    begin = Repeat(zero, zero, zero, jnp.array(0), jnp.array(False), jnp.any(jnp.isnan(population.best)))
    population, repeat = jax.lax.while_loop(going, body, (population, begin))
    arrived = jnp.mean(population.best >= level)
    last = jnp.where(arrived > 0, (1 - arrived) / (paths * jnp.maximum(arrived, 1 / paths)), 0.0)
    return repeat._replace(arrived=jnp.where(repeat.extinct, 0.0, arrived), ideal=repeat.ideal + last)


def _estimate(runs: list[Repeat], steps: int, paths: int, most_levels: int) -> Estimate:
    def column(name: str) -> np.ndarray:
        return np.array([float(getattr(run, name)) for run in runs])

    extinct, arrived, levels = column("extinct") > 0, column("arrived"), column("levels")
    alive = ~extinct & (arrived > 0)
    logs = np.where(alive, column("log_kept") + np.log(np.where(alive, arrived, 1.0)), -np.inf)
    top = np.max(logs)
    details: dict[str, Any] = {
        "levels": float(np.mean(levels)),
        "extinct": int(np.sum(extinct)),
        "ideal_spread": float(np.sqrt(np.mean(column("ideal")))),
        "bytes": paths * (4 * steps + 8),
        "paths": paths,
    }
    if not np.isfinite(top):
        stalled = np.any(levels >= most_levels)
        details["why"] = "no repeat reached the level"
        details["iterations"] = most_levels
        status = Status.NOT_CONVERGED if stalled else Status.POOR_SCORE
        return Estimate(0.0, math.inf, status, {**details, "repeats": np.exp(logs)})
    scaled = np.exp(logs - top)
    mean, deviation = np.mean(scaled), np.std(scaled, ddof=1)
    spread = float(deviation / mean)
    value, error = math.exp(top) * float(mean), math.exp(top) * float(deviation) / math.sqrt(len(runs))
    details |= {"repeats": np.exp(logs), "spread": spread, "log10": float((top + np.log(mean)) / math.log(10))}
    status = Status.OK
    if np.any(levels >= most_levels):
        status = Status.NOT_CONVERGED
        details["iterations"] = most_levels
    elif np.any(extinct):
        status = Status.POOR_SCORE
        details["why"] = f"{np.sum(extinct)} of {len(runs)} repeats died out"
    elif spread > 1 or spread > 4 * details["ideal_spread"]:
        status = Status.POOR_SCORE
        details["why"] = f"repeats spread by {spread:.2g}, at best {details['ideal_spread']:.2g} is possible"
    return Estimate(value, error, status, details)


def _height(score: Callable[[Any], Any], state: Any) -> float:
    height = np.asarray(one_number(score(state), "score"))
    if not np.isfinite(height):
        raise ValueError(f"score must give one finite number for one state, got {height} at the start")
    return float(height)


def _ties_steps(law: Law) -> bool:
    if isinstance(law, Together):
        return any(_ties_steps(part) for part in law._flat())
    return isinstance(law, Shuffle)
