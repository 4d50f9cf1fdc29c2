"""The transfer operator: the step of a process as a map of densities, exact in the noise."""

import math
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from thalweg._edge import check_steps
from thalweg._process import Process, check_process
from thalweg._results import Estimate, Status
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._first_passage import Killed, passage
from thalweg.flow._interpolation import averaged, spread, weights
from thalweg.flow._outcomes import Outcomes, holds, outcomes
from thalweg.flow._point_start import Unfolded, unfold
from thalweg.flow._refinement import density_error, extrapolate
from thalweg.flow._space import Grid

LEAK = 1e-6  # a probability of leaving the grid that is told


def transfer_operator(process: Process, space: Grid) -> "TransferOperator":
    """Where a step takes probability: the process as a linear map of densities.

    Backward, `(Ku)(x) = sum_j w_j u(F_j(x))`: the outcomes `F_j` of a step are evaluated at the centers of the cells,
    with all values of finite noise and by quadrature for Gaussian noise, and `u` is interpolated linearly. Densities
    are pushed by the exact transpose, so that their mass is kept. Every answer is computed on the grid and on coarser
    ones, and its error says how far the grid may have it wrong; there is no sampling error.

    **Arguments**

    - `process`: a `Process` whose noise can be integrated.
    - `space`: a `Grid` with one axis for each coordinate of a state.

    **Returns** a `TransferOperator`. **Raises** `ValueError` for noise that cannot be integrated (`Uniform`, `Shuffle`,
    `Key`), for a state with more coordinates than the grid has axes, and for a step that is not finite on the grid.

    Do not trust it where cells are wider than a step of the process: interpolation adds about (cell width)^2/6 of
    variance a step. The error bar shows it.

    >>> import thalweg as tw
    >>> P = tw.flow.transfer_operator(tw.systems.linear_noise(0.1), tw.flow.Grid(1.0, 3.0, 400))
    >>> density = P.stationary_density()
    >>> round(float((density.value * P.space.centers[0]).sum() * P.space.cell_volume), 3)  # the mean is 2
    2.0
    """
    return TransferOperator(process, space)


