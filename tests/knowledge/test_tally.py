"""Tallies: conserved to rounding, equal to hand-made splits, through every optimizer that splits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.knowledge import Tally, attribution

OPTIMIZERS = {
    "rate": 0.1,
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, 0.9),
    "nesterov": optax.sgd(optax.linear_schedule(0.1, 0.01, 20), 0.8, nesterov=True),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "nadam": optax.nadam(0.01),
    "clipped adam": optax.chain(optax.clip_by_global_norm(0.3), optax.adam(0.01)),
    "clipped sgd": optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(0.1, 0.9)),
    "clipped by entry": optax.chain(optax.clip(0.05), optax.sgd(0.1, 0.9)),
    "decay in momentum": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, 0.9)),
    "rmsprop": optax.rmsprop(0.01, momentum=0.5),
    "masked": optax.chain(optax.masked(optax.add_decayed_weights(0.1), {"W1": True, "b1": False}), optax.adam(0.01)),
    "accumulated": optax.MultiSteps(optax.sgd(0.1, 0.9), 3, accumulator_dtype=jnp.float64),
    "parts": optax.partition({"a": optax.adam(0.01), "s": optax.sgd(0.1)}, {"W1": "a", "b1": "s"}),
}
REFUSED = {
    "lion": optax.lion(0.1),
    "sign": optax.sign_sgd(0.1),
    "lamb": optax.lamb(0.1),
    "adafactor": optax.adafactor(0.1),
    "centralize": optax.chain(optax.centralize(), optax.sgd(0.1)),
}
QUICK = ("rate", "nesterov", "clipped adam", "decay in momentum")  # the others compile for long


def some(*names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


N, B = 12, 6
GROUPS = np.array([0, 1, 2, 0, 1, 2, -1, 0, 0, 1, 2, -1])


@pytest.fixture(scope="module")
def problem():
    draw = np.random.default_rng(3)
    model = tw.systems.perceptron((4, 3), "tanh", "mse")
    data = (jnp.asarray(draw.normal(size=(N, 4))), jnp.asarray(draw.normal(size=(N, 3))))
    return model, data, model.init(1)


def learn(problem, optimizer, steps=7, batch=B, order="replacement", **how):
    model, data, params = problem
    learner = tw.processes.sgd(model.loss, data, optimizer, batch_size=batch, order=order)
    run = tw.simulate(learner, learner.init(params), steps, key=5, folds={"tally": Tally(GROUPS, learner, **how)})
    return run, run.folds["tally"]


# x -> t, f = w.x, half squares, both data in every batch, 3 steps of 0.1.
ANSWERS = {
    "sgd": (optax.sgd(0.1), [[0.11575, 0.2315], [-0.016875, 0.005625]]),
    "momentum": (optax.sgd(0.1, 0.9), [[0.22375, 0.4475], [-0.030375, 0.010125]]),
    "adam": (optax.adam(0.1), [[0.32313532, 0.27770086], [-0.12900976, 0.01722425]]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_known_answers(name):
    optimizer, signed = ANSWERS[name]
    data = (jnp.array([[1.0, 2.0], [3.0, -1.0]]), jnp.array([1.0, 0.0]))
    learner = tw.processes.sgd(lambda p, d: (p @ d[0] - d[1]) ** 2 / 2, data, optimizer, batch_size=2, order="subset")
    tally = Tally(np.array([0, 1]), learner)
    found = tw.simulate(learner, learner.init(jnp.zeros(2)), 3, key=0, folds={"t": tally}).folds["t"]
    np.testing.assert_allclose(found.signed[:2], signed, atol=6e-9)
    np.testing.assert_allclose(found.absolute[:2], np.abs(signed), atol=6e-9)
    assert np.all(found.signed[2] == 0)
    assert (found.counts.tolist(), int(found.steps), found.ok) == ([3, 3], 3, True)


@pytest.mark.parametrize("name", some(*OPTIMIZERS))
def test_the_parts_sum_to_the_change(problem, name):
    run, found = learn(problem, OPTIMIZERS[name])
    assert found.conservation <= 1e-12
    for key, start in problem[2].items():
        size = np.sum(found.absolute[key], axis=0)
        assert np.all(
            np.abs(np.sum(found.signed[key], axis=0) - (run.state.params[key] - start)) <= 1e-12 * size + 1e-14
        )
        assert np.all(np.abs(found.signed[key]) <= found.absolute[key] * (1 + 1e-12))


@pytest.mark.parametrize("name", some("nesterov", "adamw", "clipped adam", "momentum"))
def test_a_loop_of_ones_own_gives_the_same_parts(problem, name):
    """`attribution` in a hand-written loop, with gradients made group by group; and the update is optax's own."""
    model, data, params = problem
    optimizer = OPTIMIZERS[name]
    run, found = learn(problem, optimizer)
    learner, rule = run.process, attribution(optimizer, groups=3)
    s, opt_state, signed = rule.init(params), optimizer.init(params), 0.0
    one = jax.jit(jax.grad(model.loss))
    for i in range(7):
        w = learner.noise.sample(run.key, i)
        parts = [jax.tree.map(jnp.zeros_like, params) for _ in range(4)]
        for datum in np.asarray(w):
            g = one(params, (data[0][datum], data[1][datum]))
            at = GROUPS[datum]
            parts[at] = jax.tree.map(lambda a, b: a + b / B, parts[at], g)
        gradients = jax.tree.map(lambda *rows: jnp.stack(rows), *parts)
        update, rows, s = rule.update(gradients, s, params)
        own, opt_state = optimizer.update(jax.tree.map(lambda g: g.sum(0), gradients), opt_state, params)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(update), jax.tree.leaves(own), strict=True))
        params = optax.apply_updates(params, update)
        signed = jax.tree.map(lambda total, row: total + row, signed, rows) if i else rows
    for key in params:
        np.testing.assert_allclose(signed[key], found.signed[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_an_optimizer_that_does_not_split_is_refused(problem, name):
    with pytest.raises(ValueError, match=r"^optimizer cannot be tallied: .*known (is|are)"):
        learn(problem, REFUSED[name])
    with pytest.raises(ValueError, match=r"^optimizer cannot"):
        attribution(REFUSED[name], groups=2).init(problem[2])


@pytest.mark.parametrize("name", some("nesterov", "adamw"))
def test_steps_in_between_count_as_other(problem, name):
    """Every third step, or a window: still conserved, and the groups' parts are those of their own gradients only."""
    run, _ = learn(problem, OPTIMIZERS[name], steps=9, kinds="signed")
    history = tw.simulate(run.process, run.initial, 9, key=5, record=lambda s, w, n: (s.params, n.params)).record
    change = jax.tree.map(lambda a, b: b - a, *history)
    for how, steps in (
        ({"every": 3}, [2, 5, 8]),
        ({"window": (4, 7)}, [4, 5, 6]),
        ({"window": np.arange(9) % 2 == 1}, [1, 3, 5, 7]),
    ):
        found = learn(problem, OPTIMIZERS[name], steps=9, **how)[1]
        assert found.conservation <= 1e-12 and int(found.steps) == len(steps)
        for key in change:
            np.testing.assert_allclose(
                found.signed[key].sum(0), change[key][np.array(steps)].sum(0), rtol=1e-9, atol=1e-13
            )
    # Without memory, a window is a part of the whole.
    parts = [learn(problem, 0.1, steps=9, window=window)[1].absolute["W1"] for window in ((0, 4), (4, 9))]
    np.testing.assert_allclose(parts[0] + parts[1], learn(problem, 0.1, steps=9)[1].absolute["W1"], rtol=1e-12)


def test_one_datum_a_step(problem):
    """The whole step is its datum's: with the process and without it."""
    model, data, params = problem
    learner = tw.processes.sgd(model.loss, data, 0.1)
    folds = {"split": Tally(GROUPS, learner), "whole": Tally(GROUPS)}
    run = tw.simulate(learner, learner.init(params), 20, key=2, folds=folds, record=lambda s, w, n: (w, n.params["W1"]))
    split, whole = run.folds["split"], run.folds["whole"]
    w, after = run.record
    moved = np.abs(np.diff(np.concatenate([params["W1"][None], after]), axis=0))
    by_hand = [moved[GROUPS[w] == g].sum(0) for g in (0, 1, 2, -1)]
    np.testing.assert_allclose(whole.absolute["W1"], by_hand, rtol=1e-12)
    np.testing.assert_allclose(split.absolute["W1"], by_hand, rtol=1e-9, atol=1e-15)
    assert split.counts.tolist() == whole.counts.tolist() == [int(np.sum(GROUPS[w] == g)) for g in (0, 1, 2)]


def test_a_part_of_the_parameters_and_sums_over_them(problem):
    whole = learn(problem, OPTIMIZERS["clipped adam"])[1]
    part = learn(problem, OPTIMIZERS["clipped adam"], where=lambda p: p["W1"][:, 1], kinds="absolute")[1]
    assert part.signed is None
    np.testing.assert_allclose(part.absolute, whole.absolute["W1"][:, :, 1], rtol=1e-12)
    for per in ("unit", "module"):
        summed = learn(problem, OPTIMIZERS["clipped adam"], per=per)[1]
        expected = whole.per(per)
        for kind in ("absolute", "signed"):
            for key, leaf in getattr(summed, kind).items():
                np.testing.assert_allclose(leaf, getattr(expected, kind)[key], rtol=1e-12, atol=1e-18)
    assert whole.per("unit").absolute["W1"].shape == (4, 3) and whole.per("module").absolute["b1"].shape == (4,)


def test_members_of_an_ensemble_are_tallied_each(problem):
    model, data, params = problem
    learner = tw.processes.sgd(model.loss, data, 0.1, batch_size=B)
    states = tw.stack([learner.init(params), learner.init(model.init(2))])
    runs = tw.ensemble(learner, states, 7, key=5, folds={"tally": Tally(GROUPS, learner)})
    one = tw.simulate(
        learner,
        learner.init(model.init(2)),
        7,
        key=jax.random.fold_in(jax.random.key(5), 1),
        folds={"tally": Tally(GROUPS, learner)},
    )
    np.testing.assert_allclose(runs.folds["tally"].absolute["W1"][1], one.folds["tally"].absolute["W1"], rtol=1e-12)
    assert runs.folds["tally"].share(0, (1, 2))["W1"].shape == (2, 4, 3)


def test_data_left_out_are_not_counted(problem):
    """A batch of total weight 0 is no step, and moves no momentum."""
    model, data, params = problem
    weights = np.where(np.arange(N) < 6, 0.0, 1.0)
    learner = tw.processes.sgd(model.loss, data, optax.sgd(0.1, 0.9), weights=weights)
    run = tw.simulate(
        learner, learner.init(params), 15, key=0, folds={"t": Tally(GROUPS, learner)}, record=lambda s, w, n: w
    )
    found = run.folds["t"]
    assert found.conservation <= 1e-12
    assert int(found.steps) == int(np.sum(run.record >= 6))
    assert found.counts.tolist() == [int(np.sum((run.record >= 6) & (GROUPS[run.record] == g))) for g in range(3)]


def test_a_tally_of_another_process_is_told(problem):
    model, data, params = problem
    learner, other = (tw.processes.sgd(model.loss, data, rate, batch_size=B) for rate in (0.1, 0.2))
    found = tw.simulate(learner, learner.init(params), 3, key=5, folds={"t": Tally(GROUPS, other)}).folds["t"]
    assert not found.ok and "the run is not one of the tally's process" in found.message
    never = tw.simulate(learner, learner.init(params), 1, key=5, folds={"t": Tally(np.arange(N), learner)}).folds["t"]
    assert "was never drawn in the 1 steps" in never.message


def test_the_result_has_labels(problem, tmp_path):
    found = learn(problem, 0.1)[1]
    dataset = found.to_xarray()
    assert dataset["absolute.W1"].dims == ("group", "W1.0", "W1.1")
    assert dataset.group.values.tolist() == ["0", "1", "2", "other"]
    tw.save(found, tmp_path / "tally.nc")
    np.testing.assert_array_equal(tw.load(tmp_path / "tally.nc")["signed.b1"], found.signed["b1"])
    share = found.share(0, 1)["W1"]
    np.testing.assert_allclose(share, found.absolute["W1"][0] / (found.absolute["W1"][0] + found.absolute["W1"][1]))


def test_memory_is_told_and_bounded(problem):
    learner = learn(problem, OPTIMIZERS["adam"], steps=1)[0].process
    start = learner.init(problem[2])
    tally = Tally(GROUPS, learner)
    numbers = 15 * 4 * 3  # 15 parameters, 3 groups and other; two kinds, and the groups' momenta
    assert numbers * 8 <= tally.memory(start) <= numbers * 8 + 100
    with pytest.raises(ValueError, match=r"^this tally would take .* GB, and most_bytes allows 1e-06 GB: tally one of"):
        Tally(GROUPS, learner, most_bytes=1000).init(start)


@pytest.mark.parametrize(("batch", "every", "units"), [(1, 1, 3), (B, 2, 3), (1, 1, 1100)])
def test_parameters_in_single_precision_beside_a_rate_in_double(problem, batch, every, units):
    """A learning rate is kept in double precision; the tallies are as the parameters."""
    found = []
    for dtype in (jnp.float32, jnp.float64):
        model = tw.systems.perceptron((4, units), "tanh", "mse")
        target = jnp.tile(problem[1][1], (1, units // 3 + 1))[:, :units] if units != 3 else problem[1][1]
        data, params = jax.tree.map(
            lambda leaf, dtype=dtype: leaf.astype(dtype), ((problem[1][0], target), model.init(1))
        )
        learner = tw.processes.sgd(model.loss, data, 0.1, batch_size=batch)
        tally = Tally(GROUPS, learner, every=every)
        found.append(tw.simulate(learner, learner.init(params), 30, key=5, folds={"tally": tally}).folds["tally"])
    short, long = found
    assert short.ok and short.absolute["W1"].dtype == jnp.float32 and short.conservation < 1e-5
    for name, rows in long.absolute.items():
        np.testing.assert_allclose(short.absolute[name], rows, rtol=1e-3, atol=1e-4 * np.max(rows))


@pytest.mark.usefixtures("as_installed")
def test_refusals(problem):
    model, data, _ = problem
    learner = tw.processes.sgd(model.loss, data, 0.1)

    def split(gradients):
        rule = attribution(0.1, 2)
        return rule.update(gradients, rule.init(jnp.zeros(3)), jnp.zeros(3))

    for make, sentence in (
        (lambda: Tally([0, 1], learner), "groups must have length 12, one a datum of the process, got 2"),
        (
            lambda: Tally([0, 2, 2]),
            "groups must use every number from 0 to 2, but no datum is in group 1: number them anew",
        ),
        (lambda: Tally([0.0, 1.0]), "groups must be whole numbers"),
        (lambda: Tally([-1, -1]), "groups must be numbers from 0 on, or -1 for none"),
        (lambda: Tally(GROUPS, learner, kinds="both"), 'kinds must be "absolute", "signed", or both'),
        (lambda: Tally(GROUPS, learner, window=(3, 2)), "window must be"),
        (lambda: Tally(GROUPS, learner, every=0), "every must be a whole number of steps >= 1, got 0"),
        (lambda: Tally(GROUPS, tw.clamp(learner, "update")), "process must be a learner whose steps divide among data"),
        (lambda: Tally(GROUPS, tw.systems.pit(0.1)), "groups must have length 2|process must"),
        (lambda: attribution(optax.adam(0.1), groups=0), "groups must be a whole number >= 1, got 0"),
        (
            lambda: attribution(optax.MultiSteps(optax.sgd(0.1), 2), 2).init(problem[2]),
            "optimizer cannot be tallied: it adds gradients up in float32",
        ),
        (lambda: attribution(0.1, 2).init({}), "params must hold at least one array, got {}"),
        (lambda: attribution(0.1, 2).init("W"), "params must give numbers and arrays, got 'W'"),
        (lambda: split({"a": jnp.ones((2, 3))}), "group_gradients must be like params after their leading axis, got"),
        (lambda: split(jnp.ones((2, 4))), "group_gradients must be like params after their leading axis, got"),
        (lambda: split(jnp.ones((5, 3))), "group_gradients must lead with 2 groups"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^(?:{sentence})"):
            make()
    run = tw.processes.sgd(model.loss, data, 0.1, batch_size=2)
    with pytest.raises(ValueError, match=r"^without process a tally needs"):
        tw.simulate(run, run.init(problem[2]), 1, key=0, folds={"t": Tally(GROUPS)})
