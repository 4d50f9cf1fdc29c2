"""The localization experiment: identities, controls and refusals, on digits, IDX files and one's own model."""

import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.knowledge import localize
from thalweg.knowledge._levels import Parts, correlation, partial_correlation
from thalweg.knowledge._permutation import shuffle_labels

DIGITS = tw.systems.digits(keep=(1, 7, 6, 8))
QUICK = {"phase1": 600, "forks": 400, "seeds": 3, "permutations": 99, "key": 0}
MODEL = tw.systems.perceptron((64, 12, 2))


@pytest.fixture(scope="module")
def found():
    return localize(MODEL, DIGITS, optimizer=0.05, **QUICK)


def test_every_field_is_labelled_and_led_by_the_seed(found):
    levels = ["weights", "biases", "live", "constant", "unit", "pixel", "interaction"]
    assert found.r.dims == ("seed", "level") and found.r["level"].values.tolist() == levels
    assert found.p.dims == found.null_sd.dims == ("seed", "level") and found.p_joint.dims == ("level",)
    assert found.p["level"].values.tolist() == ["biases", "unit", "live"]
    assert found.variance.dims == ("seed", "side", "part") and found.heatmap.shape == (3, 64)
    names = {"groups_16_78", "groups_18_67", "other_network", "snapshot", "data_only", "outgoing"}
    assert names <= set(found.control["name"].values.tolist()) and found.control.dims == ("seed", "name", "level")
    assert found.partial["given"].values.tolist() == ["snapshot", "data"]
    assert found.ablation["name"].values.tolist() == ["tally", "snapshot", "partial"]
    for name in ("accuracy", "loss", "trained", "undefined"):
        assert found[name].dims == ("seed",)
    assert np.all(found.trained == (found.accuracy >= 0.75)) and found.trained.all()
    np.testing.assert_allclose(found.variance.sum("part"), 1)


def test_a_weight_from_a_constant_input_is_a_copy_of_its_bias(found):
    """Their tally and fork shares are the bias's, so that their r is the bias's, unit by unit and pixel by pixel."""
    np.testing.assert_allclose(found.r.sel(level="constant"), found.r.sel(level="biases"), atol=0.02)
    constant = DIGITS.images.std(0) == 0
    assert constant.any()
    heat = found.heatmap.values[:, constant]
    np.testing.assert_allclose(
        heat, np.repeat(found.r.sel(level="biases").values[:, None], heat.shape[1], 1), atol=1e-6
    )


def test_the_factored_tally_is_the_tally_of_every_weight():
    """|X|^T diag(g) |Db| against a dense sum of |W' - W| along the same run."""
    learner = tw.processes.sgd(MODEL.loss, (jnp.asarray(DIGITS.images), jnp.asarray(DIGITS.labels % 2)), 0.05)
    group = jnp.asarray(np.isin(DIGITS.labels, (1, 7)).astype(int))

    def dense(sums, state, w, after):
        return sums.at[group[w]].add(abs(after.params["W1"] - state.params["W1"]))

    from thalweg.knowledge._by_datum import Visits, ratio, tally_shares

    folds = {
        "dense": tw.Fold(lambda state: jnp.zeros((2, 64, 12)), dense),
        "visits": Visits(lambda p: p["b1"], len(DIGITS.labels), 0, 60),
    }
    run = tw.simulate(learner, learner.init(MODEL.init(1)), 60, key=3, folds=folds)
    outside, inside = np.asarray(run.folds["visits"])
    assert not outside.any()
    shares, total = tally_shares(DIGITS.images, inside, np.asarray(group) == 1)
    # The parameters hold 16 digits, so that a difference of them holds fewer.
    np.testing.assert_allclose(total, run.folds["dense"].sum(0), rtol=1e-9)
    np.testing.assert_allclose(shares.weights, ratio(*np.asarray(run.folds["dense"])[::-1]), rtol=1e-9)


