"""One step of one parameter, divided among the groups: what the optimizer made of each group's gradient."""

import torch
from torch import Tensor

from thalweg.knowledge._tallied import summed
from thalweg.knowledge.torch._block import unexplained
from thalweg.knowledge.torch._clipping import Factor
from thalweg.knowledge.torch._layers import wide
from thalweg.knowledge.torch._part import Part, total
from thalweg.knowledge.torch._rules import Rule

TILE = 2**16  # numbers of all groups that are worked on at a time, on a CPU


def divide(
    part: Part, rule: Rule, factor: Factor, memory: bool, after: Tensor, sharp: float | Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a step to the tables; `memory`: whether the optimizer has a momentum.

    Gives how far the parts are from the change, the largest sum of their sizes, and the largest change. `sharp` is the
    largest entry of any gradient, `eps` the rounding of the gradients.
    """
    before = part.before
    plain = not memory and not rule.decays and rule.scale is None and isinstance(factor, float)
    if plain and part.per == "parameter":
        scale = factor * rule.sign * rule.direct
        size, change = _add_scaled(part, scale), part.total().mul_(scale)
    else:
        rows, weight = _rows(part, rule, factor, memory, before)
        size, change = _add(part, rows, weight)
    if before is None:  # not foreseen, and so there is nothing to compare with
        return torch.zeros_like(moved := change.abs_().max()), size.max(), moved
    reach = rule.reach * sharp if rule.scale is None else rule.scale * (rule.reach * sharp)
    known = torch.maximum(before.abs(), after.abs()).mul_(torch.finfo(change.dtype).eps)
    off = unexplained((after - before).sub_(change), size, known, reach, eps)
    return off, size.max(), change.abs_().max()


def pass_by(part: Part, rule: Rule) -> None:
    """A step that is not tallied: the groups' momenta fade, and the new gradient is nobody's."""
    assert part.parameter.grad is not None
    gradient = part.view(part.parameter.grad).to(wide(part.parameter))
    if rule.sign < 0:
        gradient = -gradient
    if rule.pull:
        assert part.before is not None
        gradient = torch.add(gradient, part.before, alpha=rule.pull)
    momenta = part.start_momenta()
    part.fade *= rule.decay
    _take(momenta[-1].mul_(rule.decay), gradient, rule.intake)


def _take(momenta: Tensor, gradients: Tensor, intake: float | Tensor) -> None:
    if isinstance(intake, Tensor):
        momenta.addcmul_(gradients, intake)
    else:
        momenta.add_(gradients, alpha=intake)


def _rows(part: Part, rule: Rule, factor: Factor, memory: bool, before: Tensor | None) -> tuple[Tensor, float]:
    """The groups' parts of a step (G + 1, *shape), and the number they are still to be multiplied with."""
    part.settle()
    gradients = part.gradients * (factor * rule.sign)
    if rule.pull and before is not None:
        gradients[-1].add_(before, alpha=rule.pull)
    if not memory:
        rows, weight = gradients, rule.direct
        if rule.scale is not None:
            rows.mul_(rule.scale)
    else:
        momenta = part.start_momenta()
        part.catch_up()
        _take(momenta.mul_(rule.decay), gradients, rule.intake)
        weight = rule.lead
        if rule.direct:
            rows, weight = gradients.mul_(rule.direct).add_(momenta, alpha=rule.lead), 1.0
            if rule.scale is not None:
                rows.mul_(rule.scale)
        elif rule.scale is not None:
            rows = torch.mul(momenta, rule.scale, out=gradients)
        else:
            rows = gradients.copy_(momenta)
    if rule.rest and weight and before is not None:
        rows[-1].add_(before, alpha=rule.rest / weight)
    return rows, weight


def _add(part: Part, rows: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Add a step to the tables. Gives the sum of the parts' sizes, and of the parts."""
    change = total(rows).mul_(weight)
    for kind in ("signed", "absolute"):
        if kind == "absolute":
            rows.abs_()
            weight = abs(weight)
        if kind in part.kept:
            part.kept[kind].add_(summed(rows, part.per, 1, part.units), alpha=weight)
    return total(rows).mul_(weight), change


def _add_scaled(part: Part, scale: float) -> Tensor:
    """Add a step whose parts are the gradients, times one number. Gives the sum of the parts' sizes."""
    here = part.present()
    gradients, size = part.gradients[here], torch.empty_like(part.gradients[0])
    if "signed" in part.kept:
        part.kept["signed"][here].add_(gradients, alpha=scale)
    kept = part.kept["absolute"][here] if "absolute" in part.kept else None
    # In tiles that stay in the cache: the moduli are needed twice.
    length = len(size) if size.ndim else 1
    tile = length if gradients.is_cuda else max(1, TILE * length // max(1, gradients.numel()))
    for first in range(0, length, tile):
        at = slice(first, first + tile) if size.ndim else ...
        moduli = gradients[:, at].abs()
        if kept is not None:
            kept[:, at].add_(moduli, alpha=abs(scale))
        size[at] = total(moduli)
    return size.mul_(abs(scale))
