"""`Tally`: how far each group of data moved each parameter, counted while a process runs."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._edge import check_function, is_traced, is_whole, one_truth, shown
from thalweg._process import Process, check_process
from thalweg._select import select
from thalweg.knowledge import _blocked, _factored, _rows
from thalweg.knowledge._attribution import Coefficients, Split, since, split_of
from thalweg.knowledge._by_gradient import ByGradient, by_gradient
from thalweg.knowledge._tallied import KINDS, RESOLUTIONS, Tallied, summed

jax.tree_util.register_dataclass(
    Tallied,
    data_fields=["absolute", "signed", "counts", "steps", "conservation", "cancellation"],
    meta_fields=["resolution", "units", "tolerance", "note"],
)


class Past(NamedTuple):
    """The optimizer's momenta at the last tallied step, and how they have faded since, by array.

    - `falls[k][i]`: what is left in momentum k of what momentum i was then, entry by entry or one number an array.
    """

    falls: tuple[Any, ...]
    momenta: tuple[Any, ...]


class Tallying(NamedTuple):
    """What a tally carries from step to step."""

    kept: dict[str, Any]
    shares: tuple[Any, ...]  # the groups' parts of the optimizer's momenta, as they were at the last tallied step
    past: Past | None  # where momenta are, and not all steps tallied
    counts: Any
    seen: Any
    tallied: Any
    conservation: Any
    cancellation: Any
    probe: Any = ()  # of single data, kept as their factors
    blocked: Any = ()  # of batches, kept as their factors


class Tally(eqx.Module):
    """How far each group of data moved each parameter: a fold of a run of a learner.

    A step's change of the parameters is a sum over groups, `change = sum_g part_g`, exactly: through momentum (each
    group has its own), through Adam (all share the second moments), and through clipping (all share the factor). A
    tally sums `|part_g|` and `part_g` over the steps. It is counted, not estimated, and has no error bar. Large dense
    layers are kept as their factors, single data to the end and batches for a few steps: this costs least, and of those
    `conservation` is measured on a part of the inputs, another each time.

    **Arguments**

    - `groups`: the group of each datum, (n,) whole numbers 0..G-1; -1 for none. Every group must have a datum.
      `np.arange(n)` makes every datum a group of its own.
    - `process`: the learner that is run (`tw.processes.sgd`), or any process that draws numbers of data and has
      `contributions`: its step should be its gradient times some number. Without it the whole step goes to its datum.
    - `kinds`: `"absolute"`, `"signed"`, or both.
    - `where`: a selector of parameters, such as `lambda p: p["W1"]`; by default all.
    - `window`: which steps are tallied, counted from the start of the run: `(first, end)`, truth values one a step, or
      a function of `(state, w)`. What is learned outside it counts as other.
    - `every`: tally the last of every so many steps. Gradients of the steps between count as other.
    - `per`: `"parameter"`; `"unit"` sums over the inputs (all axes but the last) as the run goes, `"module"` over each
      array.
    - `most_bytes`: the memory that the tally may take (4 GB); `memory(state)` tells it beforehand.

    **Returns** a fold: `init`, `update`, `result`; the result is a `Tallied`.

    Do not read it as what a datum *would* change if it were left out: that is a fork. With batch norm, or any loss that
    couples the data of a batch, the parts still sum, but are not one datum's. Absolute tallies depend on the size
    of the batch, since |sum| is not the sum of | |.

    >>> import jax.numpy as jnp, numpy as np, thalweg as tw
    >>> x, y = jnp.array([[1.0, 2.0], [3.0, -1.0]]), jnp.array([1.0, 0.0])
    >>> loss = lambda p, d: (p @ d[0] - d[1]) ** 2 / 2
    >>> learner = tw.processes.sgd(loss, (x, y), 0.1, batch_size=2, order="subset")  # both data, every step
    >>> tally = tw.knowledge.Tally(np.array([0, 1]), learner)
    >>> run = tw.simulate(learner, learner.init(jnp.zeros(2)), 3, key=0, folds={"tally": tally})
    >>> run.folds["tally"].signed.round(6)[:2]
    Array([[ 0.11575 ,  0.2315  ],
           [-0.016875,  0.005625]], dtype=float64)
    """

    groups: Any
    process: Any
    window: Any
    where: Any = eqx.field(static=True)
    kinds: tuple[str, ...] = eqx.field(static=True)
    count: int = eqx.field(static=True)
    every: int = eqx.field(static=True)
    per: str = eqx.field(static=True)
    most_bytes: float = eqx.field(static=True)

    def __init__(
        self,
        groups: Any,
        process: Process | None = None,
        kinds: Any = KINDS,
        where: Any = None,
        window: Any = None,
        every: int = 1,
        per: str = "parameter",
        most_bytes: float = 4e9,
    ):
        groups, self.count = check_groups(groups)
        self.groups = jnp.asarray(groups)
        self.kinds = check_kinds(kinds)
        self.process = None if process is None else _as_learner(process, len(groups))
        self.where = where
        self.window = _check_window(window)
        if not is_whole(every) or not 1 <= every < 2**62:
            raise ValueError(f"every must be a whole number of steps >= 1, got {shown(every)}")
        self.every = int(every)
        if not isinstance(per, str) or per not in RESOLUTIONS:
            raise ValueError(f'per must be "parameter", "unit" or "module", got {shown(per)}')
        self.per = per
        if isinstance(most_bytes, bool) or not isinstance(most_bytes, int | float) or not most_bytes > 0:
            raise ValueError(f"most_bytes must be a number of bytes > 0, got {shown(most_bytes)}")
        self.most_bytes = float(most_bytes)

    @property
    def always(self) -> bool:
        """Whether every step is tallied."""
        return self.every == 1 and self.window is None

    def _seen(self, state: Any) -> Any:
        return self.process.seen(state) if isinstance(self.process, ByGradient) else state

    def memory(self, state: Any) -> int:
        """The bytes that this tally will take in a run from `state`."""
        carried = jax.eval_shape(self._start, state)
        size = sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(carried))
        if carried.probe:  # the tables are made from the logs in the end
            read = jax.eval_shape(lambda carry: self._expanded(carry).kept, carried)
            size += sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(read))
        return size

    def init(self, state: Any) -> Tallying:
        """What is carried at the start. Refuses a tally that would take more than `most_bytes`."""
        size = self.memory(state)
        if size > self.most_bytes:
            raise ValueError(
                f"this tally would take {size / 1e9:.3g} GB, and most_bytes allows {self.most_bytes / 1e9:.3g} GB: "
                'tally one of the kinds, fewer groups, a part (where=...), or sums (per="unit"), or allow more'
            )
        return self._start(state)

    def update(self, carry: Tallying, state: Any, w: Any, next_state: Any) -> Tallying:
        """What is carried on, having seen a step."""
        chosen = self.always or self._chosen(carry.seen, state, w)
        state, next_state = self._seen(state), self._seen(next_state)
        passed = carry._replace(seen=carry.seen + 1)
        if carry.probe:
            passed = passed._replace(probe=_factored.probe(carry.probe.ways, next_state.params, passed.seen))
            follow = lambda c: _factored_step(self, carry.probe, c, state, w, next_state)  # noqa: E731
        elif self.process is None:
            follow = lambda c: _whole_step(self, c, state, w, next_state)  # noqa: E731
        else:
            # The step itself makes these too. Outside of the loop below the compiler makes them once for both.
            layers = _layers_of(self, state, w)
            follow = lambda c: _split_step(self, c, state, w, next_state, layers)  # noqa: E731
        weighted = self.process is not None and self.process.step.weights is not None
        real = ~self.process.step.skips(w) if weighted else True
        if self.always and not weighted:
            found = follow(passed)
        else:
            # A loop of one turn or none: in a branch of a condition the tables would be copied.
            turns = jnp.asarray(chosen & real).astype(int)
            found = lax.fori_loop(0, turns, lambda _, c: follow(c), passed)
        if carry.blocked:
            found = found._replace(blocked=_blocked.follow(found.blocked, next_state.params))
        if carry.past is not None and found.past is not None:
            faded = _faded(self, carry.past, state, next_state)
            falls = jax.tree.map(lambda new, old: jnp.where(real & ~chosen, old, new), found.past.falls, faded)
            found = found._replace(past=found.past._replace(falls=falls))
        return found

    def result(self, carry: Tallying) -> Tallied:
        """The tallies, as the parameters."""
        carry = self._expanded(carry)
        found = Tallied(
            carry.kept.get("absolute"),
            carry.kept.get("signed"),
            carry.counts,
            carry.tallied,
            carry.conservation,
            carry.cancellation,
            "unit" if self.per == "unit" else "parameter",
        )
        return found.per("module") if self.per == "module" else found

    def _expanded(self, carry: Tallying) -> Tallying:
        """With the tables that the logs of single data hold."""
        if carry.blocked:
            return _blocked.joined(self, carry)
        if not carry.probe:
            return carry
        params = carry.probe.ways.like()
        kept = {kind: jax.tree.leaves(tree) for kind, tree in carry.kept.items()}
        found = _factored.tables(self, carry.probe.ways, kept)
        return carry._replace(kept={kind: self._picked(params, leaves) for kind, leaves in found.items()})

    def _start(self, state: Any) -> Tallying:
        state = self._seen(state)
        params = params_of(state)
        leaves = jax.tree.leaves(params)
        parts = self._parts(params)
        real = jnp.result_type(*leaves)
        ways, blocked = _factored.plan(self, state), _blocked.start(self, state)
        late = blocked.plan.arrays if blocked else ()

        def room() -> list[Any]:
            shapes = [
                (len(self.groups), ways.units[part.leaf])
                if ways and ways.of[part.leaf] == "log"
                else (self.count + 1, *_reduced_shape(part.shape, self.per))
                for part in parts
            ]
            made = [jnp.zeros(shape, leaves[part.leaf].dtype) for part, shape in zip(parts, shapes, strict=True)]
            for array in late:
                made[array.at] = _blocked.padded(array, made[array.at], self.per)
            return made

        shares: tuple[Any, ...] = ()
        past: Past | None = None
        if self.process is not None:
            split = self._split(params)
            whole = list(split.shares(state.opt_state, self.count))
            for array in late:
                for slot in array.slots:
                    whole[slot] = _blocked.padded(array, whole[slot], "parameter")
            shares = tuple(whole)
            past = self._past(split, state)
        return Tallying(
            {kind: self._picked(params, room()) for kind in self.kinds},
            shares,
            past,
            jnp.zeros(self.count, int),
            jnp.zeros((), int),
            jnp.zeros((), int),
            jnp.zeros((), real),
            jnp.ones((), real),
            _factored.probe(ways, params, 0) if ways else (),
            blocked,
        )

    def _split(self, params: Any) -> Split:
        optimizer = self.process.step.optimizer
        if optimizer is None:
            n = len(jax.tree.leaves(params))
            clipping = "global out" if isinstance(self.process, ByGradient) else "none"
            return Split(((),) * n, (), clipping, False, (Coefficients([True], [[]], [True]),) * n)
        return split_of(optimizer, params)

    def _past(self, split: Split, state: Any) -> Past | None:
        """The momenta at a step after which not every one is tallied, not faded yet."""
        if self.always or not any(split.memories):
            return None
        memory = jax.tree.leaves(state.opt_state)
        momenta = tuple([memory[slot] for slot in slots] for slots in split.memories)
        return Past(split.unfaded(jax.tree.leaves(state.params)), momenta)

    def _coefficients(self, split: Split, past: Past | None, state: Any, w: Any, next_state: Any) -> list[Coefficients]:
        """How a step changed each array, and its momenta, as a linear map of the momenta at the last tallied step."""
        step = self.process.step
        gradient = step.contributions(state, w) if split.clipping != "none" else None
        update = jax.tree.map(jnp.subtract, next_state.params, state.params)
        found = split.coefficients(step.rule, gradient, update, state.opt_state, next_state.opt_state, state.params)
        now = self._past(split, state)
        if past is None or now is None:
            return found
        return [since(*one) for one in zip(found, past.falls, now.momenta, past.momenta, strict=True)]

    def _parts(self, params: Any) -> list["Part"]:
        """Which entries of which arrays are tallied."""
        leaves = jax.tree.leaves(params)
        if self.where is None:
            return [Part(i, None, jnp.shape(leaf)) for i, leaf in enumerate(leaves)]
        selection = select(self.where, params)
        sizes = [math.prod(shape) for shape in selection.shapes]
        parts = []
        for positions in jax.tree.leaves(selection.picked):
            numbers = positions.numbers
            leaf = int(np.searchsorted(selection.offsets, numbers.reshape(-1)[0], side="right")) - 1
            local = numbers - selection.offsets[leaf]
            whole = np.array_equal(local.reshape(-1), np.arange(sizes[leaf]))
            parts.append(Part(leaf, None if whole else local, local.shape))
        return parts

    def _picked(self, params: Any, parts: list[Any]) -> Any:
        """The tallied parts in the structure that `where` gives them."""
        structure = jax.tree.structure(params if self.where is None else select(self.where, params).picked)
        return jax.tree.unflatten(structure, parts)

    def _chosen(self, seen: Any, state: Any, w: Any) -> Any:
        chosen = (seen + 1) % self.every == 0
        if self.window is None:
            return chosen
        if callable(self.window):
            return chosen & one_truth(self.window(state, w), "window")
        if isinstance(self.window, tuple):
            return chosen & (seen >= self.window[0]) & (seen < self.window[1])
        size = self.window.size
        return chosen & jnp.where(seen < size, self.window[jnp.minimum(seen, size - 1)], False)


class Part(NamedTuple):
    """Entries of one array that are tallied: all, or those of `local` numbers."""

    leaf: int
    local: Any
    shape: tuple[int, ...]

    def of(self, leaves: list[Any]) -> Any:
        array = leaves[self.leaf]
        return array.reshape(self.shape) if self.local is None else array.reshape(-1)[self.local]


def params_of(state: Any) -> Any:
    """The parameters of a learner's state; of any other process all of it."""
    return getattr(state, "params", state)


