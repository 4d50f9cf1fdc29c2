"""Splitting an optimizer's update among groups of data, exactly, through momentum, Adam and clipping.

An update that is linear in the gradient `g` and in the optimizer's linear memories `m_k` (momentum), once its scales
(Adam's second moments, a clipping factor) are held at the values that they take in the step,

    u = a g + sum_k b_k m_k + r,        m_k' = c_k g + sum_l d_kl m_l + s_k        (entry by entry),

splits among groups, each with a gradient and memories of its own. The coefficients come out of the user's own
optimizer: it is asked what it does to a gradient of `e` in every entry, to a memory of `e`, to parameters of `e p`,
where `e` is so small that no clipping acts and that squares vanish beside the second moments. Those are set so that
the call brings them to the values of the real step.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from thalweg._edge import check_arrays, is_whole, outline, shown
from thalweg._precision import use_float64

use_float64()

# The arrays in optax's states: those in which gradients add up, and those that set a scale.
MEMORIES = {"TraceState": "trace", "ScaleByAdamState": "mu", "EmaState": "ema", "MultiStepsState": "acc_grads"}
SCALES = {
    "ScaleByAdamState": "nu",
    "ScaleByRmsState": "nu",
    "ScaleByRmsWithCountState": "nu",
    "ScaleByRssState": "sum_of_squares",
}
KNOWN = "SGD, momentum, Nesterov, Adam, AdamW, RMSProp and Adagrad with schedules, decay, masks and clipping"
# Where a factor may act: on the gradient as it comes in, or on the update as it goes out; one for all, one an array,
# one an entry. The first of these under which the groups' parts sum to the update is taken.
CLIPPINGS = ("none", "global in", "array in", "entry in", "global out", "array out")

Update = Callable[[Any, Any, Any], tuple[Any, Any]]  # (gradient, memory, parameters) -> (update, memory)


class Attributed(NamedTuple):
    """What `attribution(...).update` carries on: the optimizer's own state, and the groups' shares of its memories."""

    opt_state: Any
    shares: tuple[Any, ...]


class Attribution(NamedTuple):
    """An optimizer whose updates are split among groups; `attribution` makes one."""

    optimizer: Any
    groups: int

    def init(self, params: Any) -> Attributed:
        """The state at the start. Refuses an optimizer whose updates do not split."""
        _check_params(params)
        opt_state = self.optimizer.init(params)
        return Attributed(opt_state, split_of(self.optimizer, params).shares(opt_state, self.groups))

    def update(self, group_gradients: Any, state: Attributed, params: Any) -> tuple[Any, Any, Attributed]:
        """(update, rows, state) for gradients that lead with the groups and add up to the whole.

        A further, last row of `group_gradients` is the gradient of data in no group. `rows` leads with G + 1: the
        groups, and "other" (no group, decay, older momentum).
        """
        check_arrays(group_gradients, "group_gradients")
        leads = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(group_gradients)}
        if not leads <= {(self.groups,), (self.groups + 1,)} or len(leads) != 1:
            raise ValueError(
                f"group_gradients must lead with {self.groups} groups (or {self.groups + 1}, the last for data in none)"
                f", got leading axes {sorted(leads)}"
            )
        given, wanted = (jax.tree.flatten(tree) for tree in (group_gradients, params))
        if given[1] != wanted[1] or any(
            jnp.shape(g)[1:] != jnp.shape(p) for g, p in zip(given[0], wanted[0], strict=True)
        ):
            raise ValueError(
                "group_gradients must be like params after their leading axis, got "
                f"{outline(group_gradients)} for {outline(params)}"
            )
        gradient = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), group_gradients)
        update, opt_state = self.optimizer.update(gradient, state.opt_state, params)
        split = split_of(self.optimizer, params)
        coefficients = split.coefficients(self.optimizer.update, gradient, update, state.opt_state, opt_state, params)
        gradients = [_with_other(leaf, self.groups) for leaf in jax.tree.leaves(group_gradients)]
        rows, shares = split.rows(coefficients, gradients, state.shares)
        return update, jax.tree.unflatten(jax.tree.structure(update), rows), Attributed(opt_state, shares)


def attribution(optimizer: Any, groups: int) -> Attribution:
    """An optax optimizer that says, with every update, which part of it each group of data caused.

    For SGD with or without momentum each group has a momentum of its own. Where the update is scaled by squared
    gradients (Adam, AdamW, RMSProp, Adagrad) all groups share the scale of the step, and nobody is credited for it:
    this is a convention. Clipping by a norm scales all parts by the factor of the step. The parts sum to the update,
    to rounding. `optax.MultiSteps` needs `accumulator_dtype=jnp.float64`.

    **Arguments**

    - `optimizer`: an optax optimizer, a chain of them, or a learning rate.
    - `groups`: G, the number of groups.

    **Returns** an `Attribution` with two functions. `s = rule.init(params)`. Then
    `update, rows, s = rule.update(group_gradients, s, params)`: the arrays of `group_gradients` lead with G (they add
    up to the gradient), those of `rows` with G + 1, where the last row is what no group caused: decay, and momentum
    from before. `update` is optax's own.

    **Raises** `ValueError` for an optimizer that does not split: one with signs, whitening, or trust ratios.

    Memory: the groups' momenta, (G + 1) times the parameters.

    >>> import jax.numpy as jnp, optax, thalweg as tw
    >>> rule = tw.knowledge.attribution(optax.sgd(0.1, momentum=0.9), groups=2)
    >>> s = rule.init(jnp.zeros(()))
    >>> for g in ([1.0, 0.0], [0.0, 1.0]):  # group 0 in the first step, group 1 in the second
    ...     update, rows, s = rule.update(jnp.array(g), s, jnp.zeros(()))
    >>> [round(float(row), 6) for row in rows]  # group 0 still coasts
    [-0.09, -0.1, -0.0]
    """
    if not is_whole(groups) or not 1 <= groups < 2**31:
        raise ValueError(f"groups must be a whole number >= 1, got {shown(groups)}")
    return Attribution(as_optimizer(optimizer), int(groups))


def _check_params(params: Any) -> None:
    if not jax.tree.leaves(params):
        raise ValueError(f"params must hold at least one array, got {shown(params)}")
    check_arrays(params, "params")


def as_optimizer(optimizer: Any) -> Any:
    """An optax optimizer; a learning rate stands for plain descent."""
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return optimizer
    if isinstance(optimizer, bool) or not isinstance(optimizer, int | float | np.number) or not optimizer >= 0:
        raise TypeError(f"optimizer must be an optax optimizer or a learning rate >= 0, got {shown(optimizer)}")
    import optax

    return optax.sgd(float(optimizer))


class Coefficients(NamedTuple):
    """Of one array of parameters, in one step. Row 0 is the update, row k the k-th memory; see the top of the file.

    Where it is not `None`, `scale` is what the gradient's and the memories' numbers of row 0 are still to be times.
    """

    gradient: list[Any]
    memory: list[list[Any]]
    rest: list[Any]
    scale: Any = None


class Split(NamedTuple):
    """Which leaves of an optimizer's memory are what, and where a clipping factor acts.

    - `memories[i]`: for parameter array i, the leaves that hold its momenta; `scales`: the leaves that set scales.
    - `rests`: whether parameters move without any gradient (decay). - `even`: which of each array's coefficients hold
      for all of its entries alike; of these there is one number only. - `scaled`: whether the update of each array is a
      sum of gradient and memories, alike in all entries, times a scale.
    """

    memories: tuple[tuple[int, ...], ...]
    scales: tuple[int, ...]
    clipping: str
    rests: bool
    even: tuple[Coefficients, ...] | None = None
    scaled: tuple[bool, ...] = ()

    @property
    def remembers(self) -> bool:
        """Whether groups move parameters in steps in which they have no data, or something else does."""
        return self.rests or any(self.memories)

    @property
    def slots(self) -> list[int]:
        """The leaves of the memory that hold momenta, array by array."""
        return list(itertools.chain(*self.memories))

    @property
    def entrywise(self) -> bool:
        """Whether momenta may fade in each entry otherwise: where one takes in another by way of a scale."""
        return bool(self.scales) and max(map(len, self.memories)) > 1

    def unfaded(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """How the momenta of each array have faded so far: not at all. `[k][i]`: what is left in k of what i was."""
        shapes = [leaf.shape if self.entrywise else (1,) * leaf.ndim for leaf in leaves]
        return tuple(
            [[jnp.full(shape, k == i, leaf.dtype) for i in range(len(slots))] for k in range(len(slots))]
            for leaf, shape, slots in zip(leaves, shapes, self.memories, strict=True)
        )

    def fading(self, update: Update, before: Any, after: Any, params: Any) -> list[Any]:
        """How the momenta of each array fade in one step, as `unfaded` has it."""
        leaves = jax.tree.leaves(params)
        seen = (before, after, params)
        if not self.entrywise:  # all entries fade alike, whatever their scales are, and the first one tells
            seen = (self._first(before), self._first(after), jax.tree.map(_first, params))
        fading = [c.memory[1:] for c in self.linear(update, *seen, small(leaves))]
        like = list(self.unfaded(leaves))
        return jax.tree.map(lambda d, u: jnp.broadcast_to(d, u.shape).astype(u.dtype), fading, like)

    def _first(self, opt_state: Any) -> Any:
        """The optimizer's memory of the first entry of each array."""
        leaves, structure = jax.tree.flatten(opt_state)
        cut = {*self.slots, *self.scales}
        return jax.tree.unflatten(structure, [_first(leaf) if at in cut else leaf for at, leaf in enumerate(leaves)])

    def shares(self, opt_state: Any, groups: int) -> tuple[Any, ...]:
        """The groups' parts of each momentum at the start: what there is belongs to none."""
        leaves = jax.tree.leaves(opt_state)
        return tuple(
            jnp.zeros((groups + 1, *jnp.shape(leaves[at])), leaves[at].dtype).at[groups].set(leaves[at])
            for at in self.slots
        )

    def coefficients(
        self, update: Update, gradient: Any, updated: Any, before: Any, after: Any, params: Any
    ) -> list[Coefficients]:
        """The coefficients of a step that took the memory from `before` to `after` and gave the update `updated`."""
        found = self.linear(update, before, after, params, small(jax.tree.leaves(params)))
        if self.clipping != "none":
            parts = [jax.tree.leaves(tree) for tree in (gradient, updated, before, after)]
            found = self._clipped(found, *parts)
        return found

    def rows(self, found: list[Coefficients], gradients: list[Any], shares: Sequence[Any]) -> tuple[list, tuple]:
        """The groups' parts of the update, and their new parts of the memories."""
        rows, after, at = [], [], 0
        for c, g in zip(found, gradients, strict=True):
            own = shares[at : at + len(c.rest) - 1]
            at += len(own)
            new = [combined(c, row, g, own) for row in range(len(c.rest))]
            # Decay, and whatever else does not come from a gradient, is nobody's.
            new = [part.at[-1].add(rest) for part, rest in zip(new, c.rest, strict=True)]
            rows.append(new[0])
            after += [part.astype(o.dtype) for part, o in zip(new[1:], own, strict=True)]
        return rows, tuple(after)

    def linear(self, update: Update, before: Any, after: Any, params: Any, e: float) -> list[Coefficients]:
        """The coefficients without clipping, asked for with numbers of size `e`."""
        leaves, structure = jax.tree.flatten(before)
        new = jax.tree.leaves(after)
        shapes, treedef = jax.tree.flatten(params)

        def respond(gradient, memory, decay, scale):
            """What the optimizer answers, over e: updates and memories of every array."""
            # Without scales all entries of an array are treated alike, so that one entry tells of all.
            one = lambda leaf: jnp.shape(leaf) if self.scales or decay else (1,) * jnp.ndim(leaf)  # noqa: E731
            full = lambda leaf, value: jnp.full(one(leaf), value, leaf.dtype)  # noqa: E731
            asked = list(leaves)
            for at, value in scale.items():
                asked[at] = value
            for k, at in ((k, at) for slots in self.memories for k, at in enumerate(slots)):
                asked[at] = full(leaves[at], e if k == memory else 0)
            out, answer = update(
                jax.tree.unflatten(treedef, [full(p, e if gradient else 0) for p in shapes]),
                jax.tree.unflatten(structure, asked),
                jax.tree.unflatten(treedef, [p * e if decay else full(p, 0) for p in shapes]),
            )
            out, answer = jax.tree.leaves(out), jax.tree.leaves(answer)
            return [
                [u / e, *(answer[at] / e for at in slots)] for u, slots in zip(out, self.memories, strict=True)
            ], answer

        scale = {}
        if self.scales:
            fall = respond(False, None, False, {at: jnp.ones_like(leaves[at]) for at in self.scales})[1]
            scale = {at: jnp.where(fall[at] > 0, new[at] / fall[at], 0) for at in self.scales}
        most = max(map(len, self.memories), default=0)
        by_gradient = respond(True, None, False, scale)[0]
        by_memory = [respond(False, k, False, scale)[0] for k in range(most)]
        by_params = respond(False, None, True, scale)[0]
        found = [
            Coefficients(
                by_gradient[i],
                [[by_memory[k][i][row] for k in range(len(slots))] for row in range(len(slots) + 1)],
                by_params[i],
            )
            for i, slots in enumerate(self.memories)
        ]
        if self.even is None:
            return found
        found = jax.tree.map(lambda even, leaf: _first(leaf) if even else leaf, list(self.even), found)
        if not any(self.scaled):
            return found
        alike = self._alike(update, before, params, e)
        return [
            c._replace(
                gradient=[one.gradient[0], *c.gradient[1:]], memory=[one.memory[0], *c.memory[1:]], scale=c.gradient[0]
            )
            if scaled
            else c
            for c, one, scaled in zip(found, alike, self.scaled, strict=True)
        ]

    def _alike(self, update: Update, before: Any, params: Any, e: float) -> list[Coefficients]:
        """The numbers of row 0 as multiples of the gradient's, found at scales of 1; they are those at any scale."""
        leaves, structure = jax.tree.flatten(self._first(before))
        leaves = [jnp.ones_like(leaf) if at in self.scales else leaf for at, leaf in enumerate(leaves)]
        seen = jax.tree.unflatten(structure, leaves)
        found = self._replace(even=None).linear(update, seen, seen, jax.tree.map(_first, params), e)

        def over(number: Any, unit: Any) -> Any:
            return jnp.where(unit == 0, 0, number / jnp.where(unit == 0, 1, unit))

        return [
            c._replace(
                gradient=[over(c.gradient[0], c.gradient[0])], memory=[[over(b, c.gradient[0]) for b in c.memory[0]]]
            )
            for c in found
        ]

    def _clipped(self, found: list[Coefficients], gradient: list, updated: list, before: list, after: list) -> list:
        """With the factor that the step was scaled by, on the side where it acts."""
        reach, side = self.clipping.split()
        pairs = []
        for c, g, u, slots in zip(found, gradient, updated, self.memories, strict=True):
            own = [before[at] for at in slots]
            # A momentum shows what came in; without one the update does.
            row, result = (1, after[slots[0]]) if slots and side == "in" else (0, u)
            if side == "in":
                zero = jnp.zeros_like(g)
                pairs.append((c.gradient[row] * g, result - combined(c, row, zero, own) - c.rest[row]))
            else:
                pairs.append((combined(c, 0, g, own) + c.rest[0], u))
        factors = _factors(pairs, reach)
        if side == "in":
            return [c._replace(gradient=[f * a for a in c.gradient]) for c, f in zip(found, factors, strict=True)]
        return [
            c._replace(
                gradient=[f * c.gradient[0], *c.gradient[1:]],
                memory=[[f * b for b in c.memory[0]], *c.memory[1:]],
                rest=[f * c.rest[0], *c.rest[1:]],
            )
            for c, f in zip(found, factors, strict=True)
        ]


