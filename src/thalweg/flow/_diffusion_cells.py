"""The cells of a diffusion: their centers, their faces, and which cells a face separates."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from thalweg.flow._space import Grid


class Faces(NamedTuple):
    """The faces across one axis: between cells `left` and `right` (-1: the outside), at `points`.

    `gap` is the distance of the two centers, `widths` those of the two cells, all along the axis.
    """

    axis: int
    left: np.ndarray
    right: np.ndarray
    points: Float[np.ndarray, "faces axes"]
    gap: np.ndarray
    left_width: np.ndarray
    right_width: np.ndarray


class Cells(NamedTuple):
    """Cells with their `points` (centers), their `faces` axis by axis, and their pairs along diagonals.

    A diagonal is `(axis, other axis, sign, from cell, to cell)`.
    """

    points: Float[np.ndarray, "cells axes"]
    faces: tuple[Faces, ...]
    diagonals: tuple[tuple[int, int, int, np.ndarray, np.ndarray], ...]
    widths: Float[np.ndarray, " axes"]
    edges: np.ndarray | None


def line_cells(edges: Float[np.ndarray, " edges"]) -> Cells:
    """Cells of any widths on one axis."""
    centers, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    n = len(centers)
    left, right = np.arange(-1, n), np.append(np.arange(n), -1)
    beyond = np.concatenate([[edges[0] - widths[0] / 2], centers, [edges[-1] + widths[-1] / 2]])
    wide = np.concatenate([widths[:1], widths, widths[-1:]])
    faces = Faces(0, left, right, edges[:, None], np.diff(beyond), wide[:-1], wide[1:])
    return Cells(centers[:, None], (faces,), (), np.array([widths.mean()]), edges)


def box_cells(grid: Grid) -> Cells:
    """The cells of a grid of several axes."""
    number = np.arange(grid.size).reshape(grid.shape)
    faces, diagonals = [], []
    for axis in range(grid.dimension):
        padded = np.pad(number, [(1, 1) if a == axis else (0, 0) for a in range(grid.dimension)], constant_values=-1)
        left = np.take(padded, range(grid.shape[axis] + 1), axis=axis).reshape(-1)
        right = np.take(padded, range(1, grid.shape[axis] + 2), axis=axis).reshape(-1)
        coordinates = list(grid.centers)
        coordinates[axis] = grid.edges[axis]
        points = np.stack(np.meshgrid(*coordinates, indexing="ij"), axis=-1).reshape(-1, grid.dimension)
        width = np.full(len(left), grid.widths[axis])
        faces.append(Faces(axis, left, right, points, width, width, width))
    for axis, other in itertools.combinations(range(grid.dimension), 2):
        for sign in (1, -1):
            ahead = [slice(None)] * grid.dimension
            behind = [slice(None)] * grid.dimension
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            ahead[other], behind[other] = (
                (slice(1, None), slice(None, -1)) if sign > 0 else (slice(None, -1), slice(1, None))
            )
            diagonals.append((axis, other, sign, number[tuple(behind)].reshape(-1), number[tuple(ahead)].reshape(-1)))
    return Cells(grid.points, tuple(faces), tuple(diagonals), grid.widths, None)
