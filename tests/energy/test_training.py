"""Training: its expected step is the gradient, its settings are one loop, and it reaches what can be reached."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from energy import machines
from thalweg import testing
from thalweg.energy.boltzmann import _enumeration

MODEL = machines.worked_binary()
DATA = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 1, 1]], dtype=float)
KINDS = machines.every_kind()


def _flat(model):
    return np.asarray(ravel_pytree(model)[0])


def _centred(model, gradient, mean, hidden):
    """The formulas of the literature, in numpy, for units of two values."""
    gw, ga, gb = (np.asarray(p) for p in (gradient.weights, gradient.visible_bias, gradient.hidden_bias))
    gw = gw - np.outer(ga, hidden) - np.outer(mean, gb)
    return np.concatenate([gw.ravel(), ga - gw @ hidden, gb - gw.T @ mean])


@pytest.mark.parametrize("name", KINDS)
def test_an_exact_step_is_the_exact_gradient(name):
    model, data = KINDS[name], machines.some_states(KINDS[name], 6)
    process = tw.energy.training(model, data, "exact", optimizer=0.01, batch_size=6, centred=False)
    after = tw.simulate(process, process.init(), 1, key=0).state.model
    np.testing.assert_allclose(
        _flat(after), _flat(model) + 0.01 * _flat(tw.energy.gradient(model, data)), rtol=1e-12, atol=1e-13
    )


def test_a_centred_step():
    process = tw.energy.training(MODEL, DATA, "exact", optimizer=1.0, batch_size=6)
    moved = _flat(tw.simulate(process, process.init(), 1, key=0).state.model) - _flat(MODEL)
    wanted = _centred(
        MODEL, tw.energy.gradient(MODEL, DATA), DATA.mean(axis=0), np.asarray(MODEL.hidden_mean(DATA)).mean(axis=0)
    )
    np.testing.assert_allclose(moved, wanted, atol=1e-13)


def test_a_natural_step_is_that_of_the_enumerated_metric():
    process = tw.energy.training(MODEL, DATA, "exact", optimizer=1.0, batch_size=6, natural=0.01)
    moved = _flat(tw.simulate(process, process.init(), 1, key=0).state.model) - _flat(MODEL)
    states, logs = _enumeration.log_probabilities(MODEL)
    p = np.exp(np.asarray(logs))
    scores = np.array([_flat(MODEL.derivatives(v)) for v in states])
    scores = scores - p @ scores
    metric = scores.T @ (p[:, None] * scores)
    wanted = np.linalg.solve(metric + 0.01 * np.eye(len(metric)), _flat(tw.energy.gradient(MODEL, DATA)))
    np.testing.assert_allclose(moved, wanted, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match='natural gradients with method="exact" sum over visible states'):
        tw.energy.training(machines.random_binary(13, 3), np.zeros((60, 13)), "exact", natural=0.1)


@pytest.mark.parametrize("name", KINDS)
def test_a_small_centred_step_climbs(name):
    model, data = KINDS[name], machines.some_states(KINDS[name], 6)
    process = tw.energy.training(model, data, "exact", optimizer=0.003, batch_size=6)
    after = tw.simulate(process, process.init(), 1, key=0).state.model
    assert float(tw.energy.log_likelihood(after, data)) > float(tw.energy.log_likelihood(model, data))


@pytest.mark.parametrize("method", ["pcd", "cd", "tempering"])
def test_the_mean_step_from_equilibrium_is_the_gradient(method):
    """With chains (or data) drawn from the model itself, all three settings have the exact gradient as their mean."""
    states, logs = _enumeration.log_probabilities(MODEL)
    law = np.exp(np.asarray(logs))
    weights = law if method == "cd" else None  # for cd the batch is an exact draw of the model
    data = np.asarray(states) if method == "cd" else DATA
    process = tw.energy.training(
        MODEL, data, method, optimizer=1.0, batch_size=6, chains=64, centred=False, order="replacement",
        betas=[0.0, 0.5, 1.0] if method == "tempering" else None,
    )  # fmt: skip
    betas = [0.0, 0.5, 1.0]
    laws = [MODEL.independent(DATA).interpolate(MODEL, b) for b in betas] if method == "tempering" else [MODEL]
    laws = [_enumeration.log_probabilities(m)[1] for m in laws]

    @jax.jit
    def one(key):
        k1, k2, k3 = jax.random.split(key, 3)
        w = process.noise.sample(k1, 0)
        state = process.init(0)
        if method == "cd":
            w = {**w, "datum": jax.random.categorical(k2, logs, shape=(6,))}
        else:
            chains = jnp.stack([
                states[jax.random.categorical(jax.random.fold_in(k3, i), law, shape=(64,))]
                for i, law in enumerate(laws)
            ])  # fmt: skip
            state = state._replace(chains=chains if method == "tempering" else chains[0])
        return ravel_pytree(process.step(state, w).model)[0] - ravel_pytree(MODEL)[0]

    steps = np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(7), 3000)))
    exact = np.zeros_like(steps[0]) if weights is not None else _flat(tw.energy.gradient(MODEL, DATA))
    z = (steps.mean(axis=0) - exact) / (steps.std(axis=0, ddof=1) / np.sqrt(len(steps)))
    assert np.abs(z).max() < 4.5


def test_temperatures_move_until_all_neighbours_swap_alike():
    model = machines.two_modes(3.0, 16)
    data = np.repeat([[0.0], [1.0]], 16, axis=1)
    process = tw.energy.training(model, data, "tempering", optimizer=0.0, chains=50)
    start = process.init(0)
    np.testing.assert_allclose(start.betas, np.linspace(0, 1, 10))
    betas = tw.simulate(process, start, 400, key=0).state.betas
    assert betas[0] == 0 and betas[-1] == 1 and np.all(np.diff(betas) > 0)
    spread = [_swap_rates(model, data, b) for b in (start.betas, betas)]
    assert np.ptp(spread[1]) < np.ptp(spread[0]) / 2 and spread[1].min() > spread[0].min() + 0.05


def _swap_rates(model, data, betas):
    process = tw.energy.sampler(model, "tempering", betas=betas, data=data)
    start = np.repeat(np.arange(10)[:, None] % 2, 16, axis=1)
    return tw.processes.swap_rates(process, start, 3000, 0)


def test_weights_fork_without_a_datum():
    """A datum of weight 0 leaves no trace: the run equals one in which its place holds anything else."""
    weights = np.array([1, 1, 0, 1, 1, 1.0])
    other = DATA.copy()
    other[2] = 1 - other[2]
    runs = []
    for data in (DATA, other):
        process = tw.energy.training(MODEL, data, batch_size=2, chains=5, weights=weights, centred=False)
        state = process.init(0)._replace(chains=jnp.zeros((5, 4)))
        runs.append(tw.simulate(process, state, 30, key=0).state.model)
    np.testing.assert_array_equal(_flat(runs[0]), _flat(runs[1]))


def test_contributions_add_up_to_the_batch():
    process = tw.energy.training(MODEL, DATA, batch_size=3)
    state, w = process.init(0), process.noise.sample(jax.random.key(0), 0)
    parts = [_flat(process.contributions(state, w, np.eye(3)[slot])) for slot in range(3)]
    np.testing.assert_allclose(sum(parts), _flat(process.contributions(state, w)), atol=1e-14)
    np.testing.assert_allclose(sum(parts), _flat(MODEL.derivatives(jnp.asarray(DATA)[w["datum"]])), atol=1e-14)


def test_training_obeys_the_laws_of_processes():
    process = tw.energy.training(MODEL, DATA, optimizer=optax.adam(1e-2), batch_size=2, chains=4, sweeps=2)
    for law in ("chunks_equal_the_whole", "a_fork_equals_its_original", "a_member_equals_its_own_run"):
        testing.LAWS[law](process, process.init(0), 5)


def test_the_rate_falls_to_nothing():
    process = tw.energy.training(MODEL, DATA, optimizer=0.5, steps=10, batch_size=2, chains=4)
    end = tw.simulate(process, process.init(0), 10, key=0).state
    beyond = tw.simulate(process, end, 5, key=0, start=10).state
    np.testing.assert_array_equal(_flat(end.model), _flat(beyond.model))


def test_a_variance_does_not_collapse():
    """Two Gaussians that sit on the two data: the likelihood grows without bound as they narrow."""
    data = np.array([[1.5, -1.0], [-1.5, 1.0]])
    model = tw.energy.GaussianRBM(data[:1].T, np.zeros(2), np.zeros(1), [-3.0, -3.0], (-1, 1))
    process = tw.energy.training(model, data, "exact", optimizer=optax.adam(0.01))
    model = tw.simulate(process, process.init(), 800, key=0).state.model
    np.testing.assert_allclose(model.variance, 1e-3 * data.var(axis=0), rtol=1e-9)


def _bars_and_stripes(size):
    lines = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    stripes = np.repeat(lines[:, :, None], size, axis=2).reshape(len(lines), -1)
    bars = np.repeat(lines[:, None, :], size, axis=1).reshape(len(lines), -1)
    return np.unique(np.concatenate([bars, stripes]), axis=0).astype(float)


def test_exact_training_reaches_the_best_on_bars_and_stripes():
    data = _bars_and_stripes(3)
    assert len(data) == 14
    rng = np.random.default_rng(0)
    start = tw.energy.RBM(rng.normal(size=(9, 10)) / 2, rng.normal(size=9) / 2, rng.normal(size=10) / 2)
    found = tw.energy.fit(start, data, "lbfgs", epochs=200)
    assert float(tw.energy.log_likelihood(found.model, data)) == pytest.approx(-np.log(14), abs=1e-4)


def test_fit_watches_held_out_data_and_stops():
    rng = np.random.default_rng(0)
    prototypes = rng.random((3, 12)) < 0.5
    data = (prototypes[rng.integers(0, 3, 400)] ^ (rng.random((400, 12)) < 0.1)).astype(float)
    start = tw.energy.RBM.start(data[:300], 4)
    found = tw.energy.fit(start, data[:300], epochs=300, validation=data[300:], every=20)
    assert found.status == tw.Status.OK and found.log_likelihood.ok
    assert float(found.log_likelihood) == pytest.approx(max(found.history["log_likelihood"]))
    again = tw.energy.log_likelihood(found.model, data[300:])
    assert float(again) == pytest.approx(float(found.log_likelihood), abs=1e-9)
    assert float(again) > float(tw.energy.log_likelihood(start, data[300:])) + 0.8
    wild = tw.energy.fit(start, data[:300], epochs=1000, validation=data[300:], every=1, patience=2, optimizer=0.0)
    assert wild.steps < 6000  # nothing rises at rate 0: it stops


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e: e.training(MODEL, DATA, "sgd"), "method must be 'pcd', 'cd', 'tempering', 'exact', got 'sgd'"),
        (lambda e: e.training(MODEL, DATA, batch_size=7), "batch_size must be at most the number of data 6, got 7"),
        (lambda e: e.training(MODEL, DATA, chains=0), "chains must be a whole number >= 1"),
        (lambda e: e.training(MODEL, DATA, steps=0), "steps must be a whole number >= 1, or None"),
        (lambda e: e.training(MODEL, DATA, optimizer=-1.0), "learning rate must be a number >= 0"),
        (lambda e: e.training(MODEL, DATA, weight_decay=-1.0), "weight_decay must be a number >= 0"),
        (lambda e: e.training(MODEL, DATA, weights=[1.0]), r"weights must have shape \(6,\)"),
        (lambda e: e.training(MODEL, DATA, "tempering", betas=[0, 0.5]), "that end at 1"),
        (lambda e: e.training(MODEL, 2 * DATA), r"data must lie in \[0, 1\]"),
        (lambda e: e.training(machines.random_binary(30, 30), np.zeros((60, 30)), "exact"), 'use method="pcd"'),
        (lambda e: e.training(machines.worked_gaussian(), np.ones((60, 2))), "column 0 of data is constant"),
        (lambda e: e.GaussianRBM.start(np.ones((60, 2)), 3), "column 0 of data is constant"),
        (lambda e: e.RBM.start(DATA, 0), "hidden must be a whole number of units >= 1"),
        (lambda e: e.RBM.start(np.zeros(3), 2), r"data must have shape \(n, visible\)"),
        (lambda e: e.fit(MODEL, DATA, epochs=0), "epochs must be a whole number >= 1"),
        (lambda e: e.fit(MODEL, DATA, "lbfgs", chains=3), 'method "lbfgs" takes no chains'),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(tw.energy)


def test_training_again_compiles_nothing_again():
    """Another rate, other data of the same shape, another start: the compiled loop is the same."""

    def train(rate, seed):
        model = machines.random_binary(4, 3, seed=seed)
        return tw.energy.training(model, np.roll(DATA, seed, axis=0), optimizer=rate, batch_size=2, chains=4)

    assert jax.tree.structure(train(0.1, 1)) == jax.tree.structure(train(0.2, 2))
