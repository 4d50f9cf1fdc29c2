"""The whole answer for one series: mean, error by two methods that must agree, and whether to trust it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from thalweg._results import Estimate, Status
from thalweg.stats._autocorrelation import ENOUGH, Memory, integrate, longer
from thalweg.stats._blocking import Blocking, curve
from thalweg.stats._chains import agreement
from thalweg.stats._series import as_chains, as_weights, centred
from thalweg.stats._tails import Tails, heavy_tails, verdict


@dataclass(frozen=True)
class Analysis:
    """What a series says: its mean with an error bar, and everything that the error bar rests on.

    - `mean`: the `Estimate`; its `value`, `error`, `status`, `ok` and `message` are also here.
    - `standard_deviation`: of the values (weighted where there are weights).
    - `chains`, `n`: how many chains, and how long each is.
    - `autocorrelation_time`, `effective_sample_size`: `Estimate`s, in steps and in independent draws.
    - `autocorrelation`, `lags`: rho_k up to about where the sum was cut.
    - `blocking`: the curve, see `Blocking`.
    - `errors`: the error of the mean by "autocorrelation" and by "blocking".
    - `r_hat`: over the halves of all chains, see `tw.stats.r_hat`.
    - `heavy_tails`, `tails`: the verdict, and the fit behind it, see `Tails`.
    - `effective_fraction`: (sum w)^2 / (n sum w^2); 1 without weights.
    - `problems`: every status that applies, the most important first; `status` is the first of them.
    """

    mean: Estimate
    standard_deviation: float
    chains: int
    n: int
    autocorrelation_time: Estimate
    effective_sample_size: Estimate
    autocorrelation: Float[np.ndarray, " lags"]
    lags: Int[np.ndarray, " lags"]
    blocking: Blocking
    errors: dict[str, float]
    r_hat: float
    tails: Tails
    effective_fraction: float
    problems: tuple[Status, ...]

    @property
    def value(self) -> float:
        return float(self.mean.value)

    @property
    def error(self) -> float:
        return float(self.mean.error)

    @property
    def status(self) -> Status:
        return Status(self.mean.status)

    @property
    def ok(self) -> bool:
        return self.mean.ok

    @property
    def message(self) -> str:
        """Every problem in words, or that there is none."""
        return "; ".join(status.sentence(**self.mean.details) for status in self.problems or (Status.OK,))

    @property
    def heavy_tails(self) -> bool:
        return self.tails.heavy

    def summary(self) -> str:
        """The answer in a few lines, as `thalweg stats` prints it."""
        values = f"{self.n}" if self.chains == 1 else f"{self.chains} chains of {self.n}"
        tau = self.autocorrelation_time
        block = f" at block size {self.blocking.block_size}" if self.blocking.block_size else ", no plateau"
        lines = {
            "mean": str(Estimate(self.value, self.error)),
            "values": values,
            "standard deviation": f"{self.standard_deviation:.6g}",
            "autocorrelation time": f"{Estimate(tau.value, tau.error)} steps",
            "effective sample size": f"{self.effective_sample_size.value:.0f}",
            "error by its time": f"{self.errors['autocorrelation']:.3g}",
            "error by blocking": f"{self.errors['blocking']:.3g}{block}",
            "R-hat": f"{self.r_hat:.4f}",
            "tails": str(self.tails),
        }
        if self.effective_fraction < 1:
            lines["effective fraction"] = f"{self.effective_fraction:.3g} of the weighted values"
        sentences = [status.sentence(**self.mean.details) for status in self.problems or (Status.OK,)]
        text = [f"{name:<23}{line}" for name, line in lines.items()]
        return "\n".join([*text, *(f"{'status' if not i else '':<23}{s}" for i, s in enumerate(sentences))])

    def __str__(self) -> str:
        return self.summary()

    def to_xarray(self) -> Any:
        """The blocking curve and the autocorrelation function as an `xarray.Dataset`, the numbers as its attributes."""
        import xarray

        block = ("block_size",)
        return xarray.Dataset(
            {
                "blocking_error": (
                    block,
                    self.blocking.errors,
                    {"long_name": "error of the mean by blocking"},
                ),
                "blocking_error_error": (
                    block,
                    self.blocking.errors_of_errors,
                    {"long_name": "error of that error"},
                ),
                "blocks": (block, self.blocking.blocks, {"long_name": "number of blocks"}),
                "autocorrelation": (("lag",), self.autocorrelation, {"long_name": "autocorrelation"}),
            },
            coords={
                "block_size": (block, self.blocking.block_sizes, {"units": "steps"}),
                "lag": (("lag",), self.lags, {"units": "steps"}),
            },
            attrs={
                "mean": self.value,
                "error": self.error,
                "standard_deviation": self.standard_deviation,
                "chains": self.chains,
                "n": self.n,
                "autocorrelation_time": float(self.autocorrelation_time.value),
                "autocorrelation_time_error": float(self.autocorrelation_time.error),
                "effective_sample_size": float(self.effective_sample_size.value),
                "error_by_autocorrelation": self.errors["autocorrelation"],
                "error_by_blocking": self.errors["blocking"],
                "block_size": self.blocking.block_size or 0,
                "r_hat": self.r_hat,
                "tail_shape": float(self.tails.shape.value),
                "tail_shape_error": float(self.tails.shape.error),
                "heavy_tails": int(self.heavy_tails),
                "effective_fraction": self.effective_fraction,
                "status": int(self.status),
                "message": self.message,
            },
        )


def analyse(series: Any, weights: Any = None) -> Analysis:
    """The mean of any series with its error bar, and whether that error bar can be trusted.

    ```
    error = sqrt(var(x) tau / n)        tau: integrated autocorrelation time
    mean = sum(w x)/sum(w), from the series z = w (x - mean)/mean(w)    with weights
    ```

    The error is found twice, by the autocorrelation time and by blocking. Where the two agree, the first is
    given; where they do not, the larger with the status `ERRORS_DISAGREE`. With weights and independent draws
    the error is sqrt(sum w^2 (x - mean)^2)/sum w.

    **Arguments**

    - `series`: numbers of shape (n,) for one chain or (chains, n) for several: a list, NumPy, JAX or xarray.
    - `weights`: importance weights >= 0 of the same shape, up to a factor; default None: all equal.

    **Returns** an `Analysis`; print it. Its status is `OK`, or says why the error bar is not to be trusted:
    `CONSTANT`, `HEAVY_TAILS`, `CHAINS_DISAGREE`, `DRIFTS` (the two halves of one chain differ), `TOO_SHORT`
    (fewer than 50 autocorrelation times in all, or 5 in each chain), `FEW_WEIGHTS`, `ERRORS_DISAGREE`.

    **Raises** `ValueError` or `TypeError` for a series of fewer than 8 values, of a wrong shape, not finite,
    not of numbers; for weights that are negative, all zero or of another shape.

    **When not to trust it.** A chain that has not yet found the other places it would visit looks perfectly
    well. With 50 autocorrelation times the error bar itself is known to about 15%.

    **Source.** As in `autocorrelation_time`, `blocking`, `r_hat`, `heavy_tails`; weights: Owen, *Monte Carlo
    theory, methods and examples* (2013), section 9.2.

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> x = np.repeat(np.random.default_rng(0).normal(3.0, 1.0, size=10_000), 5)
    >>> result = tw.stats.analyse(x)                     # 10,000 independent draws: the error is 0.01
    >>> print(result.mean, round(result.autocorrelation_time.value), result.heavy_tails)
    3.006 ± 0.010 5 False
    """
    chains = as_chains(series)
    if weights is None:
        value, scale, deviations = centred(chains)
        fraction = 1.0
        unit_variance = None
    else:
        w = as_weights(weights, chains.shape)
        value, scale, deviations, unit_variance = _influence(chains, w)
        fraction = float(w.sum() ** 2 / (w.size * (w**2).sum()))
    if scale == 0:
        # One value with all of the weight looks constant too, but nothing is known about its error.
        lonely = weights is not None and np.count_nonzero(w) == 1
        return _constant(chains, value, fraction, lonely)

    memory = integrate(deviations)
    blocks = curve(deviations, scale)
    tails = verdict(chains if weights is None else deviations, memory.tau)
    largest_r_hat, disagree = agreement(deviations)
    total = deviations.size
    # The mean comes from the same data and takes tau/n of the variance with it.
    spread = float(np.mean(deviations**2)) / max(1 - memory.tau / total, 0.5)
    by_time = scale * float(np.sqrt(spread * memory.tau / total))
    by_blocks = float(blocks.error.value)
    variance = spread if unit_variance is None else unit_variance
    tau = memory.estimate(*chains.shape)
    ess = variance * total / (spread * memory.tau)

    details = {
        "factor": longer(memory.tau, *chains.shape),
        "r_hat": f"{largest_r_hat:.3f}",
        "why": f"{by_blocks:.3g} by blocking, {by_time:.3g} by autocorrelation time",
        "effective": f"{total * fraction / memory.tau:.0f}",
        "n": total,
    }
    problems = []
    if tails.heavy:
        problems.append(Status.HEAVY_TAILS)
    if disagree:
        problems.append(Status.DRIFTS if len(chains) == 1 else Status.CHAINS_DISAGREE)
    if not tau.ok:
        problems.append(Status.TOO_SHORT)
    elif total * fraction / memory.tau < ENOUGH:
        problems.append(Status.FEW_WEIGHTS)
    apart = not _agree(by_time, memory, blocks)
    if apart and Status.TOO_SHORT not in problems:
        problems.append(Status.ERRORS_DISAGREE)
    error = max(by_time, by_blocks) if apart else by_time
    return Analysis(
        mean=Estimate(value, error, problems[0] if problems else Status.OK, details),
        standard_deviation=scale * math.sqrt(variance),
        chains=chains.shape[0],
        n=chains.shape[1],
        autocorrelation_time=tau,
        effective_sample_size=Estimate(ess, ess * memory.error / memory.tau, tau.status, tau.details),
        autocorrelation=memory.rho,
        lags=memory.step * np.arange(len(memory.rho)),
        blocking=blocks,
        errors={"autocorrelation": by_time, "blocking": by_blocks},
        r_hat=largest_r_hat,
        tails=tails,
        effective_fraction=fraction,
        problems=tuple(problems),
    )


def mean(series: Any, weights: Any = None) -> Estimate:
    """The mean of a series with its error bar and status; `analyse` says what they rest on.

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several.
    - `weights`: importance weights >= 0 of the same shape; default None.

    **Returns** an `Estimate`. **Raises**, **when not to trust it** and **source**: as `analyse`.

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> print(tw.stats.mean(np.random.default_rng(0).normal(size=10_000)))
    0.006 ± 0.010
    """
    return analyse(series, weights).mean


def _influence(x: np.ndarray, w: np.ndarray) -> tuple[float, float, np.ndarray, float]:
    """The weighted mean, and the series whose plain mean has the same error as the weighted one (delta method)."""
    middle, scale, d = centred(x)
    total = w.sum()
    shift = float((w * d).sum() / total)
    d = d - shift
    value = middle + scale * shift
    influence = w * d / (total / w.size)
    largest = float(np.abs(influence).max())
    if largest == 0:
        return value, 0.0, d, 0.0
    variance = float((w * d**2).sum() / total)
    return value, scale * largest, influence / largest, variance / largest**2


def _agree(by_time: float, memory: Memory, blocks: Blocking) -> bool:
    """Whether the two errors agree within three of their own errors, and the few percent that blocking leaves out."""
    if blocks.plateau is None or by_time == 0 or blocks.error.value == 0:
        return False
    noise = math.hypot(blocks.error.error / blocks.error.value, 0.5 * memory.error / memory.tau)
    return abs(math.log(blocks.error.value / by_time)) <= min(3 * noise + 0.05, math.log(2))


def _constant(chains: np.ndarray, value: float, fraction: float, lonely: bool) -> Analysis:
    status, error = (Status.FEW_WEIGHTS, math.inf) if lonely else (Status.CONSTANT, 0.0)
    still = np.zeros_like(chains)
    return Analysis(
        mean=Estimate(value, error, status, {"effective": "1", "n": chains.size}),
        standard_deviation=0.0,
        chains=chains.shape[0],
        n=chains.shape[1],
        autocorrelation_time=Estimate(float(chains.size), 0.0, status),
        effective_sample_size=Estimate(1.0, 0.0, status),
        autocorrelation=np.ones(2),
        lags=np.arange(2),
        blocking=curve(still, 0.0),
        errors={"autocorrelation": error, "blocking": error},
        r_hat=1.0,
        tails=heavy_tails(still),
        effective_fraction=fraction,
        problems=(status,),
    )