def _whole_step(tally: Tally, carry: Tallying, state: Any, w: Any, next_state: Any) -> Tallying:
    """The whole step goes to the group of its one datum."""
    if jnp.ndim(w) or not jnp.issubdtype(jnp.asarray(w).dtype, jnp.integer):
        raise ValueError(
            "without process a tally needs one datum a step, whose number is the noise: to split a batch, pass process="
        )
    params = params_of(state)
    change = [b - a for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(params_of(next_state)), strict=True)]
    group = tally.groups[w]
    row = jnp.where(group < 0, tally.count, group)
    kept = {kind: jax.tree.leaves(tree) for kind, tree in carry.kept.items()}
    kept = _added(tally, kept, tally._parts(params), row, change)
    return carry._replace(
        kept={kind: tally._picked(params, leaves) for kind, leaves in kept.items()},
        counts=_counted(tally, carry, w, row),
        tallied=carry.tallied + 1,
    )


def _factored_step(tally: Tally, before: Any, carry: Tallying, state: Any, w: Any, next_state: Any) -> Tallying:
    """A step of plain descent on one datum, of which the two factors are kept; `before`: what the last step left."""
    if jnp.ndim(w):
        raise ValueError("the noise of this step is a batch, and that of the tally's process is one datum")
    kept, off = _factored.step(tally, before, carry, state, w, next_state)
    group = tally.groups[w]
    return carry._replace(
        kept={kind: tally._picked(state.params, leaves) for kind, leaves in kept.items()},
        counts=_counted(tally, carry, w, jnp.where(group < 0, tally.count, group)),
        tallied=carry.tallied + 1,
        conservation=jnp.maximum(carry.conservation, off),
    )


