"""log Z, likelihood and gradient: worked cases to every printed digit, and error bars that cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from energy import machines
from thalweg import Status
from thalweg.energy.boltzmann import _enumeration
from thalweg.energy.boltzmann._test_samples import exact_draws

KINDS = machines.every_kind()
kinds = pytest.mark.parametrize("machine", KINDS.values(), ids=KINDS.keys())


def test_the_worked_binary_case():
    model = machines.worked_binary()
    for value in _enumeration.log_partition_both(model):
        assert float(value) == pytest.approx(4.952581193614, abs=5e-13)
    one, other = _enumeration.log_partition_both(model)
    assert abs(float(one - other)) < 1e-12
    assert float(tw.energy.log_likelihood(model, [1, 0, 1, 1])) == pytest.approx(-2.821268410549, abs=5e-13)
    mean = _enumeration.expected_derivatives(model, one).visible_bias
    np.testing.assert_allclose(mean, [0.45474143, 0.48175787, 0.50336276, 0.52173789], atol=5e-9)


def test_the_worked_gaussian_case():
    model = machines.worked_gaussian()
    assert float(tw.energy.log_partition(model, "exact")) == pytest.approx(3.792158706778, abs=5e-13)
    assert float(tw.energy.log_likelihood(model, [0.3, -0.4])) == pytest.approx(-1.808975431734, abs=5e-13)
    # Moments of the mixture of 2^3 Gaussians
    h = model.hidden_states(jnp.arange(8))
    p = jax.nn.softmax(model.log_unnormalized_hidden(h))
    means = model.visible_mean(h)
    np.testing.assert_allclose(p @ means, [-0.23234219, -0.17413024], atol=5e-9)
    np.testing.assert_allclose(p @ (means**2 + model.variance), [0.66501678, 0.91790149], atol=5e-9)


@kinds
def test_the_exact_gradient_is_the_difference_quotient(machine):
    data = machines.some_states(machine)
    gradient = tw.energy.gradient(machine, data)
    assert jax.tree.structure(gradient) == jax.tree.structure(machine)
    flat, back = ravel_pytree(machine)
    step = 1e-5
    likelihood = jax.jit(lambda m: jnp.mean(m.log_unnormalized(jnp.asarray(data))) - _enumeration.log_partition(m))
    for i in range(len(flat)):
        quotient = (likelihood(back(flat.at[i].add(step))) - likelihood(back(flat.at[i].add(-step)))) / (2 * step)
        assert float(ravel_pytree(gradient)[0][i]) == pytest.approx(float(quotient), abs=1e-7)


@kinds
def test_one_step_up_the_gradient_raises_the_likelihood(machine):
    data = machines.some_states(machine)
    better = jax.tree.map(lambda p, g: p + 0.01 * g, machine, tw.energy.gradient(machine, data))
    assert float(tw.energy.log_likelihood(better, data)) > float(tw.energy.log_likelihood(machine, data))


def test_contrastive_divergence_from_exact_draws_is_the_exact_gradient():
    model, data = machines.random_binary(), machines.some_states(machines.random_binary(), 40)
    states, logs = _enumeration.log_probabilities(model)
    exact = ravel_pytree(tw.energy.gradient(model, data))[0]
    estimates = []
    for seed in range(30):
        start = states[jax.random.categorical(jax.random.key(seed), logs, shape=(1000,))]
        estimate = tw.energy.gradient(model, data, "cd", sweeps=2, chains=start, key=1000 + seed)
        estimates.append(ravel_pytree(estimate)[0])
    estimates = np.array(estimates)
    z = (estimates.mean(axis=0) - exact) / (estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates)))
    assert np.abs(z).max() < 5 and 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    # From data that are no draws of the model one sweep is biased: the test can fail.
    biased = np.array([
        ravel_pytree(tw.energy.gradient(model, data, "cd", chains=np.repeat(data, 25, 0), key=s))[0]
        for s in range(30)
    ])  # fmt: skip
    z = (biased.mean(axis=0) - exact) / (biased.std(axis=0, ddof=1) / np.sqrt(len(biased)))
    assert np.abs(z).max() > 8


@kinds
def test_annealing_agrees_with_enumeration(machine):
    exact = float(tw.energy.log_partition(machine, "exact"))
    annealed = tw.energy.log_partition(machine, "ais", data=machines.some_states(machine, 30), chains=100, steps=300)
    assert annealed.ok and annealed.error < 0.05
    assert abs(float(annealed) - exact) < 4 * annealed.error
    assert len(annealed.details["runs"]) == 3


def test_a_path_along_snapshots():
    model = machines.random_binary()
    half = jax.tree.map(lambda p: p / 2, model)
    annealed = tw.energy.log_partition(model, "ais", snapshots=[half], steps=200)
    assert annealed.ok and abs(float(annealed) - float(tw.energy.log_partition(model))) < 4 * annealed.error


def test_a_missed_mode_is_no_confident_error():
    model = machines.two_modes()
    assert float(tw.energy.log_partition(model)) == pytest.approx(0.6941, abs=5e-5)
    right = tw.energy.log_partition(model, "ais")
    assert right.ok and abs(float(right) - 0.694056) < 4 * right.error
    wrong = tw.energy.log_partition(model, "ais", base=-2.0)
    assert wrong.status == Status.PATHS_DISAGREE and "a mode is missed" in wrong.message


def _hole():
    """One hidden unit sees all twenty units on: nearly all weight, in a state that no chain from a base meets."""
    weights = np.zeros((20, 3))
    weights[:, 0] = 40.0
    return tw.energy.RBM(weights, np.zeros(20), [-40 * 19.5, 0.0, 0.0])


HOLE = np.logaddexp(20 * np.log(2), 20 * np.log1p(np.exp(40.0)) - 780) + 2 * np.log(2)  # that unit off, and on


def test_a_mode_that_only_the_climb_finds():
    """The chains of both bases agree, with tiny errors, on a wrong value; one state's weight refutes them."""
    model = _hole()
    assert float(tw.energy.log_partition(model, "exact")) == pytest.approx(HOLE, abs=1e-11)
    annealed = tw.energy.log_partition(model, "ais", steps=100)
    one, other = annealed.details["runs"].values()
    assert abs(one["value"] - other["value"]) < 4 * np.hypot(one["error"], other["error"]) < 0.1
    assert HOLE - max(one["value"], other["value"]) > 5
    assert annealed.status == Status.PATHS_DISAGREE and "hidden states found by climbing" in annealed.message


