"""Steps of plain descent, kept as the factors of their gradients and added to the tallies several at a time.

A linear layer's gradient for a group is `D_g^T X_g`: what went in, and the gradient of what came out. Where a step is
the gradient times a number, nothing else is needed. So the factors of a few steps are kept, and then one tile of the
weights after the other is brought up to date for all of them. The tables, (G + 1) times as large as the weights, go
through memory once for these steps, and the gradients by group, as large as the tables, not at all.
"""

import math

import torch
from torch import Tensor

LARGE = 2**12  # numbers of a weight from which on this is worth it
STEPS = 8  # that are kept
MOST = 0.5  # of the bytes of the table, that the factors may take
TILE = 2**15  # numbers of a tile, which stay in the cache with what is added to them

Factors = tuple[list[tuple[int, slice]], Tensor, Tensor]  # each group and its rows; its gradient is `left^T right`


class Log:
    """The factors of one weight: of the pass that is going on, and of the steps that are not yet in the tallies."""

    def __init__(self, shape: tuple[int, ...], groups: int, like: Tensor):
        self.shape, self.groups, self.like = shape, groups, like
        self.open: list[Factors] | None = None  # `None` where this pass's gradient is not all in factors
        self.steps: list[tuple[float, list[Factors]]] = []
        self.change: Tensor | None = None  # of the weight over these steps
        self.far = 0.0  # the sum over these steps of the largest change of any parameter
        self.sharp = 0.0  # and of the largest entry of any gradient, times the rate
        self._held = 0
        self._draws: torch.Generator | None = None

    def probe(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Random sums over the inputs of each unit: of the optimizer's gradient, and of the factors' product.

        They agree where the two do, and are far quicker to make. A product that differs is overlooked with odds of
        about 1e-10, and in the next step again.
        """
        assert self.open is not None
        shape, device = (self.shape[1], 4), self.like.device
        if self._draws is None:  # of its own, so that the user's random numbers stay as they were
            self._draws = torch.Generator(device).manual_seed(0)
        draws = torch.randn(shape, dtype=self.like.dtype, device=device, generator=self._draws) / 2
        mine = self.like.new_zeros(self.shape[0], 4)
        for _, left, right in self.open:
            mine.addmm_(left.to(mine.dtype).T, right.to(mine.dtype) @ draws)
        return gradient.to(mine.dtype) @ draws, mine

    def spill(self) -> list[Factors]:
        """The factors of this pass, to be added up at once; what is still to come in it is not kept."""
        found, self.open = self.open or [], None
        return found

    def close(self, scale: float, before: Tensor, after: Tensor, sharp: float) -> Tensor:
        """Keep a step that is the gradient times `scale`. Gives the largest change of an entry."""
        assert self.open is not None
        self.steps.append((scale, self.open))
        self._held += sum(left.numel() + right.numel() for _, left, right in self.open)
        change = after - before
        least, most = change.aminmax()
        self.change = change if self.change is None else self.change.add_(change)
        self.sharp += sharp
        return torch.maximum(-least, most)

    @property
    def full(self) -> bool:
        """Whether the steps should be added up before the next one."""
        room = MOST * (self.groups + 1) * math.prod(self.shape)
        return len(self.steps) >= STEPS or self._held * (1 + 1 / len(self.steps)) > room

    def add_to(self, kept: dict[str, Tensor], after: Tensor) -> tuple[float, float]:
        """Add the steps to the tables of each kind. Gives their conservation, and how much their parts cancel."""
        assert self.change is not None
        by_group = self._by_group()
        off, largest = 0.0, 0.0
        units, inputs = self.shape
        tile = max(1, TILE // inputs)
        room = self.like.new_empty(4, min(tile, units), inputs)
        eps = torch.finfo(self.like.dtype).eps
        for first in range(0, units, tile):
            at = slice(first, min(first + tile, units))
            one, total, size, moved = room[:, : at.stop - first]
            total.zero_()
            size.zero_()
            for group, steps in by_group.items():
                moved.zero_()
                went = kept["signed"][group, at] if "signed" in kept else None
                for pieces in steps:
                    for i, (scale, left, right) in enumerate(pieces):
                        torch.addmm(one, left[at], right, beta=float(i > 0), alpha=scale, out=one)
                    total += one
                    if went is not None:
                        went += one
                    moved += one.abs_()
                size += moved
                if "absolute" in kept:
                    kept["absolute"][group, at] += moved
            error = (self.change[at] - total).abs_()
            # The change is known to the rounding of the weight in each step, a gradient to that of the largest.
            known = torch.add(size, after[at].abs()).mul_(2 * eps * len(self.steps)).add_(eps * self.sharp)
            error.sub_(known)
            if float(error.max()) > 0:
                off = max(off, float(torch.where(error <= 0, 0, error / size).max()))
            largest = max(largest, float(size.max()))
        cancelling = largest / self.far if self.far > 0 else 1.0
        self.steps, self.change, self.far, self.sharp, self._held = [], None, 0.0, 0.0, 0
        return off, cancelling

    def _by_group(self) -> dict[int, list[list[tuple[float, Tensor, Tensor]]]]:
        """For each group its steps, each as products (scale, left^T, right) that are to be summed."""
        found: dict[int, list[list[tuple[float, Tensor, Tensor]]]] = {}
        for scale, factors in self.steps:
            mine: dict[int, list[tuple[float, Tensor, Tensor]]] = {}
            for parts, left, right in factors:
                left, right = left.to(self.like.dtype).T, right.to(self.like.dtype)
                for group, part in parts:
                    mine.setdefault(group, []).append((scale, left[:, part], right[part]))
            for group, pieces in mine.items():
                found.setdefault(group, []).append(pieces)
        return found
