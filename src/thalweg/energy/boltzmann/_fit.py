"""Train a machine, watch its likelihood on data that are held out, and stop in time."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from thalweg._checkpoints import digest
from thalweg._edge import check_truth
from thalweg._loop import Options
from thalweg._process import Process, Run, simulate
from thalweg._results import Estimate, Status
from thalweg._strides import in_strides, more, nothing
from thalweg.energy.boltzmann import _enumeration
from thalweg.energy.boltzmann._likelihood import check_states, log_likelihood
from thalweg.energy.boltzmann._machine import Machine, check_count, check_machine, one_key, subtract
from thalweg.energy.boltzmann._training import BATCH, Training, training


class Fit(eqx.Module):
    """What `fit` gives back.

    - `model`: the machine, of the best validation likelihood where one was watched, else the last.
    - `log_likelihood`: of that machine on the validation data (an `Estimate`), or `None`.
    - `history`: what was watched: arrays `step`, `log_likelihood`, `error` of equal length.
    - `state`: the last `Training` state, to go on from (`None` after `"lbfgs"`). - `steps`: the steps made.
    - `status`: `OK`, `NOT_FINITE`, `NOT_CONVERGED` or `INTERRUPTED`.
    """

    model: Machine
    log_likelihood: Estimate | None
    history: dict[str, Any]
    state: Training | None
    steps: int
    status: Status


def fit(
    model: Machine,
    data: Any,
    method: str = "pcd",
    *,
    epochs: int = 200,
    validation: Any = None,
    every: int = 10,
    patience: int = 3,
    key: Any = 0,
    likelihood: dict[str, Any] | None = None,
    progress: bool = False,
    options: Options | None = None,
    resume: bool = False,
    **settings: Any,
) -> Fit:
    """Train a Boltzmann machine.

    **Arguments**

    - `model`: where to start, such as `tw.energy.RBM.start(data, hidden)`. - `data`: shape (n, visible).
    - `method`: `"pcd"`, `"cd"`, `"tempering"` or `"exact"`, as in `training`; or `"lbfgs"`: the exact gradient with
      L-BFGS, the reference for small machines (deterministic; `epochs` is then its iterations).
    - `epochs`: passes over the data; the learning rate falls linearly to 0 over them.
    - `validation`: data that are held out. Their likelihood is watched every `every` epochs, and training stops after
      it has failed to rise by more than its error `patience` times; the best machine is given back. Never the test set.
    - `key`: a key or seed. - `likelihood`: settings of `log_likelihood` for the watching.
    - `progress`: whether a progress line is shown on stderr.
    - `options`: `tw.Options`, in place of `progress`: also `checkpoint`, a folder from which `resume=True` goes on.
    - `settings`: those of `training`: `optimizer`, `batch_size`, `chains`, `sweeps`, `centred`, `weight_decay`, ...

    **Returns** a `Fit`.

    **When not to trust it.** A watched likelihood that is annealed may have a status: see
    `fit.log_likelihood.message`.

    >>> import numpy as np, thalweg as tw
    >>> data = np.array([[0, 0], [1, 1]])
    >>> found = tw.energy.fit(tw.energy.RBM.start(data, 2), data, "lbfgs")
    >>> round(float(tw.energy.log_likelihood(found.model, data)), 3)  # -ln 2
    -0.693
    """
    for name, value in (("epochs", epochs), ("every", every), ("patience", patience)):
        check_count(value, name)
    check_machine(model)
    held_out = None if validation is None else check_states(model, validation, "validation")
    rows = model.check_data(data)
    check_truth(progress, "progress")
    watch = likelihood or {}
    if method == "lbfgs":
        if settings:
            raise ValueError(f'method "lbfgs" takes no {", ".join(settings)}: it has no batches and no learning rate')
        return _lbfgs(model, rows, epochs, held_out, watch)
    batch_size = settings.pop("batch_size", None) or min(BATCH, len(rows))
    steps = max(1, epochs * len(rows) // batch_size)
    process = training(model, rows, method, steps=steps, batch_size=batch_size, **settings)
    state, key = process.init(key), one_key(key)
    options = Options(progress=progress) if options is None else options
    if held_out is None:
        run = simulate(process, state, steps, key=key, options=options, resume=resume)
        return Fit(run.state.model, None, {}, run.state, int(run.steps), Status(int(run.status)))
    stride = max(1, every * len(rows) // batch_size)
    return _watched(process, state, steps, stride, key, held_out, patience, watch, options, resume)


class _Watched(NamedTuple):
    """What is remembered of the strides: (step, likelihood, error) of each, and the best machine.

    `failed` counts the strides since the likelihood last rose.
    """

    rows: Any
    best: Any
    model: Machine
    failed: Any


def _watched(
    process: Process,
    state: Training,
    steps: int,
    stride: int,
    key: Any,
    held_out: Any,
    patience: int,
    watch: dict,
    options: Options,
    resume: bool,
) -> Fit:
    """Train in strides; keep the machine of the best likelihood, stop when it has not risen for a while."""

    def visit(done: int, run: Run, seen: _Watched) -> tuple[_Watched, bool]:
        now = log_likelihood(run.state.model, held_out, **watch)
        value, error = float(now), float(now.error)
        failed = 0 if value > float(seen.best) + error else int(seen.failed) + 1
        rows = more(seen.rows, np.array([[done, value, error]]))
        if value > float(seen.best):
            seen = seen._replace(best=np.array(value), model=run.state.model)
        return seen._replace(rows=rows, failed=np.array(failed)), failed < patience

    def so_far(seen: _Watched) -> str:
        return f"log-likelihood {Estimate(*seen.rows[-1, 1:])}"

    found = in_strides(
        process,
        state,
        steps,
        stride,
        key,
        visit,
        _Watched(nothing(np.empty((1, 3))), np.array(-np.inf), state.model, np.array(0)),
        options=options,
        resume=resume,
        what={"validation": digest(held_out, repr((patience, sorted(watch.items()))))},
        estimate=so_far,
    )
    seen = found.memory
    best = log_likelihood(seen.model, held_out, **watch) if len(seen.rows) else None
    step, value, error = seen.rows.T
    history = {"step": step.astype(int), "log_likelihood": value, "error": error}
    return Fit(seen.model, best, history, found.state, found.steps, found.status)


def _lbfgs(model: Machine, rows: np.ndarray, iterations: int, held_out: Any, watch: dict) -> Fit:
    from scipy.optimize import minimize

    _enumeration.refuse_too_large(model, 'use method="pcd"')
    flat, back = ravel_pytree(model)
    data = jnp.asarray(rows)
    found = minimize(
        lambda x: tuple(np.asarray(part, dtype=float) for part in _descent(back(jnp.asarray(x)), data)),
        np.asarray(flat),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations * 10, "maxfun": iterations * 20, "ftol": 1e-13, "gtol": 1e-9},
    )
    best = back(jnp.asarray(found.x))
    watched = None if held_out is None else log_likelihood(best, held_out, **watch)
    status = Status.NOT_FINITE if not np.isfinite(found.fun) else Status.OK if found.success else Status.NOT_CONVERGED
    return Fit(best, watched, {}, None, int(found.nit), status)


@eqx.filter_jit
def _descent(model: Machine, data: Any) -> tuple[Any, Any]:
    """Minus the mean log-likelihood, and its gradient."""
    log_z = _enumeration.log_partition(model)
    gradient = subtract(_enumeration.expected_derivatives(model, log_z), model.derivatives(data))
    return log_z - jnp.mean(model.log_unnormalized(data)), ravel_pytree(gradient)[0]
