"""Tallies of batches whose factors are kept for a few steps equal those made step by step from the gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.knowledge import Tally, _blocked

N, B, STEPS, RATE = 24, 12, 21, 0.05
GROUPS = np.arange(N) % 4 - 1
SHAPES = {"A": (80, 60), "B": (70, 60), "c": (70,), "scale": ()}


def loss(p, datum):
    """A layer on the datum, one that is transposed and has rows of its own, a bias, and what is no layer's."""
    h = jnp.tanh(datum["x"] @ p["A"])  # (2 rows, 60)
    out = jnp.tanh(jnp.einsum("ri,oi->ro", h, p["B"]) + p["c"])
    return jnp.sum((p["scale"] * out - datum["y"]) ** 2) / 2


@pytest.fixture(scope="module")
def trained():
    """A run with many tallies, and each step's change by group, from the gradients alone."""
    draw = np.random.default_rng(1)
    data = {"x": jnp.asarray(draw.normal(size=(N, 2, 80)) / 9), "y": jnp.asarray(draw.normal(size=(N, 70)))}
    params = {name: jnp.asarray(draw.normal(size=shape) * 0.1 + (name == "scale")) for name, shape in SHAPES.items()}
    weights = 1.0 + np.arange(N) % 3
    weights[7] = 0
    learner = tw.processes.sgd(loss, data, RATE, batch_size=B, weights=weights)
    other = tw.processes.sgd(loss, data, 1.01 * RATE, batch_size=B, weights=weights)
    folds = {
        "parameter": Tally(GROUPS, learner),
        "unit": Tally(GROUPS, learner, per="unit", kinds="absolute"),
        "every third": Tally(GROUPS, learner, every=3),
        "other rate": Tally(GROUPS, other, kinds="absolute", where=lambda p: p["A"]),
    }
    run = tw.simulate(learner, learner.init(params), STEPS, key=3, folds=folds, record=lambda s, w, n: (s.params, w))
    before, w = run.record

    def by_group(p, batch):
        one = lambda i: jax.tree.map(lambda g: -RATE / B * weights_[i] * g, jax.grad(loss)(p, at(i)))  # noqa: E731
        at = lambda i: jax.tree.map(lambda leaf: leaf[i], data)  # noqa: E731
        changes = jax.vmap(one)(batch)
        mine = jnp.asarray(GROUPS)[batch] == jnp.array([0, 1, 2, -1])[:, None]
        return jax.tree.map(lambda c: jnp.tensordot(mine.astype(float), c, 1), changes)

    weights_ = jnp.asarray(weights)
    return run, {name: np.asarray(leaf) for name, leaf in jax.vmap(by_group)(before, w).items()}


def test_they_equal_the_sums_over_steps(trained):
    run, changes = trained
    for fold, steps in (("parameter", slice(None)), ("every third", slice(2, None, 3))):
        found = run.folds[fold]
        assert found.ok and found.conservation <= 1e-12 and int(found.steps) == len(changes["A"][steps])
        for name in SHAPES:
            size = np.abs(changes[name][steps]).sum(0)
            assert np.all(np.abs(found.absolute[name] - size) <= 1e-11 * size.max()), (fold, name)
            assert np.all(np.abs(found.signed[name] - changes[name][steps].sum(0)) <= 1e-11 * size.max()), (fold, name)
    for name in SHAPES:
        moved = np.asarray(run.state.params[name]) - np.asarray(run.initial.params[name])
        np.testing.assert_allclose(run.folds["parameter"].signed[name].sum(0), moved, rtol=1e-9, atol=1e-13)


def test_sums_over_inputs(trained):
    run, _ = trained
    expected = run.folds["parameter"].per("unit").absolute
    for name in SHAPES:
        np.testing.assert_allclose(run.folds["unit"].absolute[name], expected[name], rtol=1e-11, atol=1e-15)


def test_another_process_is_told(trained):
    """A rate 1% off, where the one array that is tallied is kept as factors, for the last steps too."""
    found = trained[0].folds["other rate"]
    assert "the run is not one of the tally's process" in found.message and 0.005 < found.conservation < 0.02


def test_it_is_these_steps_that_are_kept(trained):
    """Both layers, for several steps; the run ends with some of them not yet added."""
    run = trained[0]
    kept = Tally(GROUPS, run.process).init(run.initial).blocked
    assert kept.plan.arrays == (0, 1) and 1 < kept.plan.steps <= _blocked.STEPS and STEPS % kept.plan.steps
    assert not Tally(np.arange(N), tw.processes.sgd(loss, run.process.step.data, RATE)).init(run.initial).blocked
