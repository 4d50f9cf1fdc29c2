"""Steps of a weight matrix, kept as the factors of their gradients and added to the tallies several at a time.

A linear layer's gradient for a group is `D_g^T X_g`: what went in, and the gradient of what came out. So the factors of
a few steps are kept, with what the optimizer made of each step (`Rule`), and then one tile of the weights after the
other is brought up to date for all of them. The tables and momenta, (G + 1) times as large as the weights, go through
memory once for these steps, and the gradients by group, as large as the tables, not at all.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.knowledge._tallied import summed
from thalweg.knowledge.torch._rows import Parts
from thalweg.knowledge.torch._rules import Rule

LARGE = 2**10  # numbers of a weight from which on this is worth it
STEPS = 8  # that are kept
TILE = 2**19  # numbers, of all steps, that are worked on at a time: they stay in the cache
PROBES = 4

Factors = tuple[Parts, Tensor, Tensor]  # each group and its rows; its gradient is `left^T right`
Pieces = list[tuple[Tensor, Tensor]]  # `left^T` and `right`, whose products are to be summed


class Step(NamedTuple):
    """A step of the optimizer: what it made of the gradient, `factor` times the products of `pieces` by group."""

    rule: Rule
    factor: float
    pieces: dict[int, Pieces]
    before: Tensor | None  # the weight, where it decays
    steepest: float  # the largest entry of any gradient


class Log:
    """The factors of one weight: of the pass that is going on, and of the steps that are not yet in the tallies."""

    def __init__(self, groups: int, like: Tensor, per: str = "parameter", units: int = 0):
        self.groups, self.like, self.per, self.units = groups, like, per, units
        self.open: list[Factors] | None = None  # `None` where this pass's gradient is not all in factors
        self.steps: list[Step] = []
        self.change: Tensor | None = None  # of the weight over these steps
        self.far = 0.0  # the sum over these steps of the largest change of any parameter
        self._held = 0
        self._draws: torch.Generator | None = None

    def probe(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Random sums over the first axis: of the optimizer's gradient, and of the factors' product.

        They agree where the two do, and are far quicker to make. A product that differs is overlooked with odds of
        about 1e-10, and in the next step again.
        """
        assert self.open is not None
        if self._draws is None:  # of its own, so that the user's random numbers stay as they were
            self._draws = torch.Generator(self.like.device).manual_seed(0)
        shape, dtype = (PROBES, self.like.shape[0]), self.like.dtype
        draws = torch.randn(shape, dtype=dtype, device=self.like.device, generator=self._draws)
        draws /= shape[1] ** 0.5
        mine = self.like.new_zeros(PROBES, self.like.shape[1])
        for _, left, right in self.open:
            mine.addmm_(draws @ left.to(dtype).T, right.to(dtype))
        return draws @ gradient.to(dtype), mine

    def spill(self) -> list[Factors]:
        """The factors of this pass, to be added up at once; what is still to come in it is not kept."""
        found, self.open = self.open or [], None
        return found

    def close(self, rule: Rule, factor: float, before: Tensor, after: Tensor, steepest: float) -> Tensor:
        """Keep a step. Gives the largest change of an entry."""
        assert self.open is not None
        self._held += self._numbers()
        self._held += before.numel() * ((rule.scale is not None) + rule.decays)
        self.steps.append(Step(rule, factor, self._by_group(), before if rule.decays else None, steepest))
        change = after - before
        least, most = change.aminmax()
        self.change = change if self.change is None else self.change.add_(change)
        return torch.maximum(-least, most)

    @property
    def full(self) -> bool:
        """Whether the steps should be added up before the next one: they may take as much room as a table."""
        return len(self.steps) >= STEPS or self._held * (1 + 1 / max(1, len(self.steps))) > self._room

    @property
    def crowded(self) -> bool:
        """Whether the factors of a gradient that is accumulated take more room than the gradient by group."""
        return self._numbers() > self._room

    @property
    def _room(self) -> int:
        return (self.groups + 1) * self.like.numel()

    def _numbers(self) -> int:
        return sum(left.numel() + right.numel() for _, left, right in self.open or ())

    def add_to(self, kept: dict[str, Tensor], momenta: Tensor | None, after: Tensor, eps: float) -> tuple[Tensor, ...]:
        """Add the steps to the tables of each kind. Gives their conservation, and how much their parts cancel.

        `eps` is the rounding of the gradients.
        """
        assert self.change is not None
        length, width = self.like.shape
        tiles = -(-length * width * len(self.steps) // TILE)
        tile = -(-length // tiles)
        room = self.like.new_empty(len(self.steps), tile, width)
        sums = self.like.new_empty(4, tile, width)
        fine = torch.finfo(self.like.dtype).eps
        off, largest = [], []
        for first in range(0, length, tile):
            at = slice(first, min(first + tile, length))
            total, size, signed, moved = (one[: at.stop - first] for one in sums)
            total.zero_()
            size.zero_()
            for group in self._moving(momenta):
                steps, weights = self._parts(room, group, at, None if momenta is None else momenta[group, at])
                if not weights:
                    continue
                scales = room.new_tensor([weights])
                flat = steps.view(len(weights), -1)
                torch.mm(scales, flat, out=signed.view(1, -1))
                torch.mm(scales.abs_(), flat.abs_(), out=moved.view(1, -1))
                total += signed
                size += moved
                for kind, part in (("signed", signed), ("absolute", moved)):
                    if kind in kept:
                        self._enter(kept[kind][group], part, at)
            # The change is known to the rounding of the weight in each step, a gradient to that of the largest.
            known = fine * len(self.steps) * (after[at].abs() + self.change[at].abs())
            off.append(unexplained(self.change[at] - total, size, known, self._sharp(at), eps))
            largest.append(size.max())
        cancelling = torch.stack(largest).max() / self.far if self.far else self.like.new_ones(())
        self.steps, self.change, self.far, self._held = [], None, 0.0, 0
        return torch.stack(off).max(), cancelling

    def _by_group(self) -> dict[int, Pieces]:
        found: dict[int, Pieces] = {}
        for parts, left, right in self.open or ():
            left, right = left.to(self.like.dtype).T, right.to(self.like.dtype)
            for group, part in parts:
                found.setdefault(group, []).append((left[:, part], right[part]))
        return found

    def _moving(self, momenta: Tensor | None) -> list[int]:
        """The groups that a step may have moved: with momentum all."""
        if momenta is not None:
            return [*range(self.groups + 1)]
        decays = {self.groups} if any(step.rule.decays for step in self.steps) else set()
        return sorted(decays.union(*(step.pieces for step in self.steps)))

    def _parts(self, room: Tensor, group: int, at: slice, momentum: Tensor | None) -> tuple[Tensor, list[float]]:
        """A group's part of each step in a tile, and the number it is still to be multiplied with."""
        weights: list[float] = []
        for rule, factor, pieces, before, _ in self.steps:
            one = room[len(weights), : at.stop - at.start]
            mine, decays = pieces.get(group, []), group == self.groups and rule.decays
            if momentum is None and not mine and not decays:
                continue
            sign = factor * rule.sign
            if momentum is None or rule.direct:
                _product(one, mine, at, 0.0, sign)
                if before is not None and decays and rule.pull:
                    one.add_(before[at], alpha=rule.pull)
                weight = rule.direct
                if momentum is not None:
                    momentum.mul_(rule.decay).add_(one, alpha=rule.intake)
                    one.add_(momentum, alpha=rule.lead / rule.direct)
                if rule.scale is not None:
                    one.mul_(rule.scale[at])
            else:
                _product(momentum, mine, at, rule.decay, sign * rule.intake)
                if before is not None and decays and rule.pull:
                    momentum.add_(before[at], alpha=rule.pull * rule.intake)
                weight = rule.lead
                one.copy_(momentum) if rule.scale is None else torch.mul(momentum, rule.scale[at], out=one)
            if before is not None and decays and rule.rest and weight:
                one.add_(before[at], alpha=rule.rest / weight)
            weights.append(weight)
        return room[: len(weights), : at.stop - at.start], weights

    def _enter(self, table: Tensor, part: Tensor, at: slice) -> None:
        """Add what moved in a tile to a group's table."""
        by_row = self.per == "parameter" or (self.per == "unit" and self.units == 0)
        part = summed(part, self.per, 0, self.units)
        if by_row:
            table[at] += part
        else:
            table += part

    def _sharp(self, at: slice) -> float | Tensor:
        """The largest gradient of each step, times how far it would move an entry."""
        total: float | Tensor = 0.0
        for rule, _, _, _, steepest in self.steps:
            reach = rule.reach * steepest
            total = total + (reach if rule.scale is None else rule.scale[at] * reach)
        return total


def _product(out: Tensor, pieces: Pieces, at: slice, beta: float, alpha: float) -> None:
    """`out = beta out + alpha (sum of products)`, of a tile."""
    if not pieces:
        out.mul_(beta) if beta else out.zero_()
    for left, right in pieces:
        torch.addmm(out, left[at], right, beta=beta, alpha=alpha, out=out)
        beta = 1.0


def unexplained(off: Tensor, size: Tensor, known: Tensor, sharp: float | Tensor, eps: float) -> Tensor:
    """How far changes are from the sum of their parts, of the parts' size: at most, beyond what rounding allows.

    The changes are `known` so well; a gradient, to the rounding of the largest in the backward pass.
    """
    off = off.abs_().sub_(known).sub_((size.max() + sharp) * eps).clamp_(min=0)
    return torch.where(off == 0, off, off / size).max()
