"""What a tally knows: how it was asked to count, what it counts, what it left out and why, and its numbers."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from thalweg.knowledge.torch._part import Part

# How far gradients made in low precision may be from the sum of their parts (rounded to 8 or 11 bits).
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
PENDING = 256  # numbers that may wait on a device


@dataclasses.dataclass
class Account:
    """Shared by those who listen to the layers and to the optimizer."""

    groups: int
    every: int
    window: tuple[int, int] | None
    parts: dict[str, Part] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: set[str] = dataclasses.field(default_factory=set)
    precision: torch.dtype = torch.float64  # of the coarsest gradient met
    seen: int = 0  # steps
    tallied: int = 0
    off: float = 0.0  # conservation and
    cancelling: float = 1.0  # cancellation, at most
    pending: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list)  # of them, not yet looked at

    def __post_init__(self) -> None:
        self.counts = torch.zeros(self.groups, dtype=torch.int64)
        self.visits = torch.zeros(self.groups, dtype=torch.int64)  # of the step that is being prepared

    @property
    def due(self) -> bool:
        """Whether the step that is being prepared is tallied."""
        inside = self.window is None or self.window[0] <= self.seen < self.window[1]
        return inside and (self.seen + 1) % self.every == 0

    def refuse(self, name: str, why: str) -> None:
        """Leave a parameter out."""
        self.refused[name] = why
        self.parts.pop(name, None)

    def rounded_as(self, precision: torch.dtype) -> None:
        """A gradient was made in this precision."""
        if torch.finfo(precision).eps > torch.finfo(self.precision).eps:
            self.precision = precision

    @property
    def eps(self) -> float:
        return torch.finfo(self.precision).eps

    def note(self, off: Tensor, cancelling: Tensor) -> None:
        """How a step was conserved, and how its parts cancelled: looked at later, so that no GPU is waited for."""
        self.pending.append((off, cancelling))
        if len(self.pending) >= PENDING:
            self.settle()

    def settle(self) -> None:
        """Look at the numbers that wait."""
        if self.pending:
            for off, cancelling in zip(*(gathered(column) for column in zip(*self.pending, strict=True)), strict=True):
                self.off, self.cancelling = max(self.off, off), max(self.cancelling, cancelling)
            self.pending = []

    def flush(self) -> None:
        """Add steps that are kept as factors to the tables."""
        for part in self.parts.values():
            if part.log is not None and part.log.steps:
                self.note(*part.flush(self.eps))
        self.settle()


def gathered(numbers: Any) -> list[float]:
    """Numbers on a device, or on several, in one transfer."""
    numbers = [*numbers]
    if not numbers:
        return []
    device, kind = numbers[0].device, numbers[0].dtype
    if any(number.device != device or number.dtype != kind for number in numbers):
        numbers = [number.to(device, torch.float64) for number in numbers]
    return torch.stack(numbers).tolist()
