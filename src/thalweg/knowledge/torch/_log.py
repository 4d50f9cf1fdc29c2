"""Steps of plain descent, kept as the factors of their gradients and added to the tallies several at a time.

A linear layer's gradient for a group is `D_g^T X_g`: what went in, and the gradient of what came out. Where a step is
the gradient times a number, nothing else is needed. So the factors of a few steps are kept, and then one tile of the
weights after the other is brought up to date for all of them. The tables, (G + 1) times as large as the weights, go
through memory once for these steps, and the gradients by group, as large as the tables, not at all.
"""

import math

import torch
from torch import Tensor

STEPS = 8  # that are kept
MOST = 0.5  # of the bytes of the table, that the factors may take
TILE = 2**15  # numbers of a tile, which stay in the cache with what is added to them

Factors = tuple[int, Tensor, Tensor]  # the group, left and right: its gradient is `left^T right`


class Log:
    """The factors of one weight: of the pass that is going on, and of the steps that are not yet in the tallies."""

    def __init__(self, shape: tuple[int, ...], groups: int, like: Tensor):
        self.shape, self.like = shape, like
        self.open: list[Factors] | None = None  # `None` where this pass's gradient is not all in factors
        self.steps: list[tuple[float, list[Factors]]] = []
        self.change: Tensor | None = None  # of the weight over these steps
        self.sharp = 0.0  # the sum over these steps of the largest entry of a gradient, times the rate
        self._room = MOST * (groups + 1) * math.prod(shape)
        self._held = 0

    def probe(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Two random sums over the inputs of each unit: of the optimizer's gradient, and of the factors' product.

        They agree where the two do, and are far quicker to make. A product that differs is overlooked with odds of
        about 1e-10, and in the next step again.
        """
        assert self.open is not None
        draws = torch.randn(self.shape[1], 4, dtype=self.like.dtype, device=self.like.device) / 2
        mine = self.like.new_zeros(self.shape[0], 4)
        for _, left, right in self.open:
            mine.addmm_(left.to(mine.dtype).T, right.to(mine.dtype) @ draws)
        return gradient.to(mine.dtype) @ draws, mine

    def spill(self) -> list[Factors]:
        """The factors of this pass, to be added up at once; what is still to come in it is not kept."""
        found, self.open = self.open or [], None
        return found

    def close(self, scale: float, before: Tensor, after: Tensor, sharp: float) -> bool:
        """Keep a step that is the gradient times `scale`. Whether the steps kept so far should be added up now."""
        assert self.open is not None
        self.steps.append((scale, self.open))
        self._held += sum(left.numel() + right.numel() for _, left, right in self.open)
        self.change = after - before if self.change is None else self.change.add_(after).sub_(before)
        self.sharp += sharp
        return len(self.steps) >= STEPS or self._held * (1 + 1 / len(self.steps)) > self._room

    def add_to(self, kept: dict[str, Tensor], after: Tensor) -> tuple[float, float]:
        """Add the steps to the tables of each kind. Gives their conservation, and the largest sum of sizes of parts."""
        assert self.change is not None
        by_group: dict[int, list[list[tuple[float, Tensor, Tensor]]]] = {}
        for scale, factors in self.steps:
            mine: dict[int, list[tuple[float, Tensor, Tensor]]] = {}
            for group, left, right in factors:
                mine.setdefault(group, []).append((scale, left.to(self.like.dtype), right.to(self.like.dtype)))
            for group, pieces in mine.items():
                by_group.setdefault(group, []).append(pieces)
        off, largest = 0.0, 0.0
        units, inputs = self.shape
        tile = max(1, TILE // inputs)
        room = self.like.new_empty(min(tile, units), inputs)
        sums, sizes, group_sizes = (torch.empty_like(room) for _ in range(3))
        eps = torch.finfo(self.like.dtype).eps
        for first in range(0, units, tile):
            at = slice(first, min(first + tile, units))
            one, total, size, moved = (part[: at.stop - first] for part in (room, sums, sizes, group_sizes))
            total.zero_()
            size.zero_()
            for group, steps in by_group.items():
                moved.zero_()
                for pieces in steps:
                    for i, (scale, left, right) in enumerate(pieces):
                        torch.addmm(one, left[:, at].T, right, beta=float(i > 0), alpha=scale, out=one)
                    total += one
                    if "signed" in kept:
                        kept["signed"][group, at] += one
                    moved += one.abs_()
                size += moved
                if "absolute" in kept:
                    kept["absolute"][group, at] += moved
            error = (self.change[at] - total).abs_()
            # The change is known to the rounding of the weight in each step, a gradient to that of the largest.
            known = (after[at].abs() + size).mul_(2 * eps * len(self.steps)).add_(eps * self.sharp)
            error.sub_(known)
            if float(error.max()) > 0:
                off = max(off, float(torch.where(error <= 0, 0, error / size).max()))
            largest = max(largest, float(size.max()))
        self.steps, self.change, self.sharp, self._held = [], None, 0.0, 0
        return off, largest
