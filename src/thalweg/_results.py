"""What comes back: a status code with its sentence, and a number with its error bar."""

import enum
import math
from typing import Any

import equinox as eqx
import numpy as np

from thalweg._precision import use_float64

use_float64()


class Status(enum.IntEnum):
    """Whether a result can be trusted, and if not, why.

    A status travels as an integer, also through compiled code; `sentence` turns it into words.

    **Example**

    >>> from thalweg import Status
    >>> Status.OK.sentence()
    'the result can be trusted'
    """

    OK = 0
    STOPPED = 1
    INTERRUPTED = 2
    NOT_FINITE = 3
    NOT_ARRIVED = 4
    TOO_SHORT = 5
    HEAVY_TAILS = 6
    NO_RESPONSE = 7
    NOT_CONVERGED = 8
    LEAKS = 9
    UNDEFINED = 10
    CHAINS_DISAGREE = 11
    ERRORS_DISAGREE = 12
    CONSTANT = 13
    ILL_CONDITIONED = 14
    DRIFTS = 15
    FEW_WEIGHTS = 16
    MODEL_DIFFERS = 17
    POOR_SCORE = 18
    PATHS_DISAGREE = 19
    FEW_LEARNED = 30
    NO_CUSP = 40
    BELOW_EXACT = 41
    STUCK = 42
    TOO_ROUGH = 43

    def sentence(self, **details: Any) -> str:
        """The status in words; `details` fill in the numbers that the sentence names."""
        return _SENTENCES[self].format_map(_Blank({"quantity": "the state", "after": ""} | details))


class _Blank(dict):
    """A detail that is not known leaves three dots in the sentence."""

    def __missing__(self, key: str) -> str:
        return "..."


_SENTENCES = {
    Status.OK: "the result can be trusted",
    Status.STOPPED: "stopped by on_chunk at step {step}; the result holds what was done until then",
    Status.INTERRUPTED: "interrupted at step {step}; the result holds what was done until then",
    Status.NOT_FINITE: ("{quantity} is not finite (NaN or infinity){after}: try a smaller step size or learning rate"),
    Status.NOT_ARRIVED: "{missing} of {members} members had not arrived by the last step: run longer",
    Status.TOO_SHORT: "series shorter than 50 autocorrelation times: run {factor}x longer",
    Status.HEAVY_TAILS: "the tails are so heavy that the variance seems infinite: the error bar means nothing",
    Status.NO_RESPONSE: "the perturbation does not reach what is read: the response is exactly zero",
    Status.NOT_CONVERGED: "no convergence within {iterations} iterations: allow more, or relax the tolerance",
    Status.LEAKS: "{mass} leaves the grid: make the grid larger",
    Status.UNDEFINED: "undefined: {why}",
    Status.CHAINS_DISAGREE: "the chains disagree (R-hat {r_hat}): run longer, or start them elsewhere",
    Status.ERRORS_DISAGREE: "blocking and autocorrelation time disagree on the error ({why}): the larger is given",
    Status.CONSTANT: "the series is constant: its error is zero only if that is what was meant",
    Status.ILL_CONDITIONED: "the answer is lost to rounding (condition {condition}): {why}",
    Status.MODEL_DIFFERS: "the diffusion is off by a relative {distance}: trust the transfer operator in its place",
    Status.DRIFTS: "the two halves of the series disagree (R-hat {r_hat}): drop the start, or run longer",
    Status.FEW_WEIGHTS: "few values carry the weight ({effective} of {n}): bring the samples nearer to the target",
    Status.POOR_SCORE: "the score is a poor guide to the event ({why}): try another score, or more paths",
    Status.PATHS_DISAGREE: (
        "two ways to one number disagree ({why}): a mode is missed; allow more steps, or start from another base"
    ),
    Status.NO_CUSP: (
        "the variance of the local energy diverges where two particles meet: add a cusp (jastrow=True); the error bar "
        "means nothing"
    ),
    Status.BELOW_EXACT: "{errors} errors below the exact energy {exact}, which cannot be: the error bar is wrong",
    Status.STUCK: "{acceptance} of the moves are accepted, so that walkers go nowhere: start them elsewhere",
    Status.TOO_ROUGH: "the error {error} is above the wanted {tol}: allow {more}x more records, or a better state",
    Status.FEW_LEARNED: "{failed} of {runs} runs did not learn: they are left out of the mean",
}


class Estimate(eqx.Module):
    """A number (or an array of numbers) with its error bar.

    **Arguments**

    - `value`: the estimate.
    - `error`: one standard error, of the shape of `value`; 0 for an exact answer.
    - `status`: a `Status` code.
    - `details`: whatever else is known, by name.

    **Example**

    >>> from thalweg import Estimate
    >>> print(Estimate(20.1773, 0.0015))
    20.1773 ± 0.0015
    >>> Estimate(20.1773, 0.0015).short()
    '20.1773(15)'
    """

    value: Any
    error: Any
    status: Any = Status.OK
    details: dict[str, Any] = eqx.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the status is `Status.OK` (for every entry of an array)."""
        return bool(np.all(np.asarray(self.status) == Status.OK))

    @property
    def message(self) -> str:
        """The worst status in words."""
        return Status(int(np.max(np.asarray(self.status)))).sentence(**self.details)

    def checked(self) -> "Estimate":
        """This estimate, or a `RuntimeError` with the status in words if it cannot be trusted."""
        if not self.ok:
            raise RuntimeError(self.message)
        return self

    def short(self) -> str:
        """The value with its error in the last digits, as tables print it: `20.1773(15)`."""
        value, error = float(self.value), float(self.error)
        if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
            return f"{value:.6g}"
        if error < 1e-15 * abs(value):
            return f"{value:.15g}"
        return _parentheses(value, error)

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        value, error = np.asarray(self.value), np.asarray(self.error)
        if value.ndim:
            text = f"{value} ± {error}"
        elif 0 < error < 1e-15 * abs(value):  # below what a double can tell
            text = f"{value:.15g} ± {error:.2g}"
        elif error > 0 and np.isfinite(error):
            digits = max(0, 1 - math.floor(math.log10(error)))
            plain = (1e-4 <= abs(value) < 1e6 or digits < 12) and max(abs(value), error) < 1e12
            text = f"{value:.{digits}f} ± {error:.{digits}f}" if plain else f"{value:.6g} ± {error:.2g}"
        else:
            text = f"{value:.6g} ± {error:.2g}"
        return text if self.ok else f"{text} [{self.message}]"


def _parentheses(value: float, error: float) -> str:
    digits = 1 - math.floor(math.log10(error))
    last = round(error * 10.0**digits)
    if last == 100:  # 0.0996 rounds up to one digit more
        digits, last = digits - 1, 10
    if digits <= 0:
        return f"{round(value, digits):.0f}({round(error, digits):.0f})"
    return f"{value:.{digits}f}({last})"
