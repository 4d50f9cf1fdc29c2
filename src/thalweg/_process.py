"""The one object, a process `s' = step(s, w)`, and what runs it: `simulate`, `ensemble`, `fork`."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._across import folder_of, parts_of, run_parts
from thalweg._checkpoints import digest, is_key
from thalweg._edge import (
    check_arrays,
    check_choice,
    check_finite,
    check_function,
    check_number,
    check_real,
    check_start,
    check_steps,
    check_truth,
    count_members,
    is_traced,
    is_whole,
    number,
    outline,
    shown,
)
from thalweg._loop import Batch, Checkpoint, Options, Outcome, Watch, apply_step, as_arrays, run_loop
from thalweg._node import equations
from thalweg._noise import Law, Nothing, as_key, as_law
from thalweg._results import Status


class Process(eqx.Module):
    """A stochastic update map: `state' = step(state, w)`, with `w` drawn from `noise`.

    **Arguments**

    - `step`: a pure function of the state (any pytree) and the noise. Where it is an Equinox module,
      its numbers are leaves of the process: changing one compiles nothing again.
    - `noise`: a law (`tw.noise`), a dict or tuple of laws, or `None`.
    - `init`: makes a state from what a user has in hand; by default it makes arrays of what it is given.
    - `dt`: the time that one step stands for, if any.

    What a process may also say of itself, for the instruments that need it:

    - `coordinates`: a function of the state that selects the numbers which make it up on a grid or
      in a tangent; by default all floating leaves.
    - `names`: a function of the state that gives the node name of each leaf (a pytree like the state),
      where `step` reads the leaves through `tw.node`, so that a clamp of a leaf acts inside the step.
    - `transition`: `transition(state) -> (states, probabilities)`, for discrete state spaces.
    - `contributions`: `contributions(state, w, slot_weights) -> gradient`, `layers(state, w)`: what a
      tally of updates needs.
    - `smooth`: `False` if the step jumps (accept/reject, binary units), so that its tangent misses
      what a change does.

    **Example**

    >>> import jax, thalweg as tw
    >>> walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    >>> run = tw.simulate(walk, 0.0, 100, key=jax.random.key(0), record=lambda x, w, y: abs(y - x))
    >>> float(run.record.min()), float(run.record.max())
    (1.0, 1.0)
    """

    step: Callable[[Any, Any], Any]
    noise: Law
    init: Callable[..., Any]
    dt: Any
    coordinates: Callable[[Any], Any] | None
    names: Callable[[Any], Any] | None
    transition: Callable[[Any], tuple[Any, Any]] | None
    contributions: Callable[..., Any] | None
    layers: Callable[..., Any] | None
    smooth: bool = eqx.field(static=True)

    def __init__(
        self,
        step: Callable[[Any, Any], Any],
        noise: Any = None,
        init: Callable[..., Any] | None = None,
        dt: float | None = None,
        *,
        coordinates: Callable[[Any], Any] | None = None,
        names: Callable[[Any], Any] | None = None,
        transition: Callable[[Any], tuple[Any, Any]] | None = None,
        contributions: Callable[..., Any] | None = None,
        layers: Callable[..., Any] | None = None,
        smooth: bool = True,
    ):
        check_function(step, "step", "state, w")
        if init is not None and not callable(init):
            raise TypeError(f"init must be a function that makes a state, got {shown(init)}")
        check_function(coordinates, "coordinates", "state", optional=True)
        check_function(names, "names", "state", optional=True)
        check_function(transition, "transition", "state", optional=True)
        check_function(contributions, "contributions", "state, w, slot_weights", optional=True)
        check_function(layers, "layers", "state, w", optional=True)
        check_truth(smooth, "smooth")
        self.step = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, step)
        self.noise = as_law(noise)
        self.init = as_arrays if init is None else init
        self.dt = None if dt is None else check_number(dt, "dt", above=0)
        self.coordinates = coordinates
        self.names = names
        self.transition = transition
        self.contributions = contributions
        self.layers = layers
        self.smooth = smooth


class Fold(eqx.Module):
    """A running summary of a run, made from three functions.

    - `init(state)`: what is carried at the start.
    - `update(carry, state, w, next_state)`: what is carried on; sees every step.
    - `result(carry)`: what is handed back at the end; by default the carry.
    - `over`: `"member"`, or `"ensemble"` to be given the states of all members at once.

    Any object with these methods serves as a fold.

    >>> import thalweg as tw
    >>> visits = tw.Fold(init=lambda x: 0, update=lambda n, x, w, y: n + (y > 1))
    >>> doubling = tw.Process(lambda x, w: 2 * x)
    >>> int(tw.simulate(doubling, 1.0, 5, folds={"above": visits}).folds["above"])
    5
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any, Any], Any]
    result: Callable[[Any], Any] = lambda carry: carry
    over: str = eqx.field(static=True, default="member")

    def __check_init__(self):
        check_function(self.init, "init", "state")
        check_function(self.update, "update", "carry, state, w, next_state")
        check_function(self.result, "result", "carry")
        check_choice(self.over, "over", ("member", "ensemble"))


