"""The groups of a batch: which rows of an array belong to which group."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Parts(list[tuple[int, slice]]):
    """Each group that is present, and its rows."""

    _kept: Tensor | None = None

    def padding(self, device: torch.device) -> Tensor | None:
        """The numbers of each group's rows, from the first to the last group, filled up with that of one row more.

        `None` if most of it would be filling.
        """
        first, count, end = self[0][0], self[-1][0] + 1 - self[0][0], self[-1][1].stop
        most = max(part.stop - part.start for _, part in self)
        if most * count > 4 * end:
            return None
        if self._kept is None:
            where = np.full((count, most), end)
            for group, part in self:
                where[group - first, : part.stop - part.start] = np.arange(part.start, part.stop)
            self._kept = torch.from_numpy(where).to(device, non_blocking=True)
        return self._kept


MANY = 2**17  # numbers from which on sums by group are made as a product
FEW = 2**18  # entries up to which an indicator of groups by rows is multiplied with


class NoBatch(ValueError):
    """The rows of a layer are not those of the labels."""


class Rows:
    """Labels (batch,), or (batch, tokens), in 0..groups, where `groups` is none.

    They are sorted on the CPU, once for all layers, so that a GPU is not waited for in every layer.
    """

    def __init__(self, labels: Any, groups: int):
        try:
            given = torch.as_tensor(labels).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"labels must be whole numbers, the group of each datum, got {str(labels)[:80]!r}"
            ) from None
        if given.is_floating_point() or given.ndim not in (1, 2) or not given.numel() or given.dtype == torch.bool:
            raise TypeError(
                f"labels must be whole numbers of shape (batch,) or (batch, tokens), got {given.dtype} of shape "
                f"{tuple(given.shape)}"
            )
        host = given.cpu().numpy().astype(np.int64)
        least, most = int(host.min()), int(host.max())
        if least < -1 or most >= groups:
            raise ValueError(f"labels must be from 0 to {groups - 1}, or -1 for none, got from {least} to {most}")
        self.labels: np.ndarray = np.where(host < 0, groups, host)
        self.groups = groups
        self.visits = np.bincount(self.labels.reshape(-1), minlength=groups + 1)
        self.present: list[int] = np.flatnonzero(self.visits).tolist()
        self.met = False  # whether a layer has these rows
        self._kept: dict[Any, Any] = {}

    def of(self, array: Tensor, lead: int) -> Tensor:
        """The group of each row of an array, whose first `lead` axes are rows; checked to lead like the labels."""
        shape = self._check(array, lead)
        labels = self._once(("labels", array.device), lambda: torch.from_numpy(self.labels).to(array.device))
        return labels.reshape(*labels.shape, *[1] * (lead - labels.ndim)).expand(shape)

    def split(self, lead: int, *arrays: Tensor) -> Iterator[Any]:
        """(group, rows of each array) for each group present; arrays become (rows, ...)."""
        parts, *flat = self.sorted(lead, *arrays)
        for group, part in parts:
            yield group, *(array[part] for array in flat)

    def sorted(self, lead: int, *arrays: Tensor) -> Any:
        """The groups present with their rows, and the arrays as (rows, ...), sorted by group."""
        shape = self._check(arrays[0], lead)
        flat = [array.flatten(0, lead - 1) if lead > 1 else array for array in arrays]
        if len(self.present) == 1:
            return Parts([(self.present[0], slice(0, len(flat[0])))]), *flat
        order, parts = self._once((shape, arrays[0].device), lambda: self._order(shape, arrays[0].device))
        return parts, *(array.index_select(0, order) for array in flat)

    def sums(self, lead: int, array: Tensor, dtype: torch.dtype) -> Tensor:
        """The sum of each group's rows, (G + 1, ...)."""
        self._check(array, lead)
        own = self.labels.ndim
        array = array.sum(tuple(range(own, lead)), dtype=dtype) if lead > own else array.to(dtype)
        flat = array.flatten(0, own - 1) if own > 1 else array
        if not flat.is_cuda and flat.numel() >= MANY and (self.groups + 1) * len(flat) <= FEW:
            # As a product, which is quicker where there are many; on a GPU it might be rounded to TF32.
            found = self._once(("indicator", array.device, dtype), lambda: self._indicator(array.device, dtype))
            return (found @ flat.reshape(len(flat), -1)).reshape(-1, *flat.shape[1:])
        found = flat.new_zeros((self.groups + 1, *flat.shape[1:]))
        return found.index_add_(0, self.of(array, own).reshape(-1), flat)

    def alike(self, other: "Rows") -> bool:
        """Whether the labels are the same."""
        return self.labels.shape == other.labels.shape and np.array_equal(self.labels, other.labels)

    def _check(self, array: Tensor, lead: int) -> tuple[int, ...]:
        shape = tuple(array.shape[:lead])
        if self.labels.shape != shape[: self.labels.ndim]:
            raise NoBatch(
                f"labels must lead like the batch: got shape {self.labels.shape}, for a layer whose rows are {shape}"
            )
        return shape

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _order(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Parts]:
        inner = math.prod(shape[self.labels.ndim :])  # rows of one label
        order = np.argsort(self.labels.reshape(-1), kind="stable")
        if inner != 1:
            order = (order[:, None] * inner + np.arange(inner)).reshape(-1)
        ends = np.cumsum(self.visits * inner).tolist()
        parts = ((group, slice(ends[group - 1] if group else 0, ends[group])) for group in self.present)
        return torch.from_numpy(order).to(device), Parts(parts)

    def _indicator(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        flat = self.labels.reshape(-1)
        return torch.from_numpy(flat == np.arange(self.groups + 1)[:, None]).to(device, dtype)
