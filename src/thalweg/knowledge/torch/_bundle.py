"""`Bundle`: biases, gains and the like, laid side by side and divided as one parameter.

A network has many of them, each too small to keep a processor or a GPU busy; what they cost is the number of calls.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from thalweg.knowledge.torch._log import kept_as
from thalweg.knowledge.torch._part import Part


class Bundle(Part):
    """Vectors of one parameter group of the optimizer. Their gradients, momenta and tables are slices of its own."""

    def __init__(self, members: list[Part], momentum: bool, keeps: str):
        first = members[0]
        super().__init__("", first.parameter, first.groups, first.kinds, first.per, 1, False)
        self.members, self.sizes = members, [part.parameter.numel() for part in members]
        self.open_tables(keeps)
        self._room = self.zeros() if momentum else None
        for part, mine in zip(members, self._slices(self.gradients), strict=True):
            part._gradients = mine
        for part, mine in zip(members, self._slices(self._room) if momentum else [None] * len(members), strict=True):
            part._room = mine
        for kind, table in self.kept.items():
            for part, mine in zip(members, self._slices(table), strict=True):
                part.kept[kind] = mine

    def _slices(self, array: Any) -> Iterator[Tensor]:
        for part, mine in zip(self.members, array.split(self.sizes, -1), strict=True):
            yield mine.view(*array.shape[:-1], *part.parameter.shape)

    def view(self, array: Tensor) -> Tensor:
        return array

    @property
    def now(self) -> Tensor:
        return self.joined([part.parameter.detach() for part in self.members])

    def joined(self, arrays: list[Tensor]) -> Tensor:
        """The members' arrays side by side."""
        return torch.cat([array.reshape(-1) for array in arrays])

    def joined_state(self, states: list[dict[str, Any]]) -> "Joined":
        """What the optimizer keeps of the members, as of one parameter."""
        return Joined(self, states)

    def settle(self, rows: Any = None) -> None:
        for part in self.members:
            part.settle(rows)

    def present(self) -> slice:
        filled = set().union(*(part.filled for part in self.members)) or {0}
        first, last = min(filled), max(filled) + 1
        self.settle(range(first, last))
        return slice(first, last)

    def totals(self) -> dict[str, Tensor]:
        """Each member's gradient of all groups, by name."""
        return {part.name: mine for part, mine in zip(self.members, self._slices(self.total()), strict=True)}

    def start_momenta(self) -> Tensor:
        for part in self.members:
            part.start_momenta()
        assert self._room is not None
        self.momenta = self._room
        return self.momenta

    def catch_up(self) -> None:
        for part in self.members:
            part.catch_up()

    def keep_before(self) -> None:
        super().keep_before()
        for part, mine in zip(self.members, self._slices(self.before), strict=True):
            part.before = mine


class Joined(dict):
    """States of several parameters, of which an array is joined when it is asked for."""

    def __init__(self, bundle: Bundle, states: list[dict[str, Any]]):
        super().__init__(states[0])
        self._bundle, self._states = bundle, states

    def __getitem__(self, key: str) -> Any:
        found = [state[key] for state in self._states]
        return self._bundle.joined(found) if isinstance(found[0], Tensor) else found[0]


def bundles(
    optimizer: Any, parts: dict[str, Part], names: dict[int, str], momentum: bool, parallel: bool
) -> list[Bundle]:
    """Bundles of all vectors that may be divided together."""
    found = []
    for group in optimizer.param_groups:
        alike: dict[Any, list[Part]] = {}
        for p in group["params"]:
            part = parts.get(names.get(id(p), ""))
            if part is not None and p.ndim < 2 and part.per != "module":
                alike.setdefault((p.device, p.dtype), []).append(part)
        for members in alike.values():
            if len(members) > 1:
                found.append(Bundle(members, momentum, kept_as(members[0].parameter, parallel)))
    return found
