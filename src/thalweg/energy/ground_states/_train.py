"""Training a wavefunction until its energy falls no more, in strides that can be watched, stopped and gone on with."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from thalweg._loop import Options
from thalweg._process import Process, Run
from thalweg._results import Status
from thalweg._strides import in_strides, more, nothing
from thalweg.energy.ground_states._measure import in_words
from thalweg.energy.ground_states._monte_carlo import MonteCarlo

SEEN = ("energy", "error", "variance", "acceptance", "rate")
STRIDE = 20  # steps between two looks at the energy
MOST = 600  # steps, unless told otherwise


class Trained(NamedTuple):
    """The state with the averaged parameters, the state as it was left, what was seen of every step, a status."""

    state: MonteCarlo
    last: MonteCarlo
    history: dict[str, np.ndarray]
    status: Status
    details: dict[str, Any]


def train(
    process: Process,
    start: MonteCarlo,
    key: Any,
    tol: float,
    steps: int | None,
    on_stride: Callable[[int, dict[str, float]], Any] | None,
    options: Options,
    resume: bool,
) -> Trained:
    """At most `steps` steps, by default until the energy falls no more; the parameters averaged over the last third."""

    def visit(done: int, run: Run, seen: _Seen) -> tuple[_Seen, bool]:
        seen = seen.with_rows(*run.record)
        stopped = on_stride is not None and on_stride(done, seen.told(int(run.steps))) is False
        energy, error = seen.scalars.T[:2]
        return seen, not (stopped or (steps is None and settled(energy, error, tol)))

    made = in_strides(
        process,
        start,
        MOST if steps is None else steps,
        STRIDE,
        key,
        visit,
        _Seen.nothing(start),
        record=_record,
        options=options,
        resume=resume,
        what={"tol": tol if steps is None else None},
        estimate=lambda seen: in_words(seen.told(STRIDE)),
        endless=steps is None,
        over=_over,
    )
    state, seen = made.state, made.memory
    if seen.parameters.size:
        mean = jnp.asarray(np.mean(seen.parameters, axis=0))
        state = eqx.tree_at(lambda t: t.psi, state, state.psi.with_parameters(mean))
    history = dict(zip(SEEN, np.asarray(seen.scalars).T, strict=True))
    return Trained(state, made.state, history, made.status, made.details)


def settled(energy: np.ndarray, error: np.ndarray, tol: float) -> bool:
    """Whether the last third lies no lower than the third before it, as far as can be told or matters."""
    n = len(energy)
    if n < 3 * STRIDE:
        return False
    third = n // 3
    late, earlier = slice(n - third, n), slice(n - 2 * third, n - third)
    noise = np.sqrt(np.mean(error[late] ** 2) / third + np.mean(error[earlier] ** 2) / third)
    return bool(np.mean(energy[earlier]) - np.mean(energy[late]) < max(noise, tol / 2))


def _over(state: MonteCarlo, spread: Callable[[Any], Any]) -> MonteCarlo:
    return dataclasses.replace(state, walkers=spread(state.walkers))


class _Seen(NamedTuple):
    """What is remembered of the steps: the scalars of each, and the parameters of the last third of them."""

    scalars: Any
    parameters: Any

    @classmethod
    def nothing(cls, start: MonteCarlo) -> "_Seen":
        rows = np.empty((1, len(SEEN))), np.asarray(start.psi.parameters)[None]
        return cls(*nothing(rows))

    def with_rows(self, scalars: Any, parameters: Any) -> "_Seen":
        whole = more((self.scalars, self.parameters), (scalars, parameters))
        return _Seen(whole[0], whole[1][-max(1, len(whole[0]) // 3) :])

    def told(self, steps: int) -> dict[str, float]:
        """The means over the last steps, by name."""
        return dict(zip(SEEN, map(float, np.mean(self.scalars[-steps:], axis=0)), strict=True))


def _record(s: MonteCarlo, w: Any, n: MonteCarlo) -> tuple[Any, Any]:
    """What is recorded of a step of training."""
    return jnp.stack([getattr(n, name) for name in SEEN]), n.psi.parameters
