"""A run that is looked at every so many steps, and may be stopped by what is seen: training until it is good enough."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from thalweg._across import all_say, everywhere, from_first, gathered, spread_everywhere, told_if_lost
from thalweg._checkpoints import Folder, Growing, growing
from thalweg._interrupts import stopping
from thalweg._items import check_resume
from thalweg._loop import Options
from thalweg._process import Process, Run, simulate, spread, what_it_is
from thalweg._progress import progress
from thalweg._results import Status


class Strides(NamedTuple):
    """What a run in strides gives: its last state, the steps made, what was remembered, a status and its details."""

    state: Any
    steps: int
    memory: Any
    status: Status
    details: dict[str, Any]

    @property
    def message(self) -> str:
        return self.status.sentence(**self.details)


def in_strides(
    process: Process,
    state: Any,
    steps: int,
    stride: int,
    key: Any,
    visit: Callable[[int, Run, Any], tuple[Any, bool]],
    memory: Any,
    *,
    record: Callable[[Any, Any, Any], Any] | None = None,
    options: Options | None = None,
    resume: bool = False,
    what: dict[str, Any] | None = None,
    estimate: Callable[[Any], Any] = lambda memory: "",
    endless: bool = False,
    words: str = "steps",
    over: Callable[[Any, Callable[[Any], Any]], Any] | None = None,
) -> Strides:
    """At most `steps` steps of a process, `stride` at a time.

    - `visit`: `visit(done, run, memory) -> (memory, go_on)` after every stride, with the run of that stride. The
      memory is a pytree of arrays that keep their types; arrays marked by `growing` may grow.
    - `options`: `progress`, `checkpoint` (a folder), `checkpoint_every`; `resume`: go on from the newest checkpoint.
    - `what`: whatever else tells this run from others, by name.
    - `estimate`: what the memory amounts to, for the progress line; `words`: what its steps are called there;
      `endless`: whether the run usually stops by itself, so that no end is foretold.
    - `over`: `over(state, spread) -> state` applies `spread` to the arrays of a state that lead with walkers; with
      `options.shard` they are spread over all devices of all processes, and every process ends with the whole. Process
      0 keeps the checkpoints.

    A run that goes on from a checkpoint ends with equal numbers, since it visits at the same steps.
    """
    options = Options() if options is None else options
    check_resume(options, resume)
    # a quarter of a stride is the longest that a Ctrl-C waits for
    how = Options(vectorise=options.vectorise, chunk=options.chunk or math.ceil(stride / 4))
    together = over is not None and options.shard and jax.process_count() > 1
    done, kept, status, go_on = 0, 0, Status.OK, True
    details: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        folder = None
        if options.checkpoint is not None:
            like = (state, np.asarray(go_on), memory)
            found = None
            if not together or jax.process_index() == 0:
                identity = what_it_is(process, state, key) | {"stride": stride} | (what or {})
                folder = stack.enter_context(Folder(options.checkpoint, identity, options.checkpoint_every))
                if resume:
                    found = folder.newest(like)
                else:
                    folder.refuse_old()
            found = from_first(found, like, options.checkpoint) if together and resume else found
            if found is not None:
                done, (state, go_on, memory) = found
                kept = done
        tell = stack.enter_context(progress(options.progress, None if endless else steps, words, begun=done))
        stop = stack.enter_context(stopping(term=folder is not None))
        agreed = (lambda yes: all_say(yes, options.checkpoint)) if together else bool
        heard = lambda step, scalars: agreed(not stop.asked)  # noqa: E731
        try:
            while done < steps and go_on:
                count = min(stride, steps - done)
                run = spread_run(
                    process,
                    state,
                    count,
                    key,
                    over if options.shard else None,
                    folder=options.checkpoint,
                    start=done,
                    record=record,
                    on_chunk=heard,
                    options=how,
                )
                status, details = Status(int(run.status)), {"step": done, **run.details}
                if status == Status.NOT_FINITE:
                    state = run.state
                    break
                if status != Status.OK:  # stopped within a stride: it is made again
                    status = Status.INTERRUPTED
                    break
                # all at once, so that an interrupted visit leaves the stride before it whole
                state, done, (memory, go_on) = run.state, done + count, visit(done + count, run, memory)
                go_on = agreed(go_on)
                tell(done, estimate(memory))
                if folder is not None and (folder.due() or done == steps or not go_on):
                    folder.keep(done, (state, np.asarray(go_on), memory))
                    kept = done
                if go_on and done < steps and not agreed(not stop.asked):
                    status = Status.INTERRUPTED
                    break
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        if folder is not None and status == Status.INTERRUPTED and done > kept:
            folder.keep(done, (state, np.asarray(go_on), memory))
    return Strides(state, done, memory, status, {**details, "step": done})


def spread_run(
    process: Process,
    state: Any,
    steps: int,
    key: Any,
    over: Callable[[Any, Callable[[Any], Any]], Any] | None,
    *,
    folder: Any = None,
    **how: Any,
) -> Run:
    """`simulate` with the walkers of the state spread over all devices of all processes; each gets the whole.

    `folder`: where the run keeps its checkpoints, to be named if a process is lost. Without `over` nothing is spread.
    """
    if over is None:
        return simulate(process, state, steps, key=key, **how)
    if jax.process_count() == 1:
        return simulate(process, over(state, spread), steps, key=key, **how)
    how["record"] = everywhere(how.get("record"))
    state = over(everywhere(state), spread_everywhere)
    with told_if_lost(folder):
        return gathered(simulate(everywhere(process), state, steps, key=everywhere(key), **how))


def more(before: Any, part: Any) -> Any:
    """A growing memory with the rows of one stride after those before."""
    return growing(jax.tree.map(lambda a, b: np.concatenate([a, np.asarray(b)]), before, part))


def nothing(row: Any) -> Any:
    """A growing memory without rows, from the shapes of one row (or of several)."""
    return jax.tree.map(lambda leaf: np.empty((0, *leaf.shape[1:]), leaf.dtype).view(Growing), row)
