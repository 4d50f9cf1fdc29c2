"""`response`: what a small change becomes, carried along a run as a tangent.

The tangent is kept near size 1 and its scale apart, as a power of two, so that 100,000 steps neither
overflow nor vanish, and rescaling costs no digits.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._clamp import clamp as clamp_process
from thalweg._edge import (
    check_arrays,
    check_choice,
    check_finite,
    check_function,
    check_start,
    check_steps,
    number,
    shown,
)
from thalweg._loop import Batch, apply_step
from thalweg._noise import next_draw, open_stream
from thalweg._process import Process, check_process, key_for, settle
from thalweg._results import Status
from thalweg._select import Selection, select

RESCALE_EVERY = 8  # steps: a tangent may grow or shrink by 1e38 a step in between


class Carried(NamedTuple):
    """A tangent or cotangent as a direction and a size.

    - `unit`: a pytree of Euclidean norm 1 (all zeros where nothing arrives).
    - `log_norm`: the natural logarithm of its norm, `-inf` where nothing arrives.

    With `at="every"` both lead with the steps.
    """

    unit: Any
    log_norm: Any

    @property
    def status(self) -> Any:
        """`Status.NO_RESPONSE` where the response is exactly zero."""
        return jnp.where(jnp.isneginf(self.log_norm), int(Status.NO_RESPONSE), int(Status.OK))


class Response(eqx.Module):
    """The derivative of what is read with respect to what is perturbed: a linear operator.

    - `jvp(v)`: what a perturbation in the direction `v` becomes where it is read.
    - `vjp(c)`: how much each perturbed number moves the reading `c . read`: all sources in one pass.

    Both give a `Carried`. Both work under `jit` and `vmap`.
    """

    process: Process
    state: Any
    key: Any
    start: Any
    steps: int = eqx.field(static=True)
    source: "_Source"
    read: Callable[[Any], Any]
    every: bool = eqx.field(static=True)

    def jvp(self, v: Any = None) -> Carried:
        """The response to `v`, shaped like what `wrt` picks out; ones by default."""
        like = self.source.get(self.process, self.state)
        v = _shaped_like(1.0 if v is None else v, like, "v")
        steps = self.steps if self.every else number(self.steps)
        return _push(self.process, self.state, self.key, self.start, steps, self.source, self.read, v)

    def vjp(self, c: Any = None) -> Carried:
        """The transposed response to `c`, shaped like what is read (with `at="every"` led by the steps)."""
        like = jax.eval_shape(self.read, self.state)
        if self.every:
            like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.steps, *a.shape), a.dtype), like)
        c = _shaped_like(1.0 if c is None else c, like, "c")
        if self.steps == 0 and self.every:
            raise ValueError("steps must be at least 1 to read at every step, got 0")
        return _pull(self.process, self.state, self.key, self.start, self.steps, self.source, self.read, self.every, c)


def response(
    process: Process,
    state: Any,
    steps: int,
    *,
    key: Any = None,
    wrt: Callable[[Any], Any] | Any = None,
    read: Callable[[Any], Any] | None = None,
    clamp: Any = None,
    window: Any = None,
    at: str = "end",
    start: int = 0,
    jumps: str = "refuse",
) -> Response:
    """How a small change is carried along a run: `d read(state_T) / d wrt`, the noise held the same.

    **Arguments**

    - `process`, `state`, `steps`, `key`, `start`: the run, as for `tw.simulate`.
    - `wrt`: what is perturbed: a selector or mask of the state (perturbed before the first step), or a
      selector of the process such as `lambda p: p.step.learning_rate` (changed for the whole run). A selector
      is tried on the state first. By default the coordinates of the state.
    - `read`: what is read, any differentiable function of the state; by default the coordinates.
    - `clamp`, `window`: what is held still meanwhile, as in `tw.clamp`.
    - `at`: `"end"`, or `"every"`: read after every step.
    - `jumps`: `"refuse"` a process that jumps (`smooth=False`), whose tangent misses what a change
      does; or `"ignore"` that.

    **Returns** a `Response`, with `jvp` and `vjp`. Nothing is computed before they are called.

    **Raises** `ValueError` for a process that jumps, for a selection without floating numbers.

    >>> import thalweg as tw
    >>> descent = tw.Process(lambda x, w: x - 0.1 * 3.0 * x)  # curvature 3, learning rate 0.1
    >>> unit, log_norm = tw.response(descent, 1.0, 100_000).jvp(1.0)
    >>> round(float(log_norm) / 100_000, 12)  # log(1 - 0.3)
    -0.356674943939
    """
    check_process(process)
    check_choice(at, "at", ("end", "every"))
    check_choice(jumps, "jumps", ("refuse", "ignore"))
    if not process.smooth and jumps == "refuse":
        raise ValueError(
            "this process jumps (accept/reject or binary units), so that its tangent misses what a change does: "
            "compare finite forks (tw.fork), or use the covariance identity d<f> = cov(f, d log p); "
            'jumps="ignore" gives the tangent between jumps'
        )
    if clamp is not None:
        process = clamp_process(process, clamp, window)
    steps, start, key = check_steps(steps), check_start(start), key_for(process, key)
    if np.ndim(start) or key.ndim:
        what = "start" if np.ndim(start) else "key"
        raise ValueError(f"{what} must be one, got several: for one a member, put response under jax.vmap")
    state = settle(process, state, key, Batch(), real=True)
    coordinates = process.coordinates or _floating(state)
    read = coordinates if read is None else read
    check_function(read, "read", "state")
    reading = _read_shapes(read, state)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(reading)):
        raise TypeError("read must give floating numbers: whole numbers carry no tangent")
    source = _find_source(coordinates if wrt is None else wrt, process, state)
    return Response(process, state, key, start, steps, source, read, at == "every")


# --------------------------------------------------------------------------------------------------


def _read_shapes(read: Callable[[Any], Any], state: Any) -> Any:
    def checked(state):
        reading = read(state)
        check_arrays(reading, "read")
        if not jax.tree.leaves(reading):
            raise ValueError(f"read must give at least one number, got {shown(reading)}")
        return reading

    return jax.eval_shape(checked, state)


class _Source(eqx.Module):
    """What is perturbed: part of the state, or part of the process."""

    selection: Selection
    of_state: bool = eqx.field(static=True)

    def get(self, process: Process, state: Any) -> Any:
        return self.selection.get(state if self.of_state else eqx.filter(process, eqx.is_inexact_array))

    def into_process(self, process: Process, part: Any) -> Process:
        if self.of_state:
            return process
        numbers, rest = eqx.partition(process, eqx.is_inexact_array)
        return eqx.combine(self.selection.put(numbers, part), rest)


def _find_source(wrt: Any, process: Process, state: Any) -> _Source:
    try:
        source = _Source(select(wrt, state, "wrt"), True)
    except (AttributeError, KeyError, IndexError, TypeError) as not_of_state:
        try:
            source = _Source(select(wrt, eqx.filter(process, eqx.is_inexact_array), "wrt"), False)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as problem:
            why = problem if type(problem) is ValueError else not_of_state
            raise ValueError(f"wrt picks nothing out of the state or of the process: {shown(why)}") from None
    for leaf in jax.tree.leaves(source.get(process, state)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"wrt must pick floating numbers: {leaf.dtype} carries no tangent")
    return source


class _Floating(eqx.Module):
    """The floating leaves of a state, `None` in place of the others."""

    which: tuple[bool, ...] = eqx.field(static=True)

    def __call__(self, state: Any) -> Any:
        leaves, structure = jax.tree.flatten(state)
        kept = [leaf if floating else None for leaf, floating in zip(leaves, self.which, strict=True)]
        return jax.tree.unflatten(structure, kept)


def _floating(state: Any) -> _Floating:
    return _Floating(tuple(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)))


def _stepper(process: Process, source: _Source) -> Callable[..., Any]:
    """The step as a function of the floating numbers of the state and of the perturbed part of the process."""

    def step(moving, part, still, w, i):
        changed = source.into_process(process, part)
        after = apply_step(changed.step, eqx.combine(moving, still), w, i)
        return eqx.partition(after, eqx.is_inexact_array)

    return step


@eqx.filter_jit
def _push(process, state, key, start, steps, source, read, v) -> Carried:
    part = source.get(process, state)
    moving, still = eqx.partition(state, eqx.is_inexact_array)
    tangent = jax.tree.map(jnp.zeros_like, moving)
    v, size = _rescale(v, number(0))
    if source.of_state:
        zeros = eqx.combine(tangent, jax.tree.map(jnp.zeros_like, still))
        tangent, scale = eqx.filter(source.selection.put(zeros, v), eqx.is_inexact_array), size
    else:
        scale = number(0)
    step = _stepper(process, source)

    def one(t, carried):
        moving, still, tangent, scale, noise = carried
        i = start + t
        w, noise = next_draw(process.noise, key, i, noise)
        if source.of_state:
            moving, tangent, still = jax.jvp(lambda m: step(m, part, still, w, i), (moving,), (tangent,), has_aux=True)
        else:
            # The source acts at every step; `scale` never falls below its own, so this cannot overflow.
            push = _times_power(v, size - scale)
            moving, tangent, still = jax.jvp(
                lambda m, p: step(m, p, still, w, i), (moving, part), (tangent, push), has_aux=True
            )
        least = None if source.of_state else size
        tangent, scale = lax.cond(
            (t + 1) % RESCALE_EVERY == 0,
            lambda: _rescale(tangent, scale, least),
            lambda: (tangent, scale),
        )
        return moving, still, tangent, scale, noise

    def reading(carried):
        moving, still, tangent, scale, _ = carried
        _, out = jax.jvp(lambda m: read(eqx.combine(m, still)), (moving,), (tangent,))
        return _normalised(out, scale)

    scale = scale if source.of_state else jnp.maximum(scale, size)
    carried = (moving, still, tangent, scale, open_stream(process.noise, key, start))
    if isinstance(steps, int):

        def body(carried, t):
            carried = one(t, carried)
            return carried, reading(carried)

        return lax.scan(body, carried, jnp.arange(steps))[1]
    return reading(lax.fori_loop(0, steps, one, carried))


@eqx.filter_jit
def _pull(process, state, key, start, steps, source, read, every, c) -> Carried:
    part = source.get(process, state)
    step = _stepper(process, source)
    # Reverse mode needs the states of the run: they are kept at the ends of about sqrt(steps) segments
    # and recomputed inside one segment at a time.
    length = max(1, math.isqrt(max(0, steps - 1)) + 1)
    whole, rest = divmod(steps, length)

    def forward(moving_still, t):
        moving, still = moving_still
        i = start + t
        return step(moving, part, still, process.noise.sample(key, i), i), moving_still

    def run(begin, first, count):
        return lax.scan(forward, begin, first + jnp.arange(count))

    begin = eqx.partition(state, eqx.is_inexact_array)
    last, begins = lax.scan(lambda at, s: (run(at, s * length, length)[0], at), begin, jnp.arange(whole))
    end, rest_states = run(last, whole * length, rest)

    def read_back(moving, still, c):
        _, transposed = jax.vjp(lambda m: read(eqx.combine(m, still)), moving)
        return transposed(c)[0]

    def backward(carried, at):
        cotangent, scale, total, total_scale = carried
        (moving, still), t, c_here = at
        i = start + t
        w = process.noise.sample(key, i)
        if every:
            after, still_after = step(moving, part, still, w, i)
            extra = read_back(after, still_after, c_here)
            cotangent, scale = _add(cotangent, scale, extra, number(0))
        _, transposed, _ = jax.vjp(lambda m, p: step(m, p, still, w, i), moving, part, has_aux=True)
        cotangent, of_part = transposed(cotangent)
        if not source.of_state:
            total, total_scale = _add(total, total_scale, of_part, scale)
        cotangent, scale = _rescale(cotangent, scale)
        return (cotangent, scale, total, total_scale), None

    zeros = jax.tree.map(jnp.zeros_like, begin[0])
    cotangent = zeros if every else read_back(end[0], end[1], c)
    carried = (*_rescale(cotangent, number(0)), jax.tree.map(jnp.zeros_like, part), number(0))

    def segment(carried, first, count, states):
        c_here = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, first, count), c) if every else None
        return lax.scan(backward, carried, (states, first + jnp.arange(count), c_here), reverse=True)[0]

    carried = segment(carried, whole * length, rest, rest_states)

    def whole_segment(carried, at):
        begin, s = at
        return segment(carried, s * length, length, run(begin, s * length, length)[1]), None

    carried, _ = lax.scan(whole_segment, carried, (begins, jnp.arange(whole)), reverse=True)
    cotangent, scale, total, total_scale = carried
    if source.of_state:
        still_zeros = jax.tree.map(jnp.zeros_like, begin[1])
        return _normalised(source.selection.get(eqx.combine(cotangent, still_zeros)), scale)
    return _normalised(total, total_scale)


def _largest(tree: Any) -> Any:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def _rescale(tree: Any, scale: Any, least: Any = None) -> tuple[Any, Any]:
    """`tree 2^scale` with the largest entry of `tree` brought to between 1 and 2, `scale` staying above `least`."""
    largest = _largest(tree)
    usable = (largest > 0) & jnp.isfinite(largest)
    shift = jnp.where(usable, jnp.frexp(jnp.where(usable, largest, 1.0))[1] - 1, 0).astype(scale.dtype)
    if least is not None:
        shift = jnp.maximum(shift, least - scale)
    return _times_power(tree, -shift), scale + shift


def _add(a: Any, a_scale: Any, b: Any, b_scale: Any) -> tuple[Any, Any]:
    """`a 2^a_scale + b 2^b_scale`."""
    scale = jnp.maximum(jnp.where(_largest(a) > 0, a_scale, b_scale), b_scale)
    both = jax.tree.map(jnp.add, _times_power(a, a_scale - scale), _times_power(b, b_scale - scale))
    return _rescale(both, scale)


def _times_power(tree: Any, exponent: Any) -> Any:
    """`tree 2^exponent`, in the precision of each leaf."""
    return jax.tree.map(lambda leaf: (leaf * _power_of_two(exponent)).astype(leaf.dtype), tree)


def _power_of_two(exponent: Any) -> Any:
    # ldexp is exact; an exponent this low is zero beside any number of ordinary size.
    return jnp.ldexp(jnp.ones(()), jnp.clip(exponent, -1000, 1000))


def _normalised(tree: Any, scale: Any) -> Carried:
    tree, scale = _rescale(tree, scale)
    norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))
    unit = jax.tree.map(lambda leaf: jnp.where(norm > 0, leaf / jnp.where(norm > 0, norm, 1.0), leaf), tree)
    return Carried(unit, jnp.log(norm) + scale * math.log(2))


def _shaped_like(value: Any, like: Any, name: str) -> Any:
    """A direction that a user gives, in the shapes of `like`; one number stands for all."""
    check_arrays(value, name)
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(value)):
        raise TypeError(f"{name} must be real, got {shown(value)}")
    check_finite(jax.tree.map(jnp.asarray, value), name)
    if jax.tree.structure(value) == jax.tree.structure(0) and jnp.ndim(value) == 0:
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), like)
    if jax.tree.structure(value) != jax.tree.structure(like):
        leaves = jax.tree.leaves(like)
        if len(leaves) != 1 or len(jax.tree.leaves(value)) != 1:
            raise ValueError(
                f"{name} must have the structure {jax.tree.structure(like)}, got {jax.tree.structure(value)}"
            )
        value = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(value))

    def one(leaf, wanted):
        if jnp.shape(leaf) != wanted.shape:
            raise ValueError(f"{name} must have shape {wanted.shape}, got {jnp.shape(leaf)}")
        return jnp.asarray(leaf, wanted.dtype)

    return jax.tree.map(one, value, like)