def _added(tally: Tally, kept: dict[str, list[Any]], parts: list[Part], row: Any, change: list[Any]) -> dict:
    """The tallies with one group's part of a step added."""
    out = {}
    for kind, sums in kept.items():
        sized = [jnp.abs(leaf) if kind == "absolute" else leaf for leaf in change]
        out[kind] = [
            total.at[row].add(summed(part.of(sized), tally.per, 0, -1)) for total, part in zip(sums, parts, strict=True)
        ]
    return out


def _layers_of(tally: Tally, state: Any, w: Any) -> list[Any]:
    """The layers of each array of parameters, `None` where it is none."""
    layers = tally.process.layers
    return [None] * len(jax.tree.leaves(state.params)) if layers is None else layers(state, w)


def _split_step(tally: Tally, carry: Tallying, state: Any, w: Any, next_state: Any, layers: list[Any]) -> Tallying:
    """A step divided among the groups of its batch."""
    params = state.params
    split = tally._split(params)
    if jnp.ndim(w) == 0 and not split.remembers:
        return _whole_step(tally, carry, state, w, next_state)
    before, after = jax.tree.leaves(params), jax.tree.leaves(next_state.params)
    groups = jnp.where(tally.groups[w] < 0, tally.count, tally.groups[w])
    # Made to hang on the carry (there are never fewer than 0), so that the compiler does not do the work below ahead,
    # in steps that are not tallied too.
    groups, memory = jax.tree.map(
        lambda leaf: jnp.where(carry.tallied < 0, jnp.zeros_like(leaf), leaf), (groups, next_state.opt_state)
    )
    next_state = next_state._replace(opt_state=memory)
    batch = _rows.batch_of(groups, tally.count)
    stacked = _group_gradients(tally, state, w, groups) if None in layers else layers
    slopes = [_rows.slopes_of(*pair, batch, tally.count) for pair in zip(layers, stacked, strict=True)]
    steepest = jnp.max(jnp.stack([slope.largest for slope in slopes]))
    found = tally._coefficients(split, carry.past, state, w, next_state)
    steps = [
        _rows.one_step(c, slope, batch, steepest.astype(leaf.dtype))
        for c, slope, leaf in zip(found, slopes, before, strict=True)
    ]
    parts, shapes = tally._parts(params), [leaf.shape for leaf in before]
    kept = {kind: jax.tree.leaves(tree) for kind, tree in carry.kept.items()}
    shares, measured, at = list(carry.shares), [], 0
    for i, one in enumerate(steps):
        own = slice(at, at := at + len(split.memories[i]))
        if carry.blocked and i in carry.blocked.plan:
            continue
        mine = [(kind, j) for kind in kept for j, part in enumerate(parts) if part.leaf == i]
        tallies = [(kept[kind][j], kind, parts[j]) for kind, j in mine]
        if _rows.in_one_piece(before[i].size, tally.count):
            gradients = stacked[i] if layers[i] is None else _rows.gradients(layers[i], groups, tally.count, shapes[i])
            new, shares[own], size = _rows.divide_at_once(
                found[i], gradients, tallies, shares[own], before[i], after[i], one.steepest[0], tally.per
            )
        else:
            new, shares[own], size = _divide(tally, split, one, tallies, shares[own], before[i], after[i])
        for (kind, j), leaf in zip(mine, new, strict=True):
            kept[kind][j] = leaf
        measured.append(size)
    measured.append(_rows.Measured(*jnp.zeros((3,), carry.conservation.dtype)))
    off, largest, moved = (jnp.max(jnp.stack(values)) for values in zip(*measured, strict=True))
    carry = carry._replace(
        kept={kind: tally._picked(params, leaves) for kind, leaves in kept.items()},
        shares=tuple(shares),
        past=tally._past(split, next_state),
        counts=_counted(tally, carry, w, groups),
        tallied=carry.tallied + 1,
        conservation=jnp.maximum(carry.conservation, off),
        cancellation=jnp.maximum(carry.cancellation, jnp.where(largest == 0, 1, largest / moved)),
    )
    if not carry.blocked:
        return carry
    return _blocked.add_full(tally, carry._replace(blocked=_blocked.keep(carry.blocked, steps, before, after)))


