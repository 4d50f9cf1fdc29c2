"""Thermostats: the linear one, the saturating one, and the two tables; and a general linear feedback loop."""

from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_choice, check_number, is_traced, shown
from thalweg._node import node
from thalweg._noise import Normal
from thalweg._process import Process
from thalweg.processes._ode import part_names


def thermostat(
    gain: float, setpoint: float, forcing: float = 0.0, period: float = 100.0, noise: float = 0.0
) -> Process:
    """A thermostat that looks at the room and cools it: `T' = R - d`, `R' = R - k T`, parts `room` and `thermostat`.

    **Arguments**

    - `gain`: k, per step; stable for 0 < k < 1. - `setpoint`: d.
    - `forcing`, `period`: a sinusoid of this amplitude and period (in steps) is added to the room.
    - `noise`: the standard deviation of normal noise added to the room.

    Make a state with `process.init(room=35., thermostat=10.)`. Nodes: both parts, and `control`, the cooling.

    **Exact facts**: with A = thermostat, n = m = room, `Comp_t = (l1^(t+1) - l2^(t+1)) / (l1 - l2)`,
    `l = (1 +- sqrt(1 - 4k)) / 2`, for any start, setpoint, forcing or noise.

    From J. Bostock's posts on optimization, parts 2 and 3 (there with d = 25).

    >>> import thalweg as tw
    >>> room = tw.systems.thermostat(gain=0.01, setpoint=25.0)
    >>> state = tw.simulate(room, room.init(room=35.0, thermostat=10.0), 2000).state
    >>> round(float(state["room"]), 6)
    25.0
    """
    numbers = [
        check_number(gain, "gain"),
        check_number(setpoint, "setpoint"),
        check_number(forcing, "forcing"),
        check_number(period, "period", above=0),
        check_number(noise, "noise", least=0),
    ]
    noisy = is_traced(noise) or noise > 0
    forced = is_traced(forcing) or forcing != 0

    def init(room: float, thermostat: float) -> dict[str, Any]:
        state = _room_init(room, thermostat)
        return {**state, "time": jnp.asarray(0)} if forced else state

    return Process(_Thermostat(*numbers, noisy=noisy), Normal() if noisy else None, init, names=part_names)


def saturating_thermostat(threshold: float, power: float, setpoint: float, dt: float) -> Process:
    """A thermostat that cools no faster than `power`: `T' = R - d`, `R' = R - dt Therm(T)`.

    `Therm(T) = p T / theta` for `|T| <= theta`, else `p sign(T)`. Parts `room` and `thermostat`.

    **Arguments**

    - `threshold`: theta, in degrees. - `power`: p, degrees per unit of time. - `setpoint`: d.
    - `dt`: the time of a step.

    **Exact facts**: Comp = 1 while saturated; the integral of 1 - Comp over starts is `2 p (t - dt)` from T = 0 while
    both ends stay saturated. Inside the threshold: the thermostat of gain `dt p / theta`.

    From J. Bostock's posts on optimization, part 4.

    >>> import thalweg as tw
    >>> room = tw.systems.saturating_thermostat(threshold=1.0, power=1.0, setpoint=25.0, dt=0.02)
    >>> state = tw.simulate(room, room.init(room=35.0, thermostat=0.0), 101).state
    >>> round(float(state["room"]), 6)  # two units of time at full power, after a first step at rest
    33.0
    """
    numbers = [
        check_number(threshold, "threshold", above=0),
        check_number(power, "power", least=0),
        check_number(setpoint, "setpoint"),
        check_number(dt, "dt", above=0),
    ]
    return Process(_Saturating(*numbers), None, _room_init, dt, names=part_names)


def feedback_loop(plant: tuple[Any, Any, Any], controller: tuple[Any, Any, Any, Any]) -> Process:
    """A linear plant under a linear controller, in state space, with parts `plant` and `controller`.

    Plant `x' = A x + B u + e`, `y = C x`; controller `z' = F z + G y`, `u = K z + D y`. Nodes: both parts,
    `measurement` (y) and `control` (u).

    **Arguments**

    - `plant`: matrices (A, B, C) of shapes (n, n), (n, inputs), (outputs, n).
    - `controller`: matrices (F, G, K, D) of shapes (m, m), (m, outputs), (inputs, m), (inputs, outputs).

    **Exact facts**: with A = control, Comp is the sensitivity of the loop, so that over all frequencies Op
    adds up to `-pi` times the sum of `log|unstable poles of the plant and controller|` (Bode).

    >>> import thalweg as tw
    >>> loop = tw.systems.feedback_loop(([[1.3]], [[1.0]], [[1.0]]), ([[0.0]], [[1.0]], [[-0.8]], [[0.0]]))
    >>> state = tw.simulate(loop, loop.init(plant=[1.0], controller=[0.0]), 200).state
    >>> bool(abs(state["plant"][0]) < 1e-9)  # 1.3 alone would grow
    True
    """
    given = {"plant": (plant, "ABC"), "controller": (controller, "FGKD")}
    arrays = {}
    for name, (matrices, letters) in given.items():
        if not isinstance(matrices, tuple | list) or len(matrices) != len(letters):
            raise ValueError(f"{name} must be {len(letters)} matrices ({', '.join(letters)}), got {shown(matrices)}")
        for letter, matrix in zip(letters, matrices, strict=True):
            array = check_number(matrix, f"{name} {letter}")
            if array.ndim != 2:
                raise ValueError(f"{name} {letter} must be a finite matrix, got {shown(matrix)}")
            arrays[letter] = array
    n, m, inputs, outputs = len(arrays["A"]), len(arrays["F"]), arrays["B"].shape[1], arrays["C"].shape[0]
    wanted = {"A": (n, n), "B": (n, inputs), "C": (outputs, n),
              "F": (m, m), "G": (m, outputs), "K": (inputs, m), "D": (inputs, outputs)}  # fmt: skip
    for letter, shape in wanted.items():
        if arrays[letter].shape != shape:
            where = "plant" if letter in "ABC" else "controller"
            raise ValueError(f"{where} matrix {letter} must have shape {shape}, got {arrays[letter].shape}")

    def init(plant: Any, controller: Any) -> dict[str, Any]:
        return {"controller": _part(controller, "controller", m), "plant": _part(plant, "plant", n)}

    return Process(_Loop(**arrays), None, init, names=part_names)


