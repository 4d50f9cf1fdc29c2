"""How good is a model: `log Z` and the log-likelihood, exact or annealed, and its gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._edge import shown
from thalweg._noise import Normal
from thalweg._results import Estimate, Status
from thalweg.energy.boltzmann import _annealing, _annealing_density, _enumeration, _peaks
from thalweg.energy.boltzmann._base import NormalBase, UniformBase
from thalweg.energy.boltzmann._machine import Machine, check_count, check_machine, one_key, subtract
from thalweg.energy.boltzmann._rbm import RBM

AUTO_STATES = 2**18  # "auto" enumerates up to here: well under a second
CLIMBS = 256  # from random states, for a lower bound


def log_partition(
    model: Any,
    method: str = "auto",
    *,
    data: Any = None,
    base: Any = None,
    snapshots: Sequence[Machine] = (),
    chains: int = 200,
    steps: int = 1000,
    key: Any = 0,
) -> Estimate:
    """The log partition function `log Z` of a Boltzmann machine, or of any log density, with an error bar.

    **Arguments**

    - `model`: an `RBM`, `GaussianRBM` or `CategoricalRBM`; or a function `log_density(x)` of one state, written in
      JAX, with a `base`.
    - `method`: `"exact"`: the sum over the states of the smaller layer, up to 2^25 of them; `"ais"`: annealed
      importance sampling; `"auto"`: exact up to 2^18 states.
    - `data`: samples, shape (n, visible). With them a second base has their means, and chains also run backwards from
      them: what shows a mode that no forward chain saw.
    - `base`: where annealing starts: for a machine its visible biases or a machine without couplings; for a log density
      `tw.energy.NormalBase` or `tw.energy.UniformBase`.
    - `snapshots`: machines saved in training, oldest first, that the path leads through.
    - `chains`, `steps`: how many chains, and how many temperatures (of each leg of the path). - `key`: key or seed.

    **Returns** an `Estimate`; an exact value has error 0. `details["runs"]` holds every run. The status is
    `FEW_WEIGHTS` where fewer than 10 chains carry the weight. It is `PATHS_DISAGREE` where two bases, or the runs
    backwards, lie more than 4 standard errors apart, or where states found by climbing weigh more than `Z`. Then the
    value must not be believed. Of a log density of real numbers, up to 50 of them, the peaks are looked for too, and
    a third base is made of them. Chains from it see narrow modes beside wide ones, which other bases miss: these may
    then lie lower.

    **Raises** `ValueError` for an exact answer with more than 2^25 states.

    **When not to trust it.** Annealing says nothing about modes that no chain, no climb and no datum saw: in many
    dimensions a narrow mode may be such, so give `data` where there are any. The mean of an
    annealed `log Z` is too low, never too high, which flatters the likelihood.

    Source: Neal (2001); Salakhutdinov and Murray (2008).

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM(np.zeros((4, 3)), np.zeros(4), np.zeros(3))
    >>> round(float(tw.energy.log_partition(model)), 6)  # 7 ln 2
    4.85203
    """
    method = _check_method(method, ("auto", "exact", "ais"))
    for name, value in (("chains", chains), ("steps", steps)):
        check_count(value, name, 2)
    if not isinstance(model, Machine):
        return _of_density(model, method, data, base, chains, steps, one_key(key))
    machine = model
    rows = None if data is None else machine.check_data(data)
    if not isinstance(snapshots, Sequence) or isinstance(snapshots, str):
        raise TypeError(f"snapshots must be a list of machines, got {shown(snapshots)}")
    for snapshot in snapshots:
        if type(snapshot) is not type(machine) or _shapes(snapshot) != _shapes(machine):
            raise ValueError("snapshots must be machines of the kind and shape of the model")
    _, count = _enumeration.smaller_layer(machine)
    if method == "exact" or (method == "auto" and count <= AUTO_STATES):
        _enumeration.refuse_too_large(machine, 'use method="ais"')
        exact = float(_enumeration.log_partition(machine))
        status = Status.OK if np.isfinite(exact) else Status.NOT_FINITE
        return Estimate(exact, 0.0, status, {"method": "exact", "states": count})
    return _anneal(machine, rows, base, tuple(snapshots), chains, steps, one_key(key))


def log_likelihood(model: Machine, data: Any, method: str = "auto", **settings: Any) -> Estimate:
    """The mean log-likelihood of data, in nats a row: `mean log p~(v) - log Z`.

    **Arguments**

    - `model`: a machine. - `data`: shape (n, visible); for two-valued units exactly their values: binarise grey
      values first, since the model gives them no probability.
    - `method` and further settings as in `log_partition`, which is given the data too.

    **Returns** an `Estimate`; its error is that of `log Z`. `details["spread"]` is the standard error over the
    rows, as an estimate of the mean over the population that they come from.

    **When not to trust it**: as for `log_partition`. An annealed value is biased upwards.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM(np.zeros((4, 3)), np.zeros(4), np.zeros(3))
    >>> round(float(tw.energy.log_likelihood(model, np.eye(4))), 6)  # -4 ln 2
    -2.772589
    """
    check_machine(model)
    rows = check_states(model, data)
    log_z = log_partition(model, method, data=rows, **settings)
    logs = np.asarray(_log_unnormalized(model, jnp.asarray(rows)))
    spread = float(logs.std(ddof=1) / np.sqrt(len(logs))) if len(logs) > 1 else float("inf")
    details = {**log_z.details, "log_partition": log_z.value, "spread": spread, "rows": len(rows)}
    return Estimate(float(logs.mean()) - log_z.value, log_z.error, log_z.status, details)


def pseudo_log_likelihood(model: RBM, data: Any) -> float:
    """The mean pseudo-log-likelihood: `sum_i log p(v_i | the other units)`, in nats a row.

    It needs no `log Z`, and it ranks models wrongly: it can rise while the likelihood falls. scikit-learn scores
    by a noisy estimate of it. Kept for comparison.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM(np.zeros((4, 3)), np.zeros(4), np.zeros(3))
    >>> round(tw.energy.pseudo_log_likelihood(model, np.eye(4)), 6)  # -4 ln 2
    -2.772589
    """
    if not isinstance(model, RBM):
        raise TypeError(
            f"model must be an RBM, of two-valued visible units, for a pseudo-likelihood, got {type(model).__name__}"
        )
    return float(_pseudo(model, jnp.asarray(check_states(model, data))))


def gradient(
    model: Machine,
    data: Any,
    method: str = "exact",
    *,
    sweeps: int = 1,
    chains: Any = None,
    key: Any = 0,
) -> Machine:
    """The gradient of the mean log-likelihood by every parameter: data minus model, the direction of ascent.

    `grad = <d log p~>_data - <d log p~>_model`.

    **Arguments**

    - `model`: a machine. - `data`: shape (n, visible).
    - `method`: `"exact"`: the model's mean by enumeration of the smaller layer; `"cd"`: by `sweeps` Gibbs sweeps of
      `chains`.
    - `chains`: where the sweeps start, shape (c, visible); at the data by default (contrastive divergence).

    **Returns** a machine of the same structure that holds the derivatives. `"cd"` is biased unless the chains start
    in equilibrium.

    >>> import numpy as np, thalweg as tw
    >>> model = tw.energy.RBM(np.zeros((2, 1)), np.zeros(2), np.zeros(1))
    >>> tw.energy.gradient(model, [[1, 1], [1, 0]]).visible_bias.round(12).tolist()  # mean 1 and 1/2, model 1/2
    [0.5, -0.0]
    """
    check_machine(model)
    rows = jnp.asarray(model.check_data(data))
    if _check_method(method, ("exact", "cd")) == "exact":
        _enumeration.refuse_too_large(model, 'use method="cd"')
        log_z = _enumeration.log_partition(model)
        return subtract(_derivatives(model, rows), _enumeration.expected_derivatives(model, log_z))
    check_count(sweeps, "sweeps")
    start = rows if chains is None else jnp.asarray(model.check_data(chains, "chains"))
    ends = _annealing.sweeps(model, start, one_key(key), sweeps)
    return subtract(_derivatives(model, rows), _derivatives(model, ends))


def check_states(model: Machine, data: Any, name: str = "data") -> np.ndarray:
    """Data that a model gives a probability: for two-valued units, exactly their values."""
    rows = model.check_data(data, name)
    if isinstance(model, RBM) and not np.all(np.isin(rows, model.units)):
        low, high = model.units
        where = np.argwhere(~np.isin(rows, model.units))[0]
        raise ValueError(
            f"{name} must hold {low} and {high} only to have a likelihood, got {rows[tuple(where)]:.6g} in row "
            f"{where[0]}, column {where[1]}: binarise it, such as data >= {(low + high) / 2:g}"
        )
    return rows


# --------------------------------------------------------------------------------------------------

_independent = eqx.filter_jit(lambda machine, data: machine.independent(data))
_log_partition_independent = eqx.filter_jit(lambda machine: machine.log_partition_independent())
_log_unnormalized = eqx.filter_jit(lambda machine, v: machine.log_unnormalized(v))
_derivatives = eqx.filter_jit(lambda machine, v: machine.derivatives(v))


@eqx.filter_jit
def _pseudo(model: RBM, v: Any) -> Any:
    total, now = sum(model.units), model.log_unnormalized(v)

    def one(i):
        flipped = model.log_unnormalized(v.at[:, i].set(total - v[:, i]))
        return jnp.mean(jax.nn.log_sigmoid(now - flipped))

    return jnp.sum(jax.lax.map(one, jnp.arange(model.visible)))


def _check_method(method: Any, known: tuple[str, ...]) -> str:
    if method not in known:
        raise ValueError(f"method must be {', '.join(map(repr, known))}, got {method!r}")
    return method


def _shapes(machine: Machine) -> Any:
    return [np.shape(leaf) for leaf in jax.tree.leaves(machine)]


def _anneal(machine: Machine, data: Any, base: Any, snapshots: tuple, chains: int, steps: int, key: Any) -> Estimate:
    """Forward from two bases, backward from data, and a lower bound from states found by climbing."""
    runs = {}

    def run(name, start, number):
        path = (start, *snapshots, machine)
        log_weights, ends = _annealing.forward(path, chains, jax.random.fold_in(key, number), steps)
        weighed = _annealing.weigh(log_weights)
        runs[name] = float(_log_partition_independent(start)) + weighed.log_mean, weighed
        return np.asarray(log_weights), ends

    log_weights, ends = run("uniform base", _independent(machine, None), 1)
    if base is not None:
        second, name = _as_base(machine, base), "given base"
    elif data is not None:
        second, name = _independent(machine, jnp.asarray(data)), "base with the means of the data"
    else:  # the chains of the first run, resampled by their weights, show the means of the model
        weights = np.exp(log_weights - log_weights.max())
        places = (np.arange(chains) + 0.5) / chains * weights.sum()
        chosen = np.minimum(np.searchsorted(np.cumsum(weights), np.nan_to_num(places)), chains - 1)
        second, name = _independent(machine, ends[chosen]), "base with the means of the chains"
    run(name, second, 2)
    if data is not None:
        rows = jnp.asarray(data[np.arange(chains) * len(data) // chains])
        path = (second, *snapshots, machine)
        weighed = _annealing.weigh(_annealing.backward(path, rows, jax.random.fold_in(key, 3), steps))
        runs["reverse from the data"] = float(_log_partition_independent(second)) - weighed.log_mean, weighed
    some = None if data is None else jnp.asarray(data[:: -(-len(data) // 1000)])
    bounds = {"hidden states found by climbing": _climbed_bound(machine, some, jax.random.fold_in(key, 5))}
    return _annealing.judged(runs, bounds, {"method": "ais", "chains": chains, "steps": steps})


def _as_base(machine: Machine, base: Any) -> Machine:
    if not isinstance(base, Machine):
        start = machine.independent()
        shape = start.visible_bias.shape
        try:
            bias = jnp.broadcast_to(jnp.asarray(base, dtype=float), shape)
            if not np.all(np.isfinite(np.asarray(bias))):
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(f"base must be visible biases of shape {shape}, or a machine, got {shown(base)}") from None
        base = eqx.tree_at(lambda m: m.visible_bias, start, bias)
    if jax.tree.map(jnp.shape, base.weights) != machine.weights.shape or type(base) is not type(machine):
        raise ValueError(f"base must be a {type(machine).__name__} with weights of shape {machine.weights.shape}")
    if np.any(np.asarray(base.weights)):
        raise ValueError("base must have no couplings, so that its log Z is known: set its weights to 0")
    return eqx.tree_at(lambda m: m.hidden_bias, base, jnp.zeros_like(base.hidden_bias))


def _climbed_bound(machine: Machine, data: Any, key: Any) -> float:
    """`log sum p~(h)` over distinct hidden states found by climbing: `log Z` cannot be less."""
    h, logs = (np.asarray(part) for part in _climb(machine, data, key))
    return float(np.logaddexp.reduce(logs[np.unique(h, axis=0, return_index=True)[1]]))


@eqx.filter_jit
def _climb(machine: Machine, data: Any, key: Any) -> tuple[Any, Any]:
    """(hidden states, their log weights): from random starts, to and fro between typical states."""
    low, high = machine.units
    unsure = 0.0 if isinstance(machine.visible_noise(), Normal) else 0.5  # the noise that draws the middle of a law

    def hidden(v):
        return jnp.where(machine.hidden_field(v) > 0, float(high), float(low))

    def climb(_, h):
        return hidden(machine.draw_visible(h, jnp.full((len(h), machine.visible), unsure)))

    coins, one = jax.random.bernoulli(key, 0.5, (CLIMBS, machine.hidden)), jnp.eye(machine.hidden, dtype=bool)
    starts = jnp.concatenate([coins, one, ~one, jnp.zeros_like(one[:1]), jnp.ones_like(one[:1])])
    h = jnp.where(starts, float(high), float(low))
    h = jax.lax.fori_loop(0, 30, climb, h if data is None else jnp.concatenate([h, hidden(data)]))
    return h, machine.log_unnormalized_hidden(h)


def _of_density(
    log_density: Callable, method: str, data: Any, base: Any, chains: int, steps: int, key: Any
) -> Estimate:
    if not callable(log_density):
        raise TypeError(
            f"model must be a machine such as tw.energy.RBM(...) or a function log_density(x), got {shown(log_density)}"
        )
    if not isinstance(base, NormalBase | UniformBase):
        raise ValueError(
            "a log density needs base=tw.energy.NormalBase(mean, scale) for real numbers, or "
            f"base=tw.energy.UniformBase(shape, units) for units of two values, got {shown(base)}"
        )
    example = jax.eval_shape(log_density, jax.ShapeDtypeStruct(base.shape, jnp.result_type(float)))
    if getattr(example, "shape", None) != ():
        raise ValueError(f"log_density must give one number for a state of shape {base.shape}, got {example}")
    if method == "exact" or (method == "auto" and isinstance(base, UniformBase) and 2**base.size <= AUTO_STATES):
        if not isinstance(base, UniformBase):
            raise ValueError('an exact log Z of real numbers is not at hand for a log density: use method="ais"')
        if 2**base.size > _enumeration.MOST_STATES:
            raise ValueError(f'an exact answer sums over at most 2^25 states, got 2^{base.size}: use method="ais"')
        value = float(_sum_over_states(log_density, base))
        status = Status.OK if np.isfinite(value) else Status.NOT_FINITE
        return Estimate(value, 0.0, status, {"method": "exact", "states": 2**base.size})
    samples = None if data is None else _check_samples(data, base)
    if isinstance(base, NormalBase):
        return _anneal_reals(log_density, base, samples, chains, steps, key)
    return _anneal_units(log_density, base, samples, chains, steps, key)


def _check_samples(data: Any, base: Any) -> Any:
    try:
        samples = np.asarray(data, dtype=float)
    except (TypeError, ValueError):
        samples = np.zeros(0)
    if samples.shape[1:] != base.shape or not np.all(np.isfinite(samples)) or not len(samples):
        raise ValueError(f"data must be finite samples of shape (n, *{base.shape}), got {shown(data)}")
    return jnp.asarray(samples)


def _anneal_reals(log_density: Callable, base: NormalBase, samples: Any, chains: int, steps: int, key: Any) -> Estimate:
    """Forward from two wide bases and from the peaks that are found, backward from samples along the best of these."""
    runs: dict[str, Any] = {}
    ways: dict[str, Any] = {}
    seen = [] if samples is None else [samples]

    def run(name, start):
        here = jax.random.fold_in(key, len(runs))
        log_weights, ends, tuning = _annealing_density.forward(log_density, start, chains, steps, here)
        weighed = _annealing.weigh(log_weights)
        runs[name], ways[name] = (weighed.log_mean, weighed), (start, tuning)
        seen.append(ends)

    run("given base", base)
    run("base twice as wide", NormalBase(base.mean, 2 * base.scale))
    if base.mean.size <= _peaks.MOST_COORDINATES:
        peaks = _peaks.find(log_density, base, seen[::-1], jax.random.fold_in(key, 8))
        if peaks is not None:
            run(_annealing.PEAKS, peaks)
    if samples is not None:
        start, tuning = ways[_annealing.best(runs)]
        x = samples[jax.random.randint(jax.random.fold_in(key, 5), (chains,), 0, len(samples))]
        x = _annealing_density.settle(log_density, start, x, steps, jax.random.fold_in(key, 6), tuning)
        back = _annealing_density.backward(log_density, start, x, steps, jax.random.fold_in(key, 7), tuning)
        weighed = _annealing.weigh(back)
        runs["reverse from the data"] = -weighed.log_mean, weighed
    return _annealing.judged(runs, {}, {"method": "ais", "chains": chains, "steps": steps})


def _anneal_units(
    log_density: Callable, base: UniformBase, samples: Any, chains: int, steps: int, key: Any
) -> Estimate:
    """Forward from the uniform law, backward from samples, and a lower bound from states found by climbing."""
    log_weights, ends, _ = _annealing_density.forward(log_density, base, chains, steps, jax.random.fold_in(key, 0))
    weighed = _annealing.weigh(log_weights)
    runs = {"given base": (weighed.log_mean, weighed)}
    starts = [base.draw(jax.random.fold_in(key, 8), CLIMBS), ends]
    if samples is not None:
        x = samples[jax.random.randint(jax.random.fold_in(key, 5), (chains,), 0, len(samples))]
        weighed = _annealing.weigh(
            _annealing_density.backward(log_density, base, x, steps, jax.random.fold_in(key, 7), None)
        )
        runs["reverse from the data"] = -weighed.log_mean, weighed
        starts.append(x)
    x, logs = (np.asarray(part) for part in _annealing_density.climb(log_density, base, jnp.concatenate(starts)))
    first = np.unique(x.reshape(len(x), -1), axis=0, return_index=True)[1]
    bounds = {"states found by climbing": float(np.logaddexp.reduce(logs[first]))}
    return _annealing.judged(runs, bounds, {"method": "ais", "chains": chains, "steps": steps})


@eqx.filter_jit
def _sum_over_states(log_density: Callable, base: UniformBase) -> Any:
    return _enumeration.log_sum_over_states(log_density, base.states, 2**base.size)