def test_the_permutation_test_of_a_level_is_that_of_its_own_shares(found):
    """Re-derived from scratch: the test's statistic is the r that is reported."""
    assert np.all((found.p >= 1 / 100) & (found.p <= 1)) and np.all(found.null_sd > 0)
    from thalweg.knowledge import _localize as inside

    seen = []

    class Watched(inside.Network):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            seen.append(self)

    original, inside.Network = inside.Network, Watched
    try:
        again = localize(MODEL, DIGITS, optimizer=0.05, **(QUICK | {"seeds": 1}))
    finally:
        inside.Network = original
    np.testing.assert_array_equal(again.r[0], found.r[0])  # a seed does not depend on how many there are
    group = np.isin(DIGITS.labels, (1, 7)).astype(float)
    assert len(seen) == 3
    for level, network in zip(("biases", "unit", "live"), seen, strict=True):
        first = _first_phase(again, network)
        assert network.correlation(group[first][None])[0] == pytest.approx(float(again.r.sel(level=level)[0]), abs=1e-9)


def _first_phase(again, network):
    """The numbers of the data of phase 1 of the first network."""
    from thalweg.knowledge._localize import _split
    from thalweg.stats._series import generator

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 3)
    return _split(DIGITS.labels, 0.3, generator(key))


def test_of_very_many_weights_a_sample_is_tested(found, monkeypatch):
    """As on MNIST: the same r, and chance from some 600 of the 684 weights."""
    from thalweg.knowledge import _localize as inside

    seen = []
    monkeypatch.setattr(inside, "MOST_NUMBERS", 600 * 216)
    monkeypatch.setattr(inside, "shuffle_labels", lambda ready, *how: seen.append(ready) or _shuffled(ready, *how))
    _shuffled = shuffle_labels
    again = localize(MODEL, DIGITS, optimizer=0.05, **(QUICK | {"seeds": 1}))
    np.testing.assert_array_equal(again.r[0], found.r[0])
    (live,) = seen[-1]
    assert live.units == 600 * 216 // len(live.rows) < (DIGITS.images.std(0) > 1e-3).sum() * 12
    spread = [float(one.null_sd.sel(level="live")[0]) for one in (again, found)]  # of 99 shuffles, to 7% each
    assert abs(spread[0] / spread[1] - 1) < 0.4 and again.p.sel(level="live")[0] > 0


def test_estimates_leave_out_what_did_not_learn(found):
    estimate = found.estimate("unit")
    values = found.r.sel(level="unit").values
    assert float(estimate) == pytest.approx(values.mean()) and estimate.ok
    assert estimate.error == pytest.approx(values.std(ddof=1) / np.sqrt(3))
    assert float(found.estimate("unit", "R2")) == pytest.approx((values**2).mean())
    fields = found.to_xarray().copy(deep=True)
    fields["trained"][1] = False
    from thalweg.knowledge import Localization

    fewer = Localization(fields).estimate("unit")
    assert fewer.message.startswith("1 of 3 runs did not learn")
    assert float(fewer) == pytest.approx(values[[0, 2]].mean())
    fields["trained"][:] = False
    assert Localization(fields).estimate("unit").status == tw.Status.UNDEFINED
    assert "nothing can be said" in Localization(fields).verdict
    assert "joint p" in found.verdict and "gradient" in found.verdict
    fields["trained"][0] = True
    assert "over 1 run." in Localization(fields).verdict


def test_a_network_that_learned_nothing_gets_no_p():
    """A learning rate of almost 0: nothing is localized, and dead units are counted, not set to 0."""
    dead = _Dead((64, 6, 2), "relu", "mse", "zero")
    still = localize(dead, DIGITS, optimizer=0.01, phase1=40, forks=40, seeds=2, permutations=19)
    assert not still.trained.all() and np.all(still.undefined == 6)
    assert np.all(np.isnan(still.p)) and np.all(np.isnan(still.p_joint)) and np.all(np.isnan(still.r))
    assert "only 0 units" in still.to_xarray().attrs["undefined_p"]


