"""Finite systems: the published tables, the epsilon law, exact identities, nulls, samples."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg as tw
from thalweg.steering import FiniteSystem, sampled_strength
from thalweg.testing import probabilities

DUMB, SMART = (FiniteSystem(tw.systems.thermostat_table(kind)) for kind in ("dumb", "smart"))
DIAGONAL = np.eye(3)[::-1] / 3  # 1/3 on (high, cold), (low, warm), (off, hot)
UNIFORM = np.full((3, 3), 1 / 9)


def test_the_first_post():
    assert abs(DUMB.entropy(DUMB.push(DIAGONAL)) - np.log2(3)) < 1e-12
    assert abs(DUMB.optimizing_strength(DIAGONAL) - 1.14052) < 5e-6
    assert abs(SMART.entropy(SMART.push(DIAGONAL))) < 1e-12
    assert abs(SMART.optimizing_strength(DIAGONAL) - 2.19716) < 5e-6
    # P' is uniform: the counts of the images are all that enters
    counts = np.unique(np.asarray(tw.systems.thermostat_table("smart")).reshape(9, 2), axis=0, return_counts=True)[1]
    assert abs(SMART.optimizing_strength(DIAGONAL) + np.sum(counts / 9 * np.log2(counts / 9))) < 1e-12


def test_the_second_post():
    now = DUMB.push(UNIFORM)
    assert abs(DUMB.optimizing_strength(now)) < 1e-12
    assert abs(DUMB.adjusted_optimizing_strength(now) + 4 / 9) < 1e-12
    now = SMART.push(UNIFORM)
    values = (
        SMART.entropy(SMART.push(now)),
        SMART.entropy(SMART.push(SMART.decorrelate(now))),
        SMART.optimizing_strength(now),
        SMART.entropy(now),
        SMART.entropy(SMART.decorrelate(now)),
        SMART.total_correlation(now),
        SMART.adjusted_optimizing_strength(now),
    )
    np.testing.assert_allclose(values, (0.98643, 2.09443, 1.10801, 2.19716, 3.02048, 0.82332, 0.28468), atol=5e-6)


def faults(epsilon):
    one = np.array([epsilon / 2, 1 - epsilon, epsilon / 2])
    return np.multiply.outer(one, one)


@pytest.mark.parametrize(
    ("epsilon", "wanted", "within"), [(0.1, 0.35699, 5e-6), (0.01, 0.48363, 5e-6), (1e-10, 0.4999999998274, 5e-14)]
)
def test_the_half_law(epsilon, wanted, within):
    before = faults(epsilon)
    share = SMART.adjusted_optimizing_strength(SMART.push(before)) / SMART.entropy(before)
    assert abs(share - wanted) < within


def test_the_half_law_keeps_its_digits_without_limit():
    """First order in epsilon, nats: S = 2 e L + e (2 + 2 log 2), strength = 2 e L + 2 e, TC = e L + e (1 - log 2)."""
    for epsilon in (1e-9, 1e-12, 1e-15):
        before, level = faults(epsilon), np.log(1 / epsilon)
        now = SMART.push(before)
        nats = np.log(2) / epsilon
        assert abs(SMART.entropy(before) * nats - (2 * level + 2 + 2 * np.log(2))) < 1e-7
        assert abs(SMART.optimizing_strength(now) * nats - (2 * level + 2)) < 1e-7
        assert abs(SMART.total_correlation(now) * nats - (level + 1 - np.log(2))) < 1e-7


def test_the_dumb_one_gives_no_half():
    before = faults(0.1)
    assert abs(DUMB.adjusted_optimizing_strength(DUMB.push(before)) / DUMB.entropy(before) + 0.04594) < 5e-6


def test_xor_then_forget():
    table = [[[a ^ b, 0] for b in (0, 1)] for a in (0, 1)]
    system, p = FiniteSystem(table, {"a": 2, "b": 2}), np.diag([0.5, 0.5])
    assert abs(system.optimizing_strength(p) - 1) < 1e-12 and abs(system.total_correlation(p) - 1) < 1e-12
    assert abs(system.adjusted_optimizing_strength(p)) < 1e-12


def random_system(seed, sizes, bijection=False):
    draws, states = np.random.default_rng(seed), int(np.prod(sizes))
    after = draws.permutation(states) if bijection else draws.integers(states, size=states)
    table = np.stack(np.unravel_index(after, sizes), axis=-1).reshape(*sizes, len(sizes))
    p = draws.exponential(size=sizes) * (draws.random(sizes) < 0.7)
    p.flat[0] += 0.1
    return FiniteSystem(table, dict(zip("abcd", sizes, strict=False))), p / p.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_identities(seed, sizes, bijection):
    system, p = random_system(seed, tuple(sizes), bijection)
    tc, strength = system.total_correlation(p), system.optimizing_strength(p)
    adjusted, twin = system.adjusted_optimizing_strength(p), system.decorrelate(p)
    assert tc >= 0
    assert abs(tc - (system.entropy(twin) - system.entropy(p))) < 1e-12
    assert abs(adjusted - (strength - tc)) < 1e-11
    for name in system.names:
        np.testing.assert_allclose(system.marginal(twin, name), system.marginal(p, name), atol=1e-14)
    if bijection:
        assert adjusted == 0 and abs(strength - tc) < 1e-11
    assert abs(system.optimizing_strength(twin)) < 1e-12 and abs(system.total_correlation(twin)) < 1e-12
    # information erased under P minus under P', by brute force over all pairs
    if len(sizes) > 1:
        a, b = system.names[:2]
        given_rest = system.decorrelate(p, (a, b))
        rest = system.names[2:]
        if rest:
            np.testing.assert_allclose(system.marginal(given_rest, a, *rest), system.marginal(p, a, *rest), atol=1e-14)
        else:
            np.testing.assert_allclose(given_rest, twin, atol=1e-14)
        one = system.decorrelate(p, a)
        np.testing.assert_allclose(system.marginal(one, *system.names[1:]), system.marginal(p, *system.names[1:]))


@settings(max_examples=30, deadline=None)
@given(probabilities())
def test_entropy_of_any_distribution(p):
    direct = -sum(x * np.log2(x) for x in p if x > 0)
    assert abs(tw.steering.entropy(p) - direct) < 1e-12
    assert -1e-15 <= tw.steering.entropy(p) <= np.log2(len(p)) + 1e-12


def test_a_deterministic_table_written_as_probabilities_is_the_same_system():
    labels = tw.systems.thermostat_table("smart")
    chances = {now: {after: 1.0} for now, after in labels.items()}
    as_chances = FiniteSystem(chances, labels.parts)
    as_numbers = FiniteSystem(np.asarray(labels), labels.parts)
    now = SMART.push(UNIFORM)
    for measure in ("optimizing_strength", "adjusted_optimizing_strength", "total_correlation"):
        for parts in (None, "room", ("thermostat", "room")):
            wanted = getattr(SMART, measure)(now, parts)
            assert abs(getattr(as_chances, measure)(now, parts) - wanted) < 1e-12
            assert abs(getattr(as_numbers, measure)(now, parts) - wanted) < 1e-12


def test_a_noisy_table_loses_strength():
    labels = tw.systems.thermostat_table("smart")
    parts = labels.parts
    states = list(itertools.product(*parts.values()))
    noisy = {now: {s: 0.1 / 9 + 0.9 * (s == after) for s in states} for now, after in labels.items()}
    found = FiniteSystem(noisy, parts)
    assert 0 < found.optimizing_strength(DIAGONAL) < SMART.optimizing_strength(DIAGONAL)


def test_the_null_of_random_maps():
    found = DUMB.beside_null(DIAGONAL, maps=3000, key=1)
    # what the average random map gives, from the exact mean entropy of images of 9 and of 3 cells
    draws = np.random.default_rng(5)
    direct = [
        DUMB.entropy(np.bincount(draws.integers(9, size=9), minlength=9).reshape(3, 3) / 9)
        - DUMB.entropy(np.bincount(draws.integers(9, size=3), minlength=9).reshape(3, 3) / 3)
        for _ in range(3000)
    ]
    z = (found.null.mean() - np.mean(direct)) / np.sqrt((found.null.var() + np.var(direct)) / 3000)
    assert abs(z) < 4
    assert abs(found.quantile - np.mean(found.null < found.value) - np.mean(found.null == found.value) / 2) < 1e-12
    assert "random maps" in str(found)
    table = SMART.table_of_measures(DIAGONAL, maps=20)
    assert table["all"]["optimizing_strength"].value == SMART.optimizing_strength(DIAGONAL)


def test_a_million_states_in_a_second():
    system, p = random_system(0, (32, 32, 32, 32))
    system.optimizing_strength(p)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        system.optimizing_strength(p)
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0


# Samples.

TABLE = np.asarray(tw.systems.thermostat_table("smart")).reshape(9, 2)


def smart_samples(n, seed):
    now = SMART.push(UNIFORM).reshape(-1)
    drawn = np.random.default_rng(seed).choice(9, size=n, p=now)
    return np.stack([drawn // 3, drawn % 3], axis=1)


def smart_step(states):
    return TABLE[states[:, 0] * 3 + states[:, 1]]


def test_sampled_strength_is_unbiased_and_its_error_is_right():
    exact = SMART.optimizing_strength(SMART.push(UNIFORM))
    adjusted = SMART.adjusted_optimizing_strength(SMART.push(UNIFORM))
    found = [sampled_strength(smart_step, smart_samples(400, seed), key=seed) for seed in range(60)]
    for name, wanted in (("optimizing_strength", exact), ("adjusted_optimizing_strength", adjusted)):
        values = np.array([float(getattr(f, name).value) for f in found])
        errors = np.array([float(getattr(f, name).error) for f in found])
        assert abs(values.mean() - wanted) < 4 * values.std(ddof=1) / np.sqrt(60)
        assert 0.75 < errors.mean() / values.std(ddof=1) < 1.35  # 60 repeats know a spread to 9%
        covered = np.mean(np.abs(values - wanted) < 2 * errors)
        assert covered > 0.85


def test_the_uncorrected_entropy_would_be_biased():
    """Sixteen even states from 64 samples: the plain estimate is low by 15/128 nats, the corrected one is not."""
    from thalweg.steering._sampled import _counts, _jackknifed

    draws = np.random.default_rng(2)
    plain, corrected = [], []
    for _ in range(400):
        counts = _counts(draws.integers(16, size=(64, 1)))
        plain.append(-np.sum(counts / 64 * np.log(counts / 64)))
        corrected.append(_jackknifed(counts))
    error = np.std(corrected) / 20
    assert abs(np.mean(plain) - (np.log(16) - 15 / 128)) < 0.02
    assert abs(np.mean(corrected) - np.log(16)) < 4 * error + 0.005


def test_too_few_samples_are_called_so():
    many = np.random.default_rng(0).integers(10**6, size=(200, 3))
    found = sampled_strength(lambda s: s, many)
    assert not found.optimizing_strength.ok
    assert "states seen once" in found.optimizing_strength.message


# What is refused.


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FiniteSystem([[0.5, 0.6], [0.5, 0.5]], {"a": 2}), r"row \(0,\) of table must be probabilities"),
        (lambda: FiniteSystem([[[0, 0], [0, 9]]], {"a": 1, "b": 2}), "next states in table must be below the sizes"),
        (lambda: FiniteSystem([[0, 1]], {"a": 3}), "table must be whole numbers of shape"),
        (lambda: FiniteSystem([[0]]), "parts must map each part's name to its labels"),
        (lambda: FiniteSystem([[0]], {"a": []}), "at least one label"),
        (lambda: FiniteSystem({("x",): ("y",)}, {"a": ["x"]}), "table names 'y', but 'a' has the labels 'x'"),
        (lambda: FiniteSystem({("x",): ("x",)}, {"a": ["x", "y"]}), "a row for each of the 2 joint states, got 1"),
        (lambda: FiniteSystem([[0]], {"a": 10**9}), "use tw.steering.sampled_strength"),
        (lambda: DUMB.optimizing_strength(UNIFORM * 2), "p must sum to 1, got 2: divide by the sum"),
        (lambda: DUMB.optimizing_strength(-UNIFORM), "p must be probabilities"),
        (lambda: DUMB.optimizing_strength(np.ones(9) / 9), r"p must have shape \(3, 3\)"),
        (lambda: DUMB.total_correlation(UNIFORM, "door"), "no part is called 'door'"),
        (lambda: DUMB.total_correlation(UNIFORM, ("room", "room")), "parts must differ"),
        (lambda: DUMB.beside_null(UNIFORM, "strength"), "measure must be one of"),
        (lambda: sampled_strength(smart_step, np.zeros((5, 2), int)), "samples must be whole numbers of shape"),
        (
            lambda: sampled_strength(lambda s: s[:, :1], np.zeros((50, 2), int)),
            "step must give next states as whole numbers of shape",
        ),
        (lambda: tw.systems.thermostat_table("clever"), "kind must be"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(make, sentence, as_installed):
    with pytest.raises((ValueError, TypeError), match=sentence):
        make()