class Run(eqx.Module):
    """What `simulate`, `ensemble` and `fork` give back. In an ensemble every array leads with the members.

    - `state`: the last state; `initial`: the first.
    - `start`: the number of the first step; `steps`: how many were made.
    - `record`: what was recorded, a pytree with a leading axis of steps (after that of the members).
    - `folds`: the results of the folds, by name.
    - `arrived`: whether `until` was met (`None` without it).
    - `status`: a `Status` code (one a member); `message` says it in words.
    - `stored`: states kept on the way, by the number of the step that they are about to make.
    - `process`, `key`, `until`, `batch`: what was run.
    """

    state: Any
    steps: Any
    start: Any
    key: Any
    process: Process
    record: Any
    folds: dict[str, Any]
    status: Any
    initial: Any
    arrived: Any
    stored: dict[int, Any]
    until: Callable[[Any], Any] | None
    batch: Batch
    details: dict[str, Any] = eqx.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the run can be trusted (every member of it)."""
        return bool(np.all(np.asarray(self.status) == Status.OK))

    @property
    def message(self) -> str:
        """The worst status in words."""
        last = int(np.max(np.asarray(self.start) + np.asarray(self.steps)))
        return Status(int(np.max(np.asarray(self.status)))).sentence(
            **{"step": last, "quantity": "the state"} | self.details
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """How the run was made, for a file that holds it."""
        settings = {
            jax.tree_util.keystr(path).lstrip("."): np.asarray(leaf).tolist()
            for path, leaf in jax.tree_util.tree_leaves_with_path(self.process)
            if np.size(leaf) == 1 and hasattr(leaf, "dtype")
        }
        return {
            "process": outline(self.process),
            "settings": settings,
            "key": np.asarray(jax.random.key_data(self.key)).tolist() if np.ndim(self.key) == 0 else "one a member",
            "start": np.asarray(self.start).tolist(),
            "steps": int(np.max(np.asarray(self.steps))),
            "status": self.message,
        }

    def to_xarray(self) -> Any:
        """The record (dimension `step`, led by `member`) and the last state (`state...`) as a labelled Dataset.

        >>> import thalweg as tw
        >>> walk = tw.Process(lambda x, w: x + 2.0 * w - 1.0, tw.noise.Choice(2))
        >>> run = tw.simulate(walk, 0.0, 30, key=0, record=lambda x, w, y: {"place": y})
        >>> run.to_xarray().place.dims
        ('step',)
        """
        import xarray

        lead = ("member",) * self.batch.lead
        found: dict[str, Any] = {}
        for first, tree, dims in (("", self.record, (*lead, "step")), ("state", self.state, lead)):
            if isinstance(tree, xarray.Dataset):  # it is on disk already
                found |= {str(name): array for name, array in tree.load().items()}
                continue
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                name = (
                    "_".join(filter(None, [first, jax.tree_util.keystr(path, simple=True, separator="_")])) or "record"
                )
                if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                    leaf = jax.random.key_data(leaf)
                rest = tuple(f"{name}_axis{axis}" for axis in range(np.ndim(leaf) - len(dims)))
                found[name] = ((*dims, *rest), np.asarray(leaf))
        return xarray.Dataset(found, attrs={"status": self.message})


def simulate(
    process: Process,
    state: Any,
    steps: int,
    *,
    key: Any = None,
    record: Callable[[Any, Any, Any], Any] | None = None,
    folds: dict[str, Any] | None = None,
    on_chunk: Callable[[int, dict[str, float]], Any] | None = None,
    options: Options | None = None,
    start: int = 0,
    every: int = 1,
    until: Callable[[Any], Any] | None = None,
    resume: Checkpoint | bool | None = None,
) -> Run:
    """Run a process.

    **Arguments**

    - `process`: the `Process`; `state`: where it starts (often `process.init(...)`).
    - `steps`: how many steps to make.
    - `key`: the random key or seed. Step `i` draws `process.noise.sample(key, i)`. A process
      without noise needs none.
    - `record`: `record(state, w, next_state)`, kept for every step, or for the last of every
      `every` steps.
    - `folds`: running summaries by name (`Fold`, or any object with its methods).
    - `on_chunk`: called on the host as `on_chunk(step, scalars)`: the steps done so far and the mean
      of every scalar recorded since the last call; returning `False` stops the run.
    - `options`: `Options`.
    - `start`: the number of the first step. A run from step `i` with the same key continues one
      that ended there, to the same bits.
    - `until`: a predicate of the state; the run is frozen from where it holds.
    - `resume`: `True`: go on from the newest checkpoint in the folder `Options(checkpoint=...)`, or begin where
      there is none; or a `Checkpoint` of the same run.

    **Returns** a `Run`. Ctrl-C ends a run early with status `INTERRUPTED` and what was done so far. A state that is
    not finite ends it with `NOT_FINITE`: the run then holds the last state that was finite, and its message names
    what was not.

    **Raises** `ValueError` or `TypeError` for arguments that cannot be used.

    Under `jit` or `vmap` of your own a run is one scan, without chunks.

    >>> import thalweg as tw
    >>> halving = tw.Process(lambda x, w: x / 2)
    >>> float(tw.simulate(halving, 1.0, 10).state)
    0.0009765625
    """
    check_process(process)
    key = key_for(process, key)
    if key.ndim:
        raise ValueError(f"key must be one key, got {key.shape[0]}: for a key a member, call tw.ensemble")
    steps, start = check_steps(steps), check_start(start)
    if np.ndim(start):
        raise ValueError(
            f"start must be one step number, got shape {np.shape(start)}: for one a member, call tw.ensemble"
        )
    _check_how(options, on_chunk, resume, every)
    watch = Watch(record, every, until, {} if folds is None else folds)
    state = settle(process, state, key, Batch())
    batch = Batch(vectorise=_vectorises(process, state, key, Batch(), None if options is None else options.vectorise))
    return _run(process, state, steps, key, start, batch, watch, on_chunk, options, resume)


def ensemble(
    process: Process,
    states: Any,
    steps: int,
    *,
    key: Any = None,
    start: Any = 0,
    until: Callable[[Any], Any] | None = None,
    over: str | Callable[[Process], Any] = "states",
    noise: str = "independent",
    record: Callable[[Any, Any, Any], Any] | None = None,
    folds: dict[str, Any] | None = None,
    on_chunk: Callable[[int, dict[str, float]], Any] | None = None,
    options: Options | None = None,
    every: int = 1,
    resume: Checkpoint | bool | None = None,
) -> Run:
    """Run many members of a process side by side. Member `m` equals `simulate` with its key, bit for bit.

    **Arguments** (the others are those of `simulate`)

    - `states`: the states of the members, a leading axis on every leaf.
    - `key`: one key, of which member `m` gets `fold_in(key, m)`; or an array of keys, one a member.
    - `start`: the number of the first step, one for all or one a member.
    - `until`: a predicate of one state; a member stays where it first holds. `run.steps` says when,
      `run.arrived` whether.
    - `over`: what leads with the members. `"states"`; `"process"`: the arrays of the process, all
      members starting from the one state given; `"both"`; or a selector of leaves of the process, such as
      `lambda p: p.step.learning_rate`, the other leaves and the state being shared.
    - `noise`: `"independent"`, or `"shared"`: the same draws for all members.

    **Returns** a `Run` whose leaves lead with the members.

    >>> import jax, jax.numpy as jnp, thalweg as tw
    >>> walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    >>> runs = tw.ensemble(walk, jnp.zeros(1000), 10_000, key=jax.random.key(0), until=lambda x: abs(x) >= 3)
    >>> bool(runs.arrived.all()), sorted({abs(float(x)) for x in runs.state})
    (True, [3.0])
    """
    check_process(process)
    check_choice(noise, "noise", ("independent", "shared"))
    if not callable(over) and not (isinstance(over, str) and over in ("states", "process", "both")):
        raise ValueError(f'over must be "states", "process", "both" or a selector of process leaves, got {shown(over)}')
    _check_how(options, on_chunk, resume, every)
    leading = _leading(process, over)
    members = count_members(
        states if over in ("states", "both") else leading,
        "states" if over == "states" else "the process (see over)",
    )
    if over == "both" and count_members(states, "states") != members:
        raise ValueError(f"states and process must lead with the same members, got {members} in the process only")
    if over not in ("states", "both"):
        states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), as_arrays(states))

    key, shared = key_for(process, key), noise == "shared"
    if key.shape not in ((), (members,)):
        raise ValueError(f"key must be one key, or one a member: got shape {key.shape} for {members} members")
    if shared and key.ndim:
        raise ValueError('noise="shared" needs one key, got one a member')
    if not key.ndim:
        key = _member_keys(key, members, shared)
    steps, start = check_steps(steps), check_start(start)
    if start.shape not in ((), (members,)):
        raise ValueError(f"start must be one number, or one a member: got shape {start.shape} for {members} members")

    options = options or Options()
    batch = Batch(members, "nothing" if over == "states" else over if callable(over) else "arrays")
    folder = None if callable(options.checkpoint) else options.checkpoint
    parts = parts_of(members, folder, options.shard)
    watch = Watch(
        record, every, until, {} if folds is None else folds, to_the_end=len(parts) > 1 and record is not None
    )
    states = settle(process, states, key, batch, "states")
    batch = Batch(members, batch.over, _vectorises(process, states, key, batch, options.vectorise))
    if len(parts) == 1:
        if options.shard:
            states, key = spread(states), spread(key)
        return _run(process, states, steps, key, start, batch, watch, on_chunk, options, resume)
    if watch.of_ensemble or options.record_to is not None or callable(options.checkpoint):
        raise ValueError(
            "an ensemble on several processes has no folds over the ensemble, no record_to, and a folder for its "
            "checkpoints: drop these, or run it on one process"
        )

    def run_part(part):
        """The members from one number to another."""
        mine = slice(*part)
        return run_loop(
            batch.take(process, mine),
            spread(jax.tree.map(lambda leaf: leaf[mine], states)),
            steps,
            spread(key[mine]),
            start[mine] if start.ndim else start,
            batch=Batch(part[1] - part[0], batch.over, batch.vectorise),
            watch=watch,
            on_chunk=on_chunk,
            options=dataclasses.replace(options, checkpoint=folder_of(folder, part)),
            resume=resume,
        )._replace(details={}, stored={})

    return _as_run(run_parts(run_part, parts, folder), process, states, key, start, batch, until)


def fork(
    run: Run,
    at: int,
    *,
    process: Process | None = None,
    state: Any = None,
    members: Any = None,
    steps: int | None = None,
    record: Callable[[Any, Any, Any], Any] | None = None,
    folds: dict[str, Any] | None = None,
    every: int = 1,
    options: Options | None = None,
) -> Run:
    """A twin that leaves a run before step `at` and goes on with the same noise.

    The run is replayed from the nearest stored state (`Options(store=...)`; the start is always
    stored), changed, and run to where the original ended. Unchanged, the twin ends where the original did,
    bit for bit. If `process` is a `tw.clamp`, the part it names is held at the values that it has in the
    original run.

    **Arguments**

    - `at`: the number of the step before which the twin leaves, from `run.start` to its end.
    - `process`: another process from there on, such as one with a datum's weight set to 0.
    - `state`: another state from there on, or a function of the state at that step.
    - `members`: which members of an ensemble to fork (indices or a mask); all by default.
    - `steps`: how many steps to make from `at`; by default to the end of the run.
    - `record`, `folds`, `every`, `options`: as in `simulate`, for the twin.

    >>> import jax, thalweg as tw
    >>> walk = tw.Process(lambda x, w: x + 2 * w - 1, tw.noise.Choice(2))
    >>> run = tw.simulate(walk, 0.0, 100, key=jax.random.key(0))
    >>> twin = tw.fork(run, at=50, state=lambda x: x + 10)
    >>> float(twin.state - run.state)  # the change is carried to the end
    10.0
    """
    if not isinstance(run, Run):
        raise TypeError(f"run must be a Run, as simulate and ensemble give it back, got {type(run).__name__}")
    if np.ndim(run.start):
        raise ValueError("a run whose members start at different steps cannot be forked at one step: fork a member")
    start = int(run.start)
    end = start + int(np.max(np.asarray(run.steps)))
    if not is_whole(at) or not start <= at <= end:
        raise ValueError(f"at must be a step of the run, a whole number from {start} to {end}, got {at!r}")
    _check_how(options, None, None, every)
    batch, key, original = run.batch, run.key, run.process
    nearest = max(step for step in run.stored if step <= at)
    here = run.stored[nearest]
    if members is not None:
        if batch.members is None:
            raise ValueError("members can be chosen in a run of tw.ensemble only; this is a single run")
        members = _chosen(members, batch.members)
        here = jax.tree.map(lambda leaf: leaf[members], here)
        key = key[members]
        original = batch.take(original, members)
        batch = Batch(len(members), batch.over, batch.vectorise)
    replay = Watch(until=run.until)
    here = run_loop(original, here, at - nearest, key, number(nearest), batch=batch, watch=replay).members.state

    process = original if process is None else process
    check_process(process)
    if callable(state):
        check_function(state, "state", "state")
        state = state(here)
    changed = settle(process, here if state is None else _like(state, here), key, batch)
    steps = end - at if steps is None else check_steps(steps)
    if not hasattr(process.step, "beside"):
        watch = Watch(record, every, run.until, {} if folds is None else folds)
        return _run(process, changed, steps, key, number(at), batch, watch, options=options)

    # A clamp holds its part at the values of the original run, so the two worlds step side by side.
    both = eqx.tree_at(lambda p: p.step, process, process.step.beside(original.step))
    watch = Watch(
        None if record is None else lambda s, w, n: record(s[1], w, n[1]),
        every,
        None if run.until is None else lambda s: run.until(s[1]),
        {name: _of_twin(fold) for name, fold in (folds or {}).items()},
    )
    outcome = run_loop(both, (here, changed), steps, key, number(at), batch=batch, watch=watch, options=options)
    outcome = outcome._replace(
        members=outcome.members._replace(state=outcome.members.state[1]),
        stored={step: pair[1] for step, pair in outcome.stored.items()},
    )
    return _as_run(outcome, process, changed, key, number(at), batch, run.until)


def stack(items: Iterable[Any]) -> Any:
    """Pytrees of equal structure (processes, states) as one, every array leading with the members.

    >>> import thalweg as tw
    >>> tw.stack([{"x": 1.0}, {"x": 2.0}])["x"].tolist()
    [1.0, 2.0]
    """
    if not isinstance(items, Iterable):
        raise TypeError(f"items must be several pytrees to stack, got {shown(items)}")
    items = list(items)
    if not items:
        raise ValueError("items must hold at least one pytree to stack, got none")
    leaves, structure = jax.tree.flatten(items)
    first = jax.tree.structure(items[0])
    if structure != jax.tree.structure(items[:1] * len(items)):
        raise ValueError(_UNLIKE)
    return jax.tree.unflatten(first, [_stacked(leaves[at :: first.num_leaves]) for at in range(first.num_leaves)])


_UNLIKE = "items must have equal structure and equal functions to be stacked"


def _stacked(leaves: list[Any]) -> Any:
    """The same leaf of all items as one array; a function, which they share, as it is."""
    first = leaves[0]
    if not eqx.is_array_like(first):
        if any(leaf is not first and (eqx.is_array_like(leaf) or leaf != first) for leaf in leaves):
            raise ValueError(_UNLIKE)
        return first
    if not all(map(eqx.is_array_like, leaves)):
        raise ValueError(_UNLIKE)
    kinds = {(type(leaf), getattr(leaf, "dtype", None), getattr(leaf, "weak_type", None)): leaf for leaf in leaves}
    by_jax = is_traced(list(kinds.values())) or any(map(is_key, kinds.values()))
    arrays = [(jnp if by_jax else np).asarray(leaf) for leaf in leaves]
    if len(shapes := dict.fromkeys(array.shape for array in arrays)) > 1:
        raise ValueError(f"items must have equal shapes to be stacked, got {shown(list(shapes))}")
    # by NumPy where it can: a program that has an operand for each of many states takes minutes to compile
    return jnp.stack(arrays) if by_jax else jnp.asarray(np.array(arrays), jnp.result_type(*kinds.values()))


# --------------------------------------------------------------------------------------------------


def _run(process, state, steps, key, start, batch, watch, on_chunk=None, options=None, resume=None) -> Run:
    """The loop, and its outcome as a run: the end of `simulate`, `ensemble` and of a plain `fork`."""
    outcome = run_loop(
        process,
        state,
        steps,
        key,
        start,
        batch=batch,
        watch=watch,
        on_chunk=on_chunk,
        options=options,
        resume=resume,
    )
    return _as_run(outcome, process, state, key, start, batch, watch.until)


def _as_run(outcome: Outcome, process: Process, state: Any, key: Any, start: Any, batch: Batch, until: Any) -> Run:
    members, steps = outcome.members, outcome.members.steps
    return Run(
        state=members.state,
        steps=steps if batch.lead or is_traced(steps) else int(steps),
        start=start,
        key=key,
        process=process,
        record=outcome.record,
        folds=outcome.folds,
        status=outcome.status,
        initial=state,
        arrived=None if until is None else members.arrived,
        stored=outcome.stored,
        until=until,
        batch=batch,
        details=outcome.details,
    )


def _of_twin(fold: Any) -> Fold:
    """A fold that is shown the second of two worlds."""
    return Fold(
        init=lambda state: fold.init(state[1]),
        update=lambda carry, state, w, next_state: fold.update(carry, state[1], w, next_state[1]),
        result=getattr(fold, "result", lambda carry: carry),
        over=getattr(fold, "over", "member"),
    )


def _check_how(options: Any, on_chunk: Any, resume: Any, every: Any) -> None:
    if not is_whole(every) or not 1 <= every < 2**62:
        raise ValueError(f"every must be a whole number of steps >= 1, got {shown(every)}")
    if options is not None and not isinstance(options, Options):
        raise TypeError(f"options must be tw.Options(...), got {shown(options)}")
    if resume is False:
        resume = None
    if resume is not None and resume is not True and not isinstance(resume, Checkpoint):
        raise TypeError(
            f"resume must be True, or a Checkpoint as Options(checkpoint=...) is given it, got {shown(resume)}"
        )
    if resume is True and (options is None or options.checkpoint is None or callable(options.checkpoint)):
        raise ValueError("resume=True needs a folder to go on from: pass options=tw.Options(checkpoint='folder')")
    check_function(on_chunk, "on_chunk", "step, scalars", optional=True)


def _leading(process: Process, over: Any) -> Any:
    """The leaves of the process that lead with the members."""
    try:
        return Batch(over=over if callable(over) else "nothing" if over == "states" else "arrays").split(process)[0]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as problem:
        raise ValueError(f"over must select leaves of the process, got {shown(over)}: {shown(problem)}") from None


def _chosen(members: Any, count: int) -> Any:
    """The numbers of the members that a user picks, by number or by a mask."""
    picked = np.asarray(members) if not isinstance(members, slice) else np.arange(count)[members]
    if picked.dtype == bool and picked.shape == (count,):
        picked = np.flatnonzero(picked)
    if picked.dtype.kind not in "iu" or not picked.size or picked.min() < -count or picked.max() >= count:
        raise ValueError(
            f"members must be numbers from 0 to {count - 1} or a mask of {count} truth values, at least one, "
            f"got {shown(members)}"
        )
    return np.arange(count)[picked].reshape(-1)


def check_process(process: Any) -> None:
    if not isinstance(process, Process):
        raise TypeError(
            f"process must be a tw.Process, got {type(process).__name__}: make one as tw.Process(step, noise)"
        )


def key_for(process: Process, key: Any) -> Any:
    """The key; a process without noise needs none."""
    return jax.random.key(0) if key is None and isinstance(process.noise, Nothing) else as_key(key)


@eqx.filter_jit
def _member_keys(key: Any, members: int, shared: bool) -> Any:
    return jax.vmap(lambda m: key if shared else jax.random.fold_in(key, m))(jnp.arange(members))


# A batched product is summed in another order than a single one. Members whose step contains such an
# operation go one after the other on a processor, so that they equal their own runs bit for bit.
_SUMMED_IN_ANY_ORDER = {
    "dot_general",
    "conv_general_dilated",
    "cholesky",
    "lu",
    "qr",
    "eigh",
    "eig",
    "svd",
    "triangular_solve",
}


def _vectorises(process: Process, states: Any, key: Any, batch: Batch, wanted: bool | None) -> bool:
    if wanted is not None or jax.default_backend() != "cpu":
        return wanted is not False
    jaxpr, _ = _traced_step(*_one_member(process, states, key, batch))
    return not any(eqn.primitive.name in _SUMMED_IN_ANY_ORDER for eqn in equations(jaxpr))


def _one_member(process: Process, states: Any, key: Any, batch: Batch) -> tuple[Process, Any, Any]:
    """The process of one member, the shapes of its state, and its key."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[batch.lead :], leaf.dtype), states)
    return (batch.take(process, 0), one, key[0]) if batch.lead else (process, one, key)