def _divide(
    tally: Tally, split: Split, one: Any, tallies: list[Any], shares: list[Any], before: Any, after: Any
) -> tuple[list[Any], list[Any], Any]:
    """One step of one array divided, tile by tile."""
    tiled = all(part.local is None and part.shape == before.shape for _, _, part in tallies)

    def compared(first: Any, shape: Any) -> tuple[Any, Any, bool]:
        return (*(lax.dynamic_slice_in_dim(leaf, first, shape[0]) if shape else leaf for leaf in (before, after)), True)

    tiles = _rows.dividing(before, tiled)
    return _rows.divide(one, tiles, before.shape, split.remembers, tallies, shares, compared, tally.per)


def _counted(tally: Tally, carry: Tallying, w: Any, groups: Any) -> Any:
    """The visits of data by group; data of weight 0 do not count."""
    weights = None if tally.process is None else tally.process.step.weights
    visits = jnp.ones(jnp.shape(w), int) if weights is None else (weights[w] > 0).astype(int)
    return carry.counts.at[groups].add(visits, mode="drop")


def _faded(tally: Tally, past: Past, state: Any, next_state: Any) -> tuple[Any, ...]:
    """How the momenta have faded after one more step that is not tallied."""
    split = tally._split(state.params)
    fading = split.fading(tally.process.step.rule, state.opt_state, next_state.opt_state, state.params)
    return tuple(
        [[sum(d[k][j] * fall[j][i] for j in range(len(fall))) for i in range(len(fall))] for k in range(len(fall))]
        for d, fall in zip(fading, past.falls, strict=True)
    )


