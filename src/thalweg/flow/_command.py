"""What `thalweg flow escape` prints: a learner's escape probability and mean first-passage time, in words."""

import difflib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import thalweg
from thalweg._noise import Normal
from thalweg._process import Process, ensemble
from thalweg._results import Estimate
from thalweg.flow._chart import Predicate
from thalweg.flow._monte_carlo import monte_carlo
from thalweg.flow._space import Grid
from thalweg.flow._transfer_operator import transfer_operator
from thalweg.processes import sgd

CELLS = 8192
CELLS_OF_GAUSSIAN_NOISE = 1024  # which is smooth: more would cost without telling more
PILOT = 256  # members of the run that finds out how wide the grid must be


class Question(NamedTuple):
    """Who escapes from where to where."""

    process: Process
    start: float
    target: Predicate
    target_words: str
    grid: Grid


def escape_report(
    system: str,
    *,
    learning_rate: float | None = None,
    start: float | None = None,
    target: float | str | None = None,
    steps: int = 100,
    members: int = 2000,
    cells: int | None = None,
) -> str:
    """The escape of a learner with one parameter, told in a few lines.

    **Arguments**

    - `system`: the name of a system (`pit`, `linear_noise`, `coin`, `double_well`), or `module:name` of the user's
      own: a function that returns a `Process`, or a list of per-datum losses (functions of one number), or a
      function that returns such a list.
    - `learning_rate`: handed to the system; for losses, that of SGD. Default 0.01.
    - `start`, `target`: numbers; escaped means at or beyond the target, seen from the start. A target may
      also be written `">= 1.2"`, `"<= -1"` or `"1.2..1.5"`. Named systems have their own.
    - `steps`: within how many steps. - `members`: runs of the Monte Carlo beside it; 0 for none.
    - `cells`: cells of the grid; by default 8192, or 1024 for Gaussian noise.

    **Raises** `ValueError` for what cannot be found or answered, in one sentence.

    >>> from thalweg.flow._command import escape_report
    >>> print(escape_report("coin", learning_rate=1.0, target=2.0, steps=4, members=0, cells=64))
    coin, learning rate 1: from 0 to W >= 2
      probability to escape within 4 steps: ...0.375...
    """
    question = _question(system, learning_rate, start, target, steps, cells)
    operator = transfer_operator(question.process, question.grid)
    probability = operator.escape_probability(question.start, question.target, steps)
    rate = "" if learning_rate is None else f", learning rate {learning_rate:g}"
    lines = [
        f"{system}{rate}: from {question.start:.10g} to {question.target_words}",
        f"  probability to escape within {steps} steps: {_words(probability)}",
    ]
    if members:
        time = operator.mean_first_passage_time(question.start, question.target)
        lines.append(f"  mean steps until escape:{' ' * max(1, len(str(steps)) + 12)}{_words(time)}")
        counted = monte_carlo(question.process, members, key=0)
        counted_probability = counted.escape_probability(question.start, question.target, steps)
        lines.append(
            f"  by Monte Carlo with {members} members:{' ' * max(1, len(str(steps)) + 2)}{_words(counted_probability)}"
        )
    low, high = question.grid.lower[0], question.grid.upper[0]
    lines.append(
        f"  (transfer operator on {question.grid.size} cells from {low:.6g} to {high:.6g}; "
        "the errors are those of the grid)"
    )
    return "\n".join(lines)


def _words(estimate: Estimate) -> str:
    return (
        str(estimate)
        if not 0.5 < float(estimate.value) < 1 or estimate.error > 1e-3
        else f"{float(estimate.value):.8g} ± {float(estimate.error):.1g}"
    )


def _question(
    system: str, learning_rate: float | None, start: float | None, target: Any, steps: int, cells: int | None
) -> Question:
    if ":" in system:
        process = _users_process(system, learning_rate)
        own: dict[str, Any] = {}
    else:
        process, own = _named(system, learning_rate)
    start = own.get("start") if start is None else start
    target = own.get("target") if target is None else target
    for name, value in (("start", start), ("target", target)):
        if value is None:
            raise ValueError(f"{system} has no {name} of its own: pass --{name} with a number")
    begin = float(start)  # type: ignore[arg-type]
    if not math.isfinite(begin):
        raise ValueError(f"start must be a finite number, got {begin}")
    predicate, words, edges = _target(target, begin)
    low, high = own.get("range") or _range(process, begin, predicate, steps, edges)
    if cells is None:
        cells = CELLS_OF_GAUSSIAN_NOISE if isinstance(process.noise, Normal) else CELLS
    return Question(process, begin, predicate, words, Grid(low, high, cells))


