"""The Fisher operator: its three forms agree, with each other and with closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg._conjugate_gradient import conjugate_gradient
from thalweg._fisher import Fisher

RNG = np.random.default_rng(0)
SCORES, WEIGHTS = RNG.normal(size=(9, 4)), RNG.random(9)
VECTOR = RNG.normal(size=4)


def _by_hand(scores, weights, centred):
    weights = weights / weights.sum()
    scores = scores - (weights @ scores if centred else 0)
    return (weights[:, None] * scores).T @ scores


@pytest.mark.parametrize("centred", [True, False])
def test_dense_diagonal_and_products_agree(centred):
    fisher, wanted = Fisher.from_scores(SCORES, WEIGHTS, centred), _by_hand(SCORES, WEIGHTS, centred)
    np.testing.assert_allclose(fisher.dense(), wanted, atol=1e-14)
    np.testing.assert_allclose(fisher.diagonal(), np.diag(wanted), atol=1e-14)
    np.testing.assert_allclose(fisher.matvec(VECTOR), wanted @ VECTOR, atol=1e-14)


@pytest.mark.parametrize("method", ["direct", "cg"])
@pytest.mark.parametrize("samples", [9, 3])  # more, and fewer, than parameters
def test_solve(method, samples):
    fisher = Fisher.from_scores(SCORES[:samples], WEIGHTS[:samples])
    wanted = np.linalg.solve(_by_hand(SCORES[:samples], WEIGHTS[:samples], True) + 0.1 * np.eye(4), VECTOR)
    np.testing.assert_allclose(fisher.solve(VECTOR, 0.1, method), wanted, rtol=1e-9)


def test_a_log_density_that_stores_no_scores():
    """A normal law with parameters (mean, log sd): F = diag(1 / s^2, 2)."""
    params = {"mean": jnp.array(0.3), "log_sd": jnp.array(-0.5)}
    x = 0.3 + np.exp(-0.5) * np.polynomial.hermite_e.hermegauss(20)[0]
    w = np.polynomial.hermite_e.hermegauss(20)[1]

    def log_density(p, x):
        return -((x - p["mean"]) ** 2) * jnp.exp(-2 * p["log_sd"]) / 2 - p["log_sd"]

    wanted = np.diag([2, np.exp(1.0)])  # in the order of ravel_pytree: log_sd, mean
    for centred in (False, True):  # at the true law the scores have mean 0
        fisher = Fisher.of(log_density, params, x, w, centred)
        np.testing.assert_allclose(fisher.dense(), wanted, atol=1e-12)
        np.testing.assert_allclose(fisher.diagonal(), np.diag(wanted), atol=1e-12)
        np.testing.assert_allclose(fisher.solve([1.0, 1.0], 0.0, "cg"), [0.5, np.exp(-1.0)], rtol=1e-9)


def test_it_works_under_jit():
    solve = jax.jit(lambda scores, ridge: Fisher.from_scores(scores).solve(jnp.asarray(VECTOR), ridge))
    np.testing.assert_allclose(solve(SCORES[:3], 0.1), Fisher.from_scores(SCORES[:3]).solve(VECTOR, 0.1), rtol=1e-10)


def test_bad_input():
    good = Fisher.from_scores(SCORES)
    for call, message in [
        (lambda: Fisher.from_scores(VECTOR), r"scores must be numbers of shape \(n, p\)"),
        (lambda: Fisher.from_scores(np.full((2, 2), np.nan)), "scores must be finite"),
        (lambda: Fisher.from_scores(SCORES, -WEIGHTS), "weights must be finite, >= 0"),
        (lambda: Fisher.from_scores(SCORES, [1.0]), r"weights must be numbers of shape \(9,\)"),
        (lambda: good.solve(VECTOR, -1.0), "ridge must be a number >= 0"),
        (lambda: good.solve(VECTOR[:2], 1.0), r"vector must have shape \(4,\)"),
        (lambda: good.solve(VECTOR, 1.0, "guess"), 'method must be "auto", "direct" or "cg"'),
        (lambda: Fisher.of(lambda p, x: p, 1.0, 3.0), "data must be arrays with one leading axis"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(RuntimeError, match="left a residual"):
        good.solve(VECTOR, 1e-9, "cg", iterations=1)


# What the matrix means, on a machine small enough to enumerate.

STATES = jnp.array(list(itertools.product([0.0, 1.0], repeat=4)))


def _rbm(params, v):
    """Log of the unnormalised probability of a 4 x 3 machine."""
    return v @ params["a"] + jnp.sum(jax.nn.softplus(params["b"] + v @ params["W"]))


@pytest.fixture(scope="module")
def machine():
    keys, shapes = jax.random.split(jax.random.key(0), 3), {"a": (4,), "b": (3,), "W": (4, 3)}
    params = {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return params, jax.nn.softmax(jax.vmap(lambda v: _rbm(params, v))(STATES))


def test_it_is_the_curvature_of_the_relative_entropy_and_a_quarter_of_it_the_metric_of_psi(machine):
    params, p = machine
    flat, back = jax.flatten_util.ravel_pytree(params)

    def divergence(other):
        return p @ (jnp.log(p) - jax.nn.log_softmax(jax.vmap(lambda v: _rbm(back(other), v))(STATES)))

    fisher = Fisher.of(_rbm, params, STATES, p, centred=True)
    np.testing.assert_allclose(fisher.dense(), jax.hessian(divergence)(flat), atol=1e-12)
    reconfiguration = Fisher.of(lambda q, v: _rbm(q, v) / 2, params, STATES, p, centred=True)  # psi = sqrt(p)
    np.testing.assert_allclose(4 * reconfiguration.dense(), fisher.dense(), atol=1e-12)


def test_identifiable_means_invertible(machine):
    params, p = machine
    # 16 states carry 15 parameters; this machine has 19.
    assert np.linalg.matrix_rank(Fisher.of(_rbm, params, STATES, p, centred=True).dense(), tol=1e-10) == 15


def test_merging_two_fits_by_their_fishers_gives_the_joint_fit():
    X, y = RNG.normal(size=(30, 4)), RNG.normal(size=30)

    def fit(rows):  # of a Gaussian with sd 1: the Fisher of one datum is x x^T
        fisher = Fisher.from_scores(X[rows], centred=False)
        return np.linalg.lstsq(X[rows], y[rows], rcond=None)[0], len(X[rows]) * np.asarray(fisher.dense())

    (a, A), (b, B) = fit(slice(0, 11)), fit(slice(11, 30))
    np.testing.assert_allclose(np.linalg.solve(A + B, A @ a + B @ b), fit(slice(0, 30))[0], atol=1e-12)


def test_a_solve_that_fails_says_so():
    bent = conjugate_gradient(lambda v: jnp.array([1.0, -1.0]) * v, jnp.ones(2))
    assert bent.status == tw.Status.UNDEFINED and "larger ridge" in bent.message
    scales = jnp.logspace(0, 6, 50)
    short = conjugate_gradient(lambda v: scales * v, jnp.ones(50), iterations=3)
    assert short.status == tw.Status.NOT_CONVERGED and "3 iterations" in short.message
    nothing = conjugate_gradient(lambda v: v, jnp.zeros(2))
    assert nothing.ok and not np.any(nothing.value)