def _group_gradients(tally: Tally, state: Any, w: Any, groups: Any) -> list[Any]:
    """Each group's gradient, (G + 1, ...) an array."""
    mine = groups == jnp.arange(tally.count + 1).reshape(-1, *[1] * jnp.ndim(groups))
    contributions = tally.process.contributions
    return jax.tree.leaves(jax.vmap(lambda weights: contributions(state, w, weights))(mine.astype(float)))


# --- The edge ------------------------------------------------------------------------------------------------------


def _reduced_shape(shape: tuple[int, ...], per: str) -> tuple[int, ...]:
    return shape if per == "parameter" else shape[-1:] if per == "unit" else ()


def check_groups(groups: Any) -> tuple[np.ndarray, int]:
    """The group of each datum, and how many groups there are."""
    if is_traced(groups):
        raise TypeError("groups must be known beforehand: make the tally outside of jit")
    try:
        array = np.asarray(groups)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise TypeError(f"groups must be whole numbers, the group of each datum (-1 for none), got {shown(groups)}")
    if array.min() < -1 or array.max() < 0:
        raise ValueError(f"groups must be numbers from 0 on, or -1 for none, got from {array.min()} to {array.max()}")
    there = np.unique(array[array >= 0])
    if there[-1] != len(there) - 1:
        absent = int(np.setdiff1d(np.arange(there[-1]), there)[0])
        raise ValueError(
            f"groups must use every number from 0 to {there[-1]}, but no datum is in group {absent}: number them anew, "
            "such as np.unique(labels, return_inverse=True)[1]"
        )
    return array.astype(np.int64), len(there)


