"""The first steps from a point, outcome by outcome.

A density that starts at a point does not fit on a grid, and this costs more than all later steps. So its first steps
are enumerated: after m steps of a process with J outcomes there are at most J^m points, each known to round-off.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from thalweg._process import Process
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._outcomes import holds, outcomes
from thalweg.flow._space import Grid

MOST_POINTS = 2**14
MOST_STEPS = 64


class Unfolded(NamedTuple):
    """What is known exactly after the first steps.

    - `arrived[k]`: the probability to have met the target by step k; `time[k]`: the sum of survival over steps < k.
    - `points`, `weights`: where the rest is. - `leaked`: the expected number of exits from the grid.
    """

    arrived: Float[np.ndarray, " steps"]
    time: Float[np.ndarray, " steps"]
    points: Float[np.ndarray, "points axes"]
    weights: Float[np.ndarray, " points"]
    leaked: float


def unfold(
    process: Process,
    chart: Chart,
    grid: Grid,
    start: Float[np.ndarray, " axes"],
    target: Predicate | None,
    steps: float,
) -> Unfolded:
    """The first steps from `start`, at most `steps` of them."""
    points: np.ndarray = start[None, :]
    weights: np.ndarray = np.ones(1)
    arrived, time, leaked = [0.0], [0.0], 0.0
    room = None
    while len(arrived) <= min(steps, MOST_STEPS) and len(weights):
        if room is not None and len(weights) * room > MOST_POINTS:
            break
        images, chances = outcomes(process, chart, points)
        room = len(chances)
        if len(weights) * room > MOST_POINTS and len(arrived) > 1:
            break
        flat = images.reshape(-1, chart.dimension)
        mass = (weights[:, None] * chances).reshape(-1)
        met = np.zeros(len(flat), bool)
        if target is not None:
            met = holds(target, chart, flat)
        time.append(time[-1] + weights.sum())
        arrived.append(arrived[-1] + mass[met].sum())
        leaked += mass[~met & ~grid.holds(flat)].sum()
        points, where = np.unique(flat[~met], axis=0, return_inverse=True)
        weights = np.bincount(where.reshape(-1), mass[~met], minlength=len(points))
    return Unfolded(np.array(arrived), np.array(time), points, weights, leaked)
