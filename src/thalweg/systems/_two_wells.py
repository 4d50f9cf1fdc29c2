"""Four data with two wells each, in the plane: does SGD prefer wide wells, or quiet ones?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._noise import Choice
from thalweg._process import Process
from thalweg.systems._learners import _rate


class Wells(NamedTuple):
    """Two wells: variances `v` of their Gaussians, shifts `d` of the data, depths `A`; a at x = -1, b at x = 1."""

    v_a: float
    v_b: float
    d_a: float
    d_b: float
    A_a: float
    A_b: float


# The depths make the two minima of the mean loss equally deep.
KINDS = {
    "wide": Wells(0.6, 0.45, 0.45, 0.45, 1.0, 1.222361),
    "noise": Wells(0.5, 0.5, 0.4, 0.6, 1.0, 1.486484),
    "control": Wells(0.5, 0.5, 0.5, 0.5, 1.0, 1.0),
}
SHIFTS = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def two_wells(kind: str, learning_rate: float) -> Process:
    """SGD on four data whose mean loss has two equally deep wells, at x = -1 and x = 1.

    `l_k = -A_a exp(-|w + (1,0) - d_a s_k|^2 / 2 v_a^2) - A_b exp(-|w - (1,0) - d_b s_k|^2 / 2 v_b^2) + |w|^2 / 10` with
    shifts `s_k = (+-1, 0), (0, +-1)`.

    **Arguments**: `kind`: `"wide"` (the left well is wider in every datum), `"noise"` (its gradients differ less
    between data) or `"control"` (the wells are alike); `learning_rate`.

    **Exact facts**, P(x < 0) in the long run: at 0.5 wide .9950(1), noise .6627(4), control 1/2; at 0.7 .8523(3),
    .6250(3), 1/2.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> process = tw.systems.two_wells("control", 0.5)
    >>> drift = process.noise.expectation(lambda w: process.step(jnp.zeros(2), w))
    >>> bool(jnp.all(jnp.abs(drift) < 1e-15))  # the middle is stationary by symmetry
    True
    """
    return Process(_TwoWells(_rate(learning_rate), *_wells(kind)), Choice(4), _point)


def two_wells_losses(kind: str) -> tuple[Callable[[Any], Any], ...]:
    """The four per-datum losses, functions of a point of the plane.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> losses = tw.systems.two_wells_losses("wide")
    >>> round(float(sum(l(jnp.array([-1.0, 0.0])) for l in losses) / 4), 3)
    -0.656
    """
    w = _wells(kind)

    def loss(shift):
        def one(x):
            a = jnp.sum((x + _SIDE - w.d_a * shift) ** 2)
            b = jnp.sum((x - _SIDE - w.d_b * shift) ** 2)
            wells = w.A_a * jnp.exp(-a / (2 * w.v_a**2)) + w.A_b * jnp.exp(-b / (2 * w.v_b**2))
            return -wells + 0.1 * jnp.sum(x**2)

        return one

    return tuple(loss(shift) for shift in SHIFTS)


class _TwoWells(eqx.Module):
    learning_rate: Any
    v_a: float
    v_b: float
    d_a: float
    d_b: float
    A_a: float
    A_b: float

    def __call__(self, x: Any, k: Any) -> Any:
        shift = jnp.asarray(SHIFTS)[k]
        from_a, from_b = x + _SIDE - self.d_a * shift, x - _SIDE - self.d_b * shift
        pull_a = self.A_a * jnp.exp(-jnp.sum(from_a**2) / (2 * self.v_a**2)) / self.v_a**2
        pull_b = self.A_b * jnp.exp(-jnp.sum(from_b**2) / (2 * self.v_b**2)) / self.v_b**2
        return x - self.learning_rate * (pull_a * from_a + pull_b * from_b + 0.2 * x)


_SIDE = np.array([1.0, 0.0])


def _wells(kind: str) -> Wells:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind]


def _point(w: Any) -> Any:
    return jnp.asarray(w, float)
