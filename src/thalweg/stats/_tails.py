"""Heavy tails: is the variance finite, so that an error bar means anything?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._results import Estimate, Status
from thalweg.stats._autocorrelation import integrate
from thalweg.stats._series import as_chains, centred

INFINITE_VARIANCE = 0.5  # the tail shape from which the variance is infinite
FEWEST = 10  # exceedances that a fit needs
MOST = 20_000  # exceedances that a fit looks at; more would only cost time


@dataclass(frozen=True)
class Tails:
    """What the largest values of a series say about its variance.

    - `heavy`: whether an infinite variance has to be reckoned with.
    - `shape`: the shape k of the heavier tail, P(x > t) ~ t^(-1/k), with its error; k >= 1/2 is an infinite
      variance, k = 0 an exponential tail, k < 0 a tail that ends.
    - `side`: "upper" or "lower", where the heavier tail is.
    - `threshold`: the series counts as heavy where `shape` exceeds it.
    - `exceedances`: how many independent values the fit is worth.
    - `verdict`: "heavy", "light", or "undecided" where the series is too short to exclude an infinite
      variance.
    """

    heavy: bool
    shape: Estimate
    side: str
    threshold: float
    exceedances: int
    verdict: str

    @property
    def tail_index(self) -> float:
        """The exponent 1/k of the heavier tail; infinity for tails that fall faster than any power."""
        k = float(self.shape.value)
        return 1 / k if k > 0 else math.inf

    def __str__(self) -> str:
        if self.shape.status == Status.CONSTANT:
            return "none: the series is constant"
        if self.shape.status == Status.TOO_SHORT:
            return "undecided: too few independent values"
        fit = f"shape {self.shape} of the {self.side} tail; the variance is infinite from 0.5"
        return f"{self.verdict} ({fit})"


def heavy_tails(series: Any) -> Tails:
    """Whether the variance of a series seems to be infinite, so that error bars mean nothing.

    A generalised Pareto law is fitted to the m largest values above a threshold, for each tail,

    ```
    P(x - u > y | x > u) = (1 + k y / s)^(-1/k),    error of k = (1 + k)/sqrt(m),    m = min(n/5, 4 sqrt(n))
    ```

    with n the number of independent values: the length over the autocorrelation time of the series or of its
    exceedances, whichever is longer. The series is called heavy unless k = 1/2 can be excluded at two errors:
    k > 1/2 - 3/sqrt(m), and k > 1.6/sqrt(m), which keeps false alarms of short series rare.

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several.

    **Returns** `Tails`. Share of series of independent values called heavy, measured at three lengths (1000
    series each, 200 at the last):

    | law                                        | n = 1000 | 10,000 | 100,000 |
    |--------------------------------------------|----------|--------|---------|
    | 1/r in the plane, tail index 2 (infinite)  | .98      | .98    | .96     |
    | Student t, 2 degrees of freedom (infinite) | 1.00     | 1.00   | 1.00    |
    | Pareto, tail index 1.5 (infinite)          | 1.00     | 1.00   | 1.00    |
    | Student t, 3 degrees of freedom            | .80      | .36    | .01     |
    | log-normal, sigma = 1                      | .67      | .05    | .00     |
    | Student t, 5 degrees of freedom            | .16      | .00    | .00     |
    | exponential                                | .01      | .00    | .00     |
    | Gaussian, uniform, Poisson                 | .00      | .00    | .00     |

    At n = 100 a Gaussian is called heavy in .03, at n = 300 an exponential in .06.

    **Raises** `ValueError` or `TypeError` for a series that is too short, not finite or not of numbers.

    **When not to trust it.** It sees only tails that show among the 4 sqrt(n) largest values: a small part
    with infinite variance hides under a broad bulk until n is large. Finite variances close to infinite
    (Student's t with 3 degrees of freedom, a log-normal law with sigma = 1) are called heavy while the series
    is short. Below about 450 independent values "undecided" is common.

    **Source.** Fit: Zhang and Stephens, Technometrics 51, 316 (2009); as a diagnosis: Vehtari et al., "Pareto
    smoothed importance sampling", JMLR 25 (2024), section 3; error of k: Smith, Ann. Stat. 15, 1174 (1987).

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> r = np.hypot(*np.random.default_rng(0).normal(size=(2, 10_000)))    # a distance in the plane
    >>> tw.stats.heavy_tails(1 / r).verdict, tw.stats.heavy_tails(r).verdict
    ('heavy', 'light')
    """
    chains = as_chains(series)
    _, scale, deviations = centred(chains)
    if scale == 0:
        return _BOUNDED
    return verdict(chains, integrate(deviations).tau)


_BOUNDED = Tails(False, Estimate(-1.0, 0.0, Status.CONSTANT), "upper", INFINITE_VARIANCE, 0, "light")


def verdict(values: Float[np.ndarray, "chains n"], tau: float) -> Tails:
    """The heavier of the two tails, given the autocorrelation time of the series; no need to centre it."""
    both = _tail(values, tau, "upper"), _tail(-values, tau, "lower")
    return max(both, key=lambda tail: (tail.heavy, float(tail.shape.value)))


def _tail(values: np.ndarray, tau: float, side: str) -> Tails:
    flat = values.ravel()
    if _exceedances(flat.size / max(tau, 1.0)) < FEWEST:
        return _unknown(side, flat.size / max(tau, 1.0))
    level = _level(flat, tau)
    # Extremes may come in longer clusters than the bulk, e.g. where a sampler is stuck next to a singularity.
    above = (values > level).astype(float)
    share = above.mean()
    if 0 < share < 1:
        clustered = integrate(above - share).tau
        if clustered > tau:
            tau = clustered
            level = _level(flat, tau)
    independent = flat.size / max(tau, 1.0)
    m = _exceedances(independent)
    if m < FEWEST:
        return _unknown(side, independent)
    # Thinning in time costs nothing while the step stays below the autocorrelation time.
    stride = max(1, min(int(tau), int(m * max(tau, 1.0) / MOST)))
    thinned = values[:, ::stride]
    excess = np.sort(0.5 * thinned[thinned > level] - 0.5 * level)  # halves cannot overflow, and units do not matter
    k = _shape(excess)
    threshold = max(INFINITE_VARIANCE - 3 / math.sqrt(m), 1.6 / math.sqrt(m))
    heavy = k > threshold
    excluded = k <= INFINITE_VARIANCE - 3 / math.sqrt(m)
    words = "heavy" if heavy else "light" if excluded else "undecided"
    error = max(1 + k, 0.5) / math.sqrt(m)
    return Tails(heavy, Estimate(k, error), side, threshold, int(m), words)


def _unknown(side: str, independent: float) -> Tails:
    details = {"factor": math.ceil(5 * FEWEST / independent)}
    shape = Estimate(0.0, math.inf, Status.TOO_SHORT, details)
    return Tails(False, shape, side, INFINITE_VARIANCE, int(_exceedances(independent)), "undecided")


def _exceedances(independent: float) -> float:
    return min(0.2 * independent, 4 * math.sqrt(independent))


def _level(flat: np.ndarray, tau: float) -> float:
    """The value that a share m/n of the series exceeds."""
    independent = flat.size / max(tau, 1.0)
    place = flat.size - 1 - max(1, round(flat.size * _exceedances(independent) / independent))
    return float(np.partition(flat, place)[place])


def _shape(excess: Float[np.ndarray, " m"]) -> float:
    """The generalised Pareto shape by Zhang and Stephens: a posterior mean over the one parameter theta = -k/s."""
    m = len(excess)
    if len(np.unique(excess)) < 5:
        return -1.0  # a few distinct values: a tail that ends
    points = 30 + int(math.sqrt(m))
    excess = excess / excess[-1]
    quartile = max(excess[int(m / 4 + 0.5) - 1], 1e-290)  # so that 1/quartile stays finite
    theta = 1 + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    k = np.array([np.log1p(-t * excess).mean() for t in theta])
    with np.errstate(invalid="ignore"):
        rate = np.where(k == 0, 1 / excess.mean(), -theta / k)  # theta = 0 is the exponential law
    likelihood = m * (np.log(rate) - k - 1)
    weight = np.exp(likelihood - likelihood.max())
    best = float((weight * theta).sum() / weight.sum())
    return float(np.log1p(-best * excess).mean())