class _Dead(tw.systems.Perceptron):
    """All hidden units are off for every input."""

    def init(self, key):
        params = super().init(key)
        return params | {"W1": -abs(params["W1"]), "b1": params["b1"] - 1}


class Own:
    """A user's own model: another nonlinearity, other names, parameters in a tuple."""

    def init(self, key):
        keys = jax.random.split(key, 2)
        inner = (0.3 * jax.random.normal(keys[0], (4, 9)), jnp.zeros(9))
        return inner, (0.3 * jax.random.normal(keys[1], (9, 2)), jnp.zeros(2))

    def predict(self, params, x):
        (W, b), (V, c) = params
        return jnp.sin(x @ W + b) @ V + c

    def loss(self, params, datum):
        return jnp.sum((self.predict(params, datum[0]) - datum[1]) ** 2) / 2


@pytest.fixture(scope="module")
def own_data():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 30)
    centres = 2 * rng.normal(size=(4, 4))
    return centres[labels] + 0.5 * rng.normal(size=(120, 4)), labels


def test_ones_own_model_and_grouping(own_data):
    found = localize(
        Own(),
        own_data,
        ((0, 1), (2, 3)),
        0.05,
        phase1=400,
        forks=300,
        seeds=2,
        permutations=49,
        layer=lambda p: (*p[0], *p[1]),
    )
    assert found.trained.all() and np.isfinite(found.r.sel(level="unit")).all()
    assert "groups_02_13" in found.control["name"].values
    assert found.heatmap.shape == (2, 4)


def test_the_twins_see_the_data_that_phase_1_did_not():
    """Whatever the labels: those of phase 1 are set to a number that is no class."""
    from thalweg.knowledge import _localize as inside

    seen = []
    original = inside.twins

    def watched(learner, start, labels, pairs, *rest, **more):
        seen.append(labels)
        return original(learner, start, labels, pairs, *rest, **more)

    inside.twins = watched
    rng, labels = np.random.default_rng(0), np.repeat([-3, -1, 0, 1], 10)
    try:
        plan = {"phase1": 4, "forks": 2, "seeds": 1, "permutations": 9, "controls": False}
        localize(Own(), (rng.random((40, 4)), labels), ((-3, -1), (0, 1)), **plan, layer=lambda p: (*p[0], *p[1]))
    finally:
        inside.twins = original
    hidden = ~np.isin(seen[0], labels)
    assert hidden.sum() == 12 and np.array_equal(seen[0][~hidden], labels[~hidden])


def test_a_layer_that_is_not_dense_on_the_input_is_refused(own_data, as_installed):
    class Scaled(Own):
        def predict(self, params, x):
            return super().predict(params, 2 * x)

    with pytest.raises(ValueError, match="the gradient of these weights is not input times gradient of the biases"):
        localize(Scaled(), own_data, ((0, 1), (2, 3)), layer=lambda p: (*p[0], *p[1]))
    with pytest.raises(ValueError, match=r"^layer must pick"):
        localize(Own(), own_data, ((0, 1), (2, 3)))
    with pytest.raises(ValueError, match=r"^layer must pick .* got"):
        localize(Own(), own_data, ((0, 1), (2, 3)), layer=lambda p: (*p[1], *p[0]))


