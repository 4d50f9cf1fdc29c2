"""The datum permutation test: known answers, a null that holds, and no p where there is none."""

import re
import time

import numpy as np
import pytest

import thalweg as tw
from thalweg.knowledge import datum_permutation_test

C = np.array([[1, 2, 0], [3, 1, 1], [2, 2, 4], [4, 5, 1], [0, 1, 2]])
LABELS, TARGET = [1, 1, 0, 0, 0], [0.2, 0.7, 0.4]
RNG = np.random.default_rng(0)
N, UNITS = 60, 40
MOVED = RNG.gamma(0.5, size=(N, 1)) * RNG.gamma(2.0, size=(N, UNITS))
FORK = RNG.random(UNITS)


def test_the_worked_example():
    covariance = datum_permutation_test(C, LABELS, TARGET, "covariance")
    assert covariance.statistic == pytest.approx(-0.0247727, abs=1e-7)
    assert covariance.null_sd == pytest.approx(0.0353307, abs=1e-7)
    assert covariance.null_mean == pytest.approx(0, abs=1e-12)
    assert covariance.p == 0.7 and covariance.error == 0 and covariance.permutations == 10
    correlation = datum_permutation_test(C, LABELS, TARGET)
    assert correlation.statistic == pytest.approx(-0.357623, abs=1e-6)
    assert correlation.p == 0.7


def test_sampled_shuffles_agree_with_all_of_them():
    sampled = datum_permutation_test(C, LABELS, TARGET, permutations=9, key=1)
    assert sampled.permutations == 9 and sampled.error > 0
    many, g = RNG.gamma(1.0, size=(12, 5)), np.arange(12) % 3 == 0
    exact = datum_permutation_test(many, g, RNG.random(5), permutations=495)
    few = datum_permutation_test(many, g, RNG.random(5), permutations=494)
    assert exact.error == 0 < few.error


def test_the_exact_null_variance_is_that_of_the_shuffles():
    g = np.arange(N) % 2
    test = datum_permutation_test(MOVED, g, FORK, "covariance", 20_000, key=0)
    share = lambda g: g @ (MOVED / MOVED.sum(0))  # noqa: E731
    null = [np.sum((FORK - FORK.mean()) * share(RNG.permutation(g))) for _ in range(4000)]
    assert test.null_sd == pytest.approx(np.std(null), rel=4 / np.sqrt(2 * 4000))


def test_many_weights_give_the_numbers_of_a_plain_product():
    """With more weights than data the variance goes through a matrix over the data."""
    wide, target, g = RNG.gamma(1.0, size=(20, 3000)), RNG.random(3000), np.arange(20) % 2
    test = datum_permutation_test(wide, g, target, permutations=500, key=3)
    share = g @ (wide / wide.sum(0))
    assert test.statistic == pytest.approx(np.corrcoef(share, target)[0, 1], abs=1e-12)
    null = [datum_permutation_test(wide, RNG.permutation(g), target, permutations=1).statistic for _ in range(300)]
    assert test.null_sd == pytest.approx(np.std(null), rel=4 * np.sqrt(1 / 1000 + 1 / 600))


def test_p_is_uniform_under_random_labels():
    from scipy.stats import kstest, pearsonr

    rng = np.random.default_rng(5)
    trait, push = rng.normal(size=UNITS), rng.normal(size=(N, 1))
    together = MOVED * np.exp(push * trait)  # units go together along a trait, and the target follows it
    p, naive = [], []
    for i in range(400):
        g = rng.permutation(np.arange(N) % 2)
        p.append(datum_permutation_test(together, g, trait, permutations=199, key=i).p)
        naive.append(pearsonr(g @ (together / together.sum(0)), trait).pvalue)
    assert kstest(p, "uniform").statistic < 1.63 / np.sqrt(400)  # 1% of uniform samples lie above
    assert np.mean(np.array(naive) < 0.05) > 0.5  # what a t-test over units says of the same random labels


def test_an_effect_that_is_there_is_found():
    g = np.arange(N) % 2
    share = g @ (MOVED / MOVED.sum(0))
    assert datum_permutation_test(MOVED, g, share + 0.02 * RNG.normal(size=UNITS), permutations=999, key=0).p == 0.001


def test_one_shuffle_serves_all_networks():
    """Three copies of one network are no more evidence than one: p stays what it was."""
    g = (np.arange(N) % 2).astype(int)
    one = datum_permutation_test(MOVED, g, FORK, permutations=999, key=0)
    copies = datum_permutation_test([MOVED] * 3, [g] * 3, [FORK] * 3, permutations=999, key=0)
    assert (copies.p, copies.statistic) == (one.p, pytest.approx(one.statistic))
    covariance = datum_permutation_test([MOVED] * 3, [g] * 3, [FORK] * 3, "covariance", 999, key=0)
    assert covariance.null_sd == pytest.approx(datum_permutation_test(MOVED, g, FORK, "covariance").null_sd)


