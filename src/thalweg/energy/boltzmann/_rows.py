"""A user's file of data as rows that a Boltzmann machine can learn: two-valued or real."""

from typing import Any, NamedTuple

import numpy as np

from thalweg._edge import check_choice


class Rows(NamedTuple):
    """Data, a row a datum.

    - `values`: (n, units). - `binary`: whether they are zeros and ones. - `picture`: rows and columns of a picture of
      one datum, if it has any. - `note`: what was done to the file's numbers, in words; empty for nothing.
    """

    values: np.ndarray
    binary: bool
    picture: tuple[int, int] | None
    note: str


def read_rows(path: Any, dataset: str | None = None, kind: str = "auto", threshold: float | None = None) -> Rows:
    """Read data from an .npy, .npz, .csv, HDF5 or IDX file.

    **Arguments**

    - `path`, `dataset`: as for `thalweg stats`. An array of pictures (n, rows, columns) is flattened.
    - `kind`: `"binary"`, `"real"`, or `"auto"`: binary for zeros and ones, for bytes and for grey values in [0, 1].
    - `threshold`: where values become 1; by default half of the range (0.5, or 128 for bytes).

    **Raises** `ValueError` in one sentence for what is no data.
    """
    from thalweg._files import read_array

    check_choice(kind, "kind", ("auto", "binary", "real"))
    array = read_array(path, dataset)
    if array.dtype.names:
        array = np.stack([np.asarray(array[name], float) for name in array.dtype.names], axis=-1)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds values of type {array.dtype}, wanted real numbers: save them as floats")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{path} holds an array of shape {array.shape}, wanted (n, units), a row a datum")
    picture = array.shape[1:] if array.ndim == 3 else _square(int(np.prod(array.shape[1:])))
    is_bytes = array.dtype == np.uint8 and array.max() > 1
    values = array.reshape(len(array), -1).astype(float)
    if not np.all(np.isfinite(values)):
        row = int(np.flatnonzero(~np.all(np.isfinite(values), axis=1))[0])
        raise ValueError(f"{path} has NaN or infinity in row {row}: drop or fill such rows")
    sharp = np.all((values == 0) | (values == 1))
    grey = is_bytes or (values.min() >= 0 and values.max() <= 1)
    if kind == "real" or (kind == "auto" and not sharp and not grey and threshold is None):
        return Rows(values, False, picture, "")
    if sharp and threshold is None:
        return Rows(values, True, picture, "")
    if threshold is None and not grey:
        raise ValueError(
            f"{path} holds values from {values.min():.6g} to {values.max():.6g}, a binary machine wants zeros and ones:"
            " say where they become 1, with a threshold, or take a machine of real units"
        )
    threshold = (128.0 if is_bytes else 0.5) if threshold is None else float(threshold)
    if not values.min() < threshold <= values.max():
        raise ValueError(
            f"threshold must lie within the values of {path}, {values.min():.6g} to {values.max():.6g}, "
            f"got {threshold:g}"
        )
    return Rows((values >= threshold).astype(float), True, picture, f"values of at least {threshold:g} are taken as 1")


def _square(units: int) -> tuple[int, int] | None:
    side = round(units**0.5)
    return (side, side) if side * side == units and side >= 4 else None
