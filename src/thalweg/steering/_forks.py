"""Op by finite differences: runs side by side with the same noise, and where that breaks."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from thalweg._edge import check_one_number, number
from thalweg._loop import all_finite
from thalweg._node import in_worlds
from thalweg._noise import next_draw, open_stream
from thalweg._results import Status
from thalweg.steering._op import Op
from thalweg.steering._pair import _compare, _flat

SIZE_MATTERS = 0.01  # nats: halving the perturbation may not change Op by more
PASSING = 50  # steps
DIGITS = 1e2  # rounding errors of the reading: a smaller difference has Op wrong by about 0.01


def fork_op(process, held, state, key, start, steps, source, target, direction, size, every: bool) -> Op:
    """Op from a perturbation of `size` times the direction, and from half of it."""
    size = check_one_number(size, "size", above=0)
    found = _fork(process, held, state, key, start, number(steps), source, target, direction,
                  size, steps if every else None)  # fmt: skip
    if not every:
        return found
    broken = (found.status == Status.ILL_CONDITIONED) | (found.status == Status.NOT_CONVERGED)
    # A target that crosses zero breaks in passing: it breaks for good where most of what follows is broken.
    ahead = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(broken)])
    end = jnp.minimum(jnp.arange(steps) + PASSING, steps)
    mostly = broken & (2 * (ahead[end] - ahead[:-1]) > end - jnp.arange(steps))
    return eqx.tree_at(lambda f: f.breaks_at, found, jnp.where(jnp.any(mostly), jnp.argmax(mostly) + 1, 0))


@eqx.filter_jit
def _fork(process, held, state, key, start, steps, source, target, direction, size, rows: int | None) -> Op:
    part = source.part(process, state)
    still = eqx.partition(state, eqx.is_inexact_array)[1]

    def world(by):
        """(floating numbers, perturbed part, the rest) of a world whose source is moved by so much."""
        moved = jax.tree.map(lambda leaf, d: leaf + by * d, part, direction)
        changed = source.selection.put(state, moved) if source.kind == "state" else state
        return eqx.filter(changed, eqx.is_inexact_array), moved, still

    def side_by_side(*sizes):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[world(by) for by in sizes])

    free, clamped = side_by_side(size, size / 2), side_by_side(0.0, size, size / 2)

    def one(t, worlds, noise, first):
        i = start + t
        w, noise = next_draw(process.noise, key, i, noise)

        def step(of, parts):
            stepper = source.stepper(of, first)
            return lambda world, shared: stepper(world[0], world[1], world[2], *shared)

        free, clamped = worlds
        after = in_worlds(step(held, part), clamped, (w, i), 3)
        free_after = jax.vmap(step(process, part), in_axes=(0, None))(free, (w, i))
        return tuple((n[0], old[1], n[1]) for n, old in ((free_after, free), (after, clamped))), noise

    def reading(worlds):
        read = jax.vmap(lambda world: _flat(target(eqx.combine(world[0], world[2]))))
        (x, x_half), (w, y, y_half) = (read(one) for one in worlds)
        digits = jnp.max(jnp.abs(w)) * jnp.finfo(w.dtype).eps * DIGITS
        return jnp.stack([*_compare(x - w, y - w), *_compare(x_half - w, y_half - w), digits])

    worlds, noise = (free, clamped), open_stream(process.noise, key, start)
    begin = 0
    if source.kind == "node":
        (worlds, noise), begin = one(number(0), worlds, noise, True), 1
    kept = None
    if rows is not None:
        kept = jnp.zeros((rows, 7))
        if begin:
            kept = kept.at[0].set(reading(worlds))

    def body(t, both):
        (worlds, noise), kept = both
        worlds, noise = one(t, worlds, noise, False)
        if kept is not None:
            kept = lax.dynamic_update_index_in_dim(kept, reading(worlds), t, 0)
        return (worlds, noise), kept

    (worlds, noise), kept = lax.fori_loop(begin, steps, body, ((worlds, noise), kept))
    row = reading(worlds) if kept is None else kept.T
    x, y, cosine, x_half, y_half, cosine_half, digits = row
    op, half = jnp.log(y) - jnp.log(x), jnp.log(y_half) - jnp.log(x_half)
    sized = (jnp.abs(op - half) > SIZE_MATTERS) | (jnp.sign(cosine) != jnp.sign(cosine_half))
    rounded = (x < digits) | (y < digits)
    no_x, no_y = x == 0, y == 0
    status = jnp.where(sized, int(Status.NOT_CONVERGED), int(Status.OK)) if process.smooth else jnp.full(x.shape, 0)
    status = jnp.where(no_x ^ no_y, int(Status.NO_RESPONSE), status)
    status = jnp.where(rounded & (process.smooth | ~(no_x | no_y)), int(Status.ILL_CONDITIONED), status)
    status = jnp.where(no_x & no_y, int(Status.UNDEFINED), status)
    finite = all_finite(worlds[1][0]) & jnp.isfinite(x) & jnp.isfinite(y)
    status = jnp.where(finite, status, int(Status.NOT_FINITE))
    op = jnp.where(no_x & no_y, jnp.nan, jnp.where(no_x, jnp.inf, jnp.where(no_y, -jnp.inf, op)))
    cosine = jnp.where(no_x | no_y, 0.0, cosine)
    per_size = jnp.log(size)
    log_x, log_y = jnp.log(x) - per_size, jnp.log(y) - per_size
    return Op(op, jnp.sign(cosine), log_x, log_y, cosine, status, jnp.zeros((), int))
