"""`replay`: tallies of a run that is finished, from its checkpoints."""

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from thalweg.knowledge._tallied import Tallied
from thalweg.knowledge.torch._rules import check_optimizer, has_momentum
from thalweg.knowledge.torch._tally import Tally


def replay(
    checkpoints: Iterable[Any],
    load: Callable[[Any], Any],
    batches: Iterable[Any] | Callable[[Any], Iterable[Any]],
    optimizer: Callable[[Any], Any],
    groups: int,
    *,
    loss: Callable[[nn.Module, Any], Any] | None = None,
    steps: int | None = None,
    **how: Any,
) -> Tallied:
    """What a tally of a finished run would have said, estimated at its checkpoints.

    At every checkpoint each batch makes one step of the optimizer, from the checkpoint's own weights, and is tallied;
    then the weights are put back. The sums over checkpoints stand for the sums over the run: the more checkpoints, the
    nearer (`note` and `message` say how many there were).

    **Arguments**

    - `checkpoints`: the checkpoints in any form, such as paths; `load(checkpoint)` gives the model with its weights, or
      (model, state of the optimizer).
    - `batches`: pairs (batch, labels), the group of each datum as in `Tally.labels`: a list, or a function of the
      checkpoint.
    - `optimizer`: a function of the parameters, such as `lambda p: torch.optim.SGD(p, lr=0.1)`.
    - `groups`: G. - `loss`: a function of (model, batch); by default `model(batch)` is the loss, or has it as `.loss`.
    - `steps`: how many steps the run had: tallies are scaled to that many. - `how`: passed to `Tally`.

    **Returns** a `Tallied`. Without the optimizer's state a replay of Adam starts its second moments at every batch:
    the steps then all have the size of the learning rate, and the note says so. Momentum counts as other.
    """
    for name, value in (("load", load), ("optimizer", optimizer), ("loss", loss)):
        if not callable(value) and not (name == "loss" and value is None):
            raise TypeError(f"{name} must be a function, got one of type {type(value).__name__}")
    for name, values in (("checkpoints", checkpoints), ("batches", batches)):
        listed = isinstance(values, Iterable) and not isinstance(values, str | bytes)
        if not listed and not (name == "batches" and callable(values)):
            raise TypeError(f"{name} must be a list, got one of type {type(values).__name__}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps must be a whole number >= 1, got {steps!r}")
    # A list would be used up by the first checkpoint if it were a generator.
    fixed = None if callable(batches) else list(batches)
    found: list[Tallied] = []
    without_state = False
    for checkpoint in checkpoints:
        loaded = load(checkpoint)
        model, state = loaded if isinstance(loaded, tuple) else (loaded, None)
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"load must give a torch module, or (module, state of its optimizer), got {type(model).__name__}"
            )
        trained = optimizer(model.parameters())
        if state is not None:
            trained.load_state_dict(state)
        tally = Tally(model, trained, groups, **how)
        without_state |= state is None and has_momentum(check_optimizer(trained))
        try:
            _steps_from_here(model, trained, tally, fixed if fixed is not None else batches(checkpoint), loss)  # type: ignore[operator]
        finally:
            tally.remove()
        found.append(tally.result())
    if not found:
        raise ValueError("checkpoints must hold at least one checkpoint, got none")
    return _together(found, steps, without_state)


def _steps_from_here(model: nn.Module, optimizer: Any, tally: Tally, batches: Any, loss: Any) -> None:
    weights = copy.deepcopy(model.state_dict())
    memory = copy.deepcopy(optimizer.state_dict())
    count = 0
    for pair in batches:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"batches must hold pairs (batch, labels), got one of type {type(pair).__name__}")
        batch, labels = pair
        tally.labels = labels
        optimizer.zero_grad()
        value = model(batch) if loss is None else loss(model, batch)
        value = getattr(value, "loss", value)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise ValueError("loss must give a single number: pass loss=, a function of (model, batch)")
        value.backward()
        optimizer.step()
        tally.forget_momenta()  # the checkpoint's own
        model.load_state_dict(weights)
        optimizer.load_state_dict(memory)
        count += 1
    if not count:
        raise ValueError("batches must hold at least one pair (batch, labels) for every checkpoint, got none")


def _together(found: list[Tallied], steps: int | None, without_state: bool) -> Tallied:
    made = sum(int(one.steps) for one in found)
    scale = 1.0 if steps is None else steps / made
    first = found[0]

    def total(kind: str) -> Any:
        trees = [getattr(one, kind) for one in found]
        if trees[0] is None:
            return None
        names = set.intersection(*(set(tree) for tree in trees))
        return {name: scale * torch.stack([tree[name] for tree in trees]).sum(0) for name in trees[0] if name in names}

    notes = [f"estimated from {len(found)} checkpoints, {made} replayed steps"]
    if without_state:
        notes.append(
            "the optimizer's momenta were not in the checkpoints: give (model, state of the optimizer) in load"
        )
    notes += sorted({one.note for one in found if one.note})
    return dataclasses.replace(
        first,
        absolute=total("absolute"),
        signed=total("signed"),
        counts=sum(one.counts for one in found),
        steps=made,
        conservation=max(one.conservation for one in found),
        cancellation=max(one.cancellation for one in found),
        tolerance=max(one.tolerance or 0.0 for one in found),
        note="; ".join(notes),
    )
