"""The frequency form of Comp: in a feedback loop it is the sensitivity, and Bode's integral is a budget for Op."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from thalweg._edge import number
from thalweg._process import Process
from thalweg._results import Status
from thalweg.stats._series import as_numbers
from thalweg.steering._parts import check_outside, check_run, find_agent, find_source, find_target

ON_THE_CIRCLE = 1e-9
UNREACHED = "the source does not reach the target, so that Comp is 0/0: read or perturb something else"


class Budget(NamedTuple):
    """Op over all frequencies, added up twice: along the unit circle, and from the poles and zeros.

    - `integral`: `int_0^pi Op dw`, by the midpoint rule on the frequency response.
    - `budget`: the same from Jensen's formula. With a delay in a stable loop it is
      `-pi sum log|unstable open-loop poles|` (Bode): what is won at some frequencies is paid for at others.
    - `open_loop_poles`: eigenvalues with the agent held; `closed_loop_poles`: with the agent free.
    - `status`: `UNDEFINED` where the closed loop is not stable, so that it has no frequency response.
    """

    integral: float
    budget: float
    open_loop_poles: np.ndarray
    closed_loop_poles: np.ndarray
    status: int

    @property
    def message(self) -> str:
        """The status in words."""
        return Status(self.status).sentence(why="the closed loop is not stable, and has no frequency response")


def sensitivity(
    process: Process, state: Any, frequencies: Any, agent: Any, source: Any, target: Any, *, key: Any = None
) -> np.ndarray:
    """Comp at each frequency: how much of a steady oscillation at the source the loop lets through.

    `Comp(z) = [C (z - J)^-1 B] / [C (z - J_A)^-1 B]` at `z = exp(i w)`, with J the step's derivative at `state`
    and J_A the same with the agent held. In a feedback loop this is the sensitivity function S; Op = -log|S|.

    **Arguments**: `process`, `agent`, `source`, `target` (one number) as for `op`; `state`: where the step is
    linearised (any state of a linear loop, else a fixed point); `frequencies`: radians a step, 0 to pi.

    **Returns** complex numbers, one a frequency; infinite where the response with the agent held vanishes, 0 where
    that is infinite (a pole of the open loop at this frequency).

    **Raises** `ValueError` where the source does not reach the target.

    >>> import numpy as np, thalweg as tw
    >>> room = tw.systems.thermostat(gain=0.1, setpoint=25.0)
    >>> still = room.init(room=25.0, thermostat=0.0)
    >>> s = tw.steering.sensitivity(room, still, [np.pi], "thermostat", "room", "room")
    >>> np.round(abs(s), 12).tolist()  # z (z - 1) / (z (z - 1) + 0.1) at z = -1
    [0.952380952381]
    """
    w = as_numbers(frequencies, "frequencies")
    if not np.all(np.isfinite(w)):
        raise ValueError("frequencies must be finite, got NaN or infinity in it")
    free, held, b, c = _linearised(process, state, agent, source, target, key)
    if _delay(free, b, c) is None and _delay(held, b, c) is None:
        raise ValueError(UNREACHED)
    z = np.exp(1j * w.reshape(-1))
    of_free, of_held = _transfer(free, b, c, z), _transfer(held, b, c, z)
    with np.errstate(divide="ignore", invalid="ignore"):
        size, turn = np.exp(of_free[0] - of_held[0]), of_free[1] * np.conj(of_held[1])
        comp = np.where(size == 0, 0, np.where(np.isinf(size), np.inf, size) * np.where(turn == 0, 1, turn))
    return comp.reshape(w.shape)


def bode_integral(process: Process, state: Any, agent: Any, source: Any, target: Any, *, key: Any = None) -> Budget:
    """Bode's integral of a loop: `int_0^pi Op dw`, which no controller can raise above its budget.

    **Arguments**: as for `sensitivity`. **Returns** a `Budget`, with the integral and what the poles say of it.

    From Bode 1945; for discrete time Sung and Hara 1988. Poles and zeros on the unit circle are taken out of
    the integrand by `log|2 sin((w - w0)/2)|`, whose integral is 0.

    >>> import thalweg as tw
    >>> loop = tw.systems.feedback_loop(([[1.3]], [[1.0]], [[1.0]]), ([[0.0]], [[1.0]], [[-0.8]], [[0.0]]))
    >>> at = loop.init(plant=[0.0], controller=[0.0])
    >>> found = tw.steering.bode_integral(loop, at, "control", "plant", "plant")
    >>> round(found.integral, 10), round(found.budget, 10)  # -pi log 1.3
    (-0.8242416458, -0.8242416458)
    """
    free, held, b, c = _linearised(process, state, agent, source, target, key)
    reached = _delay(free, b, c) is not None, _delay(held, b, c) is not None
    if not all(reached):
        raise ValueError(
            UNREACHED
            if not any(reached)
            else "the source does not reach the target with the agent "
            + ("held: Op is -infinity at every frequency" if reached[0] else "free: Op is +infinity at every frequency")
        )
    budget = 0.0
    roots: list[tuple[complex, int]] = []  # on the unit circle, with +1 for a root of Comp's numerator
    for matrix, sign in ((free, 1), (held, -1)):
        zeros, lead = _zeros(matrix, b, c)
        poles = np.linalg.eigvals(matrix)
        budget -= sign * math.pi * (math.log(abs(lead)) + _outside(zeros) - _outside(poles))
        roots += [(root, sign) for root in zeros] + [(root, -sign) for root in poles]
    on_circle = [(np.angle(root), sign) for root, sign in roots if abs(abs(root) - 1) < ON_THE_CIRCLE]

    def integral(points):
        w = (np.arange(points) + 0.5) * math.pi / points
        z = np.exp(1j * w)
        values = _transfer(held, b, c, z)[0] - _transfer(free, b, c, z)[0]
        for angle, sign in on_circle:
            # Conjugate roots come in pairs, so that each takes out its share of the pair.
            pair = np.log(np.abs(2 * np.sin((w - angle) / 2))) + np.log(np.abs(2 * np.sin((w + angle) / 2)))
            values = values + sign * pair / 2
        return float(values.sum() * math.pi / points)

    points, last = 256, integral(128)
    while points <= 2**17:
        now = integral(points)
        if abs(now - last) < 1e-12:
            break
        points, last = 2 * points, now
    closed = np.linalg.eigvals(free)
    stable = np.max(np.abs(closed)) < 1 - ON_THE_CIRCLE
    status = int(Status.OK if stable else Status.UNDEFINED)
    return Budget(now, budget, np.linalg.eigvals(held), closed, status)


# --------------------------------------------------------------------------------------------------


def _linearised(process, state, agent, source, target, key) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """J, J_A, B, C of the step at a state, as matrices over its floating numbers."""
    state, _, key, _ = check_run(process, state, 1, key)
    target = find_target(target, process, state)
    found, direction = find_source(source, process, state, key, False)
    held = find_agent(agent, None, process, state, key)
    check_outside(held, found, target, state)
    moving, still = eqx.partition(state, eqx.is_inexact_array)
    flat, back = ravel_pytree(moving)
    part = found.part(process, state)
    w = process.noise.sample(key, number(0))

    def stepped(of, x, p):
        stepper = found.stepper(of, first=found.kind == "node")
        return ravel_pytree(stepper(back(x), p, still, w, number(0))[0])[0]

    j, j_held = (np.asarray(jax.jacfwd(lambda x, of=of: stepped(of, x, part))(flat)) for of in (process, held))
    if found.kind == "state":
        zeros = jax.tree.map(jnp.zeros_like, state)
        b = ravel_pytree(eqx.filter(found.selection.put(zeros, direction), eqx.is_inexact_array))[0]
    else:
        b = jax.jvp(lambda p: stepped(process, flat, p), (part,), (direction,))[1]
    reading = jax.tree.leaves(jax.eval_shape(target, state))
    if len(reading) != 1 or reading[0].size != 1:
        raise ValueError("target must be one number for a frequency response: read one part, or a sum")
    c = jax.grad(lambda x: jnp.sum(jax.tree.leaves(target(eqx.combine(back(x), still)))[0]))(flat)
    return j, j_held, np.asarray(b), np.asarray(c)


def _transfer(matrix: np.ndarray, b: np.ndarray, c: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`C (z - A)^-1 B` as the log of its size and its phase, from determinants: finite beside a pole, infinite on it.

    `det [[z - A, B], [-C, 0]] = det(z - A) C (z - A)^-1 B`.
    """
    n = len(matrix)
    bordered = np.zeros((len(z), n + 1, n + 1), complex)
    bordered[:, :n, :n] = z[:, None, None] * np.eye(n) - matrix
    bordered[:, :n, n], bordered[:, n, :n] = b, -c
    above, below = np.linalg.slogdet(bordered), np.linalg.slogdet(bordered[:, :n, :n])
    return above[1] - below[1], above[0] * np.conj(np.where(below[0] == 0, 1, below[0]))


def _zeros(matrix: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, float]:
    """The finite zeros of C (z - A)^-1 B, and the leading coefficient of its numerator."""
    from scipy.linalg import eigvals

    n, found = len(matrix), _delay(matrix, b, c)
    if found is None:
        raise ValueError(UNREACHED)
    delay, lead = found
    pencil = np.block([[matrix, b[:, None]], [c[None, :], np.zeros((1, 1))]])
    weight = np.diag([1.0] * n + [0.0])
    all_zeros = eigvals(pencil, weight)
    all_zeros = all_zeros[np.isfinite(all_zeros)]
    return all_zeros[np.argsort(np.abs(all_zeros))][: n - 1 - delay], lead


def _delay(matrix: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[int, float] | None:
    """The first k for which `C A^k B` is not zero, so many steps the source needs, and that number."""
    v = b
    for k in range(len(matrix)):
        lead = float(c @ v)
        if abs(lead) > 1e-12 * np.linalg.norm(c) * np.linalg.norm(v):
            return k, lead
        v = matrix @ v
    return None


def _outside(roots: np.ndarray) -> float:
    return float(sum(math.log(abs(root)) for root in roots if abs(root) > 1 + ON_THE_CIRCLE))
