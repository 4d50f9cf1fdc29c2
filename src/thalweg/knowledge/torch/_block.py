"""A block of steps, added to the tables.

Of a weight matrix, one tile after the other: for every tile and group, the group's part of each step is made from its
factors. The tables and momenta, (G + 1) times as large as the weight, go through memory once for all these steps.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.knowledge._tallied import summed
from thalweg.knowledge.torch._log import Pieces, Step

TILE = 1_200_000  # numbers, of all steps, that are worked on at a time


class Share(NamedTuple):
    """A group's part of a step."""

    step: Step
    pieces: Pieces
    decays: bool  # whether the weight's own part is in it, which is nobody's
    weight: float  # the number with which what is made of it is still to be multiplied
    plain: bool  # whether it is one product, and nothing else


def add(
    steps: list[Step],
    tables: dict[str, Tensor],
    momenta: Tensor | None,
    change: Tensor | None,
    after: Tensor,
    eps: float,
    per: str = "parameter",
    units: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Add steps to the tables of each kind.

    Gives how far the parts are from `change`, the largest sum of their sizes, and the largest change of an entry. What
    is not known to anyone (`None`) is taken to be right. `after` is the weight now, `eps` the rounding of the
    gradients; `per`, `units`: what the tables hold, see `summed`.
    """
    length, width = after.shape
    like = next(iter(tables.values()))
    tile = -(-length // -(-length * width * len(steps) // TILE))
    room, sums = like.new_empty(len(steps), tile, width), like.new_empty(4, tile, width)
    groups = len(like) - 1
    every = {group: _parts(steps, group, groups, momenta is not None) for group in range(groups + 1)}
    parts = {group: mine for group, mine in every.items() if mine}
    weights = {group: like.new_tensor([[part.weight for part in mine]]) for group, mine in parts.items()}
    fine = torch.finfo(like.dtype).eps * len(steps)
    found: list[tuple[Tensor, ...]] = []
    for first in range(0, length, tile):
        at = slice(first, min(first + tile, length))
        total, size, signed, moved = (one[: at.stop - first] for one in sums)
        total.zero_()
        size.zero_()
        for group, mine in parts.items():
            here = room[: len(mine), : at.stop - first]
            momentum = None if momenta is None else momenta[group, at]
            for one, made in zip(here.unbind(0), mine, strict=True):
                if made.plain:
                    torch.mm(made.pieces[0][0][at], made.pieces[0][1], out=one)
                else:
                    _make(one, made, at, momentum)
            flat = here.view(len(mine), -1)
            torch.mm(weights[group], flat, out=signed.view(1, -1))
            torch.mm(weights[group].abs(), flat.abs_(), out=moved.view(1, -1))
            total += signed
            size += moved
            for kind, part in (("signed", signed), ("absolute", moved)):
                if kind in tables:
                    _enter(tables[kind][group], part, at, per, units)
        went = total if change is None else change[at]
        found.append(_compared(went, total, size, after[at], _sharp(steps, at), fine, eps))
    off, largest, moved = (torch.stack(column).max() for column in zip(*found, strict=True))
    return off, largest, moved


def add_rows(
    steps: list[Step],
    tables: dict[str, Tensor],
    momenta: Tensor | None,
    change: Tensor | None,
    after: Tensor,
    eps: float,
    per: str = "parameter",
    units: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for small parameters, of which the gradients by group were kept: all groups at once."""
    rows, weights = torch.stack([step.rows for step in steps if step.rows is not None]), []
    for one, (rule, factor, _, _, before, _) in zip(rows, steps, strict=True):
        weight, sign = rule.direct, factor * rule.sign
        if sign != 1.0:
            one.mul_(sign)
        if rule.pull and before is not None:
            one[-1].add_(before, alpha=rule.pull)
        if momenta is not None:
            momenta.mul_(rule.decay).add_(one, alpha=rule.intake)
            if weight:
                one.add_(momenta, alpha=rule.lead / weight)
            else:
                one.copy_(momenta)
                weight = rule.lead
        if rule.scale is not None:
            one.mul_(rule.scale)
        if rule.rest and weight and before is not None:
            one[-1].add_(before, alpha=rule.rest / weight)
        weights.append(weight)
    scales, flat = rows.new_tensor([weights]), rows.view(len(rows), -1)
    signed = (scales @ flat).view(rows.shape[1:])
    moved = (scales.abs_() @ flat.abs_()).view(rows.shape[1:])
    for kind, part in (("signed", signed), ("absolute", moved)):
        if kind in tables:
            tables[kind] += summed(part, per, 1, units)
    total = signed.sum(0)
    went = total if change is None else change
    fine = torch.finfo(rows.dtype).eps * len(steps)
    return _compared(went, total, moved.sum(0), after, _sharp(steps, slice(None)), fine, eps)


def _compared(
    went: Tensor, total: Tensor, size: Tensor, after: Tensor, sharp: float | Tensor, fine: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    # The change is known to the rounding of the weight in each step, a gradient to that of the largest.
    known = torch.add(after.abs(), went.abs()).mul_(fine)
    least, most = went.aminmax()
    return unexplained(went - total, size, known, sharp, eps), size.max(), torch.maximum(-least, most)


def _parts(steps: list[Step], group: int, groups: int, memory: bool) -> list[Share]:
    """A group's parts of the steps in which it moves; with a momentum, it moves in all."""
    found = []
    for step in steps:
        pieces, decays = step.pieces.get(group, []), group == groups and step.rule.decays
        if memory or pieces or decays:
            rule = step.rule
            weight = rule.direct if rule.direct or not memory else rule.lead
            plain = len(pieces) == 1 and not memory and not decays and rule.scale is None
            if plain:
                weight *= step.factor * rule.sign
            found.append(Share(step, pieces, decays, weight, plain))
    return found


def _make(one: Tensor, part: Share, at: slice, momentum: Tensor | None) -> None:
    """A group's part of a step in a tile, up to its weight; the momentum goes on."""
    rule, factor, _, _, before, _ = part.step
    own = before[at] if part.decays and before is not None else None
    sign = factor * rule.sign
    if momentum is not None and not rule.direct:
        _product(momentum, part.pieces, at, rule.decay, sign * rule.intake)
        if own is not None and rule.pull:
            momentum.add_(own, alpha=rule.pull * rule.intake)
        one.copy_(momentum) if rule.scale is None else torch.mul(momentum, rule.scale[at], out=one)
    else:
        _product(one, part.pieces, at, 0.0, sign)
        if own is not None and rule.pull:
            one.add_(own, alpha=rule.pull)
        if momentum is not None:
            momentum.mul_(rule.decay).add_(one, alpha=rule.intake)
            one.add_(momentum, alpha=rule.lead / rule.direct)
        if rule.scale is not None:
            one.mul_(rule.scale[at])
    if own is not None and rule.rest and part.weight:
        one.add_(own, alpha=rule.rest / part.weight)


def _product(out: Tensor, pieces: Pieces, at: slice, beta: float, alpha: float) -> None:
    """`out = beta out + alpha (sum of products)`, of a tile."""
    if not pieces:
        out.mul_(beta) if beta else out.zero_()
    for left, right in pieces:
        torch.addmm(out, left[at], right, beta=beta, alpha=alpha, out=out)
        beta = 1.0


def _enter(table: Tensor, mine: Tensor, at: slice, per: str, units: int) -> None:
    """Add what moved in a tile to a group's table."""
    if per == "parameter" or (per == "unit" and units == 0):
        table = table[at]
    table += summed(mine, per, 0, units)


def _sharp(steps: list[Step], at: slice) -> float | Tensor:
    """The largest gradient of each step, times how far it would move an entry."""
    total: float | Tensor = 0.0
    for rule, _, _, _, _, steepest in steps:
        reach = rule.reach * steepest
        total = total + (reach if rule.scale is None else rule.scale[at] * reach)
    return total


def unexplained(off: Tensor, size: Tensor, known: Tensor, sharp: float | Tensor, eps: float) -> Tensor:
    """How far changes are from the sum of their parts, of the parts' size: at most, beyond what rounding allows.

    The changes are `known` so well; a gradient, to the rounding of the largest in the backward pass.
    """
    off = off.abs_().sub_(known).sub_((size.max() + sharp) * eps).clamp_(min=0)
    return torch.where(off == 0, off, off / size).max()
