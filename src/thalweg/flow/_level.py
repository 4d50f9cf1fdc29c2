"""A process on the cells of one grid: the level on which an answer is computed.

The same question is asked on grids of several widths; each is a level. A level knows its kernel (where a step takes
each cell), the kernel killed on a target, and how a cloud of points enters it.
"""

from functools import cached_property
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float

from thalweg._noise import Normal
from thalweg._process import Process
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._first_passage import Killed
from thalweg.flow._gaussian_steps import GaussianSteps, gaussian_steps, hat_weights, target_edges
from thalweg.flow._interpolation import weights
from thalweg.flow._outcomes import Outcomes, holds, outcomes
from thalweg.flow._space import Grid

AXES_ORDER = {1: None, 2: 12, 3: 6}  # Gauss-Hermite nodes per number, by the dimension of the grid


class Level(Protocol):
    """What an answer needs of a grid."""

    grid: Grid

    @property
    def kernel(self) -> tuple[Any, np.ndarray]:
        """The row-stochastic matrix, and the probability that a step from each cell leaves the grid."""
        ...

    def killed(self, target: Predicate) -> Killed:
        """The kernel killed on a target.

        A cell center inside the target is given its chance to come back as if it had not arrived, so that nothing
        jumps at the target's edge, and interpolation across it is as good as elsewhere. Whether an image has
        arrived is asked of the image itself: the edge of the target is sharp.
        """
        ...


def level(process: Process, chart: Chart, grid: Grid) -> Level:
    """The process on `grid`, exact in its noise as far as that can be."""
    if isinstance(process.noise, Normal) and grid.dimension == 1:
        steps = gaussian_steps(process, chart, grid.points)
        if steps is not None:
            return GaussianLevel(chart, grid, steps)
    if isinstance(process.noise, Normal) and process.noise.order is None and grid.dimension > 1:
        law = Normal(process.noise.shape, AXES_ORDER[grid.dimension])
        process = Process(process.step, law, process.init, coordinates=process.coordinates)
    found = outcomes(process, chart, grid.points)
    bad = ~np.all(np.isfinite(found.points), axis=(1, 2))
    if np.any(bad):
        raise ValueError(
            f"a step from {grid.points[bad][0].tolist()} on the grid leads to NaN or infinity: make the grid smaller"
        )
    return OutcomesLevel(chart, grid, found)


class OutcomesLevel:
    """A level of finitely many outcomes a step."""

    def __init__(self, chart: Chart, grid: Grid, images: Outcomes):
        self.chart, self.grid, self.images = chart, grid, images

    @cached_property
    def _interpolation(self) -> tuple[np.ndarray, np.ndarray]:
        return weights(self.grid, self.images.points.reshape(-1, self.grid.dimension))

    @cached_property
    def kernel(self) -> tuple[Any, np.ndarray]:
        outside = ~self.grid.holds(self.images.points)
        return self._matrix(np.ones(outside.shape)), outside @ self.images.weights

    def killed(self, target: Predicate) -> Killed:
        met = holds(target, self.chart, self.images.points)
        leak = (~met & ~self.grid.holds(self.images.points)) @ self.images.weights
        return Killed(self._matrix(~met), met @ self.images.weights, leak)

    def _matrix(self, kept: np.ndarray) -> Any:
        """Interpolates at every image that is kept, and takes the mean over the outcomes."""
        n, count, _ = self.images.points.shape
        index, weight = self._interpolation
        corners = index.shape[1]
        weight = (weight.reshape(n, count, corners) * (self.images.weights * kept)[:, :, None]).reshape(-1)
        rows = np.arange(n + 1) * (count * corners)
        matrix = scipy.sparse.csr_matrix(
            (weight, index.reshape(-1).copy(), rows), shape=(n, n)
        )  # sorted in place below
        if count * corners <= 64:
            matrix.sum_duplicates()
        return matrix


class GaussianLevel:
    """A level of one axis on which a step is normally distributed: cells are integrated in closed form."""

    def __init__(self, chart: Chart, grid: Grid, steps: GaussianSteps):
        self.chart, self.grid, self.steps = chart, grid, steps

    @cached_property
    def kernel(self) -> tuple[Any, np.ndarray]:
        matrix, _, leak = hat_weights(self.grid, self._less, np.array([]), np.array([False]))
        return matrix, leak

    def killed(self, target: Predicate) -> Killed:
        edges, inside = target_edges(self.grid, self.chart, target)
        stay, hit, leak = hat_weights(self.grid, self.steps, edges, inside)
        sharper, _, _ = hat_weights(self.grid, self._less, edges, inside)
        right, got = (np.asarray(m.sum(axis=1)).reshape(-1) for m in (stay, sharper))
        scale = np.divide(right, got, out=np.zeros(len(got)), where=got > 0)
        return Killed(scipy.sparse.diags(scale) @ sharper, hit, leak)

    @property
    def _less(self) -> GaussianSteps:
        """The steps with a little less noise: (cell width)^2/6 of variance, which interpolation adds again."""
        mean, deviation = self.steps
        added = self.grid.widths[0] ** 2 / 6
        enough = deviation**2 > 6 * added
        return GaussianSteps(mean, np.where(enough, np.sqrt(np.maximum(deviation**2 - added, 0.0)), deviation))


def entry(grid: Grid, points: Float[np.ndarray, "n axes"], masses: Float[np.ndarray, " n"]) -> np.ndarray:
    """The cells' shares of a cloud of points."""
    index, weight = weights(grid, points)
    return np.bincount(index.reshape(-1), (weight * masses[:, None]).reshape(-1), minlength=grid.size)


def value_at(grid: Grid, values: Any, point: Any) -> Any:
    """`values` of the cells, interpolated at one point; traceable."""
    index, weight = jnp.zeros(1, int), jnp.ones(1)
    for axis, (low, width, n) in enumerate(zip(grid.lower, grid.widths, grid.shape, strict=True)):
        place = jnp.clip((point[axis] - low) / width - 0.5, 0.0, n - 1.0)
        below = jnp.minimum(jnp.floor(place).astype(int), n - 2)
        share = place - below
        index = jnp.concatenate([index * n + below, index * n + below + 1])
        weight = jnp.concatenate([weight * (1 - share), weight * share])
    return jnp.sum(jnp.reshape(values, -1)[index] * weight)
