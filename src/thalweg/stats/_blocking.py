"""Blocking: average neighbours in ever larger blocks until the blocks forget each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from thalweg._results import Estimate, Status
from thalweg.stats._series import as_chains, centred

MANY = 8  # chains from which the spread of their means is an error bar


@dataclass(frozen=True)
class Blocking:
    """The blocking curve: the error of the mean if blocks of each size were independent.

    - `block_sizes`: 1, 2, 4, ... (and the whole chain where there are 8 chains or more).
    - `errors`, `errors_of_errors`: the error of the mean at each block size, and how well it is known.
    - `blocks`: how many blocks of each size there are.
    - `plateau`: the index of the chosen block size, or None where the curve never levels off.
    """

    block_sizes: Int[np.ndarray, " levels"]
    errors: Float[np.ndarray, " levels"]
    errors_of_errors: Float[np.ndarray, " levels"]
    blocks: Int[np.ndarray, " levels"]
    plateau: int | None

    @property
    def block_size(self) -> int | None:
        """The block size of the plateau."""
        return None if self.plateau is None else int(self.block_sizes[self.plateau])

    @property
    def error(self) -> Estimate:
        """The error of the mean, with the error of that error; the largest on the curve where there is no plateau."""
        if self.plateau is None:
            top = int(np.argmax(self.errors))
            return Estimate(float(self.errors[top]), float(self.errors_of_errors[top]), Status.TOO_SHORT)
        return Estimate(float(self.errors[self.plateau]), float(self.errors_of_errors[self.plateau]))


def blocking(series: Any) -> Blocking:
    """The error of the mean of a correlated series from the spread of block means.

    ```
    error_B = sqrt(var(block means) / blocks),    known to error_B / sqrt(2 (blocks - 1))
    ```

    Small blocks are correlated and give too small an error. The chosen size is the smallest B with
    B^3 > 2 n (error_B / error_1)^4, where the bias that is left is smaller than the noise.

    **Arguments**

    - `series`: shape (n,) for one chain or (chains, n) for several; no block crosses two chains.

    **Returns** a `Blocking` with the curve, the plateau and `.error`, an `Estimate`. A constant series has
    error 0.

    **Raises** `ValueError` or `TypeError` for a series that is too short, not finite or not of numbers.

    **When not to trust it.** With fewer than 50 autocorrelation times there are too few blocks, and `plateau`
    is None or the error of the error is a quarter of the error. With an infinite variance the curve means
    nothing.

    **Source.** Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989); choice of the block size: Lee et al.,
    Phys. Rev. E 83, 066706 (2011).

    **Example**

    >>> import numpy as np, thalweg as tw
    >>> x = np.repeat(np.random.default_rng(0).normal(size=4096), 16)    # error of the mean 1/sqrt(4096) = 0.0156
    >>> curve = tw.stats.blocking(x)
    >>> round(float(curve.errors[0]), 4), round(curve.error.value, 2)
    (0.0039, 0.02)
    """
    chains = as_chains(series)
    _, scale, deviations = centred(chains)
    return curve(deviations, scale)


def curve(deviations: Float[np.ndarray, "chains n"], scale: float) -> Blocking:
    """The blocking curve of deviations in units of `scale`."""
    chains, n = deviations.shape
    rows = []
    means, size = deviations, 1
    while means.shape[1] >= 1 and means.size >= 4:
        rows.append((size, means.size, _error(means, size, deviations.size)))
        even = means.shape[1] // 2 * 2
        means, size = 0.5 * (means[:, 0:even:2] + means[:, 1:even:2]), 2 * size
    if chains >= MANY and rows[-1][0] != n:
        rows.append((n, chains, _error(deviations.mean(axis=1), n, deviations.size)))
    sizes, blocks, errors = (np.array(column) for column in zip(*rows, strict=True))
    return Blocking(
        block_sizes=sizes,
        errors=errors * scale,
        errors_of_errors=errors * scale / np.sqrt(2 * (blocks - 1)),
        blocks=blocks,
        plateau=_plateau(sizes, errors, n, deviations.size),
    )


def _error(means: np.ndarray, size: int, total: int) -> float:
    # Values left over by the halving still count in the mean, hence the total in the denominator.
    return float(np.sqrt(means.var(ddof=1) * size / total))


def _plateau(sizes: np.ndarray, errors: np.ndarray, n: int, total: int) -> int | None:
    if errors[0] == 0:
        return 0
    reached = sizes.astype(float) ** 3 > 2.0 * total * (errors / errors[0]) ** 4
    if reached.any():
        return int(np.argmax(reached))
    return len(sizes) - 1 if sizes[-1] == n and total >= MANY * n else None  # whole chains are independent
