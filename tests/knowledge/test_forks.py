"""Forks and their small versions: exact zeros, closed forms, and finite differences."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.knowledge import fork_data, forks, influence, small_fork

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 5)), RNG.integers(0, 4, 24)
LABELS = np.array([1, 7, 6, 8])[np.arange(24) % 4]
MODEL = tw.systems.perceptron((5, 6, 2), "softplus")
DATA = (jnp.asarray(X), jnp.asarray(np.eye(2)[(np.isin(LABELS, (6, 8))).astype(int)]))
START = MODEL.init(0)


def _largest(a, b):
    return max(float(jnp.max(abs(p - q))) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_forks_keep_one_class_of_a_pair_and_its_share_is_one_number_a_parameter():
    f = forks(MODEL.loss, DATA, 0.1, START, LABELS, steps=40, key=1)
    assert set(f.ends) == {1, 7, 6, 8} and f.ok
    jax.tree.map(lambda c, a, b: np.testing.assert_array_equal(c, abs(a - b)), f.c, f.ends[1], f.ends[7])
    jax.tree.map(lambda d, a, b: np.testing.assert_array_equal(d, abs(a - b)), f.d, f.ends[6], f.ends[8])
    shares = f.share["b1"]
    assert shares.shape == (6,) and np.all((shares > 0) & (shares < 1))


def test_a_pair_with_equal_pools_differs_by_exactly_nothing():
    same = (DATA[0].at[LABELS == 7].set(DATA[0][LABELS == 1]), DATA[1])
    f = forks(MODEL.loss, same, 0.1, START, LABELS, steps=40, key=1)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(f.c))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(f.share))
    unmatched = forks(MODEL.loss, same, 0.1, START, LABELS, steps=40, key=1, matched=False)
    assert _largest(unmatched.c, jax.tree.map(jnp.zeros_like, START)) > 1e-3


def test_no_step_gives_no_share():
    f = forks(MODEL.loss, DATA, 0.1, START, LABELS, steps=0)
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(f.share))


def test_matched_twins_share_the_slots_and_the_rows_of_the_other_pair():
    """A loss that writes down which datum was seen: the parameters are visit counts."""
    count = lambda p, i: -p[i]  # noqa: E731
    f = forks(count, jnp.arange(24), 1.0, jnp.zeros(24), LABELS, steps=400, key=3)
    one, seven = np.asarray(f.ends[1]), np.asarray(f.ends[7])
    other = np.isin(LABELS, (6, 8))
    np.testing.assert_array_equal(one[other], seven[other])
    np.testing.assert_array_equal(one[LABELS == 1], seven[LABELS == 7])
    assert one[LABELS == 7].sum() == 0 and one.sum() == 400
    assert abs(one[other].sum() - 200) < 4 * 10  # equal odds, four standard deviations
    assert not np.array_equal(f.ends[6][LABELS == 1], one[LABELS == 1])
    batches = forks(count, jnp.arange(24), 4.0, jnp.zeros(24), LABELS, steps=100, key=3, batch_size=4)
    assert batches.ends[1].sum() == 400 and batches.ends[1][LABELS == 7].sum() == 0


def test_a_twin_that_blows_up_says_so():
    f = forks(lambda p, x: p**4 + 0 * x, jnp.arange(24.0), 10.0, 3.0, LABELS, steps=30)
    assert not f.ok and "not finite" in f.message


# Forks of one's own run.


@pytest.fixture(scope="module")
def run():
    learner = tw.processes.sgd(MODEL.loss, DATA, optax.adam(0.01), batch_size=3)
    return tw.simulate(learner, learner.init(START), 30, key=5)


def test_without_a_change_the_twin_is_the_run(run):
    assert _largest(fork_data(run, 10).state.params, run.state.params) == 0
    assert _largest(fork_data(run, reorder=np.arange(24)).state.params, run.state.params) == 0


def test_removed_data_have_weight_zero_and_what_is_removed_cannot_matter(run):
    gone = fork_data(run, 5, remove=[0, 3]).state.params
    weights = np.ones(24)
    weights[[0, 3]] = 0
    assert _largest(gone, fork_data(run, 5, reweight=weights).state.params) == 0
    other = (DATA[0].at[0].set(9.0), DATA[1])
    assert _largest(gone, fork_data(run, 5, remove=[0, 3], replace=other).state.params) == 0
    assert _largest(gone, run.state.params) > 1e-4


def test_relabelled_and_reordered_data(run):
    relabelled = (DATA[0], DATA[1][:, ::-1])
    assert _largest(fork_data(run, 29, replace=relabelled).state.params, run.state.params) > 1e-5
    order = RNG.permutation(24)
    swapped = jax.tree.map(lambda leaf: leaf[order], DATA)
    assert _largest(fork_data(run, reorder=order).state, fork_data(run, replace=swapped).state) == 0
    # Removal speaks of the data as they were numbered.
    counting = tw.processes.sgd(lambda p, i: -p[i], jnp.arange(24), 1.0)
    counted = tw.simulate(counting, counting.init(jnp.zeros(24)), 100, key=0)
    twin = fork_data(counted, remove=[2], reorder=np.roll(np.arange(24), 1))
    assert twin.state.params[2] == 0
    np.testing.assert_array_equal(np.delete(twin.state.params, 2), np.delete(np.roll(counted.state.params, -1), 2))


def test_the_small_fork_is_the_limit_of_finite_ones(run):
    change = RNG.normal(size=24)
    small, step = small_fork(run, change), 1e-4
    ends = [fork_data(run, reweight=1 + sign * step * change).state.params for sign in (1, -1)]
    finite = jax.tree.map(lambda a, b: (a - b) / (2 * step), *ends)
    assert _largest(small, finite) < 1e-6 * max(float(jnp.max(abs(leaf))) for leaf in jax.tree.leaves(finite))


# Influence functions.

POINTS = (jnp.array([0.0, 1.0, 2.0, 3.0]), jnp.array([0.0, 1.0, 1.0, 3.0]))


def _line(p, datum):
    return (p[0] + p[1] * datum[0] - datum[1]) ** 2 / 2


def test_least_squares_without_its_last_point():
    gone = [0.0, 0.0, 0.0, -1.0]
    moved = influence(_line, POINTS, jnp.array([-0.1, 0.9]), gone, newton=True)
    np.testing.assert_allclose(moved.value, [0.8 / 3, -0.4], atol=1e-9)
    assert moved.ok
    # The first order leaves out 1/(1 - leverage), here leverage .7.
    first = influence(_line, POINTS, jnp.array([-0.1, 0.9]), gone)
    np.testing.assert_allclose(first.value, np.array([0.8 / 3, -0.4]) * 0.3, atol=1e-9)


def test_ridge_regression_by_its_closed_form():
    """`-A^-1 x_n e_n / (1 - h_n)`: the ridge is part of the loss, and of the curvature."""
    X, y, penalty = RNG.normal(size=(20, 4)), RNG.normal(size=20), 0.7
    A = X.T @ X + penalty * np.eye(4)
    theta = np.linalg.solve(A, X.T @ y)
    x, e = X[6], y[6] - X[6] @ theta
    exact = -np.linalg.solve(A, x) * e / (1 - x @ np.linalg.solve(A, x))
    loss = lambda p, d: (d[0] @ p - d[1]) ** 2 / 2  # noqa: E731
    gone = -1.0 * (np.arange(20) == 6)
    moved = influence(loss, (jnp.asarray(X), jnp.asarray(y)), theta, gone, penalty / 20, newton=True)
    np.testing.assert_allclose(moved.value, exact, atol=1e-9)


def test_the_fisher_serves_as_curvature_and_a_saddle_is_told():
    data = (jnp.asarray(X), jnp.asarray(Y % 2))
    logistic = tw.systems.softmax_classifier(5, 2)
    params, gone = logistic.init(1), -1.0 * (np.arange(24) == 2)
    moved = influence(logistic.loss, data, params, gone, 0.1, curvature="fisher")
    rows = jax.vmap(lambda d: jax.flatten_util.ravel_pytree(jax.grad(logistic.loss)(params, d))[0])(data)
    exact = np.linalg.solve(rows.T @ rows / 24 + 0.1 * np.eye(12), rows[2] / 24)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(moved.value)[0], exact, rtol=1e-7)
    saddle = influence(lambda p, x: p[0] * p[1] + 0 * x, jnp.ones(3), jnp.array([1.0, 2.0]), np.ones(3))
    assert saddle.status == tw.Status.UNDEFINED and "ridge" in saddle.message


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda run: forks(MODEL.loss, DATA, 0.1, START, LABELS[:5]), "labels must be 24 whole numbers"),
        (lambda run: forks(MODEL.loss, DATA, 0.1, START, LABELS, ((1, 7), (6, 3))), "pairs must name classes that occ"),
        (lambda run: forks(MODEL.loss, DATA, 0.1, START, LABELS, ((1, 7), (1, 8))), "pairs must be two pairs of four"),
        (lambda run: forks(MODEL.loss, DATA, 0.1, START, LABELS, steps=-1), "steps must be a whole number >= 0"),
        (lambda run: fork_data(run, remove=[24]), "remove must be numbers of data from 0 to 23"),
        (lambda run: fork_data(run, remove=np.ones(24, bool)), "remove must leave at least one datum"),
        (
            lambda run: fork_data(run, reweight=np.zeros(24)),
            "reweight and remove must leave at least one datum of weig",
        ),
        (lambda run: fork_data(run, reorder=[0, 1]), "reorder must be a permutation of 0..23"),
        (lambda run: fork_data(run, reweight=[1.0]), "reweight must have shape (24,)"),
        (lambda run: fork_data(run, replace=DATA[0]), "replace must have the shapes of the run's data"),
        (lambda run: fork_data(3), "run must be a Run"),
        (lambda run: fork_data(tw.simulate(tw.Process(lambda x, w: x), 1.0, 2)), "run must be one of tw.processes.sgd"),
        (lambda run: small_fork(run, [1.0]), "change must have shape (24,)"),
        (lambda run: influence(_line, POINTS, jnp.zeros(2), np.ones(4), -1.0), "ridge must be a number >= 0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(ask, sentence, run, as_installed):
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(sentence)):
        ask(run)
