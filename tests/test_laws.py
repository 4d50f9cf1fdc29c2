"""Every law on every process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import thalweg as tw
from processes_table import table
from thalweg import testing
from thalweg._noise import as_law

TABLE = table()


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("law", testing.LAWS)
def test_law(law, name):
    process, state = TABLE[name]
    testing.LAWS[law](process, state, 5)


@settings(max_examples=12, deadline=None)
@given(testing.noise_laws())
def test_streams_equal_samples_for_any_law(law):
    process = tw.Process(lambda s, w: s, law)
    testing.streams_equal_samples(process, 0.0, 0)
    assert as_law(process.noise) is process.noise


def _broken(process, state, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_process(process, state)


def test_the_laws_can_fail():
    calls = iter(range(10**6))
    _broken(tw.Process(lambda x, w: x + next(calls)), 0.0, "chunks equal the whole")

    class Ignores(tw.noise.Law):  # draws by the step's number alone: its exact mean is not its sampled mean
        def sample(self, key, i):
            return jnp.ones(())

        def atoms(self):
            return jnp.zeros(1), jnp.ones(1)

    _broken(tw.Process(lambda x, w: x + w, Ignores()), 0.0, "expectation equals the mean")

    @jax.custom_jvp
    def wrong(x):
        return x**2

    wrong.defjvp(lambda p, t: (wrong(p[0]), t[0]))  # the derivative of x, not of x^2
    _broken(tw.Process(lambda x, w: wrong(x)), 0.7, "response is the derivative")


def test_probabilities_strategy_gives_probabilities():
    @settings(max_examples=50, deadline=None)
    @given(testing.probabilities())
    def check(p):
        assert np.isclose(p.sum(), 1) and np.all(p >= 0)

    check()