def test_reverse_runs_show_a_mode_that_the_data_know():
    """Annealing back from the data says what the given base and the uniform base never meet."""
    found = tw.energy.log_partition(_hole(), "ais", data=np.ones((50, 20)), base=-0.5, steps=100)
    runs = found.details["runs"]
    assert set(runs) == {"uniform base", "given base", "reverse from the data"}
    assert HOLE - max(runs["uniform base"]["value"], runs["given base"]["value"]) > 5
    assert found.status == Status.PATHS_DISAGREE and "reverse from the data gives" in found.message


def test_reverse_runs_from_right_data_are_right():
    model = machines.random_binary(12, 6)
    found = tw.energy.log_partition(model, "ais", data=exact_draws(model, 400, jax.random.key(1)), steps=300)
    reverse = found.details["runs"]["reverse from the data"]
    assert found.ok and reverse["error"] < 0.01
    assert abs(reverse["value"] - float(tw.energy.log_partition(model, "exact"))) < 4 * reverse["error"]


FIVE = {
    "worked": machines.worked_binary(),
    "16 hidden": machines.random_binary(20, 16, 0.5, 3),
    "spins": machines.random_binary(8, 6, 0.4, 4, (-1, 1)),
    "gaussian": machines.worked_gaussian(),
    "two modes": machines.two_modes(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
def test_two_standard_errors_cover_as_often_as_they_say(name):
    model = FIVE[name]
    exact = float(tw.energy.log_partition(model, "exact"))
    runs = [tw.energy.log_partition(model, "ais", chains=100, steps=500, key=seed) for seed in range(100)]
    trusted = [run for run in runs if run.ok]
    assert len(trusted) >= 90  # statuses are for what is wrong
    z = np.array([(float(run) - exact) / run.error for run in trusted])
    assert 0.90 <= np.mean(np.abs(z) < 2) <= 0.99
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.25


def _mixture(dimension):
    """Two Gaussians of widths 0.5 and 1, weights 0.3 and 0.7, times exp(2)."""

    def log_density(x):
        near = jnp.log(0.3) - jnp.sum((x - 1) ** 2) / (2 * 0.25) - dimension * jnp.log(2 * jnp.pi * 0.25) / 2
        far = jnp.log(0.7) - jnp.sum((x + 1) ** 2) / 2 - dimension * jnp.log(2 * jnp.pi) / 2
        return jnp.logaddexp(near, far) + 2

    return log_density


@pytest.mark.parametrize("dimension", [2, 5])
def test_log_densities_of_a_users_own(dimension):
    base = tw.energy.NormalBase(np.zeros(dimension), 2.0)
    got = tw.energy.log_partition(_mixture(dimension), "ais", base=base, steps=400)
    assert got.ok and got.error < 0.1 and abs(float(got) - 2) < 4 * got.error


@pytest.mark.parametrize("dimension", [10, 20])
def test_log_densities_in_many_dimensions(dimension):
    """Two modes of one width: right, and as far off as the error says. One narrower: right, or a status."""
    base, seeds = tw.energy.NormalBase(np.zeros(dimension), 2.0), range(12)
    alike = tw.systems.gaussian_mixture(np.outer([1.0, -1.0], np.ones(dimension)), [0.3, 0.7], scale=0.8).log_density
    found = [tw.energy.log_partition(alike, "ais", base=base, steps=400, key=seed) for seed in seeds]
    trusted = [one for one in found if one.ok]
    assert len(trusted) >= 10
    z = np.array([float(one) / one.error for one in trusted])
    assert np.abs(z).max() < 4 and 0.5 < np.sqrt(np.mean(z**2)) < 1.6

    narrow = _mixture(dimension)
    found = [tw.energy.log_partition(narrow, "ais", base=base, steps=400, key=seed) for seed in seeds]
    z = np.array([(float(one) - 2) / one.error for one in found])
    assert z.min() < -4  # the annealed value alone is wrong,
    assert all(one.status != Status.OK for one, off in zip(found, z, strict=True) if abs(off) > 4)  # and never silent


def test_data_show_a_mode_of_a_density_that_chains_miss():
    base = tw.energy.NormalBase(np.zeros(2), 0.5)
    far = tw.systems.gaussian_mixture([[0.0, 0.0], [30.0, 30.0]], [0.2, 0.8], scale=0.5)
    blind = tw.energy.log_partition(far.log_density, "ais", base=base, steps=100)
    assert float(blind) == pytest.approx(np.log(0.2), abs=0.1)  # nothing can know of it
    seen = tw.energy.log_partition(far.log_density, "ais", base=base, steps=100, data=far.draw(100, 0))
    assert seen.status == Status.PATHS_DISAGREE and "reverse from the data" in seen.message


def _ising(x):
    return 0.3 * (jnp.sum(x * jnp.roll(x, 1, 0)) + jnp.sum(x * jnp.roll(x, 1, 1)))


def test_the_ising_model_on_four_by_four():
    base = tw.energy.UniformBase((4, 4), (-1, 1))
    exact = float(tw.energy.log_partition(_ising, "exact", base=base))
    spins = 1 - 2.0 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4)
    energy = 0.3 * ((spins * np.roll(spins, 1, 1)).sum((1, 2)) + (spins * np.roll(spins, 1, 2)).sum((1, 2)))
    assert exact == pytest.approx(np.log(np.exp(energy).sum()), abs=1e-11)
    annealed = tw.energy.log_partition(_ising, "ais", base=base, steps=200)
    assert annealed.ok and annealed.error < 0.05 and abs(float(annealed) - exact) < 4 * annealed.error


def test_the_pseudo_likelihood_is_that_of_the_conditionals():
    model = machines.random_binary(4, 3)
    _, logs = _enumeration.log_probabilities(model)
    p = np.exp(np.asarray(logs)).reshape((2,) * 4, order="F")
    data = np.array([[0, 1, 1, 0], [1, 1, 0, 1]])
    wanted = np.mean([
        sum(np.log(p[tuple(v)] / (p[tuple(v)] + p[tuple(np.where(np.arange(4) == i, 1 - v, v))])) for i in range(4))
        for v in data
    ])  # fmt: skip
    assert tw.energy.pseudo_log_likelihood(model, data) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e, m: e.log_partition(m, "guess"), "method must be 'auto', 'exact', 'ais', got 'guess'"),
        (lambda e, m: e.log_partition(m, "ais", chains=1), "chains must be a whole number >= 2, got 1"),
        (lambda e, m: e.log_partition(m, "ais", base=np.zeros(3)), r"base must be visible biases of shape \(4,\)"),
        (lambda e, m: e.log_partition(m, "ais", base=m), "base must have no couplings"),
        (lambda e, m: e.log_partition(m, "ais", snapshots=[machines.two_modes(), 3]), "snapshots must be machines"),
        (lambda e, m: e.log_partition(lambda x: x, "ais"), "a log density needs base="),
        (lambda e, m: e.log_partition(lambda x: x, base=e.NormalBase([0, 0])), "must give one number for a state"),
        (lambda e, m: e.log_partition(jnp.sum, "exact", base=e.NormalBase([0.0])), 'use method="ais"'),
        (lambda e, m: e.log_likelihood(m, [[0.5, 0, 1, 1]]), "must hold 0 and 1 only .* binarise it"),
        (lambda e, m: e.gradient(m, [[0, 0, 1, 1]], "cd", sweeps=0), "sweeps must be a whole number >= 1"),
        (lambda e, m: e.log_partition(machines.random_binary(30, 30), "exact"), "at most 2.25; .* 30 hidden units"),
        (lambda e, m: e.gradient(machines.random_binary(30, 30), np.zeros(30)), 'use method="cd"'),
        (lambda e, m: e.NormalBase([0.0], -1), "scale must be standard deviations > 0"),
        (lambda e, m: e.UniformBase((0,)), "shape must be a tuple of positive whole numbers"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(tw.energy, machines.worked_binary())


def test_not_a_model():
    for call in (tw.energy.log_partition, lambda m: tw.energy.log_likelihood(m, [[0]])):
        with pytest.raises(TypeError, match="model must be a machine such as"):
            call(3)
