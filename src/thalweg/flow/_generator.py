"""Rates between the cells of a diffusion: a Markov chain in continuous time, and the linear problems it poses.

Across a face with drift b and diffusion A (variance a unit of time, D = A/2), the flux is that of Scharfetter and
Gummel: with `v = b - (1 - a) dD/dx` and the Peclet number `w = v gap / D`, the rates are `D B(-w) / gap` forwards and
`D B(w) / gap` backwards, `B(w) = w / (e^w - 1)`, over the width of the cell that is left. All rates are >= 0 whatever
the drift; where D = 0 they are `max(v, 0)` and `max(-v, 0)`, the upwind limit.

Correlated noise moves along the diagonals (Kushner and Dupuis, 1992), as far as the rates along the axes stay
positive.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from thalweg.flow._diffusion_cells import Cells
from thalweg.flow._implicit import Implicit
from thalweg.flow._space import Grid

Coefficients = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def bernoulli(w: np.ndarray) -> np.ndarray:
    """`w / (exp(w) - 1)`, 1 at 0."""
    small = np.abs(w) < 1e-8
    safe = np.where(small, 1.0, np.clip(w, -700.0, 700.0))
    return np.where(small, 1 - w / 2, np.where(w < -700, -w, safe / np.expm1(safe)))


def generator(cells: Cells, coefficients: Coefficients, a: float, met: np.ndarray | None = None) -> "Generator":
    """The rates between cells; `a` is 0 for Ito, 1/2 for Stratonovich, 1 for anti-Ito.

    `met` masks the cells of a target. On a line its edge is a face, and what reaches that face is absorbed there, half
    a cell before the target's own center.
    """
    n = len(cells.points)
    centre = coefficients(cells.points)[1] / 2  # D, (n, axes, axes)
    rows, columns, data = [], [], []
    oblique, cross = _cross_terms(cells, centre)
    leak = np.zeros(n)
    for faces in cells.faces:
        b, variance = coefficients(faces.points)
        axis, left, right = faces.axis, faces.left, faces.right
        inner = (left >= 0) & (right >= 0)
        from_left, from_right = np.where(left >= 0, left, right), np.where(right >= 0, right, left)
        diffusion = np.maximum(
            variance[:, axis, axis] / 2 - (cross[from_left, axis] + cross[from_right, axis]) / 2, 0.0
        )
        slope = (centre[from_right, axis, axis] - centre[from_left, axis, axis]) / faces.gap
        drift = b[:, axis] - (1 - a) * slope
        for other in range(cells.points.shape[1]) if a else ():  # a sum_j dD_ij/dx_j of the other axes
            if other != axis:
                drift = drift + a * _slope(coefficients, faces.points, axis, other, cells.widths[other])
        gap = faces.gap
        if met is not None and cells.edges is not None:
            into, out_of = inner & met[from_right] & ~met[from_left], inner & met[from_left] & ~met[from_right]
            gap = np.where(into, faces.left_width / 2, np.where(out_of, faces.right_width / 2, gap))
        moves = diffusion > 1e-14 * max(float(np.abs(centre).max()), 1e-300)
        peclet = np.where(moves, drift * gap / np.where(moves, diffusion, 1.0), 0.0)
        forward = np.where(moves, diffusion / gap * bernoulli(-peclet), np.maximum(drift, 0.0))
        backward = np.where(moves, diffusion / gap * bernoulli(peclet), np.maximum(-drift, 0.0))
        rows += [left[inner], right[inner]]
        columns += [right[inner], left[inner]]
        data += [forward[inner] / faces.left_width[inner], backward[inner] / faces.right_width[inner]]
        np.add.at(leak, left[right < 0], (forward / faces.left_width)[right < 0])
        np.add.at(leak, right[left < 0], (backward / faces.right_width)[left < 0])
    for axis, other, sign, begin, end in cells.diagonals:
        weight = np.maximum(sign * centre[:, axis, other], 0.0) * oblique / (cells.widths[axis] * cells.widths[other])
        rows += [begin, end]
        columns += [end, begin]
        data += [weight[begin], weight[end]]
    rates = scipy.sparse.csr_matrix(
        (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)
    )
    return Generator(rates, np.zeros(n), leak, float(np.mean(oblique < 1)))


def _cross_terms(cells: Cells, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the correlations that the grid can carry, (cells,); what they take from each axis, (cells, axes)."""
    n, axes = cells.points.shape
    if axes == 1:
        return np.ones(n), np.zeros((n, 1))
    scaled = centre / (cells.widths[:, None] * cells.widths[None, :])
    diagonal = np.einsum("nii->ni", scaled)
    others = np.abs(scaled).sum(axis=2) - np.abs(diagonal)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(others > 0, np.maximum(diagonal, 0.0) / others, 1.0)
    share = np.minimum(share.min(axis=1), 1.0)
    return share, others * share[:, None] * cells.widths**2