def _first(array: Any) -> Any:
    return array[(slice(0, 1),) * jnp.ndim(array)] if jnp.ndim(array) else array


def combined(c: Coefficients, row: int, gradient: Any, memories: Sequence[Any]) -> Any:
    """One row of the linear map: what a gradient and memories become."""
    out = c.gradient[row] * gradient
    for b, m in zip(c.memory[row], memories, strict=True):
        out = out + b * m
    return out if row or c.scale is None else c.scale * out


def since(c: Coefficients, falls: list[list[Any]], now: list[Any], then: list[Any]) -> Coefficients:
    """The coefficients of a step for momenta as they were at some earlier step, `then`, and not as they are `now`.

    `falls[k][i]`: what is left in momentum k of what momentum i was then. What has entered since is nobody's.
    """
    left = [sum(f * m for f, m in zip(line, then, strict=True)) for line in falls]
    entered = [m - old for m, old in zip(now, left, strict=True)]
    return c._replace(
        memory=[
            [sum(b * line[i] for b, line in zip(row, falls, strict=True)) for i in range(len(falls))]
            for row in c.memory
        ],
        rest=[rest + combined(c, row, 0, entered) for row, rest in enumerate(c.rest)],
    )


def _factors(pairs: list[tuple[Any, Any]], reach: str) -> list[Any]:
    """The factors f with `f before = after`; 1 where nothing came in."""
    if reach == "entry":
        return [jnp.where(x == 0, 1.0, y / jnp.where(x == 0, 1.0, x)) for x, y in pairs]
    dots = [(jnp.vdot(x, y), jnp.vdot(x, x)) for x, y in pairs]
    if reach == "global":
        dots = [(sum(top for top, _ in dots), sum(bottom for _, bottom in dots))] * len(dots)
    return [jnp.where(bottom == 0, 1.0, top / jnp.where(bottom == 0, 1.0, bottom)) for top, bottom in dots]


