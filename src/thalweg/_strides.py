"""A run that is looked at every so many steps, and may be stopped by what is seen: training until it is good enough."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from thalweg._checkpoints import Folder, Growing, growing
from thalweg._interrupts import stopping
from thalweg._items import check_resume
from thalweg._loop import Options
from thalweg._process import Process, Run, simulate, what_it_is
from thalweg._progress import progress
from thalweg._results import Status


class Strides(NamedTuple):
    """What a run in strides gives: its last state, the steps made, what was remembered, a status and its sentence."""

    state: Any
    steps: int
    memory: Any
    status: Status
    message: str


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
) -> Strides:
    """At most `steps` steps of a process, `stride` at a time.

    - `visit`: `visit(done, run, memory) -> (memory, go_on)` after every stride, with the run of that stride. The
      memory is a pytree of arrays that keep their types; arrays marked by `growing` may grow.
    - `options`: `progress`, `checkpoint` (a folder), `checkpoint_every`; `resume`: go on from the newest checkpoint.
    - `what`: whatever else tells this run from others, by name.
    - `estimate`: what the memory amounts to, for the progress line.

    A run that goes on from a checkpoint ends with equal numbers, since it visits at the same steps.
    """
    options = Options() if options is None else options
    check_resume(options, resume)
    done, status, message, go_on = 0, Status.OK, Status.OK.sentence(), True
    with contextlib.ExitStack() as stack:
        folder = None
        if options.checkpoint is not None:
            identity = what_it_is(process, state, key) | {"stride": stride} | (what or {})
            folder = stack.enter_context(Folder(options.checkpoint, identity, options.checkpoint_every))
            found = folder.newest((state, np.asarray(go_on), memory)) if resume else None
            if found is not None:
                done, (state, go_on, memory) = found
            elif not resume:
                folder.refuse_old()
        tell = stack.enter_context(progress(options.progress, steps, begun=done))
        stop = stack.enter_context(stopping(term=folder is not None))
        try:
            while done < steps and go_on:
                run = simulate(process, state, min(stride, steps - done), key=key, start=done, record=record)
                status, message = Status(int(run.status)), run.message
                if status != Status.OK:  # not finite, or interrupted by hand within a stride: it is made again
                    state = run.state if status == Status.NOT_FINITE else state
                    break
                state, done = run.state, done + int(run.steps)
                memory, go_on = visit(done, run, memory)
                tell(done, estimate(memory))
                if folder is not None and (folder.due() or stop.asked or done == steps or not go_on):
                    folder.keep(done, (state, np.asarray(go_on), memory))
                if stop.asked and go_on and done < steps:
                    status, message = Status.INTERRUPTED, Status.INTERRUPTED.sentence(step=done)
                    break
        except KeyboardInterrupt:
            status, message = Status.INTERRUPTED, Status.INTERRUPTED.sentence(step=done)
    return Strides(state, done, memory, status, message)


def more(before: Any, part: Any) -> Any:
    """A growing memory with the rows of one stride after those before."""
    return growing(jax.tree.map(lambda a, b: np.concatenate([a, np.asarray(b)]), before, part))


def nothing(row: Any) -> Any:
    """A growing memory without rows, from the shapes of one row (or of several)."""
    return jax.tree.map(lambda leaf: np.empty((0, *leaf.shape[1:]), leaf.dtype).view(Growing), row)
