"""BFGS for functions that cost microseconds: the search itself must not cost more."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

FALLS, BENDS = 1e-4, 0.9  # of the slope: how much a step must fall, and how much of it may be left at its end
HALVINGS = 60


class Minimum(NamedTuple):
    """Where a search ended: `falls` is how much further the function is expected to fall, by its own quadratic."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    falls: float
    iterations: int


def bfgs(f: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, flat: float, iterations: int) -> Minimum:
    """The minimum of a smooth function that gives its value and its gradient.

    The search ends where every entry of the gradient is below `flat`, where rounding lets the function fall no further,
    or after so many iterations. `falls` means something near a minimum only: far from one it can be far too small.

    Sources: Nocedal and Wright, *Numerical Optimization* (2006), algorithm 6.1; the length of a step by bisection:
    Lewis and Overton, Math. Program. 141, 135 (2013), algorithm 2.6.

    >>> found = bfgs(lambda x: (float(x @ x / 2), x), np.array([3.0, -4.0]), 1e-9, 100)
    >>> found.value < 1e-18, found.iterations < 5
    (True, True)
    """
    value, gradient = f(x)
    inverse, made = np.eye(len(x)), 0
    while made < iterations and np.max(np.abs(gradient), initial=0.0) >= flat:
        direction = -inverse @ gradient
        slope = float(gradient @ direction)
        # nothing is known of the curvature yet: no further than one unit
        step = 1.0 if made else min(1.0, 1 / math.sqrt(-slope))
        found = _along(f, x, value, direction, slope, step)
        if found is None:
            break
        moved, value, new = found
        change = new - gradient
        along = float(change @ moved)
        if made == 0:
            inverse *= along / float(change @ change)
        bent = inverse @ change
        inverse += (along + change @ bent) / along**2 * np.outer(moved, moved)
        inverse -= (np.outer(bent, moved) + np.outer(moved, bent)) / along
        x, gradient, made = x + moved, new, made + 1
    return Minimum(x, value, gradient, float(gradient @ inverse @ gradient) / 2, made)


def _along(
    f: Callable[[np.ndarray], tuple[float, np.ndarray]],
    x: np.ndarray,
    value: float,
    direction: np.ndarray,
    slope: float,
    step: float,
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """A step that falls enough and after which the slope has flattened enough; `None` where rounding allows none."""
    low, high = 0.0, math.inf
    for _ in range(HALVINGS):
        moved = step * direction
        there, gradient = f(x + moved)
        if not there <= value + FALLS * step * slope:  # so is NaN too high
            high = step
        elif float(gradient @ direction) < BENDS * slope:
            low = step
        else:
            return moved, there, gradient
        step = (low + high) / 2 if math.isfinite(high) else 2 * step
    return None
