"""What PyTorch's optimizers make of a gradient: linear, once the scales of the step are fixed.

For one parameter, a step is `m' = decay m + intake g` and `change = scale (lead m' + direct g) + rest`, entry by
entry, where `g` is the gradient, `m` the momentum (if there is one), and `scale` holds the learning rate and, for Adam,
the second moments that the step arrived at. `rest` is weight decay that does not go through the gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """The coefficients of one parameter in one step; see the top of the file."""

    decay: float  # of the momentum; 0 where there is none
    intake: float
    lead: float
    direct: float
    scale: Any
    rest: Tensor | None  # a change that no gradient caused
    pull: float  # weight decay added to the gradient, times the parameter
    sign: float = 1.0  # -1 where the optimizer climbs


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


def _sgd(group: dict, state: dict, parameter: Tensor, first: bool) -> Rule:
    rate, momentum, pull = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
    sign = -1.0 if group["maximize"] else 1.0
    if not momentum:
        return Rule(0.0, 0.0, 0.0, 1.0, -rate, None, pull, sign)
    intake = 1.0 if first else 1 - float(group["dampening"])
    if group["nesterov"]:
        return Rule(momentum, intake, momentum, 1.0, -rate, None, pull, sign)
    return Rule(momentum, intake, 1.0, 0.0, -rate, None, pull, sign)


def _adam(group: dict, state: dict, parameter: Tensor, first: bool) -> Rule:
    rate, (beta1, beta2), step = float(group["lr"]), map(float, group["betas"]), float(state["step"])
    square = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    scale = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(group["eps"])
    scale = scale.reciprocal_().mul_(-rate / (1 - beta1**step))
    decay, decoupled = float(group["weight_decay"]), group.get("decoupled_weight_decay", False)
    rest = parameter * (-rate * decay) if decoupled and decay else None
    sign = -1.0 if group["maximize"] else 1.0
    return Rule(beta1, 1 - beta1, 1.0, 0.0, scale, rest, 0.0 if decoupled else decay, sign)


def _rmsprop(group: dict, state: dict, parameter: Tensor, first: bool) -> Rule:
    # The momentum holds scaled gradients: the scale goes into the intake.
    scale = state["square_avg"].sqrt().add_(group["eps"]).reciprocal_()
    rate, momentum, pull = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
    sign = -1.0 if group["maximize"] else 1.0
    if momentum:
        return Rule(momentum, scale, 1.0, 0.0, -rate, None, pull, sign)  # type: ignore[arg-type]
    return Rule(0.0, 0.0, 0.0, 1.0, scale.mul_(-rate), None, pull, sign)


def _adagrad(group: dict, state: dict, parameter: Tensor, first: bool) -> Rule:
    rate = float(group["lr"]) / (1 + (float(state["step"]) - 1) * float(group["lr_decay"]))
    scale = state["sum"].sqrt().add_(group["eps"]).reciprocal_().mul_(-rate)
    return Rule(0.0, 0.0, 0.0, 1.0, scale, None, float(group["weight_decay"]), -1.0 if group["maximize"] else 1.0)


RULES: dict[type, Callable[[dict, dict, Tensor, bool], Rule]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}