def small(leaves: Sequence[Any]) -> float:
    """A power of two so small that its square vanishes, and so large that products with it are still exact."""
    least = max(int(jnp.finfo(jnp.asarray(leaf).dtype).minexp) for leaf in leaves)
    return 2.0 ** (least // 3)


def _with_other(leaf: Any, groups: int) -> Any:
    return leaf if len(leaf) > groups else jnp.concatenate([leaf, jnp.zeros_like(leaf[:1])])


# --- What an optimizer is found to be ----------------------------------------------------------------------------


def split_of(optimizer: Any, params: Any) -> Split:
    """How this optimizer's updates split, found out on random gradients. Raises `ValueError` if they do not."""
    leaves, structure = jax.tree.flatten(params)
    return _split_of(optimizer, structure, tuple((jnp.shape(leaf), jnp.asarray(leaf).dtype) for leaf in leaves))


@functools.lru_cache(maxsize=64)
def _split_of(optimizer: Any, structure: Any, kinds: tuple) -> Split:
    for shape, dtype in kinds:
        if dtype not in (jnp.float32, jnp.float64, jnp.bfloat16):
            raise ValueError(
                f"params must be real numbers with 8 bits of exponent to be tallied, got {dtype} of shape {shape}"
            )
    with jax.ensure_compile_time_eval():
        rehearsal = _Rehearsal(optimizer, structure, [shape for shape, _ in kinds])
        memories, scales = _slots(rehearsal.start, rehearsal.params)
        for clipping in CLIPPINGS:
            split = Split(memories, scales, clipping, True)
            if rehearsal.conserves(split):
                split = split._replace(rests=rehearsal.decays(split), even=rehearsal.even(split))
                return split._replace(scaled=rehearsal.scaled(split))
    low = [leaf.dtype for leaf in jax.tree.leaves(rehearsal.start) if np.ndim(leaf) and leaf.dtype.itemsize < 8]
    if low:
        raise ValueError(
            f"optimizer cannot be tallied: it adds gradients up in {low[0]}, which rounds the groups' parts: let it "
            "add in double precision, such as optax.MultiSteps(..., accumulator_dtype=jnp.float64)"
        )
    raise ValueError(
        "optimizer cannot be tallied: its update is no sum over groups of data, even at fixed scales (known are "
        f"{KNOWN}); tally it without process, one datum a step, or train with one of these"
    )


def _slots(opt_state: Any, params: Any) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """The leaves of the optimizer's state that are momenta of each parameter array, and those that are scales."""
    memories: dict[str, list[int]] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        memories[jax.tree_util.keystr(path)] = []
    scales: list[int] = []
    position = itertools.count()

    def visit(node: Any, inside: str) -> None:
        name = type(node).__name__ if hasattr(node, "_fields") else inside
        if jax.tree_util.all_leaves([node]):
            next(position)
            if np.ndim(node) and jnp.issubdtype(jnp.asarray(node).dtype, jnp.floating):
                raise ValueError(
                    f"optimizer cannot be tallied: how its {inside} divides among groups of data is not known (known "
                    f"are {KNOWN}); tally it without process, one datum a step, or train with one of these"
                )
            return
        for path, child in jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]:
            field = jax.tree_util.keystr(path, simple=True)
            if MEMORIES.get(name) == field:
                for below, _ in jax.tree_util.tree_leaves_with_path(child):
                    memories[jax.tree_util.keystr(below)].append(next(position))
            elif SCALES.get(name) == field:
                scales.extend(next(position) for _ in jax.tree.leaves(child))
            else:
                visit(child, name)

    visit(opt_state, "state")
    return tuple(map(tuple, memories.values())), tuple(scales)


