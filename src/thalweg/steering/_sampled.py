"""Optimizing strength from samples, for systems too large for a table: bias corrected, with error bars."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from thalweg._edge import check_function, is_whole, shown
from thalweg._results import Estimate, Status
from thalweg.stats._series import generator
from thalweg.steering._entropy import NATS_PER_BIT

MOST_SHUFFLES = 10**4
GROUPS = 20  # of the grouped jackknife that gives the errors
RARE = 0.1  # share of samples that fell on a state seen once, above which entropies are mostly guesses


class SampledStrength(NamedTuple):
    """The measures of `FiniteSystem` from samples, each an `Estimate` in bits."""

    optimizing_strength: Estimate
    adjusted_optimizing_strength: Estimate
    total_correlation: Estimate


def sampled_strength(
    step: Callable[[np.ndarray], Any], samples: Any, *, shuffles: int = 4, key: int = 0
) -> SampledStrength:
    """The measures of optimization of a system too large for a table, from samples of P.

    P' is sampled by shuffling each part among the samples. Entropies are corrected for their bias by the jackknife
    over samples (`n H - (n - 1) mean H_(-j)`, which removes the order 1/n); errors come from leaving out
    twentieths of the samples.

    **Arguments**

    - `step`: takes whole numbers of shape (n, parts), gives the next ones; drawn anew where it is random.
    - `samples`: draws of P, shape (n, parts), at least 40.
    - `shuffles`: how many times the samples are shuffled for P'. - `key`: seed.

    **Returns** a `SampledStrength`. Its estimates are `UNDEFINED` where more than a tenth of the samples
    fell on states seen once: the entropies are then mostly guesses, and more samples would help.

    >>> import numpy as np, thalweg as tw
    >>> bits = np.random.default_rng(0).integers(2, size=10_000)
    >>> forget = lambda s: np.stack([s[:, 0] ^ s[:, 1], 0 * s[:, 1]], axis=1)  # (a, b) -> (a xor b, 0)
    >>> found = tw.steering.sampled_strength(forget, np.stack([bits, bits], axis=1))
    >>> abs(float(found.optimizing_strength) - 1) < 0.001
    True
    """
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.dtype.kind not in "iu" or len(samples) < 2 * GROUPS or samples.shape[1] < 1:
        raise ValueError(
            f"samples must be whole numbers of shape (n, parts) with n >= {2 * GROUPS}, "
            f"got {samples.dtype} of shape {samples.shape}"
        )
    if not is_whole(shuffles) or not 1 <= shuffles <= MOST_SHUFFLES:
        raise ValueError(f"shuffles must be a whole number from 1 to {MOST_SHUFFLES}, got {shown(shuffles)}")
    check_function(step, "step", "states")
    draws = generator(key)
    n, parts = samples.shape
    mix = np.concatenate([draws.permuted(np.tile(np.arange(n)[:, None], parts), axis=0) for _ in range(shuffles)])
    mixed = np.take_along_axis(samples, mix, axis=0)
    rows = [samples, np.asarray(step(samples)), np.asarray(step(mixed))]
    for after, before in zip(rows[1:], (samples, mixed), strict=True):
        if after.shape != before.shape or after.dtype.kind not in "iu":
            raise ValueError(
                f"step must give next states as whole numbers of shape {before.shape}, got {after.dtype} of shape "
                f"{after.shape}"
            )
    value, rare = _measures(*rows)
    # A shuffled row goes with any of the samples that it was made of, so that the errors know how P' was made.
    group = draws.permutation(n) % GROUPS
    left_out = []
    for g in range(GROUPS):
        kept, kept_mixed = group != g, np.all(group[mix] != g, axis=1)
        left_out.append(_measures(samples[kept], rows[1][kept], rows[2][kept_mixed])[0])
    error = np.sqrt((GROUPS - 1) * np.var(left_out, axis=0))
    status = Status.UNDEFINED if rare > RARE else Status.OK
    why = f"{100 * rare:.0f}% of the samples fell on states seen once, so that the entropies are guesses: draw more"
    return SampledStrength(
        *(Estimate(float(v), float(e), status, {"why": why}) for v, e in zip(value, error, strict=True))
    )


def _measures(samples: np.ndarray, after: np.ndarray, after_mixed: np.ndarray) -> tuple[np.ndarray, float]:
    """Strength, adjusted strength and total correlation in bits, and the largest share of states seen once."""
    counts = [_counts(rows) for rows in (samples, after, after_mixed)]
    joint, next_joint, next_mixed = (_jackknifed(c) for c in counts)
    separate = sum(_jackknifed(_counts(samples[:, [k]])) for k in range(samples.shape[1]))
    strength, tc = next_mixed - next_joint, separate - joint
    rare = max(float(np.sum(c == 1) / np.sum(c)) for c in counts)
    return np.array([strength, strength - tc, tc]) / NATS_PER_BIT, rare


def _counts(rows: np.ndarray) -> np.ndarray:
    lowest = rows.min(axis=0)
    span = [int(s) for s in rows.max(axis=0) - lowest + 1]
    if np.prod(np.array(span, dtype=float)) < 2**62:
        rows = np.ravel_multi_index(tuple((rows - lowest).T), span)
        return np.unique(rows, return_counts=True)[1]
    return np.unique(rows, axis=0, return_counts=True)[1]


def _jackknifed(counts: np.ndarray) -> float:
    """The entropy of a sample in nats, corrected by leaving out every sample in turn."""
    n = counts.sum()

    def xlogx(x):
        return x * np.log(np.where(x > 0, x, 1.0))

    total = np.sum(xlogx(counts))
    plain = np.log(n) - total / n
    without = np.log(n - 1) - (total - xlogx(counts) + xlogx(counts - 1.0)) / (n - 1)
    return float(n * plain - (n - 1) * np.sum(counts / n * without))
