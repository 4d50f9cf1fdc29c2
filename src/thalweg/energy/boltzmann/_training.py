"""A machine in training, as a process: contrastive divergence in all its settings, or the exact gradient."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from thalweg._edge import check_choice, check_number, check_weights, is_traced, is_whole, shown
from thalweg._fisher import Fisher
from thalweg._loop import as_arrays
from thalweg._node import node
from thalweg._noise import Choice, Law, Shuffle, Uniform
from thalweg._process import Process
from thalweg.energy.boltzmann import _enumeration
from thalweg.energy.boltzmann._gaussian import GaussianRBM
from thalweg.energy.boltzmann._machine import Machine, check_betas, check_count, check_machine, one_key, subtract

METHODS = ("pcd", "cd", "tempering", "exact")
BATCH = 50
EXACT_UNITS = 10  # hidden units of a Gaussian machine up to which the exact gradient is cheap: no chains to go astray
MOST_NATURAL = 2**12  # visible states summed for an exact natural gradient
PACE = 0.1  # at which temperatures move
LEAST_VARIANCE = 1e-3  # of the data's own: below it a variance collapses onto single points


class Training(NamedTuple):
    """The state of a machine in training: the machine, its chains, the memory of the optimizer, the steps made.

    `betas`: with tempering, the inverse temperatures that the chains are at.
    """

    model: Machine
    chains: Any
    opt_state: Any
    step: Any
    betas: Any = ()


def training(
    model: Machine,
    data: Any,
    method: str = "pcd",
    *,
    optimizer: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    chains: int = 100,
    sweeps: int = 1,
    centred: bool = True,
    natural: float | None = None,
    weight_decay: float = 0.0,
    order: str = "shuffle",
    weights: Any = None,
    betas: Any = None,
) -> Process:
    """Training by the gradient of the log-likelihood, data minus model, as a `Process`.

    A step draws a batch, moves the chains by `sweeps` Gibbs sweeps at the present parameters, and then moves
    the parameters by `learning rate * (<d log p~>_batch - <d log p~>_chains)`.

    **Arguments**

    - `model`: where training starts; `RBM.start(data, hidden, key)` makes a good start. - `data`: shape (n, visible).
    - `method`: where the chains start. `"pcd"`: where they were (persistent, Tieleman 2008); `"cd"`: at the batch
      (Hinton 2002); `"tempering"`: persistent copies at `betas` that swap (Desjardins et al. 2010); `"exact"`: no
      chains, the model's mean is summed over the smaller layer.
    - `optimizer`: a learning rate (a leaf: a sweep compiles once), or an optax optimizer, which is handed the
      gradient of minus the log-likelihood. By default 0.5; for real units Adam with 0.01, since their gradient grows
      as 1 / variance.
    - `steps`: if given, a learning rate (or the default) falls linearly to 0 over so many steps.
    - `batch_size`: 50 by default, or all data if they are fewer. - `chains`: how many; `sweeps`: sweeps a step.
    - `centred`: whether the gradient is taken in centred variables (Melchior, Fischer and Wiskott 2016).
    - `natural`: if given, the gradient is multiplied by `(F + natural)^-1`, with F the Fisher information of the model
      from the same chains (Amari 1998): the direction then does not depend on how the machine is parametrised, and
      `centred` changes nothing. With `"exact"` F is summed over the visible states, of which there may be 2^12.
    - `weight_decay`: this times the weights is taken off their gradient.
    - `order`: `"shuffle"`: epochs without replacement; `"replacement"`; `"subset"`.
    - `weights`: of the data, shape (n,). A batch of total weight 0 skips the whole step, so that a fork without some
      data keeps every index and all of the noise.
    - `betas`: for tempering, from 0 to 1; by default ten that move while training goes on, so that all neighbours swap
      equally often (`state.betas`).

    **Returns** a `Process` whose state is a `Training`; `process.init(key)` makes one. Its `contributions` are those of
    the data only: the chains carry no label.

    **When not to trust it.** What falls or rises in training is not the likelihood: ask `log_likelihood`.

    >>> import numpy as np, thalweg as tw
    >>> data = np.array([[0, 0], [1, 1]])
    >>> process = tw.energy.training(tw.energy.RBM.start(data, 2, key=0), data, "exact", optimizer=0.5, batch_size=2)
    >>> run = tw.simulate(process, process.init(), 2000, key=0)
    >>> float(tw.energy.log_likelihood(run.state.model, data)) > -0.72  # the best possible is -ln 2 = -0.693
    True
    """
    check_machine(model)
    rows = model.check_data(data)
    if method not in METHODS:
        raise ValueError(f"method must be {', '.join(map(repr, METHODS))}, got {method!r}")
    n = len(rows)
    batch_size = min(BATCH, n) if batch_size is None else batch_size
    for name, value in (("batch_size", batch_size), ("chains", chains), ("sweeps", sweeps)):
        check_count(value, name)
    if batch_size > n and order != "replacement":
        raise ValueError(f"batch_size must be at most the number of data {n}, got {batch_size}")
    if steps is not None and (not is_whole(steps) or steps < 1):
        raise ValueError(f"steps must be a whole number >= 1, or None for a constant rate, got {steps!r}")
    check_number(weight_decay, "weight_decay", least=0)
    if natural is not None:
        check_number(natural, "natural", above=0)
    if method == "exact":
        _enumeration.refuse_too_large(model, 'use method="pcd"')
        if natural is not None and (model.visible_count is None or model.visible_count > MOST_NATURAL):
            raise ValueError(
                'natural gradients with method="exact" sum over visible states, at most 2^12 of them: this machine has '
                f'{model.visible_count or "infinitely many"}; use method="pcd"'
            )
    laws: dict[str, Any] = {
        "replacement": lambda: Choice(n, shape=(batch_size,)),
        "subset": lambda: Choice(n, shape=(batch_size,), replace=False),
        "shuffle": lambda: _Every(n) if batch_size == n else Shuffle(n, batch_size),
    }
    check_choice(order, "order", ("replacement", "subset", "shuffle"))
    rate, optimizer = _optimizer(optimizer, model, steps)
    adapts = method == "tempering" and betas is None
    betas = _betas(betas) if method == "tempering" else None
    width = batch_size if method == "cd" else chains
    lead = (len(betas), width) if betas is not None else (width,)
    noise: dict[str, Any] = {"datum": laws[order]()}
    if method != "exact":
        noise |= {"hidden": Uniform((sweeps, *lead, model.hidden)), "visible": model.visible_noise((sweeps, *lead))}
    if betas is not None:
        noise |= {"swap": Uniform(lead), "parity": Choice(2)}
    step = _Step(
        start=model,
        data=jnp.asarray(rows),
        weights=None if weights is None else check_weights(weights, n),
        mean=_visible_mean(model, rows),
        learning_rate=rate,
        optimizer=optimizer,
        natural=None if natural is None else jnp.asarray(natural, float),
        weight_decay=jnp.asarray(weight_decay, float),
        fall=None if steps is None else jnp.asarray(steps, float),
        betas=None if betas is None else jnp.asarray(betas),
        base=model.independent(rows) if betas is not None else None,
        least_variance=_least_variance(model, rows.var(axis=0)) if isinstance(model, GaussianRBM) else None,
        method=method,
        centred=jnp.asarray(bool(centred)),
        adapts=adapts,
        lead=lead,
    )

    # Functions of the module and methods of the step, so that training again compiles nothing again.
    return Process(
        step, noise, step.init, coordinates=_machine, contributions=step.contributions, smooth=method == "exact"
    )


def _machine(state: Training) -> Machine:
    return state.model


class _Every(Law):
    """All data in every batch: their order would be drawn for nothing."""

    n: int = eqx.field(static=True)

    def sample(self, key: Any, i: Any) -> Any:
        return jnp.arange(self.n)

    def atoms(self) -> tuple[Any, Any]:
        return jnp.arange(self.n)[None], jnp.ones(1)


class _Step(eqx.Module):
    """One step of training."""

    start: Machine
    data: Any
    weights: Any
    mean: Any
    learning_rate: Any
    optimizer: Any
    natural: Any
    weight_decay: Any
    fall: Any
    betas: Any
    base: Any
    least_variance: Any
    centred: Any
    method: str = eqx.field(static=True)
    adapts: bool = eqx.field(static=True)
    lead: tuple[int, ...] = eqx.field(static=True)

    def init(self, key: Any = 0, model: Machine | None = None) -> Training:
        """A state whose chains start at data chosen at random."""
        model = self.start if model is None else model
        chains = np.zeros((1, model.visible)) if self.method == "exact" else self._first_chains(one_key(key))
        memory = () if self.optimizer is None else as_arrays(self.optimizer.init(model))
        return Training(model, jnp.asarray(chains), memory, jnp.asarray(0), () if self.betas is None else self.betas)

    def _first_chains(self, key: Any) -> Any:
        """Data chosen at random. NumPy chooses, since it has nothing to compile, unless the caller traces."""
        n = len(self.data)
        if is_traced((key, self.data)):
            return self.data[jax.random.randint(key, self.lead, 0, n)]
        rng = np.random.default_rng(np.ravel(jax.random.key_data(key)))
        return np.asarray(self.data)[rng.integers(n, size=self.lead)]

    def __call__(self, state: Training, w: Any) -> Training:
        model = state.model
        batch = self.data[w["datum"]]
        scales = self._scales(w["datum"])
        chains, betas = self._moved(state, batch, w)
        positive = model.derivatives(batch, scales)
        negative = self._of_model(model, chains)
        gradient = subtract(positive, jax.tree.map(lambda g: jnp.sum(scales) * g, negative))
        if self.natural is not None:
            gradient = self._natural(model, gradient, chains)
        else:  # whether centred is a leaf: comparing the two ways compiles once
            total = jnp.maximum(jnp.sum(scales), 1e-300)
            centred = _centre(model, gradient, self.mean, (scales @ model.hidden_mean(batch)) / total)
            gradient = jax.tree.map(lambda a, b: jnp.where(self.centred, a, b), centred, gradient)
        gradient = eqx.tree_at(lambda m: m.weights, gradient, gradient.weights - self.weight_decay * model.weights)
        after = self._updated(state, node(gradient, "gradient"), chains)._replace(betas=betas)
        if self.weights is None:
            return after
        skip = jnp.sum(scales) == 0
        return jax.tree.map(lambda a, b: jnp.where(skip, a, b), state, after)._replace(step=after.step)

    def contributions(self, state: Training, w: Any, slot_weights: Any = None) -> Machine:
        """The data's part of the gradient of a batch, each slot weighted by `slot_weights` (all 1 by default)."""
        scales = self._scales(w["datum"])
        if slot_weights is not None:
            scales = scales * jnp.reshape(slot_weights, scales.shape)
        return state.model.derivatives(self.data[w["datum"]], scales)

    def _scales(self, datum: Any) -> Any:
        weights = jnp.ones(len(datum)) if self.weights is None else self.weights[datum]
        return weights / len(datum)

    def _moved(self, state: Training, batch: Any, w: Any) -> tuple[Any, Any]:
        """The chains after their sweeps and swaps, and the inverse temperatures that they are at."""
        if self.method == "exact":
            return state.chains, state.betas
        v = batch if self.method == "cd" else state.chains
        if self.method != "tempering":
            return _sweep_all(state.model, v, w), state.betas
        betas, path = state.betas, lambda beta: self.base.interpolate(state.model, beta)
        hidden, visible = jnp.moveaxis(w["hidden"], 1, 0), jnp.moveaxis(w["visible"], 1, 0)
        move = lambda beta, v, h, u: _sweep_all(path(beta), v, {"hidden": h, "visible": u})  # noqa: E731
        v = jax.vmap(move)(betas, v, hidden, visible)
        value = jax.vmap(lambda beta, v: path(beta).log_unnormalized(v))
        own, colder, warmer = value(betas, v), value(betas[1:], v[:-1]), value(betas[:-1], v[1:])
        gain = colder + warmer - own[:-1] - own[1:]  # of a swap of copies k and k + 1, row k
        turn = jnp.arange(len(gain)) % 2 == w["parity"]
        yes = turn[:, None] & (jnp.log(w["swap"][:-1]) < gain)
        nobody = jnp.zeros_like(yes[:1])
        up, down = (jnp.concatenate(pair)[..., None] for pair in ((yes, nobody), (nobody, yes)))
        v = jnp.where(up, jnp.roll(v, -1, axis=0), jnp.where(down, jnp.roll(v, 1, axis=0), v))
        return v, _evened(betas, jnp.mean(jnp.exp(jnp.minimum(gain, 0)), axis=1)) if self.adapts else betas

    def _of_model(self, model: Machine, chains: Any) -> Machine:
        if self.method == "exact":
            return _enumeration.expected_derivatives(model, _enumeration.log_partition(model))
        return model.derivatives(chains[-1] if self.method == "tempering" else chains)

    def _natural(self, model: Machine, gradient: Machine, chains: Any) -> Machine:
        flat, back = ravel_pytree(gradient)
        if self.method == "exact":
            states, logs = _enumeration.log_probabilities(model)
            fisher = Fisher.from_scores(model.scores(states), jnp.exp(logs))
        else:
            fisher = Fisher.from_scores(model.scores(chains[-1] if self.method == "tempering" else chains))
        return back(fisher.solve(flat, self.natural, "direct"))

    def _updated(self, state: Training, gradient: Machine, chains: Any) -> Training:
        if self.optimizer is None:
            rate = self.learning_rate
            if self.fall is not None:
                rate = rate * jnp.maximum(0.0, 1 - state.step / self.fall)
            update, memory = jax.tree.map(lambda g: rate * g, gradient), state.opt_state
        else:
            downhill = jax.tree.map(jnp.negative, gradient)
            update, memory = self.optimizer.update(downhill, state.opt_state, state.model)
        model = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.model, node(update, "update"))
        if self.least_variance is not None:
            bounded = jnp.maximum(model.log_variance, jnp.log(self.least_variance))
            model = eqx.tree_at(lambda m: m.log_variance, model, bounded)
        return Training(model, chains, memory, state.step + 1, state.betas)