class _Rehearsal:
    """A few steps of an optimizer on small random arrays, for two groups and the rest."""

    def __init__(self, optimizer: Any, structure: Any, shapes: list[tuple[int, ...]]):
        draw = np.random.default_rng(0)
        one = lambda shape: jnp.asarray(draw.normal(size=tuple(min(size, 3) for size in shape)))  # noqa: E731
        self.params = jax.tree.unflatten(structure, [one(shape) for shape in shapes])
        self.update = optimizer.update
        self.start = optimizer.init(self.params)
        self.gradients = [
            jax.tree.map(lambda p, size=size: jnp.asarray(size * draw.normal(size=(3, *p.shape))), self.params)
            for size in (1e-30, 1e-4, 1.0, 1e4, 1e8, 1.0, 1e-2)
        ]

    def decays(self, split: Split) -> bool:
        """Whether the optimizer moves parameters, or changes momenta, without any gradient."""
        zero = jax.tree.map(jnp.zeros_like, self.params)
        after = self.update(zero, self.start, self.params)[1]
        found = split.linear(self.update, self.start, after, self.params, 2.0**-300)
        return any(np.any(rest != 0) for c in found for rest in c.rest)

    def even(self, split: Split) -> tuple[Coefficients, ...]:
        """Which coefficients cannot but be the same in all entries of an array.

        Those into which no scale enters; and what moves without a gradient, which is nothing if no parameter enters.
        """
        ask = lambda after, params: split.linear(self.update, self.start, after, params, 2.0**-300)  # noqa: E731
        closed, found = jax.make_jaxpr(ask, return_shape=True)(self.start, self.params)
        scales, params = jax.tree.unflatten(jax.tree.structure((self.start, self.params)), closed.jaxpr.invars)
        by_scale, by_params = (
            jax.tree.unflatten(jax.tree.structure(found), [not hit for hit in _reached(closed.jaxpr, sources)])
            for sources in ([var for var in jax.tree.leaves(scales) if var.aval.ndim], jax.tree.leaves(params))
        )
        return tuple(c._replace(rest=p.rest) for c, p in zip(by_scale, by_params, strict=True))

    def scaled(self, split: Split) -> tuple[bool, ...]:
        """Whether each array's update is seen to be a scale times a sum alike in all entries; and if that saves."""
        several = [not (c.gradient[0] or any(c.memory[0])) and len(c.memory) > 1 for c in split.even or ()]
        if not any(several):
            return ()
        state, found, alike = self.start, [], []
        for parts in self.gradients[2:4]:
            after = self.update(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts), state, self.params)[1]
            found.append(split.linear(self.update, state, after, self.params, 2.0**-300))
            alike.append(split._alike(self.update, state, self.params, 2.0**-300))
            state = after

        def same(c: Coefficients, one: Coefficients) -> bool:
            pairs = zip([c.gradient[0], *c.memory[0]], [*one.gradient, *one.memory[0]], strict=True)
            there = bool(np.all(c.gradient[0] != 0))
            return there and all(np.allclose(b, c.gradient[0] * ratio, rtol=1e-13, atol=0) for b, ratio in pairs)

        steps = [[same(*pair) for pair in zip(*step, strict=True)] for step in zip(found, alike, strict=True)]
        return tuple(all(one) for one in zip(several, *steps, strict=True))

    def conserves(self, split: Split) -> bool:
        """Whether the parts sum to the whole, and nothing is clipped where the gradient is next to nothing."""
        state, shares = self.start, split.shares(self.start, 2)
        for parts in self.gradients:
            gradient = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)
            try:
                update, after = self.update(gradient, state, self.params)
            except Exception as problem:
                raise ValueError(
                    "optimizer cannot be tallied: it does not work from a gradient and parameters alone: "
                    + shown(str(problem))
                ) from None
            found = split.coefficients(self.update, gradient, update, state, after, self.params)
            if state is self.start:
                for e in (2.0**-300, 2.0**-320):
                    if not _close(found, split.linear(self.update, state, after, self.params, e)):
                        return False
            rows, shares = split.rows(found, jax.tree.leaves(parts), shares)
            memory = [jax.tree.leaves(after)[at] for at in itertools.chain(*split.memories)]
            whole = [*jax.tree.leaves(update), *memory]
            if not all(_sums(part, total) for part, total in zip([*rows, *shares], whole, strict=True)):
                return False
            state = after
        return True


def _reached(jaxpr: Any, sources: list[Any]) -> list[bool]:
    """Whether any of these variables enters into each of a jaxpr's results."""
    reached = set(sources)
    there = lambda var: not isinstance(var, core.Literal) and var in reached  # noqa: E731
    for equation in jaxpr.eqns:
        if any(there(var) for var in equation.invars):
            reached.update(equation.outvars)
    return [there(var) for var in jaxpr.outvars]


def _close(a: Any, b: Any) -> bool:
    return all(
        np.allclose(x, y, rtol=1e-6, atol=0) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _sums(parts: Any, whole: Any) -> bool:
    size = np.sum(np.abs(parts), axis=0)
    return bool(np.all(np.abs(np.sum(parts, axis=0) - whole) <= 1e-11 * size + math.ulp(0.0)))