class ThermostatTable(Mapping):
    """A table of two finite parts: `(thermostat, room)` labels to the next ones; `parts` holds the labels in order.

    It is a mapping of label tuples, and `numpy.asarray` of it the integer array (3, 3, 2).
    """

    def __init__(self, table: dict[tuple[str, str], tuple[str, str]], parts: dict[str, tuple[str, ...]]):
        self._table = table
        self.parts = parts

    def __getitem__(self, labels: tuple[str, str]) -> tuple[str, str]:
        return self._table[labels]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        thermostat, room = self.parts.values()
        cells = [[self._table[t, r] for r in room] for t in thermostat]
        return np.array([[(thermostat.index(t), room.index(r)) for t, r in row] for row in cells], dtype=dtype or int)


_ROWS = {
    "dumb": {
        "high": ("off,hot", "low,hot", "high,warm"),
        "low": ("off,hot", "low,warm", "high,cold"),
        "off": ("off,warm", "low,cold", "high,cold"),
    },
    "smart": {
        "high": ("off,hot", "low,hot", "low,warm"),
        "low": ("off,hot", "low,warm", "high,cold"),
        "off": ("low,warm", "low,cold", "high,cold"),
    },
}


def thermostat_table(kind: str) -> ThermostatTable:
    """The thermostats of part 1 of the posts on optimization: 3 settings by 3 temperatures.

    `high` warms the room one step, `low` keeps it, `off` cools it. `"dumb"` looks at the room only; `"smart"` also
    at its own setting. Parts in order: thermostat (high, low, off), room (hot, warm, cold).

    **Exact facts** (bits): from 1/3 each on (high, cold), (low, warm), (off, hot) the dumb one optimizes by 1.14052,
    the smart one by 2.19716. The (off, hot) cells of the two tables are swapped in print.

    >>> import thalweg as tw
    >>> table = tw.systems.thermostat_table("smart")
    >>> table["high", "cold"], table.parts["thermostat"]
    (('low', 'warm'), ('high', 'low', 'off'))
    """
    check_choice(kind, "kind", tuple(_ROWS))
    parts: dict[str, tuple[str, ...]] = {"thermostat": ("high", "low", "off"), "room": ("hot", "warm", "cold")}
    table = {}
    for setting, cells in _ROWS[kind].items():
        for temperature, cell in zip(parts["room"], cells, strict=True):
            after, next_temperature = cell.split(",")
            table[setting, temperature] = (after, next_temperature)
    return ThermostatTable(table, parts)


# --------------------------------------------------------------------------------------------------


class _Thermostat(eqx.Module):
    gain: Any
    setpoint: Any
    forcing: Any
    period: Any
    noise: Any
    noisy: bool = eqx.field(static=True)

    def __call__(self, state: dict[str, Any], w: Any) -> dict[str, Any]:
        room, own = node(state["room"], "room"), node(state["thermostat"], "thermostat")
        after = {"room": room - node(self.gain * own, "control"), "thermostat": room - self.setpoint}
        if self.noisy:
            after["room"] = after["room"] + self.noise * w
        if "time" in state:
            time = node(state["time"], "time")
            after["room"] = after["room"] + self.forcing * jnp.sin(2 * jnp.pi * time / self.period)
            after["time"] = time + 1
        return after


class _Saturating(eqx.Module):
    threshold: Any
    power: Any
    setpoint: Any
    dt: Any

    def __call__(self, state: dict[str, Any], w: Any) -> dict[str, Any]:
        room, own = node(state["room"], "room"), node(state["thermostat"], "thermostat")
        inside = jnp.abs(own) <= self.threshold
        cooling = jnp.where(inside, self.power * own / self.threshold, self.power * jnp.sign(own))
        return {"room": room - self.dt * node(cooling, "control"), "thermostat": room - self.setpoint}


class _Loop(eqx.Module):
    A: Any
    B: Any
    C: Any
    F: Any
    G: Any
    K: Any
    D: Any

    def __call__(self, state: dict[str, Any], w: Any) -> dict[str, Any]:
        x, z = node(state["plant"], "plant"), node(state["controller"], "controller")
        y = node(self.C @ x, "measurement")
        u = node(self.K @ z + self.D @ y, "control")
        return {"controller": self.F @ z + self.G @ y, "plant": self.A @ x + self.B @ u}


def _part(value: Any, name: str, size: int) -> Any:
    """The numbers of one part; one number stands for all."""
    array = check_number(value, name)
    if array.shape not in ((), (size,)):
        raise ValueError(f"{name} must be {size} numbers, got shape {array.shape}")
    return jnp.broadcast_to(array, (size,))


def _room_init(room: float, thermostat: float) -> dict[str, Any]:
    return {"room": check_number(room, "room"), "thermostat": check_number(thermostat, "thermostat")}
