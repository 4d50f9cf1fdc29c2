"""Op of a volume: what happens to a whole subspace of perturbations, by log-determinants."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from thalweg._edge import is_traced, number
from thalweg._loop import all_finite, apply_step
from thalweg._noise import next_draw, open_stream
from thalweg._process import Process
from thalweg._results import Status
from thalweg.stats._series import as_numbers
from thalweg.steering._frames import orthonormalise, push_frame
from thalweg.steering._parts import check_outside, check_run, find_agent, find_source, find_target


class OpVolume(eqx.Module):
    """What `op_volume` gives back, after the last step.

    - `op`: `log_clamped - log_free`, in nats for the whole volume; divide by the number of directions to
      compare subspaces of different dimension.
    - `log_free`, `log_clamped`: logarithms of the volumes that the unit cube of directions becomes.
    - `status`: a `Status` code.
    """

    op: Any
    log_free: Any
    log_clamped: Any
    status: Any

    @property
    def message(self) -> str:
        """The status in words."""
        why = "neither volume keeps all its dimensions"
        return Status(int(np.max(np.asarray(self.status)))).sentence(why=why)


def op_volume(
    process: Process,
    state: Any,
    steps: int,
    agent: Any,
    source: Any,
    target: Any,
    key: Any = None,
    *,
    directions: Any = None,
    window: Any = None,
    start: int = 0,
) -> OpVolume:
    """How strongly an agent steers a subspace of perturbations: `Op_vol = log|det J_Y| - log|det J_X|`.

    J_X maps the directions at the source to the target freely, J_Y with the agent held; `log|det|` is the sum of
    the logs of the singular values. Both are carried along by QR, so that no direction is lost beside another.

    **Arguments** (the others as for `op`)

    - `source`: a selector of floating numbers of the state.
    - `directions`: shape (k, the source's shape), k independent directions, made orthonormal first; by default
      all, one an entry of the source. - `target`: at least k numbers.

    **Returns** an `OpVolume`, read at the end.

    When not to trust it: the volume of a nearly singular map is mostly that of its smallest direction.

    >>> import jax.numpy as jnp, thalweg as tw
    >>> eta, curvatures = 0.1, jnp.array([1.0, 2.0, 5.0])
    >>> descent = tw.processes.gradient_descent(lambda p: jnp.sum(curvatures * p**2) / 2, eta)
    >>> found = tw.steering.op_volume(descent, descent.init(jnp.ones(3)), 10, "update",
    ...                               lambda s: s.params, lambda s: s.params)
    >>> round(float(found.op), 9)  # -10 (log 0.9 + log 0.8 + log 0.5)
    10.216512475
    """
    state, steps, key, start = check_run(process, state, steps, key, start)
    target = find_target(target, process, state)
    found, _ = find_source(source, process, state, key, True)
    if found.kind != "state":
        raise ValueError("source must be part of the state for a volume: a selector or mask of it")
    held = find_agent(agent, window, process, state, key)
    check_outside(held, found, target, state)
    frame = _frame(found.part(process, state), directions)
    count = jax.tree.leaves(frame)[0].shape[0]
    reading = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(target, state)))
    if reading < count:
        raise ValueError(f"target must give at least as many numbers as there are directions, {count}, got {reading}")
    return _volumes(process, held, state, key, start, number(steps), found, target, frame)


# --------------------------------------------------------------------------------------------------


def _frame(part: Any, directions: Any) -> Any:
    """Orthonormal directions, a leading axis on every leaf of the source."""
    leaves, structure = jax.tree.flatten(part)
    size = sum(leaf.size for leaf in leaves)
    if directions is None:
        matrix = jnp.eye(size)
    else:
        rows = [_numbers(leaf) for leaf in jax.tree.leaves(directions)]
        if len(rows) != len(leaves) or any(
            jnp.ndim(r) == 0 or jnp.shape(r)[1:] != leaf.shape for r, leaf in zip(rows, leaves, strict=False)
        ):
            wanted = ", ".join(str(("k", *leaf.shape)) for leaf in leaves)
            raise ValueError(f"directions must have shape {wanted}, got {', '.join(str(jnp.shape(r)) for r in rows)}")
        matrix = jnp.concatenate([jnp.reshape(r, (jnp.shape(r)[0], -1)) for r in rows], axis=1)
        q, r = jnp.linalg.qr(matrix.T)
        least = jnp.min(jnp.abs(jnp.diagonal(r)))
        if matrix.shape[0] > size or (not is_traced(least) and not least > 1e-12 * jnp.max(jnp.abs(r))):
            raise ValueError(f"directions must be independent: got {matrix.shape[0]} in {size} dimensions")
        matrix = q.T
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = jnp.split(matrix, ends, axis=1)
    shaped = [p.reshape(-1, *leaf.shape).astype(leaf.dtype) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def _numbers(rows: Any) -> Any:
    if is_traced(rows):
        return jnp.asarray(rows, float)
    numbers = as_numbers(rows, "directions")
    if not np.all(np.isfinite(numbers)):
        raise ValueError("directions must be finite, got NaN or infinity in it")
    return jnp.asarray(numbers)


@eqx.filter_jit
def _volumes(process, held, state, key, start, steps, source, target, frame) -> OpVolume:
    moving, still = eqx.partition(state, eqx.is_inexact_array)
    zeros = jax.tree.map(jnp.zeros_like, state)
    frame = jax.vmap(lambda v: eqx.filter(source.selection.put(zeros, v), eqx.is_inexact_array))(frame)
    count = jax.tree.leaves(frame)[0].shape[0]

    def one(t, carried):
        moving, still, frames, logs, noise = carried
        i = start + t
        w, noise = next_draw(process.noise, key, i, noise)
        pushed = []
        for of, frame in zip((process, held), frames, strict=True):
            step = lambda m, of=of: eqx.partition(  # noqa: E731
                apply_step(of.step, eqx.combine(m, still), w, i), eqx.is_inexact_array
            )
            pushed.append(push_frame(step, moving, frame))
        (after, x, still_after), (_, y, _) = pushed
        (x, log_x), (y, log_y) = orthonormalise(x), orthonormalise(y)
        return after, still_after, (x, y), logs + jnp.stack([log_x.sum(), log_y.sum()]), noise

    carried = (moving, still, (frame, frame), jnp.zeros(2), open_stream(process.noise, key, start))
    moving, still, frames, logs, _ = lax.fori_loop(0, steps, one, carried)

    def volume(frame):
        read = lambda m: ravel_pytree(target(eqx.combine(m, still)))[0]  # noqa: E731
        out = jax.vmap(lambda v: jax.jvp(read, (moving,), (v,))[1])(frame)
        return jnp.sum(jnp.log(jnp.linalg.svd(out.reshape(count, -1), compute_uv=False)))

    log_x, log_y = logs + jnp.stack([volume(frame) for frame in frames])
    no_x, no_y = jnp.isneginf(log_x), jnp.isneginf(log_y)
    status = jnp.where(no_x ^ no_y, int(Status.NO_RESPONSE), int(Status.OK))
    status = jnp.where(no_x & no_y, int(Status.UNDEFINED), status)
    status = jnp.where(all_finite(moving) & ~jnp.isnan(log_x) & ~jnp.isnan(log_y), status, int(Status.NOT_FINITE))
    op = jnp.where(no_x & no_y, jnp.nan, jnp.where(no_x, jnp.inf, jnp.where(no_y, -jnp.inf, log_y - log_x)))
    return OpVolume(op, log_x, log_y, status)
