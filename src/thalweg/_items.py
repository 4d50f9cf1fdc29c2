"""A long job of many like pieces (repeats, seeds, settings): progress, checkpoints, several devices and processes."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np

from thalweg._across import exchange_items
from thalweg._checkpoints import Folder
from thalweg._edge import shown
from thalweg._interrupts import stopping
from thalweg._loop import Options
from thalweg._progress import progress
from thalweg._results import Status

Answer = dict[str, Any]  # arrays by name


def each_of(
    count: int,
    one: Callable[[int], Answer],
    what: str,
    options: Options | None = None,
    *,
    identity: dict[str, Any] | None = None,
    resume: bool = False,
    estimate: Callable[[list[Answer]], Any] = lambda answers: "",
) -> tuple[list[Answer], Status]:
    """`[one(0), ..., one(count - 1)]`, each a dict of arrays; fewer where the job was stopped, with a status.

    - `what`: the pieces in the plural, for the progress line.
    - `options`: `progress`; `checkpoint`, a folder; `shard`, over all devices of this process (a thread each, so that
      `one` must bear being called from several) and over the processes of `tw.connect`.
    - `identity`: what the job is, for its checkpoints: a job that differs does not go on from them.
    - `resume`: go on from the newest checkpoint in the folder.
    - `estimate`: what the answers so far amount to, for the progress line.

    >>> answers, status = each_of(3, lambda i: {"square": np.array(i * i)}, "numbers")
    >>> [int(answer["square"]) for answer in answers]
    [0, 1, 4]
    """
    options = Options() if options is None else options
    check_resume(options, resume)
    spread = options.shard and jax.process_count() > 1
    mine = range(count)[jax.process_index() :: jax.process_count()] if spread else range(count)
    answers: list[Answer] = []
    with contextlib.ExitStack() as stack:
        folder = None
        if options.checkpoint is not None:
            part = f"/process-{jax.process_index()}-of-{jax.process_count()}" if spread else ""
            folder = stack.enter_context(
                Folder(f"{options.checkpoint}{part}", identity or {}, options.checkpoint_every, {"of": what})
            )
            if resume:
                answers = folder.newest_items()[: len(mine)]
            else:
                folder.refuse_old()
        tell = stack.enter_context(progress(options.progress, len(mine), what, begun=len(answers)))
        stop = stack.enter_context(stopping(term=folder is not None))
        devices = jax.local_devices() if options.shard else [None]
        at_once = stack.enter_context(_on(devices))
        status, kept = Status.OK, len(answers)
        try:
            for batch in _batches(mine[len(answers) :], len(devices)):
                answers += at_once(one, batch)
                tell(len(answers), estimate(answers))
                if folder is not None and folder.due():
                    folder.keep_items(answers)
                    kept = len(answers)
                if stop.asked and len(answers) < len(mine):
                    status = Status.INTERRUPTED
                    break
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        if folder is not None and len(answers) > kept:
            folder.keep_items(answers)
    if spread:
        return exchange_items(dict(zip(mine, answers, strict=False)), count, options.checkpoint), status
    return answers, status


def _batches(numbers: range, size: int) -> Iterator[range]:
    return (numbers[first : first + size] for first in range(0, len(numbers), size))


@contextlib.contextmanager
def _on(devices: list[Any]) -> Iterator[Callable[[Callable[[int], Answer], range], list[Answer]]]:
    """`at_once(one, numbers)`: as many pieces as there are devices, one on each."""

    def piece(one: Callable[[int], Answer], number: int, device: Any = None) -> Answer:
        with jax.default_device(device) if device is not None else contextlib.nullcontext():
            return {name: np.asarray(value) for name, value in one(number).items()}

    if len(devices) == 1:
        yield lambda one, numbers: [piece(one, number) for number in numbers]
        return
    with ThreadPoolExecutor(len(devices)) as pool:
        yield lambda one, numbers: list(pool.map(partial(piece, one), numbers, devices))


def check_resume(options: Any, resume: Any) -> None:
    """Refuse options that are none, and to go on where there is nothing to go on from."""
    if not isinstance(options, Options):
        raise TypeError(f"options must be tw.Options(...), got {shown(options)}")
    if not isinstance(resume, bool):
        raise TypeError(f"resume must be True or False, got {shown(resume)}")
    if callable(options.checkpoint):
        raise TypeError("checkpoint must be a folder here, got a function: pass tw.Options(checkpoint='folder')")
    if resume and options.checkpoint is None:
        raise ValueError("resume=True needs a folder to go on from: pass options=tw.Options(checkpoint='folder')")
