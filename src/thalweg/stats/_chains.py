"""Several chains: do they tell the same story, and how many independent draws are they worth?"""

from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._results import Estimate
from thalweg.stats._autocorrelation import autocorrelation_time, integrate
from thalweg.stats._series import as_chains

MOST = 1 << 18  # values that R-hat looks at; more would only cost time
ENOUGH = 1.01  # an R-hat that nobody needs to look into


def effective_sample_size(series: Any) -> Estimate:
    """How many independent draws would give the same error of the mean: n / tau.

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several.

    **Returns** an `Estimate` with the status of `autocorrelation_time`; 1 for a constant series.

    **Raises** `ValueError` or `TypeError` for a series that is too short, not finite or not of numbers.

    **When not to trust it.** As `autocorrelation_time`: it cannot see a memory longer than the series.

    **Source.** Geyer, Statistical Science 7, 473 (1992).

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> x = np.repeat(np.random.default_rng(1).normal(size=10_000), 4)    # 40,000 numbers, worth 10,000
    >>> ess = tw.stats.effective_sample_size(x)
    >>> bool(abs(ess.value - 10_000) < 3 * ess.error)
    True
    """
    chains = as_chains(series)
    tau = autocorrelation_time(chains)
    size = chains.size / tau.value
    return Estimate(size, size * tau.error / tau.value, tau.status, tau.details)


def r_hat(series: Any) -> float:
    """Whether chains agree: 1 if they do, more if their spread differs from the spread inside them.

    Each chain is cut into halves, so that one chain alone is judged too; the values are replaced by normal
    scores of their ranks, so that heavy tails do no harm; the larger of R-hat for location and for spread
    (scores of |x - median|) is given.

    ```
    R-hat = sqrt((n - 1)/n + B / W)      B: variance of the means of the halves, W: mean variance inside them
    ```

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several.

    **Returns** a number. Beyond 262,144 values an even selection is looked at. Chains that never move give 1
    if all are equal and infinity if they are not.

    **Raises** `ValueError` or `TypeError` for a series that is too short, not finite or not of numbers.

    **When not to trust it.** Chains that are all caught in the same place agree. With few independent draws
    R-hat fluctuates: sqrt(1 + tau/n) is usual for chains of length n that are perfectly well.

    **Source.** Vehtari et al., Bayesian Analysis 16, 667 (2021), section 4.

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> round(tw.stats.r_hat(x), 2), round(tw.stats.r_hat(x + [[0], [0], [0], [2]]), 1)
    (1.0, 1.3)
    """
    return agreement(as_chains(series))[0]


def agreement(chains: Float[np.ndarray, "chains n"]) -> tuple[float, bool]:
    """R-hat, and whether it is larger than chance explains."""
    stride = min(-(-chains.size // MOST), chains.shape[1] // 4)
    halves = split(chains[:, ::stride])
    if halves.max() == halves.min():
        return 1.0, False
    readings = [_scores(halves), _scores(np.abs(halves - np.median(halves)))]
    values = [_plain(scores) for scores in readings]
    beyond = [r > ENOUGH and r > _usual(scores) for r, scores in zip(values, readings, strict=True)]
    return max(values), any(beyond)


def split(chains: Float[np.ndarray, "chains n"]) -> Float[np.ndarray, "halves half"]:
    """Each chain as its two halves; the middle value of an odd chain is left out."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def _usual(halves: Float[np.ndarray, "chains n"]) -> float:
    """The R-hat that chains which agree exceed once in a thousand times, given their memory.

    Infinity where a chain is too short to know its memory: being too short is then the better word.
    """
    from scipy.special import chdtri

    parts = halves if len(halves) == 2 else np.hstack(np.split(halves, 2))
    deviations = parts - parts.mean(axis=1, keepdims=True)
    moves = np.abs(deviations).max() > 0
    tau = integrate(deviations, centred_over=parts.shape[1]).tau if moves else 0.0
    if parts.shape[1] < 20 * tau:
        return float("inf")
    freedom = len(halves) - 1
    # The memory seen inside a short chain is too short by up to a third, hence 3/2.
    return float(np.sqrt(1 + 1.5 * chdtri(freedom, 0.001) / freedom * tau / halves.shape[1]))


def _plain(chains: np.ndarray) -> float:
    n = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean()
    between = chains.mean(axis=1).var(ddof=1)
    if within == 0:
        return 1.0 if between == 0 else float("inf")
    return float(np.sqrt((n - 1) / n + between / within))


def _scores(chains: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    flat = chains.ravel()
    ordered = np.sort(flat)
    # Equal values share the mean of their ranks.
    rank = 0.5 * (ordered.searchsorted(flat, "left") + ordered.searchsorted(flat, "right") + 1)
    return ndtri((rank - 0.375) / (flat.size + 0.25)).reshape(chains.shape)
