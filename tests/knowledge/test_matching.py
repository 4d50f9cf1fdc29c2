"""Matching units: a planted permutation comes back whole, sizes may differ, and dead units have no match."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.knowledge import match_units, name_units, profiles

DIGITS = tw.systems.digits().split(0.25, seed=3)[0]
DATA = (jnp.asarray(DIGITS.images), jnp.asarray(DIGITS.labels))
RNG = np.random.default_rng(0)


def _trained(model, start, key, steps=450, tally=True):
    learner = tw.processes.sgd(model.loss, DATA, 0.05, order="shuffle")
    folds = {"by datum": tw.knowledge.Tally(np.arange(len(DATA[1])), where=lambda p: p["b1"])} if tally else None
    return tw.simulate(learner, learner.init(start), steps, key=key, folds=folds)


@pytest.fixture(scope="module")
def planted():
    """Two runs from one start, the second with its units permuted and the data in another order."""
    model = tw.systems.perceptron((64, 20, 10), "softplus", "xent")
    start, order = model.init(1), RNG.permutation(20)
    permuted = {"W1": start["W1"][:, order], "b1": start["b1"][order], "W2": start["W2"][order], "b2": start["b2"]}
    return model, _trained(model, start, 5), _trained(model, permuted, 6), order


@pytest.mark.parametrize("kind", ["update", "activation", "gradient"])
def test_a_planted_permutation_comes_back_whole(planted, kind):
    model, one, other, order = planted
    match = match_units(profiles(model, one, kind), profiles(model, other, kind), permutations=99)
    assert match.ok and match.p == 0.01
    np.testing.assert_array_equal(match.assignment[np.argsort(match.assignment[:, 1]), 0], order)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["softplus", "relu", "gelu", "tanh", "sigmoid"])
@pytest.mark.parametrize(("units", "epochs"), [(20, 1), (64, 2), (40, 10)])
def test_for_every_activation_size_and_length(activation, units, epochs):
    model = tw.systems.perceptron((64, units, 10), activation, "xent")
    start, order = model.init(units), np.random.default_rng(units).permutation(units)
    permuted = {"W1": start["W1"][:, order], "b1": start["b1"][order], "W2": start["W2"][order], "b2": start["b2"]}
    runs = [_trained(model, begin, key, epochs * len(DATA[1])) for begin, key in ((start, 5), (permuted, 6))]
    match = match_units(*(profiles(model, run) for run in runs), permutations=0)
    if activation == "relu":  # a unit that is dead has no profile, and one that hardly fires none that repeats
        a, b = match.assignment.T
        assert len(a) == units - max(match.undefined) and np.mean(order[b] == a) >= 0.9
    else:
        np.testing.assert_array_equal(match.assignment[np.argsort(match.assignment[:, 1]), 0], order)


def test_updates_are_those_of_a_tally(planted):
    model, one, _, _ = planted
    counted = one.folds["by datum"].absolute
    np.testing.assert_allclose(profiles(model, one), counted[:-1], rtol=1e-9, atol=1e-15)
    # Some other table of this shape among the folds is not taken for the profile.
    late = dataclasses.replace(one.folds["by datum"], absolute=counted[::-1])
    other = eqx.tree_at(lambda run: run.folds, one, {"by datum": late})
    np.testing.assert_allclose(profiles(model, other), counted[:-1], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("optimizer", "batch"), [(0.1, 3), (optax.sgd(0.1, momentum=0.9), 1)])
def test_updates_in_batches_and_with_momentum_are_each_datums_own(optimizer, batch):
    model = tw.systems.perceptron((3, 4, 2))
    x, y = jnp.asarray(RNG.normal(size=(7, 3))), jnp.asarray(RNG.random((7, 2)))
    learner = tw.processes.sgd(model.loss, (x, y), optimizer, batch_size=batch)
    run = tw.simulate(learner, learner.init(model.init(0)), 9, key=1, record=lambda state, w, after: (state.params, w))
    expected, momenta = np.zeros((7, 4)), np.zeros((7, 4))
    for i in range(9):
        params, drawn = jax.tree.map(lambda leaf, i=i: leaf[i], run.record)
        gradients = jax.vmap(jax.grad(model.loss), (None, 0))(params, (x, y))["b1"] / batch
        visits = np.bincount(np.atleast_1d(drawn), minlength=7)[:, None]
        momenta = visits * np.asarray(gradients) + (0.9 * momenta if batch == 1 else 0)
        expected += 0.1 * abs(momenta)
    np.testing.assert_allclose(profiles(model, run), expected, rtol=1e-9, atol=1e-14)


def test_gradients_and_ablation_of_a_network_by_hand(planted):
    model, one, _, _ = planted
    params = one.state.params
    x, y = DATA[0][:7], DATA[1][:7]
    held = profiles(model, one, "ablation", data=(x, y))
    mean = np.asarray(model.hidden(params, DATA[0])).mean(0)
    hidden = np.asarray(model.hidden(params, x))

    def losses(hidden):
        z = hidden @ params["W2"] + params["b2"]
        return -jax.nn.log_softmax(z)[np.arange(7), y]

    for unit in (0, 13):
        without = hidden.copy()
        without[:, unit] = mean[unit]
        np.testing.assert_allclose(held[:, unit], losses(without) - losses(hidden), atol=1e-12)
    slope = profiles(model, (params, (x, y)), "activation_gradient")
    step = 1e-6
    scaled = hidden * (1 + step * (np.arange(20) == 4))
    np.testing.assert_allclose(slope[:, 4], (losses(scaled) - losses(hidden)) / step, atol=1e-5)


def test_networks_of_different_sizes_and_units_without_a_profile():
    small = RNG.random((60, 5))
    large = np.concatenate([small[:, [3, 1, 4]] + 0.05 * RNG.random((60, 3)), np.ones((60, 1)), small], axis=1)
    match = match_units(small, large, key=0)
    assert match.similarity.shape == (5, 9) and match.undefined == (0, 1)
    assert match.best.tolist() == [3, 1, 4, -1, 0, 1, 2, 3, 4]
    assert len(match.assignment) == 5 and len(set(match.assignment[:, 1])) == 5
    np.testing.assert_array_equal(match.assignment[:, 1], [4, 5, 6, 7, 8])
    assert match.top(2)[0].tolist()[0] == 3 and match.top(2)[3].tolist() == [-1, -1]
    nothing = match_units(np.ones((60, 2)), large)
    assert not nothing.ok and np.isnan(nothing.p) and np.all(nothing.best == -1)


def test_unrelated_profiles_are_at_chance():
    p = [match_units(RNG.random((40, 6)), RNG.random((40, 4)), permutations=39, key=i).p for i in range(200)]
    assert abs(np.mean(p) - 0.5) < 4 * np.sqrt(1 / 12 / 200)


def test_names_are_carried_over_with_chance_and_ceiling():
    labels = np.arange(90) % 3
    serves = RNG.integers(0, 3, 12)
    rises = (labels[:, None] == serves) + 0.1 * RNG.random((90, 12))
    match = match_units(rises, rises, permutations=0)
    naming = name_units(match, rises, rises, labels)
    assert naming.top1 == naming.ceiling == 1
    np.testing.assert_array_equal(naming.truth, serves)
    share = np.bincount(serves, minlength=3) / 12
    assert naming.chance == pytest.approx(share @ share)
    noise = name_units(match, rises, RNG.normal(size=(90, 12)), labels)
    assert noise.top1 < 0.9 and noise.ceiling < 0.9


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: match_units(np.ones((4, 2)), np.ones((5, 2))), "a and b must have a row for each of the same data"),
        (lambda: match_units(np.ones(4), np.ones((4, 2))), "a must have shape (data, units)"),
        (lambda: match_units(np.ones((4, 2)), np.full((4, 2), np.nan)), "b must be finite"),
        (lambda: match_units(np.eye(4), np.eye(4)).top(5), "k must be a whole number from 1 to 4, got 5"),
        (lambda: profiles(3, (1, 2), "updates"), 'kind must be "update", "activation"'),
        (lambda: profiles(3, (1, 2), "update"), "run_or_data must be a Run (updates are history)"),
        (lambda: profiles(3, (1, DATA), "activation"), "model.hidden must be a function of (params, x), got None"),
        (
            lambda: profiles(3, (1, DATA), "gradient", data=(DATA[0][:, :3], DATA[1])),
            "data must be n inputs of shape (64",
        ),
        (
            lambda: profiles(3, (1, (DATA[0], DATA[1][:5])), "gradient"),
            "data must be n inputs of shape (64,) and n targ",
        ),
        (lambda: profiles(3, (1, DATA), "gradient"), "model.loss must be a function of (params, datum), got None"),
        (lambda: name_units(match_units(np.eye(4), np.eye(4)), np.eye(3), np.eye(4), [0, 1, 2]), "small must have a"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(ask, sentence, as_installed):
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(sentence)):
        ask()
