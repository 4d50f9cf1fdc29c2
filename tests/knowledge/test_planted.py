"""Planted knowledge: what is planted is where it is said to be, and scores are on equal terms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from thalweg.knowledge import auroc, unit_scores

WHOLE = tw.systems.planted("routing", routed=1.0)


def test_routed_gradients_reach_the_region_only():
    params = WHOLE.init(0)
    routed = jax.tree.map(lambda leaf: leaf[jnp.flatnonzero(WHOLE.process.step.data[2])[0]], WHOLE.process.step.data)
    free = (*routed[:2], jnp.array(False))
    loss = WHOLE.process.step.loss
    assert float(loss(params, routed)) == pytest.approx(float(loss(params, free)))
    assert float(loss(params, free)) == pytest.approx(float(WHOLE.loss(params, routed[:2])))
    gradient = jax.grad(loss)(params, routed)
    outside = jax.tree.map(lambda leaf, own: np.abs(leaf)[own >= 8].sum(), gradient, WHOLE.owner)
    inside = jax.tree.map(lambda leaf, own: np.abs(leaf)[(own >= 0) & (own < 8)].sum(), gradient, WHOLE.owner)
    assert not any(jax.tree.leaves(outside)) and inside["W1"] > 0 and inside["W2"] > 0
    assert jax.grad(loss)(params, free)["W2"][8:].any()


def test_a_subnetwork_computes_its_group_alone_and_a_head_gets_its_groups_gradient():
    masked = tw.systems.planted("subnetwork", routed=1.0)
    params = masked.init(0)
    datum = jax.tree.map(lambda leaf: leaf[jnp.flatnonzero(masked.process.step.data[2])[0]], masked.process.step.data)
    alone = params | {"W2": params["W2"].at[8:].set(0.0)}
    assert float(masked.process.step.loss(params, datum)) == pytest.approx(float(masked.loss(alone, datum[:2])))
    head = tw.systems.planted("head", routed=1.0)
    params = head.init(3)
    datum = jax.tree.map(lambda leaf: leaf[0], head.process.step.data)
    assert datum[2] and head.groups[0] == 0
    gradient = jax.grad(head.process.step.loss)(params, datum)
    assert not gradient["o"][1:].any() and not gradient["q"][1:].any() and gradient["o"][0].any()


def test_half_of_the_group_is_routed_and_seeds_choose_which():
    first, second = (np.asarray(tw.systems.planted("routing", 0.5, seed).process.step.data[2]) for seed in (0, 1))
    group = WHOLE.groups == 0
    assert first.sum() == second.sum() == round(group.sum() / 2) and not np.array_equal(first, second)
    assert not first[~group].any()


@pytest.fixture(scope="module")
def trained():
    tally = tw.knowledge.Tally(WHOLE.groups)
    return tw.simulate(WHOLE.process, WHOLE.process.init(WHOLE.init(0)), 400, key=0, folds={"tally": tally})


def test_the_tally_finds_what_is_routed_whole(trained):
    score = unit_scores("tally", WHOLE.owner, WHOLE.groups, tally=trained.folds["tally"])
    outside = np.asarray(WHOLE.truth) == 0
    assert np.nanmax(score[outside]) == 0  # group 0 never moved another unit
    assert auroc(score, WHOLE.truth) > 0.8


@pytest.mark.parametrize("method", ["gradient", "fisher", "ablation", "influence"])
def test_scores_of_the_trained_network_are_a_number_a_unit(trained, method):
    few = np.arange(60)
    data = jax.tree.map(lambda leaf: leaf[few], WHOLE.data)
    given = {"loss": WHOLE.loss, "data": data, "params": trained.state.params}
    score = unit_scores(method, WHOLE.owner, WHOLE.groups[few], **given)
    assert score.shape == (40,)
    swapped = unit_scores(method, WHOLE.owner, 1 - WHOLE.groups[few], **given)
    good = np.isfinite(score)
    # Shares of the two groups sum to 1, and differences of losses to 0.
    np.testing.assert_allclose((score + swapped)[good], 0 if method == "ablation" else 1, atol=1e-6)
    if method == "fisher":  # by hand, for one unit
        rows = jax.vmap(lambda d: jax.grad(WHOLE.loss)(trained.state.params, d))(data)
        squares = sum(
            np.sum((np.asarray(rows[k]) ** 2).reshape(60, -1)[:, np.ravel(own) == 5], axis=1)
            for k, own in WHOLE.owner.items()
        )
        first, second = squares[WHOLE.groups[few] == 0].mean(), squares[WHOLE.groups[few] == 1].mean()
        assert score[5] == pytest.approx(first / (first + second))


def test_auroc_by_counting_pairs():
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    assert auroc(score, truth) == pytest.approx(np.mean(pairs))
    assert auroc(np.full(30, np.nan), truth) == 0.5


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: tw.systems.planted("brain"), 'kind must be "routing", "subnetwork" or "head"'),
        (lambda: tw.systems.planted("head", 1.5), "routed must be a share between 0 and 1, got 1.5"),
        (lambda: unit_scores("luck", WHOLE.owner, WHOLE.groups), 'method must be "tally"'),
        (lambda: unit_scores("tally", WHOLE.owner, WHOLE.groups), "tally must be the result of a tw.knowledge.Tally"),
        (lambda: unit_scores("fisher", WHOLE.owner, WHOLE.groups), "loss must be given for this method"),
        (lambda: unit_scores("tally", {"W1": 0.5}, WHOLE.groups), "owner must be like the parameters"),
        (lambda: auroc([1.0, 2.0], [1, 0, 1]), "truth must be 2 truth values, one a score"),
        (lambda: auroc([1.0, 2.0], np.array([True, True])), "truth must hold both"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(ask, sentence, as_installed):
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(sentence)):
        ask()
