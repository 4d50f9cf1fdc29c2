"""Each line of the errata is checked here, by the test that bears its name."""

import numpy as np
from numpy.polynomial import Polynomial

from thalweg.studies.errata import ERRATA


def test_every_erratum_has_its_test_and_a_name_of_its_own():
    names = [entry.id for entry in ERRATA]
    assert len(set(names)) == len(names)
    missing = [name for name in names if f"test_{name}" not in globals()]
    assert not missing, f"errata without a test: {missing}"


def test_every_erratum_says_all_it_must():
    for entry in ERRATA:
        assert all([entry.source, entry.place, entry.printed, entry.right, entry.checked])
        assert entry.printed != entry.right


def test_variance_of_the_linear_noise():
    position = np.random.default_rng(1).normal(size=100)
    slopes = np.stack([1.2 * position - 2, 0.8 * position - 2])
    np.testing.assert_allclose(slopes.var(axis=0), 0.04 * position**2, rtol=1e-12)


def test_cross_term_of_the_diffusion():
    spread, density = Polynomial([1.0, -0.3, 0.2]), Polynomial([0.5, 0.1, -0.4, 0.7])
    whole = 0.5 * (spread * (spread * density).deriv()).deriv()
    # Besides the cross term: P times (S S')', and S^2 P'' / 2.
    rest = 0.5 * (spread * spread.deriv()).deriv() * density + 0.5 * spread**2 * density.deriv(2)
    cross = 1.5 * spread * spread.deriv() * density.deriv()
    np.testing.assert_allclose((whole - rest - cross).coef, 0, atol=1e-12)


def test_stationary_density():
    learning_rate, grid = 0.1, np.linspace(-1, 1, 50)
    force, spread = Polynomial([0.2, 1.0, 0.5]), Polynomial([1.0, 0.3, 0.1])
    variance = spread**2
    slope = -variance.deriv()(grid) / variance(grid) - 2 * force(grid) / (learning_rate * variance(grid))
    # J / P = -T G - (T^2/2) (S^2 P)' / P, the Ito current.
    current = -learning_rate * force(grid) - learning_rate**2 / 2 * (variance.deriv()(grid) + variance(grid) * slope)
    np.testing.assert_allclose(current, 0, atol=1e-14)
