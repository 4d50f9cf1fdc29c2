"""Levels: a share of weights is taken apart into pixel, unit and interaction, and correlated at each."""

import numpy as np
from jaxtyping import Bool, Float

from thalweg.knowledge._by_datum import Shares

LEVELS = ("weights", "biases", "live", "constant", "unit", "pixel", "interaction")
PARTS = ("pixel", "unit", "interaction")


class Parts(dict):
    """The share at each level, NaN where an input is constant or a unit undefined, so that networks stay comparable.

    - `weights`, `biases`: all of them, the pools of the post.
    - `live`, `constant`: the weights from inputs that vary in the data, and from those that do not (there a weight is a
      copy of its unit's bias). - `unit`, `pixel`: means over live weights, (units,) and (inputs,).
    - `interaction`: what is left of the live weights, (inputs, units).
    - `variance`: the shares of pixel, unit and interaction in the variance of the live weights.
    """

    def __init__(self, shares: Shares, live: Bool[np.ndarray, " inputs"], defined: Bool[np.ndarray, " units"]):
        block = np.where(live[:, None] & defined, shares.weights, np.nan)
        inner = shares.weights[np.ix_(live, defined)]
        unit, pixel, interaction = np.full(len(defined), np.nan), np.full(len(live), np.nan), block * np.nan
        self.variance = np.full(3, np.nan)
        if inner.size:
            mean = inner.mean()
            unit[defined], pixel[live] = inner.mean(0), inner.mean(1)
            left = inner - inner.mean(0) - inner.mean(1)[:, None] + mean
            interaction[np.ix_(live, defined)] = left
            parts = np.array([np.var(inner.mean(1)), np.var(inner.mean(0)), np.mean(left**2)])
            if parts.sum() > 0:
                self.variance = parts / parts.sum()
        super().__init__(
            weights=shares.weights,
            biases=shares.biases,
            live=block,
            constant=np.where(live[:, None], np.nan, shares.weights),
            unit=unit,
            pixel=pixel,
            interaction=interaction,
        )


def correlation(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> float:
    """Pearson's r over the entries where both are defined; NaN with fewer than 3, or where one does not vary."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3 or _flat(a) or _flat(b):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def partial_correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """The correlation of a and b that is left when both are regressed on `given`; NaN where `given` does not vary."""
    both = np.isfinite(a) & np.isfinite(b) & np.isfinite(given)
    a, b, given = a[both], b[both], given[both]
    ab, ac, bc = correlation(a, b), correlation(a, given), correlation(b, given)
    left = (1 - ac**2) * (1 - bc**2)
    return float((ab - ac * bc) / np.sqrt(left)) if left > 1e-24 else float("nan")


def _flat(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(1e-300, float(np.abs(values).max())))
