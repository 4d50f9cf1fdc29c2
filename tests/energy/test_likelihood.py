"""log Z, likelihood and gradient: worked cases to every printed digit, and error bars that cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from energy import machines
from thalweg import Status
from thalweg.energy.boltzmann import _annealing, _enumeration, _peaks
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


def test_a_narrow_mode_beside_a_wide_one():
    """In twenty dimensions chains from one wide base hardly end in the narrow mode; those from the peaks do."""
    base, density = tw.energy.NormalBase(np.zeros(20), 2.0), _mixture(20)
    found = [tw.energy.log_partition(density, "ais", base=base, steps=100, key=seed) for seed in range(5)]
    assert all(one.ok and one.details["base"] == "peaks found by climbing" for one in found)
    z = np.array([(float(one) - 2) / one.error for one in found])
    assert np.abs(z).max() < 4 and 0.4 < np.sqrt(np.mean(z**2)) < 1.7
    alone = [one.details["runs"]["given base"] for one in found]
    assert np.mean([(run["value"] - 2) / run["error"] for run in alone]) < -1.5


def test_peaks_are_found_once_each():
    means = np.array([[0.0, 0.0], [3.0, 3.0], [-3.0, 3.0]])
    density = tw.systems.gaussian_mixture(means, [0.2, 0.5, 0.3], scale=0.4).log_density
    found = _peaks.find(density, tw.energy.NormalBase(np.zeros(2), 2.0), [], jax.random.key(0))
    share = np.exp(found.log_share)
    assert np.sum(share > 0) == 3  # and one more place, that nobody takes
    order = np.argsort(share)[-3:]
    np.testing.assert_allclose(share[order], [0.2, 0.3, 0.5], atol=1e-3)
    np.testing.assert_allclose(found.peaks[order], means[[0, 2, 1]], atol=1e-3)
    np.testing.assert_allclose(found.widths[order], 0.4, rtol=1e-3)
    drawn = found.draw(jax.random.key(1), 40_000)
    weights = np.exp(jax.vmap(density)(drawn) - jax.vmap(found.log_density)(drawn))
    assert abs(weights.mean() - 1) < 4 * weights.std() / 200 < 0.05  # it draws what it says
    assert _peaks.find(lambda x: -jnp.sum(jnp.abs(x)), found.wide, [], jax.random.key(0)) is None  # a kink is no peak


def test_a_density_with_an_edge():
    """Chains that start outside weigh nothing: half of a Gaussian has half of its Z."""
    half = lambda x: jnp.where(x[0] > 0, -jnp.sum(x**2) / 2, -jnp.inf)  # noqa: E731
    found = tw.energy.log_partition(half, "ais", base=tw.energy.NormalBase(np.zeros(2), 2.0), steps=100)
    assert found.ok and found.error < 0.2 and abs(float(found) - np.log(np.pi)) < 4 * found.error


def test_data_show_a_mode_of_a_density_that_chains_miss():
    base = tw.energy.NormalBase(np.zeros(2), 0.5)
    far = tw.systems.gaussian_mixture([[0.0, 0.0], [30.0, 30.0]], [0.2, 0.8], scale=0.5)
    seen = tw.energy.log_partition(far.log_density, "ais", base=base, steps=100, data=far.draw(100, 0))
    assert seen.ok and abs(float(seen)) < 4 * seen.error < 0.1
    runs = seen.details["runs"]
    assert runs["given base"]["value"] == pytest.approx(np.log(0.2), abs=0.1)
    assert runs["reverse from the data"]["value"] == pytest.approx(0, abs=0.1)


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


def test_a_state_that_only_flips_find():
    """One lone state of sixteen spins holds nearly all the weight: chains miss it, climbing flips do not."""
    lone = lambda x: jnp.where(jnp.all(x == 1), 40.0, 0.05 * jnp.sum(x))  # noqa: E731
    found = tw.energy.log_partition(lone, "ais", base=tw.energy.UniformBase(16), chains=50, steps=50)
    assert float(found) < 20 and found.status == Status.PATHS_DISAGREE and "states found by climbing" in found.message


@pytest.mark.parametrize("n", [50, 200])
def test_the_error_of_a_log_of_a_mean_of_few_skewed_weights(n):
    """Log-normal weights: two errors cover as often as they should, where the plain error is too small."""
    logs = np.random.default_rng(0).normal(-0.5 * 0.8**2, 0.8, (1500, n))
    found = [_annealing.weigh(row) for row in logs]
    z = np.array([one.log_mean / one.error for one in found if not one.few])
    assert len(z) > 1000 and 0.92 < np.mean(np.abs(z) < 2) < 0.98 and 0.9 < np.sqrt(np.mean(z**2)) < 1.1
    weights = np.exp(logs)
    plain = np.log(weights.mean(axis=1)) / (weights.std(axis=1, ddof=1) / weights.mean(axis=1) / np.sqrt(n))
    assert np.sqrt(np.mean(plain**2)) > np.sqrt(np.mean(z**2)) + 0.03


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
