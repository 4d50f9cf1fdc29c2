"""`Tally`: three lines in a training loop of PyTorch's, and every step says which data moved which parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.knowledge._tallied import KINDS, RESOLUTIONS, Tallied, summed
from thalweg.knowledge.torch import _layers
from thalweg.knowledge.torch._layers import NoBatch, Rows, rule_for
from thalweg.knowledge.torch._log import LARGE, Log
from thalweg.knowledge.torch._memory import bytes_of, check_kinds
from thalweg.knowledge.torch._rules import RULES, check_optimizer, memory_name

# How far gradients made in low precision may be from the sum of their parts (rounded to 8 or 11 bits).
TILE = 2**16  # numbers of all groups that are worked on at a time
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
COUPLED = (
    "batch norm makes the data of a batch depend on each other: a group's part is what passed through its data, and "
    "not what they would have taught alone"
)


class Tally:
    """How far each group of data moves each parameter of a PyTorch model, counted while it trains.

    It listens to the forward and backward pass of the model's layers and to the steps of the optimizer, and changes
    neither. One backward pass, the user's own, serves all groups.

        tally = Tally(model, optimizer, groups=10)
        for x, y in batches:
            tally.labels = y                      # the group of each datum, before each forward pass
            loss(model(x), y).backward()
            optimizer.step(); optimizer.zero_grad()
        tally.absolute["0.weight"]                # (11, *shape): ten groups, then "other"
        tally.result().share(0, 1)

    Known layers: linear, convolution, embedding (tied too), layer, RMS, group, instance and batch norm,
    `nn.MultiheadAttention`, GPT-2's Conv1D; subclasses that do not change `forward`. Parameters of other layers are
    left out, and so are those that meet no datum by itself, such as an embedding of positions that all data share;
    `refused` says why. Known optimizers: SGD (momentum, Nesterov), Adam, AdamW, RMSprop, Adagrad. Under
    Adam all groups share the second moments of the step: nobody is credited for the scale. Clipping and loss scaling
    act as one factor on all groups' parts. Gradients may be accumulated over several backward passes, and averaged
    over the processes of `DistributedDataParallel` (pass the wrapped model). Under autocast the parts sum to the
    change to the rounding of the low precision: `conservation` up to 0.1 for bfloat16 and 0.02 for float16 is
    accepted.

    **Arguments**

    - `model`: the module that is trained; `optimizer`: its optimizer.
    - `groups`: G, the number of groups. `labels` are whole numbers from 0 to G - 1, or -1 for none, of shape (batch,);
      or (batch, tokens), and then a layer's gradient is divided by the token at which the layer is used.
    - `kinds`: `"absolute"`, `"signed"`, or both. - `every`: tally the last of every so many steps.
    - `window`: `(first, end)`: the steps tallied, counted from here. What is learned in other steps counts as other.
    - `where`: a function of a parameter's name: whether it is tallied.
    - `per`: `"parameter"`; `"unit"` sums over the inputs of each unit, `"module"` over each module, as the run goes.
    - `stride`: tally every so many inputs of each weight matrix only; those exactly. Memory and time fall with it.
    - `most_bytes`: the memory the tally may take (4 GB); `memory(...)` tells it for any model beforehand.

    **Raises** `ValueError` or `TypeError` for an optimizer that is not known, a tally that is too large, labels that do
    not fit the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        groups: int,
        *,
        kinds: Any = KINDS,
        where: Callable[[str], bool] | None = None,
        window: tuple[int, int] | None = None,
        every: int = 1,
        per: str = "parameter",
        stride: int = 1,
        most_bytes: float = 4e9,
    ):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch module, got {type(model).__name__}")
        for name, value in (("groups", groups), ("every", every), ("stride", stride)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        if per not in RESOLUTIONS:
            raise ValueError(f'per must be "parameter", "unit" or "module", got {per!r}')
        if isinstance(most_bytes, bool) or not isinstance(most_bytes, int | float) or not most_bytes > 0:
            raise ValueError(f"most_bytes must be a number of bytes > 0, got {most_bytes!r}")
        self.kinds = check_kinds(kinds)
        if where is not None and not callable(where):
            raise TypeError(f"where must be a function of a parameter's name, got {where!r}")
        self.window = _check_window(window)
        self.optimizer = check_optimizer(optimizer)
        self.groups, self.every, self.per, self.stride = int(groups), int(every), per, int(stride)
        self._labels: Any = None
        self.refused: dict[str, str] = {}
        self.notes: set[str] = set()
        self.counts = torch.zeros(self.groups, dtype=torch.int64)
        self.seen = self.tallied = 0
        self._off, self._cancelling = 0.0, 1.0
        self._where = where
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        self._parallel = isinstance(model, nn.parallel.DistributedDataParallel)
        model = model.module if self._parallel else model
        self._model: nn.Module = getattr(model, "_orig_mod", model)
        self._rows: tuple[int, Rows] | None = None
        self._precision = torch.float64
        self._counted: list[Rows] = []
        self._visits = torch.zeros(self.groups, dtype=torch.int64)
        self._touched: set[str] = set()
        self._unlike: dict[str, tuple[str, Rows]] = {}  # parameters whose rows are not those of the labels, and why
        self._given: dict[int, Any] = {}
        self._handles: list[Any] = []
        self._before: dict[str, Tensor] = {}
        self._fresh: set[str] = set()
        self.parameters, self._names = self._listen(where)
        size = bytes_of(self._sizes(), self.groups, self.kinds, per, self._has_momentum())
        if size > most_bytes:
            self.remove()
            raise ValueError(
                f"this tally would take {size / 1e9:.3g} GB, and most_bytes allows {most_bytes / 1e9:.3g} GB: tally "
                'one of the kinds, fewer groups, a part (where=..., stride=...), or sums (per="unit"), or allow more'
            )
        room = lambda p: torch.zeros((self.groups + 1, *p.shape), dtype=_layers._wide(p), device=p.device)  # noqa: E731
        views = {name: self._view(name, p.detach()) for name, p in self.parameters.items()}
        self._gradients = {name: room(view) for name, view in views.items()}
        # Rows of `_gradients` that hold something; the others are left as they were, and count as zero.
        self._filled: dict[str, set[int]] = {name: set(range(self.groups + 1)) for name in views}
        self._logs = {
            name: Log(tuple(view.shape), self.groups, view) for name, view in views.items() if self._logged(name)
        }
        self._momenta: dict[str, Tensor] = {}
        self._fades: dict[str, float] = {}
        self._kept = {
            kind: {name: summed(room(view), _first(per), 1, self._units(name)) for name, view in views.items()}
            for kind in self.kinds
        }

    # --- What is set, and what is read ---

    @property
    def labels(self) -> Any:
        """The groups of the data of the forward pass to come."""
        return self._labels

    @labels.setter
    def labels(self, labels: Any) -> None:
        self._labels, self._rows = labels, None

    @property
    def conservation(self) -> float:
        """How far the parts were from the change, at most; see `Tallied`."""
        self._flush()
        return self._off

    @property
    def cancellation(self) -> float:
        """How much larger than the change the parts were, at most; see `Tallied`."""
        self._flush()
        return self._cancelling

    @property
    def absolute(self) -> dict[str, Tensor]:
        """Sums of |change| by parameter name, (G + 1, *shape), "other" last."""
        return self._of_kind("absolute")

    @property
    def signed(self) -> dict[str, Tensor]:
        """Sums of changes by parameter name, (G + 1, *shape), "other" last."""
        return self._of_kind("signed")

    def result(self) -> Tallied:
        """The tallies so far, labelled, as those of `tw.knowledge.Tally`."""
        self._flush()
        kept = {kind: {name: leaf.cpu() for name, leaf in self._kept[kind].items()} for kind in self.kinds}
        found = Tallied(
            kept.get("absolute"),
            kept.get("signed"),
            self.counts.numpy().copy(),
            self.tallied,
            self.conservation,
            self.cancellation,
            "parameter" if self.per != "unit" else "unit",
            {name: self._units(name) for name in self.parameters},
            TOLERANCES[self._precision] if self.parameters else None,
            "; ".join([*sorted(set(self.refused.values())), *sorted(self.notes)]),
        )
        return found.per("module") if self.per == "module" else found

    def state_dict(self) -> dict[str, Any]:
        """All that the tally needs to go on, for a checkpoint."""
        self._flush()
        for name in self.parameters:
            self._spill(name)
            self._settle(name)
        copied = lambda tree: {name: leaf.clone() for name, leaf in tree.items()}  # noqa: E731
        return {
            "kept": {kind: copied(tree) for kind, tree in self._kept.items()},
            "gradients": copied(self._gradients),
            "momenta": copied(self._momenta),
            "fades": dict(self._fades),
            "counts": self.counts.clone(),
            "visits": self._visits.clone(),
            "numbers": [self.seen, self.tallied, self._off, self._cancelling],
            "precision": str(self._precision),
            "refused": dict(self.refused),
            "notes": sorted(self.notes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same tally."""
        for kind in self.kinds:
            shapes = {name: tuple(leaf.shape) for name, leaf in self._kept[kind].items()}
            given = {name: tuple(leaf.shape) for name, leaf in state.get("kept", {}).get(kind, {}).items()}
            given = {name: shape for name, shape in given.items() if name in shapes}
            if any(given.get(name) != shape for name, shape in shapes.items() if name not in state.get("refused", {})):
                raise ValueError(f"state must be of a tally of the same model, groups, kinds and per: {kind} differs")
        for name in set(self.parameters) & set(state["refused"]):
            self._refuse(name, state["refused"][name])
        at = {name: p.device for name, p in self.parameters.items()}
        moved = lambda tree: {name: tree[name].to(at[name]).clone() for name in tree if name in at}  # noqa: E731
        self._kept = {kind: moved(state["kept"][kind]) for kind in self.kinds}
        self._gradients, self._momenta, self._fades = (
            moved(state["gradients"]),
            moved(state["momenta"]),
            dict(state["fades"]),
        )
        self._filled = {name: set(range(self.groups + 1)) for name in self.parameters}
        self.notes = set(state["notes"])
        self._logs = {name: Log(log.shape, self.groups, log.like) for name, log in self._logs.items()}
        self.counts, self._visits = state["counts"].clone(), state["visits"].clone()
        self.seen, self.tallied, self._off, self._cancelling = state["numbers"]
        self._precision = next(kind for kind in TOLERANCES if str(kind) == state["precision"])

    def remove(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # --- Listening to the layers ---

    def _listen(self, where: Callable[[str], bool] | None) -> tuple[dict[str, Tensor], dict[int, str]]:
        """Hooks on all known layers; the parameters they answer for, by name, and the names by identity."""
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        names = {id(p): name for name, p in self._model.named_parameters()}  # of a tied parameter the first name
        parameters: dict[str, Tensor] = {}
        self._transposed: set[str] = set()
        self._layers: set[int] = set()
        self._handles += [
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step),
        ]
        inside: set[int] = set()  # of an attention layer, which does not call its parts
        for path, layer in self._model.named_modules():
            own = layer.parameters(recurse=isinstance(layer, nn.MultiheadAttention))
            own = [p for p in own if id(p) in trained and p.requires_grad and (where is None or where(names[id(p)]))]
            if not own or id(layer) in inside:
                continue
            why = self._why_not(layer)
            if isinstance(layer, nn.MultiheadAttention):
                inside |= {id(part) for part in layer.modules()}
            for p in own:
                name = names[id(p)]
                if why:
                    self.refused[name] = f"{path or type(layer).__name__}: {why}"
                else:
                    parameters[name] = p
                    if type(layer).__name__ == "Conv1D" and p.ndim == 2:
                        self._transposed.add(name)
            if not why:
                self._layers.add(id(layer))
                self._handles.append(layer.register_forward_hook(self._after_forward, with_kwargs=True))
        # A parameter that an unknown layer uses too is not all seen.
        parameters = {name: p for name, p in parameters.items() if name not in self.refused}
        if not parameters:
            self.remove()
            reasons = "; ".join(sorted(set(self.refused.values()))) or (
                "the optimizer trains none of the model's parameters"
                if where is None
                else "the optimizer trains none of those that where picks"
            )
            raise ValueError(f"model has no parameter that can be tallied: {reasons}")
        return parameters, names

    def _why_not(self, layer: nn.Module) -> str:
        kind = type(layer).__name__
        if isinstance(layer, nn.MultiheadAttention):
            if layer.dropout:
                return f"{kind} with dropout draws at random inside, and is left out of the tally: use dropout=0"
            return ""
        if rule_for(layer) is None:
            return f"the layer {kind} is not known, and its parameters are left out of the tally"
        if isinstance(layer, nn.Embedding) and (layer.sparse or layer.scale_grad_by_freq):
            return f"{kind} with sparse=True or scale_grad_by_freq=True is left out of the tally"
        return ""

    def _due(self) -> bool:
        """Whether the step that is being prepared is tallied."""
        inside = self.window is None or self.window[0] <= self.seen < self.window[1]
        return inside and (self.seen + 1) % self.every == 0

    def __deepcopy__(self, memo: Any) -> "Tally":
        """Itself: a copied model (an average of weights, say) takes its hooks along, and is not listened to."""
        return self

    @torch.compiler.disable
    def _after_forward(self, layer: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if id(layer) not in self._layers:
            return
        out = output[0] if isinstance(output, tuple) else output
        if not isinstance(out, Tensor) or not out.requires_grad or not torch.is_grad_enabled() or not self._due():
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
            try:
                labels = torch.as_tensor(self.labels).detach()
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(
                    f"labels must be whole numbers, the group of each datum, got {str(self.labels)[:80]!r}"
                ) from None
            if (
                labels.is_floating_point()
                or labels.ndim not in (1, 2)
                or not labels.numel()
                or labels.dtype == torch.bool
            ):
                raise TypeError(
                    f"labels must be whole numbers of shape (batch,) or (batch, tokens), got {labels.dtype} of shape "
                    f"{tuple(labels.shape)}"
                )
            labels = labels.long()
            least, most = int(labels.min()), int(labels.max())
            if least < -1 or most >= self.groups:
                raise ValueError(
                    f"labels must be from 0 to {self.groups - 1}, or -1 for none, got from {least} to {most}"
                )
            self._rows = version, Rows(torch.where(labels < 0, self.groups, labels), self.groups)
        return self._rows[1]

    @torch.no_grad()
    def _split(self, layer: nn.Module, args: tuple, kwargs: dict, cotangent: Tensor, rows: Rows) -> None:
        """Each group's gradient of one layer, in the backward pass."""
        if not self._touched:
            torch.autograd.Variable._execution_engine.queue_callback(self._end_of_pass)
            self._touched.add("")
        if not any(seen is rows for seen in self._counted):
            self._counted.append(rows)
        if cotangent.dtype in (torch.bfloat16, torch.float16):
            self._precision = cotangent.dtype
        own = dict(layer.named_parameters(recurse=isinstance(layer, nn.MultiheadAttention)))
        names = {key: self._names[id(p)] for key, p in own.items()}
        for key, p in own.items():
            if names[key] in self.parameters and names[key] not in self._touched:
                self._touched.add(names[key])
                self._begin(names[key], p)

        def add(key: str, group: Any, left: Tensor, right: Tensor | None = None) -> None:
            name = names[key]
            if name not in self.parameters:
                return
            log = self._logs.get(name)
            if log is None or log.open is None or right is None:
                self._spill(name)
                self._enter(name, group, left, right)
            elif len(rows.present) == 1:  # these are no copies, and what holds them may be written to after the pass
                log.open.append((group, left.clone(), right.clone()))
            else:
                log.open.append((group, left, right))

        try:
            if isinstance(layer, nn.MultiheadAttention):
                _layers.attention(layer, args, kwargs, cotangent, rows, add, self.stride)
            else:
                x = args[0] if args else next(iter(kwargs.values()))
                self._check_given(layer, x, rows)
                rule = rule_for(layer)
                assert rule is not None
                rule(layer, x.detach(), cotangent, rows, add, self.stride)
            rows.met = True
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
                self.notes.add(COUPLED)
        except NoBatch as problem:
            self._unlike |= dict.fromkeys(
                (name for name in names.values() if name in self.parameters), (str(problem), rows)
            )

    def _begin(self, name: str, p: Tensor) -> None:
        """A backward pass comes to a parameter for the first time."""
        log = self._logs.get(name)
        # Nothing accumulated, so that this backward pass is the first since zero_grad.
        if p.grad is None or not p.grad.any():
            self._filled[name].clear()
            if log is not None:
                log.open = []
        else:
            self._spill(name)

    def _spill(self, name: str) -> None:
        """Add up the factors kept of this pass."""
        log = self._logs.get(name)
        if log is not None and log.open is not None:
            for factors in log.spill():
                self._enter(name, *factors)

    def _enter(self, name: str, group: Any, left: Tensor, right: Tensor | None = None) -> None:
        """Add a gradient to that of a group, or of all (`None`); or `left^T right` over the rows of each group."""
        rows, filled = self._gradients[name], self._filled[name]
        if right is not None:
            left, right = left.to(rows.dtype), right.to(rows.dtype)
            for one, part in group:
                torch.addmm(rows[one], left[part].T, right[part], beta=float(one in filled), out=rows[one])
                filled.add(one)
        elif group is not None:
            rows[group].copy_(left) if group not in filled else rows[group].add_(left)
            filled.add(group)
        else:
            self._settle(name)
            rows.add_(left)

    def _check_given(self, layer: nn.Module, x: Tensor, rows: Rows) -> None:
        """Refuse a layer that reads the same rows whatever the data are, such as an embedding of positions.

        Its rows could be as many as the labels by chance, and are those of no datum.
        """
        past = self._given.get(id(layer), ())
        if x.requires_grad or past is None:
            return
        if not past:
            self._given[id(layer)] = x.clone(), rows.labels
        elif past[0].shape != x.shape or not torch.equal(past[0], x):
            self._given[id(layer)] = None  # it reads data
        elif (past[1].shape != rows.labels.shape or not torch.equal(past[1], rows.labels)) and not (x == x[:1]).all():
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
            self._refuse(name, f"{name} is left out of the tally: {why}")

    # --- Listening to the optimizer ---

    def _before_step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        due = self._due()
        self._before, self._fresh = {}, set()
        for group, name, p in self._each():
            key = memory_name(self.optimizer, group)
            momentum = self.optimizer.state.get(p, {}).get(key) if key else None
            if momentum is None:
                self._fresh.add(name)
            elif name not in self._momenta:
                self._momenta[name] = self._zeros(name)
                self._momenta[name][-1] = self._view(name, momentum)
            if due or group.get("weight_decay"):
                self._before[name] = self._view(name, p.detach()).clone()

    @torch.no_grad()
    def _after_step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        due = self._due()
        self.seen += 1
        moved = [(group, name, p) for group, name, p in self._each() if p.grad is not None]
        self._refuse_newcomers()
        if due:
            self._reduce([name for _, name, _ in moved])
            factors = self._factors(moved)
            self._count()
            largest, change, closed = [], [], []
            steepest = max((self._steepness(name, p, factors.get(name)) for _, name, p in moved), default=0.0)
        for group, name, p in moved:
            if name not in self.parameters:
                continue
            state = {
                key: self._view(name, value) if _like(value, p) else value for key, value in self._state(p).items()
            }
            after = self._view(name, p.detach())
            before = self._before.get(name, after)
            rule = RULES[type(self.optimizer)](group, state, before, name in self._fresh)
            if not due:
                self._pass(name, p, rule, before, memory_name(self.optimizer, group))
                continue
            factor, key, log = factors[name], memory_name(self.optimizer, group), self._logs.get(name)
            scalars = isinstance(rule.scale, float) and isinstance(factor, float)
            plain = scalars and not key and not rule.pull and rule.rest is None
            if log is not None and log.open is not None and plain:
                sharp = abs(rule.scale) * steepest
                far = log.close(factor * rule.sign * rule.scale, before, after, sharp)
                change.append((torch.zeros_like(far), far))
                closed.append(name)
                continue
            self._spill(name)
            if plain and self.per == "parameter" and p.ndim:
                scale = factor * rule.sign * rule.scale
                total = self._total(name).mul_(scale)
                size = self._add_scaled(name, scale)
            else:
                self._settle(name)
                rows = self._rows_of(name, rule, before, factor, key)
                size, total = self._add(name, rows), _sum(rows)
            largest.append(size.max())
            change.append(self._check(total, before, after, size, rule, steepest))
        if due and change:
            off, moves = (torch.stack(parts).max() for parts in zip(*change, strict=True))
            self.tallied += 1
            self._off = max(self._off, float(off))
            if largest and float(moves) > 0:
                self._cancelling = max(self._cancelling, float(torch.stack(largest).max() / moves))
            for name in closed:
                self._logs[name].far += float(moves)
                if self._logs[name].full:
                    self._flush(name)

    @torch.no_grad()
    def _flush(self, *names: str) -> None:
        """Add steps that are kept as factors to the tallies, of these parameters or of all."""
        for name in names or self._logs:
            log = self._logs[name]
            if log.steps:
                kept = {kind: self._kept[kind][name] for kind in self.kinds}
                off, cancelling = log.add_to(kept, self._view(name, self.parameters[name].detach()))
                self._off, self._cancelling = max(self._off, off), max(self._cancelling, cancelling)

    def _refuse_newcomers(self) -> None:
        """Parameters that train now, and did not when the tally was made."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                name = self._names.get(id(p))
                if name is None or name in self.parameters or name in self.refused or p.grad is None:
                    continue
                if self._where is None or self._where(name):
                    self.refused[name] = f"{name} was not trained when the tally was made, and is left out"

    def _each(self) -> Any:
        """(parameter group, name, parameter) of all that is tallied."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                name = self._names.get(id(p))
                if name in self.parameters:
                    yield group, name, p

    def _state(self, p: Tensor) -> dict[str, Any]:
        return self.optimizer.state.get(p, {})

    def _rows_of(self, name: str, rule: Any, before: Tensor, factor: Any, key: str | None) -> Tensor:
        """The groups' parts of one parameter's step, (G + 1, *shape)."""
        gradients = self._gradients[name] * (factor * rule.sign)
        if rule.pull:
            gradients[-1].add_(before, alpha=rule.pull)
        if key:
            momenta = self._momenta.get(name)
            momenta = self._momenta[name] = self._zeros(name) if momenta is None else momenta
            fade = self._fades.pop(name, 1.0)
            momenta[:-1].mul_(rule.decay * fade)
            momenta[-1].mul_(rule.decay)
            momenta.add_(
                gradients * rule.intake if isinstance(rule.intake, Tensor) else gradients, alpha=_alpha(rule.intake)
            )
            rows = momenta * rule.lead + gradients * rule.direct if rule.direct else momenta * rule.lead
        else:
            rows = gradients
        rows = rows.mul_(rule.scale)
        if rule.rest is not None:
            rows[-1].add_(rule.rest)
        return rows

    def _pass(self, name: str, p: Tensor, rule: Any, before: Tensor, key: str | None) -> None:
        """A step that is not tallied: the groups' momenta fade, and the new gradient is nobody's."""
        if not key:
            return
        gradient = self._view(name, p.grad).to(_layers._wide(p)) * rule.sign + rule.pull * before
        momenta = self._momenta.get(name)
        momenta = self._momenta[name] = self._zeros(name) if momenta is None else momenta
        self._fades[name] = self._fades.get(name, 1.0) * rule.decay
        momenta[-1].mul_(rule.decay).add_(gradient * rule.intake)

    def _add(self, name: str, rows: Tensor) -> Tensor:
        """Add a step to the tallies. Gives the sum of the parts' sizes."""
        per, units = _first(self.per), self._units(name)
        if "signed" in self.kinds:
            self._kept["signed"][name] += summed(rows, per, 1, units)
        size = rows.abs()
        if "absolute" in self.kinds:
            self._kept["absolute"][name] += summed(size, per, 1, units)
        return size.sum(0)

    def _add_scaled(self, name: str, scale: float) -> Tensor:
        """Add a step whose parts are the gradients, times one number. Gives the sum of the parts' sizes."""
        here = self._present(name)
        gradients = self._gradients[name][here]
        if "signed" in self.kinds:
            self._kept["signed"][name][here].add_(gradients, alpha=scale)
        kept = self._kept["absolute"][name][here] if "absolute" in self.kinds else None
        size = torch.empty_like(gradients[0])
        # In tiles that stay in the cache: the moduli are needed twice.
        length = len(size) if size.ndim else 1
        tile = max(1, TILE * length // max(1, gradients.numel()))
        room = torch.empty_like(gradients[:, :tile])
        for first in range(0, length, tile):
            at = slice(first, first + tile)
            moduli = torch.abs(gradients[:, at], out=room[:, : min(tile, length - first)])
            if kept is not None:
                kept[:, at].add_(moduli, alpha=abs(scale))
            size[at] = _sum(moduli)
        return size.mul_(abs(scale))

    def _present(self, name: str) -> slice:
        """The rows of the gradients from the first to the last that hold something; gaps are filled with zeros."""
        filled = self._filled[name] or {0}
        first, last = min(filled), max(filled) + 1
        self._settle(name, range(first, last))
        return slice(first, last)

    def _settle(self, name: str, rows: Any = None) -> None:
        """Zeros in the rows that hold nothing, all or some."""
        for row in set(range(self.groups + 1) if rows is None else rows) - self._filled[name]:
            self._gradients[name][row] = 0
            self._filled[name].add(row)

    def _total(self, name: str) -> Tensor:
        return _sum(self._gradients[name][self._present(name)])

    def _steepness(self, name: str, p: Any, factor: Any) -> float:
        """The largest entry of a gradient, as it was before it was clipped entry by entry."""
        unclipped = self._total(name) if isinstance(factor, Tensor) else p.grad
        return float(max(-(ends := unclipped.aminmax())[0], ends[1]))

    def _check(self, total: Tensor, before: Tensor, after: Tensor, size: Tensor, rule: Any, steepest: float) -> Any:
        """Conservation of one parameter's step, and its largest change."""
        # The change is known to the rounding of the parameter, a gradient to that of the largest in the backward pass.
        reach = abs(rule.lead) * rule.intake + abs(rule.direct)
        sharp = abs(rule.scale) * reach * steepest
        off = torch.sub(after, before).sub_(total).abs_()
        off.sub_(torch.maximum(before.abs(), after.abs()), alpha=torch.finfo(total.dtype).eps)
        off.sub_(torch.finfo(self._precision).eps * (sharp + size.max()))
        most = off.max()
        if float(most) > 0:
            off.clamp_(min=0)
            most = torch.where(off == 0, off, off / size).max()
        return most.clamp(min=0), total.abs().max()

    def _factors(self, moved: list) -> dict[str, Any]:
        """What the gradients were multiplied by before the step: loss scaling, clipping; by name.

        One factor for all explains clipping by the norm; one a parameter, clipping in parts; one an entry, by value.
        A parameter that none explains got gradient that did not pass through its layer, and is refused.
        """
        pairs = {name: self._pair(name, p) for _, name, p in moved}
        if not pairs:
            return {}
        norm = lambda array: float(torch.linalg.vector_norm(array))  # noqa: E731
        dot = lambda a, b: torch.dot(a.reshape(-1), b.reshape(-1))  # noqa: E731
        dots = {name: torch.stack([dot(g, s), dot(s, s)]).double() for name, (g, s) in pairs.items()}
        numbers = dict(zip(dots, torch.stack(list(dots.values())).tolist(), strict=True))
        top, bottom = (sum(values[i] for values in numbers.values()) for i in (0, 1))
        everywhere = top / bottom if bottom else 1.0
        tolerance = TOLERANCES[self._tolerated()]
        largest = max(norm(g) for g, _ in pairs.values())
        rounding = min(100 * torch.finfo(self._tolerated()).eps, 1e-2)

        def explained(g: Tensor, s: Tensor, own: float, by_entry: bool) -> Any:
            # Some gradients are zero but for rounding, such as that of a bias before a batch norm.
            allowed = tolerance * norm(g) + rounding * largest
            for factor in (everywhere, own):
                if norm(torch.sub(g, s, alpha=factor)) <= allowed:
                    return factor
            if not by_entry:
                return None
            noise = rounding * g.abs().max()
            factors = torch.where((g.abs() <= noise) & (s.abs() <= noise), 1.0, g / s)
            # Clipping by value makes entries smaller, and changes no sign.
            return factors if float(factors.min()) >= 0 and float(factors.max()) <= 1 + tolerance else None

        factors: dict[str, Any] = {}
        for _, name, p in moved:
            gs, ss = numbers[name]
            own = gs / ss if ss else 1.0
            log = self._logs.get(name)
            probed = log is not None and log.open is not None
            factors[name] = explained(*pairs[name], own, not probed)
            if factors[name] is None and probed:
                self._spill(name)
                factors[name] = explained(*self._pair(name, p), own, True)
            if factors[name] is None:
                del factors[name]
                why = "part of its gradient did not pass through its layer (a penalty, a function of the weight)"
                self._refuse(name, f"{name}: {why}, and it is left out of the tally")
        return factors

    def _pair(self, name: str, p: Any) -> tuple[Tensor, Tensor]:
        """The optimizer's gradient and the groups' sum: all entries, or random sums of them where factors are kept."""
        log, gradient = self._logs.get(name), self._view(name, p.grad)
        if log is not None and log.open is not None:
            return log.probe(gradient)
        mine = self._total(name)
        return gradient.to(mine.dtype), mine

    def _tolerated(self) -> torch.dtype:
        single = any(_layers._wide(p) == torch.float32 for p in self.parameters.values())
        if self._precision == torch.float64 and single:
            self._precision = torch.float32
        return self._precision

    def _refuse(self, name: str, why: str) -> None:
        self.refused[name] = why
        for kept in (self.parameters, self._gradients, self._momenta, self._logs, *self._kept.values()):
            kept.pop(name, None)

    def _reduce(self, names: list[str]) -> None:
        """The mean over the processes of a data-parallel run, as that of the gradients themselves."""
        self._visits.zero_()
        for rows in self._counted:
            self._visits += torch.bincount(rows.labels.reshape(-1).cpu(), minlength=self.groups + 1)[: self.groups]
        self._counted = []
        if not self._parallel:
            return
        world = torch.distributed.get_world_size()
        for name in names:
            self._settle(name)
            torch.distributed.all_reduce(self._gradients[name])
            self._gradients[name] /= world
        device = next(iter(self.parameters.values())).device
        visits = self._visits.to(device)
        torch.distributed.all_reduce(visits)
        self._visits = visits.cpu()

    def _count(self) -> None:
        self.counts += self._visits

    # --- Shapes ---

    def _view(self, name: str, array: Tensor) -> Tensor:
        """The entries of a parameter that are tallied."""
        if self.stride == 1 or array.ndim < 2:
            return array
        return array[:: self.stride] if name in self._transposed else array[:, :: self.stride]

    def _zeros(self, name: str) -> Tensor:
        return torch.zeros_like(self._gradients[name])

    def _units(self, name: str) -> int:
        return 1 if name in self._transposed else 0

    def _of_kind(self, kind: str) -> dict[str, Tensor]:
        self._flush()
        if kind not in self.kinds:
            raise AttributeError(f"this tally does not keep {kind} changes: make it with kinds including {kind!r}")
        return dict(self._kept[kind])

    def _logged(self, name: str) -> bool:
        """Whether steps of a parameter may be kept as factors: a matrix, under plain descent, on one process."""
        group = next(g for g in self.optimizer.param_groups if any(p is self.parameters[name] for p in g["params"]))
        plain = type(self.optimizer) is torch.optim.SGD and not group["momentum"] and not group["weight_decay"]
        large = self.parameters[name].ndim == 2 and self.parameters[name].numel() >= LARGE
        return plain and large and self.per == "parameter" and not self._parallel

    def _sizes(self) -> list[tuple[tuple[int, ...], int, int]]:
        views = [(self._view(name, p), name) for name, p in self.parameters.items()]
        return [(tuple(view.shape), self._units(name), _layers._wide(view).itemsize) for view, name in views]

    def _has_momentum(self) -> bool:
        return any(memory_name(self.optimizer, group) for group in self.optimizer.param_groups)


def _sum(rows: Tensor) -> Tensor:
    """The sum over the first axis, as a product, which reads the rows once."""
    return torch.mv(rows.reshape(len(rows), -1).T, rows.new_ones(len(rows))).reshape(rows.shape[1:])


def _first(per: str) -> str:
    """Modules are summed over their parameters in the end."""
    return "module" if per == "module" else per


def _like(value: Any, p: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == p.shape and value.ndim > 0


def _alpha(intake: Any) -> float:
    return 1.0 if isinstance(intake, Tensor) else float(intake)


def _check_window(window: Any) -> tuple[int, int] | None:
    if window is None:
        return None
    whole = isinstance(window, tuple | list) and len(window) == 2
    if not whole or not all(isinstance(end, int | np.integer) for end in window) or not 0 <= window[0] < window[1]:
        raise ValueError(f"window must be (first, end) in steps, with 0 <= first < end, got {window!r}")
    return int(window[0]), int(window[1])
