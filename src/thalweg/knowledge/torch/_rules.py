"""What PyTorch's optimizers make of a gradient: linear, once the scales of the step are fixed.

For one parameter, a step is `m' = decay m + intake g` and `change = scale (lead m' + direct g) + rest p`, entry by
entry, where `g` is the gradient, `m` the momentum (if there is one), `p` the parameter before the step, and `scale`
holds, for Adam, the second moments that the step arrived at. Weight decay is `rest`, or, where it goes through the
gradient, `pull`: `g` has `pull p` in it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """The coefficients of one parameter in one step; see the top of the file."""

    lead: float
    direct: float
    decay: float = 0.0  # of the momentum
    intake: Any = 1.0  # a tensor where the momentum holds scaled gradients
    scale: Tensor | None = None  # positive; `None` is one
    rest: float = 0.0
    pull: float = 0.0
    sign: float = 1.0  # -1 where the optimizer climbs

    @property
    def decays(self) -> bool:
        """Whether the parameter itself is part of the step."""
        return bool(self.rest or self.pull)

    @property
    def scales_intake(self) -> bool:
        """Whether the momentum holds scaled gradients."""
        return isinstance(self.intake, Tensor)

    @property
    def reach(self) -> Any:
        """How far a gradient of one moves an entry, before `scale`."""
        return abs(self.lead) * self.intake + abs(self.direct)


KNOWN = "SGD, Adam, AdamW, RMSprop and Adagrad of torch.optim"


def check_optimizer(optimizer: Any) -> Any:
    """The torch optimizer inside (Accelerate wraps it), refused unless its rule is known."""
    inner = optimizer
    while not isinstance(inner, torch.optim.Optimizer) or (type(inner) not in RULES and hasattr(inner, "optimizer")):
        inner = getattr(inner, "optimizer", None)
        if inner is None:
            raise TypeError(f"optimizer must be a torch optimizer, got {type(optimizer).__name__}")
    rule = RULES.get(type(inner))
    if rule is None:
        raise ValueError(
            f"optimizer {type(inner).__name__} cannot be tallied: how its update divides among groups of data is not "
            f"known (known are {KNOWN})"
        )
    for group in inner.param_groups:
        if group.get("centered"):
            raise ValueError(
                "optimizer RMSprop with centered=True cannot be tallied: its scale is no sum; use centered=False"
            )
    return inner


def memory_name(optimizer: Any, group: dict) -> str | None:
    """Where the optimizer keeps a parameter's momentum; `None` if it has none."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is one too
        return "exp_avg"
    return "momentum_buffer" if group.get("momentum", 0) else None


def has_momentum(optimizer: Any) -> bool:
    """Whether any parameter has a momentum."""
    return any(memory_name(optimizer, group) for group in optimizer.param_groups)


def _common(group: dict) -> tuple[float, float, float]:
    """The learning rate, the weight decay, and which way the gradient is followed."""
    return float(group["lr"]), float(group["weight_decay"]), -1.0 if group["maximize"] else 1.0


def _sgd(group: dict, state: dict, first: bool) -> Rule:
    rate, pull, sign = _common(group)
    momentum = float(group["momentum"])
    if not momentum:
        return Rule(0.0, -rate, pull=pull, sign=sign)
    intake = 1.0 if first else 1 - float(group["dampening"])
    if group["nesterov"]:
        return Rule(-rate * momentum, -rate, momentum, intake, pull=pull, sign=sign)
    return Rule(-rate, 0.0, momentum, intake, pull=pull, sign=sign)


def _adam(group: dict, state: dict, first: bool) -> Rule:
    rate, decay, sign = _common(group)
    (beta1, beta2), step = map(float, group["betas"]), float(state["step"])
    square = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    # lead m / (sqrt(v / c) + eps), with sqrt(c) taken out.
    root = (1 - beta2**step) ** 0.5
    scale = square.sqrt().add_(group["eps"] * root).reciprocal_()
    lead = -rate * root / (1 - beta1**step)
    decoupled = group.get("decoupled_weight_decay", False)
    rest, pull = (-rate * decay, 0.0) if decoupled else (0.0, decay)
    return Rule(lead, 0.0, beta1, 1 - beta1, scale, rest, pull, sign)


def _rmsprop(group: dict, state: dict, first: bool) -> Rule:
    rate, pull, sign = _common(group)
    scale, momentum = state["square_avg"].sqrt().add_(group["eps"]).reciprocal_(), float(group["momentum"])
    if momentum:
        # The momentum holds scaled gradients: the scale goes into the intake.
        return Rule(-rate, 0.0, momentum, scale, pull=pull, sign=sign)
    return Rule(0.0, -rate, scale=scale, pull=pull, sign=sign)


def _adagrad(group: dict, state: dict, first: bool) -> Rule:
    rate, pull, sign = _common(group)
    rate /= 1 + (float(state["step"]) - 1) * float(group["lr_decay"])
    return Rule(0.0, -rate, scale=state["sum"].sqrt().add_(group["eps"]).reciprocal_(), pull=pull, sign=sign)


RULES: dict[type, Callable[[dict, dict, bool], Rule]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}
