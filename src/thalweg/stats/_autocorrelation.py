"""Integrated autocorrelation time: how many steps of a correlated series are worth one independent draw."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from thalweg._results import Estimate, Status
from thalweg.stats._series import as_chains, as_count, centred

ENOUGH = 50  # autocorrelation times in the whole series
ENOUGH_EACH = 5  # autocorrelation times in each of several chains
LONG = 16_383  # lags from which a memory is looked at through block means
COARSE = 64


def autocorrelation(series: Any, lags: int = 1000) -> Float[np.ndarray, " {lags}+1"]:
    """How alike a series is to itself some steps later.

    ```
    rho_k = c_k / c_0,    c_k = mean over t and chains of (x_t - mean)(x_{t+k} - mean)
    ```

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several.
    - `lags`: the largest lag k; cut at n - 1.

    **Returns** rho_0 ... rho_lags. The deviations are taken from the mean of all chains, so that chains that
    disagree stay correlated. A constant series has rho = 1 at every lag: it never forgets.

    **Raises** `ValueError` or `TypeError` for a series that is too short, not finite or not of numbers.

    **When not to trust it.** At lags beyond a tenth of n the values are mostly noise. They carry no error
    here; that of the integrated time is in `autocorrelation_time`.

    **Source.** Agarwal and Vats, "Globally centered autocovariances in MCMC" (2020).

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> tw.stats.autocorrelation(np.tile([1.0, -1.0], 500), lags=3).round(3)
    array([ 1., -1.,  1., -1.])
    """
    chains = as_chains(series)
    lags = min(as_count(lags, "lags", 1), chains.shape[1] - 1)
    _, scale, deviations = centred(chains)
    if scale == 0:
        return np.ones(lags + 1)
    covariance = autocovariance(deviations, lags)
    return covariance / covariance[0]


def autocorrelation_time(series: Any) -> Estimate:
    """How many steps of the series are worth one independent draw.

    ```
    tau = 1 + 2 sum_{k >= 1} rho_k,    var(mean) = var(x) tau / n
    ```

    The sum is cut where the pairs rho_{2k} + rho_{2k+1} first fail to be positive, and the pairs are made to
    fall (Geyer's initial monotone sequence). Where the correlations swing back significantly after that, as
    under momentum, the sum goes on until they have died out. Its error is tau sqrt(2 (2 window + 1) / n).

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several.

    **Returns** an `Estimate` in steps; `details` holds `window` (the lag of the cut). Independent draws give
    1, an autoregression with coefficient a gives (1 + a)/(1 - a), a series that alternates less than 1.
    The status is `TOO_SHORT` below 50 autocorrelation times, `CONSTANT` (with tau = n) for a series that
    never moves.

    **Raises** `ValueError` or `TypeError` for a series that is too short, not finite or not of numbers.

    **When not to trust it.** It cannot see a time longer than the series. Correlations that swing for
    hundreds of steps are cut too early or too late; `blocking` then says something else.

    **Source.** Geyer, Statistical Science 7, 473 (1992), section 3.3; error and bias: Wolff, Comput. Phys.
    Commun. 156, 143 (2004).

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> x = np.repeat(np.random.default_rng(0).normal(size=20_000), 5)    # each draw five times: tau is 5
    >>> tau = tw.stats.autocorrelation_time(x)
    >>> bool(abs(tau.value - 5) < 3 * tau.error), tau.ok
    (True, True)
    """
    chains = as_chains(series)
    _, scale, deviations = centred(chains)
    if scale == 0:
        return Estimate(float(chains.size), 0.0, Status.CONSTANT, {"window": 0})
    memory = integrate(deviations)
    return memory.estimate(*chains.shape)


class Memory(NamedTuple):
    """The autocorrelation function up to where it was cut, and its integral."""

    tau: float
    error: float
    window: int
    rho: Float[np.ndarray, " lags"]
    step: int = 1  # rho is known at multiples of this lag

    def estimate(self, chains: int, n: int) -> Estimate:
        factor = longer(self.tau, chains, n)
        details = {"window": self.window} | ({"factor": factor} if factor > 1 else {})
        return Estimate(self.tau, self.error, Status.TOO_SHORT if factor > 1 else Status.OK, details)


def longer(tau: float, chains: int, n: int) -> int:
    """By how much to lengthen the series until it holds 50 autocorrelation times; 1 if it does."""
    factor = max(ENOUGH * tau / (chains * n), ENOUGH_EACH * tau / n)
    return 1 if factor <= 1 else max(2, int(np.ceil(factor)))


def integrate(deviations: Float[np.ndarray, "chains n"], centred_over: int | None = None) -> Memory:
    """Geyer's initial monotone sequence, on as many lags as it needs and no more.

    `centred_over` is the number of values that each subtracted mean was taken over; default all.
    """
    chains, n = deviations.shape
    lags = min(n - 1, 255)
    while True:
        covariance = autocovariance(deviations, lags)
        rho = covariance / covariance[0]
        pairs = rho[: (lags + 1) // 2 * 2].reshape(-1, 2).sum(axis=1)
        fallen = np.flatnonzero(pairs <= 0)
        if len(fallen) or lags == n - 1:
            break
        if lags >= LONG and n >= 4 * LONG:
            return _coarse(deviations, covariance[0], centred_over)
        lags = min(n - 1, 8 * lags + 7)
    cut = int(fallen[0]) if len(fallen) else len(pairs)
    # Means over short pieces make all late correlations negative, which looks like ringing but is not.
    window = 0 if centred_over else _ringing(rho, 2 * cut, chains * n)
    if window:
        tau = 1 + 2 * float(rho[1 : window + 1].sum())
    else:
        window = max(2 * cut - 1, 0)
        tau = -1 + 2 * float(np.minimum.accumulate(pairs[:cut]).sum())
    # Taking the mean from the same data lowers every rho_k by tau/n; a perfectly alternating series
    # sums to 0, and a floor keeps its effective sample size finite.
    total = chains * n
    tau = min(max(tau * (1 + (2 * window + 1) / (centred_over or total)), 0.01), float(total))
    error = tau * np.sqrt(2 * (2 * window + 1) / total)
    return Memory(tau, float(error), window, rho[: max(2, min(len(rho), 2 * window + 2))])


def _ringing(rho: Float[np.ndarray, " lags"], cut: int, total: int) -> int:
    """Where to cut instead if correlations swing back after Geyer's cut, as they do under momentum; 0 if they
    do not.

    They do where some |rho_k| lies beyond five of its errors, by Bartlett's formula. Their envelope is
    followed from there, as an exponential, down to half an error.
    """
    error = np.sqrt((2 * np.sum(rho[:cut] ** 2) + 1) / total)
    seen = np.flatnonzero(np.abs(rho[cut : 10 * cut + 40]) > 5 * error)
    if not len(seen) or error > 0.1:
        return 0
    last = cut + int(seen[-1])
    return min(len(rho) - 1, int(last * np.log(2 / error) / np.log(0.2 / error)))


def _coarse(deviations: Float[np.ndarray, "chains n"], variance: float, centred_over: int | None) -> Memory:
    """A long memory through the means of short blocks: var(x) tau is the same for both, at a fraction of the cost."""
    chains, n = deviations.shape
    blocks = deviations[:, : n // COARSE * COARSE].reshape(chains, -1, COARSE).mean(axis=2)
    memory = integrate(blocks - blocks.mean(), centred_over and max(1, centred_over // COARSE))
    ratio = float(np.mean((blocks - blocks.mean()) ** 2)) / variance
    tau, error = (min(COARSE * ratio * t, float(deviations.size)) for t in (memory.tau, memory.error))
    return Memory(tau, error, COARSE * memory.window, ratio * memory.rho, COARSE * memory.step)


def autocovariance(deviations: Float[np.ndarray, "chains n"], lags: int) -> Float[np.ndarray, " {lags}+1"]:
    """Mean lagged products by Fourier transforms of overlapping pieces: exact, with memory for a few pieces only."""
    chains, n = deviations.shape
    size = 1 << int(np.ceil(np.log2(min(n, max(4 * lags, 1 << 15)) + lags)))
    step = size - lags
    rows = max(1, (1 << 20) // size)
    spectrum = np.zeros(size // 2 + 1, complex)
    for row in range(0, chains, rows):
        for start in range(0, n, step):
            now = np.fft.rfft(deviations[row : row + rows, start : start + step], size)
            later = np.fft.rfft(deviations[row : row + rows, start : start + size], size)
            spectrum += (now.conj() * later).sum(axis=0)
    products = np.fft.irfft(spectrum, size)[: lags + 1]
    return products / (chains * (n - np.arange(lags + 1)))
