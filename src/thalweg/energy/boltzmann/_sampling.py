"""Sampling a machine at fixed parameters, as a process on its visible states."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from thalweg._edge import is_traced
from thalweg._noise import Uniform
from thalweg._process import Process
from thalweg.energy.boltzmann._machine import Machine, check_betas, check_count, check_machine
from thalweg.processes import metropolis, tempering, tempering_betas

COPIES = 11  # of a tempered machine, at least
LEAST_SWAPS = 0.2  # the share of swaps that neighbours accept, at least
MOST_UNITS = 12  # units a layer may have for an exact transition: a table of 2^12 states squared


def sampler(model: Machine, method: str = "gibbs", *, sweeps: int = 1, betas: Any = None, data: Any = None) -> Process:
    """A sampler of a Boltzmann machine, as a `Process` on its visible states.

    **Arguments**

    - `model`: an `RBM`, `GaussianRBM` or `CategoricalRBM`.
    - `method`: `"gibbs"`: the hidden layer, then the visible one; `"metropolis"`: one visible unit at a
      time (units of two values); `"tempering"`: copies at `betas` that swap, by Gibbs
      sweeps, along the path from independent units (with the means of `data`, if given) to the model.
    - `sweeps`: Gibbs sweeps a step. - `betas`: for tempering, from 0 to 1; by default eleven, or more where these do
      not suffice, between which states swap about equally often, at least a fifth of the times they try: a trial finds
      them (`tw.processes.tempering_betas`).

    **Returns** a `Process`; its state is `v` of shape (visible,), or (copies, visible) with tempering, where the last
    copy is the model's; `process.init(v)` makes either. Many chains are members of `tw.ensemble`. Gibbs with one
    sweep, and Metropolis, carry their exact `transition` where both layers have at most 12 units.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM(np.zeros((3, 2)), np.zeros(3), np.zeros(2))
    >>> tw.energy.sampler(model).transition(np.zeros(3))[1].tolist()  # every state is as likely
    [0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125]
    """
    check_machine(model)
    check_count(sweeps, "sweeps")
    if method == "gibbs":
        laws = {"hidden": Uniform((sweeps, model.hidden)), "visible": model.visible_noise((sweeps,))}
        small = sweeps == 1 and max(model.visible, model.hidden) <= MOST_UNITS and model.visible_count is not None
        step = _Sweeps(model)
        return Process(step, laws, _floating, transition=step.transition if small else None, smooth=False)
    if method == "metropolis":
        if not hasattr(model, "visible_field") or model.visible_count != 2**model.visible:
            raise ValueError(
                'method "metropolis" flips units of two values: for this machine use "gibbs" or "tempering"'
            )
        return metropolis(model.log_unnormalized, "flip", shape=(model.visible,), units=model.units)
    if method != "tempering":
        raise ValueError(f'method must be "gibbs", "metropolis" or "tempering", got {method!r}')
    base = model.independent(None if data is None else model.check_data(data))
    laws = {"hidden": Uniform((sweeps, model.hidden)), "visible": model.visible_noise((sweeps,))}
    kernel = Process(_TemperedSweeps(base, model), laws, smooth=False)

    def tempered(betas: np.ndarray) -> Process:
        return tempering(kernel, _TemperedDensity(base, model), betas, _Spread(len(betas)))

    if betas is not None or is_traced(model):
        return tempered(check_betas(betas, COPIES))
    start = np.asarray(base.visible_mean(jnp.zeros(model.hidden)))
    return tempered(tempering_betas(tempered, lambda n: np.tile(start, (n, 1)), copies=COPIES, rate=LEAST_SWAPS))


def transition_matrix(model: Machine, sweeps: int = 1) -> Float[np.ndarray, "states states"]:
    """The exact law of Gibbs sampling: row v holds the probabilities of the next visible state, after `sweeps` sweeps.

    `P(v'|v) = sum_h p(v'|h) p(h|v)`; state number n has the bits of n. Its stationary law is the model's, and it keeps
    detailed balance. **Raises** `ValueError` where a layer has more than 12 units, or real ones.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM([[2.0]], [-1.0], [-1.0])
    >>> tw.energy.transition_matrix(model).round(4).tolist()  # the two states are equally likely
    [[0.6068, 0.3932], [0.3932, 0.6068]]
    """
    check_machine(model)
    check_count(sweeps, "sweeps")
    if model.visible_count is None or max(model.visible_count, model.hidden_count) > 2**MOST_UNITS:
        raise ValueError(
            f"an exact sampler needs at most 2^{MOST_UNITS} states a layer, got {model.visible} visible and "
            f"{model.hidden} hidden units: sample instead"
        )
    up, down = (np.asarray(part) for part in _layers(model))
    return np.linalg.matrix_power(up @ down, sweeps)


@eqx.filter_jit
def _layers(model: Machine) -> tuple[Any, Any]:
    """p(h | v) and p(v | h) as tables, normalised over all states."""
    v, h = model.visible_states(jnp.arange(model.visible_count)), model.hidden_states(jnp.arange(model.hidden_count))
    joint = -(_energies(model, v, h))
    up = jnp.exp(joint - jnp.max(joint, axis=1, keepdims=True))
    down = jnp.exp(joint - jnp.max(joint, axis=0, keepdims=True)).T
    return up / jnp.sum(up, axis=1, keepdims=True), down / jnp.sum(down, axis=1, keepdims=True)


def _energies(model: Machine, v: Any, h: Any) -> Any:
    """-log p~(v, h) up to a constant: E is linear in h, with the field of v as its slope."""
    offset = model.energy(v, jnp.zeros((len(v), model.hidden)))
    return offset[:, None] - model.hidden_field(v) @ h.T


def _floating(v: Any) -> Any:
    return jnp.asarray(v, dtype=float)


class _Spread(eqx.Module):
    """The states of copies, from one state for all of them or from one for each."""

    count: int = eqx.field(static=True)

    def __call__(self, v: Any) -> Any:
        v = _floating(v)
        return v if v.ndim == 2 else jnp.broadcast_to(v, (self.count, *v.shape))


class _Sweeps(eqx.Module):
    """Gibbs sweeps of one chain."""

    model: Machine

    def __call__(self, v: Any, w: Any) -> Float[Array, " visible"]:
        for i in range(len(w["hidden"])):
            v = self.model.draw_visible(self.model.draw_hidden(v, w["hidden"][i]), w["visible"][i])
        return v

    def transition(self, v: Any) -> tuple[Any, Any]:
        model = self.model
        states = model.visible_states(jnp.arange(model.visible_count))
        h = model.hidden_states(jnp.arange(model.hidden_count))
        field = model.hidden_field(jnp.asarray(v, float)) @ h.T
        given = jnp.exp(field - jnp.max(field))
        down = _layers(model)[1]
        return states, (given / jnp.sum(given)) @ down


class _TemperedSweeps(eqx.Module):
    base: Machine
    model: Machine

    def __call__(self, state: Any, w: Any) -> Any:
        beta, v = state
        return beta, _Sweeps(self.base.interpolate(self.model, beta))(v, w)


class _TemperedDensity(eqx.Module):
    base: Machine
    model: Machine

    def __call__(self, beta: Any, v: Any) -> Any:
        return self.base.interpolate(self.model, beta).log_unnormalized(v)