def _sweep_all(model: Machine, v: Any, w: Any) -> Any:
    for i in range(len(w["hidden"])):
        v = model.draw_visible(model.draw_hidden(v, w["hidden"][i]), w["visible"][i])
    return v


def _evened(betas: Any, shares: Any) -> Any:
    """Inverse temperatures whose gaps have grown where neighbours swap more often than others, and shrunk elsewhere."""
    gaps = jnp.diff(betas) * jnp.exp(PACE * (shares - jnp.mean(shares)))
    inner = betas[0] + (betas[-1] - betas[0]) * jnp.cumsum(gaps)[:-1] / jnp.sum(gaps)
    return betas.at[1:-1].set(inner)


def _centre(model: Machine, gradient: Any, mu: Any, lam: Any) -> Any:
    """The gradient in the variables `v - mu`, `h - lam`, brought back to the machine's own parameters.

    Where the visible units are real their coupling and field are divided by the variance, so `mu` is too.
    """
    mu = mu / model.variance if isinstance(model, GaussianRBM) else mu
    gw, ga, gb = gradient.weights, gradient.visible_bias, gradient.hidden_bias
    gw = gw - ga[..., None] * lam - mu[..., None] * gb
    ga = ga - gw @ lam
    gb = gb - jnp.tensordot(mu, gw, mu.ndim)
    return eqx.tree_at(lambda m: (m.weights, m.visible_bias, m.hidden_bias), gradient, (gw, ga, gb))


