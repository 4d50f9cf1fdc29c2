"""What the gradients were multiplied by between the backward pass and the step: loss scaling, clipping."""

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

from thalweg.knowledge.torch._account import TOLERANCES, Account, gathered
from thalweg.knowledge.torch._layers import wide
from thalweg.knowledge.torch._part import Part

Factor: TypeAlias = float | Tensor

SMALL = 2**12  # numbers of a gradient that is looked at together with others

WHY = "part of its gradient did not pass through its layer (a penalty, a function of the weight)"


def factors(account: Account, moved: list[Part], totals: dict[str, Tensor]) -> dict[str, Factor]:
    """The factor between each parameter's gradient, as the optimizer met it, and the sum of the groups' parts.

    One factor for all explains clipping by the norm; one a parameter, clipping in parts; one an entry, by value. A
    parameter that none explains got gradient that did not pass through its layer, and is refused. `totals`: sums of the
    groups' parts that are known already.
    """
    if account.precision == torch.float64 and any(wide(part.parameter) == torch.float32 for part in moved):
        account.precision = torch.float32
    tolerance, rounding = TOLERANCES[account.precision], min(100 * account.eps, 1e-2)
    pairs = [part.pair(totals.get(part.name)) for part in moved]
    if not pairs:
        return {}
    theirs, ours = ([*column] for column in zip(*pairs, strict=True))
    size, mine = _norms(theirs), _norms(ours)
    # Of vectors that are parallel, and point the same way, the norms tell the factor.
    common = math.hypot(*size) / math.hypot(*mine) if any(mine) else 1.0
    off = _norms(torch._foreach_sub(theirs, torch._foreach_mul(ours, common)))
    # Some gradients are zero but for rounding, such as that of a bias before a batch norm.
    noise = rounding * max(size)
    found: dict[str, Factor] = {}
    for i, part in enumerate(moved):
        if off[i] <= tolerance * size[i] + noise:
            found[part.name] = common
            continue
        own = _own(*pairs[i], size[i], mine[i], tolerance, noise)
        probed = part.log is not None and part.log.open is not None
        if own is None and probed:
            part.spill()
            own = _own(*part.pair(), size[i], mine[i], tolerance, noise)
        own = _by_entry(*part.pair(), rounding, tolerance) if own is None else own
        if own is None:
            account.refuse(part.name, f"{part.name}: {WHY}, and it is left out of the tally")
        else:
            found[part.name] = own
    return found


def _norms(arrays: Any) -> list[float]:
    return gathered(torch._foreach_norm(arrays))


def _own(theirs: Tensor, ours: Tensor, size: float, mine: float, tolerance: float, noise: float) -> float | None:
    factor = size / mine if mine else 1.0
    off = float(torch.linalg.vector_norm(torch.sub(theirs, ours, alpha=factor)))
    return factor if off <= tolerance * size + noise else None


def _by_entry(theirs: Tensor, ours: Tensor, rounding: float, tolerance: float) -> Tensor | None:
    """Clipping by value makes entries smaller, and changes no sign."""
    small = rounding * theirs.abs().max()
    found = torch.where((theirs.abs() <= small) & (ours.abs() <= small), 1.0, theirs / ours)
    return found if float(found.min()) >= 0 and float(found.max()) <= 1 + tolerance else None


def steepest(moved: list[Part], found: dict[str, Any]) -> float:
    """The largest entry of any gradient, as it was before it was clipped entry by entry."""
    gradients = [part.total() if isinstance(found[part.name], Tensor) else part.parameter.grad for part in moved]
    if gradients[0].is_cuda:
        ends = torch._foreach_norm(gradients, float("inf"))
    else:
        small = [gradient.reshape(-1) for gradient in gradients if gradient.numel() < SMALL]
        large = [gradient for gradient in gradients if gradient.numel() >= SMALL]
        joined = [*large, *([torch.cat(small)] if small else [])]
        ends = [torch.maximum(one.amax(), -one.amin()) for one in joined]
    return max(gathered(ends))
