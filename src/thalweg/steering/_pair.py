"""Two tangents along one run: one carried freely, one with the agent held, the run itself made once.

Both tangents are rescaled by powers of two every few steps, their scales kept apart, so that 100,000 steps
neither overflow nor vanish. Between rescalings only raw numbers are stored; logarithms are taken at the end.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg._edge import is_traced, number
from thalweg._loop import all_finite
from thalweg._noise import Nothing, next_draw, open_stream
from thalweg._response import _add, _rescale, _times_power
from thalweg.steering._parts import Picked

MOST_BYTES = 2**27  # the states of a run that reverse mode keeps
RESCALE_EVERY = 16  # steps (or twice that): a tangent may grow or shrink by 1e9 a step in between
FEW = 8  # numbers in a state that is small


class Pair(NamedTuple):
    """The free and the clamped response where they are read; with a series, both lead with the steps.

    `log_ratio` is `log_clamped - log_free` from the numbers before their logarithms were taken. `reach_*`: the
    log of the largest entry of each tangent times the largest slope of the target.
    """

    log_free: Any
    log_clamped: Any
    log_ratio: Any
    cosine: Any
    reach_free: Any
    reach_clamped: Any
    finite: Any


class _Tangent(NamedTuple):
    value: Any
    scale: Any  # the tangent is value 2^scale


class _Carried(NamedTuple):
    moving: Any
    still: Any
    free: _Tangent
    clamped: _Tangent
    noise: Any


def pays_apart(process: Any, state: Any, target: Any) -> bool:
    """Whether two tangents cost less on two copies of the run than on one.

    On a processor XLA makes one kernel of a loop over a few numbers; both tangents of the Lorenz equations in one
    loop are too many, and cost 5 times as much as in two loops that fit.
    """
    if is_traced((process, state)) or jax.default_backend() != "cpu" or not isinstance(process.noise, Nothing):
        return False
    read = jax.tree.leaves(jax.eval_shape(target, state))
    return sum(leaf.size for leaf in jax.tree.leaves(state)) <= FEW and len(read) == 1 and read[0].size == 1


@eqx.filter_jit
def push_pair(
    process, held, state, key, start, steps, source, target, direction, rows: int | None, apart=False
) -> Pair:
    """The pair of responses after `steps` steps, or after each of them (`rows` = steps, a Python number).

    With `apart` each tangent runs along a copy of the run of its own: see `pays_apart`.
    """
    between = RESCALE_EVERY * (2 if apart else 1)
    part = source.part(process, state)
    direction, size = _rescale(direction, number(0))
    steppers = source.stepper(process), source.stepper(held)
    moving, still = eqx.partition(state, eqx.is_inexact_array)
    tangent = jax.tree.map(jnp.zeros_like, moving)
    if source.kind == "state":
        zeros = eqx.combine(tangent, jax.tree.map(jnp.zeros_like, still))
        tangent = eqx.filter(source.selection.put(zeros, direction), eqx.is_inexact_array)
    # A source that acts all along must stay within reach of the scale, which so never falls below its own.
    least = size if source.kind == "process" else None

    def pushed(carried):
        """The direction in the units of each tangent, for a source that acts at every step."""
        if source.kind != "process":
            return None, None
        return tuple(_times_power(direction, size - tangent.scale) for tangent in (carried.free, carried.clamped))

    def one(t, carried, pushes, steppers=steppers):
        moving, still, free, clamped, noise = carried
        i = start + t
        w, noise = next_draw(process.noise, key, i, noise)
        after, x, still_after = _jvp(steppers[0], moving, part, still, w, i, free.value, pushes[0])
        _, y, _ = _jvp(steppers[1], moving, part, still, w, i, clamped.value, pushes[1])
        return _Carried(after, still_after, _Tangent(x, free.scale), _Tangent(y, clamped.scale), noise)

    def reading(carried):
        _, x = _read(target, carried, carried.free)
        _, y = _read(target, carried, carried.clamped)
        # One row for all, since writing many numbers apart costs more than a small step.
        return jnp.stack([*_compare(x, y), _largest(carried.free.value), _largest(carried.clamped.value)])

    begin = _Carried(
        moving, still, _Tangent(tangent, size), _Tangent(tangent, size), open_stream(process.noise, key, start)
    )
    first = 0
    if source.kind == "node":
        first_steppers = source.stepper(process, first=True), source.stepper(held, first=True)
        begin = one(number(0), begin, (direction, direction), first_steppers)
        first = 1

    def reading_alone(carried, tangent):
        return jnp.stack([_flat(_read(target, carried, tangent)[1])[0], _largest(tangent.value)])

    if rows is None:
        kept: Any = None
    else:
        dtype = jax.eval_shape(reading, begin).dtype
        kept = (jnp.zeros((rows, 2), dtype), jnp.zeros((rows, 2), dtype)) if apart else jnp.zeros((rows, 5), dtype)
        scales = jnp.zeros((2, -(-rows // between)), size.dtype)
        if first and apart:
            at_first = reading_alone(begin, begin.free), reading_alone(begin, begin.clamped)
            kept = tuple(buffer.at[0].set(row) for buffer, row in zip(kept, at_first, strict=True))
        elif first:
            kept = kept.at[0].set(reading(begin))

    def alone(carried, buffer, which, push, low, high):
        """One tangent carried through a block, along its own copy of the run."""
        stepper, name = steppers[which], ("free", "clamped")[which]

        def step(t, both):
            carried, buffer = both
            tangent, i = getattr(carried, name), start + t
            w, noise = next_draw(process.noise, key, i, carried.noise)
            after, v, still = _jvp(stepper, carried.moving, part, carried.still, w, i, tangent.value, push)
            tangent = _Tangent(v, tangent.scale)
            carried = carried._replace(moving=after, still=still, noise=noise, **{name: tangent})
            if buffer is not None:
                buffer = lax.dynamic_update_index_in_dim(buffer, reading_alone(carried, tangent), t, 0)
            return carried, buffer

        return lax.fori_loop(low, high, step, (carried, buffer))

    def block(b, both):
        carried, kept, scales = both
        pushes = pushed(carried)
        if scales is not None:
            scales = scales.at[:, b].set(jnp.stack([carried.free.scale, carried.clamped.scale]))

        def step(t, both):
            carried, kept = both
            carried = one(t, carried, pushes)
            if kept is not None:
                kept = lax.dynamic_update_index_in_dim(kept, reading(carried), t, 0)
            return carried, kept

        low = jnp.maximum(b * between, first)
        high = jnp.minimum((b + 1) * between, steps)
        if apart:
            of_x, of_y = (None, None) if kept is None else kept
            with_x, of_x = alone(carried, of_x, 0, pushes[0], low, high)
            with_y, of_y = alone(carried, of_y, 1, pushes[1], low, high)
            carried, kept = with_x._replace(clamped=with_y.clamped), None if kept is None else (of_x, of_y)
        else:
            carried, kept = lax.fori_loop(low, high, step, (carried, kept))
        free, clamped = (_Tangent(*_rescale(t.value, t.scale, least)) for t in (carried.free, carried.clamped))
        return carried._replace(free=free, clamped=clamped), kept, scales

    blocks = (steps + between - 1) // between
    end, kept, scales = lax.fori_loop(0, blocks, block, (begin, kept, None if rows is None else scales))
    slope = _steepest(target, end)
    finite = all_finite(end.moving)
    if rows is None:
        x, y, cosine, reach_x, reach_y = reading(end)
        x_scale, y_scale = end.free.scale, end.clamped.scale
    else:
        if apart:
            (x, reach_x), (y, reach_y) = kept[0].T, kept[1].T
            x, y, cosine = jnp.abs(x), jnp.abs(y), jnp.sign(x) * jnp.sign(y)
        else:
            x, y, cosine, reach_x, reach_y = kept.T
        x_scale, y_scale = jnp.repeat(scales, between, axis=1)[:, :rows]
        finite = finite & jnp.isfinite(x) & jnp.isfinite(y)
    return Pair(
        jnp.log(x) + x_scale * math.log(2),
        jnp.log(y) + y_scale * math.log(2),
        jnp.log(y) - jnp.log(x) + (y_scale - x_scale) * math.log(2),
        cosine,
        jnp.log(reach_x * slope) + x_scale * math.log(2),
        jnp.log(reach_y * slope) + y_scale * math.log(2),
        finite & jnp.isfinite(reach_x) & jnp.isfinite(reach_y),
    )


@eqx.filter_jit
def pull_pair(process, held, state, key, start, steps: int, source, target) -> tuple[Any, ...]:
    """How much each number of the source moves a scalar target, freely and with the agent held: one pass.

    Returns, for each of the two, `(cotangent, scale)`: the response is `cotangent 2^scale`. The states of the
    run are kept; where they are too many, at the ends of about sqrt(steps) segments, and made again inside one at a
    time.
    """
    part = source.part(process, state)
    steppers = source.stepper(process), source.stepper(held)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    length = steps + 1 if steps * size <= MOST_BYTES else max(1, math.isqrt(max(0, steps - 1)) + 1)
    whole, rest = divmod(steps, length)
    first_steppers = source.stepper(process, first=True), source.stepper(held, first=True)
    is_node = source.kind == "node"

    def forward(at, t):
        i = start + t
        return steppers[0](at[0], part, at[1], process.noise.sample(key, i), i), at

    def run(begin, first, count):
        return lax.scan(forward, begin, first + jnp.arange(count))

    def transposed(stepper, at, t, cotangent):
        moving, still = at
        i = start + t
        w = process.noise.sample(key, i)
        if source.kind == "state":
            _, pull, _ = jax.vjp(lambda m: stepper(m, part, still, w, i), moving, has_aux=True)
            return pull(cotangent)[0], None
        _, pull, _ = jax.vjp(lambda m, p: stepper(m, p, still, w, i), moving, part, has_aux=True)
        return pull(cotangent)

    def backward(carried, at):
        states, t = at
        out = []
        for stepper, (cotangent, scale, total, total_scale) in zip(steppers, carried, strict=True):
            cotangent, of_part = transposed(stepper, states, t, cotangent)
            if source.kind == "process":
                total, total_scale = _add(total, total_scale, of_part, scale)
            out.append((*_rescale(cotangent, scale), total, total_scale))
        return tuple(out), None

    begin = eqx.partition(state, eqx.is_inexact_array)
    last, begins = lax.scan(lambda at, s: (run(at, s * length, length)[0], at), begin, jnp.arange(whole))
    end, rest_states = run(last, whole * length, rest)
    _, read_back = jax.vjp(lambda m: target(eqx.combine(m, end[1])), end[0])
    cotangent = read_back(jax.tree.map(jnp.ones_like, jax.eval_shape(target, state)))[0]
    of_end = (*_rescale(cotangent, number(0)), jax.tree.map(jnp.zeros_like, part), number(0))

    def segment(carried, first, states, count):
        return lax.scan(backward, carried, (states, first + jnp.arange(count)), reverse=True)[0]

    def whole_segment(carried, at):
        begin, s = at
        return segment(carried, s * length, run(begin, s * length, length)[1], length), None

    carried = segment((of_end, of_end), whole * length, rest_states, rest)
    if not is_node:
        carried, _ = lax.scan(whole_segment, carried, (begins, jnp.arange(whole)), reverse=True)
    else:
        # The node is perturbed in the first step, which so is taken alone.
        head = length if whole else rest
        if whole:
            later = jax.tree.map(lambda leaf: leaf[1:], begins)
            carried, _ = lax.scan(whole_segment, carried, (later, 1 + jnp.arange(whole - 1)), reverse=True)
            states = run(begin, 0, head)[1]
            after = jax.tree.map(lambda leaf: leaf[1:], states)
            carried = segment(carried, 1, after, head - 1)
        else:
            after = jax.tree.map(lambda leaf: leaf[1:], rest_states)
            carried = segment((of_end, of_end), 1, after, head - 1)
        out = []
        for stepper, (cotangent, scale, _, _) in zip(first_steppers, carried, strict=True):
            out.append((transposed(stepper, begin, number(0), cotangent)[1], scale))
        return tuple(out)
    if source.kind == "process":
        return tuple((total, scale) for _, _, total, scale in carried)
    zeros = jax.tree.map(jnp.zeros_like, begin[1])
    return tuple((source.selection.get(eqx.combine(cotangent, zeros)), scale) for cotangent, scale, _, _ in carried)


# --------------------------------------------------------------------------------------------------


def _jvp(stepper, moving, part, still, w, i, tangent, push):
    if push is None:
        return jax.jvp(lambda m: stepper(m, part, still, w, i), (moving,), (tangent,), has_aux=True)
    return jax.jvp(lambda m, p: stepper(m, p, still, w, i), (moving, part), (tangent, push), has_aux=True)


def _read(target, carried, tangent) -> tuple[Any, Any]:
    return jax.jvp(lambda m: target(eqx.combine(m, carried.still)), (carried.moving,), (tangent.value,))


def _compare(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """The norms of two responses, and the cosine between them (for a scalar: the product of their signs)."""
    x, y = _flat(x), _flat(y)
    if x.size == 1:
        return jnp.abs(x[0]), jnp.abs(y[0]), jnp.sign(x[0]) * jnp.sign(y[0])
    (x, nx), (y, ny) = _unit(x), _unit(y)
    return nx, ny, jnp.clip(jnp.sum(x * y), -1.0, 1.0)


def _flat(tree: Any) -> Any:
    leaves = jax.tree.leaves(tree)
    return jnp.reshape(leaves[0], -1) if len(leaves) == 1 else jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def _unit(x: Any) -> tuple[Any, Any]:
    """A vector of norm 1 along `x`, and the norm of `x`, whose squares may neither overflow nor vanish."""
    largest = jnp.max(jnp.abs(x))
    scaled = x / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.sum(scaled * scaled))
    return scaled / jnp.where(norm > 0, norm, 1.0), norm * largest


def _largest(tree: Any) -> Any:
    largest = [jnp.max(jnp.abs(leaf)) if leaf.ndim else jnp.abs(leaf) for leaf in jax.tree.leaves(tree)]
    out = largest[0]
    for other in largest[1:]:
        out = jnp.maximum(out, other)
    return out


def _steepest(target: Any, end: _Carried) -> Any:
    """The largest slope of the target, by which a response is small beside its tangent or not."""
    if isinstance(target, Picked):
        return jnp.ones(())
    out, pull = jax.vjp(lambda m: target(eqx.combine(m, end.still)), end.moving)
    return _largest(pull(jax.tree.map(jnp.ones_like, out))[0])
