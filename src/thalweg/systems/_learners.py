"""Learners with one parameter and two data: the pit, linear noise, and the coin.

From J. Bostock's posts "Modelling and Understanding SGD" and "SGD Understood through Probability
Current". A step draws one of two data with equal odds: `W' = W - learning_rate * g_j(W)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_number
from thalweg._noise import Choice
from thalweg._process import Process


def pit(learning_rate: float) -> Process:
    """SGD on a wide well with a narrow pit that only the second datum sees.

    `l0 = -exp(-(W-2)^2)`, `l1 = l0 - exp(-100 (W-1)^2)`. The pit of the mean loss lies at 1.00745 (see
    `pit_points`), the wide minimum at 2.

    **Exact facts** (start at the bottom of the pit, escaped = first W at or above the lip of l1): at learning
    rate 0.01 the mean escape takes 3.8200e6 steps, at 0.02 141.633, at 0.03 14.280.

    >>> import thalweg as tw
    >>> process = tw.systems.pit(0.5)
    >>> float(tw.simulate(process, process.init(2.0), 10, key=0).state)  # at 2 no datum pushes
    2.0
    """
    return Process(_Pit(_rate(learning_rate)), Choice(2), _number)


def pit_losses() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The two per-datum losses `(l0, l1)` of the pit, as functions of W.

    >>> import thalweg as tw
    >>> l0, l1 = tw.systems.pit_losses()
    >>> float(l0(2.0))
    -1.0
    """

    def l0(W):
        return -jnp.exp(-((W - 2.0) ** 2))

    def l1(W):
        return l0(W) - jnp.exp(-100.0 * (W - 1.0) ** 2)

    return l0, l1


class PitPoints(NamedTuple):
    """Where the losses of the pit are stationary."""

    bottom: float
    lip: float
    bottom_of_l1: float
    lip_of_l1: float
    minimum: float


def pit_points() -> PitPoints:
    """The stationary points of the pit: of the mean loss (bottom, lip, minimum) and of l1.

    From `lip_of_l1` on, both data push to the right: for learning rates up to 0.1 there is no return.

    >>> import thalweg as tw
    >>> round(tw.systems.pit_points().lip_of_l1, 10)
    1.1959565137
    """
    from scipy.optimize import brentq

    def root(depth, low, high):
        return float(brentq(lambda W: _wide(W, np) + depth * _narrow(W, np), low, high, xtol=1e-15, rtol=1e-15))

    return PitPoints(
        bottom=root(0.5, 1.0, 1.05),
        lip=root(0.5, 1.1, 1.4),
        bottom_of_l1=root(1.0, 1.0, 1.05),
        lip_of_l1=root(1.0, 1.1, 1.4),
        minimum=2.0,
    )


def linear_noise(learning_rate: float, spread: float = 0.2) -> Process:
    """SGD on two parabolas of unequal curvature: gradients `(1 + spread) W - 2` and `(1 - spread) W - 2`.

    **Exact facts**: stationary mean 2, variance `4 T s^2 / (2 - T - T s^2)` with `T` the learning rate and `s` the
    spread; an eigenvalue `E (1 - T a)^n` of the operator for every n, `a = 1 +- s`.

    >>> import thalweg as tw
    >>> process = tw.systems.linear_noise(0.5)
    >>> float(process.noise.expectation(lambda w: process.step(2.0, w)))  # no drift at 2
    2.0
    """
    return Process(_LinearNoise(_rate(learning_rate), check_number(spread, "spread")), Choice(2), _number)


def coin(learning_rate: float) -> Process:
    """SGD whose gradients are +1 and -1: no drift, only noise.

    **Exact fact**: the variance grows by `learning_rate^2` a step.

    >>> import thalweg as tw
    >>> process = tw.systems.coin(0.1)
    >>> float(process.noise.expectation(lambda w: process.step(0.0, w) ** 2))
    0.010000000000000002
    """
    return Process(_Coin(_rate(learning_rate)), Choice(2), _number)


class _Pit(eqx.Module):
    learning_rate: Any

    def __call__(self, W: Any, w: Any) -> Any:
        return W - self.learning_rate * (_wide(W, jnp) + w * _narrow(W, jnp))


class _LinearNoise(eqx.Module):
    learning_rate: Any
    spread: Any

    def __call__(self, W: Any, w: Any) -> Any:
        return W - self.learning_rate * ((1 + self.spread * (1 - 2 * w)) * W - 2)


class _Coin(eqx.Module):
    learning_rate: Any

    def __call__(self, W: Any, w: Any) -> Any:
        return W - self.learning_rate * (1.0 - 2.0 * w)


def _wide(W: Any, np: Any) -> Any:
    return 2 * (W - 2) * np.exp(-((W - 2) ** 2))


def _narrow(W: Any, np: Any) -> Any:
    return 200 * (W - 1) * np.exp(-100 * (W - 1) ** 2)


def _rate(learning_rate: Any) -> Any:
    return check_number(learning_rate, "learning_rate", least=0)


def _number(W: Any) -> Any:
    return check_number(W, "W")