def _traced_step(process: Process, state: Any, key: Any) -> tuple[Any, Any]:
    """The jaxpr of the first step and the shapes that it gives, remembered from one run to the next."""
    leaves, structure = jax.tree.flatten((process, state, key))
    arrays = [leaf if hasattr(leaf, "dtype") else None for leaf in leaves]
    rest = tuple(leaf if array is None else None for leaf, array in zip(leaves, arrays, strict=True))
    traced = _first_step.trace((structure, rest), arrays)
    return traced.jaxpr.jaxpr, traced.out_info


def what_it_is(process: Process, state: Any, key: Any) -> dict[str, str]:
    """What tells a process, a start and a key from others, for a checkpoint: equal in every Python process."""
    jaxpr, _ = _traced_step(process, state, key)
    return {"process": digest(str(jaxpr), process), "state": digest(state), "key": digest(key)}


@functools.partial(jax.jit, static_argnums=0)
def _first_step(static: tuple[Any, tuple[Any, ...]], arrays: list[Any]) -> Any:
    structure, rest = static
    leaves = [b if a is None else a for a, b in zip(arrays, rest, strict=True)]
    process, state, key = jax.tree.unflatten(structure, leaves)
    i = number(0)
    after = apply_step(process.step, state, process.noise.sample(key, i), i)
    check_arrays(after, "step")
    return after


