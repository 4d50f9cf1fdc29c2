"""Small sets of binary patterns whose best likelihood is known: bars and stripes, and the shifter."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from thalweg._edge import is_whole


class Patterns(NamedTuple):
    """Distinct patterns of zeros and ones, each as likely as any other.

    - `data`: (n, units). - `shape`: rows and columns of a picture of one. - `labels`: (n,), a class each.
    """

    data: Float[np.ndarray, "n units"]
    shape: tuple[int, int]
    labels: np.ndarray

    @property
    def best_log_likelihood(self) -> float:
        """`-ln n`: no law gives the patterns more, in nats a pattern."""
        return -math.log(len(self.data))


def bars_and_stripes(rows: int = 3, columns: int | None = None) -> Patterns:
    """Bars and stripes: pictures in which every row is one colour, or every column is.

    **Exact facts**: there are `2^rows + 2^columns - 2` distinct ones, since the two plain pictures are both; the best
    log-likelihood is minus the logarithm of that. (Papers that count the plain pictures twice have another bound.)

    **Arguments**: `rows`, and `columns` (as many as rows by default), each from 1 to 12. Labels: 0 for stripes (rows),
    1 for bars (columns), 2 for the two plain pictures.

    >>> import thalweg as tw
    >>> patterns = tw.systems.bars_and_stripes(3)
    >>> patterns.data.shape, round(patterns.best_log_likelihood, 4)
    ((14, 9), -2.6391)
    """
    columns = rows if columns is None else columns
    for name, value in (("rows", rows), ("columns", columns)):
        if not is_whole(value) or not 1 <= value <= 12:
            raise ValueError(f"{name} must be a whole number from 1 to 12, got {value!r}")
    stripes = np.repeat(_states(rows)[:, :, None], columns, axis=2).reshape(2**rows, -1)
    bars = np.repeat(_states(columns)[:, None, :], rows, axis=1).reshape(2**columns, -1)
    data = np.unique(np.concatenate([stripes, bars]), axis=0)
    pictures = data.reshape(-1, rows, columns)
    flat_rows = np.all(pictures == pictures[:, :, :1], axis=(1, 2))
    flat_columns = np.all(pictures == pictures[:, :1], axis=(1, 2))
    return Patterns(data, (int(rows), int(columns)), np.where(flat_rows & flat_columns, 2, np.where(flat_rows, 0, 1)))


def shifter(bits: int = 4) -> Patterns:
    """The shifter: a row of bits, the same row shifted by -1, 0 or +1 (cyclically), and which shift it was, one-hot.

    **Exact facts**: there are `3 * 2^bits` cases; the best log-likelihood is minus the logarithm of that, since the
    label keeps cases apart whose two rows agree. The label can be told from the rows unless a row looks the same when
    shifted.

    **Arguments**: `bits`, from 2 to 12. A case has `2 bits + 3` units; labels are 0, 1, 2 for -1, 0, +1.

    >>> import thalweg as tw
    >>> patterns = tw.systems.shifter(4)
    >>> patterns.data.shape, round(patterns.best_log_likelihood, 4)
    ((48, 11), -3.8712)
    """
    if not is_whole(bits) or not 2 <= bits <= 12:
        raise ValueError(f"bits must be a whole number from 2 to 12, got {bits!r}")
    first = _states(bits)
    cases = [
        np.concatenate([first, np.roll(first, shift, axis=1), np.tile(np.eye(3)[label], (len(first), 1))], axis=1)
        for label, shift in enumerate((-1, 0, 1))
    ]
    return Patterns(np.concatenate(cases), (1, 2 * bits + 3), np.repeat(np.arange(3), len(first)))


def _states(count: int) -> np.ndarray:
    return ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(float)
