"""What a tally knows: how it was asked to count, what it counts, what it left out and why, and its numbers."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from thalweg.knowledge.torch._bundle import Bundle
from thalweg.knowledge.torch._part import Part

# How far gradients made in low precision may be from the sum of their parts (rounded to 8 or 11 bits).
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
UNSEEN = (
    "parameters were written to between steps, or clipped entry by entry, when that was not expected yet: the few "
    "steps before were not compared with the sum of their parts"
)
PENDING = 256  # numbers that may wait on a device


@dataclasses.dataclass
class Account:
    """Shared by those who listen to the layers and to the optimizer."""

    groups: int
    every: int
    window: tuple[int, int] | None
    parts: dict[str, Part] = dataclasses.field(default_factory=dict)
    bundles: list[Bundle] = dataclasses.field(default_factory=list)  # of some of them
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: set[str] = dataclasses.field(default_factory=set)
    precision: torch.dtype = torch.float64  # of the coarsest gradient met
    seen: int = 0  # steps
    tallied: int = 0
    off: float = 0.0  # conservation and
    cancelling: float = 1.0  # cancellation, at most
    # Not yet looked at, so that no GPU is waited for:
    offs: list[Tensor] = dataclasses.field(default_factory=list)  # conservation,
    ratios: list[Tensor] = dataclasses.field(default_factory=list)  # and cancellation, of steps;
    sizes: list[Tensor] = dataclasses.field(default_factory=list)  # the largest parts of steps since the last flush,
    moves: list[Tensor] = dataclasses.field(default_factory=list)  # and what they moved

    def __post_init__(self) -> None:
        self.counts = torch.zeros(self.groups, dtype=torch.int64)
        self.visits = torch.zeros(self.groups, dtype=torch.int64)  # of the step that is being prepared

    @property
    def due(self) -> bool:
        """Whether the step that is being prepared is tallied."""
        inside = self.window is None or self.window[0] <= self.seen < self.window[1]
        return inside and (self.seen + 1) % self.every == 0

    def refuse(self, name: str, why: str) -> None:
        """Leave a parameter out, and take apart the bundle that it would spoil."""
        for bundle in [one for one in self.bundles if any(part.name == name for part in one.members)]:
            if bundle.log is not None:
                bundle.log.lose()
            self.flush()
            self.bundles.remove(bundle)
        self.refused[name] = why
        self.parts.pop(name, None)

    def rounded_as(self, precision: torch.dtype) -> None:
        """A gradient was made in this precision."""
        if torch.finfo(precision).eps > torch.finfo(self.precision).eps:
            self.precision = precision

    @property
    def eps(self) -> float:
        return torch.finfo(self.precision).eps

    def flush(self) -> None:
        """Add steps that are kept as factors to the tables."""
        kept = [part for part in (*self.parts.values(), *self.bundles) if part.log is not None and part.log.steps]
        found = [part.flush(self.eps) for part in kept]
        self.offs += [off for off, _, _ in found]
        if any(part.unseen for part in kept):
            self.notes.add(UNSEEN)
        # Of the steps since the last flush, the largest parts and the largest change of any parameter.
        sizes, moves = [size for _, size, _ in found], [moved for _, _, moved in found]
        if self.sizes:
            sizes.append(added(self.sizes))
            moves.append(added(self.moves))
            self.sizes, self.moves = [], []
        if sizes:
            furthest = largest(moves)
            self.ratios.append(torch.where(furthest > 0, largest(sizes) / furthest, 1.0))
        if len(self.offs) >= PENDING:
            self.settle()

    def settle(self) -> None:
        """Look at the numbers that wait."""
        self.off = max(self.off, *gathered(self.offs), 0.0)
        self.cancelling = max(self.cancelling, *gathered(self.ratios), 1.0)
        self.offs, self.ratios = [], []


def largest(numbers: list[Tensor]) -> Tensor:
    """The largest of numbers on one device or several."""
    return _stacked(numbers).max()


def added(numbers: list[Tensor]) -> Tensor:
    """The sum of numbers on one device or several."""
    return _stacked(numbers).sum()


def gathered(numbers: Any) -> list[float]:
    """Numbers on a device, or on several, in one transfer."""
    numbers = [*numbers]
    return _stacked(numbers).tolist() if numbers else []


def _stacked(numbers: list[Tensor]) -> Tensor:
    device, kind = numbers[0].device, numbers[0].dtype
    if any(number.device != device or number.dtype != kind for number in numbers):
        numbers = [number.to(device, torch.float64) for number in numbers]
    return torch.stack(numbers)
