"""`Part`: one parameter, the part that each group has in its gradient, and its tables."""

from typing import Any

import torch
from torch import Tensor

from thalweg.knowledge._tallied import summed
from thalweg.knowledge.torch import _block as block
from thalweg.knowledge.torch._layers import wide
from thalweg.knowledge.torch._log import Log
from thalweg.knowledge.torch._rows import Parts
from thalweg.knowledge.torch._rules import Rule

SMALL = 2**17  # numbers of gradients by group


class Part:
    """A parameter's gradient by group, through a backward pass or several, and what its steps came to.

    Rows of `gradients`, `momenta` and tables are the groups, then "other". Rows of `gradients` that hold nothing yet
    are not in `filled`: they keep old numbers, and count as zero.
    """

    def __init__(
        self, name: str, parameter: Tensor, groups: int, kinds: tuple[str, ...], per: str, stride: int, transposed: bool
    ):
        self.name, self.parameter, self.groups, self.kinds, self.stride = name, parameter, groups, kinds, stride
        self.members: list[Part] = [self]
        self.per = per  # modules are summed over their parameters in the end
        self.transposed = transposed  # (inputs, units)
        self.units = 1 if transposed else 0  # the axis of units
        self.log: Log | None = None
        self._rows = False  # whether it keeps gradients by group, and not factors
        self.momenta: Tensor | None = None
        self.unseen = False  # whether some of its changes could not be compared with their parts
        self.fade = 1.0  # of the groups' momenta, over steps that were not tallied
        self.before: Tensor | None = None  # the parameter, where the step needs it
        self._gradients: Tensor | None = None
        self._room: Tensor | None = None  # for the momenta, if they have a place
        self.filled: set[int] = set()
        self.kept: dict[str, Tensor] = {}

    def open_tables(self, keeps: str) -> None:
        """Make the tables, and a log of steps that `keeps` them in a form of `kept_as`."""
        shape = tuple(summed(self._like(), self.per, 0, self.units).shape)
        like = self._like()
        self.kept = {kind: like.new_zeros((self.groups + 1, *shape)) for kind in self.kinds}
        self.log = Log(self.groups, like) if keeps else None
        self._rows = keeps == "rows"

    # --- Shapes ---

    def view(self, array: Tensor) -> Tensor:
        """The entries of an array, shaped as the parameter, that are tallied."""
        if self.stride == 1 or array.ndim < 2:
            return array
        return array[:: self.stride] if self.transposed else array[:, :: self.stride]

    @property
    def now(self) -> Tensor:
        """The parameter, as far as it is tallied."""
        return self.view(self.parameter.detach())

    def _like(self) -> Tensor:
        return self.now.to(wide(self.parameter))

    @property
    def shape(self) -> tuple[tuple[int, ...], int, int]:
        """(shape, axis of units, bytes of a number), as `bytes_of` takes it."""
        return tuple(self.now.shape), self.units, self._like().itemsize

    # --- The gradient by group ---

    @property
    def gradients(self) -> Tensor:
        """(G + 1, *shape)."""
        if self._gradients is None:
            self._gradients = self.zeros()
        return self._gradients

    def zeros(self) -> Tensor:
        like = self._like()
        return like.new_zeros((self.groups + 1, *like.shape))

    def start_momenta(self) -> Tensor:
        """The groups' momenta, zero where they begin."""
        if self.momenta is None:
            self.momenta = self.zeros() if self._room is None else self._room.zero_()
        return self.momenta

    def catch_up(self) -> None:
        """Let the groups' momenta fade by the steps that were not tallied."""
        if self.momenta is not None and self.fade != 1.0:
            self.momenta[:-1].mul_(self.fade)
            self.fade = 1.0

    def forget(self) -> None:
        """The pass that is going on, the steps that are kept, and the momenta."""
        self.momenta, self.fade = None, 1.0
        self.filled.clear()
        if self.log is not None:
            self.log = Log(self.groups, self.log.like)

    def begin(self, first: bool) -> None:
        """A backward pass comes to the parameter; `first` since its gradient was set to zero."""
        if first:
            self.filled.clear()
            if self.log is not None and not self._rows:
                self.log.open = []
        elif self.log is not None and self.log.crowded:
            self.spill()

    def add(self, group: Any, left: Tensor, right: Tensor | None, copies: bool) -> None:
        """Take what a layer found, in any of the forms of `_layers`; `copies`: whether it may be kept."""
        if self.log is None or self.log.open is None or right is None or not isinstance(group, Parts):
            self.spill()
            self._enter(group, left, right)
        elif copies:
            self.log.open.append((group, left, right))
        else:
            self.log.open.append((group, left.clone(), right.clone()))

    def spill(self) -> None:
        """Add up the factors kept of this pass."""
        if self.log is not None and self.log.open is not None:
            for factors in self.log.spill():
                self._enter(*factors)

    def _enter(self, group: Any, left: Tensor, right: Tensor | None = None) -> None:
        rows = self.gradients
        if isinstance(group, Parts):
            assert right is not None
            self._multiply(group, left.to(rows.dtype), right.to(rows.dtype))
        elif right is not None:
            self.settle()
            rows.view(-1, rows.shape[-1]).index_add_(0, left, right.to(rows.dtype))
        elif group is not None:
            rows[group].copy_(left) if group not in self.filled else rows[group].add_(left)
            self.filled.add(group)
        elif self.filled:
            self.settle()
            rows.add_(left.reshape(rows.shape))
        else:
            rows.copy_(left.reshape(rows.shape))
            self.filled.update(range(self.groups + 1))

    def _multiply(self, parts: Parts, left: Tensor, right: Tensor) -> None:
        rows = self.gradients
        where = parts.padding(left.device) if in_one_product(rows) else None
        if where is not None:  # one call for all groups
            here = range(parts[0][0], parts[-1][0] + 1)
            fresh = self.filled.isdisjoint(here)
            self.filled.update(here) if fresh else self.settle(here)
            lefts, rights = (_padded(array, where) for array in (left, right))
            mine = rows[here.start : here.stop]
            torch.baddbmm(mine, lefts.transpose(1, 2), rights, beta=0.0 if fresh else 1.0, out=mine)
            return
        for group, part in parts:
            torch.addmm(rows[group], left[part].T, right[part], beta=float(group in self.filled), out=rows[group])
            self.filled.add(group)

    def present(self) -> slice:
        """The rows from the first to the last that hold something; gaps are filled with zeros."""
        filled = self.filled or {0}
        first, last = min(filled), max(filled) + 1
        self.settle(range(first, last))
        return slice(first, last)

    def settle(self, rows: Any = None) -> None:
        """Zeros in the rows that hold nothing, all or some."""
        for row in set(range(self.groups + 1) if rows is None else rows) - self.filled:
            self.gradients[row] = 0
            self.filled.add(row)

    def total(self) -> Tensor:
        """The gradient of all groups."""
        return total(self.gradients[self.present()])

    def pair(self, mine: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The optimizer's gradient and the groups' sum: all entries, or random sums of them where factors are kept."""
        assert self.parameter.grad is not None
        gradient = self.view(self.parameter.grad)
        if self.log is not None and self.log.open is not None:
            return self.log.probe(gradient)
        mine = self.total() if mine is None else mine
        return gradient.to(mine.dtype), mine

    def keep_before(self) -> None:
        """The parameter as it is before a step."""
        now = self.now
        if self.before is None:
            self.before = now.clone()
        else:
            self.before.copy_(now)

    def drop_before(self) -> None:
        """A step that does not need the parameter as it was."""
        self.before = None

    @property
    def keeps_step(self) -> bool:
        """Whether the step to come can be kept."""
        return self.log is not None and (self._rows or self.log.open is not None)

    def keep_step(self, rule: Rule, factor: float, memory: bool, sharp: float) -> None:
        """Keep a step, to be added to the tables with others."""
        assert self.log is not None
        if memory:
            self.start_momenta()
            self.catch_up()
        before, rows = None, None
        if rule.decays:
            before, self.before = self.before, None
        if self._rows:
            self.settle()
            rows = self.gradients.clone()
        self.log.close(rule, factor, before, self.now, sharp, rows)

    def flush(self, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Add the steps of the log to the tables.

        Gives how far the parts are from the change, the largest sum of their sizes, and the largest change.
        """
        assert self.log is not None
        steps, change = self.log.take(self.now)
        self.unseen |= change is None
        add = block.add_rows if self._rows else block.add
        return add(steps, self.kept, self.momenta, change, self.now, eps, self.per, self.units)


def in_one_product(rows: Tensor) -> bool:
    """Whether the products of all groups are made in one call: on a GPU, and where they are small."""
    return rows.is_cuda or rows.numel() < SMALL


def total(rows: Tensor) -> Tensor:
    """The sum over the first axis, as a product, which reads the rows once."""
    return torch.mv(rows.reshape(len(rows), -1).T, rows.new_ones(len(rows))).reshape(rows.shape[1:])


def _padded(array: Tensor, where: Tensor) -> Tensor:
    extended = torch.cat([array, array.new_zeros(1, array.shape[1])])
    return extended.index_select(0, where.reshape(-1)).reshape(*where.shape, -1)
