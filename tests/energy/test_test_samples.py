"""Tests of samples: right ones pass as often as they should, wrong ones are found, a hidden fault only by jumps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

import thalweg as tw
from energy import machines
from thalweg.energy.boltzmann import _enumeration, _stein
from thalweg.energy.boltzmann._test_samples import _law, exact_draws


def test_the_stein_kernel_of_units_has_mean_zero_under_the_law():
    for units in ((0, 1), (-1, 1)):
        model = machines.random_binary(5, 3, units=units)
        states, logs = _enumeration.log_probabilities(model)
        kernel = _law(model, None, None).kernel(np.asarray(states))
        assert np.abs(np.exp(np.asarray(logs)) @ kernel).max() < 1e-13 < 0.01 < np.abs(kernel).max()
        assert np.linalg.eigvalsh(kernel).min() > -1e-12
        other = _law(machines.random_binary(5, 3, seed=1, units=units), None, None).kernel(np.asarray(states))
        assert np.abs(np.exp(np.asarray(logs)) @ other).max() > 1e-3


def test_the_stein_kernel_of_real_numbers_has_mean_zero_under_the_law():
    x, w = hermegauss(60)
    kernel = _stein.continuous(x[:, None], -x[:, None])
    assert np.abs((w / w.sum()) @ kernel)[15:45].max() < 1e-9
    assert np.abs((w / w.sum()) @ _stein.continuous(x[:, None], -1.1 * x[:, None]))[15:45].max() > 1e-3


def test_ratios_along_a_line_of_scores():
    x = jnp.array([[0.3, -1.0], [2.0, 0.5]])
    y = x + jnp.array([[1.0, 2.0], [-3.0, 0.5]])
    gain = _stein.gain_along(lambda z: -z - z**3, x, y)
    value = lambda z: -jnp.sum(z**2 / 2 + z**4 / 4, axis=1)  # noqa: E731
    np.testing.assert_allclose(gain, value(y) - value(x), rtol=1e-12)


def test_exact_draws_follow_the_law():
    model = machines.worked_binary()
    numbers = np.asarray(exact_draws(model, 20_000, jax.random.key(0)) @ 2.0 ** np.arange(4)).astype(int)
    p = np.exp(np.asarray(_enumeration.log_probabilities(model)[1]))
    chi2 = np.sum((np.bincount(numbers, minlength=16) - 20_000 * p) ** 2 / (20_000 * p))
    assert chi2 < 15 + 4 * np.sqrt(30)


def test_jumps_find_modes_in_wrong_proportion():
    """0.8 and 0.2 of two equal modes: plain Stein sees nothing, jumps do."""
    right = tw.systems.gaussian_mixture([[-3.0], [3.0]], scale=1.0)
    wrong = tw.systems.gaussian_mixture([[-3.0], [3.0]], [0.8, 0.2], scale=1.0)
    found = tw.energy.test_samples(wrong.draw(600, 0), log_density=right.log_density, jumps=[4.5, 7.5], key=0)
    assert float(found.tests["Stein"]) > 0.05 and found.rejected(0.01) and "jumps" in found.worst
    # A jump of just the distance of the modes maps each on the other and hides the fault.
    exact = tw.energy.test_samples(wrong.draw(600, 0), log_density=right.log_density, jumps=[6.0], key=0)
    assert not exact.rejected(0.01)
    assert not tw.energy.test_samples(right.draw(600, 1), log_density=right.log_density, key=0).rejected(0.01)


def test_a_machine_and_its_sampler():
    model = machines.random_binary(8, 4)
    runs = tw.ensemble(tw.energy.sampler(model), np.zeros((300, 8)), 40, key=0, options=tw.Options(vectorise=True))
    assert not tw.energy.test_samples(runs.state, model, key=0, draws=500).rejected(0.01)
    # One that draws each hidden unit with its field halved
    slack = tw.energy.RBM(model.weights / 2, model.visible_bias, model.hidden_bias)
    runs = tw.ensemble(tw.energy.sampler(slack), np.zeros((300, 8)), 40, key=0, options=tw.Options(vectorise=True))
    assert tw.energy.test_samples(runs.state, model, key=0).rejected(0.01)


def test_a_chain_is_thinned():
    rng, x = np.random.default_rng(0), np.zeros(4000)
    for i in range(1, 4000):
        x[i] = 0.9 * x[i - 1] + np.sqrt(1 - 0.81) * rng.normal()
    found = tw.energy.test_samples(x, lambda z: -z, key=0, draws=500)
    assert 25 <= found.thinned <= 60  # two autocorrelation times of 19
    assert not found.rejected(0.01)


@pytest.mark.slow
def test_right_samples_are_rejected_as_rarely_as_said():
    law = tw.systems.gaussian_mixture()
    plain, all_tests = [], []
    for seed in range(200):
        found = tw.energy.test_samples(law.draw(200, seed), log_density=law.log_density, key=seed, draws=300)
        plain.append(float(found.tests["Stein"]) < 0.1)
        all_tests.append(found.rejected(0.1))
    assert 0.04 < np.mean(plain) < 0.17 and np.mean(all_tests) < 0.17
