"""Tallies of batches whose factors are kept for a few steps equal those made step by step from the gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.knowledge import Tally, _blocked, _rows

N, B, STEPS, RATE = 24, 12, 21, 0.05
GROUPS = np.arange(N) % 4 - 1
SHAPES = {"A": (83, 60), "B": (70, 60), "c": (70,), "scale": ()}


def loss(p, datum):
    """A layer on the datum, one that is transposed and has rows of its own, a bias, and what is no layer's."""
    h = jnp.tanh(datum["x"] @ p["A"])  # (2 rows, 60)
    out = jnp.tanh(jnp.einsum("ri,oi->ro", h, p["B"]) + p["c"])
    return jnp.sum((p["scale"] * out - datum["y"]) ** 2) / 2


@pytest.fixture(scope="module", autouse=True)
def small_tiles():
    """Tiles of a few rows: several of them to each layer, and one that reaches beyond the last row of A.

    Of the small arrays the bias is divided tile by tile, the number at once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "TILE", 2**13)
        patch.setattr(_rows, "AT_ONCE", 100)
        yield


def problem():
    """(data, parameters, weights of the data)"""
    draw = np.random.default_rng(1)
    data = {"x": jnp.asarray(draw.normal(size=(N, 2, 83)) / 9), "y": jnp.asarray(draw.normal(size=(N, 70)))}
    params = {name: jnp.asarray(draw.normal(size=shape) * 0.1 + (name == "scale")) for name, shape in SHAPES.items()}
    weights = 1.0 + np.arange(N) % 3
    weights[7] = 0
    return data, params, jnp.asarray(weights)


def gradients(data, weights, p, batch):
    """The gradient of each group (and of no group) at every step."""
    at = lambda i: jax.tree.map(lambda leaf: leaf[i], data)  # noqa: E731

    def by_group(p, batch):
        parts = jax.vmap(lambda i: jax.tree.map(lambda g: weights[i] / B * g, jax.grad(loss)(p, at(i))))(batch)
        mine = jnp.asarray(GROUPS)[batch] == jnp.array([0, 1, 2, -1])[:, None]
        return jax.tree.map(lambda part: jnp.tensordot(mine.astype(float), part, 1), parts)

    return {name: np.asarray(leaf) for name, leaf in jax.jit(jax.vmap(by_group))(p, batch).items()}


@pytest.fixture(scope="module")
def trained():
    """A run with many tallies, and each step's change by group, from the gradients alone."""
    data, params, weights = problem()
    learner = tw.processes.sgd(loss, data, RATE, batch_size=B, weights=weights)
    other = tw.processes.sgd(loss, data, 1.01 * RATE, batch_size=B, weights=weights)
    folds = {
        "parameter": Tally(GROUPS, learner),
        "every third": Tally(GROUPS, learner, every=3),
        "other rate": Tally(GROUPS, other, kinds="absolute", where=lambda p: p["A"], per="unit"),
    }
    run = tw.simulate(learner, learner.init(params), STEPS, key=3, folds=folds, record=lambda s, w, n: (s.params, w))
    slopes = gradients(data, weights, *run.record)
    return run, {name: -RATE * slope for name, slope in slopes.items()}


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
    expected = 1.01 * run.folds["parameter"].per("unit").absolute["A"]
    np.testing.assert_allclose(run.folds["other rate"].absolute, expected, rtol=1e-11, atol=1e-15)


def test_another_process_is_told(trained):
    """A rate 1% off, where the one array that is tallied is kept as factors, for the last steps too."""
    found = trained[0].folds["other rate"]
    assert "the run is not one of the tally's process" in found.message and 0.005 < found.conservation < 0.02


