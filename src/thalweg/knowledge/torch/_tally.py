"""`Tally`: three lines in a training loop of PyTorch's, and every step says which data moved which parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from thalweg.knowledge._tallied import KINDS, RESOLUTIONS, Tallied
from thalweg.knowledge.torch._account import TOLERANCES, Account
from thalweg.knowledge.torch._bundle import bundles
from thalweg.knowledge.torch._listening import Listener
from thalweg.knowledge.torch._log import kept_as
from thalweg.knowledge.torch._memory import bytes_of, check_kinds
from thalweg.knowledge.torch._part import Part
from thalweg.knowledge.torch._rules import check_optimizer, has_momentum
from thalweg.knowledge.torch._saving import load, saved
from thalweg.knowledge.torch._stepping import Stepper


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
    accepted; so it is where a GPU rounds products to TF32.

    The model may be on a GPU, before the tally is made; labels may be on either side, and on the CPU they are quicker.
    On a CPU, steps are kept for a while and added to the tables several at a time: whoever asks for a table gets all.
    Only what the optimizer's own steps changed is tallied, also where something else writes to the parameters.

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
        inner, parallel = _unwrapped(model)
        self._account = Account(self.groups, self.every, self.window)
        self._listener = Listener(self._account, inner, self.stride)
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        found, transposed, self._handles = self._listener.attach(trained, where)
        if not found:
            self.remove()
            why = "; ".join(sorted(set(self.refused.values())))
            none = "the model's parameters" if where is None else "those that where picks"
            why = why or f"the optimizer trains none of {none}"
            raise ValueError(f"model has no parameter that can be tallied: {why}")
        parts = {
            name: Part(name, p, self.groups, self.kinds, per, self.stride, name in transposed)
            for name, p in found.items()
        }
        shapes = [part.shape for part in parts.values()]
        size = bytes_of(shapes, self.groups, self.kinds, per, has_momentum(self.optimizer))
        if size > most_bytes:
            self.remove()
            raise ValueError(
                f"this tally would take {size / 1e9:.3g} GB, and most_bytes allows {most_bytes / 1e9:.3g} GB: tally "
                'one of the kinds, fewer groups, a part (where=..., stride=...), or sums (per="unit"), or allow more'
            )
        for part in parts.values():
            part.open_tables(kept_as(part.parameter, parallel))
        self._account.parts = parts
        momentum = has_momentum(self.optimizer)
        self._account.bundles = bundles(self.optimizer, parts, self._listener.names, momentum, parallel)
        stepper = Stepper(self._account, self.optimizer, self._listener, parallel, where)
        self._handles += stepper.attach()

    @property
    def labels(self) -> Any:
        """The groups of the data of the forward pass to come."""
        return self._listener.labels

    @labels.setter
    def labels(self, labels: Any) -> None:
        self._listener.labels = labels
        self._listener.forget_labels_read()

    @property
    def absolute(self) -> dict[str, Tensor]:
        """Sums of |change| by parameter name, (G + 1, *shape), "other" last."""
        return self._of_kind("absolute")

    @property
    def signed(self) -> dict[str, Tensor]:
        """Sums of changes by parameter name, (G + 1, *shape), "other" last."""
        return self._of_kind("signed")

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that are tallied, by name."""
        return {name: part.parameter for name, part in self._account.parts.items()}

    @property
    def refused(self) -> dict[str, str]:
        """Parameters that are left out, and why."""
        return self._account.refused

    @property
    def notes(self) -> set[str]:
        """What else is to be said about the result."""
        return self._account.notes

    @property
    def seen(self) -> int:
        """Steps of the optimizer since the tally was made."""
        return self._account.seen

    @property
    def tallied(self) -> int:
        """Steps that were tallied."""
        return self._account.tallied

    @property
    def counts(self) -> Tensor:
        """Visits of data in the steps tallied, by group (G,)."""
        return self._account.counts

    @property
    def conservation(self) -> float:
        """How far the parts were from the change, at most; see `Tallied`."""
        self._account.flush()
        self._account.settle()
        return self._account.off

    @property
    def cancellation(self) -> float:
        """How much larger than the change the parts were, at most; see `Tallied`."""
        self._account.flush()
        self._account.settle()
        return self._account.cancelling

    def result(self) -> Tallied:
        """The tallies so far, labelled, as those of `tw.knowledge.Tally`."""
        account = self._account
        account.flush()
        account.settle()
        parts = account.parts
        kept = {kind: {name: part.kept[kind].cpu() for name, part in parts.items()} for kind in self.kinds}
        found = Tallied(
            kept.get("absolute"),
            kept.get("signed"),
            account.counts.numpy().copy(),
            account.tallied,
            account.off,
            account.cancelling,
            "parameter" if self.per != "unit" else "unit",
            {name: part.units for name, part in parts.items()},
            TOLERANCES[account.precision] if parts else None,
            "; ".join([*sorted(set(account.refused.values())), *sorted(account.notes)]),
        )
        return found.per("module") if self.per == "module" else found

    def state_dict(self) -> dict[str, Any]:
        """All that the tally needs to go on, for a checkpoint."""
        return saved(self._account)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same tally, made on this device or another."""
        load(self._account, state)

    def remove(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def forget_momenta(self) -> None:
        """What the optimizer's momentum holds belongs to no group."""
        self._account.flush()
        for part in self._account.parts.values():
            part.momenta, part.fade = None, 1.0

    def __deepcopy__(self, memo: Any) -> "Tally":
        """Itself: a copied model (an average of weights, say) takes its hooks along, and is not listened to."""
        return self

    def _of_kind(self, kind: str) -> dict[str, Tensor]:
        self._account.flush()
        if kind not in self.kinds:
            raise AttributeError(f"this tally does not keep {kind} changes: make it with kinds including {kind!r}")
        return {name: part.kept[kind] for name, part in self._account.parts.items()}


def _unwrapped(model: Any) -> tuple[nn.Module, bool]:
    """The model inside `torch.compile` and `DistributedDataParallel`, and whether it is parallel."""
    model = getattr(model, "_orig_mod", model)
    parallel = isinstance(model, nn.parallel.DistributedDataParallel)
    model = model.module if parallel else model
    return getattr(model, "_orig_mod", model), parallel


def _check_window(window: Any) -> tuple[int, int] | None:
    if window is None:
        return None
    whole = isinstance(window, tuple | list) and len(window) == 2
    if not whole or not all(isinstance(end, int | np.integer) for end in window) or not 0 <= window[0] < window[1]:
        raise ValueError(f"window must be (first, end) in steps, with 0 <= first < end, got {window!r}")
    return int(window[0]), int(window[1])