class TransferOperator:
    """What `transfer_operator` gives back. One unit of time is one step.

    - `space`: the grid. - `matrix`: row-stochastic, sparse, (cells, cells); it acts on functions, its
      transpose on the masses of the cells.
    - `leak`: the probability that a step from each cell leaves the grid (it is put back at the edge).
    """

    def __init__(self, process: Process, space: Grid):
        check_process(process)
        if not isinstance(space, Grid):
            raise TypeError(f"space must be a tw.flow.Grid, got {type(space).__name__}")
        self.process = process
        self.space = space
        self.chart = Chart(process, space.dimension, np.array(space.lower) / 2 + np.array(space.upper) / 2)
        self._outcomes: dict[Grid, Outcomes] = {}
        self.matrix, self.leak = self._kernel(space)

    def push(self, density: Any, steps: int) -> Estimate:
        """The density after `steps` steps.

        `density` is an array of the grid's shape (or such an estimate). The error is the distance from the answer
        on a grid with cells twice as wide.
        """
        start, steps = self.space.check_density(getattr(density, "value", density)), check_steps(steps)
        fine, lost = self._pushed(self.space, start, steps)
        coarse_grid = self.space.coarser(2)
        coarse, _ = self._pushed(coarse_grid, averaged(start, coarse_grid), steps)
        return self._density(fine, spread(coarse, coarse_grid, self.space), lost / max(steps, 1))

    def stationary_density(self) -> Estimate:
        """The density that a step leaves as it is, from a uniform start."""
        fine, lost, settled = self._stationary(self.space)
        coarse_grid = self.space.coarser(2)
        coarse, _, _ = self._stationary(coarse_grid)
        result = self._density(fine, spread(coarse, coarse_grid, self.space), lost)
        if settled or not result.ok:
            return result
        return Estimate(
            result.value, result.error, Status.NOT_CONVERGED, {**result.details, "iterations": MOST_ITERATIONS}
        )

    def escape_probability(self, start: Any, target: Predicate, steps: int) -> Estimate:
        """The probability to be in the target at one of the steps 1, ..., `steps`.

        **Arguments**: `start`, a state or a point; `target`, a predicate of one state; `steps`.
        """
        return self._passage(start, target, check_steps(steps), "arrived")

    def mean_first_passage_time(self, start: Any, target: Predicate) -> Estimate:
        """The mean number of steps until the target is first met.

        **Arguments**: `start`, a state or a point; `target`, a predicate of one state.
        """
        return self._passage(start, target, math.inf, "time")

    # ----------------------------------------------------------------------------------------------

    def _passage(self, start: Any, target: Predicate, steps: float, what: str) -> Estimate:
        point = self.chart.start(start)
        self._check_question(point, target)
        first = unfold(self.process, self.chart, self.space, point, target, steps)
        done = len(first.arrived) - 1
        grids = [self.space.coarser(factor) for factor in (1, 2, 4, 8)]
        values, leaks, rates, settled = [], [], [], []
        for grid in grids:
            value, leak, rate, known = self._on(grid, first, target, steps - done, what)
            values.append(value)
            leaks.append(leak)
            rates.append(rate)
            settled.append(known)
        value, error, regular = extrapolate(values)
        leaked = min(1.0, leaks[0])
        details = {
            "cells": [grid.shape for grid in grids],
            "values": values,
            "regular": regular,
            "rate": rates[0],
            "exact_steps": done,
        }
        status = Status.OK
        if what == "arrived":
            error = min(error + leaked, 1.0)
            value = min(value, 1.0)
        else:
            error = error + leaked * value
        if leaked > max(LEAK, 0.01 * value if what == "arrived" else 0.01):
            status, details["mass"] = Status.LEAKS, f"{leaked:.2g}"
        if not all(settled):
            status, details["iterations"] = Status.NOT_CONVERGED, "the allowed number of"
        return Estimate(value, error, status, details)

    def _on(self, grid: Grid, first: Unfolded, target: Predicate, steps: float, what: str) -> tuple[float, ...]:
        """One answer on one grid: (value, expected exits, rate, whether it is settled)."""
        before = first.arrived[-1] if what == "arrived" else first.time[-1]
        if steps <= 0 or not len(first.weights):
            return before, first.leaked, np.nan, True
        killed = self._killed(grid, target)
        index, weight = weights(grid, first.points)
        entry = np.bincount(index.reshape(-1), (weight * first.weights[:, None]).reshape(-1), minlength=grid.size)
        found = passage(killed, steps, _reached(killed.stay, entry))
        value = before + entry @ (found.arrived if what == "arrived" else found.time)
        return float(value), float(first.leaked + entry @ found.leaked), found.rate, found.settled

    def _check_question(self, point: np.ndarray, target: Predicate) -> None:
        if not self.space.holds(point[None])[0]:
            raise ValueError(
                f"start must lie on the grid from {self.space.lower} to {self.space.upper}, got {point.tolist()}"
            )
        if holds(target, self.chart, point[None])[0]:
            raise ValueError(f"start must lie outside the target, got {point.tolist()}, where the target holds already")
        edges = np.stack(np.meshgrid(*self.space.edges, indexing="ij"), axis=-1).reshape(-1, self.space.dimension)
        if not (np.any(holds(target, self.chart, self.space.points)) or np.any(holds(target, self.chart, edges))):
            raise ValueError(
                f"target must hold somewhere on the grid from {self.space.lower} to {self.space.upper}, and holds at "
                "no center and no corner of its cells: make the grid larger or finer, or correct the target"
            )

    def _images(self, grid: Grid) -> Outcomes:
        if grid not in self._outcomes:
            found = outcomes(self.process, self.chart, grid.points)
            if not np.all(np.isfinite(found.points)):
                bad = grid.points[~np.all(np.isfinite(found.points), axis=(1, 2))][0]
                raise ValueError(
                    f"a step from {bad.tolist()} on the grid leads to NaN or infinity: make the grid smaller"
                )
            self._outcomes[grid] = found
        return self._outcomes[grid]

    def _kernel(self, grid: Grid) -> tuple[Any, np.ndarray]:
        """The operator on a grid, and the probability that a step leaves it."""
        images = self._images(grid)
        outside = ~grid.holds(images.points)
        return _matrix(grid, images, np.ones(outside.shape)), outside @ images.weights

    def _killed(self, grid: Grid, target: Predicate) -> Killed:
        # A cell center inside the target is given its chance to come back as if it had not arrived, so that nothing
        # jumps at the target's edge, and interpolation across it is as good as elsewhere. Whether an image
        # has arrived is asked of the image itself: the edge of the target is sharp.
        images = self._images(grid)
        met = holds(target, self.chart, images.points)
        leak = (~met & ~grid.holds(images.points)) @ images.weights
        return Killed(_matrix(grid, images, ~met), met @ images.weights, leak)

    def _pushed(self, grid: Grid, density: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
        matrix, leak = (self.matrix, self.leak) if grid == self.space else self._kernel(grid)
        mass, lost, backward = density.reshape(-1) * grid.cell_volume, 0.0, matrix.T.tocsr()
        for _ in range(steps):
            lost += float(mass @ leak)
            mass = backward @ mass
        return mass.reshape(grid.shape) / grid.cell_volume, lost

    def _stationary(self, grid: Grid) -> tuple[np.ndarray, float, bool]:
        matrix, leak = (self.matrix, self.leak) if grid == self.space else self._kernel(grid)
        mass, backward = np.full(grid.size, 1 / grid.size), matrix.T.tocsr()
        settled = False
        for _ in range(MOST_ITERATIONS // 100):
            before = mass
            for _ in range(100):
                mass = backward @ mass
            mass = mass / mass.sum()
            if np.abs(mass - before).sum() < 1e-11:
                settled = True
                break
        return mass.reshape(grid.shape) / grid.cell_volume, float(mass @ leak), settled

    def _density(self, fine: np.ndarray, coarse: np.ndarray, lost: float) -> Estimate:
        details: dict[str, Any] = {"space": self.space, "leak": lost}
        status = Status.OK
        if lost > LEAK:
            status, details["mass"] = Status.LEAKS, f"{lost:.2g}"
        return Estimate(fine, density_error(fine, coarse), status, details)


MOST_ITERATIONS = 100_000


def _matrix(grid: Grid, images: Outcomes, kept: np.ndarray) -> Any:
    """The sparse matrix that interpolates at every image and takes the mean over the outcomes."""
    n, count, axes = images.points.shape
    index, weight = weights(grid, images.points.reshape(-1, axes))
    weight = weight.reshape(n, count, -1) * (images.weights * kept)[:, :, None]
    rows = np.arange(n + 1) * (count * index.shape[1])
    matrix = scipy.sparse.csr_matrix((weight.reshape(-1), index.reshape(-1), rows), shape=(n, n))
    matrix.sum_duplicates()
    return matrix


def _reached(stay: Any, entry: np.ndarray) -> np.ndarray:
    """Which states can be reached from the entry."""
    n = len(entry)
    links = stay.copy()
    links.eliminate_zeros()
    source = np.flatnonzero(entry > 0)
    start = scipy.sparse.csr_matrix((np.ones(len(source)), source, [0, len(source)]), shape=(1, n))
    graph = scipy.sparse.bmat([[links, None], [start, scipy.sparse.csr_matrix((1, 1))]], format="csr")
    order = scipy.sparse.csgraph.breadth_first_order(graph, n, return_predecessors=False)
    reached = np.zeros(n, bool)
    reached[order[order < n]] = True
    return reached