def _slope(coefficients: Coefficients, points: np.ndarray, axis: int, other: int, width: float) -> np.ndarray:
    step = np.zeros(points.shape[1])
    step[other] = width / 2
    ahead, behind = coefficients(points + step)[1], coefficients(points - step)[1]
    return (ahead[:, axis, other] - behind[:, axis, other]) / (2 * width)


class Generator:
    """Rates between cells, and at which each cell is killed.

    - `rates`: sparse (n, n), off the diagonal. - `kill`, `leak`: rates of killing, and of leaving the grid if its
      edge were open. - `oblique`: the share of cells in which correlations had to be cut.
    - `kept`: which cells of a larger set these are, if some are killed.
    """

    def __init__(self, rates: Any, kill: np.ndarray, leak: np.ndarray, oblique: float, kept: np.ndarray | None = None):
        self.rates, self.kill, self.leak, self.oblique, self.kept = rates, kill, leak, oblique, kept
        self.size = len(kill)

    @cached_property
    def matrix(self) -> Any:
        """The generator: rates, and on the diagonal minus all that leaves."""
        leaving = np.asarray(self.rates.sum(axis=1)).reshape(-1) + self.kill
        return (self.rates - scipy.sparse.diags(leaving)).tocsr()

    @property
    def tridiagonal(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Rates (up, down) between neighbours, if there are no others."""
        entries = self.rates.tocoo()
        if np.any(np.abs(entries.row - entries.col) > 1):
            return None
        return self.rates.diagonal(1), self.rates.diagonal(-1)

    def solve(self, source: np.ndarray) -> np.ndarray:
        """`-matrix^-1 source`: what a process collects at the rate `source` until it is killed.

        Between neighbours without a subtraction (Grassmann, Taksar and Heyman, 1985), so that times of 1e21 are right.
        """
        neighbours = self.tridiagonal
        if neighbours is None:
            from scipy.sparse.linalg import splu

            return np.asarray(splu((-self.matrix).tocsc()).solve(source))
        return _eliminate(*neighbours, self.kill, source)

    def slowest(self) -> float:
        """The lowest rate at which what is not yet killed is killed in the long run."""
        shape, rate = np.ones(self.size), np.nan
        for _ in range(200):
            nxt = self.solve(shape)
            before, rate = rate, 1 / nxt.max()
            shape = nxt * rate
            if abs(rate - before) < 1e-13 * rate:
                break
        return float(rate)

    def arrival(self, time: float, fineness: int, show: bool = False) -> np.ndarray:
        """The probability of having been killed by `time`, from each cell."""
        if time == 0:
            return np.zeros(self.size)
        whole = scipy.sparse.bmat(
            [[self.matrix, self.kill[:, None]], [None, scipy.sparse.csr_matrix((1, 1))]], format="csc"
        )
        return Implicit(whole).evolve(np.append(np.zeros(self.size), 1.0), time, fineness, False, show)[:-1]

    def carried(self, masses: np.ndarray, time: float, fineness: int, show: bool = False) -> np.ndarray:
        """Masses after `time`; `show`: a progress line."""
        return self._forward.evolve(masses, time, fineness, show=show)

    @cached_property
    def _forward(self) -> Implicit:
        return Implicit(self.matrix.T.tocsc())

    def stationary(self) -> np.ndarray:
        """Masses that do not change."""
        neighbours = self.tridiagonal
        if neighbours is not None:
            return _balance(*neighbours)
        from scipy.sparse.linalg import splu

        # Implicit Euler steps far longer than any relaxation: they keep masses positive, and their sum.
        transposed = self.matrix.T.tocsc()
        length = 1e8 / float(np.median(-transposed.diagonal()))
        solve = splu((scipy.sparse.identity(self.size, format="csc") - length * transposed).tocsc()).solve
        mass = np.full(self.size, 1 / self.size)
        for _ in range(100):
            before, mass = mass, np.maximum(solve(mass), 0.0)
            mass = mass / mass.sum()
            if np.abs(mass - before).sum() < 1e-11:
                break
        return np.asarray(mass)

    def eigenvalues(self, k: int) -> np.ndarray:
        """The k eigenvalues of least modulus of minus the generator, by their real parts."""
        from scipy.sparse.linalg import eigs

        scale = float(np.median(-self.matrix.diagonal()))
        values = eigs(
            -self.matrix.tocsc(),
            k=k,
            sigma=-1e-9 * scale,
            which="LM",
            v0=np.random.default_rng(0).normal(size=self.size),
            return_eigenvectors=False,
        )
        return np.sort(values.real)

    def current(self, grid: Grid, masses: np.ndarray) -> np.ndarray:
        """Net probability a unit of time through the faces: shape (cells + 1,) on a line, else at the centers."""
        entries = self.rates.tocoo()
        flow = entries.data * masses[entries.row]
        if grid.dimension == 1:
            through = np.zeros(grid.size + 1)
            np.add.at(through, np.maximum(entries.row, entries.col), flow * np.sign(entries.col - entries.row))
            return through
        moved = grid.points[entries.col] - grid.points[entries.row]
        out = np.zeros((grid.dimension, grid.size))
        for axis in range(grid.dimension):
            for end in (entries.row, entries.col):  # half of it belongs to either cell
                np.add.at(out[axis], end, flow * moved[:, axis] / 2)
        return (out / grid.cell_volume).reshape(grid.dimension, *grid.shape)

    def at(self, values: np.ndarray, cells: Cells, point: np.ndarray) -> float:
        """A function of the cells that are not killed, at a point."""
        kept = np.arange(len(cells.points)) if self.kept is None else self.kept
        if cells.edges is not None:
            return float(np.interp(point[0], cells.points[kept, 0], values))
        whole = np.full(len(cells.points), np.nan)
        whole[kept] = values
        offset = (cells.points - point) / cells.widths
        near = np.flatnonzero(np.all(np.abs(offset) < 1 + 1e-12, axis=1) & ~np.isnan(whole))
        weight = np.prod(1 - np.minimum(np.abs(offset[near]), 1.0), axis=1)
        return float(whole[near] @ weight / weight.sum())


def killed_generator(made: Generator, met: np.ndarray) -> Generator:
    """The generator killed on the cells of a target."""
    kept = np.flatnonzero(~met)
    kill = made.rates[kept][:, np.flatnonzero(met)].sum(axis=1)
    return Generator(
        made.rates[kept][:, kept].tocsr(), np.asarray(kill).reshape(-1), made.leak[kept], made.oblique, kept
    )


def _eliminate(up: np.ndarray, down: np.ndarray, kill: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Minus the inverse of a birth-death generator with killing, on `source`; nothing is subtracted."""
    n = len(kill)
    k, b = kill.astype(float).copy(), np.asarray(source, dtype=float).copy()
    for i in range(1, n):
        leaving = up[i - 1] + k[i - 1]
        share = down[i - 1] / leaving if leaving > 0 else 0.0
        k[i] += share * k[i - 1]
        b[i] += share * b[i - 1]
    m = np.zeros(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        m[-1] = b[-1] / k[-1] if k[-1] > 0 else (np.inf if b[-1] > 0 else 0.0)
        for i in range(n - 2, -1, -1):
            leaving = up[i] + k[i]
            ahead = up[i] * m[i + 1] if up[i] > 0 else 0.0
            m[i] = (b[i] + ahead) / leaving if leaving > 0 else np.inf
    return m


def _balance(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The stationary law of a birth-death chain: detailed balance, in logarithms."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(up) - np.log(down)
    if not np.all(np.isfinite(steps)):  # a gate that opens one way: the mass is beyond it
        steps = np.where(np.isfinite(steps), steps, np.where(up > down, 745.0, np.where(up < down, -745.0, 0.0)))
    level = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(level - level.max())
    return np.asarray(mass / mass.sum())
