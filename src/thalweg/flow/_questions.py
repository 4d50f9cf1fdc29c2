"""What every way to answer shares: questions checked at the edge, answers with their error and status."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from thalweg._results import Estimate, Status
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._interpolation import averaged, spread
from thalweg.flow._outcomes import holds
from thalweg.flow._refinement import density_error, extrapolate
from thalweg.flow._space import Grid

LEAK = 1e-6  # a probability of leaving the grid that is told
FACTORS = (1, 2, 4, 8)  # cell widths on which a number is computed


class Found(NamedTuple):
    """An answer on one grid.

    `leak` is the expected number of times that the grid is left on the way; `never` says that the target is not
    reached for certain.
    """

    value: float
    leak: float = 0.0
    settled: bool = True
    never: bool = False
    rate: float = math.nan


def check_start(grid: Grid, chart: Chart, start: Any, target: Predicate | None) -> np.ndarray:
    """The point that a start stands for: on the grid, and outside the target."""
    point = chart.start(start)
    if not grid.holds(point[None])[0]:
        raise ValueError(f"start must lie on the grid from {_at(grid.lower)} to {_at(grid.upper)}, got {_at(point)}")
    if target is not None and holds(target, chart, point[None])[0]:
        raise ValueError(f"start must lie outside the target, got {_at(point)}, where the target holds already")
    return point


def check_target(grid: Grid, chart: Chart, target: Predicate, name: str = "target") -> None:
    """Refuse a target of which the grid holds nothing."""
    corners = np.stack(np.meshgrid(*grid.edges, indexing="ij"), axis=-1).reshape(-1, grid.dimension)
    if not (np.any(holds(target, chart, grid.points, name)) or np.any(holds(target, chart, corners, name))):
        raise ValueError(
            f"{name} must hold somewhere on the grid from {_at(grid.lower)} to {_at(grid.upper)}, and holds at no "
            "center and no corner of its cells: make the grid larger or finer, or correct the target"
        )


def number(grid: Grid, ask: Callable[[Grid], Found], *, probability: bool, **details: Any) -> Estimate:
    """A number asked on several grids: extrapolated, with its error and its status."""
    grids = [grid.coarser(factor) for factor in FACTORS]
    answers = [ask(each) for each in grids]
    finest, values = answers[0], [answer.value for answer in answers]
    details |= {"cells": [each.shape for each in grids], "values": values, "rate": finest.rate}
    if finest.never:
        return Estimate(
            finest.value,
            0.0 if probability else math.inf,
            Status.OK if probability else Status.UNDEFINED,
            details
            | {"why": "the target is not reached from everywhere that the start leads to, so the mean is infinite"},
        )
    value, error, details["regular"] = extrapolate(values)
    leaked = min(1.0, finest.leak)
    status = Status.OK
    if probability:
        value, error = min(max(value, 0.0), 1.0), min(error + leaked, 1.0)
    else:
        error += leaked * abs(value)
    if leaked > max(LEAK, 0.01 * value if probability else 0.01):
        status, details["mass"] = Status.LEAKS, f"before the target is met, probability {leaked:.2g}"
    if not all(answer.settled for answer in answers):
        status, details["iterations"] = Status.NOT_CONVERGED, "the allowed number of"
    return Estimate(value, error, status, details)


def field(grid: Grid, ask: Callable[[Grid], tuple[np.ndarray, float, bool]], **details: Any) -> Estimate:
    """A function of the cells, asked on the grid and on one with cells twice as wide.

    `ask` gives back the values, the probability that a step leaves the grid, and whether they are settled.
    """
    wider = grid.coarser(2)
    fine, lost, settled = ask(grid)
    coarse, _, settled_too = ask(wider)
    details |= {"space": grid, "leak": lost}
    status = Status.OK
    if lost > LEAK:
        status, details["mass"] = Status.LEAKS, f"probability {lost:.2g} a step"
    if not (settled and settled_too):
        status, details["iterations"] = Status.NOT_CONVERGED, "the allowed number of"
    return Estimate(fine, density_error(fine, spread(coarse, wider, grid)), status, details)


def current(grid: Grid, density: np.ndarray, ask: Callable[[Grid, np.ndarray], np.ndarray]) -> Estimate:
    """A current, `ask(grid, masses)`, with its distance from that on cells twice as wide."""
    wider = grid.coarser(2)
    fine = ask(grid, density.reshape(-1) * grid.cell_volume)
    coarse = ask(wider, averaged(density, wider).reshape(-1) * wider.cell_volume)
    if grid.dimension == 1:
        seen = np.interp(grid.edges[0], wider.edges[0], coarse)
        error = density_error(fine, seen)
    else:
        error = np.stack([density_error(a, spread(b, wider, grid)) for a, b in zip(fine, coarse, strict=True)])
    return Estimate(fine, error, Status.OK, {"space": grid})


def _at(point: Any) -> str:
    numbers = [f"{float(x):.10g}" for x in point]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"
