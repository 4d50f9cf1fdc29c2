"""One question on several grids: the answer, and how far the grid may have it wrong."""

import numpy as np

REGULAR = (2.5, 6.5)  # ratios of successive differences that count as second order (exactly: 4)


def extrapolate(values: list[float]) -> tuple[float, float, bool]:
    """(value, error, whether the convergence is regular) from answers on grids of 1, 2, 4 and 8 times the cell width.

    Where the differences shrink fourfold twice, as errors of second order do, they are extrapolated (Richardson).
    Elsewhere, as where the maps of the process expand, the finest answer stands, with the larger of the last two
    differences for its error; an infinite one if a grid has no finite answer.
    """
    fine, *_ = values
    if not np.all(np.isfinite(values)):
        return fine, float("inf"), False
    first, second, third = -np.diff(values)
    floor = 1e-13 * abs(fine)
    if max(abs(first), abs(second), abs(third)) <= floor:
        return fine, floor, True
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array([second / first, third / second])
    if np.all((ratios >= REGULAR[0]) & (ratios <= REGULAR[1])):
        doubt = max(np.max(np.abs(ratios / 4 - 1)), 0.5)
        return fine + first / 3, max(abs(first) / 3 * doubt, floor), True
    return fine, max(abs(first), abs(second) / 2, floor), False


def density_error(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """The error of a density: its distance from that of a grid with cells twice as wide, the largest nearby.

    Cell by cell the distance vanishes where two densities cross, which is no reason for trust: so the largest within
    a 32nd of the grid is taken.
    """
    from scipy.ndimage import maximum_filter

    nearby = [2 * max(1, n // 64) + 1 for n in fine.shape]
    return np.asarray(maximum_filter(np.abs(fine - coarse), size=nearby))
