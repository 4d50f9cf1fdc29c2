"""The spaces on which a density lives: a grid of cells, or a list of states."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._edge import is_whole

MOST_AXES = 3


@dataclass(frozen=True)
class Grid:
    """Equal cells that fill an interval, a rectangle or a box.

    A density on it is an array of `shape`, one value a cell, whose sum times `cell_volume` is 1.

    **Arguments**

    - `lower`, `upper`: the outer edges of the first and the last cell, one number for each axis.
    - `shape`: how many cells along each axis; 1 to 3 axes.

    **Raises** `ValueError` for edges that are not finite or not in order, and for fewer than 4 cells along an axis.

    >>> import thalweg as tw
    >>> grid = tw.flow.Grid(0.0, 1.0, 4)
    >>> grid.centers[0].tolist(), grid.cell_volume
    ([0.125, 0.375, 0.625, 0.875], 0.25)
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    shape: tuple[int, ...]

    def __init__(
        self, lower: float | Sequence[float], upper: float | Sequence[float], shape: int | Sequence[int]
    ) -> None:
        low, high = _numbers("lower", lower), _numbers("upper", upper)
        cells: tuple[Any, ...] = (shape,) if np.ndim(shape) == 0 else tuple(shape)  # type: ignore[arg-type]
        if not cells or not all(is_whole(n) and n >= 4 for n in cells):
            raise ValueError(f"shape must be whole numbers of cells, at least 4 along each axis, got {shape!r}")
        if not len(low) == len(high) == len(cells) <= MOST_AXES:
            raise ValueError(
                f"lower, upper and shape must have one entry for each of 1 to {MOST_AXES} axes, "
                f"got {len(low)}, {len(high)} and {len(cells)}"
            )
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"lower must be below upper along every axis, got lower {lower} and upper {upper}")
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)
        object.__setattr__(self, "shape", tuple(int(n) for n in cells))

    @property
    def dimension(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many cells."""
        return math.prod(self.shape)

    @property
    def widths(self) -> Float[np.ndarray, " axes"]:
        """The width of a cell along each axis."""
        return (np.asarray(self.upper) - np.asarray(self.lower)) / np.asarray(self.shape)

    @property
    def cell_volume(self) -> float:
        """The length, area or volume of a cell."""
        return float(np.prod(self.widths))

    @property
    def edges(self) -> tuple[np.ndarray, ...]:
        """The edges of the cells along each axis."""
        return tuple(np.linspace(a, b, n + 1) for a, b, n in zip(self.lower, self.upper, self.shape, strict=True))

    @property
    def centers(self) -> tuple[np.ndarray, ...]:
        """The centers of the cells along each axis."""
        return tuple((edges[1:] + edges[:-1]) / 2 for edges in self.edges)

    @property
    def points(self) -> Float[np.ndarray, "cells axes"]:
        """The centers of all cells, in the order of a flattened density."""
        return np.stack(np.meshgrid(*self.centers, indexing="ij"), axis=-1).reshape(-1, self.dimension)

    def holds(self, points: Float[np.ndarray, "... axes"]) -> np.ndarray:
        """Whether each point lies on the grid."""
        return np.all((points >= np.asarray(self.lower)) & (points <= np.asarray(self.upper)), axis=-1)

    def coarser(self, factor: int) -> "Grid":
        """The same box with cells `factor` times as wide (as nearly as whole numbers allow)."""
        return Grid(self.lower, self.upper, [max(4, round(n / factor)) for n in self.shape])

    def density(self, f: Callable[[Any], Any]) -> Float[np.ndarray, "..."]:
        """A density from a function of a point, brought to sum 1.

        On one axis `f` is given a number, else an array of coordinates.

        >>> import numpy as np, thalweg as tw
        >>> grid = tw.flow.Grid(0.0, 1.0, 4)
        >>> grid.density(lambda x: x).tolist()
        [0.25, 0.75, 1.25, 1.75]
        """
        points = self.points[:, 0] if self.dimension == 1 else self.points
        values = np.array([float(f(point)) for point in points]).reshape(self.shape)
        return self.check_density(values / max(values.sum() * self.cell_volume, np.finfo(float).tiny))

    def check_density(self, density: Any) -> Float[np.ndarray, "..."]:
        """`density` as an array, or a sentence about what is wrong with it."""
        array = _floats("density", density)
        if array.shape != self.shape:
            raise ValueError(f"density must have the shape of the grid, {self.shape}, got {array.shape}")
        mass = array.sum() * self.cell_volume
        if not np.all(np.isfinite(array)) or np.any(array < 0) or abs(mass - 1) > 1e-6:
            raise ValueError(
                f"density must be >= 0 and its sum times the cell volume 1, got sum {mass:.6g} and least "
                f"{array.min():.6g}: grid.density(f) makes one from a function"
            )
        return array


class States:
    """A list of states, for processes that jump between finitely many.

    A density on it is an array of probabilities, one a state.

    **Arguments**

    - `array`: the states, shape (n,) or (n, ...): whole numbers, or any numbers that a step reaches exactly.

    >>> import numpy as np, thalweg as tw
    >>> tw.flow.States(np.arange(3)).size
    3
    """

    def __init__(self, array: Any) -> None:
        array = np.asarray(array)
        if array.ndim == 0 or array.size == 0 or array.dtype.kind not in "biuf":
            raise ValueError(
                "array must hold numbers, at least one state along its first axis, got shape "
                f"{array.shape} of {array.dtype}"
            )
        rows = array.reshape(len(array), -1)
        if not np.all(np.isfinite(rows)) or len(np.unique(rows, axis=0)) != len(rows):
            raise ValueError("array must hold finite states, each once, got one that is not finite or stands twice")
        self.array = array

    @property
    def size(self) -> int:
        """How many states."""
        return len(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a density."""
        return (len(self.array),)

    @property
    def cell_volume(self) -> float:
        """1: a density here is a list of probabilities."""
        return 1.0

    def find(self, states: np.ndarray) -> np.ndarray:
        """The number of each state in the list, -1 where it is not in it."""
        known = {row.tobytes(): i for i, row in enumerate(self._rows(self.array))}
        return np.array([known.get(row.tobytes(), -1) for row in self._rows(states)])

    def _rows(self, states: np.ndarray) -> np.ndarray:
        width = self.array[0].size
        rows = np.ascontiguousarray(np.asarray(states).reshape(-1, width).astype(float))
        return rows + 0.0  # -0.0 and 0.0 are one state

    def check_density(self, density: Any) -> Float[np.ndarray, " states"]:
        """`density` as an array of probabilities, or a sentence about what is wrong with it."""
        array = _floats("density", density)
        if array.shape != self.shape:
            raise ValueError(f"density must have one entry for each of the {self.size} states, got {array.shape}")
        if not np.all(np.isfinite(array)) or np.any(array < 0) or abs(array.sum() - 1) > 1e-6:
            raise ValueError(f"density must be probabilities (>= 0, sum 1), got a sum of {array.sum():.6g}")
        return array


def _floats(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__}") from None


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        array = np.atleast_1d(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        array = np.array([[np.nan]])
    if array.ndim != 1 or not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be a finite number, or one for each axis, got {value!r}")
    return tuple(float(x) for x in array)
