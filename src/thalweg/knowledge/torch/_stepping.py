"""Listening to the optimizer: what each step came to, and whether the parts sum to it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from thalweg.knowledge.torch._account import Account, gathered
from thalweg.knowledge.torch._bundle import Bundle
from thalweg.knowledge.torch._clipping import Factor, factors, steepest
from thalweg.knowledge.torch._dividing import divide, pass_by
from thalweg.knowledge.torch._listening import Listener
from thalweg.knowledge.torch._log import full
from thalweg.knowledge.torch._part import Part
from thalweg.knowledge.torch._rules import RULES, Rule, memory_name


class Stepper:
    """Hooks before and after the steps of an optimizer."""

    def __init__(
        self,
        account: Account,
        optimizer: Any,
        listener: Listener,
        parallel: bool,
        where: Callable[[str], bool] | None,
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
                part = self._account.parts.get(self._listener.names.get(id(p), ""))
                if part is not None:
                    yield group, part

    def _bundled(self, moved: list[tuple[dict, Part]]) -> list[tuple[dict, Part]]:
        """Bundles in place of their members, where all of them are there."""
        group_of = {part.name: group for group, part in moved}
        whole = [one for one in self._account.bundles if all(part.name in group_of for part in one.members)]
        inside = {part.name for one in whole for part in one.members}
        alone = [(group, part) for group, part in moved if part.name not in inside]
        return [*((group_of[one.members[0].name], one) for one in whole), *alone]

    @torch.no_grad()
    def _before_step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        due = self._account.due
        self._fresh = set()
        tallied = [*self._each()]
        for group, part in tallied:
            key = memory_name(optimizer, group)
            if key:
                momentum = optimizer.state.get(part.parameter, {}).get(key)
                if momentum is None:
                    self._fresh.add(part.name)
                elif part.momenta is None:
                    part.start_momenta()[-1] = part.view(momentum)
        for group, part in self._bundled(tallied):
            log, decays = part.log, bool(group.get("weight_decay"))
            if log is not None and part.keeps_step and due:
                log.prepare(part.now)
                keep = decays
            else:
                keep = due or (decays and bool(memory_name(optimizer, group)))
                if log is not None:
                    log.pause(part.now)
            part.keep_before() if keep else part.drop_before()

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
            self._pass_by([(group, part) for group, part in moved if memory_name(optimizer, group)])
            return
        counts = self._step_numbers(moved)
        self._reduce(moved)
        totals: dict[str, Tensor] = {}
        for _, part in self._bundled(moved):
            if isinstance(part, Bundle):
                totals |= part.totals()
        found = factors(account, [part for _, part in moved], totals)
        moved = [(group, part) for group, part in moved if part.name in account.parts]
        account.counts += account.visits
        if moved:
            self._divide(moved, found, counts)

    def _pass_by(self, moved: list[tuple[dict, Part]]) -> None:
        """Momenta go on in steps that are not tallied."""
        counts = self._step_numbers(moved)
        if moved:
            self._account.flush()
        for group, part in moved:
            pass_by(part, self._rule(group, part, counts))

    def _divide(self, moved: list[tuple[dict, Part]], found: dict[str, Factor], counts: dict[str, float]) -> None:
        account = self._account
        sharp = steepest([part for _, part in moved], found)
        for group, part in self._alike(moved, found, counts):
            rule, factor = self._rule(group, part, counts), found[part.members[0].name]
            memory, log = bool(memory_name(self._optimizer, group)), part.log
            if part.keeps_step and isinstance(factor, float) and not rule.scales_intake:
                part.keep_step(rule, factor, memory, sharp)
            else:
                if log is not None:
                    part.before = part.before if log.start is None or log.steps else log.start
                    log.lose()
                    account.flush()
                    part.spill()
                off, size, moves = divide(part, rule, factor, memory, part.now, sharp, account.eps)
                account.offs.append(off)
                account.sizes.append(size)
                account.moves.append(moves)
        account.tallied += 1
        every = (*account.parts.values(), *account.bundles)
        logs = [part.log for part in every if part.log is not None and part.log.steps]
        if not logs or full(logs):
            account.flush()

    def _alike(
        self, moved: list[tuple[dict, Part]], found: dict[str, Factor], counts: dict[str, float]
    ) -> Iterator[tuple[dict, Part]]:
        """Bundles in place of their members, where these were multiplied and stepped alike."""
        for group, part in self._bundled(moved):
            if isinstance(part, Bundle):
                alike = {(counts.get(one.name), one.name in self._fresh) for one in part.members}
                multiplied = {
                    id(factor) if isinstance(factor := found[one.name], Tensor) else factor for one in part.members
                }
                if len(alike) > 1 or len(multiplied) > 1:
                    if part.log is not None:
                        part.log.lose()
                    self._account.flush()
                    yield from ((group, one) for one in part.members)
                    continue
            yield group, part

    def _step_numbers(self, moved: list[tuple[dict, Part]]) -> dict[str, float]:
        """How many steps the optimizer has made with each parameter, where it counts them, in one transfer."""
        states = {part.name: self._optimizer.state.get(part.parameter, {}) for _, part in moved}
        found = {name: step for name, state in states.items() if isinstance(step := state.get("step"), Tensor)}
        return dict(zip(found, gathered(found.values()), strict=True))

    def _rule(self, group: dict, part: Part, counts: dict[str, float]) -> Rule:
        members = part.members
        states = [self._state(one, counts) for one in members]
        state = part.joined_state(states) if isinstance(part, Bundle) else states[0]
        return RULES[type(self._optimizer)](group, state, members[0].name in self._fresh)

    def _state(self, part: Part, counts: dict[str, float]) -> dict[str, Any]:
        p = part.parameter
        state = {
            key: part.view(value) if isinstance(value, Tensor) and value.ndim and value.shape == p.shape else value
            for key, value in self._optimizer.state.get(p, {}).items()
        }
        return state | {"step": counts[part.name]} if part.name in counts else state

    def _refuse_newcomers(self) -> None:
        """Parameters that train now, and did not when the tally was made."""
        account = self._account
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                name = self._listener.names.get(id(p))
                if name is None or name in account.parts or name in account.refused or p.grad is None:
                    continue
                if self._where is None or self._where(name):
                    account.refused[name] = f"{name} was not trained when the tally was made, and is left out"

    def _reduce(self, moved: list[tuple[dict, Part]]) -> None:
        """The mean over the processes of a data-parallel run, as that of the gradients themselves."""
        self._listener.count()
        if not self._parallel:
            return
        world = torch.distributed.get_world_size()
        for _, part in self._bundled(moved):
            part.settle()
            rows = part.gradients.contiguous()  # what is reduced has to lie in one piece
            torch.distributed.all_reduce(rows)
            part.gradients.copy_(rows.div_(world))
        visits = self._account.visits.to(moved[0][1].parameter.device if moved else "cpu")
        torch.distributed.all_reduce(visits)
        self._account.visits = visits.cpu()
