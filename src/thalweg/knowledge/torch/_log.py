"""Steps of a weight, kept as the factors of their gradients, to be added to the tallies several at a time.

A linear layer's gradient for a group is `D_g^T X_g`: what went in, and the gradient of what came out. So the factors of
a few steps are kept, with what the optimizer made of each step (`Rule`), and `_block` brings the tables up to date. The
gradients by group, (G + 1) times as large as the weight, are never made.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.knowledge.torch._rows import Parts
from thalweg.knowledge.torch._rules import Rule

LARGE = 2**14  # numbers of a weight matrix from which on factors are kept, and up to which gradients are
STEPS = 16  # that are kept
SPARE = 2**22  # numbers that may be kept however small the tables are

Factors = tuple[Parts, Tensor, Tensor]  # each group and its rows; its gradient is `left^T right`
Pieces = list[tuple[Tensor, Tensor]]  # `left^T` and `right`, whose products are to be summed


class Step(NamedTuple):
    """A step of the optimizer: what it made of the gradient, `factor` times the products of `pieces` by group.

    Of small parameters the gradients by group are kept themselves, as `rows`.
    """

    rule: Rule
    factor: float
    pieces: dict[int, Pieces]
    rows: Tensor | None
    before: Tensor | None  # the weight, where it decays
    steepest: float  # the largest entry of any gradient


class Log:
    """The factors of one weight: of the pass that is going on, and of the steps that are not yet in the tallies."""

    def __init__(self, groups: int, like: Tensor):
        self.groups, self.like = groups, like
        self.open: list[Factors] | None = None  # `None` where this pass's gradient is not all in factors
        self.steps: list[Step] = []
        self.start: Tensor | None = None  # the weight before these steps, or the last few of them;
        self._gone: Tensor | None = None  # how far it went in those before
        self._left: float | None = None  # a sum over the weight as the last step left it
        self._watched = self._lost = False  # whether others wrote to it once, and whether how far it went is lost so
        self._held = 0
        self._draws: torch.Generator | None = None

    def probe(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """A random sum over the first axis: of the optimizer's gradient, and of the factors' product.

        They agree where the two do, and are far quicker to make. A product that differs as much as it is large is
        overlooked with odds of about the tolerance (1e-9 in double precision), and in the next step again.
        """
        assert self.open is not None
        if self._draws is None:  # of its own, so that the user's random numbers stay as they were
            self._draws = torch.Generator(self.like.device).manual_seed(0)
        length, dtype = self.like.shape[0], self.like.dtype
        draw = torch.randn(length, dtype=dtype, device=self.like.device, generator=self._draws)
        mine = self.like.new_zeros(self.like.shape[1])
        for _, left, right in self.open:
            mine.addmv_(right.to(dtype).T, left.to(dtype) @ draw)
        return torch.mv(gradient.to(dtype).T, draw), mine

    def spill(self) -> list[Factors]:
        """The factors of this pass, to be added up at once; what is still to come in it is not kept."""
        found, self.open = self.open or [], None
        return found

    def prepare(self, weight: Tensor) -> None:
        """Before a step that may be kept. The weight is copied once for several steps, if nobody else writes to it."""
        if self.start is not None and self.steps:
            if float(weight.sum()) == self._left:
                return
            self._lost = self._watched = True
        self.start, self._left = weight.to(self.like.dtype, copy=True), None

    def pause(self, weight: Tensor) -> None:
        """Before something else happens to the weight: see how far it went."""
        if self.start is not None and self._left is not None:
            if float(weight.sum()) == self._left:
                change = weight - self.start
                self._gone = change if self._gone is None else self._gone.add_(change)
            else:
                self._lost = self._watched = True
        self.start = self._left = None

    def close(
        self,
        rule: Rule,
        factor: float,
        before: Tensor | None,
        after: Tensor,
        steepest: float,
        rows: Tensor | None = None,
    ) -> None:
        """Keep a step."""
        self._lost |= self.start is None  # nobody told of this step before it was made
        self._held += self._numbers() + after.numel() * ((rule.scale is not None) + rule.decays)
        self._held += 0 if rows is None else rows.numel()
        self.steps.append(Step(rule, factor, self._by_group(), rows, before, steepest))
        self._left = float(after.sum())
        if self._watched:
            self.pause(after)

    def lose(self) -> None:
        """A step was made that is not kept; if that was not foreseen, how far the weight went before is lost."""
        if self.start is not None:
            self._lost |= bool(self.steps)
            self._watched, self.start, self._left = True, None, None

    def take(self, weight: Tensor) -> tuple[list[Step], Tensor | None]:
        """The steps that were kept, and how far the weight went in them; `None` if that is not known."""
        self.pause(weight)
        steps, change = self.steps, None if self._lost else self._gone
        self.steps, self._gone, self._lost, self._held = [], None, False, 0
        return steps, change

    @property
    def crowded(self) -> bool:
        """Whether the factors of a gradient that is accumulated take more room than the gradient by group."""
        return self._numbers() > self._room

    @property
    def _room(self) -> int:
        return (self.groups + 1) * self.like.numel()

    def _numbers(self) -> int:
        return sum(left.numel() + right.numel() for _, left, right in self.open or ())

    def _by_group(self) -> dict[int, Pieces]:
        found: dict[int, Pieces] = {}
        for parts, left, right in self.open or ():
            left, right = left.to(self.like.dtype).T, right.to(self.like.dtype)
            for group, part in parts:
                found.setdefault(group, []).append((left[:, part], right[part]))
        return found


def kept_as(parameter: Tensor, parallel: bool) -> str:
    """How a parameter's steps are kept: as `"factors"`, as `"rows"`, the gradients by group, or not at all (`""`).

    A GPU divides each step at once: it has quick memory, and many small calls are slow there.
    """
    if parameter.is_cuda or parallel:
        return ""
    if parameter.numel() < LARGE:
        return "rows"
    return "factors" if parameter.ndim == 2 else ""


def full(logs: list[Log]) -> bool:
    """Whether steps should be added up before the next one: together they may take as much room as the tables."""
    count = max((len(log.steps) for log in logs), default=0)
    held, room = sum(log._held for log in logs), sum(log._room for log in logs)
    return count >= STEPS or held * (count + 1) > max(room, SPARE) * count