def test_the_last_rows_are_checked_too():
    """The last input, in the tile that reaches beyond A, is half as large again in the data of the tally's process."""
    data, params, weights = problem()
    params = params | {"A": params["A"].at[-1].set(0)}  # so that this hardly changes what comes out
    learner, other = (
        tw.processes.sgd(loss, one, 1e-6, batch_size=B, weights=weights)
        for one in (data, data | {"x": data["x"].at[..., -1].multiply(1.5)})
    )
    fold = Tally(GROUPS, other, kinds="absolute", where=lambda p: p["A"])
    array = fold.init(learner.init(params)).blocked.plan.arrays[0]
    assert array.tiles.rows > array.shape[0]
    run = tw.simulate(learner, learner.init(params), 120, key=3, folds={"t": fold})
    assert run.folds["t"].conservation == pytest.approx(1 / 3, rel=0.05)


def test_it_is_these_steps_that_are_kept(trained):
    """Both layers, for several steps; the run ends with some of them not yet added."""
    run = trained[0]
    plan = Tally(GROUPS, run.process).init(run.initial).blocked.plan
    assert 0 in plan and 1 in plan and 2 not in plan
    assert 1 < plan.steps <= _blocked.STEPS and STEPS % plan.steps
    assert not Tally(np.arange(N), tw.processes.sgd(loss, run.process.step.data, RATE)).init(run.initial).blocked


def test_on_an_accelerator_each_step_is_divided_in_one_piece_to_the_same_tallies(trained, monkeypatch):
    run, _ = trained
    monkeypatch.setattr(_rows, "on_cpu", lambda: False)
    fold = Tally(GROUPS, run.process)
    assert not fold.init(run.initial).blocked
    found = tw.simulate(run.process, run.initial, STEPS, key=3, folds={"t": fold}).folds["t"]
    assert found.ok and found.conservation <= 1e-12
    pairs = zip(*(jax.tree.leaves((one.absolute, one.signed)) for one in (found, run.folds["parameter"])), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_momenta_are_carried_through_the_steps_that_are_kept(monkeypatch):
    """AdamW, by hand: each group has its momentum and all share the scale; decay and its momentum are nobody's."""
    data, params, weights = problem()
    monkeypatch.setattr(_blocked, "MOST", 2)  # room for several steps, though there are few groups
    rate, decay, first, second, least = 0.01, 0.1, 0.9, 0.999, 1e-8
    learner = tw.processes.sgd(loss, data, optax.adamw(rate, weight_decay=decay), batch_size=B, weights=weights)
    folds = {every: Tally(GROUPS, learner, every=every) for every in (1, 3)}
    start = learner.init(params)
    for every, fold in folds.items():
        plan = fold.init(start).blocked.plan
        assert 0 in plan and 1 in plan and plan.steps > 1 and STEPS // every % plan.steps
    found = tw.simulate(
        learner, start, STEPS, key=3, folds={str(e): t for e, t in folds.items()}, record=lambda s, w, n: (s.params, w)
    )
    parts = gradients(data, weights, *found.record)
    drawn = np.asarray(found.record[1])
    assert found.folds["1"].counts.sum() == np.sum((drawn != 7) & (GROUPS[drawn] >= 0))
    for every, name in itertools.product(folds, SHAPES):
        tallied = found.folds[str(every)]
        assert tallied.ok and tallied.conservation <= 1e-12
        m, v = np.zeros((4, *SHAPES[name])), np.zeros(SHAPES[name])
        size, total = np.zeros_like(m), np.zeros_like(m)
        for t, slope in enumerate(parts[name], 1):
            chosen = t % every == 0
            v = second * v + (1 - second) * slope.sum(0) ** 2
            # In between, what comes in is nobody's.
            entered = slope if chosen else np.stack([*np.zeros_like(slope[:3]), slope.sum(0)])
            m = first * m + (1 - first) * entered
            change = -rate * m / (1 - first**t) / (np.sqrt(v / (1 - second**t)) + least)
            change[3] -= rate * decay * np.asarray(found.record[0][name][t - 1])
            size, total = size + chosen * np.abs(change), total + chosen * change
        np.testing.assert_allclose(tallied.absolute[name], size, rtol=1e-8, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(tallied.signed[name], total, rtol=1e-8, atol=1e-11 * size.max(), err_msg=name)