def settle(process: Process, state: Any, key: Any, batch: Batch, name: str = "state", real: bool = False) -> Any:
    """The state in the dtypes that the step gives it, or a sentence about what does not fit.

    `real` refuses complex numbers, where tangents are carried.
    """
    try:
        state = as_arrays(state)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pytree of numbers and arrays, got {shown(state)}") from None
    if not jax.tree.leaves(state):
        raise ValueError(f"{name} must hold at least one number, got {shown(state)}")
    check_finite(state, name)
    if real:
        check_real(state, name)
    member, one, key = _one_member(process, state, key, batch)
    for _ in range(2):  # a second look, since the types of one leaf may depend on another's
        after = _traced_step(member, one, key)[1]
        _check_same(one, after)
        types = jax.tree.map(lambda a, b: _common_type(a.dtype, b.dtype), one, after)
        one = jax.tree.map(lambda a, dtype: jax.ShapeDtypeStruct(a.shape, dtype), one, types)
    return jax.tree.map(lambda leaf, a: leaf if leaf.dtype == a.dtype else leaf.astype(a.dtype), state, one)


def _common_type(a: Any, b: Any) -> Any:
    return a if a == b else jnp.promote_types(a, b)


def _check_same(before: Any, after: Any) -> None:
    if jax.tree.structure(after) != jax.tree.structure(before):
        raise ValueError(
            f"step must give back a state of the same structure: it got {outline(before)} and gave {outline(after)}; "
            "make the first state with process.init"
        )
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if a.shape != b.shape:
            raise ValueError(
                "step must keep the shapes of the state: "
                f"state{jax.tree_util.keystr(path)} went from {a.shape} to {b.shape}"
            )


def _like(new: Any, old: Any) -> Any:
    """A state that a user gives in place of another, in its shapes and dtypes."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(f"state must have the structure of the run's state, {outline(old)}, got {outline(new)}")
    check_arrays(new, "state")

    def one(a, b):
        if np.broadcast_shapes(np.shape(a), b.shape) != b.shape:
            raise ValueError(f"state must have the shapes of the run's state, {outline(old)}, got {outline(new)}")
        return jnp.broadcast_to(jnp.asarray(a, b.dtype), b.shape)

    changed = jax.tree.map(one, new, old)
    check_finite(changed, "state")
    return changed


def spread(tree: Any) -> Any:
    """Arrays that lead with the members, spread over the devices of this process."""
    devices, members = jax.local_devices(), len(jax.tree.leaves(tree)[0])
    count = max(count for count in range(1, len(devices) + 1) if members % count == 0)
    mesh = jax.sharding.Mesh(np.asarray(devices[:count]), ("members",))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members")))
