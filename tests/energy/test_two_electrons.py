"""Two electrons exactly: published energies, closed forms, a grid, and limits."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import eigh_tridiagonal

import thalweg as tw
from thalweg.energy import two_electrons

PUBLISHED = [  # all digits good
    (2, 1.0, 3.0),
    (2, 1 / 6, 2 / 3),
    (2, 0.28, 1.0216440136),
    (2, 0.1, 0.440791888014),
    (3, 0.5, 2.0),
    (3, 0.1, 0.5),
    (3, 0.25, 1.08926205629),
]


@pytest.mark.parametrize(("dimension", "omega", "energy"), PUBLISHED)
def test_two_electrons_have_the_published_energies(dimension, omega, energy):
    assert abs(two_electrons(omega, dimension).energy.value / energy - 1) < 1e-11


def test_the_cusp_factors_that_are_polynomials():
    r = np.linspace(0, 6, 7)
    for dimension, omega, polynomial in (
        (2, 1.0, 1 + r),
        (2, 1 / 6, 1 + r + r**2 / 6),
        (3, 0.5, 1 + r / 2),
        (3, 0.1, 1 + r / 2 + r**2 / 20),
    ):
        np.testing.assert_allclose(two_electrons(omega, dimension).factor(r), polynomial, rtol=1e-13)


def test_the_parts_of_the_energy_are_the_closed_forms():
    plane = two_electrons(1.0, 2)
    root = np.sqrt(2 * np.pi)
    np.testing.assert_allclose(plane.interaction_energy.value, (2 + root) / (3 + root), rtol=1e-13)
    np.testing.assert_allclose((plane.kinetic.value, plane.trap_energy.value), (0.886200, 1.295400), atol=5e-7)
    space = two_electrons(0.5, 3)
    parts = (space.interaction_energy.value, space.kinetic.value, space.trap_energy.value)
    np.testing.assert_allclose(parts, (0.447443, 0.664418, 0.888139), atol=7e-7)


@pytest.mark.parametrize(("dimension", "omega", "l", "level"), [(2, 0.37, 0, 0), (3, 2.2, 1, 2), (1, 0.05, 0, 1)])
def test_the_parts_obey_the_virial_theorem_and_the_slope_of_the_energy(dimension, omega, l, level):  # noqa: E741
    exact = two_electrons(omega, dimension, angular_momentum=l, level=level)
    kinetic, trap, interaction = exact.kinetic.value, exact.trap_energy.value, exact.interaction_energy.value
    assert abs(2 * kinetic - 2 * trap + interaction) < 1e-13 * exact.energy.value
    step = 1e-4 * omega
    up, down = (two_electrons(omega + s, dimension, angular_momentum=l, level=level) for s in (step, -step))
    slope = (up.energy.value - down.energy.value) / (2 * step)
    assert abs(omega / 2 * slope / trap - 1) < 1e-7


@pytest.mark.parametrize(("dimension", "omega", "l"), [(2, 0.6, 1), (2, 1.3, 3), (3, 0.8, 2), (1, 0.7, 1)])
def test_the_series_agrees_with_a_grid(dimension, omega, l):  # noqa: E741
    """Finite differences for u = r^((D-1)/2) chi, on grids of two widths."""
    d = dimension + 2 * l

    def lowest(cells):
        h = 16 / np.sqrt(omega) / cells
        r = h * np.arange(1, cells)
        potential = (d - 1) * (d - 3) / (4 * r**2) + omega**2 * r**2 / 4 + 1 / r
        return eigh_tridiagonal(2 / h**2 + potential, -np.ones(cells - 2) / h**2, select="i", select_range=(0, 1))[0]

    coarse, fine = lowest(2000), lowest(4000)
    relative = fine + (fine - coarse) / 3
    for level in (0, 1):
        exact = two_electrons(omega, dimension, angular_momentum=l, level=level).energy.value
        assert abs(relative[level] + dimension * omega / 2 - exact) < 1e-6


@pytest.mark.parametrize(
    ("dimension", "volume"), [(1, lambda r: 2), (2, lambda r: 2 * np.pi * r), (3, lambda r: 4 * np.pi * r**2)]
)
def test_the_densities_integrate_to_one_and_to_two(dimension, volume):
    exact = two_electrons(0.7, dimension)
    nodes, weights = np.polynomial.legendre.leggauss(100)
    r, weights = 8 * (nodes + 1), 8 * weights
    assert abs(weights @ exact.distance_density(r) - 1) < 1e-10
    assert abs(weights @ (volume(r) * exact.density(r)) - 2) < 1e-10
    # The density knows the trap energy too: sum_i omega^2 r_i^2 / 2.
    assert abs(weights @ (volume(r) * exact.density(r) * 0.49 * r**2 / 2) - exact.trap_energy.value) < 1e-9


def test_limits_of_strong_and_of_weak_repulsion():
    # Strong: classical electrons at rest, r0^3 = 2/omega^2, E = 3 omega^2 r0^2 / 4, and the first quantum correction.
    omega = 1e-5
    r0 = (2 / omega**2) ** (1 / 3)
    classical = 0.75 * omega**2 * r0**2 + omega * (1 + np.sqrt(3) / 2)  # in 2-D: centre omega, breathing sqrt(3)/2
    assert abs(two_electrons(omega).energy.value / classical - 1) < 1e-4
    # Weak: first-order perturbation, <1/r> of the free pair: sqrt(pi omega / 2) in 2-D.
    omega = 1e6
    first = 2 * omega + np.sqrt(np.pi * omega / 2)
    assert abs(two_electrons(omega).energy.value - first) < 1


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"omega": 0}, "omega must be a number >= 1e-06, got 0"),
        ({"omega": -1.0}, "omega must be a number >= 1e-06, got -1.0"),
        ({"omega": 1e13}, "omega must be at most 1e\\+12, got 1e\\+13"),
        ({"dimension": 4}, "dimension must be 1, 2 or 3, got 4"),
        ({"angular_momentum": -1}, "angular_momentum must be a whole number from 0 to 50, got -1"),
        (
            {"dimension": 1, "angular_momentum": 2},
            "angular_momentum must be 0 \\(even\\) or 1 \\(odd\\) in one dimension",
        ),
        ({"level": 0.5}, "level must be a whole number from 0 to 50, got 0.5"),
    ],
)
def test_pairs_that_cannot_be_are_refused(bad, sentence, as_installed):
    with pytest.raises((ValueError, TypeError), match=sentence):
        two_electrons(**bad)


def test_radial_density_is_that_of_the_closed_form():
    """2-D, omega = 1: p(r) ~ r (1 + r)^2 exp(-r^2/2)."""
    norm = quad(lambda r: r * (1 + r) ** 2 * np.exp(-(r**2) / 2), 0, 40)[0]
    r = np.array([0.3, 1.0, 2.5])
    np.testing.assert_allclose(
        tw.energy.two_electrons().distance_density(r), r * (1 + r) ** 2 * np.exp(-(r**2) / 2) / norm
    )