def check_kinds(kinds: Any) -> tuple[str, ...]:
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    if (
        not isinstance(chosen, tuple | list)
        or not chosen
        or not all(isinstance(kind, str) and kind in KINDS for kind in chosen)
    ):
        raise ValueError(f'kinds must be "absolute", "signed", or both, got {shown(kinds)}')
    return tuple(kind for kind in KINDS if kind in chosen)


def _check_window(window: Any) -> Any:
    if window is None or callable(window):
        check_function(window, "window", "state, w", optional=True)
        return window
    if isinstance(window, tuple) and len(window) == 2 and all(is_whole(end) for end in window):
        if not 0 <= window[0] < window[1]:
            raise ValueError(f"window must be (first, end) with 0 <= first < end, got {shown(window)}")
        return (jnp.asarray(window[0]), jnp.asarray(window[1]))
    try:
        array = np.asarray(window)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.ndim != 1 or array.dtype != bool or not array.any():
        raise TypeError(
            "window must be (first, end) in steps, truth values one a step (at least one true), or a function of "
            f"(state, w), got {shown(window)}"
        )
    return jnp.asarray(array)


def _as_learner(process: Any, n: int) -> Any:
    check_process(process)
    step = process.step
    clamped = hasattr(step, "at_step")
    if process.contributions is None or clamped:
        raise ValueError(
            "process must be a learner whose steps divide among data, as tw.processes.sgd makes it (not clamped), or "
            "have contributions: of another process tally whole steps, one datum each, by leaving process out"
        )
    if not hasattr(step, "rule"):
        return by_gradient(process, n)
    if step.data is None:
        raise ValueError("process must learn from data, one or more a step (tw.processes.sgd): this one has none")
    size = len(jax.tree.leaves(step.data)[0])
    if size != n:
        raise ValueError(f"groups must have length {size}, one a datum of the process, got {n}")
    return process
