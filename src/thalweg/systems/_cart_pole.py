"""A pole balanced on a cart by a linear controller."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from thalweg._edge import check_number, shown
from thalweg._node import node
from thalweg._process import Process
from thalweg.processes import ode

PARTS = ("position", "velocity", "angle", "angular_velocity")


def cart_pole(
    gains: Any = (1.0, 2.0, 30.0, 8.0),
    dt: float = 0.02,
    *,
    cart: float = 1.0,
    pole: float = 0.1,
    length: float = 0.5,
    gravity: float = 9.8,
) -> Process:
    """A pole on a cart (Barto, Sutton and Anderson 1983, without friction), pushed by a linear controller.

    The force is `F = k . (position, velocity, angle, angular_velocity)`; the pole stands up at angle 0. Parts by these
    names, in metres, seconds and radians; node `force`, read at every stage, is the controller.

    **Arguments**

    - `gains`: k, four numbers, newtons a unit; all 0 lets the pole fall.
    - `dt`: seconds a step (RK4). - `cart`, `pole`: masses; `length`: half the pole's; `gravity`.

    **Exact fact**: uncontrolled and upright, the angle grows at the rate `sqrt(g / (length (4/3 - pole / total)))`.

    >>> import thalweg as tw
    >>> process = tw.systems.cart_pole()
    >>> state = tw.simulate(process, process.init(position=0, velocity=0, angle=0.1, angular_velocity=0), 1000).state
    >>> abs(float(state["angle"])) < 1e-3  # the default gains balance it
    True
    """
    pushes = check_number(gains, "gains")
    if pushes.shape != (4,):
        raise ValueError(f"gains must be four finite numbers, one for each of {', '.join(PARTS)}, got {shown(gains)}")
    given = {"cart": cart, "pole": pole, "length": length, "gravity": gravity}
    return ode(_Field(pushes, **{name: check_number(value, name, above=0) for name, value in given.items()}), dt,
               init=_init)  # fmt: skip


class _Field(eqx.Module):
    gains: Any
    cart: Any
    pole: Any
    length: Any
    gravity: Any

    def __call__(self, s: dict[str, Any]) -> dict[str, Any]:
        angle, turning = s["angle"], s["angular_velocity"]
        force = node(sum(self.gains[k] * s[part] for k, part in enumerate(PARTS)), "force")
        total = self.cart + self.pole
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        pushed = (force + self.pole * self.length * turning**2 * sin) / total
        bending = (self.gravity * sin - cos * pushed) / (self.length * (4 / 3 - self.pole * cos**2 / total))
        return {
            "position": s["velocity"],
            "velocity": pushed - self.pole * self.length * bending * cos / total,
            "angle": turning,
            "angular_velocity": bending,
        }


def _init(position: float, velocity: float, angle: float, angular_velocity: float) -> dict[str, Any]:
    values = (position, velocity, angle, angular_velocity)
    return {part: check_number(value, part) for part, value in zip(PARTS, values, strict=True)}