def _named(system: str, learning_rate: float | None) -> tuple[Process, dict[str, Any]]:
    """A system by name, with the start, target and range that it is usually asked about."""
    known = _systems()
    if system not in known:
        near = difflib.get_close_matches(system, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"these can escape: {', '.join(sorted(known))}"
        raise ValueError(f"there is no system {system!r} with one parameter; {hint}")
    make, own = known[system]
    return make(0.01 if learning_rate is None else learning_rate), own()


def _systems() -> dict[str, tuple[Callable[[float], Process], Callable[[], dict[str, Any]]]]:
    systems = thalweg.systems

    def pit() -> dict[str, Any]:
        points = systems.pit_points()
        return {"start": points.bottom, "target": points.lip_of_l1}

    return {
        "pit": (systems.pit, pit),
        "linear_noise": (systems.linear_noise, lambda: {"start": 2.0}),
        "coin": (systems.coin, lambda: {"start": 0.0}),
        "double_well": (
            lambda dt: systems.double_well(temperature=0.2, dt=dt),
            lambda: {"start": -1.0, "target": 1.0},
        ),
    }


def _users_process(path: str, learning_rate: float | None) -> Process:
    """`module:name` of the user's own as a process."""
    module_name, _, name = path.partition(":")
    found = _find(module_name, name, path)
    if callable(found) and not isinstance(found, Process):
        found = _called(found, path, learning_rate)
    if isinstance(found, Process):
        return found
    if isinstance(found, tuple | list) and found and all(callable(loss) for loss in found):
        losses = list(found)
        rate = 0.01 if learning_rate is None else learning_rate
        learner = sgd(lambda W, j: jax.lax.switch(j, losses, W), jnp.arange(len(losses)), rate)
        return learner
    raise TypeError(
        f"{path} must be a function that returns a tw.Process, or a list of per-datum losses, "
        f"got {type(found).__name__}"
    )


def _find(module_name: str, name: str, path: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # a user's module lies where the command is given
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if problem.name != module_name.partition(".")[0] and problem.name != module_name:
            raise
        raise ValueError(
            f"there is no module {module_name!r} here: {path} must be module:function, with the module in this folder"
        ) from None
    if not hasattr(module, name):
        raise ValueError(f"module {module_name!r} has no {name!r}")
    return getattr(module, name)


def _called(function: Callable[..., Any], path: str, learning_rate: float | None) -> Any:
    parameters = inspect.signature(function).parameters
    needed = [
        p
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if "learning_rate" in parameters:
        return function(**({} if learning_rate is None and not needed else {"learning_rate": learning_rate or 0.01}))
    if not needed:
        return function()
    if len(needed) == 1:
        return function(0.01 if learning_rate is None else learning_rate)
    raise ValueError(
        f"{path} must take a learning rate or nothing, got a function of {', '.join(p.name for p in needed)}"
    )


def _target(target: Any, start: float) -> tuple[Predicate, str, tuple[float, ...]]:
    """A target as the command line spells it: (predicate, words, its edges)."""
    text = str(target).replace(" ", "")
    try:
        if ".." in text:
            low, high = (float(part) for part in text.split("..", 1))
            return lambda s: (_number(s) >= low) & (_number(s) <= high), f"{low:.10g} <= W <= {high:.10g}", (low, high)
        for sign in (">=", "<=", ">", "<"):
            if text.startswith(sign):
                edge = float(text[len(sign) :])
                below = sign.startswith("<")
                return _beyond(edge, below), f"W {'<=' if below else '>='} {edge:.10g}", (edge,)
        edge = float(text)
    except ValueError:
        raise ValueError(f'target must be a number, ">= 1.2", "<= 1.2" or "1.2..1.5", got {target!r}') from None
    if edge == start:
        raise ValueError(f"target must differ from start, got {edge:g} for both")
    return _beyond(edge, edge < start), f"W {'<=' if edge < start else '>='} {edge:.10g}", (edge,)


def _beyond(edge: float, below: bool) -> Predicate:
    return (lambda s: _number(s) <= edge) if below else (lambda s: _number(s) >= edge)


def _number(state: Any) -> Any:
    """The one number of a state."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.reshape(leaves[0], ())


def _range(
    process: Process, start: float, target: Predicate, steps: int, edges: tuple[float, ...]
) -> tuple[float, float]:
    """How wide the grid must be: what a few runs visit, and the target's edges, with room to spare."""
    state = process.init(jnp.asarray(start))
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (PILOT, *jnp.shape(leaf))), state)
    run = ensemble(process, states, min(max(steps, 100), 2000), key=0, until=target, record=lambda s, w, n: _number(n))
    seen = np.concatenate([np.asarray(run.record).reshape(-1), [start, *edges]])
    if not np.all(np.isfinite(seen)):
        raise ValueError(f"runs from {start:g} leave for infinity within {steps} steps: try a smaller learning rate")
    low, high = float(seen.min()), float(seen.max())
    room = 0.5 * (high - low)
    return low - room, high + room