def _write_idx(folder, images, labels):
    shape = images.shape
    head = struct.pack(">BBBB", 0, 0, 8, 3) + struct.pack(">III", *shape)
    (folder / "train-images-idx3-ubyte").write_bytes(head + images.tobytes())
    head = struct.pack(">BBBB", 0, 0, 8, 1) + struct.pack(">I", len(labels))
    (folder / "train-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


def test_mnist_files_by_path(tmp_path):
    small = tw.systems.digits()
    pixels = (small.images[:400] * 255).astype(np.uint8).reshape(400, 8, 8)
    _write_idx(tmp_path, pixels, small.labels[:400])
    data = tw.systems.digits(tmp_path, keep=(1, 7, 6, 8))
    assert data.images.min() == 1 / 256 and data.shape == (8, 8)
    found = localize(MODEL, data, optimizer=0.05, **QUICK)
    assert found.to_xarray().attrs["source"].startswith(str(tmp_path))
    assert np.isfinite(found.r.sel(level="unit")).all()


# The pieces.


def test_levels_take_a_share_apart():
    rng = np.random.default_rng(0)
    pixel, unit = rng.normal(size=(30, 1)), 2 * rng.normal(size=20)
    from thalweg.knowledge._by_datum import Shares

    live = np.arange(30) >= 5
    parts = Parts(Shares(0.5 + pixel + unit, unit), live, np.ones(20, bool))
    np.testing.assert_allclose(parts["pixel"][live] - parts["pixel"][live].mean(), (pixel[5:] - pixel[5:].mean())[:, 0])
    np.testing.assert_allclose(parts["unit"] - parts["unit"].mean(), unit - unit.mean())
    assert np.nanmax(abs(parts["interaction"])) < 1e-12 and np.isnan(parts["interaction"][:5]).all()
    expected = np.array([pixel[5:].var(), unit.var(), 0])
    np.testing.assert_allclose(parts.variance, expected / expected.sum(), atol=1e-12)


def test_correlations_and_partials_by_regression():
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(size=(3, 50))
    b = b + a + 2 * c
    assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    left = [v - np.polyval(np.polyfit(c, v, 1), c) for v in (a, b)]
    assert partial_correlation(a, b, c) == pytest.approx(np.corrcoef(*left)[0, 1])
    a[3] = np.nan
    assert correlation(a, b) == pytest.approx(np.corrcoef(np.delete(a, 3), np.delete(b, 3))[0, 1])
    assert np.isnan(correlation(a[:2], b[:2])) and np.isnan(correlation(np.ones(9), b[:9]))


@pytest.mark.slow
def test_the_measured_digits():
    """8 x 8, softplus, learning rate .01: accuracy .95, R2 of weights .004, of biases .036, variance .50, .47, .035."""
    found = localize(tw.systems.perceptron((64, 100, 2)), DIGITS, seeds=6)
    assert abs(found.accuracy.mean() - 0.95) < 0.03
    for level, value in (("weights", 0.004), ("biases", 0.036)):
        R2 = found.estimate(level, "R2")
        assert abs(R2.value - value) < 3 * np.hypot(R2.error, value / 2)
    np.testing.assert_allclose(found.variance.sel(side="tally").mean("seed"), [0.50, 0.47, 0.035], atol=0.05)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizer": __import__("optax").adam(0.1)}, "optimizer must be a learning rate"),
        ({"optimizer": -0.1}, "optimizer must be a number > 0, got -0.1"),
        ({"pairs": ((1, 7), (6, 3))}, "pairs must name classes that occur among the labels, got [3]"),
        ({"data": DIGITS.images}, "data must have images and labels"),
        ({"data": (DIGITS.images, DIGITS.labels[:9])}, "labels (of data) must be"),
        ({"window": (0.9, 0.2)}, "window must be two fractions"),
        ({"phase1": 0}, "phase1 must be a whole number of steps >= 1, got 0"),
        ({"phase1_fraction": 1.0}, "phase1_fraction must be a number between 0 and 1, got 1.0"),
        ({"phase1_fraction": 0.001}, "phase1_fraction must leave data of each class to both phases"),
        ({"model": tw.systems.perceptron((60, 4, 2))}, "data must have as many inputs as the model's layer reads, 60"),
        ({"seeds": 0}, "seeds must be an integer >= 1"),
        ({"matched": "yes"}, "matched must be True or False"),
        ({"model": 3}, "model.init must be a function"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(change, sentence, as_installed):
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(sentence)):
        localize(**({"model": MODEL, "data": DIGITS} | change))
