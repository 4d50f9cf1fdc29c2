"""The permutation test: how often chance alone would give as large an effect."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from thalweg._results import Estimate, Status
from thalweg.stats._series import as_chains, as_count, generator

CHUNK = 1 << 20  # numbers permuted at once


def permutation_test(
    x: Any,
    y: Any,
    statistic: str | Callable[[np.ndarray, np.ndarray], Any] = "difference",
    *,
    key: Any,
    permutations: int = 9999,
    alternative: str = "two-sided",
    paired: bool | None = None,
) -> Estimate:
    """The probability that chance alone gives an effect as large as the one seen.

    ```
    p = (1 + #{|s'| >= |s|}) / (1 + permutations)
    ```

    s is the statistic of the data, s' that of shuffled data: for "difference" the values change groups, for
    "correlation" y is shuffled against x.

    **Arguments**

    - `x`, `y`: numbers, each of shape (n,); of equal length where they are paired. At least 2 values each.
    - `statistic`: "difference" (of the means, mean(x) - mean(y)), "correlation" (Pearson's), or a function of
      (x, y).
    - `key`: an integer, a JAX key or a NumPy Generator.
    - `permutations`: default 9999.
    - `alternative`: "two-sided" (default), "greater" or "less".
    - `paired`: for a function: whether y is shuffled against x (True) or values change groups (False,
      default).

    **Returns** an `Estimate` of p with its sampling error; `details` holds `statistic`, `null_mean`,
    `null_sd`, `z`. The status is `UNDEFINED` (with p = 1) where the statistic is the same for every shuffle.

    **Raises** `ValueError` or `TypeError` for bad arguments, and where a function gives something that is not
    a finite number.

    **When not to trust it.** Values that are correlated along the series are not exchangeable: p is then too
    small. Keep one value in every few autocorrelation times. For "difference", groups of unequal spread and
    size are also called different.

    **Source.** Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 39 (2010).

    **Example**

    >>> import thalweg as tw
    >>> p = tw.stats.permutation_test([1, 2, 3, 4], [5, 6, 7, 8], key=0)    # 2 of 70 ways to share out
    >>> bool(abs(p.value - 2 / 70) < 3 * p.error)
    True
    """
    x = as_chains(x, "x", shortest=2)
    y = as_chains(y, "y", shortest=2)
    if x.shape[0] != 1 or y.shape[0] != 1:
        raise ValueError(f"x and y must have shape (n,), got {x.shape} and {y.shape}: pass x.ravel(), y.ravel()")
    x, y = x[0], y[0]
    permutations = as_count(permutations, "permutations", 1)
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative must be 'two-sided', 'greater' or 'less', got {alternative!r}: pass 'two-sided'")
    paired = _is_paired(statistic, paired)
    if paired and len(x) != len(y):
        raise ValueError(f"y must be as long as x where they are paired, {len(x)}, got {len(y)}: pass one y for each x")
    rng = generator(key)

    if callable(statistic):
        seen, null = _by_function(statistic, x, y, permutations, paired, rng)
    else:
        seen, null = _by_product(*(_pairs(x, y) if paired else _groups(x, y)), permutations, rng)
    spread = float(null.std())
    scale = max(abs(seen), float(np.abs(null).max()))
    details: dict[str, Any] = {
        "statistic": seen,
        "null_mean": float(null.mean()),
        "null_sd": spread,
        "permutations": permutations,
    }
    if spread <= 1e-12 * scale or scale == 0:
        details.update(z=0.0, why="the statistic is the same for every shuffle")
        return Estimate(1.0, 0.0, Status.UNDEFINED, details)
    details["z"] = (seen - details["null_mean"]) / spread
    # Equal sums added up in another order differ by rounding; they count as equal.
    slack = 1e-10 * scale
    beyond = {
        "two-sided": np.abs(null) >= abs(seen) - slack,
        "greater": null >= seen - slack,
        "less": null <= seen + slack,
    }[alternative]
    p = (1 + int(beyond.sum())) / (1 + permutations)
    return Estimate(p, float(np.sqrt(p * (1 - p) / permutations)), Status.OK, details)


def _is_paired(statistic: Any, paired: bool | None) -> bool:
    fixed = {"difference": False, "correlation": True}
    if callable(statistic):
        return bool(paired)
    if not isinstance(statistic, str) or statistic not in fixed:
        raise ValueError(
            f"statistic must be 'difference', 'correlation' or a function, got {statistic!r}: pass 'difference'"
        )
    if paired is not None and bool(paired) != fixed[statistic]:
        raise ValueError(
            f"paired must be {fixed[statistic]} for {statistic!r}, got {paired}: leave it out, or pass a function"
        )
    return fixed[statistic]


def _groups(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])
    values = np.concatenate([x, y])
    return share, values - values.mean()


def _pairs(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def unit(v: np.ndarray) -> np.ndarray:
        v = v - v.mean()
        norm = np.linalg.norm(v)
        return v / norm if norm > 0 else v

    return unit(x), unit(y)


def _by_product(
    share: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    permutations: int,
    rng: np.random.Generator,
) -> tuple[float, np.ndarray]:
    """Both named statistics are a product share . values, so that all shuffles are one matrix product."""
    rows = max(1, CHUNK // len(values))
    null = [
        rng.permuted(np.tile(values, (min(rows, permutations - done), 1)), axis=1) @ share
        for done in range(0, permutations, rows)
    ]
    return float(share @ values), np.concatenate(null)


def _by_function(
    statistic: Callable,
    x: np.ndarray,
    y: np.ndarray,
    permutations: int,
    paired: bool,
    rng: np.random.Generator,
) -> tuple[float, np.ndarray]:
    def shuffled() -> Any:
        if paired:
            return statistic(x, rng.permutation(y))
        both = rng.permutation(np.concatenate([x, y]))
        return statistic(both[: len(x)], both[len(x) :])

    found = [statistic(x, y), *(shuffled() for _ in range(permutations))]
    try:
        numbers = np.array(found, dtype=float)
    except (TypeError, ValueError):
        raise TypeError("statistic must give one number, got something else: return a float") from None
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError("statistic must give one finite number for every shuffle: guard empty or constant groups")
    return float(numbers[0]), numbers[1:]
