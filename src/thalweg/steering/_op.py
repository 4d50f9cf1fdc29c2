"""Comp and Op: one perturbation, carried with the agent free and with the agent held still."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import check_choice, is_traced, number
from thalweg._process import Process
from thalweg._results import Status
from thalweg.steering._pair import pays_apart, pull_pair, push_pair
from thalweg.steering._parts import check_outside, check_run, find_agent, find_source, find_target

FAINT = 1e-13  # of its tangent: a smaller response is made of rounding errors


class Op(eqx.Module):
    """What `op` gives back. Each is a series over steps 1, 2, ..., or what `read` or `mode` asked for.

    - `op`: `log_clamped - log_free`, in nats. Positive: the agent makes the perturbation fade. `+inf` where it
      does not arrive at all while the agent acts, `-inf` where it arrives through the agent only, NaN where neither
      responds (Comp is 0/0).
    - `sign`: of Comp: whether both responses point the same way (0 where one is zero). For a target of
      several numbers, of `cosine`, the cosine of the angle between the two responses.
    - `log_free`, `log_clamped`: the logarithms of the sizes of the responses.
    - `status`: a `Status` code for each; `message` sums them up in words.
    - `breaks_at`: with `method="fork"`, the first step from which on a finite size no longer tells Op at most
      steps (0: none).
    """

    op: Any
    sign: Any
    log_free: Any
    log_clamped: Any
    cosine: Any
    status: Any
    breaks_at: Any = 0

    @property
    def comp(self) -> Any:
        """Comp, the free response over the clamped one, with its sign; it may overflow where `op` does not."""
        return self.sign * jnp.exp(-self.op)

    @property
    def ok(self) -> bool:
        """Whether every entry can be trusted."""
        return bool(np.all(np.asarray(self.status) == Status.OK))

    @property
    def message(self) -> str:
        """What cannot be trusted, in words."""
        code, op = np.asarray(self.status).reshape(-1), np.asarray(self.op).reshape(-1)
        sentences = []
        for meant, text in (
            (code == Status.NOT_FINITE, "the run or its response is not finite: try a smaller step size"),
            (code == Status.UNDEFINED, "undefined: the source does not reach the target, with or without the agent "
             "(Comp is 0/0)"),
            ((code == Status.NO_RESPONSE) & (op > 0), "the free response is exactly zero: Op = +inf"),
            ((code == Status.NO_RESPONSE) & (op < 0), "with the agent held the response is exactly zero, so that "
             "everything goes through the agent: Op = -inf"),
            (code == Status.ILL_CONDITIONED, "a response is below 1e-13 of its tangent, or lost to rounding, "
             "so that neither its size nor its sign is reliable"),
            (code == Status.NOT_CONVERGED, "the answer depends on the finite size of the perturbation"),
        ):  # fmt: skip
            if np.any(meant):
                where = "" if code.size == 1 else f" (at {meant.sum()} of {code.size}, first at {np.argmax(meant) + 1})"
                sentences.append(text + where)
        return "; ".join(sentences) or Status.OK.sentence()


def op(
    process: Process,
    state: Any,
    steps: int,
    agent: Any,
    source: Any,
    target: Callable[[Any], Any] | str,
    key: Any = None,
    method: str = "tangent",
    *,
    window: Any = None,
    read: str = "every",
    mode: str = "forward",
    size: float = 1e-6,
    start: int = 0,
) -> Op:
    """How strongly an agent steers a perturbation: `Op = -log|Comp|`, `Comp = x / y`.

    A small change is made at the source. `x` is what it becomes at the target; `y` is what it becomes there while
    the agent keeps the values that it has in the unperturbed run. Where the agent counteracts, x < y and Op > 0.
    In the language of mediation, Comp is the total effect over the natural direct effect.

    **Arguments**

    - `process`, `state`, `steps`, `key`, `start`: the run, as for `tw.simulate`.
    - `agent`: what is held: the name of a node, a selector (`lambda s: s["room"]`), a boolean mask, or a tuple
      of them. `window`: when, as in `tw.clamp` (a boolean array over steps, or a function of state and noise).
    - `source`: what is perturbed: a selector or mask of the state or the name of a part (before the first step), a
      selector of the process (all along), or the name of a node (in the first step); with a direction,
      `(selector, direction)`, unless it is a single number.
    - `target`: what is read: any function of the state (numbers, arrays), or the name of a part.
    - `method`: `"tangent"`: exact in the limit of no change; `"fork"`: three runs side by side with the same
      noise and a change of `size` times the direction, and again with half of it. For steps that jump, and to
      see where differences break (`breaks_at`).
    - `read`: `"every"` step, or the `"end"` only, which is leaner.
    - `mode`: `"forward"`: one source; `"reverse"`: every entry of the source as a source of its own, in one
      pass, for a target of one number, read at the end. The results have the shape of the source.

    **Returns** an `Op`. It works under `jit` and `vmap`, such as over thousands of starts.

    **Raises** `ValueError` or `TypeError` in one sentence for an agent, source or target that the process does
    not have, for a source or target inside the agent, and for a state without floating numbers.

    When not to trust it: one target that crosses zero has Op = +inf in passing (read a vector and its
    norm instead); in chaos, codes agree on the rate of Op but not on its value beyond some 25 Lyapunov times.

    From J. Bostock's posts on optimization, part 4 (Comp and Op); Pearl 2001 for total and direct effects.

    >>> import thalweg as tw
    >>> room = tw.systems.thermostat(gain=0.01, setpoint=25.0)
    >>> found = tw.steering.op(room, room.init(room=35.0, thermostat=10.0), 1000, "thermostat", "room", "room")
    >>> round(float(found.op[-1]), 10), float(found.sign[-1])
    (10.143165859, 1.0)
    """
    for name, value, choices in (
        ("method", method, ("tangent", "fork")),
        ("read", read, ("every", "end")),
        ("mode", mode, ("forward", "reverse")),
    ):
        check_choice(value, name, choices)
    state, steps, key, start = check_run(process, state, steps, key, start, tangent=method == "tangent")
    if steps == 0:
        raise ValueError("steps must be at least 1, got 0: there is nothing to carry")
    target = find_target(target, process, state)
    found, direction = find_source(source, process, state, key, mode == "reverse")
    held = find_agent(agent, window, process, state, key)
    check_outside(held, found, target, state)
    if mode == "reverse":
        if method == "fork":
            raise ValueError('mode="reverse" needs method="tangent": a fork perturbs one source at a time')
        reading = jax.tree.leaves(jax.eval_shape(target, state))
        if len(reading) != 1 or reading[0].size != 1:
            raise ValueError('mode="reverse" needs a target of one number: read a norm, or use mode="forward"')
        return _reverse(process, held, state, key, start, steps, found, target)
    if method == "fork":
        from thalweg.steering._forks import fork_op

        return fork_op(process, held, state, key, start, steps, found, target, direction, size, read == "every")
    rows, count = (steps, steps) if read == "every" else (None, number(steps))
    apart = pays_apart(process, state, target)
    pair = push_pair(process, held, state, key, start, count, found, target, direction, rows, apart)
    return _judged(pair)


# --------------------------------------------------------------------------------------------------


@eqx.filter_jit
def _judged(pair: Any) -> Op:
    """Op with a status for each entry."""
    no_x, no_y = jnp.isneginf(pair.log_free), jnp.isneginf(pair.log_clamped)
    faint = (pair.log_free - pair.reach_free < math.log(FAINT)) & ~no_x
    faint |= (pair.log_clamped - pair.reach_clamped < math.log(FAINT)) & ~no_y
    status = jnp.where(faint, int(Status.ILL_CONDITIONED), int(Status.OK))
    status = jnp.where(no_x ^ no_y, int(Status.NO_RESPONSE), status)
    status = jnp.where(no_x & no_y, int(Status.UNDEFINED), status)
    status = jnp.where(pair.finite, status, int(Status.NOT_FINITE))
    either = no_x | no_y
    op = jnp.where(no_x, jnp.inf, jnp.where(no_y, -jnp.inf, pair.log_ratio))
    op = jnp.where(no_x & no_y, jnp.nan, op)
    cosine = jnp.where(either, 0.0, pair.cosine)
    return Op(op, jnp.sign(cosine), pair.log_free, pair.log_clamped, cosine, status)


def _reverse(process, held, state, key, start, steps, source, target) -> Op:
    (x, x_scale), (y, y_scale) = pull_pair(process, held, state, key, start, steps, source, target)
    results = [_of_entries(a, b, x_scale, y_scale) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)]
    structure = jax.tree.structure(x)

    def gather(name):
        leaves = [getattr(result, name) for result in results]
        return leaves[0] if len(leaves) == 1 else jax.tree.unflatten(structure, leaves)

    return Op(*(gather(name) for name in ("op", "sign", "log_free", "log_clamped", "cosine", "status")))


def _of_entries(x: Any, y: Any, x_scale: Any, y_scale: Any) -> Op:
    from thalweg.steering._pair import Pair

    log_x = jnp.log(jnp.abs(x)) + x_scale * math.log(2)
    log_y = jnp.log(jnp.abs(y)) + y_scale * math.log(2)
    ratio = jnp.log(jnp.abs(y)) - jnp.log(jnp.abs(x)) + (y_scale - x_scale) * math.log(2)
    # A cotangent is faint where it is far below the largest of them all.
    top_x, top_y = jnp.max(log_x), jnp.max(log_y)
    finite = jnp.isfinite(x) & jnp.isfinite(y)
    return _judged(Pair(log_x, log_y, ratio, jnp.sign(x) * jnp.sign(y), top_x, top_y, finite))


def is_series(found: Op) -> bool:
    """Whether a result holds one entry a step."""
    return np.ndim(found.op) == 1 and not is_traced(found.op)
