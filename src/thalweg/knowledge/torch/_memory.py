"""`memory`: what a tally of a model will take, told before it is made."""

import math
from typing import Any

from torch import nn

from thalweg.knowledge._tallied import KINDS


def memory(
    model: nn.Module,
    groups: int,
    *,
    momentum: bool = True,
    kinds: Any = KINDS,
    per: str = "parameter",
    stride: int = 1,
) -> int:
    """The bytes that a tally of this model would take, in single precision; the model may be on the `meta` device.

    - `momentum`: whether the optimizer has one (Adam has): each group then has its own.

    >>> import torch
    >>> with torch.device("meta"):
    ...     model = torch.nn.Linear(1000, 1000, bias=False)
    >>> memory(model, groups=9, kinds="absolute")  # gradients, momenta and tallies of 10 rows of 10^6 parameters
    120000000
    """
    shapes = []
    for p in {id(p): p for p in model.parameters() if p.requires_grad}.values():
        shape = tuple(p.shape)
        if len(shape) > 1:
            shape = (shape[0], math.ceil(shape[1] / stride), *shape[2:])
        shapes.append((shape, 0, 4))
    return bytes_of(shapes, groups, check_kinds(kinds), per, momentum)


def bytes_of(shapes: Any, groups: int, kinds: tuple[str, ...], per: str, momentum: bool) -> int:
    """Of gradients, momenta and tallies by group; `shapes` holds (shape, axis of units, bytes of a number)."""
    total = 0
    for shape, units, size in shapes:
        full = math.prod(shape)
        kept = full if per == "parameter" else shape[units] if per == "unit" and shape else 1
        total += size * (groups + 1) * (full * (1 + momentum) + kept * len(kinds))
    return total


def check_kinds(kinds: Any) -> tuple[str, ...]:
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    if not isinstance(chosen, tuple | list) or not chosen or not all(kind in KINDS for kind in chosen):
        raise ValueError(f'kinds must be "absolute", "signed", or both, got {kinds!r}')
    return tuple(kind for kind in KINDS if kind in chosen)
