"""Named data with exact facts: patterns, the mixture, the Curie-Weiss magnet, against enumeration by hand."""

import itertools

import numpy as np
import pytest

import thalweg as tw


@pytest.mark.parametrize("rows, columns", [(2, 2), (3, 3), (2, 4), (4, 3)])
def test_bars_and_stripes(rows, columns):
    wanted = set()
    for bits in itertools.product((0, 1), repeat=rows):
        wanted.add(tuple(np.repeat(bits, columns)))
    for bits in itertools.product((0, 1), repeat=columns):
        wanted.add(tuple(np.tile(bits, rows)))
    found = tw.systems.bars_and_stripes(rows, columns)
    assert {tuple(row) for row in found.data.astype(int)} == wanted and len(found.data) == len(wanted)
    assert len(wanted) == 2**rows + 2**columns - 2
    assert found.best_log_likelihood == pytest.approx(-np.log(len(wanted)))
    assert np.sum(found.labels == 2) == 2


def test_the_shifter():
    found = tw.systems.shifter(5)
    assert len(np.unique(found.data, axis=0)) == 3 * 2**5
    for row, label in zip(found.data, found.labels, strict=True):
        np.testing.assert_array_equal(np.roll(row[:5], label - 1), row[5:10])
        assert row[10 + label] == 1 == row[10:].sum()


def test_the_mixture_is_normalised_and_has_its_moments():
    mixture = tw.systems.gaussian_mixture([[-1.0, 0.5], [2.0, -0.3], [0.0, 1.0]], [0.2, 0.5, 0.3], 0.6)
    x, y = np.meshgrid(np.linspace(-6, 7, 400), np.linspace(-6, 7, 400), indexing="ij")
    points, cell = np.stack([x.ravel(), y.ravel()], axis=1), (13 / 399) ** 2
    p = np.exp(np.asarray(mixture.log_density(points))) * cell
    assert p.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(p @ points, mixture.mean, atol=1e-9)
    off = points - np.asarray(mixture.mean)
    np.testing.assert_allclose((p[:, None] * off).T @ off, mixture.covariance, atol=1e-9)
    draws = mixture.draw(20_000, 3)
    z = (draws.mean(axis=0) - np.asarray(mixture.mean)) / (draws.std(axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 4


def test_the_magnet_by_enumeration():
    n, beta = 9, 1.3
    magnet = tw.systems.curie_weiss(n, beta)
    spins = np.array(list(itertools.product((-1, 1), repeat=n)))
    m = spins.mean(axis=1)
    weight = np.exp(beta * n * m**2 / 2)
    assert magnet.log_partition == pytest.approx(np.log(weight.sum()), abs=1e-12)
    assert magnet.mean_abs == pytest.approx(weight @ np.abs(m) / weight.sum(), abs=1e-13)
    assert magnet.mean_square == pytest.approx(weight @ m**2 / weight.sum(), abs=1e-13)
    assert float(magnet.log_density(spins[5])) == pytest.approx(np.log(weight[5]))
    assert float(tw.energy.log_partition(magnet.log_density, "exact", base=tw.energy.UniformBase(n, (-1, 1)))) == (
        pytest.approx(magnet.log_partition, abs=1e-11)
    )


@pytest.mark.parametrize("n, beta, sweeps", [(20, 1.5, 143.2869), (50, 1.2, 103.2903)])
def test_the_passage_between_the_modes(n, beta, sweeps):
    magnet = tw.systems.curie_weiss(n, beta)
    low, high = magnet.modes
    exact = magnet.mean_passage_steps()
    assert exact / n == pytest.approx(sweeps, abs=5e-5)
    operator = tw.flow.transfer_operator(magnet.process, tw.flow.States(np.arange(n + 1.0)))
    found = operator.mean_first_passage_time(float(low), lambda k: k >= high)
    assert float(found.value) == pytest.approx(exact, rel=1e-6)
    up, down = magnet.rates()
    np.testing.assert_allclose(magnet.distribution[:-1] * up[:-1], magnet.distribution[1:] * down[1:], rtol=1e-11)


def test_the_spins_move_as_their_count_does():
    magnet = tw.systems.curie_weiss(6, 0.9)
    runs = tw.ensemble(magnet.spin_process, np.ones((4000, 6)), 40, key=0, record=None)
    counted = tw.ensemble(magnet.process, np.full(4000, 6.0), 40, key=1)
    one = np.bincount(((np.asarray(runs.state).sum(axis=1) + 6) / 2).astype(int), minlength=7)
    other = np.bincount(np.asarray(counted.state).astype(int), minlength=7)
    chi2 = np.sum((one - other) ** 2 / np.maximum(one + other, 1))
    assert chi2 < 6 + 4 * np.sqrt(12)
