"""Laws of noise: uniformity, packed draws, permutations, expectations."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from thalweg import noise
from thalweg._noise import as_key, as_law, keyed_permutation

KEY = jax.random.key(2024)
LEAST_P = 1e-4  # of a chi-square test under a fixed key


def draws(law, count, key=KEY):
    return np.asarray(jax.jit(jax.vmap(lambda i: law.sample(key, i)))(jnp.arange(count)))


def uniform_p(values, n):
    counts = np.bincount(np.ravel(values), minlength=n)
    assert len(counts) == n
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 256, 1000])
def test_choice_is_uniform(n):
    assert uniform_p(draws(noise.Choice(n), 60_000), n) > LEAST_P


def test_packed_bits_are_independent_along_the_steps():
    w = draws(noise.Choice(2), 64_000)
    for lag in (1, 2, 31, 32, 33, 64):
        z = np.mean((2 * w[:-lag] - 1) * (2 * w[lag:] - 1)) * math.sqrt(len(w) - lag)
        assert abs(z) < 4, (lag, z)


def test_choice_with_probabilities():
    p = np.array([0.5, 0.0, 0.2, 0.3])
    w = draws(noise.Choice(4, p=p), 50_000)
    counts = np.bincount(w, minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[p > 0], p[p > 0] * len(w)).pvalue > LEAST_P


def test_ordered_samples_without_replacement_are_uniform():
    w = draws(noise.Choice(5, shape=2, replace=False), 40_000)
    assert np.all(w[:, 0] != w[:, 1])
    pairs = [5 * a + b for a, b in itertools.permutations(range(5), 2)]
    counts = np.bincount(5 * w[:, 0] + w[:, 1], minlength=25)[pairs]
    assert stats.chisquare(counts).pvalue > LEAST_P


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_permutation_comes_up_equally_often(n):
    keys = jax.random.split(KEY, 60_000)
    found = np.asarray(jax.jit(jax.vmap(lambda k: keyed_permutation(k, n, jnp.arange(n))))(keys))
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == math.factorial(n)
    assert stats.chisquare(counts).pvalue > LEAST_P


@pytest.mark.parametrize("n", [1, 6, 97, 1000, 12_345])
def test_a_keyed_permutation_is_one(n):
    assert np.array_equal(np.sort(keyed_permutation(KEY, n, jnp.arange(n))), np.arange(n))


@pytest.mark.parametrize(("n", "batch"), [(6, 2), (7, 3), (10, 10), (5, 1)])
def test_shuffle_covers_every_epoch_once(n, batch):
    stream = draws(noise.Shuffle(n, batch), 3 * n).ravel()
    for epoch in range(3 * batch):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    orders = {tuple(stream[epoch * n : (epoch + 1) * n]) for epoch in range(3 * batch)}
    assert len(orders) > 1, "every epoch has an order of its own"


def test_shuffle_far_into_a_run_needs_no_history():
    law = noise.Shuffle(1_000_000, 4)
    assert law.sample(KEY, 10**9).shape == (4,)


def test_expectations():
    assert float(noise.Choice(3, p=[0.2, 0.3, 0.5]).expectation(lambda w: w)) == pytest.approx(1.3, abs=1e-15)
    pair = noise.Choice(4, shape=2, replace=False)
    assert float(pair.expectation(lambda w: jnp.max(w))) == pytest.approx(28 / 12, abs=1e-14)  # 2 (1 + 4 + 9) / 12
    gauss = noise.Normal(2)
    assert np.allclose(gauss.expectation(lambda w: jnp.outer(w, w)), np.eye(2), atol=1e-12)
    assert float(gauss.expectation(lambda w: jnp.cos(w[0] + w[1]))) == pytest.approx(math.exp(-1), abs=1e-13)
    both = as_law({"coin": noise.Choice(2), "kick": noise.Normal()})
    assert float(both.expectation(lambda w: (w["coin"] + w["kick"]) ** 2)) == pytest.approx(1.5, abs=1e-12)
    assert noise.Nothing().expectation(lambda w: 7.0) == 7.0


def test_weighted_draws_without_replacement_have_the_right_atoms():
    law = noise.Choice(4, p=[0.1, 0.2, 0.3, 0.4], shape=2, replace=False)
    values, p = law.atoms()
    found = {tuple(v): q for v, q in zip(np.asarray(values).tolist(), np.asarray(p), strict=True)}
    assert found[(0, 3)] == pytest.approx(0.1 * 0.4 / 0.9, abs=1e-15)
    assert sum(found.values()) == pytest.approx(1, abs=1e-14)
    counts = np.unique(draws(law, 40_000) @ [4, 1], return_counts=True)
    expected = np.array([found[divmod(int(code), 4)] for code in counts[0]])
    assert stats.chisquare(counts[1], expected * 40_000).pvalue > LEAST_P


@pytest.mark.parametrize("law", [noise.Uniform(), noise.Shuffle(5), noise.Key()])
def test_laws_that_cannot_be_integrated_say_so(law):
    with pytest.raises(ValueError, match="cannot be integrated"):
        law.expectation(lambda w: w)


def test_too_many_outcomes_are_refused():
    with pytest.raises(ValueError, match="wanted at most"):
        noise.Choice(100, shape=5).atoms()
    with pytest.raises(ValueError, match="smaller order"):
        noise.Normal(8).atoms()


def test_adding_a_law_leaves_the_draws_of_the_others_alone():
    few, more = as_law({"b": noise.Normal()}), as_law({"a": noise.Choice(2), "b": noise.Normal()})
    assert few.sample(KEY, 3)["b"] == more.sample(KEY, 3)["b"]


def test_keys_of_every_kind():
    same = [as_key(7), as_key(jax.random.key(7)), as_key(jax.random.PRNGKey(7))]
    assert all(jnp.array_equal(jax.random.key_data(k), jax.random.key_data(same[0])) for k in same)
    with pytest.raises(TypeError, match=r"pass key=jax.random.key\(0\)"):
        as_key(None)
