"""The transfer operator: the step of a process as a map of densities, exact in the noise."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from thalweg._edge import check_steps, check_truth, is_whole
from thalweg._noise import Normal
from thalweg._process import Process, check_process
from thalweg._progress import Tell, steps_on
from thalweg._results import Estimate, Status
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._conditioned import conditioned
from thalweg.flow._current import crossings, displacements
from thalweg.flow._discrete import StatesLevel, StatesOperator
from thalweg.flow._first_passage import Killed, can_hit, passage, reached_from
from thalweg.flow._interpolation import averaged
from thalweg.flow._level import GaussianLevel, Level, entry, level
from thalweg.flow._limit import limit
from thalweg.flow._outcomes import holds
from thalweg.flow._point_start import Unfolded, unfold
from thalweg.flow._questions import Found, check_start, check_target, current, field, number
from thalweg.flow._space import Grid, States
from thalweg.flow._spectrum import Modes, eigenvalues, modes, relaxation_times


def transfer_operator(
    process: Process, space: Grid | States, *, progress: bool = False
) -> "TransferOperator | StatesOperator":
    """Where a step takes probability: the process as a linear map of densities.

    Backward, `(Ku)(x) = sum_j w_j u(F_j(x))`: the outcomes `F_j` of a step are evaluated at the centers of the cells
    and `u` is interpolated linearly. Finite noise is summed exactly. Gaussian noise that a step on one axis is linear
    in is integrated over every cell in closed form; elsewhere by quadrature. Densities are pushed by the exact
    transpose, so that their mass is kept. Every answer is computed on the grid and on coarser ones, and its error says
    how far the grid may have it wrong; there is no sampling error.

    **Arguments**

    - `process`: a `Process` whose noise can be integrated, or which knows its `transition`.
    - `space`: a `Grid` with one axis for each coordinate of a state, or `States` that a step does not leave.
    - `progress`: whether each question shows a line on stderr: steps made on a grid of so many cells, how long still,
      and the answer so far.

    **Returns** a `TransferOperator`, or for `States` a `StatesOperator`, which answers the same without error.
    **Raises** `ValueError` for noise that cannot be integrated (`Uniform`, `Shuffle`, `Key`), for a state with more
    coordinates than the grid has axes, and for a step that is not finite on the grid.

    Do not trust it where cells are wider than a step of the process: interpolation adds about (cell width)^2/6 of
    variance a step. The error bar shows it. Where maps expand, answers converge irregularly, as the error says.

    >>> import thalweg as tw
    >>> P = tw.flow.transfer_operator(tw.systems.linear_noise(0.1), tw.flow.Grid(1.0, 3.0, 400))
    >>> density = P.stationary_density()
    >>> round(float((density.value * P.space.centers[0]).sum() * P.space.cell_volume), 3)  # the mean is 2
    2.0
    """
    check_process(process)
    check_truth(progress, "progress")
    if isinstance(space, States):
        return StatesOperator(StatesLevel(process, space), progress)
    if not isinstance(space, Grid):
        raise TypeError(f"space must be a tw.flow.Grid or tw.flow.States, got {type(space).__name__}")
    return TransferOperator(process, space, progress)


class TransferOperator:
    """What `transfer_operator` gives back for a grid. One unit of time is one step.

    - `space`: the grid. - `matrix`: row-stochastic, sparse, (cells, cells); it acts on functions, its
      transpose on the masses of the cells.
    - `leak`: the probability that a step from each cell leaves the grid (it is put back at the edge).
    """

    def __init__(self, process: Process, space: Grid, progress: bool = False):
        self.process = process
        self.space = space
        self.progress = progress
        self.chart = Chart(process, space.dimension, np.array(space.lower) / 2 + np.array(space.upper) / 2)
        self._levels: dict[Grid, Level] = {}
        self.matrix, self.leak = self._level(space).kernel

    # Densities ------------------------------------------------------------------------------------

    def push(self, density: Any, steps: int) -> Estimate:
        """The density after `steps` steps.

        `density` is an array of the grid's shape (or such an estimate; `grid.density(f)` makes one). The error is the
        distance from the answer on a grid with cells twice as wide.
        """
        start, steps = self.space.check_density(getattr(density, "value", density)), check_steps(steps)

        def ask(grid: Grid) -> tuple[np.ndarray, float, bool]:
            matrix, leak = self._level(grid).kernel
            mass, lost, backward = averaged(start, grid).reshape(-1) * grid.cell_volume, 0.0, matrix.T.tocsr()
            with self._telling(grid, steps) as tell:
                for step in range(steps):
                    lost += float(mass @ leak)
                    mass = backward @ mass
                    tell(step + 1)
            return mass.reshape(grid.shape) / grid.cell_volume, lost / max(steps, 1), True

        return field(self.space, ask)

    def stationary_density(self) -> Estimate:
        """The density that a step leaves as it is; the limit of a uniform one."""

        def ask(grid: Grid) -> tuple[np.ndarray, float, bool]:
            matrix, leak = self._level(grid).kernel
            with self._telling(grid) as tell:
                mass, settled = limit(matrix.T.tocsr(), np.full(grid.size, 1 / grid.size), tell)
            return mass.reshape(grid.shape) / grid.cell_volume, float(mass @ leak), settled

        return field(self.space, ask)

    def quasi_stationary_density(self, start: Any, target: Predicate) -> Estimate:
        """The density, after a long time, of what has not yet met the target; zero inside it."""
        point = self._check(start, target)

        def ask(grid: Grid) -> tuple[np.ndarray, float, bool]:
            killed = self._level(grid).killed(target)
            with self._telling(grid) as tell:
                mass, settled = limit(killed.stay.T.tocsr(), entry(grid, point[None], np.ones(1)), tell)
            return mass.reshape(grid.shape) / grid.cell_volume, float(mass @ killed.leak), settled

        return field(self.space, ask)

    def current(self, density: Any) -> Estimate:
        """The probability current of a step.

        On one axis, the net probability that passes each edge of the cells rightwards, shape (cells + 1,). On more, a
        vector field of shape (axes, *shape): density times mean displacement, of what leaves and what enters.
        """
        density = self.space.check_density(getattr(density, "value", density))
        how = crossings if self.space.dimension == 1 else displacements
        return current(self.space, density, lambda grid, mass: how(grid, self._level(grid).kernel[0], mass))

    # First passage --------------------------------------------------------------------------------

    def escape_probability(self, start: Any, target: Predicate, steps: int) -> Estimate:
        """The probability to be in the target at one of the steps 1, ..., `steps`.

        **Arguments**: `start`, a state or a point; `target`, a predicate of one state; `steps`.
        """
        return self._passage(start, target, check_steps(steps), "arrived")

    def mean_first_passage_time(self, start: Any, target: Predicate) -> Estimate:
        """The mean number of steps until the target is first met; infinite where it may never be.

        **Arguments**: `start`, a state or a point; `target`, a predicate of one state.
        """
        return self._passage(start, target, math.inf, "time")

    def escape_rate(self, start: Any, target: Predicate) -> Estimate:
        """The probability a step to meet the target, in the long run, of what has not met it yet.

        Right to its last digits also for rates far below rounding, such as 1e-21.
        """
        point = self._check(start, target)

        def ask(grid: Grid) -> Found:
            killed = self._level(grid).killed(target)
            reached = reached_from(killed.stay, entry(grid, point[None], np.ones(1)))
            if not np.any(killed.hit[reached]):
                return Found(0.0, never=True, rate=0.0)
            with self._telling(grid) as tell:
                rate = passage(killed, math.inf, reached, tell).rate
                settled = bool(np.isfinite(rate))
                if not settled:  # a cycle, or too slow to wait for
                    mass, settled = limit(killed.stay.T.tocsr(), entry(grid, point[None], np.ones(1)), tell)
                    rate = float(mass @ killed.hit)
            return Found(rate, 0.0, settled, rate=rate)

        return number(self.space, ask, probability=True)

    def committor(self, a: Predicate, b: Predicate) -> Estimate:
        """The probability, from every cell, to meet `b` before `a`: 0 on a, 1 on b; an array of the grid's shape."""
        check_target(self.space, self.chart, a, "a")
        check_target(self.space, self.chart, b, "b")
        if np.any(holds(a, self.chart, self.space.points) & holds(b, self.chart, self.space.points)):
            raise ValueError("a and b must not overlap, and both hold at some cell")
        return field(self.space, lambda grid: (*self._committor(grid, a, b)[:1], 0.0, self._committor(grid, a, b)[1]))

    def _committor(self, grid: Grid, a: Predicate, b: Predicate) -> tuple[np.ndarray, bool]:
        h, settled = self._before(grid, a, b)
        points = grid.points
        h = np.where(holds(b, self.chart, points), 1.0, np.where(holds(a, self.chart, points), 0.0, h))
        return h.reshape(grid.shape), settled

    def _before(self, grid: Grid, a: Predicate, b: Predicate) -> tuple[np.ndarray, bool]:
        """The probability to meet b before a at a later step, from every cell, also from those inside a and b."""
        at_level = self._level(grid)
        both = at_level.killed(_either(a, b))
        only_b = at_level.killed(b)
        # What counts as a leak here is an arrival in b: `leaked` sums its probabilities.
        with self._telling(grid) as tell:
            found = passage(Killed(both.stay, both.hit, only_b.hit), math.inf, can_hit(both), tell)
        return np.clip(found.leaked, 0.0, 1.0), found.settled

    def conditioned(self, target: Predicate, *, avoiding: Predicate | None = None, steps: int | None = None) -> Process:
        """The process given that it meets `target` before `avoiding`, or within `steps` steps (Doob's transform).

        Its runs are typical escape paths. With `steps` the state carries the number of steps left (`Waiting`);
        `process.init` makes one. The noise must take finitely many values. Where maps expand, interpolation gives
        some hopeless places a chance: under 1% of paths then miss, as `run.arrived` tells.
        """
        check_target(self.space, self.chart, target)
        if (avoiding is None) == (steps is None):
            raise ValueError("conditioned needs either avoiding= (a predicate) or steps= (a number), and not both")
        if avoiding is not None:
            check_target(self.space, self.chart, avoiding, "avoiding")
            table, _ = self._before(self.space, avoiding, target)
            return conditioned(self.process, self.chart, self.space, target, avoiding, table, None)
        stay, hit, _ = self._level(self.space).killed(target)
        rows = [np.zeros(self.space.size)]
        for _ in range(check_steps(steps)):
            rows.append(hit + stay @ rows[-1])
        return conditioned(self.process, self.chart, self.space, target, None, np.array(rows), check_steps(steps))

    # The spectrum ---------------------------------------------------------------------------------

    def relaxation_times(self, k: int) -> Estimate:
        """The `k` longest times in which a perturbation of the density dies out: `-1 / log|eigenvalue|`, in steps."""
        if not is_whole(k) or not 1 <= k < self.space.size // 4 - 2:
            raise ValueError(f"k must be a whole number from 1 to a quarter of the cells, got {k!r}")
        fine, middle = (
            relaxation_times(eigenvalues(self._level(grid).kernel[0], k + 1))
            for grid in (self.space, self.space.coarser(2))
        )
        return Estimate(fine, np.abs(fine - middle) + 1e-12 * fine, Status.OK, {"space": self.space})

    def modes(self, k: int) -> Modes:
        """The `k` slowest modes, the stationary one first: eigenvalues, functions and densities on the cells."""
        return modes(self.matrix, k)

    # ----------------------------------------------------------------------------------------------

    def _level(self, grid: Grid) -> Level:
        if grid not in self._levels:
            self._levels[grid] = level(self.process, self.chart, grid)
        return self._levels[grid]

    def _check(self, start: Any, target: Predicate) -> np.ndarray:
        point = check_start(self.space, self.chart, start, target)
        check_target(self.space, self.chart, target)
        return point

    def _passage(self, start: Any, target: Predicate, steps: float, what: str) -> Estimate:
        point = self._check(start, target)
        # Where the noise is Gaussian, one step makes a point a smooth density; finite noise is followed exactly.
        smooth = isinstance(self.process.noise, Normal) or isinstance(self._level(self.space), GaussianLevel)
        depth = 0 if smooth else steps
        first = unfold(self.process, self.chart, self.space, point, target, depth)
        done = len(first.arrived) - 1
        ask = self._later(first, target, steps - done, what)
        return number(self.space, ask, probability=what == "arrived", exact_steps=done)

    def _later(self, first: Unfolded, target: Predicate, steps: float, what: str) -> Callable[[Grid], Found]:
        """First passage after the enumerated steps, as a question to any grid."""

        def ask(grid: Grid) -> Found:
            before = float(first.arrived[-1] if what == "arrived" else first.time[-1])
            if steps <= 0 or not len(first.weights):
                return Found(before, first.leaked)
            killed = self._level(grid).killed(target)
            start = entry(grid, first.points, first.weights)
            reached = reached_from(killed.stay, start)
            if math.isinf(steps) and not np.all(can_hit(killed)[reached]):
                return Found(math.inf, 0.0, never=True)
            with self._telling(grid, steps) as tell:
                found = passage(killed, steps, reached, tell)
            value = before + float(start @ (found.arrived if what == "arrived" else found.time))
            return Found(value, first.leaked + float(start @ found.leaked), found.settled, rate=found.rate)

        return ask

    def _telling(self, grid: Grid, steps: float = math.inf) -> AbstractContextManager[Tell]:
        return steps_on(self.progress, grid.shape, steps)


def _either(a: Predicate, b: Predicate) -> Predicate:
    return lambda state: a(state) | b(state)
