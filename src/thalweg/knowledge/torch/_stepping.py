"""Listening to the optimizer: what each step came to, and whether the parts sum to it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from thalweg.knowledge.torch._account import Account, gathered
from thalweg.knowledge.torch._clipping import Factor, factors, steepest
from thalweg.knowledge.torch._dividing import catch_up, divide, pass_by
from thalweg.knowledge.torch._listening import Listener
from thalweg.knowledge.torch._part import Part
from thalweg.knowledge.torch._rules import RULES, Rule, memory_name


class Stepper:
    """Hooks before and after the steps of an optimizer."""

    def __init__(
        self, account: Account, optimizer: Any, listener: Listener, parallel: bool, where: Callable[[str], bool] | None
    ):
        self._account, self._optimizer, self._listener = account, optimizer, listener
        self._parallel, self._where = parallel, where
        self._fresh: set[str] = set()  # parameters whose momentum begins with this step

    def attach(self) -> list:
        """Listen; gives the hooks."""
        return [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]

    def _each(self) -> Iterator[tuple[dict, Part]]:
        """(parameter group, part) of all that is tallied."""
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                part = self._account.parts.get(self._listener.name_of(p) or "")
                if part is not None:
                    yield group, part

    @torch.no_grad()
    def _before_step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        due = self._account.due
        self._fresh = set()
        for group, part in self._each():
            key = memory_name(optimizer, group)
            if key:
                momentum = optimizer.state.get(part.parameter, {}).get(key)
                if momentum is None:
                    self._fresh.add(part.name)
                elif part.momenta is None:
                    part.momenta = part.zeros()
                    part.momenta[-1] = part.view(momentum)
            if due or group.get("weight_decay"):
                part.keep_before()

    @torch.no_grad()
    def _after_step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        skipped = getattr(optimizer, "found_inf", None)  # by a gradient scaler, inside a fused optimizer
        if skipped is not None and float(skipped):
            return
        account = self._account
        due = account.due
        account.seen += 1
        moved = [(group, part) for group, part in self._each() if part.parameter.grad is not None]
        self._refuse_newcomers()
        if not due:
            for group, part in moved:
                rule = self._rule(group, part)
                self._flush(part)
                pass_by(part, rule, bool(memory_name(optimizer, group)))
            return
        self._reduce([part for _, part in moved])
        found = factors(account, [part for _, part in moved])
        moved = [(group, part) for group, part in moved if part.name in account.parts]
        account.counts += account.visits
        if moved:
            self._divide(moved, found)

    def _divide(self, moved: list[tuple[dict, Part]], found: dict[str, Factor]) -> None:
        account = self._account
        sharp = torch.stack([one.to(moved[0][1].parameter.device) for one in steepest([p for _, p in moved], found)])
        most = float(sharp.max())
        off, largest, moves, closed = [], [], [], []
        for group, part in moved:
            rule, factor, after = self._rule(group, part), found[part.name], part.now
            memory = bool(memory_name(self._optimizer, group))
            log = part.log
            if log is not None and log.open is not None and isinstance(factor, float) and isinstance(rule.intake, float):
                catch_up(part)
                if memory and part.momenta is None:
                    part.momenta = part.zeros()
                assert part.before is not None
                moves.append(log.close(rule, factor, part.before, after, most))
                if rule.decays:
                    part.before = None  # it is the log's now
                closed.append(part)
                continue
            self._flush(part)
            part.spill()
            one = divide(part, rule, factor, memory, after, most, account.eps)
            for column, number in zip((off, largest, moves), one, strict=True):
                column.append(number)
        account.tallied += 1
        furthest = _most(moves)
        if off:
            cancelling = _most(largest) / furthest
            account.note(_most(off), torch.where(furthest > 0, cancelling, 1.0))
        if closed:
            far = float(furthest)
            for part in closed:
                assert part.log is not None
                part.log.far += far
                if part.log.full:
                    self._flush(part)

    def _rule(self, group: dict, part: Part) -> Rule:
        p = part.parameter
        state = {
            key: part.view(value) if isinstance(value, Tensor) and value.ndim and value.shape == p.shape else value
            for key, value in self._optimizer.state.get(p, {}).items()
        }
        return RULES[type(self._optimizer)](group, state, part.name in self._fresh)

    def _flush(self, part: Part) -> None:
        if part.log is not None and part.log.steps:
            self._account.note(*part.flush(self._account.eps))

    def _refuse_newcomers(self) -> None:
        """Parameters that train now, and did not when the tally was made."""
        account = self._account
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                name = self._listener.name_of(p)
                if name is None or name in account.parts or name in account.refused or p.grad is None:
                    continue
                if self._where is None or self._where(name):
                    account.refused[name] = f"{name} was not trained when the tally was made, and is left out"

    def _reduce(self, moved: list[Part]) -> None:
        """The mean over the processes of a data-parallel run, as that of the gradients themselves."""
        self._listener.count()
        if not self._parallel:
            return
        world = torch.distributed.get_world_size()
        for part in moved:
            part.settle()
            torch.distributed.all_reduce(part.gradients)
            part.gradients.div_(world)
        visits = self._account.visits.to(moved[0].parameter.device if moved else "cpu")
        torch.distributed.all_reduce(visits)
        self._account.visits = visits.cpu()


def _most(numbers: list[Tensor]) -> Tensor:
    """The largest of numbers on one device or several."""
    return torch.stack([number.to(numbers[0].device, torch.float64) for number in numbers]).max()
