"""A user's own process that has `contributions`: tallied as a learner by plain descent, or told that it is none."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.knowledge import Tally

N, B, RATE = 12, 5, 0.1
GROUPS = np.array([0, 1, 2, 0, 1, 2, -1, 0, 0, 1, 2, -1])
DRAW = np.random.default_rng(4)
X, Y = jnp.asarray(DRAW.normal(size=(N, 4))), jnp.asarray(DRAW.normal(size=(N, 3)))
MODEL = tw.systems.perceptron((4, 3), "tanh", "mse")


class Own(NamedTuple):
    """A state of a user's."""

    weights: Any
    age: Any
    momentum: Any


def gradient(state, w, slot_weights=None):
    scales = jnp.ones(len(w)) if slot_weights is None else slot_weights
    loss = lambda p: jnp.mean(scales * jax.vmap(lambda x, y: MODEL.loss(p, (x, y)))(X[w], Y[w]))  # noqa: E731
    return jax.grad(loss)(state.weights)


def process(rate=lambda age, gradient: RATE, momentum=0.0, noise=None, contributions=gradient):
    def step(state, w):
        slope = gradient(state, w)
        held = jax.tree.map(lambda m, g: momentum * m + g, state.momentum, slope)
        size = rate(state.age, slope)
        return Own(jax.tree.map(lambda p, m: p - size * m, state.weights, held), state.age + 1, held)

    law = tw.noise.Choice(N, shape=B) if noise is None else noise
    return tw.Process(step, law, coordinates=lambda s: s.weights, contributions=contributions)


def start():
    params = MODEL.init(1)
    return Own(params, jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))


def tallied(process, state, steps=9, **how):
    return tw.simulate(process, state, steps, key=3, folds={"t": Tally(GROUPS, process, **how)})


@pytest.mark.parametrize("how", [{}, {"every": 3, "per": "unit"}, {"where": lambda p: p["W1"], "window": (2, 8)}])
def test_plain_descent_of_ones_own_is_tallied_as_that_of_the_library(how):
    own, learner = process(), tw.processes.sgd(MODEL.loss, (X, Y), RATE, batch_size=B)
    mine, theirs = (
        tallied(p, state, **how).folds["t"] for p, state in ((own, start()), (learner, learner.init(MODEL.init(1))))
    )
    assert mine.ok and theirs.ok
    assert np.array_equal(mine.counts, theirs.counts) and int(mine.steps) == int(theirs.steps)
    for a, b in zip(
        jax.tree.leaves((mine.absolute, mine.signed)), jax.tree.leaves((theirs.absolute, theirs.signed)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-15)


def test_a_schedule_and_clipping_by_the_norm_are_numbers_that_the_step_tells():
    def rate(age, slope):
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(slope)))
        return RATE / (1 + age) * jnp.minimum(1, 0.3 / norm)

    run = tallied(process(rate), start())
    found, went = run.folds["t"], jax.tree.map(jnp.subtract, run.state.weights, MODEL.init(1))
    assert found.ok and float(found.conservation) < 1e-12
    for rows, change in zip(jax.tree.leaves(found.signed), jax.tree.leaves(went), strict=True):
        np.testing.assert_allclose(jnp.sum(rows, axis=0), change, rtol=1e-10, atol=1e-14)
        assert np.all(np.max(np.abs(rows), axis=tuple(range(1, rows.ndim))) > 0)  # each group, and those of none


def test_a_step_that_is_something_else_is_told_not_to_be_trusted():
    found = tallied(process(momentum=0.9), start()).folds["t"]
    assert not found.ok and "miss the change of the parameters" in found.message


def test_a_state_that_has_params_or_is_them():
    class Holder(NamedTuple):
        params: Any

    def slope(p, w, slot_weights=None):
        return gradient(Own(p, 0, 0), w, slot_weights)

    down = lambda p, g: jax.tree.map(lambda a, b: a - RATE * b, p, g)  # noqa: E731
    law = tw.noise.Choice(N, shape=B)
    bare = tw.Process(lambda p, w: down(p, slope(p, w)), law, contributions=slope)
    held = tw.Process(
        lambda s, w: Holder(down(s.params, slope(s.params, w))),
        law,
        contributions=lambda s, w, slot_weights=None: slope(s.params, w, slot_weights),
    )
    a, b, c = (
        tallied(p, state).folds["t"]
        for p, state in ((bare, MODEL.init(1)), (held, Holder(MODEL.init(1))), (process(), start()))
    )
    assert a.ok and b.ok
    for one in (a, b):
        np.testing.assert_allclose(one.absolute["W1"], c.absolute["W1"], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Tally(GROUPS, process(noise=tw.noise.Normal((3,)))), "process must draw the numbers of its data"),
        (lambda: Tally(GROUPS, process(noise=tw.noise.Choice(7, shape=B))), "groups must have length 7"),
        (lambda: Tally(GROUPS, tw.clamp(process(), lambda s: s.age)), "not clamped"),
        (lambda: Tally(GROUPS, process(contributions=None)), "or have contributions"),
        (
            lambda: tallied(process(contributions=lambda s, w, slot_weights=None: gradient(s, w)["W1"]), start()),
            "must give a gradient shaped like the parameters",
        ),
    ],
)
def test_what_cannot_be_tallied_is_refused_in_a_sentence(make, sentence, as_installed):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_machine_in_training_is_refused_in_a_sentence():
    data = np.array([[0, 0], [1, 1]])
    training = tw.energy.training(tw.energy.RBM.start(data, 2, key=0), data, "exact")
    with pytest.raises(ValueError, match="process must draw the numbers of its data"):
        Tally(np.array([0, 1]), training)
