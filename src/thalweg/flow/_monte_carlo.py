"""The questions of an operator, answered by simulation, with the error bars of counting."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from thalweg._edge import check_finite, check_real, check_steps, is_whole
from thalweg._items import check_resume
from thalweg._loop import Options, as_arrays
from thalweg._noise import as_key
from thalweg._process import Fold, Process, Run, check_process, ensemble
from thalweg._results import Estimate, Status
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._outcomes import first_line, holds
from thalweg.flow._space import Grid
from thalweg.flow._spectrum import eigenvalues, relaxation_times

GROUPS = 32  # independent groups of members, whose differences tell the error of a time average


def monte_carlo(
    process: Process, members: int, key: Any, space: Grid | None = None, options: Options | None = None
) -> "MonteCarlo":
    """Ask by simulation what `transfer_operator` answers exactly: the same questions, with sampling errors.

    **Arguments**

    - `process`: any `Process`, in any dimension. - `members`: how many runs an answer is counted from, at least 2.
    - `key`: the random key or seed. Every question asked of the same key gets the same answer again.
    - `space`: the `Grid` on which densities are counted, for `push` and `stationary_density`.
    - `options`: `tw.Options` for the runs: `progress`, `shard`. No checkpoints: `tw.ensemble` keeps them.

    **Returns** a `MonteCarlo`. A probability p has the error `sqrt(p (1-p) / members)`, so nothing much below
    `10 / members` can be seen: ask the operator, or split.

    >>> import thalweg as tw
    >>> M = tw.flow.monte_carlo(tw.systems.coin(1.0), 1000, key=0)
    >>> float(M.escape_probability(0.0, lambda x: abs(x) >= 2, 2))  # two equal tosses: 1/2
    0.514
    """
    return MonteCarlo(process, members, key, space, options)


class MonteCarlo:
    """What `monte_carlo` gives back. One unit of time is one step."""

    def __init__(
        self, process: Process, members: int, key: Any, space: Grid | None = None, options: Options | None = None
    ):
        check_process(process)
        if not is_whole(members) or not 2 <= members < 2**31:
            raise ValueError(f"members must be a whole number from 2 to 2^31 - 1, got {members!r}")
        if space is not None and not isinstance(space, Grid):
            raise TypeError(f"space must be a tw.flow.Grid, got {type(space).__name__}")
        self.process = process
        self.members = int(members)
        self.key = as_key(key)
        if self.key.ndim:
            raise ValueError(f"key must be one key, got {self.key.shape[0]}: the members' keys are made from it")
        self.space = space
        check_resume(Options() if options is None else options, False)
        if options is not None and options.checkpoint is not None:
            raise ValueError(
                "options must leave checkpoint out here: a question is several runs; tw.ensemble keeps checkpoints"
            )
        self.options = options

    def push(self, density: Any, steps: int) -> Estimate:
        """The density after `steps` steps, counted cell by cell.

        `density` is an array of the grid's shape, or the estimate of another push.
        """
        grid = self._grid(density)
        array, steps = grid.check_density(getattr(density, "value", density)), check_steps(steps)
        chart = self._chart(grid)
        states = self._sample(chart, grid, array, 0)
        end = self._run(states, steps, key=self._key(1)).state
        points = np.asarray(jax.vmap(chart.point)(end))
        counts, outside = _counts(grid, points)
        return self._density(grid, counts / self.members, _binomial_error(counts, self.members), outside / self.members)

    def stationary_density(self, steps: int = 1000, burn_in: int = 1000) -> Estimate:
        """The density in the long run: all members start evenly spread over the grid, make `burn_in` steps, and are
        counted during `steps` more.

        Its error is that of the mean over 32 groups of members. It does not know whether `burn_in` was long enough.
        """
        grid = self._grid(None)
        steps, burn_in, chart = check_steps(steps), check_steps(burn_in), self._chart(grid)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        states = self._sample(chart, grid, np.full(grid.shape, 1 / (grid.size * grid.cell_volume)), 2)
        key = self._key(3)
        states = self._run(states, burn_in, key=key).state
        groups = min(GROUPS, self.members)
        visits = _Visits(chart.selection, grid, groups, self.members)
        folds = {"visits": Fold(visits.init, visits.update, over="ensemble")}
        run = self._run(states, steps, key=key, start=burn_in, folds=folds)
        counts = np.asarray(run.folds["visits"], dtype=float)
        sizes = np.bincount(np.arange(self.members) * groups // self.members, minlength=groups) * steps
        shares = counts / sizes[:, None]
        error = np.maximum(shares.std(axis=0, ddof=1) / np.sqrt(groups), 1 / (self.members * steps))
        outside = 1 - counts.sum() / (self.members * steps)
        return self._density(grid, shares.mean(axis=0), error, outside)

    def escape_probability(self, start: Any, target: Predicate, steps: int) -> Estimate:
        """The probability to be in the target at one of the steps 1, ..., `steps`.

        The error is binomial, and never 0: with k arrivals of n it is the standard deviation of the Beta(k + 1,
        n - k + 1) law. `details["interval"]` is the 95% interval of Clopper and Pearson. Where no member arrived the
        status says so, and how large the probability may still be.
        """
        run = self._until(start, target, check_steps(steps), 4)
        arrived, n = int(np.sum(run.arrived)), self.members
        details: dict[str, Any] = {"arrived": arrived, "members": n, "interval": _interval(arrived, n)}
        status = Status.OK
        if arrived == 0:
            status = Status.UNDEFINED
            details["why"] = (
                f"none of {n} members arrived, so the probability is below {details['interval'][1]:.2g} (at 95%): "
                "ask the operator, or tw.flow.splitting"
            )
        return Estimate(arrived / n, float(_binomial_error(np.array(arrived), n)), status, details)

    def mean_first_passage_time(self, start: Any, target: Predicate, steps: int = 100_000) -> Estimate:
        """The mean number of steps until the target is first met; no member is followed longer than `steps`.

        Where all arrived: their mean, with its standard error. Where some did not, the arrivals are taken for
        geometric: steps of all members over arrivals, the maximum-likelihood estimate, with status `NOT_ARRIVED`.
        Where none did, infinity; `details["lower_limit"]` holds at 95%.
        """
        steps = check_steps(steps)
        run = self._until(start, target, steps, 5)
        times, arrived = np.asarray(run.steps, dtype=float), np.asarray(run.arrived)
        count, total, n = int(arrived.sum()), float(times.sum()), self.members
        details: dict[str, Any] = {"arrived": count, "members": n, "missing": n - count}
        if count == n:
            return Estimate(
                total / n, max(float(times.std(ddof=1)) / np.sqrt(n), 1e-15 * total / n), Status.OK, details
            )
        details["lower_limit"] = total / 3.0 if count == 0 else total / (count + 2 * np.sqrt(count))
        if count == 0:
            return Estimate(np.inf, np.inf, Status.NOT_ARRIVED, details)
        return Estimate(total / count, total / count / np.sqrt(count), Status.NOT_ARRIVED, details)

    def committor(self, a: Predicate, b: Predicate, steps: int = 100_000) -> Estimate:
        """The probability, from every cell, to meet `b` before `a`: 0 on a, 1 on b; `members` runs from each cell.

        The error is binomial. Runs that meet neither within `steps` steps are left out, as the status tells.
        """
        grid, steps = self._grid(None), check_steps(steps)
        chart, n = self._chart(grid), self.members
        in_a, in_b = (holds(part, chart, grid.points, name).reshape(grid.shape) for name, part in (("a", a), ("b", b)))
        for name, part in (("a", in_a), ("b", in_b)):
            if not part.any():
                raise ValueError(f"{name} must hold at the center of some cell, and holds at none")
        if np.any(in_a & in_b):
            raise ValueError("a and b must not overlap, and both hold at some cell")
        points = np.repeat(grid.points, n, axis=0)
        states = jax.vmap(chart.state)(jnp.asarray(points))
        run = self._run(states, steps, key=self._key(6), until=lambda s: a(s) | b(s))
        arrived = np.asarray(run.arrived).reshape(*grid.shape, n)
        at_b = np.asarray(jax.vmap(lambda s: jnp.asarray(b(s)))(run.state)).reshape(*grid.shape, n) & arrived
        count = arrived.sum(axis=-1)
        value = np.where(in_b, 1.0, np.where(in_a, 0.0, at_b.sum(axis=-1) / np.maximum(count, 1)))
        error = np.where(in_a | in_b, 0.0, _binomial_error(at_b.sum(axis=-1), count))
        missing = int(arrived.size - arrived.sum())
        details = {"space": grid, "missing": missing, "members": arrived.size}
        return Estimate(value, error, Status.NOT_ARRIVED if missing else Status.OK, details)

    def relaxation_times(self, k: int) -> Estimate:
        """The `k` longest times in which a perturbation dies out, from single steps counted between cells.

        `members` steps start spread over each cell; the table of their shares has the eigenvalues (Ulam, 1960), so that
        cells which are not small against a step bias them. The error is that of the mean over 4 groups of members.
        """
        grid = self._grid(None)
        if not is_whole(k) or not 1 <= k < grid.size // 4 - 2:
            raise ValueError(f"k must be a whole number from 1 to a quarter of the cells, got {k!r}")
        chart, groups = self._chart(grid), 4
        each = max(1, self.members // groups)
        found = []
        for group in range(groups):
            key = jax.random.fold_in(self._key(7), group)
            points = np.repeat(grid.points, each, axis=0)
            jitter = np.asarray(jax.random.uniform(key, points.shape)) - 0.5
            states = jax.vmap(chart.state)(jnp.asarray(points + jitter * grid.widths))
            after = np.asarray(jax.vmap(chart.point)(ensemble(self.process, states, 1, key=key).state))
            cells = _cells(grid, after)
            table = scipy.sparse.coo_matrix(
                (np.full(len(cells), 1 / each), (np.repeat(np.arange(grid.size), each), cells)), shape=(grid.size,) * 2
            )
            found.append(relaxation_times(eigenvalues(table.tocsr(), k + 1)))
        mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(groups)
        return Estimate(mean, error, Status.OK, {"space": grid})

    def current(self, density: Any) -> Estimate:
        """The probability current of a step, counted: as `TransferOperator.current` gives it."""
        grid = self._grid(density)
        array, chart, n = grid.check_density(getattr(density, "value", density)), self._chart(grid), self.members
        states = self._sample(chart, grid, array, 8)
        before = np.asarray(jax.vmap(chart.point)(states))
        after = np.asarray(jax.vmap(chart.point)(ensemble(self.process, states, 1, key=self._key(9)).state))
        details = {"space": grid}
        if grid.dimension == 1:
            edges = grid.edges[0][1:-1]
            x, y = np.searchsorted(edges, before[:, 0]), np.searchsorted(edges, after[:, 0])
            crossed = _passed(x, y, len(edges)), _passed(y, x, len(edges))
            value = (crossed[0] - crossed[1]) / n
            error = np.sqrt(np.maximum((crossed[0] + crossed[1]) / n - value**2, 1 / n) / n)
            pad = (1, 1)
            return Estimate(np.pad(value, pad), np.pad(error, pad), Status.OK, details)
        moved = (after - before) / 2 / (n * grid.cell_volume)
        value, square = np.zeros((grid.dimension, grid.size)), np.zeros((grid.dimension, grid.size))
        for end in (before, after):  # half of it belongs to where it leaves, half to where it enters
            cells = _cells(grid, end)
            for axis in range(grid.dimension):
                value[axis] += np.bincount(cells, moved[:, axis], minlength=grid.size)
                square[axis] += np.bincount(cells, moved[:, axis] ** 2, minlength=grid.size)
        shape = (grid.dimension, *grid.shape)
        least = np.abs(moved).max()
        return Estimate(value.reshape(shape), np.sqrt(square + least**2).reshape(shape), Status.OK, details)

    # ----------------------------------------------------------------------------------------------

    def _run(self, states: Any, steps: int, **how: Any) -> Run:
        return ensemble(self.process, states, steps, options=self.options, **how)

    def _until(self, start: Any, target: Predicate, steps: int, question: int) -> Any:
        if not callable(target):
            raise TypeError(f"target must be a predicate of one state, such as lambda s: s > 1.2, got {target!r}")
        state = self._state(start)
        if _met(target, state):
            raise ValueError(f"start must lie outside the target, got {start}, where the target holds already")
        states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.members, *leaf.shape)), state)
        return self._run(states, steps, key=self._key(question), until=target)

    def _state(self, start: Any) -> Any:
        """A start that is a state, or a point of which `init` makes one."""
        try:
            given = as_arrays(start)
        except TypeError:
            raise TypeError(f"start must be a state of the process or a point, got {start!r}") from None
        check_finite(given, "start")
        check_real(given, "start")
        leaves = jax.tree.leaves(given)
        if not leaves:
            raise ValueError(f"start must be a state of the process or a point, got {start!r}")
        if isinstance(start, list) and all(leaf.ndim == 0 for leaf in leaves):
            given = jnp.stack(leaves)
            leaves = [given]
        if len(leaves) == 1 and leaves[0].ndim <= 1 and jnp.issubdtype(leaves[0].dtype, jnp.number):
            point = np.asarray(leaves[0], dtype=float).reshape(-1)
            try:
                chart = Chart(self.process, len(point), point)
                return chart.state(jnp.asarray(chart.start(given)))
            except ValueError:
                return given
        return given

    def _chart(self, grid: Grid) -> Chart:
        return Chart(self.process, grid.dimension, np.array(grid.lower) / 2 + np.array(grid.upper) / 2)

    def _grid(self, density: Any) -> Grid:
        grid = self.space
        if grid is None and isinstance(density, Estimate):
            grid = density.details.get("space")
        if grid is None:
            raise ValueError(
                "a density needs the grid that it is counted on: pass space=tw.flow.Grid(...) to tw.flow.monte_carlo"
            )
        return grid

    def _sample(self, chart: Chart, grid: Grid, density: np.ndarray, question: int) -> Any:
        """Members that start distributed as a density, evenly within each cell."""
        cells, inside = jax.random.split(self._key(question))
        mass = jnp.cumsum(jnp.asarray(density).reshape(-1))
        u = jax.random.uniform(cells, (self.members,)) * mass[-1]
        chosen = np.asarray(jnp.searchsorted(mass, u, side="right"))
        jitter = np.asarray(jax.random.uniform(inside, (self.members, grid.dimension))) - 0.5
        points = grid.points[np.minimum(chosen, grid.size - 1)] + jitter * grid.widths
        return jax.vmap(chart.state)(jnp.asarray(points))

    def _key(self, question: int) -> Any:
        return jax.random.fold_in(self.key, question)

    def _density(self, grid: Grid, shares: np.ndarray, error: np.ndarray, outside: float) -> Estimate:
        details: dict[str, Any] = {"space": grid, "leak": outside}
        status = Status.OK
        if outside > 1e-3:
            status, details["mass"] = Status.LEAKS, f"probability {outside:.2g} in all"
        shape = grid.shape
        return Estimate(
            shares.reshape(shape) / grid.cell_volume, error.reshape(shape) / grid.cell_volume, status, details
        )


class _Visits(eqx.Module):
    """Counts how often each group of members visits each cell."""

    selection: Any
    grid: Grid = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    members: int = eqx.field(static=True)

    def init(self, states: Any) -> Any:
        return jnp.zeros((self.groups, self.grid.size), jnp.int64)

    def update(self, counts: Any, states: Any, w: Any, after: Any) -> Any:
        from thalweg.flow._chart import flatten

        points = jax.vmap(lambda s: flatten(self.selection.get(s)))(after)
        low, widths, shape = jnp.asarray(self.grid.lower), jnp.asarray(self.grid.widths), jnp.asarray(self.grid.shape)
        places = jnp.floor((points - low) / widths)
        inside = jnp.all((places >= 0) & (places < shape), axis=1)
        cells = jnp.zeros(len(points), jnp.int64)
        for axis, n in enumerate(self.grid.shape):
            cells = cells * n + jnp.clip(places[:, axis], 0, n - 1).astype(jnp.int64)
        group = jnp.arange(self.members) * self.groups // self.members
        return counts.at[group, cells].add(inside.astype(jnp.int64))


def _met(target: Predicate, state: Any) -> bool:
    try:
        answer = jnp.asarray(target(state))
    except (TypeError, ValueError) as problem:
        raise TypeError(f"target must be a predicate of one state, and failed: {first_line(problem)}") from None
    if answer.shape != ():
        raise ValueError(f"target must give one truth value for one state, got shape {answer.shape}")
    return bool(answer)


def _cells(grid: Grid, points: np.ndarray) -> np.ndarray:
    """The number of the cell that each point lies in; what is outside counts for the nearest."""
    places = np.floor((points - np.asarray(grid.lower)) / grid.widths)
    places = np.clip(places, 0, np.asarray(grid.shape) - 1).astype(int)
    return np.asarray(np.ravel_multi_index(tuple(places.T), grid.shape))


def _passed(begin: np.ndarray, end: np.ndarray, edges: int) -> np.ndarray:
    """How many pass each edge rightwards, by the number of edges left of where they begin and end."""
    ahead = end > begin
    steps = np.bincount(begin[ahead], minlength=edges + 1) - np.bincount(end[ahead], minlength=edges + 1)
    return np.cumsum(steps)[:edges].astype(float)


def _counts(grid: Grid, points: np.ndarray) -> tuple[np.ndarray, int]:
    """How many points lie in each cell, and how many in none."""
    counts, _ = np.histogramdd(points, bins=list(grid.edges))
    return counts.reshape(-1), int(len(points) - counts.sum())


def _binomial_error(counts: np.ndarray, n: int) -> np.ndarray:
    """The standard deviation of the Beta(k + 1, n - k + 1) law: about sqrt(p (1-p) / n), and never 0."""
    k = np.asarray(counts, dtype=float)
    return np.sqrt((k + 1) * (n - k + 1) / ((n + 2.0) ** 2 * (n + 3.0)))


def _interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934); one-sided where no member or every member arrived."""
    from scipy.stats import beta

    if k == 0:
        return 0.0, float(beta.ppf(level, 1, n))
    if k == n:
        return float(beta.ppf(1 - level, n, 1)), 1.0
    tail = (1 - level) / 2
    return float(beta.ppf(tail, k, n - k + 1)), float(beta.ppf(1 - tail, k + 1, n - k))