def _visible_mean(model: Machine, rows: np.ndarray) -> Any:
    v = model.one_hot(rows) if hasattr(model, "one_hot") else rows
    return jnp.asarray(np.mean(v, axis=0))


def _least_variance(model: GaussianRBM, variance: np.ndarray) -> Any:
    if np.any(variance < 1e-10):
        column = int(np.argmin(variance))
        raise ValueError(f"column {column} of data is constant, so that its variance would collapse to 0: drop it")
    least = LEAST_VARIANCE * variance
    return jnp.asarray(least if model.log_variance.ndim else least.min())


def _optimizer(optimizer: Any, model: Machine, steps: int | None) -> tuple[Any, Any]:
    """(learning rate, None) or (None, optax optimizer)."""
    if optimizer is None and isinstance(model, GaussianRBM):
        return None, optax.adam(0.01 if steps is None else optax.linear_schedule(0.01, 0.0, steps))
    optimizer = 0.5 if optimizer is None else optimizer
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return None, optimizer
    if is_traced(optimizer):
        return optimizer, None
    if isinstance(optimizer, bool) or not isinstance(optimizer, int | float | np.number | np.ndarray | jax.Array):
        raise TypeError(f"optimizer must be a learning rate or an optax optimizer, got {shown(optimizer)}")
    rate = np.asarray(optimizer, dtype=float)
    if not np.all(np.isfinite(rate)) or np.any(rate < 0):
        raise ValueError(f"optimizer: a learning rate must be a number >= 0, got {shown(optimizer)}")
    return jnp.asarray(rate), None


def _betas(betas: Any) -> np.ndarray:
    array = check_betas(betas, 10)
    if array[-1] != 1:
        raise ValueError(f"betas must be at least two numbers from 0 to 1 that end at 1, got {shown(betas)}")
    return array
