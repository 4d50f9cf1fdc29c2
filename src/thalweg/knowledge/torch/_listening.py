"""Listening to the layers: in the user's own backward pass, each group's part of every gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.knowledge.torch._account import Account, gathered
from thalweg.knowledge.torch._attention import attention
from thalweg.knowledge.torch._layers import precision, rule_for, why_not
from thalweg.knowledge.torch._rows import NoBatch, Rows

COUPLED = (
    "batch norm makes the data of a batch depend on each other: a group's part is what passed through its data, and "
    "not what they would have taught alone"
)


class Listener:
    """Hooks on the layers of a model. `labels` are the groups of the data of the forward pass to come."""

    def __init__(self, account: Account, model: nn.Module, stride: int):
        self._account, self._model, self._stride = account, model, stride
        self.labels: Any = None
        self.names: dict[int, str] = {}  # of parameters, by identity
        self._layers: set[int] = set()
        self._rows: tuple[int, Rows] | None = None
        self._counted: list[Rows] = []  # of this step
        self._touched: set[str] = set()  # parameters met in this pass
        self._grown: dict[str, float] = {}  # whether their gradients held something before this pass
        self._unlike: dict[str, tuple[str, Rows]] = {}  # parameters whose rows are not those of the labels, and why
        self._given: dict[int, Any] = {}  # what layers were given that no gradient goes to

    def attach(self, trained: set[int], where: Callable[[str], bool] | None) -> tuple[dict, set[str], list]:
        """Listen to all known layers: the parameters they answer for, those stored (inputs, units), and the hooks."""
        names = self.names = {id(p): name for name, p in self._model.named_parameters()}  # of a tied one the first
        refused = self._account.refused
        parameters: dict[str, Tensor] = {}
        transposed: set[str] = set()
        handles: list[Any] = []
        inside: set[int] = set()  # of an attention layer, which does not call its parts
        for path, layer in self._model.named_modules():
            own = layer.parameters(recurse=isinstance(layer, nn.MultiheadAttention))
            own = [p for p in own if id(p) in trained and p.requires_grad and (where is None or where(names[id(p)]))]
            if not own or id(layer) in inside:
                continue
            why = why_not(layer)
            if isinstance(layer, nn.MultiheadAttention):
                inside |= {id(part) for part in layer.modules()}
            for p in own:
                name = names[id(p)]
                if why:
                    refused[name] = f"{path or type(layer).__name__}: {why}"
                else:
                    parameters[name] = p
                    if type(layer).__name__ == "Conv1D" and p.ndim == 2:
                        transposed.add(name)
            if not why:
                self._layers.add(id(layer))
                handles.append(layer.register_forward_hook(self._after_forward, with_kwargs=True))
        # A parameter that an unknown layer uses too is not all seen.
        return {name: p for name, p in parameters.items() if name not in refused}, transposed, handles

    def forget_labels_read(self) -> None:
        """New labels were set."""
        self._rows = None

    def count(self) -> None:
        """Count the data of the passes since the last step."""
        visits = self._account.visits.zero_()
        for rows in self._counted:
            visits += torch.from_numpy(rows.visits[:-1])
        self._counted = []

    @torch.compiler.disable
    def _after_forward(self, layer: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if id(layer) not in self._layers:  # of a copy of the model
            return
        out = output[0] if isinstance(output, tuple) else output
        if not isinstance(out, Tensor) or not out.requires_grad or not torch.is_grad_enabled():
            return
        if not self._account.due:
            return
        if self.labels is None and not layer.training:
            return  # someone looks at the model before the training begins
        rows = self._current_rows()
        out.register_hook(lambda cotangent: self._split(layer, args, kwargs, cotangent.detach(), rows))

    def _current_rows(self) -> Rows:
        if self.labels is None:
            raise ValueError(
                "labels must be set before the forward pass: tally.labels = the group of each datum (-1: none)"
            )
        version = self.labels._version if isinstance(self.labels, Tensor) else 0
        if self._rows is None or self._rows[0] != version:
            self._rows = version, Rows(self.labels, self._account.groups)
        return self._rows[1]

    @torch.no_grad()
    def _split(self, layer: nn.Module, args: tuple, kwargs: dict, cotangent: Tensor, rows: Rows) -> None:
        """Each group's gradient of one layer, in the backward pass."""
        parts = self._account.parts
        if not self._touched:
            self._begin_pass()
        if not any(seen is rows for seen in self._counted):
            self._counted.append(rows)
        self._account.rounded_as(precision(layer, cotangent))
        whole = isinstance(layer, nn.MultiheadAttention)
        own = layer.named_parameters() if whole else layer._parameters.items()
        names = {key: self.names[id(p)] for key, p in own if p is not None}
        for name in names.values():
            if name in parts and name not in self._touched:
                self._touched.add(name)
                parts[name].begin(not self._grown.get(name))
        # With one group these are no copies, and what holds them may be written to after the pass.
        copies = len(rows.present) > 1

        def add(key: str, group: Any, left: Tensor, right: Tensor | None = None) -> None:
            if names[key] in parts:
                parts[names[key]].add(group, left, right, copies)

        try:
            if whole:
                attention(layer, args, kwargs, cotangent, rows, add, self._stride)
            else:
                x = args[0] if args else next(iter(kwargs.values()))
                self._check_given(layer, x, rows)
                rule = rule_for(layer)
                assert rule is not None
                rule(layer, x.detach(), cotangent, rows, add, self._stride)
            rows.met = True
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
                self._account.notes.add(COUPLED)
        except NoBatch as problem:
            self._unlike |= dict.fromkeys((name for name in names.values() if name in parts), (str(problem), rows))

    def _begin_pass(self) -> None:
        """Look which gradients hold something already: this pass is added to those."""
        torch.autograd.Variable._execution_engine.queue_callback(self._end_of_pass)
        self._touched.add("")
        held = {name: p.grad for name, part in self._account.parts.items() if (p := part.parameter).grad is not None}
        self._grown = dict(zip(held, gathered(gradient.any() for gradient in held.values()), strict=True))

    def _check_given(self, layer: nn.Module, x: Tensor, rows: Rows) -> None:
        """Refuse a layer that reads the same rows whatever the data are, such as an embedding of positions.

        Its rows could be as many as the labels by chance, and are those of no datum.
        """
        past = self._given.get(id(layer), ())
        if x.requires_grad or past is None:
            return
        if not past:
            self._given[id(layer)] = x.clone(), rows
        elif past[0].shape != x.shape or not torch.equal(past[0], x):
            self._given[id(layer)] = None  # it reads data
        elif not past[1].alike(rows):
            if (x == x[:1]).all():
                self._given[id(layer)] = None  # each datum has these rows
                return
            raise NoBatch(
                f"{type(layer).__name__} reads the same rows whatever the data: they are not those of the labels"
            )

    def _end_of_pass(self) -> None:
        """At the end of a backward pass: parameters whose rows are not those of the labels are left out."""
        self._touched.clear()
        unlike, self._unlike = self._unlike, {}
        for name, (why, rows) in unlike.items():
            if not rows.met:
                raise ValueError(why)
            self._account.refuse(name, f"{name} is left out of the tally: {why}")
