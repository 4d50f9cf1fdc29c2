"""The bridge to energy: a reversible generator as a Schroedinger operator."""

from typing import Any

import numpy as np
import scipy.sparse

from thalweg._results import Estimate, Status
from thalweg.flow._chart import Predicate
from thalweg.flow._fokker_planck import FokkerPlanck
from thalweg.flow._generator import Generator, killed_generator
from thalweg.flow._outcomes import holds

REVERSIBLE = 1e-6


def symmetrise(generator: Any, target: Predicate | None = None) -> "SchroedingerOperator":
    """The Schroedinger operator of a diffusion that has no current at rest.

    With `P` the stationary density and `L` the generator of densities, `H = -P^(-1/2) L P^(1/2)` is symmetric. Its
    ground state is `sqrt(P)` with energy 0, its excited energies are the rates at which perturbations die out. With
    a target that absorbs, the lowest energy is the rate of escape.

    **Arguments**

    - `generator`: a `FokkerPlanck`, or a matrix of rates (n, n), row i holding those from state i, with rows that sum
      to 0 (or less, where states are killed).
    - `target`: for a `FokkerPlanck`: a predicate of one state that absorbs.

    **Returns** a `SchroedingerOperator`. **Raises** `ValueError` for a generator with a current at rest.

    >>> import thalweg as tw
    >>> F = tw.flow.fokker_planck((lambda x: -x, lambda x: 2.0), tw.flow.Grid(-8.0, 8.0, 400))
    >>> tw.flow.symmetrise(F).energies(4).value[1:].round(2).tolist()  # Ornstein and Uhlenbeck: 0, 1, 2, 3
    [1.0, 2.0, 3.0]
    """
    if isinstance(generator, FokkerPlanck):
        from thalweg.flow._diffusion_cells import box_cells, line_cells
        from thalweg.flow._fokker_planck import CONVENTIONS, _edges, _marked

        def on(grid: Any) -> Generator:
            if target is None:
                return generator._on(grid)
            if grid.dimension > 1:
                cells = box_cells(grid)
            else:
                cells = line_cells(_marked(grid, _edges(generator.space, generator.chart, target)))
            met = holds(target, generator.chart, cells.points)
            return killed_generator(generator._made(cells, CONVENTIONS[generator.convention], met), met)

        return SchroedingerOperator(
            _symmetric(on(generator.space)), lambda: _symmetric(on(generator.space.coarser(2))), generator.space
        )
    if generator is None:
        raise TypeError("generator must be a FokkerPlanck or a matrix of rates, got None")
    try:
        matrix = scipy.sparse.csr_matrix(generator, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(
            f"generator must be a FokkerPlanck or a matrix of rates, got {type(generator).__name__}"
        ) from None
    if not np.all(np.isfinite(matrix.data)):
        raise ValueError("generator must have finite rates, got NaN or infinity in it")
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"generator must be a square matrix of rates, got shape {matrix.shape}")
    rates = matrix - scipy.sparse.diags(matrix.diagonal())
    kill = -np.asarray(matrix.sum(axis=1)).reshape(-1)
    if (rates.nnz and rates.data.min() < 0) or np.any(kill < -1e-9 * np.abs(matrix.diagonal())):
        raise ValueError("generator must have rates >= 0 off its diagonal and rows that sum to 0 or less")
    made = Generator(rates.tocsr(), np.maximum(kill, 0.0), np.zeros(len(kill)), 0.0)
    return SchroedingerOperator(_symmetric(made), None, None)


class SchroedingerOperator:
    """What `symmetrise` gives back. Energies are rates a unit of time.

    - `matrix`: `H`, symmetric, sparse.
    """

    def __init__(self, matrix: Any, coarser: Any, space: Any):
        self.matrix, self._coarser, self.space = matrix, coarser, space

    def energies(self, k: int) -> Estimate:
        """The k lowest energies, with their distance from those of cells twice as wide."""
        values = _lowest(self.matrix, k)[0]
        if self._coarser is None:
            return Estimate(values, 1e-12 * np.abs(self.matrix.diagonal()).max() * np.ones(k))
        return Estimate(values, np.abs(values - _lowest(self._coarser(), k)[0]), Status.OK, {"space": self.space})

    def states(self, k: int) -> np.ndarray:
        """The k lowest states, shape (k, cells), each of norm 1 and with a positive sum where it has one."""
        vectors = _lowest(self.matrix, k)[1].T
        sign = np.sign(vectors.sum(axis=1))
        return np.asarray(vectors * np.where(sign == 0, 1.0, sign)[:, None])


def _symmetric(made: Generator) -> Any:
    """`-sqrt(rate there times rate back)` off the diagonal, what leaves on it."""
    rates = made.rates.tocsr()
    back = rates.T.tocsr()
    if made.tridiagonal is None:  # in one dimension there is always detailed balance
        mass = made.stationary()
        flow = scipy.sparse.diags(mass) @ rates
        if abs(flow - flow.T).max() > REVERSIBLE * abs(flow).max():
            raise ValueError(
                "generator must be reversible, and this one has a current at rest: it has no Schroedinger operator"
            )
    product = rates.multiply(back)
    product.data = np.sqrt(product.data)
    return (scipy.sparse.diags(-made.matrix.diagonal()) - product).tocsc()


def _lowest(matrix: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.linalg import eigh_tridiagonal
    from scipy.sparse.linalg import eigsh

    n = matrix.shape[0]
    entries = matrix.tocoo()
    if np.all(np.abs(entries.row - entries.col) <= 1):
        values, vectors = eigh_tridiagonal(
            matrix.diagonal(), matrix.diagonal(1), select="i", select_range=(0, min(k, n) - 1)
        )
        return values, vectors
    scale = float(np.median(matrix.diagonal()))
    values, vectors = eigsh(matrix, k=k, sigma=-1e-6 * scale, which="LM", v0=np.ones(n))
    order = np.argsort(values)
    return values[order], vectors[:, order]
