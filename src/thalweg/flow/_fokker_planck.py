"""The diffusion approximation: the Fokker-Planck equation, in finite volumes that keep mass and never go negative."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_steps, check_truth, is_whole
from thalweg._loop import as_arrays
from thalweg._process import Process
from thalweg._results import Estimate, Status
from thalweg.flow._chart import Chart, Predicate
from thalweg.flow._diffusion_cells import Cells, box_cells, line_cells
from thalweg.flow._generator import Generator, generator, killed_generator
from thalweg.flow._interpolation import averaged
from thalweg.flow._outcomes import holds, outcomes
from thalweg.flow._questions import Found, check_start, check_target, current, field, number
from thalweg.flow._space import Grid
from thalweg.flow._transfer_operator import TransferOperator, transfer_operator

CONVENTIONS = {"ito": 0.0, "stratonovich": 0.5, "anti-ito": 1.0}
FAR = 0.5  # relative distance from the operator from which the diffusion is not to be trusted


def fokker_planck(
    process_or_coefficients: Process | tuple[Callable[[Any], Any], Callable[[Any], Any]],
    grid: Grid,
    convention: str = "ito",
    order: int = 1,
    *,
    compare: bool = True,
    progress: bool = False,
) -> "FokkerPlanck":
    """The diffusion that is put in the place of a process, and the same questions asked of it.

    `dp/dt = -div J`, `J_i = b_i p - (1/2) sum_j d(A_ij p)/dx_j`, with `b` the drift and `A` the diffusion (the
    covariance gained in one unit of time; in one dimension `2D`). One unit of time is one step of the process. Of order
    1, `b` and `A` are the mean and the covariance of a step; of order 2, those of `modified_equation`.

    The fluxes are those of Scharfetter and Gummel (1969; Chang and Cooper, 1970), so that no density turns negative,
    also where the diffusion vanishes; time steps are implicit and L-stable.

    **Arguments**

    - `process_or_coefficients`: a `Process`, or `(drift, diffusion)`: functions of a point (a number on one axis, else
      an array). The diffusion is a number, or a matrix on more than one axis.
    - `grid`: a `Grid`. - `convention`: `"ito"`, which is what a step means; `"stratonovich"` and `"anti-ito"` add `a`
      times half the slope of `A`, a = 1/2 and 1: for showing what they get wrong. - `order`: 1 or 2, for a process.
    - `compare`: whether answers about a process are held against its transfer operator. Their distance is then part
      of the error, and the status says where the diffusion cannot be trusted.
    - `progress`: whether questions that take steps in time show a line on stderr.

    **Returns** a `FokkerPlanck`. **Raises** `ValueError` for coefficients that are not finite on the grid.

    Do not trust it for rare escapes: as steps shrink, its rates are wrong by a factor that grows exponentially.

    >>> import thalweg as tw
    >>> F = tw.flow.fokker_planck((lambda x: -x, lambda x: 2.0), tw.flow.Grid(-6.0, 6.0, 400))
    >>> F.relaxation_times(2).value.round(3).tolist()  # 1 and 1/2
    [1.0, 0.5]
    """
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a tw.flow.Grid, got {type(grid).__name__}")
    if not isinstance(convention, str) or convention not in CONVENTIONS:
        raise ValueError(f'convention must be "ito", "stratonovich" or "anti-ito", got {convention!r}')
    if not is_whole(order) or order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    check_truth(progress, "progress")
    if isinstance(process_or_coefficients, Process):
        return FokkerPlanck(process_or_coefficients, None, grid, convention, order, compare, progress)
    pair = process_or_coefficients
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(callable(f) for f in pair)):
        raise TypeError(
            "process_or_coefficients must be a tw.Process, or a pair of functions (drift, diffusion), "
            f"got {type(pair).__name__}"
        )
    if order != 1:
        raise ValueError("order=2 is for a process: coefficients of one's own are taken as they are")
    still = Process(lambda x, w: x, None)
    return FokkerPlanck(still, (pair[0], pair[1]), grid, convention, order, False, progress)


class FokkerPlanck:
    """What `fokker_planck` gives back. One unit of time is one step.

    - `space`: the grid. - `generator`: the rates between its cells, sparse, (cells, cells), rows sum to 0; it acts on
      functions, its transpose on the masses of the cells.
    """

    def __init__(
        self,
        process: Process,
        coefficients: tuple[Callable[[Any], Any], Callable[[Any], Any]] | None,
        space: Grid,
        convention: str,
        order: int,
        compare: bool,
        progress: bool = False,
    ):
        self.space, self.process, self.convention, self.order = space, process, convention, order
        self.progress = progress
        self.chart = Chart(process, space.dimension, np.array(space.lower) / 2 + np.array(space.upper) / 2)
        self._coefficients = coefficients
        self._compare = compare and coefficients is None
        self._operator: TransferOperator | None = None
        self._cells: dict[Any, Cells] = {}
        self._generators: dict[Grid, Generator] = {}
        self.status = Status.OK
        self._why = ""
        self.generator = self._on(space).matrix

    # Coefficients ---------------------------------------------------------------------------------

    def coefficients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drift, shape (n, axes), and diffusion, shape (n, axes, axes), at points of shape (n, axes)."""
        axes = self.space.dimension
        if self._coefficients is not None:
            drift, diffusion = self._coefficients
            given = jnp.asarray(points[:, 0] if axes == 1 else points)
            b = np.asarray(jax.vmap(lambda x: jnp.asarray(drift(x), float).reshape(axes))(given))
            a = np.asarray(jax.vmap(lambda x: _matrix(diffusion(x), axes))(given))
        elif self.order == 1:
            found = outcomes(self.process, self.chart, points)
            moved = found.points - points[:, None, :]
            b = np.einsum("j,njd->nd", found.weights, moved)
            off = moved - b[:, None, :]
            a = np.einsum("j,njd,nje->nde", found.weights, off, off)
        else:
            from thalweg.flow._modified import modified_equation

            equation = modified_equation(self.process, self.order, "ito", state=self.chart.template)
            given = jnp.asarray(points[:, 0] if axes == 1 else points)
            b = np.asarray(jax.vmap(equation.drift)(given)).reshape(len(points), axes)
            a = np.asarray(jax.vmap(equation.diffusion)(given)).reshape(len(points), axes, axes)
        bad = ~(np.all(np.isfinite(b), axis=1) & np.all(np.isfinite(a), axis=(1, 2)))
        if np.any(bad):
            raise ValueError(
                f"drift and diffusion must be finite on the grid, got drift {b[bad][0].tolist()} and diffusion "
                f"{a[bad][0].tolist()} at {points[bad][0].tolist()}: make the grid smaller"
            )
        negative = np.linalg.eigvalsh(a)[:, 0] < -1e-12 * np.abs(a).max()
        if np.any(negative):
            if self._coefficients is not None:
                raise ValueError(
                    f"diffusion must be >= 0 (a variance a unit of time), got {a[negative][0].tolist()} at "
                    f"{points[negative][0].tolist()}"
                )
            self._doubt(
                f"the corrected diffusion is negative in {np.mean(negative):.0%} of the cells, where 0 was put in its "
                "place: take order=1, or the transfer operator"
            )
        return b, a

    # Densities ------------------------------------------------------------------------------------

    def push(self, density: Any, steps: int) -> Estimate:
        """The density after `steps` units of time. `density` is an array of the grid's shape (or such an estimate)."""
        start, steps = self.space.check_density(getattr(density, "value", density)), check_steps(steps)

        def ask(grid: Grid) -> tuple[np.ndarray, float, bool]:
            made = self._on(grid)
            mass = averaged(start, grid).reshape(-1) * grid.cell_volume
            fineness = self._fineness if grid == self.space else self._fineness // 2
            mass = made.carried(mass, float(steps), fineness, self.progress)
            return mass.reshape(grid.shape) / grid.cell_volume, float(mass @ made.leak), True

        return self._held(field(self.space, ask), lambda operator: operator.push(start, steps))

    def stationary_density(self) -> Estimate:
        """The density that does not change."""

        def ask(grid: Grid) -> tuple[np.ndarray, float, bool]:
            made = self._on(grid)
            mass = made.stationary()
            return mass.reshape(grid.shape) / grid.cell_volume, float(mass @ made.leak), True

        return self._held(field(self.space, ask), lambda operator: operator.stationary_density())

    def current(self, density: Any) -> Estimate:
        """The probability current, as `TransferOperator.current` gives it: through the edges of the cells on one
        axis, a vector field of shape (axes, *shape) on more."""
        density = self.space.check_density(getattr(density, "value", density))
        found = current(self.space, density, lambda grid, mass: self._on(grid).current(grid, mass))
        return self._held(found, lambda operator: operator.current(density))

    # First passage --------------------------------------------------------------------------------

    def escape_probability(self, start: Any, target: Predicate, steps: int) -> Estimate:
        """The probability to meet the target within `steps` units of time."""
        steps = check_steps(steps)

        def ask(killed: Generator, grid: Grid) -> np.ndarray:
            return killed.arrival(float(steps), 3 * self._fineness, self.progress)

        return self._passage(start, target, ask, lambda p: p.escape_probability(start, target, steps), True)

    def mean_first_passage_time(self, start: Any, target: Predicate) -> Estimate:
        """The mean time until the target is first met."""
        return self._passage(
            start,
            target,
            lambda killed, grid: killed.solve(np.ones(killed.size)),
            lambda p: p.mean_first_passage_time(start, target),
            False,
        )

    def escape_rate(self, start: Any, target: Predicate) -> Estimate:
        """The probability to meet the target in a unit of time, in the long run, of what has not met it yet."""

        def ask(killed: Generator, grid: Grid) -> np.ndarray:
            return np.full(killed.size, killed.slowest())

        return self._passage(start, target, ask, lambda p: p.escape_rate(start, target), True)

    def committor(self, a: Predicate, b: Predicate) -> Estimate:
        """The probability, from every cell, to meet `b` before `a`: 0 on a, 1 on b."""
        check_target(self.space, self.chart, a, "a")
        check_target(self.space, self.chart, b, "b")

        def ask(grid: Grid) -> tuple[np.ndarray, float, bool]:
            made = self._on(grid)
            in_a, in_b = (holds(part, self.chart, grid.points) for part in (a, b))
            if np.any(in_a & in_b):
                raise ValueError("a and b must not overlap, and both hold at some cell")
            killed = killed_generator(made, in_a | in_b)
            h = in_b.astype(float)
            outside = ~(in_a | in_b)
            h[outside] = np.clip(killed.solve((made.matrix @ in_b.astype(float))[outside]), 0.0, 1.0)
            return h.reshape(grid.shape), 0.0, True

        return self._held(field(self.space, ask), lambda operator: operator.committor(a, b))

    def relaxation_times(self, k: int) -> Estimate:
        """The `k` longest times in which a perturbation dies out: 1 / (eigenvalue of the generator)."""
        if not is_whole(k) or not 1 <= k < self.space.size // 4 - 2:
            raise ValueError(f"k must be a whole number from 1 to a quarter of the cells, got {k!r}")
        fine, coarse = (1 / self._on(grid).eigenvalues(k + 1)[1:] for grid in (self.space, self.space.coarser(2)))
        estimate = Estimate(fine, np.abs(fine - coarse) + 1e-9 * fine, self.status, {"why": self._why})
        return self._held(estimate, lambda operator: operator.relaxation_times(k))

    # ----------------------------------------------------------------------------------------------

    @property
    def _fineness(self) -> int:
        """Time steps of each length: on a line they cost little."""
        return 12 if self.space.dimension == 1 else 6

    def _on(self, grid: Grid) -> Generator:
        if grid not in self._generators:
            a = CONVENTIONS[self.convention]
            cells = line_cells(grid.edges[0]) if grid.dimension == 1 else box_cells(grid)
            self._generators[grid] = self._made(cells, a)
        return self._generators[grid]

    def _made(self, cells: Cells, a: float, met: np.ndarray | None = None) -> Generator:
        made = generator(cells, self.coefficients, a, met)
        if made.oblique > 0.01:
            self._doubt(
                f"in {made.oblique:.0%} of the cells the noise is too oblique for the grid to stay positive: the cross "
                "terms are cut there"
            )
        return made

    def _passage(
        self,
        start: Any,
        target: Predicate,
        ask: Callable[[Generator, Grid], np.ndarray],
        ask_operator: Callable[[TransferOperator], Estimate],
        probability: bool,
    ) -> Estimate:
        point = check_start(self.space, self.chart, start, target)
        check_target(self.space, self.chart, target)
        line = self.space.dimension == 1
        marks = _edges(self.space, self.chart, target) if line else np.array([])

        def on(grid: Grid) -> Found:
            if line:  # an edge of a cell lies on every edge of the target, and on the start
                cells = line_cells(_marked(grid, np.append(marks, point[0])))
            else:
                cells = box_cells(grid)
            met = holds(target, self.chart, cells.points)
            killed = killed_generator(self._made(cells, CONVENTIONS[self.convention], met), met)
            value = killed.at(ask(killed, grid), cells, point)
            return Found(value, never=math.isinf(value))

        estimate = number(self.space, on, probability=probability)
        if self.status != Status.OK:
            estimate = Estimate(estimate.value, estimate.error, self.status, {**estimate.details, "why": self._why})
        return self._held(estimate, ask_operator)

    def _held(self, estimate: Estimate, ask: Callable[[TransferOperator], Estimate]) -> Estimate:
        """An answer beside the operator's: their distance is part of the error."""
        if not self._compare:
            return estimate
        if self._operator is None:
            made = transfer_operator(self.process, self.space, progress=self.progress)
            assert isinstance(made, TransferOperator)
            self._operator = made
        exact = ask(self._operator)
        same = np.equal(estimate.value, exact.value)  # infinite times too
        with np.errstate(invalid="ignore"):
            distance = np.where(same, 0.0, np.abs(np.subtract(estimate.value, exact.value)))
        scale = np.max(np.abs(np.asarray(exact.value)))
        relative = float(np.max(distance) / scale) if scale > 0 and np.isfinite(scale) else math.inf
        relative = 0.0 if np.all(same) else relative
        details = {
            **estimate.details,
            "grid_error": estimate.error,
            "operator": exact,
            "distance": f"{relative:.2g}",
        }
        status = Status.MODEL_DIFFERS if estimate.ok and not relative <= FAR else estimate.status
        return Estimate(estimate.value, estimate.error + distance, status, details)

    def _doubt(self, why: str) -> None:
        self.status, self._why = Status.UNDEFINED, why


def _matrix(value: Any, axes: int) -> Any:
    value = as_arrays(value)
    return value.reshape(1, 1) if axes == 1 else value * jnp.eye(axes) if value.ndim == 0 else value.reshape(axes, axes)


def _edges(grid: Grid, chart: Chart, target: Predicate) -> np.ndarray:
    from thalweg.flow._gaussian_steps import target_edges

    return target_edges(grid, chart, target)[0]


def _marked(grid: Grid, marks: np.ndarray) -> np.ndarray:
    """Edges of cells about as wide as the grid's, with an edge on each mark."""
    low, high = grid.lower[0], grid.upper[0]
    ends = np.unique(np.concatenate([[low, high], marks[(marks > low) & (marks < high)]]))
    width = grid.widths[0]
    parts = [np.linspace(a, b, max(2, round((b - a) / width)) + 1)[:-1] for a, b in itertools.pairwise(ends)]
    return np.concatenate([*parts, [high]])
