"""The loop that every run goes through: compiled chunks, driven from the host.

Noise is drawn by the number of the step, so that chunks, resumed runs, forks and the members of an
ensemble all see the same numbers. Nothing here depends on how a chunk begins or ends.
"""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thalweg._checkpoints import Folder, digest, growing
from thalweg._edge import (
    check_arrays,
    check_function,
    check_number,
    check_truth,
    is_traced,
    is_whole,
    number,
    one_truth,
    shown,
)
from thalweg._interrupts import stopping
from thalweg._memory import bytes_of, check_memory
from thalweg._noise import next_draw, open_stream
from thalweg._progress import BatchMeans, progress
from thalweg._results import Status
from thalweg._streams import DiskRecord, check_path, first_rows


class Options(eqx.Module):
    """How a run is carried out; none of it changes its numbers.

    - `progress`: whether a progress line is shown on stderr.
    - `checkpoint`: a folder, in which the run leaves a checkpoint every `checkpoint_every` seconds and when it is
      stopped (Ctrl-C, SIGTERM); the last two are kept, and `resume=True` goes on from the newest to equal numbers.
      Or a function that is given a `Checkpoint` after every chunk, to go on from with `resume=`.
    - `chunk`: steps between two visits of the host; by default about half a second's worth, or a
      twentieth of the run where `on_chunk` or `checkpoint` want to be called.
    - `shard`: whether the members of an ensemble, or the walkers of a ground state, are spread over all devices.
    - `store`: keep the state every so many steps, so that a later `fork` replays from nearby.
    - `vectorise`: whether the members of an ensemble step as one array, or one after the other. By
      default as one array, except on a processor where the step multiplies matrices: as one array its sums are
      taken in another order, and members equal their own runs only to rounding.
    - `memory`: how many bytes a record may need; by default what the machine has left. A run that would need
      more is refused before it starts.
    - `record_to`: a path that ends in `.zarr` or `.nc`: the record goes there while the run goes on, readable with
      xarray, and `run.record` is a Dataset that reads from it.
    """

    progress: bool = False
    checkpoint: Callable[["Checkpoint"], Any] | str | os.PathLike | None = None
    checkpoint_every: float = 60.0
    chunk: int | None = None
    shard: bool = False
    store: int | None = None
    vectorise: bool | None = None
    memory: float | None = None
    record_to: str | os.PathLike | None = None

    def __check_init__(self):
        for name in ("chunk", "store"):
            value = getattr(self, name)
            if value is not None and (not is_whole(value) or value < 1):
                raise ValueError(f"{name} must be a whole number of steps >= 1, got {value!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | os.PathLike):
            if not callable(self.checkpoint):
                raise TypeError(
                    f"checkpoint must be a folder or a function of (checkpoint), got {shown(self.checkpoint)}"
                )
            check_function(self.checkpoint, "checkpoint", "checkpoint")
        check_number(self.checkpoint_every, "checkpoint_every", least=0)
        if self.memory is not None:
            check_number(self.memory, "memory", above=0)
        if self.record_to is not None:
            check_path(self.record_to)
        check_truth(self.progress, "progress")
        check_truth(self.shard, "shard")
        if self.vectorise is not None:
            check_truth(self.vectorise, "vectorise")


class Checkpoint(NamedTuple):
    """All that a run needs to go on: `step` steps done, what the loop carries, what was recorded.

    It holds arrays only, so that any pytree writer can store it.
    """

    step: int
    carry: Any
    record: Any


class Batch(eqx.Module):
    """What leads with the members in a run: always the states and the keys.

    - `members`: how many; `None` in a single run.
    - `over`: which leaves of the process lead too: `"nothing"`, `"arrays"`, or a selector of leaves.
    - `vectorise`: whether the members step as one array, or one after the other.
    - `copies`: whether the members are two copies of one, of which the record keeps the first: of `"a run"`, or of
      `"a member"`, the only one of its ensemble.
    """

    members: int | None = eqx.field(static=True, default=None)
    over: str | Callable[[Any], Any] = eqx.field(static=True, default="nothing")
    vectorise: bool = eqx.field(static=True, default=True)
    copies: str = eqx.field(static=True, default="")

    @property
    def lead(self) -> int:
        """How many axes lead for the members: 0 or 1."""
        return 0 if self.members is None else 1

    def split(self, process: Any) -> tuple[Any, Any]:
        """The process as (leaves that lead with the members, the rest)."""
        if self.over == "arrays":
            return eqx.partition(process, eqx.is_array)
        leads = jax.tree.map(lambda _: False, process)
        if callable(self.over):
            leads = eqx.tree_at(self.over, leads, replace_fn=lambda _: True)
        return eqx.partition(process, leads)

    def take(self, process: Any, members: Any) -> Any:
        """The process of one member, or of some."""
        leading, shared = self.split(process)
        return eqx.combine(jax.tree.map(lambda leaf: leaf[members], leading), shared)

    def each(self, f: Callable[..., Any], process: Any, i: Any, key: Any, carried: Any) -> Any:
        """`f(process, i, key, carried)` for every member."""
        if self.members is None:
            return f(process, i, key, carried)
        leading, shared = self.split(process)
        ragged = jnp.ndim(i) > 0

        def one(leading, i, key, carried):
            return f(eqx.combine(leading, shared), i, key, carried)

        if self.vectorise:
            return jax.vmap(one, in_axes=(0, 0 if ragged else None, 0, 0))(leading, i, key, carried)
        rows = (leading, i if ragged else None, key, carried)
        return lax.map(lambda row: one(row[0], row[1] if ragged else i, row[2], row[3]), rows)


def _check_every(every: Any) -> int:
    if not is_whole(every) or not 1 <= every < 2**62:
        raise ValueError(f"every must be a whole number of steps >= 1, got {shown(every)}")
    return int(every)


class Watch(eqx.Module):
    """What is kept of a run, and when it freezes.

    - `to_the_end`: whether the steps are made also after all members have frozen, so that records of several runs
      have equal lengths.
    """

    record: Callable[[Any, Any, Any], Any] | None = None
    # Converted, so that it is refused before Equinox looks at what is static.
    every: int = eqx.field(static=True, default=1, converter=_check_every)
    until: Callable[[Any], Any] | None = None
    folds: dict[str, Any] = eqx.field(default_factory=dict)
    to_the_end: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_function(self.record, "record", "state, w, next_state", optional=True)
        check_function(self.until, "until", "state", optional=True)
        if not isinstance(self.folds, dict):
            raise TypeError(f"folds must be a dict of folds by name, got {shown(self.folds)}")
        for name, fold in self.folds.items():
            if not (hasattr(fold, "init") and hasattr(fold, "update")):
                raise TypeError(
                    f"folds[{name!r}] must have init(state) and update(carry, state, w, next_state), got {shown(fold)}"
                )
            check_function(fold.init, f"folds[{name!r}].init", "state")
            check_function(fold.update, f"folds[{name!r}].update", "carry, state, w, next_state")

    @property
    def of_member(self) -> dict[str, Any]:
        return {name: fold for name, fold in self.folds.items() if getattr(fold, "over", "member") != "ensemble"}

    @property
    def of_ensemble(self) -> dict[str, Any]:
        return {name: fold for name, fold in self.folds.items() if getattr(fold, "over", "member") == "ensemble"}


class Member(NamedTuple):
    """What one member carries from step to step."""

    state: Any
    noise: Any
    steps: Any
    arrived: Any
    folds: dict[str, Any]


class Carry(NamedTuple):
    """What a run carries from chunk to chunk."""

    members: Member
    folds: dict[str, Any]  # of the folds over the ensemble


class Outcome(NamedTuple):
    """What the loop hands back to `simulate`, `ensemble` and `fork`."""

    members: Member
    record: Any
    folds: dict[str, Any]
    status: Any
    stored: dict[int, Any]
    details: dict[str, Any]


def run_loop(
    process: Any,
    state: Any,
    steps: int,
    key: Any,
    start: Any,
    *,
    batch: Batch,
    watch: Watch,
    on_chunk: Callable[[int, dict[str, float]], Any] | None = None,
    options: Options | None = None,
    resume: Checkpoint | bool | None = None,
) -> Outcome:
    """`steps` steps of every member from number `start` on."""
    if batch.members is None and watch.of_ensemble:
        raise ValueError(f"a fold over the ensemble needs tw.ensemble, got {list(watch.of_ensemble)} in a single run")
    if batch.vectorise and batch.members in (None, 1):
        # The compiler turns an array of one into a lone number, and rounds its products and sums
        # otherwise. Two equal lanes keep a run equal to the same run among others, bit for bit.
        twice = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)  # noqa: E731
        if batch.members == 1:
            process, state, key = batch.take(process, 0), jax.tree.map(lambda leaf: leaf[0], state), key[0]
            start = jnp.reshape(start, ())
        outcome = run_loop(
            process,
            twice(state),
            steps,
            twice(key),
            start,
            batch=Batch(members=2, copies="a run" if batch.members is None else "a member"),
            watch=watch,
            on_chunk=on_chunk,
            options=options,
            resume=resume,
        )
        one = jax.tree.map(
            lambda leaf: leaf[: batch.members] if batch.members else leaf[0],
            outcome._replace(record=None, details={}),
        )
        return one._replace(record=outcome.record, details=outcome.details)
    options = options or Options()
    if is_traced((process, state, key, start)):
        carry = begin(process, state, key, start, batch, watch)
        rows = max(1, steps // watch.every)
        carry, record, finite = advance(process, carry, key, start, steps, batch, watch, rows)
        return _outcome(carry, record if watch.record else None, finite, Status.OK, {}, {}, batch, watch)

    return _drive(process, state, steps, key, start, batch, watch, on_chunk, options, resume)


def _drive(process, state, steps, key, start, batch, watch, on_chunk, options, resume) -> Outcome:
    """The host's part: chunk after chunk, with whatever looks on from outside."""
    carry = _begin(process, state, key, start, batch, watch)
    asked, watch = watch, shared(process, watch)
    ragged = np.ndim(start) > 0
    row = _row(process, carry, key, start, batch, watch)
    length, rows = _chunking(row, steps, watch, options, on_chunk is not None)
    if options.record_to is None:
        check_memory(row, steps // watch.every, batch.copies != "", options.memory)
    retime = options.chunk is None and not callable(options.checkpoint) and on_chunk is None
    store = None if ragged else options.store
    stored = {} if ragged else {int(start): state}
    record: Record | DiskRecord = Record(row, batch.lead, batch.copies)
    if options.record_to is not None:
        if row is None or ragged:
            raise ValueError("record_to needs record=, and one start for all members: pass record=..., or drop it")
        record = DiskRecord(options.record_to, row, batch.lead, batch.copies, int(start), watch.every)
    done = 0
    details: dict[str, Any] = {}
    finite, code = np.ones(np.shape(carry.members.steps), bool), Status.OK
    with contextlib.ExitStack() as stack:
        folder = None
        if options.checkpoint is not None and not callable(options.checkpoint):
            folder = stack.enter_context(_folder(options, process, state, key, start, carry, batch, watch))
        if folder is not None and resume is not True:
            folder.refuse_old()
        elif folder is not None:
            found = folder.newest((carry, growing(record.empty())))
            resume = None if found is None else Checkpoint(found[0], *found[1])
        if resume:
            done, carry = int(resume.step), resume.carry
        record.begin(done // watch.every, resume.record if resume else None)
        tell = stack.enter_context(progress(options.progress, steps, begun=done))
        stop = stack.enter_context(stopping(term=folder is not None))
        so_far = BatchMeans()
        try:
            while done < steps and np.any(finite) and (watch.to_the_end or not np.all(carry.members.arrived)):
                began, before = time.perf_counter(), carry
                count = min(length, steps - done) if store is None else min(length, steps - done, store - done % store)
                first = number(np.asarray(start) + done)
                carry, buffer, finite = _advance(process, carry, key, first, number(count), batch, watch, rows)
                finite = np.asarray(finite)
                if not np.any(finite):
                    carry, count, details = _last_good(process, before, key, first, count, batch, watch, rows)
                done += count
                kept = record.add(buffer, count // watch.every) if watch.record else None
                if store is not None and done % store == 0:
                    stored[int(start) + done] = carry.members.state
                if options.progress:
                    so_far.add(_scalars(kept, batch.lead))
                    tell(done, so_far)
                if folder is not None and folder.due():
                    folder.keep(done, (carry, record.value))
                if callable(options.checkpoint):
                    options.checkpoint(Checkpoint(done, carry, record.value))
                if on_chunk is not None and on_chunk(done, _scalars(kept, batch.lead)) is False and done < steps:
                    code = Status.STOPPED
                    break
                if stop.asked and done < steps:
                    code = Status.INTERRUPTED
                    break
                if retime:
                    length = _retime(length, time.perf_counter() - began, watch.every, rows if watch.record else None)
        except KeyboardInterrupt:
            code = Status.INTERRUPTED
        if folder is not None and np.any(finite):
            folder.keep(done, (carry, record.value))
    return _outcome(carry, record.result(), finite, code, stored, details, batch, asked)


def _last_good(process, carry, key, first, count, batch, watch, rows) -> tuple[Carry, int, dict[str, Any]]:
    """The last carry with a finite state, by halving a chunk that ends without one; and what went wrong after it.

    Each half goes on from the last good state, so that all of it together costs about one chunk more.
    """
    made = 0
    while count > 1:
        half = count // 2
        after, _, finite = _advance(process, carry, key, number(first + made), number(half), batch, watch, rows)
        if np.any(np.asarray(finite)):
            carry, made, count = after, made + half, count - half
        else:
            count = half
    bad = _advance(process, carry, key, number(first + made), number(1), batch, watch, rows)[0].members.state
    leaves = jax.tree_util.tree_leaves_with_path(bad)
    wrong = [path for path, leaf in leaves if not np.all(np.asarray(all_finite(leaf)))]
    quantity = f"state{jax.tree_util.keystr(wrong[0])}" if wrong and wrong[0] else "the state"
    step = int(np.max(np.asarray(first))) + made
    return carry, made, {"quantity": quantity, "after": f" after step {step}; the last finite state is kept"}


def _folder(options, process, state, key, start, carry, batch, watch) -> Folder:
    """The folder of checkpoints, and what this run is."""
    told = str(jax.make_jaxpr(lambda c: advance(process, c, key, start, 1, batch, watch, 1))(carry))
    identity = {
        "process": digest(str(jax.tree.structure(process)) if not told else "", process),
        "watch": digest(told, str(watch.every), *sorted(watch.folds)),
        "state": digest(state),
        "key": digest(key),
        "start": digest(start),
        "members": batch.members,
    }
    settings = {"every": watch.every, "folds": sorted(watch.folds)}
    return Folder(options.checkpoint, identity, options.checkpoint_every, settings)


def begin(process: Any, state: Any, key: Any, start: Any, batch: Batch, watch: Watch) -> Carry:
    """What a run carries before its first step."""

    def one(process, i, key, state):
        arrived = one_truth(watch.until is not None and watch.until(state), "until")
        carries = {name: _started(fold, state, name) for name, fold in watch.of_member.items()}
        noise = open_stream(process.noise, key, i)
        return Member(state, noise, jnp.zeros((), jnp.result_type(int)), arrived, carries)

    members = batch.each(one, process, start, key, state)
    return Carry(members, {name: _started(fold, state, name) for name, fold in watch.of_ensemble.items()})


def _started(fold: Any, state: Any, name: str) -> Any:
    carry = fold.init(state)
    check_arrays(carry, f"folds[{name!r}].init")
    return as_arrays(carry)


@dataclasses.dataclass(frozen=True)
class _Shared:
    """Stands for an array of the process, by its number among them."""

    at: int


def shared(process: Any, watch: Watch) -> Watch:
    """What is kept, with arrays that it holds in common with the process named once only.

    A compiler that is given one array twice takes it for two: a fold that asks the process again what the step has
    computed already would have it computed twice.
    """
    numbers: dict[int, _Shared] = {}
    for i, leaf in enumerate(jax.tree.leaves(process)):
        if eqx.is_array(leaf):
            numbers.setdefault(id(leaf), _Shared(i))
    return jax.tree.map(lambda leaf: numbers.get(id(leaf), leaf), watch)


def advance(
    process: Any, carry: Carry, key: Any, first: Any, count: Any, batch: Batch, watch: Watch, rows: int
) -> tuple[Carry, Any, Any]:
    """`count` steps from number `first` on: the carry, the record (`rows` long), and which members are finite."""
    arrays = jax.tree.leaves(process)
    watch = jax.tree.map(lambda leaf: arrays[leaf.at] if isinstance(leaf, _Shared) else leaf, watch)

    def one(process, i, key, member):
        w, noise = next_draw(process.noise, key, i, member.noise)
        state = apply_step(process.step, member.state, w, i)
        folds = {
            name: _as_before(fold.update(member.folds[name], member.state, w, state), member.folds[name], name)
            for name, fold in watch.of_member.items()
        }
        arrived, steps = member.arrived, member.steps + 1
        if watch.until is not None:
            state, folds, steps = freeze(arrived, (member.state, member.folds, member.steps), (state, folds, steps))
            arrived = arrived | watch.until(state)
        return Member(state, noise, steps, arrived, folds), (member.state, w)

    def step(t, carry):
        members, before = batch.each(one, process, first + t, key, carry.members)
        folds = {
            name: _as_before(fold.update(carry.folds[name], *before, members.state), carry.folds[name], name)
            for name, fold in watch.of_ensemble.items()
        }
        return Carry(members, folds), before

    if watch.record is None:
        carry, buffer = lax.fori_loop(0, count, lambda t, c: step(t, c)[0], carry), None
    else:
        carry, buffer = _recorded(step, carry, process, first, key, count, batch, watch, rows)
    carry = as_arrays(carry)  # a weak type that the step gave would have the next chunk compiled anew
    return carry, buffer, all_finite(carry.members.state, batch.lead)


def _recorded(step, carry, process, first, key, count, batch, watch, rows) -> tuple[Carry, Any]:
    """Rows of `every` steps each, recorded after their last step; then the steps that are left over."""

    def last_step(t, both):
        return step(t, both[0])

    def put(buffer, kept, r):
        return jax.tree.map(lambda b, k: lax.dynamic_update_index_in_dim(b, k, r, batch.lead), buffer, kept)

    def row(r, both):
        carry, buffer, before = both
        carry, before = lax.fori_loop(r * watch.every, (r + 1) * watch.every, last_step, (carry, before))
        return carry, put(buffer, keep((before, carry)), r), before

    def every_step(t, both):
        carry, before = step(t, both[0])
        return carry, put(both[1], keep((before, carry)), t)

    def keep(both):
        before, carry = both
        return batch.each(record, process, first, key, (before, carry.members.state))

    def record(process, i, key, seen):
        kept = watch.record(*seen[0], seen[1])
        check_arrays(kept, "record")
        return kept

    draw = lambda process, i, key, member: (member.state, process.noise.sample(key, i))  # noqa: E731
    before = batch.each(draw, process, first, key, carry.members)
    kept = jax.eval_shape(keep, (before, carry))
    room = lambda leaf: jnp.empty((*leaf.shape[: batch.lead], rows, *leaf.shape[batch.lead :]), leaf.dtype)  # noqa: E731
    if watch.every == 1:  # one step in the compiled code, not three: large steps compile for long
        return lax.fori_loop(0, count, every_step, (carry, jax.tree.map(room, kept)))
    whole = count // watch.every
    carry, buffer, before = lax.fori_loop(0, whole, row, (carry, jax.tree.map(room, kept), before))
    return lax.fori_loop(whole * watch.every, count, last_step, (carry, before))[0], buffer


_begin = eqx.filter_jit(begin)
_advance = eqx.filter_jit(advance)


def apply_step(step: Callable[[Any, Any], Any], state: Any, w: Any, i: Any) -> Any:
    """One step; a step that depends on its number (a clamp with a window over steps) is told it."""
    at_step = getattr(step, "at_step", None)
    return step(state, w) if at_step is None else at_step(state, w, i)


def all_finite(state: Any, lead: int = 0) -> Any:
    """Whether all floating numbers of a state are finite, one answer a member."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    answers = [jnp.all(jnp.isfinite(leaf), axis=tuple(range(lead, leaf.ndim))) for leaf in leaves]
    shape = jax.tree.leaves(state)[0].shape[:lead]
    return jnp.all(jnp.stack(answers), axis=0) if answers else jnp.ones(shape, bool)


def freeze(frozen: Any, old: Any, new: Any) -> Any:
    """`old` where frozen, `new` elsewhere, also for random keys."""

    def choose(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            data = jnp.where(frozen, jax.random.key_data(a), jax.random.key_data(b))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.where(frozen, a, b)

    return jax.tree.map(choose, old, new)


def as_arrays(tree: Any) -> Any:
    """Every leaf as an array of a settled dtype (a weak type would not survive a loop)."""

    def one(leaf):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        array = jnp.asarray(leaf)
        return lax.convert_element_type(array, array.dtype)

    return jax.tree.map(one, tree)


class Record:
    """Collects the records of the chunks on the host."""

    def __init__(self, row: Any, axis: int, copies: str):
        self.row, self.axis, self.copies = row, axis, copies
        self.parts: list[Any] = []

    def begin(self, rows: int, value: Any) -> None:
        """Go on from what was recorded before."""
        self.parts = [] if value is None else [value]

    def add(self, buffer: Any, rows: int) -> Any:
        """Keep the rows of one chunk; they are given back, for whoever looks at them."""
        part = first_rows(buffer, rows, self.axis, self.copies)
        self.parts.append(part)
        return part

    @property
    def value(self) -> Any:
        """All rows so far."""
        if len(self.parts) > 1:
            self.parts = [jax.tree.map(lambda *parts: np.concatenate(parts, axis=self.axis), *self.parts)]
        return self.parts[0] if self.parts else None

    def empty(self) -> Any:
        """A record without rows."""
        return first_rows(
            jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), self.row), 0, self.axis, self.copies
        )

    def result(self) -> Any:
        """What a user gets: of copies of a single run without the axis of members."""
        return jax.tree.map(lambda leaf: leaf[0], self.value) if self.copies == "a run" else self.value


def _outcome(carry, record, finite, code, stored, details, batch, watch) -> Outcome:
    folds = {}
    for name, fold in watch.folds.items():
        result = getattr(fold, "result", lambda carry: carry)
        if name in carry.folds:
            folds[name] = result(carry.folds[name])
        else:
            folds[name] = (jax.vmap(result) if batch.lead else result)(carry.members.folds[name])
    status = jnp.where(finite, int(code), int(Status.NOT_FINITE))
    return Outcome(carry.members, record, folds, status, stored, details)


def _as_before(new: Any, old: Any, name: str) -> Any:
    """What a fold carries on, in the dtypes that it began with."""

    check_arrays(new, f"folds[{name!r}].update")

    def one(new, old):
        if jnp.shape(new) != old.shape:
            raise ValueError(f"fold {name!r} must keep its shapes: init gave {old.shape}, update {jnp.shape(new)}")
        return jnp.asarray(new, dtype=old.dtype)

    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"fold {name!r} must keep its structure: init gave {jax.tree.structure(old)}, "
            f"update {jax.tree.structure(new)}"
        )
    return jax.tree.map(one, new, old)


MOST_BYTES = 2**26  # the record of one chunk stays within 64 MiB on the device


def _row(process, carry, key, start, batch, watch) -> Any:
    """The shapes of one row of the record, `None` without one."""
    if watch.record is None:
        return None
    return jax.eval_shape(lambda c: advance(process, c, key, start, 1, batch, watch, 1)[1], carry)


def _chunking(row, steps, watch, options, visited) -> tuple[int, int]:
    """How many steps the first chunk makes, and how many rows of the record it has room for."""
    visited = visited or callable(options.checkpoint)
    every = watch.every
    length = options.chunk or (math.ceil(steps / 20) if visited else 256)
    if row is None:
        return max(1, length), 1
    if options.store and options.store % every:
        raise ValueError(f"store must be a multiple of every = {every}, got {options.store}")
    room = max(1, min(steps // every, MOST_BYTES // max(1, bytes_of(row))))
    rows = min(room, max(1, length // every)) if options.chunk or visited else room
    return min(rows * every, max(every, length // every * every)), rows


def _retime(length: int, seconds: float, every: int, rows: int | None) -> int:
    """Chunks of about half a second: long enough to cost nothing, short enough for Ctrl-C."""
    wanted = int(length * min(64.0, 0.5 / max(seconds, 1e-4)))
    most = wanted if rows is None else rows * every
    return max(every, min(wanted, most) // every * every)


def _scalars(kept: Any, lead: int) -> dict[str, float]:
    """The mean over the chunk (and the members) of every recorded scalar, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    named = {(jax.tree_util.keystr(path, simple=True, separator=".") or "record"): leaf for path, leaf in leaves}
    return {name: float(leaf.mean()) for name, leaf in named.items() if leaf.ndim == 1 + lead and leaf.size}
