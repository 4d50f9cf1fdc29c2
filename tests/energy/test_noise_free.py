"""The plain Boltzmann machine without noise: its closed form against draws, and its known minima."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf, expit, ive

import thalweg as tw
from thalweg.energy import GaussianRBM, HarmonicTrap, RBMState, closed_form_energy, noise_free_ground_state
from thalweg.energy.ground_states._build import build_state
from thalweg.energy.ground_states._mixture import (
    NODES,
    _inverse_in_space,
    _inverse_in_the_plane,
    _mean_slope,
    mixture_parts,
)


def machine_of(coordinates, hidden, scale=0.8, seed=0, log_variance=-0.5):
    rng = np.random.default_rng(seed)
    return GaussianRBM(
        scale * rng.normal(size=(coordinates, hidden)),
        0.3 * rng.normal(size=coordinates),
        rng.normal(size=hidden) - 0.5,
        log_variance,
    )


@pytest.mark.parametrize(
    ("trap", "hidden"),
    [
        (HarmonicTrap(2, 2, 0.7), 3),
        (HarmonicTrap(2, 3, [0.7, 1.3, 0.4]), 2),
        (HarmonicTrap(3, 3, 0.9, statistics="bosons"), 2),
    ],
    ids=["plane", "space", "three bosons"],
)
def test_each_part_is_the_mean_over_exact_draws(trap, hidden):
    machine, n = machine_of(trap.coordinates, hidden), 100_000
    x = closed_form_energy(machine, trap).draw(n, key=3)
    gradient = np.asarray(jax.jit(lambda x: RBMState(machine, trap.particles).gradient(x))(x))
    drawn = {
        "kinetic": (gradient**2).sum(axis=1) / 2,  # T = <|grad ln psi|^2>/2: bounded tails, unlike the local energy
        "trap": np.asarray(trap.trap_energy(x)),
        "interaction": np.asarray(trap.interaction_energy(x)),
    }
    found = mixture_parts(machine, trap)
    for name, values in drawn.items():
        z = (values.mean() - float(getattr(found, name))) / (values.std() / np.sqrt(n))
        assert abs(z) < 4, (name, z)


def test_one_width_a_coordinate_where_nothing_repels():
    trap = HarmonicTrap(2, 2, [1.0, 2.0], interaction=False)
    machine = GaussianRBM(np.zeros((4, 1)), np.zeros(4), [0.0], -np.log([2.0, 4.0, 2.0, 4.0]))
    assert abs(closed_form_energy(machine, trap).energy.value - 3.0) < 1e-14


def test_the_integral_over_a_field_is_good_for_every_width():
    widths, means = np.array([0.01, 1.0, 3.59, 3.61, 12.0, 60.0]), np.array([-35.0, -6.0, 0.0, 2.5])
    width, mean = np.meshgrid(widths, means)
    coarse, fine = (
        np.asarray(_mean_slope(jnp.asarray(mean), jnp.asarray(width), n)).ravel() for n in (NODES, 2 * NODES)
    )
    for w, m, value, better in zip(width.ravel(), mean.ravel(), coarse, fine, strict=True):

        def inside(t, w=w, m=m):
            return expit(t) * expit(-t) * np.exp(-(((t - m) / w) ** 2) / 2) / (w * np.sqrt(2 * np.pi))

        places = sorted({-8 * w + m, m, 8 * w + m, *(p for p in (-40.0, -5.0, 0.0, 5.0, 40.0) if abs(p - m) < 8 * w)})
        pieces = [quad(inside, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in itertools.pairwise(places)]
        assert abs(value - sum(pieces)) < 1e-10
        assert abs(better - sum(pieces)) < 1e-12


def test_mean_inverse_distances():
    s, distance = 0.7, np.array([0.0, 0.1, 0.1399, 0.1401, 1.0, 30.0])
    k = distance**2 / (8 * s**2)
    plane = np.asarray(_inverse_in_the_plane(jnp.asarray(distance**2), s))
    np.testing.assert_allclose(plane, np.sqrt(np.pi) / (2 * s) * ive(0, k), rtol=1e-13)
    space = np.asarray(_inverse_in_space(jnp.asarray(distance**2), s))
    with np.errstate(invalid="ignore"):
        right = np.where(distance == 0, 1 / (s * np.sqrt(np.pi)), erf(distance / (2 * s)) / distance)
    np.testing.assert_allclose(space, right, rtol=1e-13)


@pytest.fixture(scope="module")
def plane():
    return {hidden: noise_free_ground_state(HarmonicTrap(2), hidden) for hidden in (1, 2, 4)}


def test_the_minima_in_the_plane(plane):
    for hidden, energy, variance in ((1, 3.12292, 0.549), (2, 3.06009, 0.458), (4, 3.0469, 0.380)):
        found = plane[hidden]
        assert abs(found.energy.value - energy) < 2e-5
        assert abs(float(found.state.width) ** 2 - variance) < 6e-4
        assert found.energy.ok
        assert 0 < found.energy.error < 1e-9
    assert np.min(np.abs(plane[4].starts - 3.0552697)) < 1e-6  # a local minimum that some starts end in


def test_a_minimum_obeys_the_virial_theorem_and_its_parts_add_up(plane):
    for found in plane.values():
        assert abs(found.virial_ratio.value - 1) < 1e-6
        total = found.kinetic.value + found.trap_energy.value + found.interaction_energy.value
        assert abs(total - found.energy.value) < 1e-13


def test_the_minima_in_space_and_without_repulsion():
    for hidden, energy in ((1, 2.03359), (2, 2.02499)):
        assert abs(noise_free_ground_state(HarmonicTrap(2, 3, 0.5), hidden).energy.value - energy) < 1e-5
    free = noise_free_ground_state(HarmonicTrap(2, 2, 1.7, interaction=False), 1, starts=2)
    assert abs(free.energy.value - 3.4) < 1e-9
    assert abs(float(free.state.width) ** 2 - 1 / 3.4) < 1e-4


def test_a_fixed_width_gains_nothing_from_more_than_two_units():
    energies = [noise_free_ground_state(HarmonicTrap(2), k, sigma=np.sqrt(0.5)).energy.value for k in (2, 4)]
    np.testing.assert_allclose(energies, [3.06493, 3.06492], atol=2e-5)


def test_one_particle_is_not_sampled():
    found = tw.energy.ground_state(HarmonicTrap(1, 3, 0.7), hidden=1)
    assert isinstance(found.measurement, tw.energy.ClosedForm)
    assert abs(found.energy.value - 1.05) < 1e-9


def test_two_electrons_on_a_line_have_a_jastrow_factor_by_default():
    """Without one their energy is infinite."""
    psi = build_state(HarmonicTrap(2, 1), 1, "auto", "trained", None, jax.random.key(0))
    assert any(isinstance(factor, tw.energy.PadeJastrow) for factor in psi.factors)
    assert isinstance(build_state(HarmonicTrap(2, 2), 1, "auto", "trained", None, jax.random.key(0)), RBMState)


def test_the_result_says_what_sampling_would_meet(plane):
    assert "diverges" in plane[1].advice
    assert "add a cusp" in plane[1].advice
    assert plane[1].advice in str(plane[1])
    assert plane[1].energy.details["advice"] == plane[1].advice
    assert closed_form_energy(machine_of(6, 1), HarmonicTrap(2, 3)).advice == ""  # finite in space
    assert closed_form_energy(machine_of(4, 1), HarmonicTrap(2, interaction=False)).advice == ""


def test_a_search_cut_short_says_so():
    short = noise_free_ground_state(HarmonicTrap(2), 2, starts=1, iterations=3)
    assert short.energy.status == tw.Status.NOT_CONVERGED
    assert short.energy.error > 1e-4


@pytest.mark.parametrize(
    ("trap", "hidden", "sentence"),
    [
        (HarmonicTrap((2, 0)), 2, "electrons of like spin need a wavefunction that changes its sign"),
        (HarmonicTrap(2, 1), 2, "the mean of 1/r is infinite in one dimension"),
        (HarmonicTrap(2, interaction=lambda r: 1 / r), 2, "the interaction is one of your own"),
        (HarmonicTrap(2, potential=lambda r: r @ r), 2, "the potential is one of your own"),
        (HarmonicTrap(2), 13, "2\\^13 Gaussians are too many, at most 12 hidden units"),
        (HarmonicTrap(2, omega=[1.0, 2.0]), 2, "with 1/r all coordinates must have one width"),
    ],
)
def test_what_has_no_closed_form_is_refused_with_the_reason(trap, hidden, sentence, as_installed):
    with pytest.raises(ValueError, match=sentence):
        noise_free_ground_state(trap, hidden)


def test_other_bad_input(as_installed):
    with pytest.raises(ValueError, match="starts must be a whole number from 1 to 10000, got 0"):
        noise_free_ground_state(HarmonicTrap(2), starts=0)
    with pytest.raises(ValueError, match="state must have 4 coordinates"):
        closed_form_energy(machine_of(6, 1), HarmonicTrap(2, 2))
    with pytest.raises(TypeError, match=r"trap must be a tw.energy.HarmonicTrap, got int"):
        noise_free_ground_state(3)


def test_a_closed_form_says_whether_it_can_be_trusted():
    found = closed_form_energy(machine_of(4, 1), HarmonicTrap(2))
    assert found.ok and found.message == found.energy.message == "the result can be trusted"
    assert not noise_free_ground_state(HarmonicTrap(2), 1, iterations=1).ok
