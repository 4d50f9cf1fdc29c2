"""Tallies of single-sample steps kept as two factors equal those made step by step from the gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.knowledge import Tally

N, STEPS, RATE = 20, 60, 0.05
GROUPS = np.arange(N) % 4 - 1
SHAPES = {"A": (80, 70), "B": (60, 70), "C": (60, 3), "b": (70,), "c": (3,), "scale": ()}


def loss(p, datum):
    """A layer on the datum, one on units and transposed, a small one, and a parameter that is no layer's."""
    h = jnp.tanh(datum["x"] @ p["A"] + p["b"])
    out = jnp.tanh(p["B"] @ h) @ p["C"] + p["c"]
    return jnp.sum((p["scale"] * out - datum["y"]) ** 2) / 2


@pytest.fixture(scope="module")
def trained():
    """A run with many tallies, and each step's change, from the gradients alone."""
    draw = np.random.default_rng(1)
    data = {"x": jnp.asarray(draw.normal(size=(N, 80)) / 9), "y": jnp.asarray(draw.normal(size=(N, 3)))}
    params = {name: jnp.asarray(draw.normal(size=shape) * 0.1 + (name == "scale")) for name, shape in SHAPES.items()}
    weights = 1.0 + np.arange(N) % 3
    weights[7] = 0
    learner = tw.processes.sgd(loss, data, RATE, weights=weights)
    other = tw.processes.sgd(loss, data, 1.01 * RATE, weights=weights)
    folds = {
        "parameter": Tally(GROUPS, learner),
        "unit": Tally(GROUPS, learner, per="unit"),
        "module": Tally(GROUPS, learner, per="module", kinds="absolute"),
        "window": Tally(GROUPS, learner, window=(10, 40), kinds="signed"),
        "column": Tally(GROUPS, learner, where=lambda p: {"A": p["A"][:, 2], "B": p["B"]}, kinds="absolute"),
        "other rate": Tally(GROUPS, other, kinds="absolute"),
    }
    run = tw.simulate(learner, learner.init(params), STEPS, key=3, folds=folds, record=lambda s, w, n: (s.params, w))
    before, w = run.record
    gradients = jax.vmap(lambda p, i: jax.grad(loss)(p, jax.tree.map(lambda leaf: leaf[i], data)))(before, w)
    scale = -RATE * weights[np.asarray(w)]
    changes = {name: np.asarray(g) * scale.reshape(-1, *[1] * (g.ndim - 1)) for name, g in gradients.items()}
    return run, changes, np.asarray(w)


def by_group(changes, w, kind, steps=slice(None)):
    sized = np.abs(changes) if kind == "absolute" else changes
    return np.stack([sized[steps][GROUPS[w[steps]] == group].sum(0) for group in (0, 1, 2, -1)])


def test_it_equals_the_sum_over_steps(trained):
    run, changes, w = trained
    found = run.folds["parameter"]
    assert found.ok and found.conservation <= 1e-12 and int(found.steps) == np.sum(w != 7)
    assert found.counts.tolist() == [np.sum((GROUPS[w] == g) & (w != 7)) for g in range(3)]
    for name in SHAPES:
        for kind in ("absolute", "signed"):
            size = by_group(changes[name], w, "absolute")
            # The parameter that is no layer's is told by its change, to its own rounding.
            slack = 1e-14 if name == "scale" else 0
            off = np.abs(getattr(found, kind)[name] - by_group(changes[name], w, kind))
            assert np.all(off <= 1e-12 * size + slack), (name, kind)
        moved = np.asarray(run.state.params[name]) - np.asarray(run.initial.params[name])
        np.testing.assert_allclose(found.signed[name].sum(0), moved, rtol=1e-9, atol=1e-14)


def test_sums_parts_and_windows(trained):
    run, changes, w = trained
    whole = run.folds["parameter"]
    for kind in ("absolute", "signed"):
        for name in SHAPES:
            expected = getattr(whole.per("unit"), kind)[name]
            np.testing.assert_allclose(getattr(run.folds["unit"], kind)[name], expected, rtol=1e-11, atol=1e-15)
    for name, sums in whole.per("module").absolute.items():
        np.testing.assert_allclose(run.folds["module"].absolute[name], sums, rtol=1e-12)
    inside = by_group(changes["A"], w, "signed", slice(10, 40))
    np.testing.assert_allclose(run.folds["window"].signed["A"], inside, rtol=1e-10, atol=1e-15)
    column = run.folds["column"].absolute
    np.testing.assert_allclose(column["A"], whole.absolute["A"][:, :, 2], rtol=1e-12)
    np.testing.assert_allclose(column["B"], whole.absolute["B"], rtol=1e-12)


def test_another_process_is_told(trained):
    """A rate 1% off: the biases, and one input of each large array a step, show it."""
    assert "the run is not one of the tally's process" in trained[0].folds["other rate"].message


def test_memory_counts_the_log_and_the_table(trained):
    run = trained[0]
    tally = Tally(GROUPS, run.process, kinds="absolute")
    others = sum(int(np.prod(shape)) for name, shape in SHAPES.items() if name != "A")
    # The log (data, units), the table that is read in the end, and twice the other tables.
    assert tally.memory(run.initial) >= 8 * (N * 70 + 4 * 80 * 70 + 2 * 4 * others)
    assert tally.memory(run.initial) <= 8 * (N * 70 + 4 * 80 * 70 + 2 * 4 * others) + 8 * (N * 70 + 600)
    carry = tally.init(run.initial)
    assert carry.kept["absolute"]["A"].shape == (N, 70) and tally.result(carry).absolute["A"].shape == (4, 80, 70)


def test_called_by_hand_from_other_states(trained):
    """Steps shown out of order: the entries remembered from the step before are not compared with another's."""
    run = trained[0]
    learner, tally = run.process, Tally(GROUPS, run.process, kinds="absolute")
    carry = tally.init(run.initial)
    for state in (run.state, run.initial):
        carry = tally.update(carry, state, jnp.asarray(3), learner.step(state, jnp.asarray(3)))
    assert int(carry.tallied) == 2 and float(carry.conservation) <= 1e-12
