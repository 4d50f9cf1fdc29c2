"""Samplers as processes: exact transitions keep the model's law, and runs agree with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from energy import machines
from thalweg import processes, testing
from thalweg.energy.boltzmann import _enumeration

SMALL = {
    "bits": machines.worked_binary(),
    "spins": machines.random_binary(5, 3, units=(-1, 1)),
    "categorical": machines.categorical(),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_exact_sampler_keeps_the_law_of_the_model(name):
    model = SMALL[name]
    table = tw.energy.transition_matrix(model)
    p = np.exp(_enumeration.log_probabilities(model)[1])
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(p @ table, p, atol=4e-16)
    np.testing.assert_allclose(p[:, None] * table, (p[:, None] * table).T, atol=4e-16)
    np.testing.assert_allclose(tw.energy.transition_matrix(model, 3), table @ table @ table, atol=1e-14)


@pytest.mark.parametrize("name", SMALL)
def test_transition_is_a_row_of_the_matrix_and_what_steps_do(name):
    model = SMALL[name]
    process = tw.energy.sampler(model)
    number = 5
    v = model.visible_states(jnp.asarray(number))
    states, row = process.transition(v)
    np.testing.assert_allclose(row, tw.energy.transition_matrix(model)[number], atol=1e-14)
    n = 20_000
    keys = jax.random.split(jax.random.key(0), n)
    after = jax.vmap(lambda key: process.step(v, process.noise.sample(key, 0)))(keys)
    counts = np.array([np.sum(np.all(np.asarray(after) == state, axis=1)) for state in np.asarray(states)])
    _counts_agree(counts, np.asarray(row))


def _counts_agree(counts, p):
    n = counts.sum()
    chi_squared = np.sum((counts - n * p) ** 2 / (n * p))
    assert abs(chi_squared - (len(p) - 1)) < 4.5 * np.sqrt(2 * len(p)), chi_squared


def test_metropolis_keeps_detailed_balance():
    model = machines.worked_binary()
    process = tw.energy.sampler(model, "metropolis")
    states, logs = _enumeration.log_probabilities(model)
    table, p = np.zeros((16, 16)), np.exp(np.asarray(logs))
    for i, v in enumerate(np.asarray(states)):
        reached, probabilities = process.transition(v)
        for to, q in zip(np.asarray(reached), np.asarray(probabilities), strict=True):
            table[i, int(to @ 2 ** np.arange(4))] += q
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(p[:, None] * table, (p[:, None] * table).T, atol=1e-15)
    assert table.min() >= 0


def test_tempering_crosses_between_modes_that_gibbs_never_leaves():
    model = machines.two_modes()
    start = np.zeros(10)
    stuck = tw.simulate(tw.energy.sampler(model), start, 2000, key=0, record=lambda s, w, n: jnp.mean(n))
    assert float(stuck.record.max()) < 0.5
    process = tw.energy.sampler(model, "tempering", betas=np.linspace(0, 1, 8))
    run = tw.simulate(process, np.zeros((8, 10)), 8_000, key=1, record=lambda s, w, n: jnp.mean(n[-1]))
    blocks = np.asarray(run.record).reshape(40, -1).mean(axis=1)
    assert abs(blocks.mean() - 0.5) < 4 * blocks.std(ddof=1) / np.sqrt(40) < 0.3
    rates = processes.swap_rates(process, run.state, 1000, 2)
    assert rates.shape == (7,) and rates.min() > 0.1


def test_tempered_copies_keep_each_their_own_law():
    model = machines.worked_binary()
    process = tw.energy.sampler(model, "tempering", betas=[0.0, 0.5, 1.0])
    members, state = 4000, np.zeros((3, 4))
    runs = tw.ensemble(process, jnp.broadcast_to(state, (members, 3, 4)), 25, key=0, options=tw.Options(vectorise=True))
    numbers = np.asarray(runs.state @ 2.0 ** np.arange(4)).astype(int)
    for copy, beta in enumerate((0.0, 0.5, 1.0)):
        law = np.exp(_enumeration.log_probabilities(model.independent().interpolate(model, beta))[1])
        _counts_agree(np.bincount(numbers[:, copy], minlength=16), law)


def _steep():
    """Two modes that part so suddenly on the way from independent units that equal steps in beta jump over it."""
    return machines.two_modes(3.0, 24)


def test_temperatures_are_found_where_a_fixed_ladder_fails():
    model = _steep()
    fixed = tw.energy.sampler(model, "tempering", betas=np.linspace(0, 1, 11))
    assert processes.swap_rates(fixed, fixed.init(np.zeros(24)), 1000, 1).min() < 0.1
    found = tw.energy.sampler(model, "tempering")
    betas = np.asarray(found.step.betas)
    assert betas[0] == 0 and betas[-1] == 1 and np.all(np.diff(betas) > 0)
    rates = processes.swap_rates(found, found.init(np.zeros(24)), 2000, 1)
    assert rates.min() > 0.15 and np.ptp(rates) < 0.35
    with pytest.raises(ValueError, match="allow more than most=4"):
        processes.tempering_betas(
            lambda b: tw.energy.sampler(model, "tempering", betas=b), lambda n: np.zeros((n, 24)), rate=0.9, most=4
        )


def test_metropolis_of_real_numbers():
    process = processes.metropolis(lambda x: -(x**2) / 2, scale=2.0)
    run = tw.simulate(process, 0.0, 40_000, key=0, record=lambda s, w, n: n**2)
    assert abs(float(run.record.mean()) - 1) < 0.06


@pytest.mark.parametrize("name", ["gibbs", "metropolis", "tempering"])
def test_samplers_obey_the_laws_of_processes(name):
    model = machines.worked_binary()
    process = tw.energy.sampler(model, name, betas=[0.0, 0.5, 1.0] if name == "tempering" else None)
    state = process.init(np.zeros(4))
    for law in ("same_key_same_numbers", "chunks_equal_the_whole", "a_member_equals_its_own_run"):
        testing.LAWS[law](process, state, 5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: tw.energy.sampler(machines.worked_binary(), "heat"), 'method must be "gibbs"'),
        (lambda: tw.energy.sampler(machines.worked_binary(), sweeps=0), "sweeps must be a whole number >= 1"),
        (lambda: tw.energy.sampler(machines.worked_gaussian(), "metropolis"), "flips units of two values"),
        (lambda: tw.energy.sampler(machines.worked_binary(), "tempering", betas=[2, 3]), "numbers from 0 to 1"),
        (lambda: tw.energy.transition_matrix(machines.random_binary(13, 3)), r"at most 2\^12 states a layer"),
        (lambda: processes.metropolis(jnp.sum, "jump"), 'proposal must be "normal" or "flip"'),
        (lambda: processes.metropolis(jnp.sum, scale=-1.0), "scale must be > 0, got -1"),
        (lambda: processes.metropolis(jnp.sum, "flip"), "shape must be that of a state of units"),
        (lambda: processes.gibbs([("a", lambda s, w: 0)], {}), "must name the same blocks"),
        (lambda: processes.tempering(processes.finite([0]), lambda b, x: x, [1.0]), "at least two finite numbers"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