def test_networks_that_saw_different_data_are_joined_by_name():
    g = np.arange(N) % 2
    first, second = np.arange(0, 40), np.arange(20, 60)
    cases = ([MOVED[first], MOVED[second]], [g[first], g[second]], [FORK, FORK[::-1].copy()])
    test = datum_permutation_test(*cases, "covariance", 4999, key=0, data=[first, second])
    w = np.zeros(N)
    for at, target in ((first, FORK), (second, FORK[::-1])):
        w[at] += MOVED[at] / MOVED[at].sum(0) @ (target - target.mean()) / 2
    assert test.statistic == pytest.approx(g @ w)
    assert test.null_sd == pytest.approx(np.sqrt(N / 4 * np.var(w, ddof=1)))
    assert abs(test.p - 2 * _tail(abs(test.statistic - test.null_mean) / test.null_sd)) < 0.05


def _tail(z):
    from scipy.stats import norm

    return norm.sf(z)


def test_dead_units_are_left_out_and_counted():
    dead = MOVED.copy()
    dead[:, :3] = 0
    target = FORK.copy()
    target[3] = np.nan
    test = datum_permutation_test(dead, np.arange(N) % 2, target, key=0)
    alone = datum_permutation_test(MOVED[:, 4:], np.arange(N) % 2, FORK[4:], key=0)
    assert test.undefined == 4 and (test.statistic, test.p) == (pytest.approx(alone.statistic), alone.p)


@pytest.mark.parametrize(
    ("moved", "labels", "target", "why"),
    [
        (MOVED, np.ones(N), FORK, "all 60 labels are 1"),
        (MOVED, np.arange(N) % 2, np.ones(UNITS), "the target is the same"),
        (MOVED, np.arange(N) % 2, np.full(UNITS, np.nan), "only 0 units"),
        (np.zeros((N, UNITS)), np.arange(N) % 2, FORK, "only 0 units"),
        (MOVED[:, :2], np.arange(N) % 2, FORK[:2], "only 2 units"),
        (np.ones((N, UNITS)), np.arange(N) % 2, FORK, "the share is the same"),
    ],
)
@pytest.mark.parametrize("statistic", ["correlation", "covariance"])
def test_degenerate_input_gives_a_status_and_no_p(moved, labels, target, why, statistic):
    test = datum_permutation_test(moved, labels, target, statistic, 99, key=0)
    assert test.status == tw.Status.UNDEFINED and np.isnan(test.p) and why in test.message


def test_a_shuffle_without_a_statistic_counts_as_one_that_reaches_it():
    """Four of 24 data in a network: it often gets one label only, and then the mean r is undefined."""
    few, many = RNG.gamma(1.0, size=(4, 6)), RNG.gamma(1.0, size=(24, 6))
    targets, labels = RNG.random((2, 6)), np.arange(24) % 2
    test = datum_permutation_test(
        [many, few], [labels, labels[:4]], list(targets), permutations=2000, data=[np.arange(24), np.arange(4)]
    )
    r = lambda g, c, f: np.corrcoef(g @ (c / c.sum(0)), f)[0, 1]  # noqa: E731

    def mean(g):
        whole = r(g, many, targets[0])
        return np.nan if len(set(g[:4])) == 1 else (whole + r(g[:4], few, targets[1])) / 2

    null = np.array([mean(RNG.permutation(labels)) for _ in range(2000)])
    assert test.ok and np.isnan(null).any() and test.statistic == pytest.approx(mean(labels))
    p = np.mean(~(abs(null) < abs(test.statistic)))
    assert abs(test.p - p) < 4 * np.sqrt(2 * p * (1 - p) / 2000)


def test_ten_thousand_shuffles_take_under_a_second():
    """For 100 units and for 40,000 weights, by the processor's clock."""
    moved = RNG.gamma(1.0, size=(216, 40_000))
    for units in (100, 40_000):
        start = time.process_time()
        datum_permutation_test(moved[:, :units], np.arange(216) % 2, RNG.random(units), permutations=10_000, key=0)
        # 0.1 and 0.9 s of processor time were measured; a loop over shuffles takes minutes for the weights.
        assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((-C, LABELS, TARGET), "C must be finite and >= 0"),
        ((C, LABELS[:4], TARGET), "labels must have shape (5,), one a row of C, got (4,)"),
        ((C, [0, 1, 2, 0, 1], TARGET), "labels must be 0 or 1, got [0.0, 1.0, 2.0]"),
        ((C, LABELS, TARGET[:2]), "target must have shape (3,), one a column of C, got (2,)"),
        ((C, LABELS, TARGET, "slope"), 'statistic must be "correlation" or "covariance"'),
        (([C, C], [LABELS], [TARGET, TARGET]), "labels must be a list of 2, one a network"),
        (([C, C[:4]], [LABELS, LABELS[:4]], [TARGET] * 2), "networks with [5, 4] rows need data"),
        (([C, C], [LABELS, LABELS[::-1]], [TARGET] * 2), "labels must agree about a datum"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(arguments, sentence, as_installed):
    with pytest.raises((ValueError, TypeError), match="^" + re.escape(sentence)):
        datum_permutation_test(*arguments)
